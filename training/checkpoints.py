"""Finding, checking and copying checkpoints."""

import dataclasses
import logging
import os
import re
from collections.abc import Mapping, Sequence

import tensorflow as tf

import modeling
import optimization
import tokenization
from errors import UserError
from training import config, records

v1 = tf.compat.v1

# Variables of an encoder; all others belong to a head and may be missing from a checkpoint.
_ENCODER = re.compile(r"^(bert/|model/(input|encoder|decoder)/)")
# The word embedding table: BERT's, Funnel's, and the one of Hugging Face's models.
_WORD_TABLES = ("bert/embeddings/word_embeddings", "model/input/word_embedding/lookup_table",
                "embeddings.word_embeddings.weight")
_POOLER = re.compile(r"^bert/pooler/")  # Funnel's summary is not pretrained: it is of the head
# A weight of ELECTRA's generator -> what it is called where it learned masked words on its own.
_MASKED_WORDS = ((r"^generator_predictions/output_bias$", "cls/predictions/output_bias"),
                 (r"^generator_predictions/", "cls/predictions/transform/"),
                 (r"^generator/", "bert/"), (r"^generator/", "model/"))


def latest(folder: str) -> str | None:
  """Prefix of the newest checkpoint of a folder, or None."""
  return tf.train.latest_checkpoint(folder) if tf.io.gfile.isdir(folder) else None


def step_of(prefix: str) -> int:
  """Global step of a checkpoint of ours, from its name (model.ckpt-120 -> 120)."""
  match = re.search(r"-(\d+)$", prefix)
  return int(match[1]) if match else 0


def all_of(folder: str) -> list[str]:
  """Prefixes of all checkpoints model.ckpt-STEP of a folder, by step."""
  files = tf.io.gfile.glob(os.path.join(folder, "model.ckpt-*.index"))
  return sorted((name.removesuffix(".index") for name in files), key=step_of)


def resolve(path: str) -> str:
  """Checkpoint prefix from a prefix, one of its files, or a folder (its newest checkpoint).

  Raises:
    UserError: there is none.
  """
  path = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
  if tf.io.gfile.exists(path + ".index"):
    return path
  if os.path.basename(path) == "latest":  # as in the original Funnel scripts
    path = os.path.dirname(path)
  if tf.io.gfile.isdir(path):
    found = latest(path) or next(
        (name.removesuffix(".index") for name in sorted(tf.io.gfile.glob(
            os.path.join(path, "*.index")))), None)
    if found:
      return found
    raise UserError(f"{path}: no checkpoint (*.index) in this folder")
  raise UserError(f"{path}: no such checkpoint (neither {path}.index nor a folder of that name)")


def check(prefix: str) -> None:
  """UserError unless a checkpoint has every weight of the graph, in its shape; names the others."""
  shapes = dict(tf.train.list_variables(prefix))
  wrong = []
  for variable in v1.trainable_variables():
    name, shape = optimization.variable_name(variable), variable.shape.as_list()
    if shapes.get(name) != shape:
      wrong.append(f"{name} (the model needs {shape}, the checkpoint has "
                   f"{shapes.get(name, 'none')})")
  if wrong:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    raise UserError(f"{prefix}: not a checkpoint of this model and task: {', '.join(wrong[:3])}"
                    f"{more}; name the right --model_dir or --model_config")


def fit_config(model_config: modeling.Config, shapes: Mapping[str, Sequence[int]], source: str,
               config_file: str) -> modeling.Config:
  """Returns a model's configuration with as many words as its checkpoint's embedding table.

  The two differ in models whose table was padded to a multiple of 8, 64 or 128 rows, and the
  configuration not, or the other way round. Any other difference is left as it is.

  Args:
    model_config: the configuration.
    shapes: name -> shape of the checkpoint's tensors.
    source: the checkpoint, for messages.
    config_file: the configuration's file, for messages.

  Raises:
    UserError: there are fewer tensors than layers. Nothing of the size of the model is built
      before this is known.
  """
  if model_config.num_stored_layers > len(shapes):
    raise UserError(f"{config_file}: the model has {model_config.num_stored_layers} layers, but "
                    f"{source} only {len(shapes)} tensors; give the configuration that belongs to "
                    f"it")
  rows = next((shapes[name][0] for name in _WORD_TABLES if shapes.get(name)), None)
  if rows is None or not tokenization.is_padded(*sorted((rows, model_config.vocab_size))):
    return model_config
  logging.getLogger(__name__).info(
      "%s: vocab_size is %d, but %s has %d embeddings: one of the two is padded; use %d",
      config_file, model_config.vocab_size, source, rows, rows)
  return dataclasses.replace(model_config, vocab_size=rows)


