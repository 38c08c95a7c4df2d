"""Reads SQuAD files and cuts passages into windows of tokens.

A question about a long passage becomes several overlapping windows, each doc_stride tokens after
the previous one. A passage of 13 tokens with doc_stride 4 and room for 8 tokens:

  [CLS] question [SEP] tokens 0..7 [SEP]
  [CLS] question [SEP] tokens 4..11 [SEP]
  [CLS] question [SEP] tokens 8..12 [SEP]

Tokens 4..11 are in two windows. A token counts in the window with the larger minimum of its left
and right context.
"""

import dataclasses
import logging
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from errors import UserError
from tasks.readers import read_text
from utils import files
from utils.options import brief

log = logging.getLogger(__name__)

FIRST_UNIQUE_ID = 1_000_000_000  # as in the originals
MAX_WINDOWS = 1000  # per question; unique ids are FIRST_UNIQUE_ID + question * MAX_WINDOWS + window
MAX_QUESTIONS = (2**31 - FIRST_UNIQUE_ID) // MAX_WINDOWS  # ids are int32


# ---- Reading ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Question:
  """One question.

  Attributes:
    id: its id, a key of the prediction files.
    text: the question.
    answers: texts of the answers; empty if the question has none, None if the file has no answers.
    answer_start: index of the first answer's first character in the passage; None if not given.
    place: file, article, paragraph and id, for messages.
  """

  id: str
  text: str
  answers: list[str] | None
  answer_start: int | None
  place: str


@dataclasses.dataclass
class Paragraph:
  """A passage and its questions.

  Attributes:
    context: the passage.
    questions: the questions.
    first_question: number of earlier questions in the file.
    place: file, article and paragraph, for messages.
    is_training: whether it is read for training.
  """

  context: str
  questions: list[Question]
  first_question: int
  place: str
  is_training: bool = False


def read_squad(path: str, needs_unique_ids: bool = True) -> list[Paragraph]:
  """Reads a file in the format of SQuAD v1.1 or v2.0.

  Args:
    path: file; may be compressed, see readers.read_text.
    needs_unique_ids: raise an error if two questions have the same id; if off, for training, log
      a warning.

  Raises:
    UserError: the file is missing or not in this format (names the key and its place), a passage is
      blank, or an id is repeated.
  """
  if not tf.io.gfile.exists(path):
    raise UserError(
      f"{path}: no such file; name the SQuAD files with --train_file and "
      f"--predict_file, or put them into --data_dir"
    )
  top = files.parse_json(read_text(path), path)

  places = []
  for i, article in enumerate(_get(top, "data", list, path), 1):
    where = f"{path}: article {i}"
    title = article.get("title") if isinstance(article, dict) else None
    if title:
      where += f" ({str(title)[:60]})"
    for j, values in enumerate(_get(article, "paragraphs", list, where), 1):
      places.append((values, f"{where}, paragraph {j}"))
  paragraphs = parse_paragraphs(places, needs_unique_ids)
  num_questions = sum(len(paragraph.questions) for paragraph in paragraphs)
  if not 0 < num_questions <= MAX_QUESTIONS:
    raise UserError(
      f"{path}: the file has {num_questions or 'no'} questions"
      + (f"; cut it into files of at most {MAX_QUESTIONS}" if num_questions else "")
    )
  return paragraphs


def parse_paragraphs(
  values_and_places: Iterable[tuple[Any, str]], needs_unique_ids: bool = True
) -> list[Paragraph]:
  """Returns the paragraphs of JSON values {"context": ..., "qas": [{"id", "question", ...}]}.

  Args:
    values_and_places: pairs of a paragraph's value and its place, for messages.
    needs_unique_ids: see read_squad.

  Raises:
    UserError: see read_squad.
  """
  paragraphs, places, num_questions = [], {}, 0
  for values, place in values_and_places:
    paragraph = Paragraph(_get(values, "context", str, place), [], num_questions, place)
    if not paragraph.context.strip():
      raise UserError(f"{place}: the context is blank")
    for number, qa in enumerate(_get(values, "qas", list, place), 1):
      numbered_place = f"{place}, question {number}"
      question = _read_question(qa, numbered_place, place)
      places.setdefault(question.id, []).append(numbered_place)
      paragraph.questions.append(question)
    num_questions += len(paragraph.questions)
    paragraphs.append(paragraph)
  if num_questions <= MAX_QUESTIONS:
    _check_ids(places, needs_unique_ids)
  return paragraphs


