"""Funnel-Transformer and its heads: the originals' recorded numbers, and properties of the maths.

The funnel_{hid,cls}_*.npz in tests/golden are whole; from the others the weights were taken out, as
they are a function of the variables' names (see `weight`). The complete set, in the folder named
by the environment variable GOLDEN_DIR, is tested by `pytest -m slow tests/test_funnel.py`.
"""

import contextlib
import dataclasses
import glob
import json
import os
import zlib

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import config
from errors import UserError
from models import funnel_heads, layers, pretraining
from models.funnel import FunnelTFM
from models.funnel_attention import position_scores, relate
from models.funnel_config import ModelConfig
from models.funnel_pooling import PoolingLevel, pool, pool_windows, upsample
from training import runner

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
  """A graph and its session; graphs that run once are not worth rewriting, which takes longer."""
  config = v1.ConfigProto()
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  with tf.Graph().as_default(), v1.Session(config=config) as session:
    v1.set_random_seed(1)
    yield session


def weight(name, shape):
  """The golden files' weight of that name."""
  draws = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).normal(0, 0.15, shape)
  return draws.astype(np.float32) + np.float32(name.endswith("gamma"))


def assign(session, data=None):
  """Sets every variable to the file's weight of its name, or to the one made from its name."""
  values = {}
  for variable in v1.global_variables():
    name = variable.op.name
    stored = data is not None and "w:" + name in data
    values[variable] = data["w:" + name] if stored else weight(name, variable.shape)
  session.run(
    [v.initializer for v in values], {v.initializer.inputs[1]: value for v, value in values.items()}
  )


def example(length, batch=2, real=None, seed=0):
  """ids, segment ids with [cls] first, and mask (1 = padding) as NumPy arrays."""
  draw = np.random.RandomState(seed)
  ids, seg = draw.randint(1, 40, [batch, length]), draw.randint(0, 2, [batch, length])
  seg[:, 0] = 2
  mask = np.tile(np.arange(length) >= (length if real is None else real), [batch, 1])
  ids[mask] = seg[mask] = 0
  return ids, seg, mask.astype(np.float32)


def hiddens(model, ids, seg=None, mask=None, is_training=False, **options):
  """[last_hidden, *encoder_hiddens] of a model on arrays or tensors."""
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


# The originals' numbers


def cross_entropy(logits, labels):
  return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def squared_error(logits, labels):
  return tf.square(logits - tf.cast(labels, tf.float32))


def build(kind, path, config, options, features, model):
  """Outputs of one kind of golden file as tensors."""
  names = (
    ("masked_input", "seg_id", "input_mask")
    if kind == "mlm"
    else ("input_ids", "segment_ids", "input_mask")
  )
  if kind == "electra":
    return electra_sums(
      funnel_heads.electra(
        config,
        pretraining_features(features),
        False,
        noise=features["uniform_noise"],
        use_tpu=model is None,
      ),
      features["pad_mask"],
    )
  ids, seg, mask = (features[n] for n in names)
  if kind == "race":
    ids, seg, mask = (tf.reshape(x, [8, -1]) for x in (ids, seg, mask))
  if kind in ("cls", "reg", "race"):
    summary, _ = model.get_pooled_output(ids, False, seg_id=seg, input_mask=mask)
    logits = {
      "cls": lambda: funnel_heads.classification_logits(config, summary, 3, "cola"),
      "reg": lambda: funnel_heads.classification_logits(config, summary, 1, "sts-b")[:, 0],
      "race": lambda: funnel_heads.race_logits(config, summary),
    }[kind]()
    loss = squared_error if kind == "reg" else cross_entropy
    return {"logits": logits, "per_example_loss": loss(logits, features["label_ids"])}
  last, *every = hiddens(model, ids, seg, mask)
  if kind == "hid":
    return {"last_hidden": last, **{f"hidden_{i}": hidden for i, hidden in enumerate(every)}}
  if kind == "mlm":
    positions = tf.argmax(features["target_mapping"], -1, output_type=tf.int32)
    logits, target = funnel_heads.mlm_logits(config, last, positions), features["target"]
    sums = pretraining.masked_token_losses(logits, target, tf.ones_like(target, tf.float32))
    return {
      "lm_logits": logits,
      "loss": tf.reduce_mean(sums) / target.shape[1],
      "per_token_loss": cross_entropy(logits, target),
    }
  settings = {k: options[k] for k in ("conditional_end", "use_answer_class")}
  if "_train_" in path:
    return funnel_heads.squad_train(config, last, features, False, **settings)
  return funnel_heads.squad_predict(
    config,
    last,
    features,
    **settings,
    start_n_top=options["start_n_top"],
    end_n_top=options["end_n_top"],
  )


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


