"""Names of Funnel's tensors and configuration keys, here and in Hugging Face."""

from typing import Any

import modeling
from errors import UserError
from models import config_keys, funnel
from utils.options import brief

# The rows are as in conversion/bert.py. A tuple of dimensions is a single dimension in Hugging Face
# (their product), and separate dimensions in TensorFlow.
_HEADS = ("n_head", "d_head")  # one dimension in Hugging Face, two in TensorFlow

_INPUT = (
  (
    "model/input/word_embedding/lookup_table",
    "embeddings.word_embeddings",
    "table",
    ("vocab_size", "d_model"),
  ),
  ("model/input/layer_norm", "embeddings.layer_norm", "norm", ("d_model",)),
)
_LAYER = (  # names within the layer
  ("rel_attn/q", "attention.q_head", "matrix", (_HEADS, "d_model")),
  ("rel_attn/k", "attention.k_head", "dense", (_HEADS, "d_model")),
  ("rel_attn/v", "attention.v_head", "dense", (_HEADS, "d_model")),
  ("rel_attn/o", "attention.post_proj", "dense", ("d_model", _HEADS)),
  ("rel_attn/r/kernel", "attention.r_kernel", "array", ("d_model", "n_head", "d_head")),
  ("rel_attn/r_w_bias", "attention.r_w_bias", "array", ("n_head", "d_head")),
  ("rel_attn/r_r_bias", "attention.r_r_bias", "array", ("n_head", "d_head")),
  ("rel_attn/r_s_bias", "attention.r_s_bias", "array", ("n_head", "d_head")),
  ("rel_attn/seg_embed", "attention.seg_embed", "array", (2, "n_head", "d_head")),
  ("rel_attn/layer_norm", "attention.layer_norm", "norm", ("d_model",)),
  ("ff/layer_1", "ffn.linear_1", "dense", ("d_inner", "d_model")),
  ("ff/layer_2", "ffn.linear_2", "dense", ("d_model", "d_inner")),
  ("ff/layer_norm", "ffn.layer_norm", "norm", ("d_model",)),
)
_CLASSIFIER = (
  ("model/sequnece_summary/summary", "classifier.linear_hidden", "dense", ("d_model", "d_model")),
  ("model/{scope}/logit", "classifier.linear_out", "dense", ("num_labels", "d_model")),
)
# A positive logit is an original token here, and a replaced token in Hugging Face.
_DISCRIMINATOR = (
  ("model/binary_proj/dense", "discriminator_predictions.dense", "dense", ("d_model", "d_model")),
  (
    "model/binary_loss/weight",
    "discriminator_predictions.dense_prediction.weight",
    "negated",
    ((), "d_model"),
  ),
  ("model/binary_loss/bias", "discriminator_predictions.dense_prediction.bias", "negated", (1,)),
)
_KEYS = {  # key of net_config.json -> key of config.json with the same value
  "vocab_size": "vocab_size",
  "d_model": "d_model",
  "n_head": "n_head",
  "d_head": "d_head",
  "d_inner": "d_inner",
  "dropout": "hidden_dropout",
  "dropatt": "attention_dropout",
  "dropact": "activation_dropout",
  "ff_activation": "hidden_act",
  "pooling_type": "pooling_type",
  "pool_q_only": "pool_q_only",
  "separate_cls": "separate_cls",
  "init_range": "initializer_range",
  "init_std": "initializer_std",
}
_ATTENTION = {"rel_shift": "relative_shift", "factorized": "factorized"}
_DEFAULTS = {  # of config.json
  "vocab_size": 30522,
  "block_sizes": [4, 4, 4],
  "block_repeats": None,
  "num_decoder_layers": 2,
  "d_model": 768,
  "n_head": 12,
  "d_head": 64,
  "d_inner": 3072,
  "hidden_act": "gelu_new",
  "hidden_dropout": 0.1,
  "attention_dropout": 0.1,
  "activation_dropout": 0.0,
  "initializer_range": 0.1,
  "initializer_std": None,
  "pooling_type": "mean",
  "attention_type": "relative_shift",
  "separate_cls": True,
  "truncate_seq": True,
  "pool_q_only": True,
}


