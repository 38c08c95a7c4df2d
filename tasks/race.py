"""Multiple choice: questions about a passage, with options (RACE, SWAG, your own files).

A question with N options is N sequences, [cls] question and option [sep] passage [sep]. The encoder
computes one score for each; the softmax is over the scores of a question.
"""

import dataclasses
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

import modeling
from errors import UserError
from tasks import base, metrics
from tasks.race_data import Question, option_name, read_choices_jsonl, read_race, read_swag
from tasks.readers import list_texts
from utils import files
from utils.options import Range

LEVELS = ("middle", "high")  # RACE's schools, in the order of is_high_example


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set.

  Attributes:
    folder: folder below --data_root.
    file_format: "race", "swag" or "jsonl", see read_race, read_swag, read_choices_jsonl.
    files: split -> file, or for RACE folder.
    num_options: options of every question; 0 for the largest number in the files.
    how_to_get: advice in messages about missing files.
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


class RaceTask(base.RawDataTask):
  """Multiple choice.

  A question with fewer options than num_options is padded with empty sequences, whose scores are
  masked out: their probability is 0.

  Example:
    task = RaceTask("race", DATASETS["race"], "data/RACE", max_qa_length=128)
    task.featurize(next(task.read_examples("train")), tokenizer, max_seq_length=512)
  """

  job = "race"

  @classmethod
  def canonical_name(cls, settings):
    name = settings.task_name.lower()
    if name not in DATASETS:
      raise UserError(
        f"--task_name={settings.task_name} is unknown; known are {', '.join(DATASETS)}"
      )
    return name

  @classmethod
  def known_names(cls):
    return list(DATASETS)

  @classmethod
  def from_experiment(cls, experiment, family):
    settings, raw = experiment.task, experiment.raw_data
    name = cls.canonical_name(settings)
    _check_room(experiment.data.max_seq_length, settings.max_qa_length)
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
    return cls(
      name,
      dataset,
      raw.data_dir or os.path.join(raw.data_root, dataset.folder),
      settings.max_qa_length,
      settings.num_options,
      experiment.model.cls_scope or None,
      modeling.CLS_SEGMENT_IDS[family],
      raw.skip_bad_rows,
      settings.eval_split,
    )

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
      name: canonical name of the task.
      dataset: files and number of options.
      data_dir: folder of the raw files.
      max_qa_length: longest question with its option, in tokens.
      num_options: options of every question, after padding; 0 for the data set's own number.
      cls_scope: variable scope of the head; None for the model family's own.
      cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).
      skip_bad_rows: skip rows of CSV files with too few or too many columns.
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
    # If the data set has a fixed number of options, another number is a mistake in the file.
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

  @sequences_per_example.setter
  def sequences_per_example(self, num_options: int):
    self._num_options = num_options

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

  def ranges(self, *args):
    labels = Range(int, lower=0, upper=self.sequences_per_example - 1)
    return {**super().ranges(*args), "label_ids": labels}

  def _path(self, split):
    return os.path.join(self.data_dir, self.dataset.files[split])

  def input_files(self, split):
    path = self._path(split)
    if self.dataset.file_format == "race":
      # Sorted by file name, so that the first N of them are of both levels.
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
    # The folder of a RACE file is its level.
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
          f"{question.place}: {count} options, {room} are expected; fix it, or "
          f"set --num_options to the largest number of options (questions with fewer "
          f"are padded)"
        )
      yield question

  def featurize(self, example, tokenizer, max_seq_length):
    """[cls] question and option [sep] passage [sep] for each option; segments 0 and 1.

    Question and option keep their last max_qa_length tokens, the passage as many of its first
    tokens as fit. A passage without tokens is left out: [cls] question and option [sep].
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
    num_options = modeling.get_shape_list(features["input_ids"])[1]
    scores = encoder.choice_scores(num_options, self.cls_scope)  # [B, N]
    is_there = tf.reduce_max(features["input_mask"], axis=-1) > 0  # False for padding
    scores = tf.where(is_there, scores, tf.fill(tf.shape(scores), -1e9))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=features["label_ids"], logits=scores
    )
    return base.TaskOutput(
      {"loss": self.loss_weights(features)["loss"] * losses},
      {"probabilities": tf.nn.softmax(scores), "logits": scores},
    )

  def score(self, split, predictions):
    """accuracy; with questions of both of RACE's levels also accuracy_middle and accuracy_high."""
    guesses = np.argmax(predictions["probabilities"], axis=-1)
    values = metrics.compute(self.metrics, predictions["label_ids"], guesses)
    parts = [predictions["is_high_example"] == level for level in (0, 1)]
    if all(part.any() for part in parts):
      for level, part in zip(LEVELS, parts, strict=True):
        values[f"accuracy_{level}"] = metrics.accuracy(
          predictions["label_ids"][part], guesses[part]
        )
    return values

  def evaluated(self, split, predictions):
    names = [option_name(index) for index in range(predictions["probabilities"].shape[1])]
    return metrics.examples(names, predictions)

  def metric_names(self, splits):
    levels = (
      {
        os.path.basename(os.path.dirname(name))
        for split in splits
        if tf.io.gfile.exists(self._path(split.name))  # not needed for records made elsewhere
        for name in self.input_files(split.name)
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

  def read_origins(self, split, num_examples):
    """The questions that predictions are for."""
    return list(itertools.islice(self.read_examples(split), num_examples))

  def output_files(self, trainer, split):
    return [
      os.path.join(trainer.predictions_dir, f"predictions.{self.predictions_name(split)}.tsv")
    ]

  def write_predictions(self, trainer, split, predictions):
    (path,) = self.output_files(trainer, split.name)
    probabilities = predictions["probabilities"]
    questions = split.origins
    if questions is None:  # records made elsewhere
      questions = self.read_origins(split.name, len(probabilities))
    files.write_tsv(path, self.prediction_rows(questions, probabilities))
    print(f"{self.name} {split.name}: {path}")
    if all(question.answer is not None for question in questions):
      print(f"{self.name} {split.name}: {metrics.format_metrics(self.score(split, predictions))}")


def fill_in(question: str, option: str) -> str:
  """Returns the question with the option in its blank, or after it.

  "He goes by _ ." and "bus" give "He goes by bus .", "Why?" and "For fun." give "Why? For fun.". A
  blank is one or more underscores; the option fills every blank.
  """
  if "_" in question:
    return re.sub("_+", lambda _: option, question)
  return f"{question} {option}".strip()


def _check_room(max_seq_length, max_qa_length):
  """UserError if question and option may leave no room for the passage."""
  room = max_seq_length - 3  # [cls] and two [sep]
  if max_qa_length >= room:
    raise UserError(
      f"--max_qa_length={max_qa_length} does not fit into "
      f"--max_seq_length={max_seq_length} with its 3 special tokens and the passage; "
      f"lower it, below {room}"
    )
