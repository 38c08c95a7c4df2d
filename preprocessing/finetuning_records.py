"""Making a large record file in parts: by several processes, and resumable.

The examples are cut into shards. Each shard is a record file of its own that appears when it is
complete; when all are there they are joined and removed. What a stopped run has left is not made
again, whatever the number of processes of the next.
"""

import contextlib
from typing import Any

import tensorflow as tf

from errors import UserError
from preprocessing import record_files
from tasks.base import RawDataTask
from utils import console, files, processes

MAX_SHARDS = 64
MIN_EXAMPLES = 32  # per shard


class Unfinished(Exception):
  """Shards of other processes are missing; this one's are made."""


def write_split(
  path: str,
  task: RawDataTask,
  split: str,
  tokenizer,
  max_seq_length: int,
  progress: Any = None,
  num_proc: int = 1,
  proc_id: int = -1,
) -> int:
  """As record_files.write_split, by num_proc processes.

  Args:
    path: target; appears only when it is complete.
    task: reads and featurizes the examples; can be pickled.
    split: which of the task's splits.
    tokenizer: from tokenization.get_tokenizer.
    max_seq_length: length of the sequences.
    progress: not used; the progress bar counts examples over all processes.
    num_proc: number of processes.
    proc_id: -1 starts the processes; else this process makes part proc_id and no other.

  Returns:
    Number of records.

  Raises:
    Unfinished: with proc_id, parts of the others are missing.
    UserError: bad input (from the task).
  """
  del progress
  examples = list(task.read_examples(split))
  shards = _cut(path, len(examples))
  with console.progress_bar(total=len(examples), unit="example", desc=f"{split} records") as bar:
    bar.update(_num_made(shards))
    if num_proc == 1 or proc_id >= 0:
      _write(
        shards[max(proc_id, 0) :: num_proc],
        examples,
        task,
        split,
        tokenizer,
        max_seq_length,
        bar.update,
      )
    else:
      processes.run(
        _make_worker,
        (task, split, tokenizer, max_seq_length),
        shards,
        num_proc,
        lambda: bar.update(_num_made(shards) - bar.n),
      )
  missing = sum(not tf.io.gfile.exists(name) for name, _, _ in shards)
  if missing:
    raise Unfinished(
      f"{path}: part {proc_id} of {num_proc} is made; {missing} of {len(shards)} "
      f"shards are still missing, the last process joins them"
    )
  try:
    return _join(path, [name for name, _, _ in shards], task.input_files(split)[0])
  except tf.errors.NotFoundError:
    if proc_id < 0:
      raise
    raise Unfinished(f"{path}: all parts are made, another process joins them") from None


def _cut(path, num_examples):
  """(file, first example, number of examples) of each shard."""
  count = max(1, min(MAX_SHARDS, num_examples // MIN_EXAMPLES))
  bounds = [index * num_examples // count for index in range(count + 1)]
  return [
    (f"{path}.shard-{index:05d}-of-{count:05d}", first, end - first)
    for index, (first, end) in enumerate(zip(bounds, bounds[1:], strict=False))
  ]


def _num_made(shards):
  """Number of examples in the shards that are there."""
  return sum(size for name, _, size in shards if tf.io.gfile.exists(name))


def _write(shards, examples, task, split, tokenizer, max_seq_length, update=lambda count: None):
  """Makes those of the shards that are not there."""
  for name, first, size in shards:
    if not tf.io.gfile.exists(name):
      record_files.write_split(
        name, task, split, tokenizer, max_seq_length, examples=examples[first : first + size]
      )
      update(size)


def _make_worker(task, split, tokenizer, max_seq_length):
  """What makes a shard in a process of its own."""
  examples = list(task.read_examples(split))  # faster than to send them
  return lambda shard: _write([shard], examples, task, split, tokenizer, max_seq_length)


def _join(path, names, source):
  """Joins the shards to one file and removes them; returns the number of records."""
  # Another process may be joining too, and be ahead. So the side table is read first, and of each
  # shard the records are removed first: who misses a part of the table misses its records as well,
  # and stops before anything got its name.
  temporaries = {
    suffix: files.temporary_name(path + suffix) for suffix in (record_files.SIDE_TABLE, "")
  }
  try:
    for suffix, temporary in temporaries.items():
      # A TFRecord file is a sequence of records without a header, so files can be put together.
      with tf.io.gfile.GFile(temporary, "wb") as writer:
        writer.write(b"")  # without a write there is no file
        for name in names:
          if suffix == "" or tf.io.gfile.exists(name + suffix):
            with tf.io.gfile.GFile(name + suffix, "rb") as reader:
              while chunk := reader.read(1 << 24):
                writer.write(chunk)
    for suffix, temporary in temporaries.items():
      tf.io.gfile.rename(temporary, path + suffix, overwrite=True)
  finally:
    for temporary in temporaries.values():
      _remove(temporary)
  count = record_files.count_records(path)
  for name in names:
    _remove(name)
    _remove(name + record_files.SIDE_TABLE)
  if not count:
    raise UserError(f"{source}: no examples in it")
  return count


def _remove(path):
  with contextlib.suppress(tf.errors.NotFoundError):
    tf.io.gfile.remove(path)
