"""Layers shared by BERT and Funnel-Transformer, on tf.compat.v1.get_variable.

TensorFlow 2.16 and newer have no tf.layers, and the released checkpoints fix the name and shape of
every variable, so this module implements the few layers needed.

Variables are float32. Layers compute in the dtype of their input, so a model whose embeddings are
cast to bfloat16 or float16 computes in it. Layer normalization and softmax always compute in
float32.
"""

import contextlib
import contextvars
import math
import zlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from models import recomputation

v1 = tf.compat.v1

_SEED_STEP = -0x61C88647  # odd, and far from the distances between seeds


def pad_to(x: tf.Tensor, sizes: list[int], value: float) -> tf.Tensor:
  """Pads the last axes of `x` with `value` to at least the given sizes."""
  outer = x.shape.rank - len(sizes)
  missing = tf.maximum(tf.constant(sizes) - tf.shape(x)[outer:], 0)
  paddings = tf.concat([tf.zeros([outer], tf.int32), missing], 0)
  return tf.pad(
    x, tf.stack([tf.zeros_like(paddings), paddings], 1), constant_values=tf.cast(value, x.dtype)
  )


def truncated_normal(stddev: float) -> tf.initializers.Initializer:
  """Initializer of all weights in BERT: normal, redrawn beyond two standard deviations."""
  return v1.truncated_normal_initializer(stddev=stddev)


def shape_list(tensor: tf.Tensor) -> list:
  """Shape of `tensor`, an int for each static dimension, a scalar tensor for each dynamic one."""
  dynamic = tf.shape(tensor)
  return [dynamic[i] if n is None else n for i, n in enumerate(tensor.shape.as_list())]


def gelu(x: tf.Tensor) -> tf.Tensor:
  """Gaussian error linear unit, tanh approximation (Hendrycks & Gimpel 2016), as in BERT."""
  return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def gelu_erf(x: tf.Tensor) -> tf.Tensor:
  """Gaussian error linear unit, exact, the "gelu" of Hugging Face's models."""
  return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))


# The names are also in config_keys.ACTIVATIONS.
ACTIVATIONS = {
  "linear": lambda x: x,
  "relu": tf.nn.relu,
  "gelu": gelu,
  "gelu_erf": gelu_erf,
  "tanh": tf.tanh,
}


