"""Converts checkpoints: Hugging Face to TensorFlow and back, and training to released form.

  python convert_checkpoint.py --direction=hf_to_tf --input_dir=bert-base-hf --output_dir=pretrained
  python convert_checkpoint.py --direction=tf_to_hf --input_dir=pretrained --output_dir=bert-base-hf
  python convert_checkpoint.py --direction=tf_to_hf --input_dir=pretrained
      --checkpoint=runs/cola/best --output_dir=cola-hf
  python convert_checkpoint.py --direction=strip --input_dir=runs/cola --output_dir=cola-slim
  python convert_checkpoint.py --direction=core_only --input_dir=runs/electra --output_dir=core

hf_to_tf reads model.safetensors (or its shards), config.json and vocab.txt or tokenizer.json, and
writes what the run_*.py scripts take as --pretrained: bert_config.json, vocab.txt, bert_model.ckpt,
or for Funnel-Transformer net_config.json, vocab.txt, model.ckpt. The tokenizer's settings and the
labels become model_settings.json and labels.json, and tf_to_hf writes them back. Heads come along.
BERT: masked words, next sentence, classifier (output_weights), question answering (cls/squad).
Funnel: classifier (model/sequnece_summary and model/SCOPE/logit, SCOPE being --cls_scope),
ELECTRA's discriminator.

tf_to_hf is the way back, and also writes tokenizer_config.json. It takes the best checkpoint of a
training run (input_dir/best) if there is one, as strip and core_only do. Encoder tensors are called
"bert.*" when there is a head beside the encoder, and have no prefix when there is none, as in the
models of the Hugging Face library; "funnel.*" likewise. Both ways there and back again give the
same bits. A Funnel model without decoder becomes a FunnelBaseModel; ELECTRA's generator, which is a
model of its own, is left out. Of the configuration's initializer only the numbers come along, not
which of them is used: they matter for new weights only. The library (transformers 5.23) computes
what the models here compute, but for padded sequences: it pools the attention mask so that tokens
which share a window with padding are no longer attended to. The converter says so where a model
differs further.

strip copies a checkpoint of any model here without what only training needs: the moments of Adam
and the global step; two thirds of the size. tf_to_hf leaves these out as well.

core_only copies the pretrained encoder alone, as the released core-only checkpoints: what strip
leaves, without ELECTRA's generator and without heads (model/lm_proj, model/binary_loss, a summary,
classifiers). Funnel keeps model/input, model/encoder and model/decoder; BERT all of bert/.

Funnel checkpoints from before its release (model/transformer_xl/, model/layer_6/) are read under
the names of the release (model/encoder/, model/decoder/layer_6/), whatever the direction.

Folders of Hugging Face models are local; TensorFlow's may be on any file system it knows (gs://).
"""

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
from absl import flags

import modeling
import tokenization
from conversion import families, huggingface
from conversion.families import FAMILIES, Entry, Family, expand
from errors import UserError
from models import config_keys
from models.bert import read_json
from training import app, checkpoints, hf_tokenizer, model_folder
from utils import files, paths

v1 = tf.compat.v1

DIRECTIONS = ("hf_to_tf", "tf_to_hf", "strip", "core_only")


# ---- Names and shapes ---------------------------------------------------------------------------


def match(
  family: Family,
  entries: list[Entry],
  shapes: dict[str, tuple[int, ...]],
  side: str,
  source: str,
  config_file: str,
  actual: dict[str, str] | None = None,
) -> list[Entry]:
  """The entries that a checkpoint has: its encoder, and each head that it has something of.

  Args:
    family: the model's, for messages.
    entries: from `expand`.
    shapes: name -> shape of the checkpoint's tensors.
    side: "hf" or "tf", whose names and shapes these are.
    source: the checkpoint, for messages.
    config_file: the configuration, for messages.
    actual: name -> name in the file, where that is another.

  Raises:
    UserError: names tensors that are unknown, missing, or not of the configuration's shape.
  """
  by_name = {entry.name(side): entry for entry in entries}
  unknown = [(actual or {}).get(name, name) for name in shapes if name not in by_name]
  if unknown:
    first = next(name for name in shapes if name not in by_name)
    reason = next(
      (reason for pattern, reason in family.homeless if re.search(pattern, first)),
      f"is {config_file} the configuration of this model, and is it a model of that kind?",
    )
    raise UserError(f"{source}: no place for the tensor {_listed(unknown)}; {reason}")
  groups = {"encoder", *(by_name[name].group for name in shapes)}
  found = [entry for entry in entries if entry.group in groups]
  missing = [entry.name(side) for entry in found if entry.name(side) not in shapes]
  if missing:
    raise UserError(
      f"{source}: no tensor {_listed(missing)}; is the file complete, and is "
      f"{config_file} its configuration?"
    )
  bound = {}  # what the names that stand for any number stand for
  for entry in found:
    shape, wanted = shapes[entry.name(side)], entry.shape(side)
    if len(shape) == len(wanted):
      bound.update(
        {
          n: size
          for n, size in zip(wanted, shape, strict=True)
          if isinstance(n, str) and n not in bound
        }
      )
    wanted = tuple(bound.get(n, n) for n in wanted)
    if tuple(shape) != wanted:
      name = entry.name(side)
      raise UserError(
        f"{source}: tensor {(actual or {}).get(name, name)} has the shape "
        f"{list(shape)}, {config_file} asks for {list(wanted)}"
      )
  return found


