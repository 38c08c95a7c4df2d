"""Run folders may have odd names, be moved or copied, and miss files."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny

from errors import UserError
from training import checkpoints

v1 = tf.compat.v1


def touch(folder, *names, num_shards=1):
  """Writes the files of checkpoints of one small variable; all but the first shard are empty."""
  folder.mkdir(parents=True, exist_ok=True)
  for name in names:
    save({"weight": np.float32([1.0, 2.0])}, str(folder / name))
    first = folder / f"{name}.data-00000-of-00001"
    first.rename(folder / f"{name}.data-00000-of-{num_shards:05d}")
    for shard in range(1, num_shards):
      (folder / f"{name}.data-{shard:05d}-of-{num_shards:05d}").write_text("")


def save(values, prefix):
  """Writes a checkpoint with the operation that TensorFlow's Saver uses."""
  names = list(values)
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=names,
    shape_and_slices=[""] * len(names),
    tensors=list(values.values()),
  )


def state(folder, *paths):
  v1.train.update_checkpoint_state(str(folder), str(paths[-1]), [str(path) for path in paths])


# ---- Choice of the checkpoint -------------------------------------------------------------------


def test_the_state_file_is_used_as_in_tensorflow(tmp_path, caplog):
  """Also if newer files exist, from a run that was killed before it wrote the state file."""
  touch(tmp_path, "model.ckpt-2", "model.ckpt-10", "model.ckpt-20")
  state(tmp_path, tmp_path / "model.ckpt-2", tmp_path / "model.ckpt-10")
  assert checkpoints.latest(str(tmp_path)) == tf.train.latest_checkpoint(str(tmp_path))
  assert checkpoints.latest(str(tmp_path)) == f"{tmp_path}/model.ckpt-10"
  (warning,) = (
    record.getMessage()
    for record in caplog.records  # once, though read several times
    if record.name == "training.checkpoints"
  )
  assert "names model.ckpt-10: use it, and not model.ckpt-20, which is newer" in warning
  assert checkpoints.latest(str(tmp_path / "none")) is None


@pytest.mark.parametrize(
  "contents", [None, b"", b'model_checkpoint_path: "model.ckpt-30"\n', b'cut off: "', b"\xff\xfe"]
)
def test_the_highest_complete_step_replaces_a_bad_state_file(tmp_path, contents):
  touch(tmp_path, "model.ckpt-0", "model.ckpt-9", "model.ckpt-10", num_shards=3)
  (tmp_path / "model.ckpt-20.index").write_text("")
  touch(tmp_path, "model.ckpt-30", num_shards=3)
  (tmp_path / "model.ckpt-30.data-00001-of-00003").unlink()
  (tmp_path / "model.ckpt-40.data-00000-of-00001").write_text("")
  (tmp_path / "model.ckpt-50_temp").mkdir()
  if contents is not None:
    (tmp_path / "checkpoint").write_bytes(contents)
  folder = str(tmp_path)
  assert checkpoints.latest(folder) == f"{folder}/model.ckpt-10"
  assert checkpoints.resolve(folder) == f"{folder}/model.ckpt-10"
  assert [checkpoints.step_of(prefix) for prefix in checkpoints.all_of(folder)] == [0, 9, 10]
  with pytest.raises(UserError, match=r"model.ckpt-30: the checkpoint is incomplete"):
    checkpoints.resolve(f"{folder}/model.ckpt-30")


def test_a_state_file_is_never_followed_to_another_folder(tmp_path):
  other, own = tmp_path / "other", tmp_path / "own"
  touch(other, "model.ckpt-5", "model.ckpt-7")
  touch(own, "model.ckpt-5", "model.ckpt-6")
  for path in (other / "model.ckpt-5", "../other/model.ckpt-5"):
    state(own, path)
    assert checkpoints.latest(str(own)) == f"{own}/model.ckpt-5"
  state(own, other / "model.ckpt-7")
  assert checkpoints.latest(str(own)) == f"{own}/model.ckpt-6"
  shutil.rmtree(other)
  assert checkpoints.latest(str(own)) == f"{own}/model.ckpt-6"


