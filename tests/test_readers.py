"""Rows, JSON values and compressed files are read as other programs write them."""

import bz2
import csv
import gzip
import importlib.util
import io
import json
import lzma
import os
import random

import pytest
import tiny

import config
from errors import UserError
from tasks import classification, corpus, race, readers
from tasks.settings import Classification


def make_task(folder, name="tsv", skip_bad_rows=False, **kwargs):
  raw = config.RawData(data_dir=str(folder), skip_bad_rows=skip_bad_rows)
  return tiny.make_task(Classification(task_name=name, **kwargs), raw)


def rows(task, split="train"):
  return [(example.text_a, example.text_b, example.label) for example in task.read_examples(split)]


def write_table(path, table, delimiter="\t", **kwargs):
  with open(path, "w", encoding="utf-8", newline="") as file:
    csv.writer(file, delimiter=delimiter, **kwargs).writerows(table)


# ---- Quoted TSV ---------------------------------------------------------------------------------

TABLE = [
  ["text", "label"],
  ["a\ttab", "1"],
  ['He said "no".', "0"],
  ["two\nlines", "1"],
  ["plain, with comma", "0"],
  ["", "1"],
  ['"whole"', "0"],
  ["it's", "1"],
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_quoted_files_are_read_as_the_csv_module_wrote_them(tmp_path, quoting, line_end, delimiter):
  name = "tsv" if delimiter == "\t" else "csv"
  write_table(
    tmp_path / f"train.{name}", TABLE, delimiter, quoting=quoting, lineterminator=line_end
  )
  task = make_task(tmp_path, name)
  assert rows(task) == [(text, None, label) for text, label in TABLE[1:]]
  assert [number for number, _ in readers.read_rows(str(tmp_path / f"train.{name}"), name)] == [
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
  ], "the line on which a row begins"


def test_random_tables_are_read_as_written(tmp_path):
  """Except cells with a tab and a line break, which may also be two lines of an unquoted file."""
  rng = random.Random(1)
  for count in range(300):
    texts = [
      "".join(rng.choices("ab\" ,'" + rng.choice("\t\n"), k=rng.randint(1, 6))) for _ in range(4)
    ]
    table = [["text", "n"], *([text, "7"] for text in texts)]
    write_table(tmp_path / "x.tsv", table, lineterminator="\n")
    text = (tmp_path / "x.tsv").read_text()
    found = [row for _, row in readers.read_rows(str(tmp_path / "x.tsv"), "tsv")]
    assert found == table, (count, text)


def test_cells_that_excel_quotes_for_a_comma(tmp_path):
  (tmp_path / "train.tsv").write_text('text\tlabel\n"Good, very good"\t1\nbad\t0\n')
  assert rows(make_task(tmp_path)) == [("Good, very good", None, "1"), ("bad", None, "0")]
  (tmp_path / "train.tsv").write_text('text\tlabel\n"Good, very good"\t1\nbad, too\t0\n')
  assert rows(make_task(tmp_path))[0][0] == '"Good, very good"', "Excel quotes all commas or none"


@pytest.mark.parametrize(
  "texts",
  [
    ['"Hello'],
    ['Hello"'],
    ['He said "x"', "y"],
    ['"Fine."', "y"],
    ['"a" and "b"', "z"],
    ['"I see.', 'We go."'],
    ['say ""', "y"],
    ['"He said ""x"""', 'stray " mark'],
    ['5" disk', '7" single'],
  ],
)
def test_stray_quotation_marks_of_unquoted_files_are_kept(tmp_path, texts):
  (tmp_path / "train.tsv").write_text(
    "text\tlabel\n" + "".join(f"{text}\t{number}\n" for number, text in enumerate(texts))
  )
  assert (
    [text for text, _, _ in rows(make_task(tmp_path), "train")] == texts
    if len(texts) > 1
    else list(readers.read_rows(str(tmp_path / "train.tsv"), "tsv"))[1][1][0] == texts[0]
  )


@pytest.mark.parametrize("label", ["True", "FALSE", "inf", "-inf", "NA", "1e-3"])
@pytest.mark.parametrize("header", ['"text"\t"label"', "text\tlabel"])
def test_values_that_are_no_text_are_not_quoted(tmp_path, header, label):
  """As csv.QUOTE_NONNUMERIC, pandas and R write them, with their header or one written by hand."""
  (tmp_path / "train.tsv").write_text(f'{header}\n"a"\t{label}\n"b ""c"""\t0\n')
  assert rows(make_task(tmp_path)) == [("a", None, label), ('b "c"', None, "0")]


def test_quotation_marks_that_may_be_the_writers_are_logged(tmp_path, caplog):
  (tmp_path / "train.tsv").write_text('text\tlabel\n"a \\"b\\""\t1\n"c"\t0\n')
  assert rows(make_task(tmp_path))[1] == ('"c"', None, "0")
  assert "cells begin and end with a quotation mark" in caplog.text
  caplog.clear()
  (tmp_path / "train.tsv").write_text('text\tlabel\n"a"\t1\nsay "c"\t0\nd\t0\n')
  assert rows(make_task(tmp_path))[0] == ('"a"', None, "1")
  assert not caplog.text


@pytest.mark.parametrize("skip_bad_rows", [False, True])
@pytest.mark.parametrize("mark", ["", '"'])
@pytest.mark.parametrize("name, separator", [("tsv", "\t"), ("csv", ",")])
def test_a_lone_carriage_return_is_text_if_line_feeds_end_the_rows(
  tmp_path, name, separator, mark, skip_bad_rows
):
  """Python's csv module before 3.13 leaves such a cell unquoted, newer ones quote it."""
  lines = ["text,label", '"good,film",1', f"{mark}lone\rcr{mark},0", '"it ""is"" fine",1']
  (tmp_path / f"train.{name}").write_bytes("\n".join(lines).replace(",", separator).encode())
  task = make_task(tmp_path, name, skip_bad_rows)
  assert rows(task) == [
    (f"good{separator}film", None, "1"),
    ("lone\rcr", None, "0"),
    ('it "is" fine', None, "1"),
  ]


def test_rows_that_end_with_a_lone_carriage_return(tmp_path):
  (tmp_path / "train.csv").write_bytes(b'text,label\r"two\nlines",1\rb,0\r')
  assert rows(make_task(tmp_path, "csv")) == [("two\nlines", None, "1"), ("b", None, "0")]
  (tmp_path / "train.csv").write_bytes(b'text,label\r\r\n"a",1\r\r\nb,0\r\r\n')
  assert rows(make_task(tmp_path, "csv")) == [("a", None, "1"), ("b", None, "0")]


def test_files_of_the_benchmarks_are_never_quoted(tmp_path):
  (tmp_path / "train.tsv").write_text('sentence\tlabel\n"a ""b"""\t1\n')
  assert rows(make_task(tmp_path, "sst-2")) == [('"a ""b"""', None, "1")]


def test_a_single_column_with_line_breaks(tmp_path):
  write_table(tmp_path / "test.tsv", [["text"], ["one\ntwo"], ["three"]])
  assert rows(make_task(tmp_path), "test") == [("one\ntwo", None, None), ("three", None, None)]


def test_cells_above_the_limit_of_the_csv_module(tmp_path):
  long = "word " * 40_000
  for name, delimiter in (("csv", ","), ("tsv", "\t")):
    write_table(
      tmp_path / f"train.{name}", [["text", "label"], [long + '"', 1], ["b", 0]], delimiter
    )
    assert rows(make_task(tmp_path, name)) == [(long + '"', None, "1"), ("b", None, "0")]


# ---- The number of cells ------------------------------------------------------------------------


@pytest.mark.parametrize(
  "name, kwargs, text, message",
  [
    ("csv", {}, "text,label\ngood,1\nnice, but,0\n", "line 3: 3 columns where the header has 2"),
    ("tsv", {}, "text\tlabel\na\t1\nb\tc\t0\n", "line 3: 3 columns where the header has 2"),
    ("csv", {}, "text,label\nr1,good,1\nr2,bad,0\n", "line 2: 3 columns where the header has 2"),
    ("sst-2", {}, "sentence\tlabel\na\tb\t1\n", "line 2: 3 columns where the header has 2"),
    ("cola", {}, "x\t1\t\tA.\nx\t0\t\tB\t.\n", "line 2: 5 columns where line 1 has 4"),
    (
      "csv",
      {"has_header": False, "text_a_col": "1", "label_col": "0"},
      '1,"a, b"\n0,c, d\n',
      "line 2: 3 columns where line 1 has 2",
    ),
    (
      "csv",
      {"has_header": False, "text_a_col": "1", "label_col": "0"},
      "1,a, b\n0,c\n",
      "line 2: 2 columns where at least 3 are needed",
    ),
    ("csv", {}, "text,label,text\na,1,b\n", "the header has the column 'text' 2 times"),
    ("tsv", {}, "label\ttext\tlabel\n", "the header has the column 'label' 2 times"),
    (
      "csv",
      {},
      "text;label\na, b;1\n",
      "which has 'text;label'; the columns seem to be separated "
      "by semicolons: write the file with commas",
    ),
    ("csv", {}, "text\tlabel\na\t1\n", "it is a TSV file: --task_name=tsv"),
    ("tsv", {}, "text,label\na,1\n", "it is a CSV file: --task_name=csv"),
    ("csv", {"has_header": False, "text_a_col": "1", "label_col": "0"}, "1;a\n", "by semicolons"),
    ("csv", {}, 'text,label\nfine,1\n"open\nend,0\n', "line 3: a cell begins with a quotation"),
    ("csv", {}, 'text,label\n"closed" early,1\n', "line 2: a cell begins with a quotation mark"),
    ("csv", {}, 'text,label\n"Fine." he said,1\n"b",0\n', "line 2: .* text follows the mark that"),
    ("csv", {}, 'text,label\nfine,1\n"open\nend,0\n', "line 3: .* no quotation mark ends it"),
    ("tsv", {}, '"text"\t"label"\n"a \\"b\\""\t1\n', "; the cells seem to be quoted"),
  ],
)
def test_faulty_tables_are_refused(tmp_path, name, kwargs, text, message):
  suffix = name if name in classification.FILE_TASKS else "tsv"
  (tmp_path / f"train.{suffix}").write_text(text)
  with pytest.raises(UserError, match=message):
    rows(make_task(tmp_path, name, **kwargs))


def test_unused_columns_may_occur_twice(tmp_path):
  (tmp_path / "train.csv").write_text("x,text,x,label\n1,a,2,1\n1,b,2,0\n")
  assert rows(make_task(tmp_path, "csv")) == [("a", None, "1"), ("b", None, "0")]


def test_long_rows_can_be_skipped_and_are_counted(tmp_path, caplog):
  (tmp_path / "train.csv").write_text("text,label\ngood,1\nnice, but,0\nshort\nbad,0\n")
  assert rows(make_task(tmp_path, "csv", True)) == [("good", None, "1"), ("bad", None, "0")]
  assert "left out 2 rows with too few or too many columns" in caplog.text


def test_rows_of_swag_with_too_many_cells_are_refused(tmp_path):
  table = [["sent1", "sent2", "ending0", "ending1", "label"], ["a", "b", "c", "d", 1]]
  write_table(tmp_path / "x.csv", [*table, ["a", "b", "c", "d", "e", 0]], ",")
  with pytest.raises(UserError, match="line 3: 6 columns where the header has 5"):
    list(race.read_swag(str(tmp_path / "x.csv"), True))
  write_table(tmp_path / "x.csv", [[*table[0], "sent1"], [*table[1], "z"]], ",")
  with pytest.raises(UserError, match="the header has the column 'sent1' 2 times"):
    list(race.read_swag(str(tmp_path / "x.csv"), True))


# ---- JSON values --------------------------------------------------------------------------------


def test_json_values_have_one_spelling_each(tmp_path):
  values = [
    (1, "1"),
    (1.0, "1"),
    ("1", "1"),
    (-0.0, "0"),
    (2.5, "2.5"),
    (True, "true"),
    (False, "false"),
    (10**20, str(10**20)),
    (1e3, "1000"),
    ("True", "True"),
  ]
  (tmp_path / "train.jsonl").write_text(
    "".join(json.dumps({"text": value, "label": value}) + "\n" for value, _ in values)
  )
  assert rows(make_task(tmp_path, "jsonl")) == [(text, None, text) for _, text in values]
  (tmp_path / "test.jsonl").write_text('{"text": null}\n')
  assert rows(make_task(tmp_path, "jsonl"), "test") == [("", None, None)]


@pytest.mark.parametrize(
  "line, message",
  [
    ('{"text": "a", "label": [1]}', "line 2: the value of 'label' is a list"),
    ('{"text": {"a": 1}, "label": 1}', "line 2: the value of 'text' is an object"),
    ('{"text": "a", "label": 1, "label": 2}', "line 2: not valid JSON: duplicate key 'label'"),
    ('{"text": "a", "label": NaN}', "line 2: not valid JSON: NaN is not a JSON number"),
    ('{"text": "a", "label": 1e400}', "line 2: the value of 'label' is too large a number"),
    (r'{"text": "a\ud83d", "label": 1}', "line 2: 'text' holds half of a surrogate pair"),
    (r'{"text": "a", "label": "\udc00"}', "line 2: 'label' holds half of a surrogate pair"),
    ('{"text": ' + "[" * 10**5, "line 2: not valid JSON: maximum recursion"),
  ],
)
def test_json_values_that_are_no_scalars_are_refused(tmp_path, line, message):
  (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 0}\n' + line + "\n")
  with pytest.raises(UserError, match=message):
    rows(make_task(tmp_path, "jsonl"))


def test_ids_of_questions_are_scalars(tmp_path):
  path = tmp_path / "q.jsonl"
  question = {"question": "Q", "options": ["a", 2.0], "answer": 0}
  path.write_text(json.dumps({**question, "id": 7.0}) + "\n" + json.dumps({**question, "id": None}))
  first, second = race.read_choices_jsonl(str(path), True)
  assert (first.id, second.id, first.options) == ("7", "1", ("a", "2"))
  path.write_text(json.dumps({**question, "id": ["x"]}))
  with pytest.raises(UserError, match="line 1: the value of 'id' is a list"):
    list(race.read_choices_jsonl(str(path), True))


@pytest.mark.parametrize("name", ["csv", "tsv", "jsonl"])
def test_labels_that_are_one_number_in_two_spellings(tmp_path, name):
  if name == "jsonl":
    text = '{"text": "a", "label": "1"}\n{"text": "b", "label": "1.0"}\n'
  else:
    text = "text,label\na,1\nb,1.0\nc,0\n".replace(",", "," if name == "csv" else "\t")
  (tmp_path / f"train.{name}").write_text(text)
  with pytest.raises(UserError, match="the labels '1' and '1.0' are the same number"):
    rows(make_task(tmp_path, name))


@pytest.mark.parametrize(
  "labels, message",
  [
    (["1", "1 "], "'1' and '1 ' are the same text"),
    (["pos", " pos"], "' pos' and 'pos' are the"),
    (["1", "01"], "'01' and '1' are the same number"),
    (["1", "1.00"], "'1' and '1.00' are the"),
    (["1e1", "10"], "'10' and '1e1' are the same number"),
  ],
)
def test_labels_of_one_class_in_two_spellings(tmp_path, labels, message):
  (tmp_path / "train.csv").write_text("text,label\nc,0\n" + "".join(f"a,{x}\n" for x in labels))
  with pytest.raises(UserError, match=f"train.csv: the labels {message}"):
    rows(make_task(tmp_path, "csv"))


def test_labels_that_differ_are_accepted(tmp_path):
  names = ["-1", "1", "2", "10", str(10**20), str(10**20 + 1), "10_0", "1_0", "A", "a", "nan"]
  (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"a,{name}\n" for name in names))
  assert make_task(tmp_path, "csv").labels == tuple(names)


