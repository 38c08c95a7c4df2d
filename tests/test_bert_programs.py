"""Functions of google-research/bert's modeling and optimization that other programs call."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny

import config
import modeling
import optimization
from tasks import base, classification
from training import evaluator

v1 = tf.compat.v1
GOLDEN = os.path.join(os.path.dirname(__file__), "golden")


def load(name):
  data = np.load(os.path.join(GOLDEN, name + ".npz"), allow_pickle=False)
  return json.loads(str(data["config_json"])), data


def run(tensors):
  with v1.Session() as session:
    session.run(v1.global_variables_initializer())
    return session.run(tensors)


# ---- The encoder, built from its functions ------------------------------------------------------


def encoder_of_functions(config, input_ids, input_mask, segment_ids):
  """BERT assembled from its functions, as programs do that change the encoder."""
  with v1.variable_scope("bert"):
    with v1.variable_scope("embeddings"):
      embedded, table = modeling.embedding_lookup(
        input_ids,
        config.vocab_size,
        config.hidden_size,
        config.initializer_range,
        word_embedding_name="word_embeddings",
        use_one_hot_embeddings=False,
      )
      embedded = modeling.embedding_postprocessor(
        input_tensor=embedded,
        use_token_type=True,
        token_type_ids=segment_ids,
        token_type_vocab_size=config.type_vocab_size,
        token_type_embedding_name="token_type_embeddings",
        use_position_embeddings=True,
        position_embedding_name="position_embeddings",
        initializer_range=config.initializer_range,
        max_position_embeddings=config.max_position_embeddings,
        dropout_prob=0.0,
      )
    with v1.variable_scope("encoder"):
      mask = modeling.create_attention_mask_from_input_mask(input_ids, input_mask)
      encoded = modeling.transformer_model(
        input_tensor=embedded,
        attention_mask=mask,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        intermediate_act_fn=modeling.get_activation(config.hidden_act),
        hidden_dropout_prob=None,
        attention_probs_dropout_prob=0.0,
        initializer_range=config.initializer_range,
        do_return_all_layers=True,
      )
  return table, embedded, encoded


def test_functions_build_the_original_encoder():
  settings, data = load("bert_pretrain")
  config = modeling.BertConfig.from_dict(settings)
  with tf.Graph().as_default(), v1.Session() as session:
    inputs = [
      tf.constant(data["in:" + name]) for name in ("input_ids", "input_mask", "segment_ids")
    ]
    table, embedded, encoded = encoder_of_functions(config, *inputs)
    names = [variable.op.name for variable in v1.global_variables()]
    for variable in v1.global_variables():
      variable.load(data["w:" + variable.op.name], session)
    values = session.run(
      {"embedding_output": embedded, "layer_0": encoded[0], "sequence_output": encoded[-1]}
    )
    for name, value in values.items():
      np.testing.assert_allclose(value, data["out:" + name], atol=2e-5, rtol=0, err_msg=name)
    assert table.shape == [config.vocab_size, config.hidden_size]
  with tf.Graph().as_default():
    modeling.BertModel(config, False, tf.ones([1, 4], tf.int32), with_pooler=False)
    assert names == [variable.op.name for variable in v1.global_variables()]


def test_transformer_model_checks_its_sizes():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="the input's width, 12"):
      modeling.transformer_model(tf.zeros([1, 2, 12]), hidden_size=16)
    with pytest.raises(ValueError, match="multiple of num_attention_heads, 5"):
      modeling.transformer_model(tf.zeros([1, 2, 12]), hidden_size=12, num_attention_heads=5)


@pytest.mark.parametrize(
  "activation, expected", [(modeling.gelu, "Tanh"), (tf.nn.relu, "Relu"), (None, "Reshape")]
)
def test_activation_of_the_feed_forward_layer(activation, expected):
  """None means no activation, not the default one."""
  with tf.Graph().as_default() as graph:
    modeling.transformer_model(tf.zeros([1, 2, 4]), None, 4, 1, 2, 8, activation)
    types = {op.type for op in graph.get_operations() if op.name.startswith("layer_0/intermediate")}
  assert types & {"Tanh", "Relu"} <= {expected} and expected in types


# ---- Attention against NumPy --------------------------------------------------------------------


def attention_in_numpy(queries, keys, mask, weights, num_heads, query_act=lambda x: x):
  def project(x, name, activation=lambda x: x):
    y = activation(x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"])
    return y.reshape(*y.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)

  query, key, value = (
    project(queries, "query", query_act),
    project(keys, "key"),
    project(keys, "value"),
  )
  scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
  scores += (1 - mask[:, None]) * -10000.0
  exponents = np.exp(scores - scores.max(-1, keepdims=True))
  context = exponents / exponents.sum(-1, keepdims=True) @ value
  return context.transpose(0, 2, 1, 3).reshape(*queries.shape[:2], -1)


@pytest.mark.parametrize("as_matrices", [False, True])
def test_attention_between_two_sequences(as_matrices):
  rng = np.random.RandomState(0)
  queries, keys = rng.normal(size=[2, 3, 6]), rng.normal(size=[2, 5, 4])
  mask = rng.randint(0, 2, [2, 3, 5])
  mask[:, :, 0] = 1
  with tf.Graph().as_default(), v1.Session() as session:
    sizes, inputs = {}, [tf.constant(x, tf.float32) for x in (queries, keys)]
    if as_matrices:
      sizes = dict(batch_size=2, from_seq_length=3, to_seq_length=5)
      inputs = [modeling.reshape_to_matrix(x) for x in inputs]
      with pytest.raises(ValueError, match="matrices need batch_size"):
        modeling.attention_layer(*inputs)
    context = modeling.attention_layer(
      *inputs,
      attention_mask=tf.constant(mask),
      num_attention_heads=2,
      size_per_head=8,
      query_act=tf.nn.relu,
      initializer_range=0.5,
      do_return_2d_tensor=True,
      **sizes,
    )
    context = modeling.reshape_from_matrix(context, [2, 3, 16])
    session.run(v1.global_variables_initializer())
    variables = {variable.op.name: variable for variable in v1.global_variables()}
    for variable in variables.values():
      variable.load(rng.normal(size=variable.shape.as_list()), session)
    value, weights = session.run([context, variables])
  assert sorted(weights) == [
    f"{name}/{kind}" for name in ("key", "query", "value") for kind in ("bias", "kernel")
  ]
  np.testing.assert_allclose(
    value,
    attention_in_numpy(queries, keys, mask, weights, 2, lambda x: np.maximum(x, 0)),
    atol=1e-5,
  )


def test_attention_without_a_mask_and_of_different_ranks():
  with tf.Graph().as_default():
    x = tf.constant(np.random.RandomState(0).normal(size=[1, 3, 4]), tf.float32)
    with v1.variable_scope("a", reuse=v1.AUTO_REUSE):
      every = modeling.attention_layer(x, x, tf.ones([1, 3, 3], tf.int32), 2, 2)
      none = modeling.attention_layer(x, x, None, 2, 2)
    with pytest.raises(ValueError, match="rank 2 .*expected 3"):
      modeling.attention_layer(x, x[0])
    np.testing.assert_array_equal(*run([every, none]))


# ---- Small functions ----------------------------------------------------------------------------


def test_shapes_and_ranks():
  with tf.Graph().as_default():
    x = v1.placeholder(tf.float32, [None, 3, 4], name="x")
    batch, *rest = modeling.get_shape_list(x, expected_rank=[2, 3])
    assert isinstance(batch, tf.Tensor) and rest == [3, 4]
    with pytest.raises(ValueError, match="x:0: rank 3 .*expected 2"):
      modeling.get_shape_list(x, expected_rank=2)
    with pytest.raises(ValueError, match="hidden: rank 3 .*expected 1 or 2"):
      modeling.assert_rank(x, [1, 2], name="hidden")
    matrix = modeling.reshape_to_matrix(x)
    assert matrix.shape.as_list() == [None, 4] and modeling.reshape_to_matrix(matrix) is not None
    back = modeling.reshape_from_matrix(matrix, [batch, 3, 4])
    assert back.shape.as_list() == [None, 3, 4]
    with pytest.raises(ValueError, match="rank 2 or more"):
      modeling.reshape_to_matrix(x[0, 0])


def test_activations():
  assert modeling.get_activation("GELU") is modeling.gelu
  assert modeling.get_activation(tf.tanh) is tf.tanh
  for nothing in (None, "", "linear"):
    assert not modeling.get_activation(nothing)
  with pytest.raises(ValueError, match="unknown activation 'swish'"):
    modeling.get_activation("swish")


def test_layer_norm_and_dropout():
  x = np.random.RandomState(0).normal(size=[4, 6]).astype(np.float32)
  with tf.Graph().as_default():
    assert modeling.dropout(tf.constant(x), None) is not None
    outputs = [
      modeling.layer_norm(tf.constant(x)),
      modeling.layer_norm(tf.constant(x)),
      modeling.layer_norm(tf.constant(x), "own"),
      modeling.layer_norm_and_dropout(tf.constant(x), None),
      modeling.layer_norm_and_dropout(tf.ones([100, 100]) * tf.range(100.0), 0.25, "d"),
    ]
    names = {variable.op.name.split("/")[0] for variable in v1.global_variables()}
    *normalized, dropped = run(outputs)
  assert names == {"LayerNorm", "LayerNorm_1", "LayerNorm_2", "own", "d"}
  expected = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
  for value in normalized:
    np.testing.assert_allclose(value, expected, atol=1e-5)
  assert abs(np.mean(dropped == 0) - 0.25) < 0.03


def test_embeddings_of_several_ids_at_a_position():
  with tf.Graph().as_default():
    ids = tf.constant([[[1, 2], [0, 3]]])
    (value, table) = run(list(modeling.embedding_lookup(ids, 5, 3)))
  np.testing.assert_array_equal(value, [[[*table[1], *table[2]], [*table[0], *table[3]]]])


def test_embedding_postprocessor_checks_its_input():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="needs token_type_ids"):
      modeling.embedding_postprocessor(tf.zeros([1, 2, 3]), use_token_type=True)
    with pytest.raises(ValueError, match="length 9 is beyond max_position_embeddings 8"):
      modeling.embedding_postprocessor(tf.zeros([1, 9, 3]), max_position_embeddings=8)


# ---- Optimizers ---------------------------------------------------------------------------------


def updates(make_train_op):
  """Four updates of opt_bert_default's weights by its gradients; returns the weights after each."""
  config, data = load("opt_bert_default")
  pick = lambda prefix: {
    key[len(prefix) :]: data[key] for key in data.files if key.startswith(prefix)
  }
  weights, gradients = pick("w:"), pick("in:")
  with tf.Graph().as_default(), v1.Session() as session:
    step = v1.train.get_or_create_global_step()
    variables = {name: v1.get_variable(name, initializer=value) for name, value in weights.items()}
    loss = tf.add_n([tf.reduce_sum(variables[name] * gradients[name]) for name in weights])
    train_op = make_train_op(config, loss, step)
    session.run(v1.global_variables_initializer())
    for index in range(1, 5):
      session.run(train_op)
      assert session.run(step) == index
      for name, value in session.run(variables).items():
        np.testing.assert_allclose(
          value, data[f"x:step{index}/{name}"], atol=1e-6, rtol=0, err_msg=f"step {index} {name}"
        )


