"""Pretraining objectives shared by BERT and Funnel-Transformer: masked tokens, ELECTRA.

Shape legend: B batch, L length, V vocab_size, K masked positions of a sequence (unused ones have
weight 0).
"""

from collections.abc import Callable

import tensorflow as tf

from models import layers


def masked_token_losses(logits: tf.Tensor, ids: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  """Sum of the cross entropies of each sequence's masked tokens.

  Args:
    logits: float32 [B, K, V].
    ids: int32 [B, K], the original tokens.
    weights: float32 [B, K], 1 = a masked token, 0 = an unused position.

  Returns:
    float32 [B].
  """
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids, logits=logits)  # [B, K]
  return tf.reduce_sum(losses * weights, axis=1)


def gumbel_sample(
  logits: tf.Tensor, noise: tf.Tensor | None = None, rows: tf.Tensor | None = None
) -> tf.Tensor:
  """Draws from softmax(logits) as the argmax of logits plus Gumbel noise: [..., V] -> int32 [...].

  Args:
    logits: float [..., V].
    noise: float32 of logits' shape, uniform in [0, 1). None draws it, see layers.random_uniform.
    rows: int32 [B], numbers of logits' rows for layers.random_uniform, or None.
  """
  if noise is None:
    noise = layers.random_uniform(tf.shape(logits), "gumbel", rows)
  gumbel = -tf.math.log(-tf.math.log(noise + 1e-9) + 1e-9)
  return tf.argmax(tf.cast(logits, tf.float32) + gumbel, axis=-1, output_type=tf.int32)


def place_tokens(
  ids: tf.Tensor, positions: tf.Tensor, tokens: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
  """Replaces ids [B, L] at positions [B, K] by tokens [B, K] whose weights [B, K] are positive.

  It compares positions, because TPUs have no fast scatter. A matrix product would round the ids to
  bfloat16 there.
  """
  all_positions = tf.range(layers.shape_list(ids)[1])
  hit = tf.equal(positions[:, :, None], all_positions) & (weights[:, :, None] > 0)  # [B, K, L]
  placed = tf.reduce_sum(tf.where(hit, tokens[:, :, None], 0), axis=1)  # [B, L]
  return tf.where(tf.reduce_any(hit, axis=1), placed, ids)


def electra(
  features: dict[str, tf.Tensor],
  generator: Callable[[tf.Tensor], tf.Tensor],
  discriminator: Callable[[tf.Tensor], tf.Tensor],
  is_original_positive: bool,
  noise: tf.Tensor | None = None,
) -> dict[str, tf.Tensor]:
  """Builds ELECTRA on a batch: generator, sampling, discriminator (Clark et al. 2020).

  Source: arXiv:2003.10555. No gradient passes through the sampling.

  Args:
    features: input_ids (masked) and origin_ids int32 [B, L]; input_mask int32 [B, L], 1 = real
      token; masked_lm_positions, masked_lm_ids int32 [B, K], masked_lm_weights float32 [B, K];
      in evaluation example_index int32 [B], which seeds the sampling of each example.
    generator: ids [B, L] -> float32 [B, K, V], logits of the masked tokens.
    discriminator: ids [B, L] -> float32 [B, L], logits of the tokens' labels.
    is_original_positive: label 1 means that a token is original (released Funnel-Transformers),
      otherwise that it was replaced (released ELECTRA models).
    noise: float32 [B, K, V], see gumbel_sample.

  Returns:
    generator_logits float32 [B, K, V]; samples int32 [B, K]; replaced_ids int32 [B, L];
    discriminator_logits float32 [B, L]; is_replaced bool [B, L], false on padding;
    guessed_replaced bool [B, L], the discriminator's prediction;
    generator_losses, discriminator_losses float32 [B], sums over masked and over real tokens.
  """
  logits = generator(features["input_ids"])
  samples = tf.stop_gradient(gumbel_sample(logits, noise, features.get("example_index")))
  origin = features["origin_ids"]
  replaced = place_tokens(
    origin, features["masked_lm_positions"], samples, features["masked_lm_weights"]
  )
  is_real = tf.cast(features["input_mask"], tf.bool)
  is_replaced = tf.not_equal(replaced, origin) & is_real
  scores = discriminator(replaced)
  labels = tf.cast(tf.not_equal(is_replaced, is_original_positive), tf.float32)
  losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=scores)  # [B, L]
  return {
    "generator_logits": logits,
    "samples": samples,
    "replaced_ids": replaced,
    "discriminator_logits": scores,
    "is_replaced": is_replaced,
    "guessed_replaced": tf.not_equal(scores > 0, is_original_positive),
    "generator_losses": masked_token_losses(
      logits, features["masked_lm_ids"], features["masked_lm_weights"]
    ),
    "discriminator_losses": tf.reduce_sum(losses * tf.cast(is_real, tf.float32), axis=1),
  }
