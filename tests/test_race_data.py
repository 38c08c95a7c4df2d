"""Multiple choice: reading RACE, SWAG and JSONL files; settings and bad input."""

import csv
import json

import pytest
from tiny_race import task_of, write_jsonl

from errors import UserError
from tasks import race

RACE_FILE = {
  "article": "a",
  "questions": ["q", "r"],
  "options": [list("abcd"), list("efgh")],
  "answers": ["A", "D"],
}


def test_race_files_are_read(tmp_path):
  path = tmp_path / "dev" / "high" / "7.txt"
  path.parent.mkdir(parents=True)
  path.write_text(
    json.dumps(
      {
        "article": "A bus.",
        "questions": ["By _ ?", "Why?"],
        "answers": ["B", "A"],
        "id": "x",
        "options": [["a", "b", "c", "d"], ["e", "", "g", "h"]],
      }
    )
  )
  first, second = task_of(tmp_path).read_examples("dev")
  assert first == race.Question(
    "high/7.txt#1", f"{path}: question 1", "A bus.", "By _ ?", ("a", "b", "c", "d"), 1, True
  )
  assert second.id == "high/7.txt#2" and second.answer == 0 and second.options[1] == ""


@pytest.mark.parametrize(
  "change, message",
  [
    ({"options": [list("abcd"), list("efg")]}, "question 2: the answer 'D' is none of the 3 opt"),
    ({"options": [list("abc"), list("efgh")]}, "question 1: 3 options, 4 are expected"),
    ({"options": [list("abcd"), []]}, "question 2: the options must be a list of at least two"),
    ({"options": [list("abcd"), ["e", None, "g", "h"]]}, r"question 2: option B is missing"),
    ({"options": [list("abcd")]}, "2 questions but 1 options; question 2"),
    ({"answers": ["A"]}, "2 questions but 1 answers; question 2"),
    ({"answers": ["A", ""]}, "question 2: the answer is missing"),
    ({"answers": ["E", "A"]}, r"question 1: the answer 'E' is none of the 4 options: A to D"),
    ({"answers": None}, "the key 'answers' is missing"),
    ({"questions": ["q", None]}, "question 2: the question is missing"),
    ({"article": 5}, "the key 'article' is missing or holds no text"),
    ({"article": "a\ud83d"}, "3.txt: 'article' holds half of a surrogate pair"),
    ({"questions": ["q", "\ud83d"]}, r"3.txt: 'questions\[1\]' holds half of a surrogate pair"),
    ({"options": [list("abc\ud83d"), list("efgh")]}, r"'options\[0\]\[3\]' holds half of a sur"),
    ("[" * 10**5, "not valid JSON: maximum recursion"),
    ("[1]", "not a RACE passage: a JSON object is expected, here is a list"),
    ("null", "not a RACE passage: a JSON object is expected"),
    ("{", "not valid JSON"),
  ],
)
def test_bad_race_files_are_reported(tmp_path, change, message):
  path = tmp_path / "train" / "middle" / "3.txt"
  path.parent.mkdir(parents=True)
  values = {**RACE_FILE, **change} if isinstance(change, dict) else change
  path.write_text(values if isinstance(values, str) else json.dumps(values))
  with pytest.raises(UserError, match=message) as error:
    list(task_of(tmp_path).read_examples("train"))
  assert str(path) in str(error.value)


def test_evaluation_on_test_needs_answers(tmp_path):
  """--eval_split=test requires answers and has records of its own."""
  path = tmp_path / "test" / "middle" / "3.txt"
  path.parent.mkdir(parents=True)
  path.write_text(
    json.dumps({name: value for name, value in RACE_FILE.items() if name != "answers"})
  )
  plain, on_test = task_of(tmp_path), task_of(tmp_path, eval_split="test")
  assert plain.splits("dev") == ["dev"] and on_test.splits("dev") == ["test"]
  assert len(list(plain.read_examples("test"))) == 2
  with pytest.raises(UserError, match="the key 'answers' is missing"):
    list(on_test.read_examples("test"))
  assert plain.source_key("test") != on_test.source_key("test")


def test_fewer_options_are_an_error_in_race_unless_asked_for(tmp_path):
  path = tmp_path / "dev" / "high" / "3.txt"
  path.parent.mkdir(parents=True)
  path.write_text(
    json.dumps({**RACE_FILE, "options": [list("abcd"), ["e", "f"]], "answers": ["A", "B"]})
  )
  task = task_of(tmp_path, num_options=4)
  assert [len(raw.options) for raw in task.read_examples("dev")] == [4, 2]
  with pytest.raises(UserError, match="question 1: 4 options, 3 are expected"):
    list(task_of(tmp_path, num_options=3).read_examples("dev"))
  with pytest.raises(UserError, match=r"no passages \(middle or high/\*\.txt\), the train data"):
    task_of(tmp_path).input_files("train")


