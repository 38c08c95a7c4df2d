"""Checkpoints during training, signals, the lock of model_dir, full disks."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny

import config
from conversion import commands
from errors import UserError
from training import app, saving
from utils import console, disk, files, lock

v1 = tf.compat.v1


def train(folder, steps, save_steps=10, asked=0, **settings):
  """Trains a variable from the newest checkpoint up to a step, as Estimator does."""
  os.makedirs(folder, exist_ok=True)
  with tf.Graph().as_default():
    step = v1.train.get_or_create_global_step()
    weight = v1.get_variable("weight", initializer=0.0)
    update = tf.group(step.assign_add(1), weight.assign_add(1.0))
    v1.add_to_collection(
      v1.GraphKeys.SAVERS, v1.train.Saver(max_to_keep=None, sharded=True, defer_build=True)
    )
    trainer = config.Trainer(model_dir=str(folder), save_steps=asked, **settings)
    hook = saving.SaveHook(str(folder), trainer, save_steps, steps)
    stop = v1.train.StopAtStepHook(last_step=steps)
    with v1.train.MonitoredTrainingSession(
      checkpoint_dir=str(folder),
      hooks=[stop, hook],
      save_checkpoint_secs=None,
      save_summaries_steps=None,
      save_summaries_secs=None,
      log_step_count_steps=None,
    ) as session:
      while not session.should_stop():
        session.run(update)


def steps_in(folder):
  return sorted(int(name[len("model.ckpt-") : -len(".index")]) for name in os.listdir(folder)
                if name.endswith(".index"))  # fmt: skip


@pytest.fixture(autouse=True)
def no_signals(monkeypatch):
  monkeypatch.setattr(console, "_signals", [])
  monkeypatch.setattr(console, "_is_deferred", False)


def test_checkpoints_are_at_multiples_and_at_the_end(tmp_path):
  train(tmp_path, 24)
  assert steps_in(tmp_path) == [10, 20, 24], "not at step 0, which has no trained weights"
  train(tmp_path, 45)
  assert steps_in(tmp_path) == [10, 20, 24, 30, 40, 45], "at the same steps after a restart"
  assert not [name for name in os.listdir(tmp_path) if name.endswith((".meta", ".pbtxt"))]
  assert not [name for name in os.listdir(tmp_path) if name.startswith("events")], "no graph"
  found = tf.train.load_checkpoint(str(tmp_path / "model.ckpt-30"))
  assert found.get_tensor("weight") == found.get_tensor("global_step") == 30


def test_no_checkpoint_is_a_step_before_the_last(tmp_path):
  train(tmp_path, 41, save_steps=20)
  assert steps_in(tmp_path) == [20, 41]
  train(tmp_path / "asked", 41, save_steps=20, asked=20)
  assert steps_in(tmp_path / "asked") == [20, 40, 41], "unless each is asked for"


def test_step_0_is_saved_for_its_evaluation(tmp_path):
  train(tmp_path, 10, eval_all_ckpt=True, eval_start_step=-1)
  assert steps_in(tmp_path) == [0, 10]


def test_the_space_of_checkpoints_is_logged_before_the_first_step(tmp_path, caplog, monkeypatch):
  monkeypatch.setattr(saving, "_size", lambda: 500.0)
  monkeypatch.setattr(disk, "free_bytes", lambda folder: 2_100_000_000)
  with caplog.at_level("INFO", "training.saving"):
    train(tmp_path / "few", 35, do_eval=True)
    train(tmp_path / "many", 200, max_save=2)
    train(tmp_path / "all", 200, max_save=0)
  messages = [record.getMessage() for record in caplog.records]
  plans = [message for message in messages if message.startswith("Checkpoints:")]
  each = "Checkpoints: 500.0 MB each, at most"
  assert plans == [
    f"{each} 4 new ones at a time and the best: 2500.0 MB; free: 2100.0 MB",
    f"{each} 3 new ones at a time: 1500.0 MB; free: 2100.0 MB",
    f"{each} 20 new ones at a time: 10000.0 MB; free: 2100.0 MB",
  ]
  warned = [message for message in messages if "the disk has no space for the" in message]
  assert [message.split(":")[0] for message in warned] == [f"{tmp_path}/few", f"{tmp_path}/all"]


def test_a_signal_ends_training_after_the_step_and_its_checkpoint(tmp_path, monkeypatch):
  steps = []
  after_run = saving.SaveHook.after_run

  def interrupt(hook, context, values):
    steps.append(1)
    if len(steps) == 13:
      console._signals.append(signal.SIGTERM)
    after_run(hook, context, values)

  monkeypatch.setattr(saving.SaveHook, "after_run", interrupt)
  with pytest.raises(console.Interrupted) as found:
    train(tmp_path, 40)
  assert found.value.number == signal.SIGTERM and steps_in(tmp_path) == [10, 13]


# ---- Lock ---------------------------------------------------------------------------------------


def test_a_folder_is_locked_once_and_left_as_it_was(tmp_path):
  folder = str(tmp_path)
  with lock.exclusive(folder):
    wanted = f"process {os.getpid()} on .* is training in this folder; .* choose another"
    with pytest.raises(UserError, match=wanted), lock.exclusive(folder):
      pass
  with lock.exclusive(folder), lock.exclusive("gs://bucket/folder"):
    pass
  assert os.listdir(folder) == []


def test_the_lock_of_a_killed_process_does_not_block(tmp_path):
  program = (
    "import sys, time\n"
    "from utils import lock\n"
    "with lock.exclusive(sys.argv[1]):\n"
    "  print('locked', flush=True)\n"
    "  time.sleep(100)\n"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", program, tmp_path], cwd=tiny.ROOT, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout and process.stdout.readline() == "locked\n"
  with pytest.raises(UserError, match=f"process {process.pid} on"), lock.exclusive(str(tmp_path)):
    pass
  process.kill()
  process.communicate()
  assert os.listdir(tmp_path) == [".lock"]
  with lock.exclusive(str(tmp_path)):
    pass


# ---- Full disk ----------------------------------------------------------------------------------

FULL = "/dev/full"  # a device on which every write fails as on a full disk
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason=f"no {FULL}")


def write_with_python():
  with files.open_file(FULL, "w") as writer:
    writer.write("x")


def write_with_tensorflow():
  with tf.io.gfile.GFile(FULL, "w") as writer:
    writer.write("x")


def write_records():
  with tf.io.TFRecordWriter(FULL) as writer:
    writer.write(b"x")


@needs_full
@pytest.mark.parametrize("write", [write_with_python, write_with_tensorflow, write_records])
def test_a_full_disk_is_no_lack_of_memory(write):
  with pytest.raises((OSError, tf.errors.OpError)) as found:
    write()
  message = app._message(found.value)
  assert message and message.startswith("no space left on the disk: ") and "memory" not in message


def test_a_lack_of_memory_is_no_full_disk():
  error = tf.errors.ResourceExhaustedError(
    None, None, "Graph execution error:\n\nOOM when allocating tensor with shape[8,512,3072]"
  )
  message = app._message(error)
  assert message and message.startswith("out of memory; raise --gradient_accumulation_steps")
  assert "OOM when allocating tensor" in message
  assert "out of memory" in (app._message(MemoryError()) or "")


@contextlib.contextmanager
def small_disk(path, size):
  """Mounts a file system of a size at a path; skips the test if that is not allowed."""
  path.mkdir()
  done = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True
  )
  if done.returncode:
    pytest.skip(f"cannot mount a file system: {done.stderr}")
  try:
    yield
  finally:
    subprocess.run(["umount", "-l", path], check=True)


def test_a_checkpoint_that_does_not_fit_is_removed(tmp_path):
  with small_disk(tmp_path / "disk", "60k"):
    train(tmp_path / "disk", 10)
    filler = tmp_path / "disk" / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as writer:
      while True:
        writer.write(bytes(1024))
    wanted = "no space left on the disk for the checkpoint of step 20.*model.ckpt-10 is the last"
    with pytest.raises(UserError, match=wanted):
      train(tmp_path / "disk", 20)
    assert steps_in(tmp_path / "disk") == [10]
    assert not [name for name in os.listdir(tmp_path / "disk") if "-20" in name]
    filler.unlink()
    train(tmp_path / "disk", 20)
    assert steps_in(tmp_path / "disk") == [10, 20]


def test_safetensors_on_a_full_disk(tmp_path):
  with small_disk(tmp_path / "disk", "4k"):
    path = str(tmp_path / "disk" / "x.safetensors")
    with pytest.raises(UserError, match="x.safetensors: no space left on the disk"):
      commands._write_safetensors(path, {"x": np.zeros(5000)}, path)


def test_free_space():
  assert disk.free_bytes("gs://bucket/folder") is None
  assert (disk.free_bytes("none/yet") or 0) > 0


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path):
  process = subprocess.Popen([sys.executable, "-c", ""])
  process.wait()
  host = socket.gethostname()
  names = [
    f".x.tfrecord.shard-00001-of-00002~{host}-{process.pid}",
    f".x.tfrecord~{host}-{os.getpid()}",
    f".x.tfrecord~other-{process.pid}",
    f".y.tfrecord~{host}-{process.pid}",
    "x.tfrecord",
  ]
  for name in names:
    (tmp_path / name).write_text("")
  files.remove_abandoned(str(tmp_path), "x.tfrecord")
  assert sorted(os.listdir(tmp_path)) == sorted(names[1:])
  files.remove_abandoned(str(tmp_path / "none"))


# ---- Runs ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_on_a_full_disk_keeps_its_last_checkpoint_and_continues(tmp_path):
  flags = [
    "--do_train",
    "--task_name=cola",
    f"--pretrained={tiny.write_encoder(tmp_path / 'encoder')}",
    f"--data_dir={tiny.write_cola(tmp_path / 'CoLA')}",
    "--max_seq_length=24",
    "--train_batch_size=8",
    "--train_steps=12",
    "--save_steps=4",
    "--max_save=1",
  ]
  model_dir, records = tmp_path / "disk" / "run", f"--output_dir={tmp_path / 'records'}"
  with small_disk(tmp_path / "disk", "8k"):
    _, err = tiny.run("run_classifier.py", *flags, f"--output_dir={model_dir}", status=1)
    assert "no space left on the disk: " in err and ".tfrecord" in err
  os.rmdir(tmp_path / "disk")
  with small_disk(tmp_path / "disk", "150k"):
    _, err = tiny.run("run_classifier.py", *flags, records, f"--model_dir={model_dir}", status=1)
    assert "the disk has no space for the checkpoints of this run" in err
    assert f"of step 8, which needs 0.1 MB; {model_dir}/model.ckpt-4 is the last one" in err
    assert "Traceback" not in err and "memory" not in err
    subprocess.run(["mount", "-o", "remount,size=400k", tmp_path / "disk"], check=True)
    run = [*flags, records, f"--model_dir={model_dir}"]
    _, err = tiny.run("run_classifier.py", *run, "--seed=1", status=1)
    assert f"{model_dir}: the run in this folder has --seed=42; continue" in err
    _, err = tiny.run("run_classifier.py", *run)
    assert f"Continue from {model_dir}/model.ckpt-4" in err
    assert steps_in(model_dir) == [12]
