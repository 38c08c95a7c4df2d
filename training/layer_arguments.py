"""Arguments of model layers from gin bindings (the package gin-config, an extra).

Gin gives a function the arguments that its callers leave out:

  encode.activation = @gelu_erf           BERT's and ELECTRA's feed-forward layers
  encode.attention_fn = @my_attention     their attention, in place of models.bert.attention

A user's own function is registered by @gin.configurable in the module of --import_module.
"""

import tokenize
from collections.abc import Iterable
from typing import Any

from errors import UserError
from models import bert, layers
from tasks import readers

# Name in bindings -> module of the function. The model calls them by these names.
_LAYERS: dict[str, Any] = {"encode": bert}
_originals: dict[str, Any] = {}


def read(gin_files: Iterable[str], bindings: Iterable[str]) -> str:
  """Returns the bindings of files, in order, and then the others, as one text.

  Raises:
    UserError: a file cannot be read.
  """
  return "\n".join([*map(readers.read_text, gin_files), *bindings])


def apply(bindings: str, family: str = "bert") -> None:
  """Gives the layers their arguments; an empty text takes away those of an earlier call.

  Raises:
    UserError: gin-config is not installed, a binding is wrong, or the model's family has no layers
      that take arguments.
  """
  for name, function in _originals.items():
    setattr(_LAYERS[name], name, function)
  _originals.clear()
  if not bindings.strip():
    return
  if family not in ("bert", "electra"):
    raise UserError(f"--gin_bindings: {family} has no layers that take them; BERT and ELECTRA have")
  for line in bindings.splitlines():
    if line.split()[:1] in (["import"], ["from"], ["include"]):
      raise UserError(
        f"the gin bindings: {line!r}: name modules with --import_module, and files with --gin_file"
      )
  try:
    import gin
  except ImportError:
    raise UserError(
      "--gin_bindings, --gin_file and --gin_params need the package gin-config: "
      "pip install -r requirements-gin.txt"
    ) from None
  gin.clear_config(clear_constants=True)
  for name, module in _LAYERS.items():
    _originals[name] = getattr(module, name)
    setattr(module, name, gin.external_configurable(_originals[name], name, "models"))
  for name, activation in layers.ACTIVATIONS.items():
    gin.external_configurable(activation, name, "models")
  try:
    gin.parse_config(bindings)
  except (ValueError, SyntaxError, TypeError, NameError, tokenize.TokenError) as error:
    raise UserError(
      f"the gin bindings: {str(error).strip()} (own functions are registered by --import_module)"
    ) from None
