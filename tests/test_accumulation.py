"""Gradient accumulation: the update of the whole batch in the memory of a micro-batch."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny
from test_run_classifier import assert_same_weights, weights_of

import config
from errors import UserError
from models import layers
from tasks import classification
from tasks.settings import Classification
from training import accumulation, losses, model_folder, recipes, runner, tf_compat
from training.devices import Devices, find_devices
from training.model_fn import MONITORS, ModelFn

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("accumulation")
  tiny.write_encoder(folder / "bert", dropout=0.0, num_layers=1)
  tiny.write_funnel(folder / "funnel", dropout=0.0, block_size="1_1")
  tiny.write_encoder(folder / "dropout", num_layers=1)
  tiny.write_cola(folder / "CoLA")
  return folder


def experiment_of(folder, steps, encoder="bert", name="run", **optimizer):
  """Complete settings of a small run on the data of `workspace`."""
  experiment = config.Experiment(task=Classification(task_name="cola"))
  experiment.model.pretrained = str(folder / encoder)
  experiment.raw_data.data_dir = str(folder / "CoLA")
  experiment.data.output_dir = str(folder / "records")
  experiment.trainer.model_dir = str(folder / name)
  experiment.trainer.gradient_accumulation_steps = steps
  model_folder.find_pretrained(
    experiment.model, experiment.tokenizer, experiment.trainer.model_dir, True
  )
  family = model_folder.load_model_config(experiment.model).family
  recipes.apply(
    experiment,
    {
      **recipes.load(family, "classification", "cola"),
      "max_seq_length": 24,
      "train_batch_size": 8,
      "learning_rate": 1e-3,
      **optimizer,
    },
  )
  return experiment


def runner_of(experiment):
  model_config = model_folder.load_model_config(experiment.model)
  task = classification.ClassificationTask.from_experiment(experiment, model_config.family)
  return runner.Runner(experiment, model_config, task)


# ---- Numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_means_are_over_the_whole_batch(steps):
  """sum_i w_i (table[id_i] . x_i - y_i)^2 / sum_i w_i equals NumPy's, with an unused variable."""
  rng = np.random.RandomState(0)
  ids, x, y = rng.randint(0, 4, 6), rng.normal(size=[6, 3]), rng.normal(size=6)
  weight, table = np.array([0, 5, 1, 0.1, 0, 2.0]), rng.normal(size=[5, 3])
  features = {"ids": ids, "x": x, "y": y, "w": weight, "mean": np.full(6, weight.mean())}

  with tf.Graph().as_default(), v1.Session() as session:

    def compute(part):
      variable = v1.get_variable("table", dtype=tf.float64, initializer=table)
      unused = v1.get_variable("unused", initializer=1.0)
      values = tf.reduce_sum(tf.gather(variable, part["ids"]) * part["x"], 1)
      loss = tf.reduce_mean(part["w"] * tf.square(values - part["y"])) / part["mean"][0]
      gradients = tf.gradients(loss, [variable, unused])
      return (
        {"loss": loss, "mean_y": tf.reduce_mean(part["y"])},
        list(zip(gradients, [variable, unused], strict=True)),
      )

    scalars, pairs = accumulation.accumulate(
      compute, {name: tf.constant(value) for name, value in features.items()}, steps
    )
    assert len(v1.trainable_variables()) == 2 and pairs[1][0] is None
    session.run(v1.global_variables_initializer())
    scalars, gradient = session.run([scalars, tf.convert_to_tensor(pairs[0][0])])

  error = (table[ids] * x).sum(1) - y
  wanted = np.zeros_like(table)
  np.add.at(wanted, ids, (2 * weight * error / weight.sum())[:, None] * x)
  np.testing.assert_allclose(scalars["loss"], (weight * error**2).sum() / weight.sum(), rtol=1e-12)
  np.testing.assert_allclose(scalars["mean_y"], y.mean(), rtol=1e-12)
  np.testing.assert_allclose(gradient, wanted, atol=1e-12)


