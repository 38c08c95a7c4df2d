"""Record files and the pipelines that read them."""

import json
import os
import types

import numpy as np
import pytest
import tensorflow as tf
import tiny

import config
import modeling
import tokenization
from errors import UserError
from preprocessing import record_files
from tasks.settings import Classification
from training import inputs
from utils import files

LENGTH = 16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """(task, tokenizer, path of its training records, number of examples)."""
  folder = tmp_path_factory.mktemp("records")
  tiny.write_cola(folder / "CoLA", num_train=70)
  (folder / "vocab.txt").write_text("\n".join(tiny.VOCAB) + "\n")
  tokenizer = tokenization.FullTokenizer(str(folder / "vocab.txt"))
  task = tiny.make_task(
    Classification(task_name="cola"), config.RawData(data_dir=str(folder / "CoLA"))
  )
  path = str(folder / "train.tfrecord")
  count = record_files.write_split(path, task, "train", tokenizer, LENGTH)
  return task, tokenizer, path, count


def source_of(made, **kwargs):
  task, _, path, count = made
  return inputs.RecordSource(
    [path],
    kwargs.pop("num_examples", count),
    task,
    LENGTH,
    modeling.BertConfig(9).padded_length,
    **kwargs,
  )


def batches_of(input_fn, count):
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    batch = tf.compat.v1.data.make_one_shot_iterator(input_fn()).get_next()
    result = []
    for _ in range(count):
      try:
        result.append(session.run(batch))
      except tf.errors.OutOfRangeError:
        break
    return result


def train_batches(made, count, step=0, seed=1, batch_size=4, num_replicas=1, **kwargs):
  input_fn = inputs.train_input_fn(
    source_of(made, **kwargs), batch_size, seed, step, num_replicas, static_shapes=False
  )
  return batches_of(input_fn, count)


# ---- Writing and checking -----------------------------------------------------------------------


def test_records_contain_the_features(made):
  task, tokenizer, path, count = made
  assert count == 70 == record_files.count_records(path)
  serialized = [bytes(s.numpy()) for s in tf.data.TFRecordDataset(path)]
  for index, (example, record) in enumerate(
    zip(task.read_examples("train"), serialized, strict=True)
  ):
    feature = tf.train.Example.FromString(record).features.feature
    wanted = task.featurize(example, tokenizer, LENGTH)
    pad = LENGTH - len(wanted["input_ids"])
    assert list(feature["input_ids"].int64_list.value) == wanted["input_ids"] + [0] * pad
    assert list(feature["input_mask"].int64_list.value) == wanted["input_mask"] + [0] * pad
    assert list(feature["label_ids"].int64_list.value) == [wanted["label_ids"]]
    assert list(feature["example_id"].int64_list.value) == [index]


def test_a_failed_write_leaves_nothing(made, tmp_path):
  task, tokenizer, _, _ = made

  def break_off(items):
    for index, item in enumerate(items):
      if index == 5:
        raise KeyboardInterrupt
      yield item

  with pytest.raises(KeyboardInterrupt):
    record_files.write_split(
      str(tmp_path / "x.tfrecord"), task, "train", tokenizer, LENGTH, break_off
    )
  assert os.listdir(tmp_path) == []


def test_cut_off_files_and_files_without_metadata_are_refused(made, tmp_path):
  data = open(made[2], "rb").read()
  for size in (len(data) - 1, len(data) - 20, 5):
    path = tmp_path / f"cut-{size}"
    path.write_bytes(data[:size])
    with pytest.raises(UserError, match="ends in the middle of record"):
      record_files.count_records(str(path))
  with pytest.raises(UserError, match="no such record file"):
    record_files.count_records(str(tmp_path / "nowhere"))
  with pytest.raises(UserError, match="written last"):
    record_files.read_meta(str(tmp_path / "meta"))


