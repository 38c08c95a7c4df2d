"""Finds, checks, restores and copies checkpoints.

A checkpoint PREFIX consists of the files PREFIX.index and PREFIX.data-0000I-of-0000N. Folders may
have any name: they are listed, not searched with patterns, and TensorFlow gets paths from
utils.paths.
"""

import collections
import dataclasses
import functools
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

import config
import modeling
import optimization
import tokenization
from errors import UserError
from training import damage, garden_checkpoint
from utils import console, files, paths

v1 = tf.compat.v1

_STATE = "checkpoint"
_FILE = re.compile(r"(.+)\.(index|meta|data-\d{5}-of-\d{5})")
_STEP = re.compile(r"-(\d+)$")
# Variables of an encoder; all others belong to a head and may be missing from a checkpoint.
_ENCODER = re.compile(r"^(bert/|electra/|model/(input|encoder|decoder)/)")
# Word embedding tables of BERT, ELECTRA, Funnel and Hugging Face's models.
_WORD_TABLES = (
  "bert/embeddings/word_embeddings",
  "electra/embeddings/word_embeddings",
  "model/input/word_embedding/lookup_table",
  "embeddings.word_embeddings.weight",
)
_POOLER = re.compile(r"^bert/pooler/")  # Funnel's summary is not pretrained: it belongs to the head
# (pattern, replacement): variable of ELECTRA's generator -> its name in a masked-words checkpoint.
_MASKED_WORDS = (
  (r"^generator_predictions/output_bias$", "cls/predictions/output_bias"),
  (r"^generator_predictions/", "cls/predictions/transform/"),
  (r"^generator/", "bert/"),
  (r"^generator/", "electra/"),
  (r"^generator/", "model/"),
)


def _is_complete(suffixes: set[str]) -> bool:
  counts = {int(suffix[-5:]) for suffix in suffixes if suffix.startswith("data-")}
  return "index" in suffixes and any(
    suffixes >= {f"data-{shard:05d}-of-{count:05d}" for shard in range(count)} for count in counts
  )


def _list(folder: str) -> dict[str, bool]:
  """Name of each checkpoint in a folder, sorted by step -> whether all of its files exist."""
  suffixes = collections.defaultdict(set)
  for name in tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else ():
    if match := _FILE.fullmatch(name):
      suffixes[match[1]].add(match[2])
  return {
    name: _is_complete(suffixes[name])
    for name in sorted(suffixes, key=lambda name: (step_of(name), name))
  }


def damage_of(prefix: str) -> str | None:
  """Returns a message if the files of a checkpoint are damaged, see damage.find; else None."""
  return damage.find(prefix, files_of(prefix))


def check_data(prefix: str) -> None:
  """Raises damage.DamagedError if a variable of a checkpoint cannot be read; reads all of them."""
  damage.check_data(prefix, files_of(prefix))


def _read_state(folder: str) -> list[str]:
  """Names in a folder's state file, the current one last; empty if it is missing or damaged.

  Only the last part of each path is used: earlier versions wrote absolute paths, and folders move.
  """
  try:
    state = v1.train.get_checkpoint_state(folder)
  except ValueError:  # not text, or without a checkpoint
    state = None
  if state is None:
    return []
  current = os.path.basename(state.model_checkpoint_path)
  return [
    *(name for name in map(os.path.basename, state.all_model_checkpoint_paths) if name != current),
    current,
  ]


def write_state(folder: str, names: list[str]) -> None:
  """Writes a folder's state file with relative paths, so that the folder can be moved.

  Args:
    folder: the folder.
    names: names of its checkpoints, the current one last.
  """
  state = v1.train.generate_checkpoint_state_proto("/", names[-1], list(names))
  files.write_text(os.path.join(folder, _STATE), str(state))


@functools.cache
def _warn(message: str) -> None:
  """Logs a warning once, even if the folder is read several times."""
  logging.getLogger(__name__).warning(message)


def latest(folder: str) -> str | None:
  """Prefix of the newest checkpoint in a folder, or None.

  This is the checkpoint in the state file. If that file is missing, or its checkpoint is missing or
  incomplete or damaged, it is the complete checkpoint NAME-STEP with the highest step.
  """
  found, damaged = _list(folder), {}

  def is_usable(name):
    message = damage_of(os.path.join(folder, name)) if found.get(name) else None
    if message:
      damaged[name] = message
    return bool(found.get(name)) and not message

  stated = (_read_state(folder) or [None])[-1]
  numbered = [name for name in found if _STEP.search(name)]
  newest = next((name for name in reversed(numbered) if is_usable(name)), None)
  if is_usable(stated):
    if newest and step_of(newest) > step_of(stated):
      _warn(
        f"{os.path.join(folder, _STATE)} names {stated}: use it, and not {newest}, which is "
        f"newer; training will overwrite {newest}"
      )
    return os.path.join(folder, stated)
  use = f"use {newest}" if newest else "there is no other"
  for message in damaged.values():
    _warn(f"{message}: {use}")
  if stated in damaged:
    pass
  elif stated:
    _warn(
      f"{os.path.join(folder, _STATE)} names {stated}, which is not completely in this folder: "
      f"{use}"
    )
  elif numbered and newest != numbered[-1] and numbered[-1] not in damaged:
    _warn(f"{os.path.join(folder, numbered[-1])} is incomplete: {use}")
  return newest and os.path.join(folder, newest)


