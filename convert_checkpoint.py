"""Converts checkpoints: Hugging Face to TensorFlow and back, and training to released form.

  python convert_checkpoint.py --direction=hf_to_tf --input_dir=bert-base-hf --output_dir=pretrained
  python convert_checkpoint.py --direction=tf_to_hf --input_dir=pretrained --output_dir=bert-base-hf
  python convert_checkpoint.py --direction=tf_to_hf --input_dir=pretrained
      --checkpoint=runs/cola/best --output_dir=cola-hf
  python convert_checkpoint.py --direction=strip --input_dir=runs/cola --output_dir=cola-slim

hf_to_tf reads model.safetensors (or its shards), config.json and vocab.txt, and writes what the
run_*.py scripts take as --pretrained: bert_config.json, vocab.txt, bert_model.ckpt. Heads come
along: masked words, next sentence, classifier (output_weights), question answering (cls/squad).

tf_to_hf is the way back, and also writes tokenizer_config.json. Encoder tensors are called
"bert.*" when there is a head beside the encoder, and have no prefix when there is none, as in the
models of the Hugging Face library. Both ways there and back again give the same bits.

strip copies a checkpoint of any model here without what only training needs: the moments of Adam
and the global step; two thirds of the size. tf_to_hf leaves these out as well.

Folders of Hugging Face models are local; TensorFlow's may be on any file system it knows (gs://).
"""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf
from absl import flags

import modeling
from errors import UserError
from training import checkpoints, records, runner

v1 = tf.compat.v1

DIRECTIONS = ("hf_to_tf", "tf_to_hf", "strip")
_OPTIMIZER = re.compile(  # ours and the originals' (adam_m), tf.train.AdamOptimizer's (Adam)
    r"(/adam_[mv]|/Adam(_1)?|(^|/)beta[12]_power(_\d+)?|^global_step)$")
_CONFIG_NAMES = ("bert_config.json", "net_config.json")
_VOCAB_NAMES = ("vocab.txt", "vocab.uncased.txt", "vocab.cased.txt")


# ---- Names, as data -----------------------------------------------------------------------------

# The tensors of each kind of layer: suffix in TensorFlow, suffix in Hugging Face, how many of the
# layer's dimensions it has, and whether one is the transpose of the other.
_KINDS = {
    "table": (("", ".weight", 2, False),),
    "vector": (("", "", 1, False),),
    "norm": (("/gamma", ".weight", 1, False), ("/beta", ".bias", 1, False)),
    "dense": (("/kernel", ".weight", 2, True), ("/bias", ".bias", 1, False)),
    "logits": (("output_weights", ".weight", 2, False), ("output_bias", ".bias", 1, False)),
}

# A group of layers is there as a whole or not at all, "encoder" always. Columns: name in
# TensorFlow; in Hugging Face, without the family's prefix; kind; dimensions in Hugging Face's
# order: numbers, keys of the configuration, or names that stand for any number.
_BERT_ENCODER = (
    ("bert/embeddings/word_embeddings", "embeddings.word_embeddings", "table",
     ("vocab_size", "hidden_size")),
    ("bert/embeddings/token_type_embeddings", "embeddings.token_type_embeddings", "table",
     ("type_vocab_size", "hidden_size")),
    ("bert/embeddings/position_embeddings", "embeddings.position_embeddings", "table",
     ("max_position_embeddings", "hidden_size")),
    ("bert/embeddings/LayerNorm", "embeddings.LayerNorm", "norm", ("hidden_size",)),
    ("bert/encoder/layer_{i}/attention/self/query", "encoder.layer.{i}.attention.self.query",
     "dense", ("hidden_size", "hidden_size")),
    ("bert/encoder/layer_{i}/attention/self/key", "encoder.layer.{i}.attention.self.key",
     "dense", ("hidden_size", "hidden_size")),
    ("bert/encoder/layer_{i}/attention/self/value", "encoder.layer.{i}.attention.self.value",
     "dense", ("hidden_size", "hidden_size")),
    ("bert/encoder/layer_{i}/attention/output/dense", "encoder.layer.{i}.attention.output.dense",
     "dense", ("hidden_size", "hidden_size")),
    ("bert/encoder/layer_{i}/attention/output/LayerNorm",
     "encoder.layer.{i}.attention.output.LayerNorm", "norm", ("hidden_size",)),
    ("bert/encoder/layer_{i}/intermediate/dense", "encoder.layer.{i}.intermediate.dense",
     "dense", ("intermediate_size", "hidden_size")),
    ("bert/encoder/layer_{i}/output/dense", "encoder.layer.{i}.output.dense",
     "dense", ("hidden_size", "intermediate_size")),
    ("bert/encoder/layer_{i}/output/LayerNorm", "encoder.layer.{i}.output.LayerNorm",
     "norm", ("hidden_size",)),
)
_BERT_GROUPS = {
    "encoder": _BERT_ENCODER,
    "pooler": (("bert/pooler/dense", "pooler.dense", "dense", ("hidden_size", "hidden_size")),),
    "masked_lm": (
        ("cls/predictions/transform/dense", "cls.predictions.transform.dense", "dense",
         ("hidden_size", "hidden_size")),
        ("cls/predictions/transform/LayerNorm", "cls.predictions.transform.LayerNorm", "norm",
         ("hidden_size",)),
        ("cls/predictions/output_bias", "cls.predictions.bias", "vector", ("vocab_size",)),
    ),
    "next_sentence": (
        ("cls/seq_relationship/", "cls.seq_relationship", "logits", (2, "hidden_size")),),
    "classifier": (("", "classifier", "logits", ("num_labels", "hidden_size")),),
    "question_answering": (("cls/squad/", "qa_outputs", "logits", (2, "hidden_size")),),
}


