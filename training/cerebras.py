"""Command line and YAML files of Cerebras' modelzoo (its TensorFlow BERT classifier, R_1.6.1).

  python run_classifier.py --mode=train --params=configs/cerebras/params_bert_base_sst2.yaml
      --model_dir=runs/sst2 --checkpoint_path=bert/bert_model.ckpt

A key is a setting under another name, has a function that sets what it means here, or has no effect
(_NO_EFFECT). Flags of run_classifier.py win over the file.
"""

import dataclasses
import logging
import os
from collections.abc import Callable
from typing import Any

import config
from errors import UserError
from training import params
from utils import files, options

log = logging.getLogger(__name__)

MODES = ("train", "eval", "eval_all", "train_and_eval", "predict")


@dataclasses.dataclass
class Form:
  """Flags of Cerebras' run.py, in addition to all others."""

  params: str = config.option("", "YAML file with Cerebras' keys", aliases=("p",))
  mode: str = config.option("", "what to do", ("", *MODES))
  checkpoint_path: str = config.option("", "checkpoint of pretraining; the same as init_checkpoint")
  max_steps: int = config.option(0, "number of updates; the same as train_steps", lower=0)
  eval_steps: int = config.option(
    0, "evaluate on this many batches; 0 and -1 for all data", lower=-1
  )
  cs_ip: str = config.option("", "accepted and not used: this program runs on CPU, GPU or TPU")


_TASKS = {"Sst2DataProcessor": "sst-2", "MnliDataProcessor": "mnli"}
_MODEL_KEYS = {
  "hidden_size": "hidden_size",
  "num_hidden_layers": "num_hidden_layers",
  "num_heads": "num_attention_heads",
  "filter_size": "intermediate_size",
  "max_position_embeddings": "max_position_embeddings",
  "vocab_size": "vocab_size",
  "dropout_rate": "hidden_dropout_prob",
  "attention_dropout_rate": "attention_probs_dropout_prob",
  "encoder_nonlinearity": "hidden_act",
}
Setter = Callable[[config.Experiment, Any, str], None]


def _task(experiment, value, source):
  if str(value) not in _TASKS:
    raise UserError(
      f"{source}: data_processor {options.brief(value)} is not one of {', '.join(_TASKS)}"
    )
  experiment.fill("task_name", _TASKS[str(value)], source)


def _take_tfds(experiment):
  """Takes the data of TensorFlow Datasets if they are in the folder, as in Cerebras' system."""
  settings, folder = experiment.task, experiment.raw_data.data_dir
  name = {"sst-2": "glue/sst2", "mnli": "glue/mnli"}.get(settings.task_name)
  if name and folder and files.exists(os.path.join(folder, name)):
    experiment.fill("tfds_params", f"dataset={name}", f"the data in {folder}")


def _learning_rate(experiment, value, source):
  """A number, or segments: a linear warm-up from 0, and then a constant rate."""
  segments = (
    value if isinstance(value, list) else [{"scheduler": "Constant", "learning_rate": value}]
  )
  are_mappings = all(isinstance(segment, dict) for segment in segments)
  schedulers = are_mappings and [str(segment.get("scheduler")).lower() for segment in segments]
  rate = segments[-1].get("learning_rate") if schedulers else None
  if schedulers not in (["constant"], ["linear", "constant"]) or rate is None:
    raise UserError(
      f"{source}: learning_rate: a Linear segment and a Constant one are supported; set "
      f"--decay_method and --warmup_steps for other schedules"
    )
  warmup = segments[:-1]
  if warmup and (warmup[0].get("initial_learning_rate"), warmup[0].get("end_learning_rate")) != (
    0.0,
    rate,
  ):
    raise UserError(f"{source}: learning_rate: the Linear segment must lead from 0 to {rate}")
  experiment.fill("learning_rate", rate, source)
  experiment.fill("decay_method", "constant", source)
  experiment.fill("warmup_style", "then_decay", source)
  experiment.fill("warmup_steps", warmup[0].get("steps") if warmup else 0, source)


def _optimizer(experiment, value, source):
  if str(value).lower() not in ("adam", "adamw"):
    raise UserError(f"{source}: optimizer_type {value!r} is not supported; use adamw")
  if str(value).lower() == "adam":
    experiment.fill("weight_decay", 0.0, source)


def _eval_steps(experiment, value, source):
  steps = options.checked(Form, "eval_steps", value or 0, source, "runconfig.eval_steps")
  limit = max(steps, 0) * experiment.trainer.eval_batch_size
  experiment.fill("max_eval_examples", limit, source, "runconfig.eval_steps")


