"""SentencePiece with the interface of BERT's tokenizer."""

import itertools
import os
import re
import string
import unicodedata
from collections.abc import Iterable

from errors import UserError
from text.base import Tokenizer, convert_to_unicode
from text.offsets import cover, lower_with_origins, replace_chars
from text.vocabulary import SPECIAL_SYMBOLS, read_file

SPIECE_UNDERLINE = "\u2581"  # SentencePiece writes a space as this character

# SentencePiece as in Funnel-Transformer, as in XLNet and ALBERT, or without their additions.
# "funnel" and "xlnet" encode a number before a comma a second time without the comma, because the
# comma changes the split; "funnel" also replaces curly quotes.
SENT_PIECE_FORMS = ("funnel", "xlnet", "plain")
_ASCII_QUOTES = str.maketrans("“”‘’", "\"\"''")


def preprocess_text(
  text: str, lower: bool = False, keep_accents: bool = False, ascii_quotes: bool = True
) -> str:
  """Normalizes text as for the training of Funnel's SentencePiece models.

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
  """Returns the text of preprocess_text, and the index in `text` of each of its characters."""
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
    # Combining marks are dropped, so their order does not matter.
    text, origins = replace_chars(
      text,
      origins,
      lambda c: "".join(
        part for part in unicodedata.normalize("NFKD", c) if not unicodedata.combining(part)
      ),
    )
  return lower_with_origins(text, origins) if lower else (text, origins)


def _sizes(tokens: list[str], num_chars: int) -> list[int]:
  """Number of characters that each token of a piece with `num_chars` characters covers."""
  ends = [
    min(end, num_chars)
    for end in itertools.accumulate(len(token.replace(SPIECE_UNDERLINE, "")) for token in tokens)
  ]
  # The model may have normalized the text, so the last token covers the remaining characters.
  return [end - start for start, end in itertools.pairwise([0, *ends[:-1], num_chars])]


class SentencePieceTokenizer(Tokenizer):
  """A SentencePiece ".model" file with the interface of FullTokenizer."""

  def __init__(
    self,
    model_file: str,
    do_lower_case: bool = False,
    keep_accents: bool = False,
    form: str = "funnel",
  ):
    """Loads a model.

    Args:
      model_file: the ".model" file.
      do_lower_case: lower-case the text.
      keep_accents: keep accents and compatibility characters.
      form: one of SENT_PIECE_FORMS; must be as in pretraining.

    Raises:
      UserError: the file is not a model with the required symbols, or a setting is unknown.
    """
    try:
      import sentencepiece
    except ImportError:
      raise UserError(f"{model_file} needs a package: pip install sentencepiece") from None
    data = read_file(os.fspath(model_file))
    try:
      self._model = sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError:
      raise UserError(
        f"{model_file}: not a SentencePiece model; use word_piece for a text file"
      ) from None
    # The model returns the id of unk for a missing symbol. A dict of its tokens raises an error.
    vocabulary = self._model.id_to_piece(list(range(self._model.get_piece_size())))
    super().__init__(model_file, vocabulary, do_lower_case)
    if form not in SENT_PIECE_FORMS:
      raise UserError(f"sent_piece_form must be one of {', '.join(SENT_PIECE_FORMS)}, not {form!r}")
    self._keep_accents = keep_accents
    self._ascii_quotes = form == "funnel"
    self._splits_commas = form != "plain"
    self._check_text_settings(not keep_accents, "--keep_accents")

  def tokenize(self, text: str | bytes) -> list[str]:
    """Returns the tokens of `text`; text that is not in the vocabulary is kept as written."""
    text = preprocess_text(
      convert_to_unicode(text), self.lowercases, self._keep_accents, self._ascii_quotes
    )
    tokens = self._model.encode(text, out_type=str)
    if not self._splits_commas:
      return tokens
    split = []
    for token in tokens:
      split.extend(self._split_comma(token) if token[-1:] == "," else (token,))
    return split

  def _split_comma(self, token: str) -> list[str]:
    """Splits a token that ends in a digit and a comma: "▁1999," -> ["▁1999", ","]."""
    if not (self._splits_commas and token.endswith(",") and token[-2:-1].isdigit()):
      return [token]
    number = self._model.encode(token[:-1].replace(SPIECE_UNDERLINE, ""), out_type=str)
    # The model puts "▁" before any text. A number that continues a word has none: "9," -> "9" ",".
    if not token.startswith(SPIECE_UNDERLINE) and number[0].startswith(SPIECE_UNDERLINE):
      number[0] = number[0][1:]
    return [*filter(None, number), ","]

  def tokenize_with_offsets(self, text: str) -> tuple[list[int], list[int], list[int]]:
    """Returns ids and spans as FullTokenizer does.

    Whitespace at the beginning of a token is not part of text[start:end].
    """
    from sentencepiece import sentencepiece_pb2

    normal, origins = _preprocess_with_origins(
      text, self.lowercases, self._keep_accents, self._ascii_quotes
    )
    pieces = sentencepiece_pb2.SentencePieceText.FromString(
      self._model.encode(normal, out_type="serialized_proto")
    ).pieces
    # The library counts offsets in bytes of UTF-8.
    char_of_byte = [i for i, char in enumerate(normal) for _ in char.encode()] + [len(normal)]
    origins.append(len(text))
    tokens, spans = [], []
    for piece in pieces:
      start, end = char_of_byte[piece.begin], char_of_byte[piece.end]
      while start < end and normal[start].isspace():
        start += 1
      split = self._split_comma(piece.piece)
      for size in _sizes(split, end - start):
        # A token may be only a space, or a part of the decomposition of one character.
        last = origins[start + size - 1] + 1 if size else origins[start]
        spans.append((origins[start], last))
        start += size
      tokens += split
    return self.convert_tokens_to_ids(tokens), *cover(text, spans)

  def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
    """Returns the ids of `tokens`; a token that is not in the vocabulary has the id of unk.

    Unlike WordPiece, SentencePiece keeps unknown text as written, so an unknown token is not an
    error.

    Raises:
      ValueError: a special symbol is not in the vocabulary, e.g. "<cls>" for a model with "[CLS]".
    """
    tokens = list(tokens)
    ids = [self.vocab.get(token, self.unk_id) for token in tokens]
    for token in tokens if self.unk_id in ids else ():
      if token not in self.vocab and any(token in both for both in SPECIAL_SYMBOLS.values()):
        raise ValueError(f"special symbol {token!r} is not in {self.vocab_file}")
    return ids

  def is_start_token(self, token: str) -> bool:
    """Returns True for a token that begins a word: "▁the", punctuation, a special symbol."""
    if token.startswith(SPIECE_UNDERLINE) or token in self.special_tokens.values():
      return True
    return token != "" and all(char in string.punctuation for char in token)
