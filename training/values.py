"""Values of settings: conversion to the type of their field, and range checks."""

import dataclasses
from typing import Any

import config
from errors import UserError


def set_value(
  experiment: config.Experiment, name: str, value: Any, source: str, key: str = ""
) -> None:
  """Sets a setting to a checked value.

  Args:
    experiment: changed in place.
    name: name of the setting.
    value: of the setting's type; text is converted, as YAML reads 1e-4 as text.
    source: layer of the value, for messages and params.yaml.
    key: the key that the user wrote, for messages.

  Raises:
    UserError: the value has another type, or is out of range.
  """
  field = field_of(experiment, name)
  try:
    experiment.set(name, convert(field, value), source)
  except ValueError as error:
    raise UserError(f"{source}: {key or name}: {value!r} {error}") from None


def field_of(experiment: config.Experiment, name: str) -> dataclasses.Field:
  """Returns the dataclass field of a setting."""
  section = experiment.owners()[name]
  return next(field for field in dataclasses.fields(section) if field.name == name)


def convert(field: dataclasses.Field, value: Any) -> Any:
  """Returns a value in the type of its field; ValueError with what is wrong about it."""
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
  else:
    converted = _number(value, kind)
  if converted is None:
    raise ValueError(f"is not {_KINDS[kind]}")
  if metadata["lower"] is not None and converted < metadata["lower"]:
    raise ValueError(f"is below {metadata['lower']}")
  return converted


_KINDS = {bool: "true or false", int: "an integer", float: "a number"}


def _number(value, kind):
  """The value as kind (int or float); None if it is none."""
  if isinstance(value, bool) or not isinstance(value, int | float | str):
    return None
  try:
    number = float(value)
  except ValueError:
    return None
  if number != number or number in (float("inf"), float("-inf")):
    return None
  if kind is float:
    return number
  return int(value) if isinstance(value, int) else int(number) if number.is_integer() else None
