"""Writes object-based checkpoints of Model Garden's BERT encoders.

The object graph is written directly, as building the objects would need Model Garden. It has the
edges of BertEncoder (layer_with_weights-0) and those of BertEncoderV2 (_embedding_layer), for
tf.train.Checkpoint(encoder=encoder) and tf.train.Checkpoint(model=encoder).
"""

import re
from typing import Any

import numpy as np
from tensorflow.core.protobuf import trackable_object_graph_pb2

from conversion import tensors
from training import garden_checkpoint

_HEADS_FIRST = re.compile(r"/attention/output/dense/kernel$")  # [N, D, H]
_HEADS_LAST = re.compile(r"/(query|key|value)/(kernel|bias)$")  # [H, N, D], [N, D]


def _stored_array(name: str, array: np.ndarray, num_heads: int) -> np.ndarray:
  """Returns the array in the shape that Model Garden's layer has."""
  if _HEADS_FIRST.search(name):
    return array.reshape(num_heads, -1, array.shape[-1])
  if _HEADS_LAST.search(name):
    return array.reshape(*array.shape[:-1], num_heads, -1)
  return array


class _Graph:
  """An object graph and its variables; an object is the number of its node, the root is 0."""

  def __init__(self):
    self._proto = trackable_object_graph_pb2.TrackableObjectGraph()
    self._proto.nodes.add()
    self._paths, self.arrays = [""], {}

  def link(self, parent: int, name: str, child: int) -> None:
    self._proto.nodes[parent].children.add(node_id=child, local_name=name)

  def walk(self, node: int, path: str) -> int:
    """Returns the object at the end of a path; missing objects are added."""
    for name in filter(None, path.split("/")):
      edges = {edge.local_name: edge.node_id for edge in self._proto.nodes[node].children}
      if name not in edges:
        edges[name] = len(self._paths)
        self._paths.append(f"{self._paths[node]}{name}/")
        self._proto.nodes.add()
        self.link(node, name, edges[name])
      node = edges[name]
    return node

  def add_variable(self, parent: int, edge: str, name: str, array: np.ndarray) -> int:
    node = self.walk(parent, edge)
    key = self._paths[node] + ".ATTRIBUTES/VARIABLE_VALUE"
    self._proto.nodes[node].attributes.add(
      name="VARIABLE_VALUE", full_name=name, checkpoint_key=key
    )
    self.arrays[key] = array
    return node

  def serialized(self) -> np.ndarray:
    for node in self._proto.nodes:
      node.has_checkpoint_values.value = True
    return np.array(self._proto.SerializeToString(), object)


def write_checkpoint(prefix: str, arrays: dict[str, np.ndarray], config: Any) -> int:
  """Writes an encoder, its pooler, and the masked-words head if there is one.

  Args:
    prefix: the checkpoint.
    arrays: name here -> array; names of other heads are left out.
    config: the model's BertConfig.

  Returns:
    Number of variables written.
  """
  graph = _Graph()
  encoder = graph.walk(0, "encoder")
  graph.link(0, "model", encoder)
  numbered = 0

  def add(node, rows, scope=""):
    for name, path, kind in rows:
      for suffix, edge in garden_checkpoint.KINDS[kind]:
        full = scope + name + suffix
        array = _stored_array(full, arrays[full], config.num_attention_heads)
        graph.add_variable(graph.walk(node, path), edge, full, array)

  def add_layer(parent, edge, rows, scope=""):
    nonlocal numbered
    node = graph.walk(encoder, f"layer_with_weights-{numbered}")
    graph.link(parent, edge, node)
    numbered += 1
    add(node, rows, scope)
    return node

  for name, edge, kind in garden_checkpoint.EMBEDDINGS:
    if any(stored.startswith(name) for stored in arrays):
      add_layer(encoder, edge, [(name, "", kind)])
  layers = graph.walk(encoder, "_transformer_layers")
  for i in range(config.num_hidden_layers):
    add_layer(layers, str(i), garden_checkpoint.LAYER, f"bert/encoder/layer_{i}/")
  if f"{garden_checkpoint.POOLER}/kernel" in arrays:
    pooler = add_layer(encoder, "_pooler_layer", [(garden_checkpoint.POOLER, "", "dense")])
    graph.link(0, garden_checkpoint.HEAD_POOLER, pooler)
  if "cls/predictions/output_bias" in arrays:
    head = graph.walk(0, "masked_lm")
    graph.link(head, "embedding_table", graph.walk(encoder, "layer_with_weights-0/embeddings"))
    add(head, garden_checkpoint.MASKED_LM)
  count = len(graph.arrays)
  tensors.write_checkpoint(
    prefix, {**graph.arrays, garden_checkpoint.GRAPH_KEY: graph.serialized()}
  )
  return count
