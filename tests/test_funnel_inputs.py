"""Funnel-Transformer's inputs: any length, padding, optional arguments, repeated calls."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_funnel import TINY, assert_close, assign, example, graph, hiddens

from models.funnel import FunnelTFM
from models.funnel_config import ModelConfig

v1 = tf.compat.v1


@pytest.mark.parametrize(
  "settings",
  [
    {},
    dict(truncate_seq=False),
    dict(separate_cls=False, pooling_type="max"),
    dict(block_size="1_1", pooling_size=3),
  ],
  ids=str,
)
def test_indivisible_lengths_are_padded_internally(settings):
  """Defect 5: an opaque shape error in the originals. Static and dynamic lengths alike."""
  config = ModelConfig(**dict(TINY, **settings))
  with graph() as session:
    model = FunnelTFM(config)
    placeholders = [v1.placeholder(t, [None, None]) for t in (tf.int32, tf.int32, tf.float32)]
    dynamic = hiddens(model, *placeholders)
    pooled = model.get_pooled_output(*placeholders[:1], False, *placeholders[1:])[0]
    static = {n: hiddens(model, *example(n)) for n in (7, 9)}
    assign(session)
    for length in (4, 5, 6, 7, 9):
      to = -(-length // config.total_pooling) * config.total_pooling
      short = dict(zip(placeholders, example(length), strict=True))
      pad = lambda x, value: np.pad(x, [(0, 0), (0, to - length)], constant_values=value)  # noqa: B023
      ids, seg, mask = example(length)
      long = dict(zip(placeholders, (pad(ids, 0), pad(seg, 0), pad(mask, 1)), strict=True))
      actual, expected = session.run(dynamic, short), session.run(dynamic, long)
      assert actual[0].shape == actual[1].shape == (2, length, 16)
      assert_close(actual, [x[:, : a.shape[1]] for a, x in zip(actual, expected, strict=True)])
      np.testing.assert_allclose(session.run(pooled, short), session.run(pooled, long), atol=1e-5)
      if length in static:
        assert static[length][0].shape == (2, length, 16)
        assert_close(session.run(static[length]), actual)


@pytest.mark.parametrize(
  "settings, real",
  [
    ({}, 9),
    (dict(pool_q_only=False, pooling_type="max"), 9),
    (dict(truncate_seq=False), 9),
    (dict(separate_cls=False), 9),
    (dict(pooling_size=3, block_size="1_1"), 7),
  ],
  ids=str,
)
def test_padding_does_not_change_a_row(settings, real):
  """Texts end total_pooling - 1 before the padded length, or earlier: truncate_seq drops none."""
  config = ModelConfig(**dict(TINY, **settings))
  with graph() as session:
    model = FunnelTFM(config)
    outputs = []
    for length in (9, 12, 20):
      # The same real tokens at every length: positions beyond are padding.
      ids, seg, mask = example(20, real=real)
      arrays = ids[:, :length], seg[:, :length], mask[:, :length]
      last = hiddens(model, *arrays)[0]
      summary, _ = model.get_pooled_output(
        *map(tf.constant, arrays[:1]), False, *map(tf.constant, arrays[1:])
      )
      outputs.append((last[:, :real], summary))
    assign(session)
    first, *others = session.run(outputs)
  for other in others:
    assert_close(first, other)


@pytest.mark.parametrize("blocks, decoder", [("1_1_1", "1"), ("1_1", "0"), ("1", "0")])
def test_mask_and_segments_are_optional(blocks, decoder):
  """Defect 7: the originals' decoder needs a mask."""
  config = ModelConfig(**dict(TINY, block_size=blocks, decoder_size=decoder))
  ids, _, mask = example(10)
  with graph() as session:
    model = FunnelTFM(config)
    for options in ({}, dict(use_tpu=True), dict(use_decoder=False)):
      given = hiddens(model, ids, np.zeros_like(ids), np.zeros_like(mask), **options)
      left_out = hiddens(model, ids, **options)
      assign(session)
      assert_close(*session.run([left_out, given]))
    assert model.get_pooled_output(tf.constant(ids), False)[0].shape == [2, 16]


def test_calls_of_one_object_are_independent():
  """Defect 6: the originals compute a second call with the first call's segments and mask."""
  config = ModelConfig(**TINY)
  first, second = example(16), example(12, batch=3, real=9, seed=1)
  other_segments = first[0], np.where(np.arange(16) < 8, 1, 0) * np.ones([2, 1], int), first[2]
  with graph() as session:
    model = FunnelTFM(config)
    hiddens(model, *first)
    count = len(v1.global_variables())
    repeated = [hiddens(model, *second), hiddens(model, *other_segments)]
    assert len(v1.global_variables()) == count
    fresh = [hiddens(FunnelTFM(config), *arrays) for arrays in (second, other_segments)]
    before = hiddens(model, *first)
    assign(session)
    repeated, fresh, before = session.run([repeated, fresh, before])
  assert_close(repeated[0], fresh[0])
  assert_close(repeated[1], fresh[1])
  assert np.abs(repeated[1][0] - before[0]).max() > 1e-3


def test_hidden_masks_mark_padding_at_every_level():
  ids, seg, mask = example(8, real=6)
  mask[1, 3:] = 1
  with graph() as session:
    _, every, ret_dict = FunnelTFM(ModelConfig(**TINY)).extract_hiddens(
      tf.constant(ids), False, tf.constant(seg), tf.constant(mask)
    )
    masks = session.run(ret_dict["hidden_masks"])
  assert [m.shape[1] for m in masks] == [h.shape[1] for h in every] == [8, 4, 2]
  np.testing.assert_array_equal(masks[0], [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]])
  np.testing.assert_array_equal(masks[1], [[0, 0, 0, 0], [0, 0, 1, 1]])  # 0 | 1 2 | 3 4 | 5 6