def test_create_optimizer_equals_the_original():
  updates(
    lambda config, loss, step: optimization.create_optimizer(
      loss, config["init_lr"], config["num_train_steps"], config["num_warmup_steps"], False
    )
  )


def test_optimizer_class_equals_the_original():
  """The caller clips and increments the step, as in the original's create_optimizer."""

  def train_op(config, loss, step):
    optimizer = optimization.AdamWeightDecayOptimizer(
      learning_rate=optimization.learning_rate_schedule(
        step, config["init_lr"], config["num_train_steps"], config["num_warmup_steps"]
      ),
      weight_decay_rate=0.01,
      beta_1=0.9,
      beta_2=0.999,
      epsilon=1e-6,
      exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"],
    )
    variables = v1.trainable_variables()
    gradients, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), clip_norm=1.0)
    update = optimizer.apply_gradients(zip(gradients, variables, strict=True), global_step=step)
    with tf.control_dependencies([update]):
      return step.assign_add(1)

  updates(train_op)


def test_optimizer_class_does_not_clip():
  with tf.Graph().as_default(), v1.Session() as session:
    x = v1.get_variable("x", initializer=np.zeros(2, np.float32))
    optimizer = optimization.AdamWeightDecayOptimizer(learning_rate=0.1)
    op = optimizer.apply_gradients([(tf.constant([30.0, 40.0]), x), (None, x)])
    session.run(v1.global_variables_initializer())
    session.run(op)
    np.testing.assert_allclose(session.run(optimizer.get_slot(x, "adam_m")), [3, 4], rtol=1e-6)


