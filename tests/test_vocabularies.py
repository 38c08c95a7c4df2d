"""Vocabularies with repeated tokens, blank lines or another casing are read."""

import os

import pytest
import tiny
from test_tokenization import BERT_SYMBOLS, write_vocab

import tokenization
from tasks import corpus
from tasks.pretraining_data import Encoder, make_encoder
from tokenization import FullTokenizer, get_tokenizer, vocab_casing


@pytest.fixture(autouse=True)
def warn_again():
  tokenization._warn_once.cache_clear()


def test_repeated_tokens_and_blank_lines(tmp_path, caplog):
  lines = [*BERT_SYMBOLS, "a", "", "b", "a", "", "c", ""]  # the last one is no token
  path = write_vocab(tmp_path, lines)
  tokenizer = FullTokenizer(path)
  assert tokenizer.vocab_size == 11 and list(tokenizer.inv_vocab) == list(range(11))
  assert tokenizer.convert_ids_to_tokens(range(11)) == lines[:11]
  assert tokenizer.convert_text_to_ids("a b c") == [8, 7, 10]  # as in BERT, the last "a" is used
  assert tokenizer.tokenize_with_offsets("a b c")[0] == [8, 7, 10]
  assert (
    tokenization.load_vocab(path)
    == tokenizer.vocab
    == {**{token: i for i, token in enumerate(BERT_SYMBOLS)}, "b": 7, "a": 8, "": 9, "c": 10}
  )
  (message,) = [record.getMessage() for record in caplog.records]
  assert message == (
    f"{path}: 2 repeated tokens, whose last line counts: 'a' (lines 6 and 9), '' (lines 7 and 10)"
  )


def test_many_repeated_tokens(tmp_path, caplog):
  tokenization.load_vocab(write_vocab(tmp_path, list("abcdef" * 3)))
  (record,) = caplog.records
  assert "12 repeated tokens" in record.message and record.message.endswith(", ...")
  assert "'a' (lines 1 and 13)" in record.message


def test_masked_tokens_are_replaced_with_ids_that_text_has(tmp_path):
  encoder = make_encoder(
    "word_piece", write_vocab(tmp_path, ["[MASK]", *BERT_SYMBOLS, "a", "b", "a"]), True
  )
  assert isinstance(encoder, Encoder) and len(encoder.is_start) == 9
  assert encoder.ordinary_ids == [7, 8]  # neither the first [MASK] nor the first "a"


def test_script_runs_with_a_repeated_token(tmp_path):
  folder = tiny.write_encoder(tmp_path / "bert")
  vocab = [*tiny.VOCAB]
  vocab[vocab.index("quite")] = vocab[vocab.index("very")]
  with open(f"{folder}/vocab.txt", "w") as writer:
    writer.write("\n".join(vocab) + "\n")
  tiny.write_cola(tmp_path / "data", 16, 8, 4)
  out, err = tiny.run(
    "run_classifier.py",
    "--task_name=cola",
    f"--data_dir={tmp_path / 'data'}",
    "--do_eval",
    f"--pretrained={folder}",
    f"--output_dir={tmp_path / 'out'}",
    "--max_seq_length=16",
    "--do_train",
    "--train_steps=1",
    "--train_batch_size=8",
  )
  assert err.count("vocab.txt: 1 repeated tokens, whose last line counts: 'very' (lines ") == 1


CASED = [*BERT_SYMBOLS, "Mary", "in", "Paris", "##ry", "par", "ma", "."]
UNCASED = [*BERT_SYMBOLS, "mary", "in", "paris", "##ry", "par", "ma", "."]


@pytest.mark.parametrize(
  ("vocab", "casing"),
  [
    (CASED, "cased"),
    (UNCASED, "uncased"),
    (tiny.VOCAB, "uncased"),
    (BERT_SYMBOLS, None),
    ([*BERT_SYMBOLS, "東", "##京", "1", "[unused1]", "カ"], None),
    (["<unk>", "[CLS]", "▁the", "▁", "s"], "uncased"),
    (["<unk>", "▁The", "▁the", "s"], "cased"),
    (["A", "C", "D", "X"], "cased"),
    (["ABC", *(f"##x{i}" for i in range(100))], None),
  ],
)
def test_vocab_casing(vocab, casing):
  assert vocab_casing(vocab) == vocab_casing({token: 0 for token in vocab}) == casing


