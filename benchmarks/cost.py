"""Prints the cost of the published recipes in TPU or GPU hours, computed from FLOPs.

  python benchmarks/cost.py                                  all recipes (docs/reproduction.md)
  python benchmarks/cost.py --utilization=0.4                another share of the peak speed
  python benchmarks/cost.py CONFIG.json --length=512 --sequences=384000 --decoder     your own run

An update costs three forward passes. The count has all matrix products of the encoder (with the
relative terms), of the decoder if the task uses it, and of the vocabulary's logits in pretraining.
All sequences have the maximum length; shorter batches cost less. The share of the peak speed that a
run reaches is an assumption, not a measurement.
"""

import argparse
import dataclasses
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import modeling
from benchmarks import flops, scores
from models import bert_heads, funnel_heads
from models.flops import decoder_flops, encoder_flops
from training import recipes

# Device -> peak TFLOPs per second of its usual precision, from the data sheets.
PEAKS = {"V100 fp32": 15.7, "A100 bf16": 312, "TPU v2-8": 180, "TPU v3-8": 420}
EXAMPLES = {  # training examples
  "CoLA": 8551,
  "SST-2": 67349,
  "MRPC": 3668,
  "STS-B": 5749,
  "QQP": 363846,
  "MNLI": 392702,
  "QNLI": 104743,
  "RTE": 2490,
}
SQUAD = {"v1.1": 87599, "v2.0": 130319}  # questions
ELECTRA_FILES = {"ELECTRA-Small": "small", "ELECTRA-Base": "base", "ELECTRA-Large": "large"}


@dataclasses.dataclass
class Run:
  """A training run.

  Attributes:
    name: its name in the table.
    config: configuration of the model.
    length: tokens of a sequence.
    sequences: sequences of all updates.
    has_decoder: the head is on a Funnel's decoder.
    predictions: logits over the vocabulary for each sequence.
    generator: configuration of ELECTRA's generator.
  """

  name: str
  config: modeling.Config
  length: int
  sequences: float
  has_decoder: bool = False
  predictions: int = 0
  generator: modeling.Config | None = None

  def flops(self) -> float:
    """FLOPs of all updates."""
    total = 0
    for config in filter(None, (self.config, self.generator)):
      total += encoder_flops(config, self.length, relative=True)
      if self.has_decoder and isinstance(config, modeling.ModelConfig):
        total += decoder_flops(config, self.length, relative=True)
    owner = self.generator or self.config
    width = owner.embedding_width if isinstance(owner, modeling.BertConfig) else owner.d_embed
    total += 2 * self.predictions * width * owner.vocab_size
    return 3.0 * total * self.sequences


def glue_sequences(family: str) -> float:
  """Returns the training examples of all eight tasks, times the epochs of their recipes."""
  return sum(
    count * recipes.load(family, "classification", task.lower())["num_train_epochs"]
    for task, count in EXAMPLES.items()
  )


def funnel_runs() -> list[Run]:
  """Returns the runs of Funnel-Transformer's paper, with the wrappers' settings."""
  runs = []
  for name in scores.FUNNEL_ELECTRA:
    config = modeling.released_funnel(name)
    generator = funnel_heads.generator_config(config)
    runs += [
      Run(f"{name}: GLUE, one seed", config, 128, glue_sequences("funnel")),
      Run(f"{name}: IMDB", config, 512, 4000 * 32),
      Run(f"{name}: RACE", config, 512, 24000 * 16 * 4),
      Run(f"{name}: SQuAD v2.0", config, 512, 8000 * 48, True),
      Run(f"{name}: pretraining, MLM", config, 512, 256e6, True, 85),
      Run(f"{name}: pretraining, ELECTRA", config, 512, 256e6, True, 85, generator),
    ]
  return runs


def bert_runs() -> list[Run]:
  """Returns the runs of BERT's and ELECTRA's released commands."""
  runs = []
  for name, size in (("BERT-base", "L12H768"), ("BERT-large", "L24H1024")):
    config = flops.STANDARD[size]
    runs += [
      Run(f"{name}: MRPC", config, 128, 3 * EXAMPLES["MRPC"]),
      Run(f"{name}: SQuAD v1.1", config, 384, 2 * SQUAD["v1.1"]),
      Run(f"{name}: pretraining, 128 tokens", config, 128, 0.9 * 256e6, predictions=20),
      Run(f"{name}: pretraining, 512 tokens", config, 512, 0.1 * 256e6, predictions=76),
    ]
  for name, size in ELECTRA_FILES.items():
    path = os.path.join(os.path.dirname(recipes.EXPERIMENTS_DIR), "models", f"electra_{size}.json")
    config = modeling.load_config(path)
    runs += [
      Run(f"{name}: GLUE, one seed", config, 128, glue_sequences("electra")),
      Run(f"{name}: SQuAD v1.1", config, 512, 2 * SQUAD["v1.1"]),
      Run(f"{name}: SQuAD v2.0", config, 512, 2 * SQUAD["v2.0"]),
    ]
    if size == "small":
      generator = bert_heads.generator_config(config)
      runs.append(Run(f"{name}: pretraining", config, 128, 128e6, False, 20, generator))
  return runs


def hours(value: float) -> str:
  """Formats hours: 0.03, 0.5, 12 or 1,234."""
  return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def table(runs: list[Run], utilization: float) -> str:
  """Returns a Markdown table of FLOPs and hours on every device."""
  header = ["run", "PFLOPs", *(f"{device}, h" for device in PEAKS)]
  lines = [header, ["---"] * len(header)]
  for run in runs:
    total = run.flops()
    times = (total / (peak * 1e12 * utilization) / 3600 for peak in PEAKS.values())
    lines.append([run.name, f"{total / 1e15:,.0f}", *map(hours, times)])
  return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> None:
  """Prints the costs of the recipes, or of the given configuration."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("config", nargs="?", help="configuration file of your own run")
  parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
  parser.add_argument("--sequences", type=float, default=1e6, help="updates x batch size")
  parser.add_argument("--decoder", action="store_true", help="the task uses a Funnel's decoder")
  parser.add_argument("--utilization", type=float, default=0.3, help="share of the peak speed")
  arguments = parser.parse_args()
  if arguments.config:
    config = modeling.load_config(arguments.config)
    runs = [Run(arguments.config, config, arguments.length, arguments.sequences, arguments.decoder)]
  else:
    runs = [*funnel_runs(), *bert_runs()]
  print(table(runs, arguments.utilization), end="")


if __name__ == "__main__":
  main()
