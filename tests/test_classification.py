"""Classification: raw data, bad input, features, metrics, predictions."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tiny

import config
import tokenization
from errors import UserError
from tasks import base, classification, classification_data, metrics
from tasks.settings import Classification


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  path.write_text("\n".join(tiny.VOCAB) + "\n")
  return tokenization.FullTokenizer(str(path))


def make_task(folder, name="tsv", **kwargs):
  raw = config.RawData(data_dir=str(folder), skip_bad_rows=kwargs.pop("skip_bad_rows", False))
  return tiny.make_task(Classification(task_name=name, **kwargs), raw)


def write(folder, name, text, encoding="utf-8"):
  os.makedirs(folder, exist_ok=True)
  with open(os.path.join(folder, name), "wb") as file:
    file.write(text.encode(encoding))


def rows(task, split="train"):
  return [dataclasses.astuple(example)[:3] for example in task.read_examples(split)]


# ---- Native layouts ---------------------------------------------------------------------------

NATIVE = {
  "cola": (
    "CoLA",
    "train.tsv",
    "gj04\t1\t\tA sentence.\ngj04\t0\t*\tB.\n",
    [("A sentence.", None, "1"), ("B.", None, "0")],
  ),
  "SST-2": ("SST-2", "train.tsv", "sentence\tlabel\nfine film\t1\n", [("fine film", None, "1")]),
  "mrpc": (
    "MRPC",
    "train.tsv",
    '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe "said\tShe\n',
    [('He "said', "She", "1")],
  ),
  "sts-b": (
    "STS-B",
    "train.tsv",
    "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\t"
    "score\n0\tx\tx\tx\tx\tx\tx\tA plane\tAn air plane\t5.000\n",
    [("A plane", "An air plane", 5.0)],
  ),
  "qqp": (
    "QQP",
    "train.tsv",
    "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWho?\tWhat?\t0\n",
    [("Who?", "What?", "0")],
  ),
  "mnli": (
    "MNLI",
    "train.tsv",
    "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label\n"
    "0\t1\tA\tB\tx\tneutral\n1\t1\tC\tD\tx\t-\n",
    [("A", "B", "neutral")],
  ),
  "qnli": (
    "QNLI",
    "train.tsv",
    "index\tquestion\tsentence\tlabel\n0\tQ\tS\tnot_entailment\n",
    [("Q", "S", "not_entailment")],
  ),
  "rte": (
    "RTE",
    "train.tsv",
    "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n",
    [("A", "B", "entailment")],
  ),
  "wnli": (
    "WNLI",
    "train.tsv",
    "index\tsentence1\tsentence2\tlabel\n0\tA\tB\t1\n",
    [("A", "B", "1")],
  ),
  "snli": (
    "SNLI",
    "snli_1.0_train.txt",
    "gold_label\tsentence1_parse\tsentence1\tsentence2\ncontradiction\t(x)\tA\tB\n-\t(x)\tC\tD\n",
    [("A", "B", "contradiction")],
  ),
}


@pytest.mark.parametrize("name", NATIVE)
def test_native_layouts_are_read(tmp_path, name):
  folder, file, text, expected = NATIVE[name]
  dataset = classification.DATASETS[classification_data.canonical_name(name)]
  assert dataset.folder.split("/")[-1] == folder
  write(tmp_path / dataset.folder, file, text)
  task = tiny.make_task(Classification(task_name=name), config.RawData(data_root=str(tmp_path)))
  assert rows(task) == expected


def test_data_sets_of_the_funnel_paper_are_read(tmp_path):
  for path, text in (
    ("train/neg/1_1.txt", "Bad.<br />Really"),
    ("train/pos/2_9.txt", "Good."),
    ("test/pos/3_9.txt", "Fine."),
  ):
    write((tmp_path / path).parent, os.path.basename(path), text)
  imdb = make_task(tmp_path, "imdb")
  assert rows(imdb) == [("Bad. Really", None, "neg"), ("Good.", None, "pos")]
  assert rows(imdb, "dev") == [("Fine.", None, "pos")]
  assert rows(imdb, "test") == [("Fine.", None, None)]
  write(tmp_path, "train.csv", '"3","Title","Body, with \\""quotes\\"" and\\nbreaks"\n"1","","B"\n')
  assert rows(make_task(tmp_path, "ag")) == [
    ('Title Body, with "quotes" and breaks', None, "3"),
    ("B", None, "1"),
  ]
  with pytest.raises(UserError, match="line 1: unknown label '3'; the labels are '1', '2'"):
    rows(make_task(tmp_path, "amazon2"))
  counts = {
    name: len(classification.DATASETS[name].labels)
    for name in ("imdb", "ag", "dbpedia", "yelp2", "yelp5", "amazon2", "amazon5")
  }
  assert list(counts.values()) == [2, 4, 14, 2, 5, 2, 5]


def test_test_files_have_no_labels(tmp_path):
  write(tmp_path, "test.tsv", "index\tsentence\n0\tOne.\n")
  assert rows(make_task(tmp_path, "cola"), "test") == [("One.", None, None)]
  write(tmp_path, "AX.tsv", "index\tsentence1\tsentence2\n0\tA\tB\n")
  ax = make_task(tmp_path, "diagnostic")
  assert rows(ax, "test") == [("A", "B", None)]
  assert ax.splits("train") == [] and ax.labels == classification.NLI_LABELS


def test_mnli_evaluates_matched_and_mismatched_at_once(tmp_path):
  task = make_task(tmp_path, "mnli")
  assert task.splits("dev") == ["dev_matched", "dev_mismatched"]
  assert make_task(tmp_path, "mnli_mismatched").splits("dev") == ["dev_mismatched"]
  assert make_task(tmp_path, "mnli_matched").splits("dev") == ["dev_matched"]
  joined = task.combine(
    {
      "dev_matched": {"accuracy": 0.8, "loss": 3.0},
      "dev_mismatched": {"accuracy": 0.6, "loss": 5.0},
    }
  )
  assert joined == {
    "accuracy_matched": 0.8,
    "loss_matched": 3.0,
    "accuracy_mismatched": 0.6,
    "loss_mismatched": 5.0,
    "score": pytest.approx(0.7),
  }


# ---- A user's own files -----------------------------------------------------------------------


def test_own_tsv_may_have_a_bom_windows_line_ends_and_empty_text(tmp_path):
  write(tmp_path, "train.tsv", "\ufefftext\tlabel\r\ngood \u2028 film\tpos\r\n\r\n\tneg\r\n")
  task = make_task(tmp_path)
  assert task.labels == ("neg", "pos")
  assert rows(task) == [("good \u2028 film", None, "pos"), ("", None, "neg")]


def test_own_csv_may_have_quotes_commas_and_line_breaks(tmp_path):
  write(tmp_path, "mine.csv", 'a,b,y\n"x, ""quoted""","two\nlines",2\nlast,row,10\n')
  task = make_task(
    tmp_path,
    "csv",
    train_file=str(tmp_path / "mine.csv"),
    text_a_col="a",
    text_b_col="b",
    label_col="y",
  )
  assert task.labels == ("2", "10"), "numeric labels sort as numbers"
  assert rows(task) == [('x, "quoted"', "two\nlines", "2"), ("last", "row", "10")]


