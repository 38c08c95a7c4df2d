"""Prints the GLUE table of finished runs, with the published scores, and draws it.

  python scripts/glue_table.py exp/glue                             the runs of scripts/glue.sh
  python scripts/glue_table.py mine=exp/glue base=exp/bert_base     several models, with names

Writes glue.md, glue.tsv and glue.png (needs matplotlib) to --output_dir, by default the first
folder. Scores are percent of the dev data: Matthews correlation (CoLA), Spearman correlation
(STS-B), accuracy (all others; MNLI matched). Each is the mean of the seeds +- their standard
deviation. The best checkpoint of a run counts, as in Funnel-Transformer's paper; with --last the
last one, as in BERT's.
"""

import argparse
import os
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import scores
from errors import UserError
from utils import files

HEADER = ["model", *scores.GLUE, "average"]


def own_row(runs: dict[str, dict[str, float]]) -> list[tuple[float, float] | None]:
  """Returns (mean, deviation) of each task and of the average; None for what is missing."""
  columns = [list(runs[task].values()) if task in runs else [] for task in scores.GLUE]
  columns.append(scores.glue_average(runs) if len(runs) == len(scores.GLUE) else [])
  return [
    (statistics.mean(values), scores.spread(values)) if values else None for values in columns
  ]


def published_rows() -> dict[str, list[float | None]]:
  """Returns model -> its scores; Funnel-Transformer's paper has figures of the average only."""
  missing: list[float | None] = [None] * len(scores.GLUE)
  funnels = {name: [*missing, values[0]] for name, values in scores.FUNNEL_ELECTRA.items()}
  electras = {
    name: [*values, round(statistics.mean(values), 1)] for name, values in scores.ELECTRA.items()
  }
  return {**funnels, **electras}


def table(own: dict[str, list[tuple[float, float] | None]], counts: dict[str, int]) -> list[list]:
  """Returns the rows of the table as text."""
  rows = [
    [f"{name} ({counts[name]} {'seed' if counts[name] == 1 else 'seeds'})"]
    + [f"{cell[0]:.1f} +- {cell[1]:.1f}" if cell else "" for cell in row]
    for name, row in own.items()
  ]
  for name, row in published_rows().items():
    rows.append([f"{name}, published"] + ["" if cell is None else f"{cell:.1f}" for cell in row])
  return rows


def markdown(rows: list[list[str]]) -> str:
  """Returns a Markdown table with HEADER."""
  lines = [HEADER, ["---"] * len(HEADER), *rows]
  return "".join("| " + " | ".join(row) + " |\n" for row in lines)


def draw(path: str, own: dict[str, list[tuple[float, float] | None]]) -> None:
  """Draws the scores of the tasks (left), and the averages (right)."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  figure, (tasks, averages) = pyplot.subplots(
    1, 2, figsize=(11, 5), width_ratios=(3, 2), layout="constrained"
  )
  for index, (name, row) in enumerate(scores.ELECTRA.items()):
    grey = f"{0.2 + 0.18 * index:.2f}"
    style = {"color": grey, "markersize": 22, "markeredgewidth": 2}
    tasks.plot(row, "_", label=f"{name}, published", **style)
  for index, (name, row) in enumerate(own.items()):
    shift = 0.1 * (index - (len(own) - 1) / 2)
    cells = [(place + shift, *cell) for place, cell in enumerate(row[:-1]) if cell]
    places, means, deviations = zip(*cells, strict=True)
    tasks.errorbar(places, means, deviations, fmt="o", capsize=4, color=f"C{index}", label=name)
  tasks.set_xticks(range(len(scores.GLUE)), list(scores.GLUE))
  tasks.set(ylabel="dev score (%)", title="GLUE tasks")
  tasks.grid(axis="y", alpha=0.3)
  tasks.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, fontsize=8)

  bars = [(name, (row[-1], 0.0), "0.6") for name, row in published_rows().items()]
  bars += [(name, row[-1], f"C{index}") for index, (name, row) in enumerate(own.items()) if row[-1]]
  bars.sort(key=lambda bar: bar[1][0])
  for place, (_, (mean, deviation), color) in enumerate(bars):
    averages.errorbar(mean, place, xerr=deviation or None, fmt="o", capsize=4, color=color)
    text = f"{mean:.1f}" + (f" +- {deviation:.1f}" if deviation else "")
    averages.annotate(
      text, (mean, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
    )
  averages.set_yticks(range(len(bars)), [name for name, _, _ in bars])
  averages.set(xlabel="dev score (%)", title="average (grey: published)")
  averages.margins(x=0.12, y=0.08)
  averages.grid(axis="x", alpha=0.3)
  with files.replacing(path) as temporary, files.open_file(temporary, "wb") as writer:
    figure.savefig(writer, format="png", dpi=120)


def main() -> None:
  """Writes the table and the figure."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("runs", nargs="+", help="folders of scripts/glue.sh, or NAME=FOLDER")
  parser.add_argument("--output_dir", help="folder of glue.md, glue.tsv and glue.png")
  parser.add_argument("--last", action="store_true", help="score the last checkpoint, not the best")
  arguments = parser.parse_args()
  own, counts = {}, {}
  try:
    for text in arguments.runs:
      name, _, folder = text.rpartition("=")
      name = name or os.path.basename(os.path.normpath(folder))
      runs = scores.glue_runs(folder, arguments.last)
      own[name], counts[name] = own_row(runs), max(map(len, runs.values()))
    output = arguments.output_dir or arguments.runs[0].rpartition("=")[2]
    files.make_dirs(output, "--output_dir")
    rows = table(own, counts)
    files.write_text(os.path.join(output, "glue.md"), markdown(rows))
    files.write_tsv(os.path.join(output, "glue.tsv"), [HEADER, *rows])
  except UserError as error:
    sys.exit(f"glue_table.py: error: {error}")
  print(markdown(rows), end="")
  try:
    draw(os.path.join(output, "glue.png"), own)
  except ImportError:
    print("No glue.png: pip install matplotlib draws it", file=sys.stderr)


if __name__ == "__main__":
  main()
