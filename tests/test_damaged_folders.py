"""Damaged files in a run's folder: one message, and the newest complete checkpoint is used."""

import os
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
import tiny

from errors import UserError
from training import checkpoints, damage, hooks


def write_checkpoint(folder, step):
  """Writes model.ckpt-STEP of one variable; returns its prefix."""
  prefix = str(folder / f"model.ckpt-{step}")
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=["weight"],
    shape_and_slices=[""],
    tensors=[np.arange(1000, dtype=np.float32)],
  )
  return prefix


def index_of(prefix):
  return f"{prefix}.index"


def data_of(prefix):
  return f"{prefix}.data-00000-of-00001"


def flip_a_byte(path):
  with open(path, "r+b") as file:
    file.seek(os.path.getsize(path) // 2)
    byte = file.read(1)[0]
    file.seek(-1, os.SEEK_CUR)
    file.write(bytes([byte ^ 0xFF]))


def overwrite(contents):
  def change(path):
    with open(path, "wb") as writer:
      writer.write(contents)

  return change


def cut(path):
  os.truncate(path, os.path.getsize(path) // 2)


@pytest.mark.parametrize(
  "file, change",
  [
    (index_of, overwrite(b"")),
    (index_of, overwrite(b"garbage " * 100)),
    (index_of, cut),
    (data_of, overwrite(b"")),
    (data_of, cut),
  ],
)
def test_the_newest_checkpoint_that_can_be_read_is_used(tmp_path, caplog, file, change):
  earlier, newest = (write_checkpoint(tmp_path, step) for step in (10, 20))
  checkpoints.write_state(str(tmp_path), ["model.ckpt-10", "model.ckpt-20"])
  assert checkpoints.latest(str(tmp_path)) == newest
  change(file(newest))
  assert checkpoints.latest(str(tmp_path)) == earlier
  (message,) = {
    record.getMessage() for record in caplog.records if record.name == "training.checkpoints"
  }
  assert message.startswith(f"{newest}.") and message.endswith(": use model.ckpt-10")
  assert "damaged" in message
  assert checkpoints.all_of(str(tmp_path)) == [earlier]
  for path in (newest, index_of(newest)):
    with pytest.raises(UserError, match=r"model.ckpt-20\..* damaged.*name another checkpoint"):
      checkpoints.resolve(path)
  checkpoints.update_state(str(tmp_path))
  assert tf.train.latest_checkpoint(str(tmp_path)) == earlier
  shutil.copy(file(earlier), file(newest))
  assert checkpoints.latest(str(tmp_path)) == earlier, "of the state file"
  assert checkpoints.all_of(str(tmp_path)) == [earlier, newest], "a restored file is read again"


def test_changed_data_are_found_when_they_are_read(tmp_path):
  prefix = write_checkpoint(tmp_path, 10)
  checkpoints.check_data(prefix)
  flip_a_byte(data_of(prefix))
  assert checkpoints.damage_of(prefix) is None, "their size is right"
  with pytest.raises(damage.DamagedError, match="model.ckpt-10.data-.* damaged .*Checksum"):
    checkpoints.check_data(prefix)
  os.remove(data_of(prefix))
  with pytest.raises(damage.DamagedError, match="have 0 bytes, the variables 4000"):
    checkpoints.check_data(prefix)


@pytest.mark.parametrize("contents", [b"\xff\xfe\x00", b'model_checkpoint_path: "/other/x-5"\n'])
def test_a_state_file_without_a_checkpoint_does_not_stop_training(tmp_path, contents):
  (tmp_path / "checkpoint").write_bytes(contents)
  checkpoints.update_state(str(tmp_path))
  assert os.listdir(tmp_path) == []


def test_bad_lines_of_the_log_are_skipped(tmp_path):
  log = hooks.MetricsLog(str(tmp_path))
  log.write("eval", 1, {"loss": 1.0})
  with open(log.path, "ab") as writer:
    writer.write(b'\xff\xfe\n[1]\n3\nnull\n{"kind": "eval"}\n{"kind": "eval", "step": [2]}\n')
    writer.write(b"[" * 100_000 + b'\n{"kind": "eval", "st')
  log = hooks.MetricsLog(str(tmp_path))
  log.write("eval", 3, {"loss": 3.0})
  assert log.read("eval") == {1: {"loss": 1.0}, 3: {"loss": 3.0}}


# ---- Runs ---------------------------------------------------------------------------------------


def flags_of(folder, name, **settings):
  values = dict(
    task_name="cola",
    pretrained=folder / "encoder",
    data_dir=folder / "CoLA",
    output_dir=folder / "records",
    model_dir=folder / name,
    max_seq_length=24,
    train_batch_size=8,
    train_steps=9,
    save_steps=3,
    log_freq=1,
  )
  values.update(settings)
  return [f"--{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("damaged")
  tiny.write_encoder(folder / "encoder")
  tiny.write_cola(folder / "CoLA")
  return folder


def test_evaluation_goes_on_past_damaged_checkpoints(workspace):
  flags = flags_of(workspace, "run")
  tiny.run("run_classifier.py", "--do_train", *flags)
  events = [name for name in os.listdir(workspace / "run") if name.startswith("events")]
  assert sum(os.path.getsize(workspace / "run" / name) for name in events) < 20_000, "no graph"
  flip_a_byte(data_of(f"{workspace}/run/model.ckpt-6"))
  cut(index_of(f"{workspace}/run/model.ckpt-9"))
  out, err = tiny.run("run_classifier.py", "--do_eval", "--eval_all_ckpt", *flags)
  assert "model.ckpt-9.index is damaged" in err and "model.ckpt-6.data-* are damaged" in err
  assert "Evaluate the other checkpoints" in err and "model.ckpt-3" in out
  _, err = tiny.run("run_classifier.py", "--do_train", *flags, status=1)
  assert "model.ckpt-9.index is damaged" in err and "use model.ckpt-6" in err
  assert f"error: {workspace}/run/model.ckpt-6.data-* are damaged" in err
  assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("evaluates", [False, True])
def test_a_deleted_folder_ends_training_with_one_message(workspace, evaluates):
  name = f"deleted_{evaluates}"
  settings = {"train_steps": 100_000, "save_steps": 5, "eval_every_steps": 5 if evaluates else 0}
  flags = flags_of(workspace, name, **settings)
  process = tiny.start("run_classifier.py", "--do_train", *flags)
  deadline = time.time() + 100
  while time.time() < deadline and not (workspace / name / "model.ckpt-5.index").exists():
    time.sleep(0.05)
  shutil.rmtree(workspace / name, ignore_errors=True)
  _, err = process.communicate(timeout=100)
  assert process.returncode == 1 and "Traceback" not in err, err
  assert "was deleted or moved during training" in err
