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
from utils.options import brief


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


MAX_DEPTH = 100  # of nested lists and objects; deeper values cannot even be printed
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, source: str, **options: Any) -> Any:
  r"""Returns the value of JSON text.

  Args:
    text: the text.
    source: file, and line if there are several values, for messages.
    **options: of json.loads.

  Raises:
    UserError: the text is not valid JSON, is nested too deep, has an integer of too many digits,
      or a string with half of a surrogate pair (from the escape "\ud83d"), which is no character.
  """
  try:
    value = json.loads(text, **options)
  except (ValueError, RecursionError) as error:
    raise UserError(f"{source}: not valid JSON: {str(error).partition(';')[0]}") from None
  if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
    raise UserError(f"{source}: not valid JSON: nested more than {MAX_DEPTH} deep")
  bad = _surrogate(value) if _SURROGATE_ESCAPE.search(text) else None
  if bad is not None:
    raise UserError(
      f"{source}: {bad!r} holds half of a surrogate pair, which is not a character; remove it"
    )
  return value


def _is_deep(value):
  """Returns whether lists and objects are nested more than MAX_DEPTH deep."""
  level = [value]
  for _ in range(MAX_DEPTH + 1):
    level = [item for item in level if isinstance(item, list | dict)]
    if not level:
      return False
    level = [child for item in level for child in (item.values() if type(item) is dict else item)]
  return True


def _surrogate(value):
  """Path of the first string with half of a surrogate pair, e.g. "data[0].title"; None if none."""
  rest = [("", value)]
  while rest:
    path, item = rest.pop()
    if isinstance(item, str) and re.search("[\ud800-\udfff]", item):
      return path or "the text"
    if isinstance(item, list):
      rest += [(f"{path}[{index}]", child) for index, child in enumerate(item)]
    elif isinstance(item, dict):
      children = [(f"{path}.{key}" if path else key, child) for key, child in item.items()]
      rest += [*children, *((name, key) for (name, _), key in zip(children, item, strict=True))]
  return None


def read_json(path: str) -> dict[str, Any]:
  """Returns the contents of a JSON file that holds an object.

  Raises:
    UserError: the file is not valid JSON, or holds another value.
  """
  with open_file(path) as reader:
    data = reader.read()
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError as error:
    raise UserError(f"{path}: not valid JSON: {error}") from None
  values = parse_json(text, path)
  if not isinstance(values, dict):
    raise UserError(f"{path}: contains a {type(values).__name__}, not a JSON object")
  return values


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


def read_json_lines(path: str, shape: Any = object) -> list[Any]:
  """Reads a file with a JSON value a line; an empty list if there is no such file.

  Args:
    path: file that a program here wrote.
    shape: shape of each value, see `fits`.

  Raises:
    UserError: a line is not valid JSON, or of another shape.
  """
  if not exists(path):
    return []
  with open_file(path) as reader:
    lines = reader.read().decode("utf-8", "replace").split("\n")
  values = []
  for number, line in enumerate(lines, 1):
    if line:
      values.append(parse_json(line, f"{path}: line {number}"))
      if not fits(values[-1], shape):
        raise UserError(
          f"{path}: line {number}: a key is missing, or its value is of another type; make the "
          f"file again, with the records that it belongs to"
        )
  return values


def fits(value: Any, shape: Any) -> bool:
  """Returns whether a JSON value has a shape.

  Args:
    value: the value.
    shape: a type, or a union of types; a list of one shape, that of each item; or a dict of key ->
      shape, whose keys must be there.
  """
  if isinstance(shape, list):
    return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
  if isinstance(shape, dict):
    return isinstance(value, dict) and all(
      key in value and fits(value[key], of_key) for key, of_key in shape.items()
    )
  return isinstance(value, shape)


def check_shapes(values: dict[str, Any], shapes: dict[str, Any], path: str) -> None:
  """UserError if a value of a JSON file has another shape than its key's; null has every shape.

  Args:
    values: contents of the file.
    shapes: key -> shape, see `fits`; the keys need not be there.
    path: the file, for the message.
  """
  for key, shape in shapes.items():
    if values.get(key) is not None and not fits(values[key], shape):
      raise UserError(
        f"{path}: {key} is {brief(values[key])}, which is of another type than programs write; "
        f"fix the file or make it again"
      )
