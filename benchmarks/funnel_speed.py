"""Training time of a 4_4_4 Funnel beside BERT of the same width and depth, on the same data.

  python benchmarks/funnel_speed.py DATA_DIR VOCAB_FILE [--task=sst-2] [--rounds=2] [--steps=40]

Both are as wide as MiniLM (384), 12 layers deep, and start from random weights. They are trained in
turns through run_classifier.py; the ratio of the times per example is printed beside the ratio of
the FLOPs (benchmarks/flops.py) at max_seq_length.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import modeling
from benchmarks import flops

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VOCAB_SIZE = 30522
MODELS = {
    "bert": modeling.BertConfig(VOCAB_SIZE, 384, 12, 12, 1536, type_vocab_size=2),
    "funnel": modeling.ModelConfig(VOCAB_SIZE, "4_4_4", d_model=384, d_embed=384, n_head=12,
                                   d_head=32, d_inner=1536),
}


def seconds_per_example(config_file: str, folder: str, arguments: argparse.Namespace) -> float:
  """Trains for a few steps and reads the speed from metrics.jsonl."""
  subprocess.run(
      [sys.executable, os.path.join(ROOT, "run_classifier.py"), f"--task_name={arguments.task}",
       "--do_train", f"--data_dir={arguments.data_dir}", f"--vocab_file={arguments.vocab_file}",
       f"--model_config={config_file}", "--init_checkpoint=none", f"--model_dir={folder}",
       f"--output_dir={os.path.dirname(folder)}/records",
       f"--train_batch_size={arguments.batch_size}",
       f"--max_seq_length={arguments.length}", f"--train_steps={arguments.steps}",
       f"--max_train_examples={arguments.examples}"],
      check=True, capture_output=True)
  with open(os.path.join(folder, "metrics.jsonl")) as reader:
    return 1 / json.loads(reader.read().splitlines()[-1])["examples_per_second"]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("data_dir")
  parser.add_argument("vocab_file")
  parser.add_argument("--task", default="sst-2")
  parser.add_argument("--length", type=int, default=128, help="max_seq_length")
  parser.add_argument("--batch_size", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=2)
  parser.add_argument("--steps", type=int, default=40)
  parser.add_argument("--examples", type=int, default=4000)
  arguments = parser.parse_args()
  times = {name: [] for name in MODELS}
  with tempfile.TemporaryDirectory() as work:
    for name, config in MODELS.items():
      with open(os.path.join(work, f"{name}.json"), "w") as writer:
        json.dump(config.to_dict(), writer)
    for index in range(arguments.rounds):
      for name in MODELS:
        times[name].append(seconds_per_example(
            os.path.join(work, f"{name}.json"), os.path.join(work, f"{name}-{index}"), arguments))
        print(f"{name}: {1000 * times[name][-1]:.2f} ms per example", flush=True)
  ratio = statistics.median(f / b for f, b in zip(times["funnel"], times["bert"], strict=True))
  counted = flops.encoder_flops(MODELS["funnel"], arguments.length) / flops.encoder_flops(
      MODELS["bert"], arguments.length)
  print(f"time ratio {ratio:.3f}, FLOPs ratio {counted:.3f}")


if __name__ == "__main__":
  main()