@dataclasses.dataclass(frozen=True)
class Family:
  """What the conversion knows of a model family.

  Attributes:
    model_type: its name in Hugging Face's config.json; the configuration class's `family`.
    config_name: file name of the TensorFlow configuration.
    config_class: its class.
    checkpoint_name: name of the TensorFlow checkpoint.
    tokenizer_class: Hugging Face's tokenizer.
    groups: group -> rows (name in TensorFlow, in Hugging Face, kind, dimensions).
    repeats: how often rows with "{i}" in their names occur, from the configuration.
    prefix: what the names of encoder and pooler begin with in Hugging Face models with a head.
    aliases: (pattern, replacement) pairs that lead older Hugging Face names to today's.
    ignored: Hugging Face tensors that hold no weights.
    tied: Hugging Face tensors that must equal another, and so are not stored twice.
    keys: key of our configuration -> Hugging Face's default for the same key.
    fixed: config.json keys that can have one value only, here and so there (the default too).
    activations: hidden_act in Hugging Face -> here; of several that mean the same the first is
      written.
    architectures: groups -> Hugging Face class; the first whose groups are all there is written.
  """

  model_type: str
  config_name: str
  config_class: type
  checkpoint_name: str
  tokenizer_class: str
  groups: dict[str, tuple[tuple[str, str, str, tuple], ...]]
  repeats: Callable[[Any], int]
  prefix: str
  aliases: tuple[tuple[str, str], ...]
  ignored: tuple[str, ...]
  tied: dict[str, str]
  keys: dict[str, Any]
  fixed: dict[str, Any]
  activations: dict[str, str]
  architectures: tuple[tuple[tuple[str, ...], str], ...]


