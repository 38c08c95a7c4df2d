"""What stands on BERT: the classification and regression head.

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
