"""Output of a run: progress line, metrics.jsonl and TensorBoard."""

import json
import math
import os
import time
from collections.abc import Callable

import tensorflow as tf

from training.model_fn import MONITORS
from utils import console

v1 = tf.compat.v1


class MetricsLog:
  """Appends to metrics.jsonl of a run, one JSON object per line, and writes TensorBoard scalars."""

  def __init__(self, model_dir: str, is_chief: bool = True):
    """Opens the log; keeps existing lines. Without is_chief, nothing is written."""
    self.model_dir = model_dir
    self._is_chief = is_chief
    self.path = os.path.join(model_dir, "metrics.jsonl")
    self._line_end = ""  # "\n" if a killed run has left a line without its end
    if tf.io.gfile.exists(self.path):
      with tf.io.gfile.GFile(self.path, "rb") as reader:
        data = reader.read()
      self._line_end = "\n" if data and not data.endswith(b"\n") else ""

  def write(self, kind: str, step: int, values: dict[str, float]) -> None:
    """Appends a line {"kind", "step", ...values}."""
    if not self._is_chief:
      return
    line = json.dumps({"kind": kind, "step": step, **values})
    with tf.io.gfile.GFile(self.path, "a") as writer:
      writer.write(self._line_end + line + "\n")
    self._line_end = ""

  def write_summaries(self, folder: str, step: int, values: dict[str, float]) -> None:
    """Writes TensorBoard scalars to a folder below model_dir, or to model_dir if it is ""."""
    if not self._is_chief:
      return
    writer = self._event_writer(folder)
    writer.add_summary(
      v1.Summary(
        value=[v1.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
      ),
      step,
    )
    writer.flush()

  def start_summaries(self, step: int) -> None:
    """Makes TensorBoard drop the scalars that an earlier, stopped run wrote after `step`."""
    if self._is_chief:
      self._event_writer("").add_session_log(v1.SessionLog(status=v1.SessionLog.START), step + 1)

  def _event_writer(self, folder):
    with tf.Graph().as_default():  # FileWriter does not work with eager execution
      # Estimator writes to model_dir as well, and uses the same cache: one file for both.
      return v1.summary.FileWriterCache.get(
        os.path.join(self.model_dir, folder) if folder else self.model_dir
      )

  def read(self, kind: str, **wanted) -> dict[int, dict[str, float]]:
    """Returns step -> values of the lines of a kind; the last line of each step is used.

    Lines that are incomplete, or were not written by `write`, are skipped.

    Args:
      kind: "train", "eval", ...
      **wanted: values that the line must have.
    """
    entries = {}
    if tf.io.gfile.exists(self.path):
      with tf.io.gfile.GFile(self.path, "rb") as reader:
        lines = reader.read().decode(errors="replace").split("\n")
      for line in lines:
        try:
          entry = json.loads(line)
        except (ValueError, RecursionError):
          continue
        if not isinstance(entry, dict) or entry.pop("kind", None) != kind:
          continue
        if wanted.items() <= entry.items() and isinstance(entry.get("step"), int):
          entries[entry.pop("step")] = entry
    return entries


class StartHook(v1.train.SessionRunHook):
  """Calls a function once the first session exists, when the checkpoint has been checked."""

  def __init__(self, start: Callable[[], None]):
    """Stores the function."""
    self._start: Callable[[], None] | None = start

  def after_create_session(self, session, coord):
    """Calls the function on the first session."""
    del session, coord
    if self._start:
      self._start()
      self._start = None


class ProgressHook(v1.train.SessionRunHook):
  """Shows loss, learning rate, examples/s and the time left; logs them every `log_freq` steps.

  Steps are updates; on a TPU one call of the session makes --iterations of them. The bar is kept
  over several calls of Estimator.train. The speed is measured since the last line in the log,
  without the first call of each session, which builds and warms up.
  """

  def __init__(
    self,
    metrics_log: MetricsLog,
    start_step: int,
    num_train_steps: int,
    batch_size: int,
    log_freq: int,
    utilization: Callable[[float, float], float] | None = None,
  ):
    """Starts the bar.

    Args:
      metrics_log: log to write to.
      start_step: global step at which training starts.
      num_train_steps: updates of the whole training.
      batch_size: examples per update.
      log_freq: steps between lines in the log.
      utilization: (tokens per example, examples per second) -> share of the device's peak.
    """
    self._log = metrics_log
    self._batch_size = batch_size
    self._log_freq = log_freq
    self._utilization = utilization
    self._seconds = self._timed_steps = 0
    self._step = start_step
    self._bar = console.progress_bar(
      total=num_train_steps,
      initial=start_step,
      desc="train",
      bar_format="{desc}: {percentage:3"
      ".0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed} elapsed, {remaining} left{postfix}]",
    )

  def step(self) -> int:
    """Returns the global step after the last update."""
    return self._step

  def begin(self):
    """Reads the monitors of the graph."""
    self._monitors = dict(v1.get_collection(MONITORS))
    self._global_step = tf.identity(v1.train.get_global_step())

  def after_create_session(self, session, coord):
    """Reads the step at which the session starts."""
    del coord
    self._last_time = None
    self._step = int(session.run(self._global_step))
    self._log.start_summaries(self._step)

  def before_run(self, run_context):
    """Requests loss and monitors; ends the run if a signal has arrived, unless it is deferred."""
    console.raise_if_due()  # SaveHook saves before it raises a deferred one
    # Estimator runs [train_op, loss]; its loss is the mean over all replicas.
    loss = run_context.original_args.fetches[1]
    return v1.train.SessionRunArgs({"loss": loss, **self._monitors})

  def after_run(self, run_context, run_values):
    """Updates the bar and, every `log_freq` steps, the log."""
    now = time.perf_counter()
    before, self._step = self._step, int(run_context.session.run(self._global_step))
    if self._last_time is not None:
      self._seconds += now - self._last_time
      self._timed_steps += self._step - before
    self._last_time = now
    values = {name: float(value) for name, value in run_values.results.items()}
    if self._timed_steps:
      values["milliseconds_per_step"] = round(1000 * self._seconds / self._timed_steps, 2)
      values["examples_per_second"] = round(self._batch_size * self._timed_steps / self._seconds, 2)
      if "tokens_per_example" in values:
        values["tokens_per_second"] = round(
          values["tokens_per_example"] * values["examples_per_second"], 1
        )
        if self._utilization:
          values["utilization"] = round(
            self._utilization(values["tokens_per_example"], values["examples_per_second"]), 4
          )
    self._bar.set_postfix(
      {
        "loss": f"{values['loss']:.4f}",
        "lr": f"{values.get('learning_rate', 0):.2e}",
        "ms/step": f"{values.get('milliseconds_per_step', 0):.0f}",
        "ex/s": f"{values.get('examples_per_second', 0):.1f}",
        "tokens/s": f"{values.get('tokens_per_second', 0):.0f}",
        **({"peak": f"{values['utilization']:.0%}"} if "utilization" in values else {}),
      },
      refresh=False,
    )
    self._bar.update(self._step - self._bar.n)
    if self._step // self._log_freq > before // self._log_freq or self._step == self._bar.total:
      # The gradient norm of a skipped update is not finite, which JSON does not have.
      values = {name: value for name, value in values.items() if math.isfinite(value)}
      self._log.write("train", self._step, values)
      self._log.write_summaries("", self._step, values)
      self._seconds = self._timed_steps = 0

  def close(self):
    """Ends the bar. The creator of the hook calls this once."""
    self._bar.close()
