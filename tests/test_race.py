"""Multiple choice: reading, records, heads, scores, run_race.py end to end."""

import csv
import itertools
import json
import os
import random

import numpy as np
import pytest
import tensorflow as tf
import tiny
from test_funnel import GOLDEN, assign, graph
from test_run_classifier import read_json, weights_of
from test_wrappers import wrapper

import config
import modeling
import tokenization
from errors import UserError
from preprocessing import record_files
from tasks import base, race
from tasks.settings import Race
from training import inputs

v1 = tf.compat.v1
LENGTH = 20


def passages(count, seed):
  """RACE passages about one film each; the right option is the one good word."""
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
  """Writes RACE's layout with so many passages for each level; returns the folder as str."""
  for (split, count), level in itertools.product(counts, race.LEVELS):
    place = folder / split / level
    place.mkdir(parents=True)
    for values in passages(count, f"{split}{level}"):
      (place / values["id"]).write_text(json.dumps(values))
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


def question(options, answer=0, passage="the film", text="it is"):
  return race.Question("1", "file: 1", passage, text, tuple(options), answer)


# ---- Sequences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "text, option, joined",
  [
    ("He goes by _ .", "bus", "He goes by bus ."),
    ("Why?", "For fun.", "Why? For fun."),
    ("_ and ____", r"\1", r"\1 and \1"),
    ("", "only this", "only this"),
  ],
)
def test_the_option_fills_the_blank_or_follows(text, option, joined):
  assert race.fill_in(text, option) == joined


def test_sequences_of_an_example(workspace, tokenizer):
  """Ends of question and option are kept, beginnings of the passage."""
  task = task_of(workspace, max_qa_length=3, cls_segment_id=2, num_options=3)
  features = task.featurize(
    question(["great", "a very very bad story"], 1, "the film was quite good ."), tokenizer, 9
  )
  cls, sep = tokenizer.cls_id, tokenizer.sep_id
  ids = lambda text: tokenizer.convert_text_to_ids(text)
  assert features["input_ids"] == [
    [cls, *ids("it is great"), sep, *ids("the film was"), sep],
    [cls, *ids("very bad story"), sep, *ids("the film was"), sep],
    [],
  ]
  assert features["segment_ids"] == [[2, 0, 0, 0, 0, 1, 1, 1, 1]] * 2 + [[]]
  assert features["input_mask"] == [[1] * 9] * 2 + [[]]
  assert (features["label_ids"], features["is_high_example"]) == (1, 0)
  assert ids("it is great") == [tiny.VOCAB.index(word) for word in ("it", "is", "great")]


@pytest.mark.parametrize("passage, length", [("", 9), (" ", 9), ("the film", 6)])
def test_no_passage_is_no_second_segment(workspace, tokenizer, passage, length):
  """An empty passage, and one that has no room, which is as in classification of pairs."""
  features = task_of(workspace, max_qa_length=3, num_options=2).featurize(
    question(["great", "bad"], passage=passage), tokenizer, length
  )
  ids = [tokenizer.convert_text_to_ids(f"it is {word}") for word in ("great", "bad")]
  assert features["input_ids"] == [[tokenizer.cls_id, *row, tokenizer.sep_id] for row in ids]
  assert features["segment_ids"] == [[0] * 5] * 2 and features["input_mask"] == [[1] * 5] * 2


