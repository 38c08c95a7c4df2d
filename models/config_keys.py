"""Configuration files of models: reading them, and checking keys that other programs write.

bert_config.json and net_config.json may have keys that the models here do not read. A key that does
not change the model is ignored and logged. A key that changes the model is accepted if its value is
the supported one, otherwise rejected by name.
"""

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Callable, Set
from typing import Any, TypeVar

from errors import UserError
from utils import files
from utils.options import Range, brief

log = logging.getLogger(__name__)

_Config = TypeVar("_Config")

MAX_VOCAB = 1 << 24
MAX_LAYERS = 1000

# A file with any of these keys is Hugging Face's; some of its values have other meanings.
_HUGGING_FACE_KEYS = {"model_type", "architectures", "transformers_version"}

# Shapes of its keys that choose the family and the labels.
_HUGGING_FACE_SHAPES = {"model_type": str, "architectures": [str], "id2label": dict}

# Names of the functions in models.layers.ACTIVATIONS, for checks that need no TensorFlow.
ACTIVATIONS = ("gelu", "gelu_erf", "linear", "relu", "tanh")

# Hugging Face's hidden_act -> activation here. If several are equal, the first one is written.
HUGGING_FACE_ACTIVATIONS = {
  "gelu": "gelu_erf",
  "gelu_new": "gelu",
  "gelu_pytorch_tanh": "gelu",
  "gelu_fast": "gelu",
  "relu": "relu",
  "tanh": "tanh",
  "linear": "linear",
}

# Keys of Model Garden's BERT encoder -> keys here. Its "gelu" is the tanh form, as here.
MODEL_GARDEN_NAMES = {
  "num_layers": "num_hidden_layers",
  "hidden_activation": "hidden_act",
  "dropout_rate": "hidden_dropout_prob",
  "attention_dropout_rate": "attention_probs_dropout_prob",
}

# Key -> supported values; null is always supported.
_FIXED = {
  "auto_map": ({},),  # classes in code that comes with the checkpoint
  "is_encoder_decoder": (False,),
  "norm_first": (False,),
  "output_range": (None,),
  "pruned_heads": ({},),
  "quantization_config": ({},),
}
BERT_FIXED = _FIXED | {
  "add_cross_attention": (False,),
  "is_decoder": (False,),
  "layer_norm_eps": (1e-12,),
  "position_embedding_type": ("absolute",),
  "tie_word_embeddings": (True,),
}
FUNNEL_FIXED = _FIXED | {
  "model_type": ("funnel",),
  "layer_norm_eps": (1e-8, 1e-9),
}  # the difference is far below any variance they are added to

# Keys that do not change the model.
_IGNORED = frozenset(
  """
    directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers
    pooler_size_per_head pooler_type

    backward_compatible return_all_encoder_outputs return_attention_scores

    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels
    architectures attn_implementation bos_token_id chunk_size_feed_forward cls_token_id
    decoder_start_token_id dtype eos_token_id finetuning_task gradient_checkpointing id2label
    label2id language mask_token_id max_length name num_labels output_attentions
    output_hidden_states output_past pad_token_id prefix problem_type return_dict sep_token_id
    summary_activation summary_first_dropout summary_last_dropout summary_proj_to_labels
    summary_type summary_use_proj task_specific_params tokenizer_class torch_dtype torchscript
    transformers_version use_bfloat16 use_cache use_return_dict xla_device""".split()
)


def read_json(json_file: str) -> dict[str, Any]:
  """Reads a configuration file.

  Raises:
    UserError: the file is missing, is not valid JSON, or contains no JSON object.
  """
  json_file = os.fspath(json_file)
  if not files.exists(json_file):
    raise UserError(f"{json_file}: no such file (a model configuration is expected there)")
  values = files.read_json(json_file)
  files.check_shapes(values, _HUGGING_FACE_SHAPES, json_file)
  return values


def number(kind: type, default: Any = dataclasses.MISSING, **ends: float) -> Any:
  """Dataclass field of a configuration's number; `ends` are those of utils.options.Range."""
  return dataclasses.field(default=default, metadata={"kind": kind, "range": Range(kind, **ends)})


def size(default: Any = dataclasses.MISSING, upper: int = 1 << 20) -> Any:
  """Dataclass field of a configuration's size: a positive integer."""
  return number(int, default, lower=1, upper=upper)


def dropout(default: float) -> Any:
  """Dataclass field of a dropout probability."""
  return number(float, default, lower=0, below=1)


def choice(default: str, names: tuple[str, ...]) -> Any:
  """Dataclass field of a configuration's name that is one of several."""
  return dataclasses.field(default=default, metadata={"choices": names})


