"""A run of create_pretraining_data.py: checks its settings, plans its shards and makes them.

Worker processes load this module and need no TensorFlow, so functions import what uses it.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import config
from errors import UserError
from preprocessing import pretraining_records
from preprocessing.pretraining_records import BertForm, FunnelForm, Job, Shard
from tasks import corpus
from utils import files, options

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Run:
  """Flags of both forms."""

  random_seed: int = config.option(12345, "seed of all draws", aliases=("seed",))
  errors: str = config.option(
    "strict", "bytes that are not UTF-8: stop, or read them as U+FFFD", ("strict", "replace")
  )
  num_workers: int = config.option(0, "number of processes; 0: one per core", lower=0)
  overwrite_data: bool = config.option(False, "delete the output files of earlier runs first")
  runner: str = config.option(
    "",
    "run on this runner of Apache Beam: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner; "
    "empty: processes of this machine",
  )
  beam_options: str = config.option(
    "", "options for Apache Beam, e.g. '--region=us-central1 --temp_location=gs://bucket/temp'"
  )


def create(
  form: BertForm | FunnelForm,
  tokenizer: config.Tokenizer,
  run: Run,
  tokenizer_files: Sequence[str] = (),
) -> None:
  """Makes the missing record files and the metadata, and prints a summary.

  Args:
    form: settings of the records.
    tokenizer: settings of the tokenizer.
    run: settings of the run.
    tokenizer_files: the vocabulary and its settings files, which no output may replace.

  Raises:
    UserError: a setting is invalid, a file cannot be read or written, or an output file exists
      that another command made.
  """
  from preprocessing import pretraining_manifest

  check_values(form)
  if not tokenizer.tokenizer_path:
    raise UserError("--vocab_file (or --tokenizer_path) is missing")
  is_bert = isinstance(form, BertForm)
  texts = corpus.list_files(
    *((form.input_file, "input_file") if is_bert else (form.input_glob, "input_glob"))
  )
  job = Job(form, tokenizer, run.random_seed, run.errors, describe(form, tokenizer, run, texts))
  meta_path = ""
  if is_bert:
    planned = plan_bert(form, texts)
    meta_path = form.meta_data_file_path or form.output_file.split(",")[0].strip() + ".meta.json"
  else:
    planned = plan_funnel(form, tokenizer.uncased, texts)
  inputs = [*tokenizer_files, *(file.path for file in texts)]
  missing = pretraining_manifest.prepare(
    planned, job.settings, meta_path, run.overwrite_data, inputs
  )
  if missing:
    _check_paragraphs(texts, job.settings["special_ids"], tokenizer.tokenizer_path)
  if missing and run.runner:
    from preprocessing import beam

    beam.make_with_beam(job, missing, run.runner, run.beam_options, run.num_workers or num_cores())
  elif missing:
    _make(job, missing, run)
  count = pretraining_manifest.finish(
    planned, job.settings, meta_path, is_part=not is_bert and form.task >= 0
  )
  print(
    f"{os.path.dirname(planned[0].path) or '.'}: {count} examples in {len(planned)} record "
    f"files, {os.path.basename(planned[0].path)}{' ...' if len(planned) > 1 else ''}"
  )
  print(f"{meta_path or planned[0].marker}: metadata")


# ---- Settings -----------------------------------------------------------------------------------


def check_values(form: BertForm | FunnelForm) -> None:
  """Raises UserError if a setting is out of range or contradicts another one."""
  options.check_section(form)
  if isinstance(form, FunnelForm):
    if form.task >= form.num_task:
      raise UserError(
        f"--task={form.task} is beyond --num_task={form.num_task}; tasks count from 0"
      )
    return
  if form.max_predictions_per_seq > form.max_seq_length - 3:
    raise UserError(
      f"--max_predictions_per_seq={form.max_predictions_per_seq} is more than the "
      f"{form.max_seq_length - 3} tokens that --max_seq_length={form.max_seq_length} leaves "
      f"after the special ones"
    )
  expected = round(form.max_seq_length * form.masked_lm_prob)
  if expected > form.max_predictions_per_seq + 1:
    log.warning(
      "--max_predictions_per_seq=%d limits the masked tokens to fewer than --masked_lm_prob=%g "
      "gives (%d of %d)",
      form.max_predictions_per_seq,
      form.masked_lm_prob,
      expected,
      form.max_seq_length,
    )


# Settings that name files; they do not change the contents of the records.
_PATHS = {"input_file", "output_file", "meta_data_file_path", "input_glob", "save_dir", "task"}


def describe(
  form: BertForm | FunnelForm,
  tokenizer_settings: config.Tokenizer,
  run: Run,
  texts: list[corpus.TextFile],
) -> dict[str, Any]:
  """Returns all settings that change the records, under their names in the metadata.

  Raises:
    UserError: the vocabulary has no mask symbol.
  """
  import tokenization

  tokenizer = tokenization.get_tokenizer(**dataclasses.asdict(tokenizer_settings))
  tokenizer.mask_id  # noqa: B018 (raises if the vocabulary has none)
  is_bert = isinstance(form, BertForm)
  values = {name: value for name, value in dataclasses.asdict(form).items() if name not in _PATHS}
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


def _check_paragraphs(
  texts: list[corpus.TextFile], special_ids: dict[str, int], vocab_file: str
) -> None:
  """Logs a warning if the text has <eop> symbols and the vocabulary does not."""
  import tokenization

  symbol = tokenization.END_OF_PARAGRAPH
  file = None if "eop" in special_ids else corpus.find_text(texts, symbol)
  if file:
    log.warning(
      "%s: the text has %s, which is not in %s: it is left out. To keep it, use a vocabulary "
      "with this symbol (scripts/build_vocab.py --symbols=funnel trains one)",
      file.path,
      symbol,
      vocab_file,
    )


# ---- Shards -------------------------------------------------------------------------------------


def plan_bert(form: BertForm, texts: list[corpus.TextFile]) -> list[Shard]:
  """Returns the shards of BERT's form: num_shards of each output file.

  Raises:
    UserError: there is no output file, or one is named twice.
  """
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
    Shard(index, name, name + ".done.json", pieces)
    for index, (name, pieces) in enumerate(zip(names, corpus.split(texts, len(names)), strict=True))
  ]


def plan_funnel(form: FunnelForm, uncased: bool, texts: list[corpus.TextFile]) -> list[Shard]:
  """Returns the shards of Funnel's form, named as the original names them.

  With --task, only that task's shard is returned.
  """
  stem = f"{form.split}.pass-{form.pass_id}.seq-{form.seq_len}.{'uncased' if uncased else 'cased'}"
  planned = []
  for task, pieces in enumerate(corpus.split(texts, form.num_task)):
    end = f"{task:05d}-of-{form.num_task:05d}"
    planned.append(
      Shard(
        task,
        os.path.join(form.save_dir, f"data.{stem}.tfrecord-{end}"),
        os.path.join(form.save_dir, f"meta.{stem}.json-{end}"),
        pieces,
      )
    )
  return planned if form.task < 0 else [planned[form.task]]


def num_cores() -> int:
  """Number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _make(job: Job, planned: list[Shard], run: Run) -> None:
  """Makes shards on this machine, with a progress bar."""
  from utils import console

  wanted = run.num_workers or num_cores()
  num_workers = min(wanted, len(planned))
  flag = "num_shards" if isinstance(job.form, BertForm) else "num_task"
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
    bar.update(bar.total - bar.n)  # blank lines are not reported
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
