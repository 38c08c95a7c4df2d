"""Functions of google-research/bert's `modeling`, for programs built on it.

Names, parameters, defaults and variable names are the published ones; the layers are those of this
repository. Functions raise ValueError, as published.

Shape legend: B batch, F/T length of queries/keys, W width, N num_attention_heads,
D size_per_head.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models import bert, layers

v1 = tf.compat.v1

Activation = Callable[[tf.Tensor], tf.Tensor]

gelu = layers.gelu


def get_activation(activation_string: Any) -> Activation | None:
  """Activation function by name; None for "" and "linear". Other types are returned unchanged."""
  if not isinstance(activation_string, str):
    return activation_string
  name = activation_string.lower()
  return None if name in ("", "linear") else layers.get_activation(name)


def create_initializer(initializer_range: float = 0.02) -> tf.initializers.Initializer:
  """Truncated normal initializer with this standard deviation."""
  return layers.truncated_normal(initializer_range)


def assert_rank(tensor: tf.Tensor, expected_rank: int | list[int], name: str | None = None) -> None:
  """Raises ValueError unless the rank of `tensor` is `expected_rank`, or one of them."""
  expected = [expected_rank] if isinstance(expected_rank, int) else list(expected_rank)
  if tensor.shape.rank not in expected:
    raise ValueError(
      f"{name or tensor.name}: rank {tensor.shape.rank} (shape {tensor.shape}), "
      f"expected {' or '.join(map(str, expected))}"
    )


def get_shape_list(
  tensor: tf.Tensor, expected_rank: int | list[int] | None = None, name: str | None = None
) -> list:
  """Shape as a list: an int for each static dimension, a scalar tensor for each dynamic one."""
  if expected_rank is not None:
    assert_rank(tensor, expected_rank, name)
  return layers.shape_list(tensor)


def reshape_to_matrix(input_tensor: tf.Tensor) -> tf.Tensor:
  """Reshapes [..., W] -> [rows, W]; ValueError for a rank below 2."""
  if input_tensor.shape.rank < 2:
    raise ValueError(f"expected rank 2 or more, not shape {input_tensor.shape}")
  return tf.reshape(input_tensor, [-1, get_shape_list(input_tensor)[-1]])


def reshape_from_matrix(output_tensor: tf.Tensor, orig_shape_list: list) -> tf.Tensor:
  """Inverse of reshape_to_matrix: [rows, W] -> [*orig_shape_list[:-1], W]."""
  width = get_shape_list(output_tensor, expected_rank=2)[1]
  return tf.reshape(output_tensor, [*orig_shape_list[:-1], width])


def dropout(input_tensor: tf.Tensor, dropout_prob: float | None) -> tf.Tensor:
  """Zeroes elements with probability `dropout_prob`; None and 0 return the tensor itself."""
  return layers.dropout(input_tensor, dropout_prob or 0.0)


def layer_norm(input_tensor: tf.Tensor, name: str | None = None) -> tf.Tensor:
  """Layer normalization over the last axis, variables {`name` or LayerNorm}/{beta,gamma}."""
  with v1.variable_scope(name, default_name="LayerNorm") as scope:
    return layers.layer_norm(input_tensor, scope, bert.LAYER_NORM_EPSILON)


def layer_norm_and_dropout(
  input_tensor: tf.Tensor, dropout_prob: float | None, name: str | None = None
) -> tf.Tensor:
  """Layer normalization followed by dropout."""
  return dropout(layer_norm(input_tensor, name), dropout_prob)


def embedding_lookup(
  input_ids: tf.Tensor,
  vocab_size: int,
  embedding_size: int = 128,
  initializer_range: float = 0.02,
  word_embedding_name: str = "word_embeddings",
  use_one_hot_embeddings: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Looks ids up in the variable `word_embedding_name`.

  Args:
    input_ids: int32 [B, T], or [B, T, K] for K ids at each position.
    vocab_size: rows of the table.
    embedding_size: E, columns of the table.
    initializer_range: standard deviation of new weights.
    word_embedding_name: name of the variable.
    use_one_hot_embeddings: look ids up by a matrix product (for TPU) instead of a gather.

  Returns:
    (float32 [B, T, E] or [B, T, K * E], the table float32 [vocab_size, E]).
  """
  table = v1.get_variable(
    word_embedding_name,
    [vocab_size, embedding_size],
    initializer=create_initializer(initializer_range),
  )
  output = layers.embedding_lookup(input_ids, table, use_one_hot_embeddings)
  if input_ids.shape.rank == 3:
    *outer, count = get_shape_list(input_ids)
    output = tf.reshape(output, [*outer, count * embedding_size])
  return output, table


