"""Vocabulary files: reading, special symbols, casing and size."""

import functools
import logging
import os
import re
import unicodedata
from collections.abc import Iterable

from errors import UserError

# Named after the public module; utils/console.py and utils/processes.py set its level.
log = logging.getLogger("tokenization")

# role -> spellings, "[CLS]" and "<cls>"; some exist only in the second style.
SPECIAL_SYMBOLS = {
  role: (f"[{role.upper()}]", f"<{role}>") for role in ("unk", "cls", "sep", "pad", "mask")
} | {"bos": ("<s>",), "eos": ("</s>",), "eod": ("<eod>",), "eop": ("<eop>",)}
(END_OF_PARAGRAPH,) = SPECIAL_SYMBOLS["eop"]  # marks paragraphs in texts for pretraining
# Required by all scripts; "mask" is required only by pretraining.
REQUIRED_ROLES = ("unk", "cls", "sep", "pad")


def read_file(path: str) -> bytes:
  """Reads a local or remote (gs://...) file; UserError if it is missing, unreadable or empty."""
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
  """Reads a UTF-8 file with one token per line; returns token -> id, with id 0 for the first line.

  Only the line end is removed from a line. Lines end only at a newline: characters such as U+2028,
  at which str.splitlines() also splits, may be tokens. A byte order mark and blank lines at the end
  of the file are not part of the vocabulary. Ids are line numbers. A repeated token (as in released
  models) has the id of its last line, as in BERT, and is logged as a warning.

  Raises:
    UserError: the file is missing, unreadable, empty or not UTF-8.
  """
  return to_ids(read_tokens(vocab_file))


def to_ids(tokens: list[str]) -> dict[str, int]:
  """Returns token -> id; a repeated token has its last id."""
  return {token: i for i, token in enumerate(tokens)}


def read_tokens(vocab_file: str) -> list[str]:
  """Reads the tokens of a vocabulary file, by id; see load_vocab."""
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
  """Returns vocab[item] for each item; KeyError if the vocabulary lacks one."""
  return [vocab[item] for item in items]


def convert_tokens_to_ids(vocab: dict[str, int], tokens: Iterable[str]) -> list[int]:
  """Returns the ids of tokens; `vocab` is from load_vocab."""
  return convert_by_vocab(vocab, tokens)


def convert_ids_to_tokens(inv_vocab: dict[int, str], ids: Iterable[int]) -> list[str]:
  """Returns the tokens of ids; `inv_vocab` is id -> token."""
  return convert_by_vocab(inv_vocab, ids)


# Symbols such as [CLS], [unused7] and <pad> do not come from the text of a vocabulary.
_SYMBOL = re.compile(r"\[.+\]|<.+>")


def _share(found: list[bool]) -> float:
  return sum(found) / max(1, len(found))


def vocab_casing(vocab: Iterable[str]) -> str | None:
  """Guesses the casing of a vocabulary from its tokens.

  Returns:
    "cased" if at least 5% of the tokens with letters have an upper-case letter, "uncased" if none
    has. None in between, and if no token has a letter with a case (e.g. only ideographs). Special
    symbols are not counted.
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
  """Returns True if num_rows is num_tokens rounded up to a multiple of 8, 64 or 128.

  NVIDIA's and other programs round the size of the embedding table up in this way.
  """
  return num_rows > num_tokens and any(
    num_rows == -(-num_tokens // multiple) * multiple for multiple in (8, 64, 128)
  )


def fits_table(num_tokens: int, vocab_size: int, config_file: str) -> bool:
  """Returns True if a vocabulary has a token for each row of the table, except padding rows.

  Args:
    num_tokens: size of the vocabulary.
    vocab_size: rows of the table.
    config_file: the model configuration, for the message logged if the table is padded.
  """
  if is_padded(num_tokens, vocab_size):
    log.info(
      "%s: vocab_size %d is the size of the vocabulary, %d, and padding; no token uses the padding "
      "rows",
      config_file,
      vocab_size,
      num_tokens,
    )
    return True
  return num_tokens == vocab_size