# ---- Compressed files ---------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
@pytest.mark.parametrize("name", ["csv", "tsv", "jsonl"])
def test_gzip_and_bzip2_are_read(tmp_path, compress, name):
  text = {
    "csv": "text,label\na,1\nb,0\n",
    "tsv": "text\tlabel\na\t1\nb\t0\n",
    "jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n',
  }[name]
  path = tmp_path / f"train.{name}"
  path.write_bytes(compress(text.encode()))
  assert rows(make_task(tmp_path, name)) == [("a", None, "1"), ("b", None, "0")]
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(UserError, match=f"train.{name}: the (gzip|bzip2) file is damaged"):
    rows(make_task(tmp_path, name))


def load_script(name):
  place = os.path.join(tiny.ROOT, "scripts", f"{name}.py")
  spec = importlib.util.spec_from_file_location(name, place)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_small_scripts_read_the_same_files(tmp_path, monkeypatch):
  sentences = load_script("split_sentences")
  (tmp_path / "book").write_bytes(gzip.compress("\ufeffOne. Two\r\nis it.\r\rEnd.".encode()))
  assert sentences.documents(str(tmp_path / "book")) == [["One.", "Two is it.", "End."]]
  monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "out"), str(tmp_path / "none")])
  with pytest.raises(SystemExit, match="split_sentences.py: error: .*none: cannot read this file"):
    sentences.main()
  reviews = load_script("split_reviews")
  (tmp_path / "r.csv").write_text("text,label\na,1\n")
  with pytest.raises(SystemExit, match="split_reviews.py: error: .*r.csv: no column 'source'"):
    reviews.main(str(tmp_path / "r.csv"), str(tmp_path))
  (tmp_path / "r.csv").write_text("text,label,source\n" + '"a, b",1,rotten_tomatoes\nc,0,imdb\n')
  reviews.main(str(tmp_path / "r.csv"), str(tmp_path))
  assert (tmp_path / "train.csv").read_text().splitlines() == ["text,label", '"a, b",1']


