"""No script writes or deletes a file that it reads, under any name."""

import os
import subprocess
import sys

import pytest
import tiny

import config
import create_pretraining_data
from conversion import commands
from errors import UserError
from preprocessing import pretraining_records, record_files
from scripts import build_vocab
from tasks.settings import Classification, Squad
from training import model_folder, runner
from utils import paths

TOKENIZER_SETTINGS = ("tokenizer_config.json", "tokenizer.json", "model_settings.json")
TEXT = "the film was good\nit was a great story\n\na dull film\nthe story is poor\n" * 30


@pytest.fixture()
def folder(tmp_path):
  """A corpus, its vocabulary, and links to the corpus."""
  (tmp_path / "a.txt").write_text(TEXT)
  (tmp_path / "vocab.txt").write_text("\n".join(tiny.VOCAB) + "\n")
  os.symlink("a.txt", tmp_path / "symbolic.txt")
  os.link(tmp_path / "a.txt", tmp_path / "hard.txt")
  os.symlink(tmp_path, tmp_path / "linked")
  return tmp_path


def contents(folder):
  return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(folder, function, match="is read by this command"):
  before = contents(folder)
  with pytest.raises(UserError, match=match):
    function()
  assert contents(folder) == before


@pytest.mark.parametrize(
  "output", ["a.txt", "./a.txt", "linked/a.txt", "symbolic.txt", "hard.txt", "linked/hard.txt"]
)
def test_an_input_is_not_an_output_even_through_links(folder, output):
  with pytest.raises(UserError, match="is read by this command"):
    paths.check_outputs([f"{folder}/a.txt"], [f"{folder}/new.txt", f"{folder}/{output}"])


def test_other_outputs_are_allowed(folder):
  paths.check_outputs([f"{folder}/a.txt", "gs://b/a.txt"], [f"{folder}/b.txt", "gs://c/a.txt"])
  with pytest.raises(UserError, match="gs://b/x/../a.txt is the same file as gs://b/a.txt"):
    paths.check_outputs(["gs://b/a.txt"], ["gs://b/x/../a.txt"])
  with pytest.raises(UserError, match="new is the same file as .*new, which is written twice"):
    paths.check_outputs([], [f"{folder}/new", f"{folder}/linked/new"])


@pytest.mark.parametrize(
  "flags",
  [
    dict(output_file="a.txt"),
    dict(output_file="hard.txt"),
    dict(output_file="vocab.txt"),
    dict(output_file="new", meta_data_file_path="symbolic.txt"),
    dict(output_file="new", meta_data_file_path="vocab.txt"),
    *(dict(output_file="new", meta_data_file_path=name) for name in TOKENIZER_SETTINGS),
  ],
)
def test_pretraining_data_keep_their_corpus(folder, flags):
  form = pretraining_records.BertForm(
    input_file=f"{folder}/a.txt",
    max_seq_length=32,
    max_predictions_per_seq=5,
    **{name: f"{folder}/{value}" for name, value in flags.items()},
  )
  assert_refused(
    folder,
    lambda: create_pretraining_data.create(
      form,
      config.Tokenizer(tokenizer_path=f"{folder}/vocab.txt"),
      create_pretraining_data.Run(num_workers=1, overwrite_data=True),
    ),
  )


def test_split_text_is_not_mistaken_for_old_record_files(folder):
  """--overwrite_data removes the record files of another number of shards."""
  for name in ("a-00000-of-00002", "a-00001-of-00002"):
    (folder / name).write_text(TEXT)
  form = pretraining_records.BertForm(
    input_file=f"{folder}/a-*",
    output_file=f"{folder}/a",
    num_shards=3,
    max_seq_length=32,
    max_predictions_per_seq=5,
  )
  assert_refused(
    folder,
    lambda: create_pretraining_data.create(
      form,
      config.Tokenizer(tokenizer_path=f"{folder}/vocab.txt"),
      create_pretraining_data.Run(num_workers=1, overwrite_data=True),
    ),
  )


@pytest.mark.parametrize("num_shards", [2, 4])
def test_unread_text_is_not_mistaken_for_old_record_files(folder, num_shards):
  for name in ("wiki-00000-of-00004", "wiki-00003-of-00004"):
    (folder / name).write_text(TEXT)
  form = pretraining_records.BertForm(
    input_file=f"{folder}/a.txt",
    output_file=f"{folder}/wiki",
    num_shards=num_shards,
    max_seq_length=32,
    max_predictions_per_seq=5,
  )
  assert_refused(
    folder,
    lambda: create_pretraining_data.create(
      form,
      config.Tokenizer(tokenizer_path=f"{folder}/vocab.txt"),
      create_pretraining_data.Run(num_workers=1, overwrite_data=True),
    ),
    "wiki-0000[03]-of-00004: --overwrite_data would remove this file",
  )


