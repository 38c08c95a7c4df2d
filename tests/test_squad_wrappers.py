"""The SQuAD wrappers print their commands, and run on a tiny model and local files."""

import os
import subprocess
import sys

import pytest
import tiny
import tiny_squad


def wrapper(name, *args, **settings):
  environment = dict(
    os.environ,
    PYTHON=sys.executable,
    TF_CPP_MIN_LOG_LEVEL="3",
    **{key: str(value) for key, value in settings.items()},
  )
  return subprocess.run(
    ["bash", os.path.join(tiny.ROOT, "scripts", name + ".sh"), *args],
    capture_output=True,
    text=True,
    env=environment,
    timeout=600,
  )


@pytest.mark.parametrize("name, count", [("gpu_squad", 1), ("tpu_squad", 1), ("prepro_squad", 2)])
def test_dry_run_prints_the_commands_and_passes_arguments_through(tmp_path, name, count):
  result = wrapper(
    name,
    "--dry_run",
    "--doc_stride=64",
    MODEL_DIR="/m",
    LEARNING_RATE="2e-5",
    VERSION="v1.1",
    DATA_DIR=tmp_path,
    GS_ROOT="gs://b",
    TPU_NAME="t",
  )
  assert result.returncode == 0, result.stderr
  lines = [line for line in result.stdout.splitlines() if "run_squad.py" in line]
  assert len(lines) == count
  for line in lines:
    assert "--pretrained=/m" in line and line.rstrip().endswith("--doc_stride=64")
    assert f"--train_file={tmp_path}/train-v1.1.json" in line
    assert ("--use_tpu=True --tpu=t" in line) == (name == "tpu_squad")
    assert ("--learning_rate=2e-5" in line) == (name != "prepro_squad")
  assert ("--lr_layer_decay_rate=1.0" in result.stdout) == (name != "prepro_squad")
  assert result.stdout.count("curl") == (2 if name == "prepro_squad" else 0)
  assert not os.listdir(tmp_path), "a dry run does nothing"


def test_preprocessing_downloads_missing_files_and_training_uses_them(tmp_path):
  """Downloads two small files from a "mirror", creates records, and trains on these records."""
  for split, seed in (("train", 1), ("dev", 2)):
    tiny_squad.write(tmp_path / "mirror" / f"{split}-v2.0.json", 12, seed, unanswerable=True)
  tiny.write_funnel(tmp_path / "model", block_size="1_1")
  settings = dict(
    DATA_DIR=tmp_path / "squad",
    MODEL_DIR=tmp_path / "model",
    MAX_SEQ_LENGTH=24,
    OUTPUT_DIR=tmp_path / "records",
    NUM_PROC=1,
    CHECKSUMS=os.devnull,
  )
  failed = wrapper("prepro_squad", SQUAD_URL=f"file://{tmp_path}/nowhere", **settings)
  assert failed.returncode == 1 and "download_squad.sh: error: cannot get" in failed.stderr
  made = wrapper("prepro_squad", SQUAD_URL=f"file://{tmp_path}/mirror", **settings)
  assert made.returncode == 0, made.stderr[-3000:]
  assert made.stdout.count("windows of") == 2
  assert {"dev-v2.0.json", "train-v2.0.json"} < set(os.listdir(tmp_path / "squad"))
  result = wrapper(
    "gpu_squad",
    EXP_DIR=tmp_path / "exp",
    TRAIN_BATCH_SIZE=8,
    TRAIN_STEPS=2,
    WARMUP_STEPS=1,
    SAVE_STEPS=2,
    **settings,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  assert "squad dev: " in result.stdout and "records:" not in result.stderr
  for name in ("predictions.json", "nbest_predictions.json", "null_odds.json"):
    assert (tmp_path / "exp" / name).exists()


def test_tpu_wrapper_without_a_tpu(tmp_path):
  tiny.write_funnel(tmp_path / "model", block_size="1_1")
  result = wrapper(
    "tpu_squad",
    MODEL_DIR=tmp_path / "model",
    GS_ROOT=tmp_path / "gs",
    INIT_CHECKPOINT=tmp_path / "model",
  )
  assert result.returncode == 1
  assert "leave --use_tpu out to run on CPU or GPU" in result.stderr
  assert "Traceback" not in result.stderr


def test_a_tpu_wrapper_needs_its_folder():
  """Without GS_ROOT it would write to the root of the file system. --dry_run is allowed."""
  result = wrapper("tpu_squad", GS_ROOT="")
  assert result.returncode == 2 and "tpu_squad.sh: set GS_ROOT, the folder" in result.stderr
  assert wrapper("tpu_squad", "--dry_run", GS_ROOT="").returncode == 0
