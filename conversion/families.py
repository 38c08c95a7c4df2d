"""What convert_checkpoint.py knows of the model families: names, shapes and keys, as data.

The tensors of a model are a table of `Entry`, made by `expand` from the rows below: each has a name
in TensorFlow, a name in Hugging Face's form, and a way from the one array to the other.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

import modeling
from errors import UserError
from models import bert, config_keys, funnel

# ---- How a layer is stored on either side -------------------------------------------------------

# The tensors of each kind of layer: suffix in TensorFlow, suffix in Hugging Face, how many of the
# layer's dimensions it has (None: all), and what becomes of it on the way, either way:
# "transposed", "negated", or nothing.
_KINDS = {
  "table": (("", ".weight", 2, ""),),
  "vector": (("", "", 1, ""),),
  "array": (("", "", None, ""),),
  "negated": (("", "", None, "negated"),),
  "norm": (("/gamma", ".weight", 1, ""), ("/beta", ".bias", 1, "")),
  "dense": (("/kernel", ".weight", 2, "transposed"), ("/bias", ".bias", 1, "")),
  "matrix": (("/kernel", ".weight", 2, "transposed"),),
  "logits": (("output_weights", ".weight", 2, ""), ("output_bias", ".bias", 1, "")),
}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One tensor: its two names, its shape in Hugging Face's order, and the way between the two.

  Example: the kernel of Funnel's queries, [M, N, D] in TensorFlow and [N * D, M] in Hugging Face:
    Entry("encoder", "model/encoder/layer_0/rel_attn/q/kernel",
          "encoder.blocks.0.0.attention.q_head.weight", ((12, 64), 768), "transposed")

  Attributes:
    group: the group of layers it belongs to.
    tf_name: name in TensorFlow.
    hf_name: name in Hugging Face, without the family's prefix.
    dims: sizes, or names that stand for any number. A tuple of sizes is one dimension in Hugging
      Face, their product, and as many dimensions in TensorFlow as it has members; () is a 1 there
      and nothing here.
    change: a word of `_KINDS`.
  """

  group: str
  tf_name: str
  hf_name: str
  dims: tuple
  change: str

  def name(self, side: str) -> str:
    return self.tf_name if side == "tf" else self.hf_name

  def shape(self, side: str) -> tuple:
    if side == "hf":
      return tuple(math.prod(n) if isinstance(n, tuple) else n for n in self.dims)
    ordered = self.dims[::-1] if self.change == "transposed" else self.dims
    return sum((n if isinstance(n, tuple) else (n,) for n in ordered), ())

  def convert(self, array: np.ndarray, to: str) -> np.ndarray:
    """The array of the other side as that of side `to`; aligned for TensorFlow."""
    if self.change == "negated":
      array = -array
    reshaped = any(isinstance(n, tuple) for n in self.dims)
    if to == "tf":
      array = array.T if self.change == "transposed" else array
      return aligned_copy(array.reshape(self.shape("tf")) if reshaped else array)
    if self.change == "transposed":
      return aligned_copy((array.reshape(self.shape("hf")[::-1]) if reshaped else array).T)
    return aligned_copy(array.reshape(self.shape("hf")) if reshaped else array)


def aligned_copy(array: np.ndarray) -> np.ndarray:
  """A C-ordered copy that begins where TensorFlow wants a tensor to begin.

  An array that begins elsewhere is copied when it is fed: for all weights at once, that would
  double the memory the script needs.
  """
  buffer = np.empty(array.nbytes + 64, np.uint8)
  start = -buffer.ctypes.data % 64
  copied = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
  np.copyto(copied, array)
  return copied


