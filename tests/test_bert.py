"""The BERT encoder and classifier head give the numbers recorded from the original."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

import modeling
from errors import UserError
from models import bert_heads

v1 = tf.compat.v1
GOLDEN = os.path.join(os.path.dirname(__file__), "golden")
TINY = dict(
  vocab_size=40,
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=2,
  intermediate_size=32,
  max_position_embeddings=24,
  type_vocab_size=2,
)


def load(name):
  data = np.load(os.path.join(GOLDEN, name + ".npz"), allow_pickle=False)
  config = modeling.BertConfig.from_dict(json.loads(str(data["config_json"])))
  return config, data


def assign(session, data):
  """Sets every variable of the graph to the file's weight of the same name."""
  for variable in v1.global_variables():
    variable.load(data["w:" + variable.op.name], session)


@pytest.mark.smoke
@pytest.mark.parametrize("use_one_hot", [False, True])
def test_encoder_equals_the_original(use_one_hot):
  config, data = load("bert_pretrain")
  with tf.Graph().as_default(), v1.Session() as session:
    model = modeling.BertModel(
      config,
      False,
      *(tf.constant(data["in:" + n]) for n in ("input_ids", "input_mask", "segment_ids")),
      use_one_hot,
    )
    assign(session, data)
    outputs = {
      "embedding_output": model.get_embedding_output(),
      "layer_0": model.get_all_encoder_layers()[0],
      "sequence_output": model.get_sequence_output(),
      "pooled_output": model.get_pooled_output(),
    }
    for name, value in session.run(outputs).items():
      np.testing.assert_allclose(value, data["out:" + name], atol=2e-5, rtol=0, err_msg=name)
    assert model.get_embedding_table().shape == [40, 16]


@pytest.mark.smoke
def test_classifier_equals_the_original():
  config, data = load("bert_cls")
  with tf.Graph().as_default(), v1.Session() as session:
    model = modeling.BertModel(
      config,
      False,
      *(tf.constant(data["in:" + n]) for n in ("input_ids", "input_mask", "segment_ids")),
    )
    logits = bert_heads.classification_logits(model.get_pooled_output(), 3)
    assign(session, data)
    np.testing.assert_allclose(session.run(logits), data["out:logits"], atol=2e-5, rtol=0)
    names = [f"{v.op.name}\t{v.shape.as_list()}" for v in v1.global_variables()]
  with open(os.path.join(GOLDEN, "bert_vars_cls.txt")) as reader:
    assert names == reader.read().splitlines()


def test_defaults_of_mask_and_segments_and_dynamic_shapes():
  with tf.Graph().as_default(), v1.Session() as session:
    ids = v1.placeholder(tf.int32, [None, None])
    config = modeling.BertConfig(**TINY)
    short = modeling.BertModel(config, False, ids).get_sequence_output()
    v1.get_variable_scope().reuse_variables()
    full = modeling.BertModel(
      config, False, ids, tf.ones_like(ids), tf.zeros_like(ids), scope="bert"
    ).get_sequence_output()
    session.run(v1.global_variables_initializer())
    a, b = session.run([short, full], {ids: np.arange(12).reshape(2, 6)})
  assert a.shape == (2, 6, 16)
  np.testing.assert_array_equal(a, b)


