"""State of a set of pretraining shards on disk: complete and missing record files, metadata."""

import contextlib
import logging
import os
import re
from typing import Any

import tensorflow as tf

from errors import UserError
from preprocessing import record_files, tfrecord
from preprocessing.pretraining_records import Shard
from utils import files, paths

log = logging.getLogger(__name__)

# Suffix of a shard's name; the marker's name has .done.json after it.
_SHARD_NAME = re.compile(r"(-\d{5})(-of-\d{5})(?=$|\.done\.json$)")
_ADVICE = "pass --overwrite_data to make them again, or choose another output folder"


def _check_settings(path: str, found: dict[str, Any], settings: dict[str, Any]) -> None:
  """Raises UserError if the settings in an earlier run's JSON file `path` differ from this run's.

  Args:
    path: the file, for the message.
    found: its contents.
    settings: settings of this run.
  """
  found = record_files.complete_meta(found)
  different = [
    f"{name} {found.get(name)!r} there, {value!r} now"
    for name, value in settings.items()
    if found.get(name) != value
  ]
  if different:
    raise UserError(
      f"{path}: the records were made with other settings: {'; '.join(different)}. Give the "
      f"same settings to continue, {_ADVICE}"
    )


def _names(planned: list[Shard], meta_path: str) -> list[str]:
  """Paths of the record files relative to the folder of the metadata; remote paths are absolute."""
  folder = os.path.dirname(meta_path)
  return [
    os.path.relpath(shard.path, folder or ".")
    if ("://" in shard.path) == ("://" in folder)
    else shard.path
    for shard in planned
  ]


def _is_complete(shard: Shard, settings: dict[str, Any]) -> bool:
  """Returns whether a shard is complete; UserError if its files were made by another command."""
  if not tf.io.gfile.exists(shard.marker):
    if tf.io.gfile.exists(shard.path):
      raise UserError(
        f"{shard.path}: this file exists, and this command did not make it; {_ADVICE}"
      )
    return False
  marker = record_files.read_meta(shard.marker)
  _check_settings(shard.marker, marker, settings)
  return tf.io.gfile.exists(shard.path) and tf.io.gfile.stat(shard.path).length == marker.get(
    "num_bytes"
  )


def _is_own(path: str) -> bool:
  """Returns whether a file can be of an earlier run: it has records, or JSON with their number."""
  with tf.io.gfile.GFile(path, "rb") as reader:
    start = reader.read(1024)
  if start.startswith(b"{"):
    with contextlib.suppress(UserError):
      return "num_example" in files.read_json(path)
  return tfrecord.is_start(start)


def _check_own(removed: list[str]) -> None:
  """Raises UserError if a file to remove is named like a shard but holds something else."""
  for path in removed:
    if _SHARD_NAME.search(path) and tf.io.gfile.exists(path) and not _is_own(path):
      raise UserError(
        f"{path}: --overwrite_data would remove this file, which holds no records; "
        f"move it away, or choose another output folder"
      )


def _remove(path: str) -> None:
  if tf.io.gfile.exists(path):
    tf.io.gfile.remove(path)


def _outputs(planned: list[Shard], meta_path: str) -> list[str]:
  """Paths of all files that the run writes."""
  return [path for shard in planned for path in (shard.path, shard.marker)] + (
    [meta_path] if meta_path else []
  )


def _find_leftovers(planned: list[Shard], meta_path: str, overwrite: bool) -> list[str]:
  """Makes the output folders; returns the files of earlier runs in them that must be removed.

  These are the unfinished files of a killed run and, with `overwrite`, files of another number of
  shards: a reader that lists files by their common prefix would read those too.

  Raises:
    UserError: there are files of another number of shards and `overwrite` is off.
  """
  leftovers = []
  outputs = _outputs(planned, meta_path)
  for folder in sorted({os.path.dirname(path) for path in outputs}):
    files.make_dirs(folder, "--output_file or --save_dir")
    here = [path for path in outputs if os.path.dirname(path) == folder]
    unfinished = tuple(files.temporary_prefix(path) for path in here)
    # NAME-of-00004 for NAME-00000-of-00004: other machines may be making shards of the same set.
    sets = {_SHARD_NAME.sub(r"\2", path) for path in here}
    names = {_SHARD_NAME.sub("", path) for path in here}
    for path in (os.path.join(folder, name) for name in tf.io.gfile.listdir(folder or ".")):
      if path.startswith(unfinished):
        leftovers.append(path)
      elif (
        _SHARD_NAME.search(path)
        and _SHARD_NAME.sub("", path) in names
        and _SHARD_NAME.sub(r"\2", path) not in sets
      ):
        if not overwrite:
          raise UserError(f"{path}: record files of another number of shards exist; {_ADVICE}")
        leftovers.append(path)
  return leftovers


