"""SQuAD v1.1 and v2.0: answers that are a slice of a passage, or none."""

import collections
import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from errors import UserError
from tasks import base, squad_data, squad_metrics

log = logging.getLogger(__name__)

NO_CANDIDATE_ODDS = 1e6  # log odds of no answer where no start and end go together

UNANSWERABLE = "unanswerable"  # remark about a question
# Why an answer is left out of training.
LEFT_OUT = {
  "misplaced": "as the answer is not where answer_start says",
  "lost": "as the tokenizer leaves nothing of the answer",
}


@dataclasses.dataclass
class Answers:
  """The answers to the questions of a file.

  Attributes:
    n_best: question id -> its best answers, the best first: dicts with text, probability and
      scores of start and end. The text "" stands for no answer.
    null_odds: v2.0: question id -> log odds of no answer; empty for v1.1.
    golds: question id -> gold answers, of the questions for which the file says some or none.
    threshold: no answer is predicted where the odds are above it.
  """

  n_best: dict[str, list[dict[str, Any]]]
  null_odds: dict[str, float]
  golds: dict[str, list[str]]
  threshold: float = 0.0

  def texts(self, threshold: float | None = None) -> dict[str, str]:
    """Question id -> predicted text, "" for none, at `threshold` instead of the own one."""
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


def _read_lines(path):
  """The JSON values of a side table; none where there is no such file."""
  if not tf.io.gfile.exists(path):
    return []
  with tf.io.gfile.GFile(path) as reader:
    return [json.loads(line) for line in reader.read().split("\n") if line]


