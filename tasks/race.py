"""Multiple choice: which option answers a question about a passage (RACE, SWAG, your own files).

A question with N options is N sequences, [cls] question and option [sep] passage [sep], each of
which the encoder turns into one score; the softmax is over a question's scores.
"""

import dataclasses
import itertools
import json
import numbers
import os
import re
import string
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from errors import UserError
from tasks import base, metrics
from tasks.readers import (
  check_characters,
  find_columns,
  list_texts,
  read_jsonl,
  read_rows,
  read_text,
  scalar_text,
  whole_rows,
)

LEVELS = ("middle", "high")  # RACE's schools, in the order of is_high_example


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set.

  Attributes:
    folder: its place under --data_root.
    file_format: "race", "swag" or "jsonl", see read_race, read_swag, read_choices_jsonl.
    files: split -> file, or for RACE folder.
    num_options: options of every question; 0 to find the largest number in the files.
    how_to_get: what a message about missing files says.
  """

  folder: str
  file_format: str
  files: dict[str, str]
  num_options: int
  how_to_get: str


DATASETS = {
  "race": Dataset(
    "RACE",
    "race",
    {"train": "train", "dev": "dev", "test": "test"},
    4,
    "Get RACE from https://www.cs.cmu.edu/~glai1/data/race/ and point --data_dir "
    "at the folder that holds train, dev and test",
  ),
  "swag": Dataset(
    "swag",
    "swag",
    {"train": "train.csv", "dev": "val.csv", "test": "test.csv"},
    0,
    "Get it from https://github.com/rowanz/swagaf and point --data_dir at its "
    "folder data, or name files with --train_file, --eval_file, --predict_file",
  ),
  "jsonl": Dataset(
    "",
    "jsonl",
    {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
    0,
    "Name your files with --train_file, --eval_file, --predict_file, or put "
    "train.jsonl, dev.jsonl, test.jsonl into --data_dir",
  ),
}


@dataclasses.dataclass(frozen=True)
class Question:
  """A raw example.

  Attributes:
    id: tells the question in predictions.
    place: file and line, or file and question; for messages.
    passage: what it is about; may be empty.
    question: where it has a blank "_" the option belongs there, else the option follows it.
    options: at least two texts.
    answer: 0-based index of the right option; None where it is not known (test files).
    is_high: of RACE's high school part.
  """

  id: str
  place: str
  passage: str
  question: str
  options: tuple[str, ...]
  answer: int | None
  is_high: bool = False


def option_name(index: int) -> str:
  """Letter of an option: "A" for 0; beyond "Z" its index."""
  return string.ascii_uppercase[index] if index < 26 else str(index)


# ---- Reading files ------------------------------------------------------------------------------


def _option_texts(place, options):
  """The options as texts, checked."""
  if not isinstance(options, list) or len(options) < 2:
    what = f"{len(options)} of them" if isinstance(options, list) else repr(options)
    raise UserError(f"{place}: the options must be a list of at least two texts, not {what}")
  for index, option in enumerate(options):
    if not isinstance(option, str | numbers.Real) or isinstance(option, bool):
      raise UserError(f"{place}: option {option_name(index)} is missing (it is {option!r})")
  return tuple(scalar_text(option, place, "options") for option in options)


def _answer_index(place, answer, num_options, required):
  """Index of an answer given as a letter ("B") or an index (1, "1"); None where there is none."""
  if answer is None or answer == "":
    if required:
      raise UserError(f"{place}: the answer is missing")
    return None
  index = None
  if isinstance(answer, str):
    text = answer.strip()
    if text.isdecimal():
      index = int(text)
    elif len(text) == 1:
      index = string.ascii_uppercase.find(text.upper())
  elif isinstance(answer, int) and not isinstance(answer, bool):
    index = answer
  if index is None or not 0 <= index < num_options:
    raise UserError(
      f"{place}: the answer {answer!r} is none of the {num_options} options: "
      f"{option_name(0)} to {option_name(num_options - 1)}, or 0 to "
      f"{num_options - 1}"
    )
  return index


def read_race(path: str, has_answers: bool) -> Iterator[Question]:
  """Questions of one of RACE's files: {"article", "questions", "options", "answers", "id"}.

  Raises:
    UserError: names the file and the number of the question, from 1.
  """
  try:
    values = json.loads(read_text(path))
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: not valid JSON: {error}") from None
  if not isinstance(values, dict):
    raise UserError(
      f"{path}: not a RACE passage: a JSON object is expected, here is a {type(values).__name__}"
    )
  wanted = {"article": str, "questions": list, "options": list}
  if has_answers or "answers" in values:
    wanted["answers"] = list
  for name, kind in wanted.items():
    if not isinstance(values.get(name), kind):
      raise UserError(
        f"{path}: not a RACE passage: the key {name!r} is missing or holds no "
        f"{'text' if kind is str else 'list'}"
      )
  questions, options = values["questions"], values["options"]
  answers = values.get("answers") or [None] * len(questions)
  for name, column in (("options", options), ("answers", answers)):
    if len(column) != len(questions):
      raise UserError(
        f"{path}: {len(questions)} questions but {len(column)} {name}; question "
        f"{min(len(column), len(questions)) + 1} has none or is none"
      )
  passage = check_characters(values["article"], path, "article")
  folder, name = os.path.split(path)
  level = os.path.basename(folder)
  for number, row in enumerate(zip(questions, options, answers, strict=True), 1):
    place = f"{path}: question {number}"
    question, texts, answer = row
    if not isinstance(question, str):
      raise UserError(f"{place}: the question is missing (it is {question!r})")
    check_characters(question, place, "questions")
    texts = _option_texts(place, texts)
    yield Question(
      f"{level}/{name}#{number}",
      place,
      passage,
      question,
      texts,
      _answer_index(place, answer, len(texts), has_answers),
      level == "high",
    )


def read_choices_jsonl(path: str, has_answers: bool) -> Iterator[Question]:
  """Questions of a file with one object a line.

    {"article": "...", "question": "...", "options": ["...", "..."], "answer": "B", "id": "q1"}

  "context" may stand for "article", and may be missing; so may "id" (then it is the place in the
  file, from 0). The answer is a letter or a 0-based index.
  """
  lines = {}  # id -> line
  for count, (number, row) in enumerate(read_jsonl(path)):
    place = f"{path}: line {number}"
    if "question" not in row or "options" not in row:
      missing = "question" if "question" not in row else "options"
      raise UserError(f"{place}: no key {missing!r}; the keys are {', '.join(map(repr, row))}")
    options = _option_texts(place, row["options"])
    passage = row.get("article", row.get("context"))
    passage = "" if passage is None else passage
    for name, text in (("question", row["question"]), ("article", passage)):
      if not isinstance(text, str):
        raise UserError(f"{place}: the {name} must be a text, not {text!r}")
      check_characters(text, place, name)
    question_id = scalar_text(row.get("id"), place, "id") or str(count)
    if re.search(r"[\t\r\n]", question_id):
      raise UserError(
        f"{place}: the id {question_id!r} has a tab or a line break in it, which the "
        f"file of predictions cannot hold"
      )
    if lines.setdefault(question_id, number) != number:
      raise UserError(f"{place}: the id {question_id} is that of line {lines[question_id]} too")
    yield Question(
      question_id,
      place,
      passage,
      row["question"],
      options,
      _answer_index(place, row.get("answer"), len(options), has_answers),
    )


def read_swag(path: str, has_answers: bool, skip_bad_rows: bool = False) -> Iterator[Question]:
  """Questions of a CSV file with SWAG's columns: sent1, sent2, ending0, ending1, ..., label.

  sent1 is the passage and sent2 the beginning of the sentence that the endings end; where these two
  are not there, startphrase is the passage.
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


