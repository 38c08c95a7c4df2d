"""Finds the record that made an input pipeline fail.

A pipeline parses and checks batches of several files. Its error names neither the file nor the
record, so after a failure the files are read again, one record after the other.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from errors import UserError
from preprocessing import record_files
from training import inputs


@contextlib.contextmanager
def explained(source: inputs.RecordSource) -> Iterator[None]:
  """Context in which the failure of a pipeline on bad records becomes a UserError.

  Args:
    source: the records that are read in the context.

  Raises:
    UserError: names the file and the record, from 0. Other errors are raised unchanged.
  """
  try:
    yield
  # TensorFlow puts the bytes of a record into its message, which need not be UTF-8.
  except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, UnicodeDecodeError):
    fault = find(source)
    if fault is None:
      raise
    raise UserError(fault) from None


def find(source: inputs.RecordSource) -> str | None:
  """Returns a message about the first bad record of the files; None if all are good."""
  length = source.max_seq_length * source.task.sequences_per_example
  for path in source.paths:
    index = 0
    try:
      for serialized in tf.data.TFRecordDataset(path, record_files.compression(path)):
        fault = record_files.record_fault(
          serialized.numpy(), source.task.feature_specs, length, source.ranges
        )
        if fault:
          return f"{path}: record {index}: {fault}"
        index += 1
    except tf.errors.DataLossError:
      return (
        f"{path}: record {index} is damaged: its checksum is wrong; make or copy the file again"
      )
  return None
