"""Predictor and SavedModels return the values of the scripts' prediction files."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_serving

import modeling
import tokenization
from errors import UserError
from serving import onnx_model, saved_model
from serving.predictor import Predictor
from tasks import base


@pytest.fixture(scope="module")
def models(tmp_path_factory):
  """(job, family) -> (model_dir, requests), trained when it is first needed."""
  return functools.cache(
    lambda job, family="bert": tiny_serving.make(job, family, tmp_path_factory.mktemp(job))
  )


# The other models are trained in slow tests.
FAMILIES = ["bert", pytest.param("funnel", marks=pytest.mark.slow)]


@pytest.mark.parametrize("family", FAMILIES)
def test_classification(models, family):
  model_dir, pairs = models("classification", family)
  predictor = Predictor(model_dir)
  results = predictor(pairs)
  rows = tiny_serving.read_tsv(os.path.join(model_dir, "predictions.data.tsv"))[1:]
  assert [result["prediction"] for result in results] == [row[1] for row in rows]
  exact = np.loadtxt(os.path.join(model_dir, "test_results.tsv"))
  actual = [list(result["probabilities"].values()) for result in results]
  np.testing.assert_allclose(actual, exact, atol=1e-6)
  assert list(results[0]["probabilities"]) == ["0", "1", "2"]
  again = predictor([*pairs[5:9], pairs[0]])  # other batches, the same graph
  np.testing.assert_allclose(
    [list(result["probabilities"].values()) for result in again],
    [actual[i] for i in (5, 6, 7, 8, 0)],
    atol=1e-6,
  )
  assert predictor([]) == []
  assert predictor(["the film"]) == predictor([("the film", "")])
  with pytest.raises(UserError, match="request 2: .* is neither a text nor a pair of texts"):
    predictor(["a", 3])
  with pytest.raises(UserError, match="a list of requests is expected, not a str"):
    predictor("a film")


@pytest.mark.slow
def test_regression(models):
  model_dir, pairs = models("regression", "bert")
  exact = np.loadtxt(os.path.join(model_dir, "test_results.tsv"))
  values = [result["prediction"] for result in Predictor(model_dir, batch_size=3)(pairs)]
  np.testing.assert_allclose(values, exact, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "funnel"])
def test_race(models, family):
  model_dir, rows = models("race", family)
  results = Predictor(model_dir)(rows)
  _, *expected = tiny_serving.read_tsv(os.path.join(model_dir, "predictions.data.tsv"))
  for result, (name, letter, index, *probabilities) in zip(results, expected, strict=True):
    assert (result["id"], result["prediction"]) == (name, letter)
    assert result["prediction_index"] == int(index)
    np.testing.assert_allclose(
      result["probabilities"], [float(p) for p in probabilities if float(p)], atol=5.1e-5
    )
  passage = {"article": rows[0]["article"], "questions": ["it is _"], "options": [tiny.BAD[:2]]}
  predictor = Predictor(model_dir)
  (result,) = predictor([passage])
  np.testing.assert_allclose(result["probabilities"], results[0]["probabilities"], atol=1e-6)
  with pytest.raises(UserError, match="request 1: no key 'options'"):
    predictor([{"question": "?"}])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "funnel"])
def test_tagging(models, family):
  model_dir, sentences = models("tagging", family)
  assert max(map(len, sentences)) > 14, "a sentence of several records"
  predictor = Predictor(model_dir)
  results = predictor(sentences)
  with open(os.path.join(model_dir, "predictions.data.txt")) as reader:
    blocks = reader.read().strip().split("\n\n")
  expected = [[line.split("\t")[1] for line in block.split("\n")] for block in blocks]
  assert results == expected
  assert len({tag for tags in results for tag in tags}) > 1
  with pytest.raises(UserError, match="request 1: 'a b' is not a list of words"):
    predictor(["a b"])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "funnel"])
def test_squad(models, family):
  model_dir, paragraphs = models("squad", family)
  predictor = Predictor(model_dir)
  results = predictor(paragraphs)
  for name in ("predictions", "nbest_predictions", "null_odds"):
    expected = tiny_serving.read_json(os.path.join(model_dir, f"{name}.json"))
    assert_json_close(results[name], expected)
  bare = [
    {"context": p["context"], "qas": [{"id": q["id"], "question": q["question"]} for q in p["qas"]]}
    for p in paragraphs
  ]
  assert predictor(bare) == results, "has_unanswerable is stored with the model"
  texts = Predictor(model_dir, null_score_diff_threshold=-1e9)(bare)["predictions"]
  assert set(texts.values()) == {""}
  with pytest.raises(UserError, match="request 1: not SQuAD: no key"):
    predictor([{"context": "a"}])


def assert_json_close(actual, expected, atol=1e-6):
  """The same JSON, with floats that differ by at most `atol`."""
  if isinstance(expected, dict):
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
      assert_json_close(actual[key], value, atol)
  elif isinstance(expected, list):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
      assert_json_close(one, other, atol)
  elif isinstance(expected, float):
    assert abs(actual - expected) <= atol * max(1, abs(expected)), (actual, expected)
  else:
    assert actual == expected


def test_messages(tmp_path, models):
  with pytest.raises(UserError, match="no checkpoint to load .there is no such folder"):
    Predictor(str(tmp_path / "no"))
  with pytest.raises(UserError, match="an encoder without a task; fine-tune it"):
    Predictor(tiny.write_encoder(tmp_path / "bert", num_layers=1))
  model_dir, _ = models("classification", "bert")
  with pytest.raises(UserError, match="there is no setting precison"):
    Predictor(model_dir, precison="bf16")


# ---- SavedModels --------------------------------------------------------------------------------

# Runs in a new process: each SavedModel on each batch of arrays.
LOADER = """
import sys, numpy as np, tensorflow as tf
for path, *batches in (line.split() for line in sys.stdin):
  serve = tf.saved_model.load(path).signatures["serve"]
  for batch in batches:
    arrays = {name: tf.constant(values) for name, values in np.load(batch).items()}
    np.savez(batch + ".out.npz", **{name: value.numpy() for name, value in serve(**arrays).items()})
