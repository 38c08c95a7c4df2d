"""Raw text to pretraining records: nothing lost or doubled, valid masks, the same everywhere."""

import collections
import dataclasses
import errno
import glob
import gzip
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
import tiny

import config
import create_pretraining_data
import tokenization
from errors import UserError
from preprocessing import pretraining_records, tfrecord
from preprocessing import vocabulary_builder as builder
from tasks import corpus, pretraining_data

BERT_SYMBOLS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FUNNEL_SYMBOLS = ["<pad>", "<s>", "</s>", "<unk>", "<cls>", "<sep>", "<mask>", "<eod>", "<eop>"]
NUM_WORDS = 3000


def write_vocab(path, symbols):
  """A vocabulary with words w0, w1, ... of one piece and x0, x1, ... of two to four pieces."""
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
  """Lists of sentences; a word of one piece is in one document only, so it tells which."""
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
  """Writes documents to several files: blank lines of all kinds, CRLF, no newline at the end."""
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
  """Features of the records of a file, by TensorFlow."""
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
  """Tokens of A and B of a record, its masked tokens put back."""
  ids = list(record[names[0]])
  for position, token, weight in zip(
    record["masked_lm_positions"], record["masked_lm_ids"], record["masked_lm_weights"], strict=True
  ):
    if weight:
      ids[position] = token
  return split_pair(ids[: sum(record["input_mask"])], record[names[1]])


def split_pair(ids, segment_ids, cls_segment=0):
  """A and B of "[CLS] A [SEP] B [SEP]", whose layout is checked."""
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


# ---- Reading ------------------------------------------------------------------------------------


def naive_documents(path):
  """The documents of a file, by its definition, from the whole text."""
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
def test_line_that_ends_in_many_blanks_ends_no_document(tmp_path, monkeypatch, num_units):
  monkeypatch.setattr(corpus, "_BLOCK_BYTES", 10)
  path = tmp_path / "blanks.txt"
  path.write_text("a" + " " * 45 + "\nb\n\nc")
  found = []
  for pieces in corpus.split(corpus.list_files(str(path), "x"), num_units):
    for _, document in itertools.groupby(corpus.read_sentences(pieces), lambda item: item[0]):
      found.append([sentence for _, sentence, _ in document])
  assert found == [["a", "b"], ["c"]]


@pytest.mark.parametrize("num_units", range(1, 16))
def test_byte_order_mark_shifts_no_border(tmp_path, num_units):
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


# ---- Record files -------------------------------------------------------------------------------


@pytest.mark.parametrize("use_gzip", [False, True])
def test_tensorflow_reads_what_is_written(tmp_path, use_gzip):
  rng = random.Random(1)
  values = (0, 1, 127, 128, 16384, 2**40)
  records = [
    {
      "ids": [rng.choice(values) for _ in range(rng.randrange(1, n))],
      "weights": [rng.randrange(8) / 4 for _ in range(3)],
    }
    for n in range(2, 300, 9)
  ]
  path = tmp_path / "records"
  with open(path, "wb") as file:
    writer = tfrecord.Writer(file, use_gzip)
    for record in records:
      writer.write(tfrecord.encode_example(record))
    writer.close()
  assert list(read_records(path, "GZIP" if use_gzip else None)) == records
  if not use_gzip:
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
      for record in records:
        theirs.write(tfrecord.encode_example(record))
    assert path.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_negative_numbers():
  for values in ([-1], [300, -1], [-5, 2]):
    example = tf.train.Example.FromString(tfrecord.encode_example({"x": values}))
    assert list(example.features.feature["x"].int64_list.value) == values