BERT = Family(
    model_type="bert",
    config_name="bert_config.json",
    config_class=modeling.BertConfig,
    checkpoint_name="bert_model.ckpt",
    tokenizer_class="BertTokenizer",
    groups=_BERT_GROUPS,
    repeats=lambda config: config.num_hidden_layers,
    prefix="bert.",
    aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    ignored=("embeddings.position_ids",),
    tied={"cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
          "cls.predictions.decoder.bias": "cls.predictions.bias"},
    keys={"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
          "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
          "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
          "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02},
    fixed={"layer_norm_eps": 1e-12, "position_embedding_type": "absolute", "is_decoder": False,
           "add_cross_attention": False},
    activations={"gelu": "gelu_erf", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu",
                 "gelu_fast": "gelu", "relu": "relu", "tanh": "tanh", "linear": "linear"},
    architectures=(
        (("masked_lm", "next_sentence"), "BertForPreTraining"),
        (("masked_lm",), "BertForMaskedLM"),
        (("next_sentence",), "BertForNextSentencePrediction"),
        (("classifier",), "BertForSequenceClassification"),
        (("question_answering",), "BertForQuestionAnswering"),
        ((), "BertModel")),
)

_CORE = {"encoder", "pooler"}  # groups that are no head
FAMILIES = {family.model_type: family for family in (BERT,)}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One tensor: its two names, its shape in Hugging Face's order, and the way between the two."""

  group: str
  tf_name: str
  hf_name: str
  hf_shape: tuple
  transposed: bool

  def name(self, side: str) -> str:
    return self.tf_name if side == "tf" else self.hf_name

  def shape(self, side: str) -> tuple:
    return self.hf_shape[::-1] if side == "tf" and self.transposed else self.hf_shape

  def convert(self, array: np.ndarray) -> np.ndarray:
    """The array of one side as that of the other."""
    return aligned_copy(array.T if self.transposed else array)


def aligned_copy(array: np.ndarray) -> np.ndarray:
  """A C-ordered copy that begins where TensorFlow wants a tensor to begin.

  An array that begins elsewhere is copied when it is fed: for all weights at once, that would
  double the memory the script needs.
  """
  buffer = np.empty(array.nbytes + 64, np.uint8)
  start = -buffer.ctypes.data % 64
  copied = buffer[start:start + array.nbytes].view(array.dtype).reshape(array.shape)
  np.copyto(copied, array)
  return copied


def expand(family: Family, config: Any) -> list[Entry]:
  """All tensors that a model of this configuration can have, heads included."""
  entries = []
  for group, rows in family.groups.items():
    for tf_name, hf_name, kind, dims in rows:
      shape = tuple(getattr(config, n, n) if isinstance(n, str) else n for n in dims)
      for i in range(family.repeats(config)) if "{i}" in tf_name else [0]:
        for tf_suffix, hf_suffix, rank, transposed in _KINDS[kind]:
          entries.append(Entry(group, tf_name.format(i=i) + tf_suffix,
                               hf_name.format(i=i) + hf_suffix, shape[:rank], transposed))
  return entries


def match(entries: list[Entry], shapes: dict[str, tuple[int, ...]], side: str, source: str,
          config_file: str, actual: dict[str, str] | None = None) -> list[Entry]:
  """The entries that a checkpoint has: its encoder, and each head that it has something of.

  Args:
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
    raise UserError(f"{source}: no place for the tensor {_listed(unknown)}; is {config_file} the "
                    f"configuration of this model, and is it a model of that kind?")
  groups = {"encoder", *(by_name[name].group for name in shapes)}
  found = [entry for entry in entries if entry.group in groups]
  missing = [entry.name(side) for entry in found if entry.name(side) not in shapes]
  if missing:
    raise UserError(f"{source}: no tensor {_listed(missing)}; is the file complete, and is "
                    f"{config_file} its configuration?")
  bound = {}  # what the names that stand for any number stand for
  for entry in found:
    shape, wanted = shapes[entry.name(side)], entry.shape(side)
    if len(shape) == len(wanted):
      bound.update({n: size for n, size in zip(wanted, shape, strict=True)
                    if isinstance(n, str) and n not in bound})
    wanted = tuple(bound.get(n, n) for n in wanted)
    if tuple(shape) != wanted:
      name = entry.name(side)
      raise UserError(f"{source}: tensor {(actual or {}).get(name, name)} has the shape "
                      f"{list(shape)}, {config_file} asks for {list(wanted)}")
  return found


def _listed(names: Iterable[str]) -> str:
  names = list(names)
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ---- Hugging Face's files -----------------------------------------------------------------------


class HFTensors:
  """The tensors of model.safetensors or its shards; read one by one, as float32.

  Example:
    tensors = HFTensors("all-MiniLM-L6-v2")
    table = tensors.read("embeddings.word_embeddings.weight")
  """

  def __init__(self, folder: str):
    """Opens the files; UserError when there are none or one of them is damaged."""
    self.source, paths = self._find(folder)
    self._stored = {}  # name -> (file, type, shape)
    for path in paths:
      try:
        with safetensors.safe_open(path, framework="np") as opened:
          for name in opened.keys():
            part = opened.get_slice(name)
            self._stored[name] = path, part.get_dtype(), tuple(part.get_shape())
      except FileNotFoundError:
        raise UserError(f"{path}: no such file, but {self.source} lists it") from None
      except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file, or cut off ({error})") from None

  def _find(self, folder):
    single = os.path.join(folder, "model.safetensors")
    index = single + ".index.json"
    if os.path.exists(single):
      return single, [single]
    if os.path.exists(index):
      files = records.read_json(index).get("weight_map", {}).values()
      return index, [os.path.join(folder, name) for name in sorted(set(files))]
    if os.path.exists(os.path.join(folder, "pytorch_model.bin")):
      raise UserError(f"{folder}: has only pytorch_model.bin, a format that can run any code when "
                      f"it is read. Save the model as safetensors: load it with the transformers "
                      f"library and call model.save_pretrained(folder)")
    raise UserError(f"{folder}: no model.safetensors in it; --input_dir is the folder of a "
                    f"Hugging Face model")

  def names(self) -> list[str]:
    return list(self._stored)

  def shape(self, name: str) -> tuple[int, ...]:
    return self._stored[name][2]

  def read(self, name: str) -> np.ndarray:
    """A tensor as float32; UserError when it is neither F32 nor of half precision."""
    path, dtype, _ = self._stored[name]
    if dtype not in ("F32", "F16", "BF16"):
      raise UserError(f"{path}: tensor {name} is of type {dtype}; only F32, F16 and BF16 can be "
                      f"converted")
    # Opened anew for each: the whole file would stay mapped and count as the script's memory.
    with safetensors.safe_open(path, framework="np") as opened:
      return opened.get_tensor(name).astype(np.float32, copy=False)


def canonical_names(family: Family, tensors: HFTensors) -> dict[str, str]:
  """Name without prefix, in today's spelling -> name in the file; buffers and copies left out.

  Raises:
    UserError: two tensors have the same name then, or a copy differs from what it is a copy of.
  """
  actual = {}
  for name in tensors.names():
    canonical = name.removeprefix(family.prefix)
    for pattern, replacement in family.aliases:
      canonical = re.sub(pattern, replacement, canonical)
    if canonical in actual:
      raise UserError(f"{tensors.source}: {actual[canonical]} and {name} are names of the same "
                      f"tensor; remove one of them")
    if canonical not in family.ignored:
      actual[canonical] = name
  for copy, original in family.tied.items():
    if copy in actual:
      copy_name = actual.pop(copy)
      if original not in actual:  # a file may hold it under either name
        actual[original] = copy_name
      elif not np.array_equal(tensors.read(copy_name), tensors.read(actual[original])):
        raise UserError(f"{tensors.source}: {copy_name} differs from {actual[original]}; a model "
                        f"that does not share them cannot be represented here")
  return actual


def from_hf_config(path: str) -> tuple[Family, Any]:
  """Reads config.json: the model family and our configuration.

  Raises:
    UserError: the file is missing, of another family, or says something we cannot represent.
  """
  values = modeling.read_json(path)
  family = _family(values.get("model_type"), f"{path}: model_type")
  for key, value in family.fixed.items():
    if values.get(key, value) != value:
      raise UserError(f"{path}: {key} is {values[key]!r}; the model cannot be represented here, "
                      f"where it is always {value!r}")
  ours = {key: values.get(key, default) for key, default in family.keys.items()}
  if ours["hidden_act"] not in family.activations:
    raise UserError(f"{path}: hidden_act {ours['hidden_act']!r} cannot be represented here; known "
                    f"are {', '.join(family.activations)}")
  ours["hidden_act"] = family.activations[ours["hidden_act"]]
  return family, family.config_class.from_dict(ours, source=path)


def to_hf_config(family: Family, config: Any, arrays: dict[str, np.ndarray],
                 groups: set[str]) -> dict[str, Any]:
  """Contents of config.json for our configuration and the tensors of these groups."""
  ours = config.to_dict()
  activation = next(theirs for theirs, name in family.activations.items()
                    if name == ours["hidden_act"])
  architecture = next(name for needed, name in family.architectures if groups.issuperset(needed))
  values = {"architectures": [architecture], "model_type": family.model_type, **ours,
            "hidden_act": activation, **family.fixed}
  if "classifier" in groups:  # the only place where the library looks for the number of labels
    labels = [f"LABEL_{i}" for i in range(len(arrays["classifier.bias"]))]
    values["id2label"] = {str(i): label for i, label in enumerate(labels)}
    values["label2id"] = {label: i for i, label in enumerate(labels)}
  return values


def _family(name, what):
  if name not in FAMILIES:
    raise UserError(f"{what} is {name!r}; only {', '.join(sorted(FAMILIES))} can be converted")
  return FAMILIES[name]


# ---- TensorFlow's files -------------------------------------------------------------------------


class TFTensors:
  """The variables of a TensorFlow checkpoint without the optimizer's; read one by one."""

  def __init__(self, path: str):
    """Opens a checkpoint; UserError when there is none, or it is not of names and variables.

    Args:
      path: prefix, one of its files, or a folder (its newest checkpoint).
    """
    self.source = checkpoints.resolve(path)
    try:
      self._reader = tf.train.load_checkpoint(self.source)
      shapes = self._reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
      raise UserError(f"{self.source}: cannot be read as a checkpoint ({error})") from None
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in shapes:
      raise UserError(f"{self.source}: a checkpoint of TensorFlow 2 objects (tf.train.Checkpoint), "
                      f"which has no variable names; only name-based ones can be converted")
    self.shapes = {name: tuple(shape) for name, shape in sorted(shapes.items())
                   if not _OPTIMIZER.search(name)}
    self.dropped = sorted(set(shapes) - set(self.shapes))

  def read(self, name: str) -> np.ndarray:
    """A variable in its own type; UserError when the data are damaged."""
    try:
      return np.asarray(self._reader.get_tensor(name))
    except (tf.errors.OpError, RuntimeError) as error:
      raise UserError(f"{self.source}: variable {name} cannot be read, the checkpoint is "
                      f"incomplete or damaged ({error})") from None

  def size(self) -> int:
    """Bytes of the checkpoint's files."""
    return checkpoint_size(self.source)


def write_checkpoint(prefix: str, arrays: dict[str, np.ndarray]) -> None:
  """Writes a TF1 (V2 format) checkpoint of named variables.

  The arrays are fed to the one operation that writes, so no graph holds them as constants (which
  would end at 2 GB) and no variable as a copy.
  """
  with tf.Graph().as_default(), tf.device("/cpu:0"), \
      v1.Session(config=v1.ConfigProto(device_count={"GPU": 0})) as session:
    holders = [v1.placeholder(array.dtype, array.shape) for array in arrays.values()]
    save = tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(arrays),
                             shape_and_slices=[""] * len(arrays), tensors=holders)
    session.run(save, dict(zip(holders, arrays.values(), strict=True)))


