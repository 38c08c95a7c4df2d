"""SentencePiece in the forms of Funnel-Transformer, XLNet and ALBERT, and in records' metadata."""

import os
import random
from pathlib import Path

import pytest
import sentencepiece
import tiny

import config
import tokenization
from errors import UserError
from preprocessing import pretraining_manifest, record_files
from tokenization import SentencePieceTokenizer
from utils import files

WORDS = [
  "1999,",
  "12,",
  "the",
  "cat",
  "sat",
  "in",
  "x7,",
  "1999",
  "7",
  "year",
  "3,4",
  "don't",
  '"so"',
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Path of a model with the tokens "▁1999,", "▁12," and "7,"."""
  folder = tmp_path_factory.mktemp("form")
  rng = random.Random(0)
  text = folder / "text.txt"
  text.write_text("\n".join(" ".join(rng.choices(WORDS, k=8)) for _ in range(400)))
  sentencepiece.SentencePieceTrainer.train(
    input=str(text),
    model_prefix=str(folder / "model"),
    vocab_size=60,
    hard_vocab_limit=False,
    control_symbols=["<cls>", "<sep>", "<pad>", "<mask>"],
    minloglevel=2,
  )
  return str(folder / "model.model")


@pytest.mark.parametrize(
  ("form", "pieces"),
  [
    # "7," continues a word, so its number is written without "▁"; "3,4" does not end in a comma.
    ("funnel", ["▁in", "▁1999", ",", "▁", "x", "7", ",", "▁3,4", "▁", '"', "s", "o", '"', "'"]),
    ("xlnet", ["▁in", "▁1999", ",", "▁", "x", "7", ",", "▁3,4", "▁", "“", "s", "o", "”’"]),
    ("plain", ["▁in", "▁1999,", "▁", "x", "7,", "▁3,4", "▁", "“", "s", "o", "”’"]),
  ],
)
def test_forms(model, form, pieces):
  tokenizer = tokenization.get_tokenizer("sent_piece", model, True, sent_piece_form=form)
  text = "in 1999, x7, 3,4 “so”’"
  assert tokenizer.tokenize(text) == pieces
  ids, starts, ends = tokenizer.tokenize_with_offsets(text)
  assert ids == tokenizer.convert_text_to_ids(text) == tokenizer.convert_tokens_to_ids(pieces)
  shown = [text[start:end] for start, end in zip(starts, ends, strict=True)]
  quotes = str.maketrans("“”’", '""\'') if form == "funnel" else {}
  assert [part.translate(quotes) for part in shown] == [piece.strip("▁") for piece in pieces]


def test_default_is_funnel_and_other_forms_are_refused(model):
  assert SentencePieceTokenizer(model).tokenize("1999,") == ["▁1999", ","]
  assert config.Tokenizer().sent_piece_form == "funnel"
  with pytest.raises(UserError, match="sent_piece_form must be one of funnel, xlnet, plain, not"):
    SentencePieceTokenizer(model, form="bert")


def test_a_number_with_a_comma_is_encoded_as_the_number_alone(model):
  """The general form of the originals' rule, on random texts."""
  funnel, plain = (SentencePieceTokenizer(model, form=form) for form in ("xlnet", "plain"))
  rng = random.Random(1)
  changed = 0
  for _ in range(3000):
    text = "".join(rng.choices("179,,  x’１，", k=rng.randint(1, 20)))
    expected = []
    for piece in plain.tokenize(text):
      if len(piece) < 2 or piece[-1] != "," or not piece[-2].isdigit():
        expected.append(piece)
        continue
      changed += 1
      alone = plain.tokenize(piece[:-1].strip("▁"))  # "▁" is added at the start of a text
      if piece[0] != "▁":
        alone = alone[1:] if alone[0] == "▁" else [alone[0].removeprefix("▁"), *alone[1:]]
      expected += [*alone, ","]
    assert funnel.tokenize(text) == expected
    ids, starts, ends = funnel.tokenize_with_offsets(text)
    assert ids == funnel.convert_tokens_to_ids(expected)
    assert starts == sorted(starts) and ends == sorted(ends)
    covered = {i for start, end in zip(starts, ends, strict=True) for i in range(start, end)}
    assert {i for i, char in enumerate(text) if not char.isspace()} <= covered
  assert changed > 500


def test_two_curly_quotes_are_not_one(model):
  # "''" is replaced before curly quotes are.
  assert tokenization.preprocess_text("``a'' ’’ ‘b’") == "\"a\" '' 'b'"
  assert tokenization.preprocess_text("‘b’ ’’ “”", ascii_quotes=False) == "‘b’ ’’ “”"


def test_metadata_of_earlier_versions_mean_the_plain_form(model):
  wanted = config.Tokenizer(tokenizer_path=model, tokenizer_type="SentencePiece").metadata()
  assert wanted == {"keep_accents": False, "sent_piece_form": "funnel"}
  before = {"keep_accents": False, "vocab_sha256": "0"}
  message = r"sent_piece_form 'plain' in the records, 'funnel' here \(--sent_piece_form\)"
  with pytest.raises(UserError, match=message):
    record_files.check_meta("meta", before, wanted)
  with pytest.raises(UserError, match="sent_piece_form 'plain' there, 'funnel' now"):
    pretraining_manifest._check_settings("meta", before, wanted)
  record_files.check_meta("meta", before, {**wanted, "sent_piece_form": "plain"})
  record_files.check_meta("meta", {"keep_accents": False}, wanted)  # of another program
  assert "sent_piece_form" not in config.Tokenizer().metadata()  # for WordPiece it has no effect


def test_pretraining_reads_the_form_from_its_records(model, tmp_path):
  (tmp_path / "text.txt").write_text("in 1999, the cat\nsat in 12, the year\n\nthe cat\nsat\n")
  made = str(tmp_path / "records.tfrecord")
  tiny.run(
    "create_pretraining_data.py",
    f"--input_file={tmp_path / 'text.txt'}",
    f"--output_file={made}",
    f"--vocab_file={model}",
    "--tokenizer_type=sent_piece",
    "--sent_piece_form=xlnet",
    "--max_seq_length=32",
    "--dupe_factor=1",
    "--num_workers=1",
  )
  assert files.read_json(made + ".meta.json")["sent_piece_form"] == "xlnet"
  flags = [
    f"--input_file={made}",
    f"--tokenizer_path={model}",
    "--tokenizer_type=sent_piece",
    f"--model_dir={tmp_path / 'run'}",
  ]
  _, err = tiny.run("run_pretraining.py", *flags, "--sent_piece_form=plain", status=1)
  assert "the records were made with sent_piece_form xlnet, the flags say plain" in err


@pytest.mark.slow
def test_real_model():
  """Needs SENTENCE_PIECE_DIR with ALBERT's vocabulary of 30,000 tokens."""
  if "SENTENCE_PIECE_DIR" not in os.environ:
    pytest.skip("SENTENCE_PIECE_DIR is not set")
  (path,) = Path(os.environ["SENTENCE_PIECE_DIR"]).glob("albert*.model")
  xlnet, plain = (SentencePieceTokenizer(path, True, form=form) for form in ("xlnet", "plain"))
  assert plain.tokenize("In 2014, 9,9") == ["▁in", "▁2014,", "▁", "9,9"]
  assert xlnet.tokenize("In 2014, 9,9") == ["▁in", "▁2014", ",", "▁", "9,9"]