# ---- BERT's form --------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "kwargs",
  [
    {},
    {"short_seq_prob": 0.0, "num_shards": 3},
    {"do_whole_word_mask": True},
    {"max_seq_length": 8, "max_predictions_per_seq": 2, "max_ngram_size": 3},
  ],
)
def test_bert_records_hold_each_token_once(tmp_path, text, vocab, kwargs):
  pattern, documents = text
  tokenizer = tokenization.get_tokenizer("word_piece", vocab, True)
  create(bert_form(pattern, tmp_path / "x", **kwargs), vocab)
  with open(tmp_path / "x.meta.json") as reader:
    meta = json.load(reader)
  assert meta["task_type"] == "bert_pretraining" and meta["vocab_size"] == tokenizer.vocab_size
  stream = [
    token
    for document in documents
    for sentence in document
    for token in tokenizer.convert_text_to_ids(sentence)
  ]
  stream_text = " ".join(map(str, stream)) + " "
  own, labels = collections.Counter(), collections.Counter()
  for name, count in zip(meta["filenames"], meta["num_example"], strict=True):
    found = list(read_records(tmp_path / name))
    assert len(found) == count
    for record in found:
      a, b = bert_parts(record)
      (is_random,) = record["next_sentence_labels"]
      labels[is_random] += 1
      own.update(a)
      if is_random:
        assert a and b
        assert owners(a, tokenizer).isdisjoint(owners(b, tokenizer))
      else:
        own.update(b)
        assert " ".join(map(str, a + b)) + " " in stream_text, "B does not follow A"
  assert own == count_tokens(documents, tokenizer, 2)
  assert meta["train_data_size"] == sum(meta["num_example"]) == sum(labels.values())
  assert min(labels.values()) > 0.2 * sum(labels.values())
  assert sorted(os.listdir(tmp_path)) == sorted([*meta["filenames"], "x.meta.json"])


def owners(ids, tokenizer):
  """Documents (as make_documents numbers them, of 60) of the one-piece words."""
  return {
    int(token[1:]) // (NUM_WORDS // 60)
    for token in tokenizer.convert_ids_to_tokens(ids)
    if token.startswith("w")
  }


def make_examples(vocab, documents, cls=pretraining_data.BertExamples, **kwargs):
  """Features of one window, and its builder."""
  encoder = pretraining_data.make_encoder("word_piece", vocab, True)
  if cls is pretraining_data.BertExamples:
    kwargs = dict(
      dict(
        max_seq_length=64,
        max_predictions_per_seq=20,
        masked_lm_prob=0.15,
        short_seq_prob=0.1,
        dupe_factor=5,
        whole_word=False,
        max_ngram_size=1,
        cls_segment_id=0,
        use_v2_feature_names=False,
      ),
      **kwargs,
    )
  builder = cls(encoder, "1", **kwargs)
  window = [
    corpus.Document(i, [encoder(sentence) for sentence in document])
    for i, document in enumerate(documents)
  ]
  return [*builder(window), *builder.finish()], builder, encoder


def masked(record):
  """[(position, original token, token in its place)] of a record."""
  return [
    (position, token, record["input_ids"][position])
    for position, token, weight in zip(
      record["masked_lm_positions"],
      record["masked_lm_ids"],
      record["masked_lm_weights"],
      strict=True,
    )
    if weight
  ]


def test_masks_are_80_10_10_and_valid(text, vocab):
  found, _, encoder = make_examples(vocab, text[1])
  kinds = collections.Counter()
  for record in found:
    size = sum(record["input_mask"])
    positions = [position for position, _, _ in masked(record)]
    assert len(positions) == min(20, max(1, round(size * 0.15)))
    assert positions == sorted(set(positions)), "in order, none twice"
    assert record["masked_lm_positions"][len(positions) :] == [0] * (20 - len(positions))
    for position, token, shown in masked(record):
      assert token not in (2, 3) and 0 < position < size - 1
      assert shown == 4 or shown >= 5, "no special symbol but [MASK]"
      kinds["mask" if shown == 4 else "same" if shown == token else "random"] += 1
    assert all(len(record[name]) == 64 for name in ("input_ids", "segment_ids", "input_mask"))
  total = sum(kinds.values())
  assert total > 3000
  for kind, share in (("mask", 0.8), ("same", 0.1), ("random", 0.1)):
    assert abs(kinds[kind] / total - share) < 4 * (share * (1 - share) / total) ** 0.5, kinds


def words_of(ids, encoder):
  """Ranges of the positions of words, by the rule that ## continues one, within a segment."""
  tokens = encoder.tokenizer.convert_ids_to_tokens(ids)
  ranges = []
  for position, token in enumerate(tokens):
    if token in BERT_SYMBOLS:
      continue
    if token.startswith("##") and tokens[position - 1] not in BERT_SYMBOLS:
      ranges[-1].append(position)
    else:
      ranges.append([position])
  return ranges


def originals(record):
  ids = record["input_ids"][: sum(record["input_mask"])]
  for position, token, _ in masked(record):
    ids[position] = token
  return ids


