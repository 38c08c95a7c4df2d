"""Configuration of ELECTRA (Clark et al. 2020, arXiv:2003.10555); its encoder is models.bert's.

The differences from BERT: the variables are in the scope "electra", the embeddings may be narrower
than the hidden states, and there is no pooler.
"""

import dataclasses
from typing import Any, ClassVar

from models import config_keys
from models.bert import BertConfig


@dataclasses.dataclass
class ElectraConfig(BertConfig):
  """The keys of electra_config.json, which has the form of Hugging Face's config.json.

  The original has no such file. The defaults are those of ELECTRA-Small. The attributes are those
  of BertConfig, and activations have the names here: the file's "gelu" is "gelu_erf".
  """

  family: ClassVar[str] = "electra"
  file_name: ClassVar[str] = "electra_config.json"
  has_pooler: ClassVar[bool] = False

  vocab_size: int = config_keys.size(30522, upper=config_keys.MAX_VOCAB)
  hidden_size: int = config_keys.size(256)
  num_attention_heads: int = config_keys.size(4)
  intermediate_size: int = config_keys.size(1024)
  hidden_act: str = config_keys.choice("gelu_erf", config_keys.ACTIVATIONS)
  type_vocab_size: int = config_keys.size(2)
  embedding_size: int | None = config_keys.size(128)

  def __post_init__(self):
    """Checks the values, as BertConfig; embedding_size None becomes hidden_size."""
    super().__post_init__()
    self.embedding_size = self.embedding_width

  @classmethod
  def from_dict(
    cls, values: dict[str, Any], source: str = "the ELECTRA configuration"
  ) -> "ElectraConfig":
    """Builds a config from the contents of config.json; Hugging Face's defaults for missing keys.

    Raises:
      UserError: a key has an unsupported value; the message names the key and `source`.
    """
    defaults = {**dataclasses.asdict(cls()), "hidden_act": "gelu"}
    values = {**values, "model_type": values.get("model_type", cls.family)}
    return cls(**config_keys.hugging_face_values(values, defaults, cls.fixed_keys(values), source))

  def to_dict(self) -> dict[str, Any]:
    """Contents of electra_config.json."""
    activation = config_keys.hugging_face_activation(self.hidden_act)
    return {"model_type": self.family, **dataclasses.asdict(self), "hidden_act": activation}
