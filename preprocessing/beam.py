"""Makes pretraining shards on the workers of an Apache Beam runner: Flink, Spark, Dataflow, ...

Shards are the elements of the pipeline. The same code as on one machine makes them, so the files
are the same. Workers need the input, the output folder and the vocabulary under the same paths (a
shared file system, gs://...), and this repository on their PYTHONPATH.
"""

import logging
import os
import shlex

import tensorflow as tf

from errors import UserError
from preprocessing import pretraining_records
from utils import files

_REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

try:
  import apache_beam as beam
  from apache_beam.options.pipeline_options import PipelineOptions
except ImportError:
  raise UserError(
    "--runner needs Apache Beam: pip install -r requirements-beam.txt (without "
    "--runner, processes of this machine make the records)"
  ) from None


def _error_file(shard: pretraining_records.Shard) -> str:
  return files.temporary_prefix(shard.path) + "error"


class _MakeShard(beam.DoFn):
  """Makes shards; a worker process loads the tokenizer once."""

  def __init__(self, job: pretraining_records.Job):
    super().__init__()
    self._job = job

  def setup(self):
    self._worker = pretraining_records.Worker(self._job)

  def process(self, shard):
    try:
      self._worker.make(shard)
    except UserError as error:
      # Beam would retry after an exception, and bury its message in a long traceback.
      files.write_json(_error_file(shard), {"error": str(error)})


def make_with_beam(
  job: pretraining_records.Job,
  missing: list[pretraining_records.Shard],
  runner: str,
  options: str,
  num_workers: int,
) -> None:
  """Makes shards and waits until all are complete.

  Args:
    job: settings of the shards.
    missing: shards to make.
    runner: Beam's name of the runner.
    options: further Beam options as on a command line, "--region=... --temp_location=...".
    num_workers: processes of the DirectRunner; other runners have their own options.

  Raises:
    UserError: the text is not UTF-8, a file cannot be read or written, or the runner failed.
  """
  logging.getLogger("apache_beam").setLevel(logging.WARNING)
  arguments = ["--default_sdk_harness_log_level=ERROR", *shlex.split(options)]
  if runner == "DirectRunner":
    arguments = [
      f"--direct_num_workers={num_workers}",
      f"--direct_running_mode={'multi_processing' if num_workers > 1 else 'in_memory'}",
      *arguments,
    ]
  # Worker processes of the DirectRunner inherit this environment.
  os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (_REPOSITORY, os.environ.get("PYTHONPATH")))
  )
  try:
    with beam.Pipeline(runner, PipelineOptions(arguments)) as pipeline:
      _ = pipeline | beam.Create(missing) | beam.Reshuffle() | beam.ParDo(_MakeShard(job))
  except Exception as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(f"--runner={runner} failed: {lines[-1]}") from error
  for shard in missing:
    if tf.io.gfile.exists(_error_file(shard)):
      message = files.read_json(_error_file(shard))["error"]
      tf.io.gfile.remove(_error_file(shard))
      raise UserError(message)
