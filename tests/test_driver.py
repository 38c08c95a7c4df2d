"""train.py: layers of settings, Model Garden's keys and commands, modes, bad input."""

import json
import os
import re
import subprocess
import sys

import pytest
import tiny
import tiny_squad
import yaml

import config
from errors import UserError
from tasks.settings import Classification
from training import driver, experiment_registry, params, recipes
from utils import console

CONFIGS = os.path.join(tiny.ROOT, "configs")


def entries_of(text):
  return params.parse(text, "x.yaml")


# ---- Layers -------------------------------------------------------------------------------------


def test_the_last_layer_wins(tmp_path):
  first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
  first.write_text("trainer: {seed: 1, log_freq: 5}\nruntime: {tpu: from_file}\n")
  second.write_text("trainer:\n  seed: 2\n  max_save: 7\n")
  found = driver.resolve(
    "bert/squad",
    [str(first), str(second)],
    tpu="from_flag",
    params_override="trainer.max_save=9,task.doc_stride=64",
    model_dir="m",
    setting_flags={"n_best_size": 3},
  )
  assert (found.trainer.seed, found.trainer.log_freq, found.trainer.max_save) == (2, 5, 9)
  assert found.task.n_best_size == 3 and found.sources["n_best_size"] == "--n_best_size"
  assert (found.runtime.tpu, found.runtime.use_tpu) == ("from_flag", True)
  assert found.task.doc_stride == 64 and found.trainer.model_dir == "m"
  assert found.sources["seed"] == f"{second}: line 2"
  assert found.sources["max_save"] == "--params_override"
  assert "weight_decay" not in found.sources


def test_settings_of_the_factory_count_as_set():
  found = experiment_registry.make("bert/local")
  assert found.sources["train_steps"] == "experiment bert/local"
  assert "adam_beta1" not in found.sources
  recipes.apply(found, {"learning_rate": 1.0, "weight_decay": 0.5})
  assert found.optimizer.learning_rate == 1e-3 and found.optimizer.weight_decay == 0.5


@pytest.mark.parametrize(
  "text",
  [
    "trainer.seed=3,task.text_a_col='a,b',optimizer.learning_rate=1e-4",
    "trainer:\n  seed: 3\ntask: {text_a_col: 'a,b'}\noptimizer: {learning_rate: 1e-4}",
    '{"trainer": {"seed": 3}, "task": {"text_a_col": "a,b"}, "optimizer": {"learning_rate": 1e-4}}',
  ],
)
def test_overrides_are_csv_yaml_or_json(text, tmp_path):
  path = tmp_path / "override.yaml"
  for form in (text, str(path)):
    path.write_text(text if "\n" in text or "{" in text else yaml.safe_dump({"trainer": {}}))
    found = driver.resolve("bert/sentence_prediction", params_override=form)
    if form == text or "{" in text:
      assert (found.trainer.seed, found.task.text_a_col) == (3, "a,b")
      assert found.optimizer.learning_rate == 1e-4


def test_params_yaml_gives_the_same_settings(tmp_path):
  found = driver.resolve(
    "bert/sentence_prediction",
    params_override="trainer.seed=3,task.text_a_col='1',model.keys.hidden_size=16",
  )
  found.tokenizer.strip_accents = None
  path = tmp_path / "params.yaml"
  path.write_text(params.to_yaml(found))
  again = driver.resolve("bert/sentence_prediction", [str(path)])
  assert again.to_dict() == found.to_dict() and again.model_keys == found.model_keys
  assert "seed: 3  # --params_override" in path.read_text()


def test_epochs_are_a_number_of_updates_too():
  found = driver.resolve("bert/squad", params_override="trainer.train_steps=2 epochs")
  assert (found.optimizer.num_train_epochs, found.optimizer.train_steps) == (2.0, 0)
  assert driver.resolve("bert/squad", params_override="trainer.train_steps=7").sources[
    "train_steps"
  ]