def check_values(config: Any) -> None:
  """Checks the values of a configuration's fields.

  Args:
    config: object of a dataclass whose fields are made by the functions above.

  Raises:
    UserError: a value is of another type, or out of range; the message begins with the key.
  """
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    choices = field.metadata.get("choices")
    if choices and value not in choices:
      raise UserError(f"{field.name} {brief(value)} is unknown; use one of {', '.join(choices)}")
    if field.type is bool and not isinstance(value, bool):
      raise UserError(f"{field.name} is {brief(value)}, which is not true or false")
    if "range" in field.metadata and (value is not None or field.default is not None):
      try:
        field.metadata["range"].check(value)
      except ValueError as error:
        raise UserError(f"{field.name} is {brief(value)}, which {error}") from None


def build(kind: Callable[..., _Config], values: dict[str, Any], source: str) -> _Config:
  """Returns a configuration of these values; `kind` is its class, or a function.

  Raises:
    UserError: a value is wrong; the message begins with `source`, which is the file.
  """
  try:
    return kind(**values)
  except UserError as error:
    raise UserError(f"{source}: {error}") from None


def is_hugging_face(values: dict[str, Any]) -> bool:
  """Returns whether a configuration is in the form of Hugging Face's config.json."""
  return not _HUGGING_FACE_KEYS.isdisjoint(values)


def hugging_face_type(values: dict[str, Any]) -> str | None:
  """The model_type of a Hugging Face configuration, deduced from other keys if it is missing."""
  if values.get("model_type"):
    return values["model_type"]
  for architecture in values.get("architectures") or ():
    family = re.match(r"(Bert|Electra|Funnel)(?=Model|Base|For|LMHead)", str(architecture))
    return family[1].lower() if family else architecture
  return "funnel" if "block_sizes" in values else "bert" if "hidden_size" in values else None


def own_values(
  values: dict[str, Any], own: Set[str], fixed: dict[str, tuple], source: str
) -> dict[str, Any]:
  """Returns the values of the keys that a configuration here has, after checking the others.

  Args:
    values: contents of the file.
    own: keys to return.
    fixed: key -> supported values, BERT_FIXED or FUNNEL_FIXED.
    source: the file, for messages.

  Raises:
    UserError: a key of `fixed` has another value, or a key is unknown. Unknown keys in a file of
      Hugging Face's are ignored, because Hugging Face's models ignore them too.
  """
  for key, supported in fixed.items():
    if values.get(key) is not None and values[key] not in supported:
      raise UserError(
        f"{source}: {key} is {brief(values[key])}, but only {' or '.join(map(repr, supported))} is "
        f"supported"
      )
  others = sorted(values.keys() - own - fixed.keys())
  unknown = [key for key in others if key not in _IGNORED]
  if unknown and not is_hugging_face(values):
    raise UserError(
      f"{source}: unknown keys {', '.join(unknown)}; the keys are "
      f"{', '.join(sorted(own))}. Remove a key from the file if it does not change "
      f"the model"
    )
  if others:
    _log_once(f"{source}: ignored {', '.join(others)}; these keys do not change the model")
  return {key: value for key, value in values.items() if key in own}


def hugging_face_values(
  values: dict[str, Any], defaults: dict[str, Any], fixed: dict[str, tuple], source: str
) -> dict[str, Any]:
  """Returns the values of a Hugging Face configuration, with hidden_act renamed as here.

  Args:
    values: contents of config.json.
    defaults: key to return -> Hugging Face's default.
    fixed: as in own_values.
    source: the file, for messages.

  Raises:
    UserError: as in own_values, or the activation is not supported.
  """
  known = {**defaults, **own_values(values, defaults.keys(), fixed, source)}
  hf_name = known["hidden_act"]
  if str(hf_name) not in HUGGING_FACE_ACTIVATIONS:
    raise UserError(
      f"{source}: hidden_act {brief(hf_name)} is not supported; use one of "
      f"{', '.join(HUGGING_FACE_ACTIVATIONS)}"
    )
  known["hidden_act"] = HUGGING_FACE_ACTIVATIONS[hf_name]
  if known["hidden_act"] != hf_name:
    _log_once(f"{source}: Hugging Face's hidden_act {hf_name} is {known['hidden_act']} here")
  return known


def hugging_face_activation(name: str) -> str:
  """Returns Hugging Face's hidden_act of an activation here."""
  return next(theirs for theirs, ours in HUGGING_FACE_ACTIVATIONS.items() if ours == name)


def rename_model_garden_keys(values: dict[str, Any], source: str) -> dict[str, Any]:
  """Returns a BERT configuration with Model Garden's keys renamed to those of bert_config.json.

  Raises:
    UserError: a key is present under both names, with different values.
  """
  renamed = {}
  for key, value in values.items():
    name = MODEL_GARDEN_NAMES.get(key, key)
    if renamed.setdefault(name, value) != value:
      raise UserError(
        f"{source}: {key} and another key for {name} have different values, "
        f"{brief(value)} and {brief(renamed[name])}; remove one of them"
      )
  return renamed


@functools.cache
def _log_once(message):
  log.info("%s", message)  # programs read a configuration more than once
