"""create_pretraining_data.py end to end: worker processes, kills, Beam, memory, shell script."""

import glob
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
import tiny
import tiny_pretraining
from tiny_pretraining import NUM_WORDS, bert_form, create, digests, funnel_form, read_records

from errors import UserError

text = tiny_pretraining.text
vocab = tiny_pretraining.vocab
funnel_vocab = tiny_pretraining.funnel_vocab


@pytest.mark.smoke
def test_script_makes_the_same_files_with_any_number_of_processes(tmp_path, text, vocab):
  flags = [
    "--vocab_file=" + vocab,
    "--do_lower_case=True",
    "--max_seq_length=32",
    "--max_predictions_per_seq=5",
    "--masked_lm_prob=0.15",
    "--random_seed=12345",
    "--dupe_factor=5",
    "--num_shards=3",
    f"--input_file={text[0]}",
  ]
  out, err = tiny.run(
    "create_pretraining_data.py",
    *flags,
    "--num_workers=2",
    f"--output_file={tmp_path / 'two' / 'tf_examples.tfrecord'}",
  )
  assert "3 record files to make with 2 processes" in err and "documents/s" in err
  assert "examples in 3 record files" in out
  create(
    bert_form(text[0], tmp_path / "one" / "tf_examples.tfrecord", dupe_factor=5, num_shards=3),
    vocab,
  )
  assert digests(tmp_path / "one") == digests(tmp_path / "two")
  assert len(digests(tmp_path / "one")) == 4

  specs = {
    name: tf.io.FixedLenFeature([length], dtype)
    for name, length, dtype in (
      ("input_ids", 32, tf.int64),
      ("input_mask", 32, tf.int64),
      ("segment_ids", 32, tf.int64),
      ("masked_lm_positions", 5, tf.int64),
      ("masked_lm_ids", 5, tf.int64),
      ("masked_lm_weights", 5, tf.float32),
      ("next_sentence_labels", 1, tf.int64),
    )
  }
  files = sorted(glob.glob(str(tmp_path / "one" / "*-of-00003")))
  parsed = next(
    iter(
      tf.data.TFRecordDataset(files)
      .batch(8)
      .map(lambda records: tf.io.parse_example(records, specs))
    )
  )
  assert parsed["input_ids"].shape == (8, 32)


def test_script_makes_the_same_files_as_separate_tasks(tmp_path, text, funnel_vocab):
  tiny.run(
    "create_pretraining_data.py",
    "--seq_len=64",
    f"--input_glob={text[0]}",
    f"--save_dir={tmp_path / 'two'}",
    "--pass_id=1",
    "--tokenizer_type=word_piece",
    f"--tokenizer_path={funnel_vocab}",
    "--uncased=True",
    "--num_task=3",
    "--num_workers=2",
  )
  for task in range(3):  # as on three machines
    create(
      funnel_form(text[0], tmp_path / "one", seq_len=64, pass_id=1, num_task=3, task=task),
      funnel_vocab,
    )
  assert digests(tmp_path / "one") == digests(tmp_path / "two")
  specs = {
    "input": tf.io.FixedLenFeature([64], tf.int64),
    "label": tf.io.FixedLenFeature([1], tf.int64),
    "seg_id": tf.io.FixedLenFeature([64], tf.int64),
    "boundary": tf.io.VarLenFeature(tf.int64),
  }
  path = tmp_path / "one" / "data.train.pass-1.seq-64.uncased.tfrecord-00000-of-00003"
  parsed = next(
    iter(
      tf.data.TFRecordDataset(str(path))
      .batch(4)
      .map(lambda records: tf.io.parse_example(records, specs))
    )
  )
  assert parsed["input"].shape == (4, 64)


def test_killed_run_leaves_whole_files_and_continues(tmp_path, text, vocab):
  form = bert_form(text[0], tmp_path / "killed" / "x", dupe_factor=40, num_shards=6)
  flags = [
    f"--vocab_file={vocab}",
    "--max_seq_length=32",
    "--max_predictions_per_seq=5",
    "--dupe_factor=40",
    "--num_shards=6",
    "--num_workers=2",
    f"--input_file={text[0]}",
    f"--output_file={form.output_file}",
  ]
  process = tiny.start("create_pretraining_data.py", *flags)
  while not glob.glob(form.output_file + "-*-of-00006") and process.poll() is None:
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=30)  # ends after the workers, which write to the same pipe
  assert process.returncode == -signal.SIGKILL
  there = glob.glob(form.output_file + "-*-of-00006")
  assert 0 < len(there) < 6 and not os.path.exists(form.output_file + ".meta.json")
  stamps = {path: os.stat(path).st_mtime_ns for path in there}
  for path in there:
    assert list(read_records(path)), "a whole file"
  (tmp_path / "killed" / f".{os.path.basename(there[0])}~machine-1").write_text("unfinished")

  create(form, vocab)
  assert {path: os.stat(path).st_mtime_ns for path in there} == stamps, "not made again"
  create(bert_form(text[0], tmp_path / "whole" / "x", dupe_factor=40, num_shards=6), vocab)
  assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
  create(form, vocab)  # complete: nothing to do
  assert {path: os.stat(path).st_mtime_ns for path in there} == stamps


