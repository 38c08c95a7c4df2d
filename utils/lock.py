"""Lock of a folder: only one process trains in it."""

import contextlib
import fcntl
import logging
import os
import socket

from errors import UserError
from utils import files

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(folder: str):
  """Locks a folder as long as the context lasts, or the process.

  The lock is on the file .lock. The system removes the lock of a process that ends in any way, so a
  file that was left does not block. Remote folders (gs://...) and file systems without locks are
  not locked.

  Raises:
    UserError: another process holds the lock.
  """
  if files.is_remote(folder):
    yield
    return
  path = os.path.join(folder, ".lock")
  descriptor = _open_locked(folder, path)
  try:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    yield
  finally:
    files.remove(path)  # before the lock is released: another process then opens a new file
    os.close(descriptor)


def _open_locked(folder, path):
  """Descriptor of the locked file."""
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
      os.close(descriptor)
      raise UserError(
        f"{folder}: {holder} is training in this folder; wait for its end, or choose another "
        f"--model_dir"
      ) from None
    except OSError as error:
      log.info("%s: not locked (%s)", folder, files.reason(error))
      return descriptor
    # The file may have been removed by its former holder between open and flock.
    if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(descriptor)):
      return descriptor
    os.close(descriptor)
