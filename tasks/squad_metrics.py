"""Decodes SQuAD answers from start and end scores, and computes EM and F1, on the host.

The metrics equal those of the official evaluation scripts of v1.1 and v2.0 (Rajpurkar et al. 2016,
2018) for predictions.json and null_odds.json, in percent.
"""

import collections
import dataclasses
import re
import string
from collections.abc import Sequence

import numpy as np

from tasks.squad_data import Passage, Window

# ---- Decoding -----------------------------------------------------------------------------------

NOT_A_CANDIDATE = -1e29  # lower scores belong to masked positions or padding


@dataclasses.dataclass
class Candidate:
  """An answer with the scores (logits or log-probabilities) of its start and its end."""

  text: str
  start_score: float
  end_score: float

  @property
  def score(self) -> float:
    """Sum of both scores."""
    return self.start_score + self.end_score


@dataclasses.dataclass
class Scores:
  """Scores of one window. Positions are those of the window's input, [CLS] being 0.

  Attributes:
    start_scores: float [K], scores of the K best starts.
    start_index: int [K], their positions.
    end_scores: float [K, E], scores of the E best ends for each start; [1, E] if they do not depend
      on the start.
    end_index: int [K, E] or [1, E], their positions.
  """

  start_scores: np.ndarray
  start_index: np.ndarray
  end_scores: np.ndarray
  end_index: np.ndarray


def best_answers(
  passage: Passage,
  windows: Sequence[tuple[Window, int, Scores]],
  n_best: int,
  max_answer_length: int,
) -> list[Candidate]:
  """The n best answers to one question, best first, without repeated texts.

  An answer begins and ends in the window's part of the passage, begins at a token that counts in
  the window (Window.own_start), and has at most max_answer_length tokens.

  Args:
    passage: the passage.
    windows: (window, position of its first passage token in its input, scores) of each window.
    n_best: number of answers.
    max_answer_length: in tokens.

  Returns:
    At most n_best candidates; empty if there is no valid pair of start and end.
  """
  found = []
  for window, offset, scores in windows:
    starts = scores.start_index[:, None] + (window.start - offset)  # [K, 1], tokens of the passage
    ends = scores.end_index + (window.start - offset)  # [K or 1, E]
    total = scores.start_scores[:, None] + scores.end_scores  # [K, E]
    is_valid = (
      (starts >= window.own_start)
      & (starts < window.own_end)
      & (ends < window.end)
      & (ends >= starts)
      & (ends - starts < max_answer_length)
      & (total > NOT_A_CANDIDATE)
    )
    for k, e in zip(*np.nonzero(is_valid), strict=True):
      row = k if len(ends) > 1 else 0
      found.append(
        (
          float(total[k, e]),
          int(starts[k, 0]),
          int(ends[row, e]),
          float(scores.start_scores[k]),
          float(scores.end_scores[row, e]),
        )
      )
  found.sort(key=lambda entry: (-entry[0], entry[1:3]))
  answers: dict[str, Candidate] = {}
  for _, start, end, start_score, end_score in found:
    if len(answers) == n_best:
      break
    text = passage.text_of(start, end)
    if text and text not in answers:
      answers[text] = Candidate(text, start_score, end_score)
  return list(answers.values())


def probabilities(scores: Sequence[float]) -> list[float]:
  """Softmax of the scores."""
  if not scores:
    return []
  weights = np.exp(np.asarray(scores) - max(scores))
  return (weights / weights.sum()).tolist()


# ---- The official metric ------------------------------------------------------------------------

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
  """Lower-cases a text and removes ASCII punctuation, articles and extra whitespace."""
  text = text.lower().translate(_PUNCTUATION)
  return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, gold: str) -> float:
  """1.0 if two answers are equal after normalization, else 0.0."""
  return float(normalize_answer(answer) == normalize_answer(gold))


def f1(answer: str, gold: str, version_2: bool = False) -> float:
  """F1 of the words of two normalized answers, from 0 to 1.

  The official scripts differ for answers without words ("", or "The"): in v2.0 two such answers are
  equal, in v1.1 their F1 is 0.
  """
  words, gold_words = normalize_answer(answer).split(), normalize_answer(gold).split()
  if version_2 and not (words and gold_words):
    return float(words == gold_words)
  common = sum((collections.Counter(words) & collections.Counter(gold_words)).values())
  if not common:
    return 0.0
  precision, recall = common / len(words), common / len(gold_words)
  return 2 * precision * recall / (precision + recall)