# ---- What the families have in common -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Family:
  """What the conversion knows of a model family.

  Attributes:
    model_type: its name in Hugging Face's config.json; the configuration class's `family`.
    checkpoint_name: name of the TensorFlow checkpoint.
    tokenizer_class: Hugging Face's tokenizer.
    max_length: configuration -> the longest input that the tokenizer may make.
    groups: (configuration, scope of the classifier) -> group -> rows (name in TensorFlow, in
      Hugging Face, kind, dimensions). A group is in a checkpoint as a whole or not at all.
    core: groups that are no head; "encoder" is in every checkpoint.
    prefix: what the names of core groups begin with in Hugging Face models with a head.
    aliases: (pattern, replacement) pairs that lead older Hugging Face names to today's.
    ignored: Hugging Face tensors that hold no weights.
    tied: Hugging Face tensors that must equal another, and so are not stored twice.
    not_converted: what the names of TensorFlow variables begin with that tf_to_hf leaves out.
    homeless: (pattern, reason) pairs for tensors of either side that have no place on the other.
    from_hf: (contents of config.json, file name) -> our configuration.
    to_hf: our configuration -> keys of config.json, with our hidden_act. UserError when the Hugging
      Face model cannot be like that.
    deviations: (configuration, groups) -> where the Hugging Face library computes something else.
    label_bias: Hugging Face tensor that has an element per label.
    architectures: groups -> Hugging Face class; the first whose groups are all there is written.
  """

  model_type: str
  checkpoint_name: str
  tokenizer_class: str
  max_length: Callable[[Any], int]
  groups: Callable[[Any, str], dict[str, list[tuple[str, str, str, tuple]]]]
  core: tuple[str, ...]
  prefix: str
  from_hf: Callable[[dict[str, Any], str], Any]
  to_hf: Callable[[Any], dict[str, Any]]
  label_bias: str
  architectures: tuple[tuple[tuple[str, ...], str], ...]
  aliases: tuple[tuple[str, str], ...] = ()
  ignored: tuple[str, ...] = ()
  tied: dict[str, str] = dataclasses.field(default_factory=dict)
  not_converted: tuple[str, ...] = ()
  homeless: tuple[tuple[str, str], ...] = ()
  deviations: Callable[[Any, set[str]], list[str]] = lambda config, groups: []


def expand(family: Family, config: Any, cls_scope: str = "") -> list[Entry]:
  """All tensors that a model of this configuration can have, heads included."""
  size = lambda n: getattr(config, n, n) if isinstance(n, str) else n
  entries = []
  for group, rows in family.groups(config, cls_scope).items():
    for tf_name, hf_name, kind, dims in rows:
      dims = tuple(tuple(map(size, n)) if isinstance(n, tuple) else size(n) for n in dims)
      for tf_suffix, hf_suffix, rank, change in _KINDS[kind]:
        entries.append(Entry(group, tf_name + tf_suffix, hf_name + hf_suffix, dims[:rank], change))
  return entries


# ---- BERT ---------------------------------------------------------------------------------------

