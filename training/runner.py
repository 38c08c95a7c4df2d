"""Runs a task: trains, evaluates, predicts, and keeps the best checkpoint.

The same for every script. A script makes the task and hands over its settings.
"""

import copy
import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Set
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags as absl_flags

import config
import modeling
import tokenization
from errors import UserError
from preprocessing import record_files
from tasks.base import RawDataTask, Task
from training import checkpoints, devices, estimator, hooks, inputs, losses, model_folder
from training.model_fn import ModelFn
from utils import paths

log = logging.getLogger(__name__)


def run_main(
  main: Callable[[], None], what_stays: str = "The same command goes on from the last checkpoint."
) -> None:
  """Runs a script's main under absl; a user's mistake ends it with one line and status 1.

  Args:
    main: the script's.
    what_stays: said after Ctrl-C.
  """

  def guarded(argv):
    if len(argv) > 1:
      raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are given as --name=value")
    hooks.set_up_logging()
    hooks.watch_signals()
    try:
      main()
    except UserError as error:
      sys.exit(f"{os.path.basename(sys.argv[0])}: error: {error}")
    except tf.errors.ResourceExhaustedError as error:
      sys.exit(
        f"{os.path.basename(sys.argv[0])}: error: out of memory; raise "
        f"--gradient_accumulation_steps, or lower --train_batch_size or --max_seq_length "
        f"({_first_line(error)})"
      )
    except tf.errors.OpError as error:
      if not is_file_error(error):
        print(
          "The following is a defect of the scripts, not of your files or flags; please report "
          "it with your command.",
          file=sys.stderr,
        )
        raise
      sys.exit(f"{os.path.basename(sys.argv[0])}: error: {_first_line(error)}")
    except KeyboardInterrupt:
      print(f"Interrupted. {what_stays}", file=sys.stderr)
      sys.exit(128 + signal.SIGINT)

  app.run(guarded, flags_parser=lambda argv: _parse_flags(argv))


# What TensorFlow says of a file that is a folder, vanished, or cannot be read.
_FILE_ERROR = re.compile(
  r"No such file|[Nn]ot a directory|[Ii]s a directory|matching files|"
  r"Permission denied|gs://|No space left"
)


def is_file_error(error: tf.errors.OpError) -> bool:
  """Returns whether TensorFlow's error is about a file; its message then names the file."""
  kinds = tf.errors.DataLossError | tf.errors.OutOfRangeError | tf.errors.PermissionDeniedError
  return isinstance(error, kinds) or bool(_FILE_ERROR.search(error.message or ""))


def _first_line(error):
  """What TensorFlow's error says, without the heading that newer versions set above it."""
  lines = (line.strip() for line in error.message.splitlines())
  return next((line for line in lines if line not in ("", "Graph execution error:")), "")


# Flags of the originals that are not needed here, and what serves instead.
_OTHER_WAYS = {
  "debug_mode": "use --max_train_examples and --max_eval_examples",
  "overwrite": "nothing is overwritten: choose another --model_dir, or see --overwrite_data",
  "eval_model_dir": "name the folder with --model_dir, the data with --output_dir",
  "eval_split": "name the file to evaluate with --eval_file",
  "num_passes": "every epoch is shuffled anew; --num_train_epochs says how many",
  "per_core_clip": "the gradient is clipped once, averaged over all devices",
  "retain_all": "evaluation deletes no checkpoint; --max_save limits their number",
  "retain_best": "the best checkpoint is always kept, in model_dir/best",
  "shuffle_buffer": "every epoch is shuffled as a whole",
  "shuffle_examples": "every epoch is shuffled as a whole",
  "skip_nan_grad": "a loss that is not a number stops the run; the last checkpoint is kept",
  "submit_dir": "submissions are written to model_dir/submit",
  "verbose": "use --verbosity",
  "verbose_logging": "use --verbosity",
}


def _parse_flags(argv):
  try:
    return absl_flags.FLAGS(argv)
  except absl_flags.Error as error:
    flag = getattr(error, "flagname", "")  # of an unknown flag
    other_way = _OTHER_WAYS.get(flag) or _OTHER_WAYS.get(flag.removeprefix("no"))
    message = (
      f"there is no --{flag}: {other_way}. Leave it out"
      if other_way
      else (f"{error}\nPass --help to see the flags of this script, --helpfull for all.")
    )
    sys.exit(f"{os.path.basename(argv[0])}: error: {message}")


# ---- Finding the pretrained encoder -------------------------------------------------------------


