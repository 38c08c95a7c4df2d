"""Commands of convert_checkpoint.py: hf_to_tf, tf_to_hf, garden_to_tf, tf_to_garden and strip."""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import safetensors.numpy
import tensorflow as tf

import modeling
import tokenization
from conversion import families, garden, huggingface, matching, tensors
from conversion.families import Family
from errors import UserError
from models.bert import read_json
from training import checkpoints, garden_checkpoint, hf_tokenizer, model_folder
from utils import disk, files, paths

_PROJECTION = "bert/embeddings_project/"  # not in Hugging Face's BERT

# ---- Output -------------------------------------------------------------------------------------


def check_new(
  input_dirs: Iterable[str], output_dir: str, names: Iterable[str], overwrite: bool
) -> None:
  """Raises UserError if a file to write exists and `overwrite` is off.

  Files of input_dirs are never overwritten.
  """
  inputs = [
    os.path.join(folder, name)
    for folder in input_dirs
    if tf.io.gfile.isdir(folder)
    for name in tf.io.gfile.listdir(folder)
  ]
  paths.check_outputs(inputs, (os.path.join(output_dir, name) for name in names))
  for name in names:
    path = os.path.join(output_dir, name)
    if not overwrite and tf.io.gfile.exists(path):
      raise UserError(
        f"{path}: the file already exists; pass --overwrite to replace it, or "
        f"choose another --output_dir"
      )


def check_settings(output_dir: str, names: Iterable[str]) -> None:
  """Raises UserError if output_dir has a settings file that the new model does not have."""
  for name in set(model_folder.SETTINGS_NAMES).difference(names):
    path = os.path.join(output_dir, name)
    if tf.io.gfile.exists(path):
      raise UserError(
        f"{path}: the settings of another model; the new model has no such file. "
        f"Remove it, or choose another --output_dir"
      )


@contextlib.contextmanager
def staged(output_dir: str, names: list[str]) -> Iterator[str]:
  """Yields a temporary folder; after the block, moves its files `names` to output_dir, in order.

  If the block fails, no file is moved. The temporary folder is always removed.
  """
  files.make_dirs(output_dir)
  folder = os.path.join(output_dir, f".tmp-{os.getpid()}")
  tf.io.gfile.makedirs(folder)
  try:
    yield folder
    for name in names:
      tf.io.gfile.rename(os.path.join(folder, name), os.path.join(output_dir, name), overwrite=True)
  finally:
    tf.io.gfile.rmtree(folder)


def _write_tf_model(
  folder: str, name: str, settings: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
  """Writes the settings, if any, and the checkpoint `name` with its state file."""
  if settings:
    model_folder.write_settings(folder, settings)
  tensors.write_checkpoint(os.path.join(folder, name), arrays)
  checkpoints.write_state(folder, [name])


def _write_safetensors(path: str, arrays: dict[str, np.ndarray], mode_of: str) -> None:
  """Writes a safetensors file with the permissions of the file `mode_of`."""
  with disk.naming(path):
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})  # readers require it
  shutil.copymode(mode_of, path)  # a file from save_file is readable by its owner only


# ---- Hugging Face to TensorFlow -----------------------------------------------------------------