def initialize(model: config.Model) -> None:
  """Sets the graph's variables to start from model.init_checkpoint, when the session begins.

  Encoder variables must all be there with their shapes. Head variables (and with init_pooler off
  the pooler's) are drawn anew where the checkpoint has none of that name and shape. ELECTRA's
  generator starts from masked words too (see masked_words).

  Raises:
    UserError: names every encoder variable that is missing or of another shape.
  """
  if model.init_checkpoint == "none":
    return
  prefix = resolve(model.init_checkpoint)
  shapes = dict(tf.train.list_variables(prefix))
  missing, different, new = [], [], []
  mapping, generator = {}, masked_words(shapes)
  for variable in v1.trainable_variables():
    name = optimization.variable_name(variable)
    is_pooler = bool(_POOLER.match(name))
    if generator and name.startswith("generator"):
      continue
    if is_pooler and not model.init_pooler:
      new.append(name)
    elif name in shapes and shapes[name] == variable.shape.as_list():
      mapping[name] = variable
    elif not _ENCODER.match(name) and not is_pooler:
      new.append(name)
    elif name not in shapes:
      missing.append(name)
    else:
      different.append(f"{name} is {shapes[name]}, the model needs {variable.shape.as_list()}")
  if missing or different:
    parts = []
    if missing:
      parts.append("missing: " + ", ".join(missing))
    if different:
      parts.append("of another shape: " + "; ".join(different))
    hint = ("is it the checkpoint of this model configuration?" if len(missing) > 2 or different
            or not all(map(_POOLER.match, missing)) else "pass --noinit_pooler to draw a new one")
    raise UserError(f"{prefix}: variables {'; variables '.join(parts)}. {hint}")
  if model.init_global_vars:
    own = {optimization.variable_name(variable): variable for variable in v1.global_variables()
           if variable not in v1.trainable_variables()}
    absent = sorted(set(own) - set(shapes))
    if absent:
      raise UserError(f"--init_global_vars: {prefix} has no {absent[0]}"
                      + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
                      + "; it is no full checkpoint of this run's optimizer, leave the flag out")
    mapping.update(own)
  v1.train.init_from_checkpoint(prefix, mapping)
  log = logging.getLogger(__name__)
  log.info("Start from %s: %d variables; new: %s", prefix, len(mapping), ", ".join(new) or "none")
  if generator:
    v1.train.init_from_checkpoint(prefix, generator)
    log.info("The generator starts from its %d variables of masked words", len(generator))


def masked_words(shapes: dict[str, list[int]]) -> dict[str, tf.Variable]:
  """What ELECTRA's generator can take from an encoder that learned masked words.

  So begins the two-stage training of ELECTRA's paper (section 3.2, arXiv:2003.10555), here with the
  generator learning on. With width_shrink below 1 the generator has other shapes and takes nothing.

  Args:
    shapes: variable -> shape, of a checkpoint.

  Returns:
    Name in the checkpoint -> variable of the graph's generator. Empty unless all of them are there,
    with their shapes, and the checkpoint has no generator of its own.
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
  """Copies a checkpoint's files into a folder, which then holds no other; returns its prefix."""
  tf.io.gfile.makedirs(folder)
  target = os.path.join(folder, os.path.basename(prefix))
  old = set(tf.io.gfile.glob(os.path.join(folder, "model.ckpt-*")))
  files = tf.io.gfile.glob(prefix + ".*")
  # The index comes last: without it the others are no checkpoint.
  for path in sorted(files, key=lambda name: name.endswith(".index")):
    records.copy(path, target + path[len(prefix):])
  v1.train.update_checkpoint_state(folder, target)
  for path in old - {target + path[len(prefix):] for path in files}:
    tf.io.gfile.remove(path)
  return target
