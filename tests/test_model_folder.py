"""Prediction, evaluation and conversion read the settings of training from the model folder."""

import csv
import dataclasses
import json
import os
import shutil

import pytest
import tensorflow as tf
import tiny

import config
from errors import UserError
from tasks import classification
from tasks.settings import Classification, Pretraining, Squad
from training import checkpoints, experiments, model_folder


def write_reviews(path, count, seed, names=("pos", "neg")):
  """Writes a CSV file review,sentiment in which some words are in capitals."""
  with open(path, "w", newline="") as writer:
    rows = csv.writer(writer)
    rows.writerow(["review", "sentiment"])
    for index, (text, label) in enumerate(tiny.sentences(count, seed)):
      words = [
        word.title() if (index + place) % 3 == 0 else word
        for place, word in enumerate(text.split())
      ]
      rows.writerow([" ".join(words), names[int(label)]])
  return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A folder with a model trained on CSV files, with settings that differ from the defaults."""
  folder = tmp_path_factory.mktemp("model_folder")
  tiny.write_encoder(folder / "encoder")
  write_reviews(folder / "new.csv", 40, 3)
  tiny.run(
    "run_classifier.py",
    "--do_train",
    "--do_predict",
    "--eval_every_steps=20",
    "--task_name=csv",
    "--text_a_col=review",
    "--label_col=sentiment",
    "--do_lower_case=False",
    "--max_seq_length=10",
    f"--pretrained={folder / 'encoder'}",
    f"--train_file={write_reviews(folder / 'train.csv', 96, 1)}",
    f"--eval_file={write_reviews(folder / 'dev.csv', 30, 2)}",
    f"--predict_file={folder / 'new.csv'}",
    f"--model_dir={folder / 'run'}",
    "--train_batch_size=8",
    "--train_steps=40",
    "--learning_rate=2e-3",
  )
  return folder


def predict(*flags, status=0):
  return tiny.run("run_classifier.py", "--do_predict", *flags, status=status)


def test_files_of_a_trained_folder(trained):
  run = trained / "run"
  with open(run / "model_settings.json") as reader:
    settings = json.load(reader)
  expected = {
    "job": "classification",
    "task_name": "csv",
    "text_a_col": "review",
    "label_col": "sentiment",
    "uncased": False,
    "max_seq_length": 10,
    "label_list": ["neg", "pos"],
    "vocab_file": "vocab.txt",
  }
  assert expected.items() <= settings.items()
  assert not {"train_file", "learning_rate", "tokenizer_path"} & settings.keys()
  for name in ("model_settings.json", "labels.json", "vocab.txt", "bert_config.json"):
    assert (run / "best" / name).read_text() == (run / name).read_text()
  assert not os.path.exists("runs"), "records belong to --model_dir"
  assert tf.io.gfile.glob(f"{run}/csv.len-10.train.*.tfrecord")


def test_prediction_needs_no_setting_again(trained):
  """Predictions are the same with the folder alone and with a copy of best/ in an empty folder."""
  predictions = (trained / "run" / "predictions.new.tsv").read_text()
  os.rename(trained / "run" / "predictions.new.tsv", trained / "first.tsv")
  file = f"--predict_file={trained / 'new.csv'}"
  _, err = predict(f"--model_dir={trained / 'run'}", file)
  assert "Settings of the model in" in err and "uncased=False" in err
  assert (trained / "run" / "predictions.new.tsv").read_text() == predictions
  shutil.copytree(trained / "run" / "best", trained / "copy")
  predict(
    f"--init_checkpoint={trained / 'copy'}",
    f"--output_dir={trained / 'other'}",
    f"--predict_dir={trained / 'there'}",
    file,
  )
  assert (trained / "there" / "predictions.new.tsv").read_text() == predictions


def test_labels_come_from_the_model(trained):
  """A training file with other labels in the same folder must not rename the classes."""
  os.makedirs(trained / "new")
  write_reviews(trained / "new" / "train.csv", 20, 5, ("a", "b"))
  shutil.copy(trained / "new.csv", trained / "new" / "test.csv")
  predict(
    f"--init_checkpoint={trained / 'run'}",
    f"--data_dir={trained / 'new'}",
    f"--output_dir={trained / 'third'}",
  )
  rows = (trained / "third" / "predictions.test.tsv").read_text().splitlines()
  assert "probability_neg" in rows[0] and "probability_pos" in rows[0]
  experiment = config.Experiment(task=Classification())
  experiment.trainer.model_dir = str(trained / "run")
  dataset = classification.DATASETS["sst-2"]
  task = classification.ClassificationTask("csv", dataset)
  with pytest.raises(UserError, match=r"trained with the labels \['neg', 'pos'\], the data have"):
    take_labels(task, experiment)


def test_contradicting_flags_are_refused_or_win(trained):
  _, err = predict(
    f"--model_dir={trained / 'run'}", "--do_lower_case", "--max_seq_length=12", status=1
  )
  assert f"--uncased=True, but the model in {trained / 'run'} was trained with False" in err
  assert "Traceback" not in err

  experiment = config.Experiment(task=Classification())
  experiment.trainer.model_dir = str(trained / "run")
  experiment.set("max_seq_length", 12, "flag")
  experiment.set("text_a_col", "review", "flag")
  model_folder.take_settings(experiment)
  assert experiment.data.max_seq_length == 12 and experiment.task.label_col == "sentiment"
  assert {"label_col", "uncased", "task_name"} <= experiment.sources.keys()
  experiment.task = Squad()
  with pytest.raises(UserError, match="holds a model of another job"):
    model_folder.take_settings(experiment)


def test_a_mistyped_folder_is_named_and_not_created(trained):
  wrong = trained / "rum"
  _, err = predict(f"--model_dir={wrong}", "--task_name=csv", status=1)
  assert f"{wrong}: no checkpoint to predict with (there is no such folder)" in err
  assert not wrong.exists()


def test_partial_submissions_are_refused(trained):
  tiny.write_cola(trained / "CoLA", 8, 8, 8)
  _, err = tiny.run(
    "run_classifier.py",
    "--do_submit",
    "--task_name=cola",
    "--max_eval_examples=4",
    f"--init_checkpoint={trained / 'encoder'}",
    "--max_seq_length=16",
    f"--data_dir={trained / 'CoLA'}",
    f"--output_dir={trained / 'cola'}",
    status=1,
  )
  assert "--do_submit: GLUE's submission needs predictions for all test data" in err


def test_new_training_uses_only_the_tokenizer_settings(trained):
  """Labels, columns and lengths of the initial classifier are ignored."""
  experiment = config.Experiment(task=Classification())
  experiment.trainer.do_train = True
  experiment.trainer.model_dir = str(trained / "fresh")
  experiment.model.init_checkpoint = str(trained / "run")
  experiments.take_model_settings(experiment, "csv")
  experiments.complete(experiment, "csv")
  assert not experiment.tokenizer.uncased
  assert experiment.task.text_a_col == "text" and experiment.data.max_seq_length == 128
  assert experiment.data.output_dir == str(trained / "fresh")


def test_truncate_seq_is_kept(tmp_path):
  """net_config.json does not contain it; the settings do."""
  encoder = tiny.write_funnel(tmp_path / "funnel")
  model = config.Model(model_config=os.path.join(encoder, "net_config.json"))
  assert model_folder.load_model_config(model).truncate_seq
  model_folder.write_settings(encoder, {"truncate_seq": False})
  assert not model_folder.load_model_config(model).truncate_seq


def test_folders_of_earlier_versions_are_read(tmp_path):
  """They have only labels.json, and no settings in best/."""
  folder = tmp_path / "old"
  os.makedirs(folder / "best")
  (folder / "labels.json").write_text('{"task_name": "csv", "label_list": ["x", "y"]}')
  for best in ("best", "best/"):
    assert model_folder.read_settings(f"{folder}/{best}")["label_list"] == ["x", "y"]
  assert model_folder.read_settings(str(tmp_path)) == {}
  assert checkpoints.latest(str(folder)) is None


def test_pretraining_continues_with_the_casing_of_its_folder(trained, tmp_path):
  """The records of a later command may have no casing, or another one."""
  shutil.copytree(trained / "run", tmp_path / "run")
  model_folder.write_settings(str(tmp_path / "run"), {"job": "pretraining", "uncased": False})
  experiment = config.Experiment(task=Pretraining())
  experiment.trainer.model_dir, experiment.trainer.do_train = str(tmp_path / "run"), True
  model_folder.take_settings(experiment)
  assert not experiment.tokenizer.uncased
  experiment.set("uncased", True, "flag")
  with pytest.raises(UserError, match="--uncased=True, but the model in .* was trained with False"):
    model_folder.take_settings(experiment)


def test_trials_have_the_settings_of_the_first(trained, tmp_path):
  shutil.copytree(trained / "run", tmp_path / "run" / "trial_0")
  experiment = config.Experiment(task=Classification())
  experiment.trainer.model_dir, experiment.trainer.do_train = str(tmp_path / "run"), True
  assert model_folder.trained_folder(experiment) is None
  experiment.trainer.num_trials = 2
  assert model_folder.trained_folder(experiment) == str(tmp_path / "run" / "trial_0")


def test_an_unnamed_folder_best_is_not_used(trained, monkeypatch):
  monkeypatch.chdir(trained / "run")
  experiment = config.Experiment(task=Classification())
  experiment.trainer.model_dir, experiment.trainer.do_predict = "../typo", True
  with pytest.raises(UserError, match="../typo: no checkpoint to predict with"):
    experiments.take_model_settings(experiment, "csv")


def test_trials_predict_with_the_files_of_their_folders(trained, tmp_path):
  for trial in ("trial_0", "trial_1"):
    shutil.copytree(trained / "run" / "best", tmp_path / trial)
  experiment = config.Experiment(task=Classification())
  experiment.trainer.model_dir, experiment.trainer.num_trials = str(tmp_path), 2
  experiment.trainer.do_predict = True
  experiments.take_model_settings(experiment, "")
  experiments.complete(experiment, experiment.task.task_name)
  assert experiment.tokenizer.tokenizer_path == f"{tmp_path}/trial_0/vocab.txt"
  assert experiment.model.model_config == f"{tmp_path}/trial_0/bert_config.json"
  assert experiment.data.max_seq_length == 10 and not experiment.tokenizer.uncased


def take_labels(task, experiment):
  """Takes the labels of the experiment's trained folder."""
  folder = model_folder.trained_folder(experiment)
  task.take_model_settings(model_folder.read_settings(folder), folder, {})