def hf_to_tf(input_dir: str, output_dir: str, overwrite: bool = False, cls_scope: str = "") -> None:
  """Converts a Hugging Face model to configuration, vocabulary and TF1 checkpoint.

  Args:
    input_dir: folder with model.safetensors (or shards), config.json, vocab.txt or tokenizer.json.
    output_dir: folder for vocab.txt, configuration and checkpoint: bert_config.json and
      bert_model.ckpt, electra_config.json and electra_model.ckpt, or net_config.json and
      model.ckpt. Tokenizer settings and labels become model_settings.json.
    overwrite: whether files of these names may be replaced.
    cls_scope: scope of a Funnel classifier's variables, model/SCOPE/logit; if empty, "cls".

  Raises:
    UserError: a file is missing or damaged, or the models here cannot represent the model.
  """
  cls_scope = cls_scope or "cls"
  config_file = os.path.join(input_dir, "config.json")
  family, config = huggingface.from_hf_config(config_file)
  vocab = hf_tokenizer.vocab_lines(input_dir, config.vocab_size)
  stored = huggingface.HFTensors(input_dir)
  actual = huggingface.canonical_names(family, stored)
  shapes = {canonical: stored.shape(name) for canonical, name in actual.items()}
  config = checkpoints.fit_config(config, shapes, stored.source, config_file)
  entries = families.expand(family, config, cls_scope)
  found = matching.match(family, entries, shapes, "hf", stored.source, config_file, actual)
  if huggingface.labels_tokens(read_json(config_file)):
    found = [entry for entry in found if not entry.group.endswith("classifier")]
    print("Left out: the classifier, which labels tokens; the classifier here labels sequences")
  groups = {entry.group for entry in found}
  num_labels = shapes[family.label_bias][0] if "classifier" in groups else None
  settings = _settings_from_hf(input_dir, family, config, num_labels, cls_scope)
  name = family.checkpoint_name
  names = [config.file_name, "vocab.txt", *model_folder.files_of(settings)]
  names += tensors.checkpoint_files(name)
  check_new([input_dir], output_dir, names, overwrite)
  check_settings(output_dir, names)
  arrays = {
    entry.tf_name: entry.convert(stored.read(actual[entry.hf_name]), to="tf") for entry in found
  }
  with staged(output_dir, names) as folder:
    files.write_json(os.path.join(folder, config.file_name), config.to_dict())
    with tf.io.gfile.GFile(os.path.join(folder, "vocab.txt"), "wb") as writer:
      writer.write(vocab)
    _write_tf_model(folder, name, settings, arrays)
  print(matching.summary(os.path.join(output_dir, name), arrays, groups))
  matching.print_deviations(family, config, groups)
  if "pooler" in family.core and "pooler" not in groups:
    print("The model has no pooler: fine-tune it with --noinit_pooler")
  if settings:
    listed = ", ".join(f"{key} {value}" for key, value in settings.items())
    print(f"{model_folder.SETTINGS_NAME}: {listed}")
  for deviation in hf_tokenizer.deviations(input_dir):
    print(f"The tokenizer here splits text differently from that of {input_dir}: {deviation}")


def _settings_from_hf(
  input_dir: str, family: Family, config: Any, num_labels: int | None, cls_scope: str
) -> dict[str, Any]:
  """Returns the settings of a Hugging Face model; num_labels is None if it has no classifier."""
  settings = hf_tokenizer.read_settings(input_dir)
  if num_labels is not None:
    config_file = os.path.join(input_dir, "config.json")
    labels = huggingface.label_list(read_json(config_file), num_labels, config_file)
    if labels:
      settings["label_list"] = labels
    if family is families.FUNNEL:
      settings["cls_scope"] = cls_scope
  if not getattr(config, "truncate_seq", True):
    settings["truncate_seq"] = False  # not in net_config.json
  return settings


# ---- TensorFlow to Hugging Face -----------------------------------------------------------------


