"""Text to token ids: BERT's WordPiece and SentencePiece behind one interface.

  tokenizer = get_tokenizer("word_piece", "vocab.txt", uncased=True)
  tokenizer.tokenize("Jack Johanson's café")  # ["jack", "johan", "##son", "'", "s", "cafe"]
  tokenizer.convert_text_to_ids("...")        # list of ints, without [CLS] and [SEP]
  tokenizer.cls_id, tokenizer.special_ids     # whichever spelling the vocabulary uses

Two spellings of the special symbols are in use, "[CLS]" (BERT) and "<cls>" (Funnel-Transformer,
XLNet); the tokenizers take what the vocabulary holds, so that callers only name a role ("cls").
TensorFlow is not imported unless a path such as gs://... has to be read, so that the worker
processes which build data files start quickly.
"""

import functools
import itertools
import logging
import os
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from errors import UserError

log = logging.getLogger(__name__)

# role -> its spellings, "[CLS]" and "<cls>"; some exist in the second style only.
SPECIAL_SYMBOLS = {
  role: (f"[{role.upper()}]", f"<{role}>") for role in ("unk", "cls", "sep", "pad", "mask")
} | {"bos": ("<s>",), "eos": ("</s>",), "eod": ("<eod>",), "eop": ("<eop>",)}
END_OF_PARAGRAPH = SPECIAL_SYMBOLS["eop"][0]  # written in texts for pretraining
# No script works without these; "mask" is needed by pretraining only.
REQUIRED_ROLES = ("unk", "cls", "sep", "pad")

SPIECE_UNDERLINE = "\u2581"  # SentencePiece writes a space as this character
_MAX_CACHED_WORDS = 1 << 18  # the pieces of so many distinct words are remembered, then dropped


def convert_to_unicode(text: str | bytes) -> str:
  """Returns `text` as str; bytes are read as UTF-8 and invalid bytes are left out."""
  if isinstance(text, str):
    return text
  if isinstance(text, bytes):
    return text.decode("utf-8", "ignore")
  raise ValueError(f"text must be str or bytes, not {type(text).__name__}")


printable_text = convert_to_unicode  # in BERT they differ on Python 2


def whitespace_tokenize(text: str) -> list[str]:
  """Splits at runs of whitespace; an empty or blank text gives an empty list."""
  return text.split()


def _read_file(path: str) -> bytes:
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
def _warn_once(message: str) -> None:
  log.warning("%s", message)


def load_vocab(vocab_file: str) -> dict[str, int]:
  """Reads a UTF-8 file with one token a line into a dict token -> id; the first line has id 0.

  Only the line end is taken off a line. Lines end at a newline and nowhere else: characters such as
  U+2028, which str.splitlines() would also split at, may be tokens. A byte order mark, and blank
  lines at the end of the file, are no part of the vocabulary. Ids are line numbers, also if a token
  is repeated (as in released models): then its last line counts, as in BERT, with a warning.
  """
  return _to_ids(_read_tokens(vocab_file))


def _to_ids(tokens: list[str]) -> dict[str, int]:
  return {token: i for i, token in enumerate(tokens)}


def _read_tokens(vocab_file: str) -> list[str]:
  """The tokens of a vocabulary file by id; see load_vocab."""
  vocab_file = os.fspath(vocab_file)
  data = _read_file(vocab_file)
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

  last = _to_ids(lines)
  repeated = [
    f"{token!r} (lines {i + 1} and {last[token] + 1})"
    for i, token in enumerate(lines)
    if last[token] != i
  ]
  if repeated:
    _warn_once(
      f"{vocab_file}: {len(repeated)} repeated tokens, whose last line counts: "
      f"{', '.join(repeated[:5])}{', ...' if len(repeated) > 5 else ''}"
    )
  return lines


# ---- BERT's functions of a vocabulary ------------------------------------------------------------


def convert_by_vocab(vocab: dict, items: Iterable) -> list:
  """Returns vocab[item] of each item; KeyError for one that the vocabulary lacks."""
  return [vocab[item] for item in items]