def groups(config: modeling.ModelConfig, cls_scope: str) -> dict[str, list[tuple]]:
  """Returns the rows of each group.

  TensorFlow numbers the layers of the whole model, Hugging Face those of each block and of the
  decoder.

  Args:
    config: our configuration.
    cls_scope: scope of the classifier's variables, model/SCOPE/logit.
  """
  places = [
    f"encoder.blocks.{block}.{layer}"
    for block, (count, _) in enumerate(config.blocks)
    for layer in range(count)
  ]
  depth = len(places)
  places += [f"decoder.layers.{layer}" for layer in range(config.decoder[0])]
  layers = {"encoder": [*_INPUT], "decoder": []}
  for i, place in enumerate(places):
    part = "encoder" if i < depth else "decoder"
    layers[part] += [
      (f"model/{part}/layer_{i}/{tf_name}", f"{place}.{hf_name}", kind, dims)
      for tf_name, hf_name, kind, dims in _LAYER
    ]
  heads = {
    "classifier": [(tf_name.format(scope=cls_scope), *rest) for tf_name, *rest in _CLASSIFIER]
  }
  if config.ff_activation == "gelu":
    heads["discriminator"] = [*_DISCRIMINATOR]
  return {**layers, **heads}


def from_hf(values: dict[str, Any], source: str) -> modeling.ModelConfig:
  """Returns our configuration from the contents of config.json.

  decoder_size is "0" for a model of one block, which has no decoder.

  Args:
    values: contents of config.json.
    source: its path, for messages.

  Raises:
    UserError: the models here cannot represent a value.
  """
  values = config_keys.hugging_face_values(
    {**values, "model_type": "funnel"}, _DEFAULTS, config_keys.FUNNEL_FIXED, source
  )
  sizes, repeats = values["block_sizes"], values["block_repeats"]
  if repeats is None and isinstance(sizes, list):
    repeats = [1] * len(sizes)
  if not isinstance(sizes, list) or not isinstance(repeats, list) or len(sizes) != len(repeats):
    raise UserError(
      f"{source}: block_sizes is {brief(sizes)}, block_repeats {brief(repeats)}; they must be "
      f"lists of the same length"
    )
  attention = {theirs: ours for ours, theirs in _ATTENTION.items()}
  if str(values["attention_type"]) not in attention:
    raise UserError(
      f"{source}: attention_type {brief(values['attention_type'])} cannot be represented "
      f"here; known are {', '.join(attention)}"
    )
  ours = {name: values[theirs] for name, theirs in _KEYS.items()}
  if ours["init_std"] is None:  # Hugging Face: depends on the layer's width; not supported here
    del ours["init_std"]
  return config_keys.build(
    modeling.ModelConfig,
    dict(
      ours,
      d_embed=ours["d_model"],
      rel_attn_type=attention[values["attention_type"]],
      block_size="_".join(
        f"{size}x{repeat}" if repeat != 1 else str(size)
        for size, repeat in zip(sizes, repeats, strict=True)
      ),
      decoder_size=str(values["num_decoder_layers"]) if len(sizes) > 1 else "0",
      truncate_seq=values["truncate_seq"],
    ),
    source,
  )


def to_hf(config: modeling.ModelConfig) -> dict[str, Any]:
  """Returns the keys of config.json for our configuration, with our hidden_act.

  Raises:
    UserError: Hugging Face's models cannot represent the configuration.
  """
  for key, fits, only in (
    ("d_embed", config.d_embed == config.d_model, f"d_model, {config.d_model}"),
    ("pooling_size", config.pooling_size == 2, "2"),
    ("rel_attn_type", config.rel_attn_type in _ATTENTION, " or ".join(_ATTENTION)),
    ("decoder_size", config.decoder[1] == 1, "without repetitions"),
  ):
    if not fits:
      raise UserError(
        f"net_config.json: {key} is {getattr(config, key)!r}; in Hugging Face's Funnel models "
        f"it is always {only}"
      )
  return {
    **{theirs: getattr(config, name) for name, theirs in _KEYS.items()},
    "block_sizes": [count for count, _ in config.blocks],
    "block_repeats": [repeat for _, repeat in config.blocks],
    "num_decoder_layers": config.decoder[0],
    "attention_type": _ATTENTION[config.rel_attn_type],
    "truncate_seq": config.truncate_seq,
    "layer_norm_eps": funnel.LAYER_NORM_EPSILON,
  }


def deviations(config: modeling.ModelConfig, groups: set[str]) -> list[str]:
  """Returns the differences between the Hugging Face library's computation and the one here.

  They hold for transformers 5.23. One more difference, which all models have, is in the docstring
  of convert_checkpoint.py.

  Args:
    config: our configuration.
    groups: the groups that the checkpoint has.
  """
  found = []
  if not config.separate_cls:
    found.append(
      "with separate_cls false, it adds position and segment scores in the first token's row and "
      "column of the attention, which are 0 here"
    )
  if "decoder" in groups and config.blocks[0][1] > 1:
    found.append(
      "the first block repeats its layers; the decoder adds the output of a layer inside the "
      "block there, and of its last layer here"
    )
  return found