def test_create_optimizer_without_warm_up():
  with tf.Graph().as_default(), v1.Session() as session:
    x = v1.get_variable("bias", initializer=np.ones(1, np.float32))
    op = optimization.create_optimizer(tf.reduce_sum(x), 0.1, 10, None, use_tpu=False)
    session.run(v1.global_variables_initializer())
    session.run(op)
    # m = 0.1, sqrt(v) = sqrt(0.001): Adam's first step without bias correction
    assert session.run(x)[0] == pytest.approx(1 - 0.1 * 0.1 / (0.001**0.5 + 1e-6), abs=1e-5)


# ---- Files that other programs read -------------------------------------------------------------


@pytest.mark.parametrize(
  "split, values, name, text",
  [
    ("test", {"prediction": [1.5, 0.25]}, "test_results.tsv", "1.5\n0.25\n"),
    ("test_matched", {"probabilities": [[0.1, 0.9]]}, "test_results_matched.tsv", "0.1\t0.9\n"),
  ],
)
def test_test_results_have_berts_form(tmp_path, split, values, name, text):
  dataset = classification.DATASETS["sts-b" if "prediction" in values else "cola"]
  classification.ClassificationTask("task", dataset).write_predictions(
    config.Trainer(do_predict=True, model_dir=str(tmp_path)),
    base.Split(split),
    {key: np.array(value, np.float32) for key, value in values.items()},
  )
  assert (tmp_path / name).read_text() == text


