"""run_classifier.py and create_finetuning_data.py end to end."""

import json
import os
import signal
import time
import types

import numpy as np
import pytest
import tensorflow as tf
import tiny

import config
from errors import UserError
from training import hooks, model_folder
from utils import console


def flags_of(folder, name="run", **kwargs):
  """Flags of a small run on the data of `workspace`."""
  values = dict(
    task_name="cola",
    pretrained=folder / "encoder",
    data_dir=folder / "CoLA",
    output_dir=folder / "records",
    model_dir=folder / name,
    max_seq_length=24,
    train_batch_size=8,
    learning_rate=2e-3,
    num_train_epochs=4,
  )
  values.update(kwargs)
  return [f"--{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("classifier")
  tiny.write_encoder(folder / "encoder")
  tiny.write_cola(folder / "CoLA")
  return folder


def read_json(path):
  with open(path) as reader:
    return json.load(reader)


def weights_of(model_dir, step):
  reader = tf.train.load_checkpoint(os.path.join(model_dir, f"model.ckpt-{step}"))
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same_weights(a, b, atol=0.0):
  assert a.keys() == b.keys()
  for name, value in a.items():
    np.testing.assert_allclose(value, b[name], atol=atol, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def trained(workspace):
  """Model folder, stdout and stderr of a run that trains, evaluates, predicts and submits."""
  out, err = tiny.run(
    "run_classifier.py",
    "--do_train",
    "--do_eval",
    "--do_predict",
    "--do_submit",
    *flags_of(workspace, eval_every_steps=24, save_steps=12),
  )
  return workspace / "run", out, err


@pytest.mark.smoke
def test_training_learns_and_writes_results_and_logs(trained):
  model_dir, out, err = trained
  results = read_json(model_dir / "eval_results.json")
  assert results["step"] == 48
  assert results["best_value"] > 0.8, "a bag of words must be learnt"
  assert "cola dev: " in out and "matthews" in out
  assert "Recipe bert_classification, task cola:" in err and "weight_decay=0.01" in err
  assert "learning_rate=" not in err.split("Recipe")[1].split("\n")[0], "a given flag wins"
  best = read_json(model_dir / "best" / "info.json")
  assert best["score"] == results["best_value"] and os.path.exists(best["checkpoint"] + ".index")
  text = open(model_dir / "eval_results.txt").read().splitlines()
  assert text == sorted(text) and "global_step = 48" in text
  assert {f"eval_matthews = {results['matthews']}", f"loss = {results['loss']}"} <= set(text)
  lines = [json.loads(line) for line in open(model_dir / "metrics.jsonl")]
  train = [line for line in lines if line["kind"] == "train"]
  assert [line["step"] for line in train] == [10, 20, 30, 40, 48]
  assert {
    "loss",
    "learning_rate",
    "gradient_norm",
    "examples_per_second",
    "tokens_per_second",
  } <= set(train[0])
  assert [line["step"] for line in lines if line["kind"] == "eval"] == [24, 48]
  events = [
    (v.tag, e.step, v.simple_value)
    for f in tf.io.gfile.glob(str(model_dir / "events.*"))
    for e in tf.compat.v1.train.summary_iterator(f)
    for v in e.summary.value
  ]
  assert {"loss", "learning_rate", "gradient_norm"} <= {tag for tag, _, _ in events}
  logged = [
    (name, line["step"], np.float32(value))
    for line in train
    for name, value in line.items()
    if name not in ("kind", "step")
  ]
  assert sorted(events) == sorted(logged), "TensorBoard and metrics.jsonl have the same values"
  assert tf.io.gfile.glob(str(model_dir / "eval" / "events.*"))


@pytest.mark.smoke
def test_predictions_and_submission_are_written(trained):
  model_dir, _, _ = trained
  rows = [line.split("\t") for line in open(model_dir / "predictions.test.tsv").read().split("\n")]
  assert rows[0] == ["index", "prediction", "probability_0", "probability_1"]
  rows = rows[1:-1]
  assert [row[0] for row in rows] == [str(i) for i in range(11)]
  for row in rows:
    assert float(row[2]) + float(row[3]) == pytest.approx(1.0, abs=2e-4)
    assert row[1] == ("0" if float(row[2]) > float(row[3]) else "1")
  truth = [label for _, label in tiny.sentences(11, 3)]
  assert sum(row[1] == label for row, label in zip(rows, truth, strict=True)) >= 9
  plain = [line.split("\t") for line in open(model_dir / "test_results.tsv").read().splitlines()]
  assert [[f"{float(value):.4f}" for value in row] for row in plain] == [row[2:] for row in rows]
  submitted = open(model_dir / "submit" / "CoLA.tsv").read().splitlines()
  assert submitted[0] == "index\tprediction" and len(submitted) == 12
  assert [line.split("\t")[1] for line in submitted[1:]] == [row[1] for row in rows]


def test_evaluation_alone_gives_the_same_numbers_for_every_checkpoint(trained, workspace):
  model_dir, _, _ = trained
  before = [json.loads(line) for line in open(model_dir / "metrics.jsonl")]
  out, _ = tiny.run(
    "run_classifier.py", "--do_eval", "--eval_all_ckpt", *flags_of(workspace, eval_batch_size=7)
  )
  after = [json.loads(line) for line in open(model_dir / "metrics.jsonl")][len(before) :]
  assert [line["step"] for line in after] == [12, 24, 36, 48]
  for line in before:
    if line["kind"] == "eval":
      again = next(entry for entry in after if entry["step"] == line["step"])
      assert again["score"] == pytest.approx(line["score"], abs=1e-6)
      assert again["loss"] == pytest.approx(line["loss"], abs=1e-5)
  assert f"{max(line['score'] for line in after):.4f}" in out


def test_slim_checkpoint_predicts_from_another_folder(trained, workspace):
  """It has no Adam slots and no global_step, and is the --init_checkpoint of an empty folder."""
  slim = workspace / "slim"
  tiny.run(
    "convert_checkpoint.py",
    "--drop_optimizer",
    f"--input_dir={trained[0] / 'best'}",
    f"--output_dir={slim}",
  )
  names = {name for name, _ in tf.train.list_variables(str(slim))}
  assert not any("adam" in name or name == "global_step" for name in names)
  tiny.run("run_classifier.py", "--do_predict", *flags_of(workspace))
  tiny.run(
    "run_classifier.py",
    "--do_predict",
    f"--init_checkpoint={slim}",
    *flags_of(workspace, "elsewhere"),
  )
  assert (workspace / "elsewhere" / "predictions.test.tsv").read_text() == (
    trained[0] / "predictions.test.tsv"
  ).read_text()


def test_evaluation_on_other_data_leaves_the_best_checkpoint_alone(trained, workspace):
  before = read_json(trained[0] / "best" / "info.json")
  _, err = tiny.run(
    "run_classifier.py",
    "--do_eval",
    "--best_metric=loss",
    *flags_of(workspace, max_eval_examples=4),
  )
  assert "Evaluation at step 48" in err
  assert read_json(trained[0] / "best" / "info.json") == before
  lines = [json.loads(line) for line in open(trained[0] / "metrics.jsonl")]
  assert lines[-1]["data"] != before["data"]


def test_contradictory_settings_are_refused_before_any_work(trained, workspace):
  for args, message in (
    (["--early_stopping_patience=2"], "set --eval_every_steps too"),
    (
      ["--best_metric=accuracy", "--do_train", "--do_eval"],
      "--best_metric=accuracy is not measured; there are loss, matthews, score",
    ),
    (["--task_name=sst-2"], "this folder holds a model of task cola, not of sst-2"),
  ):
    _, err = tiny.run("run_classifier.py", *flags_of(workspace), *args, status=1)
    assert message in err and "Traceback" not in err, err


def test_configuration_and_vocabulary_are_those_next_to_the_checkpoint(tmp_path):
  """The encoder in --pretrained may have other tokens for the same ids."""
  own, other = (tiny.write_encoder(tmp_path / name) for name in ("own", "other"))

  def find(init_checkpoint="", given=()):
    model = config.Model(pretrained=other, init_checkpoint=init_checkpoint)
    tokenizer = config.Tokenizer()
    model_folder.find_pretrained(model, tokenizer, str(tmp_path / "run"), True, set(given))
    (folder,) = {os.path.dirname(path) for path in (model.model_config, tokenizer.tokenizer_path)}
    return folder, model.init_checkpoint

  assert find() == (other, f"{other}/bert_model.ckpt")
  assert find("none") == (other, "none")
  assert find(own) == find(f"{own}/bert_model.ckpt") == (own, f"{own}/bert_model.ckpt")
  assert find(own, ["pretrained"]) == (other, f"{own}/bert_model.ckpt")
  best = tmp_path / "own" / "best"
  best.mkdir()
  for path in tf.io.gfile.glob(f"{own}/bert_model.ckpt*"):
    os.rename(path, best / os.path.basename(path))
  assert find(str(best))[0] == own
  os.rename(f"{own}/vocab.txt", f"{own}/words.txt")
  with pytest.raises(UserError, match=f"{own}: the model has no vocabulary next to it; name the"):
    find(str(best))
  os.remove(f"{own}/bert_config.json")
  assert find(str(best))[0] == other


def test_a_folder_keeps_the_vocabulary_it_was_trained_with(trained, workspace):
  assert (trained[0] / "vocab.txt").read_text().split() == tiny.VOCAB
  (workspace / "swapped.txt").write_text("\n".join([*tiny.VOCAB[:-2], "!", ","]) + "\n")
  for job in (["--do_train", "--train_steps=100"], ["--do_predict"]):
    _, err = tiny.run(
      "run_classifier.py",
      f"--vocab_file={workspace}/swapped.txt",
      *job,
      *flags_of(workspace),
      status=1,
    )
    assert f"{trained[0]}/vocab.txt is another vocabulary than" in err and "Traceback" not in err


def test_dummy_examples_are_not_scored(trained, workspace, tmp_path):
  """The original record files pad the last batch with examples of is_real_example 0."""
  path = tf.io.gfile.glob(str(workspace / "records" / "cola.len-24.dev.*.tfrecord"))[0]
  filled = str(tmp_path / "eval.tf_record")
  with tf.io.TFRecordWriter(filled) as writer:
    serialized = [record.numpy() for record in tf.data.TFRecordDataset(path)]
    for record in serialized:
      writer.write(record)
    filler = tf.train.Example.FromString(serialized[0])
    filler.features.feature["is_real_example"].int64_list.value[:] = [0]
    filler.features.feature["label_ids"].int64_list.value[:] = [
      1 - filler.features.feature["label_ids"].int64_list.value[0]
    ]
    for _ in range(20):
      writer.write(filler.SerializeToString())
  (tmp_path / "meta").write_text("{}")
  tiny.run(
    "run_classifier.py",
    "--do_eval",
    f"--eval_data_path={filled}",
    f"--input_meta_data_path={tmp_path / 'meta'}",
    *flags_of(workspace),
  )
  lines = [json.loads(line) for line in open(trained[0] / "metrics.jsonl")]
  evaluations = [line for line in lines if line["kind"] == "eval" and line["step"] == 48]
  assert evaluations[-1]["data"] != evaluations[0]["data"]
  for metric in ("matthews", "loss"):
    assert evaluations[-1][metric] == pytest.approx(evaluations[0][metric], abs=1e-5)


def test_killed_and_restarted_ends_with_the_same_weights(trained, workspace):
  """Dropout is on, evaluation interrupts training, and the kill is between two checkpoints."""
  flags = flags_of(workspace, "killed", eval_every_steps=24, save_steps=12)
  process = tiny.start("run_classifier.py", "--do_train", *flags)
  deadline = time.time() + 200
  metrics = workspace / "killed" / "metrics.jsonl"
  while time.time() < deadline and process.poll() is None:
    if metrics.exists() and '"step": 30' in metrics.read_text():
      break
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  stopped_at = tf.train.latest_checkpoint(str(workspace / "killed"))
  assert stopped_at and not stopped_at.endswith("-48"), "the kill came too late to test anything"
  _, err = tiny.run("run_classifier.py", "--do_train", *flags)
  assert f"Continue from {stopped_at}" in err
  assert_same_weights(weights_of(workspace / "killed", 48), weights_of(trained[0], 48))


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_is_reported_without_a_traceback(workspace, number, status):
  name = f"interrupted_{status}"
  flags = flags_of(workspace, name, train_steps=1_000_000, save_steps=1_000_000)
  process = tiny.start("run_classifier.py", "--do_train", *flags)
  metrics = workspace / name / "metrics.jsonl"
  deadline = time.time() + 100
  while time.time() < deadline and not metrics.exists():
    time.sleep(0.1)
  if number == signal.SIGTERM:
    _, err = tiny.run("run_classifier.py", "--do_train", *flags, status=1)
    assert f"process {process.pid} on" in err and "is training in this folder; wait" in err
  process.send_signal(number)
  _, err = process.communicate(timeout=60)
  assert process.returncode == status and "Traceback" not in err, err
  assert "Interrupted. The same command goes on from the last checkpoint" in err
  checkpoint = tf.train.latest_checkpoint(str(workspace / name))
  assert checkpoint and f"Saved {checkpoint}" in err, "the step was finished and saved"


def test_a_lost_interruption_is_found_before_the_next_step(monkeypatch):
  monkeypatch.setattr(console, "_signals", [])
  console.raise_if_signalled()
  console._signals.append(signal.SIGINT)
  progress = hooks.ProgressHook(None, 0, 1, 1, 1)
  with pytest.raises(KeyboardInterrupt):
    progress.before_run(None)
  context = types.SimpleNamespace(original_args=types.SimpleNamespace(fetches=["step", "loss"]))
  monkeypatch.setattr(progress, "_monitors", {}, raising=False)
  monkeypatch.setattr(console, "_is_deferred", True)
  assert progress.before_run(context).fetches == {"loss": "loss"}, "this step is saved first"
  console._signals.append(signal.SIGTERM)
  with pytest.raises(KeyboardInterrupt):
    progress.before_run(None)
  with pytest.raises(console.Interrupted) as found:
    console.raise_if_signalled()
  assert found.value.number == signal.SIGTERM


@pytest.mark.smoke
def test_two_devices_equal_one_with_the_same_global_batch(workspace):
  """MirroredStrategy on two virtual CPU devices: loss curve and weights to 1e-5."""
  tiny.write_encoder(workspace / "no_dropout", num_layers=1, dropout=0.0)
  curves, weights = [], []
  for devices in (1, 2):
    name = f"devices_{devices}"
    _, err = tiny.run(
      "run_classifier.py",
      "--do_train",
      *flags_of(
        workspace,
        name,
        pretrained=workspace / "no_dropout",
        num_core_per_host=devices,
        train_steps=20,
        log_freq=1,
        learning_rate=1e-3,
        cls_scope="nodrop",
      ),
    )
    assert ("2 x virtual CPU" in err) == (devices == 2)
    lines = [json.loads(line) for line in open(workspace / name / "metrics.jsonl")]
    curves.append([[line["loss"], line["gradient_norm"], line["learning_rate"]] for line in lines])
    weights.append(weights_of(workspace / name, 20))
  assert len(curves[0]) == 20
  np.testing.assert_allclose(curves[0], curves[1], atol=1e-5)
  assert_same_weights(weights[0], weights[1], atol=1e-5)


def test_records_created_beforehand_give_the_same_run(trained, workspace):
  folder = workspace / "made"
  out, _ = tiny.run(
    "create_finetuning_data.py",
    "--fine_tuning_task_type=classification",
    "--classification_task_name=COLA",
    f"--input_data_dir={workspace / 'CoLA'}",
    f"--vocab_file={workspace / 'encoder' / 'vocab.txt'}",
    "--max_seq_length=24",
    f"--train_data_output_path={folder / 'train.tf_record'}",
    f"--eval_data_output_path={folder / 'eval.tf_record'}",
    f"--test_data_output_path={folder / 'test.tf_record'}",
    f"--meta_data_file_path={folder / 'meta'}",
  )
  assert "96 examples" in out
  meta = read_json(folder / "meta")
  assert (meta["processor_type"], meta["task_type"]) == ("COLA", "bert_classification")
  assert (meta["train_data_size"], meta["eval_data_size"], meta["test_data_size"]) == (96, 30, 11)
  assert (meta["num_labels"], meta["label_list"], meta["max_seq_length"]) == (2, ["0", "1"], 24)
  records = [
    f"--train_data_path={folder / 'train.tf_record'}",
    f"--eval_data_path={folder / 'eval.tf_record'}",
    f"--test_data_path={folder / 'test.tf_record'}",
    f"--input_meta_data_path={folder / 'meta'}",
  ]
  tiny.run(
    "run_classifier.py",
    "--do_train",
    "--do_predict",
    *records,
    *flags_of(workspace, "from_records", data_dir="/nowhere"),
  )
  assert_same_weights(weights_of(workspace / "from_records", 48), weights_of(trained[0], 48))
  _, err = tiny.run(
    "run_classifier.py",
    "--do_train",
    *records,
    *flags_of(workspace, "other", max_seq_length=16, uncased=False),
    status=1,
  )
  assert "max_seq_length 24 in the records, 16 here (--max_seq_length)" in err
  assert "do_lower_case True in the records, False here (--uncased)" in err
  assert "Traceback" not in err
  (folder / "meta").write_text(json.dumps({**meta, "eval_data_size": 31}))
  _, err = tiny.run("run_classifier.py", "--do_eval", *records, *flags_of(workspace), status=1)
  assert "eval.tf_record: 30 records where its metadata say 31" in err


def test_trials_stop_early_with_the_short_command(workspace):
  """Two trials of a run that cannot improve (learning rate 0) stop after two more evaluations."""
  out, err = tiny.run(
    "run_classifier.py",
    *flags_of(
      workspace,
      "trials",
      learning_rate=0.0,
      eval_every_steps=6,
      early_stopping_patience=2,
      num_trials=2,
      max_train_examples=40,
      max_eval_examples=12,
    ),
  )
  assert "Train on 40 examples" in err and "Stop early" in err
  trials = read_json(workspace / "trials" / "trials.json")
  assert len(trials["matthews"]["values"]) == 2
  assert trials["loss"]["mean"] == pytest.approx(np.mean(trials["loss"]["values"]))
  assert trials["loss"]["std"] == pytest.approx(np.std(trials["loss"]["values"], ddof=1))
  assert trials["loss"]["std"] > 0, "each trial must have its own seed"
  steps = [
    json.loads(line)["step"]
    for line in open(workspace / "trials/trial_0/metrics.jsonl")
    if '"eval"' in line
  ]
  assert steps == [6, 12, 18]
  assert "standard deviation" in out
