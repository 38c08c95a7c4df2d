"""Turns raw text into the TFRecord files that run_pretraining.py reads, in BERT's or Funnel's form.

  python create_pretraining_data.py --input_file='text/*.txt' --output_file=tf_examples.tfrecord
      --vocab_file=vocab.txt --max_seq_length=128 --max_predictions_per_seq=20 --dupe_factor=5

  python create_pretraining_data.py --input_glob='text/*.txt' --save_dir=records --seq_len=512
      --tokenizer_path=vocab.txt --pass_id=0 --num_task=8

Text has one sentence a line, and a blank line ends a document. BERT's records are masked and hold
next-sentence labels; Funnel's are masked during training. Memory does not grow with the corpus.
--num_shards (or --num_task) record files are made by --num_workers processes, or by the workers of
an Apache Beam --runner; the files are the same in any case. A run that was killed goes on when the
same command is given again.
"""

import dataclasses
import logging
import os
import time
from typing import Any

import config
from errors import UserError
from preprocessing import pretraining_records
from tasks import corpus
from utils import files

# Worker processes load this file, too, and need no TensorFlow: functions import what uses it.

log = logging.getLogger("scripts.create_pretraining_data")


@dataclasses.dataclass
class Run:
  """Flags of both forms."""

  random_seed: int = config.option(12345, "seed of all draws", aliases=("seed",))
  errors: str = config.option(
    "strict", "bytes that are not UTF-8: stop, or read them as U+FFFD", ("strict", "replace")
  )
  num_workers: int = config.option(0, "processes; 0 for one on each core", lower=0)
  overwrite_data: bool = config.option(False, "delete the output files of earlier runs first")
  runner: str = config.option(
    "",
    "do the work with this runner of Apache Beam: DirectRunner, FlinkRunner, SparkRunner, "
    "DataflowRunner; empty for the processes of this machine",
  )
  beam_options: str = config.option(
    "", "options for Apache Beam, e.g. '--region=us-central1 --temp_location=gs://bucket/temp'"
  )


def chosen_form(given: dict[type, set[str]]) -> type:
  """BertForm or FunnelForm, as the given flags say; UserError if they mix or name neither."""
  bert, funnel = given[pretraining_records.BertForm], given[pretraining_records.FunnelForm]
  names = [" ".join(f"--{name}" for name in sorted(flags)) for flags in (bert, funnel)]
  if bert and funnel:
    raise UserError(
      f"{names[0]} belong to BERT's form of records, {names[1]} to Funnel's; give "
      f"the flags of one form"
    )
  if {"input_file", "output_file"} <= bert:
    return pretraining_records.BertForm
  if {"input_glob", "save_dir"} <= funnel:
    return pretraining_records.FunnelForm
  raise UserError(
    "give --input_file and --output_file for BERT's form of records, --input_glob "
    "and --save_dir for Funnel's"
  )


def check_values(form: pretraining_records.BertForm | pretraining_records.FunnelForm) -> None:
  """UserError for values that cannot be meant."""
  if isinstance(form, pretraining_records.FunnelForm):
    if form.task >= form.num_task:
      raise UserError(
        f"--task={form.task} is beyond --num_task={form.num_task}; tasks count from 0"
      )
    return
  for name in ("masked_lm_prob", "short_seq_prob"):
    value = getattr(form, name)
    if not (0 <= value <= 1 and (value or name == "short_seq_prob")):
      raise UserError(f"--{name}={value}: must be a fraction, e.g. 0.15")
  if form.max_predictions_per_seq > form.max_seq_length - 3:
    raise UserError(
      f"--max_predictions_per_seq={form.max_predictions_per_seq} is more than the "
      f"{form.max_seq_length - 3} tokens beside the special ones that "
      f"--max_seq_length={form.max_seq_length} leaves"
    )
  expected = round(form.max_seq_length * form.masked_lm_prob)
  if expected > form.max_predictions_per_seq + 1:
    log.warning(
      "--max_predictions_per_seq=%d masks fewer tokens than --masked_lm_prob=%g asks for "
      "(%d of %d)",
      form.max_predictions_per_seq,
      form.masked_lm_prob,
      expected,
      form.max_seq_length,
    )