def test_padding_does_not_change_a_row():
  ids = np.random.RandomState(0).randint(1, 40, [2, 7])
  mask = np.ones_like(ids)
  padded = lambda x: np.pad(x, [(0, 0), (0, 9)])
  with tf.Graph().as_default(), v1.Session() as session:
    config = modeling.BertConfig(**TINY)
    a = modeling.BertModel(config, False, tf.constant(ids), tf.constant(mask))
    with v1.variable_scope(v1.get_variable_scope(), reuse=True):
      b = modeling.BertModel(
        config, False, tf.constant(padded(ids)), tf.constant(padded(mask)), scope="bert"
      )
    session.run(v1.global_variables_initializer())
    a, b = session.run([a.get_sequence_output(), b.get_sequence_output()])
  np.testing.assert_allclose(a, b[:, :7], atol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_stays_close():
  config, data = load("bert_cls")
  with tf.Graph().as_default(), v1.Session() as session:
    model = modeling.BertModel(
      config,
      False,
      *(tf.constant(data["in:" + n]) for n in ("input_ids", "input_mask", "segment_ids")),
      compute_dtype=tf.bfloat16,
    )
    logits = bert_heads.classification_logits(model.get_pooled_output(), 3)
    assert model.get_sequence_output().dtype == tf.bfloat16
    assert logits.dtype == tf.float32
    assert all(v.dtype.base_dtype == tf.float32 for v in v1.global_variables())
    assign(session, data)
    np.testing.assert_allclose(session.run(logits), data["out:logits"], atol=0.05)


def test_dropout_is_a_function_of_seed_step_and_position():
  def draw(seed, step):
    with tf.Graph().as_default(), v1.Session() as session:
      v1.set_random_seed(seed)
      global_step = v1.train.get_or_create_global_step()
      model = modeling.BertModel(
        modeling.BertConfig(**TINY, initializer_range=0.5), True, tf.ones([2, 8], tf.int32)
      )
      session.run(v1.global_variables_initializer())
      for variable in v1.trainable_variables():
        variable.load(np.full(variable.shape, 0.1), session)
      global_step.load(step, session)
      embedded = model.get_embedding_output() + tf.range(16.0)
      return session.run([embedded, model.get_pooled_output()])[0]

  np.testing.assert_array_equal(draw(1, 5), draw(1, 5))
  assert (draw(1, 5) != draw(1, 6)).any()
  assert (draw(1, 5) != draw(2, 5)).any()


def test_dropout_keeps_the_mean_and_the_rate():
  from models import layers

  with tf.Graph().as_default(), v1.Session() as session:
    v1.train.get_or_create_global_step()
    x = layers.dropout(tf.ones([200, 500]), 0.1)
    y = layers.dropout(tf.ones([200, 500]), 0.1)
    session.run(v1.global_variables_initializer())
    x, y = session.run([x, y])
  assert np.mean(x == 0) == pytest.approx(0.1, abs=0.005)
  assert x.mean() == pytest.approx(1.0, abs=0.01)
  assert (x != y).any(), "two places of one graph must draw differently"


def test_config_round_trip_and_errors(tmp_path):
  config = modeling.BertConfig(**TINY)
  path = tmp_path / "bert_config.json"
  path.write_text(config.to_json_string())
  assert modeling.BertConfig.from_json_file(str(path)) == config
  assert modeling.load_config(str(path)) == config
  path.write_text(json.dumps(dict(TINY, hiden_size=3, embeding_size=4)))
  with pytest.raises(UserError, match="bert_config.json: unknown keys embeding_size, hiden_size"):
    modeling.BertConfig.from_json_file(str(path))
  path.write_text('{"hidden_size": 3,')
  with pytest.raises(UserError, match="bert_config.json: not valid JSON"):
    modeling.load_config(str(path))
  with pytest.raises(UserError, match="nowhere.json: no such file"):
    modeling.load_config(str(tmp_path / "nowhere.json"))
  with pytest.raises(UserError, match="not a multiple of num_attention_heads"):
    modeling.BertConfig(**dict(TINY, num_attention_heads=3))
  with pytest.raises(UserError, match="hidden_act 'swish'"):
    modeling.BertConfig(**TINY, hidden_act="swish")


def test_sequence_beyond_the_position_table_is_refused():
  with tf.Graph().as_default(), pytest.raises(UserError, match="position table.*24"):
    modeling.BertModel(modeling.BertConfig(**TINY), False, tf.ones([1, 25], tf.int32))


@pytest.mark.parametrize(
  "hidden_size, layers, heads_, inner, expected",
  [(768, 12, 12, 3072, 109_482_240), (1024, 24, 16, 4096, 335_141_888)],
)
def test_parameter_counts_of_the_released_models(hidden_size, layers, heads_, inner, expected):
  """BERT-Base and BERT-Large, uncased. The counts are those of Hugging Face's BertModel."""
  with tf.Graph().as_default():
    modeling.BertModel(
      modeling.BertConfig(30522, hidden_size, layers, heads_, inner, type_vocab_size=2),
      False,
      tf.ones([1, 8], tf.int32),
    )
    assert sum(v.shape.num_elements() for v in v1.trainable_variables()) == expected


@pytest.mark.smoke
def test_pretraining_heads_equal_the_original():
  config, data = load("bert_pretrain")
  with tf.Graph().as_default(), v1.Session() as session:
    features = {k[3:]: tf.constant(data[k]) for k in data.files if k.startswith("in:")}
    features["next_sentence_positions"] = tf.zeros([3, 1], tf.int32)
    encoder = modeling.build_encoder(config, features, False)
    words = tf.nn.log_softmax(encoder.masked_lm_logits())
    pairs = tf.nn.log_softmax(encoder.next_sentence_logits())
    names = [f"{v.op.name}\t{v.shape.as_list()}" for v in v1.global_variables()]
    assign(session, data)
    words, pairs = session.run([words, pairs])
  np.testing.assert_allclose(words.reshape(12, 40), data["out:masked_lm_log_probs"], atol=2e-5)
  np.testing.assert_allclose(pairs[:, 0], data["out:next_sentence_log_probs"], atol=2e-5)
  with open(os.path.join(GOLDEN, "bert_vars_pretrain.txt")) as reader:
    assert names == reader.read().splitlines()


def test_packed_sequences_do_not_attend_to_each_other():
  draw = np.random.RandomState(0)
  a, b = draw.randint(1, 40, [1, 5]), draw.randint(1, 40, [1, 7])
  segments = [np.array([[0, 0, 1, 1, 1]]), np.array([[0, 0, 0, 0, 1, 1, 1]])]
  row = lambda x, y: np.pad(np.concatenate([x, y], axis=1), [(0, 0), (0, 2)])
  ones = np.ones_like
  with tf.Graph().as_default(), v1.Session() as session:
    config = modeling.BertConfig(**TINY)
    joined = modeling.BertModel(
      config,
      False,
      tf.constant(row(a, b)),
      tf.constant(row(ones(a), ones(b))),
      tf.constant(row(*segments)),
      sequence_ids=tf.constant(row(ones(a), 2 * ones(b))),
    )
    with v1.variable_scope(v1.get_variable_scope(), reuse=True):
      alone = [
        modeling.BertModel(config, False, tf.constant(x), token_type_ids=tf.constant(s))
        for x, s in zip((a, b), segments, strict=True)
      ]
    session.run(v1.global_variables_initializer())
    for variable in v1.trainable_variables():
      variable.load(draw.normal(0, 0.2, variable.shape), session)
    joined, *alone = session.run([m.get_sequence_output() for m in (joined, *alone)])
  np.testing.assert_allclose(joined[:, :5], alone[0], atol=1e-5)
  np.testing.assert_allclose(joined[:, 5:12], alone[1], atol=1e-5)


def test_electra_shares_the_embeddings_and_names_are_the_released_ones():
  config = modeling.BertConfig(**dict(TINY, hidden_size=32, num_attention_heads=4))
  ids = np.random.RandomState(0).randint(1, 40, [2, 8]).astype(np.int32)
  features = {
    "input_ids": ids,
    "origin_ids": ids,
    "segment_ids": np.zeros_like(ids),
    "input_mask": np.array([[1] * 8, [1] * 5 + [0] * 3], np.int32),
    "masked_lm_positions": np.array([[2, 4], [1, 0]], np.int32),
    "masked_lm_ids": np.stack([ids[0, [2, 4]], [ids[1, 1], 0]]).astype(np.int32),
    "masked_lm_weights": np.array([[1, 1], [1, 0]], np.float32),
  }
  with tf.Graph().as_default(), v1.Session() as session:
    outputs = modeling.build_encoder(
      config, {k: tf.constant(v) for k, v in features.items()}, True
    ).electra(0.25)
    shapes = {v.op.name: v.shape.as_list() for v in v1.trainable_variables()}
    generator = [v for v in v1.trainable_variables() if v.op.name.startswith("generator")]
    assert all(g is None for g in tf.gradients(outputs["discriminator_losses"], generator))
    assert all(g is not None for g in tf.gradients(outputs["generator_losses"], generator))
    session.run(v1.global_variables_initializer())
    outputs = session.run(outputs)
  assert shapes["generator/embeddings_project/kernel"] == [32, 8]
  assert shapes["generator/encoder/layer_0/attention/self/query/kernel"] == [8, 8]
  assert shapes["generator_predictions/dense/kernel"] == [8, 32]
  assert shapes["discriminator_predictions/dense_1/kernel"] == [32, 1]
  assert not any(name.startswith(("generator/embeddings/", "generator/pooler")) for name in shapes)
  changed = outputs["replaced_ids"] != ids
  assert (changed == outputs["is_replaced"]).all() and not changed[1, 2:].any()
  expected = np.log1p(np.exp(np.where(changed, -1, 1) * outputs["discriminator_logits"]))
  np.testing.assert_allclose(
    outputs["discriminator_losses"], (expected * features["input_mask"]).sum(1), rtol=1e-5
  )
