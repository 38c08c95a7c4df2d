"""Record sets of pretraining: finds the files, checks them, and compares them with the settings."""

import dataclasses
import logging
import os
import re
from collections.abc import Collection
from typing import Any

import tensorflow as tf

import config
import tokenization
from errors import UserError
from preprocessing import record_files
from tasks.corpus import match_files
from tasks.settings import Pretraining
from utils import files

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Corpus:
  """Records with their metadata.

  Attributes:
    record_sets: kind ("train", "dev") -> record files.
    meta: settings that they were made with; empty for records without metadata.
    meta_path: path of the metadata, for messages.
  """

  record_sets: dict[str, record_files.RecordSet]
  meta: dict[str, Any]
  meta_path: str


def expand(flag: str, names: str) -> list[str]:
  """Files of a comma list of names and globs, each once; UserError if one matches nothing."""
  paths = {}
  for name in filter(None, (part.strip() for part in names.split(","))):
    found = [path for path in match_files(name) if not path.endswith(".json")]
    if not found:
      raise UserError(
        f"--{flag}: {name} matches no record file; create_pretraining_data.py makes them"
      )
    paths.update((normal(path), path) for path in found)
  return list(paths.values())


def normal(path: str) -> str:
  """Normal form of a path, for comparison."""
  return path if "://" in path else os.path.normpath(path)


def read_bert_files(flag: str, names: str) -> tuple[record_files.RecordSet, dict[str, Any], str]:
  """Record files in BERT's form, their common metadata (empty if there are none), and its path."""
  paths, described, metas = expand(flag, names), {}, {}
  for path in paths:
    if tf.io.gfile.exists(path + ".done.json"):
      raise UserError(
        f"{path}: its set of record files is not complete; give the command of "
        f"create_pretraining_data.py again, which makes the missing files"
      )
    # NAME-00000-of-00004 is a shard of NAME, or the file of a run of that name.
    for name in (path, re.sub(r"-\d{5}-of-\d{5}$", "", path)):
      meta_path = name + ".meta.json"
      if meta_path not in metas and tf.io.gfile.exists(meta_path):
        metas[meta_path] = record_files.read_meta(meta_path)
        described |= describe_files(meta_path, metas[meta_path])
  others = set(described) - set(map(normal, paths))
  if others:
    log.warning(
      "--%s: %d of the %d record files that %s names are not among them",
      flag,
      len(others),
      len(described),
      ", ".join(metas),
    )
  counts = {path: check_file(path, *described.get(normal(path), (None, None))) for path in paths}
  return to_record_set(counts), *common_meta(metas)


def to_record_set(counts: dict[str, int]) -> record_files.RecordSet:
  """RecordSet of the files in `counts` (path -> number of records), without empty files."""
  used = [path for path, count in counts.items() if count] or list(counts)
  return record_files.RecordSet(used, sum(counts.values()))


def describe_files(meta_path: str, meta: dict[str, Any]) -> dict[str, tuple[int, int | None]]:
  """Returns record file -> (number of records, bytes or None), from a metadata file."""
  names, counts = meta.get("filenames"), meta.get("num_example")
  if isinstance(names, list) and isinstance(counts, int):  # Funnel's form: one file each
    counts, meta = [counts], {**meta, "num_bytes": [meta.get("num_bytes")]}
  sizes = meta.get("num_bytes") or [None] * len(names or ())
  lists = (names, counts, sizes)
  if not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
    raise UserError(
      f"{meta_path}: 'filenames', 'num_example' and 'num_bytes' do not give the number of records "
      f"and the size of each file; make the records again"
    )
  folder = os.path.dirname(meta_path)
  return {
    normal(os.path.join(folder, name)): values
    for name, *values in zip(names, counts, sizes, strict=True)
  }


def check_file(path: str, count: int | None, num_bytes: int | None) -> int:
  """Number of records of a file; UserError if it differs from the metadata."""
  if num_bytes is not None and count is not None:  # large files need not be read
    record_files.check_num_bytes(path, num_bytes)
    return count
  found = record_files.count_records(path)
  if count is not None:
    record_files.check_size(path, count, found)
  return found


