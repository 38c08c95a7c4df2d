"""Names of BERT's tensors and configuration keys, here and in Hugging Face."""

from collections.abc import Iterable
from typing import Any

import modeling
from models import bert

# A row is (name in TensorFlow, name in Hugging Face, kind, dimensions). "{i}" is the layer number,
# "{scope}" the encoder's variable scope. The kinds are in conversion/families.py. Dimensions are in
# Hugging Face's order, each a size, an attribute of the configuration, or a symbolic size
# (num_labels).
ENCODER = (
  (
    "{scope}/embeddings/word_embeddings",
    "embeddings.word_embeddings",
    "table",
    ("vocab_size", "embedding_width"),
  ),
  (
    "{scope}/embeddings/token_type_embeddings",
    "embeddings.token_type_embeddings",
    "table",
    ("type_vocab_size", "embedding_width"),
  ),
  (
    "{scope}/embeddings/position_embeddings",
    "embeddings.position_embeddings",
    "table",
    ("max_position_embeddings", "embedding_width"),
  ),
  ("{scope}/embeddings/LayerNorm", "embeddings.LayerNorm", "norm", ("embedding_width",)),
  (
    "{scope}/encoder/layer_{i}/attention/self/query",
    "encoder.layer.{i}.attention.self.query",
    "dense",
    ("hidden_size", "hidden_size"),
  ),
  (
    "{scope}/encoder/layer_{i}/attention/self/key",
    "encoder.layer.{i}.attention.self.key",
    "dense",
    ("hidden_size", "hidden_size"),
  ),
  (
    "{scope}/encoder/layer_{i}/attention/self/value",
    "encoder.layer.{i}.attention.self.value",
    "dense",
    ("hidden_size", "hidden_size"),
  ),
  (
    "{scope}/encoder/layer_{i}/attention/output/dense",
    "encoder.layer.{i}.attention.output.dense",
    "dense",
    ("hidden_size", "hidden_size"),
  ),
  (
    "{scope}/encoder/layer_{i}/attention/output/LayerNorm",
    "encoder.layer.{i}.attention.output.LayerNorm",
    "norm",
    ("hidden_size",),
  ),
  (
    "{scope}/encoder/layer_{i}/intermediate/dense",
    "encoder.layer.{i}.intermediate.dense",
    "dense",
    ("intermediate_size", "hidden_size"),
  ),
  (
    "{scope}/encoder/layer_{i}/output/dense",
    "encoder.layer.{i}.output.dense",
    "dense",
    ("hidden_size", "intermediate_size"),
  ),
  (
    "{scope}/encoder/layer_{i}/output/LayerNorm",
    "encoder.layer.{i}.output.LayerNorm",
    "norm",
    ("hidden_size",),
  ),
)
_GROUPS = {
  "encoder": ENCODER,
  "pooler": (("bert/pooler/dense", "pooler.dense", "dense", ("hidden_size", "hidden_size")),),
  "masked_lm": (
    (
      "cls/predictions/transform/dense",
      "cls.predictions.transform.dense",
      "dense",
      ("hidden_size", "hidden_size"),
    ),
    (
      "cls/predictions/transform/LayerNorm",
      "cls.predictions.transform.LayerNorm",
      "norm",
      ("hidden_size",),
    ),
    ("cls/predictions/output_bias", "cls.predictions.bias", "vector", ("vocab_size",)),
  ),
  "next_sentence": (
    ("cls/seq_relationship/", "cls.seq_relationship", "logits", (2, "hidden_size")),
  ),
  "classifier": (("", "classifier", "logits", ("num_labels", "hidden_size")),),
  "question_answering": (("cls/squad/", "qa_outputs", "logits", (2, "hidden_size")),),
}
FIXED = {  # keys of config.json with the only values that the encoder here supports
  "layer_norm_eps": bert.LAYER_NORM_EPSILON,
  "position_embedding_type": "absolute",
  "is_decoder": False,
  "add_cross_attention": False,
}


def expand_rows(config: modeling.BertConfig, rows: Iterable[tuple]) -> list[tuple]:
  """Returns the rows with the encoder's scope; those with "{i}" are repeated for each layer."""
  return [
    (tf_name.format(i=i, scope=config.family), hf_name.format(i=i), kind, dims)
    for tf_name, hf_name, kind, dims in rows
    for i in range(config.num_hidden_layers if "{i}" in tf_name else 1)
  ]


def groups(config: modeling.BertConfig, cls_scope: str) -> dict[str, list[tuple]]:
  """Returns the rows of each group.

  Args:
    config: our configuration.
    cls_scope: unused; the variables of BERT's classifier have no scope.
  """
  del cls_scope
  return {group: expand_rows(config, rows) for group, rows in _GROUPS.items()}


def from_hf(values: dict[str, Any], source: str) -> modeling.BertConfig:
  """Returns our configuration from the contents of config.json; `source` is its path."""
  return modeling.BertConfig.from_dict({**values, "model_type": "bert"}, source=source)


def to_hf(config: modeling.BertConfig) -> dict[str, Any]:
  """Returns the keys of config.json for our configuration."""
  return {**config.to_dict(), **FIXED}
