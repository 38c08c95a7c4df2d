"""BERT's tokenizer: splits text into words and punctuation, and words into WordPiece tokens."""

import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from text.base import Tokenizer, convert_to_unicode, whitespace_tokenize
from text.offsets import cover, decompose_with_origins, lower_with_origins, replace_chars
from text.vocabulary import read_tokens

_MAX_CACHED_WORDS = 1 << 18  # number of words whose tokens are cached; then the cache is cleared


class _CharTable(dict):
  """Table for str.translate (which runs in C) that computes an entry on first use."""

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


def clean(char: str) -> str | None:
  """Removes control and format characters, and replaces every whitespace by a space."""
  if char in "\t\n\r":  # these are of category Cc too, so test them first
    return " "
  category = unicodedata.category(char)
  # Removed, not replaced by a space: "co\u00adop" (with a soft hyphen) is the word "coop". Private
  # use (Co) and unassigned (Cn) characters stay; they are unknown words for WordPiece.
  if char in "\0\ufffd" or category in ("Cc", "Cf"):
    return None
  return " " if category == "Zs" else char


def is_ideograph(char: str) -> bool:
  """Returns True if a character is a word: Chinese and Japanese are written without spaces."""
  # The ranges exclude Hangul, because Korean has spaces, and kana, which BERT leaves to WordPiece.
  return any(first <= ord(char) <= last for first, last in _CJK_RANGES)


def is_punctuation(char: str) -> bool:
  """Returns True if a character is a word of its own."""
  # In Unicode "$", "+", "<", "=", ">", "^", "`", "|" and "~" are symbols. BERT treats them as
  # punctuation, but not the symbols outside ASCII: "5€" is one word, "5%" is two.
  return char in string.punctuation or unicodedata.category(char).startswith("P")


def is_accent(char: str) -> bool:
  """Returns True for a combining mark, which strip_accents drops."""
  return unicodedata.category(char) == "Mn"


def _split_punctuation(char):
  return f" {char} " if is_punctuation(char) else char


_CLEAN = _CharTable(clean)
_CLEAN_SPLIT_IDEOGRAPHS = _CharTable(
  lambda char: f" {char} " if is_ideograph(char) else clean(char)
)
_SPLIT_PUNCTUATION = _CharTable(_split_punctuation)
_STRIP_ACCENT_SPLIT_PUNCTUATION = _CharTable(
  lambda char: None if is_accent(char) else _split_punctuation(char)
)

