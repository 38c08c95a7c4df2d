"""Evaluated examples of a run for its report: confusions, scores by kind and length, mistakes."""

import bisect
import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sklearn import metrics

import config
from errors import UserError
from tasks import registry
from tasks.race_data import option_name
from training import params
from utils import files

MAX_MISTAKES = 20
MAX_LABELS = 20  # of a confusion matrix; more do not fit on a page
_SHAPES = {  # of a line of eval_predictions.jsonl: those of SQuAD, and of the other jobs
  True: {
    **{"step": int, "split": str, "id": str, "prediction": str, "labels": [str]},
    **{"exact_match": float | int, "f1": float | int, "probability": float | None},
  },
  False: {
    **{"step": int, "split": str, "index": int},
    **{"label": str | float | int, "prediction": str | float | int},
  },
}
_ANSWER_WORDS, _PASSAGE_WORDS = (1, 2, 4, 8), (100, 150, 200)  # last length of each row but one


@dataclasses.dataclass
class Table:
  """A table: heading, names of the columns, and rows of text; `note` is a line below it."""

  title: str
  columns: Sequence[str]
  rows: list[Sequence[str]]
  note: str = ""


@dataclasses.dataclass
class Matrix:
  """A confusion matrix: counts[i][j] examples of label i were predicted as label j."""

  title: str
  labels: list[str]
  counts: list[list[int]]


@dataclasses.dataclass
class Mistake:
  """A wrong prediction; `texts` are (name, text) of the example, empty if they are not known."""

  label: str
  prediction: str
  remark: str
  texts: list[tuple[str, str]]


@dataclasses.dataclass
class Source:
  """Raw data of an example: label as in eval_predictions.jsonl, texts, kind of question."""

  label: Any
  texts: list[tuple[str, str]]
  kind: str = ""


@dataclasses.dataclass
class Examples:
  """The page's part about the evaluated examples; `mistakes` are the worst of `num_mistakes`."""

  num_examples: int = 0
  num_mistakes: int = 0
  matrices: list[Matrix] = dataclasses.field(default_factory=list)
  tables: list[Table] = dataclasses.field(default_factory=list)
  mistakes: list[Mistake] = dataclasses.field(default_factory=list)


def read(path: str, job: str) -> list[dict[str, Any]]:
  """Returns the lines of eval_predictions.jsonl; UserError if one is damaged."""
  return files.read_json_lines(path, _SHAPES[job == "squad"])


def _key(row):
  return row["split"], row.get("id", row.get("index"))


def sources(
  stored: dict[str, Any], entries: Sequence[params.Entry], model_dir: str, rows: list[dict]
) -> dict[tuple, Source]:
  """Reads the evaluated examples from the raw data; returns (split, index or id) -> source.

  Args:
    stored: settings of the model, see model_folder.read_settings.
    entries: settings of the run, from params.yaml.
    model_dir: the run's folder.
    rows: lines of eval_predictions.jsonl.

  Raises:
    UserError: the data are not there, or are others than those that were evaluated.
  """
  experiment = config.Experiment(task=registry.find(stored.get("job", "")).settings())
  params.apply(experiment, entries)
  task = registry.find(experiment.job).task_class().from_experiment(experiment, "bert")
  task.take_model_settings(stored, model_dir, {})
  splits = list(dict.fromkeys(row["split"] for row in rows))
  found = {
    (split, key): source
    for split in splits
    for key, source in _sources(task, task.read_examples(split))
  }
  for row in rows:
    source = found.get(_key(row))
    if source is None or not _is_equal(source.label, row.get("labels", row.get("label"))):
      raise UserError(
        f"{task.input_files(row['split'])[0]}: not the examples that were evaluated, so the page "
        f"has no texts; evaluate again with the settings of training"
      )
  return found


def _sources(task, examples):
  """Yields (index or id, source) of raw examples."""
  for index, example in enumerate(examples):
    if task.job == "squad":
      for question in example.questions:
        texts = [("question", question.text), ("passage", example.context)]
        yield question.id, Source(question.answers, texts)
    elif task.job == "race":
      options = [f"{option_name(number)}. {text}" for number, text in enumerate(example.options)]
      texts = [("question", example.question), *(("option", text) for text in options)]
      kind = "fill in the blank" if "_" in example.question else "question"
      if task.name == "race":
        kind += ", high school" if example.is_high else ", middle school"
      label = None if example.answer is None else option_name(example.answer)
      yield index, Source(label, [*texts, ("passage", example.passage)], kind)
    else:
      texts = [("text", example.text_a)]
      texts += [("second text", example.text_b)] if example.text_b else []
      yield index, Source(example.label, texts)


def _is_equal(one, other):
  if isinstance(one, float) and isinstance(other, int | float):
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)  # records hold float32
  return one == other


