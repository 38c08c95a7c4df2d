"""Data sets of classification and regression: GLUE, SNLI, reviews, topics, your own files.

Each set is a row of DATASETS: its files and columns, its labels in the order of their ids, and its
official metrics.
"""

import dataclasses
import os

from errors import UserError
from tasks import tfds_source
from tasks.readers import Columns
from tasks.settings import Classification
from tasks.tfds_source import TfdsSource

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
    tfds: source of the rows if they are not in text files; `files` are then names of its splits.
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
  tfds: TfdsSource | None = None


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
FILE_TASKS = ("tsv", "csv", "jsonl", "tfds")  # a user's own data

# Name in TensorFlow Datasets -> task of DATASETS, its columns there. Labels have other names there,
# in the order of DATASETS; those of NLI have the same names in another order.
TFDS_TASKS = {
  "glue/cola": ("cola", Columns("sentence", None, "label")),
  "glue/sst2": ("sst-2", Columns("sentence", None, "label")),
  "glue/mrpc": ("mrpc", Columns("sentence1", "sentence2", "label")),
  "glue/stsb": ("sts-b", Columns("sentence1", "sentence2", "label")),
  "glue/qqp": ("qqp", Columns("question1", "question2", "label")),
  "glue/mnli": ("mnli", Columns("premise", "hypothesis", "label")),
  "glue/qnli": ("qnli", Columns("question", "sentence", "label")),
  "glue/rte": ("rte", Columns("sentence1", "sentence2", "label")),
  "glue/wnli": ("wnli", Columns("sentence1", "sentence2", "label")),
  "glue/ax": ("ax", Columns("premise", "hypothesis")),
  "snli": ("snli", Columns("premise", "hypothesis", "label")),
  "imdb_reviews": ("imdb", Columns("text", None, "label")),
  "ag_news_subset": ("ag", Columns(("title", "description"), None, "label")),
  "yelp_polarity_reviews": ("yelp2", Columns("text", None, "label")),
}


def dataset_of(name: str, settings: Classification, data_dir: str = "") -> Dataset:
  """Returns the data set of a canonical task name; `settings` describe a user's own data.

  Args:
    name: key of DATASETS, or one of FILE_TASKS.
    settings: own files, their columns, and the language; or tfds_params.
    data_dir: folder of TensorFlow Datasets; empty for its default.
  """
  if settings.tfds_params:
    return _tfds_set(name, tfds_source.parse(settings.tfds_params), data_dir)
  if name == "tfds":
    raise UserError("--task_name=tfds needs --tfds_params=dataset=NAME")
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


def _tfds_set(name, params, data_dir):
  """A data set of TensorFlow Datasets; it has labels and metrics of the task if that is known."""
  source = TfdsSource(params, data_dir)
  _, columns = TFDS_TASKS.get(_base_name(params), ("", Columns("text", None, "label")))
  columns = dataclasses.replace(
    columns,
    text_a=params.text_key or columns.text_a,
    text_b=params.text_b_key or (None if params.text_key else columns.text_b),
    label=params.label_key or columns.label,
  )
  split_columns = {
    "train": dataclasses.replace(columns, weight=params.weight_key or None),
    "test": dataclasses.replace(
      columns,
      text_a=params.test_text_key or columns.text_a,
      text_b=params.test_text_b_key or columns.text_b,
    ),
  }
  common = dict(
    columns=columns, split_columns=split_columns, file_format="", literal_breaks=False, tfds=source
  )
  if name in DATASETS:
    known = DATASETS[name]
    names = source.label_names(columns.label) if known.labels and columns.label else ()
    if names and len(names) != len(known.labels):
      raise UserError(
        f"--tfds_params: {source.description} has {len(names)} labels, task {name} has "
        f"{len(known.labels)}; leave --task_name out"
      )
    is_renamed = set(names) != set(known.labels or ())
    return dataclasses.replace(
      known,
      folder="",
      files=_tfds_splits(params, source, list(known.files)),
      label_aliases=dict(zip(names, known.labels or (), strict=False)) if is_renamed else {},
      **common,
    )
  is_regression = params.is_regression.lower() == "true" or params.label_type == "float"
  return Dataset(
    folder="",
    files=_tfds_splits(params, source, ["train", "dev", "test"]),
    labels=None if is_regression else source.label_names(columns.label),
    metrics=("pearson", "spearman") if is_regression else ("accuracy", "macro_f1"),
    **common,
  )


def _tfds_splits(params, source, names):
  """Split here -> (split there,). "dev_matched" is validation_matched, without that validation.

  --tfds_params may name another split, which replaces all of that kind.
  """
  found = {}
  for name in names:
    kind, _, part = name.partition("_")
    if getattr(params, f"{kind}_split"):
      continue
    usual = "validation" if kind == "dev" else kind
    for candidate in (f"{usual}_{part}", usual) if part else (usual,):
      if source.may_have(candidate):
        found[name] = (candidate,)
        break
  for kind in ("train", "dev", "test"):
    if given := getattr(params, f"{kind}_split"):
      parts = (name.partition("_") for name in names)
      part = [part for same, _, part in parts if same == kind and given.endswith(f"_{part}")]
      found[f"{kind}_{part[0]}" if part else kind] = (given,)
  return found


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


def task_name_of(settings: Classification) -> str:
  """Canonical name of the task that is set, or of the data of --tfds_params; "" without both."""
  if settings.tfds_params and not settings.task_name:
    return TFDS_TASKS.get(_base_name(tfds_source.parse(settings.tfds_params)), ("tfds",))[0]
  return canonical_name(settings.task_name) if settings.task_name else ""


def _base_name(params):
  """Name in TensorFlow Datasets without version: "glue/mnli:2.0.0" -> "glue/mnli"."""
  return params.dataset.split(":")[0]


def how_to_get(name: str, dataset: Dataset) -> str:
  """Advice for a user whose data are missing."""
  if name in FILE_TASKS:
    return (
      "Name your files with --train_file, --eval_file, --predict_file, or put "
      f"train.{name}, dev.{name}, test.{name} into --data_dir"
    )
  if dataset.folder.startswith("glue/"):
    return (
      f"Get it with: bash scripts/download_glue.sh {dataset.folder[5:]} "
      "or point --data_dir at the folder that holds it"
    )
  return "Point --data_dir at the folder that holds it"


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