def test_experiments_and_tasks_of_a_users_file(tmp_path, monkeypatch):
  monkeypatch.setattr(experiment_registry, "FACTORIES", dict(experiment_registry.FACTORIES))
  path = tmp_path / "mine.py"
  path.write_text(
    "import config\nfrom tasks.settings import Classification\n"
    "from training import experiment_registry\n"
    "@experiment_registry.register_config_factory('bert/mine')\n"
    "def mine():\n  return config.Experiment(task=Classification(task_name='cola'))\n"
  )
  experiment_registry.import_module(str(path))
  assert experiment_registry.make("bert/mine").task.task_name == "cola"
  with pytest.raises(UserError, match="--import_module=.*nothing.py"):
    experiment_registry.import_module(str(tmp_path / "nothing.py"))


# ---- Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "text, message",
  [
    ("trainer: {sed: 1}", "x.yaml: line 1: there is no setting trainer.sed; did you mean trainer"),
    ("a: 1\nb: [", "x.yaml: line 2: not valid YAML"),
    ("- 1", "x.yaml: line 1: settings are a mapping of sections"),
    ("trainer: {seed: many}", "x.yaml: line 1: trainer.seed: 'many' is not an integer"),
    ("trainer: {seed: 1.5}", "trainer.seed: 1.5 is not an integer"),
    ("trainer: {seed: true}", "trainer.seed: True is not an integer"),
    ("trainer: {max_save: -1}", "trainer.max_save: -1 is below 0"),
    ("trainer: {do_train: 2}", "trainer.do_train: 2 is not true or false"),
    ("optimizer: {learning_rate: .nan}", "optimizer.learning_rate: nan is not a number"),
    ("optimizer: {decay_method: bent}", "'bent' is none of poly, cos, constant"),
    ("task: {text_a_col: [1]}", "is a list or mapping, where a text is expected"),
    ("a: !!python/object/apply:os.system ['true']", "x.yaml: line 1: not valid YAML"),
    ("trainer: {seed: 1, seed: 2}", "seed is there twice"),
    ("runtime: {mixed_precision_dtype: float64}", "'float64' is not supported, only float32"),
    ("trainer: {optimizer_config: {optimizer: {type: lamb}}}", "'lamb' is not supported"),
  ],
)
def test_bad_settings_are_named(text, message):
  experiment = config.Experiment(task=Classification())
  with pytest.raises(UserError, match=re.escape(message)):
    params.apply(experiment, entries_of(text))


