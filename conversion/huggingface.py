"""Hugging Face's model files: the tensors of model.safetensors or its shards, and config.json."""

import glob
import os
import re
from typing import Any

import numpy as np
import safetensors

from conversion.families import FAMILIES, Entry, Family
from errors import UserError
from models import config_keys
from models.bert import read_json
from tasks.labels import check_label_list
from utils import files
from utils.options import brief

# ---- model.safetensors --------------------------------------------------------------------------

_FROM_PICKLE = """python -c "import glob, torch, safetensors.torch as s; s.save_file({k: \
v.contiguous().clone() for f in glob.glob('pytorch_model*.bin') for k, v in torch.load(f, \
map_location='cpu', weights_only=True).items()}, 'model.safetensors')\""""


def _shard_names(index: str) -> list[str]:
  """Returns the file names in an index; UserError if one is outside of the index's folder."""
  weight_map = files.read_json(index).get("weight_map")
  if not isinstance(weight_map, dict):
    raise UserError(f"{index}: not an index of shards: the key weight_map is missing")
  names = sorted(set(map(str, weight_map.values())))
  for name in names:
    if not re.fullmatch(r"[^/\\]+\.safetensors", name):
      raise UserError(
        f"{index}: {name!r} is not the name of a safetensors file in this folder; "
        f"files of other folders are not read"
      )
  return names


class HFTensors:
  """The tensors of model.safetensors or its shards; read one by one, as float32.

  Example:
    tensors = HFTensors("all-MiniLM-L6-v2")
    table = tensors.read("embeddings.word_embeddings.weight")
  """

  def __init__(self, folder: str):
    """Opens the files; UserError if there are none or one of them is damaged."""
    self.source, paths = self._find(folder)
    self._stored = {}  # name -> (file, type, shape)
    for path in paths:
      try:
        with safetensors.safe_open(path, framework="np") as opened:
          for name in opened.keys():
            part = opened.get_slice(name)
            self._stored[name] = path, part.get_dtype(), tuple(part.get_shape())
      except FileNotFoundError:
        raise UserError(f"{path}: no such file, but {self.source} lists it") from None
      except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file, or truncated ({error})") from None

  def _find(self, folder):
    single = os.path.join(folder, "model.safetensors")
    index = single + ".index.json"
    if os.path.exists(single):
      return single, [single]
    if os.path.exists(index):
      return index, [os.path.join(folder, name) for name in _shard_names(index)]
    if glob.glob(os.path.join(glob.escape(folder), "pytorch_model*.bin")):
      raise UserError(
        f"{folder}: has only pytorch_model.bin; reading this format can execute any code. "
        f"Save the model as safetensors: in that folder, with PyTorch, run {_FROM_PICKLE}"
      )
    raise UserError(
      f"{folder}: no model.safetensors in it; --input_dir is the folder of a Hugging Face model"
    )

  def names(self) -> list[str]:
    """Names of all tensors, as in the files."""
    return list(self._stored)

  def shape(self, name: str) -> tuple[int, ...]:
    """Shape of a tensor."""
    return self._stored[name][2]

  def read(self, name: str) -> np.ndarray:
    """Reads a tensor as float32; UserError if it is not F32, F16 or BF16."""
    path, dtype, _ = self._stored[name]
    if dtype not in ("F32", "F16", "BF16"):
      raise UserError(
        f"{path}: tensor {name} is of type {dtype}; only F32, F16 and BF16 can be converted"
      )
    # Opened for each tensor: an open file stays mapped and counts as the script's memory.
    with safetensors.safe_open(path, framework="np") as opened:
      return opened.get_tensor(name).astype(np.float32, copy=False)


def canonical_names(family: Family, tensors: HFTensors) -> dict[str, str]:
  """Returns current name without prefix -> name in the file.

  Buffers and copies are left out. Prefixes of other libraries ("module." of PyTorch's data
  parallelism) are removed.

  Raises:
    UserError: two tensors get the same name, a copy differs from its original, or the file has
      several encoders.
  """
  pattern = re.compile(rf"((?:.*?\.)??)(?:{re.escape(family.prefix)})?embeddings\.")
  wrappers = {found[1] for found in map(pattern.match, tensors.names()) if found}
  if len(wrappers) > 1:
    raise UserError(
      f"{tensors.source}: tensors of several encoders, with the prefixes "
      f"{', '.join(map(repr, sorted(wrappers)))}; keep one of them"
    )
  wrapper = next(iter(wrappers), "")
  actual = {}
  for name in tensors.names():
    canonical = name.removeprefix(wrapper).removeprefix(family.prefix)
    for pattern, replacement in family.aliases:
      canonical = re.sub(pattern, replacement, canonical)
    if canonical in actual:
      raise UserError(
        f"{tensors.source}: {actual[canonical]} and {name} are names of the same "
        f"tensor; remove one of them"
      )
    if canonical not in family.ignored:
      actual[canonical] = name
  for copy, original in family.tied.items():
    if copy in actual:
      copy_name = actual.pop(copy)
      if original not in actual:  # a file may have only the copy
        actual[original] = copy_name
      elif not np.array_equal(tensors.read(copy_name), tensors.read(actual[original])):
        raise UserError(
          f"{tensors.source}: {copy_name} differs from {actual[original]}; the models here share "
          f"them"
        )
  return actual


