"""Classification and regression of texts and pairs: GLUE, SNLI, reviews, topics, your own files.

Every set is a row of DATASETS: where its files and columns are, its labels in the order of their
ids, and its official metrics.
"""

import csv
import dataclasses
import io
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from errors import UserError
from tasks import base, metrics

NLI_LABELS = ("contradiction", "entailment", "neutral")  # BERT's order, so that its heads load
ENTAILMENT_LABELS = ("entailment", "not_entailment")
BINARY_LABELS = ("0", "1")


@dataclasses.dataclass(frozen=True)
class Columns:
  """Where a row keeps its parts: names in the header, or 0-based numbers.

  Of two columns of a text (a title and a body) the cells are joined by a space.
  """

  text_a: str | int | tuple[int, ...]
  text_b: str | int | None = None
  label: str | int | None = None
  has_header: bool = True


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set.

  Attributes:
    folder: its place under --data_root.
    columns: columns of the labelled files.
    files: split -> file names, the first that exists counts; a name that ends in "/" is a folder
      with a sub-folder for each label, which holds one text in each file.
    labels: class names in the order of their ids; None for regression; () to find them in the
      training file.
    metrics: official metrics, whose mean is the score.
    test_columns: columns of test files where they differ; without a label in any case.
    submission: split -> file name of the GLUE submission.
    file_format: "tsv", "csv" or "jsonl", whatever the files are called.
    literal_breaks: line breaks stand in the files as backslash and n, quotes as backslash and
      quote.
  """

  folder: str
  columns: Columns
  files: dict[str, tuple[str, ...]]
  labels: tuple[str, ...] | None
  metrics: tuple[str, ...] = ("accuracy",)
  test_columns: Columns | None = None
  submission: dict[str, str] = dataclasses.field(default_factory=dict)
  literal_breaks: bool = False
  file_format: str = "tsv"


def _glue(folder, text_a, text_b, label, labels, metric_names=("accuracy",)):
  """A data set of GLUE's usual form: train/dev/test.tsv with headers."""
  return Dataset(
      f"glue/{folder}", Columns(text_a, text_b, label),
      {"train": ("train.tsv",), "dev": ("dev.tsv",), "test": ("test.tsv",)}, labels, metric_names,
      submission={"test": f"{folder}.tsv"})


DATASETS = {
    "cola": dataclasses.replace(
        _glue("CoLA", "sentence", None, None, BINARY_LABELS, ("matthews",)),
        columns=Columns(3, None, 1, has_header=False), test_columns=Columns("sentence")),
    "sst-2": _glue("SST-2", "sentence", None, "label", BINARY_LABELS),
    "mrpc": _glue("MRPC", "#1 String", "#2 String", "Quality", BINARY_LABELS, ("f1", "accuracy")),
    "sts-b": _glue("STS-B", "sentence1", "sentence2", "score", None, ("pearson", "spearman")),
    "qqp": _glue("QQP", "question1", "question2", "is_duplicate", BINARY_LABELS,
                 ("f1", "accuracy")),
    "qnli": _glue("QNLI", "question", "sentence", "label", ENTAILMENT_LABELS),
    "rte": _glue("RTE", "sentence1", "sentence2", "label", ENTAILMENT_LABELS),
    "wnli": _glue("WNLI", "sentence1", "sentence2", "label", BINARY_LABELS),
    "mnli": Dataset(
        "glue/MNLI", Columns("sentence1", "sentence2", "gold_label"),
        {"train": ("train.tsv",), "dev_matched": ("dev_matched.tsv",),
         "dev_mismatched": ("dev_mismatched.tsv",), "test_matched": ("test_matched.tsv",),
         "test_mismatched": ("test_mismatched.tsv",)},
        NLI_LABELS, submission={"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"}),
    "ax": Dataset(
        "glue/AX", Columns("sentence1", "sentence2"),
        {"test": ("AX.tsv", "diagnostic.tsv", "test.tsv")}, NLI_LABELS,
        submission={"test": "AX.tsv"}),
    "snli": Dataset(
        "SNLI", Columns("sentence1", "sentence2", "gold_label"),
        {"train": ("train.tsv", "snli_1.0_train.txt"), "dev": ("dev.tsv", "snli_1.0_dev.txt"),
         "test": ("test.tsv", "snli_1.0_test.txt")}, NLI_LABELS),
}


def _csv_set(folder, text, num_labels):
  """A data set of Zhang et al. 2015: CSV files without a header, labels from 1 on, no dev data."""
  return Dataset(folder, Columns(text, None, 0, has_header=False),
                 {"train": ("train.csv",), "dev": ("test.csv",), "test": ("test.csv",)},
                 tuple(str(label + 1) for label in range(num_labels)), literal_breaks=True,
                 file_format="csv")