def test_whole_words_are_masked(text, vocab):
  found, _, encoder = make_examples(vocab, text[1], whole_word=True)
  num_pieces = 0
  for record in found:
    positions = {position for position, _, _ in masked(record)}
    assert len(positions) <= min(20, max(1, round(sum(record["input_mask"]) * 0.15)))
    for word in words_of(originals(record), encoder):
      assert len(positions & set(word)) in (0, len(word))
      num_pieces += len(word) > 1 and word[0] in positions
  assert num_pieces > 200


def test_ngrams_are_masked_in_runs(vocab):
  rng = random.Random(3)
  documents = [[" ".join(f"w{rng.randrange(NUM_WORDS)}" for _ in range(200))] for _ in range(40)]

  def run_lengths(max_ngram_size):
    found, _, _ = make_examples(
      vocab,
      documents,
      max_ngram_size=max_ngram_size,
      max_seq_length=512,
      max_predictions_per_seq=10,
      short_seq_prob=0.0,
      dupe_factor=10,
    )
    runs = collections.Counter()
    for record in found:
      positions = [position for position, _, _ in masked(record)]
      assert len(positions) == 10
      gaps = [-1, *(i for i in range(9) if positions[i + 1] != positions[i] + 1), 9]
      runs.update(end - start for start, end in itertools.pairwise(gaps))
    return runs

  single, runs = run_lengths(1), run_lengths(3)
  assert single[1] > 0.9 * sum(single.values())
  # Lengths 1, 2, 3 with weights 1, 1/2, 1/3 are 6/11, 3/11, 2/11, but for runs that touch, and the
  # last one of an example, which is cut by the quota.
  total = sum(runs.values())
  assert 0.5 < runs[1] / total < 0.65 and 0.2 < runs[2] / total < 0.33
  assert 0.1 < runs[3] / total < 0.22


def test_v2_names_and_gzip(tmp_path, text, vocab):
  create(
    bert_form(
      text[0], tmp_path / "x", use_v2_feature_names=True, gzip_compress=True, cls_segment_id=2
    ),
    vocab,
  )
  gzip.open(tmp_path / "x").read(1)
  record = next(read_records(tmp_path / "x", "GZIP"))
  assert sorted(record) == [
    "input_mask",
    "input_type_ids",
    "input_word_ids",
    "masked_lm_ids",
    "masked_lm_positions",
    "masked_lm_weights",
    "next_sentence_labels",
  ]
  assert record["input_type_ids"][0] == 2


def test_single_document_has_real_next_sentences_only(tmp_path, vocab, capfd, caplog):
  (tmp_path / "one.txt").write_text("w1 w2 w3\nw4\nw5 w6\n")
  create(bert_form(str(tmp_path / "one.txt"), tmp_path / "x", dupe_factor=20), vocab)
  found = list(read_records(tmp_path / "x"))
  assert {record["next_sentence_labels"][0] for record in found} == {0}
  assert all(all(bert_parts(record)) or len(bert_parts(record)[0]) == 1 for record in found)


