"""Funnel-Transformer (Dai et al. 2020, arXiv:2006.03236): encoder and decoder.

The encoder is a stack of blocks; the first layer of every block but the first pools the sequence.
The decoder spreads the last block's output over the full length again, adds the first block's
output to it, and runs a few more layers. Variable names, shapes and numbers are those of the
released checkpoints.

Shape legend, for every comment in this file:
  B  batch          L  length of the input, padded to a multiple of the total pooling
  F  queries        T  keys                 R  distances between queries and keys
  M  d_model        N  n_head               D  d_head                 E  d_embed
"""

import dataclasses
import math

import tensorflow as tf

from errors import UserError
from models import layers
from models.funnel_config import CLS_SEGMENT_ID, MAX_ABSOLUTE_POSITIONS, ModelConfig

v1 = tf.compat.v1

LAYER_NORM_EPSILON = 1e-8


class FunnelTFM:
  """Funnel-Transformer. One object may be called often: the calls share the variables.

  Variables are named `model/...`; nothing about a call's inputs stays on the object.

  Example:
    net_config = modeling.ModelConfig.init_from_json("net_config.json")
    model = modeling.FunnelTFM(net_config)
    summary, _ = model.get_pooled_output(inputs, is_training, seg_id=seg_id, input_mask=input_mask)
    last_hidden, encoder_hiddens, _ = model.extract_hiddens(
        inputs, is_training, seg_id=seg_id, input_mask=input_mask, use_decoder=True)
  """

  def __init__(
    self, net_config: ModelConfig, scope: str = "model", attention_type: str | None = None
  ):
    """Takes the configuration; builds nothing yet.

    Args:
      net_config: ModelConfig.
      scope: variable scope of encoder and decoder. The embeddings stand in model/input in any
        case: ELECTRA's generator (scope "generator") shares them.
      attention_type: "factorized" or "rel_shift" to force that form; for tests and benchmarks.
    """
    self.net_config = net_config
    self.scope = scope
    self._attention_type = attention_type

  def extract_hiddens(
    self,
    inputs: tf.Tensor,
    is_training: bool,
    seg_id: tf.Tensor | None = None,
    input_mask: tf.Tensor | None = None,
    use_decoder: bool = False,
    use_tpu: bool = False,
    use_bfloat16: bool = False,
  ) -> tuple[tf.Tensor, list[tf.Tensor], dict]:
    """Hidden states.

    A length that the total pooling (pooling_size to the power of the poolings) does not divide is
    padded inside to the next one that it does (or to one more than a multiple, where pools_evenly
    and that is nearer), with token 0, segment 0 and mask 1, and outputs are cut back: it means what
    it would mean had the caller padded. With truncate_seq the last
    total_pooling - 1 positions of the padded length are not seen by all blocks.

    Args:
      inputs: int [B, length], token ids.
      is_training: dropout is on only when True.
      seg_id: int [B, length], segment ids, 2 for [cls]; one segment when None.
      input_mask: int or float [B, length], 1 = padding, 0 = real token; no padding when None.
      use_decoder: run the decoder too. With decoder_size "0" it is the sum of the last block's
        output, spread to full length, and the first block's; one block's output stays as it is.
      use_tpu: look words up by a matrix product, and attend in the form that suits TPU.
      use_bfloat16: activations in bfloat16; variables stay float32.

    Returns:
      last_hidden: float [B, length, M] of the decoder, else [B, T, M] of the encoder.
      encoder_hiddens: list of float [B, T, M] of each encoder layer (a layer that is applied twice
        counts twice), T shrinking from block to block.
      ret_dict: "input_embed" float [B, length, E], the embeddings; "hidden_masks", list of float32
        [B, T] for encoder_hiddens, 1 = padding; "encoder_output", the last of encoder_hiddens.

    Raises:
      UserError: rel_attn_type is "null" and the length beyond its position table. A length that is
        unknown when the graph is built is a tf.errors.InvalidArgumentError when it runs.
    """
    config = self._config_of_call(is_training, use_tpu)
    decode = use_decoder and len(config.blocks) > 1
    length = layers.shape_list(inputs)[1]
    inputs, slots = _pad_inputs(config, inputs, seg_id, input_mask)

    with v1.variable_scope("model/input", reuse=v1.AUTO_REUSE):
      embedded = _embed(
        config, inputs, slots.seg_id, use_tpu, tf.bfloat16 if use_bfloat16 else tf.float32
      )  # [B, L, E]
    with v1.variable_scope(self.scope, reuse=v1.AUTO_REUSE):
      with v1.variable_scope("encoder"):
        hiddens, levels, structure = _encode(config, embedded, slots)
      if decode:
        with v1.variable_scope("decoder"):
          decoded = _decode(config, hiddens, structure)[:, :length]  # [B, length, M]
    used = [level.slots_used(config, length) for level in levels]
    hiddens = [hidden[:, :n] for hidden, n in zip(hiddens, used, strict=True)]
    return (
      decoded if decode else hiddens[-1],
      hiddens,
      {
        "input_embed": embedded[:, :length],
        "encoder_output": hiddens[-1],
        "hidden_masks": [level.mask[:, :n] for level, n in zip(levels, used, strict=True)],
      },
    )

  def get_pooled_output(
    self,
    inputs: tf.Tensor,
    is_training: bool,
    seg_id: tf.Tensor | None = None,
    input_mask: tf.Tensor | None = None,
    use_tpu: bool = False,
    use_bfloat16: bool = False,
  ) -> tuple[tf.Tensor, dict]:
    """The sequence as one vector: tanh(dense(the encoder's output at [cls])), with dropout.

    Arguments as for extract_hiddens. Returns float32 [B, M] and extract_hiddens' ret_dict.
    """
    hidden, _, ret_dict = self.extract_hiddens(
      inputs, is_training, seg_id, input_mask, use_tpu=use_tpu, use_bfloat16=use_bfloat16
    )
    config = self.net_config
    with v1.variable_scope(f"{self.scope}/sequnece_summary", reuse=v1.AUTO_REUSE):  # [sic]
      summary = layers.dense(
        tf.cast(hidden[:, 0], tf.float32), config.d_model, "summary", config.initializer, tf.tanh
      )
      return layers.dropout(summary, config.dropout if is_training else 0.0), ret_dict

  def get_embedding_table(self) -> tf.Tensor:
    """float32 [vocab_size, E]: the word embedding table."""
    with v1.variable_scope("model/input", reuse=v1.AUTO_REUSE):
      return _word_table(self.net_config)

  def _config_of_call(self, is_training, use_tpu):
    """The configuration with the form of attention to run, and without dropout in evaluation."""
    attention_type = self.net_config.attention_type(use_tpu)
    if attention_type != "null" and self._attention_type:
      attention_type = self._attention_type
    config = dataclasses.replace(self.net_config, rel_attn_type=attention_type)
    if is_training:
      return config
    return dataclasses.replace(config, dropout=0.0, dropatt=0.0, dropact=0.0)


