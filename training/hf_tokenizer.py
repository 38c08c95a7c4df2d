"""Reads vocabulary and settings of Hugging Face's tokenizers: vocab.txt, tokenizer.json, ..."""

import os
import re
from typing import Any

import tokenization
from errors import UserError
from utils import files
from utils.options import brief

# Setting here -> its key in tokenizer_config.json, and in the normalizer of tokenizer.json.
SETTINGS = {
  "uncased": ("do_lower_case", "lowercase"),
  "strip_accents": ("strip_accents", "strip_accents"),
  "tokenize_chinese_chars": ("tokenize_chinese_chars", "handle_chinese_chars"),
}
# Files with the settings.
FILE_NAMES = ("tokenizer_config.json", "tokenizer.json")
# Classes that split text as BERT's tokenizer does.
_CLASSES = re.compile(
  r"((Bert|Funnel|Electra|DistilBert|PreTrained)Tokenizer(Fast)?"
  r"|TokenizersBackend)$"
)


_TOKEN = {"id": int, "content": str}
_SHAPES = {  # file -> key -> shape
  "tokenizer_config.json": {
    "added_tokens_decoder": dict,
    "tokenizer_class": str,
    "do_lower_case": bool,
    "strip_accents": bool,
    "tokenize_chinese_chars": bool,
  },
  "tokenizer.json": {
    "added_tokens": [_TOKEN],
    "model": dict,
    "normalizer": dict,
    "pre_tokenizer": dict,
  },
}
_NORMALIZER = {"lowercase": bool, "strip_accents": bool, "handle_chinese_chars": bool}


def _read(folder: str, name: str) -> dict[str, Any]:
  path = os.path.join(folder, name)
  values = files.read_json(path) if os.path.exists(path) else {}
  files.check_shapes(values, _SHAPES.get(name, dict.fromkeys(values, int)), path)
  return values


def _added_tokens(folder: str) -> dict[int, str]:
  """Returns id -> token of the tokens that were added to the vocabulary."""
  found = {number: token for token, number in _read(folder, "added_tokens.json").items()}
  decoder = _read(folder, "tokenizer_config.json").get("added_tokens_decoder") or {}
  for number, token in decoder.items():
    if not number.isdecimal() or not files.fits(token, {"content": str}):
      raise UserError(
        f"{os.path.join(folder, 'tokenizer_config.json')}: added_tokens_decoder: {brief(number)}: "
        f"{brief(token)} is no token with an id; save the tokenizer again"
      )
    found[int(number)] = token["content"]
  added = _read(folder, "tokenizer.json").get("added_tokens") or []
  return found | {token["id"]: token["content"] for token in added}


def _word_pieces(folder: str) -> dict[int, str]:
  """Returns id -> token of a tokenizer.json; UserError if it is not a WordPiece vocabulary."""
  path = os.path.join(folder, "tokenizer.json")
  model = _read(folder, "tokenizer.json").get("model") or {}
  # Files of early versions have no type.
  kind = model.get("type") or ("WordPiece" if "continuing_subword_prefix" in model else None)
  prefix = model.get("continuing_subword_prefix", "##")
  if kind != "WordPiece" or prefix != "##":
    raise UserError(
      f"{path}: a model of type {str(kind)[:60]}, prefix {brief(prefix)}; only WordPiece "
      f"vocabularies with the prefix '##' can be converted"
    )
  vocab = model.get("vocab") or {}
  if not isinstance(vocab, dict) or not files.fits(list(vocab.values()), [int]):
    raise UserError(f"{path}: model.vocab does not give the id of each token; save it again")
  return {number: token for token, number in vocab.items()}


def _to_lines(tokens: dict[int, str], first: int, path: str) -> bytes:
  """Returns the lines of a vocabulary file; ids are `first`, first + 1, ..."""
  missing = sorted(set(range(first, first + len(tokens))) - tokens.keys())
  if missing:
    raise UserError(
      f"{path}: no token has the id {missing[0]}, but the ids go up to "
      f"{max(tokens)}; a vocabulary file needs a token for each id"
    )
  bad = next((token for token in tokens.values() if re.search(r"\n|\r$|^$", token)), None)
  if bad is not None:
    raise UserError(f"{path}: the token {bad!r} cannot be a line of a vocabulary file")
  return "".join(f"{tokens[i]}\n" for i in sorted(tokens)).encode()


def vocab_lines(folder: str, num_rows: int) -> bytes:
  """Returns the folder's vocabulary as the contents of vocab.txt: ids are line numbers.

  It is read from vocab.txt, else from tokenizer.json. Added tokens follow if the embedding table
  has rows for them.

  Args:
    folder: folder of a Hugging Face model.
    num_rows: rows of the embedding table.

  Raises:
    UserError: there is no vocabulary, or it is not a WordPiece vocabulary, lacks ids or has a line
      end in a token.
  """
  own, other = (os.path.join(folder, name) for name in ("vocab.txt", "tokenizer.json"))
  added = {i: token for i, token in _added_tokens(folder).items() if i < num_rows}
  if os.path.exists(own):
    with open(own, "rb") as reader:
      data = reader.read()
    size = max(tokenization.load_vocab(own).values()) + 1 if added else 0
    new = {i: token for i, token in added.items() if i >= size}
    return data.rstrip(b"\r\n") + b"\n" + _to_lines(new, size, own) if new else data
  if os.path.exists(other):
    return _to_lines(added | _word_pieces(folder), 0, other)
  raise UserError(
    f"{own}: no such file, and no tokenizer.json; copy one of them from the model that "
    f"this one was trained from"
  )


def read_settings(folder: str) -> dict[str, bool]:
  """Returns uncased, strip_accents and tokenize_chinese_chars, those that the folder has.

  tokenizer_config.json has priority over tokenizer.json, as in the library.
  """
  config = _read(folder, "tokenizer_config.json")
  normalizer = _read(folder, "tokenizer.json").get("normalizer") or {}
  if normalizer.get("type") != "BertNormalizer":
    normalizer = {}
  files.check_shapes(normalizer, _NORMALIZER, os.path.join(folder, "tokenizer.json"))
  found = {name: config.get(key, normalizer.get(other)) for name, (key, other) in SETTINGS.items()}
  return {name: value for name, value in found.items() if value is not None}


def to_config(settings: dict[str, Any]) -> dict[str, bool]:
  """Returns the keys of tokenizer_config.json for the settings of a model folder."""
  return {
    key: settings[name] for name, (key, _) in SETTINGS.items() if settings.get(name) is not None
  }


def deviations(folder: str) -> list[str]:
  """Returns the settings of the folder's tokenizer that the tokenizer here does not support."""
  config, found = _read(folder, "tokenizer_config.json"), []
  name = config.get("tokenizer_class") or "BertTokenizer"
  if not _CLASSES.match(name):
    found.append(f"tokenizer_class is {name}")
  if config.get("do_basic_tokenize") is False:
    found.append("do_basic_tokenize is false")
  tokenizer = _read(folder, "tokenizer.json")
  for part, kind in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
    theirs = (tokenizer.get(part) or {}).get("type")
    if tokenizer and theirs != kind:
      found.append(f"the {part} of tokenizer.json is {theirs}, not {kind}")
  if (tokenizer.get("normalizer") or {}).get("clean_text") is False:
    found.append("clean_text is false")
  return found
