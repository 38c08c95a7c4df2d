"""Vocabulary files: reading them, their special symbols, their casing and their size."""

import functools
import logging
import os
import re
import unicodedata
from collections.abc import Iterable

from errors import UserError

# The public module's name: training/hooks.py and utils/processes.py set the level of this logger.
log = logging.getLogger("tokenization")

# role -> its spellings, "[CLS]" and "<cls>"; some exist in the second style only.
SPECIAL_SYMBOLS = {
  role: (f"[{role.upper()}]", f"<{role}>") for role in ("unk", "cls", "sep", "pad", "mask")
} | {"bos": ("<s>",), "eos": ("</s>",), "eod": ("<eod>",), "eop": ("<eop>",)}
(END_OF_PARAGRAPH,) = SPECIAL_SYMBOLS["eop"]  # written in texts for pretraining
# No script works without these; "mask" is needed by pretraining only.
REQUIRED_ROLES = ("unk", "cls", "sep", "pad")


def read_file(path: str) -> bytes:
  """Reads a whole local or remote (gs://...) file; UserError if that is not possible."""
  open_file, errors = open, (OSError,)
  if "://" in path:
    import tensorflow as tf

    open_file, errors = tf.io.gfile.GFile, (OSError, tf.errors.OpError, NotImplementedError)
  try:
    with open_file(path, "rb") as f:
      data = f.read()
  except FileNotFoundError:
    raise UserError(f"{path}: no such file; give the tokenizer's vocabulary file") from None
  except errors as e:
    raise UserError(f"{path}: cannot read the tokenizer's vocabulary file: {e}") from None
  if not data.strip(b"\xef\xbb\xbf\r\n\t "):  # the first three are a byte order mark
    raise UserError(f"{path}: the tokenizer's vocabulary file is empty")
  return data


@functools.cache
def warn_once(message: str) -> None:
  """Logs a warning, unless this process has logged the same message before."""
  log.warning("%s", message)


def load_vocab(vocab_file: str) -> dict[str, int]:
  """Reads a UTF-8 file with one token a line into a dict token -> id; the first line has id 0.

  Only the line end is taken off a line. Lines end at a newline and nowhere else: characters such as
  U+2028, which str.splitlines() would also split at, may be tokens. A byte order mark, and blank
  lines at the end of the file, are no part of the vocabulary. Ids are line numbers, also if a token
  is repeated (as in released models): then its last line counts, as in BERT, with a warning.
  """
  return to_ids(read_tokens(vocab_file))


def to_ids(tokens: list[str]) -> dict[str, int]:
  """Returns a dict token -> id; the last id if a token is repeated."""
  return {token: i for i, token in enumerate(tokens)}


def read_tokens(vocab_file: str) -> list[str]:
  """Returns the tokens of a vocabulary file by id; see load_vocab."""
  vocab_file = os.fspath(vocab_file)
  data = read_file(vocab_file)
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError as e:
    line = data.count(b"\n", 0, e.start) + 1
    raise UserError(
      f"{vocab_file}: not UTF-8 at line {line} (byte {e.start} of the file); convert it, or "
      "use tokenizer_type sent_piece if this is a SentencePiece model"
    ) from None

  lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
  while lines and not lines[-1]:
    lines.pop()

  last = to_ids(lines)
  repeated = [
    f"{token!r} (lines {i + 1} and {last[token] + 1})"
    for i, token in enumerate(lines)
    if last[token] != i
  ]
  if repeated:
    warn_once(
      f"{vocab_file}: {len(repeated)} repeated tokens, whose last line counts: "
      f"{', '.join(repeated[:5])}{', ...' if len(repeated) > 5 else ''}"
    )
  return lines


def convert_by_vocab(vocab: dict, items: Iterable) -> list:
  """Returns vocab[item] of each item; KeyError for one that the vocabulary lacks."""
  return [vocab[item] for item in items]


def convert_tokens_to_ids(vocab: dict[str, int], tokens: Iterable[str]) -> list[int]:
  """Returns the ids of tokens by a dict from load_vocab."""
  return convert_by_vocab(vocab, tokens)


def convert_ids_to_tokens(inv_vocab: dict[int, str], ids: Iterable[int]) -> list[str]:
  """Returns the tokens of ids by a dict from id to token."""
  return convert_by_vocab(inv_vocab, ids)


# Symbols such as [CLS], [unused7] and <pad> say nothing about the text of a vocabulary.
_SYMBOL = re.compile(r"\[.+\]|<.+>")


def _share(found: list[bool]) -> float:
  return sum(found) / max(1, len(found))


def vocab_casing(vocab: Iterable[str]) -> str | None:
  """Returns the casing that the tokens of a vocabulary suggest.

  Returns:
    "cased" if at least 5% of the tokens with letters have an upper-case letter, "uncased" if none
    has; None in between, and if no token has a letter with a case (of ideographs, for example).
    Special symbols are left out.
  """
  is_upper = [
    token != token.lower()
    for token in vocab
    if token.upper() != token.lower() and not _SYMBOL.fullmatch(token)
  ]
  if _share(is_upper) >= 0.05:
    return "cased"
  return "uncased" if is_upper and not any(is_upper) else None


def has_accents(vocab: Iterable[str]) -> bool:
  """Returns whether at least 1% of the tokens with letters have an accent."""
  return (
    _share(
      [
        not token.isascii()
        and any(unicodedata.category(char) == "Mn" for char in unicodedata.normalize("NFD", token))
        for token in vocab
        if token.upper() != token.lower()
      ]
    )
    >= 0.01
  )


def is_padded(num_tokens: int, num_rows: int) -> bool:
  """Returns True if a table of num_rows is one of num_tokens, padded to 8, 64 or 128 rows.

  NVIDIA's and other programs round the size of the table up to a multiple of these.
  """
  return num_rows > num_tokens and any(
    num_rows == -(-num_tokens // multiple) * multiple for multiple in (8, 64, 128)
  )


def fits_table(num_tokens: int, vocab_size: int, config_file: str) -> bool:
  """Returns True if a vocabulary has a token for each row of the table that is no padding.

  Args:
    num_tokens: size of the vocabulary.
    vocab_size: rows of the table.
    config_file: the model configuration, for the note that is logged if the table is padded.
  """
  if is_padded(num_tokens, vocab_size):
    log.info(
      "%s: the vocab_size %d is that of the vocabulary, %d, and padding; no token uses the rows "
      "above it",
      config_file,
      vocab_size,
      num_tokens,
    )
    return True
  return num_tokens == vocab_size