def wait_for_new(folder: str, last: str | None, timeout: float) -> str | None:
  """Waits for a checkpoint that is newer than `last`; returns it, or None after `timeout` seconds.

  Ctrl-C and SIGTERM end the wait.
  """
  end = time.monotonic() + timeout
  while True:
    newest = latest(folder)
    if newest is not None and newest != last:
      return newest
    if time.monotonic() >= end:
      return None
    console.raise_if_signalled()
    time.sleep(min(1.0, timeout))


def latest_or_best(folder: str) -> str | None:
  """Returns `latest` of a folder, else of its subfolder `best`; None if there is no checkpoint."""
  return latest(folder) or latest(os.path.join(folder, "best"))


def step_of(prefix: str) -> int:
  """Global step in a checkpoint's name (model.ckpt-120 -> 120); 0 if there is none."""
  match = _STEP.search(prefix)
  return int(match[1]) if match else 0


def all_of(folder: str) -> list[str]:
  """Prefixes of all complete checkpoints model.ckpt-STEP in a folder, sorted by step.

  Damaged ones are logged and left out.
  """
  prefixes = [
    os.path.join(folder, name)
    for name, is_complete in _list(folder).items()
    if is_complete and name.startswith("model.ckpt-")
  ]
  damaged = list(filter(None, map(damage_of, prefixes)))
  for message in damaged:
    _warn(f"{message}: it is left out")
  return [prefix for prefix in prefixes if not damage_of(prefix)]


def check_restorable(folder: str) -> None:
  """Raises UserError if training would start at step 0 and overwrite checkpoints in the folder.

  Files of step 0 are not counted, as they have no trained weights.
  """
  left = [name for name in _list(folder) if name.startswith("model.ckpt-") and step_of(name)]
  if left and latest(folder) is None:
    raise UserError(
      f"{os.path.join(folder, left[-1])}: this checkpoint is incomplete or damaged, and the "
      f"folder has no complete one. Copy the missing files (.index, .data-*) back, "
      f"remove the files model.ckpt-* to start at step 0, or choose another "
      f"--model_dir"
    )
  best = os.path.join(folder, "best")
  if latest(folder) is None and latest(best):
    raise UserError(
      f"{best}: this folder holds the only checkpoint left of a run, which training "
      f"from step 0 would replace; move it away and name it with --init_checkpoint, or "
      f"choose another --model_dir"
    )


def update_state(folder: str) -> None:
  """Writes the newest checkpoint into a folder's state file, by its relative path.

  TensorFlow's Estimator restores the checkpoint in the state file, and deletes the oldest of the
  listed checkpoints when it writes a new one. So no other checkpoint is added to the list.
  """
  found, newest = _list(folder), latest(folder)
  if newest:
    current = os.path.basename(newest)
    write_state(
      folder,
      [
        *(
          name
          for name in _read_state(folder)[:-1]
          if found.get(name) and step_of(name) < step_of(current)
        ),
        current,
      ],
    )
  elif tf.io.gfile.exists(path := os.path.join(folder, _STATE)):
    _warn(f"{path} names no checkpoint in this folder: it is removed, training starts at step 0")
    tf.io.gfile.remove(path)


def remove_unfinished(folder: str) -> None:
  """Removes temporary files of killed runs from a local folder in which no other process trains."""
  if not files.is_remote(folder):
    for path in (folder, os.path.join(folder, "best")):
      files.remove_abandoned(path)
    for name in os.listdir(folder):
      if re.fullmatch(r"model\.ckpt-\d+_temp", name):
        shutil.rmtree(os.path.join(folder, name))


def files_of(prefix: str) -> list[str]:
  """Paths of a checkpoint's files; the index, which makes the checkpoint visible, is last."""
  folder, name = os.path.split(prefix)
  matches = filter(None, map(_FILE.fullmatch, tf.io.gfile.listdir(folder or ".")))
  return sorted(
    (os.path.join(folder, match[0]) for match in matches if match[1] == name),
    key=lambda path: (path.endswith(".index"), path),
  )