def _listed(names: Iterable[str]) -> str:
  names = list(names)
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ---- Hugging Face's configuration ---------------------------------------------------------------


def from_hf_config(path: str) -> tuple[Family, Any]:
  """Reads config.json: the model family and our configuration.

  Raises:
    UserError: the file is missing, of another family, or says something we cannot represent.
  """
  values = read_json(path)
  name = config_keys.hugging_face_type(values)
  if name is None:
    raise UserError(
      f'{path}: the key model_type is missing; add "model_type": "bert" or "model_type": "funnel"'
    )
  if name not in FAMILIES:
    raise UserError(f"{path}: model_type is {name!r}; only {', '.join(FAMILIES)} can be converted")
  return FAMILIES[name], FAMILIES[name].from_hf(values, path)


def to_hf_config(
  family: Family,
  config: Any,
  arrays: dict[str, np.ndarray],
  groups: set[str],
  labels: list[str] | None = None,
  source: str = "",
) -> dict[str, Any]:
  """Contents of config.json for our configuration and the tensors of these groups.

  Args:
    family: the model's.
    config: our configuration.
    arrays: the tensors.
    groups: those that the checkpoint has.
    labels: names of the classifier's labels; LABEL_0, ... when None.
    source: the labels' folder, for messages.
  """
  known = family.to_hf(config)
  activation = next(
    theirs
    for theirs, name in config_keys.HUGGING_FACE_ACTIVATIONS.items()
    if name == known["hidden_act"]
  )
  architecture = next(name for needed, name in family.architectures if groups.issuperset(needed))
  values = {
    "architectures": [architecture],
    "model_type": family.model_type,
    **known,
    "hidden_act": activation,
  }
  if "classifier" in groups:  # the only place where the library looks for the number of labels
    values |= families.id2label(labels, len(arrays[family.label_bias]), source)
  return values


def _print_deviations(family, config, groups):
  for deviation in family.deviations(config, groups):
    print(f"The Hugging Face library computes other numbers from these weights: {deviation}")


# ---- TensorFlow's files -------------------------------------------------------------------------


class TFTensors:
  """The variables of a TensorFlow checkpoint without the optimizer's; read one by one.

  Attributes:
    source: prefix of the checkpoint.
    shapes: name -> shape, by name; names as in the released checkpoints.
    dropped: names of the optimizer's variables.
  """

  def __init__(self, path: str):
    """Opens a checkpoint; UserError when there is none, or it is not of names and variables.

    Args:
      path: prefix, one of its files, or a folder (its newest checkpoint).
    """
    self.source = checkpoints.resolve(path)
    try:
      self._reader = checkpoints.open_reader(self.source)
      shapes = self._reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
      raise UserError(f"{self.source}: cannot be read as a checkpoint ({error})") from None
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in shapes:
      raise UserError(
        f"{self.source}: a checkpoint of TensorFlow 2 objects (tf.train.Checkpoint), "
        f"which has no variable names; only name-based ones can be converted"
      )
    self.dropped = sorted(filter(families.OPTIMIZER.search, shapes))
    self._stored = {}  # name -> name in the file
    for stored in sorted(shapes.keys() - set(self.dropped)):
      name = families.released_name(stored)
      if name in self._stored:
        raise UserError(
          f"{self.source}: {self._stored[name]} and {stored} are names of the same variable"
        )
      self._stored[name] = stored
    self.shapes = {name: tuple(shapes[stored]) for name, stored in sorted(self._stored.items())}

  def read(self, name: str) -> np.ndarray:
    """A variable in its own type; UserError when the data are damaged."""
    try:
      return np.asarray(self._reader.get_tensor(self._stored[name]))
    except (tf.errors.OpError, RuntimeError) as error:
      raise UserError(
        f"{self.source}: variable {name} cannot be read, the checkpoint is "
        f"incomplete or damaged ({error})"
      ) from None

  def size(self) -> int:
    """Bytes of the checkpoint's files."""
    return checkpoint_size(self.source)


