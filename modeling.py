"""The models, as people import them.

  import modeling
  config = modeling.BertConfig.from_json_file("pretrained/bert_config.json")
  model = modeling.BertModel(config, is_training=False, input_ids=input_ids, input_mask=input_mask)
  model.get_sequence_output()

  net_config = modeling.ModelConfig.init_from_json("configs/models/B4-4-4H768.json")
  model = modeling.FunnelTFM(net_config)
  summary, _ = model.get_pooled_output(inputs, is_training, seg_id=seg_id, input_mask=input_mask)

The functions that programs built on google-research/bert call here are in models/compat.py.
"""

import functools
import logging
import os
import re
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from errors import UserError
from models import bert, bert_heads, funnel_heads, layers
from models.bert import BertConfig, BertModel
from models.compat import (
  assert_rank,
  attention_layer,
  create_attention_mask_from_input_mask,
  create_initializer,
  dropout,
  embedding_lookup,
  embedding_postprocessor,
  gelu,
  get_activation,
  get_shape_list,
  layer_norm,
  layer_norm_and_dropout,
  reshape_from_matrix,
  reshape_to_matrix,
  transformer_model,
)
from models.funnel import FunnelTFM
from models.funnel_config import ModelConfig

__all__ = [
  "BertConfig",
  "BertModel",
  "FunnelTFM",
  "ModelConfig",
  "RELEASED_FUNNELS",
  "assert_rank",
  "attention_layer",
  "build_encoder",
  "create_attention_mask_from_input_mask",
  "create_initializer",
  "dropout",
  "embedding_lookup",
  "embedding_postprocessor",
  "gelu",
  "get_activation",
  "get_assignment_map_from_checkpoint",
  "get_shape_list",
  "layer_norm",
  "layer_norm_and_dropout",
  "load_config",
  "released_funnel",
  "reshape_from_matrix",
  "reshape_to_matrix",
  "transformer_model",
]

log = logging.getLogger(__name__)

Config = BertConfig | ModelConfig

RELEASED_FUNNELS = ("B4-4-4H768", "B6-3x2-3x2H768", "B6-6-6H768", "B8-8-8H1024", "B10-10-10H1024")


def released_funnel(name: str) -> ModelConfig:
  """Configuration of a released Funnel-Transformer by its name; UserError lists the names."""
  if name not in RELEASED_FUNNELS:
    raise UserError(f"no released model {name!r}; there are {', '.join(RELEASED_FUNNELS)}")
  return ModelConfig.init_from_json(
    os.path.join(os.path.dirname(__file__), "configs", "models", f"{name}.json")
  )


def load_config(json_file: str, overwrite_keys: list[str] | tuple[str, ...] = ()) -> Config:
  """Reads a model configuration and tells its family by its keys.

  A file with `hidden_size` is a BERT configuration, one with `block_size` a Funnel configuration.
  Keys that no number depends on are passed over; see models.config_keys.

  Args:
    json_file: bert_config.json or net_config.json.
    overwrite_keys: keys of a Funnel configuration for which the flag of that name wins.

  Raises:
    UserError: the file is missing, malformed, or of no known family.
  """
  values = bert.read_json(json_file)
  if "block_size" in values:
    return ModelConfig.from_dict(values, json_file, overwrite_keys)
  if overwrite_keys:
    raise UserError(
      f"--overwrite_keys={','.join(overwrite_keys)}: {json_file} is no Funnel "
      f"configuration; change the file itself"
    )
  if "hidden_size" in values:
    return BertConfig.from_dict(values, json_file)
  if "block_sizes" in values:
    raise UserError(
      f"{json_file}: a Funnel configuration of Hugging Face; convert the folder it "
      f"is from with convert_checkpoint.py --direction=hf_to_tf --input_dir=FOLDER "
      f"--output_dir=PRETRAINED"
    )
  raise UserError(
    f"{json_file}: not a model configuration: it has neither the key hidden_size "
    f"(BERT) nor block_size (Funnel)"
  )