def find_pretrained(
  model: config.Model,
  tokenizer: config.Tokenizer,
  model_dir: str,
  do_train: bool,
  given: Set[str] = frozenset(),
) -> None:
  """Fills model_config, tokenizer_path and init_checkpoint where they are not given.

  Search order of configuration and vocabulary: 1. model_dir, if it has a checkpoint, else the
  folder of --init_checkpoint, unless the user named the folder `pretrained` (it is in `given`),
  2. `pretrained`. Training needs a checkpoint to start from while model_dir has none.

  Raises:
    UserError: something is in neither place, says what, and which command gets it; or a
      configuration lies beside the checkpoint without the vocabulary.
  """
  if do_train:
    checkpoints.check_restorable(model_dir)
  is_trained = checkpoints.latest_or_best(model_dir) is not None
  if not is_trained and model.init_checkpoint not in ("", "none"):
    model.init_checkpoint = checkpoints.resolve(model.init_checkpoint)
  folders = [model.pretrained]
  if is_trained:
    folders.insert(0, model_dir)
  elif model.init_checkpoint not in ("", "none") and "pretrained" not in given:
    folders.insert(0, model_folder.start_folder(model))
  vocab_name = model_folder.read_settings(folders[0]).get("vocab_file")
  vocab_names = (*([vocab_name] if vocab_name else []), *model_folder.VOCAB_NAMES)

  def find(names, flag, what):
    for folder in folders:
      if path := model_folder.find_in(folder, names):
        return path
    raise UserError(
      f"no {what}: --{flag} is not given and --pretrained={model.pretrained} has no "
      f"{' or '.join(names)}. bash scripts/quickstart.sh --pretrained_only puts a small encoder "
      f"there; convert_checkpoint.py turns one from Hugging Face into that form"
    )

  if not model.model_config:
    model.model_config = find(model_folder.CONFIG_NAMES, "model_config", "model configuration")
  if not tokenizer.tokenizer_path:
    own_config = model_folder.find_in(folders[0], model_folder.CONFIG_NAMES)
    if own_config and not model_folder.find_in(folders[0], vocab_names):
      raise UserError(
        f"{os.path.dirname(own_config)}: the model has no vocabulary beside it; name "
        f"the one that it was trained with, with --vocab_file (--tokenizer_path)"
      )
    tokenizer.tokenizer_path = find(vocab_names, "tokenizer_path", "vocabulary")
  if do_train and not is_trained and not model.init_checkpoint:
    model.init_checkpoint = checkpoints.resolve(model.pretrained)


def load_model_config(model: config.Model) -> modeling.Config:
  """The model's configuration, with the keys of --overwrite_keys taken from the flags.

  truncate_seq, which net_config.json does not hold, is that of the settings beside the file.
  """
  keys = [key.strip() for key in model.overwrite_keys.split(",") if key.strip()]
  model_config = modeling.load_config(model.model_config, keys)
  folder = os.path.dirname(model.model_config)
  stored = model_folder.read_settings(folder).get("truncate_seq")
  if stored in (None, getattr(model_config, "truncate_seq", None)):
    return model_config
  if "truncate_seq" in keys:
    log.warning(
      "--truncate_seq=%s, but the model in %s was trained with %s",
      model_config.truncate_seq,
      folder,
      stored,
    )
    return model_config
  return dataclasses.replace(model_config, truncate_seq=stored)


def take_model_settings(
  experiment: config.Experiment,
  given: set[str],
  job: str,
  task_name: str = "",
  has_other_work: bool = False,
) -> None:
  """Fills the --do_ flags, the folders, and the settings that a trained model's folder stores.

  The first step of a script; `complete` follows once the task is known.

  Args:
    experiment: changed in place.
    given: names that the user set; those taken from the folder are added.
    job: "classification", "race" or "squad"; see take_recipe.
    task_name: the task's canonical name; empty to take it from the folder.
    has_other_work: the script has work even without a --do_ flag.

  Raises:
    UserError: there is no trained model to evaluate or predict with, or flags contradict it.
  """
  trainer, model = experiment.trainer, experiment.model
  if trainer.do_submit and job != "classification":
    raise UserError("--do_submit writes GLUE's submission files; use --do_predict")
  if trainer.predict_dir and trainer.num_trials > 1:
    raise UserError(
      "--predict_dir: with --num_trials each trial writes its predictions to its own "
      "model_dir; leave --predict_dir out"
    )
  if not any(
    (trainer.do_train, trainer.do_eval, trainer.do_predict, trainer.do_submit, has_other_work)
  ):
    trainer.do_train = trainer.do_eval = True
  _fill_folders(experiment, task_name)
  best = os.path.join(model.init_checkpoint, "best")
  if not trainer.do_train and model_folder.start_folder(model) and checkpoints.latest(best):
    model.init_checkpoint = best
  if not (trainer.do_train or has_other_work) and trainer.model_dir and trainer.num_trials == 1:
    find_checkpoint(trainer.model_dir, model, "evaluate" if trainer.do_eval else "predict with")
  model_folder.take_settings(experiment, given, job)


