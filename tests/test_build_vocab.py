"""build_vocab.py: the vocabulary is deterministic, has all symbols and tokenizes its corpus."""

import random

import pytest
import tiny
from tiny_pretraining import BERT_SYMBOLS, FUNNEL_SYMBOLS

import config
import tokenization
from errors import UserError
from preprocessing import vocabulary_builder as builder
from tasks import corpus, pretraining_data

SENTENCES = [
  "The café was open; nobody came.",
  "Nobody opened the door again!",
  "東京 is far away.",
]


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
  rng = random.Random(7)
  stems = ["".join(rng.choices("aeioumnrst", k=rng.randint(2, 6))) for _ in range(300)]
  path = tmp_path_factory.mktemp("prose") / "prose.txt"
  with open(path, "w", encoding="utf-8") as writer:
    for _ in range(1500):
      writer.write(
        " ".join(
          rng.choice(stems) + rng.choice(("", "ing", "ed", "s", "er"))
          for _ in range(rng.randint(3, 15))
        )
        + ".\n"
      )
      writer.write(rng.choice((*SENTENCES, "")) + "\n")
  return str(path)


@pytest.mark.parametrize(
  "tokenizer_type, symbols",
  [
    ("word_piece", "bert"),
    ("word_piece", "funnel"),
    ("sent_piece", "bert"),
    ("sent_piece", "funnel"),
  ],
)
def test_vocabularies_are_complete_and_deterministic(tmp_path, prose, tokenizer_type, symbols):
  settings = builder.Vocabulary(input_file=prose, vocab_size=400, symbols=symbols)
  files = corpus.list_files(prose, "input_file")
  train = {"word_piece": builder.train_word_piece, "sent_piece": builder.train_sentence_piece}[
    tokenizer_type
  ]
  vocabularies = [
    train(lambda desc: builder.read_text(settings, files, desc), settings, config.Tokenizer())
    for _ in range(3)
  ]
  assert len(set(vocabularies)) == 1
  path = tmp_path / ("vocab.txt" if tokenizer_type == "word_piece" else "spiece.model")
  path.write_bytes(vocabularies[0])
  tokenizer = tokenization.get_tokenizer(tokenizer_type, str(path), True)
  assert tokenizer.vocab_size == 400
  wanted = BERT_SYMBOLS if symbols == "bert" else FUNNEL_SYMBOLS
  assert tokenizer.convert_ids_to_tokens(range(len(wanted))) == wanted
  assert set(tokenizer.special_tokens.values()) == set(wanted)
  for sentence in SENTENCES:
    assert tokenizer.unk_id not in tokenizer.convert_text_to_ids(sentence)
  # Frequent words: WordPiece has most of them whole, SentencePiece splits them.
  most = 6 if tokenizer_type == "word_piece" else 14
  assert len(tokenizer.tokenize("nobody opened the door")) <= most
  encoder = pretraining_data.make_encoder(tokenizer_type, str(path), True)
  if symbols == "funnel":
    assert encoder("far away.<eop> The").count(tokenizer.special_ids["eop"]) == 1


def test_build_vocab_script(tmp_path, prose):
  path = tmp_path / "vocab.txt"
  out, err = tiny.run(
    "scripts/build_vocab.py", f"--input_file={prose}", f"--vocab_file={path}", "--vocab_size=50000"
  )
  size = len(path.read_text().split("\n")) - 1
  assert f"vocab.txt: {size} tokens" in out and f"a model's vocab_size must be {size}" in err
  with pytest.raises(UserError, match="vocab.txt exists; pass --overwrite_data to replace it"):
    builder.build(builder.Vocabulary(input_file=prose), config.Tokenizer(tokenizer_path=str(path)))


def test_impossible_vocabulary_sizes_are_refused(prose):
  files = corpus.list_files(prose, "input_file")
  read = lambda desc: builder.read_text(builder.Vocabulary(), files, desc)
  with pytest.raises(UserError, match="--vocab_size=20 is less than the"):
    builder.train_word_piece(read, builder.Vocabulary(vocab_size=20), config.Tokenizer())
  with pytest.raises(UserError, match="Vocabulary size too high"):
    builder.train_sentence_piece(read, builder.Vocabulary(vocab_size=50000), config.Tokenizer())


def test_large_corpus_is_sampled(prose):
  files = corpus.list_files(prose, "input_file")
  settings = builder.Vocabulary()
  whole = list(builder.read_text(settings, files, ""))
  settings.max_megabytes = files[0].size / 4e6  # a fraction, for the test
  part = list(builder.read_text(settings, files, ""))
  assert 0.2 < len(part) / len(whole) < 0.3 and set(part) <= set(whole)
  assert part == list(builder.read_text(settings, files, ""))
