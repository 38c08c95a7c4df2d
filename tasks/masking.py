"""Masking during training, as in the pretraining of Funnel-Transformer and XLNet.

A sequence gets new masks in every epoch. All draws are functions of a seed. All steps are
TensorFlow operations on whole batches, so they run in any input pipeline.

Shape legend: B batch, L length, K maximum number of masked tokens (a sequence may have fewer).
"""

import dataclasses

import tensorflow as tf

from errors import UserError

STRATEGIES = ("single_token", "whole_word", "token_span", "word_span")


@dataclasses.dataclass(frozen=True)
class Masking:
  """Settings of the masking.

  Attributes:
    sample_strategy: unit that is masked as a whole: "single_token", "whole_word", "token_span" (of
      min_tok to max_tok tokens) or "word_span" (of min_word to max_word words). A span has length n
      with a probability proportional to 1 / (n + 1).
    num_predict: number of masked tokens in a full sequence, K; a shorter one has proportionally
      fewer.
    leak_ratio: fraction of the masked tokens that stay unchanged.
    rand_ratio: fraction that becomes a random token; the rest becomes the mask symbol.
    min_tok, max_tok, min_word, max_word: lengths of spans.
  """

  sample_strategy: str
  num_predict: int
  leak_ratio: float = 0.1
  rand_ratio: float = 0.1
  min_tok: int = 1
  max_tok: int = 5
  min_word: int = 1
  max_word: int = 5

  def __post_init__(self):
    """Raises UserError if values contradict one another."""
    for unit in ("tok", "word"):
      shortest, longest = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
      if shortest > longest:
        raise UserError(f"--min_{unit}={shortest} is more than --max_{unit}={longest}")
    if min(self.leak_ratio, self.rand_ratio) < 0 or self.leak_ratio + self.rand_ratio > 1:
      raise UserError(
        f"--leak_ratio={self.leak_ratio} and --rand_ratio={self.rand_ratio} must be "
        f"fractions of the masked tokens, together at most 1"
      )


def _uniform(shape, seed, purpose: int):
  """float32 draws of `shape` in [0, 1); a seed [B, 2] has one seed per row."""
  draw = lambda shape, seed: tf.random.stateless_uniform(
    shape, tf.random.experimental.stateless_fold_in(seed, purpose)
  )
  if seed.shape.rank == 1:
    return draw(shape, seed)
  return tf.map_fn(lambda own: draw(shape[1:], own), seed, fn_output_signature=tf.float32)


def _span_starts(shape, shortest, longest, seed):
  """First tokens of consecutive random spans that cover each row: bool [B, L]."""
  lengths = tf.range(shortest, longest + 1)
  chances = tf.math.cumsum(1.0 / tf.cast(lengths + 1, tf.float32))
  draws = _uniform(shape, seed, 1) * chances[-1]
  index = tf.minimum(
    tf.searchsorted(chances, tf.reshape(draws, [-1]), side="right"), longest - shortest
  )
  ends = tf.math.cumsum(tf.reshape(tf.gather(lengths, index), shape), axis=1)  # [B, L]
  # Spans begin at 0 and at the end of the previous span.
  rows = tf.broadcast_to(tf.range(shape[0])[:, None], shape)
  inside = tf.cast(ends < shape[1], tf.int32)
  marks = tf.scatter_nd(tf.stack([rows, ends * inside], axis=-1), inside, shape)
  return (marks > 0) | tf.equal(tf.range(shape[1]), 0)