def complete(experiment: config.Experiment, given: set[str], job: str, task_name: str) -> None:
  """Fills the encoder, the tokenizer's settings, and the task's recipe.

  Args:
    experiment: after take_model_settings; changed in place.
    given: names that the user set, or the trained model's folder.
    job: "classification", "race" or "squad"; see take_recipe.
    task_name: the task's canonical name.
  """
  model, tokenizer, trainer = experiment.model, experiment.tokenizer, experiment.trainer
  _fill_folders(experiment, task_name)
  model_dir = trainer.model_dir
  if trainer.num_trials > 1 and not trainer.do_train:  # all trials have the files of the first
    model_dir = os.path.join(model_dir, "trial_0")
  find_pretrained(model, tokenizer, model_dir, trainer.do_train, given)
  start = model_folder.start_folder(model)
  folders = [os.path.dirname(tokenizer.tokenizer_path), *([start] if start else [])]
  model_folder.fill_tokenizer(tokenizer, folders, given)
  model_config = load_model_config(model)
  check_trained_config(experiment, model_config)
  take_recipe(experiment, given, model_config.family, job, task_name)


# Keys that no number of a trained model depends on, or that checkpoints.fit_config adapts.
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
  """UserError if a configuration that the user named is not that of the trained model.

  Pooling or activations, for example, change the numbers and no variable's shape.
  """
  folder = model_folder.trained_folder(experiment)
  path = folder and model_folder.find_in(folder, [model_config.file_name])
  if not path:
    return
  own, named = (
    dataclasses.asdict(values)
    for values in (load_model_config(config.Model(model_config=path)), model_config)
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
  """One of output_dir and model_dir serves for both; without either it is runs/TASK."""
  trainer, data = experiment.trainer, experiment.data
  default = os.path.join("runs", task_name) if task_name else ""
  data.output_dir, trainer.model_dir = (
    data.output_dir or trainer.model_dir or default,
    trainer.model_dir or data.output_dir or default,
  )


def find_checkpoint(model_dir: str, model: config.Model, purpose: str) -> str:
  """Checkpoint to evaluate or predict with: model_dir's newest, else --init_checkpoint.

  Raises:
    UserError: there is none.
  """
  found = checkpoints.latest_or_best(model_dir)
  if found is None and model.init_checkpoint not in ("", "none"):
    found = checkpoints.resolve(model.init_checkpoint)
  if found is None:
    missing = "" if tf.io.gfile.isdir(model_dir) else " (there is no such folder)"
    raise UserError(
      f"{model_dir}: no checkpoint to {purpose}{missing}; train first (--do_train), "
      f"or name the folder with --model_dir or a checkpoint with --init_checkpoint"
    )
  return found


def take_recipe(
  experiment: config.Experiment, given: set[str], family: str, job: str, task_name: str
) -> None:
  """Fills settings from a task's recipe in configs/experiments/FAMILY_JOB.yaml; logs which.

  A number of epochs that the user gave wins over the recipe's number of updates.
  """
  recipe = config.load_recipe(family, job, task_name)
  if "num_train_epochs" in given:
    recipe.pop("train_steps", None)
  taken = config.apply_recipe(experiment, recipe, given)
  log.info(
    "Recipe %s_%s, task %s: %s",
    family,
    job,
    task_name,
    ", ".join(f"{key}={value}" for key, value in taken.items()),
  )


def find_record_sets(
  settings: config.RecordFiles,
) -> tuple[dict[str, record_files.RecordSet], dict[str, Any]]:
  """The record files that the user named, by kind, and their metadata; both empty without any."""
  paths = {
    "train": settings.train_data_path,
    "dev": settings.eval_data_path,
    "test": settings.test_data_path,
  }
  found = {
    kind: record_files.RecordSet([path], record_files.count_records(path))
    for kind, path in paths.items()
    if path
  }
  if not found:
    return {}, {}
  if not settings.input_meta_data_path:
    raise UserError(
      "--input_meta_data_path is missing: it names the metadata file that "
      "create_finetuning_data.py wrote with the records"
    )
  return found, record_files.read_meta(settings.input_meta_data_path)


# ---- One run ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Source:
  """The records of one split."""

  split: str
  records: inputs.RecordSource


class Runner:
  """A task with its settings, model, tokenizer and devices.

  Example:
    runner = Runner(experiment, load_model_config(experiment.model), task)
    runner.train()
    print(runner.evaluate(checkpoints.latest(experiment.trainer.model_dir)))
  """

  def __init__(
    self,
    experiment: config.Experiment,
    model_config: modeling.Config,
    task: Task,
    record_sets: dict[str, record_files.RecordSet] | None = None,
    write_split=record_files.write_split,
  ):
    """Loads the tokenizer, finds the devices, and checks that all fits together.

    Args:
      experiment: complete settings.
      model_config: from load_model_config.
      task: the task.
      record_sets: kind ("train", "dev", "test") -> record files to use instead of raw data.
      write_split: makes a record file of raw data; has the arguments of record_files.write_split.
    """
    self.experiment = experiment
    self.task = task
    self.record_sets = record_sets or {}
    self.write_split = write_split
    self.model_config = self._fit_config(model_config)
    self.tokenizer = None  # finished records can do without one
    if experiment.tokenizer.tokenizer_path:
      self.tokenizer = tokenization.get_tokenizer(**dataclasses.asdict(experiment.tokenizer))
      tokenization.check_vocab(
        self.tokenizer, self.model_config.vocab_size, experiment.model.model_config
      )
      self._check_own_vocab()
    limit = self.model_config.max_position_embeddings
    if limit and experiment.data.max_seq_length > limit:
      raise UserError(
        f"--max_seq_length={experiment.data.max_seq_length} is beyond the model's "
        f"position table ({limit} positions in {experiment.model.model_config})"
      )
    self.check_outputs(())
    record_files.make_dirs(experiment.trainer.model_dir)
    if experiment.trainer.do_train:
      self._check_model_dir()
    self.metrics_log = hooks.MetricsLog(experiment.trainer.model_dir)
    self.devices = devices.find_devices(
      experiment.runtime,
      experiment.trainer.train_batch_size,
      experiment.trainer.gradient_accumulation_steps,
    )
    log.info("Devices: %s (TensorFlow %s)", self.devices.description, tf.__version__)
    self._sources: dict[str, list[Source]] = {}
    self._evaluated: dict[str, dict[str, float]] = {}
    self._is_training = False

  def _fit_config(self, model_config):
    """The configuration with the size of the embedding table of the checkpoint to start from."""
    model = self.experiment.model
    prefix = checkpoints.latest_or_best(self.experiment.trainer.model_dir)
    if prefix is None and model.init_checkpoint not in ("", "none"):
      prefix = checkpoints.resolve(model.init_checkpoint)
    return (
      model_config
      if prefix is None
      else checkpoints.fit_config(
        model_config,
        checkpoints.open_reader(prefix).get_variable_to_shape_map(),
        prefix,
        model.model_config,
      )
    )

  def _own_vocab_path(self):
    """Where model_dir has the vocabulary that its model was trained with."""
    settings = self.experiment.tokenizer
    name = os.path.basename(settings.tokenizer_path)
    if not settings.is_sent_piece and name not in model_folder.VOCAB_NAMES:
      name = model_folder.VOCAB_NAMES[0]
    return os.path.join(self.experiment.trainer.model_dir, name)

  def _check_own_vocab(self):
    own, chosen = self._own_vocab_path(), self.experiment.tokenizer.tokenizer_path
    if tf.io.gfile.exists(own) and record_files.fingerprint([own]) != record_files.fingerprint(
      [chosen]
    ):
      raise UserError(
        f"{own} is another vocabulary than {chosen}: what is in this folder was "
        f"trained with it; choose another --model_dir"
      )

  def _check_model_dir(self):
    """UserError if training would overwrite what is left in model_dir."""
    model, model_dir = self.experiment.model, self.experiment.trainer.model_dir
    checkpoints.check_restorable(model_dir)
    if checkpoints.latest(model_dir):
      return
    own = os.path.join(model_dir, self.model_config.file_name)
    if (
      tf.io.gfile.exists(own) and modeling.load_config(own).to_dict() != self.model_config.to_dict()
    ):
      other = "--overwrite_keys" if paths.is_same(own, model.model_config) else model.model_config
      raise UserError(
        f"{own}: this configuration would be overwritten with the values of {other}; "
        f"choose another --model_dir"
      )

  def _check_settings(self, settings):
    """UserError if model_dir has other settings, and no checkpoint that they belong to."""
    model_dir, start = (
      self.experiment.trainer.model_dir,
      model_folder.start_folder(self.experiment.model),
    )
    for name, contents in model_folder.files_of(settings).items():
      path = os.path.join(model_dir, name)
      # Training in the folder of the encoder continues the encoder's settings.
      is_known = name == model_folder.SETTINGS_NAME and start and paths.is_same(start, model_dir)
      if (
        not is_known
        and tf.io.gfile.exists(path)
        and record_files.read_json(path) != json.loads(json.dumps(contents))
      ):
        raise UserError(
          f"{path}: training would overwrite this file with other settings, and "
          f"there is no checkpoint that it belongs to; move it away, or choose "
          f"another --model_dir"
        )

  # -- data --

  def record_settings(self) -> dict[str, Any]:
    """What records must have been made with to be used here."""
    return record_files.settings(
      self.task, self.tokenizer, self.experiment.tokenizer, self.experiment.data.max_seq_length
    )

  def check_records(self, meta: dict[str, Any]) -> None:
    """UserError where the metadata of the record files differ from the settings or the files.

    Without record files there is nothing to check.
    """
    if not self.record_sets:
      return
    meta_path = self.experiment.record_files.input_meta_data_path
    record_files.check_meta(meta_path, meta, self.record_settings())
    for kind, files in self.record_sets.items():
      if "predict" in self.task.splits(kind):
        kind = "dev"  # SQuAD predicts what it evaluates
      size = meta.get(f"{'eval' if kind == 'dev' else kind}_data_size")
      if size is not None:
        record_files.check_size(files.paths[0], size, files.num_examples)

  def sources(self, kind: str) -> list[Source]:
    """Records of a kind ("train", "dev", "test"), made from raw data where none are given."""
    if kind not in self._sources:
      self._sources[kind] = self._find_sources(kind)
    return self._sources[kind]

  def check_outputs(self, outputs: Iterable[str]) -> None:
    """UserError if `outputs`, or what every run writes to model_dir, are files that it reads."""
    model, files = self.experiment.model, self.experiment.record_files
    inputs = [
      *(record_files.raw_files(self.task) if isinstance(self.task, RawDataTask) else ()),
      model.model_config,
      files.input_meta_data_path,
      self.experiment.tokenizer.tokenizer_path,
      *(path for found in self.record_sets.values() for path in found.paths),
    ]
    paths.check_outputs(filter(None, inputs), [*self._own_files(), *outputs])

  def _own_files(self):
    """Paths of the files with fixed names that training and evaluation write."""
    trainer = self.experiment.trainer
    if not (trainer.do_train or trainer.do_eval):
      return []
    names = [
      "metrics.jsonl",
      "eval_results.json",
      "eval_results.txt",
      "checkpoint",
      os.path.join("best", "info.json"),
      *model_folder.SETTINGS_NAMES,
    ]
    found = [os.path.join(trainer.model_dir, name) for name in names]
    if trainer.num_trials > 1:
      found.append(os.path.join(os.path.dirname(trainer.model_dir), "trials.json"))
    return found

  def check_before_work(self) -> None:
    """Finds all data that the --do_ flags need, so that nothing is missed hours later."""
    trainer = self.experiment.trainer
    wanted = {
      "train": trainer.do_train,
      "dev": trainer.do_eval or trainer.eval_every_steps > 0,
      "test": trainer.do_predict or trainer.do_submit,
    }
    for kind in [kind for kind, is_wanted in wanted.items() if is_wanted]:
      self.sources(kind)
    if wanted["dev"]:
      self.check_best_metric()

  def _find_sources(self, kind):
    data = self.experiment.data
    limit = data.max_train_examples if kind == "train" else data.max_eval_examples
    found = []
    splits = self.task.splits(kind)
    if kind in self.record_sets:
      files = self.record_sets[kind]
      record_files.check_lengths(
        files.paths[0],
        self.task.feature_specs,
        data.max_seq_length * self.task.sequences_per_example,
      )
      found.append((splits[0] if len(splits) == 1 else kind, files))
    else:
      for split in splits or [kind]:
        progress = lambda items, split=split: hooks.progress_bar(
          items, unit="example", desc=f"{split} records"
        )
        path, count = record_files.cached_split(
          data.output_dir,
          self.task,
          split,
          self.tokenizer,
          self.record_settings(),
          data.overwrite_data,
          progress,
          self.write_split,
        )
        found.append((split, record_files.RecordSet([path], count)))
    invert_mask = kind in self.record_sets and self.experiment.record_files.invert_input_mask
    return [
      Source(
        split,
        inputs.RecordSource(
          files.paths,
          min(files.num_examples, limit or files.num_examples),
          self.task,
          data.max_seq_length,
          self.model_config.padded_length,
          invert_mask,
          is_whole=not limit or limit >= files.num_examples,
        ),
      )
      for split, files in found
    ]

  def train_and_evaluate(self) -> dict[str, float]:
    """Trains and evaluates as the --do_ flags say; metrics of the best checkpoint, if evaluated."""
    metrics = {}
    if self.experiment.trainer.do_train:
      self.train()
    if self.experiment.trainer.do_eval:
      checkpoint, metrics = self.evaluate_all()
      print(f"{self.task.name} {self.task.eval_split}: {format_metrics(metrics)} ({checkpoint})")
    return metrics

  # -- training --

  def train(self) -> None:
    """Trains to the last step, evaluating on the way, from wherever model_dir stands."""
    trainer, optimizer = self.experiment.trainer, self.experiment.optimizer
    if trainer.early_stopping_patience and not trainer.eval_every_steps:
      raise UserError(
        "--early_stopping_patience counts evaluations during training: set --eval_every_steps too"
      )
    source = self.sources("train")[0].records
    steps_per_epoch = max(source.num_examples // trainer.train_batch_size, 1)
    num_train_steps = optimizer.train_steps or max(
      int(source.num_examples / trainer.train_batch_size * optimizer.num_train_epochs), 1
    )
    num_warmup_steps = (
      optimizer.warmup_steps
      if optimizer.warmup_steps >= 0
      else int(num_train_steps * optimizer.warmup_proportion)
    )
    model_fn = ModelFn(
      self.experiment, self.task, self.model_config, self.devices, num_train_steps, num_warmup_steps
    )
    classifier = estimator.build_estimator(
      self.experiment, self.devices, model_fn, trainer.save_steps or steps_per_epoch
    )
    step = self._start_step(num_train_steps)
    if step >= num_train_steps:
      return
    log.info(
      "Train on %d examples, batch %d, steps %d to %d (%.1f epochs), warm-up %d steps",
      source.num_examples,
      trainer.train_batch_size,
      step,
      num_train_steps,
      num_train_steps / steps_per_epoch,
      num_warmup_steps,
    )
    if num_warmup_steps >= num_train_steps:
      log.warning(
        "The warm-up of %d steps is as long as the training: the learning rate will not "
        "reach --learning_rate; lower --warmup_steps",
        num_warmup_steps,
      )
    settings = self._model_settings()
    if step == 0:
      self._check_settings(settings)
    checkpoints.update_state(trainer.model_dir)
    # A run that is refused when its model is built leaves no files.
    start = hooks.StartHook(lambda: self._write_model_files(settings))
    hook = hooks.ProgressHook(
      self.metrics_log, step, num_train_steps, trainer.train_batch_size, trainer.log_freq
    )
    every = trainer.eval_every_steps or num_train_steps
    self._is_training = True
    try:
      while step < num_train_steps and not self._stops_early():
        target = min(num_train_steps, (step // every + 1) * every)
        input_fn = inputs.train_input_fn(
          source,
          trainer.train_batch_size,
          trainer.seed,
          step,
          self.devices.num_replicas,
          self.devices.is_tpu,
        )
        classifier.train(input_fn, hooks=[start, hook], max_steps=target)
        step = target
        if trainer.eval_every_steps:
          self.evaluate(checkpoints.latest(trainer.model_dir))
    except tf.compat.v1.train.NanLossDuringTrainingError as error:
      raise UserError(
        f"the loss is not a number after step {step}; lower --learning_rate "
        f"or lengthen --warmup_steps"
      ) from error
    finally:
      self._is_training = False
      hook.close()

  def _model_settings(self):
    """The settings that the model's folder stores."""
    settings = {
      **model_folder.stored_settings(self.experiment, self.task.job),
      **self.task.model_settings(),
    }
    if self.tokenizer is not None:
      settings["vocab_file"] = os.path.basename(self._own_vocab_path())
    if hasattr(self.model_config, "truncate_seq"):
      settings["truncate_seq"] = self.model_config.truncate_seq
    return settings

  def _write_model_files(self, settings):
    """Writes configuration, vocabulary and settings, so that the folder is a model by itself."""
    model_dir = self.experiment.trainer.model_dir
    model_folder.write_settings(model_dir, settings)
    if self.tokenizer is not None and not tf.io.gfile.exists(self._own_vocab_path()):
      record_files.copy(self.experiment.tokenizer.tokenizer_path, self._own_vocab_path())
    # A checkpoint keeps the configuration that it was made with: this one may not fit it.
    path = os.path.join(model_dir, self.model_config.file_name)
    if not (
      paths.is_same(path, self.experiment.model.model_config)
      or checkpoints.latest(model_dir)
      and tf.io.gfile.exists(path)
    ):
      record_files.write_json(path, self.model_config.to_dict())

  def _start_step(self, num_train_steps):
    newest = checkpoints.latest(self.experiment.trainer.model_dir)
    if newest is None:
      model = self.experiment.model
      if model.init_global_vars:
        if model.init_checkpoint in ("", "none"):
          raise UserError("--init_global_vars takes them from --init_checkpoint, which is missing")
        step = int(checkpoints.open_reader(model.init_checkpoint).get_tensor("global_step"))
        if step >= num_train_steps:
          raise UserError(
            f"{model.init_checkpoint} is at step {step}: with --init_global_vars "
            f"training goes on from there, and --train_steps={num_train_steps} is "
            f"already reached; raise it"
          )
        return step
      return 0
    step = checkpoints.step_of(newest)
    log.info(
      "Go on from %s (--init_checkpoint counts only for an empty model_dir)%s",
      newest,
      "; it is already at the last step, nothing to train" if step >= num_train_steps else "",
    )
    return step

  def _stops_early(self):
    patience = self.experiment.trainer.early_stopping_patience
    if not patience:
      return False
    history = self._history()
    if not history:
      return False
    best_step = self._best_step(history)
    stops = sum(step > best_step for step in history) >= patience
    if stops:
      log.info(
        "Stop early: no better %s in %d evaluations since step %d",
        self.experiment.trainer.best_metric,
        patience,
        best_step,
      )
    return stops

  # -- evaluation --

  def check_best_metric(self) -> None:
    """UserError when --best_metric is no metric of the task."""
    splits = [source.split for source in self.sources("dev")]
    known = self.task.metric_names(splits)
    if self.experiment.trainer.best_metric not in known:
      raise UserError(
        f"--best_metric={self.experiment.trainer.best_metric} is not measured; "
        f"there are {', '.join(sorted(known))}"
      )

  def _data_key(self):
    """Tells evaluations on different data apart: their figures cannot be compared."""
    parts = [
      (*map(os.path.basename, source.records.paths), source.records.num_examples)
      for source in self.sources("dev")
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]

  def _history(self):
    """Earlier evaluations on the same data of checkpoints up to the newest: step -> metrics."""
    model_dir = self.experiment.trainer.model_dir
    newest = checkpoints.latest(model_dir)
    entries = self.metrics_log.read("eval", data=self._data_key())
    best = self._best_info()  # written before the line in the log
    if best.get("data") == self._data_key():
      entries.setdefault(best["step"], best)
    return {
      step: values
      for step, values in entries.items()
      if newest and step <= checkpoints.step_of(newest)
    }

  def _best_info(self):
    path = os.path.join(self.experiment.trainer.model_dir, "best", "info.json")
    return record_files.read_json(path) if tf.io.gfile.exists(path) else {}

  def _best_step(self, history):
    """Step of the best evaluation, the earliest of equals; of losses the smallest is the best."""
    metric = self.experiment.trainer.best_metric
    sign = -1 if metric.startswith("loss") else 1
    return max(history, key=lambda step: (sign * history[step][metric], -step))

  def predict_all(
    self, source: inputs.RecordSource, checkpoint: str, batch_size: int
  ) -> dict[str, np.ndarray]:
    """Predictions of a checkpoint for every example of a source, in the file's order.

    Raises:
      AssertionError: an example was lost or doubled; a defect, never to be hidden.
    """
    model_fn = ModelFn(
      self.experiment, self.task, self.model_config, self.devices, checkpoint=checkpoint
    )
    predictor = estimator.build_estimator(
      self.experiment, self.devices, model_fn, predict_batch_size=batch_size
    )
    input_fn = inputs.predict_input_fn(source, batch_size, self.devices.is_tpu)
    batches = list(
      predictor.predict(
        input_fn,
        checkpoint_path=paths.checkpoint_without_wildcards(checkpoint),
        yield_single_examples=False,
      )
    )
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    real = joined["example_index"] >= 0
    order = np.argsort(joined["example_index"][real])
    assert len(order) == source.num_examples, (len(order), source.num_examples)
    joined = {name: values[real][order] for name, values in joined.items()}
    # Records of the originals are filled up to whole batches with examples that are none.
    return {name: values[joined["is_real_example"] != 0] for name, values in joined.items()}

  def evaluate(self, checkpoint: str) -> dict[str, float]:
    """Metrics of a checkpoint on the dev data; keeps a copy of it when it is the best so far."""
    if checkpoint in self._evaluated:
      return self._evaluated[checkpoint]
    trainer = self.experiment.trainer
    step = checkpoints.step_of(checkpoint)
    metrics_of_splits = {}
    for source in self.sources("dev"):
      predictions = self.predict_all(source.records, checkpoint, trainer.eval_batch_size)
      metrics_of_splits[source.split] = {
        **self.task.score(source.split, predictions),
        **losses.mean_losses(predictions),
      }
    metrics = self.task.combine(metrics_of_splits)
    if trainer.best_metric not in metrics:
      raise UserError(
        f"--best_metric={trainer.best_metric} cannot be measured on these examples; "
        f"raise --max_eval_examples"
      )
    history = {**self._history(), step: metrics}
    best_step, best_metric = self._best_step(history), trainer.best_metric
    entry = {**metrics, "data": self._data_key()}
    # The copy comes first, then the line in the log: a run that is killed between the two finds
    # the evaluation in best/info.json.
    folder = os.path.join(trainer.model_dir, "best")
    is_own = checkpoint.startswith(os.path.join(trainer.model_dir, "model.ckpt"))
    # A look at other data afterwards does not replace what training chose.
    is_chosen = self._is_training or self._best_info().get("data") in (None, self._data_key())
    if best_step == step and is_own and is_chosen:
      copied = checkpoints.copy(checkpoint, folder)
      model_folder.copy_files(trainer.model_dir, folder, os.path.basename(self._own_vocab_path()))
      record_files.write_json(
        os.path.join(folder, "info.json"), {"step": step, "checkpoint": copied, **entry}
      )
    record_files.write_json(
      os.path.join(trainer.model_dir, "eval_results.json"),
      {
        "step": step,
        "checkpoint": checkpoint,
        **metrics,
        "best_step": best_step,
        "best_metric": best_metric,
        "best_value": history[best_step][best_metric],
      },
    )
    record_files.write_text(
      os.path.join(trainer.model_dir, "eval_results.txt"), eval_results_text(step, metrics)
    )
    self.metrics_log.write("eval", step, entry)
    self.metrics_log.write_summaries("eval", step, metrics)
    log.info("Evaluation at step %d: %s", step, format_metrics(metrics))
    self._evaluated[checkpoint] = metrics
    return metrics

  def evaluate_all(self) -> tuple[str, dict[str, float]]:
    """Evaluates checkpoints; returns the best of them and its metrics.

    Those are the newest of model_dir (with eval_all_ckpt every one from eval_start_step, exclusive,
    to eval_end_step), and what training evaluated;
    in an empty model_dir the init_checkpoint, if one was given.
    """
    trainer = self.experiment.trainer
    found = checkpoints.all_of(trainer.model_dir) if trainer.eval_all_ckpt else []
    prefixes = [
      prefix
      for prefix in found
      if trainer.eval_start_step < checkpoints.step_of(prefix) <= trainer.eval_end_step
    ]
    if found and not prefixes:
      raise UserError(
        f"{trainer.model_dir}: no checkpoint is after --eval_start_step="
        f"{trainer.eval_start_step} and up to --eval_end_step="
        f"{trainer.eval_end_step}; there are those of the steps "
        + ", ".join(str(checkpoints.step_of(prefix)) for prefix in found)
      )
    for prefix in prefixes or [self._newest_checkpoint("evaluate")]:
      self.evaluate(prefix)
    by_step = {checkpoints.step_of(prefix): prefix for prefix in self._evaluated}
    best = by_step[
      self._best_step({step: self._evaluated[prefix] for step, prefix in by_step.items()})
    ]
    return best, self._evaluated[best]

  def predict(self) -> dict[str, dict[str, np.ndarray]]:
    """Predictions of the best checkpoint for the test data, by split."""
    checkpoint = self.best_checkpoint()
    log.info("Predict with %s", checkpoint)
    return {
      source.split: self.predict_all(
        source.records, checkpoint, self.experiment.trainer.predict_batch_size
      )
      for source in self.sources("test")
    }

  def best_checkpoint(self) -> str:
    """The best checkpoint where evaluations kept one, else the newest."""
    best = checkpoints.latest(os.path.join(self.experiment.trainer.model_dir, "best"))
    return best or self._newest_checkpoint("predict with")

  def _newest_checkpoint(self, purpose):
    trainer = self.experiment.trainer
    found = find_checkpoint(trainer.model_dir, self.experiment.model, purpose)
    if not checkpoints.latest_or_best(trainer.model_dir):
      log.info("%s has no checkpoint: use --init_checkpoint", trainer.model_dir)
    return found


def format_metrics(metrics: dict[str, float]) -> str:
  """Metrics on one line, four digits each."""
  return ", ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))


def eval_results_text(step: int, metrics: dict[str, float]) -> str:
  """Sorted lines "key = value", as BERT's scripts write them.

  Each metric has two keys: its name as in run_pretraining, and eval_NAME as in run_classifier.
  """
  values = {
    "global_step": step,
    **metrics,
    **{f"eval_{name}": value for name, value in metrics.items()},
  }
  return "".join(f"{key} = {values[key]}\n" for key in sorted(values))


def write_tsv(path: str, rows: Iterable[list[str]]) -> None:
  """Writes rows as tab-separated lines, in one step."""
  record_files.write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def run_trials(
  experiment: config.Experiment, run_once: Callable[[config.Experiment], dict[str, float]]
) -> None:
  """Runs once, or --num_trials times with a seed and a folder each; writes and prints a summary."""
  trainer = experiment.trainer
  if trainer.num_trials <= 1:
    run_once(experiment)
    return
  results = []
  for trial in range(trainer.num_trials):
    one = copy.deepcopy(experiment)
    one.trainer.seed += trial
    one.trainer.model_dir = os.path.join(trainer.model_dir, f"trial_{trial}")
    results.append(run_once(one))
  if results[0]:
    summary = summarize_trials(results)
    record_files.write_json(os.path.join(trainer.model_dir, "trials.json"), summary)
    for name, values in sorted(summary.items()):
      print(
        f"{name}: mean {values['mean']:.4f}, standard deviation {values['std']:.4f} "
        f"over {trainer.num_trials} trials"
      )


def summarize_trials(results: list[dict[str, float]]) -> dict[str, dict[str, float]]:
  """Mean and sample standard deviation of each metric over trials."""
  summary = {}
  for name in results[0]:
    values = [result[name] for result in results]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    summary[name] = {"mean": float(np.mean(values)), "std": deviation, "values": values}
  return summary
