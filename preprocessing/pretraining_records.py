"""Makes shards of pretraining data: one record file for each unit of the corpus.

A shard depends only on the job and its own unit, so the files are the same whether one process,
several processes, or the workers of an Apache Beam runner make them. A shard is written in three
steps: the record file under a temporary name; its marker, a small JSON file with the job's settings
and the number of examples; the record file's final name. A later run makes the missing shards.

Worker processes load this module and its imports, so it does not import TensorFlow.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import config
from errors import UserError
from preprocessing import tfrecord
from tasks import corpus, pretraining_data
from utils import files, processes


@dataclasses.dataclass
class BertForm:
  """Flags of BERT's form of records."""

  input_file: str = config.option("", "text files: comma-separated names or globs")
  output_file: str = config.option("", "record files to write: comma-separated names")
  num_shards: int = config.option(
    1,
    "number of record files per output file, NAME-00000-of-0000N, ...; the unit of parallel work",
    lower=1,
    upper=99_999,
  )
  meta_data_file_path: str = config.option(
    "", "metadata JSON, written last; default: the first output file's name + .meta.json"
  )
  max_seq_length: int = config.option(
    128, "tokens of an example, specials included", lower=5, upper=1_000_000
  )
  max_predictions_per_seq: int = config.option(
    20, "maximum number of masked tokens per example", lower=1
  )
  masked_lm_prob: float = config.option(0.15, "fraction of the tokens to mask", above=0, upper=1)
  short_seq_prob: float = config.option(
    0.1, "fraction of examples with a random shorter length", lower=0, upper=1
  )
  dupe_factor: int = config.option(10, "passes over the text, each masked differently", lower=1)
  do_whole_word_mask: bool = config.option(False, "mask all tokens of a word or none")
  max_ngram_size: int = config.option(
    1, "mask runs of up to this number of words (tokens)", lower=1
  )
  cls_segment_id: int = config.option(0, "segment id of [CLS]: 0 for BERT, 2 for Funnel", lower=0)
  gzip_compress: bool = config.option(False, "write gzip-compressed record files")
  pack_sequences: bool = config.option(
    False, "put several short examples into a row; each attends only to itself"
  )
  use_v2_feature_names: bool = config.option(
    False, "name the features input_word_ids, input_type_ids instead of input_ids, segment_ids"
  )


@dataclasses.dataclass
class FunnelForm:
  """Flags of Funnel's form of records."""

  input_glob: str = config.option("", "text files: comma-separated globs")
  save_dir: str = config.option("", "folder of the record files to write")
  seq_len: int = config.option(
    512, "tokens of an example, specials included", lower=5, upper=1_000_000
  )
  split: str = config.option("train", "part of the files' names", ("train", "dev", "test"))
  pass_id: int = config.option(
    0, "part of the files' names; each pass is shuffled and cut differently", lower=0
  )
  num_task: int = config.option(
    1, "number of record files; the unit of parallel work", lower=1, upper=99_999
  )
  task: int = config.option(
    -1, "make only the record file with this number; -1: make all", lower=-1
  )
  min_doc_len: int = config.option(1, "leave out documents with fewer tokens", lower=1)


@dataclasses.dataclass(frozen=True)
class Job:
  """Settings that all shards of a run share.

  Attributes:
    form: BertForm or FunnelForm.
    tokenizer: settings of the tokenizer.
    random_seed: seed of all draws.
    errors: "strict" or "replace", see corpus.read_sentences.
    settings: all settings that change the records, for the markers and the metadata.
  """

  form: BertForm | FunnelForm
  tokenizer: config.Tokenizer
  random_seed: int
  errors: str
  settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Shard:
  """A unit of work.

  Attributes:
    index: number of the shard, part of its seed.
    path: record file to write.
    marker: JSON file that declares the record file complete.
    pieces: ranges of the corpus whose documents are used.
  """

  index: int
  path: str
  marker: str
  pieces: list[corpus.Piece]

  @property
  def num_bytes(self) -> int:
    """Size of the shard's text in bytes."""
    return sum(piece.end - piece.start for piece in self.pieces)


