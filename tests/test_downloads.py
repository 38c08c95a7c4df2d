"""The download scripts get small archives from a folder, check them and keep what is there."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
import tiny

sys.path.insert(0, os.path.join(tiny.ROOT, "scripts"))
import unpack


def download(name, *args, **settings):
  environment = dict(os.environ, **{"CHECKSUMS": os.devnull, **settings})
  return subprocess.run(
    ["bash", os.path.join(tiny.ROOT, "scripts", f"download_{name}.sh"), *args],
    env={key: str(value) for key, value in environment.items()},
    capture_output=True,
    text=True,
  )


def write_tar(path, members, **attributes):
  """Writes name -> text; attributes of every member, such as a type."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, "w:gz") as archive:
    for name, text in members.items():
      member = tarfile.TarInfo(name)
      member.size = len(text)
      for key, value in attributes.items():
        setattr(member, key, value)
      archive.addfile(member, io.BytesIO(text.encode()))


def sha256(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def mirror(tmp_path):
  folder = tmp_path / "mirror"
  folder.mkdir()
  with zipfile.ZipFile(folder / "CoLA.zip", "w") as archive:
    archive.writestr("CoLA/train.tsv", "x\t1\t\tA.\n")
    archive.writestr("__MACOSX/._train.tsv", "")
  (folder / "AX.tsv").write_text("index\tsentence1\tsentence2\n")
  header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
  (folder / "msr_paraphrase_train.txt").write_text(header + "1\t10\t11\tA\tB\n0\t20\t21\tC\tD\n")
  (folder / "msr_paraphrase_test.txt").write_text(header + "1\t30\t31\tE\tF\n")
  (folder / "mrpc_dev_ids.tsv").write_text("20\t21\n")
  return folder


def test_glue(mirror, tmp_path):
  settings = dict(
    GLUE_DIR=tmp_path / "glue", GLUE_URL=f"file://{mirror}", MRPC_URL=f"file://{mirror}"
  )
  result = download("glue", "CoLA", "AX", "MRPC", **settings)
  assert result.returncode == 0, result.stderr
  glue = tmp_path / "glue"
  assert (glue / "CoLA" / "train.tsv").read_text() == "x\t1\t\tA.\n"
  assert (glue / "AX" / "AX.tsv").exists()
  assert (glue / "MRPC" / "train.tsv").read_text().splitlines()[1:] == ["1\t10\t11\tA\tB"]
  assert (glue / "MRPC" / "dev.tsv").read_text().splitlines()[1:] == ["0\t20\t21\tC\tD"]
  assert (glue / "MRPC" / "test.tsv").read_text().splitlines()[1:] == ["0\t30\t31\tE\tF"]
  again = download("glue", "CoLA", "AX", "MRPC", **settings)
  assert again.returncode == 0 and again.stdout.count("is there.") == 3
  failed = download("glue", "RTE", **settings)
  assert failed.returncode != 0 and "cannot get" in failed.stderr
  assert not (glue / "RTE").exists(), "a failed download leaves nothing behind"
  assert "unknown task Cola" in download("glue", "Cola", **settings).stderr


def test_checksums_are_recorded_and_checked(mirror, tmp_path):
  settings = dict(GLUE_DIR=tmp_path / "glue", GLUE_URL=f"file://{mirror}")
  archive, folder = mirror / "CoLA.zip", tmp_path / "glue" / "CoLA"
  assert sha256(archive) in download("glue", "CoLA", **settings).stdout
  record = tmp_path / "glue" / "sha256sums.txt"
  assert record.read_text() == f"{sha256(archive)}  CoLA.zip\n"
  folder.rename(tmp_path / "moved")
  with zipfile.ZipFile(archive, "a") as changed:
    changed.writestr("CoLA/dev.tsv", "")
  refused = download("glue", "CoLA", **settings)
  assert refused.returncode == 1 and not folder.exists()
  assert f"the SHA-256 is {sha256(archive)}, not " in refused.stderr
  record.unlink()
  listed = tmp_path / "checksums.txt"
  listed.write_text(f"{sha256(archive)}  CoLA.zip\n")
  assert download("glue", "CoLA", **{**settings, "CHECKSUMS": listed}).returncode == 0
  assert not record.exists(), "only unknown checksums are recorded"
  refused = download(
    "glue",
    "CoLA",
    GLUE_DIR=tmp_path / "b",
    GLUE_URL=f"file://{mirror}",
    CHECKSUMS=os.path.join(tiny.ROOT, "scripts", "checksums.txt"),
  )
  assert "not f212fcd832b8f7b435fb991f101abf89" in refused.stderr, "the published checksum"


def test_text_classification(tmp_path):
  source = tmp_path / "mirror"
  write_tar(source / "aclImdb_v1.tar.gz", {"aclImdb/train/pos/1_9.txt": "Good."})
  write_tar(source / "ag_news_csv.tgz", {"ag_news_csv/train.csv": '"1","a","b"\n'})
  result = download(
    "textcls",
    "imdb",
    "ag",
    DATA_ROOT=tmp_path / "data",
    IMDB_URL=f"file://{source}",
    TEXTCLS_URL=f"file://{source}",
  )
  assert result.returncode == 0, result.stderr
  assert (tmp_path / "data" / "aclImdb" / "train" / "pos" / "1_9.txt").read_text() == "Good."
  assert (tmp_path / "data" / "ag_news_csv" / "train.csv").exists()


def test_squad(tmp_path):
  for split in ("train", "dev"):
    (tmp_path / f"{split}-v1.1.json").write_text("{}")
  result = download("squad", "v1.1", DATA_DIR=tmp_path / "squad", SQUAD_URL=f"file://{tmp_path}")
  assert result.returncode == 0 and (tmp_path / "squad" / "dev-v1.1.json").read_text() == "{}"
  assert "known are v1.1 v2.0" in download("squad", "2").stderr


def test_checkpoints(tmp_path):
  source = tmp_path / "mirror"
  write_tar(source / "B4-4-4H768-ELEC-FULL-TF.tar.gz", {"B4-4-4H768-ELEC/net_config.json": "{}"})
  (source / "2020_02_20").mkdir()
  name = "uncased_L-2_H-128_A-2"
  with zipfile.ZipFile(source / "2020_02_20" / f"{name}.zip", "w") as archive:
    archive.writestr("bert_config.json", "{}")
    archive.writestr("vocab.txt", "[PAD]\n")
  result = download(
    "checkpoints",
    "B4-4-4H768-FULL",
    name,
    CHECKPOINT_DIR=tmp_path / "models",
    FUNNEL_URL=f"file://{source}",
    BERT_URL=f"file://{source}",
  )
  assert result.returncode == 0, result.stderr
  assert (tmp_path / "models" / "B4-4-4H768-FULL" / "net_config.json").exists()
  assert sorted(os.listdir(tmp_path / "models" / name)) == ["bert_config.json", "vocab.txt"]
  assert "unknown model B5" in download("checkpoints", "B5").stderr


@pytest.mark.parametrize("name", ["glue", "textcls", "squad", "checkpoints"])
def test_dry_runs_print_https_addresses(name, tmp_path):
  models = ["B6-6-6H768", "electra_small"] if name == "checkpoints" else []
  folders = dict.fromkeys(("GLUE_DIR", "DATA_ROOT", "DATA_DIR", "CHECKPOINT_DIR"), tmp_path / "new")
  result = download(name, "--dry_run", *models, **folders)
  lines = [line for line in result.stdout.splitlines() if line.startswith("curl ")]
  assert result.returncode == 0 and len(lines) >= 2
  assert all(" https://" in line for line in lines) and not (tmp_path / "new").exists()
  assert "unknown argument --all" in download(name, "--all").stderr


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt"])
def test_members_outside_the_folder_are_refused(name, tmp_path):
  write_tar(tmp_path / "bad.tar.gz", {"a/good.txt": "x", name: "x"})
  with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
    archive.writestr(name, "x")
  for archive in ("bad.tar.gz", "bad.zip"):
    with pytest.raises(ValueError, match="would be written outside the folder"):
      unpack.unpack(str(tmp_path / archive), str(tmp_path / "out"))
  assert sorted(os.listdir(tmp_path)) == ["bad.tar.gz", "bad.zip"]


def test_links_are_refused(tmp_path):
  write_tar(tmp_path / "bad.tgz", {"a": ""}, type=tarfile.SYMTYPE, linkname="/etc/passwd")
  with pytest.raises(ValueError, match="'a' is a link or a device"):
    unpack.unpack(str(tmp_path / "bad.tgz"), str(tmp_path / "out"))


def test_a_refused_archive_is_one_line_of_error(tmp_path):
  source = tmp_path / "mirror"
  write_tar(source / "aclImdb_v1.tar.gz", {"../evil": "x"})
  result = download("textcls", "imdb", DATA_ROOT=tmp_path / "data", IMDB_URL=f"file://{source}")
  assert result.returncode == 1 and "Traceback" not in result.stderr
  assert "unpack.py: error: " in result.stderr and not (tmp_path / "data" / "aclImdb").exists()