def embedding_postprocessor(
  input_tensor: tf.Tensor,
  use_token_type: bool = False,
  token_type_ids: tf.Tensor | None = None,
  token_type_vocab_size: int = 16,
  token_type_embedding_name: str = "token_type_embeddings",
  use_position_embeddings: bool = True,
  position_embedding_name: str = "position_embeddings",
  initializer_range: float = 0.02,
  max_position_embeddings: int = 512,
  dropout_prob: float | None = 0.1,
) -> tf.Tensor:
  """Adds segment and position embeddings, then layer normalization and dropout.

  Args:
    input_tensor: float [B, T, W].
    use_token_type: add the embeddings of token_type_ids.
    token_type_ids: int32 [B, T], segment ids.
    token_type_vocab_size: number of segment ids.
    token_type_embedding_name: variable of the segment embeddings [token_type_vocab_size, W].
    use_position_embeddings: add the embeddings of positions 0 to T - 1.
    position_embedding_name: variable of the position embeddings [max_position_embeddings, W].
    initializer_range: standard deviation of new weights.
    max_position_embeddings: largest T.
    dropout_prob: probability of a zero; None for no dropout.

  Returns:
    float [B, T, W].

  Raises:
    ValueError: T is larger than max_position_embeddings, or token_type_ids is missing.
  """
  _, length, width = get_shape_list(input_tensor, expected_rank=3)
  initializer = create_initializer(initializer_range)
  output = input_tensor
  if use_token_type:
    if token_type_ids is None:
      raise ValueError("use_token_type needs token_type_ids")
    table = v1.get_variable(
      token_type_embedding_name, [token_type_vocab_size, width], initializer=initializer
    )
    output += layers.embedding_lookup(token_type_ids, table, True, output.dtype)
  if use_position_embeddings:
    if isinstance(length, int) and length > max_position_embeddings:
      raise ValueError(
        f"length {length} is beyond max_position_embeddings {max_position_embeddings}"
      )
    table = v1.get_variable(
      position_embedding_name, [max_position_embeddings, width], initializer=initializer
    )
    output += tf.cast(table[:length], output.dtype)
  return layer_norm_and_dropout(output, dropout_prob)


def create_attention_mask_from_input_mask(from_tensor: tf.Tensor, to_mask: tf.Tensor) -> tf.Tensor:
  """Attention mask in which every query attends to the same keys.

  Args:
    from_tensor: any dtype [B, F] or [B, F, W].
    to_mask: int32 [B, T], 1 = real token, 0 = padding.

  Returns:
    float32 [B, F, T].
  """
  length = get_shape_list(from_tensor, expected_rank=[2, 3])[1]
  return tf.tile(tf.cast(to_mask, tf.float32)[:, None], [1, length, 1])


