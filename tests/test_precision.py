"""--precision: loss curves close to float32, loss scaling, skipped updates."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny
from test_accumulation import experiment_of, runner_of, train_in_graph
from test_run_classifier import assert_same_weights, weights_of

import config
import optimization
from errors import UserError
from tasks.settings import Classification
from training import checkpoints, params, precision

v1 = tf.compat.v1

# Largest difference of a loss, of about 0.7, to the one in float32 over 12 updates, dropout off.
TOLERANCE = {"bf16": 0.02, "fp16": 0.003}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("precision")
  tiny.write_encoder(folder / "bert", dropout=0.0, num_layers=1)
  tiny.write_funnel(folder / "funnel", dropout=0.0, block_size="1_1")
  tiny.write_cola(folder / "CoLA")
  return folder


# ---- Numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["bert", pytest.param("funnel", marks=pytest.mark.slow)])
def test_loss_curves_are_close_to_float32(workspace, encoder):
  curves = {}
  for name in ("fp32", "bf16", "fp16"):
    experiment = experiment_of(workspace, 1, encoder)
    experiment.runtime.precision = name
    curve, weights = train_in_graph(experiment, 12)
    assert all(value.dtype == np.float32 for value in weights.values())
    curves[name] = np.array(curve)[:, 0]
  assert curves["fp32"][-1] < curves["fp32"][0]
  for name, tolerance in TOLERANCE.items():
    difference = np.abs(curves[name] - curves["fp32"]).max()
    assert 0 < difference < tolerance, (name, difference)


def update(gradients, **settings):
  """Applies AdamW to a weight of 1 for each given gradient; returns the state after each update."""
  with tf.Graph().as_default(), v1.Session() as session:
    step = v1.train.get_or_create_global_step()
    weight = v1.get_variable("w", initializer=np.ones(2, np.float32))
    scale = optimization.LossScale(**settings.pop("scale")) if "scale" in settings else None
    optimizer = optimization.AdamW(0.1, 0.01, clip_norm=0.5, loss_scale=scale, **settings)
    gradient = v1.placeholder(tf.float32, [2])
    scaled = gradient if scale is None else gradient * scale.value
    train_op = optimizer.apply_gradients([(scaled, weight)], step)
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
    states = []
    for value in gradients:
      session.run(train_op, {gradient: value})
      moments = [optimizer.get_slot(weight, name) for name in ("adam_m", "adam_v")]
      state = {"w": weight, "m": moments[0], "v": moments[1], "step": step}
      if scale is not None and scale.variables:
        state |= {"scale": scale.variables[0], "good": scale.variables[1]}
      if optimizer.skipped_updates is not None:
        (state["skipped"],) = v1.local_variables()
      states.append(session.run(state))
    return states


GRADIENTS = [
  [1, 2],
  [0.1, -0.1],
  [np.inf, 1],
  [1, 1],
  [0, np.nan],
  [0.3, 0],
  [1, 0],
  [2, 2],
  [1, 1],
]
FINITE = [value for value in GRADIENTS if np.isfinite(value).all()]


@pytest.mark.parametrize(
  "settings", [{"skip_nonfinite": True}, {"scale": {"fixed": 1024.0}}, {"scale": {}}]
)
def test_updates_that_are_not_finite_change_nothing(settings):
  """The others are the updates of a run without them, bit for bit: scales are powers of two."""
  states, wanted = update(GRADIENTS, **settings), iter(update(FINITE))
  expected = {"w": np.ones(2), "m": np.zeros(2), "v": np.zeros(2)}
  for index, (value, state) in enumerate(zip(GRADIENTS, states, strict=True)):
    expected = next(wanted) if np.isfinite(value).all() else expected
    for name in "wmv":
      np.testing.assert_array_equal(state[name], expected[name])
    assert state["step"] == index + 1
    assert state["skipped"] == np.sum(~np.isfinite(GRADIENTS[: index + 1]).all(axis=1))


def test_loss_scale_doubles_and_halves():
  """After 3 finite updates in a row it doubles; each skipped update halves it and starts again."""
  states = update(GRADIENTS, scale={"initial": 8.0, "growth_updates": 3})
  assert [state["scale"] for state in states] == [8, 8, 4, 4, 2, 2, 2, 4, 4]
  assert [state["good"] for state in states] == [1, 2, 0, 1, 0, 1, 2, 0, 1]
  assert update([[np.inf, 0]] * 5, scale={"initial": 4.0})[-1]["scale"] == 1
  first = update([[1, 1]], scale={})[0]
  assert (first["scale"], first["good"]) == (2**15, 1)
  assert optimization.LossScale.__init__.__defaults__[-1] == 2000


# ---- Runs ---------------------------------------------------------------------------------------


def lines_of(folder):
  lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
  return [line for line in lines if line["kind"] == "train"]


def test_restarted_run_in_half_precision_ends_with_the_same_weights(workspace):
  def train(name):
    experiment = experiment_of(workspace, 1, "bert", name, train_steps=8, save_steps=4)
    experiment.runtime.precision = "fp16"
    experiment.trainer.log_freq = 1
    runner_of(experiment).train()
    return lines_of(workspace / name)

  lines = train("whole")
  assert [line["loss_scale"] for line in lines] == [2.0**15] * 8
  assert all(line["skipped_updates"] == 0 and line["gradient_norm"] > 0 for line in lines)
  (workspace / "restarted").mkdir()
  for path in (workspace / "whole").glob("model.ckpt-4.*"):
    shutil.copy(path, workspace / "restarted")
  prefix = str(workspace / "restarted" / "model.ckpt-4")
  v1.train.update_checkpoint_state(str(workspace / "restarted"), prefix)
  assert checkpoints.open_reader(prefix).get_tensor("loss_scale_good_updates") == 4
  assert train("restarted")[-1]["loss"] == lines[-1]["loss"]
  assert_same_weights(weights_of(workspace / "restarted", 8), weights_of(workspace / "whole", 8))


def test_checkpoint_without_loss_scale_is_refused(workspace):
  prefix = str(workspace / "bert" / "bert_model.ckpt")
  with tf.Graph().as_default(), pytest.raises(UserError, match=f"{prefix}: has no loss scale"):
    checkpoints.check(prefix, optimization.LossScale().variables)


def test_overflow_of_a_fixed_scale_is_counted(workspace):
  """float16 ends at 65504, so every scaled gradient overflows, and no weight changes."""
  experiment = experiment_of(workspace, 1, "bert", "overflow", train_steps=3)
  experiment.runtime.precision, experiment.runtime.loss_scale = "fp16", "1e30"
  experiment.trainer.log_freq = 1
  runner_of(experiment).train()
  lines = lines_of(workspace / "overflow")
  assert "gradient_norm" not in lines[-1] and lines[-1]["skipped_updates"] == 3
  reader = checkpoints.open_reader(str(workspace / "overflow" / "model.ckpt-3"))
  for name in ("bert/pooler/dense/kernel", "bert/embeddings/word_embeddings"):
    before = checkpoints.open_reader(str(workspace / "bert" / "bert_model.ckpt")).get_tensor(name)
    np.testing.assert_array_equal(reader.get_tensor(name), before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_devices_and_micro_batches_together_equal_one_device(workspace, kind):
  """MirroredStrategy on two virtual CPU devices, two micro-batches each: close losses."""
  losses = []
  for devices, steps in ((1, 1), (2, 2)):
    name = f"{kind}_{devices}"
    tiny.run(
      "run_classifier.py",
      *("--do_train", "--task_name=cola", f"--data_dir={workspace / 'CoLA'}"),
      *(f"--pretrained={workspace / 'bert'}", f"--output_dir={workspace / 'records'}"),
      *(f"--model_dir={workspace / name}", "--max_seq_length=24", "--train_batch_size=8"),
      *("--train_steps=6", "--learning_rate=1e-3", "--log_freq=1", f"--precision={kind}"),
      *(f"--num_core_per_host={devices}", f"--gradient_accumulation_steps={steps}"),
    )
    lines = lines_of(workspace / name)
    losses.append([line["loss"] for line in lines])
    if kind == "fp16":
      assert (lines[-1]["loss_scale"], lines[-1]["skipped_updates"]) == (2**15, 0)
  np.testing.assert_allclose(*losses, atol=TOLERANCE[kind])


# ---- Settings -----------------------------------------------------------------------------------


def test_settings_of_the_precision():
  assert precision.of(config.Runtime()) == "fp32"
  assert precision.of(config.Runtime(use_bfloat16=True)) == "bf16"
  assert precision.of(config.Runtime(use_bfloat16=True, precision="bf16")) == "bf16"
  with pytest.raises(UserError, match="--use_bfloat16 and --precision=fp16 contradict"):
    precision.of(config.Runtime(use_bfloat16=True, precision="fp16"))
  for text in ("0", "-1", "nan", "high"):
    with pytest.raises(UserError, match=f"--loss_scale={text} is neither dynamic nor a positive"):
      precision.of(config.Runtime(precision="fp16", loss_scale=text))
  with pytest.raises(UserError, match="--loss_scale=128 is for --precision=fp16"):
    precision.of(config.Runtime(loss_scale="128"))


@pytest.mark.parametrize(
  "garden, wanted, scale",
  [
    ({"mixed_precision_dtype": "float16", "loss_scale": "dynamic"}, "fp16", 0),
    ({"mixed_precision_dtype": "float16", "loss_scale": 128}, "fp16", 128),
    ({"mixed_precision_dtype": "bfloat16", "loss_scale": None}, "bf16", 0),
    ({"mixed_precision_dtype": "float32"}, "fp32", 0),
  ],
)
def test_model_garden_precision(garden, wanted, scale):
  experiment = config.Experiment(task=Classification())
  params.apply(experiment, [(f"runtime.{key}", value, "x") for key, value in garden.items()])
  assert precision.of(experiment.runtime) == wanted
  assert precision.fixed_loss_scale(experiment.runtime) == scale
