"""XNLI and PAWS-X are read in their published layouts."""

import pytest
import tiny

import config
from errors import UserError
from tasks.settings import Classification


def make_task(name, language="zh", **kwargs):
  return tiny.make_task(Classification(task_name=name, language=language), config.RawData(**kwargs))


def rows(task, split):
  return [(example.text_a, example.text_b, example.label) for example in task.read_examples(split)]


def write(path, *lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


XNLI_HEADER = [
  "language",
  "gold_label",
  "sentence1_binary_parse",
  "sentence2_binary_parse",
  "sentence1_parse",
  "sentence2_parse",
  "sentence1",
  "sentence2",
  "promptID",
  "pairID",
  "genre",
  "label1",
  "label2",
  "label3",
  "label4",
  "label5",
  "sentence1_tokenized",
  "sentence2_tokenized",
  "match",
]


def xnli_row(language, label, first, second):
  return [
    language,
    label,
    "",
    "",
    "",
    "",
    first,
    second,
    "1",
    "2",
    "fiction",
    *[label] * 5,
    "t",
    "t",
    "True",
  ]


@pytest.mark.parametrize(
  "evaluation, training", [("XNLI-1.0", "XNLI-MT-1.0/multinli"), (".", "multinli")]
)
def test_xnli(tmp_path, evaluation, training):
  """Labels, columns and languages are those of BERT's run_classifier.py."""
  root = tmp_path / "XNLI"
  write(
    root / training / "multinli.train.zh.tsv",
    ["premise", "hypo", "label"],
    ['概念 "上', "产品 。", "neutral"],
    ["甲", "乙", "contradictory"],
    ["丙", "丁", "entailment"],
  )
  write(
    root / training / "multinli.train.en.tsv",
    ["premise", "hypo", "label"],
    ["A", "B", "contradictory"],
  )
  for split in ("dev", "test"):
    write(
      root / evaluation / f"xnli.{split}.tsv",
      XNLI_HEADER,
      xnli_row("en", "neutral", "Hello", "World"),
      xnli_row("zh", "contradiction", "你", "好"),
      xnli_row("en", "entailment", '"Well', "yes"),
    )
  task = make_task("XNLI", data_root=str(tmp_path))
  assert task.labels == ("contradiction", "entailment", "neutral")
  assert rows(task, "train") == [
    ('概念 "上', "产品 。", "neutral"),
    ("甲", "乙", "contradiction"),
    ("丙", "丁", "entailment"),
  ]
  assert rows(task, "dev") == [("你", "好", "contradiction")]
  assert rows(task, "test") == [("你", "好", None)]
  english = make_task("xnli", "en", data_dir=str(root))
  assert rows(english, "train") == [("A", "B", "contradiction")]
  assert rows(english, "dev") == [("Hello", "World", "neutral"), ('"Well', "yes", "entailment")]
  assert english.source_key("dev") != task.source_key("dev"), "other records of the same file"


def test_paws_x(tmp_path):
  header = ["id", "sentence1", "sentence2", "label"]
  root = tmp_path / "x-final"
  write(root / "de" / "translated_train.tsv", header, ["1", '"Ein', "Satz .", "0"])
  write(root / "en" / "train.tsv", header, ["1", "A", "B", "1"])
  for split in ("dev", "test"):
    write(root / "de" / f"{split}_2k.tsv", header, ["7", "C", "D", "1"])
  task = make_task("PAWS-X", "de", data_root=str(tmp_path))
  assert rows(task, "train") == [('"Ein', "Satz .", "0")]
  assert (rows(task, "dev"), rows(task, "test")) == ([("C", "D", "1")], [("C", "D", None)])
  assert rows(make_task("pawsx", "en", data_root=str(tmp_path)), "train") == [("A", "B", "1")]
  assert task.metadata()["processor_type"] == "PAWS-X"


def test_unknown_languages_are_refused(tmp_path):
  with pytest.raises(UserError, match="--language=sw: task paws-x has de, en, es, fr, ja, ko, zh"):
    make_task("paws-x", "sw")
  with pytest.raises(UserError, match="--language=xx: task xnli has ar, bg, de"):
    make_task("xnli", "xx")
  with pytest.raises(UserError, match="multinli.train.th.tsv: no such file, the train data of"):
    rows(make_task("xnli", "th", data_dir=str(tmp_path)), "train")
