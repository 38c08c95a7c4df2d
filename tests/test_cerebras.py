"""run_classifier.py with Cerebras' command line and YAML files."""

import os

import pytest
import tiny
import yaml

import config
from errors import UserError
from tasks.settings import Classification
from training import cerebras

# Batch, length, peak rate, warm-up, updates: the values of the modelzoo's files.
PUBLISHED = {
  "base_sst2": (12, 72, 5e-5, 2000, 20000),
  "base_mnli": (12, 448, 5e-5, 10000, 100000),
  "large_sst2": (12, 72, 5e-6, 2000, 20000),
  "large_mnli": (12, 448, 5e-6, 10000, 100000),
}


def read(path, **form):
  experiment = config.Experiment(task=Classification())
  cerebras.apply(experiment, cerebras.Form(params=str(path), **form))
  return experiment


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_give_the_published_values(name):
  found = read(os.path.join(tiny.ROOT, "configs", "cerebras", f"params_bert_{name}.yaml"))
  optimizer, data, trainer = found.optimizer, found.data, found.trainer
  assert (
    trainer.train_batch_size,
    data.max_seq_length,
    optimizer.learning_rate,
    optimizer.warmup_steps,
    optimizer.train_steps,
  ) == PUBLISHED[name]
  assert (optimizer.decay_method, optimizer.weight_decay, optimizer.clip) == ("constant", 0.01, 1.0)
  assert found.model_keys["num_hidden_layers"] == (24 if "large" in name else 12)
  assert found.task.task_name == ("mnli" if "mnli" in name else "sst-2")
  assert found.task.num_classes == (3 if "mnli" in name else 2)


def test_modes_and_flags():
  path = os.path.join(tiny.ROOT, "configs", "cerebras", "params_bert_base_sst2.yaml")
  for mode, wanted in (
    ("train", (True, False, False, False)),
    ("train_and_eval", (True, True, False, False)),
    ("eval_all", (False, True, False, True)),
    ("predict", (False, False, True, False)),
  ):
    trainer = read(path, mode=mode).trainer
    assert (trainer.do_train, trainer.do_eval, trainer.do_predict, trainer.eval_all_ckpt) == wanted
  found = read(path, max_steps=7, eval_steps=3, checkpoint_path="x/model.ckpt")
  assert found.optimizer.train_steps == 7 and found.data.max_eval_examples == 36
  assert found.model.init_checkpoint == "x/model.ckpt"


@pytest.mark.parametrize(
  "text, message",
  [
    ("train_input: {batch_sise: 3}", "line 1: there is no setting train_input.batch_sise; did you"),
    ("train_input: {data_processor: CoLA}", "data_processor 'CoLA' is not one of Sst2DataProc"),
    ("train_input: {batch_size: 0}", "train_input.batch_size: 0 is below 1"),
    ("optimizer: {learning_rate: [{scheduler: Cosine}]}", "a Linear segment and a Constant one"),
    ("optimizer: {optimizer_type: lamb}", "optimizer_type 'lamb' is not supported"),
    ("model: {pretrain_params_path: no.yaml}", "no.yaml: cannot read this file"),
  ],
)
def test_bad_files_are_named(tmp_path, text, message):
  path = tmp_path / "params.yaml"
  path.write_text(text)
  with pytest.raises(UserError) as error:
    read(path)
  assert message in str(error.value)


def test_commands_run(tmp_path):
  """validate_only, then training and evaluation, as written in the modelzoo's page."""
  encoder = tiny.write_encoder(tmp_path / "bert", num_layers=1)
  os.makedirs(tmp_path / "SST-2")
  for split, count, seed in (("train", 40, 1), ("dev", 20, 2)):
    rows = "".join(f"{text}\t{label}\n" for text, label in tiny.sentences(count, seed))
    (tmp_path / "SST-2" / f"{split}.tsv").write_text("sentence\tlabel\n" + rows)
  data = {
    "data_processor": "Sst2DataProcessor",
    "data_dir": str(tmp_path / "SST-2"),
    "vocab_file": f"{encoder}/vocab.txt",
    "max_sequence_length": 16,
    "batch_size": 8,
  }
  rate = [
    {"scheduler": "Linear", "initial_learning_rate": 0.0, "end_learning_rate": 0.01, "steps": 2},
    {"scheduler": "Constant", "learning_rate": 0.01},
  ]
  values = {
    "train_input": data,
    "eval_input": data,
    "model": {"num_cls_classes": 2, "hidden_size": 16, "num_hidden_layers": 1},
    "optimizer": {"optimizer_type": "adamw", "learning_rate": rate},
    "runconfig": {"max_steps": 20, "save_checkpoints_steps": 10},
  }
  (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
  flags = [
    "--params",
    tmp_path / "params.yaml",
    f"--model_dir={tmp_path / 'run'}",
    f"--checkpoint_path={encoder}/bert_model.ckpt",
  ]
  out, _ = tiny.run("run_classifier.py", "--mode=train", *flags, "--validate_only")
  assert "Settings, files and graphs are valid" in out
  assert not os.path.exists(tmp_path / "run" / "bert_config.json")
  out, _ = tiny.run("run_classifier.py", "--mode=train_and_eval", *flags)
  assert "sst-2 dev: accuracy" in out
  values["model"]["hidden_size"] = 24
  (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
  _, err = tiny.run(
    "run_classifier.py", "--mode=train", *flags, "--validate_only", "--model_dir=x", status=1
  )
  assert "24" in err and "Traceback" not in err