def test_eval_results_have_berts_form():
  assert evaluator.eval_results_text(343, {"accuracy": 0.5, "loss": 0.25}) == (
    "accuracy = 0.5\neval_accuracy = 0.5\neval_loss = 0.25\nglobal_step = 343\nloss = 0.25\n"
  )


# ---- A whole program ----------------------------------------------------------------------------


def test_assignment_map(tmp_path, caplog):
  folder = tiny.write_encoder(tmp_path)
  prefix = os.path.join(folder, "bert_model.ckpt")
  with tf.Graph().as_default():
    kept, new = v1.get_variable("bert/pooler/dense/bias", [16]), v1.get_variable("head", [2])
    assignment, initialized = modeling.get_assignment_map_from_checkpoint([kept, new], prefix)
    assert assignment == {"bert/pooler/dense/bias": "bert/pooler/dense/bias"}
    assert initialized == {"bert/pooler/dense/bias": 1, "bert/pooler/dense/bias:0": 1}
    assert not caplog.records
    assert modeling.get_assignment_map_from_checkpoint([new], prefix) == ({}, {})
  assert "contains none of the model's 1 variables (head, ...)" in caplog.text


PROGRAM = """
import sys
import numpy as np
import tensorflow.compat.v1 as tf
import modeling
import optimization

tf.disable_v2_behavior()
config_file, init_checkpoint = sys.argv[1:]


def model_fn(features, labels, mode, params):
  bert_config = modeling.BertConfig.from_json_file(config_file)
  model = modeling.BertModel(
      config=bert_config, is_training=mode == "train", input_ids=features["input_ids"],
      input_mask=features["input_mask"], token_type_ids=features["segment_ids"],
      use_one_hot_embeddings=params["use_one_hot_embeddings"])
  final_hidden = model.get_sequence_output()
  batch_size, seq_length, hidden_size = modeling.get_shape_list(final_hidden, expected_rank=3)
  with tf.variable_scope("tagger"):
    hidden = modeling.transformer_model(
        final_hidden, modeling.create_attention_mask_from_input_mask(
            features["input_ids"], features["input_mask"]),
        hidden_size=hidden_size, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32)
    hidden = modeling.layer_norm_and_dropout(hidden, 0.1)
  output_weights = tf.get_variable(
      "output_weights", [2, hidden_size], initializer=modeling.create_initializer(0.02))
  output_bias = tf.get_variable("output_bias", [2], initializer=tf.zeros_initializer())
  logits = tf.matmul(modeling.reshape_to_matrix(hidden), output_weights, transpose_b=True)
  logits = tf.nn.bias_add(logits, output_bias)
  log_probs = tf.nn.log_softmax(modeling.reshape_from_matrix(
      logits, [batch_size, seq_length, 2]))
  loss = -tf.reduce_mean(tf.reduce_sum(tf.one_hot(labels, 2) * log_probs, axis=-1))

  tvars = tf.trainable_variables()
  assignment_map, initialized_variable_names = (
      modeling.get_assignment_map_from_checkpoint(tvars, init_checkpoint))
  tf.train.init_from_checkpoint(init_checkpoint, assignment_map)
  for var in tvars:
    if var.name not in initialized_variable_names:
      print("new", var.name, var.shape)
  return loss, optimization.create_optimizer(loss, 2e-3, 60, 6, use_tpu=False)


tf.set_random_seed(1)
ids = np.random.RandomState(0).randint(1, 20, [8, 6]).astype(np.int32)
features = {"input_ids": tf.constant(ids), "input_mask": tf.ones_like(tf.constant(ids)),
            "segment_ids": tf.zeros_like(tf.constant(ids))}
loss, train_op = model_fn(features, tf.constant(ids % 2), "train",
                          {"use_one_hot_embeddings": True})
pooler = [v for v in tf.trainable_variables() if v.name == "bert/pooler/dense/kernel:0"][0]
with tf.Session() as session:
  session.run(tf.global_variables_initializer())
  stored = tf.train.load_checkpoint(init_checkpoint).get_tensor("bert/pooler/dense/kernel")
  print("loaded", np.array_equal(session.run(pooler), stored))
  losses = [session.run([train_op, loss])[1] for _ in range(60)]
  print("step", session.run(tf.train.get_global_step()))
  print("learns", np.mean(losses[-5:]) < 0.5 * losses[0])
"""


def test_a_typical_program_trains(tmp_path):
  """The program builds BERT with its own head under TF1 behaviour, loads weights and trains."""
  folder = tiny.write_encoder(tmp_path)
  result = subprocess.run(
    [
      sys.executable,
      "-c",
      PROGRAM,
      os.path.join(folder, "bert_config.json"),
      os.path.join(folder, "bert_model.ckpt"),
    ],
    capture_output=True,
    text=True,
    env=dict(os.environ, PYTHONPATH=tiny.ROOT, TF_CPP_MIN_LOG_LEVEL="3"),
  )
  assert result.returncode == 0, result.stderr[-3000:]
  lines = result.stdout.splitlines()
  assert lines[-3:] == ["loaded True", "step 60", "learns True"]
  assert "new output_weights:0 (2, 16)" in lines
  assert "new tagger/layer_0/attention/self/query/kernel:0 (16, 16)" in lines
  assert not [line for line in lines if line.startswith("new bert/")]
