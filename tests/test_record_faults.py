"""Damaged and foreign record files: the message names the file and the record."""

import os

import pytest
import tensorflow as tf
import tiny

import modeling
from errors import UserError
from preprocessing import record_files, tfrecord
from tasks.settings import Classification, Race, Squad, Tagging
from training import inputs, record_faults

LENGTH = 8
FEATURES = {
  "input_ids": [1, 5, 2, 0, 0, 0, 0, 0],
  "input_mask": [1, 1, 1, 0, 0, 0, 0, 0],
  "segment_ids": [0] * LENGTH,
  "label_ids": [1],
  "weight": [1.0],
}


def write(path, records):
  with open(path, "wb") as stream:
    writer = tfrecord.Writer(stream)
    for record in records:
      writer.write(record)
  return str(path)


def read(path, count=6):
  """Reads records as training does, in batches of 2."""
  task = tiny.make_task(Classification(task_name="cola"), max_seq_length=LENGTH)
  ranges = task.ranges(len(tiny.VOCAB), 2, LENGTH)
  padded_length = modeling.BertConfig(9).padded_length
  source = inputs.RecordSource([path], count, task, LENGTH, padded_length, ranges=ranges)
  input_fn = inputs.predict_input_fn(source, 2, static_shapes=False)
  with record_faults.explained(source), tf.Graph().as_default(), tf.compat.v1.Session() as session:
    batch = tf.compat.v1.data.make_one_shot_iterator(input_fn()).get_next()
    return [session.run(batch)["label_ids"].tolist() for _ in range(count // 2)]


def test_good_records_are_read(tmp_path):
  records = [tfrecord.encode_example({**FEATURES, "label_ids": [i % 2]}) for i in range(6)]
  assert read(write(tmp_path / "x.tfrecord", records)) == [[0, 1]] * 3


@pytest.mark.parametrize(
  "record, message",
  [
    (b"\xff\xfe\xfd no protocol buffer", "the records are not tf.train.Example"),
    (tfrecord.encode_example({"other": [1]}), "the records have no feature 'input_ids'"),
    ({"label_ids": [2]}, "feature 'label_ids' has the value 2, which is above 1"),
    ({"label_ids": [-1]}, "feature 'label_ids' has the value -1, which is below 0"),
    ({"label_ids": [2**40]}, "feature 'label_ids' has the value 1099511627776, which is above 1"),
    ({"input_ids": [999] * LENGTH}, "feature 'input_ids' has the value 999, which is above "),
    ({"segment_ids": [2] * LENGTH}, "feature 'segment_ids' has the value 2, which is above 1"),
    ({"input_mask": [7] * LENGTH}, "feature 'input_mask' has the value 7, which is above 1"),
    ({"weight": [float("nan")]}, "feature 'weight' has the value nan, which is not a number"),
    ({"weight": [-1.0]}, "feature 'weight' has the value -1.0, which is below 0"),
    ({"input_ids": [1] * 5}, "feature 'input_ids' has 5 int64 values where 8 are expected"),
    ({"input_ids": [0.5] * LENGTH}, "feature 'input_ids' has 0 int64 values where 8 are expected"),
  ],
)
def test_bad_records_are_named(tmp_path, record, message):
  good = tfrecord.encode_example(FEATURES)
  bad = record if isinstance(record, bytes) else tfrecord.encode_example({**FEATURES, **record})
  path = write(tmp_path / "x.tfrecord", [*[good] * 3, bad, good, good])
  with pytest.raises(UserError, match=f"x.tfrecord: record 3: {message}"):
    read(path)


def test_flipped_bytes_and_cut_files_are_named(tmp_path):
  path = write(tmp_path / "x.tfrecord", [tfrecord.encode_example(FEATURES)] * 6)
  data = bytearray(open(path, "rb").read())
  size = len(data) // 6
  for change, record in ((size * 2 + 40, 2), (size * 5 + 3, 5)):
    changed = bytearray(data)
    changed[change] ^= 16
    with open(path, "wb") as writer:
      writer.write(changed)
    with pytest.raises(UserError, match=f"x.tfrecord: record {record} is damaged"):
      read(path)
  with open(path, "wb") as writer:
    writer.write(data[:-5])
  with pytest.raises(UserError, match="x.tfrecord: record 5 is damaged"):
    read(path)
  with open(path, "wb") as writer:
    writer.write(b"\0" * 100)
  with pytest.raises(UserError, match="x.tfrecord: record 0 is damaged"):
    record_files.check_lengths(path, [], LENGTH)


def test_errors_of_good_records_are_raised_unchanged(tmp_path):
  path = write(tmp_path / "x.tfrecord", [tfrecord.encode_example(FEATURES)])
  task = tiny.make_task(Classification(task_name="cola"), max_seq_length=LENGTH)
  source = inputs.RecordSource([path], 1, task, LENGTH, modeling.BertConfig(9).padded_length)
  with (
    pytest.raises(tf.errors.InvalidArgumentError, match="of the model"),
    record_faults.explained(source),
  ):
    raise tf.errors.InvalidArgumentError(None, None, "of the model")


@pytest.mark.parametrize(
  "settings, name, lower, upper",
  [
    (Classification(task_name="mnli"), "label_ids", 0, 2),
    (Race(task_name="race", max_qa_length=4), "label_ids", 0, 3),
    (Squad(), "start_positions", 0, LENGTH - 1),
    (Tagging(), "label_ids", -1, None),
  ],
  ids=["mnli", "race", "squad", "tagging"],
)
def test_ranges_of_the_tasks(settings, name, lower, upper):
  task = tiny.make_task(settings, max_seq_length=LENGTH)
  if upper is None:
    task.take_model_settings({}, None, {"label_list": ["a", "b"]})
    upper = 1
  ranges = task.ranges(100, 2, LENGTH)
  assert ranges[name].ends == (lower, upper) and ranges["input_ids"].ends == (0, 99)


def test_training_names_the_bad_record(tmp_path):
  """The script itself: a label of another task in the middle of the records."""
  tiny.write_encoder(tmp_path / "encoder")
  length = 16
  features = {name: [0] * length for name in ("input_ids", "input_mask", "segment_ids")}
  encode = lambda label: tfrecord.encode_example({**features, "label_ids": [label]})
  path = write(tmp_path / "train.tfrecord", [encode(label) for label in (0, 1, 0, 1, 0, 7, 0, 1)])
  (tmp_path / "meta.json").write_text(
    '{"max_seq_length": 16, "train_data_size": 8, "label_list": ["0", "1"]}'
  )
  _, err = tiny.run(
    "run_classifier.py",
    "--do_train",
    "--task_name=cola",
    "--max_seq_length=16",
    f"--pretrained={tmp_path / 'encoder'}",
    f"--train_data_path={path}",
    f"--input_meta_data_path={tmp_path / 'meta.json'}",
    f"--model_dir={tmp_path / 'run'}",
    "--train_batch_size=4",
    "--train_steps=4",
    status=1,
  )
  assert "Traceback" not in err, err
  (line,) = [line for line in err.splitlines() if ": error: " in line]
  assert f"{path}: record 5: feature 'label_ids' has the value 7, which is above 1" in line
  assert not os.path.exists(tmp_path / "run" / "best")