def check_golden(path, form):
  data = np.load(path, allow_pickle=False)
  values = json.loads(str(data["config_json"]))
  options = values.pop("flags")
  config = ModelConfig.from_dict(values)
  config.truncate_seq = options.get("truncate_seq", True)
  kind = os.path.basename(path).split("_")[1]
  expected = {k[len("out:") :]: data[k] for k in data.files if k.startswith("out:")}
  with graph() as session:
    features = {k.split(":")[1]: tf.constant(data[k]) for k in data.files if k[:3] == "in:"}
    if kind == "electra":
      features["uniform_noise"] = tf.constant(expected.pop("uniform_noise"))
      model = None if form == "factorized" else FunnelTFM(config)
    else:
      model = FunnelTFM(config, attention_type=form)
    outputs = build(kind, path, config, options, features, model)
    assign(session, data)
    outputs = session.run({name: outputs[name] for name in expected})
  for name, value in expected.items():
    assert outputs[name].shape == value.shape
    np.testing.assert_allclose(
      outputs[name],
      value,
      rtol=1e-7,
      err_msg=name,
      atol=5e-5 if kind in ("squad", "electra") else 2e-5,
    )


def golden_files(folder, pattern="funnel_*.npz"):
  return sorted(os.path.basename(p) for p in glob.glob(os.path.join(folder, pattern)))


@pytest.mark.parametrize("name", golden_files(GOLDEN))
def test_equals_the_original(name):
  check_golden(os.path.join(GOLDEN, name), "rel_shift" if "rel_shift" in name else "factorized")


@pytest.mark.smoke
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["hid_factorized_nosepcls", "cls_rel_shift_base"])
def test_either_form_equals_the_original(name, form):
  """nosepcls: the original's rel_shift is off by one position there (defect 3)."""
  check_golden(os.path.join(GOLDEN, f"funnel_{name}.npz"), form)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", golden_files(os.environ.get("GOLDEN_DIR", GOLDEN)))
def test_every_golden_file_in_either_form(name, form):
  check_golden(os.path.join(os.environ.get("GOLDEN_DIR", GOLDEN), name), form)


@pytest.mark.parametrize("name", golden_files(GOLDEN, "funnel_vars_*.txt"))
def test_variables_are_the_originals(name):
  kind = name.split("_")[2]
  wide = dict(d_model=32, d_embed=32, n_head=4, d_inner=64) if kind == "electra" else {}
  config = ModelConfig(**dict(TINY, block_size="2_2_2", decoder_size="2", **wide))
  ids, seg, mask = example(16)
  with graph():
    features = dict.fromkeys(("input_ids", "masked_input", "origin_input"), tf.constant(ids))
    features.update(dict.fromkeys(("segment_ids", "seg_id"), tf.constant(seg)))
    features.update(
      dict.fromkeys(("input_mask", "pad_mask", "is_target", "p_mask"), tf.constant(mask))
    )
    features.update(
      dict.fromkeys(
        ("start_positions", "end_positions", "cls_index", "label_ids", "is_impossible"),
        tf.constant([1, 2]),
      )
    )
    features.update(
      target=tf.ones([2, 4], tf.int32),
      target_mapping=tf.ones([2, 4, 16]),
      uniform_noise=tf.zeros([2, 4, 40]),
    )
    if kind == "race":
      features.update(
        {k: tf.tile(features[k], [1, 4]) for k in ("input_ids", "segment_ids", "input_mask")}
      )
    build(
      kind,
      name,
      config,
      dict(conditional_end=True, use_answer_class=True),
      features,
      FunnelTFM(config),
    )
    names = [f"{v.op.name}\t{v.shape.as_list()}" for v in v1.global_variables()]
  with open(os.path.join(GOLDEN, name)) as reader:
    assert names == reader.read().splitlines()


