"""Questions of multiple choice, and their files: RACE, SWAG, JSON lines."""

import dataclasses
import numbers
import os
import re
import string
from collections.abc import Iterator
from typing import Any

from errors import UserError
from tasks.labels import is_int
from tasks.readers import find_columns, read_jsonl, read_rows, read_text, scalar_text, whole_rows
from utils import files
from utils.options import brief


@dataclasses.dataclass(frozen=True)
class Question:
  """A raw example.

  Attributes:
    id: identifies the question in predictions.
    place: file and line, or file and question, for messages.
    passage: text that the question is about; may be empty.
    question: an option replaces its blank "_"; without a blank the option follows it.
    options: at least two texts.
    answer: 0-based index of the right option; None if it is not known (test files).
    is_high: whether it is of RACE's high school part.
  """

  id: str
  place: str
  passage: str
  question: str
  options: tuple[str, ...]
  answer: int | None
  is_high: bool = False


def option_name(index: int) -> str:
  """Letter of an option, "A" for 0; after "Z" the index."""
  return string.ascii_uppercase[index] if index < 26 else str(index)


# ---- Reading files ------------------------------------------------------------------------------


def _option_texts(place, options):
  """Returns the options as texts; UserError if they are no list of at least two texts."""
  if not isinstance(options, list) or len(options) < 2:
    what = f"{len(options)} of them" if isinstance(options, list) else repr(options)
    raise UserError(f"{place}: the options must be a list of at least two texts, not {what}")
  for index, option in enumerate(options):
    if not isinstance(option, str | numbers.Real) or isinstance(option, bool):
      raise UserError(f"{place}: option {option_name(index)} is missing (it is {brief(option)})")
  return tuple(scalar_text(option, place, "options") for option in options)


def _answer_index(place, answer, num_options, required):
  """Index of an answer given as a letter ("B") or an index (1, "1"); None if there is none."""
  if answer is None or answer == "":
    if required:
      raise UserError(f"{place}: the answer is missing")
    return None
  index = None
  if isinstance(answer, str):
    text = answer.strip()
    if is_int(text):
      index = int(text)
    elif len(text) == 1:
      index = string.ascii_uppercase.find(text.upper())
  elif isinstance(answer, int) and not isinstance(answer, bool):
    index = answer
  if index is None or not 0 <= index < num_options:
    raise UserError(
      f"{place}: the answer {brief(answer)} is none of the {num_options} options: "
      f"{option_name(0)} to {option_name(num_options - 1)}, or 0 to "
      f"{num_options - 1}"
    )
  return index


def read_race(path: str, has_answers: bool) -> Iterator[Question]:
  """Questions of one of RACE's files, see race_questions."""
  folder, name = os.path.split(path)
  level = os.path.basename(folder)
  values = files.parse_json(read_text(path), path)
  for question in race_questions(values, path, f"{level}/{name}", has_answers):
    yield dataclasses.replace(question, is_high=level == "high")


def race_questions(values: Any, place: str, name: str, has_answers: bool) -> Iterator[Question]:
  """Questions of a RACE passage: {"article", "questions", "options", "answers", "id"}.

  Args:
    values: the JSON object.
    place: its file, for messages.
    name: the questions have the ids NAME#1, NAME#2, ...
    has_answers: whether answers are required.

  Raises:
    UserError: names the place and the number of the question, from 1.
  """
  if not isinstance(values, dict):
    raise UserError(
      f"{place}: not a RACE passage: a JSON object is expected, here is a {type(values).__name__}"
    )
  wanted = {"article": str, "questions": list, "options": list}
  if has_answers or "answers" in values:
    wanted["answers"] = list
  for key, kind in wanted.items():
    if not isinstance(values.get(key), kind):
      raise UserError(
        f"{place}: not a RACE passage: the key {brief(key)} is missing or holds no "
        f"{'text' if kind is str else 'list'}"
      )
  questions, options = values["questions"], values["options"]
  answers = values.get("answers") or [None] * len(questions)
  for key, column in (("options", options), ("answers", answers)):
    if len(column) != len(questions):
      raise UserError(
        f"{place}: {len(questions)} questions but {len(column)} {key}; question "
        f"{min(len(column), len(questions)) + 1} has none or is none"
      )
  passage = values["article"]
  for number, row in enumerate(zip(questions, options, answers, strict=True), 1):
    where = f"{place}: question {number}"
    question, texts, answer = row
    if not isinstance(question, str):
      raise UserError(f"{where}: the question is missing (it is {brief(question)})")
    texts = _option_texts(where, texts)
    yield Question(
      f"{name}#{number}",
      where,
      passage,
      question,
      texts,
      _answer_index(where, answer, len(texts), has_answers),
    )


