"""Task heads for Funnel-Transformer: classification, regression, RACE, MLM, ELECTRA, SQuAD.

Heads and losses compute in float32, also if the model does not. Variable names are
those of the released checkpoints. A head that is built again in a graph shares its variables.

Shape legend, for every comment in this file:
  B  batch     L  sequence length     M  d_model     E  d_embed     V  vocab_size
  K  predicted tokens per sequence (MLM, ELECTRA), or start candidates per sequence (SQuAD)
"""

import dataclasses
import functools

import tensorflow as tf

from errors import UserError
from models import layers, pretraining
from models.funnel import LAYER_NORM_EPSILON, FunnelTFM
from models.funnel_config import ModelConfig

v1 = tf.compat.v1


def _scope(name):
  return v1.variable_scope(name, reuse=v1.AUTO_REUSE)


# Classification, regression, multiple choice


def classification_logits(
  config: ModelConfig, summary: tf.Tensor, num_outputs: int, scope: str
) -> tf.Tensor:
  """Linear map, variables model/`scope`/logit: [B, M] -> float32 [B, num_outputs]."""
  with _scope(f"model/{scope}"):
    return layers.dense(tf.cast(summary, tf.float32), num_outputs, "logit", config.initializer)


def race_logits(
  config: ModelConfig, summary: tf.Tensor, num_options: int = 4, scope: str = "race"
) -> tf.Tensor:
  """Scores of each question's options, variables model/`scope`/logits.

  Args:
    config: ModelConfig.
    summary: float [B * num_options, M], the options of a question in consecutive rows.
    num_options: options per question.
    scope: variable scope of the head below "model".

  Returns:
    float32 [B, num_options].
  """
  with _scope(f"model/{scope}"):
    logits = layers.dense(tf.cast(summary, tf.float32), 1, "logits", config.initializer)
  return tf.reshape(logits, [-1, num_options])


# Masked language model and ELECTRA


def mlm_logits(
  config: ModelConfig, hidden: tf.Tensor, positions: tf.Tensor, scope: str = "model"
) -> tf.Tensor:
  """Vocabulary logits at masked positions, with the word embeddings as output weights.

  Args:
    config: ModelConfig of the model that `hidden` is from.
    hidden: float [B, L, M], the decoder's output.
    positions: int32 [B, K], positions of the predicted tokens.
    scope: scope of the model; variables `scope`/lm_proj and `scope`/lm_loss.

  Returns:
    float32 [B, K, V].
  """
  x = tf.cast(tf.gather(hidden, positions, batch_dims=1), tf.float32)  # [B, K, M]
  table = FunnelTFM(config).get_embedding_table()
  with _scope(scope):
    with v1.variable_scope("lm_proj"):
      x = layers.dense(
        x, config.d_embed, "dense", config.initializer, layers.get_activation(config.ff_activation)
      )
      x = layers.layer_norm(x, "layer_norm", LAYER_NORM_EPSILON)  # [B, K, E]
    with v1.variable_scope("lm_loss"):
      bias = v1.get_variable("bias", [config.vocab_size], initializer=v1.zeros_initializer())
  batch, count, depth = layers.shape_list(x)
  logits = tf.matmul(tf.reshape(x, [-1, depth]), table, transpose_b=True) + bias
  return tf.reshape(logits, [batch, count, config.vocab_size])


def generator_config(config: ModelConfig, width_shrink: float = 0.25) -> ModelConfig:
  """Configuration of ELECTRA's generator: d_model, d_inner and n_head times `width_shrink`.

  They are at least 1.
  """
  shrink = lambda size: max(1, int(size * width_shrink))
  try:
    return dataclasses.replace(
      config,
      d_model=shrink(config.d_model),
      d_inner=shrink(config.d_inner),
      n_head=shrink(config.n_head),
    )
  except UserError as error:
    raise UserError(f"the generator with width_shrink {width_shrink}: {error}") from None


def binary_logits(config: ModelConfig, hidden: tf.Tensor) -> tf.Tensor:
  """Logits of ELECTRA's discriminator, positive for an original token.

  Shapes: float [B, L, M] -> float32 [B, L].

  Variables model/binary_proj/dense, model/binary_loss/{weight,bias}.
  """
  with _scope("model"):
    with v1.variable_scope("binary_proj"):
      x = layers.dense(
        tf.cast(hidden, tf.float32), config.d_model, "dense", config.initializer, layers.gelu
      )  # gelu also if ff_activation differs
    with v1.variable_scope("binary_loss"):
      weight = v1.get_variable("weight", [config.d_model], initializer=config.initializer)
      bias = v1.get_variable("bias", [1], initializer=v1.zeros_initializer())
  return tf.reduce_sum(x * weight, axis=-1) + bias


