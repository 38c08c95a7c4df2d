"""Writes a trained model as an ONNX model."""

from errors import UserError
from serving import graph, saved_model
from utils import files

OPSET = 17  # of ONNX 1.12, 2022


def export(model_dir: str, path: str) -> str:
  """Writes the signature `serve` of saved_model.export as an ONNX file; returns its path.

  Inputs are int32 of any batch size and length.

  Raises:
    UserError: tf2onnx is not installed, the file exists, or the model is a Funnel-Transformer.
  """
  if not model_dir:
    raise UserError("--model_dir is missing")
  try:
    import tf2onnx
  except ImportError as error:
    raise UserError(
      f"--onnx_file needs tf2onnx ({error}): pip install -r requirements-onnx.txt"
    ) from None
  if files.exists(path):
    raise UserError(f"{path}: the file exists; name another with --onnx_file")
  model = saved_model.load(model_dir)
  if model.config.family == "funnel":
    # tf2onnx 1.17 writes a file, but onnxruntime 1.32 fails to broadcast in a Mul of pooling.
    raise UserError(
      f"{model_dir}: --onnx_file: a Funnel-Transformer is not supported, its ONNX model was not "
      f"verified; write a SavedModel with --export_dir"
    )
  served = saved_model.build(model)
  outputs = served.computed()
  inputs = served.inputs_of(outputs.values())
  with served.graph.as_default():
    frozen = graph.v1.graph_util.convert_variables_to_constants(
      served.session, served.graph.as_graph_def(), [tensor.op.name for tensor in outputs.values()]
    )
  served.session.close()
  names = {tensor.name: name for name, tensor in {**inputs, **outputs}.items()}
  converted, _ = tf2onnx.convert.from_graph_def(
    frozen,
    input_names=[tensor.name for tensor in inputs.values()],
    output_names=[tensor.name for tensor in outputs.values()],
    opset=OPSET,
    tensors_to_rename=names,
  )
  with files.replacing(path) as temporary, files.open_file(temporary, "wb") as writer:
    writer.write(converted.SerializeToString())
  return path
