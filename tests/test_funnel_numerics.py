"""Funnel-Transformer's gradients, bfloat16, dropout, initial values and activations."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_funnel import FORMS, TINY, assert_close, assign, example, graph, hiddens, weight

from models import layers, pretraining
from models.funnel import FunnelTFM
from models.funnel_attention import relate
from models.funnel_config import ModelConfig
from models.funnel_pooling import PoolingLevel

v1 = tf.compat.v1


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_finite_differences(form):
  config = ModelConfig(**dict(TINY, block_size="1_1", d_embed=12, ff_activation="tanh"))
  draw = np.random.RandomState(0)
  ids, seg, mask = example(7, real=6)
  with graph() as session:
    last = hiddens(FunnelTFM(config, attention_type=form), ids, seg, mask)[0]
    loss = tf.reduce_sum(last * tf.constant(draw.normal(size=[2, 7, 16]), tf.float32))
    variables = v1.trainable_variables()
    gradients = [tf.convert_to_tensor(g) for g in tf.gradients(loss, variables)]
    values = [weight(v.op.name, v.shape) for v in variables]
    feed = lambda arrays: {
      v.initializer.inputs[1]: a for v, a in zip(variables, arrays, strict=True)
    }
    load = [v.initializer for v in variables]
    session.run(load, feed(values))
    gradients = session.run(gradients)
    for index, variable in enumerate(variables):
      direction = draw.normal(size=variable.shape)
      sides = []
      for step in (0.01, -0.01):
        session.run(load[index], {variable.initializer.inputs[1]: values[index] + step * direction})
        sides.append(session.run(loss))
      session.run(load[index], {variable.initializer.inputs[1]: values[index]})
      slope = (float(sides[0]) - float(sides[1])) / 0.02
      # The key's bias shifts all scores of a query alike, hence atol: its gradient is zero.
      assert slope == pytest.approx(np.sum(gradients[index] * direction), rel=0.02, abs=0.02), (
        variable.op.name
      )


@pytest.mark.parametrize("form, use_tpu", [("rel_shift", False), ("factorized", True)])
@pytest.mark.parametrize("pooling_type", ["mean", "max"])
def test_bfloat16_computes_in_bfloat16_and_stays_close(form, use_tpu, pooling_type):
  config = ModelConfig(**dict(TINY, pooling_type=pooling_type))
  arrays = example(15, real=13)
  with graph() as session:
    model = FunnelTFM(config, attention_type=form)
    half = hiddens(model, *arrays, use_bfloat16=True, use_tpu=use_tpu)
    full = hiddens(model, *arrays)
    summary, _ = model.get_pooled_output(tf.constant(arrays[0]), False, use_bfloat16=True)
    assert {x.dtype for x in half} == {tf.bfloat16} and summary.dtype == tf.float32
    assert all(v.dtype.base_dtype == tf.float32 for v in v1.global_variables())
    assign(session)
    half, full = session.run([[tf.cast(x, tf.float32) for x in half], full])
  assert_close(half, full, atol=0.15)
  assert np.mean(np.abs(half[0] - full[0])) < 0.02


def test_dropout_is_a_function_of_seed_step_and_position():
  config = ModelConfig(**dict(TINY, block_size="1_1", dropact=0.1))

  def draw(seed, step, is_training=True):
    with graph() as session:
      v1.set_random_seed(seed)
      global_step = v1.train.get_or_create_global_step()
      model = FunnelTFM(config)
      outputs = [
        hiddens(model, *example(8), is_training=is_training)[0],
        model.get_pooled_output(tf.constant(example(8)[0]), is_training)[0],
        pretraining.gumbel_sample(tf.zeros([4, 40])),
      ]
      assign(session)
      session.run(global_step.initializer, {global_step.initializer.inputs[1]: step})
      return session.run(outputs)

  first, again, later, other = draw(1, 5), draw(1, 5), draw(1, 6), draw(2, 5)
  for a, b, c, d in zip(first, again, later, other, strict=True):
    np.testing.assert_array_equal(a, b)
    assert (a != c).any() and (a != d).any()
  still, again = draw(1, 5, is_training=False), draw(2, 6, is_training=False)
  np.testing.assert_array_equal(still[0], again[0])


@pytest.mark.parametrize("form", FORMS)
def test_position_encodings_are_dropped_out(form):
  config = ModelConfig(**dict(TINY, dropout=0.5, rel_attn_type=form))
  with graph() as session:
    slots = PoolingLevel(1, tf.zeros([1, 50], tf.int32), tf.zeros([1, 50]))
    dropped, *others = session.run(relate(config, slots, slots, tf.float32).sinusoids)
  assert np.mean(dropped == 0) > 0.4
  # factorized: only the queries' sine and cosine.
  assert all(np.mean(x == 0) < 0.1 for x in others[1:])


@pytest.mark.parametrize(
  "init, largest, std",
  [("truncated_normal", 0.0401, 0.0176), ("normal", 0.2, 0.02), ("uniform", 0.1, 0.0577)],
)
def test_initial_values(init, largest, std):
  config = ModelConfig(**dict(TINY, init=init, vocab_size=2000))
  with graph() as session:
    hiddens(FunnelTFM(config), *example(8))
    session.run(v1.global_variables_initializer())
    values = {v.op.name: session.run(v) for v in v1.global_variables()}
  layer = "model/encoder/layer_0/"
  for name in (
    "model/input/word_embedding/lookup_table",
    layer + "ff/layer_1/kernel",
    layer + "rel_attn/q/kernel",
    layer + "rel_attn/r/kernel",
  ):
    assert np.abs(values[name]).max() <= largest
    assert values[name].std() == pytest.approx(std, rel=0.15)
  assert values[layer + "rel_attn/r_w_bias"].any()
  assert not values[layer + "rel_attn/k/bias"].any()
  assert (values["model/input/layer_norm/gamma"] == 1).all()


def test_activations_reach_the_feed_forward_layer():
  arrays = example(8)
  outputs = {}
  with graph() as session:
    for name in ("relu", "gelu", "tanh"):
      outputs[name] = hiddens(FunnelTFM(ModelConfig(**dict(TINY, ff_activation=name))), *arrays)[0]
    assign(session)
    outputs = session.run(outputs)
  assert np.abs(outputs["relu"] - outputs["gelu"]).max() > 1e-3
  assert np.abs(outputs["tanh"] - outputs["gelu"]).max() > 1e-3
  assert set(outputs) <= set(layers.ACTIVATIONS)
