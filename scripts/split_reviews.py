"""Makes a seeded train/dev split of the short Rotten Tomatoes reviews.

  python scripts/split_reviews.py REVIEWS.csv OUTPUT_DIR [SEED]

REVIEWS.csv has the columns text, label (0 or 1) and source. Writes train.csv (90%), dev.csv (10%)
and predict.csv (the first six texts of dev.csv, without labels).
"""

import csv
import os
import random
import sys


def write(path, header, rows):
  with open(path + ".tmp", "w", encoding="utf-8", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)
  os.replace(path + ".tmp", path)


def main(reviews, output_dir, seed="42"):
  with open(reviews, encoding="utf-8", newline="") as file:
    rows = [(row["text"], row["label"]) for row in csv.DictReader(file)
            if row["source"] == "rotten_tomatoes"]
  if not rows:
    sys.exit(f"{reviews}: no rows whose source is rotten_tomatoes")
  random.Random(int(seed)).shuffle(rows)
  num_dev = len(rows) // 10
  dev, train = rows[:num_dev], rows[num_dev:]
  os.makedirs(output_dir, exist_ok=True)
  write(os.path.join(output_dir, "train.csv"), ["text", "label"], train)
  write(os.path.join(output_dir, "predict.csv"), ["text"], [[text] for text, _ in dev[:6]])
  write(os.path.join(output_dir, "dev.csv"), ["text", "label"], dev)
  print(f"{output_dir}: {len(train)} training rows, {len(dev)} dev rows")


if __name__ == "__main__":
  main(*sys.argv[1:])