RELEASED = {  # vocabulary 30522; input, encoder, decoder and sequence summary
  "B4-4-4H768": 131_563_776,
  "B6-3x2-3x2H768": 131_563_776,
  "B6-6-6H768": 177_648_384,
  "B8-8-8H1024": 387_177_472,
  "B10-10-10H1024": 469_070_848,
}


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_parameter_counts_of_the_released_models(name):
  config = ModelConfig.init_from_json(os.path.join(MODELS, name + ".json"))
  assert len(config.to_dict()) == 20
  with graph():
    model = FunnelTFM(config)
    model.get_pooled_output(tf.ones([1, 8], tf.int32), False)
    model.extract_hiddens(tf.ones([1, 8], tf.int32), False, use_decoder=True)
    variables = v1.trainable_variables()
  assert all(
    v.op.name.startswith(
      ("model/input/", "model/encoder/", "model/decoder/", "model/sequnece_summary/")
    )
    for v in variables
  )
  assert sum(v.shape.num_elements() for v in variables) == RELEASED[name]
  width, depth = config.d_model, sum(n for n, _ in config.blocks) + config.decoder[0]
  assert RELEASED[name] == (
    30522 * width + 2 * width + width * width + width + depth * (13 * width * width + 17 * width)
  )


# The two forms of attention, positions and pooling


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
def test_position_scores_are_those_of_the_distances(form, pooling_size, separate_cls, truncate_seq):
  """Against the definition, q . R(p_q - p_k) W with positions picked one by one in NumPy."""
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
def test_pooling_windows_count_their_members_only(how):
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
def test_upsampling_returns_to_the_slot_a_position_was_pooled_into(
  pooling_size, separate_cls, truncate_seq
):
  """Defect 4: the originals repeat by 2, whatever the pooling size."""
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


# Lengths, padding, defaults of arguments, repeated calls


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
def test_a_length_that_pooling_does_not_divide_is_padded_inside(settings):
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
def test_padding_changes_nothing(settings, real):
  """At most total_pooling - 1 short of the padded length, where truncate_seq begins to drop."""
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
def test_mask_and_segments_may_be_left_out(blocks, decoder):
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


def test_one_object_serves_calls_with_other_inputs():
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


def test_hidden_masks_tell_padding_at_every_level():
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
  """Lengths that are known only when the graph runs, and --max_seq_length before any work."""
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


# Numbers: gradients, precision, dropout, initial values


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


def test_dropout_is_a_function_of_seed_step_and_place():
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
  # factorized: the queries' sine and cosine only.
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


# Configuration


def test_attention_type_suits_the_hardware():
  for kind in FORMS:
    config = ModelConfig(**dict(TINY, rel_attn_type=kind))
    assert config.attention_type(use_tpu=False) == "rel_shift"
    assert config.attention_type(use_tpu=True) == "factorized"
  null = ModelConfig(**dict(TINY, rel_attn_type="null"))
  assert null.attention_type(True) == null.attention_type(False) == "null"


def test_config_round_trip(tmp_path):
  path = str(tmp_path / "net_config.json")
  config = ModelConfig(**dict(TINY, block_size="6_3x2_3x2", decoder_size=2))
  config.to_json(path)
  text = (tmp_path / "net_config.json").read_text()
  assert text.startswith('{\n    "block_size": "6_3x2_3x2",\n    "d_embed": 16,')
  assert list(json.loads(text)) == sorted(json.loads(text)) and len(json.loads(text)) == 20
  assert ModelConfig.init_from_json(path) == config
  assert config.blocks == [(6, 1), (3, 2), (3, 2)] and config.decoder == (2, 1)
  assert config.total_pooling == 4 and config.truncate_seq
  assert dataclasses.replace(config, truncate_seq=False).to_dict() == config.to_dict()


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(d_modl=3, heads=2), "net_config.json: unknown keys d_modl, heads; the keys are block_s"),
    (dict(truncate_seq=True), "unknown keys truncate_seq"),
    (dict(block_size="2"), 'single block.* set decoder_size to "0"'),
    (dict(d_model=15), "d_model 15 is odd"),
    (dict(d_model="16"), "d_model is '16', but must be a positive integer"),
    (dict(n_head=0), "n_head is 0"),
    (dict(block_size="4_4x_4"), "block_size '4_4x_4' cannot be read: '4x'"),
    (dict(block_size="4_0_4"), "a block without layers"),
    (dict(decoder_size="1_1"), "decoder_size '1_1' cannot be read"),
    (dict(pooling_type="min"), "pooling_type 'min' is unknown; use one of mean, max"),
    (dict(ff_activation="swish"), "ff_activation 'swish' is unknown"),
    (dict(rel_attn_type="relative"), "rel_attn_type 'relative' is unknown"),
    (dict(init="zeros"), "init 'zeros' is unknown"),
  ],
  ids=str,
)
def test_config_errors(tmp_path, changes, message):
  path = tmp_path / "net_config.json"
  path.write_text(json.dumps(dict(TINY, **changes)))
  with pytest.raises(UserError, match=message):
    ModelConfig.init_from_json(str(path))


