"""Splits the short Rotten Tomatoes reviews into train and dev, by a seed.

  python scripts/split_reviews.py REVIEWS.csv OUTPUT_DIR [SEED]

REVIEWS.csv has the columns text, label (0 or 1) and source. Writes train.csv (90%), dev.csv (10%)
and predict.csv (the first six texts of dev.csv, without labels).
"""

import csv
import os
import random
import sys
from collections.abc import Iterable, Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from errors import UserError
from tasks import readers
from utils import paths


def write(path: str, header: list[str], rows: Iterable[Sequence[str]]) -> None:
  """Writes a CSV file under a temporary name, then renames it."""
  with open(path + ".tmp", "w", encoding="utf-8", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)
  os.replace(path + ".tmp", path)


def main(reviews: str, output_dir: str, seed: str = "42") -> None:
  """Reads the reviews and writes the three files."""
  outputs = [os.path.join(output_dir, f"{name}.csv") for name in ("train", "predict", "dev")]
  try:
    paths.check_outputs([reviews], [path + end for path in outputs for end in ("", ".tmp")])
    rows = [
      (row["text_a"], row["label"])
      for _, row in readers.read_columns(
        reviews, readers.Columns("text", label="label", id="source"), "csv"
      )
      if row["id"] == "rotten_tomatoes"
    ]
  except UserError as error:
    sys.exit(f"split_reviews.py: error: {error}")
  if not rows:
    sys.exit(f"{reviews}: no rows whose source is rotten_tomatoes")
  random.Random(int(seed)).shuffle(rows)
  num_dev = len(rows) // 10
  dev, train = rows[:num_dev], rows[num_dev:]
  os.makedirs(output_dir, exist_ok=True)
  write(outputs[0], ["text", "label"], train)
  write(outputs[1], ["text"], [[text] for text, _ in dev[:6]])
  write(outputs[2], ["text", "label"], dev)
  print(f"{output_dir}: {len(train)} training rows, {len(dev)} dev rows")


if __name__ == "__main__":
  main(*sys.argv[1:])
