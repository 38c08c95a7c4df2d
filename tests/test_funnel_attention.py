"""Funnel-Transformer's attention: relative positions, segments, pooling and upsampling."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_funnel import FORMS, TINY, assert_close, assign, example, graph, hiddens

import config
from errors import UserError
from models.funnel import FunnelTFM
from models.funnel_attention import position_scores, relate
from models.funnel_config import ModelConfig
from models.funnel_pooling import PoolingLevel, pool, pool_windows, upsample
from training import runner

v1 = tf.compat.v1


def random_config(draw):
  pick = lambda *values: values[draw.randint(len(values))]
  blocks = pick("1", "1_1", "1_1_1", "1x2_2", "1_1x2_1")
  return ModelConfig(
    **dict(
      TINY,
      block_size=blocks,
      d_embed=pick(16, 12),
      ff_activation=pick("relu", "gelu", "tanh"),
      decoder_size="0" if blocks == "1" else pick("0", "1", "1x2"),
      pooling_type=pick("mean", "max"),
      pooling_size=pick(2, 2, 3, 4),
      pool_q_only=pick(True, False),
      separate_cls=pick(True, False),
      truncate_seq=pick(True, False),
    )
  )


@pytest.mark.parametrize("seed", range(8))
def test_rel_shift_equals_factorized(seed):
  draw = np.random.RandomState(seed)
  config, length = random_config(draw), draw.randint(1, 40)
  ids, seg = draw.randint(0, 40, [2, length]), draw.randint(0, 3, [2, length])
  mask = draw.uniform(size=[2, length]) < 0.3
  with graph() as session:
    outputs = [hiddens(FunnelTFM(config, attention_type=form), ids, seg, mask) for form in FORMS]
    assign(session)
    rel_shift, factorized = session.run(outputs)
  assert rel_shift[0].shape[1] == length or len(config.blocks) == 1
  assert_close(rel_shift, factorized)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pooling_size", [2, 3])
@pytest.mark.parametrize("separate_cls, truncate_seq", [(True, True), (True, False), (False, True)])
def test_position_scores_equal_the_definition(form, pooling_size, separate_cls, truncate_seq):
  """The definition is q . R(p_q - p_k) W, with positions selected one by one in NumPy."""
  config = ModelConfig(
    **dict(
      TINY,
      rel_attn_type=form,
      pooling_size=pooling_size,
      dropout=0.0,
      separate_cls=separate_cls,
      truncate_seq=truncate_seq,
    )
  )
  draw = np.random.RandomState(0)
  kernel = draw.normal(size=[16, 2, 8])
  positions = [np.arange(18)]
  for _ in range(2):
    last = positions[-1]
    rest = last[1:-1] if truncate_seq else last[1:]
    positions.append(
      np.append(last[:1], rest[::pooling_size]) if separate_cls else last[::pooling_size]
    )
  frequencies = 10000.0 ** (-np.arange(8) / 8)
  with graph() as session:
    levels = [PoolingLevel(1, tf.zeros([1, 18], tf.int32), tf.zeros([1, 18]))]
    levels += [levels[0].pool(config), levels[0].pool(config).pool(config)]
    for query, key in [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]:
      q = draw.normal(size=[2, 1, len(positions[query]), 8])
      structure = relate(config, levels[query], levels[key], tf.float32)
      actual, not_cls = session.run(
        [
          position_scores(
            config, tf.constant(q, tf.float32), tf.constant(kernel, tf.float32), structure
          ),
          structure.not_cls,
        ]
      )
      angles = (positions[query][:, None] - positions[key])[:, :, None] * frequencies
      encodings = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
      expected = np.einsum("nbid,mnd,ijm->nbij", q, kernel, encodings)
      np.testing.assert_allclose(actual * not_cls, expected * not_cls, atol=3e-5)
      assert not_cls[1:, 1:].all() and not not_cls[0].any() and not not_cls[:, 0].any()


@pytest.mark.parametrize("how", ["mean", "max", "min"])
def test_pooling_windows_ignore_positions_beyond_the_end(how):
  draw = np.random.RandomState(0)
  for length, size in [(6, 2), (7, 2), (7, 3), (8, 3), (5, 4), (2, 4), (0, 2)]:
    x = draw.normal(size=[2, length, 3]).astype(np.float32) - 5  # all negative: zeros would show
    parts = [getattr(np, how)(x[:, i : i + size], axis=1) for i in range(0, length, size)]
    with graph() as session:
      actual = session.run(pool_windows(tf.constant(x), size, how))
    np.testing.assert_allclose(
      actual, np.stack(parts, 1) if parts else np.zeros([2, 0, 3]), rtol=1e-6
    )


@pytest.mark.parametrize("pooling_size", [2, 3, 4])
@pytest.mark.parametrize("separate_cls, truncate_seq", [(True, True), (True, False), (False, True)])
def test_upsampling_repeats_the_slot_of_each_position(pooling_size, separate_cls, truncate_seq):
  """Defect 4: the originals repeat by 2 for any pooling size."""
  config = ModelConfig(
    **dict(TINY, pooling_size=pooling_size, separate_cls=separate_cls, truncate_seq=truncate_seq)
  )
  length = 2 * pooling_size**2
  positions = np.arange(length, dtype=np.float32)[None, :, None]
  with graph() as session:
    twice = lambda how: pool(config, pool(config, tf.constant(positions), how), how)
    arrays = [twice("min"), twice("max"), upsample(config, twice("max"), length)]
    first, last, up = session.run(arrays)
  assert up.shape == positions.shape
  for position in range(length):
    slot = [i for i in range(first.shape[1]) if first[0, i, 0] <= position <= last[0, i, 0]]
    if slot:
      assert up[0, position, 0] == last[0, slot[0], 0], position


def test_cls_is_in_the_segment_of_every_token():
  config = ModelConfig(**TINY)
  with graph() as session:
    slots = PoolingLevel(1, tf.constant([[2, 0, 0, 1, 2]]), tf.zeros([1, 5]))
    (same,) = session.run(relate(config, slots, slots, tf.float32).same_segment)
  expected = np.array(
    [[1, 1, 1, 1, 1], [1, 1, 1, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1]], bool
  )
  np.testing.assert_array_equal(same, expected)


def test_shared_layers_and_decoder_without_layers():
  config = ModelConfig(**dict(TINY, block_size="1x2_2x2", decoder_size="0"))
  with graph() as session:
    last, *every = hiddens(FunnelTFM(config), *example(8))
    assign(session)
    names = {v.op.name.split("/")[2] for v in v1.global_variables() if "/ff/" in v.op.name}
    last, every = session.run([last, every])
  assert names == {"layer_0", "layer_1", "layer_2"}
  assert [hidden.shape[1] for hidden in every] == [8, 8, 4, 4, 4, 4]
  top = every[-1]
  repeated = np.concatenate([top[:, :1], np.repeat(top[:, 1:], 2, 1), np.zeros([2, 1, 16])], 1)
  np.testing.assert_allclose(last, repeated + every[1], atol=1e-6)


def test_null_has_absolute_positions_and_no_relative_ones():
  config = ModelConfig(**dict(TINY, rel_attn_type="null"))
  ids, seg, _ = example(7)
  with graph() as session:
    model = FunnelTFM(config)
    a, b = hiddens(model, ids, seg), hiddens(model, ids[:, ::-1].copy(), seg[:, ::-1].copy())
    by_product = hiddens(model, ids, seg, use_tpu=True)
    names = {v.op.name: v.shape.as_list() for v in v1.global_variables()}
    assign(session)
    a, b, by_product = session.run([a, b, by_product])
    with pytest.raises(UserError, match="sequence length 513 .*lower --max_seq_length"):
      hiddens(model, np.ones([1, 513], int))
    assert hiddens(model, np.ones([1, 511], int))[0].shape == [1, 511, 16]
  assert names["model/input/position_embedding/lookup_table"] == [512, 16]
  assert names["model/input/segment_embedding/lookup_table"] == [2, 16]
  assert not any("r_r_bias" in name or "seg_embed/" in name or "/r/" in name for name in names)
  assert np.abs(a[1] - b[1][:, ::-1]).max() > 1e-3
  assert_close(a, by_product)


@pytest.mark.smoke
def test_null_refuses_lengths_beyond_its_table():
  """Dynamic lengths when the graph runs, and --max_seq_length before any work."""
  model_config = ModelConfig(**dict(TINY, rel_attn_type="null"))
  with graph() as session:
    ids = v1.placeholder(tf.int32, [None, None])
    outputs = hiddens(FunnelTFM(model_config), ids)[-1]
    assign(session)
    session.run(outputs, {ids: np.ones([1, 512])})
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\(512\); lower --max_seq_length"):
      session.run(outputs, {ids: np.ones([1, 513])})
  experiment = config.Experiment()
  experiment.data.max_seq_length = 513
  with pytest.raises(UserError, match="--max_seq_length=513 is beyond .*512 positions"):
    runner.Runner(experiment, model_config, task=None)
