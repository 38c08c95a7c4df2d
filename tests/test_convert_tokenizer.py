"""Conversion of vocabularies and tokenizer settings."""

import pytest
from tiny_conversion import assert_same, draw, hf_shapes, read_hf, run_script, write_hf
from tiny_folders import SETTINGS, TOKENIZER_CONFIG, read, to_tf, write

from conversion import commands
from errors import UserError
from training import hf_tokenizer, model_folder

TOKENS = [f"piece{i}" for i in range(31)]  # of write_hf


def tokenizer_json(tokens, added=(), **changes):
  """tokenizer.json as the tokenizers library writes it for BERT, without unread keys."""
  return {
    "version": "1.0",
    "added_tokens": [
      {"id": i, "content": token, "special": True, "normalized": False} for i, token in added
    ],
    "normalizer": {
      "type": "BertNormalizer",
      "clean_text": True,
      "handle_chinese_chars": False,
      "strip_accents": False,
      "lowercase": False,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {
      "type": "WordPiece",
      "unk_token": "[UNK]",
      "continuing_subword_prefix": "##",
      "max_input_chars_per_word": 100,
      "vocab": {token: i for i, token in enumerate(tokens)},
    }
    | changes,
  }


def test_tokenizer_json_replaces_a_missing_vocab_txt(tmp_path, capsys):
  tensors = draw(hf_shapes())
  write_hf(tmp_path / "hf", tensors)
  (tmp_path / "hf" / "vocab.txt").unlink()
  tokens = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "é",
    "##ß",
    "中",
    "\u2028",
    *map(str, range(20)),
  ]
  added = [(0, "[PAD]"), (29, "[NEW]"), (30, "[OTHER]"), (31, "[NO ROW]")]
  write(tmp_path / "hf" / "tokenizer.json", tokenizer_json(tokens, added))
  folder = to_tf(tmp_path)
  vocab = (folder / "vocab.txt").read_bytes().decode()
  assert vocab == "".join(f"{token}\n" for token in [*tokens, "[NEW]", "[OTHER]"])
  assert model_folder.read_settings(str(folder)) == SETTINGS
  assert (
    "model_settings.json: uncased False, strip_accents False, tokenize_chinese_chars False"
    in capsys.readouterr().out
  )

  commands.tf_to_hf(str(folder), str(tmp_path / "back"))
  assert TOKENIZER_CONFIG.items() <= read(tmp_path / "back" / "tokenizer_config.json").items()
  assert (tmp_path / "back" / "vocab.txt").read_bytes().decode() == vocab
  assert_same(read_hf(tmp_path / "back"), tensors)


@pytest.mark.parametrize(
  "model, message",
  [
    ({"type": "BPE", "vocab": {"a": 0}, "merges": []}, "a model of type BPE.* only WordPiece"),
    ({"type": "Unigram", "vocab": [["a", 0.5]]}, "a model of type Unigram"),
    (None, "a model of type None"),
    (
      {"type": "WordPiece", "continuing_subword_prefix": "@@", "vocab": {}},
      "a model of type WordPiece, prefix '@@'",
    ),
    ({"type": "WordPiece", "vocab": {"a": 0, "b": 2}}, "no token has the id 1, but the ids go up "),
    ({"type": "WordPiece", "vocab": {"a": 1, "b": 1}}, "no token has the id 0"),
    ({"type": "WordPiece", "vocab": {"a": 0, "b\nc": 1}}, r"the token 'b\\nc' cannot be a line"),
  ],
)
def test_unsupported_vocabularies_are_refused(tmp_path, model, message):
  write_hf(tmp_path / "hf", draw(hf_shapes()))
  (tmp_path / "hf" / "vocab.txt").unlink()
  write(tmp_path / "hf" / "tokenizer.json", tokenizer_json([]) | {"model": model})
  with pytest.raises(UserError, match=f"tokenizer.json: {message}"):
    to_tf(tmp_path)
  assert not (tmp_path / "tf").exists()


