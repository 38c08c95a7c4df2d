"""Labels, weights and ids of classification files: parsing and checks."""

import math
import re
from collections.abc import Iterable
from typing import Any

from errors import UserError
from utils.options import brief


def parse_weight(text: str, name: str) -> float:
  """A weight as a number; `name` begins the message if it is none."""
  weight = parse_number(text)
  if not (math.isfinite(weight) and weight >= 0):
    raise UserError(f"{name} is {brief(text)}; it must be a number from 0 on")
  return weight


def check_cell(place: str, name: str, text: str) -> None:
  """Raises UserError if a text cannot be a cell of the predictions, which have no quotes."""
  if re.search(r"[\t\r\n]", text):
    raise UserError(
      f"{place}: the {name} {brief(text)} has a tab or a line break in it, which the file "
      f"of predictions cannot hold"
    )


def check_label_list(names: Any, source: str) -> None:
  """Raises UserError if a list of labels from a file holds no different texts of one line.

  Args:
    names: the value of "label_list".
    source: the file or folder, for messages.
  """
  if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
    raise UserError(f"{source}: label_list is {brief(names)}, but must be a list of texts")
  for name in names:
    check_cell(source, "label", name)
  if len(set(names)) < len(names):
    raise UserError(f"{source}: label_list is {brief(names)}; its names must differ")


def label_value(name: str) -> int | float | str:
  """Value that two spellings of a label share: 1 for "1", " 1", "01" and "1.0"."""
  text = name.strip()
  if is_int(text):
    return int(text)  # exact, unlike a float
  number = parse_number(text)
  return number if math.isfinite(number) else text


def parse_number(text: str) -> float:
  """Number of a text; nan for any other text, "1_0" included."""
  try:
    return math.nan if "_" in text else float(text)
  except ValueError:
    return math.nan


def is_int(text: str) -> bool:
  """Returns whether a text is a decimal integer."""
  return text.removeprefix("-").isdecimal() and len(text) < 100  # Python limits the digits


def sort_labels(names: Iterable[str], path: str) -> tuple[str, ...]:
  """Returns the labels of a training file, numbers first; UserError if they cannot be classes."""
  spellings = {}
  for name in sorted(names):
    other = spellings.setdefault(label_value(name), name)
    if other != name:
      raise UserError(
        f"{path}: the labels {brief(other)} and {brief(name)} are "
        f"the same {'text' if other.strip() == name.strip() else 'number'}; "
        f"write all of them in one form"
      )
  labels = tuple(
    sorted(names, key=lambda name: (not is_int(name), is_int(name) and int(name), name))
  )
  if len(labels) < 2:
    raise UserError(
      f"{path}: found the labels {list(labels)}; "
      f"at least two are needed to train a classifier (is --label_col right?)"
    )
  return labels
