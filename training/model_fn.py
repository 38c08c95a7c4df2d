"""Model function of an estimator: builds the graph of a task's training or prediction."""

import functools

import tensorflow as tf

import config
import modeling
import optimization
from models import layers
from tasks.base import Task, TaskOutput
from training import accumulation, checkpoints, inputs, losses, precision, tf_compat
from training.devices import Devices

v1 = tf.compat.v1

MONITORS = "monitors"  # graph collection of (name, scalar) pairs for hooks to show and log
SUM = "sum/"  # prefix of the names of TaskOutput.sums among a batch's scalars


def build_optimizer(
  settings: config.Optimizer,
  num_train_steps: int,
  num_warmup_steps: int,
  names: list[str],
  loss_scale: optimization.LossScale | None = None,
  skip_nonfinite: bool = False,
) -> tuple[optimization.AdamW, tf.Tensor]:
  """Builds AdamW.

  Args:
    settings: settings of the optimizer.
    num_train_steps: updates of the whole training.
    num_warmup_steps: updates with a rising learning rate.
    names: names of the variables, for layer-wise learning rates.
    loss_scale: factor of the loss in float16, or None. Updates that are not finite are skipped.
    skip_nonfinite: do not apply an update whose gradient is not finite.

  Returns:
    The optimizer and its learning rate, a float32 scalar.
  """
  learning_rate = optimization.learning_rate_schedule(
    v1.train.get_or_create_global_step(),
    settings.learning_rate,
    num_train_steps,
    num_warmup_steps,
    settings.decay_method,
    min_lr_ratio=settings.min_lr_ratio,
    warmup_style=settings.warmup_style,
  )
  # The release of ELECTRA counts two steps between the heads and the top layer.
  is_electra = any(name.startswith("electra/") for name in names)
  multipliers = optimization.layerwise_lr_multipliers(
    names, settings.lr_layer_decay_rate, head_gap=2 if is_electra else 0
  )
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
    loss_scale=loss_scale,
    skip_nonfinite=skip_nonfinite,
  )
  return optimizer, learning_rate


