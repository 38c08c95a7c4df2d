"""Special ids, for programs built on Funnel-Transformer's code.

tokenizer = tokenization.get_tokenizer()
data_utils.setup_special_ids(tokenizer)
net_config = modeling.ModelConfig.init_from_flags()
"""

from errors import UserError
from text.base import Tokenizer


def setup_special_ids(tokenizer: Tokenizer) -> dict[str, int]:
  """Returns the ids of the tokenizer's special symbols and its vocab_size, and sets their flags.

  As in the original, absl flags of these names (vocab_size, cls_id, ...) are set if the program
  defines them and they have no value. If the program defines no vocab_size, that flag is defined
  here with the value of the last tokenizer, for ModelConfig.init_from_flags. Call this function
  after the flags are parsed.

  Args:
    tokenizer: from tokenization.get_tokenizer.

  Returns:
    {"vocab_size": ..., "cls_id": ..., "sep_id": ..., ...}.

  Raises:
    UserError: a flag has a value that differs from the tokenizer's.
  """
  from absl import flags

  FLAGS = flags.FLAGS
  if FLAGS.find_module_defining_flag("vocab_size", default=__name__) == __name__:
    flags.DEFINE_integer(
      "vocab_size",
      tokenizer.vocab_size,
      "rows of the word embedding table, set by the tokenizer",
      flag_values=FLAGS,
      allow_override=True,
    )
  ids = {
    "vocab_size": tokenizer.vocab_size,
    **{f"{role}_id": value for role, value in tokenizer.special_ids.items()},
  }
  for name, value in ids.items():
    if name not in FLAGS:
      continue
    if FLAGS[name].value is None:
      FLAGS[name].value = value
    elif FLAGS[name].value != value:
      raise UserError(f"--{name}={FLAGS[name].value}, but {tokenizer.vocab_file} has {value}")
  return ids
