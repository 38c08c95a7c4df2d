"""Sets of pretraining records: files, metadata, settings; errors of each kind."""

import dataclasses
import glob
import os
import shutil

import pytest
import tiny
import tiny_pretraining_task
from tiny_pretraining_task import LENGTH, bert_source, sequences_of

import config
import create_pretraining_data
from errors import UserError
from preprocessing import pretraining_records, pretraining_sets, record_files
from tasks import pretraining
from tasks.settings import Pretraining

records = tiny_pretraining_task.records


def corpus_of(records, form="bert"):
  settings = Pretraining(
    **(
      {"input_file": str(records / "bert.tfrecord-*")}
      if form == "bert"
      else {"record_dir": str(records / "funnel")}
    )
  )
  trainer = config.Trainer(do_train=True, do_eval=True)
  return settings, pretraining_sets.find_corpus(settings, trainer, {})


def test_settings_are_read_from_the_metadata(records):
  for form, predictions in (("bert", 4), ("funnel", round(0.15 * LENGTH))):
    settings, corpus = corpus_of(records, form)
    experiment = config.Experiment(task=settings)
    pretraining_sets.check_against_meta(corpus, experiment)
    assert experiment.data.max_seq_length == LENGTH
    assert settings.max_predictions_per_seq == predictions
    assert pretraining_sets.find_symbols(corpus, experiment.tokenizer)[0]["mask"] == 4
    assert (
      corpus.record_sets["train"].num_examples
      == sum(map(record_files.count_records, corpus.record_sets["train"].paths))
      > 10
    )


def test_records_of_other_settings_are_refused(records, tmp_path):
  settings, corpus = corpus_of(records)
  experiment = config.Experiment(task=settings)
  experiment.set("max_seq_length", 128, "flag")
  with pytest.raises(UserError, match="made with max_seq_length 24, the flags say 128"):
    pretraining_sets.check_against_meta(corpus, experiment)
  (tmp_path / "vocab.txt").write_text("\n".join([*tiny.VOCAB, "more"]))
  with pytest.raises(UserError, match="vocab.txt is not the vocabulary that the records were made"):
    pretraining_sets.find_symbols(
      corpus, config.Tokenizer(tokenizer_path=str(tmp_path / "vocab.txt"))
    )
  (tmp_path / "vocab.txt").write_text("\n".join(w for w in tiny.VOCAB if w != "[MASK]"))
  with pytest.raises(UserError, match="vocabulary lacks"):
    pretraining_sets.find_symbols(
      corpus, config.Tokenizer(tokenizer_path=str(tmp_path / "vocab.txt"))
    )
  with pytest.raises(UserError, match="no record.* of split 'test'"):
    pretraining_sets.find_corpus(
      Pretraining(record_dir=str(records / "funnel"), eval_split="test"),
      config.Trainer(do_train=True, do_eval=True),
      {},
    )
  with pytest.raises(UserError, match="no record.*seq_len 512"):
    pretraining_sets.find_corpus(
      Pretraining(record_dir=str(records / "funnel")),
      config.Trainer(do_train=True),
      {"seq_len": 512},
    )
  with pytest.raises(UserError, match="nowhere.* matches no record file"):
    pretraining_sets.find_corpus(
      Pretraining(input_file=str(tmp_path / "nowhere*")), config.Trainer(do_train=True), {}
    )
  for wrong in (dict(), dict(input_file="a", record_dir="b")):
    with pytest.raises(UserError, match="either with --input_file"):
      pretraining_sets.find_corpus(Pretraining(**wrong), config.Trainer(do_train=True), {})


def find(do_train=True, do_eval=False, **settings):
  return pretraining_sets.find_corpus(
    Pretraining(**settings), config.Trainer(do_train=do_train, do_eval=do_eval), {}
  )