def test_huge_document_is_no_neighbour_of_its_own_parts(vocab):
  """Its windows draw random sentences from the documents that came before."""
  encoder = pretraining_data.make_encoder("word_piece", vocab, True)
  rng = random.Random(2)
  huge = " ".join(f"w{rng.randrange(1000, 2000)}" for _ in range(5000))
  sentences = [(0, "w1 w2 w3 w4", 9), (1, "w5 w6 w7 w8", 9), *[(2, huge, 9)] * 4, (3, "w9 w10", 9)]
  builder = pretraining_data.BertExamples(
    encoder,
    "1",
    max_seq_length=64,
    max_predictions_per_seq=5,
    masked_lm_prob=0.15,
    short_seq_prob=0.1,
    dupe_factor=1,
    whole_word=False,
    max_ngram_size=1,
    cls_segment_id=0,
    use_v2_feature_names=False,
  )
  num_random, own = 0, collections.Counter()
  for window in corpus.read_windows(iter(sentences), encoder, window_tokens=4000):
    for record in builder(window):
      a, b = bert_parts(record)
      own.update(a)
      if record["next_sentence_labels"][0]:
        num_random += 1
        # w1 has id 6.
        of = [{"huge" if token >= 1005 else (token - 6) // 4 for token in ids} for ids in (a, b)]
        assert len(of[0]) == len(of[1]) == 1 and of[0] != of[1]
      else:
        own.update(b)
  assert num_random > 20
  assert own == count_tokens([[sentence for _, sentence, _ in sentences]], encoder.tokenizer)


# ---- Funnel's form ------------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", [{}, {"num_task": 4, "seq_len": 128}, {"seq_len": 5}])
def test_funnel_records_hold_each_token_once(tmp_path, text, funnel_vocab, kwargs):
  pattern, documents = text
  tokenizer = tokenization.get_tokenizer("word_piece", funnel_vocab, True)
  form = funnel_form(pattern, tmp_path, pass_id=3, split="dev", **kwargs)
  create(form, funnel_vocab)
  own, labels = collections.Counter(), collections.Counter()
  for task in range(form.num_task):
    end = f"{task:05d}-of-{form.num_task:05d}"
    stem = f"dev.pass-3.seq-{form.seq_len}.uncased"
    with open(tmp_path / f"meta.{stem}.json-{end}") as reader:
      meta = json.load(reader)
    assert meta["filenames"] == [f"data.{stem}.tfrecord-{end}"]
    found = list(read_records(tmp_path / meta["filenames"][0]))
    assert len(found) == meta["num_example"]
    for number, record in enumerate(found):
      ids = record["input"]
      assert len(ids) == len(record["seg_id"]) == form.seq_len
      if number < len(found) - 1:
        assert 0 not in ids, "only the last example is padded"
      ids = ids[: ids.index(0)] if 0 in ids else ids
      a, b = split_pair(ids, record["seg_id"], cls_segment=2)
      (label,) = record["label"]
      labels[label] += 1
      own.update(a)
      if label:
        own.update(b)
      else:
        assert owners(a, tokenizer).isdisjoint(owners(b, tokenizer))
      assert record["boundary"] == [
        position
        for position, token in enumerate(tokenizer.convert_ids_to_tokens(ids))
        if not token.startswith("##")
      ]
  assert own == count_tokens(documents, tokenizer)
  if form.seq_len == 128:
    assert 0.35 < labels[0] / sum(labels.values()) < 0.65


def test_funnel_passes_and_seeds_differ(tmp_path, text, funnel_vocab):
  contents = set()
  for number, (pass_id, seed) in enumerate([(0, 1), (1, 1), (0, 2)]):
    create(
      funnel_form(text[0], tmp_path / str(number), pass_id=pass_id), funnel_vocab, random_seed=seed
    )
    (path,) = glob.glob(str(tmp_path / str(number) / "data.*"))
    with open(path, "rb") as reader:
      contents.add(reader.read())
  assert len(contents) == 3


def test_end_of_paragraph_is_one_token(funnel_vocab, vocab):
  encoder = pretraining_data.make_encoder("word_piece", funnel_vocab, True)
  tokens = encoder.tokenizer.convert_ids_to_tokens(encoder("w1 w2<eop> w3 <eop>"))
  assert tokens == ["w1", "w2", "<eop>", "w3", "<eop>"]
  encoder = pretraining_data.make_encoder("word_piece", vocab, True)
  assert encoder("w1<eop> w2") == encoder("w1 w2"), "left out if the vocabulary has no symbol"


def test_funnel_windows_carry_the_rest_over(funnel_vocab):
  encoder = pretraining_data.make_encoder("word_piece", funnel_vocab, True)
  rng = random.Random(4)
  documents = make_documents(rng, 60)
  sentences = [
    (number, sentence, 1) for number, document in enumerate(documents) for sentence in document
  ]
  builder = pretraining_data.FunnelExamples(encoder, "1", seq_len=48)
  own, num_windows, padded = collections.Counter(), 0, 0
  records = []
  for window in corpus.read_windows(iter(sentences), encoder, window_tokens=100):
    records += builder(window)
    num_windows += 1
  for record in [*records, *builder.finish()]:
    ids = record["input"]
    padded += 0 in ids
    a, b = split_pair(ids[: ids.index(0)] if 0 in ids else ids, record["seg_id"], 2)
    own.update(a + b * record["label"][0])
  assert num_windows > 20 and padded <= 1
  assert own == count_tokens(documents, encoder.tokenizer)


def test_short_documents_can_be_left_out(tmp_path, funnel_vocab):
  (tmp_path / "t.txt").write_text("w1 w2\n\nw3 w4 w5\n\nw6\nw7 w8\n")
  create(funnel_form(str(tmp_path / "t.txt"), tmp_path / "out", min_doc_len=3), funnel_vocab)
  (path,) = glob.glob(str(tmp_path / "out" / "data.*"))
  (record,) = read_records(path)
  assert {3 + 9, 4 + 9, 5 + 9, 6 + 9, 7 + 9, 8 + 9} == {
    token for token in record["input"] if token >= 9
  }


# ---- The script: processes, kills, Beam ---------------------------------------------------------


def digests(folder):
  return {
    name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for name in sorted(os.listdir(folder))
  }


@pytest.mark.smoke
def test_script_makes_the_same_files_with_any_number_of_processes(tmp_path, text, vocab):
  flags = [
    "--vocab_file=" + vocab,
    "--do_lower_case=True",
    "--max_seq_length=32",
    "--max_predictions_per_seq=5",
    "--masked_lm_prob=0.15",
    "--random_seed=12345",
    "--dupe_factor=5",
    "--num_shards=3",
    f"--input_file={text[0]}",
  ]
  out, err = tiny.run(
    "create_pretraining_data.py",
    *flags,
    "--num_workers=2",
    f"--output_file={tmp_path / 'two' / 'tf_examples.tfrecord'}",
  )
  assert "3 record files to make with 2 processes" in err and "documents/s" in err
  assert "examples in 3 record files" in out
  create(
    bert_form(text[0], tmp_path / "one" / "tf_examples.tfrecord", dupe_factor=5, num_shards=3),
    vocab,
  )
  assert digests(tmp_path / "one") == digests(tmp_path / "two")
  assert len(digests(tmp_path / "one")) == 4

  specs = {
    name: tf.io.FixedLenFeature([length], dtype)
    for name, length, dtype in (
      ("input_ids", 32, tf.int64),
      ("input_mask", 32, tf.int64),
      ("segment_ids", 32, tf.int64),
      ("masked_lm_positions", 5, tf.int64),
      ("masked_lm_ids", 5, tf.int64),
      ("masked_lm_weights", 5, tf.float32),
      ("next_sentence_labels", 1, tf.int64),
    )
  }
  files = sorted(glob.glob(str(tmp_path / "one" / "*-of-00003")))
  parsed = next(
    iter(
      tf.data.TFRecordDataset(files)
      .batch(8)
      .map(lambda records: tf.io.parse_example(records, specs))
    )
  )
  assert parsed["input_ids"].shape == (8, 32)


def test_script_in_funnels_form(tmp_path, text, funnel_vocab):
  tiny.run(
    "create_pretraining_data.py",
    "--seq_len=64",
    f"--input_glob={text[0]}",
    f"--save_dir={tmp_path / 'two'}",
    "--pass_id=1",
    "--tokenizer_type=word_piece",
    f"--tokenizer_path={funnel_vocab}",
    "--uncased=True",
    "--num_task=3",
    "--num_workers=2",
  )
  for task in range(3):  # as on three machines
    create(
      funnel_form(text[0], tmp_path / "one", seq_len=64, pass_id=1, num_task=3, task=task),
      funnel_vocab,
    )
  assert digests(tmp_path / "one") == digests(tmp_path / "two")
  specs = {
    "input": tf.io.FixedLenFeature([64], tf.int64),
    "label": tf.io.FixedLenFeature([1], tf.int64),
    "seg_id": tf.io.FixedLenFeature([64], tf.int64),
    "boundary": tf.io.VarLenFeature(tf.int64),
  }
  path = tmp_path / "one" / "data.train.pass-1.seq-64.uncased.tfrecord-00000-of-00003"
  parsed = next(
    iter(
      tf.data.TFRecordDataset(str(path))
      .batch(4)
      .map(lambda records: tf.io.parse_example(records, specs))
    )
  )
  assert parsed["input"].shape == (4, 64)


def test_killed_run_leaves_whole_files_and_goes_on(tmp_path, text, vocab):
  form = bert_form(text[0], tmp_path / "killed" / "x", dupe_factor=40, num_shards=6)
  flags = [
    f"--vocab_file={vocab}",
    "--max_seq_length=32",
    "--max_predictions_per_seq=5",
    "--dupe_factor=40",
    "--num_shards=6",
    "--num_workers=2",
    f"--input_file={text[0]}",
    f"--output_file={form.output_file}",
  ]
  process = tiny.start("create_pretraining_data.py", *flags)
  while not glob.glob(form.output_file + "-*-of-00006") and process.poll() is None:
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=30)  # ends when the workers, who write to the same pipe, have ended
  assert process.returncode == -signal.SIGKILL
  there = glob.glob(form.output_file + "-*-of-00006")
  assert 0 < len(there) < 6 and not os.path.exists(form.output_file + ".meta.json")
  stamps = {path: os.stat(path).st_mtime_ns for path in there}
  for path in there:
    assert list(read_records(path)), "a whole file"
  (tmp_path / "killed" / f".{os.path.basename(there[0])}~machine-1").write_text("unfinished")

  create(form, vocab)
  assert {path: os.stat(path).st_mtime_ns for path in there} == stamps, "not made again"
  create(bert_form(text[0], tmp_path / "whole" / "x", dupe_factor=40, num_shards=6), vocab)
  assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
  create(form, vocab)  # complete: nothing to do
  assert {path: os.stat(path).st_mtime_ns for path in there} == stamps


def test_interrupted_run_ends_its_workers(tmp_path, text, vocab):
  flags = [
    f"--vocab_file={vocab}",
    "--dupe_factor=500",
    "--num_shards=6",
    "--num_workers=2",
    f"--input_file={text[0]}",
    f"--output_file={tmp_path / 'x'}",
  ]
  process = tiny.start("create_pretraining_data.py", *flags)
  while not glob.glob(str(tmp_path / ".x-*")) and process.poll() is None:
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=30)
  assert process.returncode == 143 and "Traceback" not in err


