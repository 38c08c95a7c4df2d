"""Encoder outputs for heads on tokens and on the whole sequence."""

import numpy as np
import pytest
import tensorflow as tf

import modeling

v1 = tf.compat.v1
BERT = modeling.BertConfig(
  vocab_size=40,
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=2,
  intermediate_size=32,
  max_position_embeddings=16,
  type_vocab_size=2,
)
FUNNEL = modeling.ModelConfig(
  vocab_size=40,
  block_size="1_1_1",
  d_model=16,
  d_embed=16,
  n_head=2,
  d_head=8,
  d_inner=32,
  dropout=0.1,
  decoder_size="1",
)
LENGTHS = (13, 9)  # real tokens of each sequence; the total pooling does not divide 13


def make_features():
  random = np.random.RandomState(0)
  mask = np.int32(np.arange(13) < np.array(LENGTHS)[:, None])
  return {
    "input_ids": random.randint(5, 40, mask.shape).astype(np.int32) * mask,
    "input_mask": mask,
    "segment_ids": np.int32(np.arange(13) > 5) * mask,
  }


def model_outputs(config, features):
  """Outputs of the model itself, on the variables that the encoder created."""
  ids, mask, segments = (features[k] for k in ("input_ids", "input_mask", "segment_ids"))
  if config.family == "bert":
    with v1.variable_scope(v1.get_variable_scope(), reuse=True):
      model = modeling.BertModel(config, False, ids, mask, segments)
    return model.get_sequence_output(), model.get_pooled_output()
  model = modeling.FunnelTFM(config)
  hidden, _, _ = model.extract_hiddens(ids, False, segments, 1 - mask, use_decoder=True)
  summary, _ = model.get_pooled_output(ids, False, segments, 1 - mask)
  return hidden, summary


@pytest.mark.parametrize("config", [BERT, FUNNEL], ids=lambda config: config.family)
def test_outputs_equal_the_models(config):
  with tf.Graph().as_default(), v1.Session() as session:
    features = {name: tf.constant(value) for name, value in make_features().items()}
    encoder = modeling.build_encoder(config, features, is_training=False)
    found = encoder.sequence_output(), encoder.pooled_output()
    variables = v1.global_variables()
    expected = model_outputs(config, features)
    assert len(v1.global_variables()) == len(variables)
    random = np.random.RandomState(1)
    session.run(v1.global_variables_initializer())
    for variable in variables:
      variable.load(random.normal(0, 0.2, variable.shape), session)
    found, expected = session.run([found, expected])
  assert [output.shape for output in found] == [(2, 13, 16), (2, 16)]
  for one, other in zip(found, expected, strict=True):
    assert np.std(other) > 0.01
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("config", [BERT, FUNNEL], ids=lambda config: config.family)
def test_outputs_are_float32_in_bfloat16_too(config):
  with tf.Graph().as_default():
    features = {name: tf.constant(value) for name, value in make_features().items()}
    encoder = modeling.build_encoder(config, features, is_training=True, use_bfloat16=True)
    outputs = encoder.sequence_output(), encoder.pooled_output()
  assert [output.dtype for output in outputs] == [tf.float32, tf.float32]
  assert [output.shape.as_list() for output in outputs] == [[2, 13, 16], [2, 16]]
