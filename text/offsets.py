"""Origins: for each character of a normalized text, its index in the original text."""

import itertools
import re
import unicodedata
from collections.abc import Callable


def replace_chars(text: str, origins: list[int], rule: Callable[[str], str]) -> tuple:
  """Replaces each character by rule(character); each new one has the origin of the one replaced."""
  replaced = [rule(char) for char in text]
  return "".join(replaced), [o for o, new in zip(origins, replaced, strict=True) for _ in new]


def lower_with_origins(text: str, origins: list[int]) -> tuple:
  """Lower-cases `text`; returns it with the origins of its characters."""
  # The whole text at once, since a sigma at the end of a word has a form of its own. The lengths
  # are those of the single characters ("İ" becomes two).
  return text.lower(), [o for o, c in zip(origins, text, strict=True) for _ in c.lower()]


def decompose_with_origins(text: str, origins: list[int]) -> tuple:
  """Applies NFD: decomposes each character, then sorts every run of combining marks by class."""
  text, origins = replace_chars(text, origins, lambda c: unicodedata.normalize("NFD", c))
  classes = [unicodedata.combining(char) for char in text]
  bases = list(itertools.accumulate(rank == 0 for rank in classes))  # marks go with their base
  order = sorted(range(len(text)), key=lambda i: (bases[i], classes[i]))
  return "".join(text[i] for i in order), [origins[i] for i in order]


def cover(text: str, spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
  """Returns starts and ends in `text` of tokens whose kept characters have these spans.

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