def test_beam_makes_the_same_files(tmp_path, text, vocab):
  pytest.importorskip("apache_beam", reason="pip install -r requirements-beam.txt")
  tiny.run(
    "create_pretraining_data.py",
    f"--vocab_file={vocab}",
    "--max_seq_length=32",
    "--max_predictions_per_seq=5",
    "--dupe_factor=2",
    "--num_shards=4",
    "--num_workers=2",
    f"--input_file={text[0]}",
    f"--output_file={tmp_path / 'beam' / 'x'}",
    "--runner=DirectRunner",
  )
  create(bert_form(text[0], tmp_path / "local" / "x", num_shards=4), vocab)
  assert digests(tmp_path / "beam") == digests(tmp_path / "local")


def test_beam_reports_bad_text_and_bad_runners(tmp_path, vocab):
  pytest.importorskip("apache_beam", reason="pip install -r requirements-beam.txt")
  (tmp_path / "bad.txt").write_bytes(b"w1\n\xff\n")
  form = bert_form(str(tmp_path / "bad.txt"), tmp_path / "x")
  with pytest.raises(UserError, match="not UTF-8 at line 2 .byte 3 "):
    create(form, vocab, runner="DirectRunner")
  assert glob.glob(str(tmp_path / ".x*")) == []
  with pytest.raises(UserError, match="--runner=Nobody failed: Unexpected pipeline runner"):
    create(form, vocab, runner="Nobody")