# Columns: name in TensorFlow; in Hugging Face, without the family's prefix; kind; dimensions in
# Hugging Face's order: numbers, keys of the configuration, or names that stand for any number.
_BERT_ENCODER = (
  (
    "bert/embeddings/word_embeddings",
    "embeddings.word_embeddings",
    "table",
    ("vocab_size", "hidden_size"),
  ),
  (
    "bert/embeddings/token_type_embeddings",
    "embeddings.token_type_embeddings",
    "table",
    ("type_vocab_size", "hidden_size"),
  ),
  (
    "bert/embeddings/position_embeddings",
    "embeddings.position_embeddings",
    "table",
    ("max_position_embeddings", "hidden_size"),
  ),
  ("bert/embeddings/LayerNorm", "embeddings.LayerNorm", "norm", ("hidden_size",)),
  (
    "bert/encoder/layer_{i}/attention/self/query",
    "encoder.layer.{i}.attention.self.query",
    "dense",
    ("hidden_size", "hidden_size"),
  ),
  (
    "bert/encoder/layer_{i}/attention/self/key",
    "encoder.layer.{i}.attention.self.key",
    "dense",
    ("hidden_size", "hidden_size"),
  ),
  (
    "bert/encoder/layer_{i}/attention/self/value",
    "encoder.layer.{i}.attention.self.value",
    "dense",
    ("hidden_size", "hidden_size"),
  ),
  (
    "bert/encoder/layer_{i}/attention/output/dense",
    "encoder.layer.{i}.attention.output.dense",
    "dense",
    ("hidden_size", "hidden_size"),
  ),
  (
    "bert/encoder/layer_{i}/attention/output/LayerNorm",
    "encoder.layer.{i}.attention.output.LayerNorm",
    "norm",
    ("hidden_size",),
  ),
  (
    "bert/encoder/layer_{i}/intermediate/dense",
    "encoder.layer.{i}.intermediate.dense",
    "dense",
    ("intermediate_size", "hidden_size"),
  ),
  (
    "bert/encoder/layer_{i}/output/dense",
    "encoder.layer.{i}.output.dense",
    "dense",
    ("hidden_size", "intermediate_size"),
  ),
  (
    "bert/encoder/layer_{i}/output/LayerNorm",
    "encoder.layer.{i}.output.LayerNorm",
    "norm",
    ("hidden_size",),
  ),
)
_BERT_GROUPS = {
  "encoder": _BERT_ENCODER,
  "pooler": (("bert/pooler/dense", "pooler.dense", "dense", ("hidden_size", "hidden_size")),),
  "masked_lm": (
    (
      "cls/predictions/transform/dense",
      "cls.predictions.transform.dense",
      "dense",
      ("hidden_size", "hidden_size"),
    ),
    (
      "cls/predictions/transform/LayerNorm",
      "cls.predictions.transform.LayerNorm",
      "norm",
      ("hidden_size",),
    ),
    ("cls/predictions/output_bias", "cls.predictions.bias", "vector", ("vocab_size",)),
  ),
  "next_sentence": (
    ("cls/seq_relationship/", "cls.seq_relationship", "logits", (2, "hidden_size")),
  ),
  "classifier": (("", "classifier", "logits", ("num_labels", "hidden_size")),),
  "question_answering": (("cls/squad/", "qa_outputs", "logits", (2, "hidden_size")),),
}


def _bert_groups(config, cls_scope):
  """The rows above, those with "{i}" once per layer; the classifier's variables have no scope."""
  del cls_scope
  return {
    group: [
      (tf_name.format(i=i), hf_name.format(i=i), kind, dims)
      for tf_name, hf_name, kind, dims in rows
      for i in range(config.num_hidden_layers if "{i}" in tf_name else 1)
    ]
    for group, rows in _BERT_GROUPS.items()
  }


BERT = Family(
  model_type="bert",
  checkpoint_name="bert_model.ckpt",
  tokenizer_class="BertTokenizer",
  max_length=lambda config: config.max_position_embeddings,
  groups=_bert_groups,
  core=("encoder", "pooler"),
  prefix="bert.",
  aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
  ignored=("embeddings.position_ids",),
  tied={
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
  },
  from_hf=lambda values, path: modeling.BertConfig.from_dict(
    {**values, "model_type": "bert"}, source=path
  ),
  to_hf=lambda config: {
    **config.to_dict(),
    "layer_norm_eps": bert.LAYER_NORM_EPSILON,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
  },
  label_bias="classifier.bias",
  architectures=(
    (("masked_lm", "next_sentence"), "BertForPreTraining"),
    (("masked_lm",), "BertForMaskedLM"),
    (("next_sentence",), "BertForNextSentencePrediction"),
    (("classifier",), "BertForSequenceClassification"),
    (("question_answering",), "BertForQuestionAnswering"),
    ((), "BertModel"),
  ),
)


# ---- Funnel-Transformer -------------------------------------------------------------------------

_HEADS = ("n_head", "d_head")  # one dimension in Hugging Face, two in TensorFlow

