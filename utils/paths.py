"""Paths given by the user: outputs that overwrite inputs, names with wildcard characters.

Worker processes and small scripts import this module, so it does not import TensorFlow.
"""

import atexit
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from typing import Any

from errors import UserError

_WILDCARDS = re.compile(r"[*?\[\\]")


@functools.cache
def _link(folder: str) -> str:
  """Symbolic link to a local folder, in a temporary folder that is removed at exit."""
  temporary = tempfile.mkdtemp()
  atexit.register(shutil.rmtree, temporary, ignore_errors=True)  # the link, not its target
  link = os.path.join(temporary, "folder")
  os.symlink(os.path.abspath(folder), link, target_is_directory=True)
  return link


def without_wildcards(folder: str) -> str:
  """Path of the same folder without the characters * ? [ and backslash.

  TensorFlow treats the path of a checkpoint as a pattern when it looks for the files or deletes
  them, and as a literal name when it reads or writes them. No spelling of a folder such as
  runs/lr[1e-3] works for both, but a link to the folder does.

  Raises:
    UserError: the folder is remote, so it cannot be linked.
  """
  if not _WILDCARDS.search(folder):
    return folder
  if "://" in folder:
    raise UserError(
      f"{folder}: TensorFlow reads * ? [ and \\ in the path of a remote folder as a "
      f"pattern; choose a name without them"
    )
  return _link(folder)


def checkpoint_without_wildcards(prefix: str) -> str:
  """Prefix of the same checkpoint in a folder from without_wildcards.

  Raises:
    UserError: the name of the checkpoint or the path of a remote folder has wildcard characters.
  """
  folder, name = os.path.split(prefix)
  if _WILDCARDS.search(name):
    raise UserError(
      f"{prefix}: TensorFlow reads * ? [ and \\ in the name of a checkpoint as a "
      f"pattern; rename its files"
    )
  return os.path.join(without_wildcards(folder), name)


def _identities(path: str) -> set:
  """Values that two paths have in common if they are the same file, also through links."""
  if "://" in path:
    scheme, rest = path.split("://", 1)
    return {f"{scheme}://{os.path.normpath(rest)}"}
  found: set[Any] = {os.path.realpath(path)}
  if os.path.exists(path):
    stat = os.stat(path)
    found.add((stat.st_dev, stat.st_ino))  # hard links
  return found


def is_same(one: str, other: str) -> bool:
  """Returns whether two paths are the same file or folder, also through links."""
  return not _identities(one).isdisjoint(_identities(other))


def check_outputs(inputs: Iterable[str], outputs: Iterable[str]) -> None:
  """Checks that no output is an input or another output. Call it before any file is written.

  Args:
    inputs: files to read; they need not exist.
    outputs: files to write or remove.

  Raises:
    UserError: an output is an input or another output.
  """
  taken = {
    key: (path, "is read by this command: it would be lost")
    for path in inputs
    for key in _identities(path)
  }
  for output in outputs:
    keys = _identities(output)
    for key in keys & taken.keys():
      path, reason = taken[key]
      other = "" if path == output else f" is the same file as {path}, which"
      raise UserError(f"{output}{other} {reason}. Choose another name for the output")
    taken.update(dict.fromkeys(keys, (output, "is written twice")))
