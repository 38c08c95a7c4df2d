"""Tiny BERT folders in TensorFlow's and Hugging Face's form, and the script that converts them."""

import json
import os
import subprocess
import sys

import numpy as np
import safetensors.numpy
import tensorflow as tf

v1 = tf.compat.v1
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOLDEN = os.path.join(os.path.dirname(__file__), "golden")
HF_CONFIG = dict(
  model_type="bert",
  vocab_size=31,
  hidden_size=8,
  num_hidden_layers=2,
  num_attention_heads=2,
  intermediate_size=12,
  hidden_act="gelu",
  hidden_dropout_prob=0.1,
  attention_probs_dropout_prob=0.2,
  max_position_embeddings=10,
  type_vocab_size=2,
  initializer_range=0.03,
  layer_norm_eps=1e-12,
  position_embedding_type="absolute",
  transformers_version="4.8.2",
  architectures=["BertModel"],
)
HEADS = {
  "cls.predictions.transform.dense.weight": (8, 8),
  "cls.predictions.transform.dense.bias": (8,),
  "cls.predictions.transform.LayerNorm.weight": (8,),
  "cls.predictions.transform.LayerNorm.bias": (8,),
  "cls.predictions.bias": (31,),
  "cls.seq_relationship.weight": (2, 8),
  "cls.seq_relationship.bias": (2,),
}
OTHER_HEADS = {
  "classifier.weight": (5, 8),
  "classifier.bias": (5,),
  "qa_outputs.weight": (2, 8),
  "qa_outputs.bias": (2,),
}


def hf_shapes(prefix="", heads=None):
  """Names and shapes of a BERT of HF_CONFIG in Hugging Face's form, written out by hand."""
  shapes = {
    "embeddings.word_embeddings.weight": (31, 8),
    "embeddings.position_embeddings.weight": (10, 8),
    "embeddings.token_type_embeddings.weight": (2, 8),
  }
  norms = ["embeddings.LayerNorm"]
  linear = {"pooler.dense": (8, 8)}
  for i in range(2):
    layer = f"encoder.layer.{i}."
    norms += [layer + "attention.output.LayerNorm", layer + "output.LayerNorm"]
    linear |= {layer + f"attention.self.{name}": (8, 8) for name in ("query", "key", "value")}
    linear |= {
      layer + "attention.output.dense": (8, 8),
      layer + "intermediate.dense": (12, 8),
      layer + "output.dense": (8, 12),
    }
  for name in norms:
    shapes |= {name + ".weight": (8,), name + ".bias": (8,)}
  for name, shape in linear.items():
    shapes |= {name + ".weight": shape, name + ".bias": shape[:1]}
  return {prefix + name: shape for name, shape in shapes.items()} | (heads or {})


def draw(shapes):
  random = np.random.RandomState(0)
  return {name: random.randn(*shape).astype(np.float32) for name, shape in shapes.items()}


def write_hf(folder, tensors, config=None):
  """Writes a Hugging Face model folder; returns its path."""
  os.makedirs(folder, exist_ok=True)
  folder = str(folder)
  safetensors.numpy.save_file(tensors, os.path.join(folder, "model.safetensors"))
  with open(os.path.join(folder, "config.json"), "w") as writer:
    json.dump(config or HF_CONFIG, writer)
  with open(os.path.join(folder, "vocab.txt"), "w") as writer:
    writer.write("".join(f"piece{i}\n" for i in range(31)))
  return folder


def read_hf(folder):
  return safetensors.numpy.load_file(os.path.join(folder, "model.safetensors"))


def read_tf(folder):
  reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def write_tf(prefix, arrays):
  """Writes a checkpoint with tf.compat.v1.train.Saver, as training does; returns its prefix."""
  with tf.Graph().as_default(), v1.Session() as session:
    for name, array in arrays.items():
      v1.get_variable(name, initializer=tf.constant(array))
    session.run(v1.global_variables_initializer())
    return v1.train.Saver().save(session, str(prefix), write_meta_graph=False)


def assert_same(actual, expected):
  assert sorted(actual) == sorted(expected)
  for name, array in expected.items():
    assert actual[name].dtype == array.dtype, name
    np.testing.assert_array_equal(actual[name], array, err_msg=name)


def golden_folder(folder):
  """Writes the original's pretraining model with optimizer variables; returns (data, weights)."""
  data = np.load(os.path.join(GOLDEN, "bert_pretrain.npz"), allow_pickle=False)
  weights = {name[2:]: data[name] for name in data.files if name.startswith("w:")}
  slots = {f"{name}/adam_{slot}": array + 1 for name, array in weights.items() for slot in "mv"}
  os.makedirs(folder)
  write_tf(folder / "model.ckpt-120", {**weights, **slots, "global_step": np.int64(120)})
  (folder / "bert_config.json").write_text(str(data["config_json"]))
  (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
  return data, weights


def run_script(*arguments):
  return subprocess.run(
    [sys.executable, os.path.join(ROOT, "convert_checkpoint.py"), *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


def without(tensors, *names):
  return {name: array for name, array in tensors.items() if name not in names}
