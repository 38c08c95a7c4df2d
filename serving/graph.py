"""The graph of a trained model's predictions, with its variables in a session."""

import dataclasses
from collections.abc import Callable, Iterable

import tensorflow as tf

import modeling
from serving.model import TrainedModel
from training import checkpoints, precision
from utils import paths

v1 = tf.compat.v1

IDS = ("input_ids", "input_mask", "segment_ids")


@dataclasses.dataclass
class Served:
  """A graph, and a session with its variables.

  Attributes:
    graph: the graph.
    session: its session.
    inputs: name of a feature -> placeholder [B, T], [B, N, T] or [B]; no size is fixed.
    outputs: name -> [B, ...] tensors.
  """

  graph: tf.Graph
  session: v1.Session
  inputs: dict[str, tf.Tensor]
  outputs: dict[str, tf.Tensor]

  def computed(self) -> dict[str, tf.Tensor]:
    """Returns the outputs without those that are inputs, such as a tagger's label_ids."""
    given = {tensor.op for tensor in self.inputs.values()}
    return {name: tensor for name, tensor in self.outputs.items() if tensor.op not in given}

  def inputs_of(self, outputs: Iterable[tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the inputs that `outputs` are computed from, and in any case the IDS."""
    seen, remaining = set(), [tensor.op for tensor in outputs]
    while remaining:
      op = remaining.pop()
      if op not in seen:
        seen.add(op)
        remaining += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return {
      name: tensor for name, tensor in self.inputs.items() if name in IDS or tensor.op in seen
    }


def open_session(graph: tf.Graph, checkpoint: str) -> v1.Session:
  """Returns a session of a graph, with its trainable variables restored.

  Raises:
    UserError: a variable of the graph is not in the checkpoint.
  """
  settings = v1.ConfigProto(allow_soft_placement=True)
  settings.gpu_options.allow_growth = True
  with graph.as_default():
    checkpoints.check(checkpoint)
    session = v1.Session(graph=graph, config=settings)
    saver = v1.train.Saver(v1.trainable_variables(), save_relative_paths=True)
    saver.restore(session, paths.checkpoint_without_wildcards(checkpoint))
  return session


def placeholder(
  name: str, dtype: tf.DType, shape: list[int | None], defaults: dict[str, tf.Tensor]
) -> tf.Tensor:
  """Returns a placeholder, which has the value of defaults[name] if it is not fed."""
  if name in defaults:
    return v1.placeholder_with_default(defaults[name], shape, name)
  return v1.placeholder(dtype, shape, name)


def build(
  model: TrainedModel, make_defaults: Callable[[], dict[str, tf.Tensor]] = lambda: {}
) -> Served:
  """Builds the graph of the task's predictions and restores the checkpoint.

  Args:
    model: the model.
    make_defaults: returns name of an input -> its value in the graph if it is not fed.
  """
  task, rank = model.task, 2 if model.task.sequences_per_example == 1 else 3
  graph = tf.Graph()
  with graph.as_default():
    inputs, defaults = {}, make_defaults()
    for spec in task.feature_specs:
      shape = [None] * rank if spec.is_sequence else [None, *([spec.length] if spec.length else [])]
      dtype = tf.int32 if spec.dtype == "int64" else tf.as_dtype(spec.dtype)
      inputs[spec.name] = placeholder(spec.name, dtype, shape, defaults)
    features = task.prepare(inputs, tf.zeros([2], tf.int32))
    encoder = modeling.build_encoder(
      model.config,
      features,
      is_training=False,
      compute_dtype=precision.DTYPES[precision.of(model.experiment.runtime)],
    )
    outputs = task.build(encoder, features).predictions
  return Served(graph, open_session(graph, model.checkpoint), inputs, outputs)
