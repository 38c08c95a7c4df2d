"""Special ids, for programs that use Funnel-Transformer directly.

  tokenizer = tokenization.get_tokenizer()
  data_utils.setup_special_ids(tokenizer)
  net_config = modeling.ModelConfig.init_from_flags()
"""

from errors import UserError


def setup_special_ids(tokenizer) -> dict[str, int]:
  """Ids of the tokenizer's special symbols, and its vocab_size.

  As in the original, the absl flags of these names (vocab_size, cls_id, ...) that the program
  defines and that have no value yet are filled, so that ModelConfig.init_from_flags finds
  vocab_size. Call it after the flags are parsed.

  Args:
    tokenizer: from tokenization.get_tokenizer.

  Returns:
    {"vocab_size": ..., "cls_id": ..., "sep_id": ..., ...}.

  Raises:
    UserError: a flag has another value than the tokenizer.
  """
  from absl.flags import FLAGS
  ids = {"vocab_size": tokenizer.vocab_size,
         **{f"{role}_id": value for role, value in tokenizer.special_ids.items()}}
  for name, value in ids.items():
    if name not in FLAGS:
      continue
    if FLAGS[name].value is None:
      FLAGS[name].value = value
    elif FLAGS[name].value != value:
      raise UserError(f"--{name}={FLAGS[name].value}, but {tokenizer.vocab_file} has {value}")
  return ids
