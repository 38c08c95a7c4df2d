"""run_squad.py end to end, on tiny encoders."""

import json
import os

import pytest
import tiny
import tiny_squad

from tasks import squad_metrics


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("squad")
  tiny.write_encoder(folder / "bert", max_positions=64)
  tiny.write_funnel(folder / "funnel", block_size="1_1")
  tiny_squad.write(folder / "train-v1.1.json", 150, 1)
  tiny_squad.write(folder / "dev-v1.1.json", 30, 2)
  tiny_squad.write(folder / "train-v2.0.json", 150, 1, unanswerable=True)
  tiny_squad.write(folder / "dev-v2.0.json", 30, 2, unanswerable=True)
  return folder


def read_json(path):
  with open(path) as reader:
    return json.load(reader)


def evaluate(file, folder, predictions="predictions.json"):
  """Metrics of the predictions in `folder`, compared with the answers of `file`."""
  golds = tiny_squad.golds(file)
  version_2 = "v2.0" in str(file)
  odds = (
    read_json(
      folder
      / predictions.replace("predictions", "null_odds").replace("ensemble", "ensemble.null_odds")
    )
    if version_2
    else None
  )
  answers = read_json(folder / predictions)
  n_best = read_json(
    folder
    / predictions.replace("predictions", "nbest_predictions").replace("ensemble", "ensemble.nbest")
  )
  assert answers.keys() == golds.keys() == n_best.keys()
  return squad_metrics.evaluate(answers, golds, version_2, odds)


@pytest.mark.smoke
def test_bert_learns_with_the_published_command(workspace):
  """Runs the command for SQuAD v1.1 and evaluates during training; a second run reuses records."""
  bert, out_dir = workspace / "bert", workspace / "squad_base"
  flags = [
    f"--vocab_file={bert / 'vocab.txt'}",
    f"--bert_config_file={bert / 'bert_config.json'}",
    f"--init_checkpoint={bert / 'bert_model.ckpt'}",
    f"--train_file={workspace / 'train-v1.1.json'}",
    f"--predict_file={workspace / 'dev-v1.1.json'}",
    "--train_batch_size=12",
    "--learning_rate=3e-3",
    "--num_train_epochs=8.0",
    "--max_seq_length=20",
    "--doc_stride=6",
    f"--output_dir={out_dir}",
  ]
  out, err = tiny.run(
    "run_squad.py",
    "--do_train=True",
    "--do_eval",
    "--do_predict=True",
    "--eval_every_steps=100",
    *flags,
  )
  results = read_json(out_dir / "eval_results.json")
  assert results["best_metric"] == "score" and results["best_value"] > 50, "chance is below 10"
  found = evaluate(workspace / "dev-v1.1.json", out_dir)
  best = read_json(out_dir / "best" / "info.json")
  for name in ("exact_match", "f1"):
    assert best[name] == pytest.approx(found[name])
  assert best["score"] == best["f1"] and 0 < best["loss"] < 3
  assert f"f1 {found['f1']:.4f}" in out and not os.path.exists(out_dir / "null_odds.json")
  entry = next(iter(read_json(out_dir / "nbest_predictions.json").values()))[0]
  assert set(entry) == {"text", "probability", "start_logit", "end_logit"}
  assert "Answers of the training data: 0 left out" in err

  _, err = tiny.run(
    "run_squad.py",
    "--do_predict=True",
    f"--predict_dir={workspace / 'again'}",
    "--predict_batch_size=7",
    *flags,
  )
  assert "records:" not in err, "nothing is tokenized twice"
  assert read_json(workspace / "again" / "predictions.json") == read_json(
    out_dir / "predictions.json"
  )


@pytest.mark.slow
@pytest.mark.smoke
def test_funnel_preprocesses_trains_and_predicts_with_an_ensemble(workspace):
  """Two processes write v2.0 records; the ensemble has two checkpoints."""
  out_dir = workspace / "proc_data"
  flags = [
    f"--pretrained={workspace / 'funnel'}",
    f"--data_dir={workspace}",
    "--uncased=True",
    "--version_2_with_negative",
    f"--output_dir={out_dir}",
    "--max_seq_length=24",
    "--doc_stride=4",
    "--start_n_top=3",
    "--end_n_top=2",
  ]
  out, _ = tiny.run("run_squad.py", "--prepro_split=train", "--num_proc=2", *flags)
  assert "windows of" in out and "train-v2.0.json" in out
  model_dir = workspace / "exp"
  checkpoints = [str(model_dir / f"model.ckpt-{step}") for step in (40, 80)]
  out, err = tiny.run(
    "run_squad.py",
    "--do_train",
    "--do_eval",
    f"--model_dir={model_dir}",
    "--train_batch_size=16",
    "--learning_rate=3e-3",
    "--lr_layer_decay_rate=0.9",
    "--train_steps=80",
    "--save_steps=40",
    "--target_eval_key=best_f1",
    "--search_threshold",
    "--do_ensemble",
    f"--ensemble_ckpts={','.join(checkpoints)}",
    f"--ensemble_output_file={model_dir / 'ensemble.json'}",
    *flags,
  )
  assert "train records:" not in err, "they exist"
  best = read_json(model_dir / "best" / "info.json")
  assert best["f1"] == pytest.approx(best["best_f1"]), "the searched threshold is the best"
  assert best["HasAns_f1"] > 10 and 0 < best["loss"] < 5
  assert err.count("Predict with") == 2 and err.count("Threshold") == 4
  found = evaluate(workspace / "dev-v2.0.json", model_dir, "ensemble.json")
  assert found["f1"] == pytest.approx(found["best_f1"])
  assert f"f1 {found['f1']:.4f}" in out
  entry = next(iter(read_json(model_dir / "ensemble.nbest.json").values()))[0]
  assert set(entry) == {"text", "probability"}
  assert not os.path.exists(model_dir / "nbest_predictions.json"), "only a single model writes it"


