"""The commands of README.md and docs/, and a folder in which they run on tiny models and data."""

import glob
import json
import os
import re
import shlex
import shutil
import subprocess

import tensorflow as tf
import tiny
import tiny_race
import tiny_squad
from test_model_garden import write_module

import modeling

v1 = tf.compat.v1
PAGES = sorted(
  os.path.relpath(path, tiny.ROOT)
  for path in [
    *glob.glob(os.path.join(tiny.ROOT, "docs", "*.md")),
    *(os.path.join(tiny.ROOT, name) for name in ("README.md", "CONTRIBUTING.md")),
  ]
)

# Prints the commands instead of running them; changes files of the working folder alone.
_PRELUDE = """set -euo pipefail
python() { printf 'run '; printf '%q ' "TF_CONFIG=${TF_CONFIG-}" "$@"; echo; }
pip() { printf 'pip '; printf '%q ' "$@"; echo; }
tensorboard() { :; }
source() { test "$1" = .venv/bin/activate; }
.venv/bin/python() { python "$@"; }
.venv/bin/ruff() { :; }
.venv/bin/shellcheck() { :; }
.venv/bin/pyright() { :; }
.venv/bin/pre-commit() { :; }
bash() {
  local script=$ROOT/$1
  command bash -n "$script"
  if grep -q 'common.sh"' "$script"; then
    command bash "$script" --dry_run "${@:2}" | sed 's/^python /parse /'
  else
    printf 'shell '; printf '%q ' "$@"; echo
  fi
}
"""

_CEREBRAS_SIZES = {
  **{name: name for name in ("hidden_size", "num_hidden_layers", "vocab_size")},
  "num_heads": "num_attention_heads",
  "filter_size": "intermediate_size",
}


def read(page):
  with open(os.path.join(tiny.ROOT, page), encoding="utf-8") as reader:
    return reader.read()


def blocks(page):
  """[(language, text)] of the page's fenced blocks."""
  return re.findall(r"^```(\w*)\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)


def prose(page):
  """The page without its fenced blocks."""
  return re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)


def commands(page, folder, variables):
  """Commands of the page's shell blocks and of its text, in order: [(kind, word, ...), ...].

  Kinds: run (a Python script, after TF_CONFIG=...), parse (a Python command that a shell script
  prints), shell, pip.
  """
  in_text = re.findall(r"`((?:python|bash|pip) [^`]*)`", prose(page))
  in_text = [" ".join(command.split()) for command in in_text]
  text = "\n".join([text for kind, text in blocks(page) if kind == "shell"] + in_text)
  result = subprocess.run(
    ["bash", "-c", _PRELUDE + text],
    cwd=folder,
    capture_output=True,
    text=True,
    env=dict(os.environ, ROOT=tiny.ROOT, PYTHON="python", **variables),
  )
  assert result.returncode == 0, f"{page}: {result.stdout[-500:]}\n{result.stderr[-2000:]}"
  return [tuple(shlex.split(line)) for line in result.stdout.splitlines()]


# ---- The folder ---------------------------------------------------------------------------------


