"""Pretrains an encoder on records of raw text: BERT (MLM + NSP), MLM or ELECTRA.

  python run_pretraining.py --bert_config_file=bert_config.json --input_file='records/*.tfrecord'
      --model_dir=pretraining --train_steps=100000 --train_batch_size=32

  python run_pretraining.py --loss_type=electra --record_dir=records --num_predict=85
      --block_size=4_4_4 --d_model=768 --d_embed=768 --n_head=12 --d_inner=3072
      --model_dir=pretraining

The records come from create_pretraining_data.py, in BERT's form (--input_file) or in Funnel's
(--record_dir); each serves every loss and every family of models. Without a --do_ flag it trains;
--do_eval evaluates. Checkpoints, metrics.jsonl and TensorBoard's logs stand in --model_dir.
"""

import dataclasses
import logging
import os
import re
from typing import Any

import tensorflow as tf
from absl import flags as absl_flags

import config
import modeling
import tokenization
from errors import UserError
from preprocessing import record_files
from tasks import masking, pretraining
from tasks.corpus import match_files
from training import app, checkpoints, experiments, flags, model_folder, runner
from utils import files

SECTIONS = (
  config.Pretraining,
  config.Trainer,
  config.Model,
  config.Tokenizer,
  config.Data,
  config.Optimizer,
  config.Runtime,
)

log = logging.getLogger("scripts.run_pretraining")


@dataclasses.dataclass
class Corpus:
  """Records with their metadata.

  Attributes:
    record_sets: kind ("train", "dev") -> record files.
    meta: what they were made with; of records without metadata nothing.
    meta_path: where that is written, for messages.
  """

  record_sets: dict[str, record_files.RecordSet]
  meta: dict[str, Any]
  meta_path: str


# ---- Finding the records ------------------------------------------------------------------------


def expand(flag: str, names: str) -> list[str]:
  """Files of a comma list of names and globs, each once; UserError where one matches nothing."""
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
  """The spelling of a path under which two are compared."""
  return path if "://" in path else os.path.normpath(path)


def read_bert_files(flag: str, names: str) -> tuple[record_files.RecordSet, dict[str, Any], str]:
  """Record files in BERT's form, their common metadata (empty if there are none) and its path."""
  paths, described, metas = expand(flag, names), {}, {}
  for path in paths:
    if tf.io.gfile.exists(path + ".done.json"):
      raise UserError(
        f"{path}: its set of record files is not complete; give the command of "
        f"create_pretraining_data.py again, which goes on"
      )
    # NAME-00000-of-00004 is one of four shards, or was made under that name by a run of its own.
    for name in (path, re.sub(r"-\d{5}-of-\d{5}$", "", path)):
      meta_path = name + ".meta.json"
      if meta_path not in metas and tf.io.gfile.exists(meta_path):
        metas[meta_path] = files.read_json(meta_path)
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
  """Of record files and their numbers of records; leaves out empty ones, if there are others."""
  used = [path for path, count in counts.items() if count] or list(counts)
  return record_files.RecordSet(used, sum(counts.values()))


def describe_files(meta_path: str, meta: dict[str, Any]) -> dict[str, tuple[int, int | None]]:
  """Record file -> its number of records and of bytes (None if unknown), of a metadata file."""
  names, counts = meta.get("filenames"), meta.get("num_example")
  if isinstance(names, list) and isinstance(counts, int):  # Funnel's form: one file each
    counts, meta = [counts], {**meta, "num_bytes": [meta.get("num_bytes")]}
  if not (isinstance(names, list) and isinstance(counts, list) and len(names) == len(counts)):
    raise UserError(
      f"{meta_path}: 'filenames' and 'num_example' do not tell the number of records "
      f"of each file; make the records anew"
    )
  sizes = meta.get("num_bytes", [None] * len(names))
  folder = os.path.dirname(meta_path)
  return {
    normal(os.path.join(folder, name)): values
    for name, *values in zip(names, counts, sizes, strict=True)
  }


def check_file(path: str, count: int | None, num_bytes: int | None) -> int:
  """Number of records of a file; UserError where it is not what its metadata say."""
  if num_bytes is not None:  # spares the reading of large files
    record_files.check_num_bytes(path, num_bytes)
    return count
  found = record_files.count_records(path)
  if count is not None:
    record_files.check_size(path, count, found)
  return found


def read_funnel_files(
  folders: str, split: str, num_passes: int, wanted: dict[str, Any]
) -> tuple[record_files.RecordSet, dict[str, Any], str]:
  """Record files in Funnel's form that fit `wanted`, their common metadata and its path.

  Raises:
    UserError: there are none, some of a set are missing, or they are of several lengths and no flag
      says which.
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
        # The one before and the last: if each file has these, the set is whole.
        for task in (max(int(match[4]) - 1, 0), int(match[5]) - 1):
          other = re.sub(r"\d{5}(-of-\d{5})$", rf"{task:05d}\1", path)
          if other not in paths:
            raise UserError(
              f"{other}: no such file, but its set has {int(match[5])} record files; "
              f"create_pretraining_data.py --task={task} makes the missing one"
            )
        meta = files.read_json(path)
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


# What the model must know of the records, or the reader.
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
  """Metadata of the first file, and its path; UserError where others differ in one of `names`."""
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


def find_corpus(
  settings: config.Pretraining, trainer: config.Trainer, wanted: dict[str, Any]
) -> Corpus:
  """The records of --input_file or --record_dir, and those to evaluate on.

  Args:
    settings: the flags.
    trainer: whether anything is trained and evaluated.
    wanted: "seq_len" and "uncased" where the user gave them.
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


