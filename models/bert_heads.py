"""What stands on BERT: the head of classification and regression, and the span head of SQuAD.

Heads compute in float32 whatever the encoder computes in, and so do the losses on them.
"""

import tensorflow as tf

from models import layers

v1 = tf.compat.v1


def classification_logits(pooled_output: tf.Tensor, num_outputs: int, dropout_rate: float = 0.0,
                          initializer_range: float = 0.02, scope: str | None = None) -> tf.Tensor:
  """BERT's classification head: dropout and one linear map, [B, H] -> float32 [B, num_outputs].

  The original's dropout is 0.1 whatever the configuration says; here it is the encoder's
  hidden_dropout_prob, which is 0.1 in every released configuration. Variables `output_weights`
  [num_outputs, H] and `output_bias` stand at the top level as in the original's run_classifier, or
  under `scope` where one is given.
  """
  x = layers.dropout(tf.cast(pooled_output, tf.float32), dropout_rate)
  with v1.variable_scope(scope) if scope else v1.variable_scope(v1.get_variable_scope()):
    weights = v1.get_variable("output_weights", [num_outputs, x.shape[-1]],
                              initializer=layers.truncated_normal(initializer_range))
    bias = v1.get_variable("output_bias", [num_outputs], initializer=v1.zeros_initializer())
  return tf.matmul(x, weights, transpose_b=True) + bias


def span_logits(sequence_output: tf.Tensor, initializer_range: float = 0.02) -> tuple:
  """SQuAD's head: one linear map of each token to a score as start and one as end of the answer.

  Args:
    sequence_output: float [B, T, H].
    initializer_range: standard deviation of new weights.

  Returns:
    (start logits, end logits), float32 [B, T] each. Variables cls/squad/output_weights [2, H] and
    cls/squad/output_bias [2], as in the original.
  """
  *outer, depth = layers.shape_list(sequence_output)
  with v1.variable_scope("cls/squad"):
    weights = v1.get_variable("output_weights", [2, depth],
                              initializer=layers.truncated_normal(initializer_range))
    bias = v1.get_variable("output_bias", [2], initializer=v1.zeros_initializer())
  x = tf.reshape(tf.cast(sequence_output, tf.float32), [-1, depth])  # [B * T, H]
  logits = tf.reshape(tf.matmul(x, weights, transpose_b=True) + bias, [*outer, 2])
  return logits[..., 0], logits[..., 1]


def span_loss(start_logits: tf.Tensor, end_logits: tf.Tensor, start_positions: tf.Tensor,
              end_positions: tf.Tensor) -> tf.Tensor:
  """Mean of the cross entropies of start and end: [B, T], [B, T], int [B], int [B] -> [B]."""
  start, end = (tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
                for labels, logits in ((start_positions, start_logits),
                                       (end_positions, end_logits)))
  return (start + end) / 2.0


def span_candidates(start_logits: tf.Tensor, end_logits: tf.Tensor, is_passage: tf.Tensor,
                    count: int) -> dict[str, tf.Tensor]:
  """The best starts and the best ends in the passage, and the score of no answer.

  Args:
    start_logits: float32 [B, T].
    end_logits: float32 [B, T].
    is_passage: bool [B, T].
    count: how many of each; where there are fewer, the score of the others is -1e30.

  Returns:
    start_scores float32, start_index int32 [B, count]; end_scores, end_index [B, 1, count];
    null_score float32 [B], start plus end at the first token.
  """
  def best(logits):
    logits = tf.where(is_passage, logits, tf.fill(tf.shape(logits), -1e30))
    return tf.nn.top_k(layers.pad_to(logits, [count], -1e30), count)

  start_scores, start_index = best(start_logits)
  end_scores, end_index = best(end_logits)
  return {"start_scores": start_scores, "start_index": start_index,
          "end_scores": end_scores[:, None], "end_index": end_index[:, None],
          "null_score": start_logits[:, 0] + end_logits[:, 0]}