def convert_tokens_to_ids(vocab: dict[str, int], tokens: Iterable[str]) -> list[int]:
  """Returns the ids of tokens by a dict from load_vocab."""
  return convert_by_vocab(vocab, tokens)


def convert_ids_to_tokens(inv_vocab: dict[int, str], ids: Iterable[int]) -> list[str]:
  """Returns the tokens of ids by a dict from id to token."""
  return convert_by_vocab(inv_vocab, ids)


# The folders of Google's checkpoints, such as uncased_L-12_H-768_A-12 and wwm_cased_L-24_...; their
# multilingual model of that name and their Chinese model are uncased.
_MODEL_FOLDER = re.compile(r"(?:^|.*_)(cased|uncased|multilingual|chinese)_L-\d+_H-\d+_A-\d+$")


def validate_case_matches_checkpoint(do_lower_case: bool, init_checkpoint: str | None) -> None:
  """Raises ValueError if the folder's name in the path of a checkpoint says another casing.

  Names other than those of Google's folders are not checked.
  """
  for name in (init_checkpoint or "").split("/"):
    match = _MODEL_FOLDER.match(name)
    if match and do_lower_case != (match[1] != "cased"):
      raise ValueError(
        f"do_lower_case is {do_lower_case}, but {init_checkpoint} is "
        f"{'a cased' if do_lower_case else 'an uncased'} model; pass "
        f"--do_lower_case={not do_lower_case}"
      )


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


def _has_accents(vocab: Iterable[str]) -> bool:
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


class _CharTable(dict):
  """A table for str.translate (which runs in C) that works out an entry when it is first met."""

  def __init__(self, rule: Callable[[str], str | None]):
    super().__init__()
    self._rule = rule

  def __missing__(self, code: int) -> str | None:
    self[code] = self._rule(chr(code))
    return self[code]


_CJK_RANGES = (
  (0x4E00, 0x9FFF),
  (0x3400, 0x4DBF),
  (0x20000, 0x2A6DF),
  (0x2A700, 0x2B73F),
  (0x2B740, 0x2B81F),
  (0x2B820, 0x2CEAF),
  (0xF900, 0xFAFF),
  (0x2F800, 0x2FA1F),
)


def _clean(char: str) -> str | None:
  """Removes what is invisible and unifies spaces."""
  if char in "\t\n\r":  # of category Cc as well, hence before the next test
    return " "
  category = unicodedata.category(char)
  # Removed, not replaced by a space: "co\u00adop" (with a soft hyphen) is the word "coop". Private
  # use (Co) and unassigned (Cn) characters stay; WordPiece makes them unknown words.
  if char in "\0\ufffd" or category in ("Cc", "Cf"):
    return None
  return " " if category == "Zs" else char


def _clean_and_split_ideographs(char: str) -> str | None:
  """Makes each ideograph a word of its own, as Chinese and Japanese are written without spaces."""
  # Hangul and kana are not among the ranges: Korean has spaces, and BERT leaves kana to WordPiece.
  is_ideograph = any(first <= ord(char) <= last for first, last in _CJK_RANGES)
  return f" {char} " if is_ideograph else _clean(char)


def _split_punctuation(char: str) -> str:
  """Makes each punctuation character a word of its own."""
  # Unicode counts "$", "+", "<", "=", ">", "^", "`", "|" and "~" as symbols; BERT treats all of
  # ASCII alike. Outside ASCII, symbols are no punctuation: "5€" is one word, "5%" is two.
  if char in string.punctuation or unicodedata.category(char).startswith("P"):
    return f" {char} "
  return char


_CLEAN = _CharTable(_clean)
_CLEAN_SPLIT_IDEOGRAPHS = _CharTable(_clean_and_split_ideographs)
_SPLIT_PUNCTUATION = _CharTable(_split_punctuation)
_STRIP_ACCENT_SPLIT_PUNCTUATION = _CharTable(
  lambda char: None if unicodedata.category(char) == "Mn" else _split_punctuation(char)
)