# ---- Settings -----------------------------------------------------------------------------------


# Flags that serve one form of records, by the flag that names the records.
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


def check_form(settings: config.Pretraining, given: set[str]) -> None:
  """UserError for flags of the other form of records, which would do nothing."""
  form, other = (
    ("input_file", "record_dir") if settings.input_file else ("record_dir", "input_file")
  )
  wrong = sorted(given & _OF_FORM[other])
  if wrong:
    raise UserError(
      f"--{wrong[0]} does nothing with --{form}: it is for the records of --{other}; leave it out"
    )


def check_against_meta(corpus: Corpus, experiment: config.Experiment, given: set[str]) -> None:
  """Fills settings from the records' metadata, adds their names to `given`.

  Raises:
    UserError: the user gave another value; or neither the user nor the metadata give one.
  """
  meta, data, settings = corpus.meta, experiment.data, experiment.pretraining
  # Setting -> its section and the names under which the metadata of the two forms hold it.
  places = {
    "max_seq_length": (data, ("max_seq_length", "seq_len")),
    "uncased": (experiment.tokenizer, ("do_lower_case", "uncased")),
    **{name: (experiment.tokenizer, (name,)) for name in experiment.tokenizer.metadata()},
    "use_v2_feature_names": (settings, ("use_v2_feature_names",)),
    "pack_sequences": (settings, ("pack_sequences",)),
  }
  if settings.input_file:  # Funnel's form has no masks: how many is free
    places["max_predictions_per_seq"] = (settings, ("max_predictions_per_seq",))
  for name, (section, keys) in places.items():
    value = next((meta[key] for key in keys if key in meta), None)
    if value is None:
      continue
    if name in given and getattr(section, name) != value:
      raise UserError(
        f"{corpus.meta_path}: the records were made with {name} {value}, "
        f"the flags say {getattr(section, name)}. Leave --{name} out or make the "
        f"records anew"
      )
    setattr(section, name, value)
    given.add(name)
  if data.max_seq_length is None:
    raise UserError("--max_seq_length is missing: the records have no metadata that tells it")
  if settings.max_predictions_per_seq is None:
    if settings.input_file:
      raise UserError(
        "--max_predictions_per_seq is missing: the records have no metadata that tells it"
      )
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
    tokenizer.mask_id  # noqa: B018 (raises where the vocabulary has none)
    if meta.get("vocab_sha256", None) not in (None, files.fingerprint([settings.tokenizer_path])):
      raise UserError(
        f"{settings.tokenizer_path} is not the vocabulary that the records were made "
        f"with ({corpus.meta_path}); give that one, or leave --tokenizer_path out"
      )
    return tokenizer.special_ids, tokenizer.vocab_size
  if "special_ids" not in meta:
    raise UserError(
      "--tokenizer_path (--vocab_file) is missing: the records have no metadata that "
      "tell their special symbols"
    )
  return meta["special_ids"], meta["vocab_size"]


def find_model_config(experiment: config.Experiment, vocab_size: int) -> modeling.Config:
  """The model of --model_config, of an earlier run in model_dir, or of the Funnel flags."""
  model, model_dir = experiment.model, experiment.trainer.model_dir
  own = model_folder.find_in(model_dir, model_folder.CONFIG_NAMES)
  keys = {field.name for field in dataclasses.fields(modeling.ModelConfig)}
  from_flags = [key for key in sorted(keys - {"vocab_size"}) if absl_flags.FLAGS[key].present]
  if not model.model_config and own and not from_flags:
    model.model_config = own
  if model.model_config:
    ignored = set(from_flags) - set(model.overwrite_keys.split(",")) - {"truncate_seq"}
    if ignored:
      raise UserError(
        f"--{sorted(ignored)[0]} does nothing beside --model_config; name it in "
        f"--overwrite_keys too, or leave one of the two out"
      )
    model_config = model_folder.load_model_config(model)
  elif from_flags:
    if absl_flags.FLAGS["vocab_size"].value is None:
      absl_flags.FLAGS["vocab_size"].value = vocab_size
    model_config = modeling.ModelConfig.init_from_flags()
    model.model_config = "the flags"
  else:
    raise UserError(
      "no model: give --model_config (--bert_config_file), or the flags of a "
      "Funnel-Transformer (--block_size=4_4_4 --d_model=768 ...)"
    )
  if not tokenization.fits_table(vocab_size, model_config.vocab_size, model.model_config):
    raise UserError(
      f"vocab_size is {model_config.vocab_size} in {model.model_config}, but "
      f"{vocab_size} in the records' vocabulary; change the model's"
    )
  return model_config


