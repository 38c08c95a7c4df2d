"""AdamW and its schedules equal the originals' recorded updates and a NumPy implementation."""

import glob
import json
import os

import numpy as np
import pytest
import tensorflow as tf

import optimization

v1 = tf.compat.v1
GOLDEN = os.path.join(os.path.dirname(__file__), "golden")


def load(name):
  data = np.load(os.path.join(GOLDEN, name + ".npz"), allow_pickle=False)
  pick = lambda prefix: {k[len(prefix) :]: data[k] for k in data.files if k.startswith(prefix)}
  return json.loads(str(data["config_json"])), pick("w:"), pick("in:"), pick("x:"), pick("out:")


def make_optimizer(family, config, step, names):
  settings = dict(config, **config["overrides"])
  if family == "funnel":
    rate = optimization.learning_rate_schedule(
      step,
      settings["learning_rate"],
      settings["train_steps"],
      settings["warmup_steps"],
      settings["decay_method"],
      min_lr_ratio=settings["min_lr_ratio"],
      warmup_style="then_decay",
    )
    multipliers = optimization.layerwise_lr_multipliers(names, settings["lr_layer_decay_rate"])
    return optimization.AdamW(
      rate,
      settings["weight_decay"],
      settings["adam_beta1"],
      settings["adam_beta2"],
      settings["adam_epsilon"],
      settings["clip"],
      settings["adam_correction"],
      lr_multiplier=multipliers.get,
    )
  rate = optimization.learning_rate_schedule(
    step,
    config["init_lr"],
    config["num_train_steps"],
    config["num_warmup_steps"],
    warmup_style="replaces_decay" if family == "bert" else "scales_decay",
  )
  multipliers = optimization.layerwise_lr_multipliers(
    names, settings.get("layerwise_lr_decay_power", 1.0), head_gap=2
  )
  return optimization.AdamW(
    rate,
    weight_decay_rate=0.01,
    clip_norm=1.0,
    exclude_from_weight_decay=optimization.NO_WEIGHT_DECAY,
    lr_multiplier=multipliers.get,
  )


def run_updates(name, use_resource=True, as_sparse=False):
  """Makes four updates with the file's gradients; returns the weights after each, and the slots."""
  config, weights, gradients, _, _ = load(name)
  family = name.split("_")[1]
  with tf.Graph().as_default(), v1.Session() as session:
    step = v1.train.get_or_create_global_step()
    variables = {
      n: v1.get_variable(n, initializer=w, use_resource=use_resource) for n, w in weights.items()
    }
    optimizer = make_optimizer(family, config, step, weights)
    grads_and_vars = []
    for n, variable in variables.items():
      grad = tf.constant(gradients[n])
      if as_sparse and n.endswith(("word_embeddings", "lookup_table")):
        # Every row twice, with half the gradient: repeated rows must be summed, also in the norm.
        rows = np.arange(len(gradients[n]))
        grad = tf.IndexedSlices(
          tf.concat([grad * 0.5, grad * 0.5], 0),
          tf.constant(np.concatenate([rows, rows])),
          variable.shape,
        )
      grads_and_vars.append((grad, variable))
    train_op = optimizer.apply_gradients(grads_and_vars, global_step=step)
    session.run(v1.global_variables_initializer())
    history = []
    for index in range(4):
      session.run(train_op)
      assert session.run(step) == index + 1
      history.append(session.run(variables))
    slots = {
      f"{n}/{slot}": session.run(optimizer.get_slot(variables[n], slot))
      for n in variables
      for slot in ("adam_m", "adam_v")
    }
    slot_names = {v.op.name for v in v1.global_variables()} - set(variables) - {"global_step"}
  assert slot_names == set(slots)
  return history, slots


def check(name, history, slots):
  expected = load(name)[3]
  for index, weights in enumerate(history):
    for n, value in weights.items():
      np.testing.assert_allclose(
        value, expected[f"step{index + 1}/{n}"], atol=1e-6, rtol=0, err_msg=f"step {index + 1} {n}"
      )
  for n, value in slots.items():
    np.testing.assert_allclose(value, expected[f"slot/{n}"], atol=1e-6, rtol=0, err_msg=n)


CASES = sorted(
  os.path.basename(f)[:-4]
  for f in glob.glob(os.path.join(GOLDEN, "opt_*.npz"))
  if "layerdecay" not in f
)


