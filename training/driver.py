"""The common driver: from an experiment's name and layers of settings to a run."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import config
from errors import UserError
from training import experiment_registry, jobs, layer_arguments, params
from utils import console

log = logging.getLogger(__name__)


def resolve(
  experiment: str,
  config_file: Sequence[str] = (),
  tpu: str = "",
  params_override: str = "",
  model_dir: str = "",
  setting_flags: Mapping[str, Any] | None = None,
) -> config.Experiment:
  """Returns the settings of the layers: defaults, files in order, --tpu, overrides, flags.

  Raises:
    UserError: an unknown experiment or key, a file that is no YAML, a bad value, or a flag that is
      no setting of the experiment.
  """
  resolved = experiment_registry.make(experiment)
  for path in config_file:
    params.apply(resolved, params.read_file(path))
  if tpu:
    resolved.set("tpu", tpu, "--tpu")
    resolved.set("use_tpu", True, "--tpu")
  params.apply(resolved, params.read_override(params_override))
  if model_dir:
    resolved.set("model_dir", model_dir, "--model_dir")
  known = resolved.owners()
  for name, value in (setting_flags or {}).items():
    if name not in known:
      raise UserError(f"--{name} is no setting of experiment {experiment}; leave it out")
    resolved.set(name, value, f"--{name}")
  return resolved


def set_mode(experiment: config.Experiment, mode: str) -> None:
  """Sets the --do_ settings of a mode.

  Raises:
    UserError: a flag contradicts the mode.
  """
  trains = mode in ("train", "train_and_eval", "train_and_post_eval")
  values = {
    "do_train": trains,
    "do_eval": mode in ("eval", "eval_all", "train_and_eval", "train_and_post_eval"),
    "do_predict": mode == "predict",
    "eval_all_ckpt": mode == "eval_all",
  }
  if mode in ("train", "train_and_post_eval"):
    values["eval_every_steps"] = 0
  for name, value in values.items():
    flag = experiment.sources.get(name) == f"--{name}"
    if flag and getattr(experiment.trainer, name) != value:
      raise UserError(f"--{name} contradicts --mode={mode}; leave it out")
    experiment.set(name, value, f"--mode={mode}")


def run(
  experiment: str,
  mode: str,
  model_dir: str,
  config_file: Sequence[str] = (),
  params_override: str = "",
  tpu: str = "",
  import_module: str = "",
  gin_file: Sequence[str] = (),
  gin_params: Sequence[str] = (),
  setting_flags: Mapping[str, Any] | None = None,
) -> None:
  """Runs an experiment; the arguments are the flags of train.py, and those of settings.

  Raises:
    UserError: a required flag is missing, or see `resolve`.
  """
  for name, value in (("experiment", experiment), ("mode", mode), ("model_dir", model_dir)):
    if not value:
      raise UserError(f"--{name} is missing")
  if import_module:
    experiment_registry.import_module(import_module)
  resolved = resolve(experiment, config_file, tpu, params_override, model_dir, setting_flags)
  if gin_file or gin_params:
    bindings = layer_arguments.read(gin_file, gin_params)
    resolved.set("gin_bindings", bindings, "--gin_file and --gin_params")
  set_mode(resolved, mode)
  console.spell_settings(params.spelling(resolved))
  if mode == "continuous_eval":
    jobs.evaluate_continuously(resolved)
  else:
    jobs.run(resolved)
