"""Rules of the code base: direction of imports, flags, file sizes, workers without TensorFlow."""

import ast
import fnmatch
import functools
import os
import re
import subprocess
import sys

import pytest
import tiny

# Modules and packages, lowest layer first. A file imports its own layer and lower ones.
LAYERS = (
  ("errors", "utils"),
  ("text", "models", "tokenization", "optimization", "modeling", "data_utils", "config"),
  ("tasks",),
  ("preprocessing",),
  ("training",),
  ("conversion",),
  ("serving",),
  (
    *("run_*", "create_*", "convert_checkpoint", "export_model", "extract_features", "train"),
    *("scripts", "benchmarks"),
  ),
)
MAX_LINES = 500
MAX_SCRIPT_LINES = 200

# Modules that worker processes load, or a program for --help: TensorFlow would cost each of them
# seconds and memory.
MODULES_WITHOUT_TENSORFLOW = (
  "config.py",
  "models/config_keys.py",
  "models/funnel_config.py",
  "create_pretraining_data.py",
  "preprocessing/pretraining_job.py",
  "preprocessing/pretraining_records.py",
  "preprocessing/tfrecord.py",
  "tasks/corpus.py",
  "tasks/pretraining_data.py",
  "tasks/registry.py",
  "tasks/settings.py",
  "training/app.py",
  "training/flags.py",
  "utils/*.py",
)

# Files that may read or define absl flags: path -> reason.
FLAGS_ALLOWED = {
  "training/flags.py": "defines and reads the flags of all settings",
  "models/funnel_config.py": "ModelConfig.init_from_flags is the original's interface",
  "tokenization.py": "get_tokenizer() without arguments is the original's interface",
  "data_utils.py": "setup_special_ids defines flags, as in the original",
  "convert_checkpoint.py": "its flags are no settings of a run, so config.py has none of them",
}

# What does not hold yet. Entries may only become fewer and sizes smaller.
KNOWN_IMPORTS: dict[tuple[str, str], str] = {}
KNOWN_FLAGS: dict[str, str] = {}  # path -> reason
KNOWN_LINES: dict[str, int] = {}  # path -> number of lines today


def tracked(*patterns):
  """Tracked files that match git's patterns, without those deleted in the working tree."""
  out = subprocess.run(
    ["git", "ls-files", "--cached", "-z", "--", *patterns],
    cwd=tiny.ROOT,
    capture_output=True,
    text=True,
  )
  if out.returncode:
    pytest.skip("needs a git checkout")
  names = filter(None, out.stdout.split("\0"))
  return [name for name in names if os.path.exists(os.path.join(tiny.ROOT, name))]


def read(path):
  with open(os.path.join(tiny.ROOT, path), encoding="utf-8") as reader:
    return reader.read()


@functools.cache
def imports(path):
  """Names of all imported modules, with those inside functions: {"os", "tasks.base", ...}.

  `from tasks import base` gives both "tasks" and "tasks.base".
  """
  names = set()
  for node in ast.walk(ast.parse(read(path), path)):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}:{node.lineno}: relative import"
      names.add(node.module)
      names.update(f"{node.module}.{alias.name}" for alias in node.names)
  return names


def top(name):
  return name.split(".")[0]


def layer(name):
  """Number of a top-level module's layer; None for other packages."""
  for number, patterns in enumerate(LAYERS):
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
      return number
  return None


def code_files():
  return [path for path in tracked("*.py") if not path.startswith("tests/")]


def own_layer(path):
  number = layer(path.removesuffix(".py").split("/")[0])
  assert number is not None, f"{path} is in none of LAYERS"
  return number


def is_module(name):
  """Whether `name` is a module of the repository, not a package or a name in a module."""
  return os.path.exists(os.path.join(tiny.ROOT, *name.split(".")) + ".py")


def is_upward(path, name):
  other = layer(top(name))
  return is_module(name) and other is not None and other > own_layer(path)


def is_script(path):
  return own_layer(path) == len(LAYERS) - 1


def lines_over_limit():
  """Path -> lines of each file that is longer than its limit."""
  counts = {path: read(path).count("\n") for path in tracked("*.py", "*.sh")}
  limits = {
    path: MAX_SCRIPT_LINES
    if not path.startswith("tests/") and (path.endswith(".sh") or is_script(path))
    else MAX_LINES
    for path in counts
  }
  return {path: count for path, count in counts.items() if count > limits[path]}


def test_imports_run_one_way():
  found = {(path, name) for path in code_files() for name in imports(path) if is_upward(path, name)}
  assert found - set(KNOWN_IMPORTS) == set(), "imports of a higher layer"
  assert set(KNOWN_IMPORTS) - found == set(), "no longer needed in KNOWN_IMPORTS"


def test_tasks_and_preprocessing_do_not_use_the_training_library():
  found = {
    (path, name)
    for path in code_files()
    if path.startswith(("tasks/", "preprocessing/"))
    for name in imports(path)
    if top(name) == "tensorflow_estimator" or (top(name) == "training" and is_module(name))
  }
  assert found - set(KNOWN_IMPORTS) == set()


def test_only_training_flags_uses_absl_flags():
  found = {
    path for path in code_files() for name in imports(path) if f"{name}.".startswith("absl.flags.")
  }
  assert not set(KNOWN_FLAGS) & set(FLAGS_ALLOWED)
  assert found - set(FLAGS_ALLOWED) - set(KNOWN_FLAGS) == set(), "files that import absl.flags"
  assert set(FLAGS_ALLOWED) - found == set(), "no longer needed in FLAGS_ALLOWED"
  assert set(KNOWN_FLAGS) - found == set(), "no longer needed in KNOWN_FLAGS"


def test_files_are_short():
  found = lines_over_limit()
  grown = {path: count for path, count in found.items() if count > KNOWN_LINES.get(path, 0)}
  assert grown == {}, (
    f"longer than {MAX_LINES} (scripts: {MAX_SCRIPT_LINES}) or than in KNOWN_LINES"
  )
  assert set(KNOWN_LINES) - set(found) == set(), "no longer needed in KNOWN_LINES"


def test_worker_and_configuration_modules_do_not_load_tensorflow():
  paths = [
    path for path in tracked(*MODULES_WITHOUT_TENSORFLOW) if not path.endswith("__init__.py")
  ]
  assert len(paths) >= 6
  modules = [path.removesuffix(".py").replace("/", ".") for path in paths]
  program = (
    "import importlib, sys\n"
    "for name in sys.argv[1:]:\n"
    "  importlib.import_module(name)\n"
    "  assert 'tensorflow' not in sys.modules, f'{name} loads TensorFlow'\n"
  )
  run_python(program, *modules)


def test_configurations_are_read_without_tensorflow():
  run_python(
    "import sys\n"
    "from models.funnel_config import ModelConfig\n"
    "ModelConfig.init_from_json('configs/models/B4-4-4H768.json').to_dict()\n"
    "assert 'tensorflow' not in sys.modules\n"
  )


def run_python(program, *args):
  result = subprocess.run(
    [sys.executable, "-c", program, *args], cwd=tiny.ROOT, capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr[-2000:]


def test_help_does_not_load_tensorflow():
  """It would take seconds; `-X importtime` lists every module that a program imports."""
  for script in ("run_classifier.py", "run_pretraining.py", "train.py"):
    result = subprocess.run(
      [sys.executable, "-X", "importtime", script, "--help"],
      cwd=tiny.ROOT,
      capture_output=True,
      text=True,
    )
    assert result.returncode == 0 and "--model_dir" in result.stdout
    assert not re.search(r"\| +tensorflow\b", result.stderr), script
