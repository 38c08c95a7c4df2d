"""Tensors of Hugging Face's models: model.safetensors, its shards, and the names in them."""

import glob
import os
import re

import numpy as np
import safetensors

from conversion.families import Family
from errors import UserError
from utils import files

_FROM_PICKLE = """python -c "import glob, torch, safetensors.torch as s; s.save_file({k: \
v.contiguous().clone() for f in glob.glob('pytorch_model*.bin') for k, v in torch.load(f, \
map_location='cpu', weights_only=True).items()}, 'model.safetensors')\""""


def _shard_names(index: str) -> list[str]:
  """Names of the files that an index lists; UserError unless they are in the index's folder."""
  weight_map = files.read_json(index).get("weight_map")
  if not isinstance(weight_map, dict):
    raise UserError(f"{index}: no index of shards, it lacks weight_map")
  names = sorted(set(map(str, weight_map.values())))
  for name in names:
    if not re.fullmatch(r"[^/\\]+\.safetensors", name):
      raise UserError(
        f"{index}: {name!r} is not the name of a safetensors file in this folder; "
        f"files elsewhere are not read"
      )
  return names


class HFTensors:
  """The tensors of model.safetensors or its shards; read one by one, as float32.

  Example:
    tensors = HFTensors("all-MiniLM-L6-v2")
    table = tensors.read("embeddings.word_embeddings.weight")
  """

  def __init__(self, folder: str):
    """Opens the files; UserError when there are none or one of them is damaged."""
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
        raise UserError(f"{path}: not a safetensors file, or cut off ({error})") from None

  def _find(self, folder):
    single = os.path.join(folder, "model.safetensors")
    index = single + ".index.json"
    if os.path.exists(single):
      return single, [single]
    if os.path.exists(index):
      return index, [os.path.join(folder, name) for name in _shard_names(index)]
    if glob.glob(os.path.join(glob.escape(folder), "pytorch_model*.bin")):
      raise UserError(
        f"{folder}: has only pytorch_model.bin, a format that can run any code when "
        f"it is read. Save the model as safetensors: in that folder, with PyTorch, "
        f"run {_FROM_PICKLE}"
      )
    raise UserError(
      f"{folder}: no model.safetensors in it; --input_dir is the folder of a Hugging Face model"
    )

  def names(self) -> list[str]:
    return list(self._stored)

  def shape(self, name: str) -> tuple[int, ...]:
    return self._stored[name][2]

  def read(self, name: str) -> np.ndarray:
    """A tensor as float32; UserError when it is neither F32 nor of half precision."""
    path, dtype, _ = self._stored[name]
    if dtype not in ("F32", "F16", "BF16"):
      raise UserError(
        f"{path}: tensor {name} is of type {dtype}; only F32, F16 and BF16 can be converted"
      )
    # Opened anew for each: the whole file would stay mapped and count as the script's memory.
    with safetensors.safe_open(path, framework="np") as opened:
      return opened.get_tensor(name).astype(np.float32, copy=False)


def canonical_names(family: Family, tensors: HFTensors) -> dict[str, str]:
  """Name without prefix, in today's spelling -> name in the file; buffers and copies left out.

  What other libraries set before all names ("module." of PyTorch's data parallelism) is removed.

  Raises:
    UserError: two tensors have the same name then, or a copy differs from what it is a copy of; or
      the file has several encoders.
  """
  pattern = re.compile(rf"((?:.*?\.)??)(?:{re.escape(family.prefix)})?embeddings\.")
  wrappers = {found[1] for found in map(pattern.match, tensors.names()) if found}
  if len(wrappers) > 1:
    raise UserError(
      f"{tensors.source}: the tensors of several encoders, with the prefixes "
      f"{', '.join(map(repr, sorted(wrappers)))}; keep those of one"
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
      if original not in actual:  # a file may hold it under either name
        actual[original] = copy_name
      elif not np.array_equal(tensors.read(copy_name), tensors.read(actual[original])):
        raise UserError(
          f"{tensors.source}: {copy_name} differs from {actual[original]}; a model "
          f"that does not share them cannot be represented here"
        )
  return actual
