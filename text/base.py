"""Base class of the tokenizers."""

import os
from collections.abc import Iterable

from errors import UserError
from text.vocabulary import (
  REQUIRED_ROLES,
  SPECIAL_SYMBOLS,
  has_accents,
  to_ids,
  vocab_casing,
  warn_once,
)


def convert_to_unicode(text: str | bytes) -> str:
  """Returns `text` as str; bytes are decoded as UTF-8, without invalid bytes."""
  if isinstance(text, str):
    return text
  if isinstance(text, bytes):
    return text.decode("utf-8", "ignore")
  raise ValueError(f"text must be str or bytes, not {type(text).__name__}")


printable_text = convert_to_unicode  # they differ in BERT on Python 2 only


def whitespace_tokenize(text: str) -> list[str]:
  """Splits at runs of whitespace; an empty or blank text gives an empty list."""
  return text.split()


def _both_spellings(role: str) -> str:
  return " / ".join(f'"{symbol}"' for symbol in SPECIAL_SYMBOLS[role])


class Tokenizer:
  """Base class of the tokenizers: conversion to ids, and the special symbols.

  Attributes:
    vocab_file: vocabulary file, for messages.
    vocab: token -> id; the last id of a repeated token.
    inv_vocab: id -> token.
    vocab_size: number of ids.
    lowercases: True if text is lower-cased.
    special_tokens: role -> spelling in the vocabulary, e.g. {"cls": "[CLS]", ...}.
    special_ids: role -> id. Roles that the vocabulary lacks are left out.
  """

  def __init__(self, vocab_file: str, tokens: list[str], do_lower_case: bool):
    """Finds the special symbols.

    Args:
      vocab_file: vocabulary file, for messages.
      tokens: the vocabulary by id.
      do_lower_case: lower-case text.

    Raises:
      UserError: the vocabulary lacks a required special symbol.
    """
    self.vocab_file = os.fspath(vocab_file)
    self.vocab = vocab = to_ids(tokens)
    self.inv_vocab = dict(enumerate(tokens))
    self.vocab_size = len(tokens)
    self.lowercases = bool(do_lower_case)
    # If a vocabulary has both "[CLS]" and "<cls>", prefer the style with more symbols present.
    # ALBERT mixes the styles (<unk>, <pad>, [CLS], [SEP], [MASK]), so fall back to the other style
    # for a missing symbol.
    pairs = [symbols for symbols in SPECIAL_SYMBOLS.values() if len(symbols) == 2]
    square, angle = (sum(pair[style] in vocab for pair in pairs) for style in (0, 1))
    self.special_tokens = {}
    for role, symbols in SPECIAL_SYMBOLS.items():
      found = [symbol for symbol in symbols if symbol in vocab]
      if found:
        self.special_tokens[role] = found[-1 if angle > square else 0]
    self.special_ids = {role: vocab[token] for role, token in self.special_tokens.items()}
    missing = [_both_spellings(role) for role in REQUIRED_ROLES if role not in self.special_ids]
    if missing:
      raise UserError(
        f"{self.vocab_file}: the vocabulary lacks {', '.join(missing)}; use the vocabulary file "
        "that belongs to the model, or add the symbols to it before pretraining"
      )

  def _check_text_settings(self, strips_accents: bool, flag: str) -> None:
    """Warns if the settings make some tokens unreachable; `flag` is the one that keeps accents."""
    casing = vocab_casing(self.vocab)
    if casing == "cased" and self.lowercases:
      warn_once(
        f"{self.vocab_file}: the vocabulary is cased, but the text is lower-cased, so its "
        "tokens with capitals are not used; pass --uncased=False (--do_lower_case=False)"
      )
    elif casing == "uncased" and not self.lowercases:
      warn_once(
        f"{self.vocab_file}: the vocabulary is uncased, but the text is not lower-cased, "
        "so words with capitals are unknown; pass --uncased=True (--do_lower_case=True)"
      )
    elif strips_accents and has_accents(self.vocab):
      warn_once(
        f"{self.vocab_file}: the vocabulary has accents, but they are stripped from the "
        f"text, so its tokens with accents are not used; pass {flag}"
      )

  def _special_id(self, role: str) -> int:
    if role not in self.special_ids:
      raise UserError(f"{self.vocab_file}: the vocabulary lacks {_both_spellings(role)}")
    return self.special_ids[role]

  cls_id = property(
    lambda self: self._special_id("cls"), doc="Id of the first token, which represents the input."
  )
  sep_id = property(
    lambda self: self._special_id("sep"), doc="Id of the token that ends a segment."
  )
  pad_id = property(lambda self: self._special_id("pad"), doc="Id of padding.")
  mask_id = property(
    lambda self: self._special_id("mask"), doc="Id of the token that replaces masked tokens."
  )
  unk_id = property(lambda self: self._special_id("unk"), doc="Id of unknown words.")

  def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
    """Returns the ids of `tokens`; ValueError for one that is not in the vocabulary."""
    try:
      return [self.vocab[token] for token in tokens]
    except KeyError as e:
      raise ValueError(f"token {e.args[0]!r} is not in {self.vocab_file}") from None

  def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
    """Returns the tokens of `ids`; ValueError for one out of range."""
    try:
      return [self.inv_vocab[i] for i in ids]
    except KeyError as e:
      raise ValueError(
        f"id {e.args[0]} is not in {self.vocab_file}, which has ids 0 to {self.vocab_size - 1}"
      ) from None

  def convert_text_to_ids(self, text: str | bytes) -> list[int]:
    """Returns the ids of the tokens of `text`, without special symbols."""
    return self.convert_tokens_to_ids(self.tokenize(text))
