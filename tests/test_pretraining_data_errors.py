"""Errors of create_pretraining_data.py: flags, vocabularies, text, existing files, full disks."""

import dataclasses
import errno
import glob
import os

import pytest
import tiny
import tiny_pretraining
from tiny_pretraining import BERT_SYMBOLS, bert_form, create, digests, funnel_form, write_vocab

import create_pretraining_data
from errors import UserError
from preprocessing import pretraining_records, tfrecord
from tasks import corpus

text = tiny_pretraining.text
vocab = tiny_pretraining.vocab


def test_mixed_flags_are_refused():
  _, err = tiny.run(
    "create_pretraining_data.py", "--input_file=a", "--output_file=b", "--save_dir=c", status=1
  )
  assert "Traceback" not in err
  assert "--input_file --output_file belong to BERT's form of records, --save_dir to Funnel" in err


@pytest.mark.parametrize(
  "bert, funnel", [({"input_file"}, set()), (set(), {"save_dir"}), (set(), set())]
)
def test_flags_of_no_form_are_refused(bert, funnel):
  with pytest.raises(UserError, match="give --input_file and --output_file for BERT's form"):
    create_pretraining_data.chosen_form(
      {pretraining_records.BertForm: bert, pretraining_records.FunnelForm: funnel}
    )


@pytest.mark.parametrize(
  "kwargs, message",
  [
    ({"masked_lm_prob": 15.0}, "--masked_lm_prob: 15.0 is above 1"),
    ({"masked_lm_prob": 0.0}, "--masked_lm_prob: 0.0 is not above 0"),
    ({"short_seq_prob": -0.1}, "--short_seq_prob: -0.1 is below 0"),
    ({"max_predictions_per_seq": 30}, "more than the 29 tokens that"),
    ({"input_file": "/nowhere/*.txt"}, "--input_file: no file matches /nowhere/\\*.txt"),
    ({"output_file": "x,x"}, "the names must differ"),
    ({"output_file": "/proc/nothing/x"}, "cannot write to this folder.*--output_file"),
  ],
)
def test_invalid_values_of_berts_form_are_refused(text, vocab, kwargs, message):
  form = dataclasses.replace(bert_form(text[0], "unused"), **kwargs)
  with pytest.raises(UserError, match=message):
    create(form, vocab)


def test_tasks_count_from_0(tmp_path, text, vocab):
  with pytest.raises(UserError, match="--task=2 is beyond --num_task=2"):
    create(funnel_form(text[0], tmp_path, task=2, num_task=2), vocab)


def test_unusable_vocabularies_are_refused(tmp_path, text, vocab):
  form = bert_form(text[0], tmp_path / "x")
  with pytest.raises(UserError, match="--vocab_file .* is missing"):
    create(form, "")
  maskless = write_vocab(tmp_path / "maskless.txt", BERT_SYMBOLS[:-1])
  with pytest.raises(UserError, match=r"maskless.txt: the vocabulary lacks .\[MASK\]"):
    create(form, maskless)


def test_empty_corpus_is_refused(tmp_path, vocab):
  path = tmp_path / "t.txt"
  path.write_text("")
  with pytest.raises(UserError, match="the files are empty"):
    create(bert_form(str(path), tmp_path / "x"), vocab)
  path.write_text("\n \n\n")
  with pytest.raises(UserError, match="no document in the input"):
    create(bert_form(str(path), tmp_path / "x"), vocab)
  assert os.listdir(tmp_path) == ["t.txt"]


def test_bytes_that_are_not_utf8_are_named(tmp_path, vocab, monkeypatch):
  monkeypatch.setattr(corpus, "_BLOCK_BYTES", 16)
  path = tmp_path / "t.txt"
  path.write_bytes(b"w1 w2\n\nw3 w4\nw5 w6\nw7 \xe9t\xe9 w8\n")
  for num_shards in (1, 4):
    form = bert_form(str(path), tmp_path / "x", num_shards=num_shards)
    with pytest.raises(UserError, match=r"t.txt: not UTF-8 at line 5 \(byte 22 of .*replace"):
      create(form, vocab, overwrite_data=True)
  create(form, vocab, errors="replace", overwrite_data=True)
  assert glob.glob(str(tmp_path / ".x*")) == []


def test_bad_byte_after_a_byte_order_mark_has_its_position(tmp_path, vocab):
  (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfw1 w2\xff\n")
  with pytest.raises(UserError, match=r"t.txt: not UTF-8 at line 1 \(byte 8 of the file, 0xff"):
    create(bert_form(str(tmp_path / "t.txt"), tmp_path / "x"), vocab)


def test_files_are_overwritten_only_on_request(tmp_path, text, vocab):
  form = bert_form(text[0], tmp_path / "x")
  (tmp_path / "x").write_text("mine")
  with pytest.raises(UserError, match="x: this file exists, and this command did not make it"):
    create(form, vocab)
  assert (tmp_path / "x").read_text() == "mine"
  create(form, vocab, overwrite_data=True)
  made = digests(tmp_path)
  with pytest.raises(UserError, match="dupe_factor 2 there, 3 now.*--overwrite_data"):
    create(dataclasses.replace(form, dupe_factor=3), vocab)
  with pytest.raises(UserError, match="random_seed 12345 there, 1 now"):
    create(form, vocab, random_seed=1)
  with pytest.raises(UserError, match="num_shards 1 there, 2 now"):
    create(dataclasses.replace(form, num_shards=2), vocab)
  assert digests(tmp_path) == made

  folder = tmp_path / "funnel"
  create(funnel_form(text[0], folder, num_task=2), vocab)
  with pytest.raises(UserError, match="of another number of shards exist"):
    create(funnel_form(text[0], folder, num_task=3), vocab)
  create(funnel_form(text[0], folder, num_task=3), vocab, overwrite_data=True)
  assert len(os.listdir(folder)) == 6 and all("of-00003" in name for name in os.listdir(folder))
  create(funnel_form(text[0], folder, num_task=2, pass_id=1), vocab)  # another pass next to it


@pytest.mark.parametrize("gzip_compress", [False, True])
def test_old_record_files_are_removed_on_request(tmp_path, text, vocab, gzip_compress):
  """Complete and incomplete files, empty and not."""
  form = bert_form(text[0], tmp_path / "x", num_shards=3, gzip_compress=gzip_compress)
  create(form, vocab)
  (tmp_path / "x-00000-of-00007").write_bytes(b"")
  (tmp_path / "x-00001-of-00007.done.json").write_text('{"num_example": 0}')
  create(dataclasses.replace(form, num_shards=2), vocab, overwrite_data=True)
  assert sorted(os.listdir(tmp_path)) == ["x-00000-of-00002", "x-00001-of-00002", "x.meta.json"]


def test_full_disk_is_reported(tmp_path, text, vocab, monkeypatch):
  def write(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(tfrecord.Writer, "write", write)
  with pytest.raises(UserError, match="x: cannot write: No space left on device"):
    create(bert_form(text[0], tmp_path / "x"), vocab)
  assert os.listdir(tmp_path) == []
