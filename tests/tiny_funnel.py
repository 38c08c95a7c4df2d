"""A tiny Funnel-Transformer, its inputs and weights, and the names of the original's features.

The weights are a function of the variables' names (see `weight`), so golden files can omit them.
"""

import contextlib
import os
import zlib

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden")
MODELS = os.path.join(HERE, "..", "configs", "models")
FORMS = ("rel_shift", "factorized")
TINY = dict(
  vocab_size=40,
  block_size="1_1_1",
  d_model=16,
  d_embed=16,
  n_head=2,
  d_head=8,
  d_inner=32,
  decoder_size="1",
)


@contextlib.contextmanager
def graph():
  """Yields the session of a new graph. Graph rewriting is off: it takes longer than one run."""
  config = v1.ConfigProto()
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  with tf.Graph().as_default(), v1.Session(config=config) as session:
    v1.set_random_seed(1)
    yield session


def weight(name, shape):
  """Weight of the variable `name` in the golden files."""
  draws = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).normal(0, 0.15, shape)
  return draws.astype(np.float32) + np.float32(name.endswith("gamma"))


def assign(session, data=None):
  """Sets every variable to the file's weight of its name, or to `weight` of its name."""
  values = {}
  for variable in v1.global_variables():
    name = variable.op.name
    stored = data is not None and "w:" + name in data
    values[variable] = data["w:" + name] if stored else weight(name, variable.shape)
  session.run(
    [v.initializer for v in values], {v.initializer.inputs[1]: value for v, value in values.items()}
  )


def example(length, batch=2, real=None, seed=0):
  """Returns ids, segment ids with [cls] first, and mask (1 = padding) as NumPy arrays."""
  draw = np.random.RandomState(seed)
  ids, seg = draw.randint(1, 40, [batch, length]), draw.randint(0, 2, [batch, length])
  seg[:, 0] = 2
  mask = np.tile(np.arange(length) >= (length if real is None else real), [batch, 1])
  ids[mask] = seg[mask] = 0
  return ids, seg, mask.astype(np.float32)


def hiddens(model, ids, seg=None, mask=None, is_training=False, **options):
  """Returns [last_hidden, *encoder_hiddens] of a model on arrays or tensors."""
  as_tensor = lambda x: None if x is None else tf.convert_to_tensor(x)
  last, every, _ = model.extract_hiddens(
    as_tensor(ids),
    is_training,
    seg_id=as_tensor(seg),
    input_mask=as_tensor(mask),
    **dict(dict(use_decoder=True), **options),
  )
  return [last, *every]


def assert_close(actual, expected, atol=1e-5):
  assert len(actual) == len(expected)
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=atol, rtol=0)


def pretraining_features(features):
  """The original's features of ELECTRA -> ours."""
  target = tf.cast(features["target"], tf.int32)
  origin = tf.cast(features["origin_input"], tf.int32)
  return {
    "input_ids": features["masked_input"],
    "origin_ids": origin,
    "segment_ids": features["seg_id"],
    "masked_lm_ids": target,
    "input_mask": 1 - tf.cast(features["pad_mask"], tf.int32),
    "masked_lm_weights": tf.ones_like(target, tf.float32),
    "masked_lm_positions": tf.argmax(features["target_mapping"], -1, output_type=tf.int32),
  }


def electra_sums(outputs, pad_mask):
  """The original's outputs of ELECTRA from ours."""
  pad_mask = tf.cast(pad_mask, tf.float32)
  gen_loss = tf.reduce_mean(outputs["generator_losses"]) / outputs["samples"].shape[1]
  disc_loss = 50 * tf.reduce_sum(outputs["discriminator_losses"]) / tf.reduce_sum(1 - pad_mask)
  return {
    "gen_loss": gen_loss,
    "disc_loss": disc_loss,
    "total_loss": gen_loss + disc_loss,
    "samples": outputs["samples"],
    "real_ratio": 1 - tf.reduce_mean(tf.cast(outputs["is_replaced"], tf.float32)),
  }
