"""Classification and regression of texts and pairs: GLUE, SNLI, reviews, topics, your own files.

Every set is a row of DATASETS: where its files and columns are, its labels in the order of their
ids, and its official metrics.
"""

import collections
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from errors import UserError
from tasks import base, metrics
from tasks.readers import Columns, list_texts, read_columns, read_text

NLI_LABELS = ("contradiction", "entailment", "neutral")  # BERT's order, so that its heads load
ENTAILMENT_LABELS = ("entailment", "not_entailment")
BINARY_LABELS = ("0", "1")


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
    split_columns: "train", "dev" or "test" -> columns of those files, if they differ; test files
      are read without their labels in any case.
    submission: split -> file name of the GLUE submission.
    file_format: "jsonl" or a format of readers.read_rows, whatever the files are called.
    languages: what --language may be; file names hold {language}. () if there is only one.
    language: the chosen one of them.
    label_aliases: other spelling of a label in the files -> label.
    literal_breaks: line breaks stand in the files as backslash and n, quotes as backslash and
      quote.
  """

  folder: str
  columns: Columns
  files: dict[str, tuple[str, ...]]
  labels: tuple[str, ...] | None
  metrics: tuple[str, ...] = ("accuracy",)
  split_columns: dict[str, Columns] = dataclasses.field(default_factory=dict)
  submission: dict[str, str] = dataclasses.field(default_factory=dict)
  languages: tuple[str, ...] = ()
  language: str = ""
  label_aliases: dict[str, str] = dataclasses.field(default_factory=dict)
  literal_breaks: bool = False
  file_format: str = "unquoted"


def _glue(folder, text_a, text_b, label, labels, metric_names=("accuracy",)):
  """A data set of GLUE's usual form: train/dev/test.tsv with headers."""
  return Dataset(
    f"glue/{folder}",
    Columns(text_a, text_b, label),
    {"train": ("train.tsv",), "dev": ("dev.tsv",), "test": ("test.tsv",)},
    labels,
    metric_names,
    submission={"test": f"{folder}.tsv"},
  )


