"""Losses and gradients that are not finite: stop, skip the update, or reload a checkpoint."""

import logging
import math
from collections.abc import Callable

import tensorflow as tf

import config
from errors import UserError
from training.hooks import MetricsLog
from training.model_fn import MONITORS

v1 = tf.compat.v1
log = logging.getLogger(__name__)

# Skipped updates in a row after which training stops: its weights give no finite gradient.
MAX_SKIPPED_IN_A_ROW = 100
_SEED_STEP = 7919  # far from the distance between the seeds of --num_trials
_KIND = "recovery"  # of lines in metrics.jsonl


class NotFiniteError(Exception):
  """Loss or gradient of an update is not finite, or the loss is above --loss_upper_bound."""


def check(trainer: config.Trainer) -> None:
  """Raises UserError if the settings contradict each other."""
  if trainer.nan_policy == "skip" and trainer.loss_upper_bound:
    raise UserError(
      "--loss_upper_bound stops training or reloads a checkpoint; it does not work with "
      "--nan_policy=skip, use --nan_policy=reload"
    )


class FiniteHook(v1.train.SessionRunHook):
  """Checks loss and gradient of each update, as --nan_policy says.

  It must be before saving.SaveHook: bad weights are then never saved. On a TPU only the loss is
  available, once per call.
  """

  def __init__(self, trainer: config.Trainer, step: Callable[[], int]):
    """Stores the settings.

    Args:
      trainer: settings of the training.
      step: returns the global step after the update.
    """
    self._policy = trainer.nan_policy
    self._bound = trainer.loss_upper_bound or math.inf
    self._step = step
    self._in_a_row = 0

  def begin(self):
    """Reads the monitors of the graph."""
    monitors = dict(v1.get_collection(MONITORS))
    names = "loss", "gradient_norm", "skipped_updates"
    self._fetches = {name: monitors[name] for name in names if name in monitors}

  def before_run(self, run_context):
    """Requests loss and gradient norm."""
    return v1.train.SessionRunArgs({"loss": run_context.original_args.fetches[1], **self._fetches})

  def after_run(self, run_context, run_values):
    """Raises NotFiniteError, or counts and logs the skipped update."""
    del run_context
    results = run_values.results
    loss, norm = (float(results.get(name, 0.0)) for name in ("loss", "gradient_norm"))
    if not math.isfinite(loss):
      if self._policy != "skip":
        raise NotFiniteError(f"the loss is not a number at step {self._step()}")
    elif loss > self._bound:
      raise NotFiniteError(
        f"the loss is {loss:g} at step {self._step()}, above --loss_upper_bound={self._bound:g}"
      )
    if "skipped_updates" in results:  # the optimizer skips them
      self._count(math.isfinite(norm), loss, norm, int(results["skipped_updates"]))
    elif not math.isfinite(norm):
      raise NotFiniteError(f"the gradient is not a number at step {self._step()}")

  def _count(self, is_finite, loss, norm, num_skipped):
    self._in_a_row = 0 if is_finite else self._in_a_row + 1
    if is_finite:
      return
    if self._policy == "skip":
      log.warning(
        "Step %d: update skipped, its gradient is not finite (loss %g, gradient norm %g); "
        "%d skipped in this run",
        self._step(),
        loss,
        norm,
        num_skipped,
      )
    if self._in_a_row >= MAX_SKIPPED_IN_A_ROW:
      raise UserError(
        f"the gradients of {self._in_a_row} updates in a row are not finite, the last at step "
        f"{self._step()}; lower --learning_rate or lengthen --warmup_steps, and start from "
        f"another checkpoint"
      )


class Recoveries:
  """Counts the reloads of a run, and gives each another order of the examples.

  Batches depend only on seed and step, so the same seed would lead to the same bad batch. The count
  is stored in metrics.jsonl: a run that is killed later continues with the same order.
  """

  def __init__(self, trainer: config.Trainer, metrics_log: MetricsLog):
    """Reads the reloads of earlier, killed runs in the same folder."""
    self._trainer = trainer
    self._log = metrics_log
    lines = metrics_log.read(_KIND).values()
    self._count = max((int(line["count"]) for line in lines), default=0)
    self._left = trainer.recovery_max_trials if trainer.nan_policy == "reload" else 0

  @property
  def seed(self) -> int:
    """Seed of the order of the examples."""
    return self._trainer.seed + _SEED_STEP * self._count

  def reload(self, error: NotFiniteError, step: int) -> None:
    """Counts a reload of the checkpoint at `step`.

    Raises:
      UserError: no reload is left.
    """
    if not self._left:
      advice = (
        f"--recovery_max_trials={self._trainer.recovery_max_trials} reloads did not help"
        if self._trainer.nan_policy == "reload"
        else "see --nan_policy"
      )
      kept = f"The last checkpoint is of step {step}" if step else "No checkpoint was saved yet"
      raise UserError(
        f"{error}; lower --learning_rate or lengthen --warmup_steps ({advice}). {kept}"
      ) from error
    self._left -= 1
    self._count += 1
    log.warning(
      "%s: %s, with the examples in another order; reloads left: %d",
      str(error).capitalize(),
      f"reload the checkpoint of step {step}" if step else "start again at step 0",
      self._left,
    )
    self._log.write(_KIND, step, {"count": self._count})
