"""Official metrics of the tasks, computed on the host over all examples at once.

Every metric is a fraction (0.84, not 84).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
  """Fraction of equal class ids."""
  return sklearn_metrics.accuracy_score(labels, predictions)


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
  """F1 of class 1 (GLUE's MRPC and QQP); 0 if it is undefined."""
  return sklearn_metrics.f1_score(labels, predictions, pos_label=1, zero_division=0)


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
  """Unweighted mean of the F1 of all classes."""
  return sklearn_metrics.f1_score(labels, predictions, average="macro", zero_division=0)


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
  """Matthews correlation (CoLA); 0 if all predictions are equal."""
  return sklearn_metrics.matthews_corrcoef(labels, predictions)


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
  """Pearson correlation; 0 if either side is constant, where it is undefined."""
  return _correlation(stats.pearsonr, labels, predictions)


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
  """Spearman rank correlation; 0 if either side is constant, where it is undefined."""
  return _correlation(stats.spearmanr, labels, predictions)


def _correlation(function, labels, predictions):
  if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
    return 0.0
  return function(labels, predictions)[0]


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
  function.__name__: function for function in (accuracy, f1, macro_f1, matthews, pearson, spearman)
}


def compute(names: Sequence[str], labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
  """Metric name -> value over all examples."""
  return {name: float(METRICS[name](labels, predictions)) for name in names}


def examples(
  names: Sequence[str] | None, predictions: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
  """Returns Task.evaluated of a choice among names, or of a regression.

  Args:
    names: name of each class; None for a regression.
    predictions: label_ids [N], and probabilities [N, len(names)] or prediction [N].
  """
  labels = predictions["label_ids"].tolist()
  if names is None:
    pairs = zip(labels, predictions["prediction"].tolist(), strict=True)
    return [
      {"index": index, "label": label, "prediction": value}
      for index, (label, value) in enumerate(pairs)
    ]
  return [
    {
      "index": index,
      "label": names[label],
      "prediction": names[np.argmax(row)],
      "probability": round(float(np.max(row)), 4),
    }
    for index, (label, row) in enumerate(zip(labels, predictions["probabilities"], strict=True))
  ]


def format_metrics(metrics: dict[str, float]) -> str:
  """Metrics on one line, four digits each."""
  return ", ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
