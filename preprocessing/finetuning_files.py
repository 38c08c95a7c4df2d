"""Record files and metadata for other programs and machines: create_finetuning_data.py's work."""

import dataclasses
from collections.abc import Iterable

import tensorflow as tf

import config
import tokenization
from errors import UserError
from preprocessing import finetuning_records, record_files
from tasks import base, registry
from utils import files, paths


def make_files(
  experiment: config.Experiment,
  family: str,
  task_type: str,
  mnli_type: str,
  outputs: dict[str, str],
  meta_path: str,
  inputs: Iterable[str],
  num_proc: int = 1,
) -> None:
  """Makes the record files of raw data, then their metadata file, and prints their paths.

  Args:
    experiment: settings of the task, the tokenizer and the sequences' length.
    family: model family, "bert" or "funnel".
    task_type: "classification", "regression" or "squad".
    mnli_type: "matched" or "mismatched", the dev and test data of MNLI.
    outputs: "train", "eval" or "test" -> record file.
    meta_path: metadata file; deleted first, so that half-made records are never used.
    inputs: further files that are read, which no output may be.
    num_proc: number of processes.

  Raises:
    UserError: the settings contradict each other, or bad input.
  """
  task = _make_task(experiment, family, task_type)
  paths.check_outputs(
    [*record_files.raw_files(task), *inputs],
    [
      meta_path,
      *(path + end for path in outputs.values() for end in ("", record_files.SIDE_TABLE)),
    ],
  )
  tokenizer = tokenization.get_tokenizer(**dataclasses.asdict(experiment.tokenizer))
  max_seq_length = experiment.data.max_seq_length
  meta = record_files.settings(task, tokenizer, experiment.tokenizer, max_seq_length)
  if task_type == "squad":
    meta["version_2_with_negative"] = experiment.task.version_2_with_negative
  if tf.io.gfile.exists(meta_path):
    tf.io.gfile.remove(meta_path)
  for name, path in outputs.items():
    kind = "dev" if name == "eval" else name
    split = _split_of(task, kind, mnli_type)
    count = finetuning_records.make_records(path, task, split, tokenizer, max_seq_length, num_proc)
    meta[f"{name}_data_size"] = count
    if kind == "train":
      task.read_side_table(kind, split, path + record_files.SIDE_TABLE, count)
    print(f"{path}: {count} {task.record_unit} of {', '.join(task.input_files(split))}")
  files.write_json(meta_path, meta)
  print(f"{meta_path}: metadata")


def _make_task(experiment, family, task_type) -> base.RawDataTask:
  task = registry.find(experiment.job).task_class().from_experiment(experiment, family)
  if task_type == "squad":
    return task
  if task.is_regression != (task_type == "regression"):
    kind = "regression" if task.is_regression else "classification"
    raise UserError(f"--fine_tuning_task_type={task_type} does not fit: task {task.name} is {kind}")
  return task


def _split_of(task, kind, mnli_type):
  """The task's split of a kind; for MNLI's two dev and test splits that of mnli_type."""
  splits = task.splits(kind)
  if not splits:
    raise UserError(f"task {task.name} has no {kind} data")
  return splits[0] if len(splits) == 1 else f"{kind}_{mnli_type}"