def resolve(path: str) -> str:
  """Prefix of the checkpoint at a path: a prefix, one of its files, or a folder.

  Of a folder with checkpoints it is the newest; of a SavedModel's folder it is the variables.

  Raises:
    UserError: there is no checkpoint, files of it are missing, or the folder has several without a
      step.
  """
  path = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
  folder, name = os.path.split(path)
  if tf.io.gfile.exists(path + ".index"):
    if not _list(folder or ".")[name]:
      raise UserError(f"{path}: the checkpoint is incomplete or damaged: {name}.data-* is missing")
    if message := damage_of(path):
      raise damage.DamagedError(f"{message}. Copy the file again, or name another checkpoint")
    return path
  if name == "latest":  # as in the original Funnel scripts
    path = folder
  if tf.io.gfile.isdir(path):
    if tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
      return resolve(os.path.join(path, "variables", "variables"))
    if found := latest(path):
      return found
    names = [name for name, is_complete in _list(path).items() if is_complete]
    if len(names) > 1:
      raise UserError(
        f"{path}: several checkpoints, and no file {_STATE} that names the newest: "
        f"{', '.join(names)}. Name one of them"
      )
    if names:
      return os.path.join(path, names[0])
    raise UserError(f"{path}: no checkpoint (*.index and its *.data-*) in this folder")
  raise UserError(f"{path}: no such checkpoint (neither {path}.index nor a folder of that name)")


def open_reader(prefix: str) -> Any:
  """Reader of a checkpoint's variables: from tf.train.load_checkpoint, or of Model Garden's.

  Raises:
    UserError: an object-based checkpoint of another model than Model Garden's BERT encoder.
  """
  reader = tf.train.load_checkpoint(paths.checkpoint_without_wildcards(prefix))
  if reader.has_tensor(garden_checkpoint.GRAPH_KEY):
    return garden_checkpoint.Reader(reader, prefix)
  return reader


def check(prefix: str, state: Sequence[tf.Variable] = ()) -> None:
  """UserError if a weight of the graph, or the loss scale `state`, is not in the checkpoint."""
  reader = open_reader(prefix)
  if isinstance(reader, garden_checkpoint.Reader):
    raise UserError(
      f"{prefix}: a checkpoint of Model Garden, from which only training can start; to evaluate "
      f"it, convert it with convert_checkpoint.py --direction=garden_to_tf"
    )
  shapes = reader.get_variable_to_shape_map()
  for variable in state:
    if optimization.variable_name(variable) not in shapes:
      raise UserError(
        f"{prefix}: has no loss scale, because it was trained without --precision=fp16; go on with "
        f"the precision it was trained with, or give it as --init_checkpoint with another "
        f"--model_dir"
      )
  wrong = []
  for variable in v1.trainable_variables():
    name, shape = optimization.variable_name(variable), variable.shape.as_list()
    if shapes.get(name) != shape:
      wrong.append(
        f"{name} (the model needs {shape}, the checkpoint has {shapes.get(name, 'none')})"
      )
  if wrong:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    raise UserError(
      f"{prefix}: not a checkpoint of this model and task: {', '.join(wrong[:3])}"
      f"{more}; name the right --model_dir or --model_config"
    )


def fit_config(
  model_config: modeling.Config, shapes: Mapping[str, Sequence[int]], source: str, config_file: str
) -> modeling.Config:
  """Returns the configuration with vocab_size set to the rows of the checkpoint's embedding table.

  The two differ if only one of them was padded to a multiple of 8, 64 or 128. Other differences are
  not changed.

  Args:
    model_config: the configuration.
    shapes: name -> shape of the checkpoint's tensors.
    source: the checkpoint, for messages.
    config_file: the configuration's file, for messages.

  Raises:
    UserError: the checkpoint has fewer tensors than the model has layers. This is checked before
      anything of the model's size is built.
  """
  if model_config.num_stored_layers > len(shapes):
    raise UserError(
      f"{config_file}: the model has {model_config.num_stored_layers} layers, but "
      f"{source} has only {len(shapes)} tensors; give the configuration of this "
      f"checkpoint"
    )
  rows = next((shapes[name][0] for name in _WORD_TABLES if shapes.get(name)), None)
  if rows is None or not tokenization.is_padded(*sorted((rows, model_config.vocab_size))):
    return model_config
  logging.getLogger(__name__).info(
    "%s: vocab_size is %d, but %s has %d embeddings; one of them is padded: use %d",
    config_file,
    model_config.vocab_size,
    source,
    rows,
    rows,
  )
  return dataclasses.replace(model_config, vocab_size=rows)


