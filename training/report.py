"""Collects what a run's folder holds, for a page: settings, curves, scores, mistakes, speed."""

import collections
import dataclasses
import math
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from errors import UserError
from training import charts, evaluator, hooks, model_folder, params, report_examples
from training.report_examples import Examples, Table
from utils import files

_SPEEDS = {  # value of metrics.jsonl -> its name on the page, and digits behind the point
  "examples_per_second": ("examples/s", 1),
  "tokens_per_second": ("tokens/s", 0),
  "milliseconds_per_step": ("ms per update", 1),
  "utilization": ("share of the device's peak", 4),
}
_NOT_DRAWN = re.compile(r"milliseconds_per_step|tokens_per_.*|utilization|.*thresh(old)?")
_FIRST = ("loss", "score", "learning_rate")  # charts at the top; the others are sorted by name


@dataclasses.dataclass
class Report:
  """Everything on the page; `missing` are sentences about what is not in the folder."""

  title: str
  summary: list[tuple[str, str]] = dataclasses.field(default_factory=list)
  missing: list[str] = dataclasses.field(default_factory=list)
  scores: Table | None = None
  curves: list[charts.Chart] = dataclasses.field(default_factory=list)
  speeds: Table | None = None
  trials: Table | None = None
  examples: Examples = dataclasses.field(default_factory=Examples)
  settings: list[Sequence[str]] = dataclasses.field(default_factory=list)  # key, value, layer


def collect(model_dir: str) -> Report:
  """Reads a run's folder; what is damaged or not there is listed in Report.missing.

  Raises:
    UserError: there is no such folder, or it is not a run's.
  """
  if not tf.io.gfile.isdir(model_dir):
    raise UserError(f"{model_dir}: no such folder; name the --model_dir of a run")
  names = ("params.yaml", "metrics.jsonl", "eval_results.json", "trials.json")
  if not any(files.exists(os.path.join(model_dir, name)) for name in names):
    raise UserError(
      f"{model_dir}: this is no folder of a run: it has none of {', '.join(names)}; name the "
      f"--model_dir of a run"
    )
  report = Report(os.path.basename(os.path.abspath(model_dir).rstrip("/")) or model_dir)
  stored = _try(report, {}, lambda: model_folder.read_settings(model_dir))
  entries = _read(report, model_dir, "params.yaml", "settings", params.read_file, [])
  results = _read(report, model_dir, "eval_results.json", "scores", files.read_json, {})
  best = _try(report, {}, lambda: _read_optional(os.path.join(model_dir, "best", "info.json")))
  trials = _try(report, {}, lambda: _read_optional(os.path.join(model_dir, "trials.json")))
  report.settings = _settings(model_dir, entries) or [
    (name, str(value), "model_settings.json") for name, value in stored.items()
  ]
  _add_scores(report, results, best)
  _add_trials(report, trials)
  _add_curves(report, model_dir)
  _add_examples(report, model_dir, stored, entries, results)
  task = stored.get("task_name") or stored.get("job", "")
  report.summary.insert(0, ("task", str(task)))
  report.summary = [(name, value) for name, value in report.summary if value]
  return report


def _try(report: Report, default: Any, read: Callable[[], Any]) -> Any:
  """Result of `read`; after a UserError its message is `missing`, and the default is returned."""
  try:
    return read()
  except UserError as error:
    report.missing.append(str(error))
  except (OSError, tf.errors.OpError) as error:
    report.missing.append(f"{getattr(error, 'filename', None) or ''} {files.reason(error)}".strip())
  return default


def _read(report, model_dir, name, contents, read, default):
  """Like `_try`, for a file that every run has."""
  path = os.path.join(model_dir, name)
  if not files.exists(path):
    report.missing.append(f"{name} is not in the folder, so the page has no {contents}.")
    return default
  return _try(report, default, lambda: read(path))


def _read_optional(path):
  return files.read_json(path) if files.exists(path) else {}


