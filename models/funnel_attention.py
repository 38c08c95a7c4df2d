"""Attention of a Funnel-Transformer, with relative positions and segments.

Shape legend, for every comment in this file:
  B  batch          F  queries        T  keys           R  distances between queries and keys
  M  d_model        N  n_head         D  d_head
"""

import dataclasses
import math

import tensorflow as tf

from models import layers
from models.funnel_config import CLS_SEGMENT_ID, ModelConfig
from models.funnel_pooling import PoolingLevel

v1 = tf.compat.v1


@dataclasses.dataclass
class AttentionStructure:
  """Relations of F queries and T keys, shared by all layers between two poolings.

  Attributes:
    mask_adder: float32 [B, 1, T], -1e6 at keys that are padding, else 0.
    sinusoids: rel_shift: encodings of all distances [R, M]. factorized: sines and cosines of the
      queries' positions, each [F, M / 2], and of the keys', each [T, M / 2]. null: empty.
    query_step: rel_shift: stride of the queries divided by the stride of the keys.
    same_segment: bool [B, F, T].
    not_cls: float [F, T], 0 in the row and column of [cls], which get no position or segment
      score; 1 elsewhere.
  """

  mask_adder: tf.Tensor
  sinusoids: tuple = ()
  query_step: int = 1
  same_segment: tf.Tensor | None = None
  not_cls: tf.Tensor | None = None


def relate(
  config: ModelConfig, query: PoolingLevel, key: PoolingLevel, dtype: tf.DType
) -> AttentionStructure:
  """Builds the AttentionStructure of the queries of one level and the keys of another."""
  structure = AttentionStructure((key.mask * -1e6)[:, None, :])
  if config.rel_attn_type == "null":
    return structure
  queries, keys = (layers.shape_list(level.seg_id)[1] for level in (query, key))  # F, T
  q_seg, k_seg = query.seg_id[:, :, None], key.seg_id[:, None, :]
  same_segment = (
    tf.equal(q_seg, k_seg) | tf.equal(q_seg, CLS_SEGMENT_ID) | tf.equal(k_seg, CLS_SEGMENT_ID)
  )
  structure.same_segment = same_segment
  structure.not_cls = tf.cast((tf.range(queries) > 0)[:, None] & (tf.range(keys) > 0), dtype)
  # not_cls hides the row and column of [cls], so slot 0 can be placed one stride before slot 1.
  # Then all positions are first + i * stride.
  first_query, first_key = (
    (1 - level.stride if config.separate_cls else 0) for level in (query, key)
  )
  if config.rel_attn_type == "factorized":
    q_sin, q_cos = _sinusoids(config, first_query + tf.range(queries) * query.stride, dtype)
    k_sin, k_cos = _sinusoids(config, first_key + tf.range(keys) * key.stride, dtype)
    structure.sinusoids = (
      layers.dropout(q_sin, config.dropout),
      layers.dropout(q_cos, config.dropout),
      k_sin,
      k_cos,
    )
  else:
    structure.query_step = step = query.stride // key.stride
    # The first distance is from the last query to the first key; each next one is smaller by the
    # keys' stride. See _shift for their number.
    farthest = first_query + (queries - 1) * query.stride - first_key
    distances = farthest - tf.range(step * queries + keys) * key.stride  # [R]
    encodings = tf.concat(_sinusoids(config, distances, dtype), axis=-1)  # [R, M]
    structure.sinusoids = (layers.dropout(encodings, config.dropout),)
  return structure


def _sinusoids(config, positions, dtype):
  """Sines and cosines of `positions` [P] at frequencies 10000^(-i / (M / 2)): two [P, M / 2]."""
  half = config.d_model // 2
  frequencies = tf.constant([10000.0 ** (-i / half) for i in range(half)])
  angles = tf.cast(positions, tf.float32)[:, None] * frequencies
  return tf.cast(tf.sin(angles), dtype), tf.cast(tf.cos(angles), dtype)


def attention(
  config: ModelConfig, query: tf.Tensor, key: tf.Tensor, structure: AttentionStructure
) -> tf.Tensor:
  """Attention with relative positions and segments: [B, F, M], [B, T, M] -> [B, F, M].

  Heads are the first axis, so that the encodings, which all sequences share, are multiplied with
  the queries of the whole batch in one product per head.
  """
  heads, size = config.n_head, config.d_head
  batch, queries, depth = layers.shape_list(query)
  scale = 1.0 / math.sqrt(size)
  zeros = v1.zeros_initializer()

  def weight(name, shape, initializer=config.initializer):
    return tf.cast(v1.get_variable(name, shape, initializer=initializer), query.dtype)

  q_kernel = weight("q/kernel", [depth, heads, size]) * scale
  k, v = (
    _project(
      key,
      weight(f"{name}/kernel", [depth, heads, size]),
      weight(f"{name}/bias", [heads, size], zeros),
    )
    for name in "kv"
  )  # [N, B, T, D]
  # The queries for keys, positions and segments differ only by a bias, which is scaled like them.
  # The projection adds the bias for keys; the others are added as differences from it.
  key_bias = weight("r_w_bias", [heads, size]) * scale
  q = _project(query, q_kernel, key_bias)  # [N, B, F, D]
  other_bias = lambda name: tf.expand_dims(  # [N, 1, D]
    weight(name, [heads, size]) * scale - key_bias, 1
  )

  scores = tf.matmul(q, k, transpose_b=True)  # [N, B, F, T]
  if config.rel_attn_type != "null":
    q_flat = tf.reshape(q, [heads, batch * queries, size])
    relative = position_scores(
      config,
      tf.reshape(q_flat + other_bias("r_r_bias"), [heads, batch, queries, size]),
      weight("r/kernel", [depth, heads, size]),
      structure,
    )
    segment_bias = other_bias("r_s_bias")
    embedding = tf.transpose(weight("seg_embed", [2, heads, size]), [1, 2, 0])  # [N, D, 2]
    segment = tf.matmul(q_flat, embedding)  # q_segment . embedding, cheaper in two terms
    segment = tf.reshape(segment + tf.matmul(segment_bias, embedding), [heads, batch, queries, 2])
    other, same = tf.split(segment, 2, axis=-1)  # [N, B, F, 1]
    relative += tf.where(structure.same_segment, same, other)
    scores += relative * structure.not_cls
  probs = layers.softmax(scores, structure.mask_adder)
  probs = layers.dropout(probs, config.dropatt)
  context = tf.transpose(tf.matmul(probs, v), [1, 2, 0, 3])  # [B, F, N, D]

  kernel = weight("o/kernel", [heads, size, depth])
  output = tf.matmul(
    tf.reshape(context, [-1, heads * size]), tf.reshape(kernel, [heads * size, depth])
  )  # [B * F, M]
  return tf.reshape(output + weight("o/bias", [depth], zeros), [batch, queries, depth])


