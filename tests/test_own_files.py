"""A user's own files: predictions identify their rows, and examples have weights."""

import json

import numpy as np
import pytest
import tiny

import config
import create_finetuning_data
import modeling
from errors import UserError
from tasks import classification
from tasks.settings import Classification
from training import runner


def make_task(folder, name="tsv", skip_bad_rows=False, **kwargs):
  raw = config.RawData(data_dir=str(folder), skip_bad_rows=skip_bad_rows)
  return tiny.make_task(Classification(task_name=name, **kwargs), raw)


# ---- Predictions --------------------------------------------------------------------------------


def predicted(task, count):
  """Columns index, line and id of the predictions of `count` rows."""
  task.labels = ("a", "b")
  values = {"probabilities": np.full([count, 2], 0.5)}
  rows = list(task.prediction_rows(values, task.read_origins("test", count)))
  assert rows[0][:4] == ["index", "prediction", "probability_a", "probability_b"]
  return [[row[0], *row[4:]] for row in rows]


def test_predictions_carry_line_and_id(tmp_path):
  (tmp_path / "test.tsv").write_text("key\ttext\nk1\tone\n\nk2\ttwo\nshort\nk3\tthree\n")
  task = make_task(tmp_path, skip_bad_rows=True, id_col="key")
  assert predicted(task, 3) == [
    ["index", "line", "id"],
    ["0", "2", "k1"],
    ["1", "4", "k2"],
    ["2", "6", "k3"],
  ]
  assert predicted(task, 2)[-1] == ["1", "4", "k2"], "with --max_eval_examples=2"
  assert predicted(make_task(tmp_path, skip_bad_rows=True), 3)[1:] == [
    ["0", "2"],
    ["1", "4"],
    ["2", "6"],
  ]
  with pytest.raises(UserError, match="test.tsv: line 5: 1 columns where at least 2 are needed"):
    predicted(make_task(tmp_path), 3)
  (tmp_path / "test.csv").write_text('text,key\n"two\nlines","a\nb"\nlast,c\n')
  assert predicted(make_task(tmp_path, "csv"), 2)[1:] == [["0", "2"], ["1", "5"]]
  with pytest.raises(UserError, match="test.csv: line 2: the id 'a.nb' has a tab or a line break"):
    predicted(make_task(tmp_path, "csv", id_col="key"), 2)
  (tmp_path / "test.jsonl").write_text('{"text": "x", "key": 1.0}\n\n{"text": "y", "key": "u"}\n')
  assert predicted(make_task(tmp_path, "jsonl", id_col="key"), 2)[1:] == [
    ["0", "1", "1"],
    ["1", "3", "u"],
  ]


@pytest.mark.parametrize("label", ["a\tb", "a\nb", "a\rb"])
def test_labels_that_predictions_cannot_represent_are_refused(tmp_path, label):
  for name, text in (
    ("csv", f'text,label\nx,y\nz,"{label}"\n'),
    (
      "jsonl",
      "".join(json.dumps({"text": "x", "label": value}) + "\n" for value in ("x", "y", label)),
    ),
  ):
    (tmp_path / f"train.{name}").write_bytes(text.encode())
    with pytest.raises(UserError, match=f"train.{name}: line 3: the label 'a.*b' has a tab or a"):
      assert make_task(tmp_path, name).labels


def test_other_files_need_no_ids(tmp_path):
  (tmp_path / "train.tsv").write_text("text\tlabel\na\t1\nb\t0\n")
  task = make_task(tmp_path, id_col="key")
  assert [example.label for example in task.read_examples("train")] == ["1", "0"]
  (tmp_path / "test.tsv").write_text("text\na\n")
  with pytest.raises(UserError, match="no column 'key' in the header"):
    list(task.read_examples("test"))
  with pytest.raises(UserError, match="--id_col: task cola has its own files"):
    make_task(tmp_path, "cola", id_col="key")
  with pytest.raises(UserError, match="columns are numbers from 0, not 'key'"):
    make_task(tmp_path, has_header=False, text_a_col="0", label_col="1", id_col="key")


