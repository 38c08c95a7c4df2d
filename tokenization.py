"""Tokenizers with one interface: BERT's WordPiece and SentencePiece.

  tokenizer = get_tokenizer("word_piece", "vocab.txt", uncased=True)
  tokenizer.tokenize("Jack Johanson's café")  # ["jack", "johan", "##son", "'", "s", "cafe"]
  tokenizer.convert_text_to_ids("...")        # list of ints, without [CLS] and [SEP]
  tokenizer.cls_id, tokenizer.special_ids     # in the spelling of the vocabulary

Special symbols have two spellings, "[CLS]" (BERT) and "<cls>" (Funnel-Transformer, XLNet). The
tokenizers use the one in the vocabulary, and callers name only a role ("cls"). The implementation
is in text/. TensorFlow is imported only to read a path such as gs://..., so that worker processes
start quickly.
"""

import os
import re
from typing import Any

from errors import UserError
from text.base import Tokenizer, convert_to_unicode, printable_text, whitespace_tokenize
from text.sentence_piece import (
  SENT_PIECE_FORMS,
  SPIECE_UNDERLINE,
  SentencePieceTokenizer,
  preprocess_text,
)
from text.vocabulary import (
  END_OF_PARAGRAPH,
  REQUIRED_ROLES,
  SPECIAL_SYMBOLS,
  convert_by_vocab,
  convert_ids_to_tokens,
  convert_tokens_to_ids,
  fits_table,
  is_padded,
  load_vocab,
  vocab_casing,
)
from text.wordpiece import BasicTokenizer, FullTokenizer, WordpieceTokenizer

# isort: split
# Not part of the interface, but importable from here as before.
from text.vocabulary import has_accents as _has_accents  # noqa: F401
from text.vocabulary import log  # noqa: F401
from text.vocabulary import warn_once as _warn_once  # noqa: F401
from text.wordpiece import _CJK_RANGES  # noqa: F401

__all__ = [
  "BasicTokenizer",
  "END_OF_PARAGRAPH",
  "FullTokenizer",
  "REQUIRED_ROLES",
  "SENT_PIECE_FORMS",
  "SPECIAL_SYMBOLS",
  "SPIECE_UNDERLINE",
  "SentencePieceTokenizer",
  "Tokenizer",
  "WordpieceTokenizer",
  "check_vocab",
  "convert_by_vocab",
  "convert_ids_to_tokens",
  "convert_to_unicode",
  "convert_tokens_to_ids",
  "fits_table",
  "get_tokenizer",
  "is_padded",
  "load_vocab",
  "preprocess_text",
  "printable_text",
  "validate_case_matches_checkpoint",
  "vocab_casing",
  "whitespace_tokenize",
]

# Folders of Google's checkpoints, such as uncased_L-12_H-768_A-12 and wwm_cased_L-24_... Those
# named "multilingual" and "chinese" are uncased.
_MODEL_FOLDER = re.compile(r"(?:^|.*_)(cased|uncased|multilingual|chinese)_L-\d+_H-\d+_A-\d+$")


def validate_case_matches_checkpoint(do_lower_case: bool, init_checkpoint: str | None) -> None:
  """Raises ValueError if the folder name of a checkpoint indicates another casing.

  Only names of Google's folders are checked.
  """
  for name in (init_checkpoint or "").split("/"):
    match = _MODEL_FOLDER.match(name)
    if match and do_lower_case != (match[1] != "cased"):
      raise ValueError(
        f"do_lower_case is {do_lower_case}, but {init_checkpoint} is "
        f"{'a cased' if do_lower_case else 'an uncased'} model; pass "
        f"--do_lower_case={not do_lower_case}"
      )


def _flag_value(name: str) -> Any:
  """Returns the value of an absl flag; UserError if there is none or it is not parsed yet."""
  from absl.flags import FLAGS

  value = FLAGS[name].value if name in FLAGS and FLAGS.is_parsed() else None
  if value in (None, ""):
    raise UserError(f"get_tokenizer: {name} is not given; pass it as an argument or as --{name}")
  return value


