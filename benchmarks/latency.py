"""Measures the latency of one request: Predictor, the estimator, and PyTorch if it is installed.

  python benchmarks/latency.py --model_dir=runs/cola --output_file=latency.md

The model is one of run_classifier.py. It writes a Markdown table and the same numbers as JSON, with
the file name's .md replaced by .json. The estimator's predict call builds the graph and restores
the checkpoint for each call, so it gets few calls.
"""

import dataclasses
import json
import os
import platform
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import config  # noqa: E402
from errors import UserError  # noqa: E402
from training import app, flags  # noqa: E402


@dataclasses.dataclass
class Latency:
  """Settings of the benchmark."""

  model_dir: str = config.option("", "folder of a model of run_classifier.py")
  output_file: str = config.option("latency.md", "Markdown file to write")
  text: str = config.option("The quick brown fox jumps over the lazy dog .", "the request")
  calls: int = config.option(200, "calls of Predictor and PyTorch", lower=1)
  estimator_calls: int = config.option(5, "calls of the estimator", lower=1)


def measure(call, count: int) -> dict[str, float]:
  """Returns p50 and p99 in milliseconds of `count` calls, after three that are not counted."""
  for _ in range(3 if count > 5 else 1):
    call()
  seconds = []
  for _ in range(count):
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
  p50, p99 = np.percentile(seconds, [50, 99]) * 1000
  return {"p50_ms": float(p50), "p99_ms": float(p99), "calls": count}


def estimator_call(model, record, folder: str):
  """Returns a function that predicts one record with the estimator, as --do_predict does."""
  from preprocessing import record_files
  from training import devices, estimator, inputs
  from training.model_fn import ModelFn

  length = model.experiment.data.max_seq_length
  specs, pad_id = model.task.feature_specs, model.tokenizer.pad_id
  path = os.path.join(folder, "one.tfrecord")
  import tensorflow as tf

  with tf.io.TFRecordWriter(path) as writer:
    writer.write(record_files.to_example(record, specs, length, pad_id))
  found = devices.find_devices(model.experiment.runtime, 1)
  source = inputs.RecordSource([path], 1, model.task, length, model.config.padded_length)
  model_fn = ModelFn(model.experiment, model.task, model.config, found, checkpoint=model.checkpoint)
  predictor = estimator.build_estimator(model.experiment, found, model_fn)
  input_fn = inputs.predict_input_fn(source, 1, static_shapes=False)
  return lambda: list(predictor.predict(input_fn, checkpoint_path=model.checkpoint))


def torch_call(model, text: str, folder: str):
  """Returns a function that predicts with transformers (PyTorch); None if it is not installed."""
  try:
    import torch
    import transformers
  except ImportError:
    return None
  from conversion import commands

  commands.tf_to_hf(model.experiment.trainer.model_dir, folder, True, "", None, "", None)
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  net = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()

  def call():
    with torch.no_grad():
      return net(**tokenizer(text, return_tensors="pt")).logits.softmax(-1).numpy()

  return call


def main() -> None:
  """Measures and writes both files."""
  from serving.predictor import Predictor
  from utils import files

  settings, _ = flags.read_section(Latency)
  if not settings.model_dir or not settings.output_file.endswith(".md"):
    raise UserError("--model_dir is missing, or --output_file does not end in .md")
  predictor, text = Predictor(settings.model_dir), settings.text
  model = predictor.model
  if model.experiment.job != "classification":
    raise UserError(f"{settings.model_dir}: a model of run_classifier.py is expected")
  (example,) = predictor.parse([text])
  record = model.task.featurize(example, model.tokenizer, model.experiment.data.max_seq_length)
  rows = {"Predictor": measure(lambda: predictor([text]), settings.calls)}
  with tempfile.TemporaryDirectory() as folder:
    call = estimator_call(model, record, folder)
    rows["estimator"] = measure(call, settings.estimator_calls)
    if call := torch_call(model, text, os.path.join(folder, "hf")):
      rows["transformers (PyTorch)"] = measure(call, settings.calls)
  import tensorflow as tf

  found = {
    "tokens": len(record["input_ids"]),
    "tensorflow": tf.__version__,
    "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    "latency": rows,
  }
  table = ["| | p50, ms | p99, ms | calls |", "|---|---|---|---|"] + [
    f"| {name} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['calls']} |"
    for name, row in rows.items()
  ]
  files.write_text(settings.output_file, "\n".join(table) + "\n")
  path = settings.output_file.removesuffix(".md") + ".json"
  files.write_text(path, json.dumps(found, indent=2) + "\n")
  print("\n".join(table))


if __name__ == "__main__":
  flags.define(Latency)
  app.run_main(main, "Nothing was written.")
