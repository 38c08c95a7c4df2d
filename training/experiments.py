"""Completes the settings of a run: folders, the trained model's settings, encoder, recipe."""

import dataclasses
import logging
import os

import config
import modeling
from errors import UserError
from training import checkpoints, hub, model_folder, recipes

log = logging.getLogger(__name__)


def take_model_settings(experiment: config.Experiment, task_name: str) -> None:
  """Fills the --do_ flags, the folders, and the settings that a trained model's folder stores.

  `complete` follows once the task's name is known.

  Args:
    experiment: changed in place.
    task_name: the task's canonical name; empty to read it from the folder.

  Raises:
    UserError: there is no trained model to evaluate or predict with, or settings contradict it.
  """
  trainer, model, preprocessing = experiment.trainer, experiment.model, experiment.preprocessing
  _check_preprocessing(preprocessing)
  if trainer.do_submit and experiment.job != "classification":
    raise UserError("--do_submit writes GLUE's submission files; use --do_predict")
  if trainer.predict_dir and trainer.num_trials > 1:
    raise UserError(
      "--predict_dir: with --num_trials each trial writes its predictions to its own "
      "model_dir; leave --predict_dir out"
    )
  # Work for which no trained model, and no --do_ flag, is needed.
  task = experiment.task
  has_other_work = preprocessing.prepro_split or any(
    getattr(task, name, False) for name in ("do_ensemble", "do_fewshot")
  )
  if not any(
    (trainer.do_train, trainer.do_eval, trainer.do_predict, trainer.do_submit, has_other_work)
  ):
    trainer.do_train = trainer.do_eval = True
  _fill_folders(experiment, task_name)
  hub.set_init_checkpoint(model)
  best = os.path.join(model.init_checkpoint, "best")
  if not trainer.do_train and model_folder.start_folder(model) and checkpoints.latest(best):
    model.init_checkpoint = best
  if not (trainer.do_train or has_other_work) and trainer.model_dir and trainer.num_trials == 1:
    model_folder.find_checkpoint(
      trainer.model_dir, model, "evaluate" if trainer.do_eval else "predict with"
    )
  model_folder.take_settings(experiment)


def _check_preprocessing(settings):
  if settings.proc_id >= 0 and not settings.prepro_split:
    raise UserError(
      f"--proc_id={settings.proc_id} makes a part of the records only: it goes with "
      f"--prepro_split. Leave it out to make all with --num_proc processes"
    )
  if settings.proc_id >= settings.num_proc:
    raise UserError(f"--proc_id={settings.proc_id} is not below --num_proc={settings.num_proc}")


def complete(experiment: config.Experiment, task_name: str) -> None:
  """Fills the encoder, the tokenizer's settings, and the task's recipe.

  Args:
    experiment: after take_model_settings; changed in place.
    task_name: the task's canonical name.
  """
  model, tokenizer, trainer = experiment.model, experiment.tokenizer, experiment.trainer
  _fill_folders(experiment, task_name)
  model_folder.take_stored_sizes(experiment)
  model_dir = trainer.model_dir
  if trainer.num_trials > 1 and not trainer.do_train:  # all trials have the files of the first
    model_dir = os.path.join(model_dir, "trial_0")
  model_folder.find_pretrained(
    model,
    tokenizer,
    model_dir,
    trainer.do_train,
    experiment.sources,
    not model_folder.has_inline_config(experiment),
    _needs_vocab(experiment),
  )
  if tokenizer.tokenizer_path:
    start = model_folder.start_folder(model)
    folders = [os.path.dirname(tokenizer.tokenizer_path), *([start] if start else [])]
    model_folder.fill_tokenizer(tokenizer, folders, experiment.sources)
  model_config = model_folder.find_model_config(experiment)
  if experiment.family == "funnel" and model_config.family != "funnel":
    raise UserError(
      f"the experiment is for a Funnel-Transformer, but {model.model_config or 'model.keys'} is "
      f"of family {model_config.family}; choose another --experiment, or another --model_config"
    )
  check_trained_config(experiment, model_config)
  take_recipe(experiment, model_config.family, task_name)


def _needs_vocab(experiment):
  """Whether records are made from text."""
  trainer, records = experiment.trainer, experiment.record_files
  evaluates = trainer.do_eval or trainer.eval_every_steps > 0
  return not experiment.data.synthetic_data and bool(
    (trainer.do_train and not records.train_data_path)
    or (evaluates and not records.eval_data_path)
    or (trainer.do_predict and not (records.test_data_path or records.eval_data_path))
    or trainer.do_submit
    or experiment.preprocessing.prepro_split
  )


# Keys that do not change what a trained model computes, or that checkpoints.fit_config adapts.
_FREE_KEYS = {
  "vocab_size",
  "dropout",
  "dropatt",
  "dropact",
  "hidden_dropout_prob",
  "attention_probs_dropout_prob",
  "init",
  "init_std",
  "init_range",
  "initializer_range",
}


def check_trained_config(experiment: config.Experiment, model_config: modeling.Config) -> None:
  """UserError if a configuration that the user named differs from the trained model's.

  Pooling and activations, for example, change the numbers but no variable's shape.
  """
  folder = model_folder.trained_folder(experiment)
  path = folder and model_folder.find_in(folder, [model_config.file_name])
  if not path:
    return
  own, named = (
    dataclasses.asdict(values)
    for values in (model_folder.load_model_config(config.Model(model_config=path)), model_config)
  )
  for values in (own, named):  # two forms of the same attention
    if values.get("rel_attn_type") == "rel_shift":
      values["rel_attn_type"] = "factorized"
  for key in sorted(own.keys() - _FREE_KEYS):
    if own[key] != named[key]:
      raise UserError(
        f"{experiment.model.model_config}: {key} is {named[key]!r}, but the model in "
        f"{folder} was trained with {own[key]!r}; leave --model_config and "
        f"--overwrite_keys out"
      )


def _fill_folders(experiment, task_name):
  """Each of output_dir and model_dir defaults to the other; without either it is runs/TASK."""
  trainer, data = experiment.trainer, experiment.data
  default = os.path.join("runs", task_name) if task_name else ""
  data.output_dir, trainer.model_dir = (
    data.output_dir or trainer.model_dir or default,
    trainer.model_dir or data.output_dir or default,
  )


def take_recipe(experiment: config.Experiment, family: str, task_name: str) -> None:
  """Fills settings from a task's recipe in configs/experiments/FAMILY_JOB.yaml; logs them.

  A number of epochs that the user gave wins over the recipe's number of updates.
  """
  recipe = recipes.load(family, experiment.job, task_name)
  name = os.path.basename(recipes.path_of(family, experiment.job)).removesuffix(".yaml")
  if "num_train_epochs" in experiment.sources:
    recipe.pop("train_steps", None)
  taken = recipes.apply(experiment, recipe, f"recipe {name}, task {task_name}")
  log.info(
    "Recipe %s, task %s: %s",
    name,
    task_name,
    ", ".join(f"{key}={value}" for key, value in taken.items()),
  )
