"""Evaluates and predicts with checkpoints, and keeps the best one."""

import hashlib
import json
import logging
import os

import numpy as np
import tensorflow as tf

import config
import modeling
from errors import UserError
from tasks.base import Task
from tasks.metrics import format_metrics
from training import (
  checkpoints,
  damage,
  estimator,
  hooks,
  inputs,
  losses,
  model_folder,
  record_faults,
  xla,
)
from training.devices import Devices
from training.model_fn import ModelFn
from training.record_sources import RecordSources
from utils import files, paths

log = logging.getLogger(__name__)

EXAMPLES_NAME = "eval_predictions.jsonl"  # Task.evaluated of the last evaluation, with its step


class Evaluator:
  """Scores checkpoints on the records of a run; each checkpoint once."""

  def __init__(
    self,
    experiment: config.Experiment,
    model_config: modeling.Config,
    task: Task,
    sources: RecordSources,
    devices: Devices,
    vocab_name: str,
  ):
    """Opens metrics.jsonl.

    Args:
      experiment: complete settings.
      model_config: configuration of the encoder.
      task: the task.
      sources: its records.
      devices: devices of the run.
      vocab_name: file name of the vocabulary in model_dir.
    """
    self.experiment = experiment
    self.model_config = model_config
    self.task = task
    self.sources = sources
    # Of several hosts, the chief evaluates, alone.
    self.devices = Devices(devices.description) if devices.cluster else devices
    self.vocab_name = vocab_name
    self.metrics_log = hooks.MetricsLog(experiment.trainer.model_dir, devices.is_chief)
    self._evaluated: dict[str, dict[str, float]] = {}

  def check_best_metric(self) -> None:
    """UserError if --best_metric is no metric of the task."""
    splits = [source.split for source in self.sources.of("dev")]
    known = self.task.metric_names(splits)
    if self.experiment.trainer.best_metric not in known:
      raise UserError(
        f"--best_metric={self.experiment.trainer.best_metric} is not measured; "
        f"there are {', '.join(sorted(known))}"
      )

  def _data_key(self):
    """Hash of the evaluated data; metrics on different data cannot be compared."""
    parts = [
      (*map(os.path.basename, source.records.paths), source.records.num_examples)
      for source in self.sources.of("dev")
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]

  def _history(self):
    """Returns step -> metrics of earlier evaluations on the same data, up to the newest step."""
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
    return files.read_json(path) if tf.io.gfile.exists(path) else {}

  def _best_step(self, history):
    """Step of the best evaluation, the earliest of equals; the best loss is the smallest."""
    metric = self.experiment.trainer.best_metric
    sign = -1 if metric.startswith("loss") else 1
    return max(history, key=lambda step: (sign * history[step][metric], -step))

  def stops_early(self) -> bool:
    """Returns whether early_stopping_patience evaluations brought no better score."""
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

  def predict_all(
    self, source: inputs.RecordSource, checkpoint: str, batch_size: int
  ) -> dict[str, np.ndarray]:
    """Predictions of a checkpoint for every example of a source, in the file's order.

    The second dimension of a prediction may differ between batches; the task's `padding` fills it
    up to the longest.

    Raises:
      damage.DamagedError: the checkpoint cannot be restored.
      AssertionError: an example was lost or counted twice; this is a defect.
    """
    model_fn = ModelFn(
      self.experiment, self.task, self.model_config, self.devices, checkpoint=checkpoint
    )
    predictor = estimator.build_estimator(
      self.experiment, self.devices, model_fn, predict_batch_size=batch_size
    )
    input_fn = inputs.predict_input_fn(source, batch_size, self.devices.is_tpu)
    with record_faults.explained(source):
      try:
        batches = list(
          predictor.predict(
            input_fn,
            hooks=[xla.ProgramsHook("prediction")] if self.experiment.runtime.use_xla else None,
            checkpoint_path=paths.checkpoint_without_wildcards(checkpoint),
            yield_single_examples=False,
          )
        )
      except tf.errors.OpError:
        checkpoints.check_data(checkpoint)
        raise
    padding = self.task.padding
    joined = {
      name: join_batches([batch[name] for batch in batches], padding.get(name))
      for name in batches[0]
    }
    real = joined["example_index"] >= 0
    order = np.argsort(joined["example_index"][real])
    assert len(order) == source.num_examples, (len(order), source.num_examples)
    joined = {name: values[real][order] for name, values in joined.items()}
    # The original record files pad the last batch with dummy examples.
    return {name: values[joined["is_real_example"] != 0] for name, values in joined.items()}

  def evaluate(self, checkpoint: str, is_training: bool = False) -> dict[str, float]:
    """Metrics of a checkpoint on the dev data; copies it to best/ if it is the best so far."""
    if checkpoint in self._evaluated:
      return self._evaluated[checkpoint]
    trainer = self.experiment.trainer
    step = checkpoints.step_of(checkpoint)
    metrics_of_splits, examples = {}, []
    for source in self.sources.of("dev"):
      predictions = self.predict_all(source.records, checkpoint, trainer.eval_batch_size)
      metrics_of_splits[source.split.name] = {
        **self.task.score(source.split, predictions),
        **losses.mean_losses(predictions),
      }
      place = {"step": step, "split": source.split.name}
      examples += [place | values for values in self.task.evaluated(source.split, predictions)]
    metrics = self.task.combine(metrics_of_splits)
    if trainer.best_metric not in metrics:
      raise UserError(
        f"--best_metric={trainer.best_metric} cannot be measured on these examples; "
        f"raise --max_eval_examples"
      )
    history = {**self._history(), step: metrics}
    best_step, best_metric = self._best_step(history), trainer.best_metric
    entry = {**metrics, "data": self._data_key()}
    # The copy is first, the line in the log second: a run that is killed between them finds the
    # evaluation in best/info.json.
    folder = os.path.join(trainer.model_dir, "best")
    is_own = checkpoint.startswith(os.path.join(trainer.model_dir, "model.ckpt"))
    # Evaluation on other data does not replace the choice of training.
    is_chosen = is_training or self._best_info().get("data") in (None, self._data_key())
    if best_step == step and is_own and is_chosen:
      copied = checkpoints.copy(checkpoint, folder)
      model_folder.copy_files(trainer.model_dir, folder, self.vocab_name)
      files.write_json(
        os.path.join(folder, "info.json"), {"step": step, "checkpoint": copied, **entry}
      )
    if examples:
      path = os.path.join(trainer.model_dir, EXAMPLES_NAME)
      files.write_text(path, "".join(json.dumps(example) + "\n" for example in examples))
    files.write_json(
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
    files.write_text(
      os.path.join(trainer.model_dir, "eval_results.txt"), eval_results_text(step, metrics)
    )
    self.metrics_log.write("eval", step, entry)
    self.metrics_log.write_summaries("eval", step, metrics)
    log.info("Evaluation at step %d: %s", step, format_metrics(metrics))
    self._evaluated[checkpoint] = metrics
    return metrics

  def evaluate_all(self) -> tuple[str, dict[str, float]]:
    """Evaluates checkpoints; returns the best one and its metrics.

    It evaluates the newest of model_dir (with eval_all_ckpt all after eval_start_step, up to
    eval_end_step), and includes those that training evaluated. If model_dir is empty, it evaluates
    the init_checkpoint.
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
        f"{trainer.eval_end_step}; the steps are "
        + ", ".join(str(checkpoints.step_of(prefix)) for prefix in found)
      )
    for prefix in prefixes or [self._newest_checkpoint("evaluate")]:
      try:
        self.evaluate(prefix)
      except damage.DamagedError as error:
        if len(prefixes) < 2 or prefix == prefixes[-1] and not self._evaluated:
          raise
        log.warning("%s. Evaluate the other checkpoints", error)
    by_step = {checkpoints.step_of(prefix): prefix for prefix in self._evaluated}
    best = by_step[
      self._best_step({step: self._evaluated[prefix] for step, prefix in by_step.items()})
    ]
    return best, self._evaluated[best]

  def best_checkpoint(self) -> str:
    """The best checkpoint if an evaluation kept one, else the newest."""
    best = checkpoints.latest(os.path.join(self.experiment.trainer.model_dir, "best"))
    return best or self._newest_checkpoint("predict with")

  def _newest_checkpoint(self, purpose):
    trainer = self.experiment.trainer
    found = model_folder.find_checkpoint(trainer.model_dir, self.experiment.model, purpose)
    if not checkpoints.latest_or_best(trainer.model_dir):
      log.info("%s has no checkpoint: use --init_checkpoint", trainer.model_dir)
    return found


def join_batches(batches: list[np.ndarray], pad_value: float | None) -> np.ndarray:
  """Concatenates arrays [B, ...]; with a pad_value their second dimensions may differ."""
  if pad_value is not None:
    length = max(batch.shape[1] for batch in batches)
    batches = [
      np.pad(
        batch,
        [(0, 0), (0, length - batch.shape[1]), *[(0, 0)] * (batch.ndim - 2)],
        constant_values=pad_value,
      )
      for batch in batches
    ]
  return np.concatenate(batches)


def eval_results_text(step: int, metrics: dict[str, float]) -> str:
  """Sorted lines "key = value", in the form of BERT's scripts.

  Each metric has two keys: its name as in run_pretraining, and eval_NAME as in run_classifier.
  """
  values = {
    "global_step": step,
    **metrics,
    **{f"eval_{name}": value for name, value in metrics.items()},
  }
  return "".join(f"{key} = {values[key]}\n" for key in sorted(values))