def test_cached_records_are_reused_only_for_the_same_settings(made, tmp_path):
  task, tokenizer, _, _ = made
  written = []
  write = lambda *args: written.append(args[0]) or record_files.write_split(*args)
  settings = config.Tokenizer(tokenizer_path=tokenizer.vocab_file)

  def cached(max_seq_length=LENGTH, overwrite=False, **kwargs):
    wanted = record_files.settings(
      task, tokenizer, config.Tokenizer(**{**settings.__dict__, **kwargs}), max_seq_length
    )
    return record_files.find_or_make_split(
      str(tmp_path), task, "train", tokenizer, wanted, overwrite, write
    )[0]

  first = cached()
  assert cached() == first and len(written) == 1
  assert len({first, cached(max_seq_length=12), cached(uncased=False)}) == 3 and len(written) == 3
  assert cached(overwrite=True) == first and len(written) == 4
  with open(first, "rb+") as file:  # a truncated file is created again, never read
    file.truncate(100)
  assert cached() == first and len(written) == 5 and record_files.count_records(first) == 70
  os.remove(first + ".meta.json")
  assert cached() == first and len(written) == 6
  with open(os.path.join(task.data_dir, "train.tsv"), "a") as file:
    file.write("src\t1\t\tanother good one\n")
  assert cached() != first, "other raw data are other records"


def test_records_of_other_settings_are_refused():
  meta = {"max_seq_length": 64, "label_list": ["0", "1"], "processor_type": "COLA"}
  record_files.check_meta("m", meta, {**meta, "vocab_size": 5})  # the file does not record it
  with pytest.raises(
    UserError,
    match=r"m: .*max_seq_length 64 in the records, 128 here "
    r"\(--max_seq_length\); processor_type 'COLA'",
  ):
    record_files.check_meta("m", meta, {"max_seq_length": 128, "processor_type": "RTE"})


def test_lengths_and_features_are_checked_against_the_first_record(made, tmp_path):
  task, _, path, _ = made
  record_files.check_lengths(path, task.feature_specs, LENGTH)
  with pytest.raises(UserError, match=r"'input_ids' has 16 int64 values where 32 are expected"):
    record_files.check_lengths(path, task.feature_specs, 32)
  other = str(tmp_path / "other")
  with tf.io.TFRecordWriter(other) as writer:
    writer.write(b"\xff\xff no example")
  with pytest.raises(UserError, match="not tf.train.Example"):
    record_files.check_lengths(other, task.feature_specs, LENGTH)
  with tf.io.TFRecordWriter(other) as writer:
    writer.write(tf.train.Example().SerializeToString())
  with pytest.raises(UserError, match="no feature 'input_ids'"):
    record_files.check_lengths(other, task.feature_specs, LENGTH)


def test_json_and_folders(tmp_path):
  files.write_json(str(tmp_path / "a" / "b.json"), {"x": "é"})
  assert json.load(open(tmp_path / "a" / "b.json")) == {"x": "é"}
  assert os.listdir(tmp_path / "a") == ["b.json"]
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write to this folder"):
    files.make_dirs(str(tmp_path / "file" / "sub"))


# ---- Pipelines ----------------------------------------------------------------------------------


def ids_of(batches):
  return [batch["example_id"].tolist() for batch in batches]


def test_order_is_a_function_of_seed_and_position(made):
  whole = train_batches(made, 60)
  assert ids_of(whole) == ids_of(train_batches(made, 60))
  assert ids_of(whole) != ids_of(train_batches(made, 60, seed=2))
  for step in (1, 17, 18, 31, 32, 33, 50):  # inside and at the edges of epochs and of windows
    for a, b in zip(whole[step:], train_batches(made, 60 - step, step=step), strict=True):
      for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("num_examples, batch_size", [(70, 32), (20, 32), (70, 4), (9, 4)])
