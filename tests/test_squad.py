"""The SQuAD task: records, side table, answers from predictions; records in shards."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_squad

import tokenization
from errors import UserError
from preprocessing import finetuning_records, record_files
from tasks import base, squad, squad_metrics
from tasks.settings import Squad

DATA = os.environ.get("SQUAD_DIR", "")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("squad_task") / "vocab.txt"
  path.write_text("\n".join(tiny.VOCAB))
  return tokenization.FullTokenizer(path)


def make_task(cls_segment_id=0, doc_stride=4, skip_bad_rows=False, **changes):
  settings = Squad(
    **{"n_best_size": 20, "max_answer_length": 30, "doc_stride": doc_stride, **changes}
  )
  family = "funnel" if cls_segment_id else "bert"
  return squad.SquadTask(settings, "", family, skip_bad_rows)


def read_records(path):
  for serialized in tf.compat.v1.io.tf_record_iterator(path):
    features = tf.train.Example.FromString(serialized).features.feature
    yield {
      name: list(value.int64_list.value) or list(value.float_list.value)
      for name, value in features.items()
    }


def perfect_predictions(path):
  """Predictions of a model that finds every labeled position of the records."""
  rows = list(read_records(path))
  starts = np.array([row["start_positions"] for row in rows])  # [N, 1]
  ends = np.array([row["end_positions"] for row in rows])
  impossible = np.array([row["is_impossible"][0] for row in rows], np.float32)
  return {
    "start_scores": -10.0 * impossible[:, None],
    "start_index": starts,
    "end_scores": np.zeros([len(rows), 1, 1]),
    "end_index": ends[:, None],
    "null_score": 4.0 * impossible - 2.0,
  }


def read_side_table(task, file):
  table = task.read_side_table(
    "test", "predict", file + record_files.SIDE_TABLE, record_files.count_records(file)
  )
  return base.Split("predict", 0, table)


def measure(task, split, answers):
  return task.measure(answers, task.is_version_2(split.side_table))


@pytest.mark.parametrize("cls_segment_id", [0, 2])
@pytest.mark.parametrize("unanswerable", [False, True])
def test_right_positions_give_right_answers(tmp_path, tokenizer, cls_segment_id, unanswerable):
  """Decoding the labels of the records gives the gold answers, "no answer" included."""
  path = tiny_squad.write(tmp_path / "dev.json", 40, 3, unanswerable)
  task = make_task(predict_file=path, cls_segment_id=cls_segment_id)
  file = str(tmp_path / "dev.tfrecord")
  count = record_files.write_split(file, task, "predict", tokenizer, 16)
  split = read_side_table(task, file)
  assert count > len(tiny_squad.golds(path)), "some questions must have several windows"
  assert task.is_version_2(split.side_table) == unanswerable and split.side_table.has_golds
  answers = task.answers(split.side_table, perfect_predictions(file))
  metrics = measure(task, split, answers)
  assert metrics["exact_match"] == metrics["f1"] == 100.0
  assert set(metrics) == set(task.metrics_of(split))
  assert answers.golds == tiny_squad.golds(path)
  assert bool(answers.null_odds) == unanswerable
  for key, entries in answers.n_best.items():
    assert sum(entry["probability"] for entry in entries) == pytest.approx(1.0)
    assert answers.texts()[key] == (answers.golds[key] or [""])[0]
  assert task.score(split, perfect_predictions(file)) == metrics
  assert task.combine({"predict": metrics})["score"] == 100.0


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="SQUAD_DIR is not set")
@pytest.mark.parametrize("name", ["dev-v1.1", "dev-v2.0"])
def test_right_positions_give_right_answers_on_real_data(tmp_path, name):
  real = tokenization.FullTokenizer(os.environ["VOCAB_FILE"])
  (path,) = tf.io.gfile.glob(os.path.join(DATA, name + "*.json"))
  task = make_task(predict_file=path, doc_stride=64, max_answer_length=60)
  file = str(tmp_path / "dev.tfrecord")
  record_files.write_split(file, task, "predict", real, 160)
  split = read_side_table(task, file)
  metrics = task.score(split, perfect_predictions(file))
  assert metrics["exact_match"] > 99.5 and metrics["f1"] > 99.8, metrics


def test_records_equal_a_case_computed_by_hand(tmp_path, tokenizer):
  """The windows and the answer's positions were computed by hand."""
  context = "The film was  very góod. It was a story"
  #          0   1    2     3    4   5 6  7   8 9
  path = tmp_path / "train.json"
  path.write_text(
    json.dumps(
      {
        "data": [
          {
            "paragraphs": [
              {
                "context": context,
                "qas": [
                  {
                    "id": "x",
                    "question": "The film ?",
                    "answers": [{"text": "góod", "answer_start": context.index("góod")}],
                  }
                ],
              }
            ]
          }
        ]
      }
    )
  )
  task = make_task(train_file=str(path))
  file = str(tmp_path / "train.tfrecord")
  assert record_files.write_split(file, task, "train", tokenizer, 12) == 2
  rows = list(read_records(file))
  words = [[tokenizer.convert_ids_to_tokens([i])[0] for i in row["input_ids"]] for row in rows]
  head = ["[CLS]", "the", "film", "[UNK]", "[SEP]"]
  assert words == [
    [*head, "the", "film", "was", "very", "good", ".", "[SEP]"],
    [*head, "good", ".", "it", "was", "a", "story", "[SEP]"],
  ]
  assert [row["unique_ids"] for row in rows] == [[1_000_000_000], [1_000_000_001]]
  names = ("start_positions", "end_positions", "is_impossible")
  assert [[row[name][0] for name in names] for row in rows] == [[9, 9, 0], [5, 5, 0]]