def test_missing_beam_says_how_to_get_it(tmp_path, text, vocab, monkeypatch):
  import preprocessing

  monkeypatch.setitem(sys.modules, "apache_beam", None)
  monkeypatch.delitem(sys.modules, "preprocessing.beam", raising=False)
  monkeypatch.delattr(preprocessing, "beam", raising=False)
  with pytest.raises(UserError, match="pip install -r requirements-beam.txt"):
    create(bert_form(text[0], tmp_path / "x"), vocab, runner="DirectRunner")


_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print("PEAK", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path, vocab):
  """The largest process, in MB, for 10 and 100 MB of text, in either form, of one unit."""
  rng = random.Random(1)
  peaks = {}
  for size in (10, 100):
    path = tmp_path / f"{size}.txt"
    with open(path, "w") as writer:
      while writer.tell() < size * 1e6:
        writer.writelines(
          " ".join(f"w{rng.randrange(NUM_WORDS)}" for _ in range(20)) + "\n"
          for _ in range(rng.randint(1, 40))
        )
        writer.write("\n")
    forms = {
      "bert": [
        f"--input_file={path}",
        f"--output_file={tmp_path / f'{size}.out'}",
        "--dupe_factor=2",
        f"--vocab_file={vocab}",
      ],
      "funnel": [
        f"--input_glob={path}",
        f"--save_dir={tmp_path / str(size)}",
        f"--vocab_file={vocab}",
      ],
    }
    for name, flags in forms.items():
      command = [sys.executable, "create_pretraining_data.py", *flags, "--num_workers=1"]
      out = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command],
        cwd=tiny.ROOT,
        check=True,
        capture_output=True,
        text=True,
      ).stdout
      peaks[name, size] = int(out.split("PEAK ")[1])
  print(peaks)
  for name in ("bert", "funnel"):
    assert peaks[name, 100] < 1.15 * peaks[name, 10], peaks
    assert peaks[name, 100] < 1000, peaks