def test_small_sets_lose_no_example(made, num_examples, batch_size):
  """Three epochs, rounded down to whole batches, contain every example, never thrice in a batch."""
  steps = max(3 * num_examples // batch_size, 1)
  batches = ids_of(train_batches(made, steps, batch_size=batch_size, num_examples=num_examples))
  seen = {i for ids in batches for i in ids}
  assert len(seen) == num_examples if steps * batch_size >= 2 * num_examples else len(seen) > 19
  for ids in batches:
    assert np.bincount(ids).max() <= -(-batch_size // num_examples) + 1


def test_every_example_occurs_once_per_epoch(made):
  # 35 windows of 32 batches of 2 examples are 32 epochs of 70 examples.
  seen = [i for ids in ids_of(train_batches(made, 35 * 32, batch_size=2)) for i in ids]
  counts = np.bincount(seen)
  assert len(counts) == 70 and set(counts) == {32}
  first, second = seen[:64], seen[64:128]
  assert first != second and len(set(first)) == 64


def test_batches_have_similar_lengths_and_little_padding(made):
  batches = train_batches(made, 32)
  lengths = [batch["input_mask"].sum(1) for batch in batches]
  for batch, length in zip(batches, lengths, strict=True):
    width = -(-length.max() // inputs.LENGTH_MULTIPLE) * inputs.LENGTH_MULTIPLE
    assert batch["input_ids"].shape == batch["segment_ids"].shape == (4, width)
  spread = np.mean([np.ptp(length) for length in lengths])
  assert spread < 0.3 * np.ptp(np.concatenate(lengths))
  means = [length.mean() for length in lengths]
  assert means != sorted(means), "the batches of a window are shuffled"


def test_replicas_share_the_batch_of_one_device(made):
  one, two = train_batches(made, 10), train_batches(made, 20, num_replicas=2)
  for index, batch in enumerate(one):
    for name in batch:
      np.testing.assert_array_equal(
        batch[name], np.concatenate([two[2 * index][name], two[2 * index + 1][name]])
      )


def test_static_shapes_and_missing_optional_features(made):
  input_fn = inputs.train_input_fn(source_of(made), 4, 1, 0, 1, static_shapes=True)
  batch = batches_of(input_fn, 1)[0]
  assert batch["input_ids"].shape == (4, LENGTH) and batch["weight"].tolist() == [1.0] * 4


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("num_examples, window", [(70, 1000), (70, 20), (13, 1000)])
def test_prediction_sees_every_example_once(made, static_shapes, num_examples, window, monkeypatch):
  monkeypatch.setattr(inputs, "PREDICT_WINDOW", window)
  input_fn = inputs.predict_input_fn(source_of(made, num_examples=num_examples), 8, static_shapes)
  batches = batches_of(input_fn, 100)
  index = np.concatenate([batch["example_index"] for batch in batches])
  assert sorted(index[index >= 0]) == list(range(num_examples))
  if static_shapes:
    assert {batch["input_ids"].shape for batch in batches} == {(8, LENGTH)}
  ids = np.concatenate([batch["example_id"] for batch in batches])
  np.testing.assert_array_equal(ids[index >= 0], index[index >= 0])
  widths = [batch["input_mask"].sum(1).max() for batch in batches][: num_examples // 8]
  if window > num_examples:
    assert widths == sorted(widths)


def test_inverted_masks_of_foreign_records(made, tmp_path):
  path = str(tmp_path / "inverted")
  with tf.io.TFRecordWriter(path) as writer:
    for serialized in tf.data.TFRecordDataset(made[2]):
      example = tf.train.Example.FromString(serialized.numpy())
      mask = example.features.feature["input_mask"].int64_list.value
      mask[:] = [1 - value for value in mask]
      writer.write(example.SerializeToString())
  inverted = source_of((*made[:2], path, made[3]), invert_input_mask=True)
  plain = batches_of(inputs.train_input_fn(source_of(made), 4, 1, 0, 1, False), 5)
  again = batches_of(inputs.train_input_fn(inverted, 4, 1, 0, 1, False), 5)
  for a, b in zip(plain, again, strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


# ---- Several hosts ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_replicas", [1, 4])
def test_hosts_read_consecutive_parts_of_each_batch(made, num_replicas):
  """Of TPUs, TPUEstimator tells the host's number in params; others give it as an argument."""
  is_tpu = num_replicas == 1

  def batches(count, *hosts, **params):
    input_fn = inputs.train_input_fn(source_of(made), 8, 1, 0, num_replicas, is_tpu, *hosts)
    return batches_of(lambda: input_fn(params), count)

  def tpu_host(index):
    return types.SimpleNamespace(current_input_fn_deployment=lambda: ("/cpu:0", index, 2, 4))

  count = 3 * num_replicas
  whole = batches(count)
  if is_tpu:
    parts = [batches(count, batch_size=4, context=tpu_host(host)) for host in (0, 1)]
    joined = [
      {name: np.concatenate([first[name], second[name]]) for name in first}
      for first, second in zip(*parts, strict=True)
    ]
  else:  # elements 0, 1 of each batch, then 2, 3
    parts = [batches(count // 2, host, 2) for host in (0, 1)]
    joined = [
      part
      for start in range(0, count // 2, 2)
      for host in parts
      for part in host[start : start + 2]
    ]
  assert len(joined) == len(whole) == count
  for expected, found in zip(whole, joined, strict=True):
    assert expected.keys() == found.keys()
    for name, value in expected.items():
      np.testing.assert_array_equal(value, found[name], err_msg=name)
