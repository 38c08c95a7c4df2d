"""Decoding and the metric equal cases by hand, naive implementations and the official scripts."""

import importlib.util
import itertools
import os
import random

import numpy as np
import pytest

from tasks import squad, squad_answers, squad_metrics
from tasks.squad_data import Passage, Window

SCRIPTS = os.environ.get("SQUAD_EVALUATE_DIR", "")  # squad_evaluate_v1_1.py and .._v2_0.py


# ---- Decoding -----------------------------------------------------------------------------------


def naive_best(passage, windows, n_best, max_answer_length):
  """All pairs of starts and ends, one by one."""
  found = []
  for window, offset, scores in windows:
    count = window.end - window.start
    for k, start in enumerate(scores.start_index):
      row = k if len(scores.end_index) > 1 else 0
      for e, end in enumerate(scores.end_index[row]):
        if not (offset <= start <= end < offset + count):
          continue
        first, last = start - offset + window.start, end - offset + window.start
        if last - first + 1 > max_answer_length or not window.own_start <= first < window.own_end:
          continue
        found.append((scores.start_scores[k] + scores.end_scores[row][e], first, last))
  texts = []
  for _, first, last in sorted(found, key=lambda entry: (-entry[0], entry[1:])):
    text = passage.text_of(first, last)
    if text not in texts:
      texts.append(text)
  return texts[:n_best]


def words_passage(count):
  words = [f"w{i % 7}" for i in range(count)]  # words repeat, so texts repeat
  starts = list(itertools.accumulate([0, *(len(word) + 1 for word in words[:-1])]))
  return Passage(
    " ".join(words),
    [],
    starts,
    [start + len(word) for start, word in zip(starts, words, strict=True)],
  )


@pytest.mark.parametrize("conditional", [True, False])
def test_best_answers_equal_the_naive_ones(conditional):
  rng = np.random.default_rng(0)
  passage = words_passage(20)
  for _ in range(200):
    windows = []
    for window in (Window(0, 12, 0, 9), Window(6, 18, 9, 15), Window(12, 20, 15, 20)):
      shape = (4, 3) if conditional else (1, 6)
      windows.append(
        (
          window,
          5,
          squad_metrics.Scores(
            rng.normal(size=4),
            rng.integers(0, 20, 4),
            rng.normal(size=shape),
            rng.integers(0, 20, shape),
          ),
        )
      )
    n_best, longest = int(rng.integers(1, 8)), int(rng.integers(1, 8))
    found = squad_metrics.best_answers(passage, windows, n_best, longest)
    assert [c.text for c in found] == naive_best(passage, windows, n_best, longest)
    assert all(a.score >= b.score for a, b in itertools.pairwise(found))


def test_masked_positions_are_no_answers():
  scores = squad_metrics.Scores(
    np.array([1.0, -1e30]), np.array([5, 6]), np.array([[2.0, -1e30]]), np.array([[5, 6]])
  )
  found = squad_metrics.best_answers(words_passage(9), [(Window(0, 9, 0, 9), 5, scores)], 5, 9)
  assert [(c.text, c.start_score, c.end_score) for c in found] == [("w0", 1.0, 2.0)]


# ---- The metric ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "text, normal",
  [
    ("The  Cat, sat!", "cat sat"),
    ("a an the", ""),
    ("Theory of a-an", "theory of aan"),
    ("U.S.", "us"),
    ("«The» End", "« » end"),
    ("\tÉa\u00a0b", "éa b"),
    ("", ""),
  ],
)
def test_normalize_answer(text, normal):
  assert squad_metrics.normalize_answer(text) == normal


def test_f1_by_hand():
  assert squad_metrics.f1("the big red cat", "red cat sat") == pytest.approx(2 / 3)  # 2/3 and 2/3
  assert squad_metrics.f1("cat cat", "cat") == pytest.approx(2 / 3)  # 1/2 and 1
  assert squad_metrics.f1("dog", "cat") == 0.0
  assert (squad_metrics.f1("The", "a"), squad_metrics.f1("The", "a", version_2=True)) == (0.0, 1.0)
  assert squad_metrics.f1("", "cat", version_2=True) == 0.0


def test_evaluation_by_hand():
  golds = {"1": ["red cat", "cat"], "2": ["dog"]}
  metrics = squad_metrics.evaluate({"1": "the cat", "2": "big dog"}, golds, version_2=False)
  assert metrics == {"exact_match": 50.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 2)}

  golds |= {"3": [], "4": []}
  answers = {"1": "cat", "2": "", "3": "", "4": "fish"}
  odds = {"1": -3.0, "2": 2.0, "3": 1.0, "4": -1.0}
  metrics = squad_metrics.evaluate(answers, golds, True, odds)
  # All "": 2 of 4 right. Up to odds -3 the cat is right too: 3 of 4; then 4 costs one.
  assert metrics == {
    "exact_match": 50.0,
    "f1": 50.0,
    "HasAns_exact": 50.0,
    "HasAns_f1": 50.0,
    "NoAns_exact": 50.0,
    "NoAns_f1": 50.0,
    "best_exact": 75.0,
    "best_exact_thresh": -3.0,
    "best_f1": 75.0,
    "best_f1_thresh": -3.0,
  }


def naive_best_threshold(answers, golds, odds):
  """Tries every threshold."""
  best = (-1.0, 0.0)
  for threshold in [-np.inf, *sorted(odds.values())]:
    taken = {key: "" if odds[key] > threshold else answers[key] for key in golds}
    score = 100 * np.mean(
      [squad_metrics.question_scores(taken[key], gold, True)[1] for key, gold in golds.items()]
    )
    if score > best[0] + 1e-9:
      best = (score, threshold)
  return best