def train_file(tmp_path, text, start, context="The film was góod \u00ad ."):
  path = tmp_path / "train.json"
  path.write_text(
    json.dumps(
      {
        "data": [
          {
            "title": "T",
            "paragraphs": [
              {
                "context": context,
                "qas": [
                  {"id": "fine", "question": "?", "answers": [{"text": "film", "answer_start": 4}]},
                  {"id": "x", "question": "?", "answers": [{"text": text, "answer_start": start}]},
                ],
              }
            ],
          }
        ]
      }
    )
  )
  return str(path)


def test_answers_that_cannot_be_trained_on_are_reported(tmp_path, tokenizer, caplog):
  """A part of a word is trained on and counted; an answer without tokens is left out by its id."""
  file = str(tmp_path / "train.tfrecord")
  caplog.set_level("INFO")
  for text, start, skip, count, message in (
    ("fil", 4, False, 2, "0 left out, 1 with a part of a token"),
    ("\u00ad", 18, False, 1, "Left out of training: x, as the answer has no tokens"),
    ("good", 13, True, 1, "Left out of training: x, as the answer is not where answer_start"),
    ("film ", 4, False, 2, "0 left out, 0 with"),
  ):
    caplog.clear()
    task = make_task(train_file=train_file(tmp_path, text, start), skip_bad_rows=skip)
    assert record_files.write_split(file, task, "train", tokenizer, 24) == count, text
    task.read_training_notes(file + record_files.SIDE_TABLE)
    assert message in caplog.text