def choose_loss(settings: config.Pretraining, family: str) -> str:
  """The loss of --loss_type, in any case, or the one that fits the records and the model."""
  if settings.loss_type:
    return settings.loss_type.lower()
  return "bert" if settings.input_file and family == "bert" else "mlm"


def make_task(
  experiment: config.Experiment,
  model_config: modeling.Config,
  corpus: Corpus,
  special_ids: dict[str, int],
  vocab_size: int,
  loss_type: str,
) -> pretraining.PretrainingTask:
  """The task on the form of records at hand."""
  settings = experiment.pretraining
  sequences = pretraining.Sequences(
    experiment.data.max_seq_length,
    special_ids,
    vocab_size,
    model_config.cls_segment_id,
    model_config.reserved_positions,
  )
  if settings.input_file:
    form = pretraining.BertRecords(
      sequences,
      settings.max_predictions_per_seq,
      settings.use_v2_feature_names,
      settings.pack_sequences,
    )
  else:
    form = pretraining.FunnelRecords(
      sequences,
      masking.Masking(
        settings.sample_strategy,
        settings.max_predictions_per_seq,
        settings.leak_ratio,
        settings.rand_ratio,
        settings.min_tok,
        settings.max_tok,
        settings.min_word,
        settings.max_word,
      ),
    )
  return pretraining.PretrainingTask(
    loss_type, form, sequences, settings.width_shrink, settings.disc_coeff, settings.eval_split
  )


def limit_evaluation(experiment: config.Experiment, corpus: Corpus) -> None:
  """Sets the number of examples of --max_eval_batch batches; logs it if there are more."""
  limit = experiment.pretraining.max_eval_batch * experiment.trainer.eval_batch_size
  experiment.data.max_eval_examples = limit
  found = corpus.record_sets.get("dev")
  if found and limit < found.num_examples:
    log.info(
      "Evaluate on the first %d of %d examples (--max_eval_batch=%d)",
      limit,
      found.num_examples,
      experiment.pretraining.max_eval_batch,
    )


def make_runner(experiment: config.Experiment, given: set[str]) -> runner.Runner:
  """Everything that the flags ask for, checked.

  Args:
    experiment: the flags; completed in place.
    given: names that the user set; those that the records or the trained model's folder hold are
      added.
  """
  trainer, settings = experiment.trainer, experiment.pretraining
  wanted = {}
  if "max_seq_length" in given:
    wanted["seq_len"] = experiment.data.max_seq_length
  if "uncased" in given:
    wanted["uncased"] = experiment.tokenizer.uncased
  corpus = find_corpus(settings, trainer, wanted)
  check_form(settings, given)
  check_against_meta(corpus, experiment, given)
  model_folder.take_settings(experiment, given, "pretraining")
  special_ids, vocab_size = find_symbols(corpus, experiment.tokenizer)
  model_config = find_model_config(experiment, vocab_size)
  loss_type = choose_loss(settings, model_config.family)
  if model_config.family != "bert" and loss_type == "bert":
    raise UserError(
      "--loss_type=bert needs a BERT configuration: Funnel-Transformers learn no "
      "next sentence prediction; use --loss_type=mlm or --loss_type=electra"
    )
  if settings.width_shrink <= 0:
    raise UserError(f"--width_shrink={settings.width_shrink} must be above 0")
  if settings.pack_sequences and (model_config.family != "bert" or loss_type == "electra"):
    raise UserError(
      "records with --pack_sequences serve --loss_type=bert and mlm of a BERT "
      "configuration; make records without it"
    )
  task = make_task(experiment, model_config, corpus, special_ids, vocab_size, loss_type)
  experiments.take_recipe(experiment, given, model_config.family, "pretraining", loss_type)
  if experiment.model.init_checkpoint not in ("", "none"):
    experiment.model.init_checkpoint = checkpoints.resolve(experiment.model.init_checkpoint)
  else:
    experiment.model.init_checkpoint = "none"
  if settings.max_eval_batch > 0 and "max_eval_examples" not in given:
    limit_evaluation(experiment, corpus)
  return runner.Runner(experiment, model_config, task, corpus.record_sets)


def read_experiment() -> tuple[config.Experiment, set[str]]:
  """The flags with the default folders, and the names that the user set."""
  experiment, given = flags.read(*SECTIONS)
  trainer = experiment.trainer
  for name in ("do_predict", "do_submit"):
    if getattr(trainer, name):
      raise UserError(f"--{name}: pretraining has nothing to predict; use --do_train or --do_eval")
  if not (trainer.do_train or trainer.do_eval):
    trainer.do_train = True
  trainer.model_dir = (
    trainer.model_dir or experiment.data.output_dir or os.path.join("runs", "pretraining")
  )
  return experiment, given


def main() -> None:
  experiment, given = read_experiment()

  def run_once(one: config.Experiment) -> dict[str, float]:
    run = make_runner(one, set(given))
    run.check_before_work()
    return run.train_and_evaluate()

  app.run_trials(experiment, run_once)


if __name__ == "__main__":
  flags.define(*SECTIONS)
  flags.define_funnel()
  app.run_main(main)
