"""The README's program and flags work."""

import os
import re
import subprocess
import sys

import tiny


def test_library_program_of_the_readme_runs(tmp_path):
  with open(os.path.join(tiny.ROOT, "README.md"), encoding="utf-8") as reader:
    (program,) = re.findall(r"```python\n(.*?)```", reader.read(), re.DOTALL)
  tiny.write_encoder(tmp_path / "pretrained")
  result = subprocess.run(
    [sys.executable, "-c", program],
    cwd=tmp_path,
    text=True,
    capture_output=True,
    env=dict(os.environ, PYTHONPATH=tiny.ROOT),
  )
  assert result.returncode == 0, result.stderr[-2000:]
  assert re.fullmatch(r"\(1, \d+, 16\)\n", result.stdout)


def test_task_of_the_contributors_page_trains(tmp_path):
  """The tagger is a complete task in under 60 lines of code."""
  with open(os.path.join(tiny.ROOT, "CONTRIBUTING.md"), encoding="utf-8") as reader:
    (program,) = re.findall(r"```python\n(.*?)```", reader.read(), re.DOTALL)
  body = program[program.index("@dataclasses.dataclass") :]
  assert sum(bool(line.strip()) for line in body.splitlines()) < 60
  (tmp_path / "my_tagger.py").write_text(program)
  label_of = {**dict.fromkeys(tiny.GOOD + tiny.BAD, "ADJ"), "film": "NOUN", "story": "NOUN"}
  for name, seed in (("train", 1), ("dev", 2)):
    lines = [
      " ".join(f"{word}/{label_of.get(word, 'O')}" for word in text.split())
      for text, _ in tiny.sentences(96, seed)
    ]
    (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
  tiny.write_encoder(tmp_path / "pretrained", dropout=0.0)
  result = subprocess.run(
    [sys.executable, "my_tagger.py", "--train_file=train.txt", "--eval_file=dev.txt"]
    + ["--max_seq_length=16", "--num_train_epochs=8", "--learning_rate=1e-2", "--seed=1"],
    cwd=tmp_path,
    text=True,
    capture_output=True,
    env=dict(os.environ, PYTHONPATH=tiny.ROOT, TF_CPP_MIN_LOG_LEVEL="3"),
  )
  assert result.returncode == 0, result.stderr[-2000:]
  (accuracy,) = re.findall(r"word_labels dev: accuracy ([\d.]+)", result.stdout)
  assert float(accuracy) > 0.95, result.stdout


def test_flags_of_the_readme_exist():
  """Every --flag that the README names is a flag of a script (or of a shell script)."""
  with open(os.path.join(tiny.ROOT, "README.md"), encoding="utf-8") as reader:
    named = set(re.findall(r"--(?:no)?([a-z]\w*[a-z\d])\b", reader.read()))
  known = set()
  for script in (
    "run_classifier.py",
    "run_squad.py",
    "run_race.py",
    "run_tagger.py",
    "train.py",
    "run_pretraining.py",
    "create_finetuning_data.py",
    "create_pretraining_data.py",
    "convert_checkpoint.py",
    "scripts/build_vocab.py",
  ):
    out, _ = tiny.run(script, "--help")
    known |= set(re.findall(r"--(?:\[no\])?(\w+)", out))
  # Flags of the wrappers, of every script, and of TensorBoard.
  assert named - known == {"help", "dry_run", "logdir"}