class SquadTask(base.RawDataTask):
  """SQuAD, for both model families. An example is a paragraph, a record one window of a question.

  Example:
    task = SquadTask(config.SquadData(), config.Squad(train_file="train-v1.1.json"))
    paragraph = next(iter(task.read_examples("train")))
    windows, _ = task.featurize_all(paragraph, tokenizer, max_seq_length=384)
  """

  name = job = "squad"

  def __init__(
    self,
    data_settings,
    settings,
    data_dir: str = "",
    cls_segment_id: int = 0,
    skip_bad_rows: bool = False,
  ):
    """Makes the task.

    Args:
      data_settings: config.SquadData, or anything with its fields.
      settings: config.Squad, or anything with its fields.
      data_dir: folder of the files that the settings do not name.
      cls_segment_id: segment id of the first token, which tells the layout: 0 BERT's, 2 Funnel's.
      skip_bad_rows: leave out questions whose answer is not where the file says.
    """
    self.data_settings = data_settings
    self.settings = settings
    self.data_dir = data_dir
    self.cls_segment_id = cls_segment_id
    self.skip_bad_rows = skip_bad_rows
    self.is_funnel = cls_segment_id != 0
    self.layout = squad_data.FUNNEL_LAYOUT if self.is_funnel else squad_data.BERT_LAYOUT
    self.has_unanswerable = False  # whether the model was trained on questions without an answer
    self._side_table: list[dict[str, Any]] = []

  # -- data --

  @property
  def feature_specs(self):
    specs = [
      base.FeatureSpec("unique_ids", default=-1),
      base.FeatureSpec("input_ids", is_sequence=True, pad_value=None),
      base.FeatureSpec("input_mask", is_sequence=True),
      base.FeatureSpec("segment_ids", is_sequence=True),
    ]
    if self.layout.has_p_mask:
      specs += [
        base.FeatureSpec("cls_index", default=0),
        base.FeatureSpec("p_mask", is_sequence=True, dtype="float32", pad_value=1),
      ]
    return [
      *specs,
      base.FeatureSpec("start_positions", default=0),
      base.FeatureSpec("end_positions", default=0),
      base.FeatureSpec("is_impossible", default=0),
      base.FeatureSpec("is_real_example", default=1),
      base.FeatureSpec("weight", dtype="float32", default=1.0),
    ]

  def splits(self, kind):
    return ["train"] if kind == "train" else ["predict"]

  def input_files(self, split):
    given = self.settings.train_file if split == "train" else self.settings.predict_file
    if given:
      if not tf.io.gfile.exists(given):
        raise UserError(f"{given}: no such file (--{split}_file)")
      return [given]
    stem = "train" if split == "train" else "dev"
    version = self.settings.train_version if split == "train" else self.settings.eval_version
    if self.data_settings.version_2_with_negative:
      version = "v2"
    names = {"": ("v1.1", "v2.0"), "v1": ("v1.1",), "v2": ("v2.0",)}[version]
    paths = [os.path.join(self.data_dir, f"{stem}-{name}.json") for name in names]
    found = [path for path in paths if tf.io.gfile.exists(path)]
    if len(found) > 1:
      raise UserError(
        f"{' and '.join(found)}: which of them? Name it with --{split}_file, or pass "
        f"--version_2_with_negative for v2.0"
      )
    if not found:
      raise UserError(
        f"{' or '.join(paths)}: no such file, the {split} data of SQuAD; name the "
        f"file with --{split}_file or its folder with --data_dir"
      )
    return found

  def source_key(self, split):
    return [self.skip_bad_rows, self._refuses_unanswerable] if split == "train" else [False]

  @property
  def _refuses_unanswerable(self):
    return self.settings.train_version == "v1" and not self.data_settings.version_2_with_negative

  def metadata(self):
    return {
      "task_type": "bert_squad",
      "max_query_length": self.data_settings.max_query_length,
      "doc_stride": self.data_settings.doc_stride,
    }

  def read_examples(self, split):
    paragraphs = squad_data.read_squad(self.input_files(split)[0], split != "train")
    if split == "train":
      for question in (q for paragraph in paragraphs for q in paragraph.questions):
        if question.answers is None:
          raise UserError(f"{question.place}: no key 'answers', which training needs")
        if question.answers and question.answer_start is None:
          raise UserError(
            f"{question.place}, answer 1: no key 'answer_start', which training needs"
          )
        if not question.answers and self._refuses_unanswerable:
          raise UserError(
            f"{question.place}: a question without an answer, as in SQuAD v2.0: pass "
            f"--version_2_with_negative, or leave --train_version=v1 out"
          )
    for paragraph in paragraphs:
      paragraph.is_training = split == "train"
    return iter(paragraphs)

  def featurize_all(self, example, tokenizer, max_seq_length):
    """Windows of all questions of a paragraph, whose passage is tokenized once.

    Kept beside training records: which answers were left out or are not exact (`_find_answer`).
    Beside others: what the way from tokens back to text takes, and the gold answers.
    """
    passage = squad_data.Passage(example.context, *tokenizer.tokenize_with_offsets(example.context))
    if not passage.ids:
      raise UserError(f"{example.place}: the tokenizer leaves nothing of the context")
    records, questions, notes = [], [], {}
    for number, question in enumerate(example.questions, example.first_question):
      answer, note = self._find_answer(question, passage)
      if note:
        notes.setdefault(note, []).append(question.id)
      if example.is_training and note in LEFT_OUT:
        if note == "misplaced" and not self.skip_bad_rows:
          raise UserError(squad_data.describe_misplaced(question, passage.context))
        continue
      query_ids = tokenizer.convert_text_to_ids(question.text)[
        : self.data_settings.max_query_length
      ]
      windows = self._cut(question, len(query_ids), len(passage.ids), max_seq_length)
      first_id = squad_data.FIRST_UNIQUE_ID + number * squad_data.MAX_WINDOWS
      records += [
        {
          "unique_ids": unique_id,
          "is_real_example": 1,
          **squad_data.window_features(self.layout, tokenizer, query_ids, passage, window, answer),
        }
        for unique_id, window in enumerate(windows, first_id)
      ]
      questions.append(
        {
          "id": question.id,
          "answers": question.answers,
          "offset": len(query_ids) + 2,
          "windows": [dataclasses.astuple(window) for window in windows],
        }
      )
    if example.is_training:
      return records, notes or None
    return records, {
      "context": passage.context,
      "starts": passage.starts,
      "ends": passage.ends,
      "questions": questions,
    }

  def _find_answer(self, question, passage):
    """First and last piece of the first answer or None, and what is to be said about it.

    The remarks: "unanswerable", there is no answer; "misplaced", the answer is not where the file
    says; "lost", the tokenizer leaves nothing of it; "inexact", its pieces hold more than it ("ton"
    of "Washington").
    """
    if not question.answers:
      return None, UNANSWERABLE
    text, start = question.answers[0], question.answer_start
    if start is None:  # not in training; only the evaluation's loss needs a place
      start = passage.context.find(text)
    found = squad_data.find_answer(passage.context, text, start)
    if found is None:
      return None, "misplaced"
    span = passage.pieces_of(*found)
    if span is None:
      return None, "lost"
    return span, "" if passage.text_of(*span).split() == text.split() else "inexact"

  def _cut(self, question, query_length, num_pieces, max_seq_length):
    room = max_seq_length - query_length - 3
    if room < 1:
      raise UserError(
        f"{question.place}: the {query_length} tokens of the question leave no room "
        f"for the passage: raise --max_seq_length ({max_seq_length}) or lower "
        f"--max_query_length ({self.data_settings.max_query_length})"
      )
    windows = squad_data.cut_windows(num_pieces, room, self.data_settings.doc_stride)
    if len(windows) > squad_data.MAX_WINDOWS:
      raise UserError(
        f"{question.place}: {len(windows)} windows of a passage of {num_pieces} "
        f"tokens; raise --doc_stride ({self.data_settings.doc_stride})"
      )
    return windows

  # -- model --

  def build(self, encoder, features):
    losses, candidates = encoder.squad(self.settings)
    return base.TaskOutput({"loss": self.loss_weights(features)["loss"] * losses}, candidates)

  # -- scores --

  def read_side_table(self, path: str, num_records: int) -> None:
    """Takes note of what was kept beside records to predict (see featurize_all).

    Raises:
      UserError: there is no table, it belongs to other records, or the flags do not fit the file.
    """
    self._side_table = _read_lines(path)
    if not self._side_table:
      raise UserError(
        f"{path}: no such file; it leads from the records' tokens back to the "
        f"text: keep it beside them, or make them anew (--overwrite_data)"
      )
    num_windows = sum(len(question["windows"]) for question in self._questions())
    if num_windows != num_records:
      raise UserError(
        f"{path}: it tells of {num_windows} windows, and the records beside it are "
        f"{num_records}; make them anew together (--overwrite_data)"
      )
    self._check_version()

  def read_training_notes(self, path: str) -> None:
    """Says how many answers are left out of training records (see featurize_all)."""
    notes = collections.Counter()
    for line in _read_lines(path):
      for note, ids in line.items():
        notes[note] += len(ids)
        if note in LEFT_OUT:
          log.warning("Left out of training: %s, %s", ", ".join(ids), LEFT_OUT[note])
    self.has_unanswerable = notes[UNANSWERABLE] > 0
    log.info(
      "Answers of the training data: %d left out, %d hold a part of a token only",
      sum(notes[note] for note in LEFT_OUT),
      notes["inexact"],
    )

  def _questions(self):
    return (question for line in self._side_table for question in line["questions"])

  def _check_version(self):
    unanswerable = next((q["id"] for q in self._questions() if q["answers"] == []), None)
    if (
      unanswerable
      and self.settings.eval_version == "v1"
      and not self.data_settings.version_2_with_negative
    ):
      raise UserError(
        f"--eval_version=v1, but question {unanswerable} of the file has no answer, "
        f"as in SQuAD v2.0: pass --eval_version=v2"
      )
    if self.settings.search_threshold and self.has_golds and not self.version_2:
      raise UserError(
        f"--search_threshold: {self.input_files('predict')[0]} has no questions "
        f"without an answer, so there is no threshold; leave it out"
      )

  @property
  def version_2(self) -> bool:
    """Returns whether "no answer" is an answer.

    1. As the flags say, 2. as the evaluated file is, 3. as the training file was, if the evaluated
    file has no answers.
    """
    return (
      self.data_settings.version_2_with_negative
      or self.settings.eval_version == "v2"
      or any(question["answers"] == [] for question in self._questions())
      or (self.has_unanswerable and not self.has_golds)
    )

  def model_settings(self):
    return {"has_unanswerable": self.has_unanswerable}

  @property
  def has_golds(self) -> bool:
    """Whether the evaluated file has answers to compare with."""
    return any(question["answers"] is not None for question in self._questions())

  @property
  def metrics(self):
    if not self.version_2:
      return ("exact_match", "f1")
    kinds = {
      "HasAns" if question["answers"] else "NoAns"
      for question in self._questions()
      if question["answers"] is not None
    }
    return (
      "exact_match",
      "f1",
      "best_exact",
      "best_exact_thresh",
      "best_f1",
      "best_f1_thresh",
      "threshold",
      *(f"{kind}_{name}" for kind in kinds for name in ("exact", "f1")),
    )

  def answers(self, predictions: dict[str, np.ndarray]) -> Answers:
    """Answers to the questions of the evaluated file.

    Of a file of which not all records were predicted, the questions whose windows all were.

    Args:
      predictions: of all records in the file's order, see modeling's `squad` methods.

    Raises:
      UserError: search_threshold is set, and there are no gold answers.
    """
    names = ("start_scores", "start_index", "end_scores", "end_index")
    result = Answers({}, {}, {}, self.settings.null_score_diff_threshold)
    version_2, row, count = self.version_2, 0, len(predictions["null_score"])
    for line in self._side_table:
      passage = squad_data.Passage(line["context"], [], line["starts"], line["ends"])
      for question in line["questions"]:
        rows = range(row, row + len(question["windows"]))
        row = rows.stop
        if row > count:
          break
        windows = [
          (
            squad_data.Window(*window),
            question["offset"],
            squad_metrics.Scores(*(predictions[name][index] for name in names)),
          )
          for index, window in zip(rows, question["windows"], strict=True)
        ]
        null_score = float(min(predictions["null_score"][index] for index in rows))
        found = squad_metrics.best_answers(
          passage, windows, self.settings.n_best_size, self.settings.max_answer_length
        )
        result.n_best[question["id"]] = self._entries(found, null_score, version_2)
        if version_2:
          result.null_odds[question["id"]] = self._null_odds(found, null_score)
        if question["answers"] is not None and (version_2 or question["answers"]):
          result.golds[question["id"]] = question["answers"]
    return self._with_threshold(result)

  def _entries(self, found, null_score, version_2):
    """The n-best list as it is written."""
    kind = "log_prob" if self.is_funnel else "logit"
    entries = [
      {
        "text": candidate.text,
        f"start_{kind}": candidate.start_score,
        f"end_{kind}": candidate.end_score,
      }
      for candidate in found
    ]
    scores = [candidate.score for candidate in found]
    if version_2 and not self.is_funnel:  # Funnel's answerability is on another scale
      place = sum(score > null_score for score in scores)
      entries.insert(place, {"text": ""})
      scores.insert(place, null_score)
    if not entries:
      entries, scores = [{"text": ""}], [0.0]
    chances = squad_metrics.probabilities(scores)
    return [
      {"text": entry.pop("text"), "probability": chance, **entry}
      for entry, chance in zip(entries, chances, strict=True)
    ]

  def _null_odds(self, found, null_score):
    """Log odds of no answer.

    Funnel's answerability head gives just that. BERT's score of the first token as start and end
    stands against the best answer's, that of Funnel without the head (the start alone) against the
    best answer's start.
    """
    if self.is_funnel and self.settings.use_answer_class:
      return null_score
    if not found:
      return NO_CANDIDATE_ODDS
    return null_score - (found[0].start_score if self.is_funnel else found[0].score)

  def _with_threshold(self, answers):
    if self.settings.search_threshold and self.version_2:
      if not answers.golds:
        raise UserError(
          "--search_threshold needs a file with answers; pass the threshold that was "
          "found on such a file as --null_score_diff_threshold"
        )
      best, answers.threshold = squad_metrics.search_threshold(
        answers.texts(np.inf), answers.golds, answers.null_odds
      )
      log.info(
        "Threshold %.4f, searched on %d questions of this file (F1 %.2f there)",
        answers.threshold,
        len(answers.golds),
        best,
      )
    return answers

  def measure(self, answers: Answers) -> dict[str, float]:
    """Metrics of the official scripts, in percent (squad_metrics.evaluate); v2.0: the threshold."""
    if not answers.golds:
      raise UserError(
        "no question with an answer to compare with has all its windows in this "
        "evaluation; raise --max_eval_examples, which counts windows"
      )
    metrics = squad_metrics.evaluate(
      answers.texts(), answers.golds, self.version_2, answers.null_odds
    )
    return {**metrics, "threshold": answers.threshold} if self.version_2 else metrics

  def join(self, several: Sequence[Answers]) -> Answers:
    """The answers of an ensemble (join_answers), with the threshold that the settings say."""
    return self._with_threshold(join_answers(several))

  def score(self, split, predictions):
    return self.measure(self.answers(predictions))

  def combine(self, metrics_of_splits):
    """The score is F1."""
    (metrics,) = metrics_of_splits.values()
    return {**metrics, self.score_name: metrics["f1"]}