# The same rules for ASCII. Without control characters, a character that is no letter, digit or
# punctuation is whitespace. BERT treats \x0b and \x0c as control characters.
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
    """Stores the settings. All except never_split must be as in pretraining.

    Args:
      do_lower_case: lower-case the text.
      never_split: symbols to keep unchanged anywhere in the text. BERT keeps none: "[MASK]" in a
        text is three words, which is right for untrusted text.
      strip_accents: drop combining marks ("é" -> "e"); None for the value of do_lower_case, as in
        BERT.
      tokenize_chinese_chars: make each ideograph a word.
    """
    self.do_lower_case = do_lower_case
    self.strip_accents = do_lower_case if strip_accents is None else strip_accents
    self.tokenize_chinese_chars = tokenize_chinese_chars
    # Longest first, because a regular expression takes the first alternative that matches.
    symbols = sorted(never_split, key=len, reverse=True)
    self._never_split = re.compile(f"({'|'.join(map(re.escape, symbols))})") if symbols else None

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the words of `text`, e.g. "Ah, déjà!" -> ["ah", ",", "deja", "!"]."""
    text = convert_to_unicode(text)
    if self._never_split is None:
      return self._split(text)
    words = []
    for i, part in enumerate(self._never_split.split(text)):
      words.extend([part] if i % 2 else self._split(part))  # symbols have odd indices
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
    # is split last because NFD can produce it: U+1FEF becomes "`". The published rules go word by
    # word; lower() and NFD do not look beyond a space, so the result is the same.
    text = unicodedata.normalize("NFD", text)
    return whitespace_tokenize(text.translate(_STRIP_ACCENT_SPLIT_PUNCTUATION))

  def tokenize_with_origins(self, text: str) -> Iterator[tuple[str, list[int]]]:
    """Yields the words of `tokenize`, each with the indices in `text` of its characters.

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
  """Splits words into the longest tokens of the vocabulary, from left to right."""

  def __init__(
    self, vocab: dict[str, int], unk_token: str = "[UNK]", max_input_chars_per_word: int = 200
  ):
    """Stores the vocabulary.

    Args:
      vocab: token -> id; a token that continues a word begins with "##".
      unk_token: token of a word that the vocabulary does not cover.
      max_input_chars_per_word: longer words are unknown.
    """
    self.vocab = vocab
    self.unk_token = unk_token
    self.max_input_chars_per_word = max_input_chars_per_word
    # No token is longer, so longer prefixes of a word need not be looked up.
    self._max_token_chars = max(map(len, vocab), default=0)
    # A few thousand words make up most of a text. A method with functools.lru_cache could not be
    # pickled for worker processes.
    self._cache = {}

  def __getstate__(self) -> dict:
    """Leaves the cache out when pickling."""
    return {**self.__dict__, "_cache": {}}

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the tokens of words separated by spaces: "unaffable" -> ["un", "##aff", "##able"]."""
    return self.tokenize_words(whitespace_tokenize(convert_to_unicode(text)))

  def tokenize_words(self, words: Iterable[str]) -> list[str]:
    """Returns the tokens of words that are already split."""
    cache = self._cache
    tokens = []
    for word in words:
      found = cache.get(word)
      if found is None:
        found = self._split_word(word)
        if len(cache) >= _MAX_CACHED_WORDS:
          cache.clear()
        cache[word] = found
      tokens.extend(found)
    return tokens

  def _split_word(self, word: str) -> tuple[str, ...]:
    """Returns the tokens of one word, or only unk_token if a part of it is not covered."""
    if len(word) > self.max_input_chars_per_word:
      return (self.unk_token,)
    tokens = []
    start = 0
    while start < len(word):
      prefix = "##" if start else ""
      for end in range(min(len(word), start + self._max_token_chars), start, -1):
        if prefix + word[start:end] in self.vocab:
          tokens.append(prefix + word[start:end])
          start = end
          break
      else:
        # No backtracking: with the tokens "ab", "a" and "##bc", the word "abc" is unknown, because
        # "ab" is taken first and leaves "##c".
        return (self.unk_token,)
    return tuple(tokens)


class FullTokenizer(Tokenizer):
  """BERT's tokenizer: BasicTokenizer, then WordpieceTokenizer."""

  def __init__(
    self,
    vocab_file: str,
    do_lower_case: bool = True,
    never_split: tuple = (),
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool = True,
  ):
    """Reads the vocabulary; for the other settings, see BasicTokenizer.

    Raises:
      UserError: the vocabulary cannot be read, or lacks a required special symbol.
    """
    super().__init__(vocab_file, read_tokens(vocab_file), do_lower_case)
    self.basic_tokenizer = BasicTokenizer(
      do_lower_case, never_split, strip_accents, tokenize_chinese_chars
    )
    self.wordpiece_tokenizer = WordpieceTokenizer(self.vocab, self.special_tokens["unk"])
    self._check_text_settings(self.basic_tokenizer.strip_accents, "--nostrip_accents")

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the tokens of `text`, without special symbols."""
    return self.wordpiece_tokenizer.tokenize_words(self.basic_tokenizer.tokenize(text))

  def tokenize_with_offsets(self, text: str) -> tuple[list[int], list[int], list[int]]:
    """Returns the tokens of `tokenize` as ids, and their spans in `text`.

    Returns:
      (ids, starts, ends): token k has ids[k] and the span text[starts[k]:ends[k]]. An unknown
      word is one token. The span includes accents and other characters that are dropped.
    """
    tokens, spans = [], []
    for word, origins in self.basic_tokenizer.tokenize_with_origins(text):
      word_tokens = self.wordpiece_tokenizer.tokenize_words([word])
      position = 0
      for token in word_tokens:
        # A single token is the word itself or the unknown symbol.
        size = len(word) if len(word_tokens) == 1 else len(token) - 2 * (position > 0)
        part = origins[position : position + size]
        spans.append((min(part), max(part) + 1))
        position += size
      tokens.extend(word_tokens)
    return self.convert_tokens_to_ids(tokens), *cover(text, spans)

  def is_start_token(self, token: str) -> bool:
    """Returns True if a word begins with this token."""
    return not token.startswith("##")
