"""Free space of disks, and errors of a full disk; TensorFlow reports them as a lack of memory."""

import contextlib
import errno
import os
import re
import shutil

from errors import UserError
from utils import files

_FULL = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)


def is_full(error: BaseException) -> bool:
  """Returns whether an exception of Python, TensorFlow or safetensors is due to a full disk."""
  return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(
    _FULL.search(str(error))
  )


def full_reason(error: BaseException) -> str:
  """Returns the line of the message of an `is_full` error that names the file, if one does."""
  lines = [line.strip() for line in str(error).splitlines()]
  found = next((line for line in lines if _FULL.search(line)), str(error))
  # The heading that newer versions of TensorFlow add is left out, and names of graph nodes.
  return re.sub(r"^\{\{.*?\}\}\s*", "", found)


@contextlib.contextmanager
def naming(path: str):
  """Raises a UserError that names `path` if a library finds the disk full while it writes there."""
  try:
    yield
  except Exception as error:
    if not is_full(error):
      raise
    raise UserError(
      f"{path}: no space left on the disk. Free space or choose another folder, and run it again"
    ) from None


def free_bytes(folder: str) -> int | None:
  """Bytes that can be written to a folder, which need not exist; None if it is remote."""
  if files.is_remote(folder):
    return None
  folder = os.path.abspath(folder)
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  return shutil.disk_usage(folder).free
