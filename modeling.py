"""The models, as people import them.

  import modeling
  config = modeling.BertConfig.from_json_file("pretrained/bert_config.json")
  model = modeling.BertModel(config, is_training=False, input_ids=input_ids, input_mask=input_mask)
  model.get_sequence_output()
"""

from errors import UserError
from models.bert import BertConfig, BertModel, read_json

__all__ = ["BertConfig", "BertModel", "load_config"]


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
