"""Tables of the model families that can be converted: tensors, configuration, classes.

`expand` turns the rows of conversion/bert.py, electra.py or funnel.py into `Entry` objects, one per
tensor: its name in TensorFlow, its name in Hugging Face, and the change between the two arrays.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from conversion import bert, electra, funnel

# ---- Tensors of a layer -------------------------------------------------------------------------

# Kind of layer -> its tensors: (suffix in TensorFlow, suffix in Hugging Face, number of leading
# dimensions of the row (None: all), change in either direction: "transposed", "negated" or "").
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
  """One tensor: its two names, its shape in Hugging Face's order, and the change between the two.

  Example: the kernel of Funnel's queries, [M, N, D] in TensorFlow and [N * D, M] in Hugging Face:
    Entry("encoder", "model/encoder/layer_0/rel_attn/q/kernel",
          "encoder.blocks.0.0.attention.q_head.weight", ((12, 64), 768), "transposed")

  Attributes:
    group: name of its group, e.g. "encoder".
    tf_name: name in TensorFlow.
    hf_name: name in Hugging Face, without the family's prefix.
    dims: sizes, or symbolic sizes such as "num_labels". A tuple of sizes is a single dimension in
      Hugging Face (their product) and separate dimensions in TensorFlow; () is a dimension of 1 in
      Hugging Face and none in TensorFlow.
    change: "transposed", "negated" or "".
  """

  group: str
  tf_name: str
  hf_name: str
  dims: tuple
  change: str

  def name(self, side: str) -> str:
    """Name on `side`, "tf" or "hf"."""
    return self.tf_name if side == "tf" else self.hf_name

  def shape(self, side: str) -> tuple:
    """Shape on `side`, "tf" or "hf"; symbolic sizes are strings."""
    if side == "hf":
      return tuple(math.prod(n) if isinstance(n, tuple) else n for n in self.dims)
    ordered = self.dims[::-1] if self.change == "transposed" else self.dims
    return sum((n if isinstance(n, tuple) else (n,) for n in ordered), ())

  def convert(self, array: np.ndarray, to: str) -> np.ndarray:
    """Converts the other side's array to side `to`, "tf" or "hf"; a copy aligned to 64 bytes."""
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
  """Returns a C-ordered copy that is aligned to 64 bytes, as TensorFlow's tensors are.

  TensorFlow copies unaligned arrays that are fed. With all weights fed at once, that would double
  the script's memory.
  """
  buffer = np.empty(array.nbytes + 64, np.uint8)
  start = -buffer.ctypes.data % 64
  copied = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
  np.copyto(copied, array)
  return copied


