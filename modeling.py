"""The models, as people import them.

  import modeling
  config = modeling.BertConfig.from_json_file("pretrained/bert_config.json")
  model = modeling.BertModel(config, is_training=False, input_ids=input_ids, input_mask=input_mask)
  model.get_sequence_output()
"""

import tensorflow as tf

from errors import UserError
from models.bert import BertConfig, BertModel, read_json

__all__ = ["BertConfig", "BertModel", "build_encoder", "load_config"]


def load_config(json_file: str) -> BertConfig:
  """Reads a model configuration and tells its family by its keys.

  A file with `hidden_size` is a BERT configuration.

  Raises:
    UserError: the file is missing, malformed, or of no known family.
  """
  values = read_json(json_file)
  if "hidden_size" in values:
    return BertConfig.from_dict(values, source=json_file)
  raise UserError(f"{json_file}: not a model configuration: it has no key hidden_size (BERT)")


def build_encoder(model_config: BertConfig, features: dict[str, tf.Tensor], is_training: bool,
                  use_tpu: bool = False, use_bfloat16: bool = False) -> BertModel:
  """Builds the encoder of a configuration on a batch of records.

  Args:
    model_config: from load_config.
    features: input_ids, input_mask (1 = real token) and segment_ids, int32 [B, T].
    is_training: whether dropout is on.
    use_tpu: choose the forms that TPUs are fast at.
    use_bfloat16: compute in bfloat16.

  Returns:
    An encoder with `config`, get_pooled_output() and get_sequence_output().
  """
  return BertModel(
      model_config, is_training, features["input_ids"], features["input_mask"],
      features["segment_ids"], use_one_hot_embeddings=use_tpu,
      compute_dtype=tf.bfloat16 if use_bfloat16 else tf.float32)
