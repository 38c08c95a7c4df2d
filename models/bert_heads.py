"""Task heads for BERT: classification, SQuAD spans, masked LM, next sentence, ELECTRA.

Heads and losses compute in float32, also if the encoder does not. Shapes: see bert.py;
K is the number of masked positions of a sequence.
"""

import dataclasses

import tensorflow as tf

from errors import UserError
from models import layers, pretraining
from models.bert import LAYER_NORM_EPSILON, BertConfig, BertModel

v1 = tf.compat.v1


def classification_logits(
  pooled_output: tf.Tensor,
  num_outputs: int,
  dropout_rate: float = 0.0,
  initializer_range: float = 0.02,
  scope: str | None = None,
) -> tf.Tensor:
  """BERT's classification head, dropout and a linear map: [B, H] -> float32 [B, num_outputs].

  The original always uses dropout 0.1. BertEncoder passes hidden_dropout_prob, which is 0.1 in
  every released configuration. Variables `output_weights` [num_outputs, H] and `output_bias` are at
  the top level, as in the original's run_classifier, or under `scope` if given.
  """
  x = layers.dropout(tf.cast(pooled_output, tf.float32), dropout_rate)
  with v1.variable_scope(scope) if scope else v1.variable_scope(v1.get_variable_scope()):
    weights = v1.get_variable(
      "output_weights",
      [num_outputs, x.shape[-1]],
      initializer=layers.truncated_normal(initializer_range),
    )
    bias = v1.get_variable("output_bias", [num_outputs], initializer=v1.zeros_initializer())
  return tf.matmul(x, weights, transpose_b=True) + bias


def electra_features(
  hidden: tf.Tensor,
  dropout_rate: float = 0.0,
  initializer_range: float = 0.02,
  scope: str = "classifier",
) -> tf.Tensor:
  """Hidden layer of ELECTRA's classification head: dropout, a linear map and GELU.

  This and classification_logits are Hugging Face's ElectraClassificationHead, which has the exact
  GELU whatever the encoder's activation. The original has classification_logits alone.

  Args:
    hidden: float [B, H], hidden states of the first tokens.
    dropout_rate: dropout of `hidden`.
    initializer_range: standard deviation of new weights.
    scope: variable scope of dense/{kernel,bias}.

  Returns:
    float32 [B, H].
  """
  x = layers.dropout(tf.cast(hidden, tf.float32), dropout_rate)
  initializer = layers.truncated_normal(initializer_range)
  with v1.variable_scope(scope):
    return layers.dense(
      x, x.shape[-1], "dense", initializer, activation=layers.get_activation("gelu_erf")
    )


def span_logits(sequence_output: tf.Tensor, initializer_range: float = 0.02) -> tuple:
  """Applies SQuAD's head: scores each token as the start and as the end of the answer.

  Args:
    sequence_output: float [B, T, H].
    initializer_range: standard deviation of new weights.

  Returns:
    (start logits, end logits), float32 [B, T] each. Variables cls/squad/output_weights [2, H] and
    cls/squad/output_bias [2], as in the original.
  """
  *outer, depth = layers.shape_list(sequence_output)
  with v1.variable_scope("cls/squad"):
    weights = v1.get_variable(
      "output_weights", [2, depth], initializer=layers.truncated_normal(initializer_range)
    )
    bias = v1.get_variable("output_bias", [2], initializer=v1.zeros_initializer())
  x = tf.reshape(tf.cast(sequence_output, tf.float32), [-1, depth])  # [B * T, H]
  logits = tf.reshape(tf.matmul(x, weights, transpose_b=True) + bias, [*outer, 2])
  return logits[..., 0], logits[..., 1]


def span_loss(
  start_logits: tf.Tensor,
  end_logits: tf.Tensor,
  start_positions: tf.Tensor,
  end_positions: tf.Tensor,
) -> tf.Tensor:
  """Mean cross entropy of start and end: [B, T], [B, T], int [B], int [B] -> [B]."""
  start, end = (
    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    for labels, logits in ((start_positions, start_logits), (end_positions, end_logits))
  )
  return (start + end) / 2.0


def span_candidates(
  start_logits: tf.Tensor, end_logits: tf.Tensor, is_passage: tf.Tensor, count: int
) -> dict[str, tf.Tensor]:
  """Best start and end positions in the passage, and the score of no answer.

  Args:
    start_logits: float32 [B, T].
    end_logits: float32 [B, T].
    is_passage: bool [B, T].
    count: number of starts and of ends. If the passage is shorter, the others have score -1e30.

  Returns:
    start_scores float32, start_index int32 [B, count]; end_scores, end_index [B, 1, count];
    null_score float32 [B], start plus end score of the first token.
  """

  def best(logits):
    logits = tf.where(is_passage, logits, tf.fill(tf.shape(logits), -1e30))
    return tf.nn.top_k(layers.pad_to(logits, [count], -1e30), count)

  start_scores, start_index = best(start_logits)
  end_scores, end_index = best(end_logits)
  return {
    "start_scores": start_scores,
    "start_index": start_index,
    "end_scores": end_scores[:, None],
    "end_index": end_index[:, None],
    "null_score": start_logits[:, 0] + end_logits[:, 0],
  }


