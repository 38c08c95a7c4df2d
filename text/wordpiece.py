"""BERT's tokenizer: words and punctuation, then WordPiece."""

import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from text.base import Tokenizer, convert_to_unicode, whitespace_tokenize
from text.offsets import cover, decompose_with_origins, lower_with_origins, replace_chars
from text.vocabulary import read_tokens

_MAX_CACHED_WORDS = 1 << 18  # the pieces of so many distinct words are remembered, then dropped


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
    text, origins = replace_chars(text, origins, lambda c: clean[ord(c)] or "")
    if self.do_lower_case:
      text, origins = lower_with_origins(text, origins)
    if self.strip_accents:
      text, origins = decompose_with_origins(text, origins)
      final = _STRIP_ACCENT_SPLIT_PUNCTUATION
    text, origins = replace_chars(text, origins, lambda c: final[ord(c)] or "")
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
    """Returns the pieces of one word, or the unknown symbol alone if a part is not covered."""
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


class FullTokenizer(Tokenizer):
  """BERT's tokenizer: BasicTokenizer, then WordPiece. The settings are BasicTokenizer's."""

  def __init__(
    self,
    vocab_file: str,
    do_lower_case: bool = True,
    never_split: tuple = (),
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool = True,
  ):
    super().__init__(vocab_file, read_tokens(vocab_file), do_lower_case)
    self.basic_tokenizer = BasicTokenizer(
      do_lower_case, never_split, strip_accents, tokenize_chinese_chars
    )
    self.wordpiece_tokenizer = WordpieceTokenizer(self.vocab, self.special_tokens["unk"])
    self._check_text_settings(self.basic_tokenizer.strip_accents, "--nostrip_accents")

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the word pieces of `text`, without adding any special symbol."""
    return self.wordpiece_tokenizer.tokenize_words(self.basic_tokenizer.tokenize(text))

  def tokenize_with_offsets(self, text: str) -> tuple[list[int], list[int], list[int]]:
    """Returns the tokens of `tokenize` as ids, and their spans in `text`.

    Returns:
      (ids, starts, ends): token k has ids[k] and the span text[starts[k]:ends[k]]. An unknown
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
    return self.convert_tokens_to_ids(tokens), *cover(text, spans)

  def is_start_token(self, token: str) -> bool:
    """Returns True if a word begins with this token."""
    return not token.startswith("##")