def read_funnel_files(
  folders: str, split: str, num_passes: int, wanted: dict[str, Any]
) -> tuple[record_files.RecordSet, dict[str, Any], str]:
  """Record files in Funnel's form that match `wanted`, their common metadata, and its path.

  Raises:
    UserError: there are none, a file of a set is missing, or files have several lengths and no flag
      selects one.
  """
  metas, counts, passes = {}, {}, set()
  for folder in filter(None, (part.strip() for part in folders.split(","))):
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    paths = {os.path.join(folder, name) for name in names if name.startswith(f"meta.{split}.pass-")}
    for path in sorted(paths):
      match = re.search(r"\.pass-(\d+)\.seq-(\d+)\.(cased|uncased)\.json-(\d{5})-of-(\d{5})$", path)
      if not match or (num_passes and int(match[1]) >= num_passes):
        continue
      made_with = {"seq_len": int(match[2]), "uncased": match[3] == "uncased"}
      if all(made_with[name] == value for name, value in wanted.items()):
        # The previous and the last file: if every file has these two, the set is complete.
        for task in (max(int(match[4]) - 1, 0), int(match[5]) - 1):
          other = re.sub(r"\d{5}(-of-\d{5})$", rf"{task:05d}\1", path)
          if other not in paths:
            raise UserError(
              f"{other}: no such file, but its set has {int(match[5])} record files; "
              f"create_pretraining_data.py --task={task} makes the missing one"
            )
        meta = record_files.read_meta(path)
        metas[path] = {**meta, **made_with}
        passes.add(match[1])
        for name, values in describe_files(path, meta).items():
          counts[name] = check_file(name, *values)
  if not counts:
    raise UserError(
      f"--record_dir={folders}: no records of split {split!r}"
      + "".join(f", {name} {value}" for name, value in wanted.items())
      + f"; create_pretraining_data.py --save_dir=... --split={split} makes them"
    )
  if len(passes) < num_passes:
    log.warning("--num_passes=%d: --record_dir has %d", num_passes, len(passes))
  return to_record_set(counts), *common_meta(metas)


# Metadata on which train and dev records must agree. _FOR_READER: all files of a kind.
_FOR_MODEL = {
  "task_type",
  "max_seq_length",
  "seq_len",
  "max_predictions_per_seq",
  "do_lower_case",
  "uncased",
  "keep_accents",
  "strip_accents",
  "tokenize_chinese_chars",
  "sent_piece_form",
  "tokenizer_type",
  "vocab_size",
  "vocab_sha256",
  "special_ids",
  "use_v2_feature_names",
  "pack_sequences",
}
_FOR_READER = _FOR_MODEL | {"gzip_compress"}


def common_meta(
  metas: dict[str, dict[str, Any]], names: set[str] = _FOR_READER
) -> tuple[dict[str, Any], str]:
  """Metadata of the first file, and its path; UserError if others differ in one of `names`."""
  if not metas:
    return {}, ""
  (first_path, first), *others = (
    (path, record_files.complete_meta(meta)) for path, meta in metas.items()
  )
  for path, meta in others:
    for name in sorted(names):
      if first.get(name) != meta.get(name):
        raise UserError(
          f"{first_path} and {path} differ in {name}: {first.get(name)} and "
          f"{meta.get(name)}; give --seq_len or --uncased to choose, or other files"
        )
  return first, first_path


def find_corpus(settings: Pretraining, trainer: config.Trainer, wanted: dict[str, Any]) -> Corpus:
  """Returns the records of --input_file or --record_dir to train and evaluate on.

  Args:
    settings: names of the files.
    trainer: --do_train, --do_eval and --eval_every_steps.
    wanted: "seq_len" and "uncased", if the user gave them.
  """
  evaluates = trainer.do_eval or trainer.eval_every_steps > 0
  if not trainer.do_train:
    settings.input_file = settings.input_file or settings.eval_input_file
  if bool(settings.input_file) == bool(settings.record_dir):
    raise UserError(
      "give the records either with --input_file (BERT's form) or with --record_dir (Funnel's form)"
    )
  if settings.input_file and trainer.do_train and evaluates and not settings.eval_input_file:
    log.warning("Evaluation is on the training records; --eval_input_file names others")
  if settings.input_file:
    read = read_bert_files
    arguments = {
      "train": ("input_file", settings.input_file),
      "dev": ("eval_input_file", settings.eval_input_file or settings.input_file),
    }
  else:
    read = read_funnel_files
    arguments = {
      "train": (settings.record_dir, "train", settings.num_passes, wanted),
      "dev": (settings.record_dir, settings.eval_split, 1, wanted),
    }
  files, metas = {}, {}
  for kind in ["train"] * trainer.do_train + ["dev"] * evaluates:
    files[kind], meta, path = read(*arguments[kind])
    if path:
      metas[path] = meta
  return Corpus(files, *common_meta(metas, _FOR_MODEL))


