"""Programs built on google-research/bert's tokenization module work."""

import pytest
from test_tokenization import BERT_SYMBOLS, write_vocab

import tokenization


def encode_for_bert(vocab_file, do_lower_case, init_checkpoint, text, length):
  """Returns tokens, ids and mask, and logs a line, as such programs do."""
  tokenization.validate_case_matches_checkpoint(do_lower_case, init_checkpoint)
  tokenizer = tokenization.FullTokenizer(vocab_file=vocab_file, do_lower_case=do_lower_case)
  tokens = ["[CLS]", *tokenizer.tokenize(tokenization.convert_to_unicode(text)), "[SEP]"]
  ids = tokenization.convert_tokens_to_ids(tokenizer.vocab, tokens)
  assert ids == tokenizer.convert_tokens_to_ids(tokens)
  padding = [0] * (length - len(ids))
  line = "tokens: " + " ".join(tokenization.printable_text(token) for token in tokens)
  assert tokenization.convert_ids_to_tokens(tokenizer.inv_vocab, ids) == tokens
  return line, ids + padding, [1] * len(ids) + padding


def test_program(tmp_path):
  vocab_file = write_vocab(tmp_path, [*BERT_SYMBOLS, "cafe", "the", "##s"])
  line, ids, mask = encode_for_bert(
    vocab_file, True, "gs://models/uncased_L-12_H-768_A-12/bert_model.ckpt", "The Cafés".encode(), 8
  )
  assert line == "tokens: [CLS] the cafe ##s [SEP]"
  assert ids == [2, 6, 5, 7, 3, 0, 0, 0] and mask == [1, 1, 1, 1, 1, 0, 0, 0]
  vocab = tokenization.load_vocab(vocab_file)
  assert tokenization.convert_by_vocab(vocab, ["the", "the"]) == [6, 6]
  with pytest.raises(KeyError):
    tokenization.convert_tokens_to_ids(vocab, ["nope"])


def test_printable_text():
  assert tokenization.printable_text("é") == tokenization.printable_text("é".encode()) == "é"
  with pytest.raises(ValueError):
    tokenization.printable_text(1)


@pytest.mark.parametrize(
  ("folder", "is_lower"),
  [
    ("uncased_L-24_H-1024_A-16", True),
    ("uncased_L-12_H-768_A-12", True),
    ("multilingual_L-12_H-768_A-12", True),
    ("chinese_L-12_H-768_A-12", True),
    ("wwm_uncased_L-24_H-1024_A-16", True),
    ("uncased_L-2_H-128_A-2", True),
    ("cased_L-12_H-768_A-12", False),
    ("cased_L-24_H-1024_A-16", False),
    ("multi_cased_L-12_H-768_A-12", False),
    ("wwm_cased_L-24_H-1024_A-16", False),
  ],
)
def test_case_of_the_released_folders(folder, is_lower):
  check = tokenization.validate_case_matches_checkpoint
  for path in (f"/models/{folder}/bert_model.ckpt", f"{folder}/bert_model.ckpt", folder):
    check(is_lower, path)
    with pytest.raises(ValueError, match=f"{folder}.*--do_lower_case={is_lower}"):
      check(not is_lower, path)


@pytest.mark.parametrize("path", [None, "", "my_model/model.ckpt-100", "runs/cased/model.ckpt"])
def test_other_paths_are_not_checked(path):
  for lower in (True, False):
    tokenization.validate_case_matches_checkpoint(lower, path)