def find_checkpoint(input_dir: str, checkpoint: str) -> str:
  """The checkpoint to convert: `checkpoint`, or the best one of a folder, or its newest."""
  best = os.path.join(input_dir, "best")
  return checkpoint or (best if checkpoints.latest(best) else input_dir)


def find_settings(input_dir: str, prefix: str) -> dict[str, Any]:
  """Settings of the model of a checkpoint, from its folder.

  The tokenizer's may also be those of input_dir, whose vocabulary is used.
  """
  shared = model_folder.read_settings(input_dir)
  return {
    name: value for name, value in shared.items() if name in hf_tokenizer.SETTINGS
  } | model_folder.read_settings(os.path.dirname(prefix))


def write_checkpoint(prefix: str, arrays: dict[str, np.ndarray]) -> None:
  """Writes a TF1 (V2 format) checkpoint of named variables.

  The arrays are fed to the one operation that writes, so no graph holds them as constants (which
  would end at 2 GB) and no variable as a copy.
  """
  with (
    tf.Graph().as_default(),
    tf.device("/cpu:0"),
    v1.Session(config=v1.ConfigProto(device_count={"GPU": 0})) as session,
  ):
    holders = [v1.placeholder(array.dtype, array.shape) for array in arrays.values()]
    save = tf.raw_ops.SaveV2(
      prefix=prefix, tensor_names=list(arrays), shape_and_slices=[""] * len(arrays), tensors=holders
    )
    session.run(save, dict(zip(holders, arrays.values(), strict=True)))


def checkpoint_size(prefix: str) -> int:
  """Bytes of a checkpoint's data and index files."""
  return sum(
    tf.io.gfile.stat(path).length
    for path in checkpoints.files_of(prefix)
    if not path.endswith(".meta")
  )


def checkpoint_files(name: str) -> list[str]:
  """Names of the files of a checkpoint of write_checkpoint, in order, and of its state file."""
  return [f"{name}.data-00000-of-00001", f"{name}.index", "checkpoint"]


# ---- Output -------------------------------------------------------------------------------------


def check_new(
  input_dirs: Iterable[str], output_dir: str, names: Iterable[str], overwrite: bool
) -> None:
  """UserError when a file to be written is there already, unless it may be overwritten.

  The files of input_dirs may not be overwritten in any case.
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
        f"{path}: the file is there already; pass --overwrite to replace it, or "
        f"choose another --output_dir"
      )


def check_settings(output_dir: str, names: Iterable[str]) -> None:
  """UserError when output_dir keeps settings that are not of the model to be written."""
  for name in set(model_folder.SETTINGS_NAMES).difference(names):
    path = os.path.join(output_dir, name)
    if tf.io.gfile.exists(path):
      raise UserError(
        f"{path}: the settings of another model, which the new one does not have; "
        f"remove the file, or choose another --output_dir"
      )


@contextlib.contextmanager
def staged(output_dir: str, names: list[str]) -> Iterator[str]:
  """A temporary folder whose files `names` move to output_dir, in this order, after the block.

  When the block fails, nothing moves. The temporary folder is removed in any case.
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


def _find(folder, names):
  """Path of the first of the files that is in a model's folder."""
  path = model_folder.find_in(folder, names)
  if path is None:
    raise UserError(
      f"{os.path.join(folder, names[0])}: no such file; copy it there from the model "
      f"that this one started from"
    )
  return path


def _summary(path, arrays, groups):
  size = sum(array.size for array in arrays.values())
  return f"{path}: {len(arrays)} tensors, {size:,} parameters ({', '.join(sorted(groups))})"


# ---- The conversions ----------------------------------------------------------------------------


