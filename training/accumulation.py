"""Gradient accumulation: a large batch's loss and gradients in the memory of a small one.

The batch is cut into micro-batches that are computed one after the other; only the sum of their
gradients is kept. Losses are normalized by weights of the whole batch (Task.loss_weights), so the
mean over the micro-batches is the batch's own loss and gradient, and the update is that of the
batch computed at once.
"""

import contextlib
from collections.abc import Callable

import tensorflow as tf

v1 = tf.compat.v1

Gradients = list[tuple[tf.Tensor | None, tf.Variable]]


def accumulate(
  compute: Callable[[dict[str, tf.Tensor]], tuple[dict[str, tf.Tensor], Gradients]],
  features: dict[str, tf.Tensor],
  steps: int,
) -> tuple[dict[str, tf.Tensor], Gradients]:
  """Means over `steps` micro-batches of what `compute` gives for each.

  Example: 16 questions with steps 4 are computed 4 at a time, questions 0 to 3 first.

  With steps 1 the graph is what `compute` alone builds. Else micro-batch i builds in the name scope
  micro_i (so each draws a dropout of its own), on the variables of the first, and waits for the
  gradients of the one before it: by then that one's activations are freed.

  Args:
    compute: builds the model on features; returns named scalars and (gradient, variable) pairs, the
      same names and variables in every call.
    features: name -> [B, ...].
    steps: number of micro-batches; divides B.

  Returns:
    The scalars' means and the gradients' means, dense.
  """
  if steps == 1:
    return compute(features)
  parts = {name: tf.split(value, steps) for name, value in features.items()}
  totals, gradients = {}, []
  for index in range(steps):
    with contextlib.ExitStack() as stack:
      stack.enter_context(v1.name_scope(f"micro_{index}"))
      # None inherits: under MirroredStrategy the later replicas reuse variables already.
      stack.enter_context(
        v1.variable_scope(
          v1.get_variable_scope(), reuse=True if index else None, auxiliary_name_scope=False
        )
      )
      if index:
        stack.enter_context(tf.control_dependencies([tf.group(*filter(_is_there, gradients))]))
      scalars, pairs = compute({name: part[index] for name, part in parts.items()})
      totals = {name: totals.get(name, 0.0) + value for name, value in scalars.items()}
      gradients = [
        _add(total, gradient)
        for total, (gradient, _) in zip(gradients or [None] * len(pairs), pairs, strict=True)
      ]
  means = [total / steps if _is_there(total) else None for total in gradients]
  return (
    {name: total / steps for name, total in totals.items()},
    [(mean, variable) for mean, (_, variable) in zip(means, pairs, strict=True)],
  )


def _is_there(gradient):
  """Whether the loss depends on the gradient's variable."""
  return gradient is not None


def _add(total, gradient):
  if gradient is None:
    return total
  dense = tf.convert_to_tensor(gradient)  # those of embedding tables are sparse
  return dense if total is None else total + dense
