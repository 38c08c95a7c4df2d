"""The README's program and flags, and the download script, work."""

import os
import re
import subprocess
import sys
import zipfile

import tiny


def test_library_program_of_the_readme_runs(tmp_path):
  with open(os.path.join(tiny.ROOT, "README.md"), encoding="utf-8") as reader:
    (program,) = re.findall(r"```python\n(.*?)```", reader.read(), re.DOTALL)
  tiny.write_encoder(tmp_path / "pretrained")
  result = subprocess.run(
    [sys.executable, "-c", program],
    cwd=tmp_path,
    text=True,
    capture_output=True,
    env=dict(os.environ, PYTHONPATH=tiny.ROOT),
  )
  assert result.returncode == 0, result.stderr[-2000:]
  assert re.fullmatch(r"\(1, \d+, 16\)\n", result.stdout)


def test_task_of_the_contributors_page_trains(tmp_path):
  """The tagger is a complete task in under 60 lines of code."""
  with open(os.path.join(tiny.ROOT, "CONTRIBUTING.md"), encoding="utf-8") as reader:
    (program,) = re.findall(r"```python\n(.*?)```", reader.read(), re.DOTALL)
  body = program[program.index("@dataclasses.dataclass") :]
  assert sum(bool(line.strip()) for line in body.splitlines()) < 60
  (tmp_path / "my_tagger.py").write_text(program)
  label_of = {**dict.fromkeys(tiny.GOOD + tiny.BAD, "ADJ"), "film": "NOUN", "story": "NOUN"}
  for name, seed in (("train", 1), ("dev", 2)):
    lines = [
      " ".join(f"{word}/{label_of.get(word, 'O')}" for word in text.split())
      for text, _ in tiny.sentences(96, seed)
    ]
    (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
  tiny.write_encoder(tmp_path / "pretrained", dropout=0.0)
  result = subprocess.run(
    [sys.executable, "my_tagger.py", "--train_file=train.txt", "--eval_file=dev.txt"]
    + ["--max_seq_length=16", "--num_train_epochs=8", "--learning_rate=1e-2", "--seed=1"],
    cwd=tmp_path,
    text=True,
    capture_output=True,
    env=dict(os.environ, PYTHONPATH=tiny.ROOT, TF_CPP_MIN_LOG_LEVEL="3"),
  )
  assert result.returncode == 0, result.stderr[-2000:]
  (accuracy,) = re.findall(r"word_labels dev: accuracy ([\d.]+)", result.stdout)
  assert float(accuracy) > 0.95, result.stdout


def test_flags_of_the_readme_exist():
  """Every --flag that the README names is a flag of a script (or of a shell script)."""
  with open(os.path.join(tiny.ROOT, "README.md"), encoding="utf-8") as reader:
    named = set(re.findall(r"--(?:no)?([a-z]\w*[a-z\d])\b", reader.read()))
  known = set()
  for script in (
    "run_classifier.py",
    "run_squad.py",
    "run_race.py",
    "run_tagger.py",
    "train.py",
    "run_pretraining.py",
    "create_finetuning_data.py",
    "create_pretraining_data.py",
    "convert_checkpoint.py",
    "scripts/build_vocab.py",
  ):
    out, _ = tiny.run(script, "--help")
    known |= set(re.findall(r"--(?:\[no\])?(\w+)", out))
  # Flags of the wrappers, of every script, and of TensorBoard.
  assert named - known == {"help", "dry_run", "logdir"}


def test_download_glue(tmp_path):
  mirror = tmp_path / "mirror"
  mirror.mkdir()
  with zipfile.ZipFile(mirror / "CoLA.zip", "w") as archive:
    archive.writestr("CoLA/train.tsv", "x\t1\t\tA.\n")
  (mirror / "AX.tsv").write_text("index\tsentence1\tsentence2\n")
  header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
  (mirror / "msr_paraphrase_train.txt").write_text(header + "1\t10\t11\tA\tB\n0\t20\t21\tC\tD\n")
  (mirror / "msr_paraphrase_test.txt").write_text(header + "1\t30\t31\tE\tF\n")
  (mirror / "mrpc_dev_ids.tsv").write_text("20\t21\n")
  environment = dict(
    os.environ,
    GLUE_DIR=str(tmp_path / "glue"),
    GLUE_URL=f"file://{mirror}",
    MRPC_URL=f"file://{mirror}",
  )

  def download(*tasks):
    return subprocess.run(
      ["bash", os.path.join(tiny.ROOT, "scripts", "download_glue.sh"), *tasks],
      env=environment,
      capture_output=True,
      text=True,
    )

  result = download("CoLA", "AX", "MRPC")
  assert result.returncode == 0, result.stderr
  glue = tmp_path / "glue"
  assert (glue / "CoLA" / "train.tsv").read_text() == "x\t1\t\tA.\n"
  assert (glue / "AX" / "AX.tsv").exists()
  assert (glue / "MRPC" / "train.tsv").read_text().splitlines()[1:] == ["1\t10\t11\tA\tB"]
  assert (glue / "MRPC" / "dev.tsv").read_text().splitlines()[1:] == ["0\t20\t21\tC\tD"]
  assert (glue / "MRPC" / "test.tsv").read_text().splitlines()[1:] == ["0\t30\t31\tE\tF"]
  assert "is there" in download("CoLA").stdout
  failed = download("RTE")
  assert failed.returncode != 0 and "cannot get" in failed.stderr
  assert not (glue / "RTE").exists(), "a failed download leaves nothing behind"
  assert "unknown task Cola" in download("Cola").stderr
