"""Tiny ELECTRA models in Hugging Face's and TensorFlow's form, and their outputs in both libraries.

  PYTHONPATH=VENV/lib/python3.11/site-packages:.:tests python tests/tiny_electra.py

writes tests/golden/electra.npz with transformers and torch: random weights of ElectraModel and of
its heads for pretraining, masked tokens, classification and question answering, inputs, outputs.
"""

import importlib
import json
import os

import numpy as np
import safetensors.numpy
import tensorflow as tf
from tiny_conversion import GOLDEN

import modeling
from models import bert_heads

v1 = tf.compat.v1
HF_CONFIG = dict(
  model_type="electra",
  vocab_size=31,
  embedding_size=8,
  hidden_size=12,
  num_hidden_layers=2,
  num_attention_heads=3,
  intermediate_size=20,
  hidden_act="gelu",
  hidden_dropout_prob=0.1,
  attention_probs_dropout_prob=0.2,
  max_position_embeddings=10,
  type_vocab_size=2,
  initializer_range=0.03,
  layer_norm_eps=1e-12,
)
NUM_LABELS = 3
# Class of the library -> attributes of its output -> names of the golden outputs.
HEADS = {
  "ElectraForPreTraining": {"logits": "replaced_token_logits"},
  "ElectraForMaskedLM": {"logits": "masked_lm_logits"},
  "ElectraForSequenceClassification": {"logits": "classification_logits"},
  "ElectraForQuestionAnswering": {"start_logits": "start_logits", "end_logits": "end_logits"},
}


def make_inputs(vocab_size=31, lengths=(10, 7, 3), seed=0):
  """Features of sequences with padding, int32 [B, T]."""
  random = np.random.RandomState(seed)
  positions = np.arange(max(lengths))
  mask = np.int32(positions < np.array(lengths)[:, None])
  return {
    "input_ids": random.randint(1, vocab_size, mask.shape).astype(np.int32) * mask,
    "input_mask": mask,
    "segment_ids": np.int32(positions >= np.array(lengths)[:, None] // 2) * mask,
  }


def write_hf_models(folder, config, seed=0):
  """Writes a random model of each class of HEADS, all with the same encoder: folder/CLASS.

  The weights are much larger than the library's, so that an error shows in the outputs.
  """
  torch, transformers = map(importlib.import_module, ("torch", "transformers"))
  generator, encoder = torch.Generator().manual_seed(seed), None
  for name in HEADS:
    num_labels = NUM_LABELS if name == "ElectraForSequenceClassification" else 2
    model = getattr(transformers, name)(transformers.ElectraConfig(**config, num_labels=num_labels))
    with torch.no_grad():
      for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    if encoder is None:
      encoder = model.electra.state_dict()
    model.electra.load_state_dict(encoder)
    model.save_pretrained(os.path.join(folder, name))


def hf_outputs(folder, inputs):
  """Outputs of the library's model in `folder`, of the class in its config.json."""
  torch, transformers = map(importlib.import_module, ("torch", "transformers"))
  with open(os.path.join(folder, "config.json")) as reader:
    (name,) = json.load(reader)["architectures"]
  model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
  assert not any(info.values()), info
  with torch.no_grad():
    out = model.eval()(
      input_ids=torch.tensor(inputs["input_ids"]).long(),
      attention_mask=torch.tensor(inputs["input_mask"]).long(),
      token_type_ids=torch.tensor(inputs["segment_ids"]).long(),
      output_hidden_states=True,
    )
  outputs = {ours: out[theirs].numpy() for theirs, ours in HEADS[name].items()}
  return {"sequence_output": out.hidden_states[-1].numpy(), **outputs}


def outputs_here(folder, inputs, names):
  """Outputs `names` of the TensorFlow model in `folder`; its checkpoint must have all variables."""
  config = modeling.load_config(os.path.join(folder, "electra_config.json"))
  batch, length = inputs["input_ids"].shape
  positions = np.tile(np.arange(length, dtype=np.int32), [batch, 1])
  with tf.Graph().as_default(), v1.Session() as session:
    features = {name: tf.constant(value) for name, value in inputs.items()}
    features["masked_lm_positions"] = tf.constant(positions)
    encoder = modeling.build_encoder(config, features, is_training=False)
    builders = {
      "sequence_output": encoder.sequence_output,
      "classification_logits": lambda: encoder.classification_logits(NUM_LABELS, None, "task"),
      "masked_lm_logits": encoder.masked_lm_logits,
      "replaced_token_logits": lambda: bert_heads.replaced_token_logits(encoder._model),
      "start_logits": lambda: bert_heads.span_logits(encoder.sequence_output())[0],
      "end_logits": lambda: bert_heads.span_logits(encoder.sequence_output())[1],
    }
    with v1.variable_scope("", reuse=v1.AUTO_REUSE):
      outputs = {name: builders[name]() for name in names}
    v1.train.Saver().restore(session, tf.train.latest_checkpoint(str(folder)))
    return session.run(outputs)


def golden():
  """Returns (weights in Hugging Face's form, inputs, outputs) of the golden file."""
  data = np.load(os.path.join(GOLDEN, "electra.npz"), allow_pickle=False)
  of = lambda kind: {name[len(kind) :]: data[name] for name in data.files if name.startswith(kind)}
  return of("w:"), of("in:"), of("out:")


def write_golden(folder):
  inputs, arrays = make_inputs(), {}
  write_hf_models(folder, HF_CONFIG)
  for name in HEADS:
    path = os.path.join(folder, name)
    weights = safetensors.numpy.load_file(os.path.join(path, "model.safetensors"))
    arrays |= {f"w:{key}": array for key, array in weights.items()}
    arrays |= {f"out:{key}": array for key, array in hf_outputs(path, inputs).items()}
  arrays |= {f"in:{key}": array for key, array in inputs.items()}
  np.savez_compressed(os.path.join(GOLDEN, "electra.npz"), **arrays)


if __name__ == "__main__":
  import tempfile

  with tempfile.TemporaryDirectory() as temporary:
    write_golden(temporary)