def warnings(caplog, *args, **kwargs):
  caplog.clear()
  get_tokenizer("word_piece", *args, **kwargs)
  return [record.getMessage() for record in caplog.records]


def test_casing_that_contradicts_the_vocabulary_is_logged_once(tmp_path, caplog):
  cased, uncased = (
    write_vocab(tmp_path, vocab, f"{len(vocab)}{name}.txt")
    for name, vocab in (("cased", CASED), ("uncased", UNCASED))
  )
  assert warnings(caplog, cased, False) == warnings(caplog, uncased, True) == []
  (message,) = warnings(caplog, cased, True)
  assert f"{cased}: the vocabulary is cased, but the text is lower-cased" in message
  assert "--uncased=False (--do_lower_case=False)" in message
  (message,) = warnings(caplog, uncased, False)
  assert f"{uncased}: the vocabulary is uncased, but the text is not lower-cased" in message
  assert "--uncased=True (--do_lower_case=True)" in message
  assert warnings(caplog, cased, True) == warnings(caplog, uncased, False) == []


def test_accents_that_are_stripped_are_logged(tmp_path, caplog):
  path = write_vocab(tmp_path, [*BERT_SYMBOLS, "für", "fur", "und"])
  (message,) = warnings(caplog, path, True)
  assert "the vocabulary has accents" in message and "--nostrip_accents" in message
  assert warnings(caplog, path, True, strip_accents=False) == []
  path = write_vocab(tmp_path, [*CASED, "für"], "cased.txt")
  (message,) = warnings(caplog, path, True)  # the right casing keeps accents too
  assert "the vocabulary is cased" in message and warnings(caplog, path, False) == []


def test_script_warns_of_casing_once_with_many_workers(tmp_path):
  (tmp_path / "text.txt").write_text("Mary in Paris.\nMary\n\nin Paris\nParis\n")
  _, err = tiny.run(
    "create_pretraining_data.py",
    f"--input_file={tmp_path / 'text.txt'}",
    "--dupe_factor=1",
    f"--output_file={tmp_path / 'a'},{tmp_path / 'b'}",
    "--max_seq_length=32",
    f"--vocab_file={write_vocab(tmp_path, CASED)}",
    "--num_workers=2",
    "--do_lower_case",
  )
  assert err.count("the vocabulary is cased, but the text is lower-cased") == 1


@pytest.mark.parametrize("has_symbol", [True, False])
def test_end_of_paragraph(tmp_path, has_symbol):
  """It is one id, or is removed with a warning; it never becomes "<", "e", "##op", ">"."""
  tokens = [*BERT_SYMBOLS, "a", "b", "<", ">", "e", "##op", "<eop>"][: None if has_symbol else -1]
  vocab = write_vocab(tmp_path, tokens)
  encode = make_encoder("word_piece", vocab, True)
  eop = [11] if has_symbol else []
  assert encode("a <eop> b<eop>") == [5, *eop, 6, *eop] and encode("<eop>") == eop
  assert encode("a") == [5] and encode("") == []
  path = tmp_path / "text.txt"
  path.write_text("a b\nb a <eop>\n\nb b\n")
  files = corpus.list_files(str(path), "input_file")
  assert corpus.find_text(files, "<eop>").path == str(path)
  assert corpus.find_text(files, "c") is None
  _, err = tiny.run(
    "create_pretraining_data.py",
    f"--input_file={path}",
    f"--vocab_file={vocab}",
    f"--output_file={tmp_path / 'out'}",
    "--max_seq_length=32",
    "--num_workers=1",
  )
  message = f"{path}: the text has <eop>, which is not in {vocab}: it is left out"
  assert (message in err) == (not has_symbol)
  if not has_symbol:
    assert err.index(message) < err.index("record files to make")  # before the work


@pytest.mark.slow
def test_real_vocabularies():
  """Needs BERT_VOCAB_DIR with (un)cased_vocab.txt."""
  if "BERT_VOCAB_DIR" not in os.environ:
    pytest.skip("BERT_VOCAB_DIR is not set")
  for casing in ("cased", "uncased"):
    vocab = tokenization.load_vocab(f"{os.environ['BERT_VOCAB_DIR']}/{casing}_vocab.txt")
    assert vocab_casing(vocab) == casing
    assert tokenization._has_accents(vocab) == (casing == "cased")