def get_activation(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
  """Activation function by name; ValueError lists the names."""
  if name not in ACTIVATIONS:
    raise ValueError(f"unknown activation {name!r}; use one of {', '.join(sorted(ACTIVATIONS))}")
  return ACTIVATIONS[name]


_replica = contextvars.ContextVar("replica", default=None)


@contextlib.contextmanager
def replica(number: tf.Tensor | int | None) -> Iterator[None]:
  """Makes the random draws of layers built within depend on `number`, an int32 scalar.

  All cores of a TPU run one traced program with the same name scopes, and hosts of a cluster the
  same program. A number that differs between them gives them different dropout masks. 0 and None
  change nothing.
  """
  token = _replica.set(number)
  try:
    yield
  finally:
    _replica.reset(token)


def random_uniform(shape: tf.Tensor, name: str, rows: tf.Tensor | None = None) -> tf.Tensor:
  """Draws float32 from [0, 1), as a function of (graph seed, global step, name scope) only.

  A run that was stopped and restarted therefore draws the same numbers as an uninterrupted one.
  Replicas of MirroredStrategy have name scopes of their own ("replica_1/...") and so draw different
  numbers; for the cores of a TPU and several hosts, see `replica`. In a graph without a global step
  (a user's own program), every session.run draws other numbers.

  Args:
    shape: int32 vector.
    name: name scope.
    rows: int32 [shape[0]], numbers of the rows. The draws of a row then depend on its number and
      not on the other rows. None draws for all rows together.
  """
  with v1.name_scope(name) as scope:
    op_seed = zlib.crc32(scope.encode()) ^ (v1.get_default_graph().seed or 0)

    def draw(shape, number):
      seed = recomputation.shared(lambda: _seed(op_seed & 0x7FFFFFFF, number))
      return tf.random.stateless_uniform(shape, seed)

    if rows is None:
      return draw(shape, _replica.get())
    return tf.map_fn(lambda number: draw(shape[1:], number), rows, fn_output_signature=tf.float32)


def _seed(op_seed, number):
  """Seed of a draw, int32 [2]: the global step, and op_seed moved by `number`, if there is one."""
  step = v1.train.get_global_step()
  if step is None:
    return tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
  seed = tf.constant(op_seed, tf.int32)
  if number is not None:
    seed += number * _SEED_STEP
  return tf.stack([tf.cast(step, tf.int32), seed])


def dropout(x: tf.Tensor, rate: float) -> tf.Tensor:
  """Zeroes each element with probability `rate` and scales the others by 1 / (1 - rate)."""
  if not rate:
    return x
  # Draw in float32: 16 bits have too few for P(draw < rate) to be close to `rate`.
  keep = random_uniform(tf.shape(x), "dropout") >= rate
  return tf.where(keep, x * (1.0 / (1.0 - rate)), tf.zeros_like(x))


def dense(
  x: tf.Tensor,
  units: int,
  name: str,
  initializer: tf.initializers.Initializer,
  activation: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.Tensor:
  """Affine map of the last axis: [..., depth] -> [..., units], variables `name`/{kernel,bias}.

  All other axes are flattened for a single 2-D matrix product. This is the fastest form on every
  device, and the kernel's gradient needs no reduction afterwards.
  """
  *outer, depth = shape_list(x)
  with v1.variable_scope(name):
    kernel = v1.get_variable("kernel", [depth, units], initializer=initializer)
    bias = v1.get_variable("bias", [units], initializer=v1.zeros_initializer())
  kernel, bias = tf.cast(kernel, x.dtype), tf.cast(bias, x.dtype)
  y = tf.matmul(tf.reshape(x, [-1, depth]), kernel) + bias  # [prod(outer), units]
  if activation is not None:
    y = activation(y)
  return y if len(outer) == 1 else tf.reshape(y, [*outer, units])


def layer_norm(x: tf.Tensor, name: str, epsilon: float) -> tf.Tensor:
  """Layer normalization over the last axis (Ba et al. 2016), variables `name`/{beta,gamma}.

  Computes in float32 and casts back. BERT uses the name LayerNorm and epsilon 1e-12, Funnel uses
  layer_norm and 1e-8.
  """
  depth = x.shape[-1]
  with v1.variable_scope(name):
    beta = v1.get_variable("beta", [depth], initializer=v1.zeros_initializer())
    gamma = v1.get_variable("gamma", [depth], initializer=v1.ones_initializer())
  x32 = tf.cast(x, tf.float32)
  mean = tf.reduce_mean(x32, axis=-1, keepdims=True)
  centred = x32 - mean
  variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
  y = centred * tf.math.rsqrt(variance + epsilon)
  return tf.cast(y * gamma + beta, x.dtype)


def softmax(scores: tf.Tensor, mask_adder: tf.Tensor | float = 0.0) -> tf.Tensor:
  """Softmax of scores + mask_adder over the last axis, in float32, as the dtype of `scores`.

  Args:
    scores: float [..., T].
    mask_adder: float32, large and negative at masked keys; broadcast to scores. Funnel's -1e6 is
      beyond the range of float16, so the sum is in float32 too.
  """
  return tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32) + mask_adder), scores.dtype)


def embedding_lookup(
  ids: tf.Tensor, table: tf.Tensor, use_one_hot: bool, dtype: tf.DType = tf.float32
) -> tf.Tensor:
  """Rows of `table` [V, D] at `ids` (int, any shape) as `dtype`: [..., D].

  On TPU a product with one-hot vectors is faster than a gather, and its gradient is dense.
  """
  if not use_one_hot:
    return tf.cast(tf.gather(table, ids), dtype)
  vocab_size, depth = table.shape
  one_hot = tf.one_hot(tf.reshape(ids, [-1]), depth=vocab_size, dtype=dtype)
  return tf.reshape(tf.matmul(one_hot, tf.cast(table, dtype)), [*shape_list(ids), depth])