def electra(
  config: ModelConfig,
  features: dict,
  is_training: bool,
  width_shrink: float = 0.25,
  use_tpu: bool = False,
  compute_dtype: tf.DType = tf.float32,
  recompute_activations: bool = False,
  noise: tf.Tensor | None = None,
) -> dict:
  """Builds ELECTRA with Funnel-Transformers. Label 1 of the discriminator: an original token.

  Args:
    config: ModelConfig of the discriminator.
    features: as for models.pretraining.electra, and segment_ids int32 [B, L].
    is_training: dropout is on only when True.
    width_shrink: the generator's width as a fraction of the discriminator's.
    use_tpu: as for FunnelTFM.
    compute_dtype: as for FunnelTFM.
    recompute_activations: as for FunnelTFM.
    noise: float32 [B, K, V], see models.pretraining.gumbel_sample.

  Returns:
    See models.pretraining.electra.
  """
  small_config = generator_config(config, width_shrink)
  build = functools.partial(
    FunnelTFM, compute_dtype=compute_dtype, recompute_activations=recompute_activations
  )

  def hidden_states(model, ids):
    return model.extract_hiddens(
      ids,
      is_training,
      seg_id=features["segment_ids"],
      input_mask=1 - features["input_mask"],
      use_decoder=True,
      use_tpu=use_tpu,
    )[0]

  return pretraining.electra(
    features,
    lambda ids: mlm_logits(
      small_config,
      hidden_states(build(small_config, scope="generator"), ids),
      features["masked_lm_positions"],
      "generator",
    ),
    lambda ids: binary_logits(config, hidden_states(build(config), ids)),
    is_original_positive=True,
    noise=noise,
  )


# SQuAD


def squad_train(
  config: ModelConfig,
  hidden: tf.Tensor,
  features: dict,
  is_training: bool,
  conditional_end: bool = True,
  use_answer_class: bool = True,
  ans_loss_weight: float = 0.5,
  cls_loss_weight: float = 0.5,
) -> dict:
  """Builds SQuAD's heads for training: start and end of the answer, answerability, and the loss.

  Args:
    config: ModelConfig.
    hidden: float [B, L, M], the decoder's output.
    features: start_positions, end_positions, cls_index int [B]; p_mask [B, L], 1 at
      positions that cannot be in an answer (none if missing); is_impossible [B], only read with
      use_answer_class.
    is_training: dropout is on only when True.
    conditional_end: predict the end given the start, in training the gold start.
    use_answer_class: predict unanswerable questions with a separate head; otherwise cls_logits is
      the start's log-probability at cls_index.
    ans_loss_weight: weight of the start's loss plus the end's.
    cls_loss_weight: weight of the loss of use_answer_class.

  Returns:
    start_log_probs, end_log_probs float32 [B, L]; cls_logits float32 [B], high = no answer;
    losses float32 [B]; total_loss float32 scalar, their mean.
  """
  hidden = tf.cast(hidden, tf.float32)
  p_mask = features.get("p_mask")
  start_logits = _start_logits(config, hidden, p_mask)
  start_log_probs = tf.nn.log_softmax(start_logits)
  start = features["start_positions"]
  end_log_probs = tf.nn.log_softmax(
    _end_logits(config, hidden, p_mask, start[:, None], conditional_end)
  )[:, 0]
  cls_logits = _no_answer_logits(
    config, hidden, start_logits, features["cls_index"], is_training, use_answer_class
  )
  losses = -ans_loss_weight * (
    _at(start_log_probs, start) + _at(end_log_probs, features["end_positions"])
  )
  if use_answer_class:
    losses += cls_loss_weight * tf.nn.sigmoid_cross_entropy_with_logits(
      labels=tf.cast(features["is_impossible"], tf.float32), logits=cls_logits
    )
  return {
    "start_log_probs": start_log_probs,
    "end_log_probs": end_log_probs,
    "cls_logits": cls_logits,
    "losses": losses,
    "total_loss": tf.reduce_mean(losses),
  }


