"""BERT (Devlin et al. 2018, arXiv:1810.04805): configuration and encoder.

Variable names, shapes and outputs match the released checkpoints.

Shape legend, for every comment in this file:
  B  batch             T  sequence length, or keys     F  queries (equal to T in the encoder)
  H  hidden_size       N  num_attention_heads          D  size of one head, H / N
  E  embedding_size    V  vocab_size
"""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import ClassVar

import tensorflow as tf

from errors import UserError
from models import config_keys, layers, recomputation
from models.config_keys import read_json

v1 = tf.compat.v1

LAYER_NORM_EPSILON = 1e-12


@dataclasses.dataclass
class BertConfig:
  """The keys of bert_config.json.

  Example:
    config = BertConfig(vocab_size=30522, hidden_size=384, num_attention_heads=12)
    config = BertConfig.from_json_file("pretrained/bert_config.json")

  Attributes:
    vocab_size: rows of the word embedding table.
    hidden_size: width of the encoder and the pooler; a multiple of num_attention_heads.
    num_hidden_layers: number of encoder layers.
    num_attention_heads: attention heads per layer.
    intermediate_size: width of the feed-forward layer.
    hidden_act: one of config_keys.ACTIVATIONS; "gelu" is the tanh form, "gelu_erf" the exact one.
    hidden_dropout_prob: dropout of the embeddings and of each sub-layer's output.
    attention_probs_dropout_prob: dropout of the attention probabilities.
    max_position_embeddings: longest sequence that the model accepts.
    type_vocab_size: number of segment ids.
    initializer_range: standard deviation of the truncated normal initializer.
    embedding_size: width of the embeddings; None for hidden_size. If it differs from hidden_size, a
      linear map (embeddings_project) follows, as in ELECTRA.
  """

  family: ClassVar[str] = "bert"
  file_name: ClassVar[str] = "bert_config.json"
  cls_segment_id: ClassVar[int] = 0  # segment id of the first token
  reserved_positions: ClassVar[int] = 0  # padding positions needed at the end of a sequence
  has_pooler: ClassVar[bool] = True

  vocab_size: int = config_keys.size(upper=config_keys.MAX_VOCAB)
  hidden_size: int = config_keys.size(768)
  num_hidden_layers: int = config_keys.size(12, upper=config_keys.MAX_LAYERS)
  num_attention_heads: int = config_keys.size(12)
  intermediate_size: int = config_keys.size(3072)
  hidden_act: str = config_keys.choice("gelu", config_keys.ACTIVATIONS)
  hidden_dropout_prob: float = config_keys.dropout(0.1)
  attention_probs_dropout_prob: float = config_keys.dropout(0.1)
  max_position_embeddings: int = config_keys.size(512)
  type_vocab_size: int = config_keys.size(16)
  initializer_range: float = config_keys.number(float, 0.02, lower=0)
  embedding_size: int | None = config_keys.size(None)

  def __post_init__(self):
    """Checks the values; UserError names the key that is wrong."""
    config_keys.check_values(self)
    if self.hidden_size % self.num_attention_heads:
      raise UserError(
        f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
        f"{self.num_attention_heads}; change one of them"
      )

  @property
  def num_stored_layers(self) -> int:
    """Number of layers with weights of their own."""
    return self.num_hidden_layers

  @property
  def embedding_width(self) -> int:
    """Width of the embeddings: embedding_size, or hidden_size if that is None."""
    return self.hidden_size if self.embedding_size is None else self.embedding_size

  @classmethod
  def fixed_keys(cls, values: dict) -> dict[str, tuple]:
    """Key of Hugging Face's -> supported values, for the contents `values` of a file."""
    dropout = values.get("hidden_dropout_prob", cls.hidden_dropout_prob)
    return config_keys.BERT_FIXED | {"model_type": (cls.family,), "classifier_dropout": (dropout,)}

  @property
  def num_segments(self) -> int:
    """Number of segment ids."""
    return self.type_vocab_size

  @classmethod
  def from_dict(cls, values: dict, source: str = "the BERT configuration") -> "BertConfig":
    """Builds a config from `values`.

    Keys that do not change the model are ignored; see models.config_keys. A dict with a key of
    Hugging Face's (model_type, architectures, transformers_version) is read with Hugging Face's
    defaults and activation names: its "gelu" is the exact form.

    Raises:
      UserError: a key is unknown or missing, or has an unsupported value; the message names the key
        and `source`.
    """
    values = config_keys.rename_model_garden_keys(values, source)
    fixed = cls.fixed_keys(values)
    if config_keys.is_hugging_face(values):
      values = {**values, "model_type": config_keys.hugging_face_type(values)}
      values = config_keys.hugging_face_values(values, _HUGGING_FACE_DEFAULTS, fixed, source)
    else:
      known = {field.name for field in dataclasses.fields(cls)}
      values = config_keys.own_values(values, known, fixed, source)
    if "vocab_size" not in values:
      raise UserError(f"{source}: the key vocab_size is missing")
    return config_keys.build(cls, values, source)

  @classmethod
  def from_json_file(cls, json_file: str) -> "BertConfig":
    """Reads bert_config.json; UserError if it is missing or not JSON, and as in from_dict."""
    return cls.from_dict(read_json(json_file), source=json_file)

  def to_dict(self) -> dict:
    """Contents of bert_config.json; embedding_size, which BERT does not have, only if set."""
    values = dataclasses.asdict(self)
    if self.embedding_size is None:
      del values["embedding_size"]
    return values

  def padded_length(self, longest: int | tf.Tensor, multiple: int) -> int | tf.Tensor:
    """Length to which a batch is padded: `longest` rounded up to a multiple of `multiple`.

    Rounding limits the number of distinct lengths.

    Args:
      longest: number of tokens of the longest sequence, an int or a scalar tensor.
      multiple: tokens.
    """
    return (longest + multiple - 1) // multiple * multiple

  def to_json_string(self) -> str:
    """Text of bert_config.json."""
    return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"


