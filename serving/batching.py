"""Padded batches of records, as arrays to feed to a graph."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import modeling
from tasks.base import FeatureSpec
from training import inputs


def padded_batches(
  records: Sequence[dict[str, Any]],
  specs: Sequence[FeatureSpec],
  model_config: modeling.Config,
  pad_id: int,
  max_seq_length: int,
  batch_size: int,
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
  """Yields (indices of records of similar length, features) for each batch, shortest first.

  Sequences are padded as in the scripts: to the longest of the batch, rounded up.

  Args:
    records: features of each record, from Task.featurize_all.
    specs: the features to pad.
    model_config: configuration of the encoder.
    pad_id: id of the padding token.
    max_seq_length: longest sequence.
    batch_size: records per batch.

  Returns:
    Iterator; the features are int32 or float32 [B, T], [B, N, T] or [B].
  """
  lengths = [_longest(record["input_mask"]) for record in records]
  order = sorted(range(len(records)), key=lengths.__getitem__)
  for start in range(0, len(order), batch_size):
    rows = order[start : start + batch_size]
    longest = max(lengths[row] for row in rows)
    length = min(max_seq_length, model_config.padded_length(longest, inputs.LENGTH_MULTIPLE))
    features = {}
    for spec in specs:
      values = [records[row].get(spec.name, spec.default) for row in rows]
      if spec.is_sequence:
        fill = pad_id if spec.pad_value is None else spec.pad_value
        values = [_pad(value, length, fill) for value in values]
      features[spec.name] = np.array(values, np.int32 if spec.dtype == "int64" else spec.dtype)
    yield rows, features


def _longest(mask):
  """Number of real tokens of a sequence, or of the longest of several."""
  return max(map(len, mask)) if mask and isinstance(mask[0], list) else len(mask)


def _pad(value, length, fill):
  """Pads a sequence, or each of several."""
  if value and isinstance(value[0], list):
    return [_pad(part, length, fill) for part in value]
  return [*value, *[fill] * (length - len(value))]
