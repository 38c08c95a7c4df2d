"""WordPiece's strip_accents and tokenize_chinese_chars affect words, offsets and metadata."""

import itertools
import random

import pytest
import tiny
from test_tokenization import BERT_SYMBOLS, random_text, same_tables, write_vocab
from tokenizers import normalizers, pre_tokenizers

import config
from errors import UserError
from preprocessing import pretraining_manifest, record_files, vocabulary_builder
from tasks import corpus
from tokenization import BasicTokenizer, FullTokenizer, get_tokenizer
from utils import files

TEXT = "Ça, Été in 東京都"


@pytest.mark.parametrize(
  ("lower", "strip", "chinese", "words"),
  [
    (True, None, True, "ca , ete in 東 京 都"),
    (False, None, True, "Ça , Été in 東 京 都"),
    (True, False, True, "ça , été in 東 京 都"),
    (False, True, True, "Ca , Ete in 東 京 都"),
    (True, None, False, "ca , ete in 東京都"),
    (False, True, False, "Ca , Ete in 東京都"),
  ],
)
def test_settings(tmp_path, lower, strip, chinese, words):
  path = write_vocab(tmp_path, [*BERT_SYMBOLS, *words.split()])
  for tokenizer in (
    FullTokenizer(path, lower, (), strip, chinese),
    get_tokenizer("word_piece", path, lower, strip_accents=strip, tokenize_chinese_chars=chinese),
  ):
    assert tokenizer.tokenize(TEXT) == words.split()
    ids, starts, ends = tokenizer.tokenize_with_offsets(TEXT)
    assert ids == tokenizer.convert_text_to_ids(TEXT)
    assert "".join(TEXT[start:end] for start, end in zip(starts, ends, strict=True)) == (
      TEXT.replace(" ", "")
    )


SETTINGS = list(itertools.product((True, False), (None, True, False), (True, False)))


@pytest.mark.parametrize(("lower", "strip", "chinese"), SETTINGS)
def test_fuzz_against_bert_normalizer(lower, strip, chinese):
  rng = random.Random(3)
  texts = [random_text(rng) for _ in range(1000)]
  left_out = {char for char in set("".join(texts)) if not same_tables(char, True)}
  ours = BasicTokenizer(lower, (), strip, chinese)
  normalizer = normalizers.BertNormalizer(True, chinese, strip, lower)
  split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
  for text in texts:
    text = "".join(char for char in text if char not in left_out)
    words = ours.tokenize(text)
    assert words == [word for word, _ in split(normalizer.normalize_str(text))], repr(text)
    found = list(ours.tokenize_with_origins(text))
    assert [word for word, _ in found] == words
    for word, origins in found:  # characters that no setting changes are their own origin
      assert len(word) == len(origins)
      assert all(text[o] == c for c, o in zip(word, origins, strict=True) if text[o] in "abcde,.1")


def test_settings_are_for_their_type_of_tokenizer(tmp_path):
  path = write_vocab(tmp_path, BERT_SYMBOLS)
  for kwargs, message in (
    ({"keep_accents": True}, "--keep_accents is for SentencePiece models.*--nostrip_accents"),
    ({"sent_piece_form": "plain"}, "--sent_piece_form is for SentencePiece models"),
  ):
    with pytest.raises(UserError, match=message):
      get_tokenizer("word_piece", path, True, **kwargs)
  for kwargs in ({"strip_accents": False}, {"tokenize_chinese_chars": False}):
    with pytest.raises(UserError, match="are for WordPiece.*--keep_accents"):
      get_tokenizer("sent_piece", "x.model", True, **kwargs)


def test_help():
  out, _ = tiny.run("scripts/build_vocab.py", "--help")
  out = " ".join(out.split())
  assert "--[no]strip_accents WordPiece: strip accents; default: as --uncased --" in out
  assert "--[no]tokenize_chinese_chars " in out


def test_metadata():
  assert config.Tokenizer().metadata() == {
    "keep_accents": False,
    "strip_accents": True,
    "tokenize_chinese_chars": True,
  }
  assert not config.Tokenizer(uncased=False).metadata()["strip_accents"]
  assert config.Tokenizer(uncased=False, strip_accents=True).metadata()["strip_accents"]
  before = {"do_lower_case": True, "keep_accents": False, "vocab_sha256": "0"}
  record_files.check_meta("meta", before, config.Tokenizer().metadata())
  pretraining_manifest._check_settings("meta", before, config.Tokenizer().metadata())
  before_funnel = {"uncased": False, "keep_accents": False, "vocab_sha256": "0"}
  pretraining_manifest._check_settings(
    "meta", before_funnel, config.Tokenizer(uncased=False).metadata()
  )
  for settings, message in (
    (
      config.Tokenizer(strip_accents=False),
      r"strip_accents True in the records, False here \(--strip_accents\)",
    ),
    (config.Tokenizer(tokenize_chinese_chars=False), "tokenize_chinese_chars True in the"),
  ):
    with pytest.raises(UserError, match=message):
      record_files.check_meta("meta", before, settings.metadata())


def test_build_vocab_uses_the_settings(tmp_path):
  (tmp_path / "text.txt").write_text("Été 東京\n" * 9)
  files = corpus.list_files(str(tmp_path / "text.txt"), "input_file")
  settings = vocabulary_builder.Vocabulary(vocab_size=40)
  made = (
    vocabulary_builder.train_word_piece(
      lambda desc: vocabulary_builder.read_text(settings, files, desc),
      settings,
      config.Tokenizer(strip_accents=False, tokenize_chinese_chars=False),
    )
    .decode()
    .split("\n")
  )
  assert "été" in made and "東京" in made


def test_pretraining_reads_the_settings_from_its_records(tmp_path):
  vocab = write_vocab(tmp_path, [*BERT_SYMBOLS, "été", "ete", "東", "##京", "京", "a"])
  (tmp_path / "text.txt").write_text("Été a 東京\n東京 a\n\na été\na a\n")
  made = str(tmp_path / "records.tfrecord")
  tiny.run(
    "create_pretraining_data.py",
    f"--input_file={tmp_path / 'text.txt'}",
    f"--output_file={made}",
    f"--vocab_file={vocab}",
    "--nostrip_accents",
    "--notokenize_chinese_chars",
    "--max_seq_length=32",
    "--dupe_factor=1",
    "--num_workers=1",
  )
  meta = files.read_json(made + ".meta.json")
  assert (meta["strip_accents"], meta["tokenize_chinese_chars"]) == (False, False)
  used = {
    i
    for features in read_records(made)
    for name in ("input_ids", "masked_lm_ids")
    for i in features[name].int64_list.value
  }
  assert {5, 8} <= used and not {6, 9} & used  # "été" and "##京", not "ete" and "京"
  _, err = tiny.run(
    "run_pretraining.py",
    f"--input_file={made}",
    f"--vocab_file={vocab}",
    f"--model_dir={tmp_path / 'run'}",
    "--strip_accents",
    status=1,
  )
  assert "the records were made with strip_accents False, the flags say True" in err


def read_records(path):
  import tensorflow as tf

  for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
    yield tf.train.Example.FromString(record).features.feature