def write_workspace(folder):
  """Writes models and data under the names that the pages use; returns the variables."""
  _write_models(folder)
  for name in ("CoLA", "RTE"):
    tiny.write_cola(folder / "data" / "glue" / name, 32, 8, 4)
  _write_glue(folder / "data" / "glue")
  for version in ("v1.1", "v2.0"):
    for seed, split in enumerate(("train", "dev")):
      path = folder / "squad" / f"{split}-{version}.json"
      tiny_squad.write(path, 8, seed, unanswerable=version == "v2.0")
  tiny_race.write_race(folder / "data" / "RACE", (("train", 4), ("dev", 2), ("test", 2)))
  for name in ("train", "dev"):
    rows = [
      {"article": "the film", "question": "it was", "options": ["good", "bad"], "answer": "A"}
    ]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 8))
    words = "\n\n".join("the O\nfilm B-X" for _ in range(8))
    (folder / f"{name}.txt").write_text(words + "\n")
    (folder / "new.txt").write_text(words + "\n")
  for name in ("train", "dev", "new", "more"):
    rows = [f'"{text}",{label}' for text, label in tiny.sentences(32, 1)]
    (folder / f"reviews_{name}.csv").write_text("\n".join(["review,sentiment", *rows]) + "\n")
  (folder / "text").mkdir()
  lines = [text + " ." for text, _ in tiny.sentences(60, 1)]
  for name in ("text/a.txt", "book.txt"):
    (folder / name).write_text("\n".join(lines[:30]) + "\n\n" + "\n".join(lines[30:]) + "\n")
  return {
    "GLUE_DIR": "data/glue",
    "SQUAD_DIR": "squad",
    "BERT_BASE_DIR": "pretrained",
    "MODEL_DIR": "funnel",
  }


def _write_glue(folder):
  rows = list(tiny.sentences(32, 1))
  mrpc = [f"{label}\t1\t2\t{text}\t{text}" for text, label in rows]
  sst = [f"{text}\t{label}" for text, label in rows]
  mnli = [f"{i}\t{text}\t{text}\tneutral" for i, (text, _) in enumerate(rows)]
  for task, header, lines, names in (
    ("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", mrpc, ("train", "dev")),
    ("SST-2", "sentence\tlabel", sst, ("train", "dev")),
    (
      "MNLI",
      "index\tsentence1\tsentence2\tgold_label",
      mnli,
      ("train", "dev_matched", "dev_mismatched"),
    ),
  ):
    (folder / task).mkdir()
    for name in names:
      (folder / task / f"{name}.tsv").write_text("\n".join([header, *lines]) + "\n")


def _write_models(folder):
  """Tiny models in the place of the released ones, and their configurations."""
  shutil.copytree(os.path.join(tiny.ROOT, "configs"), folder / "configs")
  tiny.write_encoder(folder / "pretrained", num_layers=1, max_positions=512)
  for name in ("bert", "runs/squad-a", "runs/squad-b"):
    shutil.copytree(folder / "pretrained", folder / name)
  shutil.copy(folder / "pretrained" / "vocab.txt", folder)
  tiny.write_funnel(folder / "funnel")
  write_module(folder / "bert_en_uncased" / "4")
  bert = folder / "pretrained" / "bert_config.json"
  configs = folder / "configs" / "models"
  for name in ("bert_base", "bert_large"):
    shutil.copy(bert, configs / f"{name}.json")
  values = json.loads(bert.read_text())
  keys = "\n".join(f"    {name}: {value}" for name, value in values.items())
  (configs / "bert_en_uncased_base.yaml").write_text(f"model:\n  keys:\n{keys}\n")
  cerebras = folder / "configs" / "cerebras" / "params_bert_base_pretrain.yaml"
  text = cerebras.read_text()
  for key, size in _CEREBRAS_SIZES.items():
    text = re.sub(rf"\b{key}: \d+", f"{key}: {values[size]}", text)
  cerebras.write_text(text)
  electra = {**values, "embedding_size": 8, "model_type": "electra"}
  (configs / "electra_small.json").write_text(json.dumps(electra))
  target = folder / "electra_small"
  target.mkdir()
  shutil.copy(folder / "vocab.txt", target)
  with tf.Graph().as_default(), v1.Session() as session:
    config = modeling.load_config(str(configs / "electra_small.json"))
    features = {name: tf.ones([1, 4], tf.int32) for name in ("input_ids", "input_mask")}
    features["segment_ids"] = tf.zeros([1, 4], tf.int32)
    modeling.build_encoder(config, features, False).sequence_output()
    session.run(v1.global_variables_initializer())
    v1.train.Saver().save(session, str(target / "electra_small"), write_meta_graph=False)