def checkpoint_size(prefix: str) -> int:
  """Bytes of a checkpoint's data and index files."""
  files = tf.io.gfile.glob([prefix + ".data-*", prefix + ".index"])
  return sum(tf.io.gfile.stat(path).length for path in files)


def checkpoint_files(name: str) -> list[str]:
  """Names of the files of a checkpoint that write_checkpoint and write_state leave, in order."""
  return [f"{name}.data-00000-of-00001", f"{name}.index", "checkpoint"]


def write_state(folder: str, name: str) -> None:
  """Writes the file by which tf.train.latest_checkpoint finds the checkpoint `name` of a folder.

  The path in it is relative, so the folder can be moved.
  """
  with tf.io.gfile.GFile(os.path.join(folder, "checkpoint"), "w") as writer:
    writer.write(f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n')


# ---- Output -------------------------------------------------------------------------------------


def check_new(output_dir: str, names: Iterable[str], overwrite: bool) -> None:
  """UserError when a file to be written is there already, unless it may be overwritten."""
  for name in names:
    path = os.path.join(output_dir, name)
    if not overwrite and tf.io.gfile.exists(path):
      raise UserError(f"{path}: the file is there already; pass --overwrite to replace it, or "
                      f"choose another --output_dir")


@contextlib.contextmanager
def staged(output_dir: str, names: list[str]) -> Iterator[str]:
  """A temporary folder whose files `names` move to output_dir, in this order, after the block.

  When the block fails, nothing moves. The temporary folder is removed in any case.
  """
  records.make_dirs(output_dir)
  folder = os.path.join(output_dir, f".tmp-{os.getpid()}")
  tf.io.gfile.makedirs(folder)
  try:
    yield folder
    for name in names:
      tf.io.gfile.rename(os.path.join(folder, name), os.path.join(output_dir, name),
                         overwrite=True)
  finally:
    tf.io.gfile.rmtree(folder)


def _present(folder, names):
  return [name for name in names if tf.io.gfile.exists(os.path.join(folder, name))]


def _existing(folder, name):
  path = os.path.join(folder, name)
  if not tf.io.gfile.exists(path):
    raise UserError(f"{path}: no such file; copy it there from the model that this one started "
                    f"from")
  return path


def _summary(path, arrays, groups):
  size = sum(array.size for array in arrays.values())
  return f"{path}: {len(arrays)} tensors, {size:,} parameters ({', '.join(sorted(groups))})"


# ---- The three conversions ----------------------------------------------------------------------


def hf_to_tf(input_dir: str, output_dir: str, overwrite: bool = False) -> None:
  """Converts a Hugging Face model to configuration, vocabulary and TF1 checkpoint.

  Args:
    input_dir: folder with model.safetensors (or shards), config.json, vocab.txt.
    output_dir: folder for bert_config.json, vocab.txt, bert_model.ckpt.
    overwrite: whether files of these names may be replaced.

  Raises:
    UserError: a file is missing or damaged, or the model cannot be represented.
  """
  config_file = os.path.join(input_dir, "config.json")
  family, config = from_hf_config(config_file)
  name = family.checkpoint_name
  names = [family.config_name, "vocab.txt", *checkpoint_files(name)]
  check_new(output_dir, names, overwrite)
  vocab = _existing(input_dir, "vocab.txt")
  tensors = HFTensors(input_dir)
  actual = canonical_names(family, tensors)
  shapes = {canonical: tensors.shape(stored) for canonical, stored in actual.items()}
  found = match(expand(family, config), shapes, "hf", tensors.source, config_file, actual)
  arrays = {entry.tf_name: entry.convert(tensors.read(actual[entry.hf_name])) for entry in found}
  with staged(output_dir, names) as folder:
    records.write_json(os.path.join(folder, family.config_name), config.to_dict())
    tf.io.gfile.copy(vocab, os.path.join(folder, "vocab.txt"))
    write_checkpoint(os.path.join(folder, name), arrays)
    write_state(folder, name)
  groups = {entry.group for entry in found}
  print(_summary(os.path.join(output_dir, name), arrays, groups))
  if "pooler" not in groups:
    print("The model has no pooler: fine-tune it with --noinit_pooler")
  tokenizer_config = os.path.join(input_dir, "tokenizer_config.json")
  if tf.io.gfile.exists(tokenizer_config):
    if records.read_json(tokenizer_config).get("do_lower_case") is False:
      print(f"{tokenizer_config}: the model is cased; use it with --nouncased")


def tf_to_hf(input_dir: str, output_dir: str, overwrite: bool = False, checkpoint: str = "",
             uncased: bool = True) -> None:
  """Converts a TF1 checkpoint to a Hugging Face model.

  Args:
    input_dir: folder with bert_config.json, vocab.txt and a checkpoint.
    output_dir: folder for model.safetensors, config.json, vocab.txt, tokenizer_config.json.
    overwrite: whether files of these names may be replaced.
    checkpoint: prefix or folder of the checkpoint; input_dir's newest when empty.
    uncased: whether the model's text is lower-cased; tokenizer_config.json says so.

  Raises:
    UserError: a file is missing or damaged, or a variable has no place in the other form.
  """
  config_file = os.path.join(input_dir, (_present(input_dir, _CONFIG_NAMES) or _CONFIG_NAMES)[0])
  config = modeling.load_config(config_file)
  family = _family(getattr(config, "family", None), f"{config_file}: the model family")
  names = ["config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"]
  check_new(output_dir, names, overwrite)
  vocab = _existing(input_dir, "vocab.txt")
  tensors = TFTensors(checkpoint or input_dir)
  found = match(expand(family, config), tensors.shapes, "tf", tensors.source, config_file)
  groups = {entry.group for entry in found}
  arrays = {entry.hf_name: entry.convert(tensors.read(entry.tf_name).astype(np.float32, copy=False))
            for entry in found}
  hf_config = to_hf_config(family, config, arrays, groups)
  if groups - _CORE:
    arrays = {family.prefix * (entry.group in _CORE) + entry.hf_name: arrays[entry.hf_name]
              for entry in found}
  with staged(output_dir, names) as folder:
    records.write_json(os.path.join(folder, "config.json"), hf_config)
    tf.io.gfile.copy(vocab, os.path.join(folder, "vocab.txt"))
    records.write_json(os.path.join(folder, "tokenizer_config.json"), {
        "tokenizer_class": family.tokenizer_class, "do_lower_case": uncased,
        "model_max_length": config.max_position_embeddings})
    path = os.path.join(folder, "model.safetensors")
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})  # readers insist on it
    shutil.copymode(os.path.join(folder, "config.json"), path)  # not for the owner's eyes only
  print(_summary(os.path.join(output_dir, "model.safetensors"), arrays, groups))