# The same rules for ASCII. Once the control characters are gone, what is neither a letter, a digit
# nor punctuation is whitespace. \x0b and \x0c are control characters to BERT.
_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ASCII_WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")


# ---- Which characters a token is from ----------------------------------------------------------


def _replace_chars(text: str, origins: list[int], rule: Callable[[str], str]) -> tuple:
  """Replaces each character by rule(character); each new one has the origin of the one replaced."""
  replaced = [rule(char) for char in text]
  return "".join(replaced), [o for o, new in zip(origins, replaced, strict=True) for _ in new]


def _lower_with_origins(text: str, origins: list[int]) -> tuple:
  # The whole text at once, since a sigma at the end of a word has a form of its own. The lengths
  # are those of the single characters ("İ" becomes two).
  return text.lower(), [o for o, c in zip(origins, text, strict=True) for _ in c.lower()]


def _decompose_with_origins(text: str, origins: list[int]) -> tuple:
  """NFD: each character's decomposition, then every run of combining marks sorted by class."""
  text, origins = _replace_chars(text, origins, lambda c: unicodedata.normalize("NFD", c))
  classes = [unicodedata.combining(char) for char in text]
  bases = list(itertools.accumulate(rank == 0 for rank in classes))  # marks go with their base
  order = sorted(range(len(text)), key=lambda i: (bases[i], classes[i]))
  return "".join(text[i] for i in order), [origins[i] for i in order]


