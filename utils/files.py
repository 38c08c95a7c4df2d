"""Local and remote files: opening, atomic writing, JSON, fingerprints.

Paths with "://" (gs://...) go through TensorFlow, which is imported only for them, because worker
processes import this module. A file is written under a temporary name and renamed, so a reader sees
either the old file or the complete new one.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable
from typing import Any

from errors import UserError


def _gfile():
  import tensorflow as tf

  return tf.io.gfile


def is_remote(path: str) -> bool:
  """Returns whether a path is a URL, which TensorFlow's file systems open."""
  return "://" in path


def exists(path: str) -> bool:
  """Returns whether a file or a folder exists."""
  return _gfile().exists(path) if is_remote(path) else os.path.exists(path)


def open_file(path: str, mode: str = "rb"):
  """Opens a file; text is UTF-8, and line ends are not translated."""
  if is_remote(path):
    return _gfile().GFile(path, mode)
  return open(path, mode) if "b" in mode else open(path, mode, encoding="utf-8", newline="")


def io_errors(path: str) -> tuple[type[Exception], ...]:
  """Exceptions that reading or writing this path may raise."""
  if not is_remote(path):
    return (OSError,)
  import tensorflow as tf

  return OSError, tf.errors.OpError


def reason(error: Exception) -> str:
  """Message of an exception from io_errors, without the path."""
  return getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)


def temporary_prefix(path: str) -> str:
  """Common prefix of the temporary files for `path`, in the same folder."""
  return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}~")


def temporary_name(path: str) -> str:
  """Name of a temporary file for `path` that no other process on any machine uses."""
  return f"{temporary_prefix(path)}{socket.gethostname()}-{os.getpid()}"


def remove_abandoned(folder: str, start: str = "") -> None:
  """Removes temporary files of killed processes of this machine from a folder.

  Args:
    folder: the folder; need not exist.
    start: first characters of the names that the files were temporary for.
  """
  pattern = rf"\.{re.escape(start)}.*~{re.escape(socket.gethostname())}-(\d+)"
  if _gfile().isdir(folder or "."):
    for name in _gfile().listdir(folder or "."):
      match = re.fullmatch(pattern, name)
      if match and not _is_running(int(match[1])):
        remove(os.path.join(folder, name))


def _is_running(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except OSError:  # another user's
    pass
  return True


def rename(source: str, target: str) -> None:
  """Renames a file; replaces an existing target."""
  if is_remote(target):
    _gfile().rename(source, target, overwrite=True)
  else:
    os.replace(source, target)


def remove(path: str) -> None:
  """Removes a file if it exists."""
  if is_remote(path):
    if exists(path):
      _gfile().remove(path)
  else:
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)


@contextlib.contextmanager
def replacing(path: str):
  """Yields a temporary name; then renames that file to `path`, or removes it after an error."""
  temporary = temporary_name(path)
  try:
    yield temporary
    rename(temporary, path)
  except OSError as error:
    error.filename = error.filename or path  # an error of a write names no file
    raise
  finally:
    remove(temporary)


def write_text(path: str, text: str) -> None:
  """Writes a text file atomically; creates its folder.

  Raises:
    UserError: the folder cannot be created or written to.
  """
  make_dirs(os.path.dirname(path))
  with replacing(path) as temporary, open_file(temporary, "w") as writer:
    writer.write(text)


def write_json(path: str, values: dict[str, Any]) -> None:
  """Writes a JSON file atomically."""
  write_text(path, json.dumps(values, indent=4, ensure_ascii=False) + "\n")


def read_json(path: str) -> dict[str, Any]:
  """Returns the contents of a JSON file.

  Raises:
    UserError: the file is not valid JSON.
  """
  with open_file(path, "r") as reader:
    try:
      return json.load(reader)
    except ValueError as error:
      raise UserError(f"{path}: not valid JSON: {error}") from None


def copy(source: str, target: str) -> None:
  """Copies a file atomically."""
  with replacing(target) as temporary:
    if is_remote(source) or is_remote(target):
      _gfile().copy(source, temporary, overwrite=True)
    else:
      shutil.copyfile(source, temporary)


def make_dirs(path: str, flags: str = "--output_dir or --model_dir") -> None:
  """Creates a folder and its parents, and checks that files can be written there.

  Args:
    path: the folder; "" is the current one.
    flags: flags that set the folder, for the message.

  Raises:
    UserError: the folder cannot be created or written to; the message names `flags`.
  """
  path = path or "."
  probe = os.path.join(path, f".probe-{socket.gethostname()}-{os.getpid()}")
  try:
    if is_remote(path):
      _gfile().makedirs(path)
    else:
      os.makedirs(path, exist_ok=True)
    with open_file(probe, "wb") as writer:
      writer.write(b"")
    remove(probe)
  except io_errors(path) as error:
    raise UserError(
      f"{path}: cannot write to this folder ({reason(error)}); choose another with {flags}"
    ) from None


def fingerprint(paths: Iterable[str]) -> str:
  """SHA-256 of the contents of files, in this order."""
  digest = hashlib.sha256()
  for path in paths:
    with open_file(path) as reader:
      while chunk := reader.read(1 << 20):
        digest.update(chunk)
    digest.update(b"\0")
  return digest.hexdigest()


def write_tsv(path: str, rows: Iterable[list[str]]) -> None:
  """Writes rows as tab-separated lines, in one step."""
  write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def read_json_lines(path: str) -> list[Any]:
  """Reads a file with a JSON value a line; an empty list if there is no such file."""
  if not (_gfile().exists(path) if is_remote(path) else os.path.exists(path)):
    return []
  with open_file(path, "r") as reader:
    return [json.loads(line) for line in reader.read().split("\n") if line]
