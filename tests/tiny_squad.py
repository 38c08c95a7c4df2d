"""Tiny SQuAD files: passages such as "The film was good." with questions on each noun."""

import json
import os
import random

import tiny

NOUNS = ["film", "story"]
ADJECTIVES = tiny.GOOD + tiny.BAD


def paragraph(rng, number, unanswerable):
  """A passage about one or two nouns, and a question about each of them (or each of NOUNS)."""
  said = rng.sample(NOUNS, rng.randint(1, 2))
  context, qas = "", []
  for noun in said:
    context += rng.choice(["", "  ", "\r\n"]) if context else ""
    context += f"The {noun} was "
    answer = " ".join(rng.sample(ADJECTIVES, rng.randint(1, 2)))
    qas.append(
      {
        "id": f"q{number}-{noun}",
        "question": f"The {noun} was?",
        "answers": [{"text": answer, "answer_start": len(context)}] * 2,
      }
    )
    context += answer + rng.choice([". ", "! "])
  for noun in set(NOUNS) - set(said):
    if unanswerable:
      qas.append(
        {
          "id": f"q{number}-{noun}",
          "question": f"The {noun} was?",
          "answers": [],
          "is_impossible": True,
          "plausible_answers": [],
        }
      )
  return {"context": context, "qas": qas}


def write(path, count, seed, unanswerable=False, answers=True):
  """Writes a SQuAD file of `count` passages; returns its path as str."""
  rng = random.Random(seed)
  paragraphs = [paragraph(rng, number, unanswerable) for number in range(count)]
  if not answers:
    for values in paragraphs:
      for qa in values["qas"]:
        del qa["answers"]
  data = {
    "version": "v2.0" if unanswerable else "1.1",
    "data": [{"title": "Films", "paragraphs": paragraphs}],
  }
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, "w") as writer:
    json.dump(data, writer)
  return str(path)


def golds(path):
  """Question id -> list of gold answers of a file."""
  with open(path) as reader:
    data = json.load(reader)["data"]
  return {
    qa["id"]: [answer["text"] for answer in qa["answers"]]
    for article in data
    for values in article["paragraphs"]
    for qa in values["qas"]
  }
