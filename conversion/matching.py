"""Matches a checkpoint's tensors with those of a model; reports the conversion."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from conversion.families import Entry, Family
from errors import UserError


def match(
  family: Family,
  entries: list[Entry],
  shapes: dict[str, tuple[int, ...]],
  side: str,
  source: str,
  config_file: str,
  actual: dict[str, str] | None = None,
) -> list[Entry]:
  """Returns the entries of the encoder, and of every head with at least one tensor in `shapes`.

  Args:
    family: the model's family.
    entries: from `expand`.
    shapes: name -> shape of the checkpoint's tensors.
    side: "hf" or "tf", the form of these names and shapes.
    source: the checkpoint, for messages.
    config_file: the configuration, for messages.
    actual: name -> name in the file, if the two differ.

  Raises:
    UserError: a tensor is unknown or missing, or its shape contradicts the configuration.
  """
  actual = actual or {}
  by_name = {entry.name(side): entry for entry in entries}
  unknown = [name for name in shapes if name not in by_name]
  if unknown:
    reason = next(
      (reason for pattern, reason in family.unsupported if re.search(pattern, unknown[0])),
      f"is {config_file} the configuration of this model, and is it a {family.model_type} model?",
    )
    names = [actual.get(name, name) for name in unknown]
    raise UserError(f"{source}: unsupported tensor {listing(names)}; {reason}")
  groups = {"encoder", *(by_name[name].group for name in shapes)}
  found = [entry for entry in entries if entry.group in groups]
  missing = [entry.name(side) for entry in found if entry.name(side) not in shapes]
  if missing:
    raise UserError(
      f"{source}: no tensor {listing(missing)}; is the file complete, and is "
      f"{config_file} its configuration?"
    )
  wrong = _first_wrong_shape(found, shapes, side)
  if wrong:
    name, wanted = wrong
    raise UserError(
      f"{source}: tensor {actual.get(name, name)} has the shape "
      f"{list(shapes[name])}, {config_file} gives {list(wanted)}"
    )
  return found


def _first_wrong_shape(
  entries: list[Entry], shapes: dict[str, tuple[int, ...]], side: str
) -> tuple[str, tuple] | None:
  """Returns (name, expected shape) of the first tensor with a wrong shape; None if all fit."""
  bound = {}  # sizes bound to symbolic dimensions, e.g. num_labels
  for entry in entries:
    shape, wanted = shapes[entry.name(side)], entry.shape(side)
    if len(shape) == len(wanted):
      for symbol, size in zip(wanted, shape, strict=True):
        if isinstance(symbol, str):
          bound.setdefault(symbol, size)
    wanted = tuple(bound.get(size, size) for size in wanted)
    if tuple(shape) != wanted:
      return entry.name(side), wanted
  return None


def listing(names: Iterable[str]) -> str:
  """Returns the first five names and the number of the others, as text."""
  names = list(names)
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def summary(path: str, arrays: dict[str, np.ndarray], groups: set[str]) -> str:
  """Returns a line with the file's path, number of tensors and parameters, and groups."""
  size = sum(array.size for array in arrays.values())
  return f"{path}: {len(arrays)} tensors, {size:,} parameters ({', '.join(sorted(groups))})"


def print_deviations(family: Family, config: Any, groups: set[str]) -> None:
  """Prints the differences between the Hugging Face library's computation and the one here."""
  for deviation in family.deviations(config, groups):
    print(f"The Hugging Face library computes different outputs from these weights: {deviation}")
