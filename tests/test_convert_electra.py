"""ELECTRA: conversion, outputs equal to Hugging Face's, released names, and fine-tuning."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_electra
import tiny_squad
from tiny_conversion import assert_same, draw, read_hf, read_tf, write_hf, write_tf

import config as settings
import modeling
from conversion import commands
from errors import UserError
from models import config_keys
from training import checkpoints, recipes

v1 = tf.compat.v1


def released(config, generator_width=4):
  """Names and shapes of the variables of google-research/electra's checkpoint, by hand."""
  embedding, hidden, inner = config.embedding_size, config.hidden_size, config.intermediate_size
  shapes = {
    "electra/embeddings/word_embeddings": (config.vocab_size, embedding),
    "electra/embeddings/token_type_embeddings": (2, embedding),
    "electra/embeddings/position_embeddings": (config.max_position_embeddings, embedding),
  }
  norms = {"electra/embeddings/LayerNorm": embedding, "generator_predictions/LayerNorm": embedding}
  dense = {
    "discriminator_predictions/dense": (hidden, hidden),
    "discriminator_predictions/dense_1": (hidden, 1),
    "generator_predictions/dense": (generator_width, embedding),
  }
  widths = ("electra", hidden, inner), ("generator", generator_width, 4 * generator_width)
  for scope, width, inner in widths:
    if width != embedding:
      dense[f"{scope}/embeddings_project"] = (embedding, width)
    for i in range(config.num_hidden_layers):
      layer = f"{scope}/encoder/layer_{i}"
      dense |= {f"{layer}/attention/self/{name}": (width, width) for name in ("query", "key")}
      dense |= {
        f"{layer}/attention/self/value": (width, width),
        f"{layer}/attention/output/dense": (width, width),
        f"{layer}/intermediate/dense": (width, inner),
        f"{layer}/output/dense": (inner, width),
      }
      norms |= {f"{layer}/attention/output/LayerNorm": width, f"{layer}/output/LayerNorm": width}
  for name, width in norms.items():
    shapes |= {f"{name}/gamma": (width,), f"{name}/beta": (width,)}
  for name, shape in dense.items():
    shapes |= {f"{name}/kernel": shape, f"{name}/bias": shape[1:]}
  return shapes | {"generator_predictions/output_bias": (config.vocab_size,)}


def write_released(folder, config):
  """Writes a released checkpoint, with optimizer, configuration and vocabulary; its weights."""
  os.makedirs(folder)
  weights = {
    name: 0.1 * array + name.endswith("/gamma") for name, array in draw(released(config)).items()
  }
  slots = {f"{name}/adam_{slot}": array + 1 for name, array in weights.items() for slot in "mv"}
  write_tf(folder / "electra_small", {**weights, **slots, "global_step": np.int64(7)})
  (folder / "electra_config.json").write_text(config.to_json_string())
  (folder / "vocab.txt").write_text("\n".join(tiny.VOCAB) + "\n")
  return weights


def tiny_config(**keys):
  values = {**tiny_electra.HF_CONFIG, "vocab_size": len(tiny.VOCAB), **keys}
  return modeling.ElectraConfig.from_dict(values)


# ---- Hugging Face's numbers ---------------------------------------------------------------------


def test_outputs_equal_the_hugging_face_library_and_convert_back(tmp_path):
  """All heads in one file; the numbers are those of tests/tiny_electra.py."""
  weights, inputs, expected = tiny_electra.golden()
  source = write_hf(tmp_path / "hf", weights, tiny_electra.HF_CONFIG)
  commands.hf_to_tf(source, str(tmp_path / "tf"))
  assert len(expected) == 6
  actual = tiny_electra.outputs_here(tmp_path / "tf", inputs, expected)
  for name, array in expected.items():
    is_real = inputs["input_mask"].astype(bool) if array.ndim > 2 else ...
    if name in ("start_logits", "end_logits", "replaced_token_logits"):
      is_real = inputs["input_mask"].astype(bool)
    assert np.std(array) > 0.1, name
    np.testing.assert_allclose(
      actual[name][is_real], array[is_real], atol=1e-5, rtol=1e-5, err_msg=name
    )
  commands.tf_to_hf(str(tmp_path / "tf"), str(tmp_path / "back"), uncased=True)
  assert_same(read_hf(tmp_path / "back"), weights)
  config = json.loads((tmp_path / "back" / "config.json").read_text())
  assert tiny_electra.HF_CONFIG.items() <= config.items()
  assert config["architectures"] == ["ElectraForSequenceClassification"]
  tokenizer = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
  assert tokenizer["tokenizer_class"] == "ElectraTokenizer"