def test_lines_of_predictions_are_those_of_the_original_file(tmp_path):
  """The file may change while the model trains."""
  file = tmp_path / "test.tsv"
  file.write_text("text\none\ntwo\n")
  task = make_task(tmp_path, predict_file=str(file))
  task.labels = ("a", "b")
  experiment = config.Experiment(task=Classification())
  experiment.trainer = config.Trainer(
    do_predict=True, model_dir=str(tmp_path / "run"), train_batch_size=2
  )
  experiment.data = config.Data(output_dir=str(tmp_path / "records"), max_seq_length=16)
  encoder = tiny.write_encoder(tmp_path / "encoder")
  experiment.model.model_config = f"{encoder}/bert_config.json"
  experiment.tokenizer.tokenizer_path = f"{encoder}/vocab.txt"
  run = runner.Runner(experiment, modeling.load_config(f"{encoder}/bert_config.json"), task)
  run.check_before_work()
  file.write_text("text\n")
  (source,) = run.sources.of("test")
  task.write_predictions(experiment.trainer, source.split, {"probabilities": np.full([2, 2], 0.5)})
  lines = (tmp_path / "run" / "predictions.test.tsv").read_text().splitlines()
  assert [line.split("\t")[4] for line in lines] == ["line", "2", "3"]


def test_records_contain_no_ids(monkeypatch):
  experiment = config.Experiment(task=Classification(task_name="tsv", id_col="key"))
  from_experiment = classification.ClassificationTask.from_experiment
  from_experiment(experiment, "bert")
  experiment.record_files.test_data_path = "test.tfrecord"
  with pytest.raises(UserError, match="--id_col: the records of --test_data_path hold no ids"):
    from_experiment(experiment, "bert")
  experiment.tokenizer.tokenizer_path = "v"
  settings = create_finetuning_data.Finetuning(meta_data_file_path="m", train_data_output_path="t")
  monkeypatch.setattr(create_finetuning_data.flags, "read", lambda *_: experiment)
  monkeypatch.setattr(create_finetuning_data.flags, "read_section", lambda _: (settings, set()))
  with pytest.raises(UserError, match="--id_col: records hold no ids"):
    create_finetuning_data.main()


def test_predictions_of_benchmarks_keep_their_form(tmp_path):
  (tmp_path / "test.tsv").write_text("index\tsentence\n0\tOne.\n")
  assert make_task(tmp_path, "cola").read_origins("test", 1) == []


# ---- Weights ------------------------------------------------------------------------------------


def weights(task, split="train"):
  return [example.weight for example in task.read_examples(split)]


def test_weights_are_read_from_a_column(tmp_path):
  (tmp_path / "train.tsv").write_text("text\tlabel\tw\na\tx\t0.5\nb\ty\t0\nc\ty\t1\n")
  (tmp_path / "dev.tsv").write_text("text\tlabel\na\tx\n")
  task = make_task(tmp_path, weight_col="w")
  assert weights(task) == [0.5, 0.0, 1.0]
  assert weights(task, "dev") == [1.0], "an evaluation file needs no weights"
  assert weights(make_task(tmp_path, weight_col="w", class_weights="y:3")) == [0.5, 0.0, 3.0]
  for bad in ("", "-1", "nan", "inf", "much", "1_0"):
    (tmp_path / "train.tsv").write_text(f"text\tlabel\tw\na\tx\t1\nb\ty\t{bad}\n")
    with pytest.raises(UserError, match=f"train.tsv: line 3: the weight is '{bad}'"):
      weights(task)
  (tmp_path / "train.jsonl").write_text(
    '{"text": "a", "label": "x", "w": 2}\n{"text": "b", "label": "y", "w": 0.25}\n'
  )
  assert weights(make_task(tmp_path, "jsonl", weight_col="w")) == [2.0, 0.25]


def test_weights_that_are_all_zero_are_refused(tmp_path):
  (tmp_path / "train.csv").write_text("text,label,w\na,x,0\nb,y,0.0\n")
  with pytest.raises(UserError, match="train.csv: the weight of each example is 0"):
    weights(make_task(tmp_path, "csv", weight_col="w"))
  with pytest.raises(UserError, match="train.csv: the weight of each example is 0"):
    weights(make_task(tmp_path, "csv", class_weights="x:0,y:0"))
  assert weights(make_task(tmp_path, "csv", class_weights="x:0")) == [0.0, 1.0]
  (tmp_path / "train.csv").write_text("text,label,w\n")
  task = make_task(tmp_path, "csv", weight_col="w")
  assert weights(task) == [], "an empty file has no weights"


def test_numbers_of_a_regression_have_no_underscores(tmp_path):
  (tmp_path / "train.csv").write_text("text,label\na,1e1\nb,1_0\n")
  with pytest.raises(UserError, match="train.csv: line 3: the label '1_0' is not a number"):
    list(make_task(tmp_path, "csv", is_regression=True).read_examples("train"))


