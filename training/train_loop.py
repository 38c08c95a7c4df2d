"""Training of a runner: from the newest checkpoint to the last step, with evaluations."""

import contextlib
import logging
import os
from collections.abc import Callable

import tensorflow as tf

import config
import modeling
from errors import UserError
from models import flops
from tasks.base import Task
from training import (
  checkpoints,
  cluster,
  devices,
  estimator,
  hooks,
  inputs,
  params,
  precision,
  record_faults,
  recovery,
  saving,
)
from training.evaluator import Evaluator
from training.model_fn import ModelFn
from utils import console

log = logging.getLogger(__name__)


class TrainLoop:
  """Trains a task; a run that was stopped continues from its newest checkpoint."""

  def __init__(
    self,
    experiment: config.Experiment,
    model_config: modeling.Config,
    task: Task,
    source: inputs.RecordSource,
    run_devices: devices.Devices,
    evaluator: Evaluator,
    check_settings: Callable[[], None],
    write_model_files: Callable[[], None],
  ):
    """Counts the updates.

    Args:
      experiment: complete settings.
      model_config: configuration of the encoder.
      task: the task.
      source: its training records.
      run_devices: devices of the run.
      evaluator: evaluates during training.
      check_settings: called before step 0; raises UserError if files would be overwritten.
      write_model_files: called when the first session exists. A run that is refused when its model
        is built leaves no files.
    """
    self.experiment = experiment
    self.model_config = model_config
    self.task = task
    self.source = source
    self.devices = run_devices
    self.evaluator = evaluator
    self._check_settings = check_settings
    self._write_model_files = write_model_files
    trainer, optimizer = experiment.trainer, experiment.optimizer
    self.steps_per_epoch = max(source.num_examples // trainer.train_batch_size, 1)
    self.num_train_steps = optimizer.train_steps or max(
      int(source.num_examples / trainer.train_batch_size * optimizer.num_train_epochs), 1
    )
    self.num_warmup_steps = (
      optimizer.warmup_steps
      if optimizer.warmup_steps >= 0
      else int(self.num_train_steps * optimizer.warmup_proportion)
    )
    self.save_steps = trainer.save_steps or self.steps_per_epoch

  def train(self) -> None:
    """Trains to the last step, or until the evaluations get no better.

    Raises:
      UserError: the settings contradict each other, or the loss is not finite (see --nan_policy).
    """
    trainer = self.experiment.trainer
    if trainer.early_stopping_patience and not trainer.eval_every_steps:
      raise UserError(
        "--early_stopping_patience counts evaluations during training: set --eval_every_steps too"
      )
    step = self._start_step()
    if step >= self.num_train_steps:
      return
    self._log_plan(step)
    if self.devices.is_chief:
      if step == 0:
        self._check_settings()
      self._check_seed()
      checkpoints.remove_unfinished(trainer.model_dir)
      checkpoints.update_state(trainer.model_dir)
    progress = hooks.ProgressHook(
      self.evaluator.metrics_log,
      step,
      self.num_train_steps,
      trainer.train_batch_size,
      trainer.log_freq,
      self._utilization(),
    )
    try:
      self._train_from(step, progress)
    except (tf.errors.OpError, OSError, ValueError) as error:
      self._explain(error)
      raise
    finally:
      progress.close()

  def _check_seed(self):
    """Raises UserError if the weights of model_dir were trained with another seed."""
    trainer = self.experiment.trainer
    path = os.path.join(trainer.model_dir, "params.yaml")
    if not (checkpoints.latest(trainer.model_dir) and tf.io.gfile.exists(path)):
      return
    stored = {}
    with contextlib.suppress(UserError):  # a damaged file is replaced
      stored = {key: value for key, value, _ in params.read_file(path)}
    if stored.get("trainer.seed", trainer.seed) != trainer.seed:
      raise UserError(
        f"{trainer.model_dir}: the run in this folder has --seed={stored['trainer.seed']}; "
        f"continue it with that seed, or choose another --model_dir for --seed={trainer.seed}"
      )

  def _train_from(self, step, progress):
    """Calls the estimator up to each evaluation, and again after each reload."""
    trainer = self.experiment.trainer
    model_fn = ModelFn(
      self.experiment,
      self.task,
      self.model_config,
      self.devices,
      self.num_train_steps,
      self.num_warmup_steps,
    )
    trained = estimator.build_estimator(self.experiment, self.devices, model_fn, self.save_steps)
    recoveries = recovery.Recoveries(trainer, self.evaluator.metrics_log)
    run_hooks = [
      *([hooks.StartHook(self._write_model_files)] if self.devices.is_chief else ()),
      progress,
      recovery.FiniteHook(trainer, progress.step),
      saving.SaveHook(
        trained.model_dir, trainer, self.save_steps, self.num_train_steps, self.devices.is_chief
      ),
    ]
    every = trainer.eval_every_steps or self.num_train_steps
    while step < self.num_train_steps and not self.evaluator.stops_early():
      target = min(self.num_train_steps, (step // every + 1) * every)
      try:
        with record_faults.explained(self.source):
          input_fn = self._input_fn(recoveries.seed, step)
          estimator.train(trained, self.devices, input_fn, run_hooks, target)
      except recovery.NotFiniteError as error:
        step = self._start_step()
        recoveries.reload(error, step)
        continue
      finally:
        console.defer_signals(False)
      step = target
      if not self.devices.is_chief:
        self._wait_for_checkpoint(step)
      elif trainer.eval_every_steps and (newest := checkpoints.latest(trainer.model_dir)):
        self.evaluator.evaluate(newest, is_training=True)

  def _wait_for_checkpoint(self, step):
    """Waits, on another host than the chief, until the chief has saved a step."""
    model_dir = self.experiment.trainer.model_dir

    def find():
      newest = checkpoints.latest(model_dir)
      return newest is not None and checkpoints.step_of(newest) >= step

    cluster.wait_for(find, f"checkpoint of step {step} in {model_dir}")

  def _explain(self, error):
    """Raises UserError if model_dir or its newest checkpoint is the cause of an error."""
    model_dir = self.experiment.trainer.model_dir
    if not tf.io.gfile.isdir(model_dir):
      raise UserError(
        f"{model_dir}: this folder was deleted or moved during training; the weights since its "
        f"last checkpoint are lost. The same command starts again"
      ) from error
    if newest := checkpoints.latest(model_dir):
      checkpoints.check_data(newest)

  def _input_fn(self, seed, step):
    return inputs.train_input_fn(
      self.source,
      self.experiment.trainer.train_batch_size,
      seed,
      step,
      self.devices.num_replicas,
      self.devices.is_tpu,
      self.devices.cluster.index if self.devices.cluster else 0,
      len(self.devices.cluster.addresses) if self.devices.cluster else 1,
    )

  def _log_plan(self, step):
    log.info(
      "Train on %d examples, batch %d, steps %d to %d (%.1f epochs), warm-up %d steps",
      self.source.num_examples,
      self.experiment.trainer.train_batch_size,
      step,
      self.num_train_steps,
      self.num_train_steps / self.steps_per_epoch,
      self.num_warmup_steps,
    )
    if self.num_warmup_steps >= self.num_train_steps:
      log.warning(
        "The warm-up of %d steps is as long as the training: the learning rate will not "
        "reach --learning_rate; lower --warmup_steps",
        self.num_warmup_steps,
      )

  def _utilization(self):
    """Function for hooks.ProgressHook; None if the device's peak is not known."""
    peak = devices.peak_flops(self.devices, precision.of(self.experiment.runtime))
    if peak is None:
      return None
    log.info("Peak of the device: %.0f GFLOP/s", peak / 1e9)
    count = self.task.sequences_per_example

    def share(tokens_per_example, examples_per_second):
      length = max(round(tokens_per_example / count), 1)
      forward = count * flops.encoder_flops(self.model_config, length)
      return 3 * forward * examples_per_second / peak

    return share

  def _start_step(self):
    """Step of the checkpoint that training continues from; 0 for a new run."""
    newest = checkpoints.latest(self.experiment.trainer.model_dir)
    if newest is None:
      model = self.experiment.model
      if model.init_global_vars:
        if model.start_checkpoint is None:
          raise UserError("--init_global_vars takes them from --init_checkpoint, which is missing")
        step = int(checkpoints.open_reader(model.init_checkpoint).get_tensor("global_step"))
        if step >= self.num_train_steps:
          raise UserError(
            f"{model.init_checkpoint} is at step {step}: with --init_global_vars "
            f"training goes on from there, and --train_steps={self.num_train_steps} is "
            f"already reached; raise it"
          )
        return step
      return 0
    step = checkpoints.step_of(newest)
    log.info(
      "Continue from %s (--init_checkpoint is used only while model_dir has no checkpoint)%s",
      newest,
      "; it is already at the last step, nothing to train" if step >= self.num_train_steps else "",
    )
    return step
