"""Tokenization of texts within the graph, with tensorflow-text: the signature `serve_text`.

The ids are those of tokenization.FullTokenizer. The characters that it removes or splits at are
written into the graph from Python's tables. Lower-casing and normalization are those of the ICU
library in TensorFlow: they may differ for characters that are in only one of Python's and ICU's
versions of Unicode.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

import modeling
from errors import UserError
from text import wordpiece
from training import inputs

try:
  import tensorflow_text
except ImportError as error:
  raise UserError(
    f"--serve_text needs tensorflow-text ({error}): pip install --no-deps -r requirements-text.txt"
  ) from None

v1 = tf.compat.v1

# Unicode's planes 4 to 13 are not assigned, 15 and 16 are private: none of their characters is
# removed or split.
_ASSIGNED = (*range(0x40000), *range(0xE0000, 0xF0000))


def layout_of(model: Any) -> tuple[bool, int]:
  """Returns (whether the model reads pairs of texts, segment id of the first token).

  Args:
    model: a TrainedModel or an EncoderModel.

  Raises:
    UserError: the task or the tokenizer has no `serve_text`.
  """
  task = getattr(model, "task", None)
  if task is not None and task.job != "classification":
    raise UserError(
      f"--serve_text: a request of the job {task.job} is no text or pair of texts; its features "
      f"are made from it in Python: use the signature serve, or Predictor"
    )
  if not isinstance(model.tokenizer, wordpiece.FullTokenizer):
    raise UserError("--serve_text is for WordPiece vocabularies; use the signature serve")
  is_pair = task is None or task.dataset.columns.text_b is not None
  return is_pair, modeling.CLS_SEGMENT_IDS[model.config.family]


def placeholders(is_pair: bool) -> dict[str, tf.Tensor]:
  """Returns the inputs of the signature, string [B]: text_a, and text_b ("" for none) of pairs."""
  names = ("text_a", "text_b") if is_pair else ("text_a",)
  return {name: v1.placeholder(tf.string, [None], name) for name in names}


def ids(
  texts: dict[str, tf.Tensor],
  tokenizer: wordpiece.FullTokenizer,
  model_config: modeling.Config,
  max_seq_length: int,
  cls_segment_id: int,
) -> dict[str, tf.Tensor]:
  """Returns input_ids, input_mask and segment_ids, int32 [B, T], as from tasks.base.pair_features.

  Args:
    texts: from `placeholders`.
    tokenizer: the tokenizer.
    model_config: configuration of the encoder.
    max_seq_length: longest sequence, in tokens.
    cls_segment_id: segment id of the first token.
  """
  found = token_ids(tf.concat(list(texts.values()), axis=0), tokenizer)  # all texts a, then all b
  count = tf.size(texts["text_a"])
  a = found[:count]
  b = found[count:] if "text_b" in texts else a[:, :0]
  a, b = _truncate(a, b, max_seq_length)
  has_b = tf.cast(b.row_lengths() > 0, tf.int32)[:, None]  # [B, 1]
  filled = lambda value: tf.fill([a.nrows(), 1], value)
  sep = filled(tokenizer.sep_id)
  last = tf.RaggedTensor.from_tensor(sep)[:, :1]
  last = tf.ragged.boolean_mask(last, tf.RaggedTensor.from_tensor(has_b > 0))
  second = tf.concat([b, last], axis=1)
  rows = tf.concat([filled(tokenizer.cls_id), a, sep, second], axis=1)
  segments = tf.concat(
    [filled(cls_segment_id), tf.zeros_like(a), filled(0), tf.ones_like(second)], axis=1
  )
  longest = tf.cast(tf.reduce_max(rows.row_lengths()), tf.int32)
  length = tf.minimum(model_config.padded_length(longest, inputs.LENGTH_MULTIPLE), max_seq_length)

  def padded(ragged, value):
    return tf.pad(ragged.to_tensor(value), [[0, 0], [0, length - longest]], constant_values=value)

  return {
    "input_ids": padded(rows, tokenizer.pad_id),
    "input_mask": padded(tf.ones_like(rows), 0),
    "segment_ids": padded(segments, 0),
  }


def _truncate(a, b, max_seq_length):
  """Cuts pairs as tasks.base.truncate_pair does, single texts at the end."""
  length_a, length_b = a.row_lengths(), b.row_lengths()
  room = tf.where(length_b > 0, max_seq_length - 3, max_seq_length - 2)
  room = tf.cast(room, tf.int64)
  half = tf.where(length_b > 0, (room + 1) // 2, room)
  return (
    _first(a, tf.maximum(room - length_b, half)),
    _first(b, tf.maximum(room - length_a, room // 2)),
  )


def _first(ragged, counts):
  """The first counts[i] values of each row i."""
  positions = tf.ragged.range(ragged.row_lengths())
  return tf.ragged.boolean_mask(ragged, positions < counts[:, None])


def words(texts: tf.Tensor, tokenizer: wordpiece.BasicTokenizer) -> tf.RaggedTensor:
  """Returns the words of BasicTokenizer.tokenize for string [B]: string [B, (words)]."""
  x = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="ignore")
  x = tf.strings.regex_replace(x, _pattern(_is_removed), "")
  x = tf.strings.regex_replace(x, _pattern(_is_space), " ")
  if tokenizer.tokenize_chinese_chars:
    x = tf.strings.regex_replace(x, f"({_pattern(wordpiece.is_ideograph)})", r" \1 ")
  if tokenizer.do_lower_case:
    x = tf.strings.lower(x, encoding="utf-8")
  if tokenizer.strip_accents:
    x = tensorflow_text.normalize_utf8(x, "NFD")
    x = tf.strings.regex_replace(x, _pattern(wordpiece.is_accent), "")
  x = tf.strings.regex_replace(x, f"({_pattern(wordpiece.is_punctuation)})", r" \1 ")
  return tf.strings.split(x)


def token_ids(texts: tf.Tensor, tokenizer: wordpiece.FullTokenizer) -> tf.RaggedTensor:
  """Returns the ids of convert_text_to_ids for string [B]: int32 [B, (tokens)]."""
  pieces = tokenizer.wordpiece_tokenizer
  found = words(texts, tokenizer.basic_tokenizer)
  too_long = tf.strings.length(found.values, "UTF8_CHAR") > pieces.max_input_chars_per_word
  found = found.with_values(tf.where(too_long, pieces.unk_token, found.values))
  keys, values = zip(*tokenizer.vocab.items(), strict=True)
  table = tf.lookup.StaticHashTable(
    tf.lookup.KeyValueTensorInitializer(keys, tf.constant(values, tf.int64)), tokenizer.unk_id
  )
  split = tensorflow_text.WordpieceTokenizer(
    table,
    max_bytes_per_word=4 * pieces.max_input_chars_per_word,
    token_out_type=tf.int64,
    unknown_token=pieces.unk_token,
  )
  return tf.cast(split.tokenize(found).merge_dims(1, 2), tf.int32)


def _is_removed(char):
  return wordpiece.clean(char) is None


def _is_space(char):
  # U+2028 and U+2029 are kept by `clean`; str.split() splits at them.
  return (wordpiece.clean(char) or "x").isspace()


@functools.cache  # a scan of all characters
def _pattern(is_member: Callable[[str], bool]) -> str:
  """Returns a regular expression for one character, of those for which `is_member` is true."""
  ranges = []
  for code in _ASSIGNED:
    if not 0xD800 <= code < 0xE000 and is_member(chr(code)):  # surrogates are not in UTF-8
      if ranges and ranges[-1][1] == code - 1:
        ranges[-1][1] = code
      else:
        ranges.append([code, code])
  return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges) + "]"