def prefixed_names(
  family: Family, entries: list[Entry], arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns name in the file -> array; names of core groups get a prefix if there is a head."""
  if {entry.group for entry in entries} <= set(family.core):
    return arrays
  return {
    family.prefix * (entry.group in family.core) + entry.hf_name: arrays[entry.hf_name]
    for entry in entries
  }


# ---- config.json --------------------------------------------------------------------------------


def from_hf_config(path: str) -> tuple[Family, Any]:
  """Reads config.json; returns the model family and our configuration.

  Raises:
    UserError: the file is missing, is of another family, or the models here cannot represent it.
  """
  values = read_json(path)
  name = config_keys.hugging_face_type(values)
  if name is None:
    raise UserError(
      f'{path}: the key model_type is missing; add "model_type": "bert", "electra" or "funnel"'
    )
  if name not in FAMILIES:
    raise UserError(f"{path}: model_type is {name!r}; only {', '.join(FAMILIES)} can be converted")
  return FAMILIES[name], FAMILIES[name].from_hf(values, path)


def to_hf_config(
  family: Family,
  config: Any,
  arrays: dict[str, np.ndarray],
  groups: set[str],
  labels: list[str] | None = None,
  source: str = "",
) -> dict[str, Any]:
  """Returns the contents of config.json for our configuration and the tensors of these groups.

  Args:
    family: the model's family.
    config: our configuration.
    arrays: Hugging Face name -> tensor.
    groups: groups of the checkpoint.
    labels: names of the classifier's labels; LABEL_0, ... if None.
    source: the checkpoint of the labels, for messages.
  """
  known = family.to_hf(config)
  architecture = next(name for needed, name in family.architectures if groups.issuperset(needed))
  values = {
    "architectures": [architecture],
    "model_type": family.model_type,
    **known,
    "hidden_act": config_keys.hugging_face_activation(known["hidden_act"]),
  }
  if "classifier" in groups:  # the library reads the number of labels from id2label
    values |= id2label(labels, len(arrays[family.label_bias]), source)
  return values


# ---- Labels in config.json ----------------------------------------------------------------------


def labels_tokens(values: dict[str, Any]) -> bool:
  """Returns True if config.json names a token classifier, which its tensors' names do not show."""
  return any("ForTokenClassification" in name for name in values.get("architectures") or ())


def label_list(values: dict[str, Any], num_labels: int, source: str) -> list[str] | None:
  """Returns the labels in config.json (id2label) by id; None if there are only LABEL_0, ...

  Raises:
    UserError: id2label does not have one name for each of the classifier's `num_labels`, or a name
      cannot be written to a file of predictions.
  """
  names = {i: str(name) for i, name in (values.get("id2label") or {}).items()}
  if all(name == f"LABEL_{i}" for i, name in names.items()):
    return None
  ids = [str(i) for i in range(num_labels)]
  if names.keys() != set(ids) or len(set(names.values())) < num_labels:
    raise UserError(
      f"{source}: id2label is {brief(names)}, but the classifier has {num_labels} labels; "
      f"give each of 0 to {num_labels - 1} a different name, or remove id2label"
    )
  labels = [names[i] for i in ids]
  check_label_list(labels, f"{source}: id2label")
  return labels


def id2label(names: list[str] | None, num_labels: int, source: str) -> dict[str, dict]:
  """Returns id2label and label2id of config.json; without names the labels are LABEL_0, ...

  Raises:
    UserError: the number of names is not `num_labels`.
  """
  names = names or [f"LABEL_{i}" for i in range(num_labels)]
  if len(names) != num_labels:
    raise UserError(
      f"{source}: the labels are {', '.join(names)}, but the classifier has "
      f"{num_labels}; are they those of this checkpoint?"
    )
  return {
    "id2label": {str(i): name for i, name in enumerate(names)},
    "label2id": {name: i for i, name in enumerate(names)},
  }
