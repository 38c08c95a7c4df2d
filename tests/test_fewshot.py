"""Few-shot evaluation against scikit-learn, and through run_classifier.py."""

import json

import numpy as np
import pytest
import tiny
from sklearn import linear_model

from errors import UserError
from training import fewshot


def made_up(count, seed, width=6, num_classes=3):
  rng = np.random.RandomState(seed)
  labels = rng.randint(0, num_classes, count)
  centers = np.random.RandomState(0).normal(size=[num_classes, width])
  return (centers[labels] + rng.normal(size=[count, width])).astype(np.float32), labels


def test_probe_equals_ridge_regression_of_scikit_learn():
  train_x, train_y = made_up(30, 1)
  eval_x, eval_y = made_up(500, 2)
  found = fewshot.probe(train_x, train_y, eval_x, eval_y, 3)
  mean, deviation = train_x.mean(axis=0), train_x.std(axis=0) + 1e-5
  prepare = lambda x: np.c_[(x.astype(np.float64) - mean) / deviation, np.full(len(x), 100.0)]
  targets = np.where(train_y[:, None] == np.arange(3), 1.0, -1.0)
  for l2, accuracy in zip(fewshot.L2, found, strict=True):
    ridge = linear_model.Ridge(alpha=l2, fit_intercept=False, solver="svd")
    guesses = ridge.fit(prepare(train_x), targets).predict(prepare(eval_x)).argmax(axis=1)
    assert accuracy == pytest.approx(np.mean(guesses == eval_y), abs=0.002), l2
  assert max(found) > 0.6


def test_more_features_than_rows():
  """The product of the features is singular, as with one shot and 768 features."""
  train_x, train_y = made_up(3, 1, width=50)
  found = fewshot.probe(train_x, np.array([0, 1, 2]), *made_up(200, 2, width=50), 3)
  assert np.isfinite(found).all() and len(found) == 30 and train_y.shape == (3,)


def test_the_first_rows_of_each_class():
  labels = np.array([1, 0, 0, 1, 1, 0])
  assert fewshot.first_rows(labels, 2, 2).tolist() == [1, 2, 0, 3]
  assert fewshot.first_rows(labels, 9, 2).tolist() == [1, 2, 5, 0, 3, 4]


def test_one_l2_is_chosen_over_all_sets():
  """Ranks, not accuracies: the set with larger differences does not decide alone."""
  accuracies = {"a": np.array([0.1, 0.9, 0.8]), "b": np.array([0.50, 0.51, 0.53])}
  assert fewshot.best_l2(accuracies) == 1  # ranks 0 2 1 and 0 1 2, the first of equal means
  assert fewshot.best_l2({**accuracies, "c": np.array([0.1, 0.2, 0.3])}) == 2


def test_bad_shots():
  with pytest.raises(UserError, match="--fewshot_shots=1,x: give positive integers"):
    fewshot.parse_shots("1,x")


def test_run_on_two_tasks(tmp_path):
  """The l2 of each shot is the best over both tasks, and each task has its own labels."""
  encoder = tiny.write_encoder(tmp_path / "bert", num_layers=1)
  tiny.write_cola(tmp_path / "glue" / "CoLA")
  (tmp_path / "glue" / "SST-2").mkdir()
  for split, seed in (("train", 5), ("dev", 6)):
    rows = "".join(f"{text}\t{label}\n" for text, label in tiny.sentences(40, seed))
    (tmp_path / "glue" / "SST-2" / f"{split}.tsv").write_text("sentence\tlabel\n" + rows)
  out, _ = tiny.run(
    "run_classifier.py",
    "--task_name=cola",
    f"--data_root={tmp_path}",
    f"--pretrained={encoder}",
    f"--model_dir={tmp_path / 'run'}",
    "--max_seq_length=24",
    "--do_fewshot",
    "--fewshot_shots=1,5",
    "--fewshot_tasks=sst-2",
  )
  assert "Few-shot accuracy" in out
  found = json.loads((tmp_path / "run" / "fewshot.json").read_text())
  assert set(found["accuracy"]) == {"cola/dev/1", "cola/dev/5", "sst-2/dev/1", "sst-2/dev/5"}
  assert all(0 <= value <= 1 for value in found["accuracy"].values())