_HUGGING_FACE_DEFAULTS = BertConfig(vocab_size=30522, type_vocab_size=2).to_dict()


class BertModel:
  """The BERT encoder with its pooler; of an ElectraConfig, ELECTRA's encoder.

  Example:
    config = modeling.BertConfig(vocab_size=32000, hidden_size=512, num_attention_heads=8)
    input_ids = tf.constant([[31, 51, 99], [15, 5, 0]])
    input_mask = tf.constant([[1, 1, 1], [1, 1, 0]])
    model = modeling.BertModel(config, is_training=True, input_ids=input_ids,
                               input_mask=input_mask)
    pooled_output = model.get_pooled_output()  # [2, 512]
  """

  def __init__(
    self,
    config: BertConfig,
    is_training: bool,
    input_ids: tf.Tensor,
    input_mask: tf.Tensor | None = None,
    token_type_ids: tf.Tensor | None = None,
    use_one_hot_embeddings: bool = False,
    scope: str | None = None,
    compute_dtype: tf.DType = tf.float32,
    sequence_ids: tf.Tensor | None = None,
    embeddings_scope: str | None = None,
    with_pooler: bool = True,
    recompute_activations: bool = False,
  ):
    """Builds the graph.

    Args:
      config: BertConfig.
      is_training: dropout is on only when True.
      input_ids: int32 [B, T].
      input_mask: int32 [B, T], 1 = real token, 0 = padding; all ones when None.
      token_type_ids: int32 [B, T], segment ids; all zeros when None.
      use_one_hot_embeddings: look tokens up by a matrix product (for TPU) instead of a gather.
      scope: variable scope, config.family ("bert") when None. Build a second model in the same
        scope under a variable scope with reuse.
      compute_dtype: tf.float32, tf.bfloat16 or tf.float16, dtype of the activations; variables
        are float32.
      sequence_ids: int32 [B, T], for rows with several sequences: 1 on the tokens of the first, 2
        on those of the second, ... Tokens attend within their own sequence, and positions start at
        0 in each. None for one sequence per row.
      embeddings_scope: full name of the scope whose embeddings to share (without the map to
        hidden_size); None for the model's own.
      with_pooler: build the pooled output; None if False.
      recompute_activations: store only the inputs of each layer for the gradient, which computes
        the layer again: less memory, and one more forward pass.

    Raises:
      UserError: the sequence is longer than config.max_position_embeddings.
    """
    if not is_training:
      config = dataclasses.replace(
        config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
      )
    self.config = config
    seq_length = input_ids.shape[1]
    if seq_length is not None and seq_length > config.max_position_embeddings:
      raise UserError(
        f"sequence length {seq_length} is beyond the model's position table "
        f"(max_position_embeddings {config.max_position_embeddings}); "
        f"lower --max_seq_length"
      )
    if input_mask is None:
      input_mask = tf.ones_like(input_ids)
    if token_type_ids is None:
      token_type_ids = tf.zeros_like(input_ids)

    attended = input_mask[:, None, :]  # [B, 1 or F, T]
    positions = tf.range(layers.shape_list(input_ids)[1])
    if sequence_ids is not None:
      same = tf.cast(tf.equal(sequence_ids[:, :, None], sequence_ids[:, None, :]), tf.int32)
      attended *= tf.cast(same, attended.dtype)  # [B, F, T]
      # A token's position is the number of tokens of its sequence before it.
      before = tf.cast(positions[:, None] > positions, tf.int32)
      positions = tf.reduce_sum(same * before, axis=2)  # [B, T]
    self._scope = scope = scope or config.family
    with v1.variable_scope(
      embeddings_scope or f"{scope}/embeddings", reuse=v1.AUTO_REUSE if embeddings_scope else None
    ):
      self.embedding_output = x = self._embed(
        input_ids, token_type_ids, positions, use_one_hot_embeddings, compute_dtype
      )
    with v1.variable_scope(scope):
      if config.embedding_width != config.hidden_size:
        x = layers.dense(
          x,
          config.hidden_size,
          "embeddings_project",
          layers.truncated_normal(config.initializer_range),
        )
      with v1.variable_scope("encoder"):
        self.all_encoder_layers = encode(
          config, x, attended, recompute_activations=recompute_activations
        )
    self.sequence_output = self.all_encoder_layers[-1]
    self.pooled_output = self.pool(self.sequence_output[:, 0]) if with_pooler else None

  def pool(self, hidden: tf.Tensor) -> tf.Tensor:
    """Applies the pooler, tanh(dense(x)), to hidden states of first tokens, float [B, H].

    ELECTRA has no pooler: its pooled output is the hidden state.
    """
    if not self.config.has_pooler:
      return hidden
    with v1.variable_scope(f"{self._scope}/pooler", reuse=v1.AUTO_REUSE):
      return layers.dense(
        hidden,
        self.config.hidden_size,
        "dense",
        layers.truncated_normal(self.config.initializer_range),
        activation=tf.tanh,
      )

  def get_pooled_output(self) -> tf.Tensor:
    """Summary of each sequence, tanh(dense(first token's last hidden state)): float [B, H]."""
    return self.pooled_output

  def get_sequence_output(self) -> tf.Tensor:
    """Hidden states of the last encoder layer, float [B, T, H]."""
    return self.sequence_output

  def get_all_encoder_layers(self) -> list[tf.Tensor]:
    """Hidden states of every encoder layer, a list of float [B, T, H]."""
    return self.all_encoder_layers

  def get_embedding_output(self) -> tf.Tensor:
    """Sum of the embeddings after layer normalization, float [B, T, E]."""
    return self.embedding_output

  def get_embedding_table(self) -> tf.Tensor:
    """Word embedding table, float [V, E]."""
    return self.embedding_table

  def _embed(self, input_ids, token_type_ids, positions, use_one_hot_embeddings, dtype):
    config = self.config
    size = config.embedding_width
    initializer = layers.truncated_normal(config.initializer_range)
    self.embedding_table = v1.get_variable(
      "word_embeddings", [config.vocab_size, size], initializer=initializer
    )
    type_table = v1.get_variable(
      "token_type_embeddings", [config.type_vocab_size, size], initializer=initializer
    )
    position_table = v1.get_variable(
      "position_embeddings", [config.max_position_embeddings, size], initializer=initializer
    )
    x = layers.embedding_lookup(input_ids, self.embedding_table, use_one_hot_embeddings, dtype)
    # There are few segment ids, so a one-hot product is faster than a gather on every device.
    x += layers.embedding_lookup(token_type_ids, type_table, True, dtype)  # [B, T, E]
    if positions.shape.rank == 1:
      x += tf.cast(position_table[: layers.shape_list(positions)[0]], dtype)  # [T, E]
    else:
      x += layers.embedding_lookup(positions, position_table, use_one_hot_embeddings, dtype)
    x = layers.layer_norm(x, "LayerNorm", LAYER_NORM_EPSILON)
    return layers.dropout(x, config.hidden_dropout_prob)