def tf_to_hf(
  input_dir: str,
  output_dir: str,
  overwrite: bool = False,
  checkpoint: str = "",
  uncased: bool | None = None,
  cls_scope: str = "",
  truncate_seq: bool | None = None,
) -> None:
  """Converts a TF1 checkpoint to a Hugging Face model.

  Args:
    input_dir: folder with bert_config.json, electra_config.json or net_config.json, vocabulary and
      a checkpoint.
    output_dir: folder for model.safetensors, config.json, vocab.txt, tokenizer_config.json.
    overwrite: whether files of these names may be replaced.
    checkpoint: prefix or folder of the checkpoint; if empty, input_dir's best, else its newest.
    uncased: whether the model's text is lower-cased, for tokenizer_config.json. If None, the value
      in the model's settings, else the casing of the vocabulary.
    cls_scope: scope of a Funnel classifier's variables; if empty, the scope in the checkpoint.
    truncate_seq: setting of a Funnel model that is not in net_config.json. If None, the value in
      the model's settings, else True.

  Raises:
    UserError: a file is missing or damaged, or a variable cannot be converted.
  """
  config_file = _find_file(input_dir, model_folder.CONFIG_NAMES)
  family, config = _load_config(config_file, input_dir, truncate_seq)
  family.to_hf(config)  # fail early if Hugging Face cannot represent this configuration
  names = ["config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"]
  check_new([input_dir], output_dir, names, overwrite)
  vocab = _find_file(input_dir, model_folder.VOCAB_NAMES)
  stored = tensors.TFTensors(tensors.find_checkpoint(input_dir, checkpoint))
  settings = _settings_from_tf(input_dir, stored.source, vocab, uncased)
  left_out = [name for name in stored.shapes if name.startswith(family.not_converted)]
  shapes = {name: shape for name, shape in stored.shapes.items() if name not in left_out}
  config = checkpoints.fit_config(config, shapes, stored.source, config_file)
  entries = families.expand(family, config, cls_scope or tensors.classifier_scope(shapes) or "cls")
  found = matching.match(family, entries, shapes, "tf", stored.source, config_file)
  groups = {entry.group for entry in found}
  arrays = {
    entry.hf_name: entry.convert(stored.read(entry.tf_name).astype(np.float32, copy=False), to="hf")
    for entry in found
  }
  labels = settings.get("label_list")
  hf_config = huggingface.to_hf_config(family, config, arrays, groups, labels, stored.source)
  arrays = huggingface.prefixed_names(family, found, arrays)
  with staged(output_dir, names) as folder:
    files.write_json(os.path.join(folder, "config.json"), hf_config)
    tf.io.gfile.copy(vocab, os.path.join(folder, "vocab.txt"))
    tokenizer_config = {
      "tokenizer_class": family.tokenizer_class,
      **hf_tokenizer.to_config(settings),
      "model_max_length": family.max_length(config),
    }
    files.write_json(os.path.join(folder, "tokenizer_config.json"), tokenizer_config)
    path = os.path.join(folder, "model.safetensors")
    _write_safetensors(path, arrays, mode_of=os.path.join(folder, "config.json"))
  print(matching.summary(os.path.join(output_dir, "model.safetensors"), arrays, groups))
  print(f"Converted checkpoint: {stored.source}")
  matching.print_deviations(family, config, groups)
  if left_out:
    print(f"Left out: {len(left_out)} tensors of the generator")


def _find_file(folder: str, names: Iterable[str]) -> str:
  """Returns the path of the first file of `names` in a model's folder; UserError if none exists."""
  path = model_folder.find_in(folder, names)
  if path is None:
    raise UserError(
      f"{os.path.join(folder, names[0])}: no such file; copy it from the model that this one "
      f"was trained from"
    )
  return path


def _load_config(config_file: str, input_dir: str, truncate_seq: bool | None) -> tuple[Family, Any]:
  """Returns family and configuration; truncate_seq None means the value in input_dir's settings."""
  config = modeling.load_config(config_file)
  family = families.FAMILIES[config.family]
  if family is families.FUNNEL:
    settings = model_folder.read_settings(input_dir)
    if truncate_seq is None:
      truncate_seq = settings.get("truncate_seq", True)
    config = dataclasses.replace(config, truncate_seq=truncate_seq)
  return family, config


def _settings_from_tf(
  input_dir: str, prefix: str, vocab: str, uncased: bool | None
) -> dict[str, Any]:
  """Returns the settings of the checkpoint `prefix`, "uncased" included.

  Raises:
    UserError: the flag `uncased` contradicts the settings.
  """
  settings = tensors.find_settings(input_dir, prefix)
  if settings.get("gin_bindings"):
    raise UserError(
      f"{input_dir}: the layers of this model have arguments of its own (--gin_bindings), which "
      f"other programs do not read"
    )
  if uncased not in (None, settings.get("uncased", uncased)):
    raise UserError(
      f"--uncased={uncased}, but uncased is {settings['uncased']} in the settings of {prefix}; "
      f"leave the flag out"
    )
  is_cased = tokenization.vocab_casing(tokenization.load_vocab(vocab)) == "cased"
  settings.setdefault("uncased", not is_cased if uncased is None else uncased)
  return settings


