"""Funnel-Transformer (Dai et al. 2020, arXiv:2006.03236): encoder and decoder.

The encoder is a stack of blocks; the first layer of every block but the first pools the sequence.
The decoder upsamples the last block's output to the full length, adds the first block's output, and
applies a few more layers. Variable names, shapes and outputs match the released checkpoints.

Shape legend, for every comment in this file:
  B  batch          L  padded length of the input          M  d_model          E  d_embed
  F  queries        T  keys, or length after pooling
"""

import dataclasses

import tensorflow as tf

from errors import UserError
from models import funnel_attention, funnel_pooling, layers, recomputation
from models.funnel_config import MAX_ABSOLUTE_POSITIONS, ModelConfig

v1 = tf.compat.v1

LAYER_NORM_EPSILON = 1e-8


class FunnelTFM:
  """Funnel-Transformer. All calls of one object share its variables.

  Variables are named `model/...`. The object stores nothing about the inputs of a call.

  Example:
    net_config = modeling.ModelConfig.init_from_json("net_config.json")
    model = modeling.FunnelTFM(net_config)
    summary, _ = model.get_pooled_output(inputs, is_training, seg_id=seg_id, input_mask=input_mask)
    last_hidden, encoder_hiddens, _ = model.extract_hiddens(
        inputs, is_training, seg_id=seg_id, input_mask=input_mask, use_decoder=True)
  """

  def __init__(
    self,
    net_config: ModelConfig,
    scope: str = "model",
    attention_type: str | None = None,
    compute_dtype: tf.DType = tf.float32,
    recompute_activations: bool = False,
  ):
    """Stores the configuration; the methods build the graph.

    Args:
      net_config: ModelConfig.
      scope: variable scope of encoder and decoder. The embeddings are always in model/input:
        ELECTRA's generator (scope "generator") shares them.
      attention_type: "factorized" or "rel_shift" to force that form; for tests and benchmarks.
      compute_dtype: tf.float32, tf.bfloat16 or tf.float16, dtype of the activations; variables are
        float32. A call with use_bfloat16 is in bfloat16.
      recompute_activations: see BertModel.
    """
    self.net_config = net_config
    self.scope = scope
    self._attention_type = attention_type
    self._compute_dtype = compute_dtype
    self._layer = _recomputed_layer if recompute_activations else _layer

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
    """Builds the encoder, and the decoder if `use_decoder`.

    Inputs are padded to a multiple of total_pooling (or to 1 + a multiple if pools_evenly and that
    is nearer) with token 0, segment 0 and mask 1, and outputs are cut back to `length`. This is
    equivalent to padding by the caller. With truncate_seq, the last total_pooling - 1 positions of
    the padded length may be dropped before the last block.

    Args:
      inputs: int [B, length], token ids.
      is_training: dropout is on only when True.
      seg_id: int [B, length], segment ids, 2 for [cls]; one segment when None.
      input_mask: int or float [B, length], 1 = padding, 0 = real token; no padding when None.
      use_decoder: run the decoder too. With decoder_size "0", it adds the last block's upsampled
        output and the first block's. With a single block there is no decoder.
      use_tpu: look tokens up by a matrix product, and use the form of attention for TPU.
      use_bfloat16: activations in bfloat16; variables stay float32.

    Returns:
      last_hidden: output of the decoder, float [B, length, M], or of the encoder, [B, T, M].
      encoder_hiddens: output of each encoder layer, a list of float [B, T, M]; T shrinks from block
        to block, and a layer that is applied twice counts twice.
      ret_dict: "input_embed" float [B, length, E], the embeddings; "hidden_masks", list of float32
        [B, T] for encoder_hiddens, 1 = padding; "encoder_output", the last of encoder_hiddens.

    Raises:
      UserError: rel_attn_type is "null" and the length is beyond its position table. If the length
        is dynamic, running the graph raises tf.errors.InvalidArgumentError instead.
    """
    config = self._config_of_call(is_training, use_tpu)
    decode = use_decoder and len(config.blocks) > 1
    length = layers.shape_list(inputs)[1]
    inputs, level = _pad_inputs(config, inputs, seg_id, input_mask)

    with v1.variable_scope("model/input", reuse=v1.AUTO_REUSE):
      embedded = _embed(
        config, inputs, level.seg_id, use_tpu, tf.bfloat16 if use_bfloat16 else self._compute_dtype
      )  # [B, L, E]
    with v1.variable_scope(self.scope, reuse=v1.AUTO_REUSE):
      with v1.variable_scope("encoder"):
        hiddens, levels, structure = _encode(config, embedded, level, self._layer)
      if decode:
        with v1.variable_scope("decoder"):
          decoded = _decode(config, hiddens, structure, self._layer)[:, :length]  # [B, length, M]
    lengths = [level.length_used(config, length) for level in levels]
    hiddens = [hidden[:, :n] for hidden, n in zip(hiddens, lengths, strict=True)]
    return (
      decoded if decode else hiddens[-1],
      hiddens,
      {
        "input_embed": embedded[:, :length],
        "encoder_output": hiddens[-1],
        "hidden_masks": [level.mask[:, :n] for level, n in zip(levels, lengths, strict=True)],
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
    """Summary of each sequence: tanh(dense(the encoder's output at [cls])), with dropout.

    Arguments: see extract_hiddens. Returns float32 [B, M] and the ret_dict of extract_hiddens.
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
    """Word embedding table, float32 [vocab_size, E]."""
    with v1.variable_scope("model/input", reuse=v1.AUTO_REUSE):
      return _word_table(self.net_config)

  def _config_of_call(self, is_training, use_tpu):
    """Configuration with the form of attention to run, and without dropout in evaluation."""
    attention_type = self.net_config.attention_type(use_tpu)
    if attention_type != "null" and self._attention_type:
      attention_type = self._attention_type
    config = dataclasses.replace(self.net_config, rel_attn_type=attention_type)
    if is_training:
      return config
    return dataclasses.replace(config, dropout=0.0, dropatt=0.0, dropact=0.0)


def _pad_inputs(config, inputs, seg_id, input_mask):
  """Fills in defaults and pads; returns token ids [B, L] and the unpooled PoolingLevel."""
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
  if config.pools_evenly:  # 1 + a multiple is as good
    less = (1 - length) % config.total_pooling
    extra = min(extra, less) if isinstance(length, int) else tf.minimum(extra, less)
  if not isinstance(extra, int) or extra:
    padding = [[0, 0], [0, extra]]
    inputs, seg_id = tf.pad(inputs, padding), tf.pad(seg_id, padding)
    mask = tf.pad(mask, padding, constant_values=1.0)
  return inputs, funnel_pooling.PoolingLevel(1, seg_id, mask)


def _word_table(config):
  with v1.variable_scope("word_embedding"):
    return v1.get_variable(
      "lookup_table", [config.vocab_size, config.d_embed], initializer=config.initializer
    )


def _embed(config, inputs, seg_id, use_one_hot, dtype):
  """Looks token ids [B, L] up: embeddings [B, L, E]."""
  x = layers.embedding_lookup(inputs, _word_table(config), use_one_hot, dtype)
  if config.rel_attn_type == "null":
    with v1.variable_scope("position_embedding"):
      table = v1.get_variable(
        "lookup_table", [MAX_ABSOLUTE_POSITIONS, config.d_embed], initializer=config.initializer
      )
    # Internal padding may exceed the table; no token attends to it.
    positions = tf.minimum(tf.range(layers.shape_list(inputs)[1]), MAX_ABSOLUTE_POSITIONS - 1)
    x += layers.embedding_lookup(positions, table, use_one_hot, dtype)  # [L, E]
    with v1.variable_scope("segment_embedding"):
      table = v1.get_variable("lookup_table", [2, config.d_embed], initializer=config.initializer)
    x += layers.embedding_lookup(seg_id % 2, table, True, dtype)  # [B, L, E]
  x = layers.layer_norm(x, "layer_norm", LAYER_NORM_EPSILON)
  return layers.dropout(x, config.dropout)


def _encode(config, x, level, layer):
  """Runs the blocks; returns every layer's output and level, and the first block's structure."""
  if config.d_embed != config.d_model:
    x = layers.dense(x, config.d_model, "input_projection", config.initializer)
  first_structure = structure = funnel_attention.relate(config, level, level, x.dtype)
  hiddens, levels, index = [], [], 0
  for block, (count, repeats) in enumerate(config.blocks):
    for application in range(count * repeats):
      query, query_structure = x, structure
      if block and not application:
        pooled = level.pool(config)
        query = funnel_pooling.pool(config, x, config.pooling_type)
        structure = funnel_attention.relate(config, pooled, pooled, x.dtype)
        if config.pool_q_only:
          query_structure = funnel_attention.relate(config, pooled, level, x.dtype)
        else:
          x, query_structure = query, structure
        level = pooled
      with v1.variable_scope(f"layer_{index + application // repeats}"):
        x = layer(config, query, x, query_structure)  # [B, T, M]
      hiddens.append(x)
      levels.append(level)
    index += count
  return hiddens, levels, first_structure


def _decode(config, hiddens, structure, layer):
  """Adds last block's output, upsampled, and first block's, and runs the decoder: [B, L, M]."""
  count, repeats = config.blocks[0]
  first = hiddens[count * repeats - 1]  # [B, L, M]
  x = funnel_pooling.upsample(config, hiddens[-1], layers.shape_list(first)[1]) + first
  index = sum(count for count, _ in config.blocks)
  count, repeats = config.decoder
  for application in range(count * repeats):
    with v1.variable_scope(f"layer_{index + application // repeats}"):
      x = layer(config, x, x, structure)  # [B, L, M]
  return x


def _layer(config, query, key, structure):
  """Applies attention and feed-forward: queries [B, F, M], keys [B, T, M] -> [B, F, M]."""
  with v1.variable_scope("rel_attn"):
    x = funnel_attention.attention(config, query, key, structure)
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


def _recomputed_layer(config, query, key, structure):
  """Applies _layer, whose gradient computes it again."""
  return recomputation.recompute(
    lambda query, key: _layer(config, query, key, structure), query, key
  )