def _project(x, kernel, bias):
  """Hidden states [B, T, M] -> heads [N, B, T, D], by kernel [M, N, D] and bias [N, D]."""
  batch, length, _ = layers.shape_list(x)
  depth, heads, size = kernel.shape
  y = tf.matmul(tf.reshape(x, [-1, depth]), tf.reshape(kernel, [depth, heads * size]))
  y += tf.reshape(bias, [-1])  # [B * T, N * D]
  return tf.transpose(tf.reshape(y, [batch, length, heads, size]), [2, 0, 1, 3])


def position_scores(
  config: ModelConfig, q: tf.Tensor, kernel: tf.Tensor, structure: AttentionStructure
) -> tf.Tensor:
  """Scores of relative positions: q . (encoding(query's position - key's position) kernel).

  The encoding of a distance d is [sin(d f), cos(d f)], with M / 2 frequencies f.
    rel_shift: multiplies q with the encodings of all R distances, and sorts the scores by key.
    factorized: expands sin and cos of a difference into sines and cosines of its two terms, so that
      the score is a product of a function of the query and a function of the key.

  Args:
    config: ModelConfig.
    q: float [N, B, F, D].
    kernel: float [M, N, D].
    structure: AttentionStructure.

  Returns:
    float [N, B, F, T].
  """
  heads, batch, queries, size = layers.shape_list(q)
  flat = tf.reshape(q, [heads, batch * queries, size])
  if config.rel_attn_type == "rel_shift":
    encodings = tf.matmul(
      structure.sinusoids[0], tf.reshape(kernel, [config.d_model, heads * size])
    )  # [R, N * D]
    encodings = tf.transpose(tf.reshape(encodings, [-1, heads, size]), [1, 0, 2])  # [N, R, D]
    scores = tf.matmul(flat, encodings, transpose_b=True)  # [N, B * F, R]
    return _shift(tf.reshape(scores, [heads, batch, queries, -1]), structure)
  q_sin, q_cos, k_sin, k_cos = structure.sinusoids
  flat = tf.matmul(flat, tf.transpose(kernel, [1, 2, 0]))  # [N, B * F, M]
  sin_weight, cos_weight = tf.split(
    tf.reshape(flat, [heads, batch, queries, config.d_model]), 2, axis=-1
  )
  # sin(q - k) = sin q cos k - cos q sin k;  cos(q - k) = cos q cos k + sin q sin k.
  query_factor = tf.concat(
    [cos_weight * q_sin - sin_weight * q_cos, sin_weight * q_sin + cos_weight * q_cos], axis=-1
  )
  key_factor = tf.concat([k_sin, k_cos], axis=-1)  # [T, M]
  scores = tf.matmul(tf.reshape(query_factor, [-1, config.d_model]), key_factor, transpose_b=True)
  return tf.reshape(scores, [heads, batch, queries, layers.shape_list(key_factor)[0]])


def _shift(scores, structure):
  """Sorts scores by distance [N, B, F, R] into scores by key [N, B, F, T], without a gather.

  Column m has the distance of step * (F - 1) - m key strides, so key j of query i is in column
  step * (F - 1 - i) + j: the T scores of each row begin `step` columns before those of the row
  above. In the flattened scores, they therefore begin R - step elements apart. R = step * F + T is
  enough for the last row to end within the scores.
    F = 3, T = 2, step = 1, R = 5; the scores to keep are in brackets:
      . .[a b].   .[c d]. .   [e f]. . .   read from `a` in rows of R - step = 4:
      a b . .   c d . .   e f . .

  tf.slice is used because its gradient is a padding, ten times faster on a CPU than that of x[a:b].
  """
  heads, batch, queries, distances = layers.shape_list(scores)
  keys = layers.shape_list(structure.mask_adder)[2]
  step = structure.query_step
  start, row = step * (queries - 1), distances - step
  line = tf.slice(
    tf.reshape(scores, [heads, batch, queries * distances]), [0, 0, start], [-1, -1, queries * row]
  )
  return tf.slice(tf.reshape(line, [heads, batch, queries, row]), [0] * 4, [-1, -1, -1, keys])
