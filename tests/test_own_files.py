"""A user's own files end to end: predictions lead back to rows, and examples have weights."""


import numpy as np
import pytest

from errors import UserError
from tasks import classification
from training import config


def make_task(folder, name="tsv", skip_bad_rows=False, **kwargs):
  raw = config.RawData(data_dir=str(folder), skip_bad_rows=skip_bad_rows)
  return classification.make_task(config.Classification(task_name=name, **kwargs), raw)


# ---- Predictions --------------------------------------------------------------------------------


def predicted(task, count):
  """Columns index, line and id of the predictions of `count` rows."""
  task.labels = ("a", "b")
  values = {"probabilities": np.full([count, 2], 0.5)}
  rows = list(task.prediction_rows(values, task.origins("test", count)))
  assert rows[0][:4] == ["index", "prediction", "probability_a", "probability_b"]
  return [[row[0], *row[4:]] for row in rows]


def test_predictions_carry_line_and_id(tmp_path):
  (tmp_path / "test.tsv").write_text("key\ttext\nk1\tone\n\nk2\ttwo\nshort\nk3\tthree\n")
  task = make_task(tmp_path, skip_bad_rows=True, id_col="key")
  assert predicted(task, 3) == [["index", "line", "id"], ["0", "2", "k1"], ["1", "4", "k2"],
                                ["2", "6", "k3"]]
  assert predicted(task, 2)[-1] == ["1", "4", "k2"], "with --max_eval_examples=2"
  assert predicted(make_task(tmp_path, skip_bad_rows=True), 3)[1:] == [
      ["0", "2"], ["1", "4"], ["2", "6"]]
  with pytest.raises(UserError, match="test.tsv: line 5: 1 columns where at least 2 are needed"):
    predicted(make_task(tmp_path), 3)
  (tmp_path / "test.csv").write_text('text,key\n"two\nlines","a\nb"\nlast,c\n')
  assert predicted(make_task(tmp_path, "csv"), 2)[1:] == [["0", "2"], ["1", "5"]]
  with pytest.raises(UserError, match="test.csv: line 2: the id 'a.nb' has a tab or a line break"):
    predicted(make_task(tmp_path, "csv", id_col="key"), 2)
  (tmp_path / "test.jsonl").write_text('{"text": "x", "key": 1.0}\n\n{"text": "y", "key": "u"}\n')
  assert predicted(make_task(tmp_path, "jsonl", id_col="key"), 2)[1:] == [
      ["0", "1", "1"], ["1", "3", "u"]]


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


def test_predictions_of_benchmarks_keep_their_form(tmp_path):
  (tmp_path / "test.tsv").write_text("index\tsentence\n0\tOne.\n")
  assert make_task(tmp_path, "cola").origins("test", 1) == []