def get_tokenizer(
  tokenizer_type: str | None = None,
  tokenizer_path: str | None = None,
  uncased: bool | None = None,
  keep_accents: bool = False,
  strip_accents: bool | None = None,
  tokenize_chinese_chars: bool = True,
  sent_piece_form: str = "funnel",
) -> FullTokenizer | SentencePieceTokenizer:
  """Builds the tokenizer of a model.

  If one of the first three arguments is None, it is read from the absl flag of the same name, so
  that the published call `tokenization.get_tokenizer()` works in a program that defines these
  flags. Nothing else in this module reads flags.

  Args:
    tokenizer_type: "word_piece" or "WordPiece" (a vocabulary text file), "sent_piece" or
      "SentencePiece" (a ".model" file).
    tokenizer_path: the file, local or gs://.
    uncased: lower-case the text.
    keep_accents: SentencePiece: keep accents and compatibility characters.
    strip_accents: WordPiece: drop accents; None for the value of `uncased`.
    tokenize_chinese_chars: WordPiece: make each ideograph a word.
    sent_piece_form: SentencePiece: one of SENT_PIECE_FORMS.

  Raises:
    UserError: the file cannot be used, or a setting is for the other tokenizer_type.
  """
  given: Any = _flag_value("tokenizer_type") if tokenizer_type is None else tokenizer_type
  path = os.fspath(_flag_value("tokenizer_path") if tokenizer_path is None else tokenizer_path)
  lowercases: bool = _flag_value("uncased") if uncased is None else uncased

  # Model Garden's scripts call the two WordPiece and SentencePiece.
  tokenizer_type = {"WordPiece": "word_piece", "SentencePiece": "sent_piece"}.get(given, given)
  if tokenizer_type not in ("word_piece", "sent_piece"):
    raise UserError(f"tokenizer_type must be word_piece or sent_piece, not {tokenizer_type!r}")
  named = {".model": "sent_piece", ".txt": "word_piece"}.get(os.path.splitext(path)[1].lower())
  if named not in (None, tokenizer_type):
    raise UserError(f"{path}: a file of this name needs tokenizer_type {named}")
  if tokenizer_type == "sent_piece":
    if strip_accents is not None or not tokenize_chinese_chars:
      raise UserError(
        "--strip_accents and --tokenize_chinese_chars are for WordPiece; "
        "SentencePiece models keep accents with --keep_accents"
      )
    return SentencePieceTokenizer(path, lowercases, keep_accents, sent_piece_form)
  if keep_accents:
    raise UserError(
      "--keep_accents is for SentencePiece models; WordPiece keeps accents with --nostrip_accents"
    )
  if sent_piece_form != "funnel":
    raise UserError("--sent_piece_form is for SentencePiece models; leave it out for WordPiece")
  return FullTokenizer(path, lowercases, (), strip_accents, tokenize_chinese_chars)


def check_vocab(tokenizer: Tokenizer, vocab_size: int, config_file: str) -> None:
  """Checks that the size of the vocabulary matches the embedding table of the model.

  With more tokens, ids would be out of range of the table. With fewer, training would run, but the
  embeddings belong to the words of another vocabulary, unless the additional rows are padding.

  Args:
    tokenizer: from get_tokenizer.
    vocab_size: rows of the table.
    config_file: the model configuration, for the message.

  Raises:
    UserError: the sizes differ, and not by padding.
  """
  if not fits_table(tokenizer.vocab_size, vocab_size, config_file):
    relation = "more" if tokenizer.vocab_size > vocab_size else "fewer"
    raise UserError(
      f"{tokenizer.vocab_file} has {tokenizer.vocab_size} tokens, {relation} than the vocab_size "
      f"{vocab_size} of {config_file}; use the vocabulary file that belongs to the model"
    )