def _unit_starts(masking, is_special, is_start, seed):
  """First token of each unit that the strategy masks as a whole: bool [B, L]."""
  shape = tf.shape(is_start)
  new_word = is_start | is_special
  if masking.sample_strategy == "single_token":
    return tf.fill(shape, True)
  if masking.sample_strategy == "whole_word":
    return new_word
  if masking.sample_strategy == "token_span":
    starts = _span_starts(shape, masking.min_tok, masking.max_tok, seed)
  else:
    of_words = _span_starts(shape, masking.min_word, masking.max_word, seed)
    word = tf.math.cumsum(tf.cast(new_word, tf.int32), axis=1) - 1
    starts = new_word & tf.gather(of_words, tf.maximum(word, 0), batch_dims=1)
  # No span contains a special symbol.
  after_special = tf.concat([is_special[:, :1], is_special[:, :-1]], axis=1)
  return starts | is_special | after_special


def choose(
  masking: Masking, is_special: tf.Tensor, is_start: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Chooses the tokens to mask.

  Units are taken in random order while they fit into the quota together. The rest of the quota is
  filled with single tokens. No position is chosen twice.

  Args:
    masking: settings of the masking.
    is_special: bool [B, L], tokens that are never masked, including padding.
    is_start: bool [B, L], tokens that begin a word.
    seed: int32 [2], or [B, 2] with one seed per sequence.

  Returns:
    positions int32 [B, K], ascending, and weights float32 [B, K]. Unused entries come last, with
    position 0 and weight 0.
  """
  shape = tf.shape(is_special)
  length, count = shape[1], masking.num_predict
  candidate = ~is_special
  number = tf.reduce_sum(tf.cast(candidate, tf.int32), axis=1)  # [B]
  # A shorter sequence has a proportional quota, rounded up; three specials count as tokens.
  share = (count * (number + 3) + length - 1) // length
  quota = tf.minimum(tf.minimum(share, count), number)  # [B]
  score = _uniform(shape, seed, 2)  # of single tokens
  if masking.sample_strategy != "single_token":
    unit = (
      tf.math.cumsum(tf.cast(_unit_starts(masking, is_special, is_start, seed), tf.int32), axis=1)
      - 1
    )
    unit = tf.maximum(unit, 0) + tf.range(shape[0])[:, None] * length
    size = tf.reshape(
      tf.math.unsorted_segment_sum(tf.cast(candidate, tf.int32), unit, shape[0] * length), shape
    )  # [B, units]
    order = tf.argsort(tf.where(size > 0, _uniform(shape, seed, 3), 2.0), axis=1)
    total = tf.math.cumsum(tf.gather(size, order, batch_dims=1), axis=1)
    rank = tf.argsort(order, axis=1)  # rank of each unit in the order
    taken = tf.gather(total <= quota[:, None], rank, batch_dims=1)
    score += tf.cast(tf.gather(tf.reshape(taken, [-1]), unit), tf.float32)
  score, positions = tf.math.top_k(tf.where(candidate, score, -1.0), count)
  used = tf.range(count) < quota[:, None]
  positions = tf.sort(tf.where(used, positions, length), axis=1)
  used = positions < length
  return tf.where(used, positions, 0), tf.cast(used, tf.float32)


def corrupt(
  masking: Masking,
  ids: tf.Tensor,
  positions: tf.Tensor,
  mask_id: int,
  vocab_size: int,
  seed: tf.Tensor,
) -> tf.Tensor:
  """Returns the tokens to write at the masked positions: mask symbol, original or random token.

  Args:
    masking: settings of the masking, of which the ratios are used.
    ids: int32 [B, L].
    positions: int32 [B, K].
    mask_id: id of the mask symbol.
    vocab_size: upper bound of random token ids, exclusive.
    seed: int32 [2], or [B, 2] with one seed per sequence.

  Returns:
    int32 [B, K].
  """
  shape = tf.shape(positions)
  draw = _uniform(shape, seed, 4)
  other = tf.cast(_uniform(shape, seed, 5) * vocab_size, tf.int32)
  own = tf.gather(ids, positions, batch_dims=1)
  return tf.where(
    draw < masking.leak_ratio,
    own,
    tf.where(draw < masking.leak_ratio + masking.rand_ratio, other, mask_id),
  )
