"""TFRecord files of features: atomic writing, and checks before use.

A record file is written under a temporary name and renamed; its metadata file is written last. So a
file with metadata is complete, and a file without is never read.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from errors import UserError
from tasks.base import FeatureSpec, RawDataTask
from tasks.labels import check_label_list
from utils import files
from utils.options import Range, brief


def to_example(
  features: dict[str, Any], specs: list[FeatureSpec], max_seq_length: int, pad_id: int
) -> bytes:
  """Serialized tf.train.Example of the features, sequences padded to max_seq_length.

  Several sequences of an example follow one another, each padded: [1, 2], [3] with max_seq_length 3
  is 1 2 0 3 0 0.
  """
  encoded = {}
  for spec in specs:
    if spec.name not in features:
      continue
    value = features[spec.name]
    values = list(value) if isinstance(value, list) else [value]
    if spec.is_sequence:
      pad_value = pad_id if spec.pad_value is None else spec.pad_value
      sequences = values if values and isinstance(values[0], list) else [values]
      values = [
        item
        for sequence in sequences
        for item in sequence + [pad_value] * (max_seq_length - len(sequence))
      ]
    if spec.dtype == "float32":
      encoded[spec.name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    else:
      encoded[spec.name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
  example = tf.train.Example(features=tf.train.Features(feature=encoded))
  return example.SerializeToString(deterministic=True)  # the same bytes from every process


SIDE_TABLE = ".side.jsonl"  # added to a record file's name; see Task.featurize_all


def write_split(
  path: str,
  task: RawDataTask,
  split: str,
  tokenizer,
  max_seq_length: int,
  progress=lambda items: items,
  examples: Iterable[Any] | None = None,
  first_id: int = 0,
) -> int:
  """Writes all examples of a split to the record file `path`; returns the number of records.

  The side table of the task goes into `path` + SIDE_TABLE, one JSON value per line.

  Args:
    path: target; written under a temporary name and renamed.
    task: reads and featurizes the examples.
    split: name of the split.
    tokenizer: from tokenization.get_tokenizer.
    max_seq_length: length of the sequences.
    progress: wraps the iterable of examples, e.g. with a progress bar.
    examples: the examples, if not all of the split.
    first_id: example_id of the first record.

  Raises:
    UserError: bad input (from the task), no examples at all, or a folder that cannot be written.
  """
  files.make_dirs(os.path.dirname(path))
  temporary = files.temporary_name(path)
  count, side_table = 0, []
  try:
    with tf.io.TFRecordWriter(temporary) as writer:
      for example in progress(task.read_examples(split) if examples is None else examples):
        found, side = task.featurize_all(example, tokenizer, max_seq_length)
        for features in found:
          features.setdefault("example_id", first_id + count)
          writer.write(to_example(features, task.feature_specs, max_seq_length, tokenizer.pad_id))
          count += 1
        if side is not None:
          side_table.append(json.dumps(side, ensure_ascii=False) + "\n")
    if not count and examples is None:
      raise UserError(f"{task.input_files(split)[0]}: no examples in it")
    if side_table or tf.io.gfile.exists(path + SIDE_TABLE):  # never that of earlier records
      files.write_text(path + SIDE_TABLE, "".join(side_table))
    tf.io.gfile.rename(temporary, path, overwrite=True)
  finally:
    if tf.io.gfile.exists(temporary):
      tf.io.gfile.remove(temporary)
  return count


def settings(
  task: RawDataTask, tokenizer, tokenizer_settings, max_seq_length: int
) -> dict[str, Any]:
  """Returns the settings that shape the records of a task; they are part of the metadata."""
  own = {**task.metadata(), "max_seq_length": max_seq_length}
  if tokenizer is None:  # finished records are read without one
    return {**own, "cls_segment_id": task.cls_segment_id}
  return {
    **own,
    "do_lower_case": tokenizer_settings.uncased,
    **tokenizer_settings.metadata(),
    "vocab_size": tokenizer.vocab_size,
    "vocab_sha256": files.fingerprint([tokenizer_settings.tokenizer_path]),
    "cls_segment_id": task.cls_segment_id,
  }


def raw_files(task: RawDataTask) -> list[str]:
  """Raw files of all splits of a task that exist."""
  found = []
  for split in {split for kind in ("train", "dev", "test") for split in task.splits(kind)}:
    with contextlib.suppress(UserError):
      found += task.input_files(split)
  return found


def find_or_make_split(
  folder: str,
  task: RawDataTask,
  split: str,
  tokenizer,
  wanted: dict[str, Any],
  overwrite: bool,
  write: Callable[..., int] | None = write_split,
) -> tuple[str, int] | None:
  """Returns path and number of records of a split's record file in `folder`, made if missing.

  Its name has a hash of everything that shapes it (`wanted`, columns, raw files), so records of
  other settings are neither used nor overwritten.

  Args:
    folder: folder of the record files.
    task: the task.
    split: name of the split.
    tokenizer: from tokenization.get_tokenizer.
    wanted: the settings that shape the records, see `settings`.
    overwrite: make the file again even if it exists.
    write: makes the file, with the first five arguments of write_split. With None, another process
      makes it, and the result is None while it is missing.
  """
  source = {
    **wanted,
    "split": split,
    "source_sha256": files.fingerprint(task.input_files(split)),
    "columns": task.source_key(split),
  }
  key = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:10]
  path = os.path.join(folder, f"{task.name}.len-{wanted['max_seq_length']}.{split}.{key}.tfrecord")
  meta_path = path + ".meta.json"
  if not overwrite and tf.io.gfile.exists(meta_path):
    with contextlib.suppress(UserError):  # the cached file is damaged: make it again
      count = read_meta(meta_path, ["num_examples"])["num_examples"]
      check_size(path, count)
      return path, count
  if write is None:
    return None
  if tf.io.gfile.exists(meta_path):
    tf.io.gfile.remove(meta_path)  # while the file is rewritten it must not look complete
  count = write(path, task, split, tokenizer, wanted["max_seq_length"])
  files.write_json(meta_path, {**source, "num_examples": count})
  return path, count


_COUNT, _SIZE = Range(int, lower=0), Range(int, lower=1)
# Key of the metadata -> type of its value, or range of a number; null is as good as no key.
_META_VALUES: dict[str, Range | Any] = {
  **dict.fromkeys(("num_examples", "cls_segment_id", "num_documents_without_others"), _COUNT),
  **dict.fromkeys(("train_data_size", "eval_data_size", "test_data_size"), _COUNT),
  **dict.fromkeys(("max_seq_length", "seq_len", "max_predictions_per_seq"), _SIZE),
  **dict.fromkeys(("vocab_size", "num_options", "doc_stride", "max_query_length"), _SIZE),
  **dict.fromkeys(("do_lower_case", "uncased", "keep_accents", "strip_accents"), bool),
  **dict.fromkeys(("tokenize_chinese_chars", "use_v2_feature_names", "pack_sequences"), bool),
  **dict.fromkeys(("gzip_compress", "version_2_with_negative"), bool),
  **dict.fromkeys(("sent_piece_form", "processor_type", "task_type", "vocab_sha256"), str),
  "filenames": [str],
  "special_ids": dict,
}


def read_meta(path: str, needs: Iterable[str] = ()) -> dict[str, Any]:
  """Metadata of record files.

  Args:
    path: the file.
    needs: keys that must be there.

  Raises:
    UserError: the file is missing or malformed, a value is of another type or out of range, or one
      of `needs` is missing.
  """
  if not tf.io.gfile.exists(path):
    raise UserError(
      f"{path}: no such file. It is written last, when the records are complete: "
      f"without it they are not to be trusted. Make them with "
      f"create_finetuning_data.py, or name the file with --input_meta_data_path"
    )
  meta = files.read_json(path)
  for key in needs:
    if meta.get(key) is None:
      raise UserError(f"{path}: the key {key} is missing; make the records again")
  for key, wanted in _META_VALUES.items():
    _check_value(path, key, meta.get(key), wanted)
  for key in ("num_example", "num_bytes"):  # of one file, or of each
    values = meta.get(key)
    for value in values if isinstance(values, list) else [values]:
      _check_value(path, key, value, _COUNT)
  largest = (meta.get("vocab_size") or 1 << 31) - 1
  for role, number in (meta.get("special_ids") or {}).items():
    _check_value(path, f"special_ids.{role}", number, Range(int, lower=0, upper=largest))
  if meta.get("label_list") is not None:
    check_label_list(meta["label_list"], path)
  return meta


def _check_value(path, key, value, wanted):
  """UserError if a value of the metadata is not None and not as wanted."""
  if value is None:
    return
  try:
    if isinstance(wanted, Range):
      wanted.check(value)
    elif not files.fits(value, wanted):
      raise ValueError("is of another type than the key's")
  except ValueError as error:
    raise UserError(
      f"{path}: {key} is {brief(value)}, which {error}; make the records and this file again"
    ) from None


def complete_meta(meta: dict[str, Any]) -> dict[str, Any]:
  """Adds the tokenizer settings that earlier versions used but did not write.

  Metadata of other programs, which lack vocab_sha256, are returned as they are.
  """
  if "vocab_sha256" not in meta:
    return meta
  strips = meta.get("do_lower_case", meta.get("uncased"))
  return {
    "strip_accents": strips,
    "tokenize_chinese_chars": True,
    "sent_piece_form": "plain",
    **meta,
  }


# Key of the metadata -> flag, for messages.
_FLAG_OF = {
  "max_seq_length": "--max_seq_length",
  "do_lower_case": "--uncased",
  "keep_accents": "--keep_accents",
  "sent_piece_form": "--sent_piece_form",
  "strip_accents": "--strip_accents",
  "tokenize_chinese_chars": "--tokenize_chinese_chars",
  "processor_type": "--task_name",
  "vocab_size": "--tokenizer_path",
  "vocab_sha256": "--tokenizer_path",
  "doc_stride": "--doc_stride",
  "max_query_length": "--max_query_length",
}


def check_meta(meta_path: str, meta: dict[str, Any], wanted: dict[str, Any]) -> None:
  """UserError if records were made with other settings; it names them and both values.

  Settings that the file does not have (records of other programs) are not compared.
  """
  different = []
  meta = complete_meta(meta)
  for name, value in wanted.items():
    if name in meta and meta[name] != value:
      flag = _FLAG_OF.get(name, "")
      different.append(
        f"{name} {meta[name]!r} in the records, {value!r} here" + (f" ({flag})" if flag else "")
      )
  if different:
    raise UserError(
      f"{meta_path}: the records were written with other settings: "
      + "; ".join(different)
      + ". Change the flags or make the records again"
    )


@dataclasses.dataclass
class RecordSet:
  """Finished record files of one split, and the total number of their records."""

  paths: list[str]
  num_examples: int


def compression(path: str) -> str:
  """Compression type for TFRecordDataset, "GZIP" or "", detected from the magic bytes."""
  with tf.io.gfile.GFile(path, "rb") as reader:
    return "GZIP" if reader.read(3) == b"\x1f\x8b\x08" else ""


def count_records(path: str) -> int:
  """Number of records of a TFRecord file, from its framing alone, without reading the data.

  Raises:
    UserError: the file is missing, or ends in the middle of a record.
  """
  if not tf.io.gfile.exists(path):
    raise UserError(f"{path}: no such record file")
  if compression(path):
    try:
      return sum(1 for _ in tf.data.TFRecordDataset(path, compression(path)))
    except tf.errors.DataLossError as error:
      raise UserError(
        f"{path}: the compressed file is damaged ({error.message}), make it again"
      ) from None
  size = tf.io.gfile.stat(path).length
  count = position = 0
  with tf.io.gfile.GFile(path, "rb") as reader:
    while position < size:
      reader.seek(position)
      header = reader.read(8)  # then: crc of the length (4), data, crc of the data (4)
      if len(header) == 8:
        position += 12 + struct.unpack("<Q", header)[0] + 4
      if len(header) < 8 or position > size:
        raise UserError(
          f"{path}: the file ends in the middle of record {count}; it was cut off "
          f"while it was written or copied, make it again"
        )
      count += 1
  return count


def check_size(path: str, expected: int, count: int | None = None) -> None:
  """UserError unless a record file holds as many records as its metadata say.

  Args:
    path: the record file.
    expected: number of records in the metadata.
    count: number of records of the file, if they have been counted.
  """
  count = count_records(path) if count is None else count
  if count != expected:
    raise UserError(
      f"{path}: {count} records where its metadata say {expected}; one of the two "
      f"belongs to other data, make them again together"
    )


def check_num_bytes(path: str, expected: int) -> None:
  """UserError unless a record file exists and has the size that its metadata say."""
  found = tf.io.gfile.stat(path).length if tf.io.gfile.exists(path) else None
  if found != expected:
    what = "no such file" if found is None else f"{found} bytes"
    raise UserError(
      f"{path}: {what}, but {expected} bytes in its metadata: it was lost, cut off "
      f"or replaced. create_pretraining_data.py --overwrite_data makes all again"
    )


def check_lengths(path: str, specs: list[FeatureSpec], max_seq_length: int) -> None:
  """UserError if the features of the first record are not those that will be parsed."""
  try:
    serialized = next(iter(tf.data.TFRecordDataset(path, compression(path))), None)
  except tf.errors.DataLossError as error:
    raise UserError(f"{path}: record 0 is damaged ({error.message}); make the file again") from None
  if serialized is None:
    raise UserError(f"{path}: no records in it")
  fault = record_fault(serialized.numpy(), specs, max_seq_length)
  if fault:
    raise UserError(f"{path}: {fault}")


def record_fault(
  serialized: bytes,
  specs: list[FeatureSpec],
  max_seq_length: int,
  ranges: dict[str, Range] | None = None,
) -> str:
  """Returns why a record cannot be parsed, "" if it can.

  Args:
    serialized: the record.
    specs: the features to parse.
    max_seq_length: number of values of a sequence.
    ranges: feature -> allowed values.
  """
  try:
    features = tf.train.Example.FromString(serialized).features.feature
  except Exception:  # the protobuf library has several exceptions for the same thing
    return "the records are not tf.train.Example"
  for spec in specs:
    if spec.name not in features:
      if spec.default is None:
        return f"the records have no feature {spec.name!r}; they have {', '.join(sorted(features))}"
      continue
    kind = "float_list" if spec.dtype == "float32" else "int64_list"
    values = getattr(features[spec.name], kind).value
    expected = max_seq_length if spec.is_sequence else 1 if spec.length is None else spec.length
    if expected and len(values) != expected:
      flag = (
        "--max_predictions_per_seq (or --pack_sequences)" if spec.length else "--max_seq_length"
      )
      return (
        f"feature {spec.name!r} has {len(values)} {spec.dtype} values where "
        f"{expected} are expected; is {flag} the records' own?"
      )
    for value in set(values) if ranges and spec.name in ranges else ():
      try:
        ranges[spec.name].check(value)
      except ValueError as error:
        return (
          f"feature {spec.name!r} has the value {value}, which {error}; do the records belong to "
          f"this model and task?"
        )
  return ""
