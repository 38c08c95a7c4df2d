"""Fields of settings: declaration, conversion to their type, and range checks.

A setting is declared once, with its type and range. Flags, YAML files, recipes, other programs'
configurations and the settings of model folders all go through `convert`. Model configurations
declare their numbers with the same Range (models/config_keys.py).
"""

import dataclasses
from typing import Any

from errors import UserError

_LARGEST_INT = 2**31 - 1  # TensorFlow's graphs compute with int32 and float32
_LARGEST_FLOAT = 1e38
_KINDS = {bool: "true or false", int: "an integer", float: "a number"}


@dataclasses.dataclass(frozen=True)
class Range:
  """Allowed numbers of a type.

  Attributes:
    kind: int or float.
    lower: smallest allowed number.
    upper: largest allowed number.
    above: allowed numbers are larger than this.
    below: allowed numbers are smaller than this.
  """

  kind: type
  lower: float | None = None
  upper: float | None = None
  above: float | None = None
  below: float | None = None

  @property
  def ends(self) -> tuple[float, float]:
    """The smallest and the largest allowed number, without regard to `above` and `below`."""
    largest = _LARGEST_INT if self.kind is int else _LARGEST_FLOAT
    return (
      -largest if self.lower is None else self.lower,
      largest if self.upper is None else self.upper,
    )

  def check(self, value: Any) -> None:
    """ValueError with the end of a message if a value is of another type, or out of range."""
    is_number = isinstance(value, int if self.kind is int else int | float)
    if not is_number or isinstance(value, bool) or value != value:
      raise ValueError(f"is not {_KINDS[self.kind]}")
    lower, upper = self.ends
    if value < lower:
      raise ValueError(f"is below {lower}")
    if value > upper:
      raise ValueError(f"is above {upper}")
    if self.above is not None and value <= self.above:
      raise ValueError(f"is not above {self.above}")
    if self.below is not None and value >= self.below:
      raise ValueError(f"is not below {self.below}")


def option(
  default: Any,
  help_text: str,
  choices: tuple[str, ...] | None = None,
  aliases: tuple[str, ...] = (),
  kind: type | None = None,
  stored: bool = False,
  **ends: float,
) -> Any:
  """Dataclass field that is also a flag.

  Args:
    default: default value; None leaves it to the recipe.
    help_text: one line, with the unit.
    choices: allowed values of a string.
    aliases: further names of the flag.
    kind: bool, int, float or str; the type of the default unless that is None.
    stored: the model folder stores the value of training (training/model_folder.py), and
      evaluation, prediction and conversion use it.
    **ends: lower, upper, above, below: ends of the range of a number, see Range.
  """
  kind = kind or type(default)
  return dataclasses.field(
    default=default,
    metadata={
      "help": help_text,
      "choices": choices,
      "aliases": aliases,
      "kind": kind,
      "range": Range(kind, **ends) if kind in (int, float) else None,
      "stored": stored,
    },
  )


def convert(field: dataclasses.Field, value: Any) -> Any:
  """Returns a value in the type of its field; text is converted, as YAML reads 1e-4 as text.

  Raises:
    ValueError: the value is of another type or out of range; the message is the end of a sentence
      that begins with the value.
  """
  metadata, kind = field.metadata, field.metadata["kind"]
  if value is None:
    if field.default is None or kind is str:
      return field.default
    raise ValueError(f"is empty, where {_KINDS[kind]} is expected")
  if kind is str:
    if isinstance(value, dict | list):
      raise ValueError("is a list or mapping, where a text is expected")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if metadata["choices"] and text not in metadata["choices"]:
      raise ValueError(f"is none of {', '.join(filter(None, metadata['choices']))}")
    return text
  if kind is bool:
    converted = {"true": True, "false": False}.get(str(value).lower())
    if converted is None:
      raise ValueError(f"is not {_KINDS[kind]}")
    return converted
  converted = _number(value, kind)
  metadata["range"].check(converted)
  return converted


def checked(section: Any, name: str, value: Any, source: str, key: str = "") -> Any:
  """Returns a value in the type of a setting.

  Args:
    section: dataclass of the setting, or an object of it.
    name: name of the setting.
    value: of the setting's type, or text of it.
    source: file and line, flag or layer, for messages.
    key: the key that the user wrote, for messages.

  Raises:
    UserError: the value has another type, or is out of range.
  """
  field = next(field for field in dataclasses.fields(section) if field.name == name)
  try:
    return convert(field, value)
  except ValueError as error:
    place = source if source == f"--{name}" else f"{source}: {key or name}"
    raise UserError(f"{place}: {brief(value)} {error}") from None


def check_section(section: Any) -> None:
  """Raises UserError if a value of a section of settings is of another type, or out of range."""
  for name, value in vars(section).items():
    checked(section, name, value, f"--{name}")


def _number(value, kind):
  """The value as kind (int or float) if it is such a number or its text, else unchanged."""
  if isinstance(value, bool) or not isinstance(value, int | float | str):
    return value
  try:
    if isinstance(value, str):
      value = int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
    if kind is float:
      return float(value)
    return int(value) if int(value) == value else value
  except (ValueError, OverflowError):  # text; infinity; more digits than Python converts
    return value


def brief(value: Any) -> str:
  """Returns a value for a message: its literal, shortened if it is long."""
  if isinstance(value, int) and value.bit_length() > 200:
    return f"an integer of {value.bit_length()} bits"
  text = repr(value)
  return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