# The text classification sets of the Funnel-Transformer paper, evaluated on their test data.
DATASETS |= {
    "imdb": Dataset("aclImdb", Columns("text"),
                    {"train": ("train/",), "dev": ("test/",), "test": ("test/",)},
                    ("neg", "pos")),
    "ag": _csv_set("ag_news_csv", (1, 2), 4),
    "dbpedia": _csv_set("dbpedia_csv", (1, 2), 14),
    "yelp2": _csv_set("yelp_review_polarity_csv", 1, 2),
    "yelp5": _csv_set("yelp_review_full_csv", 1, 5),
    "amazon2": _csv_set("amazon_review_polarity_csv", (1, 2), 2),
    "amazon5": _csv_set("amazon_review_full_csv", (1, 2), 5),
}
DATASETS["mnli_matched"] = dataclasses.replace(DATASETS["mnli"], files={
    k: v for k, v in DATASETS["mnli"].files.items() if "mismatched" not in k})
DATASETS["mnli_mismatched"] = dataclasses.replace(DATASETS["mnli"], files={
    k: v for k, v in DATASETS["mnli"].files.items() if not k.endswith("_matched")})

ALIASES = {"sst2": "sst-2", "sts": "sts-b", "stsb": "sts-b", "diagnostic": "ax"}
FILE_TASKS = ("tsv", "csv", "jsonl")  # a user's own files


def dataset_of(name: str, settings) -> Dataset:
  """The data set of a canonical task name; for a user's own files as `settings` describe it.

  Args:
    name: key of DATASETS, or one of FILE_TASKS.
    settings: training.config.Classification, or anything with its fields.
  """
  if name in DATASETS:
    given = [f"--{key}" for key in ("train_file", "eval_file", "predict_file")
             if getattr(settings, key)]
    if given:
      raise UserError(f"{', '.join(given)}: task {name} has its own files (name their folder with "
                      f"--data_dir); own files go with --task_name=tsv, csv or jsonl")
    return DATASETS[name]
  columns = Columns(
      _column(settings.text_a_col),
      None if settings.text_b_col == "" else _column(settings.text_b_col),
      _column(settings.label_col), settings.has_header)
  if not settings.has_header and name != "jsonl":
    named = [column for column in (columns.text_a, columns.text_b, columns.label)
             if isinstance(column, str)]
    if named:
      raise UserError(f"with --nohas_header columns are numbers from 0, not {named[0]!r}: set "
                      f"--text_a_col, --label_col (and --text_b_col for pairs)")
  files = {"train": settings.train_file, "dev": settings.eval_file, "test": settings.predict_file}
  return Dataset(
      folder="", columns=columns, file_format=name,
      files={split: (_absolute(path) if path else f"{split}.{name}",)
             for split, path in files.items()},
      labels=None if settings.is_regression else (),
      metrics=("pearson", "spearman") if settings.is_regression else ("accuracy", "macro_f1"))


def _absolute(path):
  """The path made independent of data_dir."""
  return path if "://" in path else os.path.abspath(path)


def _column(text):
  return int(text) if text.isdecimal() else text


def canonical_name(task_name: str) -> str:
  """Canonical form of a task name ("SST2" -> "sst-2"); UserError lists the known names."""
  name = task_name.lower()
  name = ALIASES.get(name, name)
  if name not in DATASETS and name not in FILE_TASKS:
    known = ", ".join([*DATASETS, *FILE_TASKS])
    raise UserError(f"--task_name={task_name} is unknown; known are {known}")
  return name


@dataclasses.dataclass
class Example:
  """A raw example: label is a class name, a float (regression), or None (test files)."""

  text_a: str
  text_b: str | None = None
  label: str | float | None = None


# ---- Reading files ----------------------------------------------------------------------------


def list_texts(folder: str) -> list[str]:
  """Text files (*.txt) of a folder, sorted; none if there is no such folder."""
  names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
  return sorted(os.path.join(folder, name) for name in names if name.endswith(".txt"))


def read_text(path: str) -> str:
  """Text of a UTF-8 file without byte order mark; UserError names the line of a bad byte."""
  with tf.io.gfile.GFile(path, "rb") as reader:
    data = reader.read()
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise UserError(f"{path}: line {line} is not UTF-8 (byte {error.start} of the file); "
                    f"convert the file, e.g. with iconv") from None