# ---- The task -----------------------------------------------------------------------------------


class RaceTask(base.RawDataTask):
  """Multiple choice.

  A question with fewer options than num_options is filled up with empty sequences, whose scores are
  masked out: their probability is 0.

  Example:
    task = RaceTask("race", DATASETS["race"], "data/RACE", max_qa_length=128)
    task.featurize(next(task.read_examples("train")), tokenizer, max_seq_length=512)
  """

  job = "race"

  def __init__(
    self,
    name: str,
    dataset: Dataset,
    data_dir: str,
    max_qa_length: int,
    num_options: int = 0,
    cls_scope: str | None = None,
    cls_segment_id: int = 0,
    skip_bad_rows: bool = False,
    eval_split: str = "dev",
  ):
    """Makes the task.

    Args:
      name: the task's canonical name.
      dataset: where and what the data are.
      data_dir: folder of the raw files.
      max_qa_length: longest question with its option, in tokens.
      num_options: room for this many options in every question; 0 for what the data set needs.
      cls_scope: variable scope of the head; None for the model family's own place.
      cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).
      skip_bad_rows: leave out rows of CSV files with too few or too many columns.
      eval_split: "dev" or "test", the split to evaluate.
    """
    self.name = name
    self.metrics = ("accuracy",)
    self.dataset = dataset
    self.data_dir = data_dir
    self.max_qa_length = max_qa_length
    self.cls_scope = cls_scope
    self.cls_segment_id = cls_segment_id
    self.skip_bad_rows = skip_bad_rows
    # Where the data set says how many options there are, another number is a mistake in the file.
    self._exact_options = 0 if num_options else dataset.num_options
    self._num_options = num_options or dataset.num_options
    self.eval_split = eval_split
    self._passage: tuple[Any, ...] = (None, None, [])  # the last one, with its tokenizer and ids

  @property
  def sequences_per_example(self) -> int:
    """Options per question, in the records and the model."""
    if not self._num_options:
      self._num_options = max(
        (
          len(question.options)
          for split in self.dataset.files
          if tf.io.gfile.exists(self._path(split))
          for question in self._read(split, False)
        ),
        default=0,
      )
    return self._num_options

  @property
  def feature_specs(self):
    return [
      base.FeatureSpec("input_ids", is_sequence=True, pad_value=None),
      base.FeatureSpec("input_mask", is_sequence=True),
      base.FeatureSpec("segment_ids", is_sequence=True),
      base.FeatureSpec("label_ids"),
      base.FeatureSpec("is_high_example", default=0),
      base.FeatureSpec("is_real_example", default=1),
      base.FeatureSpec("weight", dtype="float32", default=1.0),
      base.FeatureSpec("example_id", default=-1),
    ]

  def _path(self, split):
    return os.path.join(self.data_dir, self.dataset.files[split])

  def input_files(self, split):
    path = self._path(split)
    if self.dataset.file_format == "race":
      # By their numbers as text, so that the first N of them are of both levels.
      found = sorted(
        (name for level in LEVELS for name in list_texts(os.path.join(path, level))),
        key=lambda name: (os.path.basename(name), name),
      )
      if not found:
        raise UserError(
          f"{path}: no passages ({' or '.join(LEVELS)}/*.txt), the {split} data of "
          f"task {self.name}. {self.dataset.how_to_get}"
        )
      return found
    if not tf.io.gfile.exists(path):
      raise UserError(
        f"{path}: no such file, the {split} data of task {self.name}. {self.dataset.how_to_get}"
      )
    return [path]

  def predictions_name(self, split):
    return base.stem(self.dataset.files[split])

  def splits(self, kind):
    return [self.eval_split if kind == "dev" else kind]

  def _has_answers(self, split):
    """Whether answers are required."""
    return split in ("train", self.eval_split)

  def source_key(self, split):
    # A RACE file's place says which level it is of.
    place = (
      [os.path.relpath(name, self.data_dir) for name in self.input_files(split)]
      if self.dataset.file_format == "race"
      else [self.skip_bad_rows]
    )
    return [self._has_answers(split), *place]

  def _read(self, split, has_answers):
    for path in self.input_files(split):
      if self.dataset.file_format == "race":
        yield from read_race(path, has_answers)
      elif self.dataset.file_format == "swag":
        yield from read_swag(path, has_answers, self.skip_bad_rows)
      else:
        yield from read_choices_jsonl(path, has_answers)

  def read_examples(self, split):
    for question in self._read(split, self._has_answers(split)):
      count, room = len(question.options), self.sequences_per_example
      if count > room or self._exact_options not in (0, count):
        raise UserError(
          f"{question.place}: {count} options where {room} are expected; mend it, or "
          f"set --num_options to the largest number of options (questions with fewer "
          f"are filled up)"
        )
      yield question

  def featurize(self, example, tokenizer, max_seq_length):
    """[cls] question and option [sep] passage [sep] for each option; segments 0 and 1.

    Question and option keep their last max_qa_length tokens, the passage as many of its first as
    have room. A passage without tokens is none: [cls] question and option [sep].
    """
    last_tokenizer, text, passage = self._passage
    if last_tokenizer is not tokenizer or text != example.passage:
      passage = tokenizer.convert_text_to_ids(example.passage)
      self._passage = tokenizer, example.passage, passage
    input_ids, segment_ids = [], []
    for option in example.options:
      ids = tokenizer.convert_text_to_ids(fill_in(example.question, option))
      ids = ids[-self.max_qa_length :]
      rest = passage[: max(max_seq_length - len(ids) - 3, 0)]
      rest = [*rest, tokenizer.sep_id] if rest else []
      input_ids.append([tokenizer.cls_id, *ids, tokenizer.sep_id, *rest])
      segment_ids.append([self.cls_segment_id] + [0] * (len(ids) + 1) + [1] * len(rest))
    missing = [[] for _ in range(self.sequences_per_example - len(example.options))]
    return {
      "input_ids": input_ids + missing,
      "input_mask": [[1] * len(ids) for ids in input_ids] + missing,
      "segment_ids": segment_ids + missing,
      "label_ids": example.answer or 0,
      "is_high_example": int(example.is_high),
      "is_real_example": 1,
    }

  def metadata(self):
    return {
      "processor_type": self.name.upper(),
      "task_type": "multiple_choice",
      "num_options": self.sequences_per_example,
      "max_qa_length": self.max_qa_length,
    }

  def build(self, encoder, features):
    scores = encoder.choice_scores(self.sequences_per_example, self.cls_scope)  # [B, N]
    is_there = tf.reduce_max(features["input_mask"], axis=-1) > 0  # not so where filled up
    scores = tf.where(is_there, scores, tf.fill(tf.shape(scores), -1e9))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=features["label_ids"], logits=scores
    )
    return base.TaskOutput(
      {"loss": self.loss_weights(features)["loss"] * losses},
      {"probabilities": tf.nn.softmax(scores), "logits": scores},
    )

  def score(self, split, predictions):
    """accuracy, and where there are questions of both of RACE's levels accuracy_{middle,high}."""
    guesses = np.argmax(predictions["probabilities"], axis=-1)
    values = metrics.compute(self.metrics, predictions["label_ids"], guesses)
    parts = [predictions["is_high_example"] == level for level in (0, 1)]
    if all(part.any() for part in parts):
      for level, part in zip(LEVELS, parts, strict=True):
        values[f"accuracy_{level}"] = metrics.accuracy(
          predictions["label_ids"][part], guesses[part]
        )
    return values

  def metric_names(self, splits):
    levels = (
      {
        os.path.basename(os.path.dirname(name))
        for split in splits
        if tf.io.gfile.exists(self._path(split))  # records made elsewhere do without
        for name in self.input_files(split)
      }
      if self.dataset.file_format == "race"
      else set()
    )
    names = super().metric_names(splits)
    return names | ({f"accuracy_{level}" for level in LEVELS} if len(levels) == 2 else set())

  def combine(self, metrics_of_splits):
    (values,) = metrics_of_splits.values()
    return {**values, self.score_name: values["accuracy"]}

  def prediction_rows(
    self, questions: Iterable[Question], probabilities: np.ndarray
  ) -> Iterator[list[str]]:
    """Rows of a prediction file, header first: id, letter, index, probability of each option."""
    yield [
      "id",
      "prediction",
      "prediction_index",
      *(f"probability_{option_name(index)}" for index in range(probabilities.shape[1])),
    ]
    for question, row in zip(questions, probabilities, strict=True):
      best = int(np.argmax(row))
      yield [question.id, option_name(best), str(best), *(f"{p:.4f}" for p in row)]

  def examples(self, split: str, count: int) -> list[Question]:
    """The first `count` questions of a split, those that predictions are for."""
    return list(itertools.islice(self.read_examples(split), count))