@pytest.mark.parametrize("output", ["a.txt", "symbolic.txt", "hard.txt"])
def test_a_vocabulary_does_not_replace_its_text(folder, output):
  settings = build_vocab.Vocabulary(input_file=f"{folder}/a.txt", overwrite_data=True)
  assert_refused(
    folder,
    lambda: build_vocab.build(settings, config.Tokenizer(tokenizer_path=f"{folder}/{output}")),
  )


@pytest.mark.parametrize("name", TOKENIZER_SETTINGS)
def test_a_vocabulary_does_not_replace_settings(folder, name):
  (folder / name).write_text("{}")
  settings = build_vocab.Vocabulary(input_file=f"{folder}/a.txt", overwrite_data=True)
  assert_refused(
    folder, lambda: build_vocab.build(settings, config.Tokenizer(tokenizer_path=f"{folder}/{name}"))
  )


def test_the_settings_of_a_copy_may_be_in_the_folder_above():
  assert "run/model_settings.json" in model_folder.tokenizer_inputs("run/best/vocab.txt")


def test_finetuning_data_keep_their_files(tmp_path):
  data = tiny.write_cola(tmp_path / "CoLA")
  (tmp_path / "vocab.txt").write_text("\n".join(tiny.VOCAB) + "\n")
  os.symlink(f"{data}/dev.tsv", tmp_path / "link.tsv")
  before = contents(tmp_path)
  for flags in (
    ["train_data_output_path=x.tf_record", "meta_data_file_path=CoLA/train.tsv"],
    ["train_data_output_path=link.tsv", "meta_data_file_path=meta"],
    ["train_data_output_path=x", "meta_data_file_path=tokenizer_config.json"],
    ["train_data_output_path=x", "eval_data_output_path=y", "meta_data_file_path=CoLA/../x"],
  ):
    flags = [f"--{flag.replace('=', f'={tmp_path}/')}" for flag in flags]
    _, err = tiny.run(
      "create_finetuning_data.py",
      "--task_name=cola",
      f"--data_dir={data}",
      f"--vocab_file={tmp_path}/vocab.txt",
      "--max_seq_length=24",
      *flags,
      status=1,
    )
    assert " by this command: " in err or "is written twice" in err, err
    assert "Traceback" not in err and contents(tmp_path) == before


def test_a_model_is_not_converted_onto_itself(tmp_path):
  folder = tiny.write_encoder(tmp_path / "model")
  os.symlink(folder, tmp_path / "link")
  for convert in (commands.strip, commands.tf_to_hf):
    assert_refused(
      tmp_path, lambda convert=convert: convert(folder, str(tmp_path / "link"), overwrite=True)
    )


def small_runner(tmp_path, **sections):
  """A runner on train.tsv and dev.tsv, in the folder run."""
  folder = tiny.write_encoder(tmp_path / "encoder")
  for name in ("train", "dev"):
    (tmp_path / f"{name}.tsv").write_text("text\tlabel\ngood\t1\nbad\t0\n")
  experiment = config.Experiment(task=Classification(), **sections)
  experiment.data.max_seq_length, experiment.trainer.train_batch_size = 16, 2
  experiment.trainer.model_dir = experiment.trainer.model_dir or str(tmp_path / "run")
  model, tokenizer = experiment.model, experiment.tokenizer
  model.model_config = model.model_config or f"{folder}/bert_config.json"
  tokenizer.tokenizer_path = f"{folder}/vocab.txt"
  task = tiny.make_task(Classification(task_name="tsv"), config.RawData(data_dir=str(tmp_path)))
  return runner.Runner(experiment, model_folder.load_model_config(model), task)


def test_predictions_do_not_replace_inputs(tmp_path):
  run = small_runner(tmp_path)
  run.check_outputs([f"{tmp_path}/run/predictions.test.tsv"])
  for name in ("train.tsv", "run/../dev.tsv", "encoder/vocab.txt", "encoder/bert_config.json"):
    with pytest.raises(UserError, match="is read by this command"):
      run.check_outputs([f"{tmp_path}/{name}"])
  assert sorted(map(os.path.basename, record_files.raw_files(run.task))) == ["dev.tsv", "train.tsv"]


