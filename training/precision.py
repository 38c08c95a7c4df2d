"""Precision of a run: dtype of the activations, and the loss scale of float16."""

import math

import tensorflow as tf

import config
from errors import UserError

DTYPES = {"fp32": tf.float32, "bf16": tf.bfloat16, "fp16": tf.float16}


def of(runtime: config.Runtime) -> str:
  """Returns the precision of the activations, a key of DTYPES.

  Raises:
    UserError: the settings of the precision contradict each other.
  """
  if runtime.use_bfloat16 and runtime.precision not in (None, "bf16"):
    raise UserError(
      f"--use_bfloat16 and --precision={runtime.precision} contradict each other; leave one out"
    )
  precision = runtime.precision or ("bf16" if runtime.use_bfloat16 else "fp32")
  if fixed_loss_scale(runtime) and precision != "fp16":
    raise UserError(
      f"--loss_scale={runtime.loss_scale} is for --precision=fp16, and the precision is "
      f"{precision}; leave it out"
    )
  return precision


def fixed_loss_scale(runtime: config.Runtime) -> float:
  """Returns the fixed factor of the loss in float16; 0 for a dynamic one.

  Raises:
    UserError: loss_scale is neither a positive number nor "dynamic".
  """
  if runtime.loss_scale == "dynamic":
    return 0.0
  try:
    scale = float(runtime.loss_scale)
  except ValueError:
    scale = math.nan
  if not 0 < scale < math.inf:
    raise UserError(f"--loss_scale={runtime.loss_scale} is neither dynamic nor a positive number")
  return scale