def _settings(model_dir, entries):
  """Rows of key, value, layer; params.yaml has the layer in a comment at the end of the line."""
  if not entries:
    return []
  with files.open_file(os.path.join(model_dir, "params.yaml"), "r") as reader:
    lines = reader.read().splitlines()
  rows = []
  for key, value, place in entries:
    line = lines[int(place.rpartition(" ")[2]) - 1]
    rows.append((key, str(value), line.rpartition("  # ")[2] if "  # " in line else ""))
  return rows


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
  """The finite numbers among JSON values."""
  return {
    name: value
    for name, value in values.items()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
  }


def number(value: float) -> str:
  """Text of a score, with four digits behind the point."""
  return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _add_scores(report, results, best):
  last, chosen = _numbers(results), _numbers(best)
  names = [name for name in {**last, **chosen} if name not in ("step", "best_step", "best_value")]
  columns, rows = ["metric"], [[name] for name in names]
  for title, values in (("last evaluation", last), ("best checkpoint", chosen)):
    if values:
      columns.append(f"{title}, step {values['step']:,.0f}" if "step" in values else title)
      for row, name in zip(rows, names, strict=True):
        row.append(number(values[name]) if name in values else "")
  if names:
    report.scores = Table("Scores", columns, rows)
  if "best_value" in last:
    metric = str(results.get("best_metric", "score"))
    report.summary.append((f"best {metric}", number(last["best_value"])))
    report.summary.append(("at step", f"{last.get('best_step', 0):,.0f}"))


def _add_trials(report, trials):
  rows = []
  for name, values in sorted(trials.items()):
    values = _numbers(values) if isinstance(values, dict) else {}
    if "mean" in values:
      deviation = number(values["std"]) if "std" in values else ""
      rows.append((name, number(values["mean"]), deviation))
  if rows:
    note = "Each trial has its own page: name its folder, for example trial_0."
    report.trials = Table("Trials", ("metric", "mean", "standard deviation"), rows, note)


def _add_curves(report, model_dir):
  path = os.path.join(model_dir, "metrics.jsonl")
  if not files.exists(path):
    report.missing.append("metrics.jsonl is not in the folder, so the page has no curves.")
    return
  series = collections.defaultdict(lambda: {"training": {}, "evaluation": {}})
  for kind, name in (("train", "training"), ("eval", "evaluation")):
    lines = _try(report, {}, lambda kind=kind: hooks.MetricsLog(model_dir).read(kind))
    for step, values in lines.items():
      for key, value in _numbers(values).items():
        series[key][name][step] = value
  if not series:
    report.missing.append("metrics.jsonl has no lines of training or evaluation: no curves.")
  order = sorted(series, key=lambda key: (*(key != name for name in _FIRST), key))
  report.curves = [
    charts.line_chart(key, series[key])
    for key in order
    if not _NOT_DRAWN.fullmatch(key)
    and len({*series[key]["training"], *series[key]["evaluation"]}) > 1
  ]
  rows = [
    (text, *(f"{value:,.{digits}f}" for value in (statistics.median(values), max(values))))
    for key, (text, digits) in _SPEEDS.items()
    if (values := list(series[key]["training"].values()))
  ]
  if rows:
    report.speeds = Table("Throughput of training", ("", "median", "largest"), rows)
  steps = series["loss"]["training"]
  report.summary.append(("updates", f"{max(steps):,}" if steps else ""))


def _add_examples(report, model_dir, stored, entries, results):
  job, path = stored.get("job", ""), os.path.join(model_dir, evaluator.EXAMPLES_NAME)
  if not files.exists(path):
    if results and job not in ("pretraining", "tagging"):
      report.missing.append(
        f"{evaluator.EXAMPLES_NAME} is not in the folder, so the page has no mistakes. The same "
        f"command with --do_eval writes it."
      )
    return
  rows = _try(report, [], lambda: report_examples.read(path, job))
  if not rows:
    return
  if rows[0]["step"] != results.get("step", rows[0]["step"]):
    report.missing.append(f"{evaluator.EXAMPLES_NAME} is of another step, {rows[0]['step']:,}.")
  sources = _try(report, {}, lambda: report_examples.sources(stored, entries, model_dir, rows))
  report.examples = report_examples.analyze(job, rows, sources, stored.get("label_list") or ())
