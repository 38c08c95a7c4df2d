"""Losses and gradients that are not finite: the run stops, skips the update or reloads."""

import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny

import config
import optimization
from errors import UserError
from tasks.settings import Classification
from training import garden, recovery

v1 = tf.compat.v1


def updates(gradients, **settings):
  """Weights and slots after each update of a matrix and a bias; one pair of gradients each."""
  with tf.Graph().as_default(), v1.Session() as session:
    kernel = v1.get_variable("kernel", initializer=np.float32([[1.0, -2.0], [0.5, 3.0]]))
    bias = v1.get_variable("bias", initializer=np.float32([-0.0, 4.0]))
    fed = v1.placeholder(tf.float32, [2, 2]), v1.placeholder(tf.float32, [2])
    step = v1.train.create_global_step()
    optimizer = optimization.AdamW(0.1, 0.01, bias_correction=True, **settings)
    train = optimizer.apply_gradients(zip(fed, (kernel, bias), strict=True), step)
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
    found = []
    for pair in gradients:
      session.run(train, dict(zip(fed, pair, strict=True)))
      found.append(session.run({variable.name: variable for variable in v1.global_variables()}))
    return found


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip_norm", [1.0, 0.0])
def test_an_update_that_is_not_finite_changes_only_the_step(bad, clip_norm):
  draw = np.random.RandomState(0)
  good = [(draw.randn(2, 2), draw.randn(2)) for _ in range(3)]
  broken = (good[1][0], np.array([bad, 1.0]))
  before, skipped = updates([good[0], broken], skip_nonfinite=True, clip_norm=clip_norm)
  assert (before.pop("global_step:0"), skipped.pop("global_step:0")) == (1, 2)
  for name, value in before.items():
    np.testing.assert_array_equal(value, skipped[name], name)
  assert {"kernel/adam_m:0", "kernel/adam_v:0", "bias:0"} <= before.keys()
  for one, other in zip(
    updates(good, clip_norm=clip_norm),
    updates(good, skip_nonfinite=True, clip_norm=clip_norm),
    strict=True,
  ):
    for name, value in one.items():
      np.testing.assert_array_equal(value, other[name], f"{name}: finite updates are the same")


@pytest.mark.parametrize(
  "values, wanted",
  [
    ({"recovery_max_trials": 2}, ("reload", 2, 0.0)),
    ({"recovery_max_trials": 0, "loss_upper_bound": 1e6}, ("stop", 0, 1e6)),
  ],
)
def test_keys_of_model_garden(values, wanted):
  experiment = config.Experiment(task=Classification())
  for name, value in values.items():
    assert garden.apply(experiment, f"trainer.{name}", value, "a.yaml")
  trainer = experiment.trainer
  assert (trainer.nan_policy, trainer.recovery_max_trials, trainer.loss_upper_bound) == wanted


def test_a_bound_does_not_skip():
  with pytest.raises(UserError, match="--loss_upper_bound stops training or reloads"):
    recovery.check(config.Trainer(nan_policy="skip", loss_upper_bound=3.0))


# ---- Runs of an encoder in which a word of one training example is not finite --------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("recovery")
  encoder = tiny.write_encoder(folder / "encoder")
  reader = tf.train.load_checkpoint(encoder)
  values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
  table = "bert/embeddings/word_embeddings"
  values[table][tiny.VOCAB.index("!")] = np.inf
  with tf.Graph().as_default(), v1.Session() as session:
    for name, value in values.items():
      v1.get_variable(name, initializer=value)
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
    v1.train.Saver().save(session, f"{encoder}/bert_model.ckpt", write_meta_graph=False)
  data = tiny.write_cola(folder / "CoLA")
  with open(f"{data}/train.tsv") as source:
    lines = source.read().splitlines()
  lines[20] += " !"
  with open(f"{data}/train.tsv", "w") as target:
    target.write("\n".join(lines) + "\n")
  return folder


def train(folder, name, status=0, **flags):
  values = dict(
    task_name="cola",
    pretrained=folder / "encoder",
    data_dir=folder / "CoLA",
    output_dir=folder / "records",
    model_dir=folder / name,
    max_seq_length=24,
    train_batch_size=8,
    learning_rate=1e-3,
    train_steps=12,
    log_freq=1,
    save_steps=2,
  )
  values.update(flags)
  arguments = [f"--{key}={value}" for key, value in values.items()]
  _, err = tiny.run("run_classifier.py", "--do_train", *arguments, status=status)
  assert "Traceback" not in err, err
  return err


def lines_of(folder, name):
  with open(folder / name / "metrics.jsonl") as reader:
    return [json.loads(line) for line in reader]


def weights_of(folder, name, step):
  reader = tf.train.load_checkpoint(f"{folder}/{name}/model.ckpt-{step}")
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.smoke
def test_by_default_the_run_stops_and_keeps_the_last_good_checkpoint(workspace):
  err = train(workspace, "stop", status=1)
  bad = lines_of(workspace, "stop")[-1]["step"]
  assert "loss" not in lines_of(workspace, "stop")[-1], "JSON has no NaN"
  assert f"is not a number at step {bad}; lower --learning_rate" in err, err
  newest = tf.train.latest_checkpoint(str(workspace / "stop"))
  assert newest and int(newest.rsplit("-")[-1]) < bad
  finite = weights_of(workspace, "stop", int(newest.rsplit("-")[-1]))
  table = finite.pop("bert/embeddings/word_embeddings")
  assert np.isfinite(np.delete(table, tiny.VOCAB.index("!"), axis=0)).all()
  assert all(np.isfinite(value).all() for value in finite.values())


@pytest.mark.parametrize("devices", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_skip_counts_the_update_and_goes_on(workspace, devices):
  name = f"skip{devices}"
  err = train(workspace, name, nan_policy="skip", num_core_per_host=devices)
  (bad,) = (line["step"] for line in lines_of(workspace, name) if "loss" not in line)
  assert f"Step {bad}: update skipped, its gradient is not finite" in err
  assert "1 skipped in this run" in err and len(lines_of(workspace, name)) == 12
  last = weights_of(workspace, name, 12)
  assert last["global_step"] == 12
  table = last.pop("bert/embeddings/word_embeddings")
  assert np.isfinite(np.delete(table, tiny.VOCAB.index("!"), axis=0)).all()
  assert all(np.isfinite(value).all() for value in last.values())


@pytest.mark.slow
def test_reload_reads_the_examples_in_another_order(workspace):
  """In 9 steps of the 12 of an epoch, a later order does not reach the bad example."""
  err = train(workspace, "reload", nan_policy="reload", recovery_max_trials=20, train_steps=9)
  assert re.search("reload the checkpoint of step|start again at step 0", err)
  assert "with the examples in another order" in err
  counts = [line["count"] for line in lines_of(workspace, "reload") if line["kind"] == "recovery"]
  assert counts == list(range(1, len(counts) + 1))
  assert weights_of(workspace, "reload", 9)["global_step"] == 9
  again = train(workspace, "reload", nan_policy="reload", train_steps=9)
  assert "nothing to train" in again


@pytest.mark.slow
def test_reloads_end_and_a_bound_counts_as_not_finite(workspace):
  err = train(
    workspace, "bound", status=1, nan_policy="reload", recovery_max_trials=2, loss_upper_bound=1e-3
  )
  assert err.count("start again at step 0, with the examples in another order") == 2
  assert "above --loss_upper_bound=0.001; lower --learning_rate" in err
  assert "--recovery_max_trials=2 reloads did not help" in err
  assert not os.path.exists(workspace / "bound" / "best")
