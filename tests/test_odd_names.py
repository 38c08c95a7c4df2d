"""Folders and data files may have names with glob characters."""

import os

import pytest
import tensorflow as tf
import tiny

import config
import create_pretraining_data
from errors import UserError
from preprocessing import pretraining_records, pretraining_sets
from tasks import corpus
from tasks.settings import Classification, Race
from utils import paths

ODD = ["lr[1e-3]", "what?", "all*", "a[!b]", "back\\slash"]


@pytest.mark.parametrize("odd", ODD)
def test_names_and_globs(tmp_path, odd):
  for folder in (tmp_path / odd, tmp_path / odd / "deep", tmp_path / "lr1", tmp_path / "whatx"):
    folder.mkdir()
    for name in ("a.txt", f"{odd}.txt", "b.md"):
      (folder / name).write_text("text\n")
  root = f"{tmp_path}/{odd}"
  expected = sorted(f"{root}/{name}" for name in ("a.txt", f"{odd}.txt"))
  deep = sorted(f"{root}/deep/{name}" for name in ("a.txt", f"{odd}.txt"))
  assert corpus.match_files(f"{root}/*.txt") == expected
  assert corpus.match_files(f"{root}/{odd}.txt") == [f"{root}/{odd}.txt"]
  assert corpus.match_files(f"{root}/d*p/*.txt") == deep
  assert corpus.match_files(f"{root}/**/*.txt") == sorted(expected + deep)
  assert corpus.match_files(root) == corpus.match_files(f"{root}/none*") == []
  listed = corpus.list_files(f"{root}/a.txt,{root}/*.txt", "input_file")
  assert [file.path for file in listed] == expected


def test_relative_names_and_globs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("a1.txt", "a2.txt", "a[1].txt"):
    (tmp_path / name).write_text("text\n")
  assert corpus.match_files("a[1].txt") == ["a[1].txt"]
  assert corpus.match_files("a[12].txt") == ["a1.txt", "a2.txt"]
  assert corpus.match_files("*.txt") == ["a1.txt", "a2.txt", "a[1].txt"]


@pytest.mark.parametrize("odd", ODD)
def test_text_folders(tmp_path, odd):
  for folder in (
    "train/pos",
    "train/neg",
    "test/pos",
    "test/neg",
    "RACE/train/high",
    "RACE/train/middle",
  ):
    (tmp_path / odd / folder).mkdir(parents=True)
    for name in ("1.txt", "2.txt", "urls.html"):
      (tmp_path / odd / folder / name).write_text("good")
  task = tiny.make_task(
    Classification(task_name="imdb"), config.RawData(data_dir=f"{tmp_path}/{odd}")
  )
  for split, files in (("train", 4), ("dev", 4)):
    assert len(task.input_files(split)) == files
    assert all(path.startswith(f"{tmp_path}/{odd}/") for path in task.input_files(split))
  task = tiny.make_task(Race(task_name="race"), config.RawData(data_dir=f"{tmp_path}/{odd}/RACE"))
  assert len(task.input_files("train")) == 4
  with pytest.raises(UserError, match="no passages"):
    task.input_files("test")


def test_pretraining_records(tmp_path):
  """TensorFlow writes, finds and reads records in such a folder."""
  folder = tmp_path / "text[en]"
  folder.mkdir()
  (folder / "a.txt").write_text("the film was good\nit was a story\n\na dull film\nand poor\n" * 9)
  (folder / "vocab.txt").write_text("\n".join(tiny.VOCAB) + "\n")
  tokenizer = config.Tokenizer(tokenizer_path=f"{folder}/vocab.txt")
  run = create_pretraining_data.Run(num_workers=1)
  create_pretraining_data.create(
    pretraining_records.BertForm(
      input_file=f"{folder}/a*.txt",
      output_file=f"{folder}/records",
      num_shards=2,
      max_seq_length=32,
      max_predictions_per_seq=5,
    ),
    tokenizer,
    run,
  )
  create_pretraining_data.create(
    pretraining_records.FunnelForm(input_glob=f"{folder}/a.txt", save_dir=str(folder), seq_len=32),
    tokenizer,
    run,
  )
  bert, meta, _ = pretraining_sets.read_bert_files("input_file", f"{folder}/records*")
  funnel, funnel_meta, _ = pretraining_sets.read_funnel_files(str(folder), "train", 0, {})
  assert sorted(map(os.path.basename, bert.paths)) == [f"records-0000{i}-of-00002" for i in (0, 1)]
  for found, metadata in ((bert, meta), (funnel, funnel_meta)):
    assert found.num_examples and metadata
    assert sum(1 for _ in tf.data.TFRecordDataset(found.paths)) == found.num_examples
  with pytest.raises(UserError, match="matches no record file"):
    pretraining_sets.expand("input_file", f"{tmp_path}/text[fr]/records*")
  with pytest.raises(UserError, match="no records of split 'train'"):
    pretraining_sets.read_funnel_files(f"{tmp_path}/none", "train", 0, {})


def test_tensorflow_gets_paths_without_patterns(tmp_path):
  for odd in ODD:
    (tmp_path / odd).mkdir()
    plain = paths.without_wildcards(f"{tmp_path}/{odd}")
    assert not set(plain) & set("*?[\\") and os.path.samefile(plain, tmp_path / odd)
    assert plain == paths.without_wildcards(f"{tmp_path}/{odd}")
  assert paths.without_wildcards("runs/plain") == "runs/plain"
  with pytest.raises(UserError, match=r"gs://b/lr\[1\]: TensorFlow reads .* choose a name"):
    paths.without_wildcards("gs://b/lr[1]")
  with pytest.raises(UserError, match="rename its files"):
    paths.checkpoint_without_wildcards("x/model[1].ckpt")
