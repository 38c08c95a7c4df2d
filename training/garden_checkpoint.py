"""Object-based checkpoints of Model Garden's BERT encoders (tensorflow/models, official/nlp).

tf.train.Checkpoint stores a graph of objects and, for each variable, a key of the file. The keys
depend on how the model was saved: encoder/layer_with_weights-0/embeddings, model/..., or, in a
SavedModel, variables/0. The edges between objects do not, so variables are found by their edges
from the encoder. BertEncoder and BertEncoderV2 have the same edges; earlier functional encoders
have only the numbered ones (layer_with_weights-4).

Source: official/nlp/modeling of tf-models-official 2.15.0, and object graphs that it saved.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from errors import UserError

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
WORD_TABLE = "bert/embeddings/word_embeddings"
# Kind of layer -> (suffix of our name, edge from the layer to the variable).
KINDS = {
  "table": (("", "embeddings"),),
  "vector": (("", "bias"),),
  "norm": (("/gamma", "gamma"), ("/beta", "beta")),
  "dense": (("/kernel", "kernel"), ("/bias", "bias")),
  "logits": (("output_weights", "kernel"), ("output_bias", "bias")),  # kernel transposed
}
# (our name, path from the encoder, kind).
EMBEDDINGS = (
  (WORD_TABLE, "_embedding_layer", "table"),
  ("bert/embeddings/position_embeddings", "_position_embedding_layer", "table"),
  ("bert/embeddings/token_type_embeddings", "_type_embedding_layer", "table"),
  ("bert/embeddings/LayerNorm", "_embedding_norm_layer", "norm"),
  ("bert/embeddings_project", "_embedding_projection", "dense"),
)
# (our name in bert/encoder/layer_I, path from the encoder's layer I, kind).
LAYER = (
  ("attention/self/query", "_attention_layer/_query_dense", "dense"),
  ("attention/self/key", "_attention_layer/_key_dense", "dense"),
  ("attention/self/value", "_attention_layer/_value_dense", "dense"),
  ("attention/output/dense", "_attention_layer/_output_dense", "dense"),
  ("attention/output/LayerNorm", "_attention_layer_norm", "norm"),
  ("intermediate/dense", "_intermediate_dense", "dense"),
  ("output/dense", "_output_dense", "dense"),
  ("output/LayerNorm", "_output_layer_norm", "norm"),
)
# (our name, path from the masked-words head, kind).
MASKED_LM = (
  ("cls/predictions/transform/dense", "dense", "dense"),
  ("cls/predictions/transform/LayerNorm", "layer_norm", "norm"),
  ("cls/predictions/output_bias", "", "vector"),
)
POOLER = "bert/pooler/dense"
_NEXT_SENTENCE = "cls/seq_relationship/"
# Edge from the root to the pooler of the next-sentence head. With that head, the encoder's own
# pooler is not trained.
HEAD_POOLER = "next_sentence.pooler_dense"


class _Graph:
  """The objects of a checkpoint and their edges; an object is the number of its node."""

  def __init__(self, serialized: bytes):
    self._nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(serialized).nodes

  def edges(self, node: int) -> dict[str, int]:
    """Returns name of the edge -> object."""
    return {edge.local_name: edge.node_id for edge in self._nodes[node].children}

  def walk(self, node: int | None, path: str) -> int | None:
    """Returns the object at the end of a path; None if an edge is missing."""
    for name in filter(None, path.split("/")):
      node = None if node is None else self.edges(node).get(name)
    return node

  def key(self, node: int | None) -> str | None:
    """Returns the key of a variable; None for other objects."""
    attributes = () if node is None else self._nodes[node].attributes
    return next((each.checkpoint_key for each in attributes), None)

  def breadth_first(self) -> Iterator[int]:
    """Yields all objects, those nearest to the root first."""
    queue, seen = [0], {0}
    for node in queue:
      yield node
      new = [other for other in self.edges(node).values() if other not in seen]
      seen.update(new)
      queue += dict.fromkeys(new)


@dataclasses.dataclass(frozen=True)
class _Encoder:
  """Objects of an encoder: path in EMBEDDINGS -> object, the layers, the pooler if it has one."""

  embeddings: dict[str, int | None]
  layers: list[int]
  pooler: int | None


def _encoder_at(graph: _Graph, node: int) -> _Encoder | None:
  """Returns the encoder whose root is `node`; None if it is another object."""
  edges = graph.edges(node)
  if graph.key(graph.walk(edges.get("_embedding_layer"), "embeddings")):
    embeddings = {path: edges.get(path) for _, path, _ in EMBEDDINGS}
    found = graph.edges(edges["_transformer_layers"]) if "_transformer_layers" in edges else {}
    layers = [found[str(i)] for i in range(len(found)) if str(i) in found]
    return _Encoder(embeddings, layers, edges.get("_pooler_layer"))
  numbered = []
  while (name := f"layer_with_weights-{len(numbered)}") in edges:
    numbered.append(edges[name])
  if not numbered or not graph.key(graph.walk(numbered[0], "embeddings")):
    return None
  layers = [other for other in numbered if "_attention_layer" in graph.edges(other)]
  others = [other for other in numbered if other not in layers]
  order = [path for _, path, _ in EMBEDDINGS]  # the order of the layers in the functional model
  has_projection = len(layers) > 0 and numbered.index(layers[0]) == len(order)
  count = len(order) if has_projection else len(order) - 1
  embeddings = dict.fromkeys(order) | dict(zip(order, others[:count], strict=False))
  return _Encoder(embeddings, layers, next(iter(others[count:]), None))


class Reader:
  """Reads an object-based checkpoint under this project's names, in their shapes.

  It has the methods of tf.train.load_checkpoint's reader that this project uses. Heads are read if
  the checkpoint has them. The optimizer's variables and the global step are left out.

  Attributes:
    source: the checkpoint's prefix.
    sizes: keys of bert_config.json that the shapes determine.
  """

  def __init__(self, reader: Any, source: str):
    """Finds the encoder and its heads.

    Args:
      reader: from tf.train.load_checkpoint.
      source: the checkpoint's prefix.

    Raises:
      UserError: there is no BERT encoder of Model Garden in the checkpoint.
    """
    self.source, self._reader = source, reader
    self._stored = reader.get_variable_to_shape_map()
    graph = _Graph(reader.get_tensor(GRAPH_KEY))
    found = (_encoder_at(graph, node) for node in graph.breadth_first())
    encoder = next(filter(None, found), None)
    if encoder is None:
      raise UserError(
        f"{source}: a checkpoint of TensorFlow 2 objects (tf.train.Checkpoint) without a BERT "
        f"encoder of Model Garden (no layer of word embeddings). Of other models only checkpoints "
        f"with variable names, from tf.compat.v1.train.Saver, can be read"
      )
    self._keys = dict(_keys(graph, encoder))  # our name -> key in the file
    self.sizes = self._sizes()

  def get_variable_to_shape_map(self) -> dict[str, list[int]]:
    """Returns our name -> our shape of every variable."""
    return {name: self._shape(name) for name in self._keys}

  def get_tensor(self, name: str) -> np.ndarray:
    """Reads a variable; UserError if the checkpoint has no such variable."""
    if name not in self._keys:
      raise UserError(f"{self.source}: no variable {name} in this checkpoint of Model Garden")
    array = np.asarray(self._reader.get_tensor(self._keys[name]))
    return array.T if _is_transposed(name) else array.reshape(self._shape(name))

  def init_from_checkpoint(self, prefix: str, variables: Mapping[str, Any]) -> None:
    """Lets variables of the graph start from the checkpoint when the session initializes them.

    v1.train.init_from_checkpoint does the same, but cannot change a tensor's shape.

    Args:
      prefix: the checkpoint, as TensorFlow reads it.
      variables: our name -> tf.Variable of the same shape.
    """

    def assign(strategy):
      del strategy
      for name, variable in variables.items():
        with tf.device("/cpu:0"):
          value = tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=[self._keys[name]],
            shape_and_slices=[""],
            dtypes=[variable.dtype.base_dtype],
          )[0]
          value = tf.ensure_shape(value, self._stored[self._keys[name]])
          value = tf.transpose(value) if _is_transposed(name) else value
          value = tf.reshape(value, variable.shape)
        variable._initializer_op = variable.assign(value)  # as init_from_checkpoint does

    replica = tf.distribute.get_replica_context()
    assign(None) if replica is None else replica.merge_call(assign)

  def check_config(self, config: Any, config_file: str) -> None:
    """Raises UserError if the configuration differs from the checkpoint's sizes.

    vocab_size is not compared, as one of the two tables may be padded.
    """
    own = {key: getattr(config, key, "missing") for key in self.sizes}
    wrong = [
      f"{key} is {size} in the checkpoint and {own[key]} in the configuration"
      for key, size in self.sizes.items()
      if key != "vocab_size" and own[key] != size
    ]
    if wrong:
      raise UserError(
        f"{self.source}: not a checkpoint of the configuration in {config_file}: "
        f"{'; '.join(wrong)}. Change the configuration, or name another checkpoint"
      )

  def _shape(self, name):
    shape = list(self._stored[self._keys[name]])
    if name.endswith(("/query/kernel", "/key/kernel", "/value/kernel")):
      return [shape[0], int(np.prod(shape[1:]))]
    if name.endswith("attention/output/dense/kernel"):
      return [int(np.prod(shape[:-1])), shape[-1]]
    if name.endswith(("/query/bias", "/key/bias", "/value/bias")):
      return [int(np.prod(shape))]
    return shape[::-1] if _is_transposed(name) else shape

  def _sizes(self):
    layer = "bert/encoder/layer_0/"
    for name in (f"{layer}attention/self/query/kernel", f"{layer}intermediate/dense/kernel"):
      if name not in self._keys:
        raise UserError(
          f"{self.source}: not the encoder of BERT, but another of Model Garden: there is no {name}"
        )
    tables = ("bert/embeddings/position_embeddings", "bert/embeddings/token_type_embeddings")
    rows = {name: self._shape(name)[0] if name in self._keys else 0 for name in tables}
    vocab_size, embedding_size = self._shape(WORD_TABLE)
    query = self._stored[self._keys[f"{layer}attention/self/query/kernel"]]
    return {
      "vocab_size": vocab_size,
      "hidden_size": query[0],
      "num_hidden_layers": sum(name.endswith("/query/kernel") for name in self._keys),
      "num_attention_heads": query[1],
      "intermediate_size": self._shape(f"{layer}intermediate/dense/kernel")[1],
      "max_position_embeddings": rows[tables[0]],
      "type_vocab_size": rows[tables[1]],
      **({"embedding_size": embedding_size} if embedding_size != query[0] else {}),
    }


def _is_transposed(name):
  return name.endswith("output_weights")


def _keys(graph: _Graph, encoder: _Encoder) -> Iterator[tuple[str, str]]:
  """Yields (our name, key in the file) of every variable of the encoder and its heads."""
  rows = [(name, encoder.embeddings[path], "", kind) for name, path, kind in EMBEDDINGS]
  for i, layer in enumerate(encoder.layers):
    rows += [(f"bert/encoder/layer_{i}/{name}", layer, path, kind) for name, path, kind in LAYER]
  root = graph.edges(0)
  rows.append((POOLER, root.get(HEAD_POOLER, encoder.pooler), "", "dense"))
  is_head = lambda node: (
    {"embedding_table", "dense", "layer_norm", "bias"} <= graph.edges(node).keys()
  )
  masked_lm = next(filter(is_head, graph.breadth_first()), None)
  rows += [(name, masked_lm, path, kind) for name, path, kind in MASKED_LM]
  heads = graph.walk(0, "model/classification_heads")
  for head in graph.edges(heads).values() if heads is not None else ():
    if HEAD_POOLER in root and graph.walk(head, "dense") == root[HEAD_POOLER]:
      rows.append((_NEXT_SENTENCE, head, "out_proj", "logits"))
  for name, node, path, kind in rows:
    for suffix, edge in KINDS[kind]:
      key = graph.key(graph.walk(graph.walk(node, path), edge))
      if key is not None:
        yield name + suffix, key