def test_evaluated_and_predicted_files_may_differ(workspace):
  """Each is decoded with its own passages; evaluation records are used for prediction too."""
  tiny_squad.write(workspace / "other.json", 20, 5)
  folder = workspace / "two_files"
  bert = workspace / "bert"
  make = [f"--vocab_file={bert / 'vocab.txt'}", "--doc_stride=6", "--max_seq_length=20"]
  tiny.run(
    "create_finetuning_data.py",
    "--fine_tuning_task_type=squad",
    *make,
    f"--squad_data_file={workspace / 'dev-v1.1.json'}",
    f"--eval_data_output_path={folder / 'dev'}",
    f"--meta_data_file_path={folder / 'meta'}",
  )
  flags = [
    f"--pretrained={bert}",
    f"--output_dir={folder}",
    "--init_checkpoint=" + str(workspace / "squad_base" / "best"),
    "--do_predict",
    f"--eval_data_path={folder / 'dev'}",
    f"--input_meta_data_path={folder / 'meta'}",
    *make[1:],
  ]
  out, _ = tiny.run(
    "run_squad.py",
    "--do_eval",
    f"--predict_file={workspace / 'other.json'}",
    f"--predict_dir={folder / 'other'}",
    *flags,
  )
  found = evaluate(workspace / "other.json", folder / "other")
  assert f"f1 {found['f1']:.4f}" in out and found["f1"] > 50
  tiny.run("run_squad.py", *flags)
  assert evaluate(workspace / "dev-v1.1.json", folder)["f1"] == pytest.approx(
    read_json(workspace / "squad_base" / "best" / "info.json")["f1"]
  )


def test_records_created_beforehand_have_the_same_bytes(workspace):
  """create_finetuning_data.py writes the bytes of the records in squad_base."""
  folder = workspace / "made"
  make = [
    f"--vocab_file={workspace / 'bert' / 'vocab.txt'}",
    "--doc_stride=6",
    "--max_seq_length=20",
  ]
  out, _ = tiny.run(
    "create_finetuning_data.py",
    "--fine_tuning_task_type=squad",
    *make,
    f"--squad_data_file={workspace / 'train-v1.1.json'}",
    f"--train_data_output_path={folder / 'train.tf_record'}",
    f"--meta_data_file_path={folder / 'meta'}",
  )
  meta = read_json(folder / "meta")
  assert f"{meta['train_data_size']} windows" in out
  assert {
    name: meta[name]
    for name in (
      "task_type",
      "max_seq_length",
      "max_query_length",
      "doc_stride",
      "version_2_with_negative",
    )
  } == {
    "task_type": "bert_squad",
    "max_seq_length": 20,
    "max_query_length": 64,
    "doc_stride": 6,
    "version_2_with_negative": False,
  }
  (own,) = (workspace / "squad_base").glob("squad.len-20.train.*.tfrecord")
  assert (folder / "train.tf_record").read_bytes() == own.read_bytes()

  flags = [
    f"--pretrained={workspace / 'bert'}",
    f"--output_dir={workspace / 'from_records'}",
    f"--train_data_path={folder / 'train.tf_record'}",
    f"--input_meta_data_path={folder / 'meta'}",
    "--max_seq_length=20",
  ]
  _, err = tiny.run("run_squad.py", "--do_train", "--doc_stride=7", *flags, status=1)
  assert "doc_stride 6 in the records, 7 here (--doc_stride)" in err and "Traceback" not in err


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--proc_id=0", "--do_train"], "--proc_id=0 makes a part of the records only: it goes with"),
    (
      ["--do_train", "--train_file={}/train-v2.0.json", "--train_version=v1"],
      "a question without an answer, as in SQuAD v2.0: pass --version_2_with_negative",
    ),
  ],
)
def test_mistakes_on_the_command_line_are_reported(workspace, flags, message):
  _, err = tiny.run(
    "run_squad.py",
    f"--pretrained={workspace / 'bert'}",
    "--max_seq_length=20",
    f"--output_dir={workspace / 'mistakes'}",
    *(flag.format(workspace) for flag in flags),
    status=1,
  )
  lines = [line for line in err.splitlines() if ": error: " in line]
  assert len(lines) == 1 and message in lines[0] and "Traceback" not in err, err
