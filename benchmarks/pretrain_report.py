"""Plots and summarizes the runs of pretrain_small.sh; needs matplotlib (pip install matplotlib).

  python benchmarks/pretrain_report.py OUTPUT_DIR

Writes the losses over the updates to OUTPUT_DIR/pretraining.png, and prints the SST-2 accuracies.
"""

import collections
import glob
import json
import os
import statistics
import sys

# (title of a panel, (run, metric to plot) pairs)
PANELS = (
  (
    "BERT: loss per masked token",
    (("bert_short", "loss_mlm"), ("bert_bert", "loss_mlm"), ("bert_electra", "loss_gen")),
  ),
  (
    "Funnel: loss per masked token",
    (("funnel_first", "loss"), ("funnel_mlm", "loss"), ("funnel_electra", "loss_gen")),
  ),
  (
    "ELECTRA's discriminator: loss * 50",
    (("bert_electra", "loss_disc"), ("funnel_electra", "loss_disc")),
  ),
)
SMOOTHED = 10  # number of points of the log to average


def read_log(folder: str, kind: str) -> list[dict]:
  """Returns the lines of a kind in a run's metrics.jsonl."""
  with open(os.path.join(folder, "metrics.jsonl")) as reader:
    return [entry for entry in map(json.loads, reader) if entry["kind"] == kind]


def draw(output: str) -> None:
  """Writes pretraining.png."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(1, len(PANELS), figsize=(11, 4), constrained_layout=True)
  for panel, (title, runs) in zip(axes, PANELS, strict=True):
    for run, metric in runs:
      if not os.path.exists(os.path.join(output, run, "metrics.jsonl")):
        continue
      entries = read_log(os.path.join(output, run), "train")
      chunks = [entries[i : i + SMOOTHED] for i in range(0, len(entries), SMOOTHED)]
      panel.plot(
        [chunk[-1]["step"] for chunk in chunks],
        [statistics.mean(entry[metric] for entry in chunk) for chunk in chunks],
        label=f"{run} ({metric})",
      )
    panel.set(title=title, xlabel="update")
    panel.grid(alpha=0.3)
    panel.legend()
  figure.savefig(os.path.join(output, "pretraining.png"), dpi=110)


def accuracies(output: str) -> dict[str, list[float]]:
  """Returns run -> best SST-2 accuracy of each seed, in percent."""
  found = collections.defaultdict(list)
  for folder in sorted(glob.glob(os.path.join(glob.escape(output), "sst2", "*"))):
    run = os.path.basename(folder).rsplit(".", 1)[0]
    entries = read_log(folder, "eval")
    found[run].append(100 * max(entry["accuracy"] for entry in entries))
  return found


def main() -> None:
  """Plots the losses and prints the accuracies."""
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  draw(sys.argv[1])
  for run, values in sorted(accuracies(sys.argv[1]).items()):
    spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    print(f"{run}: {statistics.mean(values):.2f}{spread} ({len(values)} seeds)")


if __name__ == "__main__":
  main()
