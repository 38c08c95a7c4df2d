"""Public interface of the models.

  import modeling
  config = modeling.BertConfig.from_json_file("pretrained/bert_config.json")
  model = modeling.BertModel(config, is_training=False, input_ids=input_ids, input_mask=input_mask)
  model.get_sequence_output()

  net_config = modeling.ModelConfig.init_from_json("configs/models/B4-4-4H768.json")
  model = modeling.FunnelTFM(net_config)
  summary, _ = model.get_pooled_output(inputs, is_training, seg_id=seg_id, input_mask=input_mask)

Functions for programs built on google-research/bert are in models/compat.py, the encoders of the
tasks in models/encoders.py.
"""

import logging
import os
import re
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from errors import UserError
from models import config_keys
from models.bert import BertConfig, BertModel
from models.compat import (
  assert_rank,
  attention_layer,
  create_attention_mask_from_input_mask,
  create_initializer,
  dropout,
  embedding_lookup,
  embedding_postprocessor,
  gelu,
  get_activation,
  get_shape_list,
  layer_norm,
  layer_norm_and_dropout,
  reshape_from_matrix,
  reshape_to_matrix,
  transformer_model,
)
from models.electra import ElectraConfig
from models.encoders import (
  BertEncoder,
  Config,
  ElectraEncoder,
  Encoder,
  FunnelEncoder,
  build_encoder,
)
from models.funnel import FunnelTFM
from models.funnel_config import ModelConfig

__all__ = [
  "BertConfig",
  "BertEncoder",
  "BertModel",
  "Config",
  "ElectraConfig",
  "ElectraEncoder",
  "Encoder",
  "FunnelEncoder",
  "FunnelTFM",
  "ModelConfig",
  "RELEASED_FUNNELS",
  "assert_rank",
  "attention_layer",
  "build_encoder",
  "create_attention_mask_from_input_mask",
  "create_initializer",
  "dropout",
  "embedding_lookup",
  "embedding_postprocessor",
  "gelu",
  "get_activation",
  "get_assignment_map_from_checkpoint",
  "get_shape_list",
  "layer_norm",
  "layer_norm_and_dropout",
  "load_config",
  "released_funnel",
  "reshape_from_matrix",
  "reshape_to_matrix",
  "transformer_model",
]

log = logging.getLogger(__name__)

# Segment id of the first token, by model family.
CLS_SEGMENT_IDS = {
  kind.family: kind.cls_segment_id for kind in (BertConfig, ElectraConfig, ModelConfig)
}

RELEASED_FUNNELS = ("B4-4-4H768", "B6-3x2-3x2H768", "B6-6-6H768", "B8-8-8H1024", "B10-10-10H1024")


def released_funnel(name: str) -> ModelConfig:
  """Returns the configuration of a released Funnel-Transformer; UserError lists the names."""
  if name not in RELEASED_FUNNELS:
    raise UserError(f"no released model {name!r}; use one of {', '.join(RELEASED_FUNNELS)}")
  return ModelConfig.init_from_json(
    os.path.join(os.path.dirname(__file__), "configs", "models", f"{name}.json")
  )


def load_config(json_file: str, overwrite_keys: list[str] | tuple[str, ...] = ()) -> Config:
  """Reads a model configuration; its keys determine the family.

  A file with `hidden_size` is a BERT configuration, one with `block_size` a Funnel configuration,
  one with `model_type` "electra" an ELECTRA configuration.
  Keys that do not change the model are ignored; see models.config_keys.

  Args:
    json_file: bert_config.json, electra_config.json or net_config.json.
    overwrite_keys: keys of a Funnel configuration whose values come from the flags of those names.

  Raises:
    UserError: the file is missing or malformed, or the configuration is of no known family.
  """
  return config_from_dict(config_keys.read_json(json_file), json_file, overwrite_keys)


def config_from_dict(
  values: dict[str, Any], source: str, overwrite_keys: list[str] | tuple[str, ...] = ()
) -> Config:
  """Returns the configuration of these keys; see load_config.

  Args:
    values: key -> value.
    source: name of the keys' origin, for messages.
    overwrite_keys: as for load_config.
  """
  json_file = source
  if "block_size" in values:
    return ModelConfig.from_dict(values, json_file, overwrite_keys)
  if overwrite_keys:
    raise UserError(
      f"--overwrite_keys={','.join(overwrite_keys)}: {json_file} is not a Funnel "
      f"configuration; change the file itself"
    )
  if config_keys.hugging_face_type(values) == ElectraConfig.family:
    return ElectraConfig.from_dict(values, json_file)
  if "hidden_size" in values:
    return BertConfig.from_dict(values, json_file)
  if "block_sizes" in values:
    raise UserError(
      f"{json_file}: a Funnel configuration of Hugging Face; convert its folder with "
      f"convert_checkpoint.py --direction=hf_to_tf --input_dir=FOLDER "
      f"--output_dir=PRETRAINED"
    )
  raise UserError(
    f"{json_file}: not a model configuration: it has neither the key hidden_size "
    f"(BERT) nor block_size (Funnel)"
  )


def get_assignment_map_from_checkpoint(
  tvars: Iterable[tf.Variable], init_checkpoint: str
) -> tuple[dict[str, str], dict[str, int]]:
  """Finds the variables that a checkpoint contains under the same name.

    assignment_map, initialized = modeling.get_assignment_map_from_checkpoint(
        tf.compat.v1.trainable_variables(), init_checkpoint)
    tf.compat.v1.train.init_from_checkpoint(init_checkpoint, assignment_map)

  Logs a warning if the checkpoint contains none of them.

  Args:
    tvars: variables of the graph.
    init_checkpoint: prefix of the checkpoint.

  Returns:
    ({name: name} for init_from_checkpoint, {name: 1, "name:0": 1} to log the loaded variables).
  """
  names = [re.sub(r":\d+$", "", variable.name) for variable in tvars]
  stored = {name for name, _ in tf.train.list_variables(init_checkpoint)}
  assignment_map = {name: name for name in names if name in stored}
  if names and not assignment_map:
    log.warning(
      "%s: this checkpoint contains none of the model's %d variables (%s, ...); all keep "
      "their initial values",
      init_checkpoint,
      len(names),
      names[0],
    )
  return assignment_map, {key: 1 for name in assignment_map for key in (name, f"{name}:0")}