def attention_layer(
  from_tensor: tf.Tensor,
  to_tensor: tf.Tensor,
  attention_mask: tf.Tensor | None = None,
  num_attention_heads: int = 1,
  size_per_head: int = 512,
  query_act: Activation | None = None,
  key_act: Activation | None = None,
  value_act: Activation | None = None,
  attention_probs_dropout_prob: float | None = 0.0,
  initializer_range: float = 0.02,
  do_return_2d_tensor: bool = False,
  batch_size: int | None = None,
  from_seq_length: int | None = None,
  to_seq_length: int | None = None,
) -> tf.Tensor:
  """Multi-head attention, variables {query,key,value}/{kernel,bias} in the current scope.

  Args:
    from_tensor: float [B, F, W], or a matrix [B * F, W] and the last three arguments.
    to_tensor: float [B, T, W], or a matrix [B * T, W].
    attention_mask: int or float [B, F, T], 1 = attend, 0 = not; None for all ones.
    num_attention_heads: N.
    size_per_head: D.
    query_act: activation of the queries' projection.
    key_act: activation of the keys' projection.
    value_act: activation of the values' projection.
    attention_probs_dropout_prob: dropout of the attention probabilities.
    initializer_range: standard deviation of new weights.
    do_return_2d_tensor: return a matrix.
    batch_size: B, required for matrices.
    from_seq_length: F, required for matrices.
    to_seq_length: T, required for matrices.

  Returns:
    float [B, F, N * D], or [B * F, N * D].

  Raises:
    ValueError: the ranks differ, or matrices are given without their sizes.
  """
  assert_rank(to_tensor, from_tensor.shape.rank)
  if from_tensor.shape.rank == 2:
    if None in (batch_size, from_seq_length, to_seq_length):
      raise ValueError("matrices need batch_size, from_seq_length and to_seq_length")
    from_tensor = reshape_from_matrix(from_tensor, [batch_size, from_seq_length, None])
    to_tensor = reshape_from_matrix(to_tensor, [batch_size, to_seq_length, None])
  context = bert.attention(
    from_tensor,
    to_tensor,
    bert.attention_mask_adder(attention_mask, from_tensor.dtype),
    num_attention_heads,
    size_per_head,
    attention_probs_dropout_prob or 0.0,
    initializer_range,
    query_act,
    key_act,
    value_act,
  )
  return reshape_to_matrix(context) if do_return_2d_tensor else context


def transformer_model(
  input_tensor: tf.Tensor,
  attention_mask: tf.Tensor | None = None,
  hidden_size: int = 768,
  num_hidden_layers: int = 12,
  num_attention_heads: int = 12,
  intermediate_size: int = 3072,
  intermediate_act_fn: Activation | None = gelu,
  hidden_dropout_prob: float | None = 0.1,
  attention_probs_dropout_prob: float | None = 0.1,
  initializer_range: float = 0.02,
  do_return_all_layers: bool = False,
) -> tf.Tensor | list[tf.Tensor]:
  """Applies BERT's transformer layers, variables layer_0/... in the current scope.

  Args:
    input_tensor: float [B, T, hidden_size].
    attention_mask: int or float [B, T, T], 1 = attend, 0 = not; None for all ones.
    hidden_size: width of the layers, a multiple of num_attention_heads.
    num_hidden_layers: number of layers.
    num_attention_heads: attention heads per layer.
    intermediate_size: width of the feed-forward layer.
    intermediate_act_fn: activation of the feed-forward layer, or None.
    hidden_dropout_prob: dropout of each sub-layer's output.
    attention_probs_dropout_prob: dropout of the attention probabilities.
    initializer_range: standard deviation of new weights.
    do_return_all_layers: return the output of every layer instead of the last one.

  Returns:
    float [B, T, hidden_size], or a list of them.

  Raises:
    ValueError: hidden_size is not the input's width, or not a multiple of the number of heads.
  """
  width = get_shape_list(input_tensor, expected_rank=3)[2]
  if width != hidden_size or hidden_size % num_attention_heads:
    raise ValueError(
      f"hidden_size {hidden_size} must equal the input's width, {width}, and be a "
      f"multiple of num_attention_heads, {num_attention_heads}"
    )
  config = bert.BertConfig(
    vocab_size=1,
    hidden_size=hidden_size,
    num_hidden_layers=num_hidden_layers,
    num_attention_heads=num_attention_heads,
    intermediate_size=intermediate_size,
    hidden_dropout_prob=hidden_dropout_prob or 0.0,
    attention_probs_dropout_prob=attention_probs_dropout_prob or 0.0,
    initializer_range=initializer_range,
  )
  outputs = bert.encode(
    config, input_tensor, attention_mask, intermediate_act_fn or layers.get_activation("linear")
  )
  return outputs if do_return_all_layers else outputs[-1]
