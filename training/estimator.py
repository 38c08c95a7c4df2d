"""One way to build an estimator, on every TensorFlow from 2.15 on and on every kind of device.

TensorFlow 2.16 removed tf.estimator. The package tensorflow-estimator 2.15.0 still holds the real
TPUEstimator, and runs on newer TensorFlow once a few names that it imports exist again; `load`
sees to that. Only TPU runs call what the stand-ins stand for, so TPUs need TensorFlow 2.15.
This is the only module that knows how the TensorFlow versions differ.
"""

import dataclasses
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import tensorflow as tf

import config
import modeling
import optimization
from errors import UserError
from models import layers
from tasks.base import Task, TaskOutput
from training import accumulation, checkpoints, inputs, losses
from utils import paths

log = logging.getLogger(__name__)
v1 = tf.compat.v1

# ---- The estimator library ----------------------------------------------------------------------

_REMOVED_MODULES = (
  "tensorflow.python.tpu.session_support",
  "tensorflow.python.tpu.tpu_embedding",
  "tensorflow.python.tpu.tpu_embedding_gradient",
  "tensorflow.python.distribute.estimator_training",
)


class _EmptyModule(types.ModuleType):
  """A module in which every name is an empty class."""

  def __getattr__(self, name):
    if name.startswith("__"):
      raise AttributeError(name)
    return type(name, (), {})


