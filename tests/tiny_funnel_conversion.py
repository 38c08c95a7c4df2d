"""Tiny Funnel-Transformer folders in TensorFlow's and Hugging Face's form."""

import json

import numpy as np
import tensorflow as tf
from tiny_conversion import draw, write_tf

import modeling
from models import funnel_heads

v1 = tf.compat.v1
HF_CONFIG = dict(  # parameter layers 0 and 1, then 2 (applied twice), then the decoder's 3
  model_type="funnel",
  vocab_size=31,
  block_sizes=[2, 1],
  block_repeats=[1, 2],
  num_decoder_layers=1,
  d_model=8,
  n_head=3,
  d_head=4,
  d_inner=10,
  hidden_act="gelu_new",
  hidden_dropout=0.2,
  attention_dropout=0.3,
  activation_dropout=0.4,
  initializer_range=0.5,
  initializer_std=0.06,
  layer_norm_eps=1e-9,
  pooling_type="max",
  attention_type="factorized",
  separate_cls=True,
  truncate_seq=True,
  pool_q_only=False,
)
LAYERS = {
  "encoder.blocks.0.0": "model/encoder/layer_0",
  "encoder.blocks.0.1": "model/encoder/layer_1",
  "encoder.blocks.1.0": "model/encoder/layer_2",
  "decoder.layers.0": "model/decoder/layer_3",
}
CLASSIFIER = {
  "classifier.linear_hidden.weight": (8, 8),
  "classifier.linear_hidden.bias": (8,),
  "classifier.linear_out.weight": (5, 8),
  "classifier.linear_out.bias": (5,),
}
DISCRIMINATOR = {
  "discriminator_predictions.dense.weight": (8, 8),
  "discriminator_predictions.dense.bias": (8,),
  "discriminator_predictions.dense_prediction.weight": (1, 8),
  "discriminator_predictions.dense_prediction.bias": (1,),
}


def hf_shapes(prefix="", heads=None, decoder=True):
  """Names and shapes of a Funnel model of HF_CONFIG in Hugging Face's form, written by hand."""
  layer = {
    "attention.q_head.weight": (12, 8),
    "attention.k_head.weight": (12, 8),
    "attention.k_head.bias": (12,),
    "attention.v_head.weight": (12, 8),
    "attention.v_head.bias": (12,),
    "attention.post_proj.weight": (8, 12),
    "attention.post_proj.bias": (8,),
    "attention.r_w_bias": (3, 4),
    "attention.r_r_bias": (3, 4),
    "attention.r_s_bias": (3, 4),
    "attention.r_kernel": (8, 3, 4),
    "attention.seg_embed": (2, 3, 4),
    "attention.layer_norm.weight": (8,),
    "attention.layer_norm.bias": (8,),
    "ffn.linear_1.weight": (10, 8),
    "ffn.linear_1.bias": (10,),
    "ffn.linear_2.weight": (8, 10),
    "ffn.linear_2.bias": (8,),
    "ffn.layer_norm.weight": (8,),
    "ffn.layer_norm.bias": (8,),
  }
  shapes = {
    "embeddings.word_embeddings.weight": (31, 8),
    "embeddings.layer_norm.weight": (8,),
    "embeddings.layer_norm.bias": (8,),
  }
  for place in LAYERS:
    if decoder or "decoder" not in place:
      shapes |= {f"{place}.{name}": shape for name, shape in layer.items()}
  return {prefix + name: shape for name, shape in shapes.items()} | (heads or {})


def graph_variables(config, decoder=True, scope="model", head=None):
  """Name -> shape of the variables of a built model, with what `head` builds on its output."""
  with tf.Graph().as_default():
    model = modeling.FunnelTFM(config, scope=scope)
    hidden, _, _ = model.extract_hiddens(tf.zeros([1, 4], tf.int32), False, use_decoder=decoder)
    if head:
      head(model, hidden)
    return {v.op.name: tuple(v.shape.as_list()) for v in v1.global_variables()}


def tf_folder(folder, arrays, **changes):
  """Writes net_config.json, a vocabulary and a checkpoint of `arrays`; returns the folder."""
  config = (
    dict(
      vocab_size=31,
      block_size="2_1x2",
      decoder_size="1",
      d_model=8,
      d_embed=8,
      n_head=3,
      d_head=4,
      d_inner=10,
    )
    | changes
  )
  folder.mkdir()
  (folder / "net_config.json").write_text(json.dumps(config))
  (folder / "vocab.uncased.txt").write_text("<pad>\n<unk>\n")
  write_tf(folder / "model.ckpt-90", arrays)
  return str(folder)


def tiny_config(**changes):
  return modeling.ModelConfig(
    **{
      **dict(
        vocab_size=31,
        block_size="2_1x2",
        decoder_size="1",
        d_model=8,
        d_embed=8,
        n_head=3,
        d_head=4,
        d_inner=10,
      ),
      **changes,
    }
  )


def head_of(heads):
  """Function that builds the variables of `heads`."""
  if heads is CLASSIFIER:
    return lambda model, hidden: funnel_heads.classification_logits(
      model.net_config, model.get_pooled_output(tf.zeros([1, 4], tf.int32), False)[0], 5, "cls"
    )
  return heads and (lambda model, hidden: funnel_heads.binary_logits(model.net_config, hidden))


def pretraining_checkpoint():
  """Returns (variables of ELECTRA's pretraining with the optimizer's, those of the encoder)."""
  config = tiny_config()
  core = draw(graph_variables(config))
  heads = graph_variables(config, head=head_of(DISCRIMINATOR))
  generator = {
    name: shape
    for name, shape in graph_variables(
      config,
      scope="generator",
      head=lambda model, hidden: funnel_heads.mlm_logits(
        config, hidden, tf.zeros([1, 2], tf.int32), "generator"
      ),
    ).items()
  }
  weights = draw(generator) | draw(heads) | core
  slots = {f"{name}/adam_{slot}": array for name, array in weights.items() for slot in "mv"}
  return {**weights, **slots, "global_step": np.int64(90)}, core