def masked_lm_logits(
  model: BertModel,
  positions: tf.Tensor,
  scope: str = "cls/predictions",
  transform_scope: str = "cls/predictions/transform",
) -> tf.Tensor:
  """Vocabulary logits at masked positions, with the word embeddings as output weights.

  Variables `transform_scope`/{dense,LayerNorm}/... and `scope`/output_bias [V].

  Args:
    model: the encoder.
    positions: int32 [B, K].
    scope: variable scope of the bias.
    transform_scope: variable scope of the dense map and the layer normalization.

  Returns:
    float32 [B, K, V].
  """
  config, table = model.config, model.get_embedding_table()
  x = tf.gather(model.get_sequence_output(), positions, batch_dims=1)  # [B, K, H]
  with v1.variable_scope(transform_scope):
    x = layers.dense(
      tf.cast(x, tf.float32),
      table.shape[-1],
      "dense",
      layers.truncated_normal(config.initializer_range),
      layers.get_activation(config.hidden_act),
    )
    x = layers.layer_norm(x, "LayerNorm", LAYER_NORM_EPSILON)  # [B, K, E]
  with v1.variable_scope(scope):
    bias = v1.get_variable("output_bias", [config.vocab_size], initializer=v1.zeros_initializer())
  batch, count, depth = layers.shape_list(x)
  logits = tf.matmul(tf.reshape(x, [-1, depth]), table, transpose_b=True) + bias
  return tf.reshape(logits, [batch, count, config.vocab_size])


def next_sentence_logits(pooled_output: tf.Tensor, initializer_range: float = 0.02) -> tf.Tensor:
  """Logits of the second segment following the first (class 0) or not (1): [B, H] -> [B, 2].

  Variables cls/seq_relationship/{output_weights [2, H], output_bias [2]}.
  """
  with v1.variable_scope("cls/seq_relationship"):
    weights = v1.get_variable(
      "output_weights",
      [2, pooled_output.shape[-1]],
      initializer=layers.truncated_normal(initializer_range),
    )
    bias = v1.get_variable("output_bias", [2], initializer=v1.zeros_initializer())
  return tf.matmul(tf.cast(pooled_output, tf.float32), weights, transpose_b=True) + bias


def replaced_token_logits(model: BertModel) -> tf.Tensor:
  """Logits of ELECTRA's discriminator, positive for a replaced token: float32 [B, T].

  Variables discriminator_predictions/{dense,dense_1}/{kernel,bias}.
  """
  config = model.config
  initializer = layers.truncated_normal(config.initializer_range)
  with v1.variable_scope("discriminator_predictions"):
    x = layers.dense(
      tf.cast(model.get_sequence_output(), tf.float32),
      config.hidden_size,
      "dense",
      initializer,
      layers.get_activation(config.hidden_act),
    )
    return layers.dense(x, 1, "dense_1", initializer)[..., 0]


def generator_config(config: BertConfig, width_shrink: float = 0.25) -> BertConfig:
  """Configuration of ELECTRA's generator: widths and heads times `width_shrink`.

  It has at least one head. The width of the embeddings is not reduced.
  """
  heads = max(1, int(config.num_attention_heads * width_shrink))
  try:
    return dataclasses.replace(
      config,
      hidden_size=int(config.hidden_size * width_shrink),
      num_attention_heads=heads,
      intermediate_size=int(config.intermediate_size * width_shrink),
      embedding_size=config.embedding_width,
    )
  except UserError as error:
    raise UserError(f"the generator with width_shrink {width_shrink}: {error}") from None


def electra(
  config: BertConfig,
  features: dict[str, tf.Tensor],
  is_training: bool,
  width_shrink: float = 0.25,
  use_tpu: bool = False,
  compute_dtype: tf.DType = tf.float32,
  recompute_activations: bool = False,
) -> dict[str, tf.Tensor]:
  """Builds ELECTRA with BERT encoders. Label 1 of the discriminator: the token was replaced.

  The discriminator is in the scope of its family, "bert" or "electra", so that it can be
  fine-tuned. The generator is in "generator" and shares the discriminator's embeddings. With an
  ElectraConfig the names are those of the released checkpoints. For the arguments and the returned
  dict, see models.funnel_heads.electra.
  """
  embeddings_scope = f"{config.family}/embeddings"

  def encode(model_config, ids, **options):
    return BertModel(
      model_config,
      is_training,
      ids,
      features["input_mask"],
      features["segment_ids"],
      use_one_hot_embeddings=use_tpu,
      compute_dtype=compute_dtype,
      recompute_activations=recompute_activations,
      **options,
    )

  def generator_logits(ids):
    generator = encode(
      generator_config(config, width_shrink),
      ids,
      scope="generator",
      embeddings_scope=embeddings_scope,
      with_pooler=False,
    )
    return masked_lm_logits(
      generator, features["masked_lm_positions"], "generator_predictions", "generator_predictions"
    )

  def discriminator_logits(ids):
    return replaced_token_logits(encode(config, ids, embeddings_scope=embeddings_scope))

  return pretraining.electra(
    features, generator_logits, discriminator_logits, is_original_positive=False
  )
