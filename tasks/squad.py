"""SQuAD v1.1 and v2.0: answers that are a slice of a passage, or none."""

import collections
import dataclasses
import json
import logging
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

import modeling
from errors import UserError
from tasks import base, metrics, squad_answers, squad_data, squad_metrics
from tasks.settings import Squad
from tasks.squad_answers import Answers, SideTable, join_answers
from utils import files

log = logging.getLogger(__name__)

UNANSWERABLE = "unanswerable"  # remark about a question
# Reasons to leave an answer out of training.
LEFT_OUT = {
  "misplaced": "as the answer is not where answer_start says",
  "lost": "as the answer has no tokens",
}


class SquadTask(base.RawDataTask):
  """SQuAD, for both model families. An example is a paragraph, a record one window of a question.

  Example:
    task = SquadTask(settings.Squad(train_file="train-v1.1.json"))
    paragraph = next(iter(task.read_examples("train")))
    windows, _ = task.featurize_all(paragraph, tokenizer, max_seq_length=384)
  """

  name = job = "squad"
  record_unit = "windows"

  @classmethod
  def canonical_name(cls, settings):
    if settings.do_ensemble and not settings.ensemble_ckpts:
      raise UserError("--do_ensemble: name the checkpoints with --ensemble_ckpts")
    return cls.name

  @classmethod
  def from_experiment(cls, experiment, family):
    raw = experiment.raw_data
    data_dir = raw.data_dir or os.path.join(raw.data_root, "squad")
    return cls(experiment.task, data_dir, family, raw.skip_bad_rows)

  def __init__(
    self, settings: Squad, data_dir: str = "", family: str = "bert", skip_bad_rows: bool = False
  ):
    """Makes the task.

    Args:
      settings: files, windows, heads and choice of answers.
      data_dir: folder of the files that the settings do not name.
      family: model family, "bert" or "funnel", which decides the layout of the records.
      skip_bad_rows: skip questions whose answer is not at its answer_start.
    """
    self.settings = settings
    self.data_dir = data_dir
    self.skip_bad_rows = skip_bad_rows
    self.is_funnel = family == "funnel"
    self.cls_segment_id = modeling.CLS_SEGMENT_IDS[family]
    self.predicts_dev = not settings.predict_file
    self.ensemble_checkpoints = (
      [path.strip() for path in settings.ensemble_ckpts.split(",")] if settings.do_ensemble else []
    )
    self.layout = squad_data.FUNNEL_LAYOUT if self.is_funnel else squad_data.BERT_LAYOUT
    self._scored = Answers({}, {}, {}, 0.0)  # of the last `score`
    self.has_unanswerable = False  # whether the model was trained on questions without an answer

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

  def take_model_settings(self, stored, folder, meta):
    del meta
    self.has_unanswerable = bool(folder) and stored.get("has_unanswerable", False)

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
    if self.settings.version_2_with_negative:
      version = "v2"
    names = {"": ("v1.1", "v2.0"), "v1": ("v1.1",), "v2": ("v2.0",)}[version]
    paths = [os.path.join(self.data_dir, f"{stem}-{name}.json") for name in names]
    found = [path for path in paths if tf.io.gfile.exists(path)]
    if len(found) > 1:
      raise UserError(
        f"{' and '.join(found)}: both exist. Name one with --{split}_file, or pass "
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
    return self.settings.train_version == "v1" and not self.settings.version_2_with_negative

  def metadata(self):
    return {
      "task_type": "bert_squad",
      "max_query_length": self.settings.max_query_length,
      "doc_stride": self.settings.doc_stride,
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

    The side table of training records holds the answers that were left out or are not exact
    (`_find_answer`), that of other records a line of SideTable.
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
      query_ids = tokenizer.convert_text_to_ids(question.text)[: self.settings.max_query_length]
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
    """Returns (token span of the first answer or None, status).

    Status: "unanswerable", there is no answer; "misplaced", the answer is not at its answer_start;
    "lost", the answer has no tokens; "inexact", its tokens cover more than the answer ("ton" of
    "Washington"); "" otherwise.
    """
    if not question.answers:
      return None, UNANSWERABLE
    text, start = question.answers[0], question.answer_start
    if start is None:  # not in training; only the evaluation's loss needs a position
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
        f"--max_query_length ({self.settings.max_query_length})"
      )
    windows = squad_data.cut_windows(num_pieces, room, self.settings.doc_stride)
    if len(windows) > squad_data.MAX_WINDOWS:
      raise UserError(
        f"{question.place}: {len(windows)} windows of a passage of {num_pieces} "
        f"tokens; raise --doc_stride ({self.settings.doc_stride})"
      )
    return windows

  # -- model --

  def build(self, encoder, features):
    losses, candidates = encoder.squad(self.settings)
    return base.TaskOutput({"loss": self.loss_weights(features)["loss"] * losses}, candidates)

  # -- scores --

  def read_side_table(self, kind, split, path, num_records):
    """SideTable of records to evaluate or predict; of training records, logs what is left out.

    Raises:
      UserError: there is no table, it belongs to other records, the flags do not fit the file, or
        records to evaluate have no answers.
    """
    del split
    if kind == "train":
      self.read_training_notes(path)
      return None
    table = SideTable(files.read_json_lines(path, squad_answers.SIDE_TABLE_SHAPE))
    if not table.lines:
      raise UserError(
        f"{path}: no such file; it maps the records' tokens to the text: keep it "
        f"next to them, or make them again (--overwrite_data)"
      )
    num_windows = sum(len(question["windows"]) for question in table.questions())
    if num_windows != num_records:
      raise UserError(
        f"{path}: it holds {num_windows} windows, but the record file has {num_records}; "
        f"make them again together (--overwrite_data)"
      )
    self._check_version(table)
    if kind == "dev" and not table.has_golds:
      raise UserError(
        f"{self.input_files('predict')[0]}: no answers in it to compare with; "
        f"predict it with --do_predict"
      )
    return table

  def read_training_notes(self, path: str) -> None:
    """Logs the number of answers that are left out of training records (see featurize_all)."""
    notes = collections.Counter()
    for line in files.read_json_lines(path, dict):
      for note, ids in line.items():
        notes[note] += len(ids)
        if note in LEFT_OUT:
          log.warning("Left out of training: %s, %s", ", ".join(ids), LEFT_OUT[note])
    self.has_unanswerable = notes[UNANSWERABLE] > 0
    log.info(
      "Answers of the training data: %d left out, %d with a part of a token",
      sum(notes[note] for note in LEFT_OUT),
      notes["inexact"],
    )

  def _check_version(self, table):
    settings = self.settings
    if (
      table.unanswerable and settings.eval_version == "v1" and not settings.version_2_with_negative
    ):
      raise UserError(
        f"--eval_version=v1, but question {table.unanswerable} of the file has no answer, "
        f"as in SQuAD v2.0: pass --eval_version=v2"
      )
    if settings.search_threshold and table.has_golds and not self.is_version_2(table):
      raise UserError(
        f"--search_threshold: {self.input_files('predict')[0]} has no questions "
        f"without an answer, so there is no threshold; leave it out"
      )

  def is_version_2(self, table: SideTable) -> bool:
    """Returns whether "no answer" is an answer.

    It is if 1. the flags say so, 2. the evaluated file has a question without an answer, or 3. the
    training file had one and the evaluated file has no gold answers.
    """
    return (
      self.settings.version_2_with_negative
      or self.settings.eval_version == "v2"
      or table.unanswerable is not None
      or (self.has_unanswerable and not table.has_golds)
    )

  def model_settings(self):
    return {"has_unanswerable": self.has_unanswerable}

  metrics = ("exact_match", "f1")

  def metrics_of(self, split):
    if not self.is_version_2(split.side_table):
      return self.metrics
    kinds = {
      "HasAns" if question["answers"] else "NoAns"
      for question in split.side_table.questions()
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

  def answers(self, table: SideTable, predictions: dict[str, np.ndarray]) -> Answers:
    """Answers to the questions of the evaluated file whose windows were all predicted.

    Args:
      table: side table of the records.
      predictions: of all records in the file's order, see modeling's `squad` methods.

    Raises:
      UserError: search_threshold is set, and there are no gold answers.
    """
    names = ("start_scores", "start_index", "end_scores", "end_index")
    result = Answers({}, {}, {}, self.settings.null_score_diff_threshold)
    version_2, row, count = self.is_version_2(table), 0, len(predictions["null_score"])
    for line in table.lines:
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
        result.n_best[question["id"]] = squad_answers.entries(
          found, null_score, version_2, self.is_funnel
        )
        if version_2:
          result.null_odds[question["id"]] = squad_answers.null_odds(
            found, null_score, self.is_funnel, self.settings.use_answer_class
          )
        if question["answers"] is not None and (version_2 or question["answers"]):
          result.golds[question["id"]] = question["answers"]
    return self._with_threshold(result)

  def _with_threshold(self, answers):
    if self.settings.search_threshold and answers.null_odds:
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

  def measure(self, answers: Answers, version_2: bool) -> dict[str, float]:
    """Metrics of the official scripts, in percent (squad_metrics.evaluate); v2.0: the threshold."""
    if not answers.golds:
      raise UserError(
        "no question with an answer to compare with has all its windows in this "
        "evaluation; raise --max_eval_examples, which counts windows"
      )
    metrics = squad_metrics.evaluate(answers.texts(), answers.golds, version_2, answers.null_odds)
    return {**metrics, "threshold": answers.threshold} if version_2 else metrics

  def join(self, several: Sequence[Answers]) -> Answers:
    """Answers of an ensemble (join_answers), with the threshold of the settings."""
    return self._with_threshold(join_answers(several))

  def score(self, split, predictions):
    table = split.side_table
    self._scored = self.answers(table, predictions)
    return self.measure(self._scored, self.is_version_2(table))

  def evaluated(self, split, predictions):
    """Returns id, labels, prediction, probability (None: not in the n-best list), EM and F1."""
    version_2, texts = self.is_version_2(split.side_table), self._scored.texts()
    found = []
    for key, golds in self._scored.golds.items():
      text = texts[key]
      exact, f1 = squad_metrics.question_scores(text, golds, version_2)
      probability = {entry["text"]: entry["probability"] for entry in self._scored.n_best[key]}
      found.append({"id": key, "labels": golds, "prediction": text})
      found[-1] |= {"probability": probability.get(text), "exact_match": exact, "f1": f1}
    return found

  def combine(self, metrics_of_splits):
    """The score is F1."""
    (metrics,) = metrics_of_splits.values()
    return {**metrics, self.score_name: metrics["f1"]}

  # -- predictions --

  def output_files(self, trainer, split):
    """Paths of the predictions, the n-best lists and the odds of no answer (v2.0 only)."""
    del split
    names = ("predictions.json", "nbest_predictions.json", "null_odds.json")
    return [os.path.join(trainer.predictions_dir, name) for name in names]

  def write_predictions(self, trainer, split, predictions):
    answers = self.answers(split.side_table, predictions)
    self._write(split, answers, self.output_files(trainer, split.name))

  def ensemble_files(self, trainer):
    path = self.settings.ensemble_output_file
    path = path or os.path.join(trainer.predictions_dir, "ensemble.json")
    stem = path.removesuffix(".json")
    return [path, f"{stem}.nbest.json", f"{stem}.null_odds.json"]

  def write_ensemble(self, trainer, split, several):
    answers = [self.answers(split.side_table, predictions) for predictions in several]
    self._write(split, self.join(answers), self.ensemble_files(trainer))

  def _write(self, split, answers, paths):
    """Writes the files for the official evaluation; prints the score if there are gold answers."""
    contents = dict(zip(paths, (answers.texts(), answers.n_best, answers.null_odds), strict=True))
    if not answers.null_odds:
      del contents[paths[-1]]
    for path, values in contents.items():
      # ASCII only, as the official files: they may be read under any locale.
      files.write_text(path, json.dumps(values, indent=4) + "\n")
    found = ""
    if answers.golds:
      values = self.measure(answers, self.is_version_2(split.side_table))
      found = f", {metrics.format_metrics(values)}"
    print(f"squad: {len(answers.n_best)} questions{found} ({paths[0]})")
