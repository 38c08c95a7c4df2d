"""Saves checkpoints during training, also when a signal ends it."""

import logging
import os

import tensorflow as tf

import config
from errors import UserError
from training import checkpoints
from utils import console, disk, files

v1 = tf.compat.v1
log = logging.getLogger(__name__)


class SaveHook(v1.train.SessionRunHook):
  """Saves model.ckpt-STEP at multiples of `save_steps`, at the end, and after Ctrl-C or SIGTERM.

  The log compares the space that the run will need with the free space before the first step.

  It replaces TensorFlow's CheckpointSaverHook, which saves before other hooks check the loss, saves
  step 0, and writes the graph to each checkpoint and, at each call of Estimator.train, to the
  events file. It must be the last hook.
  """

  def __init__(
    self,
    model_dir: str,
    trainer: config.Trainer,
    save_steps: int,
    num_train_steps: int,
    is_chief: bool = True,
  ):
    """Stores the settings.

    Args:
      model_dir: folder of the checkpoints, without wildcard characters.
      trainer: settings of the training.
      save_steps: updates between checkpoints.
      num_train_steps: last step, which is always saved.
      is_chief: whether this process writes.
    """
    self._prefix = os.path.join(model_dir, "model.ckpt")
    self._trainer = trainer
    self._save_steps = save_steps
    self._num_train_steps = num_train_steps
    self._is_chief = is_chief
    self._is_planned = False

  def begin(self):
    """Adds the operation that reads the step."""
    self._global_step = tf.identity(v1.train.get_global_step())

  def after_create_session(self, session, coord):
    """Finds the saver; from now on, signals wait for the end of the step."""
    del coord
    self._saver = v1.get_collection(v1.GraphKeys.SAVERS)[0]
    self._step = int(session.run(self._global_step))
    self._saved = self._step if checkpoints.latest(os.path.dirname(self._prefix)) else -1
    if not self._is_planned:
      self._plan()
      self._is_planned = True
    if self._trainer.eval_all_ckpt and self._trainer.eval_start_step < 0 and self._step == 0:
      self._save(session)
    console.defer_signals(True)

  def after_run(self, run_context, run_values):
    """Saves if it is time to; raises console.Interrupted after a signal."""
    del run_values
    before, self._step = self._step, int(run_context.session.run(self._global_step))
    is_due = self._step // self._save_steps > before // self._save_steps
    if console.is_signalled() or (is_due and not self._is_near_end(self._step)):
      self._save(run_context.session)
    console.raise_if_signalled()

  def _is_near_end(self, step):
    """Whether the checkpoint of the last step follows soon; --save_steps asks for both."""
    left = self._num_train_steps - step
    return not self._trainer.save_steps and 0 < left < self._save_steps / 10

  def end(self, session):
    """Saves the last step."""
    self._save(session)

  def _save(self, session):
    if self._step == self._saved or not self._is_chief:
      return
    try:
      self._saver.save(session, self._prefix, self._step, write_meta_graph=False)
    except Exception as error:
      if not disk.is_full(error):
        raise
      raise UserError(self._no_space()) from None
    self._saved = self._step
    log.info("Saved %s-%d", self._prefix, self._step)

  def _plan(self):
    """Logs the space that checkpoints will need."""
    trainer, folder = self._trainer, os.path.dirname(self._prefix)
    every = trainer.eval_every_steps or self._num_train_steps  # evaluation needs a checkpoint
    steps = {
      step
      for step in range(0, self._num_train_steps, self._save_steps)
      if not self._is_near_end(step)
    }
    steps |= {*range(0, self._num_train_steps, every), self._num_train_steps}
    count = sum(step > self._step for step in steps)
    if trainer.max_save:
      # A checkpoint is deleted after the next one is written.
      count = min(count, trainer.max_save + 1)
    best = bool(trainer.eval_every_steps or trainer.do_eval)
    needed, free = (count + best) * _size(), disk.free_bytes(folder)
    log.info(
      "Checkpoints: %.1f MB each, at most %d new ones at a time%s: %.1f MB; free: %s",
      _size(),
      count,
      " and the best" if best else "",
      needed,
      "unknown" if free is None else f"{free / 1e6:.1f} MB",
    )
    if free is not None and needed > free / 1e6:
      log.warning(
        "%s: the disk has no space for the checkpoints of this run; lower --max_save, raise "
        "--save_steps, free space, or choose another --model_dir",
        trainer.model_dir,
      )

  def _no_space(self):
    """Removes the parts of the checkpoint that did not fit; returns the message."""
    folder = os.path.dirname(self._prefix)
    for name in tf.io.gfile.listdir(folder):
      if name.startswith(f"{os.path.basename(self._prefix)}-{self._step}"):
        path = os.path.join(folder, name)
        remove = tf.io.gfile.rmtree if tf.io.gfile.isdir(path) else files.remove
        remove(path)
    newest = checkpoints.latest(folder)
    kept = f"{newest} is the last one" if newest else "there is no earlier one"
    return (
      f"{folder}: no space left on the disk for the checkpoint of step {self._step}, which needs "
      f"{_size():.1f} MB; {kept}. Free space, or lower --max_save; the same command goes on"
    )


def _size():
  """Megabytes of a checkpoint of the graph: weights and Adam's moments, in float32."""
  return sum(4 * variable.shape.num_elements() for variable in v1.global_variables()) / 1e6