_FUNNEL_INPUT = (
  (
    "model/input/word_embedding/lookup_table",
    "embeddings.word_embeddings",
    "table",
    ("vocab_size", "d_model"),
  ),
  ("model/input/layer_norm", "embeddings.layer_norm", "norm", ("d_model",)),
)
_FUNNEL_LAYER = (  # names within the layer
  ("rel_attn/q", "attention.q_head", "matrix", (_HEADS, "d_model")),
  ("rel_attn/k", "attention.k_head", "dense", (_HEADS, "d_model")),
  ("rel_attn/v", "attention.v_head", "dense", (_HEADS, "d_model")),
  ("rel_attn/o", "attention.post_proj", "dense", ("d_model", _HEADS)),
  ("rel_attn/r/kernel", "attention.r_kernel", "array", ("d_model", "n_head", "d_head")),
  ("rel_attn/r_w_bias", "attention.r_w_bias", "array", ("n_head", "d_head")),
  ("rel_attn/r_r_bias", "attention.r_r_bias", "array", ("n_head", "d_head")),
  ("rel_attn/r_s_bias", "attention.r_s_bias", "array", ("n_head", "d_head")),
  ("rel_attn/seg_embed", "attention.seg_embed", "array", (2, "n_head", "d_head")),
  ("rel_attn/layer_norm", "attention.layer_norm", "norm", ("d_model",)),
  ("ff/layer_1", "ffn.linear_1", "dense", ("d_inner", "d_model")),
  ("ff/layer_2", "ffn.linear_2", "dense", ("d_model", "d_inner")),
  ("ff/layer_norm", "ffn.layer_norm", "norm", ("d_model",)),
)
_FUNNEL_CLASSIFIER = (
  ("model/sequnece_summary/summary", "classifier.linear_hidden", "dense", ("d_model", "d_model")),
  ("model/{scope}/logit", "classifier.linear_out", "dense", ("num_labels", "d_model")),
)
# Its logit says that a token is the original here, and that it was replaced there.
_FUNNEL_DISCRIMINATOR = (
  ("model/binary_proj/dense", "discriminator_predictions.dense", "dense", ("d_model", "d_model")),
  (
    "model/binary_loss/weight",
    "discriminator_predictions.dense_prediction.weight",
    "negated",
    ((), "d_model"),
  ),
  ("model/binary_loss/bias", "discriminator_predictions.dense_prediction.bias", "negated", (1,)),
)
_FUNNEL_KEYS = {  # of net_config.json -> of config.json, where the value is the same
  "vocab_size": "vocab_size",
  "d_model": "d_model",
  "n_head": "n_head",
  "d_head": "d_head",
  "d_inner": "d_inner",
  "dropout": "hidden_dropout",
  "dropatt": "attention_dropout",
  "dropact": "activation_dropout",
  "ff_activation": "hidden_act",
  "pooling_type": "pooling_type",
  "pool_q_only": "pool_q_only",
  "separate_cls": "separate_cls",
  "init_range": "initializer_range",
  "init_std": "initializer_std",
}
_FUNNEL_ATTENTION = {"rel_shift": "relative_shift", "factorized": "factorized"}
_FUNNEL_DEFAULTS = {  # of config.json
  "vocab_size": 30522,
  "block_sizes": [4, 4, 4],
  "block_repeats": None,
  "num_decoder_layers": 2,
  "d_model": 768,
  "n_head": 12,
  "d_head": 64,
  "d_inner": 3072,
  "hidden_act": "gelu_new",
  "hidden_dropout": 0.1,
  "attention_dropout": 0.1,
  "activation_dropout": 0.0,
  "initializer_range": 0.1,
  "initializer_std": None,
  "pooling_type": "mean",
  "attention_type": "relative_shift",
  "separate_cls": True,
  "truncate_seq": True,
  "pool_q_only": True,
}


def _funnel_groups(config, cls_scope):
  """All rows. TensorFlow counts all layers through, Hugging Face those of a block or decoder."""
  places = [
    f"encoder.blocks.{block}.{layer}"
    for block, (count, _) in enumerate(config.blocks)
    for layer in range(count)
  ]
  depth = len(places)
  places += [f"decoder.layers.{layer}" for layer in range(config.decoder[0])]
  layers = {"encoder": [*_FUNNEL_INPUT], "decoder": []}
  for i, place in enumerate(places):
    part = "encoder" if i < depth else "decoder"
    layers[part] += [
      (f"model/{part}/layer_{i}/{tf_name}", f"{place}.{hf_name}", kind, dims)
      for tf_name, hf_name, kind, dims in _FUNNEL_LAYER
    ]
  heads = {
    "classifier": [
      (tf_name.format(scope=cls_scope), *rest) for tf_name, *rest in _FUNNEL_CLASSIFIER
    ]
  }
  if config.ff_activation == "gelu":
    heads["discriminator"] = [*_FUNNEL_DISCRIMINATOR]
  return {**layers, **heads}


