"""Data of TensorFlow Datasets: --tfds_params, Model Garden's and Cerebras' keys."""

import json
import os
import sys

import pytest
import tiny
import yaml

import config
from errors import UserError
from tasks import tfds_source
from tasks.settings import Classification
from training import cerebras, driver

tfds = pytest.importorskip("tensorflow_datasets")

MNLI = [("the film is good", "it is good", "entailment"), ("a story", "a film", "neutral")] * 8
MNLI += [("it was bad", "it was great", "contradiction")] * 4
SST2 = list(tiny.sentences(24, 1))

# A data set of a user's own, in a module that --tfds_params names.
MODULE = """
import numpy as np
import tensorflow_datasets as tfds

class TinyReviews(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "review": tfds.features.Text(), "stars": np.float32, "weight": np.float32,
      "verdict": tfds.features.ClassLabel(names=["yes", "no", "maybe"]),
    }))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(9), "held_out": self._generate_examples(3)}

  def _generate_examples(self, count):
    for i in range(count):
      yield i, {"review": f"film {i}", "stars": i / 2, "weight": 1.0 + i, "verdict": i % 3}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder of TensorFlow Datasets: glue/mnli and glue/sst2, with tiny contents."""
  path = str(tmp_path_factory.mktemp("tfds"))
  for name, splits in (
    ("glue/mnli", ("train", "validation_matched", "validation_mismatched", "test_matched")),
    ("glue/sst2", ("train", "validation", "test")),
  ):
    builder = tfds.builder(name, data_dir=path)

    def generate(split, name=name):
      label = {"label": -1} if split.startswith("test") else {}
      if name == "glue/mnli":
        for i, (premise, hypothesis, answer) in enumerate(MNLI):
          row = {"premise": premise, "hypothesis": hypothesis, "label": answer, "idx": i}
          yield i, {**row, **label}
      else:
        for i, (sentence, answer) in enumerate(SST2):
          yield i, {"sentence": sentence, "label": int(answer), "idx": i, **label}

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(
        type(builder),
        "_split_generators",
        lambda self, dl_manager, splits=splits, generate=generate: {
          split: generate(split) for split in splits
        },
      )
      builder.download_and_prepare()
  return path


def make_task(**settings):
  return tiny.make_task(Classification(**settings))


def task_of(params, **settings):
  experiment = config.Experiment(task=Classification(tfds_params=params, **settings))
  task_class = type(make_task(task_name="cola"))
  experiment.task.task_name = task_class.canonical_name(experiment.task)
  return task_class.from_experiment(experiment, "bert")


def test_mnli_has_premise_first_and_the_labels_of_bert(folder):
  """TensorFlow Datasets numbers entailment 0, neutral 1; the classifier contradiction 0."""
  task = task_of(f"dataset=glue/mnli,data_dir={folder}")
  assert task.name == "mnli" and task.labels == ("contradiction", "entailment", "neutral")
  assert list(task.dataset.files) == ["train", "dev_matched", "dev_mismatched", "test_matched"]
  for split in ("train", "dev_matched"):
    found = [(one.text_a, one.text_b, one.label) for one in task.read_examples(split)]
    assert sorted(found) == sorted(MNLI)
  tests = list(task.read_examples("test_matched"))
  assert len(tests) == len(MNLI) and {one.label for one in tests} == {None}


def test_labels_without_a_common_name_keep_their_ids(folder):
  task = task_of(f"dataset=glue/sst2:2.0.0,data_dir={folder},train_split=train[:50%]")
  assert task.name == "sst-2" and set(task.dataset.files) == {"train", "dev", "test"}
  found = [(one.text_a, one.label) for one in task.read_examples("dev")]
  assert sorted(found) == sorted(SST2)
  assert len(list(task.read_examples("train"))) == len(SST2) // 2


def test_keys_choose_texts_and_splits(folder):
  """Model Garden's own order of the texts, on request."""
  task = task_of(
    f"dataset=glue/mnli,data_dir={folder},text_key=hypothesis,text_b_key=premise,"
    f"dev_split=validation_mismatched,test_split=train,skip_label=1"
  )
  assert set(task.dataset.files) == {"train", "dev_mismatched", "test"}
  examples = list(task.read_examples("dev_mismatched"))
  assert {one.label for one in examples} == {"entailment", "contradiction"}  # 1 is neutral
  assert ("it is good", "the film is good") in {(one.text_a, one.text_b) for one in examples}


