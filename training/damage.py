"""Damaged files of a checkpoint: an index that cannot be read, data that are cut off or changed."""

import functools
import math
from collections.abc import Sequence

import tensorflow as tf

from errors import UserError
from utils import paths


class DamagedError(UserError):
  """Files of a checkpoint are damaged or missing."""


def find(prefix: str, file_paths: Sequence[str]) -> str | None:
  """Returns a message if a checkpoint's index cannot be read or its data are cut off, else None.

  The index and the sizes are read, not the weights: see `check_data`.

  Args:
    prefix: the checkpoint.
    file_paths: its files.
  """
  stats = [(path, tf.io.gfile.stat(path)) for path in file_paths]
  return _find(prefix, tuple((path, stat.length, stat.mtime_nsec) for path, stat in stats))


@functools.lru_cache(maxsize=1024)
def _find(prefix, stats):
  """`find`; `stats` are (path, bytes, time) of the files."""
  try:
    reader = _open(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
  except (tf.errors.OpError, ValueError, RuntimeError) as error:
    return f"{prefix}.index is damaged ({_reason(error)})"
  needed = sum(
    math.prod(shape) * dtypes[name].size
    for name, shape in shapes.items()
    if dtypes[name] != tf.string
  )
  found = sum(size for path, size, _ in stats if ".data-" in path)
  if found < needed:
    return f"{prefix}.data-* are damaged: they have {found} bytes, the variables {needed}"
  return None


def _reason(error):
  return str(getattr(error, "message", None) or error).strip().partition("\n")[0]


def check_data(prefix: str, file_paths: Sequence[str]) -> None:
  """Raises DamagedError if a variable of a checkpoint cannot be read; reads all of them.

  Args:
    prefix: the checkpoint.
    file_paths: its files.
  """
  if message := find(prefix, file_paths) or _find_in_data(prefix):
    raise DamagedError(
      f"{message}. Copy the files again, or remove {prefix}.* to use the checkpoint before it"
    )


def _find_in_data(prefix):
  reader = _open(prefix)
  try:
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)
  except (tf.errors.OpError, ValueError, RuntimeError) as error:
    return f"{prefix}.data-* are damaged ({_reason(error)})"
  return None


def _open(prefix):
  return tf.train.load_checkpoint(paths.checkpoint_without_wildcards(prefix))
