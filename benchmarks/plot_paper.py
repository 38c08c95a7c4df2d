"""Draws the published scores over the encoder's FLOPs, with your own results.

  python benchmarks/plot_paper.py --output=scores.png
  python benchmarks/plot_paper.py --glue=exp/glue --race=exp/race --squad=exp/squad
  python benchmarks/plot_paper.py --mlm=exp/glue_mlm --glue=mine=exp/glue --glue=other=exp/glue2

FOLDER or NAME=FOLDER: --glue (and --mlm, for models of masked-token pretraining) is a folder of
scripts/glue.sh, --race and --squad a run's model_dir, with eval_results.json and the model's
configuration. GLUE's average needs all tasks. The best checkpoint counts; with --last the last one.
FLOPs are those of benchmarks/flops.py at length 128 (GLUE) or 512, relative to a transformer of
BERT-base's size (L12H768). Needs matplotlib.
"""

import argparse
import glob
import os
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import modeling
from benchmarks import flops, scores
from errors import UserError
from models.flops import encoder_flops
from utils import files

# Option -> (title, length of the examples, metric, published scores).
PANELS = {
  "mlm": ("GLUE average, MLM", 128, "", {k: v[0] for k, v in scores.FUNNEL_MLM.items()}),
  "glue": ("GLUE average, ELECTRA", 128, "", {k: v[0] for k, v in scores.FUNNEL_ELECTRA.items()}),
  "race": ("RACE accuracy", 512, "accuracy", {k: v[1] for k, v in scores.FUNNEL_ELECTRA.items()}),
  "squad": ("SQuAD v2.0 F1", 512, "best_f1", {k: v[2] for k, v in scores.FUNNEL_ELECTRA.items()}),
}

# Model -> (offset of its label in points, horizontal alignment), so that labels do not overlap.
LABELS = {
  "L12H768": ((7, -3), "left"),
  "B4-4-4H768": ((0, -13), "center"),
  "B6-3x2-3x2H768": ((-7, 1), "right"),
  "B6-6-6H768": ((0, 7), "center"),
  "L24H1024": ((0, -13), "center"),
  "B8-8-8H1024": ((0, -13), "center"),
  "B10-10-10H1024": ((0, 7), "center"),
}


def relative_flops(config: modeling.Config, length: int) -> float:
  """Returns an encoder's forward FLOPs, as a multiple of those of L12H768."""
  return encoder_flops(config, length) / encoder_flops(flops.STANDARD["L12H768"], length)


def released(name: str) -> modeling.Config:
  """Returns the configuration of a published model."""
  return flops.STANDARD.get(name) or modeling.released_funnel(name)


def own_point(panel: str, folder: str, is_last: bool) -> tuple[float, float, float]:
  """Returns (relative FLOPs, score in percent, its standard deviation) of own results.

  Raises:
    UserError: a result or the model's configuration is missing.
  """
  _, length, metric, _ = PANELS[panel]
  pattern = "*" if metric else os.path.join("seed_*", "*", "*")
  configs = [
    path
    for name in ("net_config.json", "bert_config.json")
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    if os.path.basename(path) == name
  ]
  if not metric:
    runs = scores.glue_runs(folder, is_last)
    missing = [task for task in scores.GLUE if task not in runs]
    averages = scores.glue_average(runs)
    if missing or not averages:
      raise UserError(f"{folder}: the average needs a seed with all tasks; missing {missing}")
    score, deviation = statistics.mean(averages), scores.spread(averages)
  else:
    metrics = scores.read_metrics(folder, is_last)
    if metric not in metrics:
      raise UserError(f"{folder}: no {metric} among the metrics; is it a run of --{panel}?")
    value = metrics[metric]
    score, deviation = (value if panel == "squad" else 100 * value), 0.0
  if not configs:
    raise UserError(f"{folder}: no net_config.json or bert_config.json for the FLOPs")
  return relative_flops(modeling.load_config(configs[0]), length), score, deviation


def draw_panel(axes, panel: str, points: dict[str, tuple[float, float, float]]) -> None:
  """Draws the published models, joined by size, and own points."""
  title, length, _, published = PANELS[panel]
  for size, marker in (("H768", "s"), ("H1024", "D")):
    for is_funnel, style in ((True, "-"), (False, "")):
      names = [n for n in published if n.endswith(size) and n.startswith("B") == is_funnel]
      if names:
        places = [relative_flops(released(name), length) for name in names]
        values = [published[name] for name in names]
        axes.plot(places, values, marker + style, color="0.35" if is_funnel else "black")
  for name, value in published.items():
    offset, side = LABELS[name]
    place = (relative_flops(released(name), length), value)
    style = {"textcoords": "offset points", "ha": side, "fontsize": 7}
    axes.annotate(name, place, xytext=offset, **style)
  for index, (name, (place, score, deviation)) in enumerate(points.items()):
    axes.errorbar(
      place, score, deviation or None, fmt="o", capsize=4, color=f"C{index}", label=name
    )
  axes.set(
    title=title, xlabel=f"encoder FLOPs at length {length} (L12H768 = 1)", ylabel="dev score"
  )
  axes.margins(0.3, 0.14)
  axes.set_xlim(left=0)
  axes.grid(alpha=0.3)
  if points:
    axes.legend(loc="lower right", fontsize=8)


def main() -> None:
  """Writes the figure and prints own points."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for panel, (title, *_) in PANELS.items():
    parser.add_argument(f"--{panel}", action="append", default=[], help=f"own results: {title}")
  parser.add_argument("--output", default="scores.png", help="file of the figure")
  parser.add_argument("--last", action="store_true", help="score the last checkpoint, not the best")
  arguments = parser.parse_args()
  own: dict[str, dict[str, tuple[float, float, float]]] = {panel: {} for panel in PANELS}
  try:
    for panel in PANELS:
      for text in getattr(arguments, panel):
        name, _, folder = text.rpartition("=")
        name = name or os.path.basename(os.path.normpath(folder))
        own[panel][name] = place, score, deviation = own_point(panel, folder, arguments.last)
        print(f"{PANELS[panel][0]}: {name} {score:.1f} +- {deviation:.1f} at {place:.2f}")
    import matplotlib
  except UserError as error:
    sys.exit(f"plot_paper.py: error: {error}")
  except ImportError:
    sys.exit("plot_paper.py: error: pip install matplotlib")

  matplotlib.use("Agg")
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(2, 2, figsize=(10, 8), layout="constrained")
  for panel, part in zip(PANELS, axes.flat, strict=True):
    draw_panel(part, panel, own[panel])
  with files.replacing(arguments.output) as temporary:
    figure.savefig(temporary, format="png", dpi=120)
  print(arguments.output)


if __name__ == "__main__":
  main()
