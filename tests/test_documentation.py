"""README.md and docs/: every command runs or parses, and every link, path and flag exists."""

import glob
import os
import re

import pytest
import tiny
import tiny_commands
import tiny_pages

# Written elsewhere; a missing one is no error.
# Their commands have tests of their own.
OTHER_TESTS = {"docs/reproduction.md", "docs/serving.md"}
# Real data, released models or minutes of time: only the flags are checked.
FLAGS_ONLY_PAGES = {"docs/results.md", "CONTRIBUTING.md"}
TRAINERS = {
  *("run_classifier.py", "run_squad.py", "run_race.py", "run_tagger.py", "run_pretraining.py"),
  *("train.py", "my_tagger.py"),
}
SCRIPTS = [os.path.basename(path) for path in sorted(glob.glob(os.path.join(tiny.ROOT, "*.py")))]
# Its first pretraining makes one update, because later commands of the page read its result.
PRETRAINING = "docs/pretraining.md"
# Flags of shell scripts, of TensorBoard, and of the documented scripts that have no absl flags.
OTHER_FLAGS = {
  *("help", "dry_run", "logdir", "output", "smoke", "test", "pretrained_only"),
  *("examples", "rounds", "steps", "utilization"),  # of benchmarks
  "no",  # pip's --no-deps
}


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
  """(folder, variables, process that runs commands there)."""
  folder = tmp_path_factory.mktemp("manual")
  variables = tiny_pages.write_workspace(folder)
  (program, *_) = python_blocks("docs/your_task.md")
  (folder / "my_tagger.py").write_text(program)
  process = tiny_commands.Commands(folder)
  flags = ("--task_name=csv", "--train_file=reviews_train.csv", "--eval_file=reviews_dev.csv")
  columns = ("--text_a_col=review", "--label_col=sentiment", "--max_seq_length=32")
  steps = ("--do_train", "--do_eval", "--train_steps=1", "--model_dir=runs/reviews")
  run(process, "run_classifier.py", *flags, *columns, *steps)
  for direction, source, target in (
    ("tf_to_hf", "pretrained", "bert-base-hf"),
    ("tf_to_hf", "funnel", "funnel-hf"),
    ("tf_to_garden", "pretrained", "bert-garden"),
    ("core_only", "funnel", "funnel-full"),
  ):
    flags = (f"--direction={direction}", f"--input_dir={source}", f"--output_dir={target}")
    run(process, "convert_checkpoint.py", *flags)
  yield folder, variables, process
  process.close()


def run(process, script, *arguments, **options):
  path = os.path.join(tiny.ROOT, script)
  status, output = process.run(path if os.path.exists(path) else script, *arguments, **options)
  assert status == 0, f"{script} {' '.join(arguments)}\n{output[-3000:]}"
  return output


def python_blocks(page):
  return [text for kind, text in tiny_pages.blocks(page) if kind == "python"]


# ---- Commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", tiny_pages.PAGES)
def test_every_command_runs(page, manual):
  """Those that would train or predict check their settings and files (--validate_only)."""
  check_commands(page, manual, "all" if page == "docs/your_task.md" else "settings")


@pytest.mark.slow
@pytest.mark.parametrize("page", tiny_pages.PAGES)
def test_every_command_builds_its_graphs(page, manual):
  check_commands(page, manual, "all")


def check_commands(page, manual, extent):
  folder, variables, process = manual
  if page in OTHER_TESTS:
    return
  unknown = {kind for kind, _ in tiny_pages.blocks(page)} - {"shell", "python"}
  assert unknown <= ({""} if page == "CONTRIBUTING.md" else set()), "commands are in shell blocks"
  for number, (kind, first, *words) in enumerate(tiny_pages.commands(page, folder, variables)):
    check = {"pip": check_pip, "shell": check_shell_script, "parse": check_flags}.get(kind)
    if check:
      check(process, first, *words)
      continue
    script, *arguments = words
    if script == "-m":
      check_module(*arguments)
    elif page in FLAGS_ONLY_PAGES or first != "TF_CONFIG=" or "tfds_params" in str(words):
      check_flags(process, script, *arguments)
    else:
      arguments = fitted(page, script, arguments, f"{page}-{number}-{extent}")
      is_checked = "--validate_only" in arguments
      run(process, script, *arguments, extent=extent if is_checked else "all")


def fitted(page, script, arguments, name):
  """The arguments for tiny models, without the work of training."""
  sizes = {"block_size": "1_1_1", "decoder_size": 1, "n_head": 4, "d_head": 4}
  sizes |= {"d_model": 16, "d_embed": 16, "d_inner": 32, "vocab_size": 60}
  # Each page has its own records.
  own = f"records-{os.path.basename(page)}"
  arguments = [re.sub(r"(?<==)records\b", own, argument) for argument in arguments]
  names = [argument.lstrip("-").split("=")[0] for argument in arguments]
  arguments = [
    f"--{name}={sizes[name]}" if name in sizes else argument
    for name, argument in zip(names, arguments, strict=True)
  ]
  if script == "convert_checkpoint.py" and "help" not in names:
    return [*arguments, f"--output_dir=new/{name}"]
  if script == "scripts/build_vocab.py":
    return [*arguments, f"--vocab_file=new/{name}.txt"]
  if script not in TRAINERS or "help" in names:
    return arguments
  if "hub_module_url" in names:
    arguments.append("--max_seq_length=32")
  if page == PRETRAINING and "do_eval" in names:
    return [*arguments, "--train_steps=1", "--warmup_steps=0", "--train_batch_size=2"]
  return [*arguments, "--validate_only"]