@pytest.mark.smoke
@pytest.mark.parametrize("name", CASES)
def test_updates_equal_the_originals(name):
  check(name, *run_updates(name))


def test_golden_files_cover_three_families():
  assert {name.split("_")[1] for name in CASES} == {"bert", "electra", "funnel"}


@pytest.mark.parametrize("name", ["opt_bert_default", "opt_funnel_wd_all"])
@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize("as_sparse", [True, False])
def test_golden_files_cover_every_kind_of_variable_and_gradient(name, use_resource, as_sparse):
  check(name, *run_updates(name, use_resource, as_sparse))


@pytest.mark.parametrize("use_resource", [True, False])
def test_sparse_methods_of_the_base_class(use_resource):
  """Callers that bypass apply_gradients call _apply_sparse / _resource_apply_sparse."""

  def result(sparse):
    with tf.Graph().as_default(), v1.Session() as session:
      table = v1.get_variable(
        "table", initializer=np.ones([4, 2], np.float32), use_resource=use_resource
      )
      optimizer = optimization.AdamW(0.1, 0.01, clip_norm=0.0)
      optimizer._prepare_update([tf.constant([0.0])], None)
      optimizer._create_slots([table])
      values, indices = tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([2, 2])
      if not sparse:
        op = optimizer._update(table, tf.constant([[0.0, 0], [0, 0], [4, 6], [0, 0]]))
      elif use_resource:
        op = optimizer._resource_apply_sparse_duplicate_indices(values, table, indices)
      else:
        op = optimizer._apply_sparse_duplicate_indices(
          tf.IndexedSlices(values, indices, tf.constant([4, 2])), table
        )
      session.run(v1.global_variables_initializer())
      session.run(op)
      return session.run(table)

  np.testing.assert_allclose(result(True), result(False), atol=1e-7)


def test_cross_shard_optimizer_averages(monkeypatch):
  """Two TPU shards with the same batch give the update of one device.

  The sum over shards exists only on TPU; for two equal shards it doubles. An optimizer that summed
  without averaging would clip and apply twice the gradient.
  """
  from tensorflow.python.tpu import tpu_function, tpu_optimizer

  def result(sharded):
    with tf.Graph().as_default(), v1.Session() as session:
      x = v1.get_variable("x", initializer=np.array([1.0, -2.0], np.float32))
      optimizer = optimization.AdamW(0.1, 0.01, clip_norm=0.0)
      loss = 0.001 * tf.reduce_sum(tf.square(x))
      if sharded:
        monkeypatch.setattr(tpu_optimizer.tpu_ops, "cross_replica_sum", lambda g, *a: g + g)
        with tpu_function.tpu_shard_context(2):
          op = v1.tpu.CrossShardOptimizer(optimizer).minimize(loss)
      else:
        op = optimizer.minimize(loss)
      session.run(v1.global_variables_initializer())
      session.run(op)
      return session.run([x, optimizer.get_slot(x, "adam_m")])

  np.testing.assert_allclose(result(True), result(False), atol=1e-7)


def test_layerwise_decay_scales_the_rate_not_the_gradient():
  """The original multiplied gradients by the factor, which Adam cancelled; see the ratio."""
  name = "opt_funnel_layerdecay"
  weights, original = load(name)[1], load(name)[3]
  ours, plain = run_updates(name)[0][1], run_updates("opt_funnel_plain")[0][1]
  asked = {
    "model/input/word_embedding/lookup_table": 0.5625,
    "model/encoder/layer_0/rel_attn/q/kernel": 0.75,
    "model/decoder/layer_1/ff/layer_2/kernel": 1.0,
    "model/cola/logit/kernel": 1.0,
  }
  for n, factor in asked.items():
    moved = np.linalg.norm(plain[n] - weights[n])  # step 0 has rate 0, step 1 moves
    np.testing.assert_allclose(np.linalg.norm(ours[n] - weights[n]) / moved, factor, rtol=1e-4)
    ratio_of_original = np.linalg.norm(original[f"step2/{n}"] - weights[n]) / moved
    assert abs(ratio_of_original - 1.0) < 0.01, "the golden file no longer shows the defect"


def test_multipliers_of_bert_and_of_unknown_names():
  names = [
    "bert/embeddings/LayerNorm/gamma",
    "bert/encoder/layer_0/output/dense/kernel",
    "bert/encoder/layer_1/output/dense/kernel",
    "bert/pooler/dense/kernel",
    "output_bias",
  ]
  assert list(optimization.layerwise_lr_multipliers(names, 0.5).values()) == [
    0.25,
    0.5,
    1.0,
    1.0,
    1.0,
  ]


