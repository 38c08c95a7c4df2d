"""Predictor returns the values of the scripts' prediction files."""

import functools
import os

import numpy as np
import pytest
import tiny
import tiny_serving

from errors import UserError
from serving.predictor import Predictor


@pytest.fixture(scope="module")
def models(tmp_path_factory):
  """(job, family) -> (model_dir, requests), trained when it is first needed."""
  return functools.cache(
    lambda job, family="bert": tiny_serving.make(job, family, tmp_path_factory.mktemp(job))
  )


# The other family is trained in slow tests.
FAMILIES = ["bert", pytest.param("funnel", marks=pytest.mark.slow)]
FUNNEL_FIRST = ["funnel", pytest.param("bert", marks=pytest.mark.slow)]


@pytest.mark.parametrize("family", FUNNEL_FIRST)
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
  model_dir, pairs = models("regression")
  exact = np.loadtxt(os.path.join(model_dir, "test_results.tsv"))
  values = [result["prediction"] for result in Predictor(model_dir, batch_size=3)(pairs)]
  np.testing.assert_allclose(values, exact, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
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
  model_dir, _ = models("classification", "funnel")
  with pytest.raises(UserError, match="there is no setting precison"):
    Predictor(model_dir, precison="bf16")
