"""Tiny trained models of each job, their files to predict, and their prediction files."""

import csv
import json
import pathlib
import random

import tiny
import tiny_race
import tiny_squad

import config
from tasks import registry
from training import jobs

TEXTS = [text for text, _ in tiny.sentences(13, 5)]


def read_json(path):
  return json.loads(pathlib.Path(path).read_text())


def read_tsv(path):
  with open(path, newline="") as reader:
    return list(csv.reader(reader, delimiter="\t", quoting=csv.QUOTE_NONE))


def train(job, folder, encoder, **settings):
  """Trains two steps, predicts; returns model_dir as str. The same as the script's main does."""
  experiment = config.Experiment(task=registry.find(job).settings())
  values = dict(
    model_dir=str(folder),
    pretrained=str(encoder),
    do_train=True,
    do_predict=True,
    train_steps=2,
    warmup_steps=0,
    learning_rate=1e-2,
    train_batch_size=8,
    eval_every_steps=0,
    max_seq_length=32,
    seed=1,
  )
  for name, value in {**values, **settings}.items():
    experiment.set(name, value, "flag")
  jobs.run(experiment)
  return str(folder)


def write_pairs(path, is_number=False):
  """Writes a TSV file of pairs, some without a second text; returns the pairs."""
  rng = random.Random(3)
  pairs = [(text, rng.choice(["", *TEXTS])) for text in TEXTS]
  rows = [f"{a}\t{b}\t{rng.random() if is_number else rng.randrange(3)}\n" for a, b in pairs]
  path.write_text("text\tother\tlabel\n" + "".join(rows))
  return pairs


def make(job, family, folder, **size):
  """Writes data, trains a model of a job; returns (model_dir, requests)."""
  encoder = (
    tiny.write_encoder(folder / "encoder", **{"num_layers": 1, **size})
    if family == "bert"
    else tiny.write_funnel(folder / "encoder", block_size="1_1")
  )
  requests, settings = {
    "classification": _classification,
    "regression": _classification,
    "race": _race,
    "tagging": _tagging,
    "squad": _squad,
  }[job](folder, job)
  path = settings.pop("path")
  files = dict(train_file=path, predict_file=path)
  job = job.replace("regression", "classification")
  return train(job, folder / "model", encoder, **files, **settings), requests


def _classification(folder, job):
  path = folder / "data.tsv"
  pairs = write_pairs(path, job == "regression")
  is_number = dict(is_regression=job == "regression")
  return pairs, dict(path=str(path), task_name="tsv", text_b_col="other", **is_number)


def _race(folder, job):
  rows = [
    {"id": f"q{i}", "article": text, "question": "it is _", "options": tiny.BAD[: 2 + i % 3]}
    for i, text in enumerate(TEXTS)
  ]
  path = tiny_race.write_jsonl(folder / "data.jsonl", [{**row, "answer": "B"} for row in rows])
  return rows, dict(path=path, task_name="jsonl", max_qa_length=8)


def _tagging(folder, job):
  sentences = [text.split() * 3 for text in TEXTS]
  labels = {**dict.fromkeys(tiny.GOOD, "G"), **dict.fromkeys(tiny.BAD, "B"), "the": "T", "a": "A"}
  lines = ["\n".join(f"{word} {labels.get(word, 'O')}" for word in words) for words in sentences]
  path = folder / "data.txt"
  path.write_text("\n\n".join(lines) + "\n")
  return sentences, dict(path=str(path), max_seq_length=16, learning_rate=1e-5)


def _squad(folder, job):
  path = tiny_squad.write(str(folder / "data.json"), 8, 1, unanswerable=True)
  requests = read_json(path)["data"][0]["paragraphs"]
  return requests, dict(path=path, doc_stride=4, max_seq_length=16)
