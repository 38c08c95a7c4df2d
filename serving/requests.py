"""Requests from Python, and their results, for each job.

  job             request                                      result of a request
  classification  a text, or a pair (text, text)               {"prediction", "probabilities"}
  race            {"article", "question", "options", ...}      {"id", "prediction", ...}
  tagging         a list of words                              the list of their labels
  squad           {"context": ..., "qas": [...]}               one result for all requests:
                                                               {"predictions", ...}

The values are those of the scripts' prediction files, not rounded.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from errors import UserError
from tasks import base
from tasks.classification_data import Example
from tasks.race_data import choice_question, option_name, race_questions
from tasks.squad_answers import SideTable
from tasks.squad_data import parse_paragraphs
from tasks.tagging import Sentence
from utils.options import brief


@dataclasses.dataclass(frozen=True)
class Form:
  """Requests and results of a job.

  Attributes:
    parse: (task, requests) -> raw examples; UserError names the request, from 1.
    results: (task, examples, side tables of the examples, predictions in their order) -> results.
  """

  parse: Callable[[Any, Sequence[Any]], list[Any]]
  results: Callable[[Any, list[Any], list[Any], dict[str, np.ndarray]], Any]


def _places(requests):
  return ((request, f"request {number}") for number, request in enumerate(requests, 1))


def _texts(task, requests):
  examples = []
  for request, place in _places(requests):
    parts = [request] if isinstance(request, str) else request
    if (
      not isinstance(parts, list | tuple)
      or len(parts) not in (1, 2)
      or not all(isinstance(text, str) for text in parts)
    ):
      raise UserError(f"{place}: {brief(str(request))} is neither a text nor a pair of texts")
    examples.append(Example(*parts))
  return examples


def _classes(task, examples, side_tables, predictions):
  if task.is_regression:
    return [{"prediction": float(value)} for value in predictions["prediction"]]
  return [
    {
      "prediction": task.labels[np.argmax(row)],
      "probabilities": dict(zip(task.labels, map(float, row), strict=True)),
    }
    for row in predictions["probabilities"]
  ]


def _questions(task, requests):
  questions = []
  for number, (request, place) in enumerate(_places(requests)):
    if isinstance(request, dict) and "questions" in request:
      name = str(request.get("id", number))
      questions += race_questions(request, place, name, has_answers=False)
    elif isinstance(request, dict):
      questions.append(choice_question(request, place, str(number), has_answers=False))
    else:
      raise UserError(f"{place}: {brief(str(request))} is not a dict with question and options")
  # Questions with fewer options are padded.
  task.sequences_per_example = max((len(question.options) for question in questions), default=2)
  return questions


def _options(task, questions, side_tables, predictions):
  results = []
  for question, row in zip(questions, predictions["probabilities"], strict=True):
    best = int(np.argmax(row))
    results.append(
      {
        "id": question.id,
        "prediction": option_name(best),
        "prediction_index": best,
        "probabilities": [float(value) for value in row[: len(question.options)]],
      }
    )
  return results


def _sentences(task, requests):
  for request, place in _places(requests):
    if not isinstance(request, list | tuple) or not all(
      isinstance(word, str) and word.strip() for word in request
    ):
      raise UserError(f"{place}: {brief(str(request))} is not a list of words")
  return [Sentence(place, list(request), None) for request, place in _places(requests)]


def _tags(task, examples, side_tables, predictions):
  split = base.Split("test", len(examples), side_tables)
  return task.tags(split, predictions)


def _paragraphs(task, requests):
  return parse_paragraphs(list(_places(requests)))


def _answers(task, examples, side_tables, predictions):
  answers = task.answers(SideTable(side_tables), predictions)
  found = {"predictions": answers.texts(), "nbest_predictions": answers.n_best}
  return {**found, "null_odds": answers.null_odds} if answers.null_odds else found


_FORMS = {
  "classification": Form(_texts, _classes),
  "race": Form(_questions, _options),
  "tagging": Form(_sentences, _tags),
  "squad": Form(_paragraphs, _answers),
}


def form_of(job: str) -> Form:
  """Returns the form of a job; UserError lists the jobs."""
  if job not in _FORMS:
    raise UserError(f"Predictor serves the jobs {', '.join(_FORMS)}, not {job}")
  return _FORMS[job]