def question_scores(answer: str, golds: Sequence[str], version_2: bool) -> tuple[float, float]:
  """(EM, F1) of an answer, each the maximum over the gold answers.

  Without gold answers, the question has no answer, and "" is right.
  """
  if version_2:
    golds = [gold for gold in golds if normalize_answer(gold)] or [""]
  return (
    max(exact_match(answer, gold) for gold in golds),
    max(f1(answer, gold, version_2) for gold in golds),
  )


def evaluate(
  answers: dict[str, str],
  golds: dict[str, Sequence[str]],
  version_2: bool,
  null_odds: dict[str, float] | None = None,
) -> dict[str, float]:
  """Metrics of the official scripts, all in percent.

  Args:
    answers: question id -> predicted text, "" for no answer.
    golds: question id -> texts of the gold answers, empty if there is none (v2.0).
    version_2: use the metrics of v2.0 instead of v1.1.
    null_odds: v2.0: question id -> score of "no answer", higher is likelier.

  Returns:
    exact_match and f1. v2.0 adds HasAns_exact, HasAns_f1, NoAns_exact and NoAns_f1 (if there are
    such questions), and best_exact and best_f1: the metrics if answers whose odds are above
    best_exact_thresh or best_f1_thresh were "".
  """
  scores = {key: question_scores(answers[key], gold, version_2) for key, gold in golds.items()}
  metrics = _means(scores.values())
  if not version_2:
    return metrics
  for prefix, has_answer in (("HasAns_", True), ("NoAns_", False)):
    chosen = [scores[key] for key, gold in golds.items() if bool(gold) == has_answer]
    if chosen:
      means = _means(chosen)
      metrics |= {f"{prefix}exact": means["exact_match"], f"{prefix}f1": means["f1"]}
  for index, name in enumerate(("exact", "f1")):
    best, threshold = best_threshold(
      answers, {key: values[index] for key, values in scores.items()}, golds, null_odds or {}
    )
    metrics |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
  return metrics


def _means(scores):
  exact, overlap = np.mean(np.asarray(list(scores), np.float64), axis=0) * 100
  return {"exact_match": float(exact), "f1": float(overlap)}


def best_threshold(
  answers: dict[str, str],
  scores: dict[str, float],
  golds: dict[str, Sequence[str]],
  null_odds: dict[str, float],
) -> tuple[float, float]:
  """Best mean score that a threshold on null_odds gives, in percent, and that threshold.

  At first the answer to every question is "". In the order of their odds, questions then get their
  answers: this adds the answer's score if the question has an answer, and costs 1 if it has none.

  Args:
    answers: question id -> answer if the odds are not above the threshold.
    scores: question id -> score of that answer, from 0 to 1.
    golds: question id -> texts of the gold answers.
    null_odds: question id -> odds.
  """
  current = best = float(sum(not gold for gold in golds.values()))
  threshold = 0.0
  for key in sorted(golds.keys() & null_odds, key=null_odds.get):
    if golds[key]:
      current += scores[key]
    elif answers[key]:
      current -= 1
    if current > best:
      best, threshold = current, null_odds[key]
  return 100 * best / len(golds), threshold


def search_threshold(
  answers: dict[str, str], golds: dict[str, Sequence[str]], null_odds: dict[str, float]
) -> tuple[float, float]:
  """Best F1 that a threshold on null_odds gives, in percent, and the lowest such threshold.

  Answering with this threshold gives exactly the returned F1. The official search (best_threshold)
  does not ensure this: it assumes odds above 0, and takes questions of equal odds one by one. If it
    is best never to answer, the threshold is below all odds.

  Args:
    answers: question id -> answer if the odds are not above the threshold.
    golds: question id -> texts of the gold answers.
    null_odds: question id -> log odds of no answer.
  """
  f1_of = lambda key, answer: question_scores(answer, golds[key], True)[1]
  total = sum(f1_of(key, "") for key in golds)
  totals = {min(null_odds.values()) - 1: total}
  for key in sorted(golds.keys() & null_odds, key=null_odds.get):
    total += f1_of(key, answers[key]) - f1_of(key, "")
    totals[null_odds[key]] = total  # for equal odds, the total after the last question
  threshold = max(totals, key=totals.get)
  return 100 * totals[threshold] / len(golds), threshold
