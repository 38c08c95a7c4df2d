"""A job from its settings to its results: completion, task, records, runner, trials."""

import config
from errors import UserError
from tasks import registry
from tasks.base import RawDataTask
from training import app, experiments, model_folder, pretraining, record_sources, runner


def run(experiment: config.Experiment) -> None:
  """Completes the settings and runs the job, as often as --num_trials says.

  Args:
    experiment: settings of the user; changed in place.

  Raises:
    UserError: the settings contradict each other, or a file is missing or bad.
  """
  if issubclass(registry.find(experiment.job).task_class(), RawDataTask):
    complete(experiment)
    make = make_runner
  else:
    pretraining.complete(experiment)
    make = pretraining.make_runner
  app.run_trials(experiment, lambda one: make(one).run())


def complete(experiment: config.Experiment) -> None:
  """Fills the settings of a task on raw data from the trained model, the encoder and the recipe."""
  task_class, settings = registry.find(experiment.job).task_class(), experiment.task
  name = task_class.canonical_name(settings)
  if hasattr(settings, "task_name"):
    settings.task_name = name
  experiments.take_model_settings(experiment, name)
  name = task_class.canonical_name(settings)
  if not name:
    raise UserError(
      f"--task_name is missing; e.g. --task_name={task_class.known_names()[0]}. Known are "
      + ", ".join(task_class.known_names())
    )
  experiments.complete(experiment, name)


def make_runner(experiment: config.Experiment) -> runner.Runner:
  """Returns the runner of a task on raw data, or on record files made from them.

  Args:
    experiment: complete settings.
  """
  model_config = model_folder.load_model_config(experiment.model)
  task_class = registry.find(experiment.job).task_class()
  task = task_class.from_experiment(experiment, model_config.family)
  record_sets, meta = record_sources.find_record_sets(experiment.record_files)
  if task.predicts_dev and "dev" in record_sets:
    record_sets.setdefault("test", record_sets["dev"])
  folder = model_folder.trained_folder(experiment)
  stored = model_folder.read_settings(folder or model_folder.start_folder(experiment.model))
  task.take_model_settings(stored, folder, meta)
  run = runner.Runner(experiment, model_config, task, record_sets)
  run.sources.check(meta)
  return run