@pytest.mark.slow
@pytest.mark.parametrize("embedding_size", [24, 48])
def test_random_models_equal_the_hugging_face_library(tmp_path, embedding_size):
  """PYTHONPATH=VENV/lib/python3.11/site-packages pytest -s -m slow tests/test_convert_electra.py"""
  pytest.importorskip("torch")
  pytest.importorskip("transformers")
  config = dict(
    tiny_electra.HF_CONFIG,
    vocab_size=500,
    embedding_size=embedding_size,
    hidden_size=48,
    num_hidden_layers=6,
    num_attention_heads=4,
    intermediate_size=192,
    max_position_embeddings=128,
  )
  inputs = tiny_electra.make_inputs(500, (128, 90, 17, 2), seed=1)
  real = inputs["input_mask"].astype(bool)
  tiny_electra.write_hf_models(tmp_path, config)
  for name in tiny_electra.HEADS:
    folder = tmp_path / name
    (folder / "vocab.txt").write_text("".join(f"piece{i}\n" for i in range(500)))
    expected = tiny_electra.hf_outputs(folder, inputs)
    commands.hf_to_tf(str(folder), str(tmp_path / "tf" / name))
    actual = tiny_electra.outputs_here(tmp_path / "tf" / name, inputs, expected)
    commands.tf_to_hf(str(tmp_path / "tf" / name), str(tmp_path / "back" / name), uncased=True)
    assert_same(read_hf(tmp_path / "back" / name), read_hf(folder))
    back = tiny_electra.hf_outputs(tmp_path / "back" / name, inputs)
    assert back.keys() == expected.keys()
    for output, array in expected.items():
      rows = ... if output == "classification_logits" else real
      difference = np.abs(actual[output][rows] - array[rows]).max()
      print(f"{name} {output}: {difference:.1e}, of values up to {np.abs(array[rows]).max():.1f}")
      assert difference < 1e-4
      np.testing.assert_array_equal(back[output], array)


# ---- Released checkpoints -----------------------------------------------------------------------


def test_released_checkpoint_has_the_variables_of_electra_pretraining():
  config = tiny_config(hidden_size=16, num_attention_heads=4)
  ids = tf.ones([2, 8], tf.int32)
  with tf.Graph().as_default():
    ids = tf.ones([2, 8], tf.int32)
    features = {
      **dict.fromkeys(("input_ids", "origin_ids", "input_mask", "segment_ids"), ids),
      "masked_lm_positions": ids[:, :2],
      "masked_lm_ids": ids[:, :2],
      "masked_lm_weights": tf.ones([2, 2]),
    }
    modeling.build_encoder(config, features, True).electra(0.25)
    shapes = {v.op.name: tuple(v.shape.as_list()) for v in v1.trainable_variables()}
  expected = released(config)
  inner = config.intermediate_size // 4  # a release has 4 * 4; both are multiples of the width
  for i in range(config.num_hidden_layers):
    expected[f"generator/encoder/layer_{i}/intermediate/dense/kernel"] = (4, inner)
    expected[f"generator/encoder/layer_{i}/intermediate/dense/bias"] = (inner,)
    expected[f"generator/encoder/layer_{i}/output/dense/kernel"] = (inner, 4)
  assert shapes == expected


def test_released_checkpoint_becomes_a_model_for_pretraining(tmp_path, capsys):
  weights = write_released(tmp_path / "tf", tiny_config())
  commands.tf_to_hf(str(tmp_path / "tf"), str(tmp_path / "hf"))
  num_left_out = sum(name.startswith("generator") for name in weights)
  assert f"Left out: {num_left_out} tensors of the generator" in capsys.readouterr().out
  tensors = read_hf(tmp_path / "hf")
  assert len(tensors) == len(weights) - num_left_out
  np.testing.assert_array_equal(
    tensors["electra.embeddings_project.weight"], weights["electra/embeddings_project/kernel"].T
  )
  np.testing.assert_array_equal(
    tensors["discriminator_predictions.dense_prediction.weight"],
    weights["discriminator_predictions/dense_1/kernel"].T,
  )
  config = json.loads((tmp_path / "hf" / "config.json").read_text())
  assert config["architectures"] == ["ElectraForPreTraining"] and config["hidden_act"] == "gelu"
  commands.strip(str(tmp_path / "tf"), str(tmp_path / "core"), core_only=True)
  assert_same(
    read_tf(tmp_path / "core"),
    {name: array for name, array in weights.items() if name.startswith("electra/")},
  )