def test_the_state_file_is_updated_before_training(tmp_path):
  touch(tmp_path, "model.ckpt-1", "model.ckpt-3", "model.ckpt-5")
  checkpoints.update_state(str(tmp_path))
  found = tf.train.get_checkpoint_state(str(tmp_path))
  assert found.model_checkpoint_path == f"{tmp_path}/model.ckpt-5"
  assert list(found.all_model_checkpoint_paths) == [f"{tmp_path}/model.ckpt-5"], (
    "files that no state file lists are the user's: training must not delete them"
  )
  state(tmp_path, "/old/model.ckpt-2", "/old/model.ckpt-3", "/old/model.ckpt-5")
  checkpoints.update_state(str(tmp_path))
  assert str(tmp_path) not in (tmp_path / "checkpoint").read_text()
  found = tf.train.get_checkpoint_state(str(tmp_path))
  assert list(found.all_model_checkpoint_paths) == [
    f"{tmp_path}/model.ckpt-{step}" for step in (3, 5)
  ]


def test_checkpoints_without_steps_must_be_named(tmp_path):
  touch(tmp_path, "bert_model.ckpt")
  assert checkpoints.resolve(str(tmp_path)) == f"{tmp_path}/bert_model.ckpt"
  assert checkpoints.latest(str(tmp_path)) is None, "it was not trained here"
  touch(tmp_path, "model.ckpt")
  with pytest.raises(UserError, match="several checkpoints.*: bert_model.ckpt, model.ckpt. Name"):
    checkpoints.resolve(str(tmp_path))


def test_incomplete_checkpoints_stop_a_run(tmp_path):
  (tmp_path / "model.ckpt-0.data-00000-of-00001").write_text("")
  checkpoints.check_restorable(str(tmp_path))  # killed before the first update: nothing is lost
  for name in ("model.ckpt-12.index", "model.ckpt-12.data-00000-of-00001"):
    (tmp_path / name).write_text("")
    if name.endswith("index"):
      with pytest.raises(UserError, match="model.ckpt-12: this checkpoint is incomplete"):
        checkpoints.check_restorable(str(tmp_path))
  touch(tmp_path, "model.ckpt-12")
  checkpoints.check_restorable(str(tmp_path))


def test_a_copy_names_itself_by_a_relative_path(tmp_path):
  touch(tmp_path / "run [1]", "model.ckpt-3", "model.ckpt-31", num_shards=2)
  copied = checkpoints.copy(f"{tmp_path}/run [1]/model.ckpt-3", f"{tmp_path}/run [1]/best")
  assert copied == f"{tmp_path}/run [1]/best/model.ckpt-3"
  assert str(tmp_path) not in (tmp_path / "run [1]" / "best" / "checkpoint").read_text()
  os.rename(tmp_path / "run [1]", tmp_path / "moved")
  best = str(tmp_path / "moved" / "best")
  assert checkpoints.latest(best) == tf.train.latest_checkpoint(best) == f"{best}/model.ckpt-3"
  assert sorted(os.listdir(best)) == [
    "checkpoint",
    *(f"model.ckpt-3.{end}" for end in ("data-00000-of-00002", "data-00001-of-00002", "index")),
  ]


# ---- A whole run, in a folder that looks like a pattern -----------------------------------------


def flags_of(folder, model_dir, **kwargs):
  values = dict(
    task_name="cola",
    data_dir=folder / "CoLA",
    output_dir=folder / "records",
    model_dir=model_dir,
    max_seq_length=24,
    train_batch_size=8,
    train_steps=12,
    eval_every_steps=6,
    save_steps=3,
    max_save=2,
    learning_rate=2e-3,
  )
  return [f"--{name}={value}" for name, value in {**values, **kwargs}.items()]