# ---- Model Garden -------------------------------------------------------------------------------


def garden_to_tf(
  input_dir: str, output_dir: str, overwrite: bool = False, checkpoint: str = ""
) -> None:
  """Converts an object-based checkpoint of Model Garden, or a SavedModel's, to a TF1 checkpoint.

  Args:
    input_dir: folder with the checkpoint, or of the SavedModel; bert_config.json and vocabulary
      are optional. Without bert_config.json the sizes are the checkpoint's, and other keys those of
      BERT.
    output_dir: folder for bert_config.json, bert_model.ckpt, and vocab.txt if there is one.
    overwrite: whether files of these names may be replaced.
    checkpoint: prefix or folder of the checkpoint; if empty, input_dir's newest.

  Raises:
    UserError: a file is missing or damaged, or the checkpoint has no BERT encoder.
  """
  source = checkpoints.resolve(checkpoint or input_dir)
  reader = checkpoints.open_reader(source)
  if not isinstance(reader, garden_checkpoint.Reader):
    raise UserError(f"{source}: not an object-based checkpoint of Model Garden")
  folders = (input_dir, os.path.dirname(source))
  config_file, vocab = (
    next(filter(None, (model_folder.find_in(folder, names) for folder in folders)), None)
    for names in ([modeling.BertConfig.file_name], model_folder.VOCAB_NAMES)
  )
  if config_file:
    config = modeling.load_config(config_file)
    reader.check_config(config, config_file)
    shapes = reader.get_variable_to_shape_map()
    config = checkpoints.fit_config(config, shapes, source, config_file)
  else:
    config = modeling.BertConfig.from_dict(reader.sizes, source=source)
  name = families.BERT.checkpoint_name
  names = [config.file_name, *(["vocab.txt"] if vocab else []), *tensors.checkpoint_files(name)]
  check_new(folders, output_dir, names, overwrite)
  check_settings(output_dir, names)
  arrays = {
    variable: reader.get_tensor(variable) for variable in reader.get_variable_to_shape_map()
  }
  with staged(output_dir, names) as folder:
    files.write_json(os.path.join(folder, config.file_name), config.to_dict())
    if vocab:
      tf.io.gfile.copy(vocab, os.path.join(folder, "vocab.txt"))
    _write_tf_model(folder, name, {}, arrays)
  print(f"{os.path.join(output_dir, name)}: {len(arrays)} variables of {source}")
  if not config_file:
    print(f"{config.file_name}: the checkpoint's sizes, and BERT's activation and dropout")
  if not vocab:
    print("There is no vocabulary in the folder; copy the model's vocab.txt next to the checkpoint")


def tf_to_garden(
  input_dir: str, output_dir: str, overwrite: bool = False, checkpoint: str = ""
) -> None:
  """Converts BERT's encoder to an object-based checkpoint of Model Garden.

  tf.train.Checkpoint(encoder=...) and (model=...) of BertEncoder and BertEncoderV2 read it. The
  masked-words head is written too, if there is one; other heads are left out.

  Args:
    input_dir: folder with bert_config.json, vocabulary and a checkpoint.
    output_dir: folder for bert_config.json, vocab.txt and bert_model.ckpt.
    overwrite: whether files of these names may be replaced.
    checkpoint: prefix or folder of the checkpoint; if empty, input_dir's best, else its newest.

  Raises:
    UserError: a file is missing or damaged, or the model is not BERT.
  """
  config_file = _find_file(input_dir, model_folder.CONFIG_NAMES)
  family, config = _load_config(config_file, input_dir, None)
  if family is not families.BERT:
    raise UserError(f"{config_file}: only BERT can be converted, not {family.model_type}")
  name = family.checkpoint_name
  names = [config.file_name, "vocab.txt", *tensors.checkpoint_files(name)]
  check_new([input_dir], output_dir, names, overwrite)
  check_settings(output_dir, names)
  vocab = _find_file(input_dir, model_folder.VOCAB_NAMES)
  stored = tensors.TFTensors(tensors.find_checkpoint(input_dir, checkpoint))
  config = checkpoints.fit_config(config, stored.shapes, stored.source, config_file)
  entries = families.expand(family, config)
  known = {name: shape for name, shape in stored.shapes.items() if _PROJECTION not in name}
  matching.match(family, entries, known, "tf", stored.source, config_file)
  arrays = {variable: stored.read(variable) for variable in stored.shapes}
  with staged(output_dir, names) as folder:
    files.write_json(os.path.join(folder, config.file_name), config.to_dict())
    tf.io.gfile.copy(vocab, os.path.join(folder, "vocab.txt"))
    written = garden.write_checkpoint(os.path.join(folder, name), arrays, config)
    checkpoints.write_state(folder, [name])
  print(f"{os.path.join(output_dir, name)}: {written} variables of {stored.source}")
  if written < len(arrays):
    print(f"Left out: {len(arrays) - written} variables of heads")


