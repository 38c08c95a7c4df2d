"""Pooling between the blocks of a Funnel-Transformer, and its inverse in the decoder.

Shape legend, for every comment in this file:
  B  batch          T  length after some poolings          M  d_model
"""

import dataclasses

import tensorflow as tf

from models import layers
from models.funnel_config import ModelConfig


@dataclasses.dataclass
class PoolingLevel:
  """Positions, segments and padding of a sequence of T slots after some poolings.

  A slot is an element of the pooled sequence; its position is the first input position that it was
  pooled from. Slot 0 is at position 0. Slot i > 0 is at 1 + (i - 1) * stride with separate_cls,
  otherwise at i * stride.

  Attributes:
    stride: distance of neighbouring slots, pooling_size ** poolings so far.
    seg_id: int32 [B, T].
    mask: float32 [B, T], 1 = padding; a slot is padding if all its members are.
  """

  stride: int
  seg_id: tf.Tensor
  mask: tf.Tensor

  def pool(self, config: ModelConfig) -> "PoolingLevel":
    """Returns the level after one more pooling."""
    return PoolingLevel(
      self.stride * config.pooling_size,
      pool(config, self.seg_id[:, :, None], "first")[:, :, 0],
      pool(config, self.mask[:, :, None], "min")[:, :, 0],
    )

  def length_used(self, config: ModelConfig, length: int | tf.Tensor) -> int | tf.Tensor:
    """Number of slots that have a member among the first `length` positions."""
    if config.separate_cls:
      return 1 - (1 - length) // self.stride
    return -(-length // self.stride)


def pool(config: ModelConfig, x: tf.Tensor, how: str) -> tf.Tensor:
  """Pools [B, T, depth] -> [B, pooled T, depth] by "mean", "max", "min" or "first" of a window.

  With separate_cls, slot 0 is kept, and truncate_seq may drop the last slot. The others are pooled:
    0 | 1 2 | 3 4 | 5 6 | 7     separate_cls, truncate_seq: 7 is dropped
    0 | 1 2 | 3 4 | 5 6         the same with an even rest: nothing is dropped
    0 | 1 2 | 3 4 | 5 6 | 7     separate_cls alone: 7 is a window of its own
    0 1 | 2 3 | 4 5 | 6 7       neither
  Windows are counted from the front at every length, so that padding moves none of them.
  """
  if config.separate_cls:
    length = layers.shape_list(x)[1]
    truncates = config.truncate_seq and config.pooling_size > 1
    dropped = (length - 1) % 2 if truncates and config.pools_evenly else int(truncates)
    cls, rest, _ = tf.split(x, [1, length - 1 - dropped, dropped], axis=1)
    return tf.concat([cls, pool_windows(rest, config.pooling_size, how)], axis=1)
  return pool_windows(x, config.pooling_size, how)


def pool_windows(x: tf.Tensor, size: int, how: str) -> tf.Tensor:
  """Pools windows of `size` along axis 1; a short last window is pooled over its members only."""
  if how == "first":
    return x[:, ::size]
  batch, length, depth = layers.shape_list(x)
  count = -(-length // size)
  neutral = {"mean": 0, "max": x.dtype.min, "min": x.dtype.max}[how]
  x = tf.pad(
    x, [[0, 0], [0, count * size - length], [0, 0]], constant_values=tf.constant(neutral, x.dtype)
  )
  if how == "mean":
    # Split by member instead of reducing an axis: the gradient is then one concatenation.
    members = tf.split(tf.reshape(x, [batch, count, size * depth]), size, axis=-1)
    num_members = tf.minimum(size, length - size * tf.range(count))  # [pooled T]
    return tf.add_n(members) / tf.cast(num_members, x.dtype)[:, None]
  x = tf.reshape(x, [batch, count, size, depth])
  return tf.reduce_max(x, axis=2) if how == "max" else tf.reduce_min(x, axis=2)


def upsample(
  config: ModelConfig, x: tf.Tensor, length: int | tf.Tensor, poolings: int | None = None
) -> tf.Tensor:
  """Repeats each slot at all positions it was pooled from: [B, T, M] -> [B, length, M].

  With separate_cls, [cls] is not repeated. The positions that truncate_seq dropped are zeros.

  Args:
    config: ModelConfig.
    x: hidden states after `poolings` poolings.
    length: length of the result.
    poolings: number of poolings; None for those of the last block.
  """
  times = config.total_pooling if poolings is None else config.pooling_size**poolings
  batch, _, depth = layers.shape_list(x)
  cls, rest = (x[:, :1], x[:, 1:]) if config.separate_cls else (x[:, :0], x)
  rest = tf.reshape(
    tf.tile(rest[:, :, None], [1, 1, times, 1]), [batch, layers.shape_list(rest)[1] * times, depth]
  )
  x = tf.pad(tf.concat([cls, rest], axis=1), [[0, 0], [0, times - 1], [0, 0]])[:, :length]
  return tf.ensure_shape(x, [None, length if isinstance(length, int) else None, depth])