class Worker:
  """Makes shards; loads the tokenizer once."""

  def __init__(self, job: Job):
    """Loads the tokenizer; UserError if the vocabulary lacks a symbol that pretraining needs."""
    self._job = job
    self._encoder = pretraining_data.make_encoder(**dataclasses.asdict(job.tokenizer))

  def _examples(self, shard: Shard):
    """Builder of a shard's examples: BertExamples or FunnelExamples."""
    job, form = self._job, self._job.form
    seed = f"{job.random_seed}/{shard.index}"
    if isinstance(form, FunnelForm):
      return pretraining_data.FunnelExamples(
        self._encoder, f"{seed}/{form.pass_id}", seq_len=form.seq_len
      )
    return pretraining_data.BertExamples(
      self._encoder,
      seed,
      max_seq_length=form.max_seq_length,
      max_predictions_per_seq=form.max_predictions_per_seq,
      masked_lm_prob=form.masked_lm_prob,
      short_seq_prob=form.short_seq_prob,
      dupe_factor=form.dupe_factor,
      whole_word=form.do_whole_word_mask,
      max_ngram_size=form.max_ngram_size,
      cls_segment_id=form.cls_segment_id,
      use_v2_feature_names=form.use_v2_feature_names,
      pack_sequences=form.pack_sequences,
    )

  def make(self, shard: Shard, report: Callable[[int, int, int], None] = lambda *_: None) -> None:
    """Writes a shard and its marker.

    Args:
      shard: the shard.
      report: called with the bytes, documents and tokens read since the last call.

    Raises:
      UserError: the text is not UTF-8, or a file cannot be read or written.
    """
    job, form = self._job, self._job.form
    examples = self._examples(shard)
    windows = corpus.read_windows(
      corpus.read_sentences(shard.pieces, job.errors),
      self._encoder,
      report,
      getattr(form, "min_doc_len", 1),
    )
    temporary = files.temporary_name(shard.path)
    try:
      with files.open_file(temporary, "wb") as file:
        writer = tfrecord.Writer(file, getattr(form, "gzip_compress", False))
        count = 0
        for window in windows:
          for features in examples(window):
            writer.write(tfrecord.encode_example(features))
            count += 1
        for features in examples.finish():
          writer.write(tfrecord.encode_example(features))
          count += 1
        writer.close()
        size = file.tell()
      files.write_json(
        shard.marker,
        {
          **job.settings,
          "filenames": [os.path.basename(shard.path)],
          "num_example": count,
          "num_bytes": size,
          **examples.notes(),
        },
      )
      files.rename(temporary, shard.path)
    except files.io_errors(shard.path) as error:
      reason = getattr(error, "strerror", None) or error
      raise UserError(f"{shard.path}: cannot write: {reason}") from None
    finally:
      if "://" not in temporary and os.path.exists(temporary):
        os.remove(temporary)


def _make_worker(job: Job, reports) -> Callable[[Shard], None]:
  """Returns a function that makes a shard in a worker process and reports to the queue."""
  worker = Worker(job)
  return lambda shard: worker.make(shard, lambda *counts: reports.put(counts))


def make_locally(job: Job, shards: list[Shard], num_workers: int, progress) -> None:
  """Makes shards in worker processes.

  Args:
    job: settings of the shards.
    shards: shards to make.
    num_workers: number of processes; if 1, this process does the work.
    progress: called with the bytes, documents and tokens read since the last call.

  Raises:
    UserError: a shard failed, or a process was killed.
  """
  if num_workers == 1:
    worker = Worker(job)
    for shard in shards:
      worker.make(shard, progress)
    return
  reports = processes.CONTEXT.Queue()

  def watch():
    while not reports.empty():
      progress(*reports.get())

  processes.run(_make_worker, (job, reports), shards, num_workers, watch)