def test_bad_questions_are_reported(tmp_path, tokenizer):
  file = str(tmp_path / "train.tfrecord")

  def fails(message, split="train", length=24, **changes):
    with pytest.raises(UserError, match=message):
      record_files.write_split(file, make_task(**changes), split, tokenizer, length)

  misplaced = train_file(tmp_path, "good", 13)
  fails(
    r"train.json: article 1 \(T\), paragraph 1, question x: answer_start 13 points at 'góod', "
    r"the answer is 'good'; fix the file, or pass --skip_bad_rows",
    train_file=misplaced,
  )
  fails(
    r"question fine: the 1 tokens of the question leave no room .* --max_seq_length \(4\)",
    train_file=misplaced,
    length=4,
  )
  unanswered = tiny_squad.write(tmp_path / "v2.json", 9, 1, unanswerable=True)
  fails(
    r"v2.json: article 1 \(Films\), paragraph 1, question q0-story: a question without an "
    r"answer",
    train_file=unanswered,
    train_version="v1",
  )
  no_start = tmp_path / "no_start.json"
  no_start.write_text(
    json.dumps(
      {
        "data": [
          {
            "paragraphs": [
              {
                "context": "good film",
                "qas": [{"id": "q", "question": "?", "answers": [{"text": "film"}]}],
              }
            ]
          }
        ]
      }
    )
  )
  fails(r"question q, answer 1: no key 'answer_start', which training", train_file=str(no_start))
  assert (
    record_files.write_split(file, make_task(predict_file=str(no_start)), "predict", tokenizer, 24)
    == 1
  ), "evaluation needs only the text of an answer"
  fails(
    r"no key 'answers', which training needs",
    train_file=tiny_squad.write(tmp_path / "test.json", 3, 1, answers=False),
  )
  fails(r"absent.json: no such file \(--predict_file\)", "predict", predict_file="absent.json")
  fails(r"train-v1.1.json or train-v2.0.json: no such file")
  invisible = tmp_path / "invisible.json"
  invisible.write_text(
    json.dumps(
      {
        "data": [
          {"paragraphs": [{"context": "\u00ad", "qas": []}]},
          {"paragraphs": [{"context": "a", "qas": [{"id": 1, "question": "?"}]}]},
        ]
      }
    )
  )
  fails(
    r"article 1, paragraph 1: the tokenizer leaves nothing of the context",
    "predict",
    predict_file=str(invisible),
  )


def test_default_files_are_found_by_version(tmp_path):
  task = make_task()
  task.data_dir = str(tmp_path)
  (tmp_path / "dev-v2.0.json").write_text("{}")
  assert task.input_files("predict") == [str(tmp_path / "dev-v2.0.json")]
  (tmp_path / "dev-v1.1.json").write_text("{}")
  with pytest.raises(UserError, match="both exist. Name one"):
    task.input_files("predict")
  task.settings.version_2_with_negative = True
  assert task.input_files("predict") == [str(tmp_path / "dev-v2.0.json")]


def masked_predictions(count):
  """Predictions in which every position is masked out."""
  return {
    "start_scores": np.full([count, 2], -1e30),
    "start_index": np.zeros([count, 2], int),
    "end_scores": np.full([count, 1, 2], -1e30),
    "end_index": np.zeros([count, 1, 2], int),
    "null_score": np.zeros(count),
  }


@pytest.mark.parametrize("unanswerable", [False, True])
@pytest.mark.parametrize("cls_segment_id, use_answer_class", [(0, True), (2, True), (2, False)])
def test_without_candidates_every_answer_is_empty(
  tmp_path, tokenizer, unanswerable, cls_segment_id, use_answer_class
):
  path = tiny_squad.write(tmp_path / "dev.json", 5, 3, unanswerable)
  task = make_task(
    predict_file=path,
    cls_segment_id=cls_segment_id,
    search_threshold=unanswerable,
    use_answer_class=use_answer_class,
  )
  file = str(tmp_path / "dev.tfrecord")
  count = record_files.write_split(file, task, "predict", tokenizer, 24)
  split = read_side_table(task, file)
  answers = task.answers(split.side_table, masked_predictions(count))
  assert set(answers.texts().values()) == {""}
  metrics = measure(task, split, answers)
  golds = tiny_squad.golds(path).values()
  assert metrics["exact_match"] == pytest.approx(100 * sum(not gold for gold in golds) / len(golds))


def test_threshold_is_given_or_searched(tmp_path, tokenizer, caplog):
  path = tiny_squad.write(tmp_path / "dev.json", 30, 3, unanswerable=True)
  file = str(tmp_path / "dev.tfrecord")
  task = make_task(predict_file=path, cls_segment_id=2, null_score_diff_threshold=5.0)
  record_files.write_split(file, task, "predict", tokenizer, 24)
  split = read_side_table(task, file)
  predictions = perfect_predictions(file)
  predictions["null_score"] += 3.0  # above 3: no answer; below 2: an answer
  is_cls = predictions["start_index"] == 0
  predictions["start_index"][is_cls] = predictions["end_index"][is_cls] = 6  # the first token
  assert "" not in task.answers(split.side_table, predictions).texts().values()
  task.settings.search_threshold = True
  caplog.set_level("INFO")
  answers = task.answers(split.side_table, predictions)
  assert measure(task, split, answers)["f1"] == 100.0 and answers.threshold == pytest.approx(1.0)
  assert "searched on" in caplog.text
  joined = task.join([answers, answers])
  assert joined.texts() == answers.texts() and joined.threshold == answers.threshold
  with pytest.raises(UserError, match="dev.json has no questions without an answer, so there is"):
    tiny_squad.write(tmp_path / "dev.json", 30, 3)
    record_files.write_split(file, task, "predict", tokenizer, 24)
    split = read_side_table(task, file)


