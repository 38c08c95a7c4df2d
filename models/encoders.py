"""Encoders on a batch of records, with one method for the head of each kind of task.

Shape legend:
  B  batch     T  sequence length     H  width of the hidden states     V  vocab_size
  K  masked positions per sequence    S  sequences per row
"""

import functools

import tensorflow as tf

from models import bert_heads, funnel_heads, layers
from models.bert import BertConfig, BertModel
from models.electra import ElectraConfig
from models.funnel import FunnelTFM
from models.funnel_config import ModelConfig

Config = BertConfig | ElectraConfig | ModelConfig


class BertEncoder:
  """BERT on a batch of records. The first method call builds the graph."""

  def __init__(
    self,
    config: BertConfig,
    features: dict[str, tf.Tensor],
    is_training: bool,
    use_tpu: bool,
    compute_dtype: tf.DType,
    recompute_activations: bool,
  ):
    """Stores the arguments; see build_encoder."""
    self._config = config
    self._features = features
    self._options = dict(
      is_training=is_training,
      use_tpu=use_tpu,
      compute_dtype=compute_dtype,
      recompute_activations=recompute_activations,
    )

  @functools.cached_property
  def _model(self):
    features, options = self._features, self._options
    return BertModel(
      self._config,
      options["is_training"],
      features["input_ids"],
      features["input_mask"],
      features["segment_ids"],
      use_one_hot_embeddings=options["use_tpu"],
      compute_dtype=options["compute_dtype"],
      sequence_ids=features.get("sequence_ids"),
      recompute_activations=options["recompute_activations"],
    )

  def sequence_output(self) -> tf.Tensor:
    """Hidden states of the last layer, for heads on single tokens: float32 [B, T, H]."""
    return tf.cast(self._model.get_sequence_output(), tf.float32)

  def pooled_output(self) -> tf.Tensor:
    """Output of the pooler (ELECTRA: hidden state) at [CLS], without dropout: float32 [B, H]."""
    return tf.cast(self._model.get_pooled_output(), tf.float32)

  def classification_logits(self, num_outputs: int, scope: str | None, task_name: str) -> tf.Tensor:
    """Logits, float32 [B, num_outputs]; the head is at the top level, or in `scope` if given."""
    del task_name
    config = self._model.config
    return bert_heads.classification_logits(
      self._model.get_pooled_output(),
      num_outputs,
      config.hidden_dropout_prob,
      config.initializer_range,
      scope,
    )

  def token_logits(self, num_outputs: int, scope: str | None, task_name: str) -> tf.Tensor:
    """float32 [B, T, num_outputs]: dropout and one linear map, variables as for classification."""
    del task_name
    config, hidden = self._model.config, self.sequence_output()
    batch, length, width = layers.shape_list(hidden)
    logits = bert_heads.classification_logits(
      tf.reshape(hidden, [-1, width]),
      num_outputs,
      config.hidden_dropout_prob,
      config.initializer_range,
      scope,
    )
    return tf.reshape(logits, [batch, length, num_outputs])

  def squad(self, settings) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds SQuAD's span head, cls/squad.

    Args:
      settings: a tasks.settings.Squad.

    Returns:
      (loss of each window, float32 [B]; the settings.n_best_size best starts and ends and the score
      of no answer, see bert_heads.span_candidates).
    """
    features = self._features
    start, end = bert_heads.span_logits(
      self._model.get_sequence_output(), self._model.config.initializer_range
    )
    losses = bert_heads.span_loss(
      start, end, features["start_positions"], features["end_positions"]
    )
    # The passage is segment 1 without its closing [SEP], the last real token.
    last = tf.reduce_sum(features["input_mask"], axis=1, keepdims=True) - 1
    is_passage = tf.equal(features["segment_ids"], 1) & (tf.range(tf.shape(start)[1])[None] < last)
    return losses, bert_heads.span_candidates(start, end, is_passage, settings.n_best_size)

  def masked_lm_logits(self) -> tf.Tensor:
    """Vocabulary logits at the feature masked_lm_positions, float32 [B, K, V]."""
    return bert_heads.masked_lm_logits(self._model, self._features["masked_lm_positions"])

  def next_sentence_logits(self) -> tf.Tensor:
    """Logits of the S sequences of a row, float32 [B, S, 2].

    The feature next_sentence_positions has the position of each sequence's [CLS].
    """
    model = self._model
    first = tf.gather(
      model.get_sequence_output(), self._features["next_sentence_positions"], batch_dims=1
    )  # [B, S, H]
    return bert_heads.next_sentence_logits(model.pool(first), model.config.initializer_range)

  def electra(self, width_shrink: float) -> dict[str, tf.Tensor]:
    """Builds models.pretraining.electra; label 1 means replaced, as in released ELECTRA models.

    The variables have the names of the released models with an ElectraConfig.
    """
    return bert_heads.electra(
      self._config, self._features, width_shrink=width_shrink, **self._options
    )

  def choice_scores(self, num_options: int, scope: str | None) -> tf.Tensor:
    """Scores of a question's options, consecutive sequences of the batch: float32 [B, num_options].

    B is the number of questions. The head is the classification head with one output:
    output_weights [1, H] and output_bias [1].
    """
    return tf.reshape(self.classification_logits(1, scope, ""), [-1, num_options])


class ElectraEncoder(BertEncoder):
  """ELECTRA on a batch of records: BERT's encoder without a pooler."""

  def classification_logits(self, num_outputs: int, scope: str | None, task_name: str) -> tf.Tensor:
    """Logits, float32 [B, num_outputs]: a hidden layer at [CLS], then BERT's head.

    The hidden layer is classifier/dense, or `scope`/dense if given.
    """
    del task_name
    config = self._model.config
    dropout, initializer_range = config.hidden_dropout_prob, config.initializer_range
    x = bert_heads.electra_features(
      self._model.get_pooled_output(), dropout, initializer_range, scope or "classifier"
    )
    return bert_heads.classification_logits(x, num_outputs, dropout, initializer_range, scope)


