"""Main of every script: flags, log, signals, one-line messages for user errors, trials."""

import copy
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app

import config
from errors import UserError
from training import flags
from utils import console, disk, files

# Sections of flags, most used first.
FINETUNING = (
  config.Trainer,
  config.Model,
  config.Tokenizer,
  config.RawData,
  config.Data,
  config.Optimizer,
  config.RecordFiles,
  config.Preprocessing,
  config.Runtime,
)
PRETRAINING = (
  config.Trainer,
  config.Model,
  config.Tokenizer,
  config.Data,
  config.Optimizer,
  config.Runtime,
)


def run_job(settings_type: type, form: Any = None) -> None:
  """Defines the flags of a job and runs it.

  Args:
    settings_type: dataclass of the task's settings, see tasks/registry.py.
    form: module with a dataclass Form of further flags, and apply(experiment, form).
  """
  sections = PRETRAINING if settings_type.job == "pretraining" else FINETUNING
  flags.define(settings_type, *sections, *([form.Form] if form else []))
  flags.define_funnel()

  def main():
    from training import jobs  # loads TensorFlow

    experiment = flags.read(settings_type, *sections)
    if form:
      form.apply(experiment, flags.read_section(form.Form)[0])
    jobs.run(experiment)

  run_main(main)


def run_main(
  main: Callable[[], None],
  after_interrupt: str = "The same command goes on from the last checkpoint.",
) -> None:
  """Runs a script's main under absl; a UserError ends it with one line and status 1.

  Args:
    main: main of the script.
    after_interrupt: printed after Ctrl-C or SIGTERM.
  """
  if {"--help", "-help", "--h", "-h", "-?"}.intersection(sys.argv[1:]):
    try:
      print(flags.help_text(sys.modules["__main__"].__doc__ or ""), flush=True)
    except BrokenPipeError:  # as by "| head"
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return

  def guarded(argv):
    if len(argv) > 1:
      raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are given as --name=value")
    console.set_up_logging()
    console.watch_signals()
    try:
      main()
    except KeyboardInterrupt as error:
      print(f"Interrupted. {after_interrupt}", file=sys.stderr)
      sys.exit(128 + getattr(error, "number", signal.SIGINT))
    except Exception as error:
      message = _message(error)
      if message is None:
        raise
      sys.exit(f"{os.path.basename(sys.argv[0])}: error: {message}")

  app.run(guarded, flags_parser=lambda argv: _parse_flags(argv))


def _message(error):
  """The line that a script prints instead of a traceback; None for a defect."""
  import tensorflow as tf  # not before the flags are parsed: --help needs none

  if isinstance(error, UserError):
    return console.spelled(str(error))
  if disk.is_full(error):
    return f"no space left on the disk: {disk.full_reason(error)}. Free space, and run it again"
  if isinstance(error, tf.errors.ResourceExhaustedError | MemoryError):
    return (
      f"out of memory; raise --gradient_accumulation_steps, or lower --train_batch_size or "
      f"--max_seq_length ({_first_line(error)})"
    )
  if isinstance(error, tf.errors.OpError):
    if is_file_error(error):
      return _first_line(error)
    print(
      "The following is a defect of the scripts, not of your files or flags; please report "
      "it with your command.",
      file=sys.stderr,
    )
  if isinstance(error, OSError) and error.filename:
    return f"{error.filename}: {files.reason(error)}"
  return None


# Messages of TensorFlow about a file that is a folder, is missing, or cannot be read.
_FILE_ERROR = re.compile(
  r"No such file|[Nn]ot a directory|[Ii]s a directory|matching files|"
  r"Permission denied|gs://"
)


def is_file_error(error: Exception) -> bool:
  """Returns whether a tf.errors.OpError is about a file; its message then names the file."""
  import tensorflow as tf

  kinds = tf.errors.DataLossError | tf.errors.OutOfRangeError | tf.errors.PermissionDeniedError
  return isinstance(error, kinds) or bool(_FILE_ERROR.search(getattr(error, "message", None) or ""))


def _first_line(error):
  """First line of TensorFlow's error, without the heading that newer versions add."""
  message = getattr(error, "message", None) or str(error)
  lines = (line.strip() for line in message.splitlines())
  return next((line for line in lines if line not in ("", "Graph execution error:")), "")


# Flags of the originals that do not exist here -> replacement.
_OTHER_WAYS = {
  "debug_mode": "use --max_train_examples and --max_eval_examples",
  "overwrite": "nothing is overwritten: choose another --model_dir, or see --overwrite_data",
  "eval_model_dir": "name the folder with --model_dir, the data with --output_dir",
  "eval_split": "name the file to evaluate with --eval_file",
  "num_passes": "every epoch has another order; --num_train_epochs is their number",
  "per_core_clip": "the gradient is clipped once, averaged over all devices",
  "retain_all": "evaluation deletes no checkpoint; --max_save limits their number",
  "retain_best": "the best checkpoint is always kept, in model_dir/best",
  "shuffle_buffer": "the buffer is as large as the data, up to a fixed size",
  "shuffle_examples": "training data are always shuffled",
  "skip_nan_grad": "use --nan_policy=skip",
  "submit_dir": "submissions are written to model_dir/submit",
  "verbose": "use --verbosity",
  "verbose_logging": "use --verbosity",
}


def _parse_flags(argv):
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    flag = getattr(error, "flagname", "")  # of an unknown flag
    other_way = _OTHER_WAYS.get(flag) or _OTHER_WAYS.get(flag.removeprefix("no"))
    message = (
      f"there is no --{flag}: {other_way}. Leave it out"
      if other_way
      else (f"{error}\nPass --help to see the flags of this script, --helpfull for all.")
    )
    sys.exit(f"{os.path.basename(argv[0])}: error: {message}")


def run_trials(
  experiment: config.Experiment, run_once: Callable[[config.Experiment], dict[str, float]]
) -> None:
  """Runs once, or --num_trials times with a seed and a folder each; writes and prints a summary."""
  trainer = experiment.trainer
  if trainer.num_trials <= 1:
    run_once(experiment)
    return
  results = []
  for trial in range(trainer.num_trials):
    one = copy.deepcopy(experiment)
    one.trainer.seed += trial
    one.trainer.model_dir = os.path.join(trainer.model_dir, f"trial_{trial}")
    results.append(run_once(one))
  if results[0]:
    summary = summarize_trials(results)
    files.write_json(os.path.join(trainer.model_dir, "trials.json"), summary)
    for name, values in sorted(summary.items()):
      print(
        f"{name}: mean {values['mean']:.4f}, standard deviation {values['std']:.4f} "
        f"over {trainer.num_trials} trials"
      )


def summarize_trials(results: list[dict[str, float]]) -> dict[str, dict[str, float]]:
  """Mean and sample standard deviation of each metric over trials."""
  summary = {}
  for name in results[0]:
    values = [result[name] for result in results]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    summary[name] = {"mean": float(np.mean(values)), "std": deviation, "values": values}
  return summary
