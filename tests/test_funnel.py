"""Funnel-Transformer and its heads give the numbers of the original code, recorded in tests/golden.

The funnel_{hid,cls}_*.npz are whole. The others omit the weights, which are a function of the
variables' names (see `tiny_funnel.weight`). `pytest -m slow tests/test_funnel.py` tests the whole
set, in the folder that the environment variable GOLDEN_DIR names.
"""

import glob
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from tiny_funnel import (
  FORMS,
  GOLDEN,
  MODELS,
  TINY,
  assign,
  electra_sums,
  example,
  graph,
  hiddens,
  pretraining_features,
)

from models import funnel_heads, pretraining
from models.funnel import FunnelTFM
from models.funnel_config import ModelConfig

v1 = tf.compat.v1


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
def test_variables_equal_the_original(name):
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