def test_empty_texts_of_a_single_column_are_rows(tmp_path):
  """Without them the predictions would not match the lines of the file."""
  for name, text in (("tsv", "text\ngood\n\nbad\n\n"), ("csv", 'text\ngood\n""\nbad\n')):
    write(tmp_path, f"test.{name}", text)
    assert rows(make_task(tmp_path, name), "test") == [
      ("good", None, None),
      ("", None, None),
      ("bad", None, None),
    ]


def test_given_files_do_not_depend_on_data_dir_or_extension(tmp_path, monkeypatch):
  write(tmp_path, "train.tsv", "text\tlabel\na\t1\nb\t0\n")
  write(tmp_path, "comma.txt", "text,label\na,1\nb,0\n")
  monkeypatch.chdir(tmp_path)
  assert len(rows(make_task("/nowhere", train_file="train.tsv"))) == 2
  assert len(rows(make_task("/nowhere", "csv", train_file="comma.txt"))) == 2
  assert make_task("/nowhere", train_file="gs://bucket/a.tsv").dataset.files["train"] == (
    "gs://bucket/a.tsv",
  )


def test_own_files_may_have_no_header_json_lines_or_scores(tmp_path):
  write(tmp_path, "train.tsv", "1\tfine\n0\tdull\n")
  task = make_task(tmp_path, has_header=False, text_a_col="1", label_col="0")
  assert rows(task) == [("fine", None, "1"), ("dull", None, "0")]
  write(tmp_path, "train.jsonl", '{"text": "fine", "label": 1}\n{"text": "dull", "label": 0}\n')
  assert rows(make_task(tmp_path, "jsonl")) == [("fine", None, "1"), ("dull", None, "0")]
  write(tmp_path, "train.csv", "text,label\nfine,1.5\n")
  task = make_task(tmp_path, "csv", is_regression=True)
  assert rows(task) == [("fine", None, 1.5)]
  assert task.metadata() == {
    "processor_type": "CSV",
    "task_type": "bert_regression",
    "label_type": "float",
  }