def initialize(model: config.Model) -> None:
  """Initializes the graph's variables from model.init_checkpoint when the session starts.

  The checkpoint must have all encoder variables with their shapes. The scopes bert/ and electra/
  are interchangeable, because ELECTRA can be pretrained with either configuration. Head variables
  are new if the checkpoint has none with that name and shape; so is the pooler if init_pooler is
  off. ELECTRA's generator can start from a masked-words encoder (see masked_words).

  Raises:
    UserError: encoder variables are missing or have another shape; names all of them.
  """
  if model.init_checkpoint == "none":
    return
  prefix = resolve(model.init_checkpoint)
  reader = open_reader(prefix)
  shapes = reader.get_variable_to_shape_map()
  missing, different, new = [], [], []
  mapping, generator = {}, masked_words(shapes)
  for variable in v1.trainable_variables():
    name = optimization.variable_name(variable)
    is_pooler = bool(_POOLER.match(name))
    if generator and name.startswith("generator"):
      continue
    if is_pooler and not model.init_pooler:
      new.append(name)
    elif (stored := _stored_name(name, shapes)) and shapes[stored] == variable.shape.as_list():
      mapping[stored] = variable
    elif not _ENCODER.match(name) and not is_pooler:
      new.append(name)
    elif not stored:
      missing.append(name)
    else:
      different.append(f"{stored} is {shapes[stored]}, the model needs {variable.shape.as_list()}")
  if missing or different:
    parts = []
    if missing:
      parts.append("missing: " + ", ".join(missing))
    if different:
      parts.append("of another shape: " + "; ".join(different))
    hint = (
      "is it the checkpoint of this model configuration?"
      if len(missing) > 2 or different or not all(map(_POOLER.match, missing))
      else "pass --noinit_pooler to draw a new one"
    )
    raise UserError(f"{prefix}: variables {'; variables '.join(parts)}. {hint}")
  if model.init_global_vars:
    own = {
      optimization.variable_name(variable): variable
      for variable in v1.global_variables()
      if variable not in v1.trainable_variables()
    }
    absent = sorted(set(own) - set(shapes))
    if absent:
      raise UserError(
        f"--init_global_vars: {prefix} has no {absent[0]}"
        + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
        + "; it is not a full checkpoint of this run's optimizer, leave the flag out"
      )
    mapping.update(own)
  source = paths.checkpoint_without_wildcards(prefix)
  start_from = v1.train.init_from_checkpoint
  if isinstance(reader, garden_checkpoint.Reader):
    start_from = reader.init_from_checkpoint
  start_from(source, mapping)
  log = logging.getLogger(__name__)
  log.info("Start from %s: %d variables; new: %s", prefix, len(mapping), ", ".join(new) or "none")
  if generator:
    start_from(source, generator)
    log.info("The generator starts from its %d masked-words variables", len(generator))


def _stored_name(name, shapes):
  """Returns the checkpoint's name of an encoder or head variable; None if it has none."""
  scope, _, rest = name.partition("/")
  other = {"bert": "electra", "electra": "bert"}.get(scope, scope)
  return next((found for found in (name, f"{other}/{rest}") if found in shapes), None)


def masked_words(shapes: dict[str, list[int]]) -> dict[str, tf.Variable]:
  """Variables of ELECTRA's generator that can start from an encoder trained on masked words.

  This is the two-stage training of ELECTRA's paper (section 3.2, arXiv:2003.10555), except that the
  generator keeps training. With width_shrink below 1 the shapes differ, so nothing is returned.

  Args:
    shapes: variable -> shape, of a checkpoint.

  Returns:
    Name in the checkpoint -> variable of the graph's generator. Empty if one of them is missing or
    has another shape, or if the checkpoint has its own generator.
  """
  found = {}
  for variable in v1.trainable_variables():
    name = optimization.variable_name(variable)
    if name.startswith("generator"):
      names = [re.sub(pattern, old, name) for pattern, old in _MASKED_WORDS]
      old = next((old for old in names if shapes.get(old) == variable.shape.as_list()), None)
      if old is None or name in shapes:
        return {}
      found[old] = variable
  return found


def copy(prefix: str, folder: str) -> str:
  """Copies a checkpoint to a folder and removes others there; returns the prefix of the copy."""
  tf.io.gfile.makedirs(folder)
  name = os.path.basename(prefix)
  old = {file for file in tf.io.gfile.listdir(folder) if file.startswith("model.ckpt-")}
  sources = files_of(prefix)
  for path in sources:
    files.copy(path, os.path.join(folder, os.path.basename(path)))
  write_state(folder, [name])
  for file in old - set(map(os.path.basename, sources)):
    tf.io.gfile.remove(os.path.join(folder, file))
  return os.path.join(folder, name)
