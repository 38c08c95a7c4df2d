"""run_pretraining.py end to end, on tiny encoders."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_pretraining_task

import config
from preprocessing import pretraining_sets, record_files
from tasks.settings import Pretraining
from training import pretraining as pretraining_job

records = tiny_pretraining_task.records


def log_of(folder, kind):
  with open(os.path.join(folder, "metrics.jsonl")) as reader:
    return [entry for entry in map(json.loads, reader) if entry["kind"] == kind]


def run_tiny(records, folder, *args, **kwargs):
  return tiny.run(
    "run_pretraining.py",
    f"--model_dir={folder}",
    "--train_batch_size=8",
    "--learning_rate=1e-3",
    "--log_freq=5",
    "--seed=3",
    *args,
    **kwargs,
  )


@pytest.mark.smoke
def test_bert_is_pretrained_and_fine_tuned(records, tmp_path):
  """Runs BERT's published commands; two devices give the losses of one device."""
  flags = [
    f"--bert_config_file={records}/bert/bert_config.json",
    f"--input_file={records}/bert.tfrecord-*",
    "--max_seq_length=24",
    "--max_predictions_per_seq=4",
    "--num_warmup_steps=2",
  ]
  out, _ = run_tiny(
    records,
    tmp_path / "one",
    *flags,
    "--do_train=True",
    "--do_eval=True",
    "--num_train_steps=10",
    "--max_eval_steps=2",
  )
  assert "pretraining_bert dev: " in out and "next_sentence_accuracy" in out
  run_tiny(records, tmp_path / "two", *flags, "--num_train_steps=10", "--num_core_per_host=2")
  one, two = log_of(tmp_path / "one", "train"), log_of(tmp_path / "two", "train")
  assert [entry["step"] for entry in one] == [5, 10]
  for a, b in zip(one, two, strict=True):
    for name in a.keys() - {
      "kind",
      "step",
      "milliseconds_per_step",
      "examples_per_second",
      "tokens_per_second",
      "utilization",
    }:
      assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-5), name
  assert {
    "masked_lm_accuracy",
    "next_sentence_accuracy",
    "perplexity",
    "loss_mlm",
    "loss_nsp",
    "tokens_per_second",
    "gradient_norm",
    "learning_rate",
  } <= set(one[1])
  (evaluated,) = log_of(tmp_path / "one", "eval")
  assert evaluated["loss"] == pytest.approx(evaluated["loss_mlm"] + evaluated["loss_nsp"])
  assert evaluated["perplexity"] == pytest.approx(np.exp(evaluated["loss_mlm"]), rel=1e-5)
  # Continue with the optimizer's moments; then fine-tune the encoder.
  _, err = run_tiny(
    records,
    tmp_path / "more",
    *flags,
    "--num_train_steps=12",
    f"--init_checkpoint={tmp_path}/one",
    "--init_global_vars",
  )
  assert "steps 10 to 12" in err
  tiny.write_cola(tmp_path / "CoLA")
  tiny.run(
    "run_classifier.py",
    "--task_name=cola",
    f"--data_dir={tmp_path}/CoLA",
    "--do_train",
    f"--init_checkpoint={tmp_path}/one",
    f"--vocab_file={records}/bert/vocab.txt",
    "--train_steps=2",
    f"--output_dir={tmp_path}/fine",
    "--max_seq_length=24",
  )
  assert {"bert_config.json", "vocab.txt"} <= set(os.listdir(tmp_path / "fine"))