class _RemovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finds an empty module for each name that newer TensorFlow no longer has."""

  def find_spec(self, fullname, path=None, target=None):
    if fullname in _REMOVED_MODULES:
      return importlib.machinery.ModuleSpec(fullname, self)
    return None

  def create_module(self, spec):
    return _EmptyModule(spec.name)

  def exec_module(self, module):
    pass


def _init_run_config(run_config, tf_config):
  # What the removed function did for a run without a distribute coordinator.
  run_config._distribute_coordinator_mode = None
  run_config._init_distributed_setting_from_environment_var(tf_config)
  run_config._maybe_overwrite_session_config_for_distributed_training()


def _restore_removed_names():
  """Makes tensorflow_estimator 2.15 importable on TensorFlow 2.16 and newer."""
  # Keras 3 has no optimizers and layers of the kind the library looks up; tf-keras has.
  os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
  from tensorflow.python.util import tf_export

  tf_export.ESTIMATOR_API_NAME = "estimator"
  sys.meta_path.append(_RemovedModules())
  # The package's own __init__ imports canned estimators that need Keras 2; we need none of them.
  spec = importlib.machinery.PathFinder.find_spec("tensorflow_estimator")
  package = types.ModuleType("tensorflow_estimator")
  package.__path__ = list(spec.submodule_search_locations)
  sys.modules["tensorflow_estimator"] = package
  export = types.ModuleType("tensorflow_estimator.python.estimator.estimator_export")
  export.estimator_export = lambda *names, **kwargs: lambda symbol: symbol
  sys.modules[export.__name__] = export
  from tensorflow.python.distribute import estimator_training

  estimator_training.init_run_config = _init_run_config
  estimator_training.should_run_distribute_coordinator = lambda run_config: False


@functools.cache
def load() -> types.SimpleNamespace:
  """The estimator library: Estimator, RunConfig, ModeKeys, TPUEstimator and its companions.

  Raises:
    UserError: tensorflow-estimator or tf-keras is not installed.
  """
  for package, name in (
    ("tensorflow_estimator", "tensorflow-estimator==2.15.0"),
    ("tf_keras", "tf-keras"),
  ):
    needed = package == "tensorflow_estimator" or not hasattr(v1, "estimator")
    if needed and not importlib.util.find_spec(package):
      raise UserError(
        f"the package {name} is missing; run bash scripts/setup.sh, or pip install --no-deps {name}"
      )
  if not hasattr(v1, "estimator"):
    _restore_removed_names()
  from tensorflow_estimator.python.estimator import estimator, model_fn, run_config
  from tensorflow_estimator.python.estimator.tpu import tpu_config, tpu_estimator

  # Hundreds of lines about graphs and sessions; what a user needs to know the runner says itself.
  logging.getLogger("tensorflow").setLevel(logging.ERROR)
  return types.SimpleNamespace(
    Estimator=estimator.Estimator,
    RunConfig=run_config.RunConfig,
    ModeKeys=model_fn.ModeKeys,
    TPUEstimator=tpu_estimator.TPUEstimator,
    TPUEstimatorSpec=tpu_estimator.TPUEstimatorSpec,
    TPURunConfig=tpu_config.RunConfig,
    TPUConfig=tpu_config.TPUConfig,
    InputPipelineConfig=tpu_config.InputPipelineConfig,
  )


# ---- Devices ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Devices:
  """What a run computes on.

  Attributes:
    description: for the log.
    num_replicas: devices that share each training batch under MirroredStrategy; 1 otherwise.
    strategy: MirroredStrategy, or None for one device or a TPU.
    resolver: TPUClusterResolver, or None.
  """

  description: str
  num_replicas: int = 1
  strategy: Any = None
  resolver: Any = None

  @property
  def is_tpu(self) -> bool:
    return self.resolver is not None


def find_devices(
  runtime: config.Runtime, train_batch_size: int, accumulation_steps: int = 1
) -> Devices:
  """The devices of this machine that the flags ask for.

  Each gets its share of the training batch in `accumulation_steps` micro-batches.

  Raises:
    UserError: no TPU or too few GPUs, or a batch that cannot be dealt out evenly.
  """
  if runtime.num_hosts != 1:
    raise UserError(
      f"--num_hosts={runtime.num_hosts}: training on several hosts is not supported, "
      f"use --num_hosts=1"
    )
  parts = accumulation_steps * (runtime.num_core_per_host or 1)
  if accumulation_steps > 1 and train_batch_size % parts:
    raise UserError(
      f"--train_batch_size={train_batch_size} is the batch of one update and does "
      f"not divide by --gradient_accumulation_steps={accumulation_steps}"
      + (f" times {runtime.num_core_per_host} devices" if runtime.num_core_per_host > 1 else "")
    )
  if runtime.use_tpu:
    return Devices(f"TPU {runtime.tpu}", resolver=_resolve_tpu(runtime))
  gpus = [
    device.name.replace("/physical_device:", "/")
    for device in tf.config.list_physical_devices("GPU")
  ]
  wanted = runtime.num_core_per_host
  if gpus and wanted > len(gpus):
    raise UserError(
      f"--num_core_per_host={wanted}, but this machine has {len(gpus)} GPUs; "
      f"lower it, or leave it out to use all"
    )
  if not wanted:
    wanted = num_even_devices(len(gpus or [0]), train_batch_size, accumulation_steps)
  if train_batch_size % wanted:
    raise UserError(
      f"--train_batch_size={train_batch_size} is the batch of all devices together "
      f"and does not divide by {wanted} of them"
    )
  kind = "GPU" if gpus else "CPU"
  if wanted == 1:
    return Devices(kind)
  if gpus:
    return Devices(f"{wanted} x GPU", wanted, tf.distribute.MirroredStrategy(gpus[:wanted]))
  # The default all-reduce hangs on virtual CPU devices.
  return Devices(
    f"{wanted} x virtual CPU",
    wanted,
    tf.distribute.MirroredStrategy(_virtual_cpus(wanted), tf.distribute.ReductionToOneDevice()),
  )


def num_even_devices(num_gpus: int, train_batch_size: int, accumulation_steps: int = 1) -> int:
  """Largest number of GPUs that share a batch evenly; logs a warning if it is not all of them."""
  used = max(n for n in range(1, num_gpus + 1) if train_batch_size % (n * accumulation_steps) == 0)
  if used < num_gpus:
    unit = num_gpus * accumulation_steps
    below = train_batch_size // unit * unit
    sizes = f"{below} or {below + unit}" if below else f"{unit}"
    parts = f" times {accumulation_steps} micro-batches" if accumulation_steps > 1 else ""
    log.warning(
      "Only %d of the %d GPUs are used: --train_batch_size=%d does not divide by %d%s; "
      "%s would use all",
      used,
      num_gpus,
      train_batch_size,
      num_gpus,
      parts,
      sizes,
    )
  return used


def _resolve_tpu(runtime):
  if not hasattr(v1, "estimator"):
    raise UserError(
      f"--use_tpu=True needs TensorFlow 2.15, this is {tf.__version__}: make an "
      f"environment with TENSORFLOW=2.15.1 VENV=.venv-tpu bash scripts/setup.sh, "
      f"or leave --use_tpu out to run on CPU or GPU"
    )
  try:
    return tf.distribute.cluster_resolver.TPUClusterResolver(
      runtime.tpu or None, zone=runtime.tpu_zone or None, project=runtime.gcp_project or None
    )
  except Exception as error:  # from missing libraries to network errors, all mean the same
    raise UserError(
      f"--use_tpu=True, but no TPU was found ({error}). Name one with --tpu, "
      f"or leave --use_tpu out to run on CPU or GPU"
    ) from None


def _virtual_cpus(count):
  cpu = tf.config.list_physical_devices("CPU")[0]
  if len(tf.config.get_logical_device_configuration(cpu) or [None]) != count:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
  return [f"/cpu:{index}" for index in range(count)]


# ---- Model function and estimator ---------------------------------------------------------------

MONITORS = "monitors"  # graph collection of (name, scalar) that hooks show and log
SUM = "sum/"  # prefix of TaskOutput.sums among the scalars of a batch


def build_optimizer(
  settings: config.Optimizer, num_train_steps: int, num_warmup_steps: int, names: list[str]
) -> tuple[optimization.AdamW, tf.Tensor]:
  """AdamW and its learning rate for the variables of the given names."""
  learning_rate = optimization.learning_rate_schedule(
    v1.train.get_or_create_global_step(),
    settings.learning_rate,
    num_train_steps,
    num_warmup_steps,
    settings.decay_method,
    min_lr_ratio=settings.min_lr_ratio,
    warmup_style=settings.warmup_style,
  )
  multipliers = optimization.layerwise_lr_multipliers(names, settings.lr_layer_decay_rate)
  optimizer = optimization.AdamW(
    learning_rate,
    settings.weight_decay,
    settings.adam_beta1,
    settings.adam_beta2,
    settings.adam_epsilon,
    settings.clip,
    settings.adam_correction,
    optimization.NO_WEIGHT_DECAY if settings.use_wd_exclusion else (),
    optimization.FUNNEL_WEIGHT_DECAY,
    multipliers.get,
  )
  return optimizer, learning_rate


def build_model_fn(
  experiment: config.Experiment,
  task: Task,
  model_config,
  devices: Devices,
  num_train_steps: int = 0,
  num_warmup_steps: int = 0,
  checkpoint: str | None = None,
) -> Callable:
  """model_fn of a task: (features, labels, mode, params) -> EstimatorSpec or TPUEstimatorSpec.

  Labels are among the features. A prediction holds the task's predictions, each example's losses
  and their weights, and the scalar features, so that everything is scored on the host. What the
  variables will be restored from is checked as soon as they exist: model_dir's newest checkpoint in
  training, `checkpoint` in prediction.
  """
  library = load()
  use_tpu = devices.is_tpu

  def model_fn(features, labels, mode, params):
    del labels, params
    is_training = mode == library.ModeKeys.TRAIN
    restored = checkpoints.latest(experiment.trainer.model_dir) if is_training else checkpoint

    def build(part):  # encoder and head on the batch, or on a part of it
      with layers.replica(part[inputs.ROW][0] if inputs.ROW in part else None):
        return task.build(
          modeling.build_encoder(
            model_config, part, is_training, use_tpu, experiment.runtime.use_bfloat16
          ),
          part,
        )

    if not is_training:
      output = build(features)
      if restored:
        checkpoints.check(restored)
      spec = library.TPUEstimatorSpec(
        mode, predictions=_predictions(task, output, features), scaffold_fn=_weights_only_scaffold
      )
      return spec if use_tpu or devices.strategy is None else spec.as_estimator_spec()

    @functools.cache
    def optimizers():  # made once, when the variables are there
      if restored:
        checkpoints.check(restored)
      optimizer, learning_rate = build_optimizer(
        experiment.optimizer,
        num_train_steps,
        num_warmup_steps,
        [optimization.variable_name(variable) for variable in v1.trainable_variables()],
      )
      wrapped = v1.tpu.CrossShardOptimizer(optimizer) if use_tpu else optimizer
      return optimizer, wrapped, learning_rate

    def compute(part):
      scalars = _training_scalars(build(part), part)
      return scalars, optimizers()[1].compute_gradients(scalars["loss"])

    scalars, gradients = accumulation.accumulate(
      compute, features, experiment.trainer.gradient_accumulation_steps
    )
    loss = scalars.pop("loss")
    optimizer, wrapped, learning_rate = optimizers()
    train_op = wrapped.apply_gradients(gradients, v1.train.get_global_step())
    if not use_tpu:
      _add_monitors(task, scalars, optimizer.gradient_norm, learning_rate)
    scaffold_fn = None
    if not restored:
      initialize = lambda: checkpoints.initialize(experiment.model)
      if use_tpu:  # reading the checkpoint must stay out of the replicated computation
        scaffold_fn = lambda: (initialize(), v1.train.Scaffold())[1]
      else:
        initialize()
    spec = library.TPUEstimatorSpec(mode, loss=loss, train_op=train_op, scaffold_fn=scaffold_fn)
    return spec if devices.strategy is None else spec.as_estimator_spec()

  return model_fn


def _training_scalars(output: TaskOutput, features) -> dict[str, tf.Tensor]:
  """Loss of a batch, or of a part of it, its kinds if there are several, and the sums."""
  parts = losses.batch_losses(output.losses, features)
  kinds = {f"loss_{name}": value for name, value in parts.items()} if len(parts) > 1 else {}
  sums = {SUM + name: value for name, value in output.sums.items()}
  mask = features["input_mask"]
  tokens_per_example = tf.reduce_sum(mask) / tf.shape(mask)[0]  # true division
  return {
    "loss": tf.add_n(list(parts.values())),
    **sums,
    **kinds,
    "tokens_per_example": tf.cast(tokens_per_example, tf.float32),
  }


def _replica_means(strategy, scalars):
  return {
    name: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None)
    for name, value in scalars.items()
  }


def _add_monitors(
  task: Task,
  scalars: dict[str, tf.Tensor],
  gradient_norm: tf.Tensor | None,
  learning_rate: tf.Tensor,
) -> None:
  """Adds the scalars of the whole batch, over all replicas, to those that training logs."""
  scalars = tf.distribute.get_replica_context().merge_call(_replica_means, args=(scalars,))
  if gradient_norm is None:  # in all replicas but the first
    return
  sums = {name.removeprefix(SUM): value for name, value in scalars.items() if name.startswith(SUM)}
  others = {name: value for name, value in scalars.items() if not name.startswith(SUM)}
  values = {
    "learning_rate": learning_rate,
    "gradient_norm": gradient_norm,
    **others,
    **task.monitors(sums),
  }
  for name, value in values.items():
    v1.add_to_collection(MONITORS, (name, value))


def _predictions(task: Task, output: TaskOutput, features) -> dict[str, tf.Tensor]:
  """What the host needs of a batch to score it: predictions, losses and scalar features."""
  scalars = {
    spec.name: features[spec.name]
    for spec in task.feature_specs
    if not spec.is_sequence and spec.length is None
  }
  return {
    **output.predictions,
    **scalars,
    "example_index": features["example_index"],
    "is_real_example": features["is_real_example"],
    **losses.example_losses(output.losses, task.loss_weights(features)),
  }


def _weights_only_scaffold():
  """Restores the model's weights and nothing else, so that a slim checkpoint serves too."""
  weights = v1.trainable_variables()
  return v1.train.Scaffold(
    saver=v1.train.Saver(weights),
    ready_for_local_init_op=v1.report_uninitialized_variables(weights),
    local_init_op=tf.group(
      v1.train.get_or_create_global_step().initializer,
      v1.local_variables_initializer(),
      v1.tables_initializer(),
    ),
  )


