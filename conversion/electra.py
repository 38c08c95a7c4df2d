"""Names of ELECTRA's tensors and configuration keys, here and in Hugging Face."""

import dataclasses
from typing import Any

import modeling
from conversion import bert

# See conversion/bert.py. The names here are those of the released checkpoints; the heads that these
# do not have are BERT's. A masked-words head is the generator's, as a model of its own.
_HEADS = {
  "discriminator": (
    (
      "discriminator_predictions/dense",
      "discriminator_predictions.dense",
      "dense",
      ("hidden_size", "hidden_size"),
    ),
    (
      "discriminator_predictions/dense_1",
      "discriminator_predictions.dense_prediction",
      "dense",
      (1, "hidden_size"),
    ),
  ),
  "masked_lm": (
    (
      "cls/predictions/transform/dense",
      "generator_predictions.dense",
      "dense",
      ("embedding_size", "hidden_size"),
    ),
    (
      "cls/predictions/transform/LayerNorm",
      "generator_predictions.LayerNorm",
      "norm",
      ("embedding_size",),
    ),
    ("cls/predictions/output_bias", "generator_lm_head.bias", "vector", ("vocab_size",)),
  ),
  # Before "classifier", whose variables have the same names.
  "token_classifier": (("", "classifier", "logits", ("num_labels", "hidden_size")),),
  "classifier": (
    ("classifier/dense", "classifier.dense", "dense", ("hidden_size", "hidden_size")),
    ("", "classifier.out_proj", "logits", ("num_labels", "hidden_size")),
  ),
  "question_answering": (("cls/squad/", "qa_outputs", "logits", (2, "hidden_size")),),
}
_PROJECTION = (
  "{scope}/embeddings_project",
  "embeddings_project",
  "dense",
  ("hidden_size", "embedding_size"),
)


def groups(config: modeling.ElectraConfig, cls_scope: str) -> dict[str, list[tuple]]:
  """Returns the rows of each group.

  Args:
    config: our configuration.
    cls_scope: unused; the hidden layer of ELECTRA's classifier is in "classifier".
  """
  del cls_scope
  has_projection = config.embedding_size != config.hidden_size
  encoder = (*bert.ENCODER, *([_PROJECTION] if has_projection else []))
  rows_of = {"encoder": encoder, **_HEADS}
  return {group: bert.expand_rows(config, rows) for group, rows in rows_of.items()}


def from_hf(values: dict[str, Any], source: str) -> modeling.ElectraConfig:
  """Returns our configuration from the contents of config.json; `source` is its path."""
  return modeling.ElectraConfig.from_dict({**values, "model_type": "electra"}, source=source)


def to_hf(config: modeling.ElectraConfig) -> dict[str, Any]:
  """Returns the keys of config.json for our configuration."""
  return {**dataclasses.asdict(config), **bert.FIXED}


def deviations(config: modeling.ElectraConfig, groups: set[str]) -> list[str]:
  """Returns the differences between the Hugging Face library's computation and the one here."""
  if "masked_lm" in groups and config.hidden_act != "gelu_erf":
    return [f"its generator_predictions use the exact GELU, not {config.hidden_act}"]
  return []