def test_bad_overrides_and_files(tmp_path):
  with pytest.raises(UserError, match="--experiment=bert/sqad is unknown; there are bert/local"):
    driver.resolve("bert/sqad")
  with pytest.raises(UserError, match="--params_override: .*is no KEY=VALUE"):
    params.read_override("trainer.seed=1,seed")
  with pytest.raises(UserError, match="no.yaml: cannot read this file"):
    params.read_file(str(tmp_path / "no.yaml"))
  (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
  with pytest.raises(UserError, match="bytes.yaml: not a text file in UTF-8"):
    params.read_file(str(tmp_path / "bytes.yaml"))


def test_messages_name_settings_by_their_keys(monkeypatch):
  monkeypatch.setattr(console, "_spelling", {})
  text = "--max_seq_length=9 is bad; pass --noinit_pooler, or --help"
  assert console.spelled(text) == text
  console.spell_settings(params.spelling(config.Experiment(task=Classification())))
  assert (
    console.spelled(text) == "data.max_seq_length=9 is bad; pass model.init_pooler=false, or --help"
  )


def test_wrong_commands_end_with_one_line(tmp_path):
  for flags, message in (
    (["--mode=train"], "--experiment is missing"),
    (["--experiment=bert/squad", "--mode=tran"], "--mode"),
    (["--experiment=bert/squad", "--mode=train"], "--model_dir is missing"),
    (["--experiment=bert/race", "--mode=train", "--model_dir=m", "--doc_stride=1"], "--doc_stride"),
    (["--experiment=bert/race", "--mode=eval", "--model_dir=m", "--do_train"], "--mode=eval"),
  ):
    _, err = tiny.run("train.py", *flags, status=1)
    assert message in err and "Traceback" not in err, err


# ---- Runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("driver")
  tiny.write_encoder(folder / "bert", num_layers=1)
  tiny.write_cola(folder / "CoLA", num_train=40, num_dev=20)
  tiny_squad.write(folder / "train-v1.1.json", 20, 1)
  tiny_squad.write(folder / "dev-v1.1.json", 8, 2)
  (folder / "model.yaml").write_text(
    yaml.safe_dump(
      {
        "task": {
          "model": {
            "encoder": {
              "type": "bert",
              "bert": {
                "hidden_size": 16,
                "num_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "max_position_embeddings": 32,
                "vocab_size": len(tiny.VOCAB),
                "initializer_range": 0.1,
              },
            }
          }
        }
      }
    )
  )
  return folder


def curve(folder):
  with open(os.path.join(folder, "metrics.jsonl")) as reader:
    lines = [json.loads(line) for line in reader]
  return [line["loss"] for line in lines if line["kind"] == "train"]


def test_flags_and_yaml_give_the_same_run(workspace, tmp_path):
  values = {"max_seq_length": 24, "train_batch_size": 8, "train_steps": 3, "log_freq": 1}
  tiny.run(
    "run_classifier.py",
    "--task_name=cola",
    "--do_train",
    f"--data_dir={workspace / 'CoLA'}",
    f"--pretrained={workspace / 'bert'}",
    f"--model_dir={tmp_path / 'flags'}",
    *(f"--{name}={value}" for name, value in values.items()),
  )
  (tmp_path / "run.yaml").write_text(
    f"task: {{task_name: cola}}\nraw_data: {{data_dir: {workspace / 'CoLA'}}}\n"
    f"model: {{pretrained: {workspace / 'bert'}}}\ndata: {{max_seq_length: 24}}\n"
    "trainer: {train_batch_size: 8, log_freq: 1, train_steps: 3}\n"
  )
  tiny.run(
    "train.py",
    "--experiment=bert/sentence_prediction",
    "--mode=train",
    f"--model_dir={tmp_path / 'yaml'}",
    f"--config_file={tmp_path / 'run.yaml'}",
  )
  assert curve(tmp_path / "flags") == curve(tmp_path / "yaml")
  resolved = [params.read_file(str(tmp_path / name / "params.yaml")) for name in ("flags", "yaml")]
  one, other = ({key: value for key, value, _ in entries} for entries in resolved)
  different = {key for key in one if one[key] != other[key]}
  assert different <= {"trainer.model_dir", "data.output_dir", "trainer.eval_every_steps"}


@pytest.mark.smoke
def test_local_experiment_needs_no_files(tmp_path):
  out, _ = tiny.run(
    "train.py",
    "--experiment=bert/local",
    "--mode=train_and_eval",
    f"--model_dir={tmp_path / 'run'}",
    "--params_override=trainer.train_steps=90,trainer.validation_interval=120",
    "--train_steps=120",
  )
  assert float(re.findall(r"accuracy ([\d.]+)", out)[-1]) > 0.9, out


def test_model_garden_commands_for_classification(workspace):
  """The published command with local paths: records, then training on them by keys alone."""
  records = workspace / "records"
  tiny.run(
    "create_finetuning_data.py",
    f"--input_data_dir={workspace / 'CoLA'}",
    f"--vocab_file={workspace / 'bert' / 'vocab.txt'}",
    f"--train_data_output_path={records}/COLA_train.tf_record",
    f"--eval_data_output_path={records}/COLA_eval.tf_record",
    f"--meta_data_file_path={records}/COLA_meta_data",
    "--fine_tuning_task_type=classification",
    "--max_seq_length=24",
    "--classification_task_name=COLA",
  )
  override = (
    f"task.train_data.input_path={records}/COLA_train.tf_record,"
    f"task.validation_data.input_path={records}/COLA_eval.tf_record,"
    f"task.init_checkpoint={workspace}/bert/bert_model.ckpt,task.model.num_classes=2,"
    "task.train_data.seq_length=24,trainer.train_steps=4,trainer.validation_interval=2,"
    "task.train_data.global_batch_size=8,runtime.distribution_strategy=one_device"
  )
  model_dir = workspace / "garden"
  flags = [
    "--experiment=bert/sentence_prediction",
    f"--model_dir={model_dir}",
    f"--config_file={workspace / 'model.yaml'}",
    f"--tfhub_cache_dir={workspace / 'cache'}",
    f"--params_override={override}",
  ]
  out, err = tiny.run("train.py", "--mode=train_and_eval", *flags)
  assert "cola dev: " in out and "matthews" in out, out + err
  out, _ = tiny.run("train.py", "--mode=eval_all", *flags)
  assert out.startswith("cola dev: ")
  waiting = subprocess.run(
    [sys.executable, os.path.join(tiny.ROOT, "train.py"), "--mode=continuous_eval", *flags],
    text=True,
    capture_output=True,
    timeout=200,
    env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"),
    check=False,
  )
  assert waiting.returncode == 0 and "model.ckpt-4" in waiting.stdout, waiting.stderr[-2000:]


def test_model_garden_commands_for_squad(workspace):
  """Training on records, evaluation on the raw file."""
  records = workspace / "squad"
  tiny.run(
    "create_finetuning_data.py",
    f"--squad_data_file={workspace / 'train-v1.1.json'}",
    f"--vocab_file={workspace / 'bert' / 'vocab.txt'}",
    f"--train_data_output_path={records}/train.tf_record",
    f"--meta_data_file_path={records}/squad_meta_data",
    "--fine_tuning_task_type=squad",
    "--max_seq_length=24",
  )
  override = (
    f"task.train_data.input_path={records}/train.tf_record,"
    f"task.validation_data.input_path={workspace}/dev-v1.1.json,"
    f"task.validation_data.vocab_file={workspace}/bert/vocab.txt,"
    f"task.init_checkpoint={workspace}/bert/bert_model.ckpt,trainer.train_steps=3,"
    "task.train_data.seq_length=24,task.validation_data.seq_length=24,"
    "task.train_data.global_batch_size=8,trainer.validation_interval=3"
  )
  out, _ = tiny.run(
    "train.py",
    "--experiment=bert/squad",
    "--mode=train_and_eval",
    f"--model_dir={workspace / 'squad_run'}",
    f"--config_file={workspace / 'model.yaml'}",
    f"--config_file={os.path.join(CONFIGS, 'experiments', 'squad_v1.1.yaml')}",
    f"--params_override={override}",
  )
  assert "squad dev: " in out and "exact_match" in out


def test_model_garden_commands_for_pretraining(workspace):
  text = workspace / "input.txt"
  sentences = [text for text, _ in tiny.sentences(40, 1)]
  text.write_text("\n\n".join("\n".join(sentences[i : i + 4]) for i in range(0, 40, 4)) + "\n")
  tiny.run(
    "create_pretraining_data.py",
    f"--input_file={text}",
    f"--output_file={workspace / 'tf_examples.tfrecord'}",
    f"--vocab_file={workspace / 'bert' / 'vocab.txt'}",
    "--do_lower_case=True",
    "--max_seq_length=24",
    "--max_predictions_per_seq=4",
    "--masked_lm_prob=0.15",
    "--random_seed=12345",
    "--dupe_factor=5",
  )
  override = (
    f"task.train_data.input_path={workspace}/tf_examples*,"
    f"task.validation_data.input_path={workspace}/tf_examples*,"
    "task.train_data.seq_length=24,task.validation_data.seq_length=24,"
    "task.train_data.max_predictions_per_seq=4,task.validation_data.max_predictions_per_seq=4,"
    "task.train_data.global_batch_size=8,task.validation_data.global_batch_size=8,"
    "trainer.train_steps=3,trainer.optimizer_config.warmup.polynomial.warmup_steps=1,"
    "trainer.validation_interval=3"
  )
  out, _ = tiny.run(
    "train.py",
    "--experiment=bert/pretraining",
    "--mode=train_and_eval",
    f"--model_dir={workspace / 'pretraining_run'}",
    f"--config_file={os.path.join(CONFIGS, 'experiments', 'wiki_books_pretrain.yaml')}",
    f"--config_file={workspace / 'model.yaml'}",
    f"--params_override={override}",
  )
  assert "pretraining_bert dev: " in out and "next_sentence_accuracy" in out