def fill_in(question: str, option: str) -> str:
  """The question with the option in its blank, or after it.

  "He goes by _ ." and "bus" give "He goes by bus .", "Why?" and "For fun." give "Why? For fun.". A
  blank may be of several underscores; where there are two blanks, both are filled.
  """
  if "_" in question:
    return re.sub("_+", lambda _: option, question)
  return f"{question} {option}".strip()


def make_task(settings, raw_data, cls_scope: str = "", cls_segment_id: int = 0) -> RaceTask:
  """The task of --task_name and its companions.

  Args:
    settings: config.Race, or anything with its fields.
    raw_data: config.RawData, or anything with its fields.
    cls_scope: variable scope of the head; empty for the model family's own place.
    cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).

  Raises:
    UserError: unknown task, or own files for RACE.
  """
  name = settings.task_name.lower()
  if name not in DATASETS:
    raise UserError(f"--task_name={settings.task_name} is unknown; known are {', '.join(DATASETS)}")
  dataset = DATASETS[name]
  given = {
    split: path
    for split, path in (
      ("train", settings.train_file),
      ("dev", settings.eval_file),
      ("test", settings.predict_file),
    )
    if path
  }
  if given and name == "race":
    raise UserError(
      "--train_file, --eval_file, --predict_file: task race has its own files (name "
      "their folder with --data_dir); own files go with --task_name=jsonl or swag"
    )
  own = {split: path if "://" in path else os.path.abspath(path) for split, path in given.items()}
  dataset = dataclasses.replace(dataset, files={**dataset.files, **own})
  data_dir = raw_data.data_dir or os.path.join(raw_data.data_root, dataset.folder)
  return RaceTask(
    name,
    dataset,
    data_dir,
    settings.max_qa_length,
    settings.num_options,
    cls_scope or None,
    cls_segment_id,
    raw_data.skip_bad_rows,
    settings.eval_split,
  )