def settings_of(folder, given=(), **tokenizer):
  """Experiment after take_settings with the given tokenizer settings."""
  experiment = config.Experiment(task=Classification(), tokenizer=config.Tokenizer(**tokenizer))
  experiment.trainer.model_dir = str(folder)
  experiment.sources = dict.fromkeys([*given, *tokenizer], "flag")
  model_folder.take_settings(experiment)
  return experiment


def test_equal_settings_may_be_spelled_differently(trained, tmp_path):
  shutil.copytree(trained / "run", tmp_path / "run")
  model_folder.write_settings(
    str(tmp_path / "run"), {"tokenizer_type": "word_piece", "uncased": True, "strip_accents": None}
  )
  settings_of(tmp_path / "run", tokenizer_type="WordPiece", strip_accents=True)
  with pytest.raises(UserError, match="--strip_accents=False"):
    settings_of(tmp_path / "run", strip_accents=False)


def test_sentence_piece_models_of_earlier_versions_are_plain(trained, tmp_path):
  """They have no sent_piece_form, and were trained with the form that is now called plain."""
  shutil.copytree(trained / "run", tmp_path / "run")
  os.remove(tmp_path / "run" / "model_settings.json")
  found = settings_of(tmp_path / "run", tokenizer_type="sent_piece")
  assert found.tokenizer.sent_piece_form == "plain"
  assert settings_of(tmp_path / "run").tokenizer.sent_piece_form == "funnel"


