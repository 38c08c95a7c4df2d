"""The progress line and the metrics that training logs."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf

import config
from models.bert import BertConfig
from tasks import masking, pretraining
from tasks.settings import Pretraining
from training import devices, hooks, losses, recipes, tf_compat
from training.model_fn import MONITORS, ModelFn

v1 = tf.compat.v1


class Session:
  """A session in which each call makes `updates` updates, as on a TPU."""

  def __init__(self, step, updates):
    self.step, self.updates = step, updates

  def run(self, fetch):
    del fetch
    return self.step


@pytest.mark.smoke
def test_steps_are_updates_and_not_calls(tmp_path, monkeypatch):
  """From step 100 on, 4 calls of 25 updates of 8 examples take 2 seconds each."""
  clock = iter(range(0, 100, 2))
  monkeypatch.setattr(hooks.time, "perf_counter", lambda: next(clock))
  hook = hooks.ProgressHook(hooks.MetricsLog(str(tmp_path)), 100, 200, 8, log_freq=50)
  session = Session(100, 25)
  with tf.Graph().as_default():
    v1.train.create_global_step()
    hook.begin()
    hook.after_create_session(session, None)
    shown = []
    for loss in (4.0, 3.0, 2.0, 1.0):
      session.step += session.updates
      hook.after_run(
        types.SimpleNamespace(session=session),
        types.SimpleNamespace(results={"loss": loss, "tokens_per_example": 5.0}),
      )
      shown.append(hook._bar.n)
  hook.close()
  assert shown == [125, 150, 175, 200]
  lines = [json.loads(line) for line in open(tmp_path / "metrics.jsonl")]
  assert lines == [
    {
      "kind": "train",
      "step": step,
      "loss": loss,
      "tokens_per_example": 5.0,
      "milliseconds_per_step": 80.0,
      "examples_per_second": 100.0,
      "tokens_per_second": 500.0,
    }
    for step, loss in ((150, 3.0), (200, 1.0))
  ]
  events = [
    (e.step, {v.tag: v.simple_value for v in e.summary.value})
    for path in tmp_path.glob("events.*")
    for e in v1.train.summary_iterator(str(path))
    if e.summary.value
  ]
  assert events == [(line.pop("step"), line) for line in lines if line.pop("kind")]


@pytest.mark.smoke
@pytest.mark.parametrize("loss_type", ["bert", "electra"])
def test_monitors_of_micro_batches_are_those_of_the_batch(tmp_path, loss_type):
  """Ratios are exact if micro-batches have very different numbers of tokens and masks."""
  draw = np.random.RandomState(0)
  lengths, masks = np.array([3, 4, 20, 20]), np.array([1, 1, 6, 5])
  origin = draw.randint(5, 30, [4, 20])
  features = {
    "input_ids": origin,
    "origin_ids": origin,
    "segment_ids": np.zeros([4, 20]),
    "input_mask": np.arange(20) < lengths[:, None],
    "masked_lm_positions": np.tile(np.arange(6), [4, 1]),
    "masked_lm_ids": origin[:, :6],
    "masked_lm_weights": np.arange(6) < masks[:, None],
    "next_sentence_labels": [[0], [1], [-1], [1]],
    "next_sentence_positions": np.zeros([4, 1]),
  }
  features = {
    name: np.array(value, np.float32 if "weights" in name else np.int32)
    for name, value in features.items()
  }
  sequences = pretraining.Sequences(20, {"mask": 4, "pad": 0}, 30)
  task = pretraining.PretrainingTask(
    loss_type, pretraining.FunnelRecords(sequences, masking.Masking("single_token", 6)), sequences
  )
  features = losses.add_mean_weights(features, task.loss_weights(features))
  experiment = config.Experiment(task=Pretraining())
  experiment.model.init_checkpoint, experiment.trainer.model_dir = "none", str(tmp_path)
  recipes.apply(experiment, recipes.load("bert", "pretraining", loss_type))
  model_config = BertConfig(
    30,
    16,
    1,
    2,
    16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=32,
    initializer_range=0.5,
  )

  def monitors(steps):
    experiment.trainer.gradient_accumulation_steps = steps
    model_fn = ModelFn(experiment, task, model_config, devices.Devices("CPU"), 10, 1)
    with tf.Graph().as_default(), v1.Session() as session:
      v1.train.create_global_step()
      model_fn(
        {name: tf.constant(value) for name, value in features.items()},
        None,
        tf_compat.load().ModeKeys.TRAIN,
        {},
      )
      session.run(v1.global_variables_initializer())
      for variable in v1.trainable_variables():
        shape = variable.shape.as_list()
        variable.load(np.sin(np.arange(np.prod(shape)) * 1.7).reshape(shape), session)
      return session.run(dict(v1.get_collection(MONITORS)))

  whole, parts = monitors(1), monitors(2)
  wanted = {"masked_lm_accuracy", "perplexity", "tokens_per_example", "gradient_norm"}
  assert wanted <= whole.keys() == parts.keys()
  assert whole["tokens_per_example"] == lengths.mean()
  for name in (wanted | {"next_sentence_accuracy", "loss_mlm"}) & whole.keys() - (
    {"gradient_norm"} if loss_type == "electra" else set()
  ):  # which depends on the noise
    assert whole[name] == pytest.approx(parts[name], rel=1e-5), name
