"""What stands on an encoder: classification and regression heads.

Heads compute in float32 whatever the encoder computes in, and so do the losses on them.
"""

import tensorflow as tf

from models import layers

v1 = tf.compat.v1


def bert_classifier(pooled_output: tf.Tensor, num_outputs: int, dropout_rate: float = 0.0,
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


def classification_logits(encoder, num_outputs: int, scope: str | None = None) -> tf.Tensor:
  """Classification (or with num_outputs 1 regression) head of the encoder's model family.

  Args:
    encoder: what modeling.build_encoder returned.
    num_outputs: number of classes.
    scope: variable scope of the head; None for the family's own place.

  Returns:
    float32 [B, num_outputs].
  """
  return bert_classifier(encoder.get_pooled_output(), num_outputs,
                         encoder.config.hidden_dropout_prob, encoder.config.initializer_range,
                         scope)
