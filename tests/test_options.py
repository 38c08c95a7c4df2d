"""Ranges of numeric settings: the same check for flags, YAML files and recipes."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import tiny

import config
import create_finetuning_data
from errors import UserError
from preprocessing import pretraining_records, vocabulary_builder
from tasks import settings
from training import params, recipes
from utils import options

SECTIONS = (
  *dict.fromkeys(
    section
    for module in (config, settings, create_finetuning_data, pretraining_records)
    for section in vars(module).values()
    if dataclasses.is_dataclass(section) and section is not config.Experiment
  ),
  vocabulary_builder.Vocabulary,
)
NUMBERS = [
  field
  for section in SECTIONS
  for field in dataclasses.fields(section)
  if field.metadata.get("kind") in (int, float)
]

REFUSED = [
  ("learning_rate", "nan", "is not a number"),
  ("learning_rate", "inf", "is above 1e+38"),
  ("learning_rate", "-1e-5", "is below 0"),
  ("num_train_epochs", "1e400", "is above 1000000"),
  ("num_train_epochs", "-1", "is below 0"),
  ("warmup_proportion", "1.5", "is above 1"),
  ("warmup_steps", "-2", "is below -1"),
  ("weight_decay", "nan", "is not a number"),
  ("weight_decay", "-0.1", "is below 0"),
  ("clip", "-1", "is below 0"),
  ("adam_beta1", "1.5", "is not below 1"),
  ("adam_beta2", "1", "is not below 1"),
  ("adam_epsilon", "0", "is not above 0"),
  ("min_lr_ratio", "nan", "is not a number"),
  ("lr_layer_decay_rate", "-0.5", "is not above 0"),
  ("train_batch_size", "100000000000000", "is above 1000000"),
  ("train_batch_size", "0", "is below 1"),
  ("eval_batch_size", "1.5", "is not an integer"),
  ("max_seq_length", "9" * 5000, "is not an integer"),
  ("train_steps", "", "is not an integer"),
  ("num_hosts", "0", "is below 1"),
]


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_every_number_has_a_range(field):
  refused = [math.nan, math.inf, -math.inf, 10**40, -(10**40), True, "", "1_0x", [], {}, "9" * 5000]
  for value in refused:
    with pytest.raises(ValueError, match="^is "):
      options.convert(field, value)
  if field.default is not None:
    assert options.convert(field, str(field.default)) == field.default
    assert type(options.convert(field, field.default)) is field.metadata["kind"]


def test_numbers_are_read_from_text():
  field = lambda kind: options.option(None, "", kind=kind)
  assert options.convert(field(float), "1e-4") == 1e-4
  assert options.convert(field(int), "+07") == 7 and options.convert(field(int), "1e3") == 1000
  assert options.convert(field(int), 2.0) == 2 and options.convert(field(int), None) is None
  assert options.brief("a" * 100).endswith("(102 characters)")
  assert options.brief(10**5000) == "an integer of 16610 bits"


@pytest.fixture(scope="module")
def flag_errors():
  """Messages of the flags of REFUSED."""
  program = """
import json, sys
import config
from training import flags
flags.define(
  config.Model, config.Tokenizer, config.Data, config.Optimizer, config.Trainer, config.Runtime
)
messages = []
for name, value in json.load(sys.stdin):
  try:
    flags.FLAGS(["program", f"--{name}={value}"])
    messages.append("")
  except flags.Error as error:
    messages.append(str(error))
assert "tensorflow" not in sys.modules
print(json.dumps(messages))
"""
  given = json.dumps([(name, value) for name, value, _ in REFUSED])
  done = subprocess.run(
    [sys.executable, "-c", program], input=given, capture_output=True, text=True, cwd=tiny.ROOT
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=lambda index: REFUSED[index][0])
def test_flags_yaml_and_recipes_refuse_the_same_numbers(index, flag_errors):
  name, value, message = REFUSED[index]
  assert f"--{name}=" in flag_errors[index] and message in flag_errors[index]
  experiment = config.Experiment()
  section = next(key for key, one in experiment.sections().items() if name in vars(one))
  with pytest.raises(UserError) as error:
    params.apply(experiment, params.parse(f"{section}:\n  {name}: '{value}'", "x.yaml"))
  assert f"x.yaml: line 2: {section}.{name}: " in str(error.value) and message in str(error.value)
  with pytest.raises(UserError) as error:
    recipes.apply(experiment, {name: value}, "a recipe")
  assert f"a recipe: {name}: " in str(error.value) and message in str(error.value)


def test_a_recipe_is_checked_below_a_flag_too():
  experiment = config.Experiment(sources={"clip": "flag"})
  with pytest.raises(UserError, match="recipe: clip: -1 is below 0"):
    recipes.apply(experiment, {"clip": -1})