def _funnel_from_hf(values, source):
  """The configuration; decoder_size is "0" for a single block, which has nothing to decode."""
  values = config_keys.hugging_face_values(
    {**values, "model_type": "funnel"}, _FUNNEL_DEFAULTS, config_keys.FUNNEL_FIXED, source
  )
  sizes, repeats = values["block_sizes"], values["block_repeats"]
  if repeats is None and isinstance(sizes, list):
    repeats = [1] * len(sizes)
  if not isinstance(sizes, list) or not isinstance(repeats, list) or len(sizes) != len(repeats):
    raise UserError(
      f"{source}: block_sizes is {sizes!r}, block_repeats {repeats!r}; they must be "
      f"lists of the same length"
    )
  attention = {theirs: ours for ours, theirs in _FUNNEL_ATTENTION.items()}
  if values["attention_type"] not in attention:
    raise UserError(
      f"{source}: attention_type {values['attention_type']!r} cannot be represented "
      f"here; known are {', '.join(attention)}"
    )
  ours = {name: values[theirs] for name, theirs in _FUNNEL_KEYS.items()}
  if ours["init_std"] is None:  # drawn by the width of the layer; there is nothing like it here
    del ours["init_std"]
  config = modeling.ModelConfig.from_dict(
    dict(
      ours,
      d_embed=ours["d_model"],
      rel_attn_type=attention[values["attention_type"]],
      block_size="_".join(
        f"{size}x{repeat}" if repeat != 1 else str(size)
        for size, repeat in zip(sizes, repeats, strict=True)
      ),
      decoder_size=str(values["num_decoder_layers"]) if len(sizes) > 1 else "0",
    ),
    source=source,
  )
  return dataclasses.replace(config, truncate_seq=values["truncate_seq"])


def _funnel_to_hf(config):
  for key, fits, only in (
    ("d_embed", config.d_embed == config.d_model, f"d_model, {config.d_model}"),
    ("pooling_size", config.pooling_size == 2, "2"),
    ("rel_attn_type", config.rel_attn_type in _FUNNEL_ATTENTION, " or ".join(_FUNNEL_ATTENTION)),
    ("decoder_size", config.decoder[1] == 1, "without repetitions"),
  ):
    if not fits:
      raise UserError(
        f"net_config.json: {key} is {getattr(config, key)!r}; Hugging Face's Funnel "
        f"models cannot represent that, there it is always {only}"
      )
  return {
    **{theirs: getattr(config, name) for name, theirs in _FUNNEL_KEYS.items()},
    "block_sizes": [count for count, _ in config.blocks],
    "block_repeats": [repeat for _, repeat in config.blocks],
    "num_decoder_layers": config.decoder[0],
    "attention_type": _FUNNEL_ATTENTION[config.rel_attn_type],
    "truncate_seq": config.truncate_seq,
    "layer_norm_eps": funnel.LAYER_NORM_EPSILON,
  }


def _funnel_deviations(config, groups):
  """As of transformers 5.23; see also the head of convert_checkpoint.py."""
  found = []
  if not config.separate_cls:
    found.append(
      "with separate_cls false, the first token's place and segment have a part in its "
      "attention there, and have none here"
    )
  if "decoder" in groups and config.blocks[0][1] > 1:
    found.append(
      "the first block applies each layer more than once, and the decoder there adds "
      "the output of a layer in its midst, the one here that of its last"
    )
  return found


