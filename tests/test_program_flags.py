"""ModelConfig.init_from_flags works in programs that define some of the flags, or none."""

import pytest
import tensorflow as tf
import tiny
from absl import flags

import data_utils
import modeling
import tokenization
from errors import UserError
from training import flags as shared_flags


@pytest.fixture
def own(monkeypatch):
  """Flags of a program that has not defined any yet."""
  values = flags.FlagValues()
  monkeypatch.setattr(flags, "FLAGS", values)
  monkeypatch.setattr(shared_flags, "FLAGS", values)
  return values


@pytest.fixture
def tokenizer(tmp_path):
  return tokenization.get_tokenizer(
    "word_piece", f"{tiny.write_funnel(tmp_path)}/vocab.uncased.txt", uncased=True
  )


def test_keys_without_a_flag_have_their_defaults(own, tokenizer):
  """The published lines on custom usage, in a program that imports only modeling."""
  own(["program"])
  with pytest.raises(UserError, match="no flag --vocab_size .*call data_utils.setup_special_ids"):
    modeling.ModelConfig.init_from_flags()
  data_utils.setup_special_ids(tokenizer)
  net_config = modeling.ModelConfig.init_from_flags()
  assert net_config == modeling.ModelConfig(vocab_size=len(tiny.VOCAB))
  assert own.vocab_size == len(tiny.VOCAB)


def test_defined_flags_are_read(own, tokenizer):
  flags.DEFINE_integer("d_model", 512, "", flag_values=own)
  flags.DEFINE_string("block_size", "3_3_3", "", flag_values=own)
  flags.DEFINE_integer("d_embed", 16, "", flag_values=own)
  own(["program", "--d_model=16", "--block_size=1_1"])
  data_utils.setup_special_ids(tokenizer)
  net_config = modeling.ModelConfig.init_from_flags()
  assert net_config == modeling.ModelConfig(len(tiny.VOCAB), "1_1", d_model=16, d_embed=16)
  with tf.Graph().as_default():
    summary, _ = modeling.FunnelTFM(net_config).get_pooled_output(tf.ones([2, 8], tf.int32), False)
  assert summary.shape == [2, 16]


def test_a_second_tokenizer_replaces_the_size_of_the_first(own, tokenizer, tmp_path):
  own(["program"])
  data_utils.setup_special_ids(tokenizer)
  other = tmp_path / "other.txt"
  other.write_text("<pad>\n<unk>\n<cls>\n<sep>\n<mask>\nword\n")
  data_utils.setup_special_ids(tokenization.get_tokenizer("word_piece", str(other), True))
  assert modeling.ModelConfig.init_from_flags().vocab_size == 6
  shared_flags.define_funnel()
  assert modeling.ModelConfig.init_from_flags().vocab_size == 6


def test_a_vocab_size_that_the_program_defines_is_checked(own, tokenizer):
  flags.DEFINE_integer("vocab_size", 40, "", flag_values=own)
  own(["program"])
  with pytest.raises(UserError, match=f"--vocab_size=40, but .* has {len(tiny.VOCAB)}"):
    data_utils.setup_special_ids(tokenizer)