def train_in_graph(experiment, num_steps):
  """Trains on fixed batches of unevenly weighted examples; returns (losses and norms, weights)."""
  rng = np.random.RandomState(1)
  model_config = model_folder.load_model_config(experiment.model)
  task = classification.ClassificationTask.from_experiment(experiment, model_config.family)
  model_fn = ModelFn(experiment, task, model_config, Devices("CPU"), num_steps, 1)
  weight = np.array([0, 3, 0.5, 0, 1, 0.1, 7, 1], np.float32)
  lengths = rng.randint(5, 20, [num_steps, 8, 1])
  batches = {
    "input_ids": rng.randint(5, model_config.vocab_size, [num_steps, 8, 24]),
    "input_mask": np.arange(24) < lengths,
    "segment_ids": np.zeros([num_steps, 8, 24]),
    "label_ids": rng.randint(0, 2, [num_steps, 8]),
    "is_real_example": np.ones([num_steps, 8]),
  }
  with tf.Graph().as_default(), v1.Session() as session:
    v1.set_random_seed(5)
    step = v1.train.get_or_create_global_step()
    features = {
      name: tf.gather(tf.constant(value, tf.int32), step) for name, value in batches.items()
    }
    features["weight"] = tf.constant(weight)
    features = losses.add_mean_weights(features, {"loss": tf.constant(weight)})
    spec = model_fn(features, None, tf_compat.load().ModeKeys.TRAIN, {})
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
    norm = dict(v1.get_collection(MONITORS))["gradient_norm"]
    curve = [session.run([spec.loss, norm, spec.train_op])[:2] for _ in range(num_steps)]
    return curve, {v.op.name: session.run(v) for v in v1.trainable_variables()}


@pytest.mark.parametrize("encoder", ["bert", "funnel"])
def test_update_equals_that_of_the_whole_batch(workspace, encoder):
  curve, weights = train_in_graph(experiment_of(workspace, 1, encoder), 4)
  curve_of_parts, weights_of_parts = train_in_graph(experiment_of(workspace, 4, encoder), 4)
  np.testing.assert_allclose(curve_of_parts, curve, atol=1e-6, rtol=1e-6)
  assert_same_weights(weights_of_parts, weights, atol=1e-6)


# ---- Graph --------------------------------------------------------------------------------------


def test_micro_batches_draw_different_dropout_masks():
  def draw(steps, seed=1):
    with tf.Graph().as_default(), v1.Session() as session:
      v1.set_random_seed(seed)
      v1.train.get_or_create_global_step()
      masks = []

      def compute(part):
        variable = v1.get_variable("v", initializer=1.0)
        masks.append(layers.dropout(variable * part["x"], 0.5))
        loss = tf.reduce_sum(masks[-1])
        return {"loss": loss}, [(tf.gradients(loss, variable)[0], variable)]

      accumulation.accumulate(compute, {"x": tf.ones([64, 2])}, steps)
      session.run(v1.global_variables_initializer())
      return session.run(masks)

  first, second = draw(2)
  assert (first != second).any() and 0 < (first != 0).mean() < 1
  np.testing.assert_array_equal(draw(2), [first, second])


def test_micro_batches_run_one_after_the_other(workspace):
  """Every computation of micro-batch i + 1 waits for the gradients of i."""
  with tf.Graph().as_default() as graph:

    def compute(part):
      variable = v1.get_variable("v", [3, 3])
      loss = tf.reduce_sum(tf.tanh(part["x"] @ variable) * tf.random.uniform([2, 3]))
      return {"loss": loss}, [(tf.gradients(loss, variable)[0], variable)]

    accumulation.accumulate(compute, {"x": tf.ones([6, 3])}, 3)

    def ancestors(op, seen):
      for parent in [tensor.op for tensor in op.inputs] + list(op.control_inputs):
        if parent not in seen:
          seen.add(parent)
          ancestors(parent, seen)
      return seen

    for index in (1, 2):
      computing = [
        op
        for op in graph.get_operations()
        if op.name.startswith(f"micro_{index}/")
        and op.type in ("MatMul", "Tanh", "RandomUniform", "ReadVariableOp")
      ]
      assert len(computing) >= 4
      for op in computing:
        names = [other.name for other in ancestors(op, set())]
        assert any(name.startswith(f"micro_{index - 1}/gradients") for name in names), op.name


# ---- Runs ---------------------------------------------------------------------------------------