@pytest.mark.parametrize(
  "name",
  [
    "eval_results.txt",
    "eval_results.json",
    "eval_predictions.jsonl",
    "metrics.jsonl",
    "labels.json",
    "model_settings.json",
    "best/info.json",
  ],
)
@pytest.mark.parametrize("flag", ["do_train", "do_eval"])
def test_training_and_evaluation_do_not_replace_inputs(tmp_path, name, flag):
  run = tmp_path / "run"
  (run / "best").mkdir(parents=True)
  (run / name).write_text("text\tlabel\ngood\t1\nbad\t0\n")
  (tmp_path / "test.tsv").symlink_to(run / name)
  with pytest.raises(UserError, match=f"{name} is the same file as .*test.tsv, which is read"):
    small_runner(tmp_path, trainer=config.Trainer(**{flag: True}))


def test_training_does_not_replace_another_configuration(tmp_path):
  tiny.write_encoder(tmp_path / "run", hidden_size=8)
  os.remove(tmp_path / "run" / "checkpoint")
  before = contents(tmp_path / "run")
  with pytest.raises(UserError, match="run/bert_config.json: this configuration would be over"):
    small_runner(tmp_path, trainer=config.Trainer(do_train=True))
  assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(
  "name, text, message",
  [
    ("labels.json", '{"0": "mine"}', "training would overwrite this file"),
    ("labels.json", '["mine"]', "contains a list, not a JSON object"),
    ("model_settings.json", '{"job": "squad"}', "training would overwrite this file"),
  ],
)
def test_training_does_not_replace_other_settings(tmp_path, name, text, message):
  run = small_runner(tmp_path, trainer=config.Trainer(do_train=True))
  (tmp_path / "run" / name).write_text(text)
  assert_refused(tmp_path, lambda: run._check_settings(run._model_settings()), f"{name}: {message}")


def test_a_run_killed_before_its_first_checkpoint_continues(tmp_path):
  for _ in range(2):
    run = small_runner(tmp_path, trainer=config.Trainer(do_train=True))
    run._check_settings(run._model_settings())
    run._write_model_files(run._model_settings())


def test_training_in_the_folder_of_the_encoder_updates_its_settings(tmp_path):
  encoder = tmp_path / "encoder"
  encoder.mkdir()
  (encoder / "model_settings.json").write_text('{"uncased": true}')
  run = small_runner(
    tmp_path,
    trainer=config.Trainer(do_train=True, model_dir=str(encoder)),
    model=config.Model(init_checkpoint=f"{encoder}/bert_model.ckpt"),
  )
  os.remove(encoder / "checkpoint")  # published encoders have none
  run._check_settings(run._model_settings())
  run._write_model_files(run._model_settings())
  assert "classification" in (encoder / "model_settings.json").read_text()


def test_training_does_not_replace_its_initial_model(tmp_path):
  best = tmp_path / "run" / "best"
  tiny.write_encoder(best)
  with pytest.raises(UserError, match="run/best: this folder holds the only checkpoint"):
    small_runner(
      tmp_path,
      trainer=config.Trainer(do_train=True),
      model=config.Model(init_checkpoint=f"{best}/bert_model.ckpt"),
    )


def test_ensembles_name_their_files():
  task = tiny.make_task(Squad(ensemble_output_file="x/dev.json"))
  trainer = config.Trainer(predict_dir="p")
  assert task.ensemble_files(trainer) == ["x/dev.json", "x/dev.nbest.json", "x/dev.null_odds.json"]
  assert task.output_files(trainer, "predict")[0] == "p/predictions.json"


def test_small_scripts_keep_their_text(folder):
  reviews = folder / "train.csv"
  reviews.write_text("text,label,source\n" + "good,1,rotten_tomatoes\n" * 20)
  (folder / "a.tmp").write_text(TEXT)  # the name of the unfinished output a
  before = contents(folder)
  for script, *arguments in (
    ("split_sentences.py", "symbolic.txt", "a.txt"),
    ("split_sentences.py", "a", "a.tmp"),
    ("split_reviews.py", "train.csv", "."),
  ):
    result = subprocess.run(
      [sys.executable, os.path.join(tiny.ROOT, "scripts", script), *arguments],
      cwd=folder,
      text=True,
      capture_output=True,
      check=False,
    )
    assert result.returncode == 1 and "is read by this command" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
  assert contents(folder) == before