def test_interrupted_run_ends_its_workers(tmp_path, text, vocab):
  flags = [
    f"--vocab_file={vocab}",
    "--dupe_factor=500",
    "--num_shards=6",
    "--num_workers=2",
    f"--input_file={text[0]}",
    f"--output_file={tmp_path / 'x'}",
  ]
  process = tiny.start("create_pretraining_data.py", *flags)
  while not glob.glob(str(tmp_path / ".x-*")) and process.poll() is None:
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=30)
  assert process.returncode == 143 and "Traceback" not in err


def test_beam_makes_the_same_files(tmp_path, text, vocab):
  pytest.importorskip("apache_beam", reason="pip install -r requirements-beam.txt")
  tiny.run(
    "create_pretraining_data.py",
    f"--vocab_file={vocab}",
    "--max_seq_length=32",
    "--max_predictions_per_seq=5",
    "--dupe_factor=2",
    "--num_shards=4",
    "--num_workers=2",
    f"--input_file={text[0]}",
    f"--output_file={tmp_path / 'beam' / 'x'}",
    "--runner=DirectRunner",
  )
  create(bert_form(text[0], tmp_path / "local" / "x", num_shards=4), vocab)
  assert digests(tmp_path / "beam") == digests(tmp_path / "local")


def test_beam_reports_bad_text_and_bad_runners(tmp_path, vocab):
  pytest.importorskip("apache_beam", reason="pip install -r requirements-beam.txt")
  (tmp_path / "bad.txt").write_bytes(b"w1\n\xff\n")
  form = bert_form(str(tmp_path / "bad.txt"), tmp_path / "x")
  with pytest.raises(UserError, match="not UTF-8 at line 2 .byte 3 "):
    create(form, vocab, runner="DirectRunner")
  assert glob.glob(str(tmp_path / ".x*")) == []
  with pytest.raises(UserError, match="--runner=Nobody failed: Unexpected pipeline runner"):
    create(form, vocab, runner="Nobody")


def test_missing_beam_names_the_install_command(tmp_path, text, vocab, monkeypatch):
  import preprocessing

  monkeypatch.setitem(sys.modules, "apache_beam", None)
  monkeypatch.delitem(sys.modules, "preprocessing.beam", raising=False)
  monkeypatch.delattr(preprocessing, "beam", raising=False)
  with pytest.raises(UserError, match="pip install -r requirements-beam.txt"):
    create(bert_form(text[0], tmp_path / "x"), vocab, runner="DirectRunner")


_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print("PEAK", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path, vocab):
  """Peak memory, in MB, is the same for 10 and 100 MB of text, in either form, in one unit."""
  rng = random.Random(1)
  peaks = {}
  for size in (10, 100):
    path = tmp_path / f"{size}.txt"
    with open(path, "w") as writer:
      while writer.tell() < size * 1e6:
        writer.writelines(
          " ".join(f"w{rng.randrange(NUM_WORDS)}" for _ in range(20)) + "\n"
          for _ in range(rng.randint(1, 40))
        )
        writer.write("\n")
    forms = {
      "bert": [
        f"--input_file={path}",
        f"--output_file={tmp_path / f'{size}.out'}",
        "--dupe_factor=2",
        f"--vocab_file={vocab}",
      ],
      "funnel": [
        f"--input_glob={path}",
        f"--save_dir={tmp_path / str(size)}",
        f"--vocab_file={vocab}",
      ],
    }
    for name, flags in forms.items():
      command = [sys.executable, "create_pretraining_data.py", *flags, "--num_workers=1"]
      out = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command],
        cwd=tiny.ROOT,
        check=True,
        capture_output=True,
        text=True,
      ).stdout
      peaks[name, size] = int(out.split("PEAK ")[1])
  print(peaks)
  for name in ("bert", "funnel"):
    assert peaks[name, 100] < 1.15 * peaks[name, 10], peaks
    assert peaks[name, 100] < 1000, peaks


def wrapper(*args, **settings):
  return subprocess.run(
    ["bash", os.path.join(tiny.ROOT, "scripts", "prepro_pretrain.sh"), *args],
    text=True,
    capture_output=True,
    timeout=300,
    env=dict(os.environ, PYTHON=sys.executable, **{k: str(v) for k, v in settings.items()}),
  )


def test_wrapper_prints_the_commands():
  lines = wrapper("--dry_run", "--random_seed=7", INPUT="a/*.txt").stdout.splitlines()
  assert len(lines) == 2 and all(line.rstrip().endswith("--random_seed=7") for line in lines)
  assert "--max_seq_length=128 --max_predictions_per_seq=20 " in lines[0]
  assert "--max_seq_length=512 --max_predictions_per_seq=76 " in lines[1]
  lines = wrapper("--dry_run", FAMILY="funnel").stdout.splitlines()
  assert [f"--pass_id={number} " in line for number, line in enumerate(lines)] == [True] * 5
  assert "FAMILY must be bert or funnel, not gpt" in wrapper(FAMILY="gpt").stderr


@pytest.mark.slow
@pytest.mark.parametrize("family, count", [("bert", 2 * 3), ("funnel", 2 * 2 * 2)])
def test_wrapper_runs(tmp_path, text, vocab, family, count):
  result = wrapper(
    "--random_seed=7",
    FAMILY=family,
    INPUT=text[0],
    VOCAB=vocab,
    NUM_SHARDS=2,
    PASSES="0 1",
    OUTPUT_DIR=tmp_path,
  )
  assert result.returncode == 0, result.stderr
  assert sum(len(files) for _, _, files in os.walk(tmp_path)) == count
