"""Measures the speed of SQuAD's preprocessing in questions per second, for numbers of processes.

  python benchmarks/squad_preprocessing.py train-v2.0.json vocab.txt [--processes=1,2] [--copies=10]

The articles of the file are repeated, so that a part of SQuAD gives the speed of all of it. Prints
the time for all 130,319 training questions of SQuAD v2.0 at that speed. The times include the start
of the processes. On a busy machine, compare the CPU times.
"""

import argparse
import json
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import tokenization
from preprocessing import finetuning_records
from tasks import squad
from tasks.settings import Squad

SQUAD_QUESTIONS = 130_319


def write_copies(source: str, target: str, copies: int) -> int:
  """Writes a file with `copies` copies of all articles of `source`, with different ids.

  Returns:
    The number of questions.
  """
  with open(source, encoding="utf-8") as reader:
    articles = json.load(reader)["data"]
  data, count = [], 0
  for copy in range(copies):
    for article in json.loads(json.dumps(articles)):
      for qa in (qa for paragraph in article["paragraphs"] for qa in paragraph["qas"]):
        qa["id"] += f"-{copy}"
        count += 1
      data.append(article)
  with open(target, "w", encoding="utf-8") as writer:
    json.dump({"version": "v2.0", "data": data}, writer)
  return count


def main() -> None:
  """Measures each number of processes and prints the speeds."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("squad_file")
  parser.add_argument("vocab_file")
  parser.add_argument("--length", type=int, default=384, help="max_seq_length")
  parser.add_argument("--processes", default="1,2", help="comma-separated numbers of processes")
  parser.add_argument("--copies", type=int, default=10)
  arguments = parser.parse_args()
  tokenizer = tokenization.get_tokenizer("word_piece", arguments.vocab_file, True)
  with tempfile.TemporaryDirectory() as work:
    file = os.path.join(work, "train.json")
    questions = write_copies(arguments.squad_file, file, arguments.copies)
    task = squad.SquadTask(Squad(train_file=file))
    for processes in map(int, arguments.processes.split(",")):
      start, cpu_start = time.perf_counter(), sum(os.times()[:4])
      windows = finetuning_records.make_records(
        os.path.join(work, f"records-{processes}"),
        task,
        "train",
        tokenizer,
        arguments.length,
        num_proc=processes,
      )
      seconds = time.perf_counter() - start
      cpu_seconds = sum(os.times()[:4]) - cpu_start  # includes the worker processes
      print(
        f"{processes} processes: {questions} questions, {windows} windows in {seconds:.1f} s "
        f"({cpu_seconds:.1f} s of CPU), {questions / seconds:.0f} questions/s; SQuAD v2.0 in "
        f"{SQUAD_QUESTIONS / questions * seconds / 60:.1f} minutes",
        flush=True,
      )


if __name__ == "__main__":
  main()
