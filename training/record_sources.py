"""Records of a run: files that the user named, or files made from raw data."""

import dataclasses
import functools
import os
import re
from typing import Any

import tensorflow as tf

import config
import modeling
from errors import UserError
from preprocessing import finetuning_records, record_files
from tasks import base
from training import cluster, inputs


def _find_meta(path: str) -> str:
  """Path of the metadata file that is next to a record file; "" if there is none.

  For mnli_train.tf_record this is mnli_meta_data, else the folder's only file *meta_data.
  """
  folder, name = os.path.split(path)
  named = os.path.join(folder, re.sub(r"_?(train|eval|dev|test)\.tf_?record$", "_meta_data", name))
  if named != path and tf.io.gfile.exists(named):
    return named
  found = [name for name in tf.io.gfile.listdir(folder or ".") if name.endswith("meta_data")]
  return os.path.join(folder, found[0]) if len(found) == 1 else ""


def find_record_sets(
  settings: config.RecordFiles, needs_meta: bool = True
) -> tuple[dict[str, record_files.RecordSet], dict[str, Any]]:
  """Returns kind -> record files that the user named, and their metadata; both may be empty."""
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
    (path, *_), *_ = (records.paths for records in found.values())
    settings.input_meta_data_path = _find_meta(path)
  if not settings.input_meta_data_path:
    if not needs_meta:
      return found, {}
    raise UserError(
      "--input_meta_data_path is missing: it names the metadata file that "
      "create_finetuning_data.py wrote with the records"
    )
  return found, record_files.read_meta(settings.input_meta_data_path)


@dataclasses.dataclass
class Source:
  """Records of one split."""

  split: base.Split
  records: inputs.RecordSource


class RecordSources:
  """Finds the records of each kind ("train", "dev", "test") once."""

  def __init__(
    self,
    experiment: config.Experiment,
    model_config: modeling.Config,
    task: base.Task,
    tokenizer,
    record_sets: dict[str, record_files.RecordSet],
    is_chief: bool = True,
  ):
    """Stores the arguments; see Runner. Other hosts than the chief wait for records."""
    self.experiment = experiment
    self.model_config = model_config
    self.task = task
    self.tokenizer = tokenizer
    self.record_sets = record_sets
    self.is_chief = is_chief
    self._found: dict[str, list[Source]] = {}
    self._side_tables: dict[str, Any] = {}  # path of a record file -> side table

  def settings(self) -> dict[str, Any]:
    """Returns the settings that records must have been made with."""
    return record_files.settings(
      self.task, self.tokenizer, self.experiment.tokenizer, self.experiment.data.max_seq_length
    )

  def check(self, meta: dict[str, Any]) -> None:
    """UserError if the metadata of given record files differ from the settings or the files."""
    if not self.record_sets:
      return
    meta_path = self.experiment.record_files.input_meta_data_path
    record_files.check_meta(meta_path, meta, self.settings())
    for kind, files in self.record_sets.items():
      if kind == "test" and self.task.predicts_dev:
        kind = "dev"
      size = meta.get(f"{'eval' if kind == 'dev' else kind}_data_size")
      if size is not None:
        record_files.check_size(files.paths[0], size, files.num_examples)

  def of(self, kind: str) -> list[Source]:
    """Records of a kind ("train", "dev", "test"), made from raw data if none are given."""
    if kind not in self._found:
      self._found[kind] = [
        self._source(kind, split, files) for split, files in self._find_files(kind)
      ]
    return self._found[kind]

  def make(self, kind: str) -> list[tuple[str, record_files.RecordSet]]:
    """Makes the records of a kind from raw data; returns (split, record file) of each split.

    Raises:
      finetuning_records.Unfinished: only a part was asked for, and others are missing.
    """
    data, preprocessing = self.experiment.data, self.experiment.preprocessing
    write = functools.partial(
      finetuning_records.make_records,
      num_proc=preprocessing.num_proc,
      proc_id=preprocessing.proc_id,
    )
    found = []
    for split in self.task.splits(kind) or [kind]:
      find = functools.partial(
        record_files.find_or_make_split,
        data.output_dir,
        self.task,
        split,
        self.tokenizer,
        self.settings(),
      )
      if self.is_chief:
        path, count = find(data.overwrite_data, write)
      else:
        what = f"records of {split} in {data.output_dir}"
        path, count = cluster.wait_for(lambda find=find: find(False, None), what)
      found.append((split, record_files.RecordSet([path], count)))
    return found

  def _find_files(self, kind):
    if kind not in self.record_sets:
      return self.make(kind)
    files, splits = self.record_sets[kind], self.task.splits(kind)
    record_files.check_lengths(
      files.paths[0],
      self.task.feature_specs,
      self.experiment.data.max_seq_length * self.task.sequences_per_example,
    )
    return [(splits[0] if len(splits) == 1 else kind, files)]

  def _source(self, kind, split, files):
    data = self.experiment.data
    limit = data.max_train_examples if kind == "train" else data.max_eval_examples
    is_given = kind in self.record_sets
    num_examples = min(files.num_examples, limit or files.num_examples)
    path = files.paths[0]
    reads_texts = type(self.task).read_side_table is not base.Task.read_side_table
    if data.synthetic_data and kind != "train" and reads_texts:
      raise UserError(
        "--synthetic_data has no texts, which this task evaluates and predicts: leave out "
        "--do_eval and --do_predict"
      )
    table = self.task.read_side_table(
      kind, split, path + record_files.SIDE_TABLE, files.num_examples
    )
    writes = self.experiment.trainer.do_predict or self.experiment.trainer.do_submit
    # Read now: raw files may change during training. Record files that the user named have none.
    reads_origins = kind == "test" and writes and not is_given
    return Source(
      base.Split(
        split,
        num_examples,
        self._side_tables.setdefault(path, table),
        self.task.read_origins(split, num_examples) if reads_origins else None,
      ),
      inputs.RecordSource(
        files.paths,
        num_examples,
        self.task,
        data.max_seq_length,
        self.model_config.padded_length,
        is_given and self.experiment.record_files.invert_input_mask,
        is_whole=not limit or limit >= files.num_examples,
        ranges=self.task.ranges(
          self.model_config.vocab_size, self.model_config.num_segments, data.max_seq_length
        ),
      ),
    )
