"""Forward FLOPs of an encoder.

A FLOP is a multiplication or an addition; a matrix product [m, k] x [k, n] has 2mkn. The count
includes the matrix products of the encoder for one example, without embeddings, decoder and heads.
An update costs three times as much: the backward pass has two products for each forward one.
"""

from models.bert import BertConfig
from models.encoders import Config
from models.funnel_config import ModelConfig


def layer_flops(queries: int, keys: int, width: int, heads_width: int, inner: int) -> int:
  """FLOPs of one transformer layer for one example, without relative position terms."""
  projections = 2 * width * heads_width * (2 * queries + 2 * keys)  # q and o; k and v
  attention = 2 * 2 * queries * keys * heads_width  # scores, context
  feed_forward = 2 * 2 * queries * width * inner
  return projections + attention + feed_forward


def relative_flops(queries: int, keys: int, heads_width: int) -> int:
  """FLOPs of one layer's position scores for all distances (rel_shift) and segment scores."""
  distances = 2 * keys
  return 2 * queries * distances * heads_width + 2 * 2 * queries * heads_width


def pooled_length(config: ModelConfig, length: int) -> int:
  """Length after pooling: 128 -> 64; 17 -> 9 if [cls] is kept and the sequence is truncated."""
  kept = int(config.separate_cls)
  if kept and config.truncate_seq and config.pooling_size > 1:
    length -= 1
  return kept - (kept - length) // config.pooling_size


def decoder_flops(config: ModelConfig, length: int, relative: bool = False) -> int:
  """Forward FLOPs of a Funnel decoder, whose layers have the full length, for one example."""
  count, repeats = config.decoder
  heads_width = config.n_head * config.d_head
  total = layer_flops(length, length, config.d_model, heads_width, config.d_inner)
  if relative and config.rel_attn_type != "null":
    total += relative_flops(length, length, heads_width)
  return count * repeats * total


def encoder_flops(config: Config, length: int, relative: bool = False) -> int:
  """Forward FLOPs of an encoder for one example of `length` tokens."""
  if isinstance(config, BertConfig):
    width, layers = config.hidden_size, config.num_hidden_layers
    total = layers * layer_flops(length, length, width, width, config.intermediate_size)
    if config.embedding_width != width:
      total += 2 * length * config.embedding_width * width
    return total
  total, queries = 0, length
  heads_width = config.n_head * config.d_head
  for block, (count, repeats) in enumerate(config.blocks):
    if block:
      queries = pooled_length(config, queries)
    for layer in range(count * repeats):
      if not block or layer or not config.pool_q_only:  # else keys are the sequence before pooling
        keys = queries
      total += layer_flops(queries, keys, config.d_model, heads_width, config.d_inner)
      if relative and config.rel_attn_type != "null":
        total += relative_flops(queries, keys, heads_width)
  if config.d_embed != config.d_model:
    total += 2 * length * config.d_embed * config.d_model
  return total
