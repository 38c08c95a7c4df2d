"""The records of a run: files that the user named, or made from raw data."""

import dataclasses
from typing import Any

import config
import modeling
from errors import UserError
from preprocessing import record_files
from tasks.base import Task
from training import inputs
from utils import console


def find_record_sets(
  settings: config.RecordFiles,
) -> tuple[dict[str, record_files.RecordSet], dict[str, Any]]:
  """The record files that the user named, by kind, and their metadata; both empty without any."""
  paths = {
    "train": settings.train_data_path,
    "dev": settings.eval_data_path,
    "test": settings.test_data_path,
  }
  found = {
    kind: record_files.RecordSet([path], record_files.count_records(path))
    for kind, path in paths.items()
    if path
  }
  if not found:
    return {}, {}
  if not settings.input_meta_data_path:
    raise UserError(
      "--input_meta_data_path is missing: it names the metadata file that "
      "create_finetuning_data.py wrote with the records"
    )
  return found, record_files.read_meta(settings.input_meta_data_path)


@dataclasses.dataclass
class Source:
  """The records of one split."""

  split: str
  records: inputs.RecordSource


class RecordSources:
  """Finds the records of each kind ("train", "dev", "test"), once."""

  def __init__(
    self,
    experiment: config.Experiment,
    model_config: modeling.Config,
    task: Task,
    tokenizer,
    record_sets: dict[str, record_files.RecordSet],
    write_split,
  ):
    """Stores the arguments; see Runner."""
    self.experiment = experiment
    self.model_config = model_config
    self.task = task
    self.tokenizer = tokenizer
    self.record_sets = record_sets
    self.write_split = write_split
    self._found: dict[str, list[Source]] = {}

  def settings(self) -> dict[str, Any]:
    """What records must have been made with to be used here."""
    return record_files.settings(
      self.task, self.tokenizer, self.experiment.tokenizer, self.experiment.data.max_seq_length
    )

  def check(self, meta: dict[str, Any]) -> None:
    """UserError where the metadata of the record files differ from the settings or the files.

    Without record files there is nothing to check.
    """
    if not self.record_sets:
      return
    meta_path = self.experiment.record_files.input_meta_data_path
    record_files.check_meta(meta_path, meta, self.settings())
    for kind, files in self.record_sets.items():
      if "predict" in self.task.splits(kind):
        kind = "dev"  # SQuAD predicts what it evaluates
      size = meta.get(f"{'eval' if kind == 'dev' else kind}_data_size")
      if size is not None:
        record_files.check_size(files.paths[0], size, files.num_examples)

  def of(self, kind: str) -> list[Source]:
    """Records of a kind ("train", "dev", "test"), made from raw data where none are given."""
    if kind not in self._found:
      self._found[kind] = self._find_sources(kind)
    return self._found[kind]

  def _find_sources(self, kind):
    data = self.experiment.data
    limit = data.max_train_examples if kind == "train" else data.max_eval_examples
    found = []
    splits = self.task.splits(kind)
    if kind in self.record_sets:
      files = self.record_sets[kind]
      record_files.check_lengths(
        files.paths[0],
        self.task.feature_specs,
        data.max_seq_length * self.task.sequences_per_example,
      )
      found.append((splits[0] if len(splits) == 1 else kind, files))
    else:
      for split in splits or [kind]:
        progress = lambda items, split=split: console.progress_bar(
          items, unit="example", desc=f"{split} records"
        )
        path, count = record_files.cached_split(
          data.output_dir,
          self.task,
          split,
          self.tokenizer,
          self.settings(),
          data.overwrite_data,
          progress,
          self.write_split,
        )
        found.append((split, record_files.RecordSet([path], count)))
    invert_mask = kind in self.record_sets and self.experiment.record_files.invert_input_mask
    return [
      Source(
        split,
        inputs.RecordSource(
          files.paths,
          min(files.num_examples, limit or files.num_examples),
          self.task,
          data.max_seq_length,
          self.model_config.padded_length,
          invert_mask,
          is_whole=not limit or limit >= files.num_examples,
        ),
      )
      for split, files in found
    ]
