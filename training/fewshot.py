"""Few-shot evaluation: a linear probe on the frozen encoder (--do_fewshot).

The method is Scenic's BERT baseline's. The features of a text are the pooler's output, without
dropout. For k shots, the first k training rows of each class are standardized (mean and standard
deviation + 1e-5 of these rows), a constant feature of 100 is appended, and ridge regression on
targets of -1 and 1 is solved in closed form for each l2 = 2^i, -10 <= i < 20. Accuracy is that of
the largest output, on all evaluation rows. One l2 is chosen for each k: the one with the best mean
rank over all evaluation sets.
"""

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from errors import UserError
from training import checkpoints, model_folder
from utils import files

log = logging.getLogger(__name__)

L2 = tuple(2.0**exponent for exponent in range(-10, 20))
BIAS = 100.0  # large, so that the bias is almost unregularized
EPSILON = 1e-5


def first_rows(labels: np.ndarray, shots: int, num_classes: int) -> np.ndarray:
  """Indices of the first `shots` rows of each class; all rows of a class that has fewer."""
  return np.concatenate([np.flatnonzero(labels == label)[:shots] for label in range(num_classes)])


def probe(
  train_x: np.ndarray, train_y: np.ndarray, eval_x: np.ndarray, eval_y: np.ndarray, num_classes: int
) -> np.ndarray:
  """Accuracies of ridge regression for each value of L2.

  Args:
    train_x: float [N, H], features of the shots.
    train_y: int [N], their labels.
    eval_x: float [M, H].
    eval_y: int [M].
    num_classes: number of classes C.

  Returns:
    float64 [len(L2)].
  """
  mean, deviation = train_x.mean(axis=0), train_x.std(axis=0) + EPSILON

  def prepare(x):
    scaled = (np.asarray(x, np.float64) - mean) / deviation
    return np.concatenate([scaled, np.full([len(x), 1], BIAS)], axis=1)  # [N, H + 1]

  x, y = prepare(train_x), 2.0 * np.eye(num_classes)[train_y] - 1.0
  # One decomposition serves every l2: X^T X = V diag(s) V^T.
  values, vectors = np.linalg.eigh(x.T @ x)
  projected, outputs = vectors.T @ (x.T @ y), prepare(eval_x) @ vectors
  found = []
  for l2 in L2:
    guesses = outputs @ (projected / (np.maximum(values, 0.0) + l2)[:, None])  # [M, C]
    found.append(np.mean(np.argmax(guesses, axis=1) == eval_y))
  return np.array(found)


def best_l2(accuracies: dict[str, np.ndarray]) -> int:
  """Index into L2 of the best mean rank over evaluation sets; the smallest of equal ones.

  Args:
    accuracies: evaluation set -> accuracies of `probe`.
  """
  ranks = [np.searchsorted(np.sort(values), values) for values in accuracies.values()]
  return int(np.argmax(np.mean(ranks, axis=0)))


def evaluate(runs: Sequence[Any], checkpoint: str) -> dict[str, float]:
  """Evaluates an encoder on few shots of each task; writes fewshot.json and fewshot.png.

  Args:
    runs: training.runner.Runner of each task; files are written to the first one's model_dir.
    checkpoint: prefix of the encoder's checkpoint.

  Returns:
    "TASK/EVALUATION_SET/K" -> accuracy at the l2 that is chosen for K over all sets.

  Raises:
    UserError: a task has no classes.
  """
  experiment = runs[0].experiment
  shots = parse_shots(experiment.task.fewshot_shots)
  features = [_features(run, checkpoint) for run in runs]
  results, chosen = {}, {}
  for count in shots:
    accuracies = {}
    for run, (train_x, train_y, evaluated) in zip(runs, features, strict=True):
      num_classes = len(run.task.labels)
      rows = first_rows(train_y, count, num_classes)
      for name, (x, y) in evaluated.items():
        accuracies[name] = probe(train_x[rows], train_y[rows], x, y, num_classes)
    index = best_l2(accuracies)
    chosen[count] = L2[index]
    results |= {f"{name}/{count}": float(values[index]) for name, values in accuracies.items()}
  _write(experiment.trainer.model_dir, checkpoint, shots, chosen, results)
  return results


def find_checkpoint(run: Any) -> str:
  """Returns the checkpoint that --do_fewshot evaluates: the trained one, else the pretrained one.

  Raises:
    UserError: there is none.
  """
  trainer, model = run.experiment.trainer, run.experiment.model
  if not (checkpoints.latest_or_best(trainer.model_dir) or model.start_checkpoint):
    model.init_checkpoint = checkpoints.resolve(model.pretrained)
  return model_folder.find_checkpoint(trainer.model_dir, model, "evaluate")


def _features(run, checkpoint):
  """Features and labels of a task: train [N, H], [N], and "TASK/SET" -> those of each dev set."""
  task = run.task
  if not hasattr(task, "is_probed") or task.is_regression:
    raise UserError(f"--do_fewshot needs a classification with classes, not task {task.name}")
  log.info("Features of %s for %s", checkpoint, task.name)
  task.is_probed = True

  def features_of(kind):
    for source in run.sources.of(kind):
      batch_size = run.experiment.trainer.eval_batch_size
      found = run.evaluator.predict_all(source.records, checkpoint, batch_size)
      yield f"{task.name}/{source.split.name}", (found["features"], found["label_ids"])

  ((_, (train_x, train_y)),) = features_of("train")
  evaluated = dict(features_of("dev"))
  task.is_probed = False
  return train_x, train_y, evaluated


def parse_shots(text: str) -> list[int]:
  """Returns the shots of "1,5,10"; UserError if they are no positive integers."""
  shots = [part.strip() for part in text.split(",")]
  if not all(part.isdecimal() and int(part) for part in shots):
    raise UserError(f"--fewshot_shots={text}: give positive integers, such as 1,5,10")
  return sorted(map(int, shots))


def _write(folder, checkpoint, shots, chosen, results):
  """Prints the table, and writes it as JSON and as a plot."""
  names = sorted({key.rpartition("/")[0] for key in results})
  print(f"Few-shot accuracy ({checkpoint})")
  print("shots    l2        " + "  ".join(f"{name:>16}" for name in names))
  for count in shots:
    cells = "  ".join(f"{results[f'{name}/{count}']:16.4f}" for name in names)
    print(f"{count:<8} {chosen[count]:<9g} {cells}")
  contents = {"checkpoint": checkpoint, "l2": chosen, "accuracy": results}
  files.write_text(os.path.join(folder, "fewshot.json"), json.dumps(contents, indent=2) + "\n")
  path = os.path.join(folder, "fewshot.png")
  if _plot(path, shots, names, results):
    print(path)


def _plot(path, shots, names, results):
  """Draws accuracy over shots; returns False if matplotlib is not installed."""
  try:
    import matplotlib
  except ImportError:
    log.info("No plot: pip install matplotlib draws %s", path)
    return False
  matplotlib.use("Agg")
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
  for name in names:
    axes.plot(shots, [results[f"{name}/{count}"] for count in shots], marker="o", label=name)
  axes.set(xscale="log", xlabel="training examples per class", ylabel="accuracy")
  axes.set_xticks(shots, map(str, shots))
  axes.minorticks_off()
  axes.grid(alpha=0.3)
  axes.legend()
  figure.savefig(path, dpi=150)
  pyplot.close(figure)
  return True
