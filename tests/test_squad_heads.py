"""Span heads of the encoders: variable names, numbers, candidates, short sequences, losses."""

import json
import os
import types
import zlib

import numpy as np
import pytest
import tensorflow as tf

import modeling

v1 = tf.compat.v1
GOLDEN = os.path.join(os.path.dirname(__file__), "golden")
SETTINGS = dict(
  n_best_size=4,
  start_n_top=4,
  end_n_top=3,
  conditional_end=True,
  use_answer_class=True,
  use_masked_loss=True,
  ans_loss_weight=0.5,
  cls_loss_weight=0.5,
)


def settings(**changes):
  return types.SimpleNamespace(**{**SETTINGS, **changes})


def load(name):
  """Returns (configuration, flags, data) of a golden file."""
  data = np.load(os.path.join(GOLDEN, name + ".npz"), allow_pickle=False)
  values = json.loads(str(data["config_json"]))
  flags = values.pop("flags", {})
  family = modeling.ModelConfig if "block_size" in values else modeling.BertConfig
  return family.from_dict(values), flags, data


def golden_weight(name, shape):
  """Weight of a variable in golden files: a function of its name."""
  random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
  return random.normal(0, 0.15, shape).astype(np.float32) + name.endswith("gamma")


def run(config, features, options):
  """Returns losses, candidates and variable names of the family's squad method."""
  with tf.Graph().as_default(), v1.Session() as session:
    tensors = {name: tf.constant(value) for name, value in features.items()}
    encoder = modeling.build_encoder(config, tensors, is_training=False)
    outputs = encoder.squad(options)
    names = [f"{v.op.name}\t{v.shape.as_list()}" for v in v1.trainable_variables()]
    values = {v: golden_weight(v.op.name, v.shape.as_list()) for v in v1.trainable_variables()}
    session.run(
      [v.initializer for v in values],
      {v.initializer.inputs[1]: value for v, value in values.items()},
    )
    head = {v.op.name: session.run(v) for v in v1.trainable_variables() if "squad" in v.op.name}
    losses, candidates = session.run(outputs)
  return losses, candidates, names, head


def bert_features():
  config, _, data = load("bert_pretrain")
  features = {
    name: data["in:" + name].astype(np.int32) for name in ("input_ids", "input_mask", "segment_ids")
  }
  for row, (question, total) in enumerate(((4, 12), (3, 16), (6, 9))):  # one row is full
    features["input_mask"][row] = np.arange(16) < total
    features["segment_ids"][row] = (np.arange(16) >= question) & (np.arange(16) < total)
  features |= {
    "start_positions": np.int32([5, 0, 7]),
    "end_positions": np.int32([6, 0, 7]),
    "is_impossible": np.int32([0, 1, 0]),
  }
  return config, features, data


@pytest.mark.smoke
def test_bert_head_equals_the_original():
  """Names and shapes are recorded; logits, losses and top-k are compared with NumPy."""
  config, features, data = bert_features()
  losses, found, names, head = run(config, features, settings())
  with open(os.path.join(GOLDEN, "bert_vars_squad.txt")) as reader:
    assert names == reader.read().splitlines()
  with tf.Graph().as_default(), v1.Session() as session:
    model = modeling.BertModel(
      config,
      False,
      *(tf.constant(features[name]) for name in ("input_ids", "input_mask", "segment_ids")),
    )
    session.run(
      [v.initializer for v in v1.trainable_variables()],
      {v.initializer.inputs[1]: data["w:" + v.op.name] for v in v1.trainable_variables()},
    )
    hidden = session.run(model.get_sequence_output())
  logits = hidden @ head["cls/squad/output_weights"].T + head["cls/squad/output_bias"]
  start, end = logits[..., 0], logits[..., 1]

  def cross_entropy(scores, place):
    return np.log(np.exp(scores).sum(-1)) - scores[np.arange(3), place]

  np.testing.assert_allclose(
    losses,
    (
      cross_entropy(start, features["start_positions"])
      + cross_entropy(end, features["end_positions"])
    )
    / 2,
    atol=2e-5,
  )
  np.testing.assert_allclose(found["null_score"], start[:, 0] + end[:, 0], atol=2e-5)
  for row, (question, total) in enumerate(((4, 12), (3, 16), (6, 9))):
    passage = np.arange(question, total - 1)  # without [SEP]
    for kind, scores in (("start", start), ("end", end)):
      order = passage[np.argsort(-scores[row, passage], kind="stable")][:4]
      index, values = (np.reshape(found[f"{kind}_{part}"][row], -1) for part in ("index", "scores"))
      np.testing.assert_array_equal(index[: len(order)], order)
      np.testing.assert_allclose(values[: len(order)], scores[row, order], atol=2e-5)
      assert (values[len(order) :] < -1e29).all()
  assert found["start_index"].shape == (3, 4) and found["end_index"].shape == (3, 1, 4)


