"""Published scores, and the scores of finished runs, in percent.

Sources of the published ones: Dai et al. 2020 (figures of the Funnel-Transformer repository, read
off, so within 0.2); the tables of the BERT and ELECTRA repositories.
"""

import glob
import os
import statistics

from errors import UserError
from utils import files

# GLUE's tasks in the order of the tables -> metric of the average, as in ELECTRA's table.
GLUE = {
  "CoLA": "matthews",
  "SST-2": "accuracy",
  "MRPC": "accuracy",
  "STS-B": "spearman",
  "QQP": "accuracy",
  "MNLI": "accuracy_matched",
  "QNLI": "accuracy",
  "RTE": "accuracy",
}

# Dev scores in the order of GLUE: medians of many seeds.
ELECTRA = {
  "ELECTRA-Large": (69.1, 96.9, 90.8, 92.6, 92.4, 90.9, 95.0, 88.0),
  "ELECTRA-Base": (67.7, 95.1, 89.5, 91.2, 91.5, 88.8, 93.2, 82.7),
  "ELECTRA-Small": (57.0, 91.2, 88.0, 87.5, 89.0, 81.3, 88.4, 66.7),
  "ELECTRA-Small-OWT": (56.8, 88.3, 87.4, 86.8, 88.3, 78.9, 87.9, 68.5),
}
ELECTRA_SQUAD = {  # EM on the dev data of v1.1 and v2.0
  "ELECTRA-Large": (89.7, 88.1),
  "ELECTRA-Base": (86.8, 80.5),
  "ELECTRA-Small": (75.8, 70.1),
}
ELECTRA_CHUNKING = {"ELECTRA-Large": 97.2, "ELECTRA-Base": 97.1, "ELECTRA-Small": 96.5}

# GLUE's dev average after pretraining with masked tokens on Wikipedia and BookCorpus, and the
# pretraining time relative to L12H768.
FUNNEL_MLM = {
  "L12H768": (84.4, 1.0),
  "B4-4-4H768": (84.0, 0.67),
  "B6-3x2-3x2H768": (84.8, 0.93),
  "B6-6-6H768": (85.4, 0.99),
  "L24H1024": (86.6, 3.56),
  "B8-8-8H1024": (86.7, 2.5),
  "B10-10-10H1024": (87.0, 3.1),
}
# The released models (ELECTRA, more text): GLUE's dev average, RACE accuracy, SQuAD v2.0 dev F1.
FUNNEL_ELECTRA = {
  "B4-4-4H768": (87.0, 76.2, 85.5),
  "B6-3x2-3x2H768": (87.8, 78.8, 87.0),
  "B6-6-6H768": (88.3, 79.7, 87.7),
  "B8-8-8H1024": (89.7, 85.2, 89.8),
  "B10-10-10H1024": (90.0, 85.7, 90.4),
}
BERT_MRPC = 84.6  # dev accuracy of BERT-base
BERT_SQUAD = {"BERT-base": (88.4, 81.2), "BERT-large": (90.9, 84.4)}  # v1.1 dev F1, EM


def read_metrics(folder: str, is_last: bool = False) -> dict[str, float]:
  """Returns metric -> value of a run's best checkpoint, or of the last evaluated one.

  Raises:
    UserError: the folder has no eval_results.json.
  """
  best = os.path.join(folder, "best", "info.json")
  last = os.path.join(folder, "eval_results.json")
  if not files.exists(last):
    raise UserError(f"{last}: no such file. Evaluate the run with --do_eval")
  return files.read_json(last if is_last or not files.exists(best) else best)


def _glob(pattern):
  if files.is_remote(pattern):
    import tensorflow as tf

    return tf.io.gfile.glob(pattern)
  return glob.glob(pattern)


def glue_runs(folder: str, is_last: bool = False) -> dict[str, dict[str, float]]:
  """Returns task -> seed -> score in percent of the runs below the folder of scripts/glue.sh.

  The runs are in FOLDER/seed_N/TASK. Tasks without runs are left out.

  Raises:
    UserError: there is no run, or a run lacks the task's metric.
  """
  names = {task.lower(): task for task in GLUE}
  found: dict[str, dict[str, float]] = {}
  pattern = os.path.join(glob.escape(folder), "seed_*", "*", "eval_results.json")
  for path in sorted(_glob(pattern)):
    run = os.path.dirname(path)
    task = names.get(os.path.basename(run).lower())
    if task is None:
      continue
    metrics = read_metrics(run, is_last)
    if GLUE[task] not in metrics:
      raise UserError(f"{run}: no {GLUE[task]} among the metrics of {task}")
    seed = os.path.basename(os.path.dirname(run)).removeprefix("seed_")
    found.setdefault(task, {})[seed] = 100 * metrics[GLUE[task]]
  if not found:
    raise UserError(f"{folder}: no runs. Run scripts/glue.sh, or name another folder")
  return {task: found[task] for task in GLUE if task in found}


def glue_average(runs: dict[str, dict[str, float]]) -> list[float]:
  """Returns the average over the tasks for every seed that all of them have."""
  seeds = set.intersection(*(set(scores) for scores in runs.values()))
  return [statistics.mean(scores[seed] for scores in runs.values()) for seed in sorted(seeds)]


def spread(values: list[float]) -> float:
  """Sample standard deviation; 0 for a single value."""
  return statistics.stdev(values) if len(values) > 1 else 0.0