# ---- Stripped copies ----------------------------------------------------------------------------


def strip(
  input_dir: str,
  output_dir: str,
  overwrite: bool = False,
  checkpoint: str = "",
  core_only: bool = False,
) -> None:
  """Copies a checkpoint without the optimizer's variables and the global step.

  The copy's name has no step (model.ckpt-1200 becomes model.ckpt): training can start from it, but
  not resume. Configuration, vocabulary and settings are copied if they exist; labels are copied
  only with the heads.

  Args:
    input_dir: folder with a checkpoint; configuration, vocabulary and settings are optional.
    output_dir: folder for the copy.
    overwrite: whether files of the same names may be replaced.
    checkpoint: prefix or folder of the checkpoint; if empty, input_dir's best, else its newest.
    core_only: also leave out ELECTRA's generator and all heads.

  Raises:
    UserError: there is no checkpoint, it is damaged or has no encoder to keep, or a file to write
      exists.
  """
  stored = tensors.TFTensors(tensors.find_checkpoint(input_dir, checkpoint))
  settings = {
    name: value
    for name, value in tensors.find_settings(input_dir, stored.source).items()
    if not core_only or name in model_folder.ENCODER_SETTINGS
  }
  name = re.sub(r"-\d+$", "", os.path.basename(stored.source))
  side_files = _side_files(input_dir, settings)
  names = [*side_files, *model_folder.files_of(settings), *tensors.checkpoint_files(name)]
  check_new([input_dir, os.path.dirname(stored.source) or "."], output_dir, names, overwrite)
  check_settings(output_dir, names)
  size_before = stored.size()
  kept = [name for name in stored.shapes if not core_only or tensors.is_core(name)]
  if not kept:
    raise UserError(
      f"{stored.source}: no variable model/input, model/encoder, model/decoder, bert or "
      f"electra; is it a checkpoint of Funnel-Transformer, BERT or ELECTRA?"
    )
  arrays = {variable: stored.read(variable) for variable in kept}
  with staged(output_dir, names) as folder:
    for side_name, path in side_files.items():
      tf.io.gfile.copy(path, os.path.join(folder, side_name))
    _write_tf_model(folder, name, settings, arrays)
  target = os.path.join(output_dir, name)
  dropped = len(stored.dropped) + len(stored.shapes) - len(kept)
  print(
    f"{target}: {len(arrays)} variables, {dropped} dropped; "
    f"{size_before / 1e6:.1f} MB before, {tensors.checkpoint_size(target) / 1e6:.1f} MB after"
  )
  print(f"Copied checkpoint: {stored.source}")


def _side_files(folder: str, settings: dict[str, Any]) -> dict[str, str]:
  """Returns name -> path of the configuration and vocabulary files that exist."""
  vocab_name = settings.get("vocab_file", model_folder.VOCAB_NAMES[0])
  names = dict.fromkeys([*model_folder.CONFIG_NAMES, *model_folder.VOCAB_NAMES, vocab_name])
  found = (model_folder.find_in(folder, [name]) for name in names)
  return {os.path.basename(path): path for path in found if path}