FUNNEL = Family(
  model_type="funnel",
  checkpoint_name="model.ckpt",
  tokenizer_class="FunnelTokenizer",
  max_length=lambda config: 512,  # of pretraining; the positions have no bound
  groups=_funnel_groups,
  core=("encoder", "decoder"),
  prefix="funnel.",
  not_converted=("generator/",),
  homeless=(
    (
      r"^(lm_head|qa_outputs|classifier)\.",
      "a head that differs from the one here; convert "
      "FunnelModel, FunnelBaseModel, or their ForSequenceClassification or ForPreTraining",
    ),
    (
      r"^model/(lm_|start_logits/|end_logits/|answer_class/|race/)",
      "a head that Hugging "
      "Face's models do not have; --direction=core_only copies a checkpoint without its heads",
    ),
    (
      r"^(discriminator_predictions\.|model/binary_)",
      "its hidden layer has the tanh form of "
      "GELU here, and the model's own activation there: only hidden_act gelu_new (ff_activation "
      "gelu) makes them equal",
    ),
    (
      r"^decoder\.layers\.",
      "config.json has too few num_decoder_layers, or there is a single "
      "block, which has no decoder here",
    ),
  ),
  from_hf=_funnel_from_hf,
  to_hf=_funnel_to_hf,
  deviations=_funnel_deviations,
  label_bias="classifier.linear_out.bias",
  architectures=(
    (("classifier",), "FunnelForSequenceClassification"),
    (("discriminator",), "FunnelForPreTraining"),
    (("decoder",), "FunnelModel"),
    ((), "FunnelBaseModel"),
  ),
)

FAMILIES = {family.model_type: family for family in (BERT, FUNNEL)}


# ---- Labels -------------------------------------------------------------------------------------


def labels_tokens(values: dict[str, Any]) -> bool:
  """Returns True if the classifier of a config.json labels tokens; its tensors do not tell."""
  return any("ForTokenClassification" in name for name in values.get("architectures") or ())


def label_list(values: dict[str, Any], num_labels: int, source: str) -> list[str] | None:
  """Returns the labels of a config.json (id2label) by id; None if it has none but LABEL_0, ...

  Raises:
    UserError: there is not one name for each of the classifier's `num_labels`.
  """
  names = {i: str(name) for i, name in (values.get("id2label") or {}).items()}
  if all(name == f"LABEL_{i}" for i, name in names.items()):
    return None
  ids = [str(i) for i in range(num_labels)]
  if names.keys() != set(ids) or len(set(names.values())) < num_labels:
    raise UserError(
      f"{source}: id2label is {names}, but the classifier has {num_labels} labels; "
      f"give each of 0 to {num_labels - 1} a name of its own, or remove id2label"
    )
  return [names[i] for i in ids]


def id2label(names: list[str] | None, num_labels: int, source: str) -> dict[str, dict]:
  """Returns id2label and label2id of config.json; LABEL_0, ... are the names if there are none.

  Raises:
    UserError: there is not one name for each of the classifier's `num_labels`.
  """
  names = names or [f"LABEL_{i}" for i in range(num_labels)]
  if len(names) != num_labels:
    raise UserError(
      f"{source}: the labels are {', '.join(names)}, but the classifier has "
      f"{num_labels}; are they those of this checkpoint?"
    )
  return {
    "id2label": {str(i): name for i, name in enumerate(names)},
    "label2id": {name: i for i, name in enumerate(names)},
  }


# ---- TensorFlow's variables ---------------------------------------------------------------------

OPTIMIZER = re.compile(  # ours and the originals' (adam_m), tf.train.AdamOptimizer's (Adam)
  r"(/adam_[mv]|/Adam(_1)?|(^|/)beta[12]_power(_\d+)?|^global_step)$"
)
CORE = re.compile(r"^(bert|model/(input|encoder|decoder))/")
CLASSIFIER = re.compile(r"^model/(.+)/logit/kernel$")

# Checkpoints from before Funnel-Transformer's release: (pattern, replacement).
_OLD_NAMES = (
  (r"(^|/)transformer_xl/", r"\1encoder/"),
  (r"^(model|generator)/(layer_\d+/)", r"\1/decoder/\2"),
)


def released_name(name: str) -> str:
  """The variable's name in the released checkpoints."""
  for pattern, replacement in _OLD_NAMES:
    name = re.sub(pattern, replacement, name)
  return name
