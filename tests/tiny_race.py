"""Tiny RACE and JSONL files, and functions that create the task."""

import itertools
import json
import random

import pytest
import tiny

import config
import tokenization
from tasks import race
from tasks.settings import Race


def passages(count, seed):
  """Yields RACE passages about one film each; the right option is the one good word."""
  rng = random.Random(seed)
  for index in range(count):
    film = " ".join(rng.choices(tiny.OTHER, k=rng.randint(1, 10)))
    values = {"article": film, "id": f"{index}.txt", "questions": [], "options": [], "answers": []}
    for _ in range(rng.randint(1, 3)):
      options = rng.sample(tiny.BAD, 3)
      answer = rng.randrange(4)
      options.insert(answer, rng.choice(tiny.GOOD))
      values["questions"].append(rng.choice(["the film is _ .", "it was very"]))
      values["options"].append(options)
      values["answers"].append("ABCD"[answer])
    yield values


def write_race(folder, counts=(("train", 24), ("dev", 8), ("test", 4))):
  """Writes RACE's layout with `counts` passages for each level; returns the folder as str."""
  for (split, count), level in itertools.product(counts, race.LEVELS):
    path = folder / split / level
    path.mkdir(parents=True)
    for values in passages(count, f"{split}{level}"):
      (path / values["id"]).write_text(json.dumps(values))
  return str(folder)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("race")
  tiny.write_funnel(folder / "funnel", block_size="1_1")
  tiny.write_encoder(folder / "bert", num_layers=1)
  write_race(folder / "RACE")
  return folder


@pytest.fixture(scope="module")
def tokenizer(workspace):
  return tokenization.FullTokenizer(str(workspace / "bert" / "vocab.txt"))


def task_of(
  data_dir,
  name="race",
  max_qa_length=8,
  skip_bad_rows=False,
  cls_segment_id=0,
  max_seq_length=512,
  **settings,
):
  return tiny.make_task(
    Race(task_name=name, max_qa_length=max_qa_length, **settings),
    config.RawData(data_dir=str(data_dir), skip_bad_rows=skip_bad_rows),
    "funnel" if cls_segment_id else "bert",
    max_seq_length,
  )


def write_jsonl(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)