def test_incomplete_and_damaged_sets_are_refused(records, tmp_path, caplog):
  """Training never uses a part of the set, or files that contradict their metadata, silently."""
  shutil.copytree(records / "funnel", tmp_path / "funnel")
  name = "meta.train.pass-0.seq-24.uncased.json-00001-of-00002"
  data = tmp_path / "funnel" / name.replace("meta", "data").replace("json", "tfrecord")
  data.write_bytes(data.read_bytes()[:-9])
  with pytest.raises(UserError, match=f"{data}: \\d+ bytes, but \\d+ bytes in its metadata"):
    find(record_dir=str(tmp_path / "funnel"))
  data.unlink()
  with pytest.raises(UserError, match=f"{data}: no such file, but"):
    find(record_dir=str(tmp_path / "funnel"))
  (tmp_path / "funnel" / name).unlink()
  with pytest.raises(UserError, match=f"{name}: no such file, .* --task=1 makes the missing one"):
    find(record_dir=str(tmp_path / "funnel"))

  for path in glob.glob(str(records / "bert.tfrecord*")):
    shutil.copy(path, tmp_path)
  names = str(tmp_path / "bert.tfrecord-*")
  first, middle, last = sorted(path for path in glob.glob(names) if not path.endswith(".json"))
  find(input_file=f"{first},{last}")
  assert "1 of the 3 record files that" in caplog.text
  os.replace(first, last)
  with pytest.raises(UserError, match="bytes in its metadata"):
    find(input_file=names)
  (tmp_path / "bert.tfrecord.meta.json").write_text('{"filenames": ["x"]}')
  with pytest.raises(UserError, match="'filenames', 'num_example' and 'num_bytes' do not give"):
    find(input_file=names)
  (tmp_path / (os.path.basename(middle) + ".done.json")).write_text("{}")
  with pytest.raises(UserError, match="its set of record files is not complete; give the command"):
    find(input_file=names)


def test_evaluation_alone_needs_no_training_records(records, tmp_path, caplog):
  for path in glob.glob(str(records / "funnel" / "*.dev.*")):
    shutil.copy(path, tmp_path)
  assert set(find(False, True, record_dir=str(tmp_path)).record_sets) == {"dev"}
  names = str(records / "bert.tfrecord-*")
  assert set(find(False, True, eval_input_file=names).record_sets) == {"dev"}
  assert not caplog.text
  assert set(find(True, True, input_file=names).record_sets) == {"train", "dev"}
  assert "Evaluation is on the training records" in caplog.text


def test_empty_files_are_ignored_and_files_named_twice_count_once(records, tmp_path, caplog):
  """With more files than documents some files are empty, the first one among them."""
  text = tmp_path / "text.txt"
  text.write_text("\n" * 2000 + open(records / "text.txt").read()[:300])
  vocab = config.Tokenizer(tokenizer_path=str(records / "bert" / "vocab.txt"))
  create_pretraining_data.create(
    pretraining_records.BertForm(
      input_file=str(text),
      output_file=str(tmp_path / "x"),
      num_shards=4,
      max_seq_length=LENGTH,
      max_predictions_per_seq=4,
    ),
    vocab,
    create_pretraining_data.Run(num_workers=1),
  )
  found = find(input_file=f"{tmp_path}/x-*,{tmp_path}/./x-00003*").record_sets["train"]
  assert [os.path.basename(path) for path in found.paths] == ["x-00003-of-00004"]
  assert found.num_examples == record_files.count_records(found.paths[0]) > 0
  folder = str(records / "funnel")
  once, twice = (
    find(record_dir=names, num_passes=1).record_sets["train"]
    for names in (folder, f"{folder},{folder}/")
  )
  assert once == twice and len(once.paths) == 2
  assert "num_passes" not in caplog.text
  find(record_dir=folder, num_passes=3)
  assert "--num_passes=3: --record_dir has 1" in caplog.text