def read_choices_jsonl(path: str, has_answers: bool) -> Iterator[Question]:
  """Questions of a file with one object a line, see choice_question; ids must differ."""
  lines = {}  # id -> line
  for count, (number, row) in enumerate(read_jsonl(path)):
    place = f"{path}: line {number}"
    question = choice_question(row, place, str(count), has_answers)
    if lines.setdefault(question.id, number) != number:
      raise UserError(f"{place}: the id {question.id} is that of line {lines[question.id]} too")
    yield question


def choice_question(
  row: dict[str, Any], place: str, default_id: str, has_answers: bool
) -> Question:
  """Returns the question of an object such as the following.

    {"article": "...", "question": "...", "options": ["...", "..."], "answer": "B", "id": "q1"}

  "context" is read as "article"; it may be missing. The answer is a letter or a 0-based index.

  Args:
    row: the object.
    place: file and line, for messages.
    default_id: id of an object without "id": the number of the question in the file, from 0.
    has_answers: whether the answer is required.
  """
  if "question" not in row or "options" not in row:
    missing = "question" if "question" not in row else "options"
    raise UserError(f"{place}: no key {brief(missing)}; the keys are {', '.join(map(brief, row))}")
  options = _option_texts(place, row["options"])
  passage = row.get("article", row.get("context"))
  passage = "" if passage is None else passage
  for name, text in (("question", row["question"]), ("article", passage)):
    if not isinstance(text, str):
      raise UserError(f"{place}: the {name} must be a text, not {brief(text)}")
  question_id = scalar_text(row.get("id"), place, "id") or default_id
  if re.search(r"[\t\r\n]", question_id):
    raise UserError(
      f"{place}: the id {brief(question_id)} has a tab or a line break in it, which the "
      f"file of predictions cannot hold"
    )
  return Question(
    question_id,
    place,
    passage,
    row["question"],
    options,
    _answer_index(place, row.get("answer"), len(options), has_answers),
  )


def read_swag(path: str, has_answers: bool, skip_bad_rows: bool = False) -> Iterator[Question]:
  """Questions of a CSV file with SWAG's columns: sent1, sent2, ending0, ending1, ..., label.

  sent1 is the passage, sent2 the beginning of the sentence that the endings complete; in files
  without these columns startphrase is the passage.
  """
  rows = read_rows(path, "csv")
  _, header = next(rows, (0, []))
  endings = [name for name in (f"ending{index}" for index in range(len(header))) if name in header]
  starts = ["sent1", "sent2"] if {"sent1", "sent2"} <= set(header) else ["startphrase"]
  labels = ["label"] if has_answers or "label" in header else []
  columns = find_columns(path, header, [*starts, *(endings or ["ending0"]), *labels], "csv")
  rows = [(number, row) for number, row in rows if row != [""]]
  ids = {number: str(count) for count, (number, _) in enumerate(rows)}

  def fault(row):
    return "" if max(columns) < len(row) <= len(header) else f"the header has {len(header)}"

  for number, row in whole_rows(path, rows, fault, skip_bad_rows):
    place = f"{path}: line {number}"
    cells = [row[column] for column in columns]
    answer = cells.pop() if labels else None
    start, options = cells[: len(starts)], _option_texts(place, cells[len(starts) :])
    yield Question(
      ids[number],
      place,
      start[0],
      start[1] if len(start) > 1 else "",
      options,
      _answer_index(place, answer, len(options), has_answers),
    )