"""


@pytest.mark.slow
def test_saved_models_predict_the_same_in_a_new_process(models, tmp_path):
  """Predictor's outputs are those of the scripts, see above."""
  plans, lines = [], []
  for job in ("classification", "race", "tagging", "squad"):
    model_dir, requests = models(job, "bert")
    predictor = Predictor(model_dir, batch_size=32)
    found = [
      predictor.model.task.featurize_all(example, predictor.model.tokenizer, length)
      for example in predictor.parse(requests)
      for length in [predictor.model.experiment.data.max_seq_length]
    ]
    batches = list(predictor.batches([record for records, _ in found for record in records]))
    path = saved_model.export(model_dir, str(tmp_path / job))
    assert path == str(tmp_path / job / "1")
    names = []
    for number, (_, arrays) in enumerate(batches):
      names.append(str(tmp_path / f"{job}{number}.npz"))
      np.savez(names[-1], **{k: v for k, v in arrays.items() if k != "label_ids"})
    lines.append(" ".join([path, *names]) + "\n")
    plans.append((predictor, batches, names))
  subprocess.run([sys.executable, "-c", LOADER], input="".join(lines), text=True, check=True)
  for predictor, batches, names in plans:
    for (_, arrays), name in zip(batches, names, strict=True):
      actual = np.load(name + ".out.npz")
      feed = {tensor: arrays[key] for key, tensor in predictor.inputs.items()}
      expected = predictor.graph.session.run(predictor.graph.outputs, feed)
      assert set(actual) == set(expected) - {"label_ids"}
      for key in actual:
        np.testing.assert_allclose(actual[key], expected[key], atol=1e-6, rtol=1e-6)


def test_export_script(models, tmp_path):
  model_dir, pairs = models("classification", "bert")
  (tmp_path / "6").mkdir()  # an earlier version
  out, _ = tiny.run("export_model.py", f"--model_dir={model_dir}", f"--export_dir={tmp_path}")
  assert out.splitlines()[-1] == str(tmp_path / "7")
  extra = tmp_path / "7" / "assets.extra"
  assert {path.name for path in extra.iterdir()} == {
    "labels.json",
    "model_settings.json",
    "bert_config.json",
    "vocab.txt",
  }
  # The ids of a program that has the SavedModel alone.
  settings = tiny_serving.read_json(extra / "model_settings.json")
  tokenizer = tokenization.FullTokenizer(str(extra / settings["vocab_file"]), settings["uncased"])
  serve = tf.saved_model.load(str(tmp_path / "7")).signatures["serve"]
  exact = np.loadtxt(os.path.join(model_dir, "test_results.tsv"))
  for (text_a, text_b), expected in list(zip(pairs, exact, strict=True))[:2]:
    features = base.pair_features(text_a, text_b, tokenizer, settings["max_seq_length"], 0)
    found = serve(**{name: tf.constant([values]) for name, values in features.items()})
    np.testing.assert_allclose(found["probabilities"][0], expected, atol=1e-6)
  with pytest.raises(UserError, match="--export_dir is missing"):
    saved_model.export(model_dir, "")


