"""--use_xla: a model's computation as one program, compiled for each shape of its batches."""

import logging
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

log = logging.getLogger(__name__)

v1 = tf.compat.v1
SHAPE = "xla_batch_shape"  # collection of the graph: the shape of input_mask
NUM_LENGTHS = 4  # lengths that batches are padded to: each is a program


def compiled(build: Callable[[dict[str, tf.Tensor]], Any], features: dict[str, tf.Tensor]) -> Any:
  """Returns build(features), computed by one XLA program.

  Args:
    build: makes variables and operations; returns tensors and None in a nested structure, which
      can have tf.IndexedSlices.
    features: name -> tensor.
  """
  results = []

  def computation(*values):
    results.append(build(dict(zip(features, values, strict=True))))
    return _tensors(results[0])

  outputs = iter(tf.xla.experimental.compile(computation, list(features.values())))
  flat = tf.nest.flatten(results[0], expand_composites=True)
  return tf.nest.pack_sequence_as(
    results[0], [None if tensor is None else next(outputs) for tensor in flat], True
  )


def _tensors(structure):
  flat = tf.nest.flatten(structure, expand_composites=True)
  return [tensor for tensor in flat if tensor is not None]


def length_multiple(max_seq_length: int, smallest: int) -> int:
  """Tokens whose multiples batches are padded to: about NUM_LENGTHS different lengths.

  Args:
    max_seq_length: tokens per sequence.
    smallest: the result is a multiple of it. 128 and 8 give 32, 100 and 8 give 32.
  """
  return -(-max_seq_length // (NUM_LENGTHS * smallest)) * smallest


class ProgramsHook(v1.train.SessionRunHook):
  """Logs the compilation of each program: the first step with a shape compiles it."""

  def __init__(self, what: str):
    """Starts to count.

    Args:
      what: what the programs compute, for the log.
    """
    self._what = what
    self._seconds: dict[tuple[int, ...], float] = {}

  def begin(self):
    """Finds the shape of the batches in the graph."""
    self._shape = v1.get_collection(SHAPE)[0]

  def before_run(self, run_context):
    """Requests the shape of the batch."""
    del run_context
    self._start = time.perf_counter()
    return v1.train.SessionRunArgs(self._shape)

  def after_run(self, run_context, run_values):
    """Logs the first step of each shape."""
    del run_context
    shape = tuple(run_values.results.tolist())
    if shape not in self._seconds:
      self._seconds[shape] = time.perf_counter() - self._start
      log.info(
        "XLA: program %d of %s, for batches of %s, compiled in %.1f s; %.1f s altogether",
        len(self._seconds),
        self._what,
        " x ".join(map(str, shape)),
        self._seconds[shape],
        sum(self._seconds.values()),
      )