def test_own_data_set_of_a_module(tmp_path, monkeypatch):
  (tmp_path / "tiny_reviews").mkdir()
  (tmp_path / "tiny_reviews" / "__init__.py").write_text(MODULE)
  monkeypatch.syspath_prepend(tmp_path)
  where = f"dataset=tiny_reviews,module_import=tiny_reviews,data_dir={tmp_path}/data"
  params = f"{where},text_key=review,dev_split=held_out"
  task = task_of(f"{params},label_key=verdict,weight_key=weight")
  assert task.name == "tfds" and task.labels == ("yes", "no", "maybe")
  assert len(list(task.read_examples("dev"))) == 3
  found = {(one.text_a, one.label, one.weight) for one in task.read_examples("train")}
  assert found == {(f"film {i}", ("yes", "no", "maybe")[i % 3], 1.0 + i) for i in range(9)}
  stars = task_of(f"{params},label_key=stars,is_regression=true")
  assert stars.labels is None
  assert sorted(one.label for one in stars.read_examples("dev")) == [0.0, 0.5, 1.0]
  for extra, message in (
    ("label_key=stars", "label_key=stars has numbers in tiny_reviews/1.0.0; set is_regr"),
    ("label_key=grade", "has no feature 'grade'; it has"),
    ("label_key=verdict,train_split=every", "has no split 'every'; it has"),
  ):
    with pytest.raises(UserError, match=message):
      list(task_of(f"{params},{extra}").read_examples("train"))


@pytest.mark.parametrize(
  "params, message",
  [
    ("dataset=no_such_data", "dataset=no_such_data: Dataset no_such_data not found"),
    ("dataset=glue/no", "BuilderConfig no not found"),
    ("text_key=a", "dataset is missing"),
    ("dataset=glue/cola,text=a", "'text=a' is no KEY=VALUE with one of dataset, data_dir"),
    ("dataset=glue/cola,label_type=str", "label_type=str is none of int, float"),
    ("dataset=glue/cola,module_import=no.such", "module_import: No module named 'no'"),
  ],
)
def test_bad_values_are_named(params, message, tmp_path):
  with pytest.raises(UserError) as error:
    task_of(f"{params},data_dir={tmp_path}")
  assert message in str(error.value)


def test_missing_data_and_library_are_named(tmp_path, monkeypatch):
  source = tfds_source.TfdsSource(tfds_source.parse("dataset=glue/rte"), str(tmp_path))
  monkeypatch.setattr(
    type(source._builder),
    "download_and_prepare",
    lambda self: (_ for _ in ()).throw(OSError("off")),
  )
  with pytest.raises(UserError, match=r"glue/rte/2.* is not in .* and cannot be prepared \(OSEr"):
    source.files("train")
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(UserError, match="pip install -r requirements-tfds.txt"):
    task_of("dataset=glue/cola")


def test_programs_run(folder, tmp_path):
  """run_classifier.py trains on it; create_finetuning_data.py writes records with label names."""
  encoder = tiny.write_encoder(tmp_path / "bert", num_layers=1)
  params = f"--tfds_params=dataset=glue/mnli,data_dir={folder}"
  out, _ = tiny.run(
    "run_classifier.py",
    params,
    f"--init_checkpoint={encoder}",
    f"--model_dir={tmp_path / 'run'}",
    *("--do_train", "--do_eval", "--do_predict", "--max_seq_length=24", "--train_steps=2"),
  )
  assert "mnli dev: accuracy_matched " in out and "accuracy_mismatched" in out
  lines = (tmp_path / "run" / "predictions.test_matched.tsv").read_text().splitlines()
  assert len(lines) == 1 + len(MNLI)
  tiny.run(
    "create_finetuning_data.py",
    params,
    f"--vocab_file={encoder}/vocab.txt",
    f"--train_data_output_path={tmp_path}/train.tf_record",
    f"--meta_data_file_path={tmp_path}/meta.json",
    "--max_seq_length=24",
  )
  meta = json.loads((tmp_path / "meta.json").read_text())
  assert meta["label_list"] == ["contradiction", "entailment", "neutral"]
  assert meta["train_data_size"] == len(MNLI)


def test_keys_of_model_garden(folder, tmp_path):
  """glue_mnli_text.yaml reads the data while training."""
  path = os.path.join(tiny.ROOT, "configs", "experiments", "glue_mnli_text.yaml")
  experiment = driver.resolve("bert/sentence_prediction", [path])
  params = tfds_source.parse(experiment.task.tfds_params)
  assert (params.dataset, params.train_split) == ("glue/mnli", "train")
  assert (params.dev_split, params.text_key) == ("validation_matched", "premise")
  assert (params.text_b_key, params.label_key) == ("hypothesis", "label")
  assert experiment.optimizer.train_steps == 36813 and experiment.trainer.train_batch_size == 32
  assert task_of(experiment.task.tfds_params + f",data_dir={folder}").splits("dev") == [
    "dev_matched"
  ]
  override = "task.train_data.tfds_name=snli,task.validation_data.tfds_split=validation"
  other = driver.resolve("bert/sentence_prediction", [path], params_override=override)
  params = tfds_source.parse(other.task.tfds_params)
  assert (params.dataset, params.dev_split) == ("snli", "validation")


def test_folder_of_cerebras(folder, tmp_path):
  data = {"data_processor": "Sst2DataProcessor", "data_dir": folder}
  (tmp_path / "params.yaml").write_text(yaml.safe_dump({"train_input": data}))
  experiment = config.Experiment(task=Classification())
  cerebras.apply(experiment, cerebras.Form(params=str(tmp_path / "params.yaml")))
  assert experiment.task.tfds_params == "dataset=glue/sst2"
  task = type(make_task(task_name="cola")).from_experiment(experiment, "bert")
  assert sorted((one.text_a, one.label) for one in task.read_examples("train")) == sorted(SST2)
