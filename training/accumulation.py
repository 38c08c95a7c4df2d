"""Gradient accumulation: loss and gradients of a large batch in the memory of a small one.

The batch is cut into micro-batches, which are computed one after the other; only the sum of their
gradients is kept. Losses are normalized by weights of the whole batch (Task.loss_weights), so the
mean over the micro-batches equals the loss and gradient of the batch, and so does the update.
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
  """Computes the means of scalars and gradients over `steps` micro-batches.

  Example: 16 questions with steps 4 are computed 4 at a time, questions 0 to 3 first.

  With steps 1 the graph is that of `compute`. Otherwise micro-batch i is built in the name scope
  micro_i, so each has its own dropout, and shares the variables of the first. It waits for the
  gradients of the previous one, whose activations are freed by then.

  Args:
    compute: builds the model on features; returns named scalars and (gradient, variable) pairs,
      with the same names and variables in every call.
    features: name -> [B, ...].
    steps: number of micro-batches; divides B.

  Returns:
    Means of the scalars, and (mean gradient, variable) pairs with dense gradients.
  """
  if steps == 1:
    return compute(features)
  parts = {name: tf.split(value, steps) for name, value in features.items()}
  totals, gradients = {}, []
  for index in range(steps):
    with contextlib.ExitStack() as stack:
      stack.enter_context(v1.name_scope(f"micro_{index}"))
      # reuse=None inherits: under MirroredStrategy the later replicas already reuse variables.
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
  """Returns whether the loss depends on the gradient's variable."""
  return gradient is not None


def _add(total, gradient):
  if gradient is None:
    return total
  dense = tf.convert_to_tensor(gradient)  # gradients of embedding tables are sparse
  return dense if total is None else total + dense
