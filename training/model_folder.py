"""Files of a model folder in addition to its checkpoints, and the settings in them.

  bert_config.json, electra_config.json or net_config.json   the model's configuration
  vocab.txt or spiece.model   the vocabulary
  model_settings.json   name -> value of the settings the model was trained with: task_name,
                        columns, label_list, uncased, strip_accents, max_seq_length, ...
  labels.json           task_name and label_list alone, for other programs

Settings have the names of the flags; further keys are job and label_list. The folder `best`, with a
copy of the best checkpoint, has copies of these files; without them those of its parent are read.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import tensorflow as tf

import config
import modeling
import tokenization
from errors import UserError
from models import config_keys
from training import checkpoints, garden_checkpoint, hf_tokenizer
from utils import files, options

log = logging.getLogger(__name__)

CONFIG_NAMES = tuple(
  kind.file_name for kind in (modeling.BertConfig, modeling.ElectraConfig, modeling.ModelConfig)
)
VOCAB_NAMES = ("vocab.txt", "vocab.uncased.txt", "vocab.cased.txt")
SETTINGS_NAME = "model_settings.json"
LABELS_NAME = "labels.json"
SETTINGS_NAMES = (SETTINGS_NAME, LABELS_NAME)
# Names of the settings that belong to the vocabulary, and to an encoder without heads.
TOKENIZER_SETTINGS = tuple(
  field.name for field in dataclasses.fields(config.Tokenizer) if field.metadata["stored"]
)
ENCODER_SETTINGS = (*TOKENIZER_SETTINGS, "vocab_file", "truncate_seq")
# Shapes of the values that are used before, or without, a check of config.Experiment.
_SHAPES = {
  **{field.name: field.metadata["kind"] for field in dataclasses.fields(config.Tokenizer)},
  **{"job": str, "task_name": str, "vocab_file": str, "cls_scope": str, "truncate_seq": bool},
  "label_list": [str],
}


def find_in(folder: str, names: Iterable[str]) -> str | None:
  """Path of the first of `names` in a folder or those that belong to it; None if there is none.

  These are the parent of a folder `best`; for `variables` of a SavedModel its parent and `assets`.
  """
  folders, folder = [folder], folder.rstrip("/")
  if os.path.basename(folder) in ("best", "variables"):
    folders.append(os.path.dirname(folder))
  if os.path.basename(folder) == "variables":
    folders.append(os.path.join(os.path.dirname(folder), "assets"))
  paths = (os.path.join(place, name) for place in folders for name in names)
  return next((path for path in paths if tf.io.gfile.exists(path)), None)


def read_settings(folder: str | None) -> dict[str, Any]:
  """Returns the settings of the model in `folder`; empty if the folder has none, or for None.

  Folders of earlier versions have labels.json alone.

  Raises:
    UserError: a file is not valid JSON, or a value is of another type.
  """
  path = find_in(folder, SETTINGS_NAMES) if folder is not None else None
  if path is None:
    return {}
  settings = files.read_json(path)
  files.check_shapes(settings, _SHAPES, path)
  return settings


def files_of(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
  """Returns name -> contents of the files that hold the settings; none if there are no settings.

  These are model_settings.json, and labels.json if the settings name a task or labels.
  """
  labels = {name: settings[name] for name in ("task_name", "label_list") if name in settings}
  files = {SETTINGS_NAME: settings, LABELS_NAME: labels}
  return {name: contents for name, contents in files.items() if contents}


def write_settings(folder: str, settings: dict[str, Any]) -> None:
  """Writes the files_of the settings."""
  for name, contents in files_of(settings).items():
    files.write_json(os.path.join(folder, name), contents)


def stored_settings(experiment: config.Experiment) -> dict[str, Any]:
  """Returns name -> value of the settings of a run that its model folder stores."""
  fields = config.stored_fields(experiment)
  return {
    "job": experiment.job,
    **{name: getattr(section, name) for name, section in fields.items()},
  }


def trained_folder(experiment: config.Experiment) -> str | None:
  """Folder of the trained model that a run continues, evaluates or predicts with.

  This is model_dir (of several trials the first's) if it has a checkpoint; without training also
  the folder of --init_checkpoint. None if the run trains a new model.
  """
  trainer = experiment.trainer
  first = [os.path.join(trainer.model_dir, "trial_0")] if trainer.num_trials > 1 else []
  for folder in (trainer.model_dir, *first):
    if checkpoints.latest_or_best(folder):
      return folder
  return None if experiment.trainer.do_train else start_folder(experiment.model)


def start_folder(model: config.Model) -> str | None:
  """Folder of --init_checkpoint, which is a prefix, a file, or that folder; None without one."""
  path = model.start_checkpoint
  if path is None:
    return None
  return path if tf.io.gfile.isdir(path) else os.path.dirname(path) or "."


def take_settings(experiment: config.Experiment) -> None:
  """Fills the settings that are not set from the trained model's folder, if there is one.

  A setting that differs from the folder's is logged and wins, except for the tokenizer's: with
  another casing the model would get other tokens than it was trained with. The task's name is
  compared by the task itself, as some tasks share their models.

  Raises:
    UserError: the folder holds a model of another job, or a setting contradicts its tokenizer.
  """
  job = experiment.job
  folder = trained_folder(experiment)
  settings = read_settings(folder)
  fields = config.stored_fields(experiment)
  if settings.get("job", job) != job:
    if folder != start_folder(experiment.model):
      raise UserError(
        f"{folder}: this folder holds a model of another job ({settings['job']}); "
        f"use another --model_dir"
      )
    fields = {name: fields[name] for name in TOKENIZER_SETTINGS}
  if experiment.tokenizer.is_sent_piece and folder and "sent_piece_form" not in settings:
    settings = {**settings, "sent_piece_form": "plain"}  # the only form of earlier versions
  trained = dataclasses.replace(
    experiment.tokenizer,
    **{name: settings[name] for name in TOKENIZER_SETTINGS if name in settings},
  )
  taken = {}
  for name in sorted(fields.keys() & settings.keys()):
    section, stored = fields[name], settings[name]
    if experiment.fill(name, stored, f"the model in {folder}"):
      taken[name] = stored
    elif getattr(section, name) != stored and name != "task_name":
      difference = (
        f"--{name}={getattr(section, name)}, but the model in {folder} was trained with {stored}"
      )
      if section is not experiment.tokenizer:
        log.warning(difference)
      elif not _is_equal(trained, dataclasses.replace(trained, **{name: getattr(section, name)})):
        raise UserError(f"{difference}; leave --{name} out")
  if taken:
    log.info(
      "Settings of the model in %s: %s",
      folder,
      ", ".join(f"{name}={value}" for name, value in taken.items()),
    )


def _is_equal(one, other):
  """Returns whether two tokenizer settings give the same tokens, however they are spelled."""
  return (
    all(getattr(one, name) == getattr(other, name) for name in ("is_sent_piece", "uncased"))
    and one.metadata() == other.metadata()
  )


def fill_tokenizer(
  tokenizer: config.Tokenizer, folders: Sequence[str], given: Collection[str]
) -> None:
  """Fills the tokenizer's settings that are not set from the pretrained model.

  Search order: 1. model_settings.json, 2. Hugging Face's tokenizer_config.json and tokenizer.json,
  in each folder, 3. the casing of the vocabulary itself.

  Args:
    tokenizer: changed in place.
    folders: the vocabulary's, then others of the pretrained model.
    given: names of the settings that the user gave.
  """
  settings = {}
  for folder in reversed(folders):
    settings |= {**hf_tokenizer.read_settings(folder), **read_settings(folder)}
  found = {name: settings[name] for name in TOKENIZER_SETTINGS if name in settings}
  is_sent_piece = dataclasses.replace(tokenizer, **found).is_sent_piece
  if "uncased" not in found and not is_sent_piece:
    casing = tokenization.vocab_casing(tokenization.load_vocab(tokenizer.tokenizer_path))
    if casing:
      found["uncased"] = casing == "uncased"
  for name, value in found.items():
    if name not in given and getattr(tokenizer, name) != value:
      source = f"the folder of {' or '.join([tokenizer.tokenizer_path, *folders[1:]])}"
      setattr(tokenizer, name, options.checked(tokenizer, name, value, source))
      log.info("%s=%s, taken from %s", name, value, source)


def tokenizer_inputs(vocab_path: str) -> list[str]:
  """Paths of a vocabulary and of the settings files next to it, which need not exist."""
  folder = os.path.dirname(vocab_path)
  names = (*SETTINGS_NAMES, *hf_tokenizer.FILE_NAMES)
  above = [os.path.dirname(folder)] if os.path.basename(folder) == "best" else []
  return [vocab_path, *(os.path.join(place, name) for place in (folder, *above) for name in names)]


def copy_files(source: str, target: str, vocab_name: str) -> None:
  """Copies a model folder's configuration, vocabulary and settings to another folder."""
  for name in {*CONFIG_NAMES, *VOCAB_NAMES, *SETTINGS_NAMES, vocab_name}:
    path = os.path.join(source, name)
    if name and tf.io.gfile.exists(path):
      files.copy(path, os.path.join(target, name))


def has_inline_config(experiment: config.Experiment) -> bool:
  """Returns whether the settings hold a whole configuration of the model, without a file."""
  return not {"hidden_size", "block_size"}.isdisjoint(experiment.model_keys)


def find_model_config(experiment: config.Experiment) -> modeling.Config:
  """Returns the model's configuration: that of the file, with the keys of the settings.

  Raises:
    UserError: the keys are not those of the model's family, or a value is wrong.
  """
  keys, model = dict(experiment.model_keys), experiment.model
  if not model.model_config:
    names = ("truncate_seq",) if "block_size" in keys else ()  # in no file of a configuration
    more = {name: keys.pop(name) for name in names if name in keys}
    return _replace(modeling.config_from_dict(keys, "model.keys"), more, "model.keys")
  found = load_model_config(model)
  known = {field.name for field in dataclasses.fields(found)}
  for key in keys:
    if key not in known:
      raise UserError(f"model.keys.{key}: {model.model_config} has no such key")
  return _replace(found, keys, "model.keys")


def _replace(model_config, keys, source):
  return config_keys.build(functools.partial(dataclasses.replace, model_config), keys, source)


def load_model_config(model: config.Model) -> modeling.Config:
  """Returns the model's configuration, with the keys of --overwrite_keys from the flags.

  truncate_seq, which net_config.json does not hold, is read from the settings next to the file.
  """
  keys = [key.strip() for key in model.overwrite_keys.split(",") if key.strip()]
  model_config = modeling.load_config(model.model_config, keys)
  folder = os.path.dirname(model.model_config)
  stored = read_settings(folder).get("truncate_seq")
  if stored in (None, getattr(model_config, "truncate_seq", stored)):
    return model_config
  if "truncate_seq" in keys:
    log.warning(
      "--truncate_seq=%s, but the model in %s was trained with %s",
      model_config.truncate_seq,
      folder,
      stored,
    )
    return model_config
  return _replace(model_config, {"truncate_seq": stored}, folder)


def find_pretrained(
  model: config.Model,
  tokenizer: config.Tokenizer,
  model_dir: str,
  do_train: bool,
  given: Collection[str] = (),
  needs_config: bool = True,
  needs_vocab: bool = True,
) -> None:
  """Fills model_config, tokenizer_path and init_checkpoint if they are not given.

  Search order of configuration and vocabulary: 1. model_dir, if it has a checkpoint; else the
  folder of --init_checkpoint, unless `pretrained` is in `given`; 2. `pretrained`. Training needs a
  checkpoint to start from while model_dir has none.

  Args:
    model: changed in place.
    tokenizer: changed in place.
    model_dir: folder of the run.
    do_train: whether the run trains.
    given: names of the settings that the user gave.
    needs_config: UserError if there is no configuration.
    needs_vocab: UserError if there is no vocabulary.

  Raises:
    UserError: a file is in neither folder (the message names the command that gets it), or the
      folder of the checkpoint has a configuration and no vocabulary.
  """
  if do_train:
    checkpoints.check_restorable(model_dir)
  is_trained = checkpoints.latest_or_best(model_dir) is not None
  if not is_trained and model.start_checkpoint:
    model.init_checkpoint = checkpoints.resolve(model.start_checkpoint)
  folders = [model.pretrained]
  if is_trained:
    folders.insert(0, model_dir)
  elif model.start_checkpoint and "pretrained" not in given:
    folders.insert(0, start_folder(model))
  vocab_name = read_settings(folders[0]).get("vocab_file")
  vocab_names = (*([vocab_name] if vocab_name else []), *VOCAB_NAMES)

  def find(names, flag, what, is_needed):
    for folder in folders:
      if path := find_in(folder, names):
        return path
    if not is_needed:
      return ""
    raise UserError(
      f"no {what}: --{flag} is not given and --pretrained={model.pretrained} has no "
      f"{' or '.join(names)}. bash scripts/quickstart.sh --pretrained_only puts a small encoder "
      f"there; convert_checkpoint.py turns one from Hugging Face into that form"
    )

  if not model.model_config:
    model.model_config = find(CONFIG_NAMES, "model_config", "model configuration", needs_config)
  if not tokenizer.tokenizer_path:
    own_config = find_in(folders[0], CONFIG_NAMES)
    if needs_vocab and own_config and not find_in(folders[0], vocab_names):
      raise UserError(
        f"{os.path.dirname(own_config)}: the model has no vocabulary next to it; name "
        f"the one that it was trained with, with --vocab_file (--tokenizer_path)"
      )
    tokenizer.tokenizer_path = find(vocab_names, "tokenizer_path", "vocabulary", needs_vocab)
  if do_train and not is_trained and not model.init_checkpoint:
    model.init_checkpoint = checkpoints.resolve(model.pretrained)


def take_stored_sizes(experiment: config.Experiment) -> None:
  """Fills the model's configuration from the sizes in a checkpoint of Model Garden.

  Those of a TF-Hub module win over the settings, as in Model Garden. Those of another checkpoint
  are used if there are neither settings of the model nor a configuration next to the checkpoint.
  """
  model, start = experiment.model, experiment.model.start_checkpoint
  is_trained = checkpoints.latest_or_best(experiment.trainer.model_dir) is not None
  if start is None or (is_trained and not model.hub_module_url):
    return
  prefix = checkpoints.resolve(start)
  reader = checkpoints.open_reader(prefix)
  if not isinstance(reader, garden_checkpoint.Reader):
    return
  folder, is_given = os.path.dirname(prefix) or ".", "pretrained" in experiment.sources
  has_config = is_given or model.model_config or find_in(folder, CONFIG_NAMES)
  if (has_config or has_inline_config(experiment)) and not model.hub_module_url:
    return
  experiment.model_keys.update(reader.sizes)
  if not is_given:
    model.pretrained = folder  # its files are of another model
  log.info(
    "Sizes of the model, from %s: %s. Activation and dropout are not stored there",
    start,
    ", ".join(f"{name}={value}" for name, value in reader.sizes.items()),
  )


def find_checkpoint(model_dir: str, model: config.Model, purpose: str) -> str:
  """Checkpoint to evaluate or predict with: the newest of model_dir, else --init_checkpoint.

  Raises:
    UserError: there is none.
  """
  found = checkpoints.latest_or_best(model_dir)
  if found is None and model.start_checkpoint:
    found = checkpoints.resolve(model.start_checkpoint)
  if found is None:
    missing = "" if tf.io.gfile.isdir(model_dir) else " (there is no such folder)"
    raise UserError(
      f"{model_dir}: no checkpoint to {purpose}{missing}; train first (--do_train), "
      f"or name the folder with --model_dir or a checkpoint with --init_checkpoint"
    )
  return found