def random_case(rng):
  words = ["the", "cat", "Dog.", "a", "red", "fish", "!", "No"]
  text = lambda: " ".join(rng.choice(words) for _ in range(rng.randint(1, 3)))
  golds = {str(i): [text() for _ in range(rng.randint(0, 3))] for i in range(12)}
  answers = {
    key: rng.choice([text(), text(), "", (gold or [""])[0]]) for key, gold in golds.items()
  }
  return golds, answers, {key: rng.gauss(0, 2) for key in golds}


def test_best_threshold_is_the_best_of_all():
  rng = random.Random(2)
  for _ in range(100):
    golds, answers, odds = random_case(rng)
    # The scripts' search does not normalize "!" to "".
    golds = {key: [text + " x" for text in gold] for key, gold in golds.items()}
    answers = {key: text and text + " x" for key, text in answers.items()}
    metrics = squad_metrics.evaluate(answers, golds, True, odds)
    best, threshold = naive_best_threshold(answers, golds, odds)
    assert metrics["best_f1"] == pytest.approx(best)
    if threshold != -np.inf:
      assert metrics["best_f1_thresh"] == threshold


def test_a_searched_threshold_gives_the_reported_f1():
  """Also if odds are equal or below 0, and if never answering is best."""
  rng = random.Random(3)
  for case in range(200):
    golds, answers, odds = random_case(rng)
    if case % 2:
      odds = {key: float(round(value)) for key, value in odds.items()}
    if case % 3 == 0:
      answers = dict.fromkeys(answers, "wrong")
    best, threshold = squad_metrics.search_threshold(answers, golds, odds)
    taken = {key: "" if odds[key] > threshold else answers[key] for key in golds}
    assert squad_metrics.evaluate(taken, golds, True, odds)["f1"] == pytest.approx(best)
    assert best == pytest.approx(naive_best_threshold(answers, golds, odds)[0])
    assert np.isfinite(threshold)
    if case % 3 == 0:
      assert set(taken.values()) == {""}


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPTS, reason="SQUAD_EVALUATE_DIR is not set")
def test_metrics_equal_the_official_scripts():
  """The scripts are those of the package tf-models-official (official/nlp/tools)."""

  def load(name):
    spec = importlib.util.spec_from_file_location(name, os.path.join(SCRIPTS, name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

  v1, v2 = load("squad_evaluate_v1_1"), load("squad_evaluate_v2_0")
  rng = random.Random(4)
  for _ in range(200):
    golds, answers, odds = random_case(rng)
    # Given the file of odds, the scripts count odds above 1 as no answer.
    odds = {key: value / 10 for key, value in odds.items()}
    data = [
      {
        "paragraphs": [
          {
            "qas": [
              {"id": key, "answers": [{"text": text} for text in gold]}
              for key, gold in golds.items()
            ]
          }
        ]
      }
    ]
    theirs = v2.evaluate(data, answers, odds)
    ours = squad_metrics.evaluate(answers, golds, True, odds)
    names = {
      "exact_match": "exact",
      "f1": "f1",
      "best_exact": "final_exact",
      "best_exact_thresh": "final_exact_thresh",
      "best_f1": "final_f1",
      "best_f1_thresh": "final_f1_thresh",
    }
    for name, value in ours.items():
      assert value == pytest.approx(theirs[names.get(name, name)], abs=1e-9), name
    golds = {key: gold for key, gold in golds.items() if gold}
    data = [
      {
        "paragraphs": [
          {
            "qas": [
              {"id": key, "answers": [{"text": text} for text in gold]}
              for key, gold in golds.items()
            ]
          }
        ]
      }
    ]
    theirs = v1.evaluate(data, answers)
    assert squad_metrics.evaluate(answers, golds, False) == {
      "exact_match": pytest.approx(100 * theirs["exact_match"]),
      "f1": pytest.approx(100 * theirs["final_f1"]),
    }


# ---- Ensembles and thresholds -------------------------------------------------------------------


def test_texts_follow_the_threshold_and_never_fail():
  entries = [{"text": "", "probability": 0.6}, {"text": "cat", "probability": 0.4}]
  answers = squad.Answers(
    {"a": entries, "b": entries[1:], "c": [{"text": "", "probability": 1.0}]},
    {"a": 0.5, "b": -0.5, "c": squad_answers.NO_CANDIDATE_ODDS},
    {},
    0.0,
  )
  assert answers.texts() == {"a": "", "b": "cat", "c": ""}
  assert answers.texts(1.0) == {"a": "cat", "b": "cat", "c": ""}
  assert answers.texts(np.inf)["c"] == "", "every candidate is null"


def test_ensemble_adds_probabilities_and_averages_odds():
  first = squad.Answers(
    {
      "a": [
        {"text": "cat", "probability": 0.6, "start_logit": 1.0},
        {"text": "dog", "probability": 0.4},
      ]
    },
    {"a": 1.0},
    {"a": ["dog"]},
  )
  second = squad.Answers(
    {"a": [{"text": "dog", "probability": 0.7}, {"text": "fish", "probability": 0.3}]},
    {"a": -2.0},
    {"a": ["dog"]},
  )
  joined = squad.join_answers([first, second])
  assert [entry["text"] for entry in joined.n_best["a"]] == ["dog", "cat", "fish"]
  assert [entry["probability"] for entry in joined.n_best["a"]] == pytest.approx([0.55, 0.3, 0.15])
  assert joined.null_odds == {"a": -0.5} and joined.texts() == {"a": "dog"}