def analyze(
  job: str, rows: list[dict[str, Any]], found: dict[tuple, Source], labels: Sequence[str]
) -> Examples:
  """Returns what is shown of the examples.

  Args:
    job: name of the job.
    rows: lines of eval_predictions.jsonl; at least one.
    found: result of `sources`; empty if the raw data are not there.
    labels: order of the labels in confusion matrices; others follow.
  """
  if job == "squad":
    result = Examples(tables=_answer_tables(rows, found))
    wrong = [row for row in rows if not row["exact_match"]]
    rank = lambda row: (row["f1"], -(row["probability"] or 0))
    remark = lambda row: f"F1 {row['f1']:.2f}{_percent(row)}"
  elif isinstance(rows[0]["label"], str):
    result = Examples(matrices=_matrices(rows, labels), tables=_kind_tables(rows, found))
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    rank = lambda row: -(row.get("probability") or 0)
    remark = lambda row: _percent(row).lstrip(", ")
  else:
    result, wrong = Examples(), [row for row in rows if row["label"] != row["prediction"]]
    rank = lambda row: -abs(row["label"] - row["prediction"])
    remark = lambda row: f"difference {row['prediction'] - row['label']:+.3f}"
  result.num_examples, result.num_mistakes = len(rows), len(wrong)
  result.mistakes = [
    Mistake(
      _text(row.get("labels", row.get("label"))),
      _text(row["prediction"]),
      remark(row),
      found[_key(row)].texts if found else [],
    )
    for row in sorted(wrong, key=rank)[:MAX_MISTAKES]
  ]
  return result


def _percent(row):
  value = row.get("probability")
  return "" if value is None else f", probability {value:.1%}"


def _text(value):
  """Text of a label, of a number, or of several gold answers."""
  if isinstance(value, list):
    return " / ".join(dict.fromkeys(value)) or "(no answer)"
  return f"{value:.3f}" if isinstance(value, float) else str(value) or "(no answer)"


def _matrices(rows, labels):
  """Confusion matrix of each split, unless there are too many labels."""
  names = list(dict.fromkeys([*labels, *sorted({str(row["label"]) for row in rows})]))
  names += sorted({str(row["prediction"]) for row in rows} - set(names))
  if len(names) > MAX_LABELS:
    return []
  matrices = []
  for split, group in _groups(rows, lambda row: row["split"]).items():
    golds, guesses = ([row[key] for row in group] for key in ("label", "prediction"))
    counts = metrics.confusion_matrix(golds, guesses, labels=names).tolist()
    matrices.append(Matrix(f"Confusion matrix, {split}", names, counts))
  return matrices


def _kind_tables(rows, found):
  """Most frequent confusions, and the accuracy of each kind of question."""
  pairs = collections.Counter(
    (row["label"], row["prediction"]) for row in rows if row["label"] != row["prediction"]
  )
  tables = []
  if pairs:
    common = [(*pair, f"{count:,}") for pair, count in pairs.most_common(10)]
    tables.append(Table("Most frequent confusions", ("label", "prediction", "examples"), common))
  kinds = _groups(rows, lambda row: found[_key(row)].kind) if found else {}
  if any(kinds):
    right = lambda group: sum(row["label"] == row["prediction"] for row in group) / len(group)
    values = [
      (kind, f"{len(kinds[kind]):,}", f"{right(kinds[kind]):.4f}") for kind in sorted(kinds)
    ]
    tables.append(Table("Accuracy by kind of question", ("kind", "questions", "accuracy"), values))
  return tables


def _answer_tables(rows, found):
  """EM and F1, in percent, by the length of the answer and of the passage."""
  shortest = lambda row: min((len(text.split()) for text in row["labels"]), default=0)
  tables = [_by_length("Scores by length of the answer", rows, shortest, _ANSWER_WORDS)]
  if found:
    words = lambda row: len(dict(found[_key(row)].texts)["passage"].split())
    tables.append(_by_length("Scores by length of the passage", rows, words, _PASSAGE_WORDS))
  return tables


def _by_length(title, rows, length, ends):
  ranges = [
    f"{low:,}" if low == high else f"{low:,} to {high:,}"
    for low, high in zip([1, *(end + 1 for end in ends)], ends, strict=False)
  ]
  names = ["no answer", *ranges, f"{ends[-1] + 1:,} or more"]
  groups = _groups(
    rows, lambda row: bisect.bisect_left(ends, length(row)) + 1 if length(row) else 0
  )
  mean = lambda group, key: f"{100 * sum(row[key] for row in group) / len(group):.2f}"
  values = [
    (names[number], f"{len(group):,}", mean(group, "exact_match"), mean(group, "f1"))
    for number, group in sorted(groups.items())
  ]
  return Table(title, ("words", "questions", "exact match", "F1"), values)


def _groups(rows: Iterable[dict], key: Callable[[dict], Any]) -> dict[Any, list[dict]]:
  groups = collections.defaultdict(list)
  for row in rows:
    groups[key(row)].append(row)
  return dict(groups)