@pytest.mark.parametrize(
  "own, stored", [("electra", "electra"), ("electra", "bert"), ("bert", "electra")]
)
def test_encoder_loads_by_name_from_either_scope(tmp_path, own, stored):
  config = tiny_config()
  weights = {
    name.replace("electra/", f"{stored}/", 1): array
    for name, array in draw(released(config)).items()
  }
  prefix = write_tf(tmp_path / "model.ckpt", weights)
  if own == "bert":
    config = modeling.BertConfig(**dataclasses.asdict(config))
  with tf.Graph().as_default(), v1.Session() as session:
    model = modeling.BertModel(config, False, tf.ones([1, 4], tf.int32))
    start = settings.Model(init_checkpoint=prefix)
    if own == "bert":
      with pytest.raises(UserError, match="bert/pooler/dense/kernel.*pass --noinit_pooler"):
        checkpoints.initialize(start)
      start.init_pooler = False
    checkpoints.initialize(start)
    session.run(v1.global_variables_initializer())
    loaded = {v.op.name: v for v in v1.trainable_variables() if "pooler" not in v.op.name}
    for name, array in session.run(loaded).items():
      expected = weights[name.replace(f"{own}/", f"{stored}/", 1)]
      np.testing.assert_array_equal(array, expected, err_msg=name)
    first = model.get_sequence_output()[:, 0]
    pooled, first = session.run([model.get_pooled_output(), first])
    assert (pooled == first).all() == (own == "electra")


@pytest.mark.parametrize(
  "size, numbers",
  [
    ("small", (128, 256, 12, 4, 1024)),
    ("base", (768, 768, 12, 12, 3072)),
    ("large", (1024, 1024, 24, 16, 4096)),
  ],
)
def test_released_configurations(size, numbers):
  config = modeling.load_config(os.path.join(tiny.ROOT, "configs/models", f"electra_{size}.json"))
  assert isinstance(config, modeling.ElectraConfig) and config.hidden_act == "gelu_erf"
  assert numbers == (
    config.embedding_size,
    config.hidden_size,
    config.num_hidden_layers,
    config.num_attention_heads,
    config.intermediate_size,
  )
  assert modeling.config_from_dict(config.to_dict(), "its own keys") == config


def test_recipes_equal_the_release():
  recipe = recipes.load("electra", "classification", "rte")
  names = ("learning_rate", "lr_layer_decay_rate", "num_train_epochs", "train_batch_size")
  assert tuple(recipe[name] for name in names) == (1e-4, 0.8, 10, 32)
  recipe = recipes.load("electra", "squad", "squad")
  assert tuple(recipe[name] for name in names) == (1e-4, 0.8, 2, 32)
  recipe = recipes.load("electra", "pretraining", "electra")
  names = ("learning_rate", "train_batch_size", "train_steps", "weight_decay")
  assert tuple(recipe[name] for name in names) == (5e-4, 128, 1_000_000, 0.01)


# ---- Scripts ------------------------------------------------------------------------------------


def run_classifier(tmp_path, *flags):
  if not (tmp_path / "CoLA").exists():
    tiny.write_cola(tmp_path / "CoLA")
  data = ["--task_name=cola", f"--data_dir={tmp_path}/CoLA", "--max_seq_length=24"]
  return tiny.run("run_classifier.py", *data, "--train_batch_size=8", *flags)


@pytest.mark.smoke
def test_released_checkpoint_is_fine_tuned_and_converted(tmp_path):
  write_released(tmp_path / "electra", tiny_config(max_position_embeddings=32))
  _, log = run_classifier(
    tmp_path,
    "--do_train",
    f"--pretrained={tmp_path}/electra",
    "--train_steps=3",
    f"--output_dir={tmp_path}/run",
  )
  assert "Recipe electra_classification, task cola" in log
  assert "new: classifier/dense/kernel, classifier/dense/bias, output_weights, output_bias" in log
  commands.tf_to_hf(str(tmp_path / "run"), str(tmp_path / "hf"))
  assert read_hf(tmp_path / "hf")["classifier.out_proj.weight"].shape == (2, 12)
  commands.hf_to_tf(str(tmp_path / "hf"), str(tmp_path / "back"))
  trained = read_tf(tmp_path / "run")
  back = read_tf(tmp_path / "back")
  assert_same(back, {name: trained[name] for name in back})
  assert {"classifier/dense/bias", "output_bias"} < back.keys()