def get_assignment_map_from_checkpoint(
  tvars: Iterable[tf.Variable], init_checkpoint: str
) -> tuple[dict[str, str], dict[str, int]]:
  """Finds the variables that a checkpoint holds under the same name.

    assignment_map, initialized = modeling.get_assignment_map_from_checkpoint(
        tf.compat.v1.trainable_variables(), init_checkpoint)
    tf.compat.v1.train.init_from_checkpoint(init_checkpoint, assignment_map)

  A checkpoint that holds none of them is logged as a warning.

  Args:
    tvars: variables of the graph.
    init_checkpoint: prefix of the checkpoint.

  Returns:
    ({name: name} for init_from_checkpoint, {name: 1, "name:0": 1} for a log of what is loaded).
  """
  names = [re.sub(r":\d+$", "", variable.name) for variable in tvars]
  stored = {name for name, _ in tf.train.list_variables(init_checkpoint)}
  assignment_map = {name: name for name in names if name in stored}
  if names and not assignment_map:
    log.warning(
      "%s: this checkpoint holds none of the model's %d variables (%s, ...); all keep "
      "their initial values",
      init_checkpoint,
      len(names),
      names[0],
    )
  return assignment_map, {key: 1 for name in assignment_map for key in (name, f"{name}:0")}


class BertEncoder:
  """BERT on a batch of records, as tasks see it. The graph is built when a head asks for it."""

  def __init__(
    self,
    config: BertConfig,
    features: dict[str, tf.Tensor],
    is_training: bool,
    use_tpu: bool,
    use_bfloat16: bool,
  ):
    self._config = config
    self._features = features
    self._options = dict(is_training=is_training, use_tpu=use_tpu, use_bfloat16=use_bfloat16)

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
      compute_dtype=tf.bfloat16 if options["use_bfloat16"] else tf.float32,
      sequence_ids=features.get("sequence_ids"),
    )

  def classification_logits(self, num_outputs: int, scope: str | None, task_name: str) -> tf.Tensor:
    """float32 [B, num_outputs]; the head stands at the top level, or in `scope` if given."""
    del task_name
    config = self._model.config
    return bert_heads.classification_logits(
      self._model.get_pooled_output(),
      num_outputs,
      config.hidden_dropout_prob,
      config.initializer_range,
      scope,
    )

  def squad(self, settings) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """SQuAD's span head, cls/squad.

    Args:
      settings: config.Squad, or anything with its fields.

    Returns:
      The loss of each window, float32 [B], and the best starts and ends with the score of no
      answer (bert_heads.span_candidates), settings.n_best_size of each.
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
    """float32 [B, K, V] at the feature masked_lm_positions."""
    return bert_heads.masked_lm_logits(self._model, self._features["masked_lm_positions"])

  def next_sentence_logits(self) -> tf.Tensor:
    """float32 [B, S, 2] of the S sequences of a row, whose places are next_sentence_positions."""
    model = self._model
    first = tf.gather(
      model.get_sequence_output(), self._features["next_sentence_positions"], batch_dims=1
    )  # [B, S, H]
    return bert_heads.next_sentence_logits(model.pool(first), model.config.initializer_range)

  def electra(self, width_shrink: float) -> dict[str, tf.Tensor]:
    """See models.pretraining.electra; the label 1 means replaced, as in released ELECTRAs."""
    return bert_heads.electra(
      self._config, self._features, width_shrink=width_shrink, **self._options
    )

  def choice_scores(self, num_options: int, scope: str | None) -> tf.Tensor:
    """float32 [B, num_options], a score for each of a question's consecutive sequences.

    The classification head with one output: output_weights [1, H] and output_bias [1].
    """
    return tf.reshape(self.classification_logits(1, scope, ""), [-1, num_options])


class FunnelEncoder:
  """Funnel-Transformer on a batch of records, as tasks see it."""

  def __init__(
    self,
    config: ModelConfig,
    features: dict[str, tf.Tensor],
    is_training: bool,
    use_tpu: bool,
    use_bfloat16: bool,
  ):
    self._config = config
    self._features = features
    self._model = FunnelTFM(config)
    self._options: dict[str, Any] = dict(
      is_training=is_training, use_tpu=use_tpu, use_bfloat16=use_bfloat16
    )

  def _inputs(self, input_mask: tf.Tensor) -> dict[str, Any]:
    # Records have 1 on real tokens, Funnel's own mask has 1 on padding: here one becomes the other.
    return dict(
      inputs=self._features["input_ids"],
      seg_id=self._features["segment_ids"],
      input_mask=1 - input_mask,
      **self._options,
    )

  def classification_logits(self, num_outputs: int, scope: str | None, task_name: str) -> tf.Tensor:
    """float32 [B, num_outputs]; the head stands in model/`scope`, or model/`task_name`."""
    summary, _ = self._model.get_pooled_output(**self._inputs(self._features["input_mask"]))
    return funnel_heads.classification_logits(
      self._config, summary, num_outputs, scope or task_name
    )

  def squad(self, settings) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """As BertEncoder's, with Funnel's heads: start, end given the start, and answerability.

    There are settings.start_n_top starts and for each of them settings.end_n_top ends (the same
    for all without conditional_end): end_scores, end_index [B, start_n_top or 1, end_n_top].
    """
    features = self._features
    hidden, _, _ = self._model.extract_hiddens(
      use_decoder=True, **self._inputs(features["input_mask"])
    )
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
    # A sequence shorter than n_top has fewer candidates; they are filled up with impossible ones.
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
    """float32 [B, K, V] at the feature masked_lm_positions.

    As in the original, nobody attends to a mask symbol: the feature is_mask_symbol hides them.
    """
    features = self._features
    hidden, _, _ = self._model.extract_hiddens(
      use_decoder=True, **self._inputs(features["input_mask"] * (1 - features["is_mask_symbol"]))
    )
    return funnel_heads.mlm_logits(self._config, hidden, features["masked_lm_positions"])

  def electra(self, width_shrink: float) -> dict[str, tf.Tensor]:
    """See models.pretraining.electra; the label 1 means original, as in released Funnels."""
    return funnel_heads.electra(
      self._config, self._features, width_shrink=width_shrink, **self._options
    )

  def choice_scores(self, num_options: int, scope: str | None) -> tf.Tensor:
    """float32 [B, num_options], a score for each of a question's consecutive sequences.

    The head stands in model/race, or model/`scope`.
    """
    summary, _ = self._model.get_pooled_output(**self._inputs(self._features["input_mask"]))
    return funnel_heads.race_logits(self._config, summary, num_options, scope or "race")


Encoder = BertEncoder | FunnelEncoder


def build_encoder(
  model_config: Config,
  features: dict[str, tf.Tensor],
  is_training: bool,
  use_tpu: bool = False,
  use_bfloat16: bool = False,
) -> Encoder:
  """Builds the encoder of a configuration on a batch of records.

  Args:
    model_config: from load_config.
    features: input_ids, input_mask (1 = real token) and segment_ids, int32 [B, T]; or [B, N, T]
      where an example is N sequences, of which the encoder sees B * N.
    is_training: whether dropout is on.
    use_tpu: choose the forms that TPUs are fast at.
    use_bfloat16: compute in bfloat16.

  Returns:
    An encoder with a method for the head of each kind of task.
  """
  if features["input_ids"].shape.rank == 3:
    features = {
      name: tf.reshape(features[name], [-1, *layers.shape_list(features[name])[2:]])
      for name in ("input_ids", "input_mask", "segment_ids")
    }
  encoder = {"bert": BertEncoder, "funnel": FunnelEncoder}[model_config.family]
  return encoder(model_config, features, is_training, use_tpu, use_bfloat16)
