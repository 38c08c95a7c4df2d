"""A job from its settings to its results: completion, task, records, runner, trials."""

import copy
import dataclasses
import os

import config
from errors import UserError
from preprocessing import synthetic
from tasks import registry
from tasks.base import RawDataTask
from training import (
  app,
  checkpoints,
  experiments,
  fewshot,
  model_folder,
  pretraining,
  record_sources,
  runner,
)


def run(experiment: config.Experiment) -> None:
  """Completes the settings and runs the job, as often as --num_trials says.

  Args:
    experiment: settings of the user; changed in place.

  Raises:
    UserError: the settings contradict each other, or a file is missing or bad.
  """
  if _maker(experiment) is make_runner:
    complete(experiment)
  else:
    pretraining.complete(experiment)
  app.run_trials(experiment, _run_once)


def _run_once(experiment):
  """Runs one trial; returns its metrics."""
  run = _maker(experiment)(experiment)
  metrics = run.run()
  runtime = experiment.runtime
  is_work = not (
    runtime.validate_only or runtime.compile_only or experiment.preprocessing.prepro_split
  )
  if is_work and getattr(experiment.task, "do_fewshot", False):
    checkpoint = fewshot.find_checkpoint(run)
    names = filter(None, experiment.task.fewshot_tasks.split(","))
    others = [_make_probe(experiment, name.strip(), checkpoint) for name in names]
    fewshot.evaluate([run, *others], checkpoint)
  return metrics


def _make_probe(experiment, task_name, checkpoint):
  """Runner of another task for a trained encoder; its files are in model_dir/fewshot/TASK."""
  other = copy.deepcopy(experiment)
  other.task.tfds_params = ""
  other.task.task_name = (
    registry.find(other.job)
    .task_class()
    .canonical_name(dataclasses.replace(other.task, task_name=task_name))
  )
  folder = os.path.join(experiment.trainer.model_dir, "fewshot", other.task.task_name)
  other.trainer.model_dir = other.data.output_dir = folder
  other.trainer.do_train = False
  other.model.init_checkpoint = checkpoint
  other.raw_data.data_dir = ""
  other.record_files = config.RecordFiles()
  return make_runner(other)


def evaluate_continuously(experiment: config.Experiment) -> None:
  """Evaluates each checkpoint that another process writes to model_dir, as it comes.

  Raises:
    UserError: see `run`.
  """
  trainer = experiment.trainer
  if not checkpoints.wait_for_new(trainer.model_dir, None, trainer.continuous_eval_timeout):
    raise UserError(
      f"{trainer.model_dir}: no checkpoint in {trainer.continuous_eval_timeout} seconds "
      f"(--continuous_eval_timeout)"
    )
  experiment.set("do_eval", True, "mode")
  if _maker(experiment) is make_runner:
    complete(experiment)
  else:
    pretraining.complete(experiment)
  evaluation = _maker(experiment)(experiment)
  evaluation.check_before_work()
  evaluation.evaluate_continuously()


def _maker(experiment):
  """Function that makes the runner of the experiment's job."""
  is_raw = issubclass(registry.find(experiment.job).task_class(), RawDataTask)
  return make_runner if is_raw else pretraining.make_runner


def complete(experiment: config.Experiment) -> None:
  """Fills the settings of a task on raw data from the trained model, the encoder and the recipe."""
  task_class, settings = registry.find(experiment.job).task_class(), experiment.task
  name = task_class.canonical_name(settings)
  if hasattr(settings, "task_name"):
    settings.task_name = name
  experiments.take_model_settings(experiment, name)
  _read_records(experiment, task_class)
  name = task_class.canonical_name(settings)
  if not name:
    raise UserError(
      f"--task_name is missing; e.g. --task_name={task_class.known_names()[0]}. Known are "
      + ", ".join(task_class.known_names())
    )
  experiments.complete(experiment, name)


def _read_records(experiment, task_class):
  """Fills the task's name and the length from the metadata of given record files."""
  settings = experiment.task
  record_sets, meta = record_sources.find_record_sets(
    experiment.record_files, not getattr(settings, "num_classes", 0)
  )
  if not record_sets:
    return
  path = experiment.record_files.input_meta_data_path
  if hasattr(settings, "task_name"):
    name = task_class.name_of_records(meta)
    if name and not settings.task_name:
      experiment.fill("task_name", name, path)
  if "max_seq_length" in meta:
    experiment.fill("max_seq_length", meta["max_seq_length"], path)


def make_runner(experiment: config.Experiment) -> runner.Runner:
  """Returns the runner of a task on raw data, or on record files made from them.

  Args:
    experiment: complete settings.
  """
  model_config = model_folder.find_model_config(experiment)
  task_class = registry.find(experiment.job).task_class()
  task = task_class.from_experiment(experiment, model_config.family)
  record_sets, meta = record_sources.find_record_sets(
    experiment.record_files, not getattr(experiment.task, "num_classes", 0)
  )
  if experiment.data.synthetic_data:
    record_sets = synthetic.record_sets(
      experiment.data.output_dir,
      task,
      experiment.data.max_seq_length,
      model_config.vocab_size,
      experiment.trainer.seed,
    )
  if task.predicts_dev and "dev" in record_sets:
    record_sets.setdefault("test", record_sets["dev"])
  folder = model_folder.trained_folder(experiment)
  stored = model_folder.read_settings(folder or model_folder.start_folder(experiment.model))
  task.take_model_settings(stored, folder, meta)
  run = runner.Runner(experiment, model_config, task, record_sets)
  run.sources.check(meta)
  return run
