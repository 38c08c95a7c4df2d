"""Funnel-Transformer's heads: masked tokens, ELECTRA and SQuAD."""

import os

import numpy as np
import pytest
import tensorflow as tf
from tiny_funnel import (
  MODELS,
  TINY,
  assign,
  electra_sums,
  example,
  graph,
  hiddens,
  pretraining_features,
)

from errors import UserError
from models import funnel_heads, pretraining
from models.funnel import FunnelTFM
from models.funnel_config import ModelConfig

v1 = tf.compat.v1


def test_heads_support_narrow_embeddings():
  """Defect 8: d_embed and d_model were confused. The answer class has width d_model."""
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


def test_generator_has_at_least_one_head():
  """Defect 8: int(n_head * 0.25) is 0 below four heads."""
  small = funnel_heads.generator_config(ModelConfig(**TINY))
  assert (small.d_model, small.d_inner, small.n_head) == (4, 8, 1)
  assert (small.d_head, small.d_embed, small.block_size) == (8, 16, "1_1_1")
  big = ModelConfig.init_from_json(os.path.join(MODELS, "B8-8-8H1024.json"))
  assert funnel_heads.generator_config(big).n_head == 4
  with pytest.raises(UserError, match="generator with width_shrink 0.25: d_model 5 is odd"):
    funnel_heads.generator_config(ModelConfig(**dict(TINY, d_model=20)))


def test_unused_targets_do_not_count():
  """Defect 9: the originals average over padded positions too."""
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
  """Only predicted positions are replaced. Sampling passes no gradient to the generator."""
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


def test_squad_predicts_ends_for_each_start_within_the_mask():
  config = ModelConfig(**TINY)
  ids, seg, mask = example(8)
  p_mask = np.array([[0, 1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 1]], np.float32)
  with graph() as session:
    last = hiddens(FunnelTFM(config), ids, seg, mask)[0]
    features = {"cls_index": tf.constant([0, 0]), "p_mask": tf.constant(p_mask)}
    best = funnel_heads.squad_predict(config, last, features, start_n_top=3, end_n_top=2)
    # Training's scores of the ends, given the predicted starts.
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