# What says where things are and not what the records hold.
_PLACES = {"input_file", "output_file", "meta_data_file_path", "input_glob", "save_dir", "task"}


def describe(
  form: Any, tokenizer_settings: config.Tokenizer, run: Run, texts: list[corpus.TextFile]
) -> dict[str, Any]:
  """All that shapes the records, under the names that readers of the metadata know."""
  import tokenization

  tokenizer = tokenization.get_tokenizer(**dataclasses.asdict(tokenizer_settings))
  tokenizer.mask_id  # noqa: B018 (raises where the vocabulary has none)
  is_bert = isinstance(form, pretraining_records.BertForm)
  values = {name: value for name, value in dataclasses.asdict(form).items() if name not in _PLACES}
  return {
    "task_type": "bert_pretraining" if is_bert else "funnel_pretraining",
    **values,
    "do_lower_case" if is_bert else "uncased": tokenizer_settings.uncased,
    **tokenizer_settings.metadata(),
    "tokenizer_type": tokenizer_settings.tokenizer_type,
    "vocab_size": tokenizer.vocab_size,
    "special_ids": tokenizer.special_ids,
    "vocab_sha256": files.fingerprint([tokenizer_settings.tokenizer_path]),
    "random_seed": run.random_seed,
    "errors": run.errors,
    "corpus_sha256": corpus.fingerprint(texts),
  }


def check_paragraphs(
  texts: list[corpus.TextFile], special_ids: dict[str, int], vocab_file: str
) -> None:
  """Warns if the text marks ends of paragraphs and the vocabulary has no symbol for them."""
  import tokenization

  symbol = tokenization.END_OF_PARAGRAPH
  file = None if "eop" in special_ids else corpus.find_text(texts, symbol)
  if file:
    log.warning(
      "%s: the text holds %s, which %s lacks: it is left out. To keep it, use a "
      "vocabulary with it (scripts/build_vocab.py --symbols=funnel makes one)",
      file.path,
      symbol,
      vocab_file,
    )


def plan_bert(
  form: pretraining_records.BertForm, texts: list[corpus.TextFile]
) -> list[pretraining_records.Shard]:
  """The shards of BERT's form: each output file, or num_shards of each."""
  names = [name.strip() for name in form.output_file.split(",") if name.strip()]
  if len(set(names)) < len(names) or not names:
    raise UserError(f"--output_file={form.output_file}: the names must differ")
  if form.num_shards > 1:
    names = [
      f"{name}-{shard:05d}-of-{form.num_shards:05d}"
      for name in names
      for shard in range(form.num_shards)
    ]
  return [
    pretraining_records.Shard(index, name, name + ".done.json", pieces)
    for index, (name, pieces) in enumerate(zip(names, corpus.split(texts, len(names)), strict=True))
  ]


def plan_funnel(
  form: pretraining_records.FunnelForm, uncased: bool, texts: list[corpus.TextFile]
) -> list[pretraining_records.Shard]:
  """The shards of Funnel's form, with the published names; only one where --task is given."""
  stem = f"{form.split}.pass-{form.pass_id}.seq-{form.seq_len}.{'uncased' if uncased else 'cased'}"
  planned = []
  for task, pieces in enumerate(corpus.split(texts, form.num_task)):
    end = f"{task:05d}-of-{form.num_task:05d}"
    planned.append(
      pretraining_records.Shard(
        task,
        os.path.join(form.save_dir, f"data.{stem}.tfrecord-{end}"),
        os.path.join(form.save_dir, f"meta.{stem}.json-{end}"),
        pieces,
      )
    )
  return planned if form.task < 0 else [planned[form.task]]


