"""AdamW with the learning-rate schedules of BERT, ELECTRA and Funnel-Transformer.

  learning_rate = optimization.learning_rate_schedule(step, init_lr=5e-5, num_train_steps=1000,
                                                      num_warmup_steps=100)
  optimizer = optimization.AdamW(learning_rate, weight_decay_rate=0.01,
                                 exclude_from_weight_decay=optimization.NO_WEIGHT_DECAY)
  train_op = optimizer.minimize(loss, global_step=v1.train.get_or_create_global_step())

The same optimizer runs on all devices. Under tf.distribute it averages the gradients of the
replicas and clips the average; CrossShardOptimizer (TPU) passes it the average. The update of a
global batch therefore does not depend on the number of devices.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

v1 = tf.compat.v1

# Variable names left out of weight decay (regular expressions), as in BERT, ELECTRA and Funnel.
NO_WEIGHT_DECAY = ("LayerNorm", "layer_norm", "bias")
# Funnel's attention biases match "bias" above, but are decayed.
FUNNEL_WEIGHT_DECAY = ("r_s_bias", "r_r_bias", "r_w_bias")

DECAY_METHODS = ("poly", "cos", "constant")
WARMUP_STYLES = ("then_decay", "replaces_decay", "scales_decay")


def learning_rate_schedule(
  step: tf.Tensor,
  init_lr: float,
  num_train_steps: int,
  num_warmup_steps: int = 0,
  decay_method: str = "poly",
  power: float = 1.0,
  min_lr_ratio: float = 0.0,
  warmup_style: str = "replaces_decay",
) -> tf.Tensor:
  """Learning rate at `step`.

  Args:
    step: int scalar, number of updates made before; 0 for the first update.
    init_lr: peak learning rate.
    num_train_steps: step at which the decay ends.
    num_warmup_steps: length of the linear warm-up from 0; the rate at step 0 is then 0.
    decay_method: "poly" (power 1 is linear), "cos" or "constant".
    power: exponent of "poly".
    min_lr_ratio: floor of the decay (and start of Funnel's warm-up) as a fraction of init_lr.
    warmup_style: combination of warm-up and decay, e.g. 10 warm-up steps of 100, linear decay:
      "then_decay" (Funnel): the decay starts when the warm-up ends; step 10 has 1.0 * init_lr.
      "replaces_decay" (BERT): the decay starts at step 0, hidden by the warm-up; step 10 has 0.9.
      "scales_decay" (ELECTRA): the product of both; step 5 has 0.5 * 0.95.

  Returns:
    float32 scalar.

  Raises:
    ValueError: decay_method or warmup_style is unknown.
  """
  if decay_method not in DECAY_METHODS:
    raise ValueError(f"decay_method {decay_method!r} is not one of {', '.join(DECAY_METHODS)}")
  if warmup_style not in WARMUP_STYLES:
    raise ValueError(f"warmup_style {warmup_style!r} is not one of {', '.join(WARMUP_STYLES)}")
  step = tf.cast(step, tf.float32)
  decay_start = num_warmup_steps if warmup_style == "then_decay" else 0
  decay_steps = max(num_train_steps - decay_start, 1)
  progress = tf.clip_by_value((step - decay_start) / decay_steps, 0.0, 1.0)
  if decay_method == "poly":
    factor = (1.0 - min_lr_ratio) * tf.pow(1.0 - progress, power) + min_lr_ratio
  elif decay_method == "cos":
    factor = (1.0 - min_lr_ratio) * 0.5 * (1.0 + tf.cos(math.pi * progress)) + min_lr_ratio
  else:
    factor = tf.ones([])
  if num_warmup_steps:
    warmup = step / num_warmup_steps
    if warmup_style == "scales_decay":
      factor *= tf.minimum(warmup, 1.0)
    else:
      start = min_lr_ratio if warmup_style == "then_decay" else 0.0
      factor = tf.where(step < num_warmup_steps, start + (1.0 - start) * warmup, factor)
  return init_lr * factor


def layerwise_lr_multipliers(
  names: Iterable[str], decay: float, head_gap: int = 0
) -> dict[str, float]:
  """Learning-rate factor of each variable: `decay` to the power of its distance from the top.

  With n layers, the top layer has factor 1, the layer below it `decay`, ..., the embeddings
  decay ** n; pooler and heads have 1. Names of BERT, ELECTRA and Funnel are supported (the layers
  of a Funnel decoder are numbered after the encoder's). ELECTRA has `head_gap` = 2 additional steps
  between the heads and the top layer.

  Example: with decay 0.75 and 2 layers, the embeddings have 0.5625, layer_0 0.75, layer_1 1.0.
  """
  names = list(names)
  layer_of = {name: re.search(r"/layer_(\d+)/", name) for name in names}
  num_layers = max((int(match[1]) + 1 for match in layer_of.values() if match), default=0)

  def multiplier(name):
    match = layer_of[name]
    if match:
      return decay ** (num_layers - 1 - int(match[1]) + head_gap)
    if re.search(r"(^|/)(embeddings(_project)?|input|input_projection)/", name):
      return decay ** (num_layers + head_gap)
    return 1.0

  return {name: multiplier(name) for name in names}


def variable_name(variable: tf.Variable) -> str:
  """Name of a variable without the ":0" of its tensor and without the suffix of a replica."""
  return re.sub(r"(/replica_\d+)?:\d+$", "", variable.name)


def create_optimizer(
  loss: tf.Tensor, init_lr: float, num_train_steps: int, num_warmup_steps: int | None, use_tpu: bool
) -> tf.Operation:
  """Training operation with BERT's optimizer, for programs built on google-research/bert.

  AdamW with weight decay 0.01 (except biases and layer norms), gradients clipped to global norm
  1.0, linear warm-up, and linear decay to 0. Each update increments the global step.

  Args:
    loss: scalar.
    init_lr: peak learning rate.
    num_train_steps: step at which the decay ends.
    num_warmup_steps: length of the warm-up; 0 or None for none.
    use_tpu: average the gradients of the TPU's cores.
  """
  step = v1.train.get_or_create_global_step()
  optimizer = AdamW(
    learning_rate_schedule(step, init_lr, num_train_steps, num_warmup_steps or 0),
    weight_decay_rate=0.01,
    exclude_from_weight_decay=NO_WEIGHT_DECAY,
  )
  if use_tpu:
    optimizer = v1.tpu.CrossShardOptimizer(optimizer)
  return optimizer.minimize(loss, global_step=step)


class LossScale:
  """Factor of the loss in float16, without which small gradients would be rounded to 0.

  A dynamic factor starts at 2^15. It doubles after 2000 finite updates in a row, and is halved (to
  at least 1) by an update whose gradient is not finite. Source: Micikevicius et al. 2018,
  arXiv:1710.03740. Checkpoints have its variables, loss_scale and loss_scale_good_updates.
  """

  def __init__(self, fixed: float = 0.0, initial: float = 2.0**15, growth_updates: int = 2000):
    """Creates the variables.

    Args:
      fixed: a constant factor instead; 0 for a dynamic one.
      initial: first dynamic factor.
      growth_updates: finite updates in a row before the factor doubles.
    """
    self._growth_updates = growth_updates
    self.variables = ()
    if fixed:
      self.value = tf.constant(fixed, tf.float32)
    else:
      scale = _counter("loss_scale", initial, tf.float32)
      self.variables = scale, _counter("loss_scale_good_updates", 0, tf.int32)
      self.value = tf.identity(scale)  # read before the update

  def update(self, is_finite: tf.Tensor) -> list[tf.Operation]:
    """Operations that adapt a dynamic factor after an update; `is_finite` is a bool scalar."""
    if not self.variables:
      return []
    scale, good_updates = self.variables
    count = tf.where(is_finite, tf.identity(good_updates) + 1, 0)
    grows = count >= self._growth_updates
    grown = tf.where(grows, 2.0 * self.value, self.value)
    return [
      _assign(scale, tf.where(is_finite, grown, tf.maximum(0.5 * self.value, 1.0))),
      _assign(good_updates, tf.where(grows, 0, count)),
    ]


def _counter(name, value, dtype, collections=None):
  """Scalar variable, not trained, that an update changes; the same on all replicas."""
  return v1.get_variable(
    name,
    [],
    dtype,
    v1.constant_initializer(value),
    trainable=False,
    collections=collections,
    aggregation=v1.VariableAggregation.ONLY_FIRST_REPLICA,
  )


def _assign(variable, value):
  """Operation that assigns `value`, on all replicas if it is built for all of them together."""
  if tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context():
    extended = tf.distribute.get_strategy().extended
    return extended.update(variable, lambda var, new: var.assign(new), args=(value,))
  return variable.assign(value).op


class AdamW(v1.train.Optimizer):
  """Adam with decoupled weight decay (Loshchilov & Hutter 2019) and global-norm clipping.

    g     <- g * min(1, clip_norm / |all g|)
    m     <- beta_1 m + (1 - beta_1) g
    v     <- beta_2 v + (1 - beta_2) g^2
    param <- param - rate * (m / (sqrt(v) + epsilon) + weight_decay_rate * param)

  rate = learning_rate * lr_multiplier(name). bias_correction multiplies it by
  sqrt(1 - beta_2^t) / (1 - beta_1^t), t = global_step + 1. This also scales the weight decay, as in
  Funnel. BERT and ELECTRA have no bias correction. Slots are named <variable>/adam_m and
  <variable>/adam_v. global_step is incremented after all variables are updated.

  lr_multiplier scales the rate. (Funnel and XLNet scale the gradient instead, which Adam's
  normalization cancels.)

  With skip_nonfinite, an update whose gradient has an infinite or NaN element changes neither
  variables nor moments; only global_step is incremented, because the batch is used.
  """

  def __init__(
    self,
    learning_rate: float | tf.Tensor,
    weight_decay_rate: float = 0.0,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    clip_norm: float = 1.0,
    bias_correction: bool = False,
    exclude_from_weight_decay: Sequence[str] = (),
    include_in_weight_decay: Sequence[str] = (),
    lr_multiplier: Callable[[str], float] = lambda name: 1.0,
    name: str = "AdamW",
    skip_nonfinite: bool = False,
    loss_scale: LossScale | None = None,
  ):
    """Stores the settings.

    Args:
      learning_rate: float or scalar tensor.
      weight_decay_rate: strength of the decoupled weight decay.
      beta_1: decay of the first moment.
      beta_2: decay of the second moment.
      epsilon: added to sqrt(v).
      clip_norm: largest global gradient norm; 0 for no clipping.
      bias_correction: apply Adam's bias correction; apply_gradients then needs global_step.
      exclude_from_weight_decay: regular expressions, searched in variable names.
      include_in_weight_decay: the same; takes precedence over the exclusion.
      lr_multiplier: variable name -> factor of its learning rate.
      name: scope of the update operations.
      skip_nonfinite: skip updates whose gradient is not finite; `skipped_updates` counts them.
      loss_scale: factor of the loss that the gradients are of; apply_gradients divides by it and
        adapts it. Implies skip_nonfinite.
    """
    super().__init__(use_locking=False, name=name)
    self._learning_rate = learning_rate
    self._weight_decay_rate = weight_decay_rate
    self._beta_1 = beta_1
    self._beta_2 = beta_2
    self._epsilon = epsilon
    self._clip_norm = clip_norm
    self._bias_correction = bias_correction
    self._exclude = tuple(exclude_from_weight_decay)
    self._include = tuple(include_in_weight_decay)
    self._lr_multiplier = lr_multiplier
    self._loss_scale = loss_scale
    self.gradient_norm = None  # global norm before clipping, set by apply_gradients
    self.skipped_updates = None  # int32, number since the start of the session, set likewise
    self._skipped = None
    if skip_nonfinite or loss_scale is not None:
      local = [v1.GraphKeys.LOCAL_VARIABLES]
      self._skipped = _counter("skipped_updates", 0, tf.int32, local)

  def apply_gradients(self, grads_and_vars, global_step=None, name=None):
    """Clips and applies the gradients; see tf.compat.v1.train.Optimizer.apply_gradients.

    Gradients of embedding tables are made dense first. Adam updates every row at every step anyway,
    and the norm of a gather's gradient is only correct after repeated rows are summed.

    Raises:
      ValueError: no variable has a gradient, or bias_correction is set without global_step.
    """
    if self._bias_correction and global_step is None:
      raise ValueError("bias_correction needs the number of updates; pass global_step")
    grads_and_vars = [
      (tf.convert_to_tensor(grad), variable)
      for grad, variable in grads_and_vars
      if grad is not None
    ]
    if not grads_and_vars:
      raise ValueError("no variable has a gradient; check that the loss depends on the variables")
    if not tf.distribute.in_cross_replica_context() and tf.distribute.has_strategy():
      return tf.distribute.get_replica_context().merge_call(
        self._distributed_apply, args=(grads_and_vars, global_step, name)
      )
    self._prepare_update([grad for grad, _ in grads_and_vars], global_step)
    # The base class increments the step after the updates.
    update = super().apply_gradients(grads_and_vars, global_step, name)
    return tf.group(update, *self._count()) if self._is_finite is not None else update

  def _distributed_apply(self, distribution, grads_and_vars, global_step=None, name=None):
    """Sums the replicas' gradients, clips, updates; the estimator scaled losses by 1 / replicas.

    Clipping must come between the reduction and the update, to give the same result as one device
    with the same global batch. The base class has no hook there.
    """
    variables = [variable for _, variable in grads_and_vars]
    gradients = distribution.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, grads_and_vars)
    self._prepare_update(
      [distribution.experimental_local_results(grad)[0] for grad in gradients], global_step
    )
    with tf.init_scope():
      self._create_slots(variables)
    with v1.name_scope(name, self._name):
      updates = []
      for grad, variable in zip(gradients, variables, strict=True):
        updates += distribution.extended.update(
          variable, lambda var, g: self._update(var, g), args=(grad,), group=False
        )
      updates += self._count()
      if global_step is None:
        return tf.group(*updates)
      with tf.control_dependencies(updates):
        return distribution.extended.update(global_step, lambda step: step.assign_add(1))

  def _prepare_update(self, gradients, global_step):
    """Computes the clipping factor and the learning rate, which all variables share."""
    norm = tf.linalg.global_norm(gradients)
    is_finite = None if self._skipped is None else tf.math.is_finite(norm)
    self._is_finite = is_finite
    self._grad_factor = None
    if self._loss_scale is not None:
      self._grad_factor = 1.0 / self._loss_scale.value
      norm *= self._grad_factor
    self.gradient_norm = norm
    if self._clip_norm:
      # min(1, clip / norm) without a division by zero. A NaN norm makes the update NaN.
      clip = self._clip_norm / tf.maximum(norm, self._clip_norm)
      self._grad_factor = clip if self._grad_factor is None else clip * self._grad_factor
    self._rate = tf.cast(self._learning_rate, tf.float32)
    self._betas = self._beta_1, self._beta_2
    if self._bias_correction:
      t = (
        tf.cast(v1.train.get_global_step() if global_step is None else global_step, tf.float32)
        + 1.0
      )
      self._rate *= tf.sqrt(1.0 - tf.pow(self._beta_2, t)) / (1.0 - tf.pow(self._beta_1, t))
    if is_finite is not None:
      # Gradient and rate 0, and moments that do not decay: the update changes nothing.
      chosen = lambda value, skipped: tf.where(is_finite, value, skipped)
      self._rate = chosen(self._rate, 0.0)
      self._betas = tuple(chosen(beta, 1.0) for beta in self._betas)
      self._grad_factor = chosen(1.0 if self._grad_factor is None else self._grad_factor, 0.0)
      self.skipped_updates = tf.identity(self._skipped) + tf.cast(~is_finite, tf.int32)

  def _count(self):
    """Operations that count a skipped update and adapt the loss scale."""
    if self._is_finite is None:
      return []
    count = _assign(self._skipped, self.skipped_updates)
    return [count, *(self._loss_scale.update(self._is_finite) if self._loss_scale else ())]

  def _create_slots(self, var_list):
    for variable in var_list:
      self._zeros_slot(variable, "adam_m", "adam_m")
      self._zeros_slot(variable, "adam_v", "adam_v")

  def _use_weight_decay(self, name: str) -> bool:
    if not self._weight_decay_rate:
      return False
    if any(re.search(pattern, name) for pattern in self._include):
      return True
    return not any(re.search(pattern, name) for pattern in self._exclude)

  def _update(self, variable, grad):
    name = variable_name(variable)
    m, v = self.get_slot(variable, "adam_m"), self.get_slot(variable, "adam_v")
    grad = tf.cast(grad, tf.float32)
    if self._grad_factor is not None:
      multiply = tf.multiply if self._is_finite is None else tf.math.multiply_no_nan  # NaN * 0 = 0
      grad = multiply(grad, self._grad_factor)
    rate = self._rate * self._lr_multiplier(name)
    # TensorFlow's fused kernel reads and writes each array once. Powers of 0 turn off its own bias
    # correction of the rate.
    settings = dict(
      beta1_power=0.0,
      beta2_power=0.0,
      lr=rate,
      beta1=self._betas[0],
      beta2=self._betas[1],
      epsilon=self._epsilon,
      grad=grad,
    )
    decay = []
    if self._use_weight_decay(name):
      # param - rate * (update + wd * param) = (param - rate * wd * param) - rate * update
      # The decay must wait for the gradient, although it does not use it. Otherwise it may run
      # before the forward pass, which would then read a decayed weight.
      with tf.control_dependencies([grad]):
        decay = [variable.assign_sub(rate * self._weight_decay_rate * variable)]
    with tf.control_dependencies(decay):
      if hasattr(variable, "handle"):
        return tf.raw_ops.ResourceApplyAdam(var=variable.handle, m=m.handle, v=v.handle, **settings)
      return tf.raw_ops.ApplyAdam(var=variable._ref(), m=m._ref(), v=v._ref(), **settings).op

  # The base class calls one of these four: for a reference or a resource variable, with a dense
  # gradient or a sparse one (if the caller bypasses apply_gradients).
  def _apply_dense(self, grad, var):
    return self._update(var, grad)

  def _resource_apply_dense(self, grad, handle):
    return self._update(handle, grad)

  def _apply_sparse(self, grad, var):
    return self._update(var, tf.convert_to_tensor(grad))

  def _resource_apply_sparse(self, grad, handle, indices):
    dense_shape = tf.shape(handle, out_type=indices.dtype)
    return self._update(handle, tf.scatter_nd(indices[:, None], grad, dense_shape))


class AdamWeightDecayOptimizer(AdamW):
  """AdamW for programs built on google-research/bert.

  Such programs clip the gradients and increment the global step themselves; apply_gradients does
  neither.
  """

  def __init__(
    self,
    learning_rate: float | tf.Tensor,
    weight_decay_rate: float = 0.0,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    exclude_from_weight_decay: Sequence[str] | None = None,
    name: str = "AdamWeightDecayOptimizer",
  ):
    """Stores the settings; see AdamW."""
    super().__init__(
      learning_rate,
      weight_decay_rate,
      beta_1,
      beta_2,
      epsilon,
      clip_norm=0.0,
      exclude_from_weight_decay=exclude_from_weight_decay or (),
      name=name,
    )

  def apply_gradients(self, grads_and_vars, global_step=None, name=None):
    """Applies the gradients without clipping; does not increment `global_step`."""
    return super().apply_gradients(grads_and_vars, None, name)