# Settings for one form of records, by the setting that names the records.
_OF_FORM = {
  "input_file": {"eval_input_file", "use_v2_feature_names", "pack_sequences"},
  "record_dir": {
    "eval_split",
    "num_passes",
    "sample_strategy",
    "leak_ratio",
    "rand_ratio",
    "min_tok",
    "max_tok",
    "min_word",
    "max_word",
  },
}


def check_form(settings: Pretraining, given: Collection[str]) -> None:
  """UserError if a setting of the other form of records is given, which would do nothing."""
  form, other = (
    ("input_file", "record_dir") if settings.input_file else ("record_dir", "input_file")
  )
  wrong = sorted(_OF_FORM[other].intersection(given))
  if wrong:
    raise UserError(
      f"--{wrong[0]} does nothing with --{form}: it is for the records of --{other}; leave it out"
    )


def check_against_meta(corpus: Corpus, experiment: config.Experiment) -> None:
  """Fills settings from the records' metadata.

  Raises:
    UserError: the user gave another value; or neither the user nor the metadata give one.
  """
  meta, data, settings = corpus.meta, experiment.data, experiment.task
  # Setting -> its keys in the metadata of the two forms.
  keys_of = {
    "max_seq_length": ("max_seq_length", "seq_len"),
    "uncased": ("do_lower_case", "uncased"),
    **{name: (name,) for name in experiment.tokenizer.metadata()},
    "use_v2_feature_names": ("use_v2_feature_names",),
    "pack_sequences": ("pack_sequences",),
  }
  if settings.input_file:  # Funnel's form has no masks, so their number is free
    keys_of["max_predictions_per_seq"] = ("max_predictions_per_seq",)
  owners = experiment.owners()
  for name, keys in keys_of.items():
    value = next((meta[key] for key in keys if key in meta), None)
    if value is None:
      continue
    own = getattr(owners[name], name)
    if name in experiment.sources and own != value:
      raise UserError(
        f"{corpus.meta_path}: the records were made with {name} {value}, "
        f"the flags say {own}. Leave --{name} out or make the records again"
      )
    experiment.fill(name, value, corpus.meta_path)
  if data.max_seq_length is None:
    raise UserError("--max_seq_length is missing: the records have no metadata with it")
  if settings.max_predictions_per_seq is None:
    if settings.input_file:
      raise UserError("--max_predictions_per_seq is missing: the records have no metadata with it")
    settings.max_predictions_per_seq = max(round(0.15 * data.max_seq_length), 1)
  if settings.max_predictions_per_seq >= data.max_seq_length:
    raise UserError(
      f"--max_predictions_per_seq={settings.max_predictions_per_seq} is as much as a "
      f"sequence of {data.max_seq_length} tokens; lower it"
    )


def find_symbols(corpus: Corpus, settings: config.Tokenizer) -> tuple[dict[str, int], int]:
  """Special ids and the size of the vocabulary, from the tokenizer or the records' metadata."""
  meta = corpus.meta
  if settings.tokenizer_path:
    tokenizer = tokenization.get_tokenizer(**dataclasses.asdict(settings))
    tokenizer.mask_id  # noqa: B018 (raises if the vocabulary has none)
    if meta.get("vocab_sha256", None) not in (None, files.fingerprint([settings.tokenizer_path])):
      raise UserError(
        f"{settings.tokenizer_path} is not the vocabulary that the records were made "
        f"with ({corpus.meta_path}); give that one, or leave --tokenizer_path out"
      )
    return tokenizer.special_ids, tokenizer.vocab_size
  if meta.get("special_ids") is None:
    raise UserError(
      "--tokenizer_path (--vocab_file) is missing: the records have no metadata with "
      "their special symbols"
    )
  missing = [role for role in ("cls", "sep", "pad", "mask") if role not in meta["special_ids"]]
  if missing or meta.get("vocab_size") is None:
    raise UserError(
      f"{corpus.meta_path}: {f'special_ids lacks {missing[0]!r}' if missing else 'no vocab_size'}; "
      f"give the vocabulary with --tokenizer_path (--vocab_file)"
    )
  return meta["special_ids"], meta["vocab_size"]