DATASETS = {
  "cola": dataclasses.replace(
    _glue("CoLA", "sentence", None, None, BINARY_LABELS, ("matthews",)),
    columns=Columns(3, None, 1, has_header=False),
    split_columns={"test": Columns("sentence")},
  ),
  "sst-2": _glue("SST-2", "sentence", None, "label", BINARY_LABELS),
  "mrpc": _glue("MRPC", "#1 String", "#2 String", "Quality", BINARY_LABELS, ("f1", "accuracy")),
  "sts-b": _glue("STS-B", "sentence1", "sentence2", "score", None, ("pearson", "spearman")),
  "qqp": _glue("QQP", "question1", "question2", "is_duplicate", BINARY_LABELS, ("f1", "accuracy")),
  "qnli": _glue("QNLI", "question", "sentence", "label", ENTAILMENT_LABELS),
  "rte": _glue("RTE", "sentence1", "sentence2", "label", ENTAILMENT_LABELS),
  "wnli": _glue("WNLI", "sentence1", "sentence2", "label", BINARY_LABELS),
  "mnli": Dataset(
    "glue/MNLI",
    Columns("sentence1", "sentence2", "gold_label"),
    {
      "train": ("train.tsv",),
      "dev_matched": ("dev_matched.tsv",),
      "dev_mismatched": ("dev_mismatched.tsv",),
      "test_matched": ("test_matched.tsv",),
      "test_mismatched": ("test_mismatched.tsv",),
    },
    NLI_LABELS,
    submission={"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
  ),
  "ax": Dataset(
    "glue/AX",
    Columns("sentence1", "sentence2"),
    {"test": ("AX.tsv", "diagnostic.tsv", "test.tsv")},
    NLI_LABELS,
    submission={"test": "AX.tsv"},
  ),
  "snli": Dataset(
    "SNLI",
    Columns("sentence1", "sentence2", "gold_label"),
    {
      "train": ("train.tsv", "snli_1.0_train.txt"),
      "dev": ("dev.tsv", "snli_1.0_dev.txt"),
      "test": ("test.tsv", "snli_1.0_test.txt"),
    },
    NLI_LABELS,
  ),
  "xnli": Dataset(  # the folders of its two archives, or what BERT's README has in one folder
    "XNLI",
    Columns("sentence1", "sentence2", "gold_label", language="language"),
    {
      "train": (
        "multinli/multinli.train.{language}.tsv",
        "XNLI-MT-1.0/multinli/multinli.train.{language}.tsv",
      ),
      "dev": ("xnli.dev.tsv", "XNLI-1.0/xnli.dev.tsv"),
      "test": ("xnli.test.tsv", "XNLI-1.0/xnli.test.tsv"),
    },
    NLI_LABELS,
    split_columns={"train": Columns("premise", "hypo", "label")},
    languages=(
      "ar",
      "bg",
      "de",
      "el",
      "en",
      "es",
      "fr",
      "hi",
      "ru",
      "sw",
      "th",
      "tr",
      "ur",
      "vi",
      "zh",
    ),
    label_aliases={"contradictory": "contradiction"},
  ),
  "paws-x": Dataset(
    "x-final",
    Columns("sentence1", "sentence2", "label"),
    {
      "train": ("{language}/translated_train.tsv", "{language}/train.tsv"),
      "dev": ("{language}/dev_2k.tsv",),
      "test": ("{language}/test_2k.tsv",),
    },
    BINARY_LABELS,
    languages=("de", "en", "es", "fr", "ja", "ko", "zh"),
  ),
}


def _csv_set(folder, text, num_labels):
  """A data set of Zhang et al. 2015: CSV files without a header, labels from 1 on, no dev data."""
  return Dataset(
    folder,
    Columns(text, None, 0, has_header=False),
    {"train": ("train.csv",), "dev": ("test.csv",), "test": ("test.csv",)},
    tuple(str(label + 1) for label in range(num_labels)),
    literal_breaks=True,
    file_format="csv",
  )


# The text classification sets of the Funnel-Transformer paper, evaluated on their test data.
DATASETS |= {
  "imdb": Dataset(
    "aclImdb",
    Columns("text"),
    {"train": ("train/",), "dev": ("test/",), "test": ("test/",)},
    ("neg", "pos"),
  ),
  "ag": _csv_set("ag_news_csv", (1, 2), 4),
  "dbpedia": _csv_set("dbpedia_csv", (1, 2), 14),
  "yelp2": _csv_set("yelp_review_polarity_csv", 1, 2),
  "yelp5": _csv_set("yelp_review_full_csv", 1, 5),
  "amazon2": _csv_set("amazon_review_polarity_csv", (1, 2), 2),
  "amazon5": _csv_set("amazon_review_full_csv", (1, 2), 5),
}
DATASETS["mnli_matched"] = dataclasses.replace(
  DATASETS["mnli"], files={k: v for k, v in DATASETS["mnli"].files.items() if "mismatched" not in k}
)
DATASETS["mnli_mismatched"] = dataclasses.replace(
  DATASETS["mnli"],
  files={k: v for k, v in DATASETS["mnli"].files.items() if not k.endswith("_matched")},
)

ALIASES = {"sst2": "sst-2", "sts": "sts-b", "stsb": "sts-b", "diagnostic": "ax", "pawsx": "paws-x"}
FILE_TASKS = ("tsv", "csv", "jsonl")  # a user's own files


def dataset_of(name: str, settings) -> Dataset:
  """The data set of a canonical task name; for a user's own files as `settings` describe it.

  Args:
    name: key of DATASETS, or one of FILE_TASKS.
    settings: config.Classification, or anything with its fields.
  """
  if name in DATASETS:
    given = [
      f"--{key}"
      for key in ("train_file", "eval_file", "predict_file", "id_col", "weight_col")
      if getattr(settings, key)
    ]
    if given:
      raise UserError(
        f"{', '.join(given)}: task {name} has its own files (name their folder with "
        f"--data_dir); own files go with --task_name=tsv, csv or jsonl"
      )
    return _in_language(name, DATASETS[name], settings.language)
  columns = Columns(
    _column(settings.text_a_col),
    _column(settings.text_b_col),
    _column(settings.label_col),
    settings.has_header,
  )
  split_columns = {
    "train": dataclasses.replace(columns, weight=_column(settings.weight_col)),
    "test": dataclasses.replace(columns, id=_column(settings.id_col)),
  }
  if not settings.has_header and name != "jsonl":
    named = [
      column
      for found in (columns, *split_columns.values())
      for column in found.parts().values()
      if isinstance(column, str)
    ]
    if named:
      raise UserError(
        f"with --nohas_header columns are numbers from 0, not {named[0]!r}: set "
        f"--text_a_col, --label_col (and --text_b_col for pairs)"
      )
  files = {"train": settings.train_file, "dev": settings.eval_file, "test": settings.predict_file}
  return Dataset(
    folder="",
    columns=columns,
    split_columns=split_columns,
    file_format=name,
    files={
      split: (_absolute(path) if path else f"{split}.{name}",) for split, path in files.items()
    },
    labels=None if settings.is_regression else (),
    metrics=("pearson", "spearman") if settings.is_regression else ("accuracy", "macro_f1"),
  )


def _in_language(name, dataset, language):
  """The data set with the file names of a language, if it has several."""
  if not dataset.languages:
    return dataset
  if language not in dataset.languages:
    raise UserError(f"--language={language}: task {name} has {', '.join(dataset.languages)}")
  files = {
    split: tuple(path.format(language=language) for path in paths)
    for split, paths in dataset.files.items()
  }
  return dataclasses.replace(dataset, files=files, language=language)


def _absolute(path):
  """The path made independent of data_dir."""
  return path if "://" in path else os.path.abspath(path)


def _column(text):
  return int(text) if text.isdecimal() else text or None


def canonical_name(task_name: str) -> str:
  """Canonical form of a task name ("SST2" -> "sst-2"); UserError lists the known names."""
  name = task_name.lower()
  name = ALIASES.get(name, name)
  if name not in DATASETS and name not in FILE_TASKS:
    known = ", ".join([*DATASETS, *FILE_TASKS])
    raise UserError(f"--task_name={task_name} is unknown; known are {known}")
  return name


def share_models(name: str, other: str) -> bool:
  """Returns whether a model of one task serves the other: own files of any format, or MNLI's."""
  kinds = ["own files" if task in FILE_TASKS else task.split("_")[0] for task in (name, other)]
  return kinds[0] == kinds[1]


@dataclasses.dataclass
class Example:
  """A raw example.

  Attributes:
    text_a: first or only text.
    text_b: second text of a pair.
    label: a class name, a float (regression), or None (test files).
    weight: factor of the example's loss; the loss of a batch is the weighted mean.
  """

  text_a: str
  text_b: str | None = None
  label: str | float | None = None
  weight: float = 1.0


# ---- The task ---------------------------------------------------------------------------------


class ClassificationTask(base.RawDataTask):
  """Classification (or regression, where labels are None) of one text or a pair.

  Example:
    task = ClassificationTask("cola", DATASETS["cola"], "data/glue/CoLA")
    task.featurize(next(task.read_examples("train")), tokenizer, max_seq_length=128)
  """

  job = "classification"

  def __init__(
    self,
    name: str,
    dataset: Dataset,
    data_dir: str = "",
    cls_scope: str | None = None,
    cls_segment_id: int = 0,
    skip_bad_rows: bool = False,
    class_weights: str = "",
  ):
    """Makes the task.

    Args:
      name: the task's canonical name.
      dataset: where and what the data are.
      data_dir: folder of the raw files; may be empty where records are read.
      cls_scope: variable scope of the head; None for the model family's own place.
      cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).
      skip_bad_rows: leave out rows with too few or too many columns instead of raising.
      class_weights: weights of training examples by their labels: "balanced", or
        "LABEL:WEIGHT,..." with 1 for labels that are not named.
    """
    self.name = name
    self.head_name = name  # of the task whose head the model has; MNLI's serves AX
    self.dataset = dataset
    self.data_dir = data_dir
    self.cls_scope = cls_scope
    self.cls_segment_id = cls_segment_id
    self.skip_bad_rows = skip_bad_rows
    self.class_weights = class_weights
    self.is_regression = dataset.labels is None
    self.metrics = dataset.metrics
    self._labels = dataset.labels

  @property
  def labels(self) -> tuple[str, ...]:
    """Class names in the order of their ids, found in the training file where none are given."""
    if self._labels == ():
      names = set()
      for place, parts in self._rows("train"):
        if not parts["label"]:
          raise UserError(f"{place}: the label is empty")
        _check_cell(place, "label", parts["label"])
        names.add(parts["label"])
      spellings = {}
      for name in sorted(names):
        other = spellings.setdefault(_label_value(name), name)
        if other != name:
          raise UserError(
            f"{self.input_files('train')[0]}: the labels {other!r} and {name!r} are "
            f"the same {'text' if other.strip() == name.strip() else 'number'}; "
            f"write all of them in one form"
          )
      self._labels = tuple(
        sorted(names, key=lambda name: (not _is_int(name), _is_int(name) and int(name), name))
      )
      if len(self._labels) < 2:
        raise UserError(
          f"{self.input_files('train')[0]}: found the labels {list(self._labels)}; "
          f"at least two are needed to train a classifier (is --label_col right?)"
        )
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
      raise UserError(
        f"task {self.name} has no {split} data; it has {', '.join(self.dataset.files)}"
      )
    candidates = [
      name if "://" in name else os.path.join(self.data_dir, name)
      for name in self.dataset.files[split]
    ]
    for path in candidates:
      found = [path]
      if path.endswith("/"):
        found = [
          name for label in self.dataset.labels for name in list_texts(os.path.join(path, label))
        ]
      if found and tf.io.gfile.exists(found[0]):
        return found
    raise UserError(
      f"{candidates[0]}: no such file, the {split} data of task {self.name}. " + self._how_to_get()
    )

  def predictions_name(self, split):
    return base.stem(self.dataset.files[split][0]) if self.name in FILE_TASKS else split

  def _how_to_get(self):
    if self.name in FILE_TASKS:
      return (
        "Name your files with --train_file, --eval_file, --predict_file, or put "
        f"train.{self.name}, dev.{self.name}, test.{self.name} into --data_dir"
      )
    if self.dataset.folder.startswith("glue/"):
      return (
        f"Get it with: bash scripts/download_glue.sh {self.dataset.folder[5:]} "
        "or point --data_dir at the folder that holds it"
      )
    return "Point --data_dir at the folder that holds it"

  def source_key(self, split):
    weights = [self.class_weights] if self.class_weights and split == "train" else []
    return [
      dataclasses.astuple(self._columns(split)),
      self.skip_bad_rows,
      self.dataset.language,
      *weights,
    ]

  def _columns(self, split):
    kind = split.split("_")[0]
    columns = self.dataset.split_columns.get(kind, self.dataset.columns)
    return dataclasses.replace(columns, label=None) if kind == "test" else columns

  def _rows(self, split):
    """Yields (place for messages, {name of a part: text}), see readers.read_columns.

    The part "line" is the row's line number; texts that are files of their own do not have it.
    """
    paths = self.input_files(split)
    if self.dataset.files[split][0].endswith("/"):
      for path in paths:
        label = {} if split == "test" else {"label": os.path.basename(os.path.dirname(path))}
        yield path, {"text_a": read_text(path).replace("<br />", " "), **label}
      return
    for number, parts in read_columns(
      paths[0], self._columns(split), self.dataset.file_format, self.skip_bad_rows
    ):
      if parts.get("language", self.dataset.language) != self.dataset.language:
        continue
      if self.dataset.literal_breaks:
        parts["text_a"] = parts["text_a"].replace("\\n", " ").replace('\\"', '"')
      place = f"{paths[0]}: line {number}"
      _check_cell(place, "id", parts.get("id", ""))
      yield place, {"line": str(number), **parts}

  def origins(self, split: str, count: int) -> list[list[str]]:
    """Columns that lead from the first `count` predictions back to an own file, header first.

    They are `line`, the 1-based line number, and `id`, the cell of --id_col. Data sets with files
    of their own have none: their predictions are in the form of the benchmark.
    """
    if self.name not in FILE_TASKS:
      return []
    names = ["line", "id"] if self._columns(split).id is not None else ["line"]
    return [
      names,
      *([parts[name] for name in names] for _, parts in itertools.islice(self._rows(split), count)),
    ]

  def read_examples(self, split):
    weights = self._find_class_weights() if self.class_weights and split == "train" else {}
    largest = None
    for example in self._read_examples(split):
      example.weight *= weights.get(example.label, 1.0)
      largest = max(largest or 0.0, example.weight)
      yield example
    if largest == 0:
      raise UserError(
        f"{self.input_files(split)[0]}: the weight of each example is 0, so there is "
        f"nothing to learn; see --weight_col and --class_weights"
      )

  def _read_examples(self, split):
    for place, parts in self._rows(split):
      label = parts.get("label")
      label = self.dataset.label_aliases.get(label, label)
      if label == "-" and self.dataset.labels == NLI_LABELS:
        continue  # SNLI and MNLI mark pairs so on which the annotators did not agree
      yield Example(
        parts["text_a"],
        parts.get("text_b"),
        self._parse_label(label, place),
        _parse_weight(parts.get("weight", "1"), f"{place}: the weight"),
      )

  def _find_class_weights(self):
    """Label -> weight, as class_weights says."""
    if self.class_weights == "balanced":
      counts = collections.Counter(example.label for example in self._read_examples("train"))
      return {label: counts.total() / (len(counts) * count) for label, count in counts.items()}
    weights = {}
    for entry in self.class_weights.split(","):
      label, colon, weight = entry.strip().rpartition(":")
      if not colon or label not in self.labels or label in weights:
        raise UserError(
          f"--class_weights: {entry!r} is no LABEL:WEIGHT with one of the labels "
          f"{', '.join(map(repr, self.labels))}, each at most once"
        )
      weights[label] = _parse_weight(weight, f"--class_weights: the weight of {label!r}")
    return weights

  def _parse_label(self, label, place):
    if label is None:
      return None
    if self.is_regression:
      value = _parse_number(label)
      if not math.isfinite(value):
        raise UserError(f"{place}: the label {label!r} is not a number")
      return value
    if label not in self.labels:
      raise UserError(
        f"{place}: unknown label {label!r}; the labels are {', '.join(map(repr, self.labels))}"
      )
    return label

  def featurize(self, example, tokenizer, max_seq_length):
    """[CLS] a [SEP], or [CLS] a [SEP] b [SEP]; segment ids 0 for a and its [SEP], 1 for b's.

    Too long a pair loses tokens from the end of whichever text is the longer, one at a time. A
    second text without tokens is none, as in the originals: [CLS] a [SEP].
    """
    tokens_a = tokenizer.convert_text_to_ids(example.text_a)
    tokens_b = tokenizer.convert_text_to_ids(example.text_b or "")
    if tokens_b:
      tokens_a, tokens_b = truncate_pair(tokens_a, tokens_b, max_seq_length - 3)
    else:
      tokens_a = tokens_a[: max_seq_length - 2]
    input_ids = [tokenizer.cls_id, *tokens_a, tokenizer.sep_id]
    segment_ids = [self.cls_segment_id] + [0] * (len(tokens_a) + 1)
    if tokens_b:
      input_ids += [*tokens_b, tokenizer.sep_id]
      segment_ids += [1] * (len(tokens_b) + 1)
    label = 0 if example.label is None else example.label
    if not self.is_regression and example.label is not None:
      label = self.labels.index(label)
    weight = {} if example.weight == 1 else {"weight": example.weight}
    return {
      "input_ids": input_ids,
      "input_mask": [1] * len(input_ids),
      "segment_ids": segment_ids,
      "label_ids": label,
      "is_real_example": 1,
      **weight,
    }

  def model_settings(self):
    labels = {} if self.is_regression else {"label_list": list(self.labels)}
    return {"task_name": self.head_name, **labels}

  def metadata(self):
    values = {"processor_type": self.name.split("_")[0].upper()}  # MNLI for mnli_matched too
    if self.is_regression:
      return {**values, "task_type": "bert_regression", "label_type": "float"}
    return {
      **values,
      "task_type": "bert_classification",
      "num_labels": len(self.labels),
      "label_list": list(self.labels),
    }

  def build(self, encoder, features):
    num_outputs = 1 if self.is_regression else len(self.labels)
    logits = encoder.classification_logits(num_outputs, self.cls_scope, self.head_name)
    labels, weights = features["label_ids"], self.loss_weights(features)["loss"]
    if self.is_regression:
      values = logits[:, 0]
      return base.TaskOutput({"loss": weights * tf.square(values - labels)}, {"prediction": values})
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return base.TaskOutput(
      {"loss": weights * losses}, {"probabilities": tf.nn.softmax(logits), "logits": logits}
    )

  def prediction_rows(
    self, predictions: dict[str, np.ndarray], origins: Sequence[list[str]] = ()
  ) -> Iterator[list[str]]:
    """Rows of a prediction file, header first: index, prediction, probability of each label.

    Args:
      predictions: name -> [num_examples, ...].
      origins: further columns, header first, from `origins`.
    """
    rows = self._prediction_rows(predictions)
    return (row + origin for row, origin in zip(rows, origins, strict=True)) if origins else rows

  def _prediction_rows(self, predictions):
    if self.is_regression:
      yield ["index", "prediction"]
      for index, value in enumerate(predictions["prediction"]):
        yield [str(index), f"{value:.4f}"]
      return
    yield ["index", "prediction", *(f"probability_{label}" for label in self.labels)]
    for index, row in enumerate(predictions["probabilities"]):
      yield [str(index), self.labels[np.argmax(row)], *(f"{p:.4f}" for p in row)]

  def test_result_rows(self, predictions: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Rows of BERT's test_results.tsv, without a header: the probabilities (or the number)."""
    values = predictions["prediction" if self.is_regression else "probabilities"]
    return ([str(value) for value in np.atleast_1d(row)] for row in values)

  def submission_rows(self, predictions: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Rows of GLUE's submission file, header first: index and prediction."""
    yield ["index", "prediction"]
    rows = self.prediction_rows(predictions)
    next(rows)
    for index, value, *_ in rows:
      # STS-B's scale ends at 0 and 5.
      yield [index, f"{min(max(float(value), 0), 5):.3f}" if self.is_regression else value]

  def score(self, split, predictions):
    guesses = (
      predictions["prediction"]
      if self.is_regression
      else np.argmax(predictions["probabilities"], axis=-1)
    )
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


def make_task(
  settings, raw_data, cls_scope: str = "", cls_segment_id: int = 0
) -> ClassificationTask:
  """The task of --task_name and its companions.

  Args:
    settings: config.Classification, or anything with its fields.
    raw_data: config.RawData, or anything with its fields.
    cls_scope: variable scope of the head; empty for the model family's own place.
    cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).
  """
  name = canonical_name(settings.task_name)
  dataset = dataset_of(name, settings)
  if settings.class_weights and dataset.labels is None:
    raise UserError(
      f"--class_weights: task {name} is a regression, which has no classes; "
      f"--weight_col weights examples"
    )
  data_dir = raw_data.data_dir or os.path.join(raw_data.data_root, dataset.folder)
  return ClassificationTask(
    name,
    dataset,
    data_dir,
    cls_scope or None,
    cls_segment_id,
    raw_data.skip_bad_rows,
    settings.class_weights,
  )


def _parse_weight(text, name):
  """A weight as a number; `name` begins the message if it is none."""
  weight = _parse_number(text)
  if not (math.isfinite(weight) and weight >= 0):
    raise UserError(f"{name} is {text!r}; it must be a number from 0 on")
  return weight


def _check_cell(place, name, text):
  """Raises UserError if a text cannot be a cell of the predictions, which have no quotes."""
  if re.search(r"[\t\r\n]", text):
    raise UserError(
      f"{place}: the {name} {text!r} has a tab or a line break in it, which the file "
      f"of predictions cannot hold"
    )


def _label_value(name):
  """Value that two spellings of a label share: 1 for "1", " 1", "01" and "1.0"."""
  text = name.strip()
  if _is_int(text):
    return int(text)  # exact, unlike a float
  number = _parse_number(text)
  return number if math.isfinite(number) else text


def _parse_number(text):
  """Number of a text; nan for any other text, "1_0" included."""
  try:
    return math.nan if "_" in text else float(text)
  except ValueError:
    return math.nan


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
