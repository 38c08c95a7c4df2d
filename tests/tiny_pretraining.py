"""A tiny corpus, vocabularies, and functions that create and read pretraining records."""

import collections
import hashlib
import itertools
import os
import random

import pytest
import tensorflow as tf

import config
import create_pretraining_data
from preprocessing import pretraining_records

BERT_SYMBOLS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FUNNEL_SYMBOLS = ["<pad>", "<s>", "</s>", "<unk>", "<cls>", "<sep>", "<mask>", "<eod>", "<eop>"]
NUM_WORDS = 3000


def write_vocab(path, symbols):
  """Writes words w0, w1, ..., and x0, x1, ... that ##a, ##b, ##c continue; returns the path."""
  words = [f"w{i}" for i in range(NUM_WORDS)] + [f"x{i}" for i in range(50)]
  pieces = ["##a", "##b", "##c"]
  path.write_text("\n".join([*symbols, *words, *pieces]) + "\n")
  return str(path)


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
  return write_vocab(tmp_path_factory.mktemp("vocab") / "vocab.txt", BERT_SYMBOLS)


@pytest.fixture(scope="module")
def funnel_vocab(tmp_path_factory):
  return write_vocab(tmp_path_factory.mktemp("vocab") / "funnel.txt", FUNNEL_SYMBOLS)


def make_documents(rng, count, max_sentences=12, max_words=30):
  """Lists of sentences. A word wN is in one document only, so it identifies the document."""
  unused = iter(range(NUM_WORDS))
  documents = []
  for _ in range(count):
    own = list(itertools.islice(unused, NUM_WORDS // count))
    documents.append(
      [
        " ".join(
          rng.choice(
            (
              f"w{rng.choice(own)}",
              f"x{rng.randrange(50)}" + "".join(rng.choices("abc", k=rng.randint(1, 3))),
            )
          )
          for _ in range(rng.randint(1, max_words))
        )
        for _ in range(rng.choice((1, rng.randint(1, max_sentences))))
      ]
    )
  return documents


def write_files(folder, documents, rng):
  """Writes documents to files with blank lines of all kinds, CRLF and missing final newlines."""
  folder.mkdir(exist_ok=True)
  for number, start in enumerate(range(0, len(documents), 7)):
    end = rng.choice(("\n", "\r\n"))
    blanks = [rng.choice(("", "\n\n", "  \t", "\u3000")) + end for _ in range(7)]
    parts = [end.join(document) + end for document in documents[start : start + 7]]
    text = "".join(part + blank for part, blank in zip(parts[:-1], blanks, strict=False))
    text += parts[-1]
    text = rng.choice(("", "\ufeff", end)) + text
    if number % 2:
      text = text.removesuffix(end)
    (folder / f"{number:03d}.txt").write_bytes(text.encode())
  (folder / "empty.txt").write_bytes(b"")
  return str(folder / "*.txt")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  rng = random.Random(5)
  documents = make_documents(rng, 60)
  return write_files(tmp_path_factory.mktemp("text") / "t", documents, rng), documents


def read_records(path, compression=None):
  """Yields the features of a file's records, read by TensorFlow."""
  for record in tf.data.TFRecordDataset(str(path), compression).as_numpy_iterator():
    features = tf.train.Example.FromString(record).features.feature
    yield {
      name: list(value.int64_list.value or value.float_list.value)
      for name, value in features.items()
    }


def create(form, vocab, **run):
  create_pretraining_data.create(
    form, config.Tokenizer(tokenizer_path=vocab), create_pretraining_data.Run(num_workers=1, **run)
  )


def bert_form(pattern, output, **kwargs):
  return pretraining_records.BertForm(
    input_file=pattern,
    output_file=str(output),
    **{"max_seq_length": 32, "max_predictions_per_seq": 5, "dupe_factor": 2, **kwargs},
  )


def funnel_form(pattern, folder, **kwargs):
  return pretraining_records.FunnelForm(
    input_glob=pattern, save_dir=str(folder), **{"seq_len": 32, **kwargs}
  )


def count_tokens(documents, tokenizer, times=1):
  counts = collections.Counter()
  for document in documents:
    for sentence in document:
      counts.update(tokenizer.convert_text_to_ids(sentence))
  return {token: times * count for token, count in counts.items()}


def bert_parts(record, names=("input_ids", "segment_ids")):
  """Tokens of A and B of a record, with the masked tokens restored."""
  ids = list(record[names[0]])
  for position, token, weight in zip(
    record["masked_lm_positions"], record["masked_lm_ids"], record["masked_lm_weights"], strict=True
  ):
    if weight:
      ids[position] = token
  return split_pair(ids[: sum(record["input_mask"])], record[names[1]])


def split_pair(ids, segment_ids, cls_segment=0):
  """Checks the layout "[CLS] A [SEP] B [SEP]"; returns A and B."""
  size_a = segment_ids[1 : len(ids)].index(1)
  assert segment_ids == (
    [cls_segment]
    + [0] * size_a
    + [1] * (len(ids) - 1 - size_a)
    + [0] * (len(segment_ids) - len(ids))
  )
  a, (middle,) = ids[1:size_a], ids[size_a : size_a + 1]
  assert middle == ids[-1]
  return a, ids[size_a + 1 : -1]


def digests(folder):
  return {
    name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for name in sorted(os.listdir(folder))
  }