def _cover(text: str, spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
  """Starts and ends in `text` of tokens whose characters that were kept have these spans.

  What normalization drops (combining marks, variation selectors, soft hyphens) belongs to the token
  before it, or at the start of a word to the token after it. So every character that is not white
  space is in a token, unless nothing of its word is left. Both lists never decrease.
  """
  if not spans:
    return [], []
  # Canonical ordering may swap marks; the running maximum keeps the lists sorted all the same.
  starts = list(itertools.accumulate((start for start, _ in reversed(spans)), min))[::-1]
  ends = list(itertools.accumulate((end for _, end in spans), max))
  starts[0] -= len(re.split(r"\s+", text[: starts[0]])[-1])
  for i, following in enumerate([*starts[1:], len(text)]):
    gap = text[ends[i] : following]
    if gap and not gap.isspace():
      words = re.split(r"\s+", gap)
      ends[i] += len(words[0])
      if len(words) > 1 and following < len(text):
        starts[i + 1] -= len(words[-1])
  return starts, ends


# ---- WordPiece ----------------------------------------------------------------------------------


class BasicTokenizer:
  """Splits text into words and punctuation as BERT does, before WordPiece."""

  def __init__(
    self,
    do_lower_case: bool = True,
    never_split: tuple[str, ...] = (),
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool = True,
  ):
    """All settings but never_split must be as in pretraining.

    Args:
      do_lower_case: lower-case the text.
      never_split: symbols to keep whole and unchanged wherever they are in the text. BERT keeps
        none: "[MASK]" in a text is three words, which is right for text from outside.
      strip_accents: drop combining marks ("é" -> "e"); None, as in BERT: if do_lower_case.
      tokenize_chinese_chars: make each ideograph a word.
    """
    self.do_lower_case = do_lower_case
    self.strip_accents = do_lower_case if strip_accents is None else strip_accents
    self.tokenize_chinese_chars = tokenize_chinese_chars
    # Longest first, since of two alternatives a regular expression takes the first that matches.
    symbols = sorted(never_split, key=len, reverse=True)
    self._never_split = re.compile(f"({'|'.join(map(re.escape, symbols))})") if symbols else None

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the words of `text`, e.g. "Ah, déjà!" -> ["ah", ",", "deja", "!"]."""
    text = convert_to_unicode(text)
    if self._never_split is None:
      return self._split(text)
    words = []
    for i, part in enumerate(self._never_split.split(text)):
      words.extend([part] if i % 2 else self._split(part))  # symbols are at the odd places
    return words

  def _split(self, text: str) -> list[str]:
    if text.isascii():
      text = _ASCII_CONTROL.sub("", text)
      return _ASCII_WORD.findall(text.lower() if self.do_lower_case else text)

    text = text.translate(_CLEAN_SPLIT_IDEOGRAPHS if self.tokenize_chinese_chars else _CLEAN)
    if self.do_lower_case:
      text = text.lower()
    if not self.strip_accents:
      return whitespace_tokenize(text.translate(_SPLIT_PUNCTUATION))
    # NFD writes "é" as "e" + U+0301, and the combining mark (category Mn) is dropped. Punctuation
    # comes last because NFD can bring it about: U+1FEF becomes "`". The published rules go word by
    # word; neither lower() nor NFD looks across a space, so the whole text at once gives the same.
    text = unicodedata.normalize("NFD", text)
    return whitespace_tokenize(text.translate(_STRIP_ACCENT_SPLIT_PUNCTUATION))

  def tokenize_with_origins(self, text: str) -> Iterator[tuple[str, list[int]]]:
    """Yields the words of `tokenize`, each with the index in `text` of each of its characters.

    Example: "Ah, déjà" gives ("ah", [0, 1]), (",", [2]), ("deja", [4, 5, 6, 7]).
    """
    parts = [text] if self._never_split is None else self._never_split.split(text)
    position = 0
    for i, part in enumerate(parts):
      origins = list(range(position, position + len(part)))
      position += len(part)
      if i % 2:
        yield part, origins
      else:
        yield from self._split_with_origins(part, origins)

  def _split_with_origins(self, text, origins):
    # The same steps as in _split, one character at a time.
    clean = _CLEAN_SPLIT_IDEOGRAPHS if self.tokenize_chinese_chars else _CLEAN
    final = _SPLIT_PUNCTUATION
    text, origins = _replace_chars(text, origins, lambda c: clean[ord(c)] or "")
    if self.do_lower_case:
      text, origins = _lower_with_origins(text, origins)
    if self.strip_accents:
      text, origins = _decompose_with_origins(text, origins)
      final = _STRIP_ACCENT_SPLIT_PUNCTUATION
    text, origins = _replace_chars(text, origins, lambda c: final[ord(c)] or "")
    for word in re.finditer(r"\S+", text):
      yield word[0], origins[word.start() : word.end()]


class WordpieceTokenizer:
  """Cuts words into the longest pieces that the vocabulary holds, from left to right."""

  def __init__(
    self, vocab: dict[str, int], unk_token: str = "[UNK]", max_input_chars_per_word: int = 200
  ):
    """Args:
    vocab: the pieces; one that continues a word is written "##piece".
    unk_token: stands for a word that cannot be put together from pieces.
    max_input_chars_per_word: a longer word is unknown, whatever it is made of.
    """
    self.vocab = vocab
    self.unk_token = unk_token
    self.max_input_chars_per_word = max_input_chars_per_word
    # No piece is longer than this, so a long word need not be tried from its full length down.
    self._max_piece_chars = max(map(len, vocab), default=0)
    # A few thousand words make up nearly all running text. A plain dict, because a method wrapped
    # in functools.lru_cache cannot be pickled for worker processes.
    self._cache = {}

  def __getstate__(self) -> dict:
    return {**self.__dict__, "_cache": {}}

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the pieces of words with spaces between: "unaffable" -> ["un", "##aff", "##able"]."""
    return self.tokenize_words(whitespace_tokenize(convert_to_unicode(text)))

  def tokenize_words(self, words: Iterable[str]) -> list[str]:
    """As `tokenize`, for words that are already split."""
    cache = self._cache
    pieces = []
    for word in words:
      found = cache.get(word)
      if found is None:
        found = self._cut(word)
        if len(cache) >= _MAX_CACHED_WORDS:
          cache.clear()
        cache[word] = found
      pieces.extend(found)
    return pieces

  def _cut(self, word: str) -> tuple[str, ...]:
    """The pieces of one word, or the unknown symbol alone if any part of it is not covered."""
    if len(word) > self.max_input_chars_per_word:
      return (self.unk_token,)
    pieces = []
    start = 0
    while start < len(word):
      prefix = "##" if start else ""
      for end in range(min(len(word), start + self._max_piece_chars), start, -1):
        if prefix + word[start:end] in self.vocab:
          pieces.append(prefix + word[start:end])
          start = end
          break
      else:
        # There is no way back: with the pieces "ab", "a" and "##bc" the word "abc" is unknown, as
        # "ab" is taken first and leaves "##c".
        return (self.unk_token,)
    return tuple(pieces)


def _both_spellings(role: str) -> str:
  return " / ".join(f'"{symbol}"' for symbol in SPECIAL_SYMBOLS[role])


class _Tokenizer:
  """What both tokenizers share: conversion to ids, and the special symbols.

  Attributes:
    vocab_file: the file the tokenizer was made from, for messages.
    vocab, inv_vocab: dict from token to id, and from id to token. If a token has several ids,
      vocab has the last one.
    vocab_size: number of ids.
    lowercases: whether text is lower-cased.
    special_tokens: dict from role to the vocabulary's spelling, e.g. {"cls": "[CLS]", ...}.
    special_ids: dict from role to id. Roles which the vocabulary does not have are left out.
  """

  def __init__(self, vocab_file: str, tokens: list[str], do_lower_case: bool):
    self.vocab_file = os.fspath(vocab_file)
    self.vocab = vocab = _to_ids(tokens)
    self.inv_vocab = dict(enumerate(tokens))
    self.vocab_size = len(tokens)
    self.lowercases = bool(do_lower_case)
    # Should a vocabulary hold both "[CLS]" and "<cls>", the style with more of its symbols present
    # is the vocabulary's own. ALBERT mixes them (<unk>, <pad>, [CLS], [SEP], [MASK]), so a symbol
    # that is not there in that style is looked for in the other one.
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
    """Warns if text never has a part of the tokens; `flag` is the one that keeps accents."""
    casing = vocab_casing(self.vocab)
    if casing == "cased" and self.lowercases:
      _warn_once(
        f"{self.vocab_file}: the vocabulary is cased, but the text is lower-cased, so its "
        "tokens with capitals are not used; pass --uncased=False (--do_lower_case=False)"
      )
    elif casing == "uncased" and not self.lowercases:
      _warn_once(
        f"{self.vocab_file}: the vocabulary is uncased, but the text is not lower-cased, "
        "so words with capitals are unknown; pass --uncased=True (--do_lower_case=True)"
      )
    elif strips_accents and _has_accents(self.vocab):
      _warn_once(
        f"{self.vocab_file}: the vocabulary has accents, but they are stripped from the "
        f"text, so its tokens with accents are not used; pass {flag}"
      )

  def _special_id(self, role: str) -> int:
    if role not in self.special_ids:
      raise UserError(f"{self.vocab_file}: the vocabulary lacks {_both_spellings(role)}")
    return self.special_ids[role]

  cls_id = property(lambda self: self._special_id("cls"), doc="Stands for the whole input.")
  sep_id = property(lambda self: self._special_id("sep"), doc="Ends a segment.")
  pad_id = property(lambda self: self._special_id("pad"), doc="Fills an input to its length.")
  mask_id = property(lambda self: self._special_id("mask"), doc="Hides a token in pretraining.")
  unk_id = property(lambda self: self._special_id("unk"), doc="For what has no token.")

  def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
    """Returns the ids of `tokens`; ValueError for one which is not in the vocabulary."""
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

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the tokens of `text`."""
    raise NotImplementedError

  def convert_text_to_ids(self, text: str | bytes) -> list[int]:
    """Returns the ids of the tokens of `text`, without adding any special symbol."""
    return self.convert_tokens_to_ids(self.tokenize(text))


class FullTokenizer(_Tokenizer):
  """BERT's tokenizer: BasicTokenizer, then WordPiece. The settings are BasicTokenizer's."""

  def __init__(
    self,
    vocab_file: str,
    do_lower_case: bool = True,
    never_split: tuple = (),
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool = True,
  ):
    super().__init__(vocab_file, _read_tokens(vocab_file), do_lower_case)
    self.basic_tokenizer = BasicTokenizer(
      do_lower_case, never_split, strip_accents, tokenize_chinese_chars
    )
    self.wordpiece_tokenizer = WordpieceTokenizer(self.vocab, self.special_tokens["unk"])
    self._check_text_settings(self.basic_tokenizer.strip_accents, "--nostrip_accents")

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the word pieces of `text`, without adding any special symbol."""
    return self.wordpiece_tokenizer.tokenize_words(self.basic_tokenizer.tokenize(text))

  def tokenize_with_offsets(self, text: str) -> tuple[list[int], list[int], list[int]]:
    """The tokens of `tokenize` as ids, with where they stand in `text`.

    Returns:
      (ids, starts, ends): token k has ids[k] and stands for text[starts[k]:ends[k]]. An unknown
      word is one token. Accents and other characters that are dropped are part of their token.
    """
    tokens, spans = [], []
    for word, origins in self.basic_tokenizer.tokenize_with_origins(text):
      pieces = self.wordpiece_tokenizer.tokenize_words([word])
      position = 0
      for piece in pieces:
        # A single piece is the word itself, or the unknown symbol in its place.
        size = len(word) if len(pieces) == 1 else len(piece) - 2 * (position > 0)
        part = origins[position : position + size]
        spans.append((min(part), max(part) + 1))
        position += size
      tokens.extend(pieces)
    return self.convert_tokens_to_ids(tokens), *_cover(text, spans)

  def is_start_token(self, token: str) -> bool:
    """Whether a word begins with this token."""
    return not token.startswith("##")


# How SentencePiece is used: as in Funnel-Transformer, as in XLNet and ALBERT, or without their
# additions. "funnel" and "xlnet" encode a number before a comma again without the comma, because
# the comma changes how it is split; "funnel" also replaces curly quotes.
SENT_PIECE_FORMS = ("funnel", "xlnet", "plain")
_ASCII_QUOTES = str.maketrans("“”‘’", "\"\"''")


def preprocess_text(
  text: str, lower: bool = False, keep_accents: bool = False, ascii_quotes: bool = True
) -> str:
  """Brings text into the form that Funnel's SentencePiece models were trained on.

  Returns:
    `text` with single spaces, with " for the quotation marks `` and '', with " and ' for curly
    quotes if ascii_quotes (not in XLNet and ALBERT), without accents and compatibility characters
    ("é" -> "e", "ﬁ" -> "fi") unless keep_accents, lower-cased if `lower`.
  """
  text = " ".join(text.split()).replace("``", '"').replace("''", '"')
  if ascii_quotes:
    text = text.translate(_ASCII_QUOTES)
  if not keep_accents:
    text = unicodedata.normalize("NFKD", text)
    text = "".join(char for char in text if not unicodedata.combining(char))
  return text.lower() if lower else text


def _preprocess_with_origins(
  text: str, lower: bool, keep_accents: bool, ascii_quotes: bool
) -> tuple:
  """The text of preprocess_text, and for each of its characters the index in `text`."""
  spaced, origins = "", []
  for word in re.finditer(r"\S+", text):
    if spaced:
      spaced += " "
      origins.append(word.start() - 1)
    spaced += word[0]
    origins.extend(range(*word.span()))
  quotes = {match.start() for match in re.finditer("``|''", spaced)}
  text = re.sub("``|''", '"', spaced)
  origins = [o for i, o in enumerate(origins) if i - 1 not in quotes]
  if ascii_quotes:
    text = text.translate(_ASCII_QUOTES)
  if not keep_accents:
    # Combining marks are dropped, so their order is of no importance.
    text, origins = _replace_chars(
      text,
      origins,
      lambda c: "".join(
        part for part in unicodedata.normalize("NFKD", c) if not unicodedata.combining(part)
      ),
    )
  return _lower_with_origins(text, origins) if lower else (text, origins)


def _sizes(parts: list[str], num_chars: int) -> list[int]:
  """Numbers of characters that the parts of a piece cover, of `num_chars` in all."""
  ends = [
    min(end, num_chars)
    for end in itertools.accumulate(len(part.replace(SPIECE_UNDERLINE, "")) for part in parts)
  ]
  # The model may have normalized the text, so the last part covers what is left.
  return [end - start for start, end in itertools.pairwise([0, *ends[:-1], num_chars])]


class SentencePieceTokenizer(_Tokenizer):
  """A SentencePiece ".model" file with the interface of FullTokenizer."""

  def __init__(
    self,
    model_file: str,
    do_lower_case: bool = False,
    keep_accents: bool = False,
    form: str = "funnel",
  ):
    """Args:
    model_file: the ".model" file.
    do_lower_case: lower-case the text.
    keep_accents: leave accents and compatibility characters as they are.
    form: one of SENT_PIECE_FORMS; must be as in pretraining.
    """
    try:
      import sentencepiece
    except ImportError:
      raise UserError(f"{model_file} needs a package: pip install sentencepiece") from None
    data = _read_file(os.fspath(model_file))
    try:
      self._model = sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError:
      raise UserError(f"{model_file}: no SentencePiece model; is it for word_piece?") from None
    # The model gives the id of unk for a symbol it does not have. A dict of its pieces does not, so
    # that a missing symbol is noticed.
    pieces = self._model.id_to_piece(list(range(self._model.get_piece_size())))
    super().__init__(model_file, pieces, do_lower_case)
    if form not in SENT_PIECE_FORMS:
      raise UserError(f"sent_piece_form must be one of {', '.join(SENT_PIECE_FORMS)}, not {form!r}")
    self._keep_accents = keep_accents
    self._ascii_quotes = form == "funnel"
    self._splits_commas = form != "plain"
    self._check_text_settings(not keep_accents, "--keep_accents")

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the pieces of `text`; one which is not in the vocabulary is left as it is written."""
    text = preprocess_text(
      convert_to_unicode(text), self.lowercases, self._keep_accents, self._ascii_quotes
    )
    pieces = self._model.encode(text, out_type=str)
    if not self._splits_commas:
      return pieces
    split = []
    for piece in pieces:
      split.extend(self._split_comma(piece) if piece[-1:] == "," else (piece,))
    return split

  def _split_comma(self, piece: str) -> list[str]:
    """Splits a piece that ends in a digit and a comma: "▁1999," -> ["▁1999", ","]."""
    if not (self._splits_commas and piece.endswith(",") and piece[-2:-1].isdigit()):
      return [piece]
    number = self._model.encode(piece[:-1].replace(SPIECE_UNDERLINE, ""), out_type=str)
    # The model puts "▁" before any text. A number that continues a word has none: "9," -> "9" ",".
    if not piece.startswith(SPIECE_UNDERLINE) and number[0].startswith(SPIECE_UNDERLINE):
      number[0] = number[0][1:]
    return [*filter(None, number), ","]

  def tokenize_with_offsets(self, text: str) -> tuple[list[int], list[int], list[int]]:
    """As FullTokenizer's; white space that a piece begins with is no part of text[start:end]."""
    from sentencepiece import sentencepiece_pb2

    normal, origins = _preprocess_with_origins(
      text, self.lowercases, self._keep_accents, self._ascii_quotes
    )
    # protobuf defines the messages of the module when it is imported.
    message = sentencepiece_pb2.SentencePieceText  # pyright: ignore[reportAttributeAccessIssue]
    pieces = message.FromString(self._model.encode(normal, out_type="serialized_proto")).pieces
    # Offsets of the library count bytes of UTF-8.
    char_of_byte = [i for i, char in enumerate(normal) for _ in char.encode()] + [len(normal)]
    origins.append(len(text))
    tokens, spans = [], []
    for piece in pieces:
      start, end = char_of_byte[piece.begin], char_of_byte[piece.end]
      while start < end and normal[start].isspace():
        start += 1
      parts = self._split_comma(piece.piece)
      for size in _sizes(parts, end - start):
        # A piece may be a space alone, or a part of what one character was taken apart into.
        last = origins[start + size - 1] + 1 if size else origins[start]
        spans.append((origins[start], last))
        start += size
      tokens += parts
    return self.convert_tokens_to_ids(tokens), *_cover(text, spans)

  def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
    """Returns the ids of `tokens`; a piece that is not in the vocabulary has the id of unk.

    Unlike WordPiece, SentencePiece gives unknown text as it is written, so an unknown piece is no
    mistake. A special symbol is: "<cls>" for a model that has "[CLS]" raises ValueError.
    """
    tokens = list(tokens)
    unk_id = self.special_ids["unk"]
    ids = [self.vocab.get(token, unk_id) for token in tokens]
    for token in tokens if unk_id in ids else ():
      if token not in self.vocab and any(token in both for both in SPECIAL_SYMBOLS.values()):
        raise ValueError(f"special symbol {token!r} is not in {self.vocab_file}")
    return ids

  def is_start_token(self, token: str) -> bool:
    """Whether a word begins with this token: "▁the", punctuation and the special symbols."""
    if token.startswith(SPIECE_UNDERLINE) or token in self.special_tokens.values():
      return True
    return token != "" and all(char in string.punctuation for char in token)


def _flag_value(name: str) -> Any:
  """The value of an absl flag; UserError if there is no such flag or it is not parsed yet."""
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
  """Makes the tokenizer that a model was trained with.

  An argument which is None is read from the absl flag of the same name, so that the published call
  `tokenization.get_tokenizer()` works in a program that defines these flags. Nothing else in this
  module knows about flags.

  Args:
    tokenizer_type: "word_piece" or "WordPiece" (a vocabulary text file), "sent_piece" or
      "SentencePiece" (a ".model" file).
    tokenizer_path: the file, local or gs://.
    uncased: whether text is to be lower-cased.
    keep_accents: SentencePiece: leave accents and compatibility characters as they are.
    strip_accents: WordPiece: drop accents; None: if uncased.
    tokenize_chinese_chars: WordPiece: make each ideograph a word.
    sent_piece_form: SentencePiece: one of SENT_PIECE_FORMS.

  Raises:
    UserError: a file cannot be used, or a setting is for the other tokenizer_type.
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
    logging.getLogger(__name__).info(
      "%s: the vocab_size %d is that of the vocabulary, %d, and padding; no token uses the rows "
      "above it",
      config_file,
      vocab_size,
      num_tokens,
    )
    return True
  return num_tokens == vocab_size


def check_vocab(tokenizer: _Tokenizer, vocab_size: int, config_file: str) -> None:
  """Raises UserError unless the tokenizer has exactly the ids that the model has embeddings for.

  With more tokens, ids would be out of range of the embedding table. With fewer, training would
  run, but the model was made with another vocabulary and its embeddings belong to other words;
  unless the surplus rows are padding.
  `config_file` is where the model's vocab_size was read, for the message.
  """
  if not fits_table(tokenizer.vocab_size, vocab_size, config_file):
    relation = "more" if tokenizer.vocab_size > vocab_size else "fewer"
    raise UserError(
      f"{tokenizer.vocab_file} has {tokenizer.vocab_size} tokens, {relation} than the vocab_size "
      f"{vocab_size} of {config_file}; use the vocabulary file that belongs to the model"
    )