@dataclasses.dataclass
class Slots:
  """The T places of one pooling level: what attention must know besides their hidden states.

  Slot 0 is at position 0. With separate_cls slot i > 0 is at 1 + (i - 1) * stride, the first of
  the positions it was pooled from, and without at i * stride.

  Attributes:
    stride: distance of neighbours, pooling_size to the power of the poolings so far.
    seg_id: int32 [B, T].
    mask: float32 [B, T], 1 = padding; a pooled slot is padding if all its members are.
  """

  stride: int
  seg_id: tf.Tensor
  mask: tf.Tensor

  def pool(self, config: ModelConfig) -> "Slots":
    return Slots(
      self.stride * config.pooling_size,
      _pool(config, self.seg_id[:, :, None], "first")[:, :, 0],
      _pool(config, self.mask[:, :, None], "min")[:, :, 0],
    )

  def slots_used(self, config: ModelConfig, length):
    """How many slots hold something of the first `length` positions."""
    if config.separate_cls:
      return 1 - (1 - length) // self.stride
    return -(-length // self.stride)


@dataclasses.dataclass
class AttentionStructure:
  """How F queries and T keys are related; shared by all layers between two poolings.

  Attributes:
    mask_adder: float [B, 1, T], -1e6 at keys that are padding.
    sinusoids: rel_shift: encodings of all distances [R, M]; factorized: sines and cosines of the
      queries' positions and of the keys', each [F or T, M / 2]; empty for null.
    query_step: rel_shift: stride of the queries in strides of the keys.
    same_segment: bool [B, F, T].
    not_cls: float [F, T], 0 in the row and the column of [cls], whose place and segment are
      not told to anybody; 1 elsewhere.
  """

  mask_adder: tf.Tensor
  sinusoids: tuple = ()
  query_step: int = 1
  same_segment: tf.Tensor | None = None
  not_cls: tf.Tensor | None = None


def _pad_inputs(config, inputs, seg_id, input_mask):
  """Fills in defaults and pads to a multiple of the total pooling: ids [B, L] and their Slots."""
  length = layers.shape_list(inputs)[1]
  inputs = tf.cast(inputs, tf.int32)
  if config.rel_attn_type == "null":
    beyond = (
      f'is beyond the position table of rel_attn_type "null" ({MAX_ABSOLUTE_POSITIONS}); '
      f"lower --max_seq_length"
    )
    if not isinstance(length, int):
      with tf.control_dependencies(
        [
          tf.debugging.assert_less_equal(
            length, MAX_ABSOLUTE_POSITIONS, f"the sequence length {beyond}"
          )
        ]
      ):
        inputs = tf.identity(inputs)
    elif length > MAX_ABSOLUTE_POSITIONS:
      raise UserError(f"sequence length {length} {beyond}")
  seg_id = tf.zeros_like(inputs) if seg_id is None else tf.cast(seg_id, tf.int32)
  mask = (
    tf.zeros_like(inputs, tf.float32) if input_mask is None else tf.cast(input_mask, tf.float32)
  )
  extra = -length % config.total_pooling
  if config.pools_evenly:  # one after a multiple will do as well
    less = (1 - length) % config.total_pooling
    extra = min(extra, less) if isinstance(length, int) else tf.minimum(extra, less)
  if not isinstance(extra, int) or extra:
    padding = [[0, 0], [0, extra]]
    inputs, seg_id = tf.pad(inputs, padding), tf.pad(seg_id, padding)
    mask = tf.pad(mask, padding, constant_values=1.0)
  return inputs, Slots(1, seg_id, mask)


def _word_table(config):
  with v1.variable_scope("word_embedding"):
    return v1.get_variable(
      "lookup_table", [config.vocab_size, config.d_embed], initializer=config.initializer
    )


def _embed(config, inputs, seg_id, use_one_hot, dtype):
  """Token ids [B, L] -> embeddings [B, L, E]."""
  x = layers.embedding_lookup(inputs, _word_table(config), use_one_hot, dtype)
  if config.rel_attn_type == "null":
    with v1.variable_scope("position_embedding"):
      table = v1.get_variable(
        "lookup_table", [MAX_ABSOLUTE_POSITIONS, config.d_embed], initializer=config.initializer
      )
    # Padding inside may lead beyond the table; nobody attends to it.
    positions = tf.minimum(tf.range(layers.shape_list(inputs)[1]), MAX_ABSOLUTE_POSITIONS - 1)
    x += layers.embedding_lookup(positions, table, use_one_hot, dtype)  # [L, E]
    with v1.variable_scope("segment_embedding"):
      table = v1.get_variable("lookup_table", [2, config.d_embed], initializer=config.initializer)
    x += layers.embedding_lookup(seg_id % 2, table, True, dtype)  # [B, L, E]
  x = layers.layer_norm(x, "layer_norm", LAYER_NORM_EPSILON)
  return layers.dropout(x, config.dropout)


def _encode(config, x, slots):
  """Runs the blocks; returns every layer's output, its Slots, and the first block's structure."""
  if config.d_embed != config.d_model:
    x = layers.dense(x, config.d_model, "input_projection", config.initializer)
  first_structure = structure = _relate(config, slots, slots, x.dtype)
  hiddens, levels, index = [], [], 0
  for block, (count, repeats) in enumerate(config.blocks):
    for application in range(count * repeats):
      query, query_structure = x, structure
      if block and not application:
        pooled = slots.pool(config)
        query = _pool(config, x, config.pooling_type)
        structure = _relate(config, pooled, pooled, x.dtype)
        if config.pool_q_only:
          query_structure = _relate(config, pooled, slots, x.dtype)
        else:
          x, query_structure = query, structure
        slots = pooled
      with v1.variable_scope(f"layer_{index + application // repeats}"):
        x = _layer(config, query, x, query_structure)  # [B, T, M]
      hiddens.append(x)
      levels.append(slots)
    index += count
  return hiddens, levels, first_structure


def _decode(config, hiddens, structure):
  """Last block's output, upsampled, + first block's, then the decoder's layers: [B, L, M]."""
  count, repeats = config.blocks[0]
  first = hiddens[count * repeats - 1]  # [B, L, M]
  x = _upsample(config, hiddens[-1], layers.shape_list(first)[1]) + first
  index = sum(count for count, _ in config.blocks)
  count, repeats = config.decoder
  for application in range(count * repeats):
    with v1.variable_scope(f"layer_{index + application // repeats}"):
      x = _layer(config, x, x, structure)  # [B, L, M]
  return x


def _pool(config, x, how):
  """[B, T, depth] -> [B, pooled T, depth], by "mean", "max", "min", or the "first" of a window.

  With separate_cls slot 0 is kept (and the last slot dropped, by truncate_seq), the others pooled:
    0 | 1 2 | 3 4 | 5 6 | 7     separate_cls, truncate_seq: 7 is dropped
    0 | 1 2 | 3 4 | 5 6         the same without a seventh: nothing is dropped
    0 | 1 2 | 3 4 | 5 6 | 7     separate_cls alone: 7 is a window of its own
    0 1 | 2 3 | 4 5 | 6 7       neither
  Windows begin at the front whatever the length is, so that padding moves none of them.
  """
  if config.separate_cls:
    length = layers.shape_list(x)[1]
    truncates = config.truncate_seq and config.pooling_size > 1
    dropped = (length - 1) % 2 if truncates and config.pools_evenly else int(truncates)
    cls, rest, _ = tf.split(x, [1, length - 1 - dropped, dropped], axis=1)
    return tf.concat([cls, _pool_windows(rest, config.pooling_size, how)], axis=1)
  return _pool_windows(x, config.pooling_size, how)


def _pool_windows(x, size, how):
  """Pools windows of `size` along axis 1; the last one may be short and counts its members only."""
  if how == "first":
    return x[:, ::size]
  batch, length, depth = layers.shape_list(x)
  count = -(-length // size)
  neutral = {"mean": 0, "max": x.dtype.min, "min": x.dtype.max}[how]
  x = tf.pad(
    x, [[0, 0], [0, count * size - length], [0, 0]], constant_values=tf.constant(neutral, x.dtype)
  )
  if how == "mean":
    # The members of a window lie side by side: the gradient of their sum is one concatenation.
    members = tf.split(tf.reshape(x, [batch, count, size * depth]), size, axis=-1)
    number = tf.minimum(size, length - size * tf.range(count))  # [pooled T]
    return tf.add_n(members) / tf.cast(number, x.dtype)[:, None]
  x = tf.reshape(x, [batch, count, size, depth])
  return tf.reduce_max(x, axis=2) if how == "max" else tf.reduce_min(x, axis=2)


def _upsample(config, x, length):
  """Repeats each slot for all positions it was pooled from: [B, T, M] -> [B, length, M].

  [cls] is kept single where it was not pooled; the positions that truncate_seq dropped are zeros.
  """
  times = config.total_pooling
  batch, _, depth = layers.shape_list(x)
  cls, rest = (x[:, :1], x[:, 1:]) if config.separate_cls else (x[:, :0], x)
  rest = tf.reshape(
    tf.tile(rest[:, :, None], [1, 1, times, 1]), [batch, layers.shape_list(rest)[1] * times, depth]
  )
  x = tf.pad(tf.concat([cls, rest], axis=1), [[0, 0], [0, times - 1], [0, 0]])[:, :length]
  return tf.ensure_shape(x, [None, length if isinstance(length, int) else None, depth])


def _relate(config, query, key, dtype):
  """The AttentionStructure of queries at Slots `query` and keys at Slots `key`."""
  structure = AttentionStructure(tf.cast(key.mask * -1e6, dtype)[:, None, :])
  if config.rel_attn_type == "null":
    return structure
  queries, keys = (layers.shape_list(slots.seg_id)[1] for slots in (query, key))  # F, T
  q_seg, k_seg = query.seg_id[:, :, None], key.seg_id[:, None, :]
  same_segment = (
    tf.equal(q_seg, k_seg) | tf.equal(q_seg, CLS_SEGMENT_ID) | tf.equal(k_seg, CLS_SEGMENT_ID)
  )
  structure.same_segment = same_segment
  structure.not_cls = tf.cast((tf.range(queries) > 0)[:, None] & (tf.range(keys) > 0), dtype)
  # not_cls hides the row and the column of [cls], so slot 0 may as well stand one stride before
  # slot 1, and positions are first + i * stride for every i that counts.
  first_query, first_key = (
    (1 - slots.stride if config.separate_cls else 0) for slots in (query, key)
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
    # From the last query's distance to the first key downwards, one key's stride at a time. See
    # _shift for their number.
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


def _layer(config, query, key, structure):
  """Attention and feed-forward: query [B, F, M], key and value [B, T, M] -> [B, F, M]."""
  with v1.variable_scope("rel_attn"):
    x = _attention(config, query, key, structure)
    x = layers.dropout(x, config.dropout)
    x = layers.layer_norm(query + x, "layer_norm", LAYER_NORM_EPSILON)
  with v1.variable_scope("ff"):
    y = layers.dense(
      x, config.d_inner, "layer_1", config.initializer, layers.get_activation(config.ff_activation)
    )  # [B, F, d_inner]
    y = layers.dropout(y, config.dropact)
    y = layers.dense(y, config.d_model, "layer_2", config.initializer)
    y = layers.dropout(y, config.dropout)
    return layers.layer_norm(x + y, "layer_norm", LAYER_NORM_EPSILON)


def _attention(config, query, key, structure):
  """Attention with relative positions and segments: [B, F, M], [B, T, M] -> [B, F, M].

  Heads come first, so that what all sequences share (encodings) meets the queries of the whole
  batch in one product per head.
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
  # The queries that meet keys, positions and segments differ by a bias alone, scaled as they are.
  # That of the keys comes with the projection, the others as differences to it.
  key_bias = weight("r_w_bias", [heads, size]) * scale
  q = _project(query, q_kernel, key_bias)  # [N, B, F, D]
  other_bias = lambda name: tf.expand_dims(  # [N, 1, D]
    weight(name, [heads, size]) * scale - key_bias, 1
  )

  scores = tf.matmul(q, k, transpose_b=True)  # [N, B, F, T]
  if config.rel_attn_type != "null":
    q_flat = tf.reshape(q, [heads, batch * queries, size])
    relative = _position_scores(
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
  probs = layers.softmax(scores + structure.mask_adder)
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


def _position_scores(config, q, kernel, structure):
  """q . (encoding(query's position - key's position) kernel) for all pairs.

  The encoding of a distance d is [sin(d f), cos(d f)], f being the M / 2 frequencies.
    rel_shift: products with the encodings of all R distances that occur, sorted to pairs.
    factorized: sin and cos of a difference, written as products of those of its two terms, make
      the score a product of something of the query and something of the key.

  Args:
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
  of_sin, of_cos = tf.split(tf.reshape(flat, [heads, batch, queries, config.d_model]), 2, axis=-1)
  # sin(q - k) = sin q cos k - cos q sin k;  cos(q - k) = cos q cos k + sin q sin k.
  of_query = tf.concat([of_cos * q_sin - of_sin * q_cos, of_sin * q_sin + of_cos * q_cos], axis=-1)
  of_key = tf.concat([k_sin, k_cos], axis=-1)  # [T, M]
  scores = tf.matmul(tf.reshape(of_query, [-1, config.d_model]), of_key, transpose_b=True)
  return tf.reshape(scores, [heads, batch, queries, layers.shape_list(of_key)[0]])


def _shift(scores, structure):
  """Sorts scores by distance [N, B, F, R] to scores by key [N, B, F, T], without a gather.

  Column m holds the distance (step * (F - 1) - m) key strides from the first key (structure's
  order), so key j of query i is in column step * (F - 1 - i) + j: each row begins `step` columns
  before the one above. Laid out in one line, rows of R elements become rows that begin R - step
  elements apart. R = step * F + T is enough for the last row to end within the line.
    F = 3, T = 2, step = 1, R = 5; the two to keep in brackets:
      . .[a b].   .[c d]. .   [e f]. . .   is from the first bracket on, four at a time,
      a b . .   c d . .   e f . .

  tf.slice has a padding as its gradient, on a CPU ten times as fast as that of x[a:b].
  """
  heads, batch, queries, distances = layers.shape_list(scores)
  keys = layers.shape_list(structure.mask_adder)[2]
  step = structure.query_step
  start, row = step * (queries - 1), distances - step
  line = tf.slice(
    tf.reshape(scores, [heads, batch, queries * distances]), [0, 0, start], [-1, -1, queries * row]
  )
  return tf.slice(tf.reshape(line, [heads, batch, queries, row]), [0] * 4, [-1, -1, -1, keys])