def steps_in(folder):
  return sorted(checkpoints.step_of(prefix) for prefix in checkpoints.all_of(str(folder)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("folders")
  tiny.write_cola(folder / "CoLA")
  encoder = tiny.write_encoder(folder / "bert*[base]")
  (folder / "bert*[base]" / "checkpoint").unlink()
  out, err = tiny.run(
    "run_classifier.py", f"--pretrained={encoder}", *flags_of(folder, folder / "runs" / "lr[1e-3]")
  )
  return folder, out, err


def test_a_folder_may_look_like_a_pattern(trained):
  folder, out, err = trained
  run = folder / "runs" / "lr[1e-3]"
  assert "cola dev: " in out and f"{run}/model.ckpt-" in out, out
  assert f"Start from {folder}/bert*[base]/bert_model.ckpt" in err
  assert steps_in(run) == [9, 12], "old checkpoints are deleted here as elsewhere"
  assert os.listdir(folder / "runs") == ["lr[1e-3]"]
  for state_file in (run / "checkpoint", run / "best" / "checkpoint"):
    assert "/" not in state_file.read_text()


def test_a_lost_state_file_loses_no_training(trained, tmp_path):
  """Training continues from the newest checkpoint: its weights, moments and step."""
  folder, _, _ = trained
  run = tmp_path / "lost[1]"
  shutil.copytree(folder / "runs" / "lr[1e-3]", run)
  (run / "checkpoint").unlink()
  files = [run / f"model.ckpt-{step}.data-00000-of-00001" for step in (9, 12)]
  before = [path.read_bytes() for path in files]
  _, err = tiny.run(
    "run_classifier.py",
    "--do_train",
    *flags_of(folder, run, train_steps=18, max_save=5, decay_method="constant"),
  )
  assert f"Continue from {run}/model.ckpt-12" in err, err
  assert steps_in(run) == [9, 12, 15, 18]
  assert [path.read_bytes() for path in files] == before
  reader = checkpoints.open_reader(f"{run}/model.ckpt-15")
  assert reader.get_tensor("global_step") == 15
  first, later = (
    checkpoints.open_reader(f"{run}/model.ckpt-{step}").get_tensor(
      "bert/embeddings/word_embeddings"
    )
    for step in (12, 15)
  )
  assert 0 < np.abs(first - later).max() < 0.05


def test_a_copied_run_predicts_with_its_own_best(trained, tmp_path):
  """The state files contain paths as earlier versions wrote them, and the original is damaged."""
  folder, _, _ = trained
  original, copied = folder / "old", tmp_path / "copied"
  shutil.copytree(folder / "runs" / "lr[1e-3]", original)
  (best,) = checkpoints.all_of(str(original / "best"))
  state(original / "best", best)
  touch(original / "best", "model.ckpt-99")
  shutil.copytree(original, copied)
  state(original / "best", f"{original}/best/model.ckpt-99")
  (copied / "best" / "model.ckpt-99.index").unlink()
  _, err = tiny.run("run_classifier.py", "--do_predict", *flags_of(folder, copied))
  assert f"Predict with {copied}/best/{os.path.basename(best)}" in err
  info = json.loads((copied / "best" / "info.json").read_text())
  assert checkpoints.step_of(best) == info["step"]


def test_incomplete_checkpoints_stop_the_script(trained, tmp_path):
  folder, _, _ = trained
  run = tmp_path / "lost"
  shutil.copytree(folder / "runs" / "lr[1e-3]", run)
  for name in os.listdir(run):
    if name == "checkpoint" or name.endswith(".index"):
      (run / name).unlink()
  names = sorted(os.listdir(run))
  _, err = tiny.run(
    "run_classifier.py",
    "--do_train",
    f"--pretrained={folder}/bert*[base]",
    *flags_of(folder, run, train_steps=18),
    status=1,
  )
  assert f"{run}/model.ckpt-12: this checkpoint is incomplete" in err and "Traceback" not in err
  assert sorted(os.listdir(run)) == names