def test_restarted_run_ends_with_the_same_weights(workspace):
  """Dropout is on. The second run starts from the middle checkpoint of the first."""
  settings = dict(train_steps=8, save_steps=4)
  runner_of(experiment_of(workspace, 2, "dropout", "whole", **settings)).train()
  (workspace / "restarted").mkdir()
  for path in (workspace / "whole").glob("model.ckpt-4.*"):
    shutil.copy(path, workspace / "restarted")
  v1.train.update_checkpoint_state(
    str(workspace / "restarted"), str(workspace / "restarted" / "model.ckpt-4")
  )
  runner_of(experiment_of(workspace, 2, "dropout", "restarted", **settings)).train()
  assert_same_weights(weights_of(workspace / "restarted", 8), weights_of(workspace / "whole", 8))
  lines = [json.loads(line) for line in open(workspace / "whole" / "metrics.jsonl")]
  assert {"loss", "gradient_norm", "learning_rate"} <= set(lines[0])


@pytest.mark.smoke
def test_devices_and_micro_batches_together_equal_one_device(workspace):
  """MirroredStrategy on two virtual CPU devices, two micro-batches each: weights to 1e-6."""
  weights = []
  for devices, steps in ((1, 1), (2, 2)):
    _, err = tiny.run(
      "run_classifier.py",
      "--do_train",
      "--task_name=cola",
      f"--data_dir={workspace / 'CoLA'}",
      f"--pretrained={workspace / 'bert'}",
      f"--output_dir={workspace / 'records'}",
      f"--model_dir={workspace / f'devices_{devices}'}",
      "--max_seq_length=24",
      "--train_batch_size=8",
      "--train_steps=6",
      "--learning_rate=1e-3",
      "--cls_scope=head",
      f"--num_core_per_host={devices}",
      f"--gradient_accumulation_steps={steps}",
    )
    assert ("2 x virtual CPU" in err) == (devices == 2)
    weights.append(weights_of(workspace / f"devices_{devices}", 6))
  assert_same_weights(weights[0], weights[1], atol=1e-6)


@pytest.mark.parametrize(
  "batch, devices, steps, message",
  [
    (8, 0, 3, "--train_batch_size=8 .* --gradient_accumulation_steps=3$"),
    (8, 2, 8, "--gradient_accumulation_steps=8 times 2 devices"),
  ],
)
def test_indivisible_batches_are_refused(batch, devices, steps, message):
  with pytest.raises(UserError, match=message):
    find_devices(config.Runtime(num_core_per_host=devices), batch, steps)


MEMORY = """
import resource, sys
import numpy as np
import tensorflow as tf
import modeling
from training import accumulation
v1 = tf.compat.v1
batch, steps = int(sys.argv[1]), int(sys.argv[2])
config = modeling.BertConfig(1000, 256, 4, 4, 1024, type_vocab_size=2)
with tf.Graph().as_default(), v1.Session() as session:
  optimizer = v1.train.GradientDescentOptimizer(0.1)
  def compute(part):
    features = {name: part["ids"] for name in ("input_ids", "input_mask")}
    features["segment_ids"] = tf.zeros_like(part["ids"])
    logits = modeling.build_encoder(config, features, True).classification_logits(2, None, "")
    loss = tf.reduce_mean(logits)
    return {"loss": loss}, optimizer.compute_gradients(loss)
  ids = v1.placeholder(tf.int32, [batch, None])
  scalars, gradients = accumulation.accumulate(compute, {"ids": ids}, steps)
  train_op = optimizer.apply_gradients(gradients)
  session.run(v1.global_variables_initializer())
  session.run(train_op, {ids: np.ones([batch, 1], np.int32)})  # sets the graph up
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for _ in range(2):
    session.run(train_op, {ids: np.ones([batch, 128], np.int32)})
  print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_is_that_of_a_micro_batch():
  """Growth of the resident set in training, MB: 8 micro-batches of 4 need about what one of 4 does.

  They also need two gradients of every variable, 30 MB here, and the larger graph, which is not
  counted.
  """
  megabytes = {}
  for batch, steps in ((32, 1), (32, 8), (4, 1)):
    result = subprocess.run(
      [sys.executable, "-c", MEMORY, str(batch), str(steps)],
      text=True,
      capture_output=True,
      env=dict(os.environ, PYTHONPATH=tiny.ROOT),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    megabytes[batch, steps] = int(result.stdout.split()[-1])
  print(megabytes)
  assert megabytes[32, 8] < 0.35 * megabytes[32, 1], megabytes
  assert megabytes[32, 8] < 1.3 * megabytes[4, 1] + 30, megabytes