@pytest.mark.slow
def test_an_encoder_is_exported(tmp_path):
  folder = tiny.write_encoder(tmp_path / "bert")
  serve = tf.saved_model.load(saved_model.export(folder, str(tmp_path / "out"))).signatures["serve"]
  ids = tf.constant([[2, 6, 7, 3], [2, 8, 3, 0]])
  mask = tf.constant([[1, 1, 1, 1], [1, 1, 1, 0]])
  found = serve(input_ids=ids, input_mask=mask, segment_ids=tf.zeros_like(ids))
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    bert_config = modeling.BertConfig.from_json_file(os.path.join(folder, "bert_config.json"))
    model = modeling.BertModel(
      bert_config, False, tf.constant(ids.numpy()), tf.constant(mask.numpy())
    )
    tf.compat.v1.train.Saver().restore(session, os.path.join(folder, "bert_model.ckpt"))
    hidden, pooled = session.run([model.get_sequence_output(), model.get_pooled_output()])
  np.testing.assert_allclose(found["hidden_-1"], hidden, atol=1e-6)
  np.testing.assert_allclose(found["pooled_output"], pooled, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["classification", "race", "tagging", "squad"])
def test_onnx_models_predict_the_same(models, tmp_path, job):
  pytest.importorskip("tf2onnx", reason="pip install -r requirements-onnx.txt")
  onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-onnx.txt")
  model_dir, requests = models(job, "bert")
  path = onnx_model.export(model_dir, str(tmp_path / "model.onnx"))
  session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
  predictor = Predictor(model_dir, batch_size=5)
  task, tokenizer = predictor.model.task, predictor.model.tokenizer
  records = [
    record
    for example in predictor.parse(requests)
    for record in task.featurize_all(example, tokenizer, 16)[0]
  ]
  names = [output.name for output in session.get_outputs()]
  for _, arrays in predictor.batches(records):
    fed = {given.name: arrays[given.name] for given in session.get_inputs()}
    feed = {tensor: arrays[name] for name, tensor in predictor.inputs.items()}
    expected = predictor.graph.session.run(predictor.graph.outputs, feed)
    assert set(names) == set(expected) - {"label_ids"}
    for name, value in zip(names, session.run(names, fed), strict=True):
      np.testing.assert_allclose(value, expected[name], atol=1e-5)
  with pytest.raises(UserError, match="model.onnx: the file exists"):
    onnx_model.export(model_dir, path)


@pytest.mark.slow
def test_onnx_refuses_funnel(tmp_path):
  pytest.importorskip("tf2onnx", reason="pip install -r requirements-onnx.txt")
  with pytest.raises(UserError, match="is not supported, its ONNX model was not verified"):
    onnx_model.export(tiny.write_funnel(tmp_path / "funnel"), str(tmp_path / "a.onnx"))


@pytest.mark.slow
def test_an_electra_encoder_is_exported_as_saved_model_and_onnx(tmp_path):
  pytest.importorskip("tf2onnx", reason="pip install -r requirements-onnx.txt")
  onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-onnx.txt")
  folder = tmp_path / "electra"
  tiny.write_encoder(folder)  # its vocabulary; the rest is replaced
  bert_config = tiny_serving.read_json(folder / "bert_config.json")
  for path in folder.iterdir():
    if path.name != "vocab.txt":
      path.unlink()
  settings = {**bert_config, "embedding_size": 8, "model_type": "electra"}
  (folder / "electra_config.json").write_text(json.dumps(settings))
  electra_config = modeling.load_config(str(folder / "electra_config.json"))
  arrays = {
    "input_ids": np.int32([[2, 6, 7, 3], [2, 8, 3, 0]]),
    "input_mask": np.int32([[1, 1, 1, 1], [1, 1, 1, 0]]),
    "segment_ids": np.int32([[0, 0, 1, 1], [0, 0, 0, 0]]),
  }
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    features = {name: tf.constant(values) for name, values in arrays.items()}
    hidden = modeling.build_encoder(electra_config, features, is_training=False).sequence_output()
    session.run(tf.compat.v1.global_variables_initializer())
    expected = session.run(hidden)
    tf.compat.v1.train.Saver().save(session, str(folder / "electra.ckpt"), write_meta_graph=False)
  path = saved_model.export(str(folder), str(tmp_path / "out"))
  serve = tf.saved_model.load(path).signatures["serve"]
  found = serve(**{name: tf.constant(values) for name, values in arrays.items()})
  np.testing.assert_allclose(found["hidden_-1"], expected, atol=1e-6)
  path = onnx_model.export(str(folder), str(tmp_path / "electra.onnx"))
  session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
  np.testing.assert_allclose(session.run(["hidden_-1"], arrays)[0], expected, atol=1e-5)
