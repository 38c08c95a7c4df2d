"""Paths that the user names: those that TensorFlow would take for patterns."""

import atexit
import functools
import os
import re
import shutil
import tempfile

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
    raise UserError(f"{folder}: TensorFlow takes * ? [ and \\ in the path of a remote folder for a "
                    f"pattern; choose a name without them")
  return _link(folder)


def checkpoint_without_wildcards(prefix: str) -> str:
  """Prefix of the same checkpoint, see without_wildcards; UserError if the name has such."""
  folder, name = os.path.split(prefix)
  if _WILDCARDS.search(name):
    raise UserError(f"{prefix}: TensorFlow takes * ? [ and \\ in the name of a checkpoint for a "
                    f"pattern; rename its files")
  return os.path.join(without_wildcards(folder), name)