@pytest.mark.parametrize(
  "style, step, expected",
  [
    ("then_decay", 0, 0.0),
    ("then_decay", 5, 0.5),
    ("then_decay", 10, 1.0),
    ("then_decay", 55, 0.5),
    ("then_decay", 100, 0.0),
    ("then_decay", 1000, 0.0),
    ("replaces_decay", 5, 0.5),
    ("replaces_decay", 9, 0.9),
    ("replaces_decay", 10, 0.9),
    ("replaces_decay", 50, 0.5),
    ("scales_decay", 5, 0.475),
    ("scales_decay", 50, 0.5),
  ],
)
def test_linear_schedule(style, step, expected):
  with tf.Graph().as_default(), v1.Session() as session:
    rate = session.run(
      optimization.learning_rate_schedule(tf.constant(step), 2.0, 100, 10, warmup_style=style)
    )
  assert rate == pytest.approx(2 * expected, abs=1e-6)


def test_cosine_polynomial_constant_and_floor():
  with tf.Graph().as_default(), v1.Session() as session:
    rate = lambda step, **kw: session.run(
      optimization.learning_rate_schedule(tf.constant(step), 1.0, 100, **kw)
    )
    assert rate(50, decay_method="cos") == pytest.approx(0.5, abs=1e-6)
    assert rate(25, decay_method="cos") == pytest.approx((1 + np.cos(np.pi / 4)) / 2, abs=1e-6)
    assert rate(50, power=2.0) == pytest.approx(0.25, abs=1e-6)
    assert rate(50, min_lr_ratio=0.2) == pytest.approx(0.6, abs=1e-6)
    assert rate(200, min_lr_ratio=0.2) == pytest.approx(0.2, abs=1e-6)
    assert rate(99, decay_method="constant") == 1.0
    with pytest.raises(ValueError, match="decay_method"):
      rate(0, decay_method="exp")


def test_weight_decay_exclusions_and_inclusions():
  optimizer = optimization.AdamW(
    0.1,
    0.01,
    exclude_from_weight_decay=optimization.NO_WEIGHT_DECAY,
    include_in_weight_decay=optimization.FUNNEL_WEIGHT_DECAY,
  )
  decayed = [
    n
    for n in (
      "a/kernel",
      "a/bias",
      "a/LayerNorm/gamma",
      "a/layer_norm/beta",
      "model/layer_0/rel_attn/r_w_bias",
    )
    if optimizer._use_weight_decay(n)
  ]
  assert decayed == ["a/kernel", "model/layer_0/rel_attn/r_w_bias"]


def test_bias_correction_needs_the_step():
  with tf.Graph().as_default():
    x = v1.get_variable("x", [1])
    with pytest.raises(ValueError, match="global_step"):
      optimization.AdamW(0.1, bias_correction=True).minimize(tf.reduce_sum(x))


def test_clipping_uses_the_global_norm():
  with tf.Graph().as_default(), v1.Session() as session:
    x = v1.get_variable("x", initializer=np.zeros(2, np.float32))
    optimizer = optimization.AdamW(1.0, clip_norm=1.0)
    op = optimizer.apply_gradients([(tf.constant([3.0, 4.0]), x)])
    session.run(v1.global_variables_initializer())
    assert session.run(optimizer.gradient_norm) == pytest.approx(5.0)
    session.run(op)
    np.testing.assert_allclose(
      session.run(optimizer.get_slot(x, "adam_m")), [0.06, 0.08], atol=1e-7
    )


def test_weight_decay_waits_for_the_gradient():
  """Otherwise the forward pass could read a weight that is already decayed."""
  with tf.Graph().as_default() as graph:
    x = v1.get_variable("x", initializer=np.ones(2, np.float32))
    loss = tf.reduce_sum(tf.square(x), name="forward")
    optimization.AdamW(0.1, 0.01).minimize(loss)
    waits_for, todo = (
      set(),
      [op for op in graph.get_operations() if op.type == "AssignSubVariableOp"],
    )
    assert len(todo) == 1
    while todo:
      op = todo.pop()
      if op not in waits_for:
        waits_for.add(op)
        todo += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    gradient = next(op for op in graph.get_operations() if op.name.startswith("gradients/Square"))
    assert gradient in waits_for