# ---- Family -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Family:
  """A model family: its tensors, its configuration and its Hugging Face classes.

  Attributes:
    model_type: its name in Hugging Face's config.json; the configuration class's `family`.
    checkpoint_name: name of the TensorFlow checkpoint.
    tokenizer_class: Hugging Face's tokenizer.
    max_length: configuration -> the longest input of the tokenizer, in tokens.
    groups: (configuration, scope of the classifier) -> group -> rows (name in TensorFlow, in
      Hugging Face, kind, dimensions). A checkpoint has all tensors of a group or none.
    core: groups that are not heads; every checkpoint has "encoder".
    prefix: prefix of the names of core groups in Hugging Face models with a head.
    aliases: (pattern, replacement) pairs that turn older Hugging Face names into today's.
    ignored: Hugging Face tensors that are not weights.
    tied: Hugging Face tensor -> the tensor that it must equal; only the latter is converted.
    not_converted: prefixes of the TensorFlow variables that tf_to_hf leaves out.
    unsupported: (pattern, reason) of tensors of either side that cannot be converted.
    from_hf: (contents of config.json, file name) -> our configuration.
    to_hf: our configuration -> keys of config.json, with our hidden_act. UserError if Hugging Face
      cannot represent the configuration.
    deviations: (configuration, groups) -> differences from the Hugging Face library's computation.
    label_bias: Hugging Face tensor with one element per label.
    architectures: (groups, Hugging Face class) pairs; the first whose groups all exist is written.
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
  unsupported: tuple[tuple[str, str], ...] = ()
  deviations: Callable[[Any, set[str]], list[str]] = lambda config, groups: []


def expand(family: Family, config: Any, cls_scope: str = "") -> list[Entry]:
  """Returns all tensors that a model of this configuration can have, heads included."""
  size = lambda n: getattr(config, n, n) if isinstance(n, str) else n
  entries = []
  for group, rows in family.groups(config, cls_scope).items():
    for tf_name, hf_name, kind, dims in rows:
      dims = tuple(tuple(map(size, n)) if isinstance(n, tuple) else size(n) for n in dims)
      for tf_suffix, hf_suffix, rank, change in _KINDS[kind]:
        entries.append(Entry(group, tf_name + tf_suffix, hf_name + hf_suffix, dims[:rank], change))
  return entries


# ---- The families -------------------------------------------------------------------------------

BERT = Family(
  model_type="bert",
  checkpoint_name="bert_model.ckpt",
  tokenizer_class="BertTokenizer",
  max_length=lambda config: config.max_position_embeddings,
  groups=bert.groups,
  core=("encoder", "pooler"),
  prefix="bert.",
  aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
  ignored=("embeddings.position_ids",),
  tied={
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
  },
  unsupported=((r"^bert/embeddings_project/", "Hugging Face's BERT has no embedding_size"),),
  from_hf=bert.from_hf,
  to_hf=bert.to_hf,
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

ELECTRA = Family(
  model_type="electra",
  checkpoint_name="electra_model.ckpt",
  tokenizer_class="ElectraTokenizer",
  max_length=lambda config: config.max_position_embeddings,
  groups=electra.groups,
  core=("encoder",),
  prefix="electra.",
  aliases=BERT.aliases,
  ignored=BERT.ignored,
  tied={"generator_lm_head.weight": "embeddings.word_embeddings.weight"},
  not_converted=("generator/", "generator_predictions/"),
  unsupported=(
    (
      r"^sequence_summary\.",
      "the head of multiple choice differs from the one here; convert ElectraModel",
    ),
    (
      r"^task_specific/",
      "the original's fine-tuned heads differ from those here; --direction=core_only copies a "
      "checkpoint without its heads",
    ),
  ),
  from_hf=electra.from_hf,
  to_hf=electra.to_hf,
  deviations=electra.deviations,
  label_bias="classifier.out_proj.bias",
  architectures=(
    (("classifier",), "ElectraForSequenceClassification"),
    (("question_answering",), "ElectraForQuestionAnswering"),
    (("discriminator",), "ElectraForPreTraining"),
    (("masked_lm",), "ElectraForMaskedLM"),
    ((), "ElectraModel"),
  ),
)

FUNNEL = Family(
  model_type="funnel",
  checkpoint_name="model.ckpt",
  tokenizer_class="FunnelTokenizer",
  max_length=lambda config: 512,  # length in pretraining; relative positions have no limit
  groups=funnel.groups,
  core=("encoder", "decoder"),
  prefix="funnel.",
  not_converted=("generator/",),
  unsupported=(
    (
      r"^(lm_head|qa_outputs|classifier)\.",
      "a head that differs from the one here; convert "
      "FunnelModel, FunnelBaseModel, or their ForSequenceClassification or ForPreTraining",
    ),
    (
      r"^model/(lm_|start_logits/|end_logits/|answer_class/|race/)",
      "Hugging Face's models have no such head; --direction=core_only copies a checkpoint without "
      "its heads",
    ),
    (
      r"^(discriminator_predictions\.|model/binary_)",
      "its hidden layer uses the tanh form of GELU here, and the model's activation in Hugging "
      "Face: they are equal only with hidden_act gelu_new (ff_activation gelu)",
    ),
    (
      r"^decoder\.layers\.",
      "config.json has too few num_decoder_layers, or the model has a single block and so no "
      "decoder here",
    ),
  ),
  from_hf=funnel.from_hf,
  to_hf=funnel.to_hf,
  deviations=funnel.deviations,
  label_bias="classifier.linear_out.bias",
  architectures=(
    (("classifier",), "FunnelForSequenceClassification"),
    (("discriminator",), "FunnelForPreTraining"),
    (("decoder",), "FunnelModel"),
    ((), "FunnelBaseModel"),
  ),
)

FAMILIES = {family.model_type: family for family in (BERT, ELECTRA, FUNNEL)}