def test_the_head_keeps_its_name_with_another_file_format(trained):
  experiment = config.Experiment(task=Classification())
  experiment.trainer.model_dir = str(trained / "run")
  settings = Classification(
    task_name="tsv",
    text_a_col="review",
    label_col="sentiment",
    train_file=str(trained / "train.csv"),
  )
  task = classification.ClassificationTask("tsv", classification.dataset_of("tsv", settings))
  take_labels(task, experiment)
  assert task.model_settings() == {"task_name": "csv", "label_list": ["neg", "pos"]}


def test_tokenizer_settings_next_to_the_checkpoint_are_used(tmp_path):
  """The vocabulary may be in another folder than the checkpoint."""
  for name, settings in (
    ("checkpoint", {"strip_accents": False, "uncased": False}),
    ("words", {"uncased": True}),
  ):
    os.makedirs(tmp_path / name)
    model_folder.write_settings(str(tmp_path / name), settings)
  (tmp_path / "words" / "vocab.txt").write_text("[PAD]\ngood\n")
  tokenizer = config.Tokenizer(tokenizer_path=str(tmp_path / "words" / "vocab.txt"))
  model_folder.fill_tokenizer(
    tokenizer, [str(tmp_path / "words"), str(tmp_path / "checkpoint")], set()
  )
  assert tokenizer.strip_accents is False and tokenizer.uncased


def test_a_configuration_other_than_the_trained_one_is_refused(trained, tmp_path):
  """No variable's shape depends on the activation."""
  experiment = config.Experiment(task=Classification())
  experiment.trainer.model_dir = str(trained / "run")
  own = model_folder.load_model_config(
    config.Model(model_config=str(trained / "run" / "bert_config.json"))
  )
  experiments.check_trained_config(experiment, dataclasses.replace(own, hidden_dropout_prob=0.3))
  with pytest.raises(
    UserError,
    match="hidden_act is 'relu', but the model in .*run was trained "
    "with 'gelu'; leave --model_config",
  ):
    experiments.check_trained_config(experiment, dataclasses.replace(own, hidden_act="relu"))


def test_a_run_with_only_its_best_checkpoint_predicts(trained, tmp_path):
  """Training does not restart at step 0 and replace it."""
  shutil.copytree(trained / "run", tmp_path / "run")
  for path in (tmp_path / "run").glob("model.ckpt-*"):
    path.unlink()
  folder, model = str(tmp_path / "run"), config.Model()
  assert model_folder.find_checkpoint(folder, model, "predict with") == checkpoints.latest(
    f"{folder}/best"
  )
  experiment = config.Experiment(task=Classification())
  experiment.trainer.model_dir = folder
  assert model_folder.trained_folder(experiment) == folder
  with pytest.raises(UserError, match="best: this folder holds the only checkpoint left of a run"):
    checkpoints.check_restorable(folder)