def _check_ids(places, needs_unique_ids):
  """Raises UserError for repeated ids, or logs them; `places`: id -> places of its questions."""
  repeated = {key: found for key, found in places.items() if len(found) > 1}
  if not repeated:
    return
  key, (first, second, *_) = next(iter(repeated.items()))
  message = f"{second}: the id {brief(key)} is also the id of {first}"
  if needs_unique_ids:
    raise UserError(f"{message}; ids are the keys of the predictions and must differ")
  log.warning(
    "%s (%d ids are repeated); training uses all of the questions", message, len(repeated)
  )


def _read_question(qa, numbered_place, paragraph_place):
  question_id = str(_get(qa, "id", (str, int), numbered_place))
  place = f"{paragraph_place}, question {question_id}"
  text = _get(qa, "question", str, place)
  answers, start = None, None
  if "is_impossible" in qa and _get(qa, "is_impossible", bool, place):
    answers = []
  elif "answers" in qa:
    found = _get(qa, "answers", list, place)
    answers = [
      _get(answer, "text", str, f"{place}, answer {n}") for n, answer in enumerate(found, 1)
    ]
    if found and "answer_start" in found[0]:  # optional, as in the official evaluation
      start = _get(found[0], "answer_start", int, f"{place}, answer 1")
  return Question(question_id, text, answers, start, place)


def _get(values, key, kind, place):
  """Returns values[key]; UserError if it is missing or not of the type `kind`."""
  if not isinstance(values, dict):
    raise UserError(
      f"{place}: not SQuAD: a JSON object with the key {brief(key)} is expected, not "
      f"a {type(values).__name__}"
    )
  if key not in values:
    raise UserError(
      f"{place}: not SQuAD: no key {brief(key)}; the keys are "
      f"{', '.join(map(brief, values)) or 'none'}"
    )
  if not isinstance(values[key], kind) or (isinstance(values[key], bool) and kind is not bool):
    raise UserError(f"{place}: not SQuAD: {brief(key)} is a {type(values[key]).__name__}")
  return values[key]


# ---- Characters and tokens ----------------------------------------------------------------------


@dataclasses.dataclass
class Passage:
  """A tokenized passage: token k has ids[k] and is context[starts[k]:ends[k]]."""

  context: str
  ids: list[int]
  starts: list[int]
  ends: list[int]

  def pieces_of(self, start: int, end: int) -> tuple[int, int] | None:
    """First and last token that overlap context[start:end]; None if there is none."""
    first = bisect_right(self.ends, start)
    last = bisect_left(self.starts, end) - 1
    return (first, last) if first <= last else None

  def text_of(self, first: int, last: int) -> str:
    """Text of the passage from token `first` to token `last`."""
    return self.context[self.starts[first] : self.ends[last]]


def find_answer(context: str, answer: str, start: int) -> tuple[int, int] | None:
  r"""Start and end of an answer that begins at `start`; None if the answer is not there.

  Whitespace may differ: "line\r\nends" in the passage matches "line ends" in the answer.
  """
  if not 0 <= start < len(context) or not answer.strip():
    return None
  if context.startswith(answer, start):
    return start, start + len(answer)
  pattern = r"\s*" + r"\s+".join(map(re.escape, answer.split()))
  match = re.compile(pattern).match(context, start)
  return match.span() if match else None


