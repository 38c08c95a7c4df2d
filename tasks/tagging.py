"""Labels of words: named entities, parts of speech, from files in CoNLL's form.

A file has a word a line, its columns separated by tabs or spaces, and a blank line after each
sentence. A word's label is predicted at its first token. Sentences that are too long become several
records, so every word gets a label.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import modeling
from errors import UserError
from tasks import base, metrics
from tasks.labels import check_label_list
from tasks.readers import read_text
from tasks.settings import Tagging
from utils import files
from utils.options import Range, brief

IGNORED = -1  # label id of [CLS], [SEP], further tokens of a word, and padding


@dataclasses.dataclass
class Sentence:
  """A raw example.

  Attributes:
    place: file and line of the first word, for messages.
    words: the words.
    labels: their labels; None if the file has none.
  """

  place: str
  words: list[str]
  labels: list[str] | None


def read_conll(path: str, token_col: int, label_col: int | None) -> Iterator[Sentence]:
  """Yields the sentences of a file.

  Args:
    path: the file; lines that begin with -DOCSTART- are skipped.
    token_col: column of the word, from 0; negative numbers count from the end.
    label_col: column of the label; None to read words alone.

  Raises:
    UserError: a line has too few columns.
  """
  words, labels, start = [], [], 0
  for number, line in enumerate([*read_text(path).splitlines(), ""], 1):
    cells = line.split("\t") if "\t" in line else line.split()
    if not line.strip() or line.startswith("-DOCSTART-"):
      if words:
        yield Sentence(f"{path}: line {start}", words, None if label_col is None else labels)
      words, labels = [], []
      continue
    start = start if words else number
    try:
      words.append(cells[token_col].strip())
      labels.append("" if label_col is None else cells[label_col].strip())
    except IndexError:
      raise UserError(
        f"{path}: line {number}: {len(cells)} columns; --token_col={token_col} and "
        f"--label_col={label_col} need more"
      ) from None
    if not words[-1] or (label_col is not None and not labels[-1]):
      raise UserError(f"{path}: line {number}: the word or its label is empty")


def spans(labels: Sequence[str]) -> set[tuple[str, int, int]]:
  """Returns (type, first word, end) of the spans in BIO labels, by the rules of conlleval.

  A span begins at B-X, and at I-X after another label than B-X or I-X. Example: "B-PER I-PER O
  I-LOC" gives (PER, 0, 2) and (LOC, 3, 4).
  """
  found, start, kind = set(), 0, None
  for index, label in enumerate([*labels, "O"]):
    prefix, _, name = label.partition("-")
    continues = prefix == "I" and name == kind
    if kind is not None and not continues:
      found.add((kind, start, index))
      kind = None
    if prefix in ("B", "I") and not continues:
      kind, start = name, index
  return found


class TaggingTask(base.RawDataTask):
  """Labels of the words of a sentence.

  Example:
    task = TaggingTask(settings.Tagging(), "data/conll2003")
    records, _ = task.featurize_all(next(task.read_examples("train")), tokenizer, 128)
  """

  name = job = "tagging"
  padding = {"tag_ids": IGNORED, "label_ids": IGNORED}

  @classmethod
  def from_experiment(cls, experiment, family):
    raw = experiment.raw_data
    data_dir = raw.data_dir or os.path.join(raw.data_root, "tagging")
    return cls(experiment.task, data_dir, family, experiment.model.cls_scope or None)

  def __init__(
    self, settings: Tagging, data_dir: str = "", family: str = "bert", cls_scope: str | None = None
  ):
    """Makes the task.

    Args:
      settings: files and columns.
      data_dir: folder of the files that the settings do not name.
      family: model family, "bert" or "funnel".
      cls_scope: variable scope of the head; None for the model family's own.
    """
    self.settings = settings
    self.data_dir = data_dir
    self.cls_segment_id = modeling.CLS_SEGMENT_IDS[family]
    self.cls_scope = cls_scope
    self._labels: tuple[str, ...] = ()

  # -- data --

  feature_specs = [
    base.FeatureSpec("input_ids", is_sequence=True, pad_value=None),
    base.FeatureSpec("input_mask", is_sequence=True),
    base.FeatureSpec("segment_ids", is_sequence=True),
    base.FeatureSpec("label_ids", is_sequence=True, pad_value=IGNORED),
    base.FeatureSpec("is_real_example", default=1),
    base.FeatureSpec("weight", dtype="float32", default=1.0),
  ]

  def ranges(self, *args):
    labels = Range(int, lower=IGNORED, upper=len(self.labels) - 1)
    return {**super().ranges(*args), "label_ids": labels}

  def input_files(self, split):
    settings = self.settings
    given = {"train": settings.train_file, "dev": settings.eval_file, "test": settings.predict_file}
    path = given[split] or os.path.join(self.data_dir, f"{split}.txt")
    if not tf.io.gfile.exists(path):
      flag = {"train": "train_file", "dev": "eval_file", "test": "predict_file"}[split]
      raise UserError(f"{path}: no such file; name it with --{flag}, or its folder with --data_dir")
    return [path]

  def predictions_name(self, split):
    return base.stem(self.input_files(split)[0])

  def source_key(self, split):
    return [self.settings.token_col, self.settings.label_col]

  def read_examples(self, split):
    label_col = None if split == "test" else self.settings.label_col
    return read_conll(self.input_files(split)[0], self.settings.token_col, label_col)

  @property
  def labels(self) -> tuple[str, ...]:
    """Labels in the order of their ids, collected from the training file if not given."""
    if not self._labels:
      found = {label for sentence in self.read_examples("train") for label in sentence.labels or ()}
      self._labels = tuple(sorted(found, key=lambda label: (label != "O", label)))
    return self._labels

  def take_model_settings(self, stored, folder, meta):
    names = (stored if folder else meta).get("label_list") or ()
    check_label_list(names, folder or "the records' metadata")
    self._labels = tuple(names)

  def model_settings(self):
    return {"label_list": list(self.labels)}

  def metadata(self):
    return {"task_type": "tagging", "label_list": list(self.labels)}

  def featurize_all(self, example, tokenizer, max_seq_length):
    """[CLS] tokens [SEP]; a record ends before the word that does not fit.

    The side table has the labels, and the number of words of each record.
    """
    room = max_seq_length - 2
    ids_of_records, starts_of_records = [[]], [[]]
    for word in example.words:
      ids = tokenizer.convert_text_to_ids(word)[:room] or [tokenizer.unk_id]
      if len(ids_of_records[-1]) + len(ids) > room:
        ids_of_records.append([])
        starts_of_records.append([])
      starts_of_records[-1].append(len(ids_of_records[-1]))
      ids_of_records[-1] += ids
    label_ids = iter(self._label_ids(example))
    records = []
    for ids, starts in zip(ids_of_records, starts_of_records, strict=True):
      labels = [IGNORED] * len(ids)
      for start in starts:
        labels[start] = next(label_ids)
      records.append(
        {
          "input_ids": [tokenizer.cls_id, *ids, tokenizer.sep_id],
          "input_mask": [1] * (len(ids) + 2),
          "segment_ids": [self.cls_segment_id] + [0] * (len(ids) + 1),
          "label_ids": [IGNORED, *labels, IGNORED],
          "is_real_example": 1,
        }
      )
    counts = [len(starts) for starts in starts_of_records]
    return records, {"words": example.words, "labels": example.labels, "counts": counts}

  def _label_ids(self, example):
    if example.labels is None:
      return [0] * len(example.words)
    unknown = set(example.labels) - set(self.labels)
    if unknown:
      raise UserError(
        f"{example.place}: unknown label {brief(min(unknown))} in the sentence; the labels are "
        f"{', '.join(self.labels)}"
      )
    return [self.labels.index(label) for label in example.labels]

  def read_side_table(self, kind, split, path, num_records):
    shape = {"words": [str], "labels": list | None, "counts": [int]}
    table = files.read_json_lines(path, shape)
    if sum(len(sentence["counts"]) for sentence in table) != num_records:
      raise UserError(
        f"{path}: it does not belong to the {num_records} records next to it; make them again "
        f"together (--overwrite_data)"
      )
    return None if kind == "train" else table

  # -- model --

  def loss_weights(self, features):
    counts = tf.reduce_sum(tf.cast(features["label_ids"] >= 0, tf.float32), axis=1)
    return {"loss": super().loss_weights(features)["loss"] * counts}

  def build(self, encoder, features):
    logits = encoder.token_logits(len(self.labels), self.cls_scope, self.name)  # [B, T, N]
    labels = features["label_ids"]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=tf.maximum(labels, 0), logits=logits
    )
    losses = tf.reduce_sum(losses * tf.cast(labels >= 0, tf.float32), axis=1)
    return base.TaskOutput(
      {"loss": super().loss_weights(features)["loss"] * losses},
      {"tag_ids": tf.argmax(logits, axis=-1, output_type=tf.int32), "label_ids": labels},
    )

  # -- scores and predictions --

  @property
  def metrics(self):
    is_bio = any(re.match(r"[BI]-", label) for label in self.labels)
    return ("accuracy", "f1", "precision", "recall") if is_bio else ("accuracy",)

  def tags(self, split: base.Split, predictions: dict[str, np.ndarray]) -> list[list[str]]:
    """Predicted labels of each sentence, of those whose records were all predicted."""
    rows = iter(zip(predictions["tag_ids"], predictions["label_ids"], strict=True))
    remaining, found = len(predictions["tag_ids"]), []
    for sentence in split.side_table:
      remaining -= len(sentence["counts"])
      if remaining < 0:
        break
      ids = [
        tag
        for _ in sentence["counts"]
        for tag, label in zip(*next(rows), strict=True)
        if label >= 0
      ]
      found.append([self.labels[tag] for tag in ids])
    return found

  def score(self, split, predictions):
    """Accuracy over words; precision, recall and F1 over spans of BIO labels, as conlleval."""
    found = self.tags(split, predictions)
    golds = [sentence["labels"] for sentence in split.side_table[: len(found)]]
    sentences = list(zip(golds, found, strict=True))
    words = [pair for pairs in sentences for pair in zip(*pairs, strict=True)]
    values: dict[str, Any] = {"accuracy": float(np.mean([gold == tag for gold, tag in words]))}
    if "f1" not in self.metrics:
      return values
    pairs = [(spans(gold), spans(tags)) for gold, tags in sentences]
    right, predicted, actual = (
      sum(map(len, kinds))
      for kinds in zip(*[(gold & tags, tags, gold) for gold, tags in pairs], strict=True)
    )
    precision, recall = right / max(predicted, 1), right / max(actual, 1)
    f1 = 2 * right / max(predicted + actual, 1)
    return {**values, "precision": precision, "recall": recall, "f1": f1}

  def combine(self, metrics_of_splits):
    """The score is F1 over spans, without BIO labels the accuracy."""
    (values,) = metrics_of_splits.values()
    return {**values, self.score_name: values.get("f1", values["accuracy"])}

  def output_files(self, trainer, split):
    name = f"predictions.{self.predictions_name(split)}.txt"
    return [os.path.join(trainer.predictions_dir, name)]

  def write_predictions(self, trainer, split, predictions):
    """A word and its predicted label a line, separated by a tab; a blank line after sentences."""
    (path,) = self.output_files(trainer, split.name)
    found = self.tags(split, predictions)
    lines = [
      "".join(f"{word}\t{tag}\n" for word, tag in zip(sentence["words"], tags, strict=True)) + "\n"
      for sentence, tags in zip(split.side_table[: len(found)], found, strict=True)
    ]
    files.write_text(path, "".join(lines))
    print(f"{self.name} {split.name}: {path}")
    if all(sentence["labels"] for sentence in split.side_table):
      print(f"{self.name} {split.name}: {metrics.format_metrics(self.score(split, predictions))}")