# ---- Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "name, kwargs, text, message",
  [
    (
      "tsv",
      {},
      "text\tlabel\ngood\t1\nshort\nbad\t0\n",
      "train.tsv: line 3: 1 columns where at least 2 are needed",
    ),
    (
      "cola",
      {},
      "a\t1\t\tA.\na\t2\t\tB.\n",
      "train.tsv: line 2: unknown label '2'; the labels are '0', '1'",
    ),
    (
      "tsv",
      {"text_a_col": "body"},
      "text\tlabel\n",
      "no column 'body' in the header, which has 'text', 'label'",
    ),
    ("tsv", {}, "", "train.tsv: the file is empty"),
    ("tsv", {}, "text\tlabel\nx\t1\ny\t1\n", r"found the labels \['1'\]"),
    ("tsv", {"has_header": False}, "x\t1\n", "columns are numbers from 0, not 'text'"),
    ("jsonl", {}, '{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2: no key 'label'"),
    ("jsonl", {}, '{"text": \n', "line 1: not valid JSON"),
    ("jsonl", {}, "[1]\n", "line 1: not a JSON object but a list"),
    ("jsonl", {}, '{"text": "a", "label": null}\n', "line 1: the label is empty"),
    ("tsv", {}, "text\tlabel\na\t1\nb\t\n", "train.tsv: line 3: the label is empty"),
    ("csv", {"is_regression": True}, "text,label\na,nan\n", "line 2: the label 'nan' is not"),
    ("cola", {"train_file": "x.tsv"}, "", "--train_file: task cola has its own files"),
    ("sts-b", {}, "sentence1\tsentence2\tscore\na\tb\thigh\n", "label 'high' is not a number"),
    ("csv", {}, 'text,label\n"open,1\n', "train.csv: line 2"),
  ],
)
def test_bad_files_are_named_with_their_line(tmp_path, name, kwargs, text, message):
  write(tmp_path, f"train.{name if name in classification.FILE_TASKS else 'tsv'}", text)
  with pytest.raises(UserError, match=message):
    rows(make_task(tmp_path, name, **kwargs))


def test_bytes_that_are_not_utf8_are_reported(tmp_path):
  write(tmp_path, "train.tsv", "text\tlabel\nok\t1\ncaf\xe9\t0\n", "latin-1")
  with pytest.raises(UserError, match=r"train.tsv: line 3 is not UTF-8 \(byte 19 of the file\)"):
    rows(make_task(tmp_path))


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path, caplog):
  write(tmp_path, "train.tsv", "text\tlabel\ngood\t1\nshort\nbad\t0\n")
  assert len(rows(make_task(tmp_path, skip_bad_rows=True))) == 2
  assert "left out 1 rows" in caplog.text


def test_missing_files_and_tasks_say_how_to_get_them(tmp_path):
  with pytest.raises(UserError, match=r"train.tsv: no such file.*download_glue.sh CoLA"):
    rows(make_task(tmp_path, "cola"))
  with pytest.raises(UserError, match=r"dev.csv: no such file.*--eval_file"):
    rows(make_task(tmp_path, "csv"), "dev")
  with pytest.raises(UserError, match=r"task ax has no train data; it has test"):
    rows(make_task(tmp_path, "ax"))
  with pytest.raises(UserError, match=r"--task_name=colla is unknown; known are cola, sst-2"):
    make_task(tmp_path, "colla")


# ---- Features ---------------------------------------------------------------------------------


def test_features_follow_bert_for_texts_and_pairs(tmp_path, tokenizer):
  task = make_task(tmp_path, "mrpc")
  ids = lambda *tokens: tokenizer.convert_tokens_to_ids(tokens)
  features = task.featurize(classification.Example("good film", "bad story", "1"), tokenizer, 16)
  assert features == {
    "input_ids": ids("[CLS]", "good", "film", "[SEP]", "bad", "story", "[SEP]"),
    "input_mask": [1] * 7,
    "segment_ids": [0, 0, 0, 0, 1, 1, 1],
    "label_ids": 1,
    "is_real_example": 1,
  }
  features = task.featurize(classification.Example("a " * 9, "good film", None), tokenizer, 8)
  assert features["input_ids"] == ids("[CLS]", "a", "a", "a", "[SEP]", "good", "film", "[SEP]")
  for empty in ("", " ", "\u200b"):  # no token, no second segment, and room for one more token
    features = task.featurize(classification.Example("a " * 9, empty, None), tokenizer, 8)
    assert features["input_ids"] == ids("[CLS]", *["a"] * 6, "[SEP]")
    assert features["segment_ids"] == [0] * 8
  features = task.featurize(classification.Example("", "", None), tokenizer, 8)
  assert features["input_ids"] == ids("[CLS]", "[SEP]")
  features = task.featurize(classification.Example("", "good", None), tokenizer, 8)
  assert features["input_ids"] == ids("[CLS]", "[SEP]", "good", "[SEP]")
  single = make_task(tmp_path, "cola")
  features = single.featurize(classification.Example("the " * 20, None, "0"), tokenizer, 6)
  assert features["input_ids"] == ids("[CLS]", *["the"] * 4, "[SEP]")


