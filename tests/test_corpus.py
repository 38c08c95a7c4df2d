"""Reading a corpus: each document is read once, whole, for any number of units."""

import dataclasses
import itertools

import pytest
import tiny_pretraining

from errors import UserError
from tasks import corpus

text = tiny_pretraining.text


def naive_documents(path):
  """Yields the documents of a file, from the whole text."""
  document = []
  with open(path, encoding="utf-8-sig", newline="\n") as reader:
    for line in [*reader.read().split("\n"), ""]:
      if line.strip():
        document.append(line.strip())
      elif document:
        yield document
        document = []
  if document:
    yield document


@pytest.mark.parametrize("block", [40, 1 << 20])
@pytest.mark.parametrize("num_units", [1, 2, 3, 17, 200, 5000])
def test_each_document_is_in_exactly_one_unit(text, num_units, block, monkeypatch):
  pattern, documents = text
  monkeypatch.setattr(corpus, "_BLOCK_BYTES", block)
  files = corpus.list_files(pattern, "input_file")
  found = []
  for pieces in corpus.split(files, num_units):
    unit = corpus.read_sentences(pieces)
    for _, sentences in itertools.groupby(unit, lambda item: item[0]):
      found.append([sentence for _, sentence, _ in sentences])
  if block == 40:  # lines longer than a block are cut at spaces
    found = [" ".join(sentences) for sentences in found]
    documents = [" ".join(sentences) for sentences in documents]
  assert found == documents
  if block > 40:
    assert found == [document for file in files for document in naive_documents(file.path)]


def test_units_are_balanced_and_cover_the_corpus():
  files = [corpus.TextFile("a", 10), corpus.TextFile("b", 1), corpus.TextFile("c", 6)]
  units = corpus.split(files, 4)
  covered = [
    (piece.path, byte) for unit in units for piece in unit for byte in range(piece.start, piece.end)
  ]
  assert covered == [(file.path, byte) for file in files for byte in range(file.size)]
  assert {sum(piece.end - piece.start for piece in unit) for unit in units} == {4, 5}


def test_line_without_end_is_cut_between_characters(tmp_path, monkeypatch):
  monkeypatch.setattr(corpus, "_BLOCK_BYTES", 10)
  path = tmp_path / "long.txt"
  path.write_text(" " * 45 + "東京" * 50 + "\n\nend")
  for num_units in (1, 30, 60, 250):
    sentences = [
      item
      for pieces in corpus.split(corpus.list_files(str(path), "x"), num_units)
      for item in corpus.read_sentences(pieces)
    ]
    assert "".join(sentence for _, sentence, _ in sentences) == "東京" * 50 + "end"
    assert all(len(sentence.encode()) <= 20 for _, sentence, _ in sentences)


@pytest.mark.parametrize("num_units", [1, 2, 3, 5, 20, 52])
def test_line_with_many_trailing_blanks_does_not_end_a_document(tmp_path, monkeypatch, num_units):
  monkeypatch.setattr(corpus, "_BLOCK_BYTES", 10)
  path = tmp_path / "blanks.txt"
  path.write_text("a" + " " * 45 + "\nb\n\nc")
  found = []
  for pieces in corpus.split(corpus.list_files(str(path), "x"), num_units):
    for _, document in itertools.groupby(corpus.read_sentences(pieces), lambda item: item[0]):
      found.append([sentence for _, sentence, _ in document])
  assert found == [["a", "b"], ["c"]]


@pytest.mark.parametrize("num_units", range(1, 16))
def test_byte_order_mark_does_not_shift_units(tmp_path, num_units):
  path = tmp_path / "mark.txt"
  path.write_text("\ufeff\na b\n\nc")
  sentences = [
    sentence
    for pieces in corpus.split(corpus.list_files(str(path), "x"), num_units)
    for _, sentence, _ in corpus.read_sentences(pieces)
  ]
  assert sentences == ["a b", "c"]


def test_windows_hold_whole_documents_unless_they_are_huge():
  sizes = [3, 4, 50, 2, 9]
  sentences = [(number, "a", 2) for number, size in enumerate(sizes) for _ in range(size)]
  windows = list(corpus.read_windows(iter(sentences), lambda _: [7], window_tokens=8))
  layout = [
    [(document.number, len(document.sentences)) for document in window] for window in windows
  ]
  assert layout == [[(0, 3), (1, 4), (2, 8)], *[[(2, 8)]] * 5, [(2, 2), (3, 2), (4, 8)], [(4, 1)]]
  short = list(corpus.read_windows(iter(sentences), lambda _: [7], min_tokens=4, window_tokens=8))
  assert {document.number for window in short for document in window} == {1, 2, 4}


def test_missing_file_is_named(tmp_path):
  piece = corpus.Piece(str(tmp_path / "gone.txt"), 0, 9)
  for path in (piece.path, "file://" + piece.path):
    with pytest.raises(UserError, match="gone.txt: cannot read: "):
      list(corpus.read_sentences([dataclasses.replace(piece, path=path)]))