def test_records_hold_each_option_padded(workspace, tokenizer, tmp_path):
  """Of the original's length, N * max_seq_length, padded with the tokenizer's own id."""
  task = task_of(workspace / "RACE")
  path = str(tmp_path / "dev.tfrecord")
  count = record_files.write_split(path, task, "dev", tokenizer, LENGTH)
  questions = list(task.read_examples("dev"))
  assert (
    count
    == len(questions)
    == sum(len(json.loads(open(name).read())["questions"]) for name in task.input_files("dev"))
  )
  for record, raw in zip(tf.data.TFRecordDataset(path), questions, strict=True):
    feature = tf.train.Example.FromString(record.numpy()).features.feature
    value = {name: list(feature[name].int64_list.value) for name in feature}
    wanted = task.featurize(raw, tokenizer, LENGTH)
    assert len(value["input_ids"]) == 4 * LENGTH
    for index in range(4):
      for name in ("input_ids", "input_mask", "segment_ids"):
        row, own = value[name][index * LENGTH : (index + 1) * LENGTH], wanted[name][index]
        assert row == own + [0] * (LENGTH - len(own))
    assert value["is_high_example"] == [int(raw.is_high)]
    assert value["label_ids"] == [raw.answer] and value["is_real_example"] == [1]
  record_files.check_lengths(path, task.feature_specs, LENGTH * task.sequences_per_example)
  assert record_files.to_example(
    {"x": [[1], [2, 3]]}, [record_files.FeatureSpec("x", True, pad_value=None)], 3, pad_id=7
  ) == record_files.to_example(
    {"x": [1, 7, 7, 2, 3, 7]}, [record_files.FeatureSpec("x", True)], 6, 0
  )

  source = inputs.RecordSource([path], count, task, LENGTH, modeling.BertConfig(9).padded_length)
  input_fn = inputs.train_input_fn(source, 4, 1, 0, 1, static_shapes=False)
  batches = list(itertools.islice(input_fn().as_numpy_iterator(), 6))
  for batch in batches:
    longest = batch["input_mask"].sum(-1).max()
    assert batch["input_ids"].shape == (4, 4, min(-(-longest // 8) * 8, LENGTH))
    assert batch["label_ids"].shape == (4,)
  spread = [np.ptp(batch["input_mask"].sum(-1).max(-1)) for batch in batches]
  assert np.mean(spread) < 4, "batches are of questions of like length"
  halves = inputs.train_input_fn(source, 4, 1, 0, 2, static_shapes=False)().as_numpy_iterator()
  np.testing.assert_array_equal(
    np.concatenate([next(halves)["input_ids"] for _ in range(2)]), batches[0]["input_ids"]
  )


# ---- Model --------------------------------------------------------------------------------------


def test_golden_numbers_of_the_original():
  data = np.load(os.path.join(GOLDEN, "funnel_race_rel_shift_base.npz"))
  values = json.loads(str(data["config_json"]))
  values.pop("flags")
  model_config = modeling.ModelConfig.from_dict(values)
  task = task_of("")
  with graph() as session:
    features = {
      name: tf.reshape(tf.constant(data["in:" + name], tf.int32), [2, 4, 16])
      for name in ("input_ids", "segment_ids", "input_mask")
    }
    features["input_mask"] = 1 - features["input_mask"]
    features.update(
      label_ids=tf.constant(data["in:label_ids"]), weight=tf.ones([2]), is_real_example=tf.ones([2])
    )
    output = task.build(modeling.build_encoder(model_config, features, False), features)
    assign(session, data)
    logits, losses = session.run([output.predictions["logits"], output.losses["loss"]])
    names = [f"{v.op.name}\t{v.shape.as_list()}" for v in v1.trainable_variables()]
  np.testing.assert_allclose(logits, data["out:logits"], atol=2e-5)
  np.testing.assert_allclose(losses, data["out:per_example_loss"], atol=2e-5)
  with open(os.path.join(GOLDEN, "funnel_vars_race_factorized_base.txt")) as reader:
    assert set(names) <= set(reader.read().splitlines())
  assert "model/race/logits/kernel\t[16, 1]" in names


@pytest.mark.parametrize("family", ["bert", "funnel"])
def test_each_option_is_scored_by_itself_and_fill_is_masked_out(workspace, family):
  """Scores are those of the options one by one; N and empty sequences change nothing else."""
  model_config = modeling.load_config(
    str(workspace / family / ("bert_config.json" if family == "bert" else "net_config.json"))
  )
  rng = np.random.RandomState(3)
  ids = rng.randint(5, model_config.vocab_size, [3, 4, 16])
  mask = (np.arange(16) < rng.randint(4, 13, [3, 4, 1])).astype(int)
  mask[1, 3] = mask[2, 2:] = 0  # three options, and two

  def run(ids, mask, labels):
    features = {
      "input_ids": ids * mask,
      "input_mask": mask,
      "segment_ids": np.zeros_like(ids),
      "label_ids": labels,
      "is_real_example": np.ones_like(labels),
    }
    task = task_of("", num_options=ids.shape[1])
    with graph() as session:
      features = {name: tf.constant(value, tf.int32) for name, value in features.items()}
      features["weight"] = tf.ones([len(labels)])
      output = task.build(modeling.build_encoder(model_config, features, False), features)
      session.run(v1.global_variables_initializer())
      names = {v.op.name: v.shape.as_list() for v in v1.trainable_variables()}
      return *session.run([output.predictions, output.losses["loss"]]), names

  predictions, losses, names = run(ids, mask, np.array([0, 1, 1]))
  if family == "bert":
    assert names["output_weights"] == [1, 16] and names["output_bias"] == [1]
  probabilities = predictions["probabilities"]
  twice = lambda values: np.repeat(values.reshape(12, 1, 16), 2, axis=1)
  alone, _, _ = run(twice(ids), twice(mask), np.zeros(12, int))  # each option next to itself
  for row, count, label in ((0, 4, 0), (1, 3, 1), (2, 2, 1)):
    scores = alone["logits"][4 * row : 4 * row + count, 0]
    wanted = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(probabilities[row, :count], wanted, atol=1e-5)
    assert not probabilities[row, count:].any()
    assert losses[row] == pytest.approx(-np.log(wanted[label]), abs=1e-5)


# ---- Scores and predictions ---------------------------------------------------------------------


def test_accuracy_all_middle_high(workspace):
  task = task_of(workspace / "RACE")
  rng = np.random.RandomState(0)
  predictions = {
    "probabilities": rng.dirichlet(np.ones(4), 50),
    "label_ids": rng.randint(0, 4, 50),
    "is_high_example": rng.randint(0, 2, 50),
  }
  right = [
    np.argmax(p) == label
    for p, label in zip(predictions["probabilities"], predictions["label_ids"], strict=True)
  ]
  high = [r for r, level in zip(right, predictions["is_high_example"], strict=True) if level]
  middle = [r for r, level in zip(right, predictions["is_high_example"], strict=True) if not level]
  values = task.combine({"dev": task.score(base.Split("dev"), predictions)})
  assert values == pytest.approx(
    {
      "accuracy": sum(right) / 50,
      "score": sum(right) / 50,
      "accuracy_high": sum(high) / len(high),
      "accuracy_middle": sum(middle) / len(middle),
    }
  )
  assert task.metric_names([base.Split("dev")]) == {*values, "loss"}
  one_level = {
    name: value[predictions["is_high_example"] == 1] for name, value in predictions.items()
  }
  assert set(task.score(base.Split("dev"), one_level)) == {"accuracy"}


def test_the_first_questions_are_of_both_levels(workspace):
  levels = [raw.is_high for raw in task_of(workspace / "RACE").read_origins("train", 12)]
  assert 3 <= sum(levels) <= 9


# ---- Files --------------------------------------------------------------------------------------


def test_questions_of_race(tmp_path):
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


RACE_FILE = {
  "article": "a",
  "questions": ["q", "r"],
  "options": [list("abcd"), list("efgh")],
  "answers": ["A", "D"],
}


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
    ({"questions": ["q", "\ud83d"]}, "question 2: 'questions' holds half of a surrogate pair"),
    ({"options": [list("abc\ud83d"), list("efgh")]}, "question 1: 'options' holds half of a sur"),
    ("[" * 10**5, "not valid JSON: maximum recursion"),
    ("[1]", "not a RACE passage: a JSON object is expected, here is a list"),
    ("null", "not a RACE passage: a JSON object is expected"),
    ("{", "not valid JSON"),
  ],
)
def test_bad_race_files_are_told(tmp_path, change, message):
  path = tmp_path / "train" / "middle" / "3.txt"
  path.parent.mkdir(parents=True)
  values = {**RACE_FILE, **change} if isinstance(change, dict) else change
  path.write_text(values if isinstance(values, str) else json.dumps(values))
  with pytest.raises(UserError, match=message) as error:
    list(task_of(tmp_path).read_examples("train"))
  assert str(path) in str(error.value)


def test_evaluation_on_the_test_data(tmp_path):
  """--eval_split=test: their answers are then required, and their records are others."""
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


def write_jsonl(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def test_own_questions(tmp_path):
  """Letters and indices; article, context or neither; the most options of all files count."""
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
        f"line 2: '{key}' holds half of a surrogate pair",
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
def test_bad_own_questions_are_told(tmp_path, row, message):
  path = write_jsonl(
    tmp_path / "a.jsonl", [{"question": "q", "options": ["x", "y"], "answer": 0}, row]
  )
  with pytest.raises(UserError, match="a.jsonl: " + message):
    list(task_of(tmp_path, "jsonl", train_file=path).read_examples("train"))


def write_swag(path, header, *rows):
  with open(path, "w", newline="") as writer:
    csv.writer(writer).writerows([header, *rows])
  return str(path)


def test_swag(tmp_path):
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


def test_settings_that_contradict(tmp_path):
  with pytest.raises(UserError, match="--task_name=rase is unknown; known are race, swag, jsonl"):
    task_of(tmp_path, "rase")
  with pytest.raises(UserError, match="task race has its own files"):
    task_of(tmp_path, train_file="x")
  task_of(tmp_path, max_seq_length=24, max_qa_length=20)
  with pytest.raises(UserError, match="--max_qa_length=128 does not fit into --max_seq_length=24"):
    task_of(tmp_path, max_seq_length=24, max_qa_length=128)


# ---- Runs ---------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_published_command(workspace):
  """The released Funnel command with local paths, and predictions of the test questions."""
  model, model_dir = workspace / "funnel", workspace / "exp" / "race"
  out, err = tiny.run(
    "run_race.py",
    f"--data_dir={workspace / 'RACE'}",
    f"--output_dir={workspace / 'proc_data' / 'race'}",
    f"--model_dir={model_dir}",
    "--uncased=True",
    "--tokenizer_type=word_piece",
    f"--tokenizer_path={model / 'vocab.uncased.txt'}",
    f"--model_config_path={model / 'net_config.json'}",
    f"--init_checkpoint={model / 'model.ckpt'}",
    "--max_seq_length=24",
    "--max_qa_length=8",
    "--do_train=True",
    "--do_eval=True",
    "--train_batch_size=8",
    "--eval_batch_size=16",
    "--train_steps=40",
    "--save_steps=20",
    "--iterations=20",
    "--warmup_steps=4",
    "--learning_rate=5e-3",
    "--num_hosts=1",
    "--num_core_per_host=1",
    "--use_bfloat16=False",
    "--gradient_accumulation_steps=2",
    "--do_predict",
  )
  results = read_json(model_dir / "eval_results.json")
  assert results["best_value"] > 0.9, "the good word must be learnt"
  assert {"accuracy", "accuracy_middle", "accuracy_high", "loss"} <= set(results)
  assert "race dev: accuracy" in out
  assert "Recipe funnel_race, task race:" in err and "num_train_epochs=4.3703" in err
  assert {
    "model/race/logits/kernel",
    "model/race/logits/kernel/adam_m",
    "model/sequnece_summary/summary/kernel",
  } <= set(weights_of(model_dir, 40))
  assert tf.io.gfile.glob(str(workspace / "proc_data" / "race" / "race.len-24.train.*.tfrecord"))
  with open(model_dir / "predictions.test.tsv") as reader:
    rows = list(csv.DictReader(reader, delimiter="\t"))
  questions = list(task_of(workspace / "RACE").read_examples("test"))
  assert [row["id"] for row in rows] == [raw.id for raw in questions]
  for row in rows:
    values = [float(row[f"probability_{letter}"]) for letter in "ABCD"]
    assert sum(values) == pytest.approx(1, abs=1e-3)
    assert row["prediction"] == "ABCD"[int(row["prediction_index"])]
    assert values[int(row["prediction_index"])] == max(values)
  right = np.mean(
    [row["prediction"] == "ABCD"[raw.answer] for row, raw in zip(rows, questions, strict=True)]
  )
  assert f"race test: accuracy {right:.4f}" in out


def test_own_questions_with_bert(workspace):
  """Questions of two to four options, an update in micro-batches."""
  rows = [
    {
      "article": values["article"],
      "question": text,
      "options": options[: 4 - index % 3],
      "answer": answer,
    }
    for index, values in enumerate(passages(60, "own"))
    for text, options, answer in zip(
      values["questions"], values["options"], values["answers"], strict=True
    )
    if "ABCD".index(answer) < 4 - index % 3
  ]
  files = [
    f"--train_file={write_jsonl(workspace / 'train.jsonl', rows[8:])}",
    f"--eval_file={write_jsonl(workspace / 'dev.jsonl', rows[:8])}",
  ]
  out, _ = tiny.run(
    "run_race.py",
    "--task_name=jsonl",
    f"--pretrained={workspace / 'bert'}",
    *files,
    f"--output_dir={workspace / 'own'}",
    "--max_seq_length=24",
    "--max_qa_length=8",
    "--train_batch_size=8",
    "--learning_rate=5e-3",
    "--train_steps=30",
    "--gradient_accumulation_steps=4",
  )
  assert "jsonl dev: accuracy" in out and "accuracy_high" not in out
  assert read_json(workspace / "own" / "eval_results.json")["accuracy"] > 0.8
  assert weights_of(workspace / "own", 30)["output_weights"].shape == (1, 16)
  # The records alone, without the files they were made of.
  (path,) = tf.io.gfile.glob(str(workspace / "own" / "jsonl.len-24.dev.*.tfrecord"))
  again, _ = tiny.run(
    "run_race.py",
    "--task_name=jsonl",
    "--do_eval",
    f"--pretrained={workspace / 'bert'}",
    f"--eval_data_path={path}",
    f"--input_meta_data_path={path}.meta.json",
    "--num_options=4",
    f"--data_dir={workspace / 'nothing'}",
    f"--model_dir={workspace / 'own'}",
    "--max_seq_length=24",
    "--max_qa_length=8",
  )
  assert again.split("(")[0] == out.split("(")[0]


@pytest.mark.parametrize("name", ["tpu_race", "gpu_race"])
def test_wrappers(name):
  result = wrapper(
    name,
    "--dry_run",
    "--seed=7",
    MODEL_DIR="/m",
    RACE_DIR="/r",
    GS_ROOT="gs://b",
    TPU_NAME="t",
    LEARNING_RATE="3e-5",
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.count("run_race.py") == 1 and result.stdout.rstrip().endswith("--seed=7")
  for flag in (
    "--pretrained=/m",
    "--data_dir=/r",
    "--learning_rate=3e-5",
    "--max_seq_length=512",
    "--max_qa_length=128",
    "--train_batch_size=16",
    "--train_steps=24000",
    "--warmup_steps=2400",
    "--save_steps=2400",
  ):
    assert flag in result.stdout.split(), flag
  assert ("--use_tpu=True --tpu=t --use_bfloat16=True" in result.stdout) == (name == "tpu_race")