class FunnelEncoder:
  """Funnel-Transformer on a batch of records."""

  def __init__(
    self,
    config: ModelConfig,
    features: dict[str, tf.Tensor],
    is_training: bool,
    use_tpu: bool,
    compute_dtype: tf.DType,
    recompute_activations: bool,
  ):
    """Stores the arguments; see build_encoder."""
    self._config = config
    self._features = features
    self._form = dict(compute_dtype=compute_dtype, recompute_activations=recompute_activations)
    self._model = FunnelTFM(config, **self._form)
    self._options = dict(is_training=is_training, use_tpu=use_tpu)

  def _inputs(self, input_mask):
    # Records have 1 at real tokens, Funnel's mask has 1 at padding.
    return dict(
      inputs=self._features["input_ids"],
      seg_id=self._features["segment_ids"],
      input_mask=1 - input_mask,
      **self._options,
    )

  def _decoded(self, input_mask):
    hidden, _, _ = self._model.extract_hiddens(use_decoder=True, **self._inputs(input_mask))
    return hidden  # [B, T, H]

  def sequence_output(self) -> tf.Tensor:
    """Output of the decoder at full length, for heads on single tokens: float32 [B, T, H]."""
    return tf.cast(self._decoded(self._features["input_mask"]), tf.float32)

  def pooled_output(self) -> tf.Tensor:
    """Summary of the encoder's output at [cls], with dropout in training: float32 [B, H]."""
    summary, _ = self._model.get_pooled_output(**self._inputs(self._features["input_mask"]))
    return summary

  def classification_logits(self, num_outputs: int, scope: str | None, task_name: str) -> tf.Tensor:
    """Logits, float32 [B, num_outputs]; the head is in model/`scope`, or model/`task_name`."""
    return funnel_heads.classification_logits(
      self._config, self.pooled_output(), num_outputs, scope or task_name
    )

  def token_logits(self, num_outputs: int, scope: str | None, task_name: str) -> tf.Tensor:
    """float32 [B, T, num_outputs]: one linear map in model/`scope`, or model/`task_name`."""
    return funnel_heads.classification_logits(
      self._config, self.sequence_output(), num_outputs, scope or task_name
    )

  def squad(self, settings) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Builds Funnel's heads: start, end given the start, and answerability. See BertEncoder.squad.

    Returns settings.start_n_top starts, and settings.end_n_top ends of each start (the same ends of
    all starts without conditional_end): end_scores, end_index [B, start_n_top or 1, end_n_top].
    """
    features = self._features
    hidden = self._decoded(features["input_mask"])
    options = dict(
      conditional_end=settings.conditional_end, use_answer_class=settings.use_answer_class
    )
    unmasked = {name: value for name, value in features.items() if name != "p_mask"}
    trained = funnel_heads.squad_train(
      self._config,
      hidden,
      features if settings.use_masked_loss else unmasked,
      self._options["is_training"],
      ans_loss_weight=settings.ans_loss_weight,
      cls_loss_weight=settings.cls_loss_weight,
      **options,
    )
    best = funnel_heads.squad_predict(
      self._config,
      hidden,
      features,
      start_n_top=settings.start_n_top,
      end_n_top=settings.end_n_top,
      **options,
    )
    # A sequence shorter than n_top has fewer candidates; pad them with impossible ones.
    batch, found = layers.shape_list(best["start_top_index"])
    size = [settings.start_n_top, settings.end_n_top]
    if not settings.conditional_end:
      found, size[0] = 1, 1

    def ends(name, value):  # [B, found * E] -> [B, start_n_top or 1, end_n_top]
      return layers.pad_to(tf.reshape(best[name], [batch, found, -1]), size, value)

    return trained["losses"], {
      "start_scores": layers.pad_to(best["start_top_log_probs"], [settings.start_n_top], -1e30),
      "start_index": layers.pad_to(best["start_top_index"], [settings.start_n_top], 0),
      "end_scores": ends("end_top_log_probs", -1e30),
      "end_index": ends("end_top_index", 0),
      "null_score": best["cls_logits"],
    }

  def masked_lm_logits(self) -> tf.Tensor:
    """Vocabulary logits at the feature masked_lm_positions, float32 [B, K, V].

    As in the original, no token attends to a mask symbol: the feature is_mask_symbol hides them.
    """
    features = self._features
    hidden = self._decoded(features["input_mask"] * (1 - features["is_mask_symbol"]))
    return funnel_heads.mlm_logits(self._config, hidden, features["masked_lm_positions"])

  def electra(self, width_shrink: float) -> dict[str, tf.Tensor]:
    """Builds models.pretraining.electra; label 1 means original, as in released Funnel models."""
    return funnel_heads.electra(
      self._config, self._features, width_shrink=width_shrink, **self._form, **self._options
    )

  def choice_scores(self, num_options: int, scope: str | None) -> tf.Tensor:
    """Scores of a question's options, consecutive sequences of the batch: float32 [B, num_options].

    B is the number of questions. The head is in model/race, or model/`scope`.
    """
    return funnel_heads.race_logits(
      self._config, self.pooled_output(), num_options, scope or "race"
    )


Encoder = BertEncoder | ElectraEncoder | FunnelEncoder


def build_encoder(
  model_config: Config,
  features: dict[str, tf.Tensor],
  is_training: bool,
  use_tpu: bool = False,
  use_bfloat16: bool = False,
  compute_dtype: tf.DType = tf.float32,
  recompute_activations: bool = False,
) -> Encoder:
  """Builds the encoder of a configuration on a batch of records.

  Args:
    model_config: from modeling.load_config.
    features: input_ids, input_mask (1 = real token) and segment_ids, int32 [B, T]; or [B, N, T]
      if an example is N sequences; the encoder's batch is then B * N.
    is_training: dropout is on only when True.
    use_tpu: choose the operations that are fast on TPU.
    use_bfloat16: the same as compute_dtype=tf.bfloat16.
    compute_dtype: tf.float32, tf.bfloat16 or tf.float16, dtype of the activations; variables stay
      float32.
    recompute_activations: store only the inputs of each layer for the gradient; see BertModel.

  Returns:
    An encoder with a method for the head of each kind of task.
  """
  if features["input_ids"].shape.rank == 3:
    features = {
      name: tf.reshape(features[name], [-1, *layers.shape_list(features[name])[2:]])
      for name in ("input_ids", "input_mask", "segment_ids")
    }
  encoders = {"bert": BertEncoder, "electra": ElectraEncoder, "funnel": FunnelEncoder}
  encoder = encoders[model_config.family]
  dtype = tf.bfloat16 if use_bfloat16 else compute_dtype
  # Without a gradient there is nothing to compute again.
  recompute = recompute_activations and is_training
  return encoder(model_config, features, is_training, use_tpu, dtype, recompute)