def tar_of(data):
  import tarfile

  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
    entry = tarfile.TarInfo("train.tsv")
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
  return buffer.getvalue()


@pytest.mark.parametrize(
  "make, kind", [(lzma.compress, "xz"), (tar_of, "tar"), (lambda data: b"PK\3\4" + data, "zip")]
)
def test_other_compressed_files_are_named(tmp_path, make, kind):
  (tmp_path / "train.tsv").write_bytes(make(b"text\tlabel\na\t1\n"))
  with pytest.raises(UserError, match=f"train.tsv: a {kind} file; unpack it"):
    rows(make_task(tmp_path))


def test_folders_given_as_files_are_named(tmp_path):
  with pytest.raises(UserError, match="cannot read this file .*irectory"):
    rows(make_task(tmp_path, train_file=str(tmp_path)))


def test_corpora_must_be_unpacked(tmp_path):
  (tmp_path / "plain.txt").write_text("BZh is no magic number\n")
  assert len(corpus.list_files(str(tmp_path / "*.txt"), "input_file")) == 1
  for name, compress in (("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)):
    (tmp_path / "text.txt").write_bytes(compress(b"a line\n"))
    with pytest.raises(UserError, match=f"text.txt: a {name} file; unpack it"):
      corpus.list_files(str(tmp_path / "*.txt"), "input_file")