def encode(
  config: BertConfig,
  x: tf.Tensor,
  attended: tf.Tensor | None,
  activation: Callable[[tf.Tensor], tf.Tensor] | None = None,
  attention_fn: Callable[..., tf.Tensor] | None = None,
  recompute_activations: bool = False,
) -> list[tf.Tensor]:
  """Applies the transformer layers, variables layer_0/..., layer_1/... in the current scope.

  Args:
    config: sizes, dropout and initializer; keys of the embeddings are not read.
    x: float [B, T, H].
    attended: int or float [B, 1 or T, T], 1 where a query (second axis) attends to a key, else 0;
      None for all ones.
    activation: activation of the feed-forward layer; None for config.hidden_act.
    attention_fn: function with the arguments and the output of `attention`, which None stands for.
    recompute_activations: see BertModel.

  Returns:
    The output of each layer, float [B, T, H].
  """
  activation = activation or layers.get_activation(config.hidden_act)
  mask_adder = attention_mask_adder(attended, x.dtype)
  layer = lambda x: _layer(config, x, mask_adder, activation, attention_fn or attention)
  outputs = []
  for index in range(config.num_hidden_layers):
    with v1.variable_scope(f"layer_{index}"):
      x = recomputation.recompute(layer, x) if recompute_activations else layer(x)
    outputs.append(x)
  return outputs