def test_a_part_of_the_records_scores_only_its_questions(tmp_path, tokenizer):
  path = tiny_squad.write(tmp_path / "dev.json", 30, 3)
  task = make_task(predict_file=path)
  file = str(tmp_path / "dev.tfrecord")
  record_files.write_split(file, task, "predict", tokenizer, 16)
  split = read_side_table(task, file)
  predictions = {name: value[:11] for name, value in perfect_predictions(file).items()}
  answers = task.answers(split.side_table, predictions)
  assert 0 < len(answers.n_best) < 11
  assert measure(task, split, answers)["f1"] == 100.0


def test_files_without_answers_are_predicted_only(tmp_path, tokenizer):
  path = tiny_squad.write(tmp_path / "test.json", 10, 3, answers=False)
  task = make_task(predict_file=path)
  file = str(tmp_path / "test.tfrecord")
  count = record_files.write_split(file, task, "predict", tokenizer, 24)
  split = read_side_table(task, file)
  answers = task.answers(split.side_table, masked_predictions(count))
  assert not split.side_table.has_golds and len(answers.texts()) >= 10
  with pytest.raises(UserError, match="no question with an answer to compare with"):
    measure(task, split, answers)
  task.settings.search_threshold = True
  task.settings.version_2_with_negative = True
  with pytest.raises(UserError, match="--search_threshold needs a file with answers"):
    task.answers(split.side_table, masked_predictions(count))
  with pytest.raises(UserError, match="no such file; it maps the records' tokens to the text"):
    task.read_side_table("test", "predict", str(tmp_path / "absent"), 0)


def test_a_table_of_other_records_is_refused(tmp_path, tokenizer):
  """Decoding with another file's passages would give wrong answers without an error."""
  task = make_task(predict_file=tiny_squad.write(tmp_path / "dev.json", 10, 3))
  file = str(tmp_path / "dev.tfrecord")
  count = record_files.write_split(file, task, "predict", tokenizer, 24)
  with open(file + record_files.SIDE_TABLE) as reader:
    lines = reader.readlines()
  with open(file + record_files.SIDE_TABLE, "w") as writer:
    writer.writelines(lines[1:])
  with pytest.raises(UserError, match=rf"it holds \d+ windows, but the record file has {count}"):
    read_side_table(task, file)


# ---- Shards -------------------------------------------------------------------------------------


def read_bytes(path):
  return [open(path + suffix, "rb").read() for suffix in ("", record_files.SIDE_TABLE)]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, tokenizer):
  """Folder, task of five shards, bytes and number of records of an unsharded file."""
  folder = tmp_path_factory.mktemp("shards")
  task = make_task(predict_file=tiny_squad.write(folder / "dev.json", 170, 3))
  whole = str(folder / "whole")
  count = record_files.write_split(whole, task, "predict", tokenizer, 16)
  return folder, task, read_bytes(whole), count


def test_a_resumed_process_gives_the_same_file(sharded, tokenizer, monkeypatch):
  folder, task, expected, count = sharded
  path = str(folder / "resumed")
  assert finetuning_records.make_records(path, task, "predict", tokenizer, 16) == count
  assert read_bytes(path) == expected
  assert not tf.io.gfile.glob(path + ".shard*"), "shards are removed"

  featurize, calls, last_call = task.featurize_all, [], [100]

  def failing(example, *args):
    calls.append(example)
    if len(calls) == last_call[0]:
      raise KeyboardInterrupt
    return featurize(example, *args)

  path = str(folder / "killed")
  monkeypatch.setattr(task, "featurize_all", failing)
  with pytest.raises(KeyboardInterrupt):
    finetuning_records.make_records(path, task, "predict", tokenizer, 16)
  assert not os.path.exists(path) and len(tf.io.gfile.glob(path + ".shard-?????-of-00005")) == 2
  calls.clear()
  last_call[0] = -1
  assert finetuning_records.make_records(path, task, "predict", tokenizer, 16) == count
  assert len(calls) == 170 - 2 * 34, "finished shards are not created again"
  assert read_bytes(path) == expected