def test_own_questions_are_read(tmp_path):
  """Answers are letters or indices; the number of options is the largest of all files."""
  train = write_jsonl(
    tmp_path / "a.jsonl",
    [
      {"article": "p", "question": "q", "options": ["x", "y"], "answer": "b", "id": 9},
      {"context": "c", "question": "q", "options": ["x", "y", "z"], "answer": 2},
      {"question": "q", "options": [1, 2.5], "answer": "0"},
    ],
  )
  test = write_jsonl(tmp_path / "t.jsonl", [{"question": "q", "options": list("abcde")}])
  task = task_of(tmp_path, "jsonl", train_file=train, predict_file=test)
  rows = list(task.read_examples("train"))
  assert [row.answer for row in rows] == [1, 2, 0]
  assert [row.passage for row in rows] == ["p", "c", ""] and rows[2].options == ("1", "2.5")
  assert [row.id for row in rows] == ["9", "1", "2"]
  assert task.sequences_per_example == 5 and next(task.read_examples("test")).answer is None
  assert task.metadata()["num_options"] == 5
  with pytest.raises(UserError, match="no such file, the dev data of task jsonl. Name your files"):
    task.input_files("dev")
  limited = task_of(tmp_path, "jsonl", train_file=train, num_options=2)
  with pytest.raises(UserError, match="a.jsonl: line 2: 3 options, 2 are expected"):
    list(limited.read_examples("train"))


@pytest.mark.parametrize(
  "row, message",
  [
    ({"question": "q", "options": ["x", "y"]}, "line 2: the answer is missing"),
    ({"question": "q", "options": ["x", "y"], "answer": 2}, "line 2: the answer 2 is none of"),
    ({"question": "q", "options": ["x", "y"], "answer": -1}, "line 2: the answer -1 is none of"),
    ({"question": "q", "options": ["x", "y"], "answer": True}, "line 2: the answer True"),
    ({"question": "q", "options": ["x", True], "answer": 0}, "line 2: option B is missing"),
    ({"question": None, "options": ["x", "y"], "answer": 0}, "line 2: the question must be a te"),
    ({"question": "q", "context": [], "options": ["x", "y"], "answer": 0}, "line 2: the article"),
    ({"question": "q", "options": ["x", "y"], "answer": 0, "id": 0}, "line 2: the id 0 is that"),
    ({"question": "q", "options": ["x", "y"], "answer": 0, "id": "a\tb"}, "line 2: the id 'a"),
    ({"question": "q", "options": ["x"], "answer": 0}, "line 2: .* at least two texts, not 1 of"),
    ({"question": "q", "options": "x", "answer": 0}, "line 2: .* at least two texts, not 'x'"),
    *(
      (
        {"question": "q", "options": ["x", "y"], "answer": 0, key: value},
        rf"line 2: '{key}(\[1\])?' holds half of a surrogate pair",
      )
      for key, value in (
        ("question", "\ud83d"),
        ("article", "\ud83d"),
        ("id", "\ud83d"),
        ("options", ["x", "\ud83d"]),
      )
    ),
    ({"question": "q", "answer": 0}, "line 2: no key 'options'"),
    ({"options": ["x", "y"], "answer": 0}, "line 2: no key 'question'"),
  ],
)
def test_bad_own_questions_are_reported(tmp_path, row, message):
  path = write_jsonl(
    tmp_path / "a.jsonl", [{"question": "q", "options": ["x", "y"], "answer": 0}, row]
  )
  with pytest.raises(UserError, match="a.jsonl: " + message):
    list(task_of(tmp_path, "jsonl", train_file=path).read_examples("train"))


def write_swag(path, header, *rows):
  with open(path, "w", newline="") as writer:
    csv.writer(writer).writerows([header, *rows])
  return str(path)


def test_swag_files_are_read(tmp_path):
  endings = [f"ending{i}" for i in range(4)]
  write_swag(
    tmp_path / "train.csv",
    ["", "video-id", "startphrase", "sent1", "sent2", *endings, "label"],
    [0, "v", "He sat. He", "He sat.", "He", "a", "b, c", "d", "e", 2],
  )
  (only,) = task_of(tmp_path, "swag").read_examples("train")
  assert (only.passage, only.question, only.options, only.answer) == (
    "He sat.",
    "He",
    ("a", "b, c", "d", "e"),
    2,
  )
  write_swag(tmp_path / "test.csv", ["startphrase", *endings[:3]], ["He sat. He", "a", "b", "c"])
  (only,) = task_of(tmp_path, "swag").read_examples("test")
  assert (only.passage, only.question, only.answer) == ("He sat. He", "", None)
  write_swag(tmp_path / "val.csv", ["sent1", "sent2", "ending0", "ending1"], ["a", "b", "c", "d"])
  with pytest.raises(UserError, match="val.csv: no column 'label' in the header, which has 's"):
    list(task_of(tmp_path, "swag").read_examples("dev"))
  own = write_swag(
    tmp_path / "own.csv",
    ["sent1", "sent2", "ending0", "ending1", "label"],
    ["a", "b", "c", "d", "1"],
    ["a", "b"],
    ["a", "b", "c", "d", "0"],
  )
  with pytest.raises(UserError, match="own.csv: line 3: 2 columns where the header has 5"):
    list(task_of(tmp_path, "swag", train_file=own).read_examples("train"))
  rows = task_of(tmp_path, "swag", train_file=own, skip_bad_rows=True).read_examples("train")
  assert [(row.id, row.answer) for row in rows] == [("0", 1), ("2", 0)]


def test_contradictory_settings_are_refused(tmp_path):
  with pytest.raises(UserError, match="--task_name=rase is unknown; known are race, swag, jsonl"):
    task_of(tmp_path, "rase")
  with pytest.raises(UserError, match="task race has its own files"):
    task_of(tmp_path, train_file="x")
  task_of(tmp_path, max_seq_length=24, max_qa_length=20)
  with pytest.raises(UserError, match="--max_qa_length=128 does not fit into --max_seq_length=24"):
    task_of(tmp_path, max_seq_length=24, max_qa_length=128)
