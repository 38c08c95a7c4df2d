"""Record files of raw data: made by one or several processes, and resumable.

The examples are split into shards. Each shard is a record file of its own, renamed when it is
complete. When all shards exist they are joined and removed. The shards of a stopped run are kept
and used, whatever the number of processes of the next run.
"""

import contextlib
import itertools
import os

import tensorflow as tf

from errors import UserError
from preprocessing import record_files
from tasks.base import RawDataTask
from utils import console, files, processes

MAX_SHARDS = 64
MIN_EXAMPLES = 32  # per shard


class Unfinished(Exception):
  """The shards of this process are made, those of others are missing."""


def make_records(
  path: str,
  task: RawDataTask,
  split: str,
  tokenizer,
  max_seq_length: int,
  num_proc: int = 1,
  proc_id: int = -1,
) -> int:
  """Makes the record file `path` of a split, and its side table; returns the number of records.

  Examples are read once to count them and once by each process, and are never all in memory.

  Args:
    path: target; written under a temporary name and renamed.
    task: reads and featurizes the examples; can be pickled.
    split: name of the split.
    tokenizer: from tokenization.get_tokenizer.
    max_seq_length: length of the sequences.
    num_proc: number of processes.
    proc_id: -1 starts the processes; else this process makes part proc_id and no other.

  Raises:
    Unfinished: with proc_id, parts of the others are missing.
    UserError: bad input (from the task), or no examples.
  """
  num_examples = sum(1 for _ in task.read_examples(split))
  if not num_examples:
    raise UserError(f"{task.input_files(split)[0]}: no examples in it")
  shards = _cut(path, num_examples)
  files.remove_abandoned(*os.path.split(path))
  arguments = (task, split, tokenizer, max_seq_length)
  with console.progress_bar(total=num_examples, unit="example", desc=f"{split} records") as bar:
    bar.update(_num_made(shards))
    if num_proc == 1 or proc_id >= 0:
      make = _make_worker(*arguments, bar.update)
      for shard in shards[max(proc_id, 0) :: num_proc]:
        make(shard)
    else:
      processes.run(
        _make_worker, arguments, shards, num_proc, lambda: bar.update(_num_made(shards) - bar.n)
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
  """Number of examples in the shards that exist."""
  return sum(size for name, _, size in shards if tf.io.gfile.exists(name))


def _make_worker(task, split, tokenizer, max_seq_length, update=lambda count: None):
  """Returns a function that makes a shard unless it exists; shards come in the file's order."""
  examples, position = iter(()), None

  def make(shard):
    nonlocal examples, position
    name, first, size = shard
    if tf.io.gfile.exists(name):
      return
    if position is None or position > first:
      examples, position = task.read_examples(split), 0
    position += sum(1 for _ in itertools.islice(examples, first - position))
    position += size
    record_files.write_split(
      name,
      task,
      split,
      tokenizer,
      max_seq_length,
      examples=itertools.islice(examples, size),
      first_id=first,
    )
    update(size)

  return make


def _join(path, names, source):
  """Joins the shards to one file and removes them; returns the number of records."""
  # Another process may be joining at the same time, and be ahead. So side tables are read first,
  # and the records of a shard are removed first: a process that misses a side table misses its
  # records as well, and stops before it renames anything.
  temporaries = {
    suffix: files.temporary_name(path + suffix) for suffix in (record_files.SIDE_TABLE, "")
  }
  try:
    for suffix, temporary in temporaries.items():
      # A TFRecord file is a sequence of records without a header, so files can be concatenated.
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