# ---- Mistakes -----------------------------------------------------------------------------------


def test_mixed_flags():
  _, err = tiny.run(
    "create_pretraining_data.py", "--input_file=a", "--output_file=b", "--save_dir=c", status=1
  )
  assert "Traceback" not in err
  assert "--input_file --output_file belong to BERT's form of records, --save_dir to Funnel" in err


@pytest.mark.parametrize(
  "bert, funnel", [({"input_file"}, set()), (set(), {"save_dir"}), (set(), set())]
)
def test_flags_that_name_no_form(bert, funnel):
  with pytest.raises(UserError, match="give --input_file and --output_file for BERT's form"):
    create_pretraining_data.chosen_form(
      {pretraining_records.BertForm: bert, pretraining_records.FunnelForm: funnel}
    )


@pytest.mark.parametrize(
  "kwargs, message",
  [
    ({"masked_lm_prob": 15.0}, "--masked_lm_prob=15.0: must be a fraction"),
    ({"masked_lm_prob": 0.0}, "--masked_lm_prob=0.0: must be a fraction"),
    ({"short_seq_prob": -0.1}, "--short_seq_prob=-0.1"),
    ({"max_predictions_per_seq": 30}, "more than the 29 tokens that"),
    ({"input_file": "/nowhere/*.txt"}, "--input_file: no file matches /nowhere/\\*.txt"),
    ({"output_file": "x,x"}, "the names must differ"),
    ({"output_file": "/proc/nothing/x"}, "cannot write to this folder.*--output_file"),
  ],
)
def test_values_of_berts_form(text, vocab, kwargs, message):
  form = dataclasses.replace(bert_form(text[0], "unused"), **kwargs)
  with pytest.raises(UserError, match=message):
    create(form, vocab)


def test_tasks_count_from_0(tmp_path, text, vocab):
  with pytest.raises(UserError, match="--task=2 is beyond --num_task=2"):
    create(funnel_form(text[0], tmp_path, task=2, num_task=2), vocab)


def test_vocabularies_that_do_not_serve(tmp_path, text, vocab):
  form = bert_form(text[0], tmp_path / "x")
  with pytest.raises(UserError, match="--vocab_file .* is missing"):
    create(form, "")
  maskless = write_vocab(tmp_path / "maskless.txt", BERT_SYMBOLS[:-1])
  with pytest.raises(UserError, match=r"maskless.txt: the vocabulary lacks .\[MASK\]"):
    create(form, maskless)


def test_empty_corpus(tmp_path, vocab):
  path = tmp_path / "t.txt"
  path.write_text("")
  with pytest.raises(UserError, match="the files are empty"):
    create(bert_form(str(path), tmp_path / "x"), vocab)
  path.write_text("\n \n\n")
  with pytest.raises(UserError, match="no document in the input"):
    create(bert_form(str(path), tmp_path / "x"), vocab)
  assert os.listdir(tmp_path) == ["t.txt"]


def test_bytes_that_are_not_utf8(tmp_path, vocab, monkeypatch):
  monkeypatch.setattr(corpus, "_BLOCK_BYTES", 16)
  path = tmp_path / "t.txt"
  path.write_bytes(b"w1 w2\n\nw3 w4\nw5 w6\nw7 \xe9t\xe9 w8\n")
  for num_shards in (1, 4):
    form = bert_form(str(path), tmp_path / "x", num_shards=num_shards)
    with pytest.raises(UserError, match=r"t.txt: not UTF-8 at line 5 \(byte 22 of .*replace"):
      create(form, vocab, overwrite_data=True)
  create(form, vocab, errors="replace", overwrite_data=True)
  assert glob.glob(str(tmp_path / ".x*")) == []