def test_config_errors_of_files(tmp_path):
  with pytest.raises(UserError, match="nowhere.json: no such file"):
    ModelConfig.init_from_json(str(tmp_path / "nowhere.json"))
  path = tmp_path / "net_config.json"
  path.write_text(json.dumps({k: v for k, v in TINY.items() if k != "vocab_size"}))
  with pytest.raises(UserError, match="the key vocab_size is missing"):
    ModelConfig.init_from_json(str(path))


def test_flags_are_read_only_when_asked_for(tmp_path, monkeypatch):
  """Defects 8 and 24: the JSON alone decides, but for the keys in overwrite_keys."""
  path = str(tmp_path / "net_config.json")
  ModelConfig(**TINY).to_json(path)
  own = flags.FlagValues()
  monkeypatch.setattr(flags, "FLAGS", own)
  assert ModelConfig.init_from_json(path) == ModelConfig(**TINY)
  with pytest.raises(UserError, match="there is no flag --dropout"):
    ModelConfig.init_from_json(path, overwrite_keys=["dropout"])
  with pytest.raises(UserError, match="overwrite_keys: unknown keys drop_out"):
    ModelConfig.init_from_json(path, overwrite_keys=["drop_out"])
  for field in dataclasses.fields(ModelConfig):
    define = {
      str: flags.DEFINE_string,
      float: flags.DEFINE_float,
      int: flags.DEFINE_integer,
      bool: flags.DEFINE_bool,
    }[field.type]
    default = None if field.default is dataclasses.MISSING else field.default
    define(field.name, default, "help", flag_values=own)
  own(["program", "--dropout=0.3", "--notruncate_seq", "--noseparate_cls", "--d_model=64"])
  assert ModelConfig.init_from_json(path) == ModelConfig(**TINY)
  assert ModelConfig.init_from_json(path, overwrite_keys=["dropout", "truncate_seq"]) == (
    ModelConfig(**TINY, dropout=0.3, truncate_seq=False)
  )
  with pytest.raises(UserError, match="--vocab_size has no value"):
    ModelConfig.init_from_flags()
  own.vocab_size = 40
  assert ModelConfig.init_from_flags() == ModelConfig(
    vocab_size=40, dropout=0.3, truncate_seq=False, separate_cls=False, d_model=64
  )


# Heads


def test_embedding_table_and_heads_where_embeddings_are_narrower():
  """Defect 8: d_embed and d_model confused. The answer class is as wide as the hidden states."""
  config = ModelConfig(**dict(TINY, d_embed=12))
  with graph() as session:
    model = FunnelTFM(config)
    table = model.get_embedding_table()
    last = hiddens(model, *example(8))[0]
    assert table.shape == [40, 12] and last.shape == [2, 8, 16]
    assert model.get_embedding_table() is table or len(v1.global_variables("model/input/word")) == 1
    logits = funnel_heads.mlm_logits(config, last, tf.zeros([2, 3], tf.int32))
    squad = funnel_heads.squad_predict(config, last, {"cls_index": tf.constant([0, 0])})
    shapes = {v.op.name: v.shape.as_list() for v in v1.global_variables()}
    assign(session)
    assert session.run(logits).shape == (2, 3, 40)
    assert session.run(squad)["end_top_index"].shape == (2, 25)
  assert shapes["model/lm_proj/dense/kernel"] == [16, 12]
  assert shapes["model/answer_class/dense_0/kernel"] == [32, 16]
  assert shapes["model/encoder/input_projection/kernel"] == [12, 16]


