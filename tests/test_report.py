"""scripts/report.py on the folders of tiny runs: figures, escaping, folders that are damaged."""

import csv
import html.parser
import json
import re
import shutil

import numpy as np
import pytest
import tiny
import tiny_pretraining_task
import tiny_race
import tiny_squad
from sklearn import metrics

from errors import UserError
from scripts import report
from tasks import squad_metrics
from training import charts, driver, evaluator, report_examples

records = tiny_pretraining_task.records
SCRIPT = "<script>alert(1)</script>"
NASTY = f"{SCRIPT} \"><img src=x onerror=alert(2)> & 'quoted'"
VOID = {"meta", "br", "img", "link"}


class Page(html.parser.HTMLParser):
  """Tables (caption -> rows of cell texts), sections (id -> text) and elements of a page."""

  def __init__(self, text):
    super().__init__()
    self.tables, self.sections, self.tags, self.attributes = {}, {}, [], []
    self._open, self._section, self._rows, self._caption = [], "", None, None
    self.feed(text)
    self.close()
    assert not self._open, f"not closed: {self._open}"

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag not in VOID:
      self._open.append(tag)
    if "id" in dict(attrs):
      self._section = dict(attrs)["id"]
    if tag == "table":
      self._rows, self._caption = [], ""
    elif tag == "tr":
      self._rows.append([])
    elif tag in ("td", "th"):
      self._rows[-1].append("")

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self._open.pop() == tag
    if tag == "table":
      self.tables.setdefault(self._caption or self._section, self._rows)

  def handle_data(self, data):
    self.sections[self._section] = self.sections.get(self._section, "") + data
    if "caption" in self._open[-1:]:
      self._caption += data
    if {"td", "th"} & set(self._open):
      self._rows[-1][-1] += data


def write_reviews(path, count, seed):
  """CSV with markup in texts and labels; labels are in turn SCRIPT, "good & fine", "other"."""
  with open(path, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["text", "label"])
    for index, (text, label) in enumerate(tiny.sentences(count, seed)):
      label = "other" if index % 5 == 0 else (SCRIPT, "good & fine")[int(label)]
      writer.writerow([f"{text} {NASTY}" if index % 2 else text, label])
  return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
  return tiny.write_encoder(tmp_path_factory.mktemp("bert"), num_layers=1, max_positions=64)


def run(experiment, encoder, folder, **settings):
  """Trains and evaluates in this process; returns model_dir."""
  values = dict(
    pretrained=encoder,
    output_dir=str(folder / "records"),
    do_train=True,
    train_batch_size=8,
    log_freq=4,
    learning_rate=2e-3,
    max_seq_length=24,
    train_steps=16,
    eval_every_steps=0,
  )
  model_dir = folder / "run"
  driver.run(experiment, "train_and_eval", str(model_dir), setting_flags={**values, **settings})
  return model_dir


@pytest.fixture(scope="module")
def classified(tmp_path_factory, encoder):
  folder = tmp_path_factory.mktemp("classified")
  return run(
    "bert/sentence_prediction",
    encoder,
    folder,
    task_name="csv",
    train_file=str(write_reviews(folder / "train.csv", 64, 1)),
    eval_file=str(write_reviews(folder / "dev.csv", 40, 2)),
    text_a_col="text",
    label_col="label",
    eval_every_steps=8,
  )


@pytest.fixture(scope="module")
def squad(tmp_path_factory, encoder):
  folder = tmp_path_factory.mktemp("squad")
  return run(
    "bert/squad",
    encoder,
    folder,
    train_file=tiny_squad.write(folder / "train-v2.0.json", 40, 1, unanswerable=True),
    predict_file=tiny_squad.write(folder / "dev-v2.0.json", 15, 2, unanswerable=True),
    max_seq_length=20,
    doc_stride=6,
  )


@pytest.fixture(scope="module")
def race(tmp_path_factory, encoder):
  folder = tmp_path_factory.mktemp("race")
  data = tiny_race.write_race(folder / "RACE", (("train", 4), ("dev", 6)))
  settings = dict(train_steps=4, log_freq=1, learning_rate=1e-9)
  return run("bert/race", encoder, folder, data_dir=data, max_qa_length=8, **settings)


def read_json(path):
  return json.loads(path.read_text())


def examples_of(model_dir):
  lines = (model_dir / evaluator.EXAMPLES_NAME).read_text().splitlines()
  return [json.loads(line) for line in lines]


