"""Funnel-Transformer's configuration: net_config.json and flags."""

import dataclasses
import json

import pytest
from absl import flags
from tiny_funnel import FORMS, TINY

from errors import UserError
from models.funnel_config import ModelConfig


def test_attention_type_depends_on_the_hardware():
  for kind in FORMS:
    config = ModelConfig(**dict(TINY, rel_attn_type=kind))
    assert config.attention_type(use_tpu=False) == "rel_shift"
    assert config.attention_type(use_tpu=True) == "factorized"
  null = ModelConfig(**dict(TINY, rel_attn_type="null"))
  assert null.attention_type(True) == null.attention_type(False) == "null"


def test_config_round_trip(tmp_path):
  path = str(tmp_path / "net_config.json")
  config = ModelConfig(**dict(TINY, block_size="6_3x2_3x2", decoder_size=2))
  config.to_json(path)
  text = (tmp_path / "net_config.json").read_text()
  assert text.startswith('{\n    "block_size": "6_3x2_3x2",\n    "d_embed": 16,')
  assert list(json.loads(text)) == sorted(json.loads(text)) and len(json.loads(text)) == 20
  assert ModelConfig.init_from_json(path) == config
  assert config.blocks == [(6, 1), (3, 2), (3, 2)] and config.decoder == (2, 1)
  assert config.total_pooling == 4 and config.truncate_seq
  assert dataclasses.replace(config, truncate_seq=False).to_dict() == config.to_dict()


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(d_modl=3, heads=2), "net_config.json: unknown keys d_modl, heads; the keys are block_s"),
    (dict(truncate_seq=True), "unknown keys truncate_seq"),
    (dict(block_size="2"), 'single block.* set decoder_size to "0"'),
    (dict(d_model=15), "d_model 15 is odd"),
    (dict(d_model="16"), "d_model is '16', which is not an integer"),
    (dict(n_head=0), "n_head is 0"),
    (dict(block_size="4_4x_4"), "block_size '4_4x_4' cannot be read: '4x'"),
    (dict(block_size="4_0_4"), "a block without layers"),
    (dict(decoder_size="1_1"), "decoder_size '1_1' cannot be read"),
    (dict(pooling_type="min"), "pooling_type 'min' is unknown; use one of mean, max"),
    (dict(ff_activation="swish"), "ff_activation 'swish' is unknown"),
    (dict(rel_attn_type="relative"), "rel_attn_type 'relative' is unknown"),
    (dict(init="zeros"), "init 'zeros' is unknown"),
  ],
  ids=str,
)
def test_invalid_configurations_are_refused(tmp_path, changes, message):
  path = tmp_path / "net_config.json"
  path.write_text(json.dumps(dict(TINY, **changes)))
  with pytest.raises(UserError, match=message):
    ModelConfig.init_from_json(str(path))


def test_missing_files_and_keys_are_named(tmp_path):
  with pytest.raises(UserError, match="nowhere.json: no such file"):
    ModelConfig.init_from_json(str(tmp_path / "nowhere.json"))
  path = tmp_path / "net_config.json"
  path.write_text(json.dumps({k: v for k, v in TINY.items() if k != "vocab_size"}))
  with pytest.raises(UserError, match="the key vocab_size is missing"):
    ModelConfig.init_from_json(str(path))


def test_flags_are_read_only_on_request(tmp_path, monkeypatch):
  """Defects 8 and 24: all keys come from the JSON file, except those in overwrite_keys."""
  path = str(tmp_path / "net_config.json")
  ModelConfig(**TINY).to_json(path)
  own = flags.FlagValues()
  monkeypatch.setattr(flags, "FLAGS", own)
  assert ModelConfig.init_from_json(path) == ModelConfig(**TINY)
  with pytest.raises(UserError, match="there is no flag --dropout"):
    ModelConfig.init_from_json(path, overwrite_keys=["dropout"])
  with pytest.raises(UserError, match="overwrite_keys: unknown keys drop_out"):
    ModelConfig.init_from_json(path, overwrite_keys=["drop_out"])
  for field in dataclasses.fields(ModelConfig):
    define = {
      str: flags.DEFINE_string,
      float: flags.DEFINE_float,
      int: flags.DEFINE_integer,
      bool: flags.DEFINE_bool,
    }[field.type]
    default = None if field.default is dataclasses.MISSING else field.default
    define(field.name, default, "help", flag_values=own)
  own(["program", "--dropout=0.3", "--notruncate_seq", "--noseparate_cls", "--d_model=64"])
  assert ModelConfig.init_from_json(path) == ModelConfig(**TINY)
  assert ModelConfig.init_from_json(path, overwrite_keys=["dropout", "truncate_seq"]) == (
    ModelConfig(**TINY, dropout=0.3, truncate_seq=False)
  )
  with pytest.raises(UserError, match="--vocab_size has no value"):
    ModelConfig.init_from_flags()
  own.vocab_size = 40
  assert ModelConfig.init_from_flags() == ModelConfig(
    vocab_size=40, dropout=0.3, truncate_seq=False, separate_cls=False, d_model=64
  )
