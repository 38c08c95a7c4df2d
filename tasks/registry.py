"""Registry of the jobs: name -> settings and Task class.

  @registry.register_task_cls(MySettings)      # in a user's own file
  class MyTask(base.RawDataTask):

Task classes of this repository are named by module and class: the module, and with it TensorFlow,
is imported when the task is made, so that flags and help need neither.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from errors import UserError
from tasks import settings


@dataclasses.dataclass(frozen=True)
class Job:
  """A kind of job.

  Attributes:
    settings: dataclass of the task's settings; its `job` is the name.
    task: subclass of tasks.base.Task, or "module:Class".
  """

  settings: type
  task: Any

  def task_class(self) -> type:
    """Returns the Task class; imports its module if it is given by name."""
    if not isinstance(self.task, str):
      return self.task
    module, name = self.task.split(":")
    return getattr(importlib.import_module(module), name)


JOBS: dict[str, Job] = {}


def register(name: str, settings_type: type, task: Any) -> None:
  """Registers a job.

  Args:
    name: also the `job` of the settings; recipes are configs/experiments/FAMILY_NAME.yaml.
    settings_type: dataclass of config.option fields whose names no shared section has.
    task: subclass of tasks.base.Task, or "module:Class".
  """
  assert settings_type.job == name, (settings_type, name)
  JOBS[name] = Job(settings_type, task)


def register_task_cls(settings_type: type) -> Callable[[type], type]:
  """Decorator: registers a Task class under the `job` of its settings; see `register`."""

  def decorate(task):
    register(settings_type.job, settings_type, task)
    return task

  return decorate


def find(name: str) -> Job:
  """Returns a job by its name; UserError lists the names."""
  if name not in JOBS:
    raise UserError(f"there is no job {name!r}; there are {', '.join(JOBS)}")
  return JOBS[name]


register("classification", settings.Classification, "tasks.classification:ClassificationTask")
register("race", settings.Race, "tasks.race:RaceTask")
register("squad", settings.Squad, "tasks.squad:SquadTask")
register("pretraining", settings.Pretraining, "tasks.pretraining:PretrainingTask")
register("tagging", settings.Tagging, "tasks.tagging:TaggingTask")
