"""The same seed gives the same weights: two runs in fresh processes, with records of their own."""

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_pretraining_task

records = tiny_pretraining_task.records


def weights(folder):
  reader = tf.train.load_checkpoint(str(folder))
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def check(one, same, *others):
  """`one` and `same` have the same bits; the weights of other seeds differ."""
  assert one.keys() == same.keys()
  for name, value in one.items():
    np.testing.assert_array_equal(value, same[name], name)
  for other in others:
    assert any(np.any(value != other[name]) for name, value in one.items())


def test_fine_tuning_is_reproducible(tmp_path):
  """Order, dropout and the weights of the new head are drawn."""
  tiny.write_encoder(tmp_path / "encoder")
  tiny.write_cola(tmp_path / "CoLA")
  found = []
  for name in ("one", "same"):
    tiny.run(
      "run_classifier.py",
      "--do_train",
      "--task_name=cola",
      f"--pretrained={tmp_path / 'encoder'}",
      f"--data_dir={tmp_path / 'CoLA'}",
      f"--output_dir={tmp_path / name}",
      "--max_seq_length=24",
      "--train_batch_size=8",
      "--train_steps=15",
    )
    found.append(weights(tmp_path / name))
  check(*found)


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["bert", "electra"])
def test_pretraining_is_reproducible(records, tmp_path, loss_type):
  """ELECTRA's replaced tokens are drawn too."""
  found = []
  for name, seed in (("one", 7), ("same", 7), ("other", 8)):
    tiny.run(
      "run_pretraining.py",
      "--do_train",
      f"--bert_config_file={records}/bert/bert_config.json",
      f"--input_file={records}/bert.tfrecord-*",
      "--max_seq_length=24",
      "--max_predictions_per_seq=4",
      f"--loss_type={loss_type}",
      f"--model_dir={tmp_path / name}",
      "--train_batch_size=8",
      "--num_train_steps=10",
      f"--seed={seed}",
    )
    found.append(weights(tmp_path / name))
  check(*found)
