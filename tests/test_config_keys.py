"""Configurations with the keys of Google, Model Garden and Hugging Face load or are refused."""

import json

import pytest

import modeling
from errors import UserError
from models import config_keys, layers

# Keys of bert_config.json in the released cased, multilingual and Chinese models, in addition to
# the eleven that the model reads.
POOLER = {
  "directionality": "bidi",
  "pooler_fc_size": 768,
  "pooler_num_attention_heads": 12,
  "pooler_num_fc_layers": 3,
  "pooler_size_per_head": 128,
  "pooler_type": "first_token_transform",
}
BASE = {
  "attention_probs_dropout_prob": 0.1,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.1,
  "hidden_size": 768,
  "initializer_range": 0.02,
  "intermediate_size": 3072,
  "max_position_embeddings": 512,
  "num_attention_heads": 12,
  "num_hidden_layers": 12,
  "type_vocab_size": 2,
  "vocab_size": 30522,
}
LARGE = {
  "hidden_size": 1024,
  "intermediate_size": 4096,
  "num_attention_heads": 16,
  "num_hidden_layers": 24,
}
FUNNEL = {"vocab_size": 30522, "block_size": "4_4_4", "d_model": 768, "d_embed": 768}
HUGGING_FACE = {
  "model_type": "bert",
  "architectures": ["BertForMaskedLM"],
  "transformers_version": "4.6.0.dev0",
  "gradient_checkpointing": False,
  "layer_norm_eps": 1e-12,
  "pad_token_id": 0,
  "position_embedding_type": "absolute",
  "use_cache": True,
}


def load(tmp_path, values, name="config.json"):
  path = tmp_path / name
  path.write_text(json.dumps(values))
  return modeling.load_config(str(path))


@pytest.mark.parametrize(
  "changes",
  [
    {"vocab_size": 119547},
    {"vocab_size": 105879},
    {"vocab_size": 21128},
    {**LARGE, "vocab_size": 28996},
  ],
)
def test_released_configurations_load(tmp_path, caplog, changes):
  values = {**BASE, **changes}
  with caplog.at_level("INFO"):
    config = load(tmp_path, values | POOLER, "bert_config.json")
  assert config == load(tmp_path, values)
  assert config.to_dict() == values
  assert caplog.messages == [
    f"{tmp_path}/bert_config.json: ignored {', '.join(POOLER)}; these keys do not change the model"
  ]


@pytest.mark.parametrize(
  "more",
  [
    {
      "layer_norm_eps": 1e-12,
      "pad_token_id": 0,
      "position_embedding_type": "absolute",
      "is_decoder": False,
      "use_cache": True,
      "torch_dtype": "float32",
      "gradient_checkpointing": False,
      "id2label": {"0": "no", "1": "yes"},
      "label2id": {"no": 0, "yes": 1},
      "problem_type": None,
      "pruned_heads": {},
      "tie_word_embeddings": True,
      "is_encoder_decoder": False,
    },
    {"classifier_dropout": None},
    {"classifier_dropout": 0.1},
    {"embedding_size": None, "backward_compatible": True},
    {"norm_first": False, "output_range": None, "return_all_encoder_outputs": False},
  ],
)
def test_irrelevant_keys_are_ignored(tmp_path, more):
  config = load(tmp_path, BASE | more)
  assert config == modeling.BertConfig(vocab_size=30522, type_vocab_size=2)
  assert config.to_dict() == BASE


