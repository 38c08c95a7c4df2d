"""Record files of random tokens, for trials and benchmarks without data."""

import os
import random
from typing import Any

import tensorflow as tf

from errors import UserError
from preprocessing import record_files
from tasks.base import FeatureSpec, Task
from utils import files

NUM_EXAMPLES = 512
FIRST_ID = 5  # smaller ids are special symbols in released vocabularies


def record_sets(
  folder: str, task: Task, max_seq_length: int, vocab_size: int, seed: int
) -> dict[str, record_files.RecordSet]:
  """Writes synthetic records to a folder; returns the record files of "train", "dev" and "test".

  The second token of a sequence gives its label, so a classifier can learn it.

  Args:
    folder: folder of the record files.
    task: names the features.
    max_seq_length: length of the sequences.
    vocab_size: ids are smaller.
    seed: seed of the random tokens.

  Raises:
    UserError: the folder cannot be written, or the vocabulary has special symbols alone.
  """
  if vocab_size <= FIRST_ID + 1:
    raise UserError(f"--synthetic_data: a vocabulary of {vocab_size} has no words")
  num_labels = len(getattr(task, "labels", None) or ()) or 1
  files.make_dirs(folder)
  found = {}
  for index, kind in enumerate(("train", "dev", "test")):
    path = os.path.join(folder, f"synthetic.{task.name}.len-{max_seq_length}.{kind}.tfrecord")
    rng = random.Random(f"{seed}/{index}")
    temporary = files.temporary_name(path)
    with tf.io.TFRecordWriter(temporary) as writer:
      for _ in range(NUM_EXAMPLES):
        features = _features(task, rng, max_seq_length, vocab_size, num_labels)
        writer.write(record_files.to_example(features, task.feature_specs, max_seq_length, 0))
    tf.io.gfile.rename(temporary, path, overwrite=True)
    found[kind] = record_files.RecordSet([path], NUM_EXAMPLES)
  return found


def _features(task, rng, max_seq_length, vocab_size, num_labels):
  """Features of an example, of one sequence or several."""
  count = task.sequences_per_example
  lengths = [rng.randint(max_seq_length // 2, max_seq_length) for _ in range(count)]
  ids = [[rng.randrange(FIRST_ID, vocab_size) for _ in range(length)] for length in lengths]
  label = rng.randrange(count if count > 1 else num_labels)
  marked = label if count > 1 else 0
  ids[marked][1] = FIRST_ID + (0 if count > 1 else label) % (vocab_size - FIRST_ID)
  values = {}
  for spec in task.feature_specs:
    sequences = [_sequence(spec, one, rng, num_labels) for one in ids]
    if spec.is_sequence:
      values[spec.name] = sequences if count > 1 else sequences[0]
    elif spec.length is not None:
      values[spec.name] = _vector(spec, rng, min(lengths), vocab_size)
    else:
      values[spec.name] = _scalar(spec, label, lengths[0])
  return {name: value for name, value in values.items() if value is not None}


def _sequence(spec: FeatureSpec, ids: list[int], rng: random.Random, num_labels: int) -> list:
  if spec.name in ("input_ids", "input_word_ids", "input"):
    return ids
  if spec.name == "input_mask":
    return [1] * len(ids)
  if spec.name == "label_ids":
    return [token % num_labels for token in ids]
  return [0] * len(ids)


def _vector(spec: FeatureSpec, rng: random.Random, length: int, vocab_size: int) -> Any:
  size = spec.length or 1
  if spec.name == "masked_lm_positions":
    values = sorted(rng.sample(range(1, length), min(size, length - 1)))
    return values + [0] * (size - len(values))
  if spec.name == "masked_lm_ids":
    return [rng.randrange(FIRST_ID, vocab_size) for _ in range(size)]
  if spec.name == "masked_lm_weights":
    return [1.0] * min(size, length - 1) + [0.0] * max(size - length + 1, 0)
  return [0] * size


def _scalar(spec: FeatureSpec, label: int, length: int) -> Any:
  if spec.name == "label_ids":
    return float(label) if spec.dtype == "float32" else label
  if spec.name in ("start_positions", "end_positions"):
    return length // 2 + (spec.name == "end_positions")
  if spec.name in ("is_real_example", "weight"):
    return 1
  return 0 if spec.default is None else None  # the default
