"""Tiny BERT models of Model Garden, written by its own code, and their outputs.

  PYTHONPATH=VENV/lib/python3.11/site-packages:.:tests python tests/tiny_model_garden.py

writes to tests/golden/ with tf-models-official 2.15.0 (and TensorFlow 2.15):
  model_garden.npz          inputs; the outputs of both models; masked-words logits of the second
  model_garden_encoder      BertEncoder (functional), from Checkpoint(encoder=...)
  model_garden_pretrainer   BertPretrainerV2 with BertEncoderV2, in the form of a pretraining run
  model_garden_hub/         variables and assets of the BertEncoder's SavedModel, exported as for
                            TF-Hub; its graph (saved_model.pb) is large and not read here

  ... tests/tiny_model_garden.py PREFIX

loads a checkpoint that convert_checkpoint.py wrote into both encoders, and compares their outputs
with those in model_garden.npz.
"""

import importlib
import os
import shutil
import sys
import tempfile

import numpy as np
import tensorflow as tf

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
SIZES = dict(
  vocab_size=27,  # of tiny.VOCAB
  hidden_size=16,
  num_layers=2,
  num_attention_heads=4,
  inner_dim=24,
  max_sequence_length=32,
  type_vocab_size=2,
)
NAMES = ("sequence_output", "pooled_output")


def inputs():
  """Features of three sequences, two of them padded, int32 [B, T]."""
  random, positions = np.random.RandomState(0), np.arange(10)
  lengths = np.array([[10], [7], [3]])
  mask = np.int32(positions < lengths)
  return {
    "input_word_ids": random.randint(1, SIZES["vocab_size"], mask.shape).astype(np.int32) * mask,
    "input_mask": mask,
    "input_type_ids": np.int32(positions >= lengths // 2) * mask,
  }


def _encoder(kind):
  networks = importlib.import_module("official.nlp.modeling.networks")
  encoder = getattr(networks, kind)(
    **SIZES, **({"dict_outputs": True} if kind == "BertEncoder" else {})
  )
  encoder(encoder.inputs)
  return encoder


def _randomize(variables, seed):
  """Adds noise, so that every variable, biases included, affects the outputs."""
  random = np.random.RandomState(seed)
  for variable in variables:
    if variable.trainable:
      variable.assign_add(random.normal(0, 0.2, variable.shape).astype(np.float32))


def _pretrainer():
  layers, models, utils = (
    importlib.import_module(f"official.{name}")
    for name in ("nlp.modeling.layers", "nlp.modeling.models", "modeling.tf_utils")
  )
  head = layers.ClassificationHead(
    inner_dim=SIZES["hidden_size"], num_classes=2, name="next_sentence"
  )
  model = models.BertPretrainerV2(
    encoder_network=_encoder("BertEncoderV2"),
    mlm_activation=utils.get_activation("gelu"),
    classification_heads=[head],
  )
  model({**inputs(), "masked_lm_positions": np.ones([3, 2], np.int32)})
  return model


def _export(encoder, folder):
  """Exports the encoder with vocabulary and casing, as official/nlp/tools/export_tfhub_lib does."""
  import tiny

  features = {each.name: each for each in encoder.inputs}
  model = tf.keras.Model(inputs=features, outputs=encoder(features))
  vocabulary = os.path.join(folder, "vocab.txt")
  with open(vocabulary, "w", encoding="utf-8") as writer:
    writer.write("\n".join(tiny.VOCAB) + "\n")
  model.vocab_file = tf.saved_model.Asset(vocabulary)
  model.do_lower_case = tf.Variable(True, trainable=False)
  model.save(os.path.join(folder, "hub"), include_optimizer=False, save_format="tf")
  for name in ("variables", "assets"):
    target = os.path.join(GOLDEN, "model_garden_hub", name)
    shutil.copytree(os.path.join(folder, "hub", name), target, dirs_exist_ok=True)


def write():
  """Writes the files in tests/golden."""
  encoder, pretrainer = _encoder("BertEncoder"), _pretrainer()
  _randomize(encoder.variables, 1)
  _randomize(pretrainer.variables, 2)
  features = inputs()
  outputs = encoder(features)
  golden = {**features, **{f"encoder_{name}": outputs[name] for name in NAMES}}
  positions = np.array([[1, 9], [2, 3], [0, 1]], np.int32)
  outputs = pretrainer({**features, "masked_lm_positions": positions})
  golden["masked_lm_positions"] = positions
  for name in ("sequence_output", "mlm_logits", "next_sentence"):
    golden[f"pretrainer_{name}"] = outputs[name]
  np.savez_compressed(os.path.join(GOLDEN, "model_garden.npz"), **golden)
  tf.train.Checkpoint(encoder=encoder).write(os.path.join(GOLDEN, "model_garden_encoder"))
  tf.train.Checkpoint(model=pretrainer, **pretrainer.checkpoint_items).write(
    os.path.join(GOLDEN, "model_garden_pretrainer")
  )
  with tempfile.TemporaryDirectory() as folder:
    _export(encoder, folder)


def check(prefix):
  """Compares the outputs of both encoders, with the weights of `prefix`, with the golden ones."""
  golden = np.load(os.path.join(GOLDEN, "model_garden.npz"))
  for root in ("encoder", "model"):
    for kind in ("BertEncoder", "BertEncoderV2"):
      encoder = _encoder(kind)
      status = tf.train.Checkpoint(**{root: encoder}).read(prefix)
      status.expect_partial().assert_existing_objects_matched()
      outputs = encoder(inputs())
      for name in NAMES:
        difference = np.abs(outputs[name] - golden[f"encoder_{name}"]).max()
        print(f"Checkpoint({root}={kind}) {name}: largest difference {difference:.1e}")
        assert difference < 1e-5


if __name__ == "__main__":
  check(*sys.argv[1:]) if sys.argv[1:] else write()
