"""Each file of configs/ resolves, and passes --validate_only."""

import glob
import json
import os
import sys

import pytest
import tiny

import config
from errors import UserError
from tasks.settings import Classification
from training import cerebras, driver, jobs

CONFIGS = os.path.join(tiny.ROOT, "configs")
TINY_KEYS = {
  "vocab_size": len(tiny.VOCAB),
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 32,
  "max_position_embeddings": 32,
}


def experiment_of_file(path):
  name = os.path.basename(path)
  if name.startswith("squad"):
    return "bert/squad"
  return "bert/pretraining" if "pretrain" in name else "bert/sentence_prediction"


@pytest.mark.parametrize(
  "path",
  sorted(
    path
    for pattern in ("glue_*", "squad_*", "wiki_*")
    for path in glob.glob(os.path.join(CONFIGS, "experiments", pattern))
  ),
  ids=os.path.basename,
)
def test_experiment_files_validate(path, tmp_path, capsys):
  """On a tiny encoder; the files' own numbers are resolved before."""
  name = experiment_of_file(path)
  model = os.path.join(CONFIGS, "models", "bert_en_uncased_base.yaml")
  found = driver.resolve(name, [model, path])
  assert found.model_keys["num_hidden_layers"] == 12 and found.optimizer.learning_rate > 0
  if name == "bert/pretraining":
    assert (found.task.loss_type, found.task.max_predictions_per_seq) == ("bert", 76)
    return  # records are needed: see the commands below
  override = {
    "model": {"init_checkpoint": "none", "keys": TINY_KEYS},
    "data": {"synthetic_data": True, "max_seq_length": 16},
    "task": {"max_query_length": 4} if "squad" in name else {},
    "runtime": {"validate_only": True},
    "trainer": {"train_batch_size": 4},
  }
  driver.run(name, "train", str(tmp_path / "run"), [path], json.dumps(override))
  assert "Settings, files and graphs are valid" in capsys.readouterr().out


def test_synthetic_questions_are_not_evaluated(tmp_path):
  override = json.dumps(
    {
      "model": {"init_checkpoint": "none", "keys": TINY_KEYS},
      "data": {"synthetic_data": True, "max_seq_length": 16},
      "task": {"max_query_length": 4},
      "optimizer": {"train_steps": 1},
    }
  )
  with pytest.raises(UserError, match="--synthetic_data has no texts, which this task evaluates"):
    driver.run("bert/squad", "train_and_eval", str(tmp_path), params_override=override)


@pytest.mark.parametrize(
  "path", sorted(glob.glob(os.path.join(CONFIGS, "models", "*.yaml"))), ids=os.path.basename
)
def test_model_files_give_configurations(path, monkeypatch):
  from training import model_folder

  monkeypatch.chdir(tiny.ROOT)
  family = "funnel" if "funnel" in path else "bert"
  found = driver.resolve(f"{family}/sentence_prediction", [path])
  assert model_folder.find_model_config(found).family == family


def test_configuration_page_is_current():
  sys.path.insert(0, os.path.join(tiny.ROOT, "scripts"))
  import write_configuration

  with open(os.path.join(tiny.ROOT, "docs", "configuration.md"), encoding="utf-8") as reader:
    assert reader.read() == write_configuration.page(), "run scripts/write_configuration.py"


# ---- At their own sizes -------------------------------------------------------------------------

VALIDATED = "Settings, files and graphs are valid"


@pytest.mark.slow
@pytest.mark.parametrize(
  "path", sorted(glob.glob(os.path.join(CONFIGS, "models", "*.yaml"))), ids=os.path.basename
)
def test_models_build_at_their_own_size(path, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tiny.ROOT)
  family = "funnel" if "funnel" in path else "bert"
  override = "model.init_checkpoint=none,data.synthetic_data=true,runtime.validate_only=true"
  driver.run(
    f"{family}/sentence_prediction",
    "train_and_eval",
    str(tmp_path / "run"),
    [path],
    f"{override},task.task_name=mnli,data.max_seq_length=128",
  )
  assert VALIDATED in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base_sst2", "base_mnli", "large_sst2", "large_mnli"])
def test_files_of_cerebras_validate(name, tmp_path, capsys, monkeypatch):
  """In a folder with a vocabulary of the released size, where the files name it."""
  words = [*tiny.VOCAB, *(f"w{index}" for index in range(30522 - len(tiny.VOCAB)))]
  (tmp_path / "pretrained").mkdir()
  (tmp_path / "pretrained" / "vocab.txt").write_text("\n".join(words) + "\n")
  monkeypatch.chdir(tmp_path)
  experiment = config.Experiment(task=Classification())
  form = cerebras.Form(
    params=os.path.join(CONFIGS, "cerebras", f"params_bert_{name}.yaml"), mode="train_and_eval"
  )
  cerebras.apply(experiment, form)
  for setting, value in (
    ("synthetic_data", True),
    ("validate_only", True),
    ("init_checkpoint", "none"),
    ("model_dir", str(tmp_path / "run")),
  ):
    experiment.set(setting, value, "test")
  jobs.run(experiment)
  assert VALIDATED in capsys.readouterr().out