def test_truncation_equals_popping_from_the_longer_text():
  rng = np.random.RandomState(0)
  for _ in range(300):
    a, b = list(range(rng.randint(0, 12))), list(range(rng.randint(0, 12)))
    limit = rng.randint(0, 15)
    popped_a, popped_b = list(a), list(b)
    while len(popped_a) + len(popped_b) > limit:
      (popped_a if len(popped_a) > len(popped_b) else popped_b).pop()
    assert base.truncate_pair(a, b, limit) == (popped_a, popped_b)


# ---- Metrics and outputs ------------------------------------------------------------------------


def test_metrics_equal_their_definitions():
  labels, guesses = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.array([1, 0, 1, 0, 1, 0, 0, 1])
  tp, fp, fn, tn = 3, 1, 1, 3
  values = metrics.compute(("accuracy", "f1", "matthews", "macro_f1"), labels, guesses)
  assert values["accuracy"] == pytest.approx(6 / 8)
  assert values["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
  assert values["matthews"] == pytest.approx(
    (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
  )
  assert values["macro_f1"] == pytest.approx((6 / 8 + 6 / 8) / 2)
  x, y = np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 3, 2, 5, 9])
  values = metrics.compute(("pearson", "spearman"), x, y)
  assert values["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])
  assert values["spearman"] == pytest.approx(1 - 6 * 2 / (5 * 24))
  assert metrics.compute(("pearson",), x, np.ones(5)) == {"pearson": 0.0}
  assert metrics.compute(("matthews",), labels, np.ones(8)) == {"matthews": 0.0}


def test_every_task_has_its_official_metrics():
  official = {name: dataset.metrics for name, dataset in classification.DATASETS.items()}
  assert official["cola"] == ("matthews",)
  assert official["mrpc"] == official["qqp"] == ("f1", "accuracy")
  assert official["sts-b"] == ("pearson", "spearman")
  assert {official[name] for name in ("sst-2", "mnli", "qnli", "rte", "wnli", "snli")} == {
    ("accuracy",)
  }


def test_predictions_give_scores_and_submissions(tmp_path):
  task = make_task(tmp_path, "qnli")
  predictions = {
    "probabilities": np.array([[0.9, 0.1], [0.25, 0.75], [0.6, 0.4]]),
    "label_ids": np.array([0, 1, 1]),
  }
  assert task.score("dev", predictions) == {"accuracy": pytest.approx(2 / 3)}
  assert list(task.prediction_rows(predictions)) == [
    ["index", "prediction", "probability_entailment", "probability_not_entailment"],
    ["0", "entailment", "0.9000", "0.1000"],
    ["1", "not_entailment", "0.2500", "0.7500"],
    ["2", "entailment", "0.6000", "0.4000"],
  ]
  assert list(task.submission_rows(predictions))[2] == ["1", "not_entailment"]
  stsb = make_task(tmp_path, "sts-b")
  assert list(stsb.submission_rows({"prediction": np.array([5.4, -0.2, 3.25])})) == [
    ["index", "prediction"],
    ["0", "5.000"],
    ["1", "0.000"],
    ["2", "3.250"],
  ]
  names = {
    name for dataset in classification.DATASETS.values() for name in dataset.submission.values()
  }
  assert names == {
    "CoLA.tsv",
    "SST-2.tsv",
    "MRPC.tsv",
    "STS-B.tsv",
    "QQP.tsv",
    "QNLI.tsv",
    "RTE.tsv",
    "WNLI.tsv",
    "MNLI-m.tsv",
    "MNLI-mm.tsv",
    "AX.tsv",
  }


def test_record_features_are_the_published_ones(tmp_path):
  specs = {spec.name: spec for spec in make_task(tmp_path, "cola").feature_specs}
  assert set(specs) == {
    "input_ids",
    "input_mask",
    "segment_ids",
    "label_ids",
    "is_real_example",
    "weight",
    "example_id",
  }
  assert specs["label_ids"] == base.FeatureSpec("label_ids")
  regression = {spec.name: spec for spec in make_task(tmp_path, "sts-b").feature_specs}
  assert regression["label_ids"].dtype == "float32"
  assert json.dumps(make_task(tmp_path, "mnli").metadata()) == json.dumps(
    {
      "processor_type": "MNLI",
      "task_type": "bert_classification",
      "num_labels": 3,
      "label_list": ["contradiction", "entailment", "neutral"],
    }
  )
