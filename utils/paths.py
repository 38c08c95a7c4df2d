"""Paths that the user names: no output may be an input, and some look like patterns.

Worker processes and small scripts load this file, hence no TensorFlow here.
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
  atexit.register(shutil.rmtree, temporary, ignore_errors=True)  # the link, not what is behind it
  link = os.path.join(temporary, "folder")
  os.symlink(os.path.abspath(folder), link, target_is_directory=True)
  return link


def without_wildcards(folder: str) -> str:
  """Path of the same folder without the characters * ? [ and backslash.

  TensorFlow takes the path of a checkpoint for a pattern when it looks whether the files are there
  and when it deletes them, and for a name when it reads and writes: no spelling of a folder such as
  runs/lr[1e-3] serves for both, but a link to it does.

  Raises:
    UserError: the folder is remote, where there are no links.
  """
  if not _WILDCARDS.search(folder):
    return folder
  if "://" in folder:
    raise UserError(
      f"{folder}: TensorFlow takes * ? [ and \\ in the path of a remote folder for a "
      f"pattern; choose a name without them"
    )
  return _link(folder)


def checkpoint_without_wildcards(prefix: str) -> str:
  """Prefix of the same checkpoint, see without_wildcards; UserError if the name has such."""
  folder, name = os.path.split(prefix)
  if _WILDCARDS.search(name):
    raise UserError(
      f"{prefix}: TensorFlow takes * ? [ and \\ in the name of a checkpoint for a "
      f"pattern; rename its files"
    )
  return os.path.join(without_wildcards(folder), name)


def _identities(path: str) -> set:
  """Values that two paths share if they are the same file, also through links."""
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
  """Refuses files to write that are also read, before anything is touched.

  Args:
    inputs: files that are read; they need not exist.
    outputs: files that will be written or removed.

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