@pytest.mark.slow
def test_released_checkpoint_learns_classification_and_squad(tmp_path):
  config = tiny_config(
    max_position_embeddings=64,
    embedding_size=16,
    hidden_size=24,
    initializer_range=0.1,
    attention_probs_dropout_prob=0.1,
  )
  write_released(tmp_path / "electra", config)
  flags = ["--do_train", "--do_eval", f"--pretrained={tmp_path}/electra"]
  run_classifier(
    tmp_path,
    *flags,
    "--learning_rate=3e-3",
    "--num_train_epochs=12",
    f"--output_dir={tmp_path}/cola",
  )
  results = json.loads((tmp_path / "cola" / "eval_results.json").read_text())
  assert results["best_value"] > 0.5, "chance is 0"
  tiny_squad.write(tmp_path / "train-v1.1.json", 150, 1)
  tiny_squad.write(tmp_path / "dev-v1.1.json", 30, 2)
  tiny.run(
    "run_squad.py",
    *flags,
    f"--train_file={tmp_path}/train-v1.1.json",
    f"--predict_file={tmp_path}/dev-v1.1.json",
    "--train_batch_size=12",
    "--learning_rate=6e-3",
    "--num_train_epochs=8",
    "--max_seq_length=20",
    "--doc_stride=6",
    f"--output_dir={tmp_path}/squad",
  )
  results = json.loads((tmp_path / "squad" / "eval_results.json").read_text())
  assert results["best_value"] > 50, "chance is below 10"
  commands.tf_to_hf(str(tmp_path / "squad"), str(tmp_path / "hf"))
  assert read_hf(tmp_path / "hf")["qa_outputs.weight"].shape == (2, 24)


# ---- Refusals -----------------------------------------------------------------------------------


def test_unsupported_models_are_refused(tmp_path):
  weights, _, _ = tiny_electra.golden()
  convert = lambda name: commands.hf_to_tf(str(tmp_path / name), str(tmp_path / "tf"))
  choice = {"sequence_summary.summary.weight": np.ones([12, 12], np.float32)}
  write_hf(tmp_path / "choice", weights | choice, tiny_electra.HF_CONFIG)
  with pytest.raises(UserError, match="sequence_summary.summary.weight; the head of multiple"):
    convert("choice")
  write_hf(tmp_path / "eps", weights, {**tiny_electra.HF_CONFIG, "layer_norm_eps": 1e-5})
  with pytest.raises(UserError, match="layer_norm_eps is 1e-05, but only 1e-12 is supported"):
    convert("eps")
  weights = write_released(tmp_path / "release", tiny_config())
  tuned = {"task_specific/mnli/dense/kernel": np.ones([12, 3], np.float32)}
  prefix = write_tf(tmp_path / "tuned", weights | tuned)
  with pytest.raises(UserError, match="task_specific/mnli/dense/kernel; the original's"):
    commands.tf_to_hf(str(tmp_path / "release"), str(tmp_path / "out"), checkpoint=prefix)
  with pytest.raises(UserError, match="embedding_size is 0, which is below 1"):
    tiny_config(embedding_size=0)


def test_token_classifier_is_left_out(tmp_path, capsys):
  weights, _, _ = tiny_electra.golden()
  encoder = {name: array for name, array in weights.items() if name.startswith("electra.")}
  head = draw({"classifier.weight": (5, 12), "classifier.bias": (5,)})
  config = {**tiny_electra.HF_CONFIG, "architectures": ["ElectraForTokenClassification"]}
  del config["model_type"]  # the class gives it
  assert config_keys.hugging_face_type(config) == "electra"
  source = write_hf(tmp_path / "hf", encoder | head, config)
  commands.hf_to_tf(source, str(tmp_path / "tf"))
  assert "Left out: the classifier, which labels tokens" in capsys.readouterr().out
  assert all(name.startswith("electra/") for name in read_tf(tmp_path / "tf"))
