"""Saves checkpoints during training, also when a signal ends it."""

import logging
import os

import tensorflow as tf

from errors import UserError
from training import checkpoints
from utils import console, disk, files

v1 = tf.compat.v1
log = logging.getLogger(__name__)


class SaveHook(v1.train.SessionRunHook):
  """Saves model.ckpt-STEP at multiples of `save_steps`, at the end, and after Ctrl-C or SIGTERM.

  It replaces TensorFlow's CheckpointSaverHook, which saves before other hooks check the loss, saves
  step 0, and writes the graph to each checkpoint and, at each call of Estimator.train, to the
  events file. It must be the last hook.
  """

  def __init__(self, model_dir: str, save_steps: int, last_step: int, is_chief: bool = True):
    """Stores the settings.

    Args:
      model_dir: folder of the checkpoints, without wildcard characters.
      save_steps: updates between checkpoints.
      last_step: there is no checkpoint within a tenth of save_steps before this step, at which
        training ends and saves in any case.
      is_chief: whether this process writes.
    """
    self._prefix = os.path.join(model_dir, "model.ckpt")
    self._save_steps = save_steps
    self._last_step = last_step
    self._is_chief = is_chief

  def begin(self):
    """Adds the operation that reads the step."""
    self._global_step = tf.identity(v1.train.get_global_step())

  def after_create_session(self, session, coord):
    """Finds the saver; from now on, signals wait for the end of the step."""
    del coord
    self._saver = v1.get_collection(v1.GraphKeys.SAVERS)[0]
    self._step = self._saved = int(session.run(self._global_step))
    console.defer_signals(True)

  def after_run(self, run_context, run_values):
    """Saves if it is time to; raises console.Interrupted after a signal."""
    del run_values
    before, self._step = self._step, int(run_context.session.run(self._global_step))
    is_due = self._step // self._save_steps > before // self._save_steps
    is_near_end = 0 < self._last_step - self._step < self._save_steps / 10
    if console.is_signalled() or (is_due and not is_near_end):
      self._save(run_context.session)
    console.raise_if_signalled()

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

  def _no_space(self):
    """Removes the parts of the checkpoint that did not fit; returns the message."""
    folder = os.path.dirname(self._prefix)
    needed = sum(4 * variable.shape.num_elements() for variable in v1.global_variables())
    for name in tf.io.gfile.listdir(folder):
      if name.startswith(f"{os.path.basename(self._prefix)}-{self._step}"):
        path = os.path.join(folder, name)
        remove = tf.io.gfile.rmtree if tf.io.gfile.isdir(path) else files.remove
        remove(path)
    newest = checkpoints.latest(folder)
    kept = f"{newest} is the last one" if newest else "there is no earlier one"
    return (
      f"{folder}: no space left on the disk for the checkpoint of step {self._step}, which needs "
      f"{needed / 1e6:.1f} MB; {kept}. Free space, or lower --max_save; the same command goes on"
    )
