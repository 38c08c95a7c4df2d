"""Recipes: settings of a job and its tasks that the user need not set (configs/experiments/)."""

import os
from typing import Any

import yaml

import config
from errors import UserError

EXPERIMENTS_DIR = os.path.join(os.path.dirname(config.__file__), "configs", "experiments")


def path_of(family: str, job: str) -> str:
  """Returns the file of a job's recipes; for a user's own job that of classification."""
  paths = [
    os.path.join(EXPERIMENTS_DIR, f"{family}_{name}.yaml") for name in (job, "classification")
  ]
  return paths[0] if os.path.exists(paths[0]) else paths[1]


def load(family: str, job: str, task_name: str) -> dict[str, Any]:
  """Returns name -> value of a task's recipe: the file's defaults, then the task's own values."""
  path = path_of(family, job)
  with open(path, encoding="utf-8") as reader:
    recipe = yaml.safe_load(reader)
  return {**recipe["defaults"], **recipe["tasks"].get(task_name, {})}


def apply(
  experiment: config.Experiment, recipe: dict[str, Any], source: str = "recipe"
) -> dict[str, Any]:
  """Fills the settings that are not set from a recipe; returns those that were taken from it.

  Args:
    experiment: changed in place.
    recipe: name -> value.
    source: where the recipe is from.

  Raises:
    UserError: a name is no setting.
  """
  known = experiment.owners()
  for name in recipe:
    if name not in known:
      raise UserError(f"the recipe sets {name!r}, which is no setting")
  return {name: value for name, value in recipe.items() if experiment.fill(name, value, source)}
