"""Runs a task: makes records, trains, evaluates and predicts."""

import dataclasses
import json
import logging
import os
from collections.abc import Iterable
from contextlib import nullcontext

import tensorflow as tf

import config
import modeling
import tokenization
from errors import UserError
from preprocessing import finetuning_records, record_files
from tasks.base import RawDataTask, Task
from tasks.metrics import format_metrics
from training import (
  checkpoints,
  cluster,
  devices,
  dry_run,
  evaluator,
  garden_checkpoint,
  layer_arguments,
  model_folder,
  params,
  precision,
  record_sources,
  recovery,
  train_loop,
)
from utils import files, lock, paths

log = logging.getLogger(__name__)


class Runner:
  """A task with its settings, model, tokenizer and devices.

  Example:
    runner = Runner(experiment, load_model_config(experiment.model), task)
    runner.run()
  """

  def __init__(
    self,
    experiment: config.Experiment,
    model_config: modeling.Config,
    task: Task,
    record_sets: dict[str, record_files.RecordSet] | None = None,
  ):
    """Loads the tokenizer, finds the devices, and checks the settings against each other.

    Args:
      experiment: complete settings.
      model_config: from model_folder.load_model_config.
      task: the task.
      record_sets: kind ("train", "dev", "test") -> record files to use instead of raw data.
    """
    layer_arguments.apply(experiment.model.gin_bindings, model_config.family)
    self.experiment = experiment
    self.task = task
    self.model_config = self._fit_config(model_config)
    self.tokenizer = None  # not needed for finished records
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
    chosen = precision.of(experiment.runtime)
    hosts = self._find_hosts()
    self.sources = record_sources.RecordSources(
      experiment,
      self.model_config,
      task,
      self.tokenizer,
      record_sets or {},
      hosts is None or hosts.is_chief,
    )
    self.check_outputs(())
    files.make_dirs(experiment.trainer.model_dir)
    if experiment.trainer.do_train:
      self._check_model_dir()
    self.devices = devices.find_devices(
      experiment.runtime,
      experiment.trainer.train_batch_size,
      experiment.trainer.gradient_accumulation_steps,
      hosts,
    )
    log.info("Devices: %s, %s (TensorFlow %s)", self.devices.description, chosen, tf.__version__)
    self.evaluator = evaluator.Evaluator(
      experiment,
      self.model_config,
      task,
      self.sources,
      self.devices,
      os.path.basename(self._own_vocab_path()),
    )

  def _find_hosts(self):
    """The hosts that train together; None for one, or without training."""
    trainer, runtime = self.experiment.trainer, self.experiment.runtime
    only_checks = runtime.validate_only or runtime.compile_only
    if runtime.use_tpu or only_checks or self.experiment.preprocessing.prepro_split:
      return None
    found = cluster.find(runtime.num_hosts)
    if found and not trainer.do_train:
      log.info("Only the chief of TF_CONFIG evaluates and predicts")
    if found and (trainer.nan_policy == "reload" or trainer.early_stopping_patience):
      raise UserError(
        "--nan_policy=reload and --early_stopping_patience do not work on several hosts (TF_CONFIG)"
      )
    return found

  def _fit_config(self, model_config):
    """Returns the configuration with the embedding table's size in the starting checkpoint."""
    model = self.experiment.model
    prefix = checkpoints.latest_or_best(self.experiment.trainer.model_dir)
    if prefix is None and model.start_checkpoint:
      prefix = checkpoints.resolve(model.start_checkpoint)
    if prefix is None:
      return model_config
    reader, source = checkpoints.open_reader(prefix), model.model_config or "model.keys"
    if isinstance(reader, garden_checkpoint.Reader):
      reader.check_config(model_config, source)
    return checkpoints.fit_config(model_config, reader.get_variable_to_shape_map(), prefix, source)

  def _own_vocab_path(self):
    """Path in model_dir of the vocabulary that its model was trained with."""
    settings = self.experiment.tokenizer
    name = os.path.basename(settings.tokenizer_path)
    if not settings.is_sent_piece and name not in model_folder.VOCAB_NAMES:
      name = model_folder.VOCAB_NAMES[0]
    return os.path.join(self.experiment.trainer.model_dir, name)

  def _check_own_vocab(self):
    own, chosen = self._own_vocab_path(), self.experiment.tokenizer.tokenizer_path
    if tf.io.gfile.exists(own) and files.fingerprint([own]) != files.fingerprint([chosen]):
      raise UserError(
        f"{own} is another vocabulary than {chosen}: the model in this folder was "
        f"trained with it; choose another --model_dir"
      )

  def _check_model_dir(self):
    """UserError if training would overwrite files in model_dir."""
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
    """UserError if training from step 0 would overwrite different settings in model_dir."""
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
        and files.read_json(path) != json.loads(json.dumps(contents))
      ):
        raise UserError(
          f"{path}: training would overwrite this file with other settings, and "
          f"there is no checkpoint that it belongs to; move it away, or choose "
          f"another --model_dir"
        )

  # -- data --

  def check_outputs(self, outputs: Iterable[str]) -> None:
    """UserError if `outputs`, or what every run writes to model_dir, are files that it reads."""
    model, files = self.experiment.model, self.experiment.record_files
    reads_raw_data = isinstance(self.task, RawDataTask) and not self.experiment.data.synthetic_data
    inputs = [
      *(record_files.raw_files(self.task) if reads_raw_data else ()),
      model.model_config,
      files.input_meta_data_path,
      self.experiment.tokenizer.tokenizer_path,
      *(path for found in self.sources.record_sets.values() for path in found.paths),
    ]
    paths.check_outputs(filter(None, inputs), [*self._own_files(), *outputs])

  def _own_files(self):
    """Paths of the files with fixed names that training and evaluation write."""
    trainer = self.experiment.trainer
    if not (trainer.do_train or trainer.do_eval):
      return []
    names = [
      "params.yaml",
      "metrics.jsonl",
      "eval_results.json",
      "eval_results.txt",
      evaluator.EXAMPLES_NAME,
      "checkpoint",
      os.path.join("best", "info.json"),
      *model_folder.SETTINGS_NAMES,
    ]
    found = [os.path.join(trainer.model_dir, name) for name in names]
    if trainer.num_trials > 1:
      found.append(os.path.join(os.path.dirname(trainer.model_dir), "trials.json"))
    return found

  def check_before_work(self) -> None:
    """Makes missing records, and checks all data and output paths, before training."""
    trainer, data = self.experiment.trainer, self.experiment.data
    recovery.check(trainer)
    predicts = trainer.do_predict or trainer.do_submit
    evaluates = trainer.do_eval or (trainer.do_train and trainer.eval_every_steps > 0)
    if trainer.do_train:
      self.sources.of("train")
    if evaluates:
      self.sources.of("dev")
      self.evaluator.check_best_metric()
    if predicts or self.task.ensemble_checkpoints:
      self.sources.of("test")
    if trainer.do_submit and data.max_eval_examples:
      raise UserError(
        "--do_submit: GLUE's submission needs predictions for all test data; leave "
        "--max_eval_examples out, or use --do_predict"
      )
    outputs = []
    if predicts:
      for source in self.sources.of("test"):
        outputs += self.task.output_files(trainer, source.split.name)
    if self.task.ensemble_checkpoints:
      outputs += self.task.ensemble_files(trainer)
    self.check_outputs(outputs)

  def run(self) -> dict[str, float]:
    """Does the work of the settings; metrics of the best checkpoint, if evaluated."""
    if self.experiment.preprocessing.prepro_split:
      self.preprocess()
      return {}
    runtime = self.experiment.runtime
    if runtime.validate_only or runtime.compile_only:
      self.validate()
      return {}
    is_training = self.experiment.trainer.do_train
    if not self.devices.is_chief:
      if is_training:
        self.train()
      return {}
    with lock.exclusive(self.experiment.trainer.model_dir) if is_training else nullcontext():
      self.check_before_work()
      metrics = self.train_and_evaluate()
      self.predict()
    return metrics

  def validate(self) -> None:
    """--validate_only and --compile_only: checks data, checkpoints and graphs, without training.

    Raises:
      UserError: data are missing, or the checkpoint does not fit the model.
    """
    trainer = self.experiment.trainer
    wanted = {"train": trainer.do_train, "dev": trainer.do_eval, "test": trainer.do_predict}
    for kind in [kind for kind, is_wanted in wanted.items() if is_wanted]:
      if kind in self.sources.record_sets:
        self.sources.of(kind)
      elif isinstance(self.task, RawDataTask):
        for split in self.task.splits(kind):
          print(f"{self.task.name} {split}: {', '.join(self.task.input_files(split)[:3])}")
    checkpoint = checkpoints.latest_or_best(trainer.model_dir)
    if checkpoint is None and self.experiment.model.start_checkpoint:
      checkpoint = checkpoints.resolve(self.experiment.model.start_checkpoint)
    arguments = (self.experiment, self.model_config, self.task, self.devices)
    dry_run.build_graphs(*arguments, checkpoint)
    if self.experiment.runtime.compile_only:
      dry_run.compile_and_step(*arguments)
    print("Settings, files and graphs are valid")

  def preprocess(self) -> None:
    """--prepro_split: makes the records of a split."""
    wanted = self.experiment.preprocessing.prepro_split
    try:
      found = self.sources.make("dev" if wanted == "eval" else wanted)
    except finetuning_records.Unfinished as unfinished:
      print(unfinished)
      return
    for split, records in found:
      print(
        f"{records.paths[0]}: {records.num_examples} {self.task.record_unit} of "
        f"{self.task.input_files(split)[0]}"
      )

  def train_and_evaluate(self) -> dict[str, float]:
    """Trains and evaluates as the --do_ flags say; metrics of the best checkpoint, if evaluated."""
    metrics = {}
    if self.experiment.trainer.do_train:
      self.train()
    if self.experiment.trainer.do_eval:
      checkpoint, metrics = self.evaluator.evaluate_all()
      values = format_metrics(metrics)
      print(f"{self.task.name} {self.task.eval_split}: {values} ({checkpoint})")
    return metrics

  def evaluate_continuously(self) -> None:
    """Evaluates each new checkpoint until the last step, or until none comes in time."""
    trainer, last = self.experiment.trainer, None
    while newest := checkpoints.wait_for_new(
      trainer.model_dir, last, trainer.continuous_eval_timeout
    ):
      values = format_metrics(self.evaluator.evaluate(newest))
      print(f"{self.task.name} {self.task.eval_split}: {values} ({newest})")
      last, num_train_steps = newest, self.experiment.optimizer.train_steps
      if num_train_steps and checkpoints.step_of(newest) >= num_train_steps:
        return
    log.info("No new checkpoint in %d seconds", trainer.continuous_eval_timeout)

  def predict(self) -> None:
    """Writes predictions of the best checkpoint, and of an ensemble, as the settings say."""
    trainer = self.experiment.trainer
    if trainer.do_predict or trainer.do_submit:
      for source, predictions in self._predictions(self.evaluator.best_checkpoint()):
        self.task.write_predictions(trainer, source.split, predictions)
    if self.task.ensemble_checkpoints:
      found = [checkpoints.resolve(path) for path in self.task.ensemble_checkpoints]
      several = [self._predictions(checkpoint) for checkpoint in found]
      for of_split in zip(*several, strict=True):
        split = of_split[0][0].split
        self.task.write_ensemble(trainer, split, [predictions for _, predictions in of_split])

  def _predictions(self, checkpoint):
    """Yields (source, predictions) of each split of the test data."""
    log.info("Predict with %s", checkpoint)
    for source in self.sources.of("test"):
      yield (
        source,
        self.evaluator.predict_all(
          source.records, checkpoint, self.experiment.trainer.predict_batch_size
        ),
      )

  # -- training --

  def train(self) -> None:
    """Trains from the newest checkpoint of model_dir to the last step; evaluates in between."""
    settings = self._model_settings()
    train_loop.TrainLoop(
      self.experiment,
      self.model_config,
      self.task,
      self.sources.of("train")[0].records,
      self.devices,
      self.evaluator,
      lambda: self._check_settings(settings),
      lambda: self._write_model_files(settings),
    ).train()

  def _model_settings(self):
    """The settings that the model's folder stores."""
    settings = {**model_folder.stored_settings(self.experiment), **self.task.model_settings()}
    if self.tokenizer is not None:
      settings["vocab_file"] = os.path.basename(self._own_vocab_path())
    if hasattr(self.model_config, "truncate_seq"):
      settings["truncate_seq"] = self.model_config.truncate_seq
    return settings

  def _write_model_files(self, settings):
    """Writes configuration, vocabulary and settings, so that the folder is a model by itself."""
    model_dir = self.experiment.trainer.model_dir
    model_folder.write_settings(model_dir, settings)
    files.write_text(os.path.join(model_dir, "params.yaml"), params.to_yaml(self.experiment))
    if self.tokenizer is not None and not tf.io.gfile.exists(self._own_vocab_path()):
      files.copy(self.experiment.tokenizer.tokenizer_path, self._own_vocab_path())
    # A checkpoint keeps the configuration that it was trained with.
    path = os.path.join(model_dir, self.model_config.file_name)
    if not (
      paths.is_same(path, self.experiment.model.model_config)
      or checkpoints.latest(model_dir)
      and tf.io.gfile.exists(path)
    ):
      files.write_json(path, self.model_config.to_dict())
