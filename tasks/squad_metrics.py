"""SQuAD on the host: from scores of starts and ends to answers, and from answers to EM and F1.

The metrics are those of the official evaluation scripts of v1.1 and v2.0 (Rajpurkar et al. 2016,
2018), in percent: what predictions.json and null_odds.json get there, they get here.
"""

import collections
import dataclasses
import re
import string
from collections.abc import Sequence

import numpy as np

from tasks.squad_data import Passage, Window

# ---- Decoding -----------------------------------------------------------------------------------

NOT_A_CANDIDATE = -1e29  # scores below it are of places that are masked out, or of padding


@dataclasses.dataclass
class Candidate:
  """An answer with the scores (logits or log-probabilities) of its start and its end."""

  text: str
  start_score: float
  end_score: float

  @property
  def score(self) -> float:
    return self.start_score + self.end_score


@dataclasses.dataclass
class Scores:
  """What a model says about one window. Places are those of the window's tokens.

  Attributes:
    start_scores: float [K], of the best starts.
    start_index: int [K], their places.
    end_scores: float [K, E], of the best ends of each start, or [1, E] whatever the start.
    end_index: int [K, E] or [1, E].
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
  """The n best answers to one question, the best first, no text twice.

  An answer begins and ends in the window's part of the passage, begins where the window counts
  (Window.own_start), and is at most max_answer_length pieces long.

  Args:
    passage: the passage.
    windows: each window with the place of its first piece among its tokens, and its scores.
    n_best: how many answers.
    max_answer_length: in pieces.

  Returns:
    At most n_best candidates; none where no start and end go together.
  """
  found = []
  for window, offset, scores in windows:
    starts = scores.start_index[:, None] + (window.start - offset)  # [K, 1], numbers of pieces
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
  """Softmax."""
  if not scores:
    return []
  weights = np.exp(np.asarray(scores) - max(scores))
  return (weights / weights.sum()).tolist()


# ---- The official metric ------------------------------------------------------------------------

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
  """Lower case without ASCII punctuation, articles and superfluous white space."""
  text = text.lower().translate(_PUNCTUATION)
  return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, gold: str) -> float:
  """1.0 where two answers are the same once normalized, else 0.0."""
  return float(normalize_answer(answer) == normalize_answer(gold))


def f1(answer: str, gold: str, version_2: bool = False) -> float:
  """F1 of the words of two normalized answers, from 0 to 1.

  The scripts differ on answers of which nothing is left ("", or "The"): in v2.0 two such answers
  are equal, in v1.1 they have no word in common.
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
  """(EM, F1) of an answer: of several gold answers the one that it does best on counts.

  No gold answers means that the question has none, and "" is right.
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
    golds: question id -> texts of the gold answers, empty where there is none (v2.0).
    version_2: v2.0, else v1.1.
    null_odds: v2.0: question id -> how likely there is no answer, higher is likelier.

  Returns:
    exact_match and f1. v2.0 adds HasAns_exact, HasAns_f1, NoAns_exact and NoAns_f1 (where there are
    such questions), and best_exact and best_f1, which these answers would get if they were taken to
    be "" wherever the odds are above best_exact_thresh and best_f1_thresh.
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
  """The best mean score in percent that a threshold on null_odds gives, and that threshold.

  Starting with "" for every question, they get their answers back in the order of their odds. An
  answer to a question that has one adds its score, to a question that has none it costs 1.

  Args:
    answers: question id -> answer where the odds are not above the threshold.
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
  """The best F1 in percent that a threshold on null_odds gives, and the lowest such threshold.

  Unlike the official search (best_threshold), which knows odds above 0 only and takes questions of
  equal odds one by one: using the threshold gives the very F1 that is returned. Where never
  answering is best it lies below all odds.

  Args:
    answers: question id -> answer where the odds are not above the threshold.
    golds: question id -> texts of the gold answers.
    null_odds: question id -> log odds of no answer.
  """
  f1_of = lambda key, answer: question_scores(answer, golds[key], True)[1]
  total = sum(f1_of(key, "") for key in golds)
  totals = {min(null_odds.values()) - 1: total}
  for key in sorted(golds.keys() & null_odds, key=null_odds.get):
    total += f1_of(key, answers[key]) - f1_of(key, "")
    totals[null_odds[key]] = total  # of equal odds the last one's stays
  threshold = max(totals, key=totals.get)
  return 100 * totals[threshold] / len(golds), threshold