def test_balanced_classes_have_the_same_total_weight(tmp_path):
  """n / (k * n_c), the formula of scikit-learn's class_weight="balanced"."""
  (tmp_path / "train.csv").write_text("text,label\n" + "a,x\n" * 6 + "b,y\n" * 2 + "c,z\n")
  found = weights(make_task(tmp_path, "csv", class_weights="balanced"))
  assert found == pytest.approx([9 / (3 * 6)] * 6 + [9 / (3 * 2)] * 2 + [9 / 3])
  assert sum(found) == pytest.approx(9)
  (tmp_path / "train.tsv").write_text("x\t1\t\tA.\n" * 3 + "x\t0\t\tB.\n")
  assert weights(make_task(tmp_path, "cola", class_weights="balanced"))[-1] == 2.0


def test_invalid_class_weights_are_refused(tmp_path):
  (tmp_path / "train.csv").write_text("text,label\na,x:1\nb,y\n")
  assert weights(make_task(tmp_path, "csv", class_weights="x:1:2, y:0.5")) == [2.0, 0.5]
  for given, message in (
    ("z:1", "'z:1' is no LABEL:WEIGHT with one of the labels 'x:1', 'y'"),
    ("y", "'y' is no LABEL:WEIGHT"),
    ("y:1,y:2", "'y:2' is no"),
    ("y:-1", "the weight of 'y' is '-1'; it must be a number from 0 on"),
  ):
    with pytest.raises(UserError, match=f"--class_weights: {message}"):
      weights(make_task(tmp_path, "csv", class_weights=given))
  with pytest.raises(UserError, match="--class_weights: task sts-b is a regression"):
    make_task(tmp_path, "sts-b", class_weights="balanced")
  with pytest.raises(UserError, match="--weight_col: task cola has its own files"):
    make_task(tmp_path, "cola", weight_col="w")


def test_records_of_other_weights_are_other_records(tmp_path):
  keys = [
    json.dumps(make_task(tmp_path, **kwargs).source_key(split))
    for split in ("train", "dev")
    for kwargs in ({}, {"weight_col": "w"}, {"class_weights": "balanced"})
  ]
  assert len(set(keys[:3])) == 3 and len(set(keys[3:])) == 1


def test_weighted_training_and_predictions_end_to_end(tmp_path):
  """Examples of weight 0 have no effect: half of the labels are wrong, but the model learns."""
  tiny.write_encoder(tmp_path / "encoder")
  with open(tmp_path / "train.csv", "w") as train:
    train.write("text,label,w\n")
    for number, (text, label) in enumerate(tiny.sentences(192, 1)):
      train.write(f"{text},{label if number % 2 else 1 - int(label)},{number % 2}\n")
  truth = [label for _, label in tiny.sentences(12, 3)]
  with open(tmp_path / "test.csv", "w") as test:
    test.write("key,text\n")
    test.writelines(f"k{i},{text}\n\n" for i, (text, _) in enumerate(tiny.sentences(12, 3)))
  flags = [
    "--task_name=csv",
    f"--pretrained={tmp_path / 'encoder'}",
    f"--data_dir={tmp_path}",
    f"--output_dir={tmp_path / 'run'}",
    "--max_seq_length=24",
    "--weight_col=w",
  ]
  tiny.run(
    "run_classifier.py",
    "--do_train",
    "--do_predict",
    "--id_col=key",
    *flags,
    "--class_weights=balanced",
    "--train_batch_size=16",
    "--learning_rate=2e-3",
    "--num_train_epochs=6",
  )
  rows = [
    line.split("\t")
    for line in (tmp_path / "run" / "predictions.test.tsv").read_text().splitlines()
  ]
  assert rows[0] == ["index", "prediction", "probability_0", "probability_1", "line", "id"]
  assert [row[4:] for row in rows[1:]] == [[str(2 + 2 * i), f"k{i}"] for i in range(12)]
  assert sum(row[1] == label for row, label in zip(rows[1:], truth, strict=True)) >= 10
  (tmp_path / "meta").write_text("{}")
  (record,) = (tmp_path / "run").glob("csv.len-24.train.*.tfrecord")
  _, err = tiny.run(
    "run_classifier.py",
    "--do_train",
    *flags,
    f"--train_data_path={record}",
    f"--input_meta_data_path={tmp_path / 'meta'}",
    status=1,
  )
  assert "--weight_col: the records of --train_data_path have weights already" in err