def attention_mask_adder(attended: tf.Tensor | None, dtype: tf.DType) -> tf.Tensor | float:
  """Returns the mask to add to attention scores: [B, 1 or F, T] -> [B, 1, 1 or F, T].

  `attended` is 1 if a query attends to a key, else 0. Masked keys get a large negative score, so
  that their probability vanishes in the softmax. The mask of None is 0.
  """
  if attended is None:
    return 0.0
  mask = tf.cast(attended, dtype)[:, None]  # [B, 1, 1 or F, T]
  return (1.0 - mask) * -10000.0


def _layer(config, x, mask_adder, activation, attention_fn):
  """One post-LN transformer layer: [B, T, H] -> [B, T, H]."""
  initializer = layers.truncated_normal(config.initializer_range)
  with v1.variable_scope("attention"):
    with v1.variable_scope("self"):
      context = attention_fn(
        x,
        x,
        mask_adder,
        config.num_attention_heads,
        config.hidden_size // config.num_attention_heads,
        config.attention_probs_dropout_prob,
        config.initializer_range,
      )
    with v1.variable_scope("output"):
      y = layers.dense(context, config.hidden_size, "dense", initializer)
      y = layers.dropout(y, config.hidden_dropout_prob)
      x = layers.layer_norm(x + y, "LayerNorm", LAYER_NORM_EPSILON)
  with v1.variable_scope("intermediate"):
    y = layers.dense(
      x, config.intermediate_size, "dense", initializer, activation
    )  # [B, T, intermediate_size]
  with v1.variable_scope("output"):
    y = layers.dense(y, config.hidden_size, "dense", initializer)
    y = layers.dropout(y, config.hidden_dropout_prob)
    return layers.layer_norm(x + y, "LayerNorm", LAYER_NORM_EPSILON)


def attention(
  queries: tf.Tensor,
  keys: tf.Tensor,
  mask_adder: tf.Tensor | float,
  num_heads: int,
  size_per_head: int,
  dropout_rate: float,
  initializer_range: float,
  query_act: Callable[[tf.Tensor], tf.Tensor] | None = None,
  key_act: Callable[[tf.Tensor], tf.Tensor] | None = None,
  value_act: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tf.Tensor:
  """Scaled dot-product attention, variables {query,key,value}/{kernel,bias}.

  Args:
    queries: float [B, F, width].
    keys: float [B, T, width], input of the keys and of the values.
    mask_adder: from attention_mask_adder.
    num_heads: N.
    size_per_head: D.
    dropout_rate: dropout of the attention probabilities.
    initializer_range: standard deviation of new weights.
    query_act: activation of the queries' projection, or None.
    key_act: activation of the keys' projection, or None.
    value_act: activation of the values' projection, or None.

  Returns:
    float [B, F, N * D], the concatenated outputs of the heads.
  """
  initializer = layers.truncated_normal(initializer_range)

  def project(x, name, activation):
    batch_size, length, _ = layers.shape_list(x)
    y = layers.dense(x, num_heads * size_per_head, name, initializer, activation)
    y = tf.reshape(y, [batch_size, length, num_heads, size_per_head])
    return tf.transpose(y, [0, 2, 1, 3])  # [B, N, length, D]

  query = project(queries, "query", query_act)
  key, value = project(keys, "key", key_act), project(keys, "value", value_act)
  scores = tf.matmul(query, key, transpose_b=True)  # [B, N, F, T]
  scores = scores * (1.0 / math.sqrt(size_per_head)) + mask_adder
  probabilities = layers.dropout(layers.softmax(scores), dropout_rate)
  context = tf.matmul(probabilities, value)  # [B, N, F, D]
  batch_size, length, _ = layers.shape_list(queries)
  return tf.reshape(
    tf.transpose(context, [0, 2, 1, 3]), [batch_size, length, num_heads * size_per_head]
  )