def squad_predict(
  config: ModelConfig,
  hidden: tf.Tensor,
  features: dict,
  conditional_end: bool = True,
  use_answer_class: bool = True,
  start_n_top: int = 5,
  end_n_top: int = 5,
) -> dict:
  """Most probable starts, and most probable ends of each start (of all unless conditional_end).

  Arguments: see squad_train; the features are cls_index and p_mask. A sequence shorter than
  start_n_top or end_n_top has fewer candidates.

  Returns:
    start_top_log_probs float32, start_top_index int32 [B, start_n_top]; end_top_log_probs,
    end_top_index [B, start_n_top * end_n_top], sorted by start, or [B, end_n_top] without
    conditional_end; cls_logits float32 [B], high = no answer.
  """
  hidden = tf.cast(hidden, tf.float32)
  p_mask = features.get("p_mask")
  batch, length, _ = layers.shape_list(hidden)
  at_most = lambda n: min(n, length) if isinstance(length, int) else tf.minimum(n, length)
  start_logits = _start_logits(config, hidden, p_mask)
  start_log_probs, start_index = tf.nn.top_k(
    tf.nn.log_softmax(start_logits), at_most(start_n_top)
  )  # [B, K]
  end_log_probs, end_index = tf.nn.top_k(
    tf.nn.log_softmax(_end_logits(config, hidden, p_mask, start_index, conditional_end)),
    at_most(end_n_top),
  )  # [B, K or 1, end_n_top]
  return {
    "start_top_log_probs": start_log_probs,
    "start_top_index": start_index,
    "end_top_log_probs": tf.reshape(end_log_probs, [batch, -1]),
    "end_top_index": tf.reshape(end_index, [batch, -1]),
    "cls_logits": _no_answer_logits(
      config, hidden, start_logits, features["cls_index"], False, use_answer_class
    ),
  }


def _at(x, index):
  """Gathers x[b, index[b]]: [B, L, ...] and int [B] -> [B, ...]."""
  return tf.gather(x, index, batch_dims=1)


def _exclude(logits, p_mask):
  """Sets logits to -1e30 at positions with p_mask 1, so that they are not predicted."""
  if p_mask is None:
    return logits
  p_mask = tf.cast(p_mask, tf.float32)
  return logits * (1.0 - p_mask) - 1e30 * p_mask


def _start_logits(config, hidden, p_mask):
  """Scores of the starts: [B, L, M] -> [B, L]."""
  with _scope("model/start_logits"):
    logits = layers.dense(hidden, 1, "dense", config.initializer)
  return _exclude(logits[..., 0], p_mask)


def _end_logits(config, hidden, p_mask, start_index, conditional):
  """Scores of the ends: [B, K, L] given each start [B, K], or [B, 1, L] without condition."""
  depth = config.d_model
  with _scope("model/end_logits"):
    if conditional:
      with v1.variable_scope("dense_0"):
        kernel = v1.get_variable("kernel", [2 * depth, depth], initializer=config.initializer)
        bias = v1.get_variable("bias", [depth], initializer=v1.zeros_initializer())
      # The linear map of the concatenation (token, start), without building all pairs first.
      token_term = tf.tensordot(hidden, kernel[:depth], 1)  # [B, L, M]
      start_term = tf.tensordot(_at(hidden, start_index), kernel[depth:], 1)  # [B, K, M]
      x = tf.tanh(token_term[:, None] + start_term[:, :, None] + bias)  # [B, K, L, M]
      x = layers.layer_norm(x, "layer_norm", LAYER_NORM_EPSILON)
      logits = layers.dense(x, 1, "dense_1", config.initializer)[..., 0]  # [B, K, L]
    else:
      logits = layers.dense(hidden, 1, "dense", config.initializer)[..., 0][:, None]
  return _exclude(logits, None if p_mask is None else p_mask[:, None])


def _no_answer_logits(config, hidden, start_logits, cls_index, is_training, use_answer_class):
  """Scores of the question having no answer, [B]."""
  if not use_answer_class:
    return _at(tf.nn.log_softmax(start_logits), cls_index)
  expected = tf.matmul(tf.nn.softmax(start_logits)[:, None], hidden)[:, 0]  # [B, M]
  with _scope("model/answer_class"):
    x = layers.dense(
      tf.concat([expected, _at(hidden, cls_index)], axis=-1),
      config.d_model,
      "dense_0",
      config.initializer,
      tf.tanh,
    )
    x = layers.dropout(x, config.dropout if is_training else 0.0)
    with v1.variable_scope("dense_1"):
      kernel = v1.get_variable("kernel", [config.d_model, 1], initializer=config.initializer)
  return tf.matmul(x, kernel)[:, 0]
