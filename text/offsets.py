"""Origins of normalized text: for each character, its index in the original text."""

import itertools
import re
import unicodedata
from collections.abc import Callable


def replace_chars(text: str, origins: list[int], rule: Callable[[str], str]) -> tuple:
  """Replaces each character by rule(character); the new characters have its origin."""
  replaced = [rule(char) for char in text]
  return "".join(replaced), [o for o, new in zip(origins, replaced, strict=True) for _ in new]


def lower_with_origins(text: str, origins: list[int]) -> tuple:
  """Lower-cases `text`; returns it with its origins."""
  # Lower-case the whole text at once, because a sigma at the end of a word has a form of its own.
  # The lengths are those of the single characters ("İ" becomes two).
  return text.lower(), [o for o, c in zip(origins, text, strict=True) for _ in c.lower()]


def decompose_with_origins(text: str, origins: list[int]) -> tuple:
  """Applies NFD: decomposes each character, then sorts every run of combining marks by class."""
  text, origins = replace_chars(text, origins, lambda c: unicodedata.normalize("NFD", c))
  classes = [unicodedata.combining(char) for char in text]
  bases = list(
    itertools.accumulate(rank == 0 for rank in classes)
  )  # marks have the number of their base
  order = sorted(range(len(text)), key=lambda i: (bases[i], classes[i]))
  return "".join(text[i] for i in order), [origins[i] for i in order]


def cover(text: str, spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
  """Returns starts and ends in `text` of tokens whose remaining characters have these spans.

  Characters that normalization drops (combining marks, variation selectors, soft hyphens) belong to
  the token before them, or at the start of a word to the token after them. So every character that
  is not whitespace is in a token, unless its whole word is dropped. Both lists are non-decreasing.
  """
  if not spans:
    return [], []
  # Canonical ordering may swap marks; the running minimum and maximum keep the lists sorted.
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
