"""Compares the training times of a 4_4_4 Funnel and a BERT of the same width and depth.

  python benchmarks/funnel_speed.py DATA_DIR VOCAB_FILE [--task=sst-2] [--rounds=2] [--steps=80]

Both have the width of MiniLM (384) and 12 layers, and start from random weights. run_classifier.py
trains them in turns on the same data. The script prints the ratio of the times per example and the
ratio of the FLOPs (benchmarks/flops.py) at the padded lengths of the batches.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import config
import modeling
from models import flops
from preprocessing import record_files
from tasks import classification
from tasks.settings import Classification
from training import inputs

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VOCAB_SIZE = 30522
MODELS = {
  "bert": modeling.BertConfig(VOCAB_SIZE, 384, 12, 12, 1536, type_vocab_size=2),
  "funnel": modeling.ModelConfig(
    VOCAB_SIZE, "4_4_4", d_model=384, d_embed=384, n_head=12, d_head=32, d_inner=1536
  ),
}


def seconds_per_example(config_file: str, folder: str, arguments: argparse.Namespace) -> float:
  """Trains for a few steps; returns the median over metrics.jsonl without the first two lines.

  TensorFlow warms up for each new batch length, mostly in the first steps.
  """
  subprocess.run(
    [
      sys.executable,
      os.path.join(ROOT, "run_classifier.py"),
      f"--task_name={arguments.task}",
      "--do_train",
      f"--data_dir={arguments.data_dir}",
      f"--vocab_file={arguments.vocab_file}",
      f"--model_config={config_file}",
      "--init_checkpoint=none",
      f"--model_dir={folder}",
      f"--output_dir={records_dir(config_file)}",
      f"--train_batch_size={arguments.batch_size}",
      f"--max_seq_length={arguments.length}",
      f"--train_steps={arguments.steps}",
      f"--max_train_examples={arguments.examples}",
      f"--log_freq={max(arguments.steps // 10, 1)}",
    ],
    check=True,
    capture_output=True,
  )
  with open(os.path.join(folder, "metrics.jsonl")) as reader:
    speeds = [json.loads(line)["examples_per_second"] for line in reader.readlines()[2:]]
  return 1 / statistics.median(speeds)


def records_dir(config_file: str) -> str:
  """Folder of the record files of a model."""
  return config_file.removesuffix(".json") + ".records"


def flops_per_example(config_file: str, arguments: argparse.Namespace) -> float:
  """Mean FLOPs of an example in the batches that seconds_per_example trained on."""
  model_config = modeling.load_config(config_file)
  experiment = config.Experiment(
    task=Classification(task_name=arguments.task),
    raw_data=config.RawData(data_dir=arguments.data_dir),
  )
  task = classification.ClassificationTask.from_experiment(experiment, model_config.family)
  (path,) = glob.glob(os.path.join(glob.escape(records_dir(config_file)), "*.train.*.tfrecord"))
  source = inputs.RecordSource(
    [path],
    min(record_files.count_records(path), arguments.examples),
    task,
    arguments.length,
    model_config.padded_length,
  )
  input_fn = inputs.train_input_fn(source, arguments.batch_size, config.Trainer().seed, 0, 1, False)
  lengths = [batch["input_ids"].shape[1] for batch in input_fn().take(arguments.steps)]
  print(f"{model_config.family}: batches of {statistics.mean(lengths):.1f} tokens")
  return statistics.mean(flops.encoder_flops(model_config, length) for length in lengths)


def main() -> None:
  """Trains both models in turns and prints the ratios."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("data_dir")
  parser.add_argument("vocab_file")
  parser.add_argument("--task", default="sst-2")
  parser.add_argument("--length", type=int, default=128, help="max_seq_length")
  parser.add_argument("--batch_size", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=2)
  parser.add_argument("--steps", type=int, default=80)
  parser.add_argument("--examples", type=int, default=4000)
  arguments = parser.parse_args()
  times = {name: [] for name in MODELS}
  with tempfile.TemporaryDirectory() as work:
    paths = {name: os.path.join(work, f"{name}.json") for name in MODELS}
    for name, model_config in MODELS.items():
      with open(paths[name], "w") as writer:
        json.dump(model_config.to_dict(), writer)
    for index in range(arguments.rounds):
      for name in MODELS:
        times[name].append(
          seconds_per_example(paths[name], os.path.join(work, f"{name}-{index}"), arguments)
        )
        print(f"{name}: {1000 * times[name][-1]:.2f} ms per example", flush=True)
    counted = flops_per_example(paths["funnel"], arguments) / flops_per_example(
      paths["bert"], arguments
    )
  ratio = statistics.median(f / b for f, b in zip(times["funnel"], times["bert"], strict=True))
  print(
    f"time ratio {ratio:.3f}, FLOPs ratio {counted:.3f}, one over the other {ratio / counted:.3f}"
  )


if __name__ == "__main__":
  main()