def num_cores() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def make(job: pretraining_records.Job, planned: list[pretraining_records.Shard], run: Run) -> None:
  """Makes shards on this machine, with a progress bar."""
  from utils import console

  wanted = run.num_workers or num_cores()
  num_workers = min(wanted, len(planned))
  flag = "num_shards" if isinstance(job.form, pretraining_records.BertForm) else "num_task"
  log.info(
    "%d record files to make with %d processes%s",
    len(planned),
    num_workers,
    f" (a larger --{flag} would use more)" if num_workers < wanted else "",
  )
  bar = console.progress_bar(
    total=max(1, sum(shard.num_bytes for shard in planned)),
    desc="text",
    bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed} elapsed, {remaining} left{postfix}]",
  )
  counts = {"documents": 0, "tokens": 0}
  start = time.perf_counter()

  def progress(num_bytes, documents, tokens):
    counts["documents"] += documents
    counts["tokens"] += tokens
    seconds = time.perf_counter() - start
    bar.set_postfix(
      {f"{name}/s": f"{count / seconds:,.0f}" for name, count in counts.items()}, refresh=False
    )
    bar.update(min(num_bytes, bar.total - bar.n))

  try:
    pretraining_records.make_locally(job, planned, num_workers, progress)
    bar.update(bar.total - bar.n)  # blank lines
  finally:
    bar.close()
  seconds = time.perf_counter() - start
  log.info(
    "Read %s documents, %s tokens in %.1f s: %.2f MB/s",
    f"{counts['documents']:,}",
    f"{counts['tokens']:,}",
    seconds,
    bar.total / 1e6 / seconds,
  )


def create(
  form: pretraining_records.BertForm | pretraining_records.FunnelForm,
  tokenizer: config.Tokenizer,
  run: Run,
) -> None:
  """Makes the record files that are not there, and their metadata."""
  from preprocessing import pretraining_manifest
  from training import model_folder

  check_values(form)
  if not tokenizer.tokenizer_path:
    raise UserError("--vocab_file (or --tokenizer_path) is missing")
  is_bert = isinstance(form, pretraining_records.BertForm)
  texts = corpus.list_files(
    *((form.input_file, "input_file") if is_bert else (form.input_glob, "input_glob"))
  )
  job = pretraining_records.Job(
    form, tokenizer, run.random_seed, run.errors, describe(form, tokenizer, run, texts)
  )
  meta_path = ""
  if is_bert:
    planned = plan_bert(form, texts)
    meta_path = form.meta_data_file_path or form.output_file.split(",")[0].strip() + ".meta.json"
  else:
    planned = plan_funnel(form, tokenizer.uncased, texts)
  inputs = [
    *model_folder.tokenizer_inputs(tokenizer.tokenizer_path),
    *(file.path for file in texts),
  ]
  missing = pretraining_manifest.prepare(
    planned, job.settings, meta_path, run.overwrite_data, inputs
  )
  if missing:
    check_paragraphs(texts, job.settings["special_ids"], tokenizer.tokenizer_path)
  if missing and run.runner:
    from preprocessing import beam

    beam.make_with_beam(job, missing, run.runner, run.beam_options, run.num_workers or num_cores())
  elif missing:
    make(job, missing, run)
  count = pretraining_manifest.finish(
    planned, job.settings, meta_path, is_part=not is_bert and form.task >= 0
  )
  print(
    f"{os.path.dirname(planned[0].path) or '.'}: {count} examples in {len(planned)} record "
    f"files, {os.path.basename(planned[0].path)}{' ...' if len(planned) > 1 else ''}"
  )
  print(f"{meta_path or planned[0].marker}: metadata")


def main() -> None:
  from training import flags, model_folder

  tokenizer, given = flags.read_section(config.Tokenizer)
  if tokenizer.tokenizer_path:
    model_folder.fill_tokenizer(tokenizer, [os.path.dirname(tokenizer.tokenizer_path)], given)
  run, _ = flags.read_section(Run)
  forms = {
    form: flags.read_section(form)
    for form in (pretraining_records.BertForm, pretraining_records.FunnelForm)
  }
  form, _ = forms[chosen_form({form: given for form, (_, given) in forms.items()})]
  create(form, tokenizer, run)


if __name__ == "__main__":
  from training import app, flags

  flags.define(config.Tokenizer, Run, pretraining_records.BertForm, pretraining_records.FunnelForm)
  app.run_main(main, "Complete record files are kept: the same command makes the others.")