def test_metadata_of_files_in_several_folders_is_found(records, tmp_path, monkeypatch, caplog):
  """Shards that are created one by one have one metadata file each; others share one file."""
  monkeypatch.chdir(tmp_path)
  vocab = config.Tokenizer(tokenizer_path=str(records / "bert" / "vocab.txt"))
  for names in ("x-00000-of-00002", "x-00001-of-00002", "a/b,a/sub/c,d/e"):
    create_pretraining_data.create(
      pretraining_records.BertForm(
        input_file=str(records / "text.txt"),
        output_file=names,
        max_seq_length=LENGTH,
        max_predictions_per_seq=4,
      ),
      vocab,
      create_pretraining_data.Run(num_workers=1),
    )
  for names in ("x-*", "a/b,a/sub/c,d/e", "./a/b,./a/sub/c,./d/e"):
    corpus = find(input_file=names)
    assert corpus.meta["max_seq_length"] == LENGTH
    assert len(corpus.record_sets["train"].paths) == 3 - (names == "x-*")
  assert not caplog.text
  (tmp_path / "d" / "e").write_bytes(b"")
  with pytest.raises(UserError, match="d/e: 0 bytes, but"):
    find(input_file="a/b,a/sub/c,d/e")


def test_evaluation_records_may_differ_in_settings_the_model_does_not_see(records, tmp_path):
  """Decoding errors, mask strategy and compression may differ; the number of masks may not."""
  run = create_pretraining_data.Run(num_workers=1, errors="replace")
  vocab = config.Tokenizer(tokenizer_path=str(records / "bert" / "vocab.txt"))
  form = pretraining_records.BertForm(
    input_file=str(records / "text.txt"),
    output_file=str(tmp_path / "x"),
    max_seq_length=LENGTH,
    max_predictions_per_seq=4,
    gzip_compress=True,
    do_whole_word_mask=True,
  )
  create_pretraining_data.create(form, vocab, run)
  names = str(records / "bert.tfrecord-*")
  found = find(True, True, input_file=names, eval_input_file=str(tmp_path / "x"))
  assert set(found.record_sets) == {"train", "dev"}
  with pytest.raises(UserError, match="differ in gzip_compress"):
    find(input_file=f"{names},{tmp_path}/x")
  form = dataclasses.replace(form, output_file=str(tmp_path / "y"), max_predictions_per_seq=3)
  create_pretraining_data.create(form, vocab, run)
  with pytest.raises(UserError, match="differ in max_predictions_per_seq"):
    find(True, True, input_file=names, eval_input_file=str(tmp_path / "y"))


@pytest.mark.parametrize(
  "form, given",
  [
    ("input_file", "sample_strategy"),
    ("input_file", "num_passes"),
    ("record_dir", "eval_input_file"),
  ],
)
def test_flags_of_the_other_form_are_refused(form, given):
  with pytest.raises(UserError, match=f"--{given} does nothing with --{form}"):
    pretraining_sets.check_form(Pretraining(**{form: "x"}), {given, "max_seq_length"})


def test_records_without_metadata_need_its_settings_as_flags(records, tmp_path):
  path = tmp_path / "foreign.tfrecord"
  path.write_bytes(open(sorted(glob.glob(str(records / "bert.tfrecord-*")))[0], "rb").read())
  settings = Pretraining(input_file=str(path))
  corpus = pretraining_sets.find_corpus(settings, config.Trainer(do_train=True), {})
  experiment = config.Experiment(task=settings)
  with pytest.raises(UserError, match="--max_seq_length is missing"):
    pretraining_sets.check_against_meta(corpus, experiment)
  experiment.data.max_seq_length = LENGTH
  with pytest.raises(UserError, match="--max_predictions_per_seq is missing"):
    pretraining_sets.check_against_meta(corpus, experiment)
  with pytest.raises(UserError, match=r"--tokenizer_path \(--vocab_file\) is missing"):
    pretraining_sets.find_symbols(corpus, experiment.tokenizer)
  source = bert_source(records)
  with pytest.raises(UserError, match="'masked_lm_positions' has 4 .* where 5 are expected"):
    other = pretraining.BertRecords(sequences_of(records / "bert" / "vocab.txt"), 5)
    record_files.check_lengths(str(path), other.feature_specs, LENGTH)
  with pytest.raises(UserError, match="is --max_seq_length the records' own"):
    record_files.check_lengths(str(path), source.task.feature_specs, LENGTH + 8)