def _disable_nsp(experiment, value, source):
  is_disabled = options.checked(config.Model, "init_pooler", value, source, "model.disable_nsp")
  experiment.fill("init_pooler", not is_disabled, source)


def _pretrain_params(experiment, value, source):
  """The encoder's keys are in the file of pretraining; its path is relative to this file."""
  folder = os.path.dirname(source.rpartition(": line ")[0])
  for key, entry, place in params.read_file(os.path.join(folder, str(value))):
    section, _, name = key.partition(".")
    if section == "model" and name in _MODEL_KEYS:
      experiment.model_keys.setdefault(_MODEL_KEYS[name], entry)
      experiment.sources.setdefault(_MODEL_KEYS[name], place)


_KEYS: dict[str, str | Setter] = {
  "train_input.data_processor": _task,
  "eval_input.data_processor": _task,
  "train_input.data_dir": "data_dir",
  "eval_input.data_dir": "data_dir",
  "predict_input.data_dir": "data_dir",
  "train_input.vocab_file": "tokenizer_path",
  "eval_input.vocab_file": "tokenizer_path",
  "train_input.do_lower": "uncased",
  "eval_input.do_lower": "uncased",
  "train_input.max_sequence_length": "max_seq_length",
  "eval_input.max_sequence_length": "max_seq_length",
  "train_input.batch_size": "train_batch_size",
  "eval_input.batch_size": "eval_batch_size",
  "predict_input.batch_size": "predict_batch_size",
  "train_input.shuffle_seed": "seed",
  "model.pretrain_params_path": _pretrain_params,
  "model.num_cls_classes": "num_classes",
  "model.mixed_precision": "use_bfloat16",
  "model.disable_nsp": _disable_nsp,
  "optimizer.optimizer_type": _optimizer,
  "optimizer.weight_decay_rate": "weight_decay",
  "optimizer.epsilon": "adam_epsilon",
  "optimizer.max_gradient_norm": "clip",
  "optimizer.learning_rate": _learning_rate,
  "runconfig.max_steps": "train_steps",
  "runconfig.save_summary_steps": "log_freq",
  "runconfig.save_checkpoints_steps": "save_steps",
  "runconfig.keep_checkpoint_max": "max_save",
  "runconfig.tf_random_seed": "seed",
  "runconfig.eval_steps": _eval_steps,
}
_NO_EFFECT = {
  *(f"{name}.{key}" for name in ("train_input", "eval_input", "predict_input") for key in (
    *("add_special_tokens", "shuffle", "shuffle_buffer", "repeat", "cache", "feature_rename_map"),
    *("invert_mask", "pad_id", "mixed_precision", "do_lower", "max_sequence_length", "vocab_file"),
  )),
  *("model.boundary_casting", "model.tf_summary", "model.enable_gpu_optimizations"),
  *("model.cls_dropout_rate", "optimizer.loss_scaling_factor", "optimizer.log_summaries"),
  *("runconfig.throttle_secs", "runconfig.enable_distributed", "runconfig.multiple_workers"),
  *("runconfig.disable_standard_logs", "runconfig.mode"),
}  # fmt: skip


def apply(experiment: config.Experiment, form: Form) -> None:
  """Fills the settings from Cerebras' flags and file; settings that other flags set stay.

  Raises:
    UserError: a key is unknown or a value not supported; the message names file and line.
  """
  if form.checkpoint_path:
    experiment.fill("init_checkpoint", form.checkpoint_path, "--checkpoint_path")
  if form.max_steps:
    experiment.fill("train_steps", form.max_steps, "--max_steps")
  if form.mode:
    for name, is_on in (
      ("do_train", form.mode.startswith("train")),
      ("do_eval", "eval" in form.mode),
      ("do_predict", form.mode == "predict"),
      ("eval_all_ckpt", form.mode == "eval_all"),
    ):
      experiment.fill(name, is_on, "--mode")
  for key, value, source in params.read_file(form.params) if form.params else ():
    meaning = _KEYS.get(key)
    if isinstance(meaning, str):
      experiment.fill(meaning, value, source, key)
    elif meaning is not None:
      meaning(experiment, value, source)
    elif key.startswith("model.") and key.removeprefix("model.") in _MODEL_KEYS:
      experiment.model_keys[_MODEL_KEYS[key.removeprefix("model.")]] = value
    elif key in _NO_EFFECT:
      log.info("%s: %s has no effect here", source, key)
    else:
      raise UserError(
        f"{source}: there is no setting {key}{params.nearest(key, [*_KEYS, *_NO_EFFECT])}"
      )
  _take_tfds(experiment)
  if form.eval_steps > 0:
    limit = form.eval_steps * experiment.trainer.eval_batch_size
    experiment.set("max_eval_examples", limit, "--eval_steps")
