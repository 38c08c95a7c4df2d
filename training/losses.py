"""Normalizes losses: each kind of loss is a weighted mean over a batch or a data set.

A task returns two numbers per example and kind of loss: a loss, summed over the example's items
(e.g. masked tokens), and a weight (Task.loss_weights), e.g. the number of items. The loss of a
batch is sum(losses) / sum(weights).

In training, a batch is split into parts, over devices and micro-batches, whose losses and gradients
are averaged. If each part were divided by its own weights, examples in parts of small weight would
count more. So the input pipeline adds the mean weight of the whole batch as a feature, and each
part divides its mean loss by it. The mean over the parts is then the loss of the batch. Example
with four examples in two micro-batches:

  losses               4 4 | 0 4      loss of the batch: 12 / 8 = 1.5
  weights              1 1 | 0 6      mean weight of the batch: 2
  losses of the parts  mean(4, 4) / 2 = 2 and mean(0, 4) / 2 = 1, mean 1.5
  by their own weights 8 / 2 = 4 and 4 / 6 = 0.67, mean 2.33: not the loss of the batch

In prediction, losses and weights are returned per example and summed over all examples at the end.
"""

import numpy as np
import tensorflow as tf

_MEAN_WEIGHT = "mean_weight/"  # prefix of features: mean weight of the whole batch, float32 [B]
_LOSS, _LOSS_WEIGHT = "loss/", "loss_weight/"  # prefixes of predictions: float32 [B]


def add_mean_weights(
  features: dict[str, tf.Tensor], weights: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """Adds the mean weight of each kind of loss to the features of a whole batch.

  Args:
    features: name -> [B, ...].
    weights: Task.loss_weights of the batch, kind -> float32 [B].

  Returns:
    The features and the mean weights, float32 [B] with equal values.
  """
  means = {
    _MEAN_WEIGHT + kind: tf.fill(tf.shape(weight), tf.reduce_mean(weight))
    for kind, weight in weights.items()
  }
  return {**features, **means}


def batch_losses(
  losses: dict[str, tf.Tensor], features: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """Loss of each kind, of a batch or of a part; the mean over equal parts is the batch's loss.

  Args:
    losses: TaskOutput.losses of the part, kind -> float32 [B].
    features: features of the part, with the mean weights of the whole batch.

  Returns:
    Kind -> float32 scalar; 0 for a kind whose weights are all 0 in the batch.
  """
  return {
    kind: tf.math.divide_no_nan(tf.reduce_mean(values), features[_MEAN_WEIGHT + kind][0])
    for kind, values in losses.items()
  }


def example_losses(
  losses: dict[str, tf.Tensor], weights: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """Returns each example's losses and weights, float32 [B], under their prediction names."""
  predictions = {}
  for kind, weight in weights.items():
    predictions[_LOSS + kind], predictions[_LOSS_WEIGHT + kind] = losses[kind], weight
  return predictions


def mean_losses(predictions: dict[str, np.ndarray]) -> dict[str, float]:
  """Mean losses over all predictions: "loss", their sum, and "loss_KIND" if there are several."""
  kinds = [name.removeprefix(_LOSS) for name in predictions if name.startswith(_LOSS)]
  means = {
    f"loss_{kind}": float(
      np.sum(predictions[_LOSS + kind]) / max(np.sum(predictions[_LOSS_WEIGHT + kind]), 1e-6)
    )
    for kind in kinds
  }
  return {**(means if len(means) > 1 else {}), "loss": sum(means.values())}
