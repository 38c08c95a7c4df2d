"""Loads a trained model from its folder: settings, task, tokenizer, checkpoint."""

import dataclasses
import os
from typing import Any

import config
import modeling
import tokenization
from errors import UserError
from tasks import registry
from tasks.base import RawDataTask
from training import checkpoints, jobs, layer_arguments, model_folder

NO_TASK = ("", "pretraining")  # jobs of folders whose model is an encoder without a task's head


@dataclasses.dataclass
class TrainedModel:
  """A model that a script trained.

  Attributes:
    experiment: its settings.
    config: configuration of the encoder.
    task: the task, with the labels of the model.
    tokenizer: the tokenizer.
    checkpoint: prefix of the checkpoint.
  """

  experiment: config.Experiment
  config: modeling.Config
  task: RawDataTask
  tokenizer: Any
  checkpoint: str


def job_of(model_dir: str) -> str:
  """Returns the job of the model in a folder; "" if it is an encoder alone."""
  stored = model_folder.read_settings(model_dir)
  # Folders of earlier versions have labels.json alone.
  default = "classification" if "task_name" in stored or "label_list" in stored else ""
  return stored.get("job", default)


def load(model_dir: str, **settings: Any) -> TrainedModel:
  """Loads the model that --do_predict of the scripts would use.

  Args:
    model_dir: folder of a training run, or its folder best.
    **settings: settings that differ from the stored ones, by the names of the flags, e.g.
      max_seq_length=64.

  Raises:
    UserError: the folder holds no model of a task on raw data, or a setting is wrong.
  """
  job = job_of(model_dir)
  if job in NO_TASK:
    model_folder.find_checkpoint(model_dir, config.Model(), "load")  # or there is no model at all
    raise UserError(
      f"{model_dir}: an encoder without a task; fine-tune it, or see extract_features.py"
    )
  experiment = config.Experiment(task=registry.find(job).settings())
  experiment.set("model_dir", model_dir, "argument")
  experiment.set("do_predict", True, "argument")
  if model_folder.read_settings(model_dir).get("task_name") == "tfds":
    experiment.set("task_name", "tsv", "argument")  # texts come from the caller
  for name, value in settings.items():
    if name not in experiment.owners():
      raise UserError(f"there is no setting {name}; see docs/configuration.md")
    experiment.set(name, value, "argument")
  jobs.complete(experiment)
  return _load(experiment)


def _load(experiment):
  """Returns the model of complete settings."""
  model_config = model_folder.find_model_config(experiment)
  layer_arguments.apply(experiment.model.gin_bindings, model_config.family)
  model_dir = experiment.trainer.model_dir
  found = checkpoints.latest(os.path.join(model_dir, "best"))
  found = found or model_folder.find_checkpoint(model_dir, experiment.model, "predict with")
  model_config = fit_config(model_config, found, experiment.model.model_config)
  task = registry.find(experiment.job).task_class().from_experiment(experiment, model_config.family)
  task.take_model_settings(model_folder.read_settings(model_dir), model_dir, {})
  tokenizer = tokenization.get_tokenizer(**dataclasses.asdict(experiment.tokenizer))
  tokenization.check_vocab(tokenizer, model_config.vocab_size, experiment.model.model_config)
  return TrainedModel(experiment, model_config, task, tokenizer, found)


def fit_config(model_config: modeling.Config, checkpoint: str, source: str) -> modeling.Config:
  """Returns the configuration with the size of the checkpoint's embedding table."""
  shapes = checkpoints.open_reader(checkpoint).get_variable_to_shape_map()
  return checkpoints.fit_config(model_config, shapes, checkpoint, source)
