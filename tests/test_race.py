"""Multiple choice: sequences, records, model, scores."""

import itertools
import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_race
from tiny_funnel import GOLDEN, assign, graph
from tiny_race import task_of

import modeling
from preprocessing import record_files
from tasks import base, race
from training import inputs

v1 = tf.compat.v1
LENGTH = 20
workspace = tiny_race.workspace
tokenizer = tiny_race.tokenizer


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
def test_the_option_fills_the_blank_or_follows_the_question(text, option, joined):
  assert race.fill_in(text, option) == joined


def test_sequences_keep_the_end_of_the_option_and_the_start_of_the_passage(workspace, tokenizer):
  """Question and option are truncated at the start, the passage at the end."""
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
def test_without_passage_tokens_there_is_no_second_segment(workspace, tokenizer, passage, length):
  """The passage is empty or has no room, as in the classification of pairs."""
  features = task_of(workspace, max_qa_length=3, num_options=2).featurize(
    question(["great", "bad"], passage=passage), tokenizer, length
  )
  ids = [tokenizer.convert_text_to_ids(f"it is {word}") for word in ("great", "bad")]
  assert features["input_ids"] == [[tokenizer.cls_id, *row, tokenizer.sep_id] for row in ids]
  assert features["segment_ids"] == [[0] * 5] * 2 and features["input_mask"] == [[1] * 5] * 2


def test_records_contain_each_option_padded(workspace, tokenizer, tmp_path):
  """Length N * max_seq_length, as in the original; padded with the tokenizer's pad id."""
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
  assert np.mean(spread) < 4, "a batch has questions of similar length"
  halves = inputs.train_input_fn(source, 4, 1, 0, 2, static_shapes=False)().as_numpy_iterator()
  np.testing.assert_array_equal(
    np.concatenate([next(halves)["input_ids"] for _ in range(2)]), batches[0]["input_ids"]
  )


# ---- Model --------------------------------------------------------------------------------------


def test_logits_and_losses_equal_the_original():
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
def test_each_option_is_scored_alone_and_empty_sequences_are_masked_out(workspace, family):
  """The number of options and empty sequences do not change the score of an option."""
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


def test_accuracy_is_measured_on_all_middle_and_high_questions(workspace):
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


def test_the_first_questions_have_both_levels(workspace):
  levels = [raw.is_high for raw in task_of(workspace / "RACE").read_origins("train", 12)]
  assert 3 <= sum(levels) <= 9
