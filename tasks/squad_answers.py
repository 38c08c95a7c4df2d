"""Answers to SQuAD's questions: the tables that lead back to the text, n-best lists, ensembles."""

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tasks import squad_metrics

NO_CANDIDATE_ODDS = 1e6  # log odds of no answer if no start and end form a span


@dataclasses.dataclass
class Answers:
  """The answers to the questions of a file.

  Attributes:
    n_best: question id -> its best answers, the best first: dicts with text, probability and
      scores of start and end. The text "" stands for no answer.
    null_odds: v2.0: question id -> log odds of no answer; empty for v1.1.
    golds: question id -> gold answers, for the questions that have the key "answers".
    threshold: no answer is predicted if the odds are above it.
  """

  n_best: dict[str, list[dict[str, Any]]]
  null_odds: dict[str, float]
  golds: dict[str, list[str]]
  threshold: float = 0.0

  def texts(self, threshold: float | None = None) -> dict[str, str]:
    """Question id -> predicted text, "" for none, at `threshold` (default: self.threshold)."""
    threshold = self.threshold if threshold is None else threshold
    best = {
      key: next((entry["text"] for entry in entries if entry["text"]), "")
      for key, entries in self.n_best.items()
    }
    return {
      key: "" if self.null_odds.get(key, -np.inf) > threshold else text
      for key, text in best.items()
    }


def join_answers(several: Sequence[Answers]) -> Answers:
  """An ensemble's answers: probabilities of equal texts add up, odds of no answer are averaged."""
  n_best = {}
  for key in several[0].n_best:
    total = collections.Counter()
    for answers in several:
      for entry in answers.n_best[key]:
        total[entry["text"]] += entry["probability"] / len(several)
    n_best[key] = [{"text": text, "probability": value} for text, value in total.most_common()]
  null_odds = {
    key: float(np.mean([answers.null_odds[key] for answers in several]))
    for key in several[0].null_odds
  }
  return Answers(n_best, null_odds, several[0].golds, several[0].threshold)


SIDE_TABLE_SHAPE = {  # of a line, see SquadTask.featurize_all
  "context": str,
  "starts": [int],
  "ends": [int],
  "questions": [{"id": str, "answers": list | None, "offset": int, "windows": [[int]]}],
}


class SideTable:
  """Contexts, token offsets and gold answers, which map predicted positions to text.

  Attributes:
    lines: dict of each paragraph, see SquadTask.featurize_all.
  """

  def __init__(self, lines: list[dict[str, Any]]):
    """Stores the lines."""
    self.lines = lines

  def questions(self) -> Iterator[dict[str, Any]]:
    """Yields the questions of all paragraphs."""
    return (question for line in self.lines for question in line["questions"])

  @property
  def has_golds(self) -> bool:
    """Whether the file has answers to compare with."""
    return any(question["answers"] is not None for question in self.questions())

  @property
  def unanswerable(self) -> str | None:
    """Id of the first question without an answer."""
    return next((q["id"] for q in self.questions() if q["answers"] == []), None)


def entries(
  found: Sequence[squad_metrics.Candidate], null_score: float, version_2: bool, is_funnel: bool
) -> list[dict[str, Any]]:
  """Returns the n-best list of a question, in the form of nbest_predictions.json."""
  kind = "log_prob" if is_funnel else "logit"
  values: list[dict[str, Any]] = [
    {
      "text": candidate.text,
      f"start_{kind}": candidate.start_score,
      f"end_{kind}": candidate.end_score,
    }
    for candidate in found
  ]
  scores = [candidate.score for candidate in found]
  if version_2 and not is_funnel:  # Funnel's answerability has another scale
    rank = sum(score > null_score for score in scores)
    values.insert(rank, {"text": ""})
    scores.insert(rank, null_score)
  if not values:
    values, scores = [{"text": ""}], [0.0]
  probabilities = squad_metrics.probabilities(scores)
  return [
    {"text": value.pop("text"), "probability": probability, **value}
    for value, probability in zip(values, probabilities, strict=True)
  ]


def null_odds(
  found: Sequence[squad_metrics.Candidate],
  null_score: float,
  is_funnel: bool,
  use_answer_class: bool,
) -> float:
  """Log odds of no answer.

  Funnel's answerability head predicts them. For BERT they are the score of the first token as start
  and end minus the best answer's score; for Funnel without the head, the score of the first token
  as start minus that of the best answer's start.
  """
  if is_funnel and use_answer_class:
    return null_score
  if not found:
    return NO_CANDIDATE_ODDS
  return null_score - (found[0].start_score if is_funnel else found[0].score)