def describe_misplaced(question: Question, context: str) -> str:
  """Message for a first answer that is not at answer_start."""
  answer, start = question.answers[0], question.answer_start
  return (
    f"{question.place}: answer_start {start} points at "
    f"{brief(context[max(start, 0) :][: max(len(answer), 1)])}, the answer is {brief(answer)}; fix "
    f"the file, or pass --skip_bad_rows to leave such questions out of training"
  )


# ---- Windows ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Window:
  """Tokens start..end - 1 of a passage; tokens own_start..own_end - 1 count in this window."""

  start: int
  end: int
  own_start: int
  own_end: int


def cut_windows(num_pieces: int, max_pieces: int, stride: int) -> list[Window]:
  """Cuts a passage into windows of at most max_pieces tokens, each `stride` after the previous one.

  A token counts in the window with the largest minimum of its left and right context, plus 0.01 per
  token of the window: BERT's "max context". The first of equal windows is used.

  Args:
    num_pieces: tokens of the passage.
    max_pieces: maximum number of tokens per window.
    stride: tokens between the starts of windows.
  """
  spans = []
  start = 0
  while start < num_pieces:
    end = min(start + max_pieces, num_pieces)
    spans.append((start, end))
    if end == num_pieces:
      break
    start += min(max_pieces, stride)

  owners = [0] * num_pieces
  if len(spans) > 1:
    best = [-1.0] * num_pieces
    for index, (start, end) in enumerate(spans):
      for piece in range(start, end):
        score = min(piece - start, end - 1 - piece) + 0.01 * (end - start)
        if score > best[piece]:
          best[piece], owners[piece] = score, index
  # Scores rise and fall with the same slope, so a window keeps all tokens after its first until the
  # next window begins to win: owners never decrease, and each window's own tokens are a range.
  return [
    Window(*span, bisect_left(owners, index), bisect_right(owners, index))
    for index, span in enumerate(spans)
  ]


# ---- Features -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layout:
  """Segment ids of a model family's input, and whether its records have cls_index and p_mask."""

  cls_segment: int
  query_segment: int
  passage_segment: int
  has_p_mask: bool


BERT_LAYOUT = Layout(0, 0, 1, False)
FUNNEL_LAYOUT = Layout(2, 1, 0, True)  # the passage is segment A, the question segment B


def window_features(
  layout: Layout,
  tokenizer,
  query_ids: list[int],
  passage: Passage,
  window: Window,
  answer: tuple[int, int] | None,
) -> dict[str, Any]:
  """Features of one window: [CLS] query [SEP] tokens [SEP].

  Args:
    layout: BERT_LAYOUT or FUNNEL_LAYOUT.
    tokenizer: has cls_id and sep_id.
    query_ids: token ids of the question.
    passage: the passage.
    window: the part of the passage.
    answer: first and last token of the answer in the passage; None for no answer.

  Returns:
    Features without unique_ids. If the window does not contain the whole answer, is_impossible is 1
    and both positions are 0, the position of [CLS].
  """
  pieces = passage.ids[window.start : window.end]
  offset = len(query_ids) + 2  # position of the passage's first token
  is_inside = answer is not None and window.start <= answer[0] and answer[1] < window.end
  start, end = (
    (answer[0] - window.start + offset, answer[1] - window.start + offset) if is_inside else (0, 0)
  )
  features = {
    "input_ids": [tokenizer.cls_id, *query_ids, tokenizer.sep_id, *pieces, tokenizer.sep_id],
    "input_mask": [1] * (offset + len(pieces) + 1),
    "segment_ids": [layout.cls_segment]
    + [layout.query_segment] * (offset - 1)
    + [layout.passage_segment] * (len(pieces) + 1),
    "start_positions": start,
    "end_positions": end,
    "is_impossible": int(not is_inside),
  }
  if layout.has_p_mask:
    features |= {"cls_index": 0, "p_mask": [0] + [1] * (offset - 1) + [0] * len(pieces) + [1]}
  return features