class ModelFn:
  """model_fn of a task: (features, labels, mode, params) -> EstimatorSpec or TPUEstimatorSpec.

  Labels are features. Predictions include each example's losses, their weights and the scalar
  features, so that the host can compute all metrics.

  Each call builds one graph, or one replica's part of a graph under MirroredStrategy, whose calls
  overlap. So the object stores only settings; variables and optimizers belong to a call.
  """

  def __init__(
    self,
    experiment: config.Experiment,
    task: Task,
    model_config,
    devices: Devices,
    num_train_steps: int = 0,
    num_warmup_steps: int = 0,
    checkpoint: str | None = None,
  ):
    """Stores the settings.

    Args:
      experiment: settings of the model, optimizer, training and runtime.
      task: builds the head and defines the features.
      model_config: configuration of the encoder.
      devices: devices of the run.
      num_train_steps: updates of the whole training; 0 for prediction.
      num_warmup_steps: updates with a rising learning rate.
      checkpoint: checkpoint to predict with, checked as soon as the variables exist. Training
        checks the newest checkpoint of model_dir instead.
    """
    self._experiment = experiment
    self._task = task
    self._model_config = model_config
    self._devices = devices
    self._num_train_steps = num_train_steps
    self._num_warmup_steps = num_warmup_steps
    self._checkpoint = checkpoint
    self._skips = (
      experiment.trainer.nan_policy == "skip" or precision.of(experiment.runtime) == "fp16"
    )
    self._library = tf_compat.load()

  def __call__(self, features, labels, mode, params):
    """Builds the model for a batch, with an update if mode is ModeKeys.TRAIN."""
    del labels, params
    if mode == self._library.ModeKeys.TRAIN:
      spec = self._train(features)
    else:
      spec = self._predict(features, mode)
    return spec if self._devices.strategy is None else spec.as_estimator_spec()

  def _build(self, part, is_training):
    """Builds encoder and head on a batch, or on a part of it; returns the TaskOutput."""
    cluster = self._devices.cluster
    number = part[inputs.ROW][0] if inputs.ROW in part else cluster and cluster.index
    with layers.replica(number):
      encoder = modeling.build_encoder(
        self._model_config,
        part,
        is_training,
        self._devices.is_tpu,
        compute_dtype=precision.DTYPES[precision.of(self._experiment.runtime)],
        recompute_activations=self._experiment.runtime.recompute_activations,
      )
      return self._task.build(encoder, part)

  def _predict(self, features, mode):
    output = self._build(features, is_training=False)
    if self._checkpoint:
      checkpoints.check(self._checkpoint)
    return self._library.TPUEstimatorSpec(
      mode,
      predictions=_predictions(self._task, output, features),
      scaffold_fn=_weights_only_scaffold,
    )

  @tf.autograph.experimental.do_not_convert  # TensorFlow 2.15 would, on several hosts
  def _train(self, features):
    restored = checkpoints.latest(self._experiment.trainer.model_dir)
    runtime = self._experiment.runtime
    loss_scale = None
    if precision.of(runtime) == "fp16":
      loss_scale = optimization.LossScale(precision.fixed_loss_scale(runtime))
    # Built once per call, in the first micro-batch: the optimizer needs the names of the variables.
    optimizers = functools.cache(lambda: self._optimizers(restored, loss_scale))

    def compute(part):
      scalars = _training_scalars(self._build(part, is_training=True), part)
      _, wrapped, _ = optimizers()
      loss = scalars["loss"] * loss_scale.value if loss_scale else scalars["loss"]
      return scalars, wrapped.compute_gradients(loss)

    scalars, gradients = accumulation.accumulate(
      compute, features, self._experiment.trainer.gradient_accumulation_steps
    )
    loss = scalars["loss"] if self._skips else scalars.pop("loss")
    optimizer, wrapped, learning_rate = optimizers()
    train_op = wrapped.apply_gradients(gradients, v1.train.get_global_step())
    if not self._devices.is_tpu:
      _add_monitors(self._task, scalars, optimizer, loss_scale, learning_rate)
    if self._skips:  # Estimator ends at a NaN loss; the monitors have the loss itself
      loss = tf.where(tf.math.is_nan(loss), 0.0, loss)
    return self._library.TPUEstimatorSpec(
      self._library.ModeKeys.TRAIN,
      loss=loss,
      train_op=train_op,
      scaffold_fn=None if restored else self._initialize(),
    )

  def _optimizers(self, restored, loss_scale):
    """Returns AdamW, its wrapper for TPUs (AdamW itself otherwise) and the learning rate.

    First checks the checkpoint `restored`, if any, against the variables.
    """
    if restored:
      checkpoints.check(restored, [] if loss_scale is None else loss_scale.variables)
    optimizer, learning_rate = build_optimizer(
      self._experiment.optimizer,
      self._num_train_steps,
      self._num_warmup_steps,
      [optimization.variable_name(variable) for variable in v1.trainable_variables()],
      loss_scale,
      self._skips,
    )
    wrapped = v1.tpu.CrossShardOptimizer(optimizer) if self._devices.is_tpu else optimizer
    return optimizer, wrapped, learning_rate

  def _initialize(self):
    """Initializes from --init_checkpoint: immediately, or on a TPU in the returned scaffold_fn."""

    def scaffold():
      checkpoints.initialize(self._experiment.model)
      return v1.train.Scaffold()

    if self._devices.is_tpu:  # the checkpoint must be read outside of the replicated computation
      return scaffold
    checkpoints.initialize(self._experiment.model)
    return None


def _training_scalars(output: TaskOutput, features) -> dict[str, tf.Tensor]:
  """Scalars of a batch, or of a part of it: loss, its kinds if there are several, sums, tokens."""
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
  optimizer: optimization.AdamW,
  loss_scale: optimization.LossScale | None,
  learning_rate: tf.Tensor,
) -> None:
  """Adds the scalars of the whole batch, over all replicas, to the monitors of the graph."""
  scalars = tf.distribute.get_replica_context().merge_call(_replica_means, args=(scalars,))
  if optimizer.gradient_norm is None:  # all replicas except the first
    return
  sums = {name.removeprefix(SUM): value for name, value in scalars.items() if name.startswith(SUM)}
  others = {name: value for name, value in scalars.items() if not name.startswith(SUM)}
  values = {
    "learning_rate": learning_rate,
    "gradient_norm": optimizer.gradient_norm,
    **others,
    **task.monitors(sums),
  }
  if loss_scale is not None:
    values["loss_scale"] = loss_scale.value
  if optimizer.skipped_updates is not None:
    values["skipped_updates"] = optimizer.skipped_updates
  for name, value in values.items():
    v1.add_to_collection(MONITORS, (name, value))


def _predictions(task: Task, output: TaskOutput, features) -> dict[str, tf.Tensor]:
  """Returns the outputs of prediction: predictions, losses, weights and scalar features."""
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
  """Returns a scaffold that restores only weights, so that a stripped checkpoint can be used."""
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
