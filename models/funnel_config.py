"""Configuration of a Funnel-Transformer: the keys of net_config.json.

Programs import this module for --help, so it does not import TensorFlow.
"""

import dataclasses
import json
import os
import re
from typing import TYPE_CHECKING, ClassVar

from errors import UserError
from models import config_keys
from models.config_keys import read_json
from utils import files
from utils.options import brief

if TYPE_CHECKING:
  import tensorflow as tf

MAX_ABSOLUTE_POSITIONS = 512  # rows of the position table; only rel_attn_type "null" has one
CLS_SEGMENT_ID = 2  # a token of this segment is in the same segment as every token
_MAX_POOLING = 1 << 20  # tokens
NOT_IN_JSON = ("truncate_seq",)  # as in the released net_config.json files


@dataclasses.dataclass
class ModelConfig:
  """The keys of net_config.json, and `truncate_seq`, which is not in that file.

  Example:
    config = ModelConfig.init_from_json("configs/models/B4-4-4H768.json")
    config = ModelConfig(vocab_size=32000, block_size="2_2", d_model=256, d_embed=256, n_head=4,
                         d_inner=1024)

  Attributes:
    vocab_size: rows of the word embedding table.
    block_size: layers of each block, joined by "_". "PxR" is P layers, each applied R times in a
      row with the same parameters; "6_3x2_3x2" has 12 parameter layers and runs 18.
    d_model: width of the hidden states; even, because half of a position's encoding is sines.
    d_embed: width of the embeddings; if it differs from d_model, a linear map follows.
    n_head: attention heads per layer.
    d_head: size of one head; n_head * d_head need not be d_model.
    d_inner: width of the feed-forward layer.
    dropout: dropout of embeddings, sub-layer outputs, position encodings and the summary.
    dropatt: dropout of the attention probabilities.
    dropact: dropout of the feed-forward activations.
    ff_activation: one of config_keys.ACTIVATIONS (relu, gelu, tanh, ...).
    rel_attn_type: "factorized" or "rel_shift" for relative attention, which give the same results
      (`attention_type` chooses the one that runs); "null" for absolute positions.
    init: initializer of all weights: "truncated_normal", "normal" or "uniform".
    init_std: standard deviation of the two normal initializers.
    init_range: the uniform initializer draws from [-init_range, init_range].
    pooling_type: "mean" or "max".
    pooling_size: number of tokens pooled into one at the beginning of a block.
    pool_q_only: a block's first layer takes keys and values from the sequence before pooling.
    separate_cls: do not pool the first token ([cls]); pooling begins at the second.
    decoder_size: layers of the decoder as "P" or "PxR"; "0" for none.
    truncate_seq: with separate_cls, drop the last token before pooling, so that lengths halve
      exactly (16, 8, 4 instead of 16, 9, 5).
  """

  family: ClassVar[str] = "funnel"
  file_name: ClassVar[str] = "net_config.json"
  cls_segment_id: ClassVar[int] = CLS_SEGMENT_ID

  vocab_size: int = config_keys.size(upper=config_keys.MAX_VOCAB)
  block_size: str = "3_3_3"
  d_model: int = config_keys.size(512)
  d_embed: int = config_keys.size(512)
  n_head: int = config_keys.size(8)
  d_head: int = config_keys.size(64)
  d_inner: int = config_keys.size(2048)
  dropout: float = config_keys.dropout(0.1)
  dropatt: float = config_keys.dropout(0.1)
  dropact: float = config_keys.dropout(0.0)
  ff_activation: str = config_keys.choice("gelu", config_keys.ACTIVATIONS)
  rel_attn_type: str = config_keys.choice("factorized", ("factorized", "rel_shift", "null"))
  init: str = config_keys.choice("truncated_normal", ("truncated_normal", "normal", "uniform"))
  init_std: float = config_keys.number(float, 0.02, lower=0)
  init_range: float = config_keys.number(float, 0.1, lower=0)
  pooling_type: str = config_keys.choice("mean", ("mean", "max"))
  pooling_size: int = config_keys.size(2, upper=1024)
  pool_q_only: bool = True
  separate_cls: bool = True
  decoder_size: str = "2"
  truncate_seq: bool = True

  def __post_init__(self):
    """Checks the values; UserError names the key that is wrong."""
    self.block_size, self.decoder_size = str(self.block_size), str(self.decoder_size)
    config_keys.check_values(self)
    if self.d_model % 2 and self.rel_attn_type != "null":
      raise UserError(
        f"d_model {self.d_model} is odd, but relative positions are encoded by equal numbers of "
        f"sines and cosines; make it even"
      )
    if any(count < 1 for count, _ in self.blocks):
      raise UserError(f"block_size {self.block_size!r} has a block without layers")
    if self.total_pooling > _MAX_POOLING:
      raise UserError(
        f"block_size {brief(self.block_size)}: {len(self.blocks)} blocks with pooling_size "
        f"{self.pooling_size} pool more than {_MAX_POOLING} tokens into one; use fewer blocks"
      )
    if self.decoder[0] and len(self.blocks) == 1:
      raise UserError(
        f"block_size {self.block_size!r} is a single block, which does not pool, so there is "
        f'nothing to decode: set decoder_size to "0", not {self.decoder_size!r}'
      )

  @property
  def blocks(self) -> list[tuple[int, int]]:
    """(parameter layers, applications of each) of every block."""
    return [
      _parse_layers("block_size", self.block_size, part) for part in self.block_size.split("_")
    ]

  @property
  def decoder(self) -> tuple[int, int]:
    """(parameter layers, applications of each) of the decoder."""
    return _parse_layers("decoder_size", self.decoder_size, self.decoder_size)

  @property
  def num_stored_layers(self) -> int:
    """Number of layers with weights of their own."""
    return sum(count for count, _ in self.blocks) + self.decoder[0]

  @property
  def num_segments(self) -> int:
    """Number of segment ids: two, and that of the first token."""
    return 1 + CLS_SEGMENT_ID

  @property
  def total_pooling(self) -> int:
    """Number of input tokens pooled into one token of the last block."""
    return self.pooling_size ** (len(self.blocks) - 1)

  @property
  def max_position_embeddings(self) -> int | None:
    """Longest sequence that the model accepts; None without a position table."""
    return MAX_ABSOLUTE_POSITIONS if self.rel_attn_type == "null" else None

  @property
  def reserved_positions(self) -> int:
    """Padding needed after the last token, so that truncation at the poolings drops no token."""
    return self.total_pooling - 1 if self.truncate_seq and self.separate_cls else 0

  @property
  def pools_evenly(self) -> bool:
    """True if 1 + k * total_pooling positions pool into whole windows without truncation."""
    return self.separate_cls and (self.pooling_size == 2 or not self.truncate_seq)

  def padded_length(self, longest: "int | tf.Tensor", multiple: int) -> "int | tf.Tensor":
    """Length to which a batch is padded.

    1 + a multiple of `multiple` if pools_evenly, otherwise a multiple that includes the reserved
    positions. If there are none, `multiple` is rounded up to the total pooling, because the last
    window must be whole: a short one would pool less padding than in a longer batch.

    Args:
      longest: number of tokens of the longest sequence, an int or a scalar tensor.
      multiple: tokens.
    """
    first, reserved = (1, 0) if self.pools_evenly else (0, self.reserved_positions)
    if not reserved:
      multiple = (multiple + self.total_pooling - 1) // self.total_pooling * self.total_pooling
    return first + (longest - first + reserved + multiple - 1) // multiple * multiple

  @property
  def initializer(self) -> "tf.initializers.Initializer":
    """Initializer of all weights."""
    import tensorflow as tf

    v1 = tf.compat.v1
    if self.init == "uniform":
      return v1.random_uniform_initializer(-self.init_range, self.init_range)
    if self.init == "normal":
      return v1.random_normal_initializer(stddev=self.init_std)
    return v1.truncated_normal_initializer(stddev=self.init_std)

  def attention_type(self, use_tpu: bool) -> str:
    """Form of attention to run: "null" if set, else "factorized" on TPU or "rel_shift" elsewhere.

    The two give equal results. On CPU and GPU, rel_shift needs less memory and fewer products. On
    TPU, its reshapes cost more than the additional products of factorized.
    """
    if self.rel_attn_type == "null":
      return "null"
    return "factorized" if use_tpu else "rel_shift"

  @classmethod
  def from_dict(
    cls,
    values: dict,
    source: str = "the Funnel configuration",
    overwrite_keys: list[str] | tuple[str, ...] = (),
  ) -> "ModelConfig":
    """Builds a config from `values`; see init_from_json."""
    fields = [field.name for field in dataclasses.fields(cls)]
    values = config_keys.own_values(
      values, set(fields) - set(NOT_IN_JSON), config_keys.FUNNEL_FIXED, source
    )
    wrong = sorted(set(overwrite_keys) - set(fields))
    if wrong:
      raise UserError(
        f"overwrite_keys: unknown keys {', '.join(wrong)}; the keys are {', '.join(sorted(fields))}"
      )
    values = dict(values, **_flag_values(overwrite_keys))
    missing = [key for key in ("vocab_size", "block_size") if key not in values]
    if missing:
      raise UserError(f"{source}: the key {missing[0]} is missing")
    return config_keys.build(cls, values, source)

  @classmethod
  def init_from_json(
    cls, path: str, overwrite_keys: list[str] | tuple[str, ...] = ()
  ) -> "ModelConfig":
    """Reads net_config.json.

    Args:
      path: the file; local or on Google Storage.
      overwrite_keys: keys (or "truncate_seq") whose values come from the absl flags of the same
        names, e.g. another dropout for fine-tuning. No other flag is read.

    Raises:
      UserError: the file is missing, malformed, or has unknown keys or unsupported values. Keys
        that do not change the model are ignored; see models.config_keys.
    """
    return cls.from_dict(read_json(path), source=path, overwrite_keys=overwrite_keys)

  @classmethod
  def init_from_flags(cls) -> "ModelConfig":
    """Builds a config from the absl flags of the same names.

    A key without a flag has its default. vocab_size has none: define that flag, or call
    data_utils.setup_special_ids first. training.flags.define_funnel defines the flags of all keys.

    Raises:
      UserError: a flag has no value, or there is no flag --vocab_size.
    """
    from absl.flags import FLAGS

    return cls(
      **_flag_values(
        [
          field.name
          for field in dataclasses.fields(cls)
          if field.name in FLAGS or field.default is dataclasses.MISSING
        ]
      )
    )

  def to_dict(self) -> dict:
    """Contents of net_config.json, 20 keys."""
    values = dataclasses.asdict(self)
    return {key: value for key, value in values.items() if key not in NOT_IN_JSON}

  def to_json(self, path: str) -> None:
    """Writes net_config.json."""
    with files.open_file(os.fspath(path), "w") as writer:
      writer.write(json.dumps(self.to_dict(), indent=4, sort_keys=True) + "\n")


def _parse_layers(key, value, part):
  """Parses "3x2" -> (3, 2), "4" -> (4, 1)."""
  match = re.fullmatch(r"([0-9]{1,3})(?:x([1-9][0-9]{0,2}))?", part)
  if not match:
    raise UserError(
      f"{key} {brief(value)} cannot be read: {brief(part)} is neither a number of layers (4) "
      f"nor layers x repetitions (3x2), up to 999"
    )
  return int(match[1]), int(match[2] or 1)


def _flag_values(names) -> dict:
  """Values of the absl flags `names`."""
  from absl.flags import FLAGS

  values = {}
  for name in names:
    if name not in FLAGS:
      raise UserError(
        f"there is no flag --{name} to read the model configuration from; "
        f"define it (vocab_size: call data_utils.setup_special_ids)"
      )
    values[name] = FLAGS[name].value
    if values[name] is None:
      raise UserError(f"the flag --{name} has no value; set it (vocab_size is the tokenizer's)")
  return values