def hf_to_tf(input_dir: str, output_dir: str, overwrite: bool = False, cls_scope: str = "") -> None:
  """Converts a Hugging Face model to configuration, vocabulary and TF1 checkpoint.

  Args:
    input_dir: folder with model.safetensors (or shards), config.json, vocab.txt or tokenizer.json.
    output_dir: folder for bert_config.json, vocab.txt, bert_model.ckpt; or net_config.json,
      vocab.txt, model.ckpt. Tokenizer settings and labels become model_settings.json.
    overwrite: whether files of these names may be replaced.
    cls_scope: scope of a Funnel classifier's variables, model/SCOPE/logit; "cls" when empty.

  Raises:
    UserError: a file is missing or damaged, or the model cannot be represented.
  """
  config_file = os.path.join(input_dir, "config.json")
  family, config = from_hf_config(config_file)
  name = family.checkpoint_name
  vocab = hf_tokenizer.vocab_lines(input_dir, config.vocab_size)
  tensors = huggingface.HFTensors(input_dir)
  actual = huggingface.canonical_names(family, tensors)
  shapes = {canonical: tensors.shape(stored) for canonical, stored in actual.items()}
  config = checkpoints.fit_config(config, shapes, tensors.source, config_file)
  found = match(
    family,
    expand(family, config, cls_scope or "cls"),
    shapes,
    "hf",
    tensors.source,
    config_file,
    actual,
  )
  if families.labels_tokens(read_json(config_file)):
    found = [entry for entry in found if entry.group != "classifier"]
    print("Left out: the classifier, which labels tokens; the one here labels whole sequences")
  groups = {entry.group for entry in found}
  settings = hf_tokenizer.read_settings(input_dir)
  if "classifier" in groups and (
    labels := families.label_list(read_json(config_file), shapes[family.label_bias][0], config_file)
  ):
    settings["label_list"] = labels
  if "classifier" in groups and family is families.FUNNEL:
    settings["cls_scope"] = cls_scope or "cls"
  if not getattr(config, "truncate_seq", True):
    settings["truncate_seq"] = False  # net_config.json does not hold it
  names = [config.file_name, "vocab.txt", *model_folder.files_of(settings), *checkpoint_files(name)]
  check_new([input_dir], output_dir, names, overwrite)
  check_settings(output_dir, names)
  arrays = {
    entry.tf_name: entry.convert(tensors.read(actual[entry.hf_name]), to="tf") for entry in found
  }
  with staged(output_dir, names) as folder:
    files.write_json(os.path.join(folder, config.file_name), config.to_dict())
    with tf.io.gfile.GFile(os.path.join(folder, "vocab.txt"), "wb") as writer:
      writer.write(vocab)
    if settings:
      model_folder.write_settings(folder, settings)
    write_checkpoint(os.path.join(folder, name), arrays)
    checkpoints.write_state(folder, [name])
  print(_summary(os.path.join(output_dir, name), arrays, groups))
  _print_deviations(family, config, groups)
  if "pooler" in family.core and "pooler" not in groups:
    print("The model has no pooler: fine-tune it with --noinit_pooler")
  if settings:
    print(
      f"{model_folder.SETTINGS_NAME}: "
      + ", ".join(f"{key} {value}" for key, value in settings.items())
    )
  for deviation in hf_tokenizer.deviations(input_dir):
    print(f"The tokenizer here splits text in another way than {input_dir}'s: {deviation}")


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
    input_dir: folder with bert_config.json or net_config.json, vocabulary and a checkpoint.
    output_dir: folder for model.safetensors, config.json, vocab.txt, tokenizer_config.json.
    overwrite: whether files of these names may be replaced.
    checkpoint: prefix or folder of the checkpoint; when empty input_dir's best, or its newest.
    uncased: whether the model's text is lower-cased, for tokenizer_config.json. When None as the
      model's settings say, or else the vocabulary.
    cls_scope: scope of a Funnel classifier's variables; the checkpoint's own when empty.
    truncate_seq: of a Funnel model, as net_config.json does not hold it. When None as the model's
      settings say, or else True.

  Raises:
    UserError: a file is missing or damaged, or a variable has no place in the other form.
  """
  config_file = _find(input_dir, model_folder.CONFIG_NAMES)
  config = modeling.load_config(config_file)
  family = FAMILIES[config.family]
  if family is families.FUNNEL:
    stored = model_folder.read_settings(input_dir).get("truncate_seq", True)
    config = dataclasses.replace(
      config, truncate_seq=stored if truncate_seq is None else truncate_seq
    )
  family.to_hf(config)  # that there can be such a model is checked before its tensors are
  names = ["config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"]
  check_new([input_dir], output_dir, names, overwrite)
  vocab = _find(input_dir, model_folder.VOCAB_NAMES)
  tensors = TFTensors(find_checkpoint(input_dir, checkpoint))
  settings = find_settings(input_dir, tensors.source)
  if uncased not in (None, settings.get("uncased", uncased)):
    raise UserError(
      f"--uncased={uncased}, but the settings of {tensors.source} have uncased "
      f"{settings['uncased']}; leave the flag out"
    )
  is_cased = tokenization.vocab_casing(tokenization.load_vocab(vocab)) == "cased"
  settings.setdefault("uncased", not is_cased if uncased is None else uncased)
  shapes = {
    name: shape
    for name, shape in tensors.shapes.items()
    if not name.startswith(family.not_converted)
  }
  config = checkpoints.fit_config(config, shapes, tensors.source, config_file)
  scopes = [found[1] for found in map(families.CLASSIFIER.search, shapes) if found]
  found = match(
    family,
    expand(family, config, cls_scope or (scopes or ["cls"])[0]),
    shapes,
    "tf",
    tensors.source,
    config_file,
  )
  groups = {entry.group for entry in found}
  arrays = {
    entry.hf_name: entry.convert(
      tensors.read(entry.tf_name).astype(np.float32, copy=False), to="hf"
    )
    for entry in found
  }
  hf_config = to_hf_config(
    family, config, arrays, groups, settings.get("label_list"), tensors.source
  )
  if groups - set(family.core):
    arrays = {
      family.prefix * (entry.group in family.core) + entry.hf_name: arrays[entry.hf_name]
      for entry in found
    }
  with staged(output_dir, names) as folder:
    files.write_json(os.path.join(folder, "config.json"), hf_config)
    tf.io.gfile.copy(vocab, os.path.join(folder, "vocab.txt"))
    files.write_json(
      os.path.join(folder, "tokenizer_config.json"),
      {
        "tokenizer_class": family.tokenizer_class,
        **hf_tokenizer.to_config(settings),
        "model_max_length": family.max_length(config),
      },
    )
    path = os.path.join(folder, "model.safetensors")
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})  # readers insist on it
    shutil.copymode(os.path.join(folder, "config.json"), path)  # not for the owner's eyes only
  print(_summary(os.path.join(output_dir, "model.safetensors"), arrays, groups))
  print(f"Converted checkpoint: {tensors.source}")
  _print_deviations(family, config, groups)
  if len(shapes) < len(tensors.shapes):
    print(f"Left out: {len(tensors.shapes) - len(shapes)} tensors of the generator")


def strip(
  input_dir: str,
  output_dir: str,
  overwrite: bool = False,
  checkpoint: str = "",
  core_only: bool = False,
) -> None:
  """Copies a checkpoint without the optimizer's variables and the global step.

  The copy's name has no step (model.ckpt-1200 becomes model.ckpt): it is something to start from,
  not a training run to go on with. Configuration, vocabulary and settings come along if they are
  there; without heads, no labels.

  Args:
    input_dir: folder with a checkpoint, and perhaps configuration, vocabulary and settings.
    output_dir: folder for the copy.
    overwrite: whether files of the same names may be replaced.
    checkpoint: prefix or folder of the checkpoint; when empty input_dir's best, or its newest.
    core_only: leave out also ELECTRA's generator and all heads.

  Raises:
    UserError: there is no checkpoint, it is damaged or has no encoder to keep, or files are there
      already.
  """
  tensors = TFTensors(find_checkpoint(input_dir, checkpoint))
  settings = {
    name: value
    for name, value in find_settings(input_dir, tensors.source).items()
    if not core_only or name in model_folder.ENCODER_SETTINGS
  }
  name = re.sub(r"-\d+$", "", os.path.basename(tensors.source))
  vocab_name = settings.get("vocab_file", model_folder.VOCAB_NAMES[0])
  found = (
    model_folder.find_in(input_dir, [name])
    for name in dict.fromkeys([*model_folder.CONFIG_NAMES, *model_folder.VOCAB_NAMES, vocab_name])
  )
  side_files = {os.path.basename(path): path for path in found if path}
  names = [*side_files, *model_folder.files_of(settings), *checkpoint_files(name)]
  check_new([input_dir, os.path.dirname(tensors.source) or "."], output_dir, names, overwrite)
  check_settings(output_dir, names)
  size_before = tensors.size()
  kept = [name for name in tensors.shapes if not core_only or families.CORE.search(name)]
  if not kept:
    raise UserError(
      f"{tensors.source}: no variable model/input, model/encoder, model/decoder or "
      f"bert; is it a checkpoint of Funnel-Transformer or BERT?"
    )
  arrays = {variable: tensors.read(variable) for variable in kept}
  with staged(output_dir, names) as folder:
    for side, path in side_files.items():
      tf.io.gfile.copy(path, os.path.join(folder, side))
    if settings:
      model_folder.write_settings(folder, settings)
    write_checkpoint(os.path.join(folder, name), arrays)
    checkpoints.write_state(folder, [name])
  target = os.path.join(output_dir, name)
  dropped = len(tensors.dropped) + len(tensors.shapes) - len(kept)
  print(
    f"{target}: {len(arrays)} variables, {dropped} dropped; "
    f"{size_before / 1e6:.1f} MB before, {checkpoint_size(target) / 1e6:.1f} MB after"
  )
  print(f"Copied checkpoint: {tensors.source}")


# ---- The script ---------------------------------------------------------------------------------


def define_flags() -> None:
  """Defines the script's flags."""
  flags.DEFINE_enum(
    "direction",
    None,
    DIRECTIONS,
    "what to do: Hugging Face to TensorFlow, TensorFlow to "
    "Hugging Face, a TensorFlow checkpoint without what only training needs, or its encoder "
    "(and decoder) alone",
  )
  flags.DEFINE_bool(
    "drop_optimizer",
    False,
    "leave out the moments of Adam and the global step: alone the same "
    "as --direction=strip; tf_to_hf does so in any case",
  )
  flags.DEFINE_string(
    "input_dir",
    "",
    "folder to convert. Hugging Face: model.safetensors, config.json, "
    "vocab.txt or tokenizer.json. TensorFlow: bert_config.json or net_config.json, vocabulary, "
    "checkpoint",
  )
  flags.DEFINE_string("output_dir", "", "folder to write to; made where there is none")
  flags.DEFINE_string(
    "checkpoint",
    "",
    "TensorFlow checkpoint (prefix, or folder for its newest) to take instead "
    "of input_dir's best (input_dir/best) or newest, e.g. a fine-tuned one, whose configuration "
    "is elsewhere",
  )
  flags.DEFINE_bool("overwrite", False, "replace files that are in output_dir already")
  flags.DEFINE_bool(
    "uncased",
    None,
    "tf_to_hf: the model's text is lower-cased; becomes "
    "do_lower_case of tokenizer_config.json. Default: as model_settings.json of "
    "the folder says, else the vocabulary",
  )
  flags.DEFINE_alias("do_lower_case", "uncased")
  flags.DEFINE_string(
    "cls_scope",
    "",
    "Funnel: scope of the classifier, model/SCOPE/logit. Empty: hf_to_tf calls "
    "it cls, tf_to_hf finds it in the checkpoint. run_classifier.py looks where its own "
    "--cls_scope says",
  )
  flags.DEFINE_bool(
    "truncate_seq",
    None,
    "tf_to_hf, Funnel: the model was trained with truncate_seq, which "
    "net_config.json does not hold. Default: as model_settings.json of the folder says, else "
    "true",
  )


def main() -> None:
  values = flags.FLAGS
  direction = values.direction or ("strip" if values.drop_optimizer else None)
  if direction is None:
    raise UserError(f"--direction is missing; it is one of {', '.join(DIRECTIONS)}")
  for name in ("input_dir", "output_dir"):
    if not values[name].value:
      raise UserError(f"--{name} is missing")
  if direction == "hf_to_tf":
    if values.checkpoint:
      raise UserError(
        "--checkpoint names a TensorFlow checkpoint; --direction=hf_to_tf reads "
        "model.safetensors of --input_dir"
      )
    hf_to_tf(values.input_dir, values.output_dir, values.overwrite, values.cls_scope)
  elif direction == "tf_to_hf":
    tf_to_hf(
      values.input_dir,
      values.output_dir,
      values.overwrite,
      values.checkpoint,
      values.uncased,
      values.cls_scope,
      values.truncate_seq,
    )
  else:
    strip(
      values.input_dir,
      values.output_dir,
      values.overwrite,
      values.checkpoint,
      core_only=direction == "core_only",
    )


if __name__ == "__main__":
  define_flags()
  app.run_main(main, "The output is not complete.")
