"""Pretraining records of BERT and Funnel: each token occurs once, masks are valid."""

import collections
import glob
import gzip
import itertools
import json
import os
import random

import pytest
import tensorflow as tf
import tiny_pretraining
from tiny_pretraining import (
  BERT_SYMBOLS,
  NUM_WORDS,
  bert_form,
  bert_parts,
  count_tokens,
  create,
  funnel_form,
  make_documents,
  read_records,
  split_pair,
)

import tokenization
from preprocessing import tfrecord
from tasks import corpus, pretraining_data

text = tiny_pretraining.text
vocab = tiny_pretraining.vocab
funnel_vocab = tiny_pretraining.funnel_vocab


# ---- Record files -------------------------------------------------------------------------------


@pytest.mark.parametrize("use_gzip", [False, True])
def test_tensorflow_reads_the_records(tmp_path, use_gzip):
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


def test_negative_numbers_are_encoded():
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
  """Numbers of the documents, out of 60 of make_documents, that the words wN are from."""
  return {
    int(token[1:]) // (NUM_WORDS // 60)
    for token in tokenizer.convert_ids_to_tokens(ids)
    if token.startswith("w")
  }


def make_examples(vocab, documents, cls=pretraining_data.BertExamples, **kwargs):
  """Returns (features of one window, builder, encoder)."""
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
  """[(position, original token, replacement)] of a record's masked tokens."""
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
  """Positions of each word within a segment; ## continues a word."""
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
  # Lengths 1, 2, 3 have weights 1, 1/2, 1/3: shares 6/11, 3/11, 2/11. Adjacent runs and the last
  # run of an example, which the quota truncates, change them a little.
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


def test_huge_document_draws_random_sentences_from_others(vocab):
  """Its windows draw random sentences from earlier documents."""
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


def test_funnel_windows_carry_over_the_rest(funnel_vocab):
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


def test_a_task_may_have_no_document(tmp_path, funnel_vocab):
  """The files of separate tasks equal those of one run, including empty ones."""
  path = tmp_path / "t.txt"
  path.write_text("one short document\n")
  create(funnel_form(str(path), tmp_path / "whole", num_task=3), funnel_vocab)
  for task in range(3):
    create(funnel_form(str(path), tmp_path / "tasks", num_task=3, task=task), funnel_vocab)
  files = sorted(os.listdir(tmp_path / "whole"))
  assert len(files) == 6 and files == sorted(os.listdir(tmp_path / "tasks"))
  for name in files:
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "tasks" / name).read_bytes()
