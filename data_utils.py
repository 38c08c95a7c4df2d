"""Special ids, for programs that use Funnel-Transformer directly.

tokenizer = tokenization.get_tokenizer()
data_utils.setup_special_ids(tokenizer)
net_config = modeling.ModelConfig.init_from_flags()
"""

from errors import UserError


def setup_special_ids(tokenizer) -> dict[str, int]:
  """Ids of the tokenizer's special symbols, and its vocab_size.

  As in the original, the absl flags of these names (vocab_size, cls_id, ...) that the program
  defines and that have no value yet are filled. A program that defines no vocab_size gets that flag
  here, with the value of its last tokenizer, so that ModelConfig.init_from_flags finds it. Call it
  after the flags are parsed.

  Args:
    tokenizer: from tokenization.get_tokenizer.

  Returns:
    {"vocab_size": ..., "cls_id": ..., "sep_id": ..., ...}.

  Raises:
    UserError: a flag has another value than the tokenizer.
  """
  from absl import flags

  FLAGS = flags.FLAGS
  if FLAGS.find_module_defining_flag("vocab_size", default=__name__) == __name__:
    flags.DEFINE_integer(
      "vocab_size",
      tokenizer.vocab_size,
      "rows of the word embedding table, the tokenizer's",
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
