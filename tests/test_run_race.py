"""run_race.py end to end, on tiny encoders, and its wrapper scripts."""

import csv

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_race
from test_run_classifier import read_json, weights_of
from test_wrappers import wrapper
from tiny_race import passages, task_of, write_jsonl

workspace = tiny_race.workspace


@pytest.mark.smoke
def test_published_command_learns_and_predicts(workspace):
  """Runs the released Funnel command with local paths; predicts the test questions."""
  model, model_dir = workspace / "funnel", workspace / "exp" / "race"
  out, err = tiny.run(
    "run_race.py",
    f"--data_dir={workspace / 'RACE'}",
    f"--output_dir={workspace / 'proc_data' / 'race'}",
    f"--model_dir={model_dir}",
    "--uncased=True",
    "--tokenizer_type=word_piece",
    f"--tokenizer_path={model / 'vocab.uncased.txt'}",
    f"--model_config_path={model / 'net_config.json'}",
    f"--init_checkpoint={model / 'model.ckpt'}",
    "--max_seq_length=24",
    "--max_qa_length=8",
    "--do_train=True",
    "--do_eval=True",
    "--train_batch_size=8",
    "--eval_batch_size=16",
    "--train_steps=40",
    "--save_steps=20",
    "--iterations=20",
    "--warmup_steps=4",
    "--learning_rate=5e-3",
    "--num_hosts=1",
    "--num_core_per_host=1",
    "--use_bfloat16=False",
    "--gradient_accumulation_steps=2",
    "--do_predict",
  )
  results = read_json(model_dir / "eval_results.json")
  assert results["best_value"] > 0.9, "the good word must be learnt"
  assert {"accuracy", "accuracy_middle", "accuracy_high", "loss"} <= set(results)
  assert "race dev: accuracy" in out
  assert "Recipe funnel_race, task race:" in err and "num_train_epochs=4.3703" in err
  assert {
    "model/race/logits/kernel",
    "model/race/logits/kernel/adam_m",
    "model/sequnece_summary/summary/kernel",
  } <= set(weights_of(model_dir, 40))
  assert tf.io.gfile.glob(str(workspace / "proc_data" / "race" / "race.len-24.train.*.tfrecord"))
  with open(model_dir / "predictions.test.tsv") as reader:
    rows = list(csv.DictReader(reader, delimiter="\t"))
  questions = list(task_of(workspace / "RACE").read_examples("test"))
  assert [row["id"] for row in rows] == [raw.id for raw in questions]
  for row in rows:
    values = [float(row[f"probability_{letter}"]) for letter in "ABCD"]
    assert sum(values) == pytest.approx(1, abs=1e-3)
    assert row["prediction"] == "ABCD"[int(row["prediction_index"])]
    assert values[int(row["prediction_index"])] == max(values)
  right = np.mean(
    [row["prediction"] == "ABCD"[raw.answer] for row, raw in zip(rows, questions, strict=True)]
  )
  assert f"race test: accuracy {right:.4f}" in out


def test_bert_learns_own_questions(workspace):
  """Questions have two to four options; updates are accumulated over micro-batches."""
  rows = [
    {
      "article": values["article"],
      "question": text,
      "options": options[: 4 - index % 3],
      "answer": answer,
    }
    for index, values in enumerate(passages(60, "own"))
    for text, options, answer in zip(
      values["questions"], values["options"], values["answers"], strict=True
    )
    if "ABCD".index(answer) < 4 - index % 3
  ]
  files = [
    f"--train_file={write_jsonl(workspace / 'train.jsonl', rows[8:])}",
    f"--eval_file={write_jsonl(workspace / 'dev.jsonl', rows[:8])}",
  ]
  out, _ = tiny.run(
    "run_race.py",
    "--task_name=jsonl",
    f"--pretrained={workspace / 'bert'}",
    *files,
    f"--output_dir={workspace / 'own'}",
    "--max_seq_length=24",
    "--max_qa_length=8",
    "--train_batch_size=8",
    "--learning_rate=5e-3",
    "--train_steps=30",
    "--gradient_accumulation_steps=4",
  )
  assert "jsonl dev: accuracy" in out and "accuracy_high" not in out
  assert read_json(workspace / "own" / "eval_results.json")["accuracy"] > 0.8
  assert weights_of(workspace / "own", 30)["output_weights"].shape == (1, 16)
  # Evaluate the records alone, without the raw files.
  (path,) = tf.io.gfile.glob(str(workspace / "own" / "jsonl.len-24.dev.*.tfrecord"))
  again, _ = tiny.run(
    "run_race.py",
    "--task_name=jsonl",
    "--do_eval",
    f"--pretrained={workspace / 'bert'}",
    f"--eval_data_path={path}",
    f"--input_meta_data_path={path}.meta.json",
    "--num_options=4",
    f"--data_dir={workspace / 'nothing'}",
    f"--model_dir={workspace / 'own'}",
    "--max_seq_length=24",
    "--max_qa_length=8",
  )
  assert again.split("(")[0] == out.split("(")[0]


@pytest.mark.parametrize("name", ["tpu_race", "gpu_race"])
def test_wrappers_print_the_published_command(name):
  result = wrapper(
    name,
    "--dry_run",
    "--seed=7",
    MODEL_DIR="/m",
    RACE_DIR="/r",
    GS_ROOT="gs://b",
    TPU_NAME="t",
    LEARNING_RATE="3e-5",
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.count("run_race.py") == 1 and result.stdout.rstrip().endswith("--seed=7")
  for flag in (
    "--pretrained=/m",
    "--data_dir=/r",
    "--learning_rate=3e-5",
    "--max_seq_length=512",
    "--max_qa_length=128",
    "--train_batch_size=16",
    "--train_steps=24000",
    "--warmup_steps=2400",
    "--save_steps=2400",
  ):
    assert flag in result.stdout.split(), flag
  assert ("--use_tpu=True --tpu=t --use_bfloat16=True" in result.stdout) == (name == "tpu_race")
