"""Recomputation of activations: a layer stores only its inputs, and computes the rest twice.

tf.recompute_grad is not used: it needs resource variables of an outer scope, fails under the
replica contexts of MirroredStrategy, and draws other random numbers in the second computation.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.ops import control_flow_util

v1 = tf.compat.v1


class _Memory:
  """Tensors that both computations share, in the order of their creation."""

  def __init__(self):
    self.tensors: list[tf.Tensor] = []
    self.rest: Iterator[tf.Tensor] | None = None  # not None in the second computation


_memory: contextvars.ContextVar[_Memory | None] = contextvars.ContextVar("memory", default=None)


def shared(create: Callable[[], tf.Tensor]) -> tf.Tensor:
  """Returns create(), or in a second computation the tensor of the first one.

  A layer creates its random seeds with it, so that both computations drop the same elements.
  """
  memory = _memory.get()
  if memory is None:
    return create()
  if memory.rest is not None:
    return next(memory.rest)
  memory.tensors.append(create())
  return memory.tensors[-1]


@contextlib.contextmanager
def _sharing(memory):
  """Makes `shared` and get_variable use the memory."""

  def read(getter, *args, **kwargs):
    return shared(lambda: tf.convert_to_tensor(getter(*args, **kwargs)))

  token = _memory.set(memory)
  try:
    scope = v1.get_variable_scope()
    with v1.variable_scope(scope, custom_getter=read, auxiliary_name_scope=False):
      yield
  finally:
    _memory.reset(token)


def recompute(layer: Callable[..., tf.Tensor], *inputs: tf.Tensor) -> tf.Tensor:
  """Returns layer(*inputs), whose gradient computes the layer again instead of storing its tensors.

  The second computation starts when the gradient of the output is known. It uses the values of the
  variables, and the random seeds, of the first.

  Args:
    layer: builds the layer from `inputs`; its random numbers are from layers.random_uniform. Other
      tensors that it uses must not depend on variables.
    inputs: float tensors.
  """
  memory = _Memory()
  with _sharing(memory):
    output = layer(*inputs)
  # Float tensors are values of variables, the others seeds.
  weights = [tensor for tensor in memory.tensors if tensor.dtype.is_floating]

  @tf.custom_gradient
  def attach(output, *sources):
    def gradient(upstream):
      with tf.control_dependencies([upstream]):
        again = _after(upstream, sources[: len(inputs)])
        memory.rest = iter(memory.tensors)
        with _sharing(memory):
          repeated = layer(*again)
        gradients = tf.gradients(repeated, [*again, *weights], upstream)
      return None, *gradients

    return tf.identity(output), gradient

  return attach(tf.stop_gradient(output), *inputs, *weights)


def _after(upstream, inputs):
  """Copies of `inputs` that exist only after `upstream`.

  XLA ignores control dependencies and would merge both computations; a barrier prevents it. The
  barrier has no kernel outside of XLA.
  """
  if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
    return gen_xla_ops.xla_optimization_barrier([*inputs, upstream])[:-1]
  return [tf.identity(tensor) for tensor in inputs]