def strip(input_dir: str, output_dir: str, overwrite: bool = False, checkpoint: str = "") -> None:
  """Copies a checkpoint without the optimizer's variables and the global step.

  The copy's name has no step (model.ckpt-1200 becomes model.ckpt): it is something to start from,
  not a training run to go on with. Configuration and vocabulary come along if they are there.

  Args:
    input_dir: folder with a checkpoint, and perhaps configuration and vocabulary.
    output_dir: folder for the copy.
    overwrite: whether files of the same names may be replaced.
    checkpoint: prefix or folder of the checkpoint; input_dir's newest when empty.

  Raises:
    UserError: there is no checkpoint, it is damaged, or files are there already.
  """
  tensors = TFTensors(checkpoint or input_dir)
  name = re.sub(r"-\d+$", "", os.path.basename(tensors.source))
  side_files = _present(input_dir, _CONFIG_NAMES + _VOCAB_NAMES)
  names = [*side_files, *checkpoint_files(name)]
  check_new(output_dir, names, overwrite)
  size_before = tensors.size()
  arrays = {variable: tensors.read(variable) for variable in tensors.shapes}
  with staged(output_dir, names) as folder:
    for side in side_files:
      tf.io.gfile.copy(os.path.join(input_dir, side), os.path.join(folder, side))
    write_checkpoint(os.path.join(folder, name), arrays)
    write_state(folder, name)
  target = os.path.join(output_dir, name)
  print(f"{target}: {len(arrays)} variables, {len(tensors.dropped)} dropped; "
        f"{size_before / 1e6:.1f} MB before, {checkpoint_size(target) / 1e6:.1f} MB after")