def test_generator_has_a_head_at_least():
  """Defect 8: int(n_head * 0.25) is 0 below four heads."""
  small = funnel_heads.generator_config(ModelConfig(**TINY))
  assert (small.d_model, small.d_inner, small.n_head) == (4, 8, 1)
  assert (small.d_head, small.d_embed, small.block_size) == (8, 16, "1_1_1")
  big = ModelConfig.init_from_json(os.path.join(MODELS, "B8-8-8H1024.json"))
  assert funnel_heads.generator_config(big).n_head == 4
  with pytest.raises(UserError, match="generator with width_shrink 0.25: d_model 5 is odd"):
    funnel_heads.generator_config(ModelConfig(**dict(TINY, d_model=20)))


def test_unused_target_places_do_not_count():
  """Defect 9: the originals average over padded places too."""
  draw = np.random.RandomState(0)
  logits, target = draw.normal(size=[2, 4, 40]).astype(np.float32), draw.randint(0, 40, [2, 4])
  mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
  with graph() as session:
    sums = session.run(
      pretraining.masked_token_losses(
        tf.constant(logits), tf.constant(target), tf.constant(mask, tf.float32)
      )
    )
  chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  per_token = -np.log(np.take_along_axis(chances, target[..., None], 2)[..., 0])
  np.testing.assert_allclose(sums, (per_token * mask).sum(1), rtol=1e-5)


def test_electra_labels_and_gradients():
  """Only predicted places are replaced, and sampling carries no gradient to the generator."""
  config = ModelConfig(**TINY)
  ids, seg, mask = example(8, real=6)
  mapping = np.eye(8, dtype=np.float32)[[[2, 4], [1, 3]]]
  features = dict(
    masked_input=ids,
    origin_input=ids,
    seg_id=seg,
    pad_mask=mask,
    is_target=mapping.sum(1) > 0,
    target=ids[[[0], [1]], [[2, 4], [1, 3]]],
    target_mapping=mapping,
  )
  with graph() as session:
    outputs = electra_sums(
      funnel_heads.electra(
        config, pretraining_features({k: tf.constant(v) for k, v in features.items()}), True
      ),
      mask,
    )
    generator = [v for v in v1.trainable_variables() if v.op.name.startswith("generator/")]
    assert all(g is None for g in tf.gradients(outputs["disc_loss"], generator))
    assert all(g is not None for g in tf.gradients(outputs["gen_loss"], generator))
    assign(session)
    values = session.run(outputs)
  hits = (values["samples"] == features["target"]).sum()
  assert values["real_ratio"] == pytest.approx((16 - 4 + hits) / 16)
  assert values["total_loss"] == pytest.approx(values["gen_loss"] + values["disc_loss"], rel=1e-6)


def test_gumbel_sampling_follows_the_probabilities():
  probabilities = np.array([0.6, 0.3, 0.1], np.float32)
  with graph() as session:
    samples = session.run(
      pretraining.gumbel_sample(tf.tile(tf.math.log(probabilities)[None], [20000, 1]))
    )
  np.testing.assert_allclose(np.bincount(samples) / 20000, probabilities, atol=0.015)


def test_squad_predicts_within_the_mask_and_given_each_start():
  config = ModelConfig(**TINY)
  ids, seg, mask = example(8)
  p_mask = np.array([[0, 1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 1]], np.float32)
  with graph() as session:
    last = hiddens(FunnelTFM(config), ids, seg, mask)[0]
    features = {"cls_index": tf.constant([0, 0]), "p_mask": tf.constant(p_mask)}
    best = funnel_heads.squad_predict(config, last, features, start_n_top=3, end_n_top=2)
    # What training says of the ends, given the starts that were predicted.
    given = [
      funnel_heads.squad_train(
        config,
        last,
        dict(
          features,
          start_positions=best["start_top_index"][:, k],
          end_positions=tf.constant([4, 4]),
          is_impossible=tf.constant([0, 1]),
        ),
        False,
      )["end_log_probs"]
      for k in range(3)
    ]
    short = funnel_heads.squad_predict(config, last, features, start_n_top=20, end_n_top=10)
    assign(session)
    best, given, short = session.run([best, given, short])
  assert not p_mask[np.arange(2)[:, None], best["start_top_index"]].any()
  expected = np.concatenate([np.sort(x, axis=1)[:, ::-1][:, :2] for x in given], axis=1)
  np.testing.assert_allclose(best["end_top_log_probs"], expected, atol=1e-5)
  assert short["start_top_index"].shape == (2, 8) and short["end_top_index"].shape == (2, 64)


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