def check_flags(process, script, *arguments):
  """The flags of a script parse; of one without absl flags or argparse, that it exists."""
  with open(os.path.join(tiny.ROOT, script)) as reader:
    source = reader.read()
  if "app.run" in source or "argparse" in source:
    run(process, script, *arguments, extent="flags")


def check_shell_script(process, script, *arguments):
  with open(os.path.join(tiny.ROOT, script)) as reader:
    source = reader.read()
  for argument in arguments:
    if argument.startswith("--"):
      assert argument in source, f"{script} has no {argument}"


def check_pip(process, command, *arguments):
  assert command == "install"
  if arguments[0] == "-r":
    assert os.path.exists(os.path.join(tiny.ROOT, arguments[1])), arguments


def check_module(module, *arguments):
  assert module in ("pytest", "pip"), module
  for argument in arguments:
    if argument.startswith("tests/"):
      assert os.path.exists(os.path.join(tiny.ROOT, argument)), argument


def test_commands_with_wrong_flags_are_found(manual):
  _, _, process = manual
  assert process.run("run_squad.py", "--do_train", "--no_such_flag=1", extent="flags")[0] == 1
  path = os.path.join(tiny.ROOT, "run_squad.py")
  assert process.run(path, "--do_train=maybe", extent="flags")[0] == 1


# ---- Programs -----------------------------------------------------------------------------------


def test_library_program_runs(manual, tmp_path):
  folder, _, process = manual
  program = folder / "library.py"
  program.write_text(python_blocks("docs/your_task.md")[1])
  out = run(process, str(program))
  assert re.search(r"^\(1, \d+, 16\)$", out, re.MULTILINE)


def test_task_of_the_page_trains(manual):
  """The tagger is a complete task in under 60 lines of code; train.py runs its experiment."""
  folder, _, process = manual
  program = (folder / "my_tagger.py").read_text()
  body = program[program.index("@dataclasses.dataclass") :]
  assert sum(bool(line.strip()) for line in body.splitlines()) < 60
  label_of = {**dict.fromkeys(tiny.GOOD + tiny.BAD, "ADJ"), "film": "NOUN", "story": "NOUN"}
  for name, seed in (("train", 1), ("dev", 2)):
    lines = [
      " ".join(f"{word}/{label_of.get(word, 'O')}" for word in text.split())
      for text, _ in tiny.sentences(96, seed)
    ]
    (folder / f"words_{name}.txt").write_text("\n".join(lines) + "\n")
  out = run(
    process,
    *("train.py", "--import_module=my_tagger.py", "--experiment=bert/word_labels"),
    *("--mode=train_and_eval", "--model_dir=runs/tagger", "--seed=1"),
    "--params_override=task.train_file=words_train.txt,task.eval_file=words_dev.txt",
    *("--max_seq_length=16", "--num_train_epochs=8", "--learning_rate=1e-2"),
  )
  (accuracy,) = re.findall(r"word_labels dev: accuracy ([\d.]+)", out)
  assert float(accuracy) > 0.95, out


# ---- Flags, links and paths ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def known_flags(manual):
  """Names of all flags of the scripts."""
  found = set()
  for script in [*SCRIPTS, "scripts/build_vocab.py"]:
    found |= set(re.findall(r"--(?:\[no\])?(\w+)", run(manual[2], script, "--help")))
  return found


@pytest.mark.parametrize("page", tiny_pages.PAGES)
def test_flags_in_the_text_exist(page, known_flags):
  text = tiny_pages.prose(page)
  named = set(re.findall(r"(?<![\w-])--(?:no)?([a-z]\w*[a-z\d])\b", text))
  assert named - known_flags - OTHER_FLAGS == set()


def test_flags_that_replace_others_exist(known_flags):
  """Names in the last column of the tables of migrating.md are flags, keys or modes."""
  rows = re.findall(r"^\|.*\|(.*)\|$", tiny_pages.read("docs/migrating.md"), re.MULTILINE)
  named = {name for row in rows for name in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", row)}
  others = {"verbosity", "label_list"}
  assert named - known_flags - others == set()


def anchors(page):
  """Names of the page's headings in links."""
  headings = re.findall(r"^#+ (.*)$", tiny_pages.prose(page), re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", tiny_pages.PAGES)
def test_links_and_paths_exist(page):
  text = tiny_pages.prose(page)
  for target in re.findall(r"\]\(([^)\s]+)\)", text):
    if target.startswith("https://"):
      continue
    name, _, anchor = target.partition("#")
    path = os.path.normpath(os.path.join(os.path.dirname(page), name)) if name else page
    assert os.path.exists(os.path.join(tiny.ROOT, path)), f"{page}: {target}"
    assert not anchor or anchor in anchors(path), f"{page}: {target}"
  folders = "benchmarks|configs|docs|models|preprocessing|scripts|tasks|tests|training|utils"
  for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
    pattern = re.sub(r"[A-Z]{3,}(_[A-Z]+)*", "*", path)  # FAMILY_JOB.yaml
    assert glob.glob(os.path.join(tiny.ROOT, pattern)), f"{page}: {path}"


def test_the_readme_links_every_page():
  text = tiny_pages.read("README.md")
  assert [
    page for page in tiny_pages.PAGES if page != "README.md" and f"({page})" not in text
  ] == []