def test_bad_byte_after_a_byte_order_mark_is_named_by_its_place(tmp_path, vocab):
  (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfw1 w2\xff\n")
  with pytest.raises(UserError, match=r"t.txt: not UTF-8 at line 1 \(byte 8 of the file, 0xff"):
    create(bert_form(str(tmp_path / "t.txt"), tmp_path / "x"), vocab)


def test_nothing_is_overwritten_unasked(tmp_path, text, vocab):
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
  create(funnel_form(text[0], folder, num_task=2, pass_id=1), vocab)  # another pass beside it


@pytest.mark.parametrize("gzip_compress", [False, True])
def test_old_record_files_are_removed_when_asked(tmp_path, text, vocab, gzip_compress):
  """Complete or not, empty or not."""
  form = bert_form(text[0], tmp_path / "x", num_shards=3, gzip_compress=gzip_compress)
  create(form, vocab)
  (tmp_path / "x-00000-of-00007").write_bytes(b"")
  (tmp_path / "x-00001-of-00007.done.json").write_text('{"num_example": 0}')
  create(dataclasses.replace(form, num_shards=2), vocab, overwrite_data=True)
  assert sorted(os.listdir(tmp_path)) == ["x-00000-of-00002", "x-00001-of-00002", "x.meta.json"]


def test_file_that_vanishes(tmp_path):
  piece = corpus.Piece(str(tmp_path / "gone.txt"), 0, 9)
  for path in (piece.path, "file://" + piece.path):
    with pytest.raises(UserError, match="gone.txt: cannot read: "):
      list(corpus.read_sentences([dataclasses.replace(piece, path=path)]))


def test_full_disk(tmp_path, text, vocab, monkeypatch):
  def write(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(tfrecord.Writer, "write", write)
  with pytest.raises(UserError, match="x: cannot write: No space left on device"):
    create(bert_form(text[0], tmp_path / "x"), vocab)
  assert os.listdir(tmp_path) == []


# ---- The wrapper --------------------------------------------------------------------------------


def wrapper(*args, **settings):
  return subprocess.run(
    ["bash", os.path.join(tiny.ROOT, "scripts", "prepro_pretrain.sh"), *args],
    text=True,
    capture_output=True,
    timeout=300,
    env=dict(os.environ, PYTHON=sys.executable, **{k: str(v) for k, v in settings.items()}),
  )


def test_wrapper_prints_the_commands():
  lines = wrapper("--dry_run", "--random_seed=7", INPUT="a/*.txt").stdout.splitlines()
  assert len(lines) == 2 and all(line.rstrip().endswith("--random_seed=7") for line in lines)
  assert "--max_seq_length=128 --max_predictions_per_seq=20 " in lines[0]
  assert "--max_seq_length=512 --max_predictions_per_seq=76 " in lines[1]
  lines = wrapper("--dry_run", FAMILY="funnel").stdout.splitlines()
  assert [f"--pass_id={number} " in line for number, line in enumerate(lines)] == [True] * 5
  assert "FAMILY must be bert or funnel, not gpt" in wrapper(FAMILY="gpt").stderr


@pytest.mark.slow
@pytest.mark.parametrize("family, count", [("bert", 2 * 3), ("funnel", 2 * 2 * 2)])
def test_wrapper_runs(tmp_path, text, vocab, family, count):
  result = wrapper(
    "--random_seed=7",
    FAMILY=family,
    INPUT=text[0],
    VOCAB=vocab,
    NUM_SHARDS=2,
    PASSES="0 1",
    OUTPUT_DIR=tmp_path,
  )
  assert result.returncode == 0, result.stderr
  assert sum(len(files) for _, _, files in os.walk(tmp_path)) == count


# ---- Vocabularies -------------------------------------------------------------------------------


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
def test_vocabularies_serve_and_are_deterministic(tmp_path, prose, tokenizer_type, symbols):
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
  # By the frequency of the words; WordPiece has them nearly whole, SentencePiece in parts.
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


def test_vocabulary_sizes_that_cannot_be(prose):
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


def test_a_task_may_be_left_without_a_document(tmp_path, funnel_vocab):
  """The files of separate tasks are those of one run, the empty ones included."""
  path = tmp_path / "t.txt"
  path.write_text("one short document\n")
  create(funnel_form(str(path), tmp_path / "whole", num_task=3), funnel_vocab)
  for task in range(3):
    create(funnel_form(str(path), tmp_path / "tasks", num_task=3, task=task), funnel_vocab)
  files = sorted(os.listdir(tmp_path / "whole"))
  assert len(files) == 6 and files == sorted(os.listdir(tmp_path / "tasks"))
  for name in files:
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "tasks" / name).read_bytes()
