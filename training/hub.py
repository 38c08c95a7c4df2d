"""Finds and downloads TF-Hub modules: folders with a SavedModel.

Without the library tensorflow_hub, but with its folder names, so both can share a cache.
"""

import hashlib
import os
import tarfile
import tempfile
import urllib.error
import urllib.request

import tensorflow as tf

import config
from errors import UserError
from utils import files


def _is_module(folder):
  return tf.io.gfile.exists(os.path.join(folder, "saved_model.pb"))


def _download(url: str, folder: str) -> None:
  """Downloads and unpacks a module into a new folder."""
  files.make_dirs(os.path.dirname(folder) or ".", "--tfhub_cache_dir")
  with tempfile.TemporaryDirectory(dir=os.path.dirname(folder) or ".") as temporary:
    unpacked = os.path.join(temporary, "module")
    try:
      with (
        urllib.request.urlopen(f"{url}?tf-hub-format=compressed", timeout=60) as response,
        tarfile.open(fileobj=response, mode="r|gz") as archive,
      ):
        archive.extractall(unpacked, filter="data")
    except (urllib.error.URLError, tarfile.TarError, OSError, EOFError) as error:
      raise UserError(
        f"{url}: cannot download this TF-Hub module ({error}). Download it on a machine that can, "
        f"unpack it, and pass its folder as hub_module_url"
      ) from None
    if not _is_module(unpacked):
      raise UserError(f"{url}: no TF-Hub module in the form of a SavedModel (no saved_model.pb)")
    os.rename(unpacked, folder)


def find(module: str, cache_dir: str) -> str:
  """Returns the folder of a module.

  Search order: 1. the path `module`, 2. cache_dir/module, 3. the folder of the URL `module` in
  cache_dir, to which it is downloaded if it is missing.

  Raises:
    UserError: there is no such module, or it cannot be downloaded.
  """
  cache_dir = cache_dir or os.environ.get("TFHUB_CACHE_DIR", "")
  is_url = module.startswith(("http://", "https://"))
  name = hashlib.sha1(module.encode()).hexdigest() if is_url else module
  folders = ([] if is_url else [module]) + ([os.path.join(cache_dir, name)] if cache_dir else [])
  for folder in folders:
    if _is_module(folder):
      return folder
  if not is_url:
    raise UserError(
      f"hub_module_url: no TF-Hub module (a folder with saved_model.pb) at {' or '.join(folders)}"
    )
  if not cache_dir:
    raise UserError(
      f"hub_module_url={module}: name a folder for the download with --tfhub_cache_dir"
    )
  _download(module, folders[0])
  return folders[0]


def set_init_checkpoint(model: config.Model) -> None:
  """Sets init_checkpoint to the module of hub_module_url, if there is one.

  Raises:
    UserError: both are given, or see `find`.
  """
  if not model.hub_module_url:
    return
  if model.init_checkpoint:
    raise UserError(
      f"hub_module_url={model.hub_module_url} and init_checkpoint={model.init_checkpoint} are both "
      f"given; leave one of them out"
    )
  model.init_checkpoint = find(model.hub_module_url, model.tfhub_cache_dir)