def read_rows(path: str, file_format: str) -> Iterator[tuple[int, list[str]]]:
  """Yields (1-based line number, cells) of a "csv" or "tsv" file.

  GLUE's files do not quote: a quotation mark in a tsv file is a character like any other. Windows
  line ends are accepted, and so are empty lines at the end; those elsewhere are one empty cell.
  """
  text = read_text(path).rstrip("\r\n")
  if not text:
    return
  if file_format == "csv":
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
      yield from ((reader.line_num, row or [""]) for row in reader)
    except csv.Error as error:
      raise UserError(f"{path}: line {reader.line_num}: {error}") from None
    return
  # Not splitlines(): it would also break at U+0085 and U+2028, which sentences contain.
  for number, line in enumerate(text.split("\n"), 1):
    yield number, line.removesuffix("\r").split("\t")


def read_jsonl(path: str) -> Iterator[tuple[int, dict]]:
  """Yields (1-based line number, object) of a file with one JSON object per line."""
  for number, line in enumerate(read_text(path).split("\n"), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError as error:
      raise UserError(f"{path}: line {number}: not valid JSON: {error}") from None
    if not isinstance(row, dict):
      raise UserError(f"{path}: line {number}: not a JSON object but a {type(row).__name__}")
    yield number, row


def read_columns(path: str, columns: Columns, file_format: str = "tsv",
                 skip_bad_rows: bool = False) -> Iterator[tuple[int, list[str | None]]]:
  """Yields (line number, [text_a, text_b, label]) of each row; None for a part without a column.

  Raises:
    UserError: a column is not in the header, or (without skip_bad_rows) a row has too few cells;
      names file and line.
  """
  wanted = [columns.text_a, columns.text_b, columns.label]
  if file_format == "jsonl":
    for number, row in read_jsonl(path):
      missing = [name for name in wanted if name is not None and name not in row]
      if missing:
        raise UserError(f"{path}: line {number}: no key {missing[0]!r}; "
                        f"the keys are {', '.join(map(repr, row))}")
      yield number, ["" if row.get(name) is None and name is not None else
                     name and str(row[name]) for name in wanted]
    return
  rows = read_rows(path, file_format)
  if columns.has_header:
    _, header = next(rows, (0, None))
    if header is None:
      raise UserError(f"{path}: the file is empty; a header line is expected")
    absent = [name for name in wanted if isinstance(name, str) and name not in header]
    if absent:
      raise UserError(f"{path}: no column {absent[0]!r} in the header, "
                      f"which has {', '.join(map(repr, header))}")
    wanted = [header.index(name) if isinstance(name, str) else name for name in wanted]
  # Each part becomes the tuple of its columns, whose cells are joined.
  parts = [part if isinstance(part, tuple) or part is None else (part,) for part in wanted]
  required = 1 + max(max(part) for part in parts if part is not None)
  skipped = 0
  for number, row in rows:
    if len(row) >= required:
      yield number, [part and " ".join(filter(None, (row[column] for column in part)))
                     for part in parts]
    elif row == [""]:
      continue  # an empty line; where one column is all there is, it is an empty text
    elif skip_bad_rows:
      skipped += 1
    else:
      raise UserError(f"{path}: line {number}: {len(row)} columns where at least {required} are "
                      f"needed; mend the line, or pass --skip_bad_rows to leave such rows out")
  if skipped:
    logging.getLogger(__name__).warning("%s: left out %d rows with too few columns", path, skipped)


# ---- The task ---------------------------------------------------------------------------------


class ClassificationTask(base.RawDataTask):
  """Classification (or regression, where labels are None) of one text or a pair.

  Example:
    task = ClassificationTask("cola", DATASETS["cola"], "data/glue/CoLA")
    task.featurize(next(task.read_examples("train")), tokenizer, max_seq_length=128)
  """

  def __init__(self, name: str, dataset: Dataset, data_dir: str = "", cls_scope: str | None = None,
               cls_segment_id: int = 0, skip_bad_rows: bool = False):
    """Makes the task.

    Args:
      name: the task's canonical name.
      dataset: where and what the data are.
      data_dir: folder of the raw files; may be empty where records are read.
      cls_scope: variable scope of the head; None for the model family's own place.
      cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).
      skip_bad_rows: leave out rows with too few columns instead of raising.
    """
    self.name = name
    self.dataset = dataset
    self.data_dir = data_dir
    self.cls_scope = cls_scope
    self.cls_segment_id = cls_segment_id
    self.skip_bad_rows = skip_bad_rows
    self.is_regression = dataset.labels is None
    self.metrics = dataset.metrics
    self._labels = dataset.labels

  @property
  def labels(self) -> tuple[str, ...]:
    """Class names in the order of their ids, found in the training file where none are given."""
    if self._labels == ():
      names = set()
      for place, (_, _, label) in self._rows("train"):
        if not label:
          raise UserError(f"{place}: the label is empty")
        names.add(label)
      self._labels = tuple(sorted(names, key=lambda name: (not _is_int(name), _is_int(name)
                                                           and int(name), name)))
      if len(self._labels) < 2:
        raise UserError(f"{self.input_files('train')[0]}: found the labels {list(self._labels)}; "
                        f"at least two are needed to train a classifier (is --label_col right?)")
    return self._labels

  @labels.setter
  def labels(self, names: Sequence[str]):
    self._labels = tuple(names)

  @property
  def feature_specs(self):
    return [
        base.FeatureSpec("input_ids", is_sequence=True, pad_value=None),
        base.FeatureSpec("input_mask", is_sequence=True),
        base.FeatureSpec("segment_ids", is_sequence=True),
        base.FeatureSpec("label_ids", dtype="float32" if self.is_regression else "int64"),
        base.FeatureSpec("is_real_example", default=1),
        base.FeatureSpec("weight", dtype="float32", default=1.0),
        base.FeatureSpec("example_id", default=-1),
    ]

  def splits(self, kind):
    return [split for split in self.dataset.files if split.split("_")[0] == kind]

  def input_files(self, split):
    if split not in self.dataset.files:
      raise UserError(f"task {self.name} has no {split} data; "
                      f"it has {', '.join(self.dataset.files)}")
    candidates = [name if "://" in name else os.path.join(self.data_dir, name)
                  for name in self.dataset.files[split]]
    for path in candidates:
      found = [path]
      if path.endswith("/"):
        found = [name for label in self.dataset.labels
                 for name in list_texts(os.path.join(path, label))]
      if found and tf.io.gfile.exists(found[0]):
        return found
    raise UserError(f"{candidates[0]}: no such file, the {split} data of task {self.name}. "
                    + self._how_to_get())

  def _how_to_get(self):
    if self.name in FILE_TASKS:
      return "Name your files with --train_file, --eval_file, --predict_file, or put " \
          f"train.{self.name}, dev.{self.name}, test.{self.name} into --data_dir"
    if self.dataset.folder.startswith("glue/"):
      return f"Get it with: bash scripts/download_glue.sh {self.dataset.folder[5:]} " \
          "or point --data_dir at the folder that holds it"
    return "Point --data_dir at the folder that holds it"

  def source_key(self, split):
    return [dataclasses.astuple(self._columns(split)), self.skip_bad_rows]

  def _columns(self, split):
    if split.startswith("test"):
      return self.dataset.test_columns or dataclasses.replace(self.dataset.columns, label=None)
    return self.dataset.columns

  def _rows(self, split):
    """Yields (place for messages, [text_a, text_b, label])."""
    paths = self.input_files(split)
    if self.dataset.files[split][0].endswith("/"):
      for path in paths:
        label = None if split == "test" else os.path.basename(os.path.dirname(path))
        yield path, [read_text(path).replace("<br />", " "), None, label]
      return
    for number, row in read_columns(paths[0], self._columns(split),
                                    self.dataset.file_format, self.skip_bad_rows):
      if self.dataset.literal_breaks:
        row[0] = row[0].replace("\\n", " ").replace('\\"', '"')
      yield f"{paths[0]}: line {number}", row

  def read_examples(self, split):
    for place, (text_a, text_b, label) in self._rows(split):
      if label == "-" and self.dataset.labels == NLI_LABELS:
        continue  # SNLI and MNLI mark pairs so on which the annotators did not agree
      yield Example(text_a, text_b, self._parse_label(label, place))

  def _parse_label(self, label, place):
    if label is None:
      return None
    if self.is_regression:
      try:
        value = float(label)
      except ValueError:
        value = math.nan
      if not math.isfinite(value):
        raise UserError(f"{place}: the label {label!r} is not a number")
      return value
    if label not in self.labels:
      raise UserError(f"{place}: unknown label {label!r}; the labels are "
                      f"{', '.join(map(repr, self.labels))}")
    return label

  def featurize(self, example, tokenizer, max_seq_length):
    """[CLS] a [SEP], or [CLS] a [SEP] b [SEP]; segment ids 0 for a and its [SEP], 1 for b's.

    Too long a pair loses tokens from the end of whichever text is the longer, one at a time.
    """
    tokens_a = tokenizer.convert_text_to_ids(example.text_a)
    tokens_b = None
    if example.text_b is None:
      tokens_a = tokens_a[:max_seq_length - 2]
    else:
      tokens_b = tokenizer.convert_text_to_ids(example.text_b)
      tokens_a, tokens_b = truncate_pair(tokens_a, tokens_b, max_seq_length - 3)
    input_ids = [tokenizer.cls_id, *tokens_a, tokenizer.sep_id]
    segment_ids = [self.cls_segment_id] + [0] * (len(tokens_a) + 1)
    if tokens_b is not None:
      input_ids += [*tokens_b, tokenizer.sep_id]
      segment_ids += [1] * (len(tokens_b) + 1)
    label = 0 if example.label is None else example.label
    if not self.is_regression and example.label is not None:
      label = self.labels.index(label)
    return {"input_ids": input_ids, "input_mask": [1] * len(input_ids),
            "segment_ids": segment_ids, "label_ids": label, "is_real_example": 1}

  def metadata(self):
    values = {"processor_type": self.name.split("_")[0].upper()}  # MNLI for mnli_matched too
    if self.is_regression:
      return {**values, "task_type": "bert_regression", "label_type": "float"}
    return {**values, "task_type": "bert_classification", "num_labels": len(self.labels),
            "label_list": list(self.labels)}

  def build(self, encoder, features):
    num_outputs = 1 if self.is_regression else len(self.labels)
    logits = encoder.classification_logits(num_outputs, self.cls_scope, self.name)
    labels, weights = features["label_ids"], self.loss_weights(features)["loss"]
    if self.is_regression:
      values = logits[:, 0]
      return base.TaskOutput({"loss": weights * tf.square(values - labels)},
                             {"prediction": values})
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return base.TaskOutput({"loss": weights * losses},
                           {"probabilities": tf.nn.softmax(logits), "logits": logits})

  def prediction_rows(self, predictions: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Rows of a prediction file, header first: index, prediction, probability of each label."""
    if self.is_regression:
      yield ["index", "prediction"]
      for index, value in enumerate(predictions["prediction"]):
        yield [str(index), f"{value:.4f}"]
      return
    yield ["index", "prediction", *(f"probability_{label}" for label in self.labels)]
    for index, row in enumerate(predictions["probabilities"]):
      yield [str(index), self.labels[np.argmax(row)], *(f"{p:.4f}" for p in row)]

  def submission_rows(self, predictions: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Rows of GLUE's submission file, header first: index and prediction."""
    yield ["index", "prediction"]
    rows = self.prediction_rows(predictions)
    next(rows)
    for index, value, *_ in rows:
      # STS-B's scale ends at 0 and 5.
      yield [index, f"{min(max(float(value), 0), 5):.3f}" if self.is_regression else value]

  def score(self, split, predictions):
    guesses = predictions["prediction"] if self.is_regression \
        else np.argmax(predictions["probabilities"], axis=-1)
    return metrics.compute(self.metrics, predictions["label_ids"], guesses)

  def combine(self, metrics_of_splits):
    """Metrics of several splits get the split's suffix; the score is the mean of the official ones.

    With one split {"f1": .8, "accuracy": .7} gives score .75; MNLI gives accuracy_matched,
    accuracy_mismatched and their mean.
    """
    joined = {}
    for split, values in metrics_of_splits.items():
      suffix = "_" + split.split("_")[1] if len(metrics_of_splits) > 1 else ""
      joined.update({name + suffix: value for name, value in values.items()})
    official = [value for name, value in joined.items() if not name.startswith("loss")]
    return {**joined, self.score_name: float(np.mean(official))}


def make_task(settings, raw_data, cls_scope: str = "",
              cls_segment_id: int = 0) -> ClassificationTask:
  """The task of --task_name and its companions.

  Args:
    settings: training.config.Classification, or anything with its fields.
    raw_data: training.config.RawData, or anything with its fields.
    cls_scope: variable scope of the head; empty for the model family's own place.
    cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).
  """
  name = canonical_name(settings.task_name)
  dataset = dataset_of(name, settings)
  data_dir = raw_data.data_dir or os.path.join(raw_data.data_root, dataset.folder)
  return ClassificationTask(name, dataset, data_dir, cls_scope or None, cls_segment_id,
                            raw_data.skip_bad_rows)


def _is_int(text):
  return text.removeprefix("-").isdecimal()


def truncate_pair(tokens_a: list, tokens_b: list, max_length: int) -> tuple[list, list]:
  """Cuts the longer of the two, one token at a time (b on a tie), to max_length in total.

  Example: lengths 5 and 3 with max_length 5 become 3 and 2.
  """
  length_a, length_b = len(tokens_a), len(tokens_b)
  while length_a + length_b > max_length:
    if length_a > length_b:
      length_a -= 1
    else:
      length_b -= 1
  return tokens_a[:length_a], tokens_b[:length_b]
