"""Writes a page about a run, as one HTML file that opens from the disk.

  python scripts/report.py MODEL_DIR [--output=FILE.html]

The page has the settings, curves of losses, learning rate and metrics, the scores, the throughput,
and of the last evaluation: confusion matrix (classification), exact match and F1 by length (SQuAD),
accuracy by kind of question (RACE), and the worst mistakes. Their texts are read from the data that
params.yaml names. What the folder lacks is listed at the top. The default output is
MODEL_DIR/report.html. Needs Jinja2: pip install -r requirements-report.txt
"""

import argparse
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from errors import UserError  # noqa: E402
from utils import files  # noqa: E402


def render(model_dir: str) -> str:
  """Returns the page.

  Raises:
    UserError: Jinja2 is not installed, or the folder is not a run's.
  """
  try:
    import jinja2
  except ImportError:
    raise UserError(
      "the page needs the package Jinja2: pip install -r requirements-report.txt"
    ) from None
  from training import charts, report

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.join(ROOT, "training")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template("report.html").render(
    report=report.collect(model_dir),
    width=charts.WIDTH,
    height=charts.HEIGHT,
    left=charts.LEFT,
    right=charts.WIDTH - charts.RIGHT,
  )


def main(arguments: list[str] | None = None) -> None:
  """Reads the arguments and writes the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("model_dir", help="folder of a run")
  parser.add_argument("--output", default="", help="the page; default: MODEL_DIR/report.html")
  given = parser.parse_args(arguments)
  output = given.output or os.path.join(given.model_dir, "report.html")
  try:
    if not output.endswith((".html", ".htm")):
      raise UserError(f"--output={output}: the page's name must end with .html")
    files.write_text(output, render(given.model_dir))
  except UserError as error:
    sys.exit(f"report.py: error: {error}")
  print(output)


if __name__ == "__main__":
  main()
