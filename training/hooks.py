"""What a run tells its user: a progress line, metrics.jsonl, TensorBoard."""

import json
import os
import time
from collections.abc import Callable

import tensorflow as tf

from training.model_fn import MONITORS
from utils import console

v1 = tf.compat.v1


class MetricsLog:
  """metrics.jsonl of a run: one JSON object per line, appended; and TensorBoard scalars."""

  def __init__(self, model_dir: str):
    self.model_dir = model_dir
    self.path = os.path.join(model_dir, "metrics.jsonl")
    self._line_end = ""  # a killed run may have left a line without an end
    if tf.io.gfile.exists(self.path):
      with tf.io.gfile.GFile(self.path) as reader:
        text = reader.read()
      self._line_end = "\n" if text and not text.endswith("\n") else ""

  def write(self, kind: str, step: int, values: dict[str, float]) -> None:
    """Appends a line {"kind", "step", ...values}."""
    line = json.dumps({"kind": kind, "step": step, **values})
    with tf.io.gfile.GFile(self.path, "a") as writer:
      writer.write(self._line_end + line + "\n")
    self._line_end = ""

  def write_summaries(self, folder: str, step: int, values: dict[str, float]) -> None:
    """Writes TensorBoard scalars to a folder below model_dir, or to model_dir if it is ""."""
    writer = self._event_writer(folder)
    writer.add_summary(
      v1.Summary(
        value=[v1.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
      ),
      step,
    )
    writer.flush()

  def start_summaries(self, step: int) -> None:
    """Makes TensorBoard drop what a run that was stopped wrote to model_dir after `step`."""
    self._event_writer("").add_session_log(v1.SessionLog(status=v1.SessionLog.START), step + 1)

  def _event_writer(self, folder):
    with tf.Graph().as_default():  # FileWriter refuses to work where eager execution is on
      # The cache is the Estimator's, which writes to model_dir as well: one file for both.
      return v1.summary.FileWriterCache.get(
        os.path.join(self.model_dir, folder) if folder else self.model_dir
      )

  def read(self, kind: str, **wanted) -> dict[int, dict[str, float]]:
    """Lines of a kind that hold the `wanted` values, by step; of several of one step the last.

    A line that was cut off is skipped.
    """
    entries = {}
    if tf.io.gfile.exists(self.path):
      with tf.io.gfile.GFile(self.path) as reader:
        for line in reader:
          try:
            entry = json.loads(line)
          except ValueError:
            continue
          if entry.pop("kind", None) == kind and wanted.items() <= entry.items():
            entries[entry.pop("step")] = entry
    return entries


class StartHook(v1.train.SessionRunHook):
  """Calls a function once, when the first session exists: the model then fits its checkpoint."""

  def __init__(self, start: Callable[[], None]):
    self._start: Callable[[], None] | None = start

  def after_create_session(self, session, coord):
    del session, coord
    if self._start:
      self._start()
      self._start = None


class ProgressHook(v1.train.SessionRunHook):
  """Shows loss, learning rate, examples/s and the time left; logs them every `log_freq` steps.

  Steps are updates: on a TPU one call of the session is as many as --iterations. One bar lives
  through several calls of Estimator.train. The speed is that since the last line in the log,
  without the first call of each session, which builds and warms up.
  """

  def __init__(
    self,
    metrics_log: MetricsLog,
    start_step: int,
    num_train_steps: int,
    batch_size: int,
    log_freq: int,
  ):
    self._log = metrics_log
    self._batch_size = batch_size
    self._log_freq = log_freq
    self._seconds = self._timed_steps = 0
    self._bar = console.progress_bar(
      total=num_train_steps,
      initial=start_step,
      desc="train",
      bar_format="{desc}: {percentage:3"
      ".0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed} elapsed, {remaining} left{postfix}]",
    )

  def begin(self):
    self._monitors = dict(v1.get_collection(MONITORS))
    self._global_step = tf.identity(v1.train.get_global_step())

  def after_create_session(self, session, coord):
    del coord
    self._last_time = None
    self._step = int(session.run(self._global_step))
    self._log.start_summaries(self._step)

  def before_run(self, run_context):
    console.raise_if_signalled()
    # Estimator runs [train_op, loss]; its loss is the mean over all replicas.
    loss = run_context.original_args.fetches[1]
    return v1.train.SessionRunArgs({"loss": loss, **self._monitors})

  def after_run(self, run_context, run_values):
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
    self._bar.set_postfix(
      {
        "loss": f"{values['loss']:.4f}",
        "lr": f"{values.get('learning_rate', 0):.2e}",
        "ms/step": f"{values.get('milliseconds_per_step', 0):.0f}",
        "ex/s": f"{values.get('examples_per_second', 0):.1f}",
        "tokens/s": f"{values.get('tokens_per_second', 0):.0f}",
      },
      refresh=False,
    )
    self._bar.update(self._step - self._bar.n)
    if self._step // self._log_freq > before // self._log_freq or self._step == self._bar.total:
      self._log.write("train", self._step, values)
      self._log.write_summaries("", self._step, values)
      self._seconds = self._timed_steps = 0

  def close(self):
    """Ends the bar; called once, by whoever made the hook."""
    self._bar.close()
