"""Settings of an experiment by dotted keys: YAML files, overrides, and params.yaml.

A key is SECTION.NAME for a setting of config.Experiment (optimizer.learning_rate), model.keys.NAME
for a key of the model's configuration (model.keys.hidden_size), or a key of Model Garden's
experiments (task.train_data.seq_length, see training/garden.py).

Layers, of which the last wins: the experiment's defaults, each file in order, --tpu, the
overrides, flags. Settings that no layer sets come from the trained model's folder and the recipe.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

import config
from errors import UserError
from training import garden
from utils import files
from utils.options import brief

# A line of an override in CSV form: a.b=value, where a value may be quoted or a flat [list].
_PAIR = re.compile(r"""\s*([\w.]+)\s*=\s*("[^"]*"|'[^']*'|\[[^\]]*\]|[^,]*)\s*(?:,|$)""")

Entry = tuple[str, Any, str]  # dotted key, value, source for messages


def read_file(path: str) -> list[Entry]:
  """Reads a YAML file; returns (dotted key, value, "path: line N") of each of its leaves.

  Raises:
    UserError: the file is missing, is no YAML mapping, or has a tag that builds Python objects.
  """
  try:
    with files.open_file(path, "r") as reader:
      text = reader.read()
  except files.io_errors(path) as error:
    raise UserError(f"{path}: cannot read this file ({files.reason(error)})") from None
  except UnicodeDecodeError:
    raise UserError(f"{path}: not a text file in UTF-8") from None
  return parse(text, path)


def parse(text: str, source: str) -> list[Entry]:
  """Parses YAML (or JSON) text; see read_file."""
  try:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    loader = yaml.SafeLoader("")
    return [] if root is None else list(_leaves(root, loader, "", source))
  except yaml.MarkedYAMLError as error:
    line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
    raise UserError(f"{source}:{line} not valid YAML: {error.problem}") from None
  except (yaml.YAMLError, RecursionError, ValueError) as error:
    raise UserError(f"{source}: not valid YAML: {error}") from None


def _leaves(node, loader, prefix, source):
  place = f"{source}: line {node.start_mark.line + 1}"
  if not isinstance(node, yaml.MappingNode):
    if not prefix:
      raise UserError(f"{place}: settings are a mapping of sections, such as trainer: ...")
    yield prefix, loader.construct_document(node), place
    return
  seen = set()
  for key_node, value_node in node.value:
    key = str(loader.construct_document(key_node))
    if key in seen:
      raise UserError(f"{source}: line {key_node.start_mark.line + 1}: {key} is there twice")
    seen.add(key)
    yield from _leaves(value_node, loader, f"{prefix}.{key}" if prefix else key, source)


def read_override(text: str) -> list[Entry]:
  """Reads --params_override: CSV (a.b=c,a.d=e), YAML or JSON text, or the path of such a file."""
  source = "--params_override"
  if not text.strip():
    return []
  if "\n" not in text and os.path.isfile(text):
    return read_file(text)
  if re.match(r"\s*[\w.]+\s*=", text):
    entries, position = [], 0
    while position < len(text):
      match = _PAIR.match(text, position)
      if not match:
        raise UserError(f"{source}: {text[position:]!r} is no KEY=VALUE; e.g. trainer.seed=1")
      entries.append((match[1], _scalar(match[2], source), source))
      position = match.end()
    return entries
  return parse(text, source)


def _scalar(text, source):
  try:
    return yaml.safe_load(text)
  except (yaml.YAMLError, RecursionError, ValueError):
    raise UserError(f"{source}: {brief(text)} is no value") from None


def apply(experiment: config.Experiment, entries: Iterable[Entry]) -> None:
  """Sets the entries in order, so the last one of a setting wins.

  Raises:
    UserError: an unknown key (with the nearest ones), a value of the wrong type or out of range.
  """
  for key, value, source in entries:
    section_name, _, name = key.partition(".")
    section = experiment.sections().get(section_name)
    if key.startswith("model.keys."):
      experiment.model_keys[key.removeprefix("model.keys.")] = value
    elif section is not None and name in {field.name for field in dataclasses.fields(section)}:
      experiment.set(name, value, source, key)
    elif not garden.apply(experiment, key, value, source):
      raise UserError(f"{source}: there is no setting {key}{nearest(key, known_keys(experiment))}")


def spelling(experiment: config.Experiment) -> dict[str, str]:
  """Returns the name of each setting -> its dotted key."""
  return {
    field.name: f"{section_name}.{field.name}"
    for section_name, section in experiment.sections().items()
    for field in dataclasses.fields(section)
  }


def known_keys(experiment: config.Experiment) -> list[str]:
  """Returns every dotted key of the experiment, Model Garden's included."""
  return [*spelling(experiment).values(), *garden.keys(experiment)]


def nearest(key: str, known: Sequence[str]) -> str:
  """Returns the end of a message with the known keys that are most like `key`; may be empty."""
  last = key.split(".")[-1]
  found = difflib.get_close_matches(key, known, 2, 0.6) + [
    name for name in known if name.split(".")[-1] == last
  ]
  return f"; did you mean {' or '.join(dict.fromkeys(found))}?" if found else ""


def to_yaml(experiment: config.Experiment) -> str:
  """Returns all settings as YAML that `read_file` reads, each with the layer of its value."""
  lines = ["# Settings of a run, and the layer that each value is from."]
  for section_name, section in experiment.sections().items():
    lines.append(f"{section_name}:")
    for field in dataclasses.fields(section):
      value = getattr(section, field.name)
      text = yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]
      source = experiment.sources.get(field.name, "default")
      lines.append(f"  {field.name}: {text}  # {source}")
    if section_name == "model" and experiment.model_keys:
      lines.append("  keys:")
      keys = yaml.safe_dump(experiment.model_keys, sort_keys=False)
      lines += [f"    {line}" for line in keys.splitlines()]
  return "\n".join(lines) + "\n"