def build_estimator(
  experiment: config.Experiment,
  devices: Devices,
  model_fn: Callable,
  save_steps: int = 1,
  predict_batch_size: int = 1,
):
  """TPUEstimator for a TPU, one GPU or a CPU; Estimator under MirroredStrategy for several GPUs."""
  library = load()
  trainer, runtime = experiment.trainer, experiment.runtime
  session_config = v1.ConfigProto(allow_soft_placement=True)
  session_config.gpu_options.allow_growth = True
  settings = dict(
    model_dir=paths.without_wildcards(trainer.model_dir),
    tf_random_seed=trainer.seed,
    save_summary_steps=0,  # hooks.ProgressHook writes them
    save_checkpoints_steps=save_steps,
    save_checkpoints_secs=None,
    log_step_count_steps=None,
    keep_checkpoint_max=trainer.max_save or None,
  )
  if devices.strategy is not None:
    run_config = library.RunConfig(
      session_config=session_config, train_distribute=devices.strategy, **settings
    )
    return library.Estimator(model_fn, config=run_config, params={})
  run_config = library.TPURunConfig(
    session_config=None if devices.is_tpu else session_config,
    cluster=devices.resolver,
    tpu_config=library.TPUConfig(
      iterations_per_loop=min(runtime.iterations, save_steps) if devices.is_tpu else 1,
      per_host_input_for_training=library.InputPipelineConfig.PER_HOST_V1,
    ),
    **settings,
  )
  return library.TPUEstimator(
    model_fn,
    config=run_config,
    use_tpu=devices.is_tpu,
    train_batch_size=trainer.train_batch_size,
    predict_batch_size=predict_batch_size,
  )