@pytest.mark.smoke
@pytest.mark.parametrize(
  "attn, options", [("factorized", "cond0_ans0"), ("rel_shift", "cond1_ans1")]
)
def test_funnel_candidates_equal_the_original(attn, options):
  config, flags, data = load(f"funnel_squad_pred_{attn}_{options}")
  features = {key[3:]: data[key] for key in data.files if key.startswith("in:")}
  # Records have 1 on real tokens, the original 1 on padding.
  features["input_mask"] = (1 - features["input_mask"]).astype(np.int32)
  _, found, _, _ = run(config, features, settings(**flags))
  rows = 4 if flags["conditional_end"] else 1
  expected = {
    "start_scores": data["out:start_top_log_probs"],
    "start_index": data["out:start_top_index"],
    "end_scores": data["out:end_top_log_probs"].reshape(3, rows, 3),
    "end_index": data["out:end_top_index"].reshape(3, rows, 3),
    "null_score": data["out:cls_logits"],
  }
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, atol=5e-5, err_msg=name)


@pytest.mark.parametrize(
  "name", ["funnel_squad_train_factorized_cond1_ans1", "funnel_squad_train_rel_shift_cond0_ans0"]
)
def test_funnel_losses_equal_the_original(name):
  config, flags, data = load(name)
  features = {key[3:]: data[key] for key in data.files if key.startswith("in:")}
  features["input_mask"] = (1 - features["input_mask"]).astype(np.int32)
  losses, _, names, _ = run(config, features, settings(**flags))
  assert losses.shape == (3,)
  np.testing.assert_allclose(losses.mean(), data["out:total_loss"], atol=5e-5)
  if "cond1_ans1" in name:
    with open(os.path.join(GOLDEN, "funnel_vars_squad_train_factorized_cond1_ans1.txt")) as reader:
      assert sorted(names) == sorted(reader.read().splitlines())


def test_funnel_loss_without_the_mask():
  config, flags, data = load("funnel_squad_train_rel_shift_cond0_ans0")
  features = {key[3:]: data[key] for key in data.files if key.startswith("in:")}
  features["input_mask"] = (1 - features["input_mask"]).astype(np.int32)
  masked, found, _, _ = run(config, features, settings(**flags))
  unmasked, same, _, _ = run(config, features, settings(**flags, use_masked_loss=False))
  assert (unmasked > masked).all(), "more places share the probability"
  np.testing.assert_array_equal(found["start_index"], same["start_index"])


@pytest.mark.parametrize("family", ["bert", "funnel"])
def test_short_sequences_have_as_many_candidates(family):
  """Batches are truncated to their longest window; all have the same number of candidates."""
  if family == "bert":
    config, features, _ = bert_features()
  else:
    config, _, data = load("funnel_squad_pred_rel_shift_cond1_ans1")
    features = {key[3:]: data[key] for key in data.files if key.startswith("in:")}
    features["input_mask"] = (1 - features["input_mask"]).astype(np.int32)
  options = settings(n_best_size=30, start_n_top=30, end_n_top=20)
  _, found, _, _ = run(config, features, options)
  shape = (3, 1, 30) if family == "bert" else (3, 30, 20)
  assert found["start_scores"].shape == (3, 30) and found["end_index"].shape == shape
  assert (found["start_scores"][:, 16:] < -1e29).all()
  assert (found["start_index"] < 30).all() and (found["end_scores"][..., 16:] < -1e29).all()
