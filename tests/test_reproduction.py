"""Every command of docs/reproduction.md parses; its figures are those of the code."""

import argparse
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest
import tiny
from test_glue_table import write_glue, write_run

import modeling
from benchmarks import cost, plot_paper, scores

with open(os.path.join(tiny.ROOT, "docs", "reproduction.md"), encoding="utf-8") as reader:
  PAGE = reader.read()

# Prints Python commands, gives --dry_run to shell scripts, changes no file.
PRELUDE = """set -euo pipefail
python() { printf 'python '; printf '%q ' "$@"; echo; }
bash() { command bash "$@" --dry_run; }
cp() { test -f "$1"; }
mkdir() { :; }
"""
# Parses the flags of a script without running it; stdin: [[argument, ...], ...].
PARSER = """
import json, runpy, sys
from absl import app, flags

commands, script = json.load(sys.stdin), sys.argv[1]
def parse_all(main, flags_parser):
  for command in commands:
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
      flags.FLAGS[name].unparse()
    if len(flags_parser([script, *command])) > 1:
      sys.exit(f"not a flag: {command}")
app.run = parse_all
sys.argv = [script]
runpy.run_path(script, run_name="__main__")
"""


def parse_flags(script, commands):
  """Returns "", or the error of the first command with a wrong flag."""
  result = subprocess.run(
    [sys.executable, "-c", PARSER, script],
    input=json.dumps(commands),
    cwd=tiny.ROOT,
    capture_output=True,
    text=True,
    env=dict(os.environ, PYTHONPATH=tiny.ROOT),
  )
  return result.stderr if result.returncode else ""


def parse_arguments(script, commands, monkeypatch):
  """Parses the arguments of a program with argparse; a wrong one raises SystemExit(2)."""
  parse = argparse.ArgumentParser.parse_args

  def parse_all(parser):
    for command in commands:
      parse(parser, command)
    sys.exit(0)

  monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_all)
  with pytest.raises(SystemExit) as ended:
    runpy.run_path(os.path.join(tiny.ROOT, script), run_name="__main__")
  assert ended.value.code == 0
  monkeypatch.undo()


def printed_commands(tmp_path):
  """Script -> argument lists of the Python commands of the page and of its shell scripts."""
  blocks = re.findall(r"```shell\n(.*?)```", PAGE, re.DOTALL)
  script = PRELUDE + "\n".join(blocks)
  script = re.sub(r"> exp/(\w+\.json)", rf"> {tmp_path}/\1", script)
  result = subprocess.run(
    ["bash", "-c", script],
    cwd=tiny.ROOT,
    capture_output=True,
    text=True,
    env=dict(os.environ, PYTHON="python"),
  )
  assert result.returncode == 0, result.stderr[-2000:]
  found = {}
  for line in result.stdout.splitlines():
    words = shlex.split(line)
    if words and words[0] == "python":
      found.setdefault(words[1], []).append(words[2:])
  return found


def test_every_command_parses(tmp_path, monkeypatch):
  found = printed_commands(tmp_path)
  config = json.loads((tmp_path / "L12H768.json").read_text())
  assert (config["block_size"], config["decoder_size"], config["d_model"]) == ("12", "0", 768)
  config = modeling.load_config(str(tmp_path / "L12H768.json"))
  assert plot_paper.relative_flops(config, 128) == 1
  programs = {"scripts/glue_table.py", "benchmarks/plot_paper.py"}
  assert programs | {"run_classifier.py", "run_squad.py", "run_pretraining.py"} < set(found)
  for script, commands in found.items():
    if script in programs:
      parse_arguments(script, commands, monkeypatch)
    else:
      assert parse_flags(script, commands) == "", script
  assert "no_such_flag" in parse_flags("run_squad.py", [["--do_train"], ["--no_such_flag=1"]])


def test_costs_are_current():
  runs = [*cost.funnel_runs(), *cost.bert_runs()]
  assert cost.table(runs, 0.3) in PAGE, "insert the output of benchmarks/cost.py"
  assert cost.table(runs[:1], 0.15) not in PAGE


def test_cost_of_small_electra_is_near_the_published_one():
  """Clark et al. 2020, table 1: 1.4e18 FLOPs, which include element-wise operations."""
  (found,) = [run for run in cost.bert_runs() if run.name == "ELECTRA-Small: pretraining"]
  assert 0.75 < found.flops() / 1.4e18 < 1


@pytest.mark.parametrize("name", scores.FUNNEL_ELECTRA)
def test_published_scores_of_the_page(name):
  values = " | ".join(map(str, scores.FUNNEL_ELECTRA[name]))
  assert f"| {name} | {values} |" in PAGE
  score, time = scores.FUNNEL_MLM[name]
  assert f"| {name} | {score} | {time} |" in PAGE


def test_figure_has_own_results(tmp_path, monkeypatch, capsys):
  def draw(*args):
    monkeypatch.setattr(sys, "argv", ["plot_paper.py", *args])
    plot_paper.main()
    return capsys.readouterr().out

  write_glue(tmp_path / "glue")
  write_run(tmp_path / "squad", {"f1": 80.0, "best_f1": 82.5})
  write_run(tmp_path / "race", {"accuracy": 0.75})
  for folder in ("glue/seed_1/CoLA", "squad", "race"):
    config = os.path.join(tiny.ROOT, "configs", "models", "B4-4-4H768.json")
    shutil.copy(config, tmp_path / folder / "net_config.json")
  options = [f"--{name}=mine={tmp_path}/{name}" for name in ("glue", "squad", "race")]
  out = draw(*options, f"--output={tmp_path}/scores.png")
  assert "GLUE average, ELECTRA: mine 78.5 +- 1.4 at 0.59\n" in out
  assert "RACE accuracy: mine 75.0 +- 0.0 at 0.58\n" in out
  assert "SQuAD v2.0 F1: mine 82.5 +- 0.0 at 0.58\n" in out
  assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
  with pytest.raises(
    SystemExit, match="race: no best_f1 among the metrics; is it a run of --squad"
  ):
    draw(f"--squad={tmp_path}/race")
  os.remove(tmp_path / "race" / "net_config.json")
  with pytest.raises(SystemExit, match="no net_config.json or bert_config.json for the FLOPs"):
    draw(f"--race={tmp_path}/race")