def test_electra_runs_with_the_published_flags(records, tmp_path):
  """Runs the published command on a tiny model, evaluates all checkpoints, extracts the core."""
  out, _ = run_tiny(
    records,
    tmp_path / "run",
    "--use_tpu=False",
    "--use_bfloat16=False",
    "--num_hosts=1",
    "--num_core_per_host=1",
    "--loss_type=ELECTRA",
    f"--record_dir={records}/funnel",
    "--warmup_steps=2",
    "--seq_len=24",
    "--num_predict=4",
    "--train_steps=10",
    "--save_steps=5",
    "--block_size=1_1",
    "--decoder_size=1",
    "--d_model=16",
    "--d_embed=16",
    "--n_head=4",
    "--d_head=4",
    "--d_inner=32",
    "--pool_q_only=True",
    "--do_train",
    "--do_eval",
    "--eval_all_ckpt",
    "--eval_start_step=0",
    "--sample_strategy=whole_word",
    "--max_eval_batch=-1",
  )
  assert "pretraining_electra dev: " in out
  assert [entry["step"] for entry in log_of(tmp_path / "run", "eval")] == [5, 10]
  last = log_of(tmp_path / "run", "train")[-1]
  assert {
    "loss_gen",
    "loss_disc",
    "replaced_precision",
    "replaced_recall",
    "disc_accuracy",
    "masked_lm_accuracy",
  } <= set(last)
  assert last["loss"] == pytest.approx(last["loss_gen"] + last["loss_disc"], rel=1e-5)
  tiny.run(
    "convert_checkpoint.py",
    "--direction=core_only",
    f"--input_dir={tmp_path}/run",
    f"--output_dir={tmp_path}/core",
  )
  names = [name for name, _ in tf.train.list_variables(str(tmp_path / "core"))]
  assert names and all(name.startswith("model/") for name in names)
  _, err = run_tiny(
    records,
    tmp_path / "again",
    f"--record_dir={records}/funnel",
    "--loss_type=mlm",
    f"--model_config={tmp_path}/run/net_config.json",
    "--train_steps=1",
    f"--init_checkpoint={tmp_path}/core",
  )
  assert "new: model/lm_proj" in err
  _, err = run_tiny(
    records,
    tmp_path / "further",
    f"--record_dir={records}/funnel",
    "--train_steps=10",
    "--loss_type=electra",
    f"--model_config={tmp_path}/run/net_config.json",
    f"--init_checkpoint={tmp_path}/run",
    "--init_global_vars",
    status=1,
  )
  assert "is at step 10" in err and "--train_steps=10 is already reached; raise it" in err


def test_trials_differ_and_max_eval_examples_limits_the_evaluation(records, tmp_path):
  out, _ = run_tiny(
    records,
    tmp_path,
    f"--record_dir={records}/funnel",
    "--train_steps=2",
    "--do_train",
    "--do_eval",
    f"--model_config={records}/model/net_config.json",
    "--num_trials=2",
    "--max_eval_examples=3",
  )
  assert "standard deviation" in out
  with open(tmp_path / "trials.json") as reader:
    first, second = json.load(reader)["loss"]["values"]
  assert first != second
  run_tiny(records, tmp_path / "trial_0", f"--record_dir={records}/funnel", "--do_eval")
  few, whole = log_of(tmp_path / "trial_0", "eval")
  assert few["data"] != whole["data"], "--max_eval_examples was overridden by --max_eval_batch"


def test_a_limit_of_the_evaluation_is_logged(caplog):
  """The default --max_eval_batch limits the examples; their number depends on the batch size."""
  caplog.set_level("INFO", "training.pretraining")
  experiment = config.Experiment(task=Pretraining())
  experiment.trainer.eval_batch_size = 4
  for count in (400, 401):
    assert not caplog.messages
    pretraining_job._limit_evaluation(
      experiment, pretraining_sets.Corpus({"dev": record_files.RecordSet(["x"], count)}, {}, "")
    )
  assert caplog.messages == ["Evaluate on the first 400 of 401 examples (--max_eval_batch=100)"]
  assert experiment.data.max_eval_examples == 400


def test_mistakes_on_the_command_line_are_reported(records, tmp_path):
  _, err = run_tiny(
    records,
    tmp_path / "x",
    f"--record_dir={records}/funnel",
    "--loss_type=bert",
    f"--model_config={records}/model/net_config.json",
    status=1,
  )
  assert "--loss_type=bert needs a BERT configuration" in err and "Traceback" not in err
  _, err = run_tiny(records, tmp_path / "x", f"--record_dir={records}/funnel", status=1)
  assert "no model: give --model_config" in err
  _, err = run_tiny(
    records, tmp_path / "x", f"--record_dir={records}/funnel", "--do_predict", status=1
  )
  assert "--do_predict: pretraining has nothing to predict" in err and "Traceback" not in err


def test_a_refused_run_leaves_the_folder_as_it_was(records, tmp_path):
  """The configuration in the folder stays that of its checkpoint."""
  flags = [
    f"--record_dir={records}/funnel",
    "--block_size=1_1",
    "--n_head=4",
    "--d_head=4",
    "--d_inner=32",
    "--d_embed=16",
  ]
  run_tiny(records, tmp_path, *flags, "--d_model=16", "--train_steps=1", "--warmup_steps=0")
  kept = (tmp_path / "net_config.json").read_text()
  _, err = run_tiny(
    records, tmp_path, *flags, "--d_model=32", "--train_steps=2", "--warmup_steps=9", status=1
  )
  assert "not a checkpoint of this model" in err and "Traceback" not in err
  assert "The warm-up of" in err and "is as long as the training" in err
  assert (tmp_path / "net_config.json").read_text() == kept