def scores_of(page):
  return {row[0]: row[1] for row in page.tables["Scores"][1:]}


def check_scores(page, model_dir):
  """The table of scores, and the folder's eval_results.json, are equal."""
  results = read_json(model_dir / "eval_results.json")
  shown = scores_of(page)
  assert "score" in shown and "loss" in shown
  for name, text in shown.items():
    assert text == f"{results[name]:.4f}"
  assert "loss" in page.sections["curves"]


def check_is_self_contained(text, page):
  assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
  links = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action")]
  assert not links and not re.search(r"url\(|@import|https?:", text)
  assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_classification_page_has_the_figures_of_the_evaluation(classified):
  text = report.render(str(classified))
  page = Page(text)
  check_scores(page, classified)
  check_is_self_contained(text, page)
  rows = examples_of(classified)
  golds, guesses = ([row[name] for row in rows] for name in ("label", "prediction"))
  with open(classified.parent / "dev.csv") as file:
    raw = list(csv.DictReader(file))
  assert golds == [row["label"] for row in raw]
  results = read_json(classified / "eval_results.json")
  assert metrics.accuracy_score(golds, guesses) == pytest.approx(results["accuracy"])
  header, *cells = next(
    values for title, values in page.tables.items() if title.startswith("Confusion matrix")
  )
  labels = header[1:]
  assert sorted(labels) == sorted(set(golds))
  expected = metrics.confusion_matrix(golds, guesses, labels=labels)
  np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in cells], expected)
  assert [row[0] for row in cells] == labels
  median = dict(row[:2] for row in page.tables["Throughput of training"][1:])["examples/s"]
  logged = [json.loads(line) for line in (classified / "metrics.jsonl").read_text().splitlines()]
  speeds = [line["examples_per_second"] for line in logged if "examples_per_second" in line]
  assert median == f"{np.median(speeds):,.1f}"


def test_markup_in_labels_and_texts_is_shown_as_text(classified):
  text = report.render(str(classified))
  page = Page(text)
  assert SCRIPT not in text and "<img" not in text
  assert NASTY in page.sections["mistakes"] and SCRIPT in page.sections["mistakes"]
  assert "Missing" not in page.sections


def test_worst_mistakes_are_the_wrong_examples_of_highest_probability(classified):
  wrong = [row for row in examples_of(classified) if row["label"] != row["prediction"]]
  page = Page(report.render(str(classified)))
  shown = re.findall(r"probability ([\d.]+)%", page.sections["mistakes"])
  highest = sorted((row["probability"] for row in wrong), reverse=True)
  assert shown == [f"{100 * value:.1f}" for value in highest[: report_examples.MAX_MISTAKES]]


def test_squad_page_has_the_official_scores_by_length(squad):
  page = Page(report.render(str(squad)))
  check_scores(page, squad)
  golds = tiny_squad.golds(squad.parent / "dev-v2.0.json")
  answers = {row["id"]: row["prediction"] for row in examples_of(squad)}
  assert answers.keys() == golds.keys()
  header, *rows = page.tables["Scores by length of the answer"]
  assert header == ["words", "questions", "exact match", "F1"]
  names = {0: "no answer", 1: "1", 2: "2"}
  for length, name in names.items():
    group = {k: v for k, v in golds.items() if (len(v[0].split()) if v else 0) == length}
    if group:
      found = squad_metrics.evaluate(answers, group, True, dict.fromkeys(group, 0.0))
      expected = [f"{len(group)}", f"{found['exact_match']:.2f}", f"{found['f1']:.2f}"]
      assert [name, *expected] in rows
  assert sum(int(row[1]) for row in rows) == len(golds)
  assert sum(int(row[1]) for row in page.tables["Scores by length of the passage"][1:]) == len(
    golds
  )
  assert "The film was?" in page.sections["mistakes"]


def test_race_page_has_the_accuracy_by_kind(race):
  page = Page(report.render(str(race)))
  check_scores(page, race)
  results = read_json(race / "eval_results.json")
  rows = page.tables["Accuracy by kind of question"][1:]
  for level in ("middle", "high"):
    group = [row for row in rows if row[0].endswith(f"{level} school")]
    right = sum(round(int(count) * float(accuracy)) for _, count, accuracy in group)
    total = sum(int(count) for _, count, _ in group)
    assert right / total == pytest.approx(results[f"accuracy_{level}"])
  assert "the film is _ ." in page.sections["mistakes"] and "A. " in page.sections["mistakes"]


