"""Writes a trained model as a SavedModel for TensorFlow Serving, or as an ONNX model.

  python export_model.py --model_dir=runs/cola --export_dir=exported/cola
  python export_model.py --model_dir=runs/cola --export_dir=exported/cola --serve_text
  python export_model.py --model_dir=runs/cola --onnx_file=cola.onnx

The model is that of --do_predict: the best checkpoint of a run of run_classifier.py, run_squad.py,
run_race.py or run_tagger.py. Of a pretrained encoder the hidden states are exported. The SavedModel
is EXPORT_DIR/1, and later ones EXPORT_DIR/2 and so on; nothing is overwritten. docs/serving.md
describes the signatures.
"""

import dataclasses

import config
from errors import UserError
from training import app, flags


@dataclasses.dataclass
class Export:
  """The model, and what to write."""

  model_dir: str = config.option("", "folder of the trained model, or its folder best")
  export_dir: str = config.option("", "folder of the SavedModel's versions")
  onnx_file: str = config.option(
    "",
    "ONNX file to write instead of a SavedModel, of BERT or ELECTRA; needs requirements-onnx.txt",
  )
  serve_text: bool = config.option(
    False, "add the signature serve_text, which reads texts; needs requirements-text.txt"
  )
  max_seq_length: int = config.option(
    128, "longest sequence of an encoder's serve_text, in tokens; a task has its own", lower=3
  )


def main() -> None:
  """Writes the SavedModel or the ONNX file."""
  from serving import onnx_model, saved_model  # loads TensorFlow

  settings, _ = flags.read_section(Export)
  values = vars(settings)
  onnx_file = values.pop("onnx_file")
  if onnx_file and (settings.export_dir or settings.serve_text):
    raise UserError("--onnx_file writes an ONNX model alone: leave --export_dir, --serve_text out")
  print(
    onnx_model.export(settings.model_dir, onnx_file) if onnx_file else saved_model.export(**values)
  )


if __name__ == "__main__":
  flags.define(Export)
  app.run_main(main, "Nothing was exported.")
