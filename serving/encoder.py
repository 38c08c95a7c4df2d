"""Encoders without a head: hidden states of tokens, and vectors of sentences.

The layers of a model are numbered from 0; -1 is the last one. For BERT and ELECTRA they are the
encoder's layers. For a Funnel-Transformer they are the encoder's, and then the decoder's output if
the checkpoint has a decoder. A hidden state of a pooled layer is repeated for all tokens that it
was pooled from, so that each layer has a vector for each token.
"""

import dataclasses
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf

import config
import modeling
import tokenization
from errors import UserError
from models import funnel_pooling
from serving.graph import IDS, Served, placeholder
from serving.model import fit_config
from training import checkpoints, layer_arguments, model_folder

v1 = tf.compat.v1


@dataclasses.dataclass
class EncoderModel:
  """An encoder.

  Attributes:
    config: its configuration.
    tokenizer: its tokenizer.
    tokenizer_settings: settings of the tokenizer.
    checkpoint: prefix of its checkpoint.
    has_decoder: whether the checkpoint has a Funnel decoder.
    has_pooler: whether the checkpoint has BERT's pooler.
  """

  config: modeling.Config
  tokenizer: Any
  tokenizer_settings: config.Tokenizer
  checkpoint: str
  has_decoder: bool
  has_pooler: bool


def load(
  model: config.Model,
  tokenizer: config.Tokenizer | None = None,
  given: Collection[str] = ("pretrained",),
) -> EncoderModel:
  """Loads a pretrained or trained encoder.

  Args:
    model: names the files, or the folder `pretrained` that holds them; changed in place.
    tokenizer: settings of the tokenizer; those that are not given are read from the folder.
    given: names of the settings that the user gave.

  Raises:
    UserError: a file is missing, or the files do not belong together.
  """
  tokenizer = tokenizer or config.Tokenizer()
  model_folder.find_pretrained(model, tokenizer, "", do_train=False, given=given)
  folder = os.path.dirname(tokenizer.tokenizer_path)
  model_folder.fill_tokenizer(tokenizer, [folder, model.pretrained], given)
  checkpoint = model.init_checkpoint or checkpoints.latest(os.path.join(model.pretrained, "best"))
  checkpoint = checkpoints.resolve(checkpoint or model.pretrained)
  model_config = model_folder.load_model_config(model)
  model_config = fit_config(model_config, checkpoint, model.model_config)
  bindings = model_folder.read_settings(os.path.dirname(checkpoint)).get("gin_bindings", "")
  layer_arguments.apply(bindings, model_config.family)
  found = tokenization.get_tokenizer(**dataclasses.asdict(tokenizer))
  tokenization.check_vocab(found, model_config.vocab_size, model.model_config)
  names = checkpoints.open_reader(checkpoint).get_variable_to_shape_map()
  return EncoderModel(
    model_config,
    found,
    tokenizer,
    checkpoint,
    has_decoder=any(name.startswith("model/decoder/") for name in names),
    has_pooler="bert/pooler/dense/kernel" in names,
  )


def check_length(model: EncoderModel, max_seq_length: int) -> None:
  """Raises UserError if the encoder has fewer positions than max_seq_length."""
  limit = model.config.max_position_embeddings
  if limit and max_seq_length > limit:
    raise UserError(f"--max_seq_length={max_seq_length} is beyond the model's {limit} positions")


def find_layers(num_layers: int, wanted: Sequence[int]) -> list[int]:
  """Returns the numbers of layers, from 0; UserError if the model has no such layer."""
  for layer in wanted:
    if not -num_layers <= layer < num_layers:
      raise UserError(
        f"--layers: there is no layer {layer}; the model has {num_layers}, {-num_layers} to -1"
      )
  return [layer % num_layers for layer in wanted]


def build(
  model: EncoderModel,
  wanted: Sequence[int] = (-1,),
  make_defaults: Callable[[], dict[str, tf.Tensor]] = lambda: {},
) -> Served:
  """Builds the graph of the hidden states, and restores the checkpoint.

  Inputs are int32 [B, T] with names graph.IDS. Outputs are, for each layer of `wanted`, such as -1:

    hidden_-1  float32 [B, T, H], hidden states of the tokens
    cls_-1     float32 [B, H], that of the first token
    mean_-1    float32 [B, H], the mean over all tokens but padding

  and `pooled_output`, float32 [B, H], if BERT's checkpoint has a pooler.
  `make_defaults` is as for graph.build.
  """
  graph, outputs = tf.Graph(), {}
  with graph.as_default():
    defaults = make_defaults()
    inputs = {name: placeholder(name, tf.int32, [None, None], defaults) for name in IDS}
    layers, pooled = _hidden_states(model, inputs)
    weights = tf.cast(inputs["input_mask"], tf.float32)[:, :, None]  # [B, T, 1]
    for layer, index in zip(wanted, find_layers(len(layers), wanted), strict=True):
      hidden = tf.cast(layers[index], tf.float32)
      outputs[f"hidden_{layer}"] = hidden
      outputs[f"cls_{layer}"] = hidden[:, 0]
      total = tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
      outputs[f"mean_{layer}"] = tf.reduce_sum(weights * hidden, axis=1) / total
    if pooled is not None:
      outputs["pooled_output"] = pooled
    checkpoints.initialize(config.Model(init_checkpoint=model.checkpoint))
    session = v1.Session(graph=graph)
    session.run(v1.global_variables_initializer())
  return Served(graph, session, inputs, outputs)


def _hidden_states(model, inputs):
  """Returns ([B, T, H] of each layer, pooled output [B, H] or None)."""
  ids, mask, segments = (inputs[name] for name in IDS)
  if model.config.family != "funnel":
    bert = modeling.BertModel(
      model.config, False, ids, mask, segments, with_pooler=model.has_pooler
    )
    return bert.get_all_encoder_layers(), bert.get_pooled_output()
  last, hiddens, _ = modeling.FunnelTFM(model.config).extract_hiddens(
    ids, False, segments, 1 - mask, use_decoder=model.has_decoder
  )
  length, layers, index = tf.shape(ids)[1], [], 0
  for block, (count, repeats) in enumerate(model.config.blocks):
    for _ in range(count * repeats):
      layers.append(funnel_pooling.upsample(model.config, hiddens[index], length, block))
      index += 1
  return [*layers, last] if model.has_decoder else layers, None