def test_pretraining_page_has_curves_and_no_examples(records, tmp_path):
  settings = dict(max_predictions_per_seq=4, train_steps=6, warmup_steps=2)
  run(
    "bert/pretraining",
    "",
    tmp_path,
    model_config=f"{records}/bert/bert_config.json",
    input_file=f"{records}/bert.tfrecord-*",
    log_freq=2,
    **settings,
  )
  page = Page(report.render(str(tmp_path / "run")))
  check_scores(page, tmp_path / "run")
  assert {"masked_lm_accuracy", "loss_mlm", "loss_nsp"} <= set(scores_of(page))
  assert "learning_rate" in page.sections["curves"]
  assert "mistakes" not in page.sections and "missing" not in page.sections


@pytest.mark.parametrize(
  "name, message",
  [
    ("params.yaml", "no settings"),
    ("metrics.jsonl", "no curves"),
    ("eval_results.json", "no scores"),
    ("eval_predictions.jsonl", "no mistakes"),
  ],
)
@pytest.mark.parametrize("damage", [False, True])
def test_page_lists_what_is_missing_or_damaged(classified, tmp_path, name, message, damage):
  folder = tmp_path / "run"
  shutil.copytree(classified, folder, ignore=shutil.ignore_patterns("*ckpt*", "events*"))
  (folder / name).unlink()
  if damage:
    (folder / name).write_bytes(b'{"step": [1, 2\n\xff\x00 <b>')
    message = "no curves" if name == "metrics.jsonl" else name
  page = Page(report.render(str(folder)))
  assert message in page.sections["missing"]
  assert len(page.sections) >= 4, "the rest is shown"


def test_texts_of_other_data_are_not_shown(classified, tmp_path):
  folder, data = tmp_path / "run", tmp_path / "dev.csv"
  shutil.copytree(classified, folder, ignore=shutil.ignore_patterns("*ckpt*", "events*"))
  settings = (folder / "params.yaml").read_text()
  (folder / "params.yaml").write_text(
    settings.replace(str(classified.parent / "dev.csv"), str(data))
  )
  page = Page(report.render(str(folder)))
  assert f"{data}: no such file" in page.sections["missing"]
  write_reviews(data, 40, 3)
  page = Page(report.render(str(folder)))
  assert "not the examples that were evaluated" in page.sections["missing"]
  assert NASTY not in page.sections["mistakes"] and "good & fine" in page.sections["mistakes"]


def test_folders_that_are_no_runs_are_refused(tmp_path, capsys):
  with pytest.raises(UserError, match="no such folder"):
    report.render(str(tmp_path / "none"))
  (tmp_path / "notes.txt").write_text("x")
  with pytest.raises(UserError, match="no folder of a run"):
    report.render(str(tmp_path))
  with pytest.raises(SystemExit, match="report.py: error: .*no folder of a run"):
    report.main([str(tmp_path)])
  with pytest.raises(SystemExit, match="must end with .html"):
    report.main([str(tmp_path), "--output=params.yaml"])
  assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_script_writes_the_page(race, tmp_path, capsys):
  report.main([str(race)])
  assert capsys.readouterr().out == f"{race}/report.html\n"
  report.main([str(race), f"--output={tmp_path / 'a' / 'page.html'}"])
  assert (tmp_path / "a" / "page.html").read_text() == (race / "report.html").read_text()


@pytest.mark.parametrize("low, high", [(0.03, 0.97), (5, 5), (0, 0), (-3e-7, 2e-6), (1e9, 7e12)])
def test_ticks_are_few_round_and_span_the_values(low, high):
  found = charts.ticks(low, high)
  assert 2 <= len(found) <= 6 and found == sorted(set(found))
  assert found[0] <= low and found[-1] >= high


def test_regression_mistakes_are_sorted_by_difference():
  rows = [
    {"step": 1, "split": "dev", "index": index, "label": 2.0, "prediction": 2.0 + difference}
    for index, difference in enumerate((0.5, -1.5, 1.0))
  ]
  found = report_examples.analyze("classification", rows, {}, ())
  assert [mistake.remark for mistake in found.mistakes] == [
    "difference -1.500",
    "difference +1.000",
    "difference +0.500",
  ]