def test_parts_created_one_by_one_give_the_same_file(sharded, tokenizer):
  folder, task, expected, count = sharded
  path = str(folder / "parts")
  with pytest.raises(
    finetuning_records.Unfinished, match="part 1 of 2 is made; 3 of 5 shards are still"
  ):
    finetuning_records.make_records(path, task, "predict", tokenizer, 16, num_proc=2, proc_id=1)
  assert (
    finetuning_records.make_records(path, task, "predict", tokenizer, 16, num_proc=2, proc_id=0)
    == count
  )
  assert read_bytes(path) == expected


def test_two_processes_may_join_the_shards_at_once(sharded, tokenizer, monkeypatch):
  """One process joins and removes the shards while another reads them: the file is complete."""
  folder, task, expected, count = sharded
  path = str(folder / "at_once")
  with pytest.raises(finetuning_records.Unfinished):
    finetuning_records.make_records(path, task, "predict", tokenizer, 16, num_proc=2, proc_id=1)
  exists, state = tf.io.gfile.exists, {"is_inner": False}

  def join_in_between(name):
    """Joins the shards when the outer process checks the third part of the side table."""
    if name.endswith("00002-of-00005" + record_files.SIDE_TABLE) and not state["is_inner"]:
      state["is_inner"] = True
      assert (
        finetuning_records.make_records(path, task, "predict", tokenizer, 16, num_proc=2, proc_id=0)
        == count
      )
    return exists(name)

  monkeypatch.setattr(tf.io.gfile, "exists", join_in_between)
  with pytest.raises(finetuning_records.Unfinished, match="another process joins them"):
    finetuning_records.make_records(path, task, "predict", tokenizer, 16, num_proc=2, proc_id=0)
  assert state["is_inner"] and read_bytes(path) == expected
  assert not tf.io.gfile.glob(path + "*tmp*") and not tf.io.gfile.glob(path + ".shard*")


@pytest.mark.slow
def test_several_processes_give_the_same_file(sharded, tokenizer):
  folder, task, expected, count = sharded
  path = str(folder / "parallel")
  assert finetuning_records.make_records(path, task, "predict", tokenizer, 16, num_proc=2) == count
  assert read_bytes(path) == expected
  with pytest.raises(UserError, match="leave no room"):  # a worker's UserError reaches the caller
    finetuning_records.make_records(path + "bad", task, "predict", tokenizer, 4, num_proc=2)


def test_a_new_record_file_replaces_the_side_table(sharded, tokenizer):
  """A record file that is written again does not keep the previous side table."""
  folder, task, _, _ = sharded
  train = make_task(train_file=tiny_squad.write(folder / "train.json", 3, 1))
  path = str(folder / "again")
  record_files.write_split(path, task, "predict", tokenizer, 16)
  record_files.write_split(path, train, "train", tokenizer, 24)
  assert read_bytes(path)[1] == b""


def test_probabilities_of_large_scores_are_finite():
  assert squad_metrics.probabilities([]) == []
  assert squad_metrics.probabilities([1000.0, 1000.0]) == [0.5, 0.5]


def test_the_training_file_selects_the_rules_if_predictions_have_no_answers(tmp_path, tokenizer):
  """A file without answers does not show if questions can be unanswerable."""
  for unanswerable in (False, True):
    task = make_task(
      train_file=tiny_squad.write(tmp_path / "t.json", 9, 1, unanswerable),
      predict_file=tiny_squad.write(tmp_path / "p.json", 9, 2, answers=False),
    )
    files = {split: str(tmp_path / split) for split in ("train", "predict")}
    for split, file in files.items():
      record_files.write_split(file, task, split, tokenizer, 24)
    task.read_training_notes(files["train"] + record_files.SIDE_TABLE)
    split = read_side_table(task, files["predict"])
    assert task.model_settings() == {"has_unanswerable": unanswerable}
    assert task.is_version_2(split.side_table) == unanswerable
