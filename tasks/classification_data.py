"""Data sets of classification and regression: GLUE, SNLI, reviews, topics, your own files.

Each set is a row of DATASETS: its files and columns, its labels in the order of their ids, and its
official metrics.
"""

import dataclasses
import os

from errors import UserError
from tasks.readers import Columns
from tasks.settings import Classification

NLI_LABELS = ("contradiction", "entailment", "neutral")  # BERT's order, so that its heads load
ENTAILMENT_LABELS = ("entailment", "not_entailment")
BINARY_LABELS = ("0", "1")


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set.

  Attributes:
    folder: folder below --data_root.
    columns: columns of the labelled files.
    files: split -> file names, of which the first that exists is read; a name that ends in "/" is a
      folder with a sub-folder for each label, whose files hold one text each.
    labels: class names in the order of their ids; None for regression; () to find them in the
      training file.
    metrics: official metrics, whose mean is the score.
    split_columns: "train", "dev" or "test" -> columns of those files, if they differ; labels of
      test files are never read.
    submission: split -> file name of the GLUE submission.
    file_format: "jsonl" or a format of readers.read_rows, whatever the names of the files.
    languages: choices of --language; file names hold {language}. () for a single language.
    language: the chosen language.
    label_aliases: other spelling of a label in the files -> label.
    literal_breaks: the files write a line break as backslash and n, a quote as backslash and quote.
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
  "xnli": Dataset(  # the folders of its two archives, or the single folder of BERT's README
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


def dataset_of(name: str, settings: Classification) -> Dataset:
  """Returns the data set of a canonical task name; `settings` describe a user's own files.

  Args:
    name: key of DATASETS, or one of FILE_TASKS.
    settings: own files, their columns, and the language.
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
  return int(text) if text.isdecimal() and len(text) < 10 else text or None


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
