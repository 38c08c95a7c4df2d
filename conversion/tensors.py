"""Reads and writes TensorFlow checkpoints."""

import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from errors import UserError
from training import checkpoints, garden_checkpoint, hf_tokenizer, model_folder

v1 = tf.compat.v1

_OPTIMIZER = re.compile(  # ours and the originals' (adam_m), tf.train.AdamOptimizer's (Adam)
  r"(/adam_[mv]|/Adam(_1)?|(^|/)beta[12]_power(_\d+)?|^global_step)$"
)
_CORE = re.compile(r"^(bert|electra|model/(input|encoder|decoder))/")
_CLASSIFIER = re.compile(r"^model/(.+)/logit/kernel$")
# Checkpoints from before Funnel-Transformer's release: (pattern, replacement).
_OLD_NAMES = (
  (r"(^|/)transformer_xl/", r"\1encoder/"),
  (r"^(model|generator)/(layer_\d+/)", r"\1/decoder/\2"),
)


def _released_name(name: str) -> str:
  """Returns the variable's name in the released checkpoints."""
  for pattern, replacement in _OLD_NAMES:
    name = re.sub(pattern, replacement, name)
  return name


def is_core(name: str) -> bool:
  """Returns True if a variable belongs to the encoder (or decoder), False if to a head."""
  return bool(_CORE.match(name))


def classifier_scope(names: Iterable[str]) -> str | None:
  """Returns the scope of a Funnel classifier, SCOPE in model/SCOPE/logit; None if there is none."""
  return next((found[1] for found in map(_CLASSIFIER.match, names) if found), None)


class TFTensors:
  """The model's variables in a TensorFlow checkpoint, without the optimizer's; read one by one.

  Attributes:
    source: prefix of the checkpoint.
    shapes: name -> shape, sorted by name; the names are those of the released checkpoints.
    dropped: names of the optimizer's variables.
  """

  def __init__(self, path: str):
    """Opens a checkpoint; UserError if there is none or its variables have no names.

    Args:
      path: prefix, one of its files, or a folder (its newest checkpoint).
    """
    self.source = checkpoints.resolve(path)
    try:
      self._reader = checkpoints.open_reader(self.source)
      shapes = self._reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
      raise UserError(f"{self.source}: cannot read this checkpoint ({error})") from None
    if isinstance(self._reader, garden_checkpoint.Reader):
      raise UserError(
        f"{self.source}: a checkpoint of Model Garden; first convert it with "
        f"--direction=garden_to_tf"
      )
    self.dropped = sorted(filter(_OPTIMIZER.search, shapes))
    self._stored = {}  # name -> name in the file
    for stored in sorted(shapes.keys() - set(self.dropped)):
      name = _released_name(stored)
      if name in self._stored:
        raise UserError(
          f"{self.source}: {self._stored[name]} and {stored} are names of the same variable"
        )
      self._stored[name] = stored
    self.shapes = {name: tuple(shapes[stored]) for name, stored in sorted(self._stored.items())}

  def read(self, name: str) -> np.ndarray:
    """Reads a variable in its stored dtype; UserError if the data are damaged."""
    try:
      return np.asarray(self._reader.get_tensor(self._stored[name]))
    except (tf.errors.OpError, RuntimeError) as error:
      raise UserError(
        f"{self.source}: cannot read variable {name}; the checkpoint is "
        f"incomplete or damaged ({error})"
      ) from None

  def size(self) -> int:
    """Size of the checkpoint's files in bytes."""
    return checkpoint_size(self.source)


def find_checkpoint(input_dir: str, checkpoint: str) -> str:
  """Returns the checkpoint to convert: `checkpoint`, or the folder's best, or its newest."""
  best = os.path.join(input_dir, "best")
  return checkpoint or (best if checkpoints.latest(best) else input_dir)


def find_settings(input_dir: str, prefix: str) -> dict[str, Any]:
  """Reads the model's settings from the folder of the checkpoint `prefix`.

  Missing settings of the tokenizer are read from input_dir, whose vocabulary is used.
  """
  shared = model_folder.read_settings(input_dir)
  return {
    name: value for name, value in shared.items() if name in hf_tokenizer.SETTINGS
  } | model_folder.read_settings(os.path.dirname(prefix))


def write_checkpoint(prefix: str, arrays: dict[str, np.ndarray]) -> None:
  """Writes a TF1 (V2 format) checkpoint of named variables.

  The arrays are fed to the save operation: constants would limit the graph to 2 GB, and variables
  would be copies.
  """
  with (
    tf.Graph().as_default(),
    tf.device("/cpu:0"),
    v1.Session(config=v1.ConfigProto(device_count={"GPU": 0})) as session,
  ):
    holders = [v1.placeholder(array.dtype, array.shape) for array in arrays.values()]
    save = tf.raw_ops.SaveV2(
      prefix=prefix, tensor_names=list(arrays), shape_and_slices=[""] * len(arrays), tensors=holders
    )
    session.run(save, dict(zip(holders, arrays.values(), strict=True)))


def checkpoint_size(prefix: str) -> int:
  """Size of a checkpoint's data and index files in bytes."""
  return sum(
    tf.io.gfile.stat(path).length
    for path in checkpoints.files_of(prefix)
    if not path.endswith(".meta")
  )


def checkpoint_files(name: str) -> list[str]:
  """Names of the files that write_checkpoint writes, in order, and the state file."""
  return [f"{name}.data-00000-of-00001", f"{name}.index", "checkpoint"]