def test_added_tokens_follow_vocab_txt(tmp_path):
  write_hf(tmp_path / "hf", draw(hf_shapes()))
  vocab, new = tmp_path / "hf" / "vocab.txt", tmp_path / "hf" / "added_tokens.json"
  vocab.write_text("\r\n".join(TOKENS[:29]))
  assert hf_tokenizer.vocab_lines(str(tmp_path / "hf"), 31) == vocab.read_bytes()
  write(new, {"[A]": 29})
  write(
    tmp_path / "hf" / "tokenizer_config.json",
    {"added_tokens_decoder": {"0": {"content": "[PAD]0"}, "30": {"content": "[B]"}}},
  )
  assert (to_tf(tmp_path) / "vocab.txt").read_bytes() == vocab.read_bytes() + b"\n[A]\n[B]\n"
  new.unlink()
  with pytest.raises(UserError, match="vocab.txt: no token has the id 29"):
    to_tf(tmp_path, overwrite=True)


@pytest.mark.parametrize(
  "config, normalizer, expected",
  [
    (TOKENIZER_CONFIG, None, SETTINGS),
    ({"do_lower_case": True}, None, {"uncased": True}),
    ({"do_lower_case": False, "strip_accents": None}, None, {"uncased": False}),
    (
      {},
      {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True},
      {"uncased": True, "tokenize_chinese_chars": True},
    ),
    (
      {"do_lower_case": True, "strip_accents": None},  # takes precedence over tokenizer.json
      {"lowercase": False, "strip_accents": True, "handle_chinese_chars": False},
      {"uncased": True, "tokenize_chinese_chars": False},
    ),
    ({}, None, {}),
  ],
)
def test_tokenizer_settings(tmp_path, config, normalizer, expected):
  write(tmp_path / "tokenizer_config.json", config)
  if normalizer is not None:
    write(tmp_path / "tokenizer.json", {"normalizer": {"type": "BertNormalizer", **normalizer}})
  assert hf_tokenizer.read_settings(str(tmp_path)) == expected
  assert hf_tokenizer.to_config(expected) == {
    {"uncased": "do_lower_case"}.get(name, name): value for name, value in expected.items()
  }


def test_deviating_tokenizers_are_reported(tmp_path):
  assert hf_tokenizer.deviations(str(tmp_path)) == []
  write(tmp_path / "tokenizer.json", tokenizer_json([]))
  assert hf_tokenizer.deviations(str(tmp_path)) == []
  write(
    tmp_path / "tokenizer_config.json",
    {"tokenizer_class": "BertJapaneseTokenizer", "do_basic_tokenize": False},
  )
  write(tmp_path / "tokenizer.json", {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": None})
  assert hf_tokenizer.deviations(str(tmp_path)) == [
    "tokenizer_class is BertJapaneseTokenizer",
    "do_basic_tokenize is false",
    "the normalizer of tokenizer.json is Lowercase, not BertNormalizer",
    "the pre_tokenizer of tokenizer.json is None, not BertPreTokenizer",
  ]


def test_a_contradicting_uncased_flag_is_refused(tmp_path):
  write_hf(tmp_path / "hf", draw(hf_shapes()))
  write(tmp_path / "hf" / "tokenizer_config.json", TOKENIZER_CONFIG)
  folder = to_tf(tmp_path)
  convert = lambda *more: run_script(
    "--direction=tf_to_hf", f"--input_dir={folder}", f"--output_dir={tmp_path / 'back'}", *more
  )
  refused = convert("--uncased")
  assert refused.returncode == 1 and "Traceback" not in refused.stderr
  assert "error: --uncased=True, but uncased is False in the settings of " in refused.stderr
  assert not (tmp_path / "back").exists()
  assert convert("--nouncased").returncode == 0
  assert read(tmp_path / "back" / "tokenizer_config.json")["do_lower_case"] is False