@pytest.mark.parametrize(
  "more, message",
  [
    ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05, .* only 1e-12"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ({"is_decoder": True}, "is_decoder is True"),
    ({"add_cross_attention": True}, "add_cross_attention is True"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': \\[1\\]}"),
    ({"classifier_dropout": 0.3}, "classifier_dropout is 0.3, .* only 0.1"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ({"auto_map": {"AutoModel": "model.Own"}}, "auto_map is "),
    ({"norm_first": True}, "norm_first is True"),
    ({"output_range": 1}, "output_range is 1"),
    ({"num_layers": 6}, "num_layers and another key for num_hidden_layers have different values"),
    ({"model_type": "roberta"}, "model_type is 'roberta', .* only 'bert'"),
    ({"architectures": ["RobertaModel"]}, "model_type is 'RobertaModel'"),
    ({"rotary": True, **POOLER}, "unknown keys rotary; the keys are attention_probs_dropout"),
    ({"num_hidden_layers": 2.5}, "num_hidden_layers is 2.5, which is not an integer"),
    ({"num_attention_heads": 0}, "num_attention_heads is 0, which is below 1"),
  ],
)
def test_keys_that_change_the_model_are_refused_by_name(tmp_path, more, message):
  with pytest.raises(UserError, match=message):
    load(tmp_path, BASE | more)


def test_names_of_model_garden_are_read(tmp_path):
  config = load(
    tmp_path,
    {
      "vocab_size": 100,
      "hidden_size": 12,
      "num_layers": 3,
      "num_attention_heads": 2,
      "hidden_activation": "gelu",
      "intermediate_size": 20,
      "dropout_rate": 0.2,
      "attention_dropout_rate": 0.3,
      "max_position_embeddings": 32,
      "type_vocab_size": 2,
      "initializer_range": 0.02,
      "embedding_size": None,
      "output_range": None,
      "return_all_encoder_outputs": False,
      "return_attention_scores": False,
      "norm_first": False,
    },
  )
  assert config == modeling.BertConfig(
    vocab_size=100,
    hidden_size=12,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=20,
    hidden_dropout_prob=0.2,
    attention_probs_dropout_prob=0.3,
    max_position_embeddings=32,
    type_vocab_size=2,
  )


@pytest.mark.parametrize(
  "theirs, ours",
  [
    ({}, "gelu_erf"),
    ({"hidden_act": "gelu"}, "gelu_erf"),
    ({"hidden_act": "gelu_new"}, "gelu"),
    ({"hidden_act": "relu"}, "relu"),
  ],
)
def test_hugging_face_configuration_loads_unchanged(tmp_path, theirs, ours):
  """Its "gelu" is the exact form, its default type_vocab_size 2."""
  values = {**HUGGING_FACE, "vocab_size": 30522, "hidden_size": 768, **theirs}
  config = load(tmp_path, values, "bert_config.json")
  assert config == modeling.BertConfig(vocab_size=30522, type_vocab_size=2, hidden_act=ours)
  assert load(tmp_path, config.to_dict()) == config


def test_unused_hugging_face_keys_are_ignored(tmp_path, caplog):
  with caplog.at_level("INFO"):
    config = load(tmp_path, BASE | HUGGING_FACE | {"sentiment": 3, "hidden_act": "gelu_new"})
  assert config.to_dict() == BASE
  assert "ignored architectures, gradient_checkpointing, pad_token_id, sentiment" in caplog.text
  with pytest.raises(UserError, match="layer_norm_eps is 1e-05"):
    load(tmp_path, BASE | HUGGING_FACE | {"layer_norm_eps": 1e-5})


def test_funnel(tmp_path):
  more = {
    "layer_norm_eps": 1e-9,
    "model_type": "funnel",
    "architectures": ["FunnelModel"],
    "pad_token_id": 0,
    "torch_dtype": "float32",
    "id2label": {"0": "a"},
  }
  config = load(tmp_path, FUNNEL | more)
  assert config == load(tmp_path, FUNNEL)
  assert not set(more) & set(config.to_dict())
  assert load(tmp_path, FUNNEL | {"use_cache": True, "layer_norm_eps": 1e-8}) == config
  for more, message in [
    ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
    ({"model_type": "bert"}, "model_type is 'bert', .* only 'funnel'"),
    ({"rotary": True}, "unknown keys rotary; the keys are block_size"),
  ]:
    with pytest.raises(UserError, match=message):
      load(tmp_path, FUNNEL | more)
  with pytest.raises(UserError, match="Funnel configuration of Hugging Face; convert its folder"):
    load(tmp_path, {"model_type": "funnel", "block_sizes": [4, 4, 4], "d_model": 768})


def test_names_of_activations_are_those_of_the_layers():
  assert config_keys.ACTIVATIONS == tuple(sorted(layers.ACTIVATIONS))