def prepare(
  planned: list[Shard], settings: dict[str, Any], meta_path: str, overwrite: bool, inputs: list[str]
) -> list[Shard]:
  """Makes the folders, removes unfinished files of a killed run, and finds the missing shards.

  Args:
    planned: all shards.
    settings: settings of this run, compared with those of existing files.
    meta_path: file for the metadata of all shards; "" if the shards' markers are the metadata.
    overwrite: remove all output of an earlier run first.
    inputs: files that the run reads.

  Returns:
    The shards to make.

  Raises:
    UserError: a folder cannot be written to, an output file was made by another command, or a file
      to remove is an input or has no records.
  """
  outputs = _outputs(planned, meta_path)
  paths.check_outputs(inputs, outputs)
  if meta_path and not overwrite and tf.io.gfile.exists(meta_path):
    meta = record_files.read_meta(meta_path)
    _check_settings(meta_path, meta, {**settings, "filenames": _names(planned, meta_path)})
    if not isinstance(meta.get("num_bytes"), list) or len(meta["num_bytes"]) != len(planned):
      raise UserError(f"{meta_path}: the sizes of the record files are missing; {_ADVICE}")
    for shard, num_bytes in zip(planned, meta["num_bytes"], strict=True):
      record_files.check_num_bytes(shard.path, num_bytes)
    return []
  leftovers = _find_leftovers(planned, meta_path, overwrite)
  paths.check_outputs(inputs, leftovers)
  # A marker declares a record file complete, so it is removed first.
  removed = [*leftovers, *(reversed(outputs) if overwrite else ())]
  _check_own(removed)
  for path in removed:
    _remove(path)
  missing = [shard for shard in planned if not _is_complete(shard, settings)]
  if len(missing) < len(planned):
    log.info("%d of %d record files exist", len(planned) - len(missing), len(planned))
  return missing


def finish(
  planned: list[Shard], settings: dict[str, Any], meta_path: str, is_part: bool = False
) -> int:
  """Writes the metadata of all shards, which must be complete, and removes their markers.

  Args:
    planned: all shards.
    settings: settings of this run.
    meta_path: as in `prepare`; if "", the markers stay.
    is_part: the shards belong to one of several tasks, which may have no document.

  Returns:
    The number of examples.

  Raises:
    UserError: there are no examples.
  """
  if meta_path and tf.io.gfile.exists(meta_path):
    return record_files.read_meta(meta_path, ["train_data_size"])["train_data_size"]
  needs = ("num_example", "num_bytes")
  markers = [record_files.read_meta(shard.marker, needs) for shard in planned]
  counts = [marker["num_example"] for marker in markers]
  if not any(counts) and not is_part:
    for shard in planned:
      tf.io.gfile.remove(shard.marker)
      tf.io.gfile.remove(shard.path)
    raise UserError(
      "no document in the input: one sentence per line is expected"
      + (", and documents of at least --min_doc_len tokens" if not meta_path else "")
    )
  if not all(counts):
    log.warning(
      "%d of the %d record files are empty: there are fewer documents than files",
      counts.count(0),
      len(counts),
    )
  alone = sum(marker.get("num_documents_without_others", 0) for marker in markers)
  if alone:
    log.warning(
      "%d documents (or parts of large ones) were alone in their window: there was no other "
      "document to take random next sentences from, so all their pairs are real ones",
      alone,
    )
  if meta_path:
    files.write_json(
      meta_path,
      {
        **settings,
        "filenames": _names(planned, meta_path),
        "num_example": counts,
        "num_bytes": [marker["num_bytes"] for marker in markers],
        "train_data_size": sum(counts),
      },
    )
    for shard in planned:
      tf.io.gfile.remove(shard.marker)
  return sum(counts)
