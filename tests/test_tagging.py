"""Labels of words: reading, records, spans, and run_tagger.py end to end."""

import os
import random

import pytest
import tiny

import tokenization
from errors import UserError
from tasks import base, tagging
from tasks.settings import Tagging
from training.evaluator import join_batches

# Each word's label follows from the word alone, so a tiny encoder learns it.
LABEL_OF = {**dict.fromkeys(tiny.GOOD, "B-GOOD"), **dict.fromkeys(tiny.BAD, "B-BAD")}


def write_conll(path, count, seed, labels=True, longest=10):
  """Writes sentences in CoNLL's form; returns the path as str."""
  rng = random.Random(seed)
  lines = ["-DOCSTART- -X- O", ""]
  for _ in range(count):
    words = rng.choices([*tiny.GOOD, *tiny.BAD, *tiny.OTHER], k=rng.randint(1, longest))
    for word in words:
      lines.append(f"{word} X {LABEL_OF.get(word, 'O')}" if labels else word)
    lines.append("")
  path.write_text("\n".join(lines))
  return str(path)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  path.write_text("\n".join(tiny.VOCAB) + "\n")
  return tokenization.FullTokenizer(str(path))


@pytest.mark.parametrize(
  "labels, expected",
  [
    ("B-PER I-PER O I-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
    ("B-A B-A I-A", {("A", 0, 1), ("A", 1, 3)}),
    ("B-A I-B I-B", {("A", 0, 1), ("B", 1, 3)}),
    ("O O", set()),
    ("I-A O I-A", {("A", 0, 1), ("A", 2, 3)}),
  ],
)
def test_spans_follow_conlleval(labels, expected):
  assert tagging.spans(labels.split()) == expected


def test_reading(tmp_path):
  path = tmp_path / "train.txt"
  path.write_text("-DOCSTART- O\n\nIn O\nNew_York B-LOC\n\n\n\n. O\n")
  found = list(tagging.read_conll(str(path), 0, -1))
  assert [(one.words, one.labels) for one in found] == [
    (["In", "New_York"], ["O", "B-LOC"]),
    (["."], ["O"]),
  ]
  assert found[0].place == f"{path}: line 3"
  assert next(tagging.read_conll(str(path), 0, None)).labels is None
  path.write_text("a\tO\nb\n")
  with pytest.raises(UserError, match="train.txt: line 2: 1 columns; .*--label_col=1"):
    list(tagging.read_conll(str(path), 0, 1))
  with pytest.raises(UserError, match="train.txt: no such file; name it with --train_file"):
    tagging.TaggingTask(Tagging(), str(tmp_path / "no")).input_files("train")


def test_a_label_is_at_the_first_token_of_its_word(tmp_path, tokenizer):
  path = tmp_path / "train.txt"
  path.write_text("films B-X\nis O\ngreat I-X\n")
  task = tagging.TaggingTask(Tagging(train_file=str(path)))
  assert task.labels == ("O", "B-X", "I-X")
  (record,), side = task.featurize_all(next(task.read_examples("train")), tokenizer, 16)
  tokens = tokenizer.convert_ids_to_tokens(record["input_ids"])
  assert tokens == ["[CLS]", "film", "##s", "is", "great", "[SEP]"]
  assert record["label_ids"] == [-1, 1, -1, 0, 2, -1]
  assert side == {"words": ["films", "is", "great"], "labels": ["B-X", "O", "I-X"], "counts": [3]}
  records, side = task.featurize_all(next(task.read_examples("train")), tokenizer, 5)
  assert side["counts"] == [2, 1] and [row["label_ids"] for row in records] == [
    [-1, 1, -1, 0, -1],
    [-1, 2, -1],
  ]


def test_scores_equal_scikit_learn(tmp_path, tokenizer):
  """Accuracy by scikit-learn, F1 of spans that are single words by its micro average."""
  from sklearn import metrics

  path = write_conll(tmp_path / "train.txt", 20, 1)
  task = tagging.TaggingTask(Tagging(train_file=path, eval_file=path))
  rng, side_table, rows = random.Random(0), [], []
  for example in task.read_examples("dev"):
    records, side = task.featurize_all(example, tokenizer, 8)
    side_table.append(side)
    rows += [record["label_ids"] for record in records]
  guesses = [[rng.randrange(3) for _ in row] for row in rows]
  split = base.Split("dev", len(rows), side_table)
  found = task.score(split, {"tag_ids": guesses, "label_ids": rows})
  pairs = [
    (gold, guess)
    for row, tags in zip(rows, guesses, strict=True)
    for gold, guess in zip(row, tags, strict=True)
    if gold >= 0
  ]
  golds, tags = zip(*pairs, strict=True)
  assert found["accuracy"] == pytest.approx(metrics.accuracy_score(golds, tags))
  for name in ("precision", "recall", "f1"):
    score = getattr(metrics, f"{name}_score")
    assert found[name] == pytest.approx(score(golds, tags, labels=[1, 2], average="micro"))


def test_predictions_of_different_lengths_are_padded():
  import numpy as np

  joined = join_batches([np.ones([2, 3], int), np.ones([1, 5], int)], -1)
  assert joined.tolist() == [[1, 1, 1, -1, -1]] * 2 + [[1] * 5]


@pytest.mark.smoke
@pytest.mark.parametrize("family", ["bert", "funnel"])
def test_a_tagger_from_files_to_predictions(tmp_path, family):
  make = tiny.write_encoder if family == "bert" else tiny.write_funnel
  encoder = make(tmp_path / "encoder", dropout=0.0)
  files = [
    f"--train_file={write_conll(tmp_path / 'train.txt', 120, 1)}",
    f"--eval_file={write_conll(tmp_path / 'dev.txt', 20, 2, longest=30)}",
    f"--predict_file={write_conll(tmp_path / 'new.txt', 9, 3, labels=False, longest=30)}",
  ]
  flags = [
    *files,
    f"--pretrained={encoder}",
    f"--model_dir={tmp_path / 'run'}",
    "--max_seq_length=16",
    "--train_batch_size=16",
    "--learning_rate=1e-2",
    "--num_train_epochs=8",
  ]
  out, _ = tiny.run("run_tagger.py", *flags, "--do_train", "--do_eval", "--do_predict")
  line = next(line for line in out.splitlines() if line.startswith("tagging dev"))
  assert float(line.split(" f1 ")[1].split(",")[0]) > 0.95, line
  lines = (tmp_path / "run" / "predictions.new.txt").read_text().splitlines()
  words = [*(tmp_path / "new.txt").read_text().splitlines()[2:], ""]
  assert [line.split("\t")[0] for line in lines] == words
  right = [LABEL_OF.get(line.split("\t")[0], "O") == line.split("\t")[1] for line in lines if line]
  assert sum(right) / len(right) > 0.95
  before = (tmp_path / "run" / "predictions.new.txt").read_text()
  os.remove(tmp_path / "train.txt")  # labels come from the model
  tiny.run("run_tagger.py", f"--model_dir={tmp_path / 'run'}", files[2], "--do_predict")
  assert (tmp_path / "run" / "predictions.new.txt").read_text() == before
