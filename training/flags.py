"""absl flags from the dataclasses of settings, and back."""

import dataclasses
import re
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

from absl import flags

import config
from models import funnel_config
from utils import options

FLAGS = flags.FLAGS
Error = flags.Error

_DEFINERS = {bool: flags.DEFINE_bool, str: flags.DEFINE_string}


class _NumberParser(flags.ArgumentParser):
  """Parser of a setting that is a number, with the range of its field."""

  def __init__(self, field: dataclasses.Field):
    self._field = field

  def parse(self, argument):
    try:
      return options.convert(self._field, argument)
    except ValueError as error:
      raise ValueError(f"{options.brief(argument)} {error}") from None

  def flag_type(self):
    return self._field.metadata["kind"].__name__


def _define(field, default, help_text):
  """Defines the flag of a field of settings, or of a model configuration."""
  metadata = field.metadata
  if metadata.get("choices"):
    flags.DEFINE_enum(field.name, default, metadata["choices"], help_text)
  elif metadata.get("range"):
    flags.DEFINE(_NumberParser(field), field.name, default, help_text)
  else:
    _DEFINERS[metadata.get("kind", field.type)](field.name, default, help_text)


_groups: list[tuple[str, list[list[str]]]] = []  # (heading, [name, *aliases] of each flag)


def define(*sections: type) -> None:
  """Defines a flag, and its aliases, for each field of the given dataclasses.

  `help_text` lists them in the same order, so the most used section comes first. Fields of the same
  name make one flag; an alias that is the name of another flag is left out.
  """
  flags.disclaim_key_flags()  # they are the calling script's flags, so that its --help shows them
  for section in sections:
    known = _spellings()
    new = []
    for field in dataclasses.fields(section):
      if field.name not in known:
        help_text = field.metadata["help"]
        if field.default is None and "default:" not in help_text:
          help_text += " (default: the task's recipe)"
        _define(field, field.default, help_text)
        known[field.name] = [field.name]
        new.append(known[field.name])
      for alias in field.metadata["aliases"]:
        if all(alias not in spellings for spellings in known.values()):
          flags.DEFINE_alias(alias, field.name)
          known[field.name].append(alias)
    _groups.append(((section.__doc__ or "").split("\n")[0], new))


def _spellings():
  """Name of each flag that is defined here -> its name and aliases."""
  return {spellings[0]: spellings for _, names in _groups for spellings in names}


def define_lists(lists: dict[str, str]) -> None:
  """Defines flags that may be repeated: name -> help."""
  flags.disclaim_key_flags()
  _groups.append(("", [[name] for name in lists]))
  for name, text in lists.items():
    flags.DEFINE_multi_string(name, [], text)


def read_lists(names: Iterable[str]) -> dict[str, list[str]]:
  """Returns name -> values of flags that may be repeated."""
  return {name: list(FLAGS[name].value) for name in names}


def define_funnel() -> None:
  """Defines a flag for each key of a Funnel configuration.

  modeling.ModelConfig reads them: all in init_from_flags, those of --overwrite_keys with a file.
  """
  flags.disclaim_key_flags()
  fields = dataclasses.fields(funnel_config.ModelConfig)
  _groups.append(("Keys of a Funnel configuration.", [[field.name] for field in fields]))
  for field in fields:
    if field.name not in FLAGS:
      default = None if field.default is dataclasses.MISSING else field.default
      _define(field, default, "key of a Funnel configuration, see modeling.py")


def read_section(section: type) -> tuple[Any, set[str]]:
  """Reads the parsed flags of a dataclass; returns it and the names that the user gave."""
  values = {field.name: FLAGS[field.name].value for field in dataclasses.fields(section)}
  return section(**values), set(read_given(section))


def read_given(*sections: type) -> dict[str, Any]:
  """Returns name -> value of the flags of the given dataclasses that the user gave."""
  spellings = _spellings()
  return {
    field.name: FLAGS[field.name].value
    for section in sections
    for field in dataclasses.fields(section)
    if any(FLAGS[name].present for name in spellings[field.name])
  }


def read(*sections: type) -> config.Experiment:
  """Reads the parsed flags of the given dataclasses.

  Args:
    *sections: classes of config.Experiment's fields; any other class is that of the task.

  Returns:
    The experiment; sections that are not named keep their defaults.
  """
  experiment = config.Experiment()
  fields = {field.default_factory: field.name for field in dataclasses.fields(experiment)}
  for kind in sections:
    section, given = read_section(kind)
    setattr(experiment, fields.get(kind, "task"), section)
    experiment.sources.update(dict.fromkeys(given, "flag"))
  if experiment.job != "pretraining":  # other jobs read the keys of --overwrite_keys alone
    return experiment
  experiment.model_keys = {
    field.name: FLAGS[field.name].value
    for field in dataclasses.fields(funnel_config.ModelConfig)
    if field.name in FLAGS and FLAGS[field.name].present
  }
  return experiment


def help_text(description: str) -> str:
  """Returns a script's help: its description, then its flags under their sections' headings."""
  lines = [description.strip(), "", "--name=value sets a flag; --name or --noname sets a switch."]
  grouped = {name for _, names in _groups for spellings in names for name in spellings}
  own = [flag.name for flag in FLAGS.get_key_flags_for_module(sys.argv[0])]
  rest = [[name] for name in own if name not in grouped]
  for heading, names in (("Flags of this script alone.", rest), *_groups):
    lines += ["", heading] if names and heading else []
    for name, *aliases in names:
      flag = FLAGS[name]
      switch = "[no]" if flag.boolean else ""
      spellings = ", ".join(f"--{switch}{spelling}" for spelling in (name, *aliases))
      text = re.sub(r"^<.*?>: ", "", flag.help)  # absl writes the choices of an enum there
      values = getattr(flag.parser, "enum_values", ())
      text += f"; one of {', '.join(filter(None, values))}" if values else ""
      text += "" if flag.default in (None, "") else f" (default: {flag.default})"
      lines.append(f"  {spellings}")
      lines += textwrap.wrap(text, 94, initial_indent=" " * 6, subsequent_indent=" " * 6)
  return "\n".join(lines)