# ---- The script ---------------------------------------------------------------------------------


def define_flags() -> None:
  """Defines the script's flags."""
  flags.DEFINE_enum(
      "direction", None, DIRECTIONS, "what to do: Hugging Face to TensorFlow, TensorFlow to "
      "Hugging Face, or a TensorFlow checkpoint without what only training needs")
  flags.DEFINE_bool(
      "drop_optimizer", False, "leave out the moments of Adam and the global step: alone the same "
      "as --direction=strip; tf_to_hf does so in any case")
  flags.DEFINE_string(
      "input_dir", "", "folder to convert. Hugging Face: model.safetensors, config.json, "
      "vocab.txt. TensorFlow: bert_config.json, vocab.txt, bert_model.ckpt.*")
  flags.DEFINE_string("output_dir", "", "folder to write to; made where there is none")
  flags.DEFINE_string(
      "checkpoint", "", "TensorFlow checkpoint (prefix, or folder for its newest) to take instead "
      "of input_dir's newest, e.g. a fine-tuned one, whose configuration stands elsewhere")
  flags.DEFINE_bool("overwrite", False, "replace files that are in output_dir already")
  flags.DEFINE_bool("uncased", True, "tf_to_hf: the model's text is lower-cased; becomes "
                    "do_lower_case of tokenizer_config.json")
  flags.DEFINE_alias("do_lower_case", "uncased")


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
      raise UserError("--checkpoint names a TensorFlow checkpoint; --direction=hf_to_tf reads "
                      "model.safetensors of --input_dir")
    hf_to_tf(values.input_dir, values.output_dir, values.overwrite)
  elif direction == "tf_to_hf":
    tf_to_hf(values.input_dir, values.output_dir, values.overwrite, values.checkpoint,
             values.uncased)
  else:
    strip(values.input_dir, values.output_dir, values.overwrite, values.checkpoint)


if __name__ == "__main__":
  define_flags()
  runner.run_main(main)
