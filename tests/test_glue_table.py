"""The GLUE table and the figure of scores over FLOPs, from results written by hand."""

import json
import os
import subprocess
import sys

import pytest
import tiny

from benchmarks import scores
from errors import UserError

METRICS = {
  "CoLA": {"matthews": 0.5},
  "SST-2": {"accuracy": 0.9},
  "MRPC": {"f1": 0.9, "accuracy": 0.8},
  "STS-B": {"pearson": 0.1, "spearman": 0.8},
  "QQP": {"f1": 0.7, "accuracy": 0.9},
  "MNLI": {"accuracy_matched": 0.8, "accuracy_mismatched": 0.1},
  "QNLI": {"accuracy": 0.9},
  "RTE": {"accuracy": 0.6},
}


def write_run(folder, metrics, best=None):
  (folder / "best").mkdir(parents=True)
  (folder / "eval_results.json").write_text(json.dumps({"step": 4, **metrics}))
  (folder / "best" / "info.json").write_text(json.dumps({"step": 2, **(best or metrics)}))


def write_glue(folder):
  """Two seeds, of which the second is 0.02 better on every task."""
  for seed, gain in ((1, 0.0), (2, 0.02)):
    for task, metrics in METRICS.items():
      values = {name: value + gain for name, value in metrics.items()}
      write_run(folder / f"seed_{seed}" / task, values)


def run(program, *args, status=0):
  result = subprocess.run(
    [sys.executable, os.path.join(tiny.ROOT, program), *map(str, args)],
    capture_output=True,
    text=True,
  )
  assert result.returncode == status, result.stderr[-2000:]
  return result.stdout + result.stderr


def test_table_has_means_deviations_and_published_scores(tmp_path):
  write_glue(tmp_path / "glue")
  write_run(tmp_path / "other" / "seed_1" / "rte", {"accuracy": 0.5}, best={"accuracy": 0.7})
  out = run("scripts/glue_table.py", tmp_path / "glue", f"one task={tmp_path}/other")
  lines = (tmp_path / "glue" / "glue.md").read_text().splitlines()
  assert out.splitlines() == lines and lines[0].startswith("| model | CoLA | SST-2 |")
  # The deviation of 0 and 2 is sqrt(2); the mean of the tasks is 77.5 and 79.5.
  assert lines[2] == (
    "| glue (2 seeds) | 51.0 +- 1.4 | 91.0 +- 1.4 | 81.0 +- 1.4 | 81.0 +- 1.4 | 91.0 +- 1.4"
    " | 81.0 +- 1.4 | 91.0 +- 1.4 | 61.0 +- 1.4 | 78.5 +- 1.4 |"
  )
  assert lines[3] == "| one task (1 seed) |" + "  |" * 7 + " 70.0 +- 0.0 |  |", (
    "the best checkpoint"
  )
  assert "| B6-6-6H768, published |  |  |  |  |  |  |  |  | 88.3 |" in lines
  rows = (tmp_path / "glue" / "glue.tsv").read_text().splitlines()
  assert len(rows) == len(lines) - 1 and rows[1].split("\t")[9] == "78.5 +- 1.4"
  assert (tmp_path / "glue" / "glue.png").read_bytes().startswith(b"\x89PNG")
  args = ["--last", f"--output_dir={tmp_path}/last", tmp_path / "other"]
  assert "| 50.0 +- 0.0 |" in run("scripts/glue_table.py", *args)


def test_missing_results_are_named(tmp_path):
  error = run("scripts/glue_table.py", tmp_path, status=1)
  assert error == (
    f"glue_table.py: error: {tmp_path}: no runs. Run scripts/glue.sh, or name another folder\n"
  )
  write_run(tmp_path / "seed_1" / "CoLA", {"accuracy": 0.5})
  with pytest.raises(UserError, match="seed_1/CoLA: no matthews among the metrics of CoLA"):
    scores.glue_runs(str(tmp_path))


def test_published_averages_are_those_of_the_published_tasks():
  """Clark et al. 2020 give 89.5 for ELECTRA-Large."""
  values = scores.ELECTRA["ELECTRA-Large"]
  assert round(sum(values) / len(values), 1) == 89.5
  assert {len(row) for row in scores.ELECTRA.values()} == {len(scores.GLUE)}
