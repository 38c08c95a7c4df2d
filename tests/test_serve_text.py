"""The signature serve_text: the ids of tokenization.py, and the predictions of the script."""

import os
import random
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_serving

import modeling
import tokenization
from errors import UserError
from serving import saved_model
from tasks import base

pytest.importorskip("tensorflow_text", reason="pip install --no-deps -r requirements-text.txt")
from serving import text  # noqa: E402

v1 = tf.compat.v1

ODD = [
  "",
  "   ",
  "The FILM was good, wasn't it?",
  "Fine.Fine!!  film\tstory\r\ngood\u2028bad\u2029dull",
  "caf\u00e9 CAFE\u0301 \u00c5ngstr\u00f6m na\u00efve \u01d5 \u1e9b\u0323",
  "\u039f\u0394\u039f\u03a3 \u0130stanbul STRA\u00dfE \u1e9e \ufb01lm",
  "good\u00adfilm \u200bfilm\u200d \ufeffbad \u0000x\ufffdy \u0007",
  "\u4e2d\u6587film\u6587\u5b57 \ud55c\uad6d\uc5b4 \u30ab\u30bf\u30ab\u30ca \U00020000",
  "\u00a0nbsp\u2003em\u3000wide \u0085next\u000bline\u000cpage \u1680 \u205f",
  "5\u20ac 5% $5 a+b=c <film> ^`|~ \u00abgood\u00bb \u2014 \u2026 \u00bf\u00a1 \u1fef",
  "\U0001f600 film\U0001f600film \u2764\ufe0f",
  "[MASK] [CLS] [PAD] [UNK] ##s films good##s",
  "good" * 50 + " " + "good" * 51 + " " + "\u00e9" * 200 + " " + "\u00e9" * 201,
  "\ue000private \U000f0000 \U0010fffd \u0378unassigned",
  "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1",
  "\u05e8\u05d9\u05ea \u0939\u093f\u0928\u094d",
  "\u0926\u0940 \u0e44\u0e17\u0e22",
]


def write_vocab(path):
  """Letters of ODD and their continuations, so that differences in any character show."""
  letters = sorted(
    {
      char
      for text in ODD
      for form in (text, text.lower(), tokenization.BasicTokenizer().tokenize(text))
      for word in form
      for char in word
      if not char.isspace()
    }
  )
  words = [*tiny.VOCAB, *(set(letters) - set(tiny.VOCAB)), *(f"##{char}" for char in letters)]
  path.write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
  return str(path)


@pytest.mark.parametrize(
  "uncased, strip_accents, chinese", [(True, None, True), (False, True, False)]
)
def test_ids_of_odd_texts_are_those_of_the_tokenizer(tmp_path, uncased, strip_accents, chinese):
  tokenizer = tokenization.FullTokenizer(
    write_vocab(tmp_path / "vocab.txt"), uncased, (), strip_accents, chinese
  )
  draw = random.Random(1)
  mixed = ["".join(draw.choices("".join(ODD), k=30)) for _ in range(200)]
  texts = [*(text.encode() for text in (*ODD, *mixed)), b"go\xff\xfeod \xc3( film \xe4\xb8"]
  with tf.Graph().as_default(), v1.Session() as session:
    found = text.token_ids(tf.constant(texts), tokenizer)
    session.run(v1.tables_initializer())
    rows = session.run(found).to_list()
  for raw, row in zip(texts, rows, strict=True):
    tokens = tokenizer.convert_ids_to_tokens(row)
    assert tokens == tokenizer.tokenize(raw), raw
  assert sum(map(len, rows)) > 2000


def test_pairs_are_cut_as_in_records(tmp_path):
  tokenizer = tokenization.FullTokenizer(write_vocab(tmp_path / "vocab.txt"))
  lengths = [0, 1, 2, 3, 4, 5, 6, 7, 12]
  pairs = [("film " * a, "bad " * b) for a in lengths for b in lengths]
  bert_config = modeling.BertConfig(vocab_size=10)
  max_seq_length = 10
  with tf.Graph().as_default(), v1.Session() as session:
    texts = text.placeholders(is_pair=True)
    found = text.ids(texts, tokenizer, bert_config, max_seq_length, cls_segment_id=2)
    session.run(v1.tables_initializer())
    columns = dict(zip(texts.values(), zip(*pairs, strict=True), strict=True))
    arrays = session.run(found, columns)
  assert arrays["input_ids"].shape == (len(pairs), max_seq_length)
  for row, pair in enumerate(pairs):
    for name, values in base.pair_features(*pair, tokenizer, max_seq_length, 2).items():
      padding = [0] * (max_seq_length - len(values))
      assert arrays[name][row].tolist() == values + padding, (name, pair)


def test_an_encoder_reads_texts(tmp_path):
  folder = tiny.write_encoder(tmp_path / "bert", num_layers=1)
  path = saved_model.export(folder, str(tmp_path / "out"), True, max_seq_length=16)
  signatures = tf.saved_model.load(path).signatures
  tokenizer = tokenization.FullTokenizer(os.path.join(folder, "vocab.txt"))
  pair = ("a film", "it was good")
  found = signatures["serve_text"](
    text_a=tf.constant([pair[0], ""]), text_b=tf.constant([pair[1], ""])
  )
  features = base.pair_features(*pair, tokenizer, 16, 0)  # serve_text pads, serve gets one row
  exact = signatures["serve"](**{name: tf.constant([ids]) for name, ids in features.items()})
  assert found["cls_-1"].shape == (2, 16)
  for name in ("cls_-1", "mean_-1", "pooled_output"):
    np.testing.assert_allclose(found[name][0], exact[name][0], atol=1e-6)
  with pytest.raises(UserError, match="--max_seq_length=128 is beyond the model's 32 positions"):
    saved_model.export(folder, str(tmp_path / "out"), serve_text=True)


# Python's rules and TensorFlow's are of different versions of Unicode. Letters of Unicode 14 and
# later: five that lie among older ones, and those from U+10570 on.
NEW = {0x2C2F, 0xA7C0, 0xA7D0, 0xA7D6, 0xA7D8}


@pytest.mark.slow
@pytest.mark.parametrize("uncased", [True, False])
def test_all_characters_but_new_letters_give_the_same_words(uncased):
  basic = tokenization.BasicTokenizer(uncased)
  codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
  texts = [f"a{chr(code)}b" for code in codes]
  draw = random.Random(2)
  pools = [
    [code for code in codes if unicodedata.category(chr(code)) in ("Mn", "Mc", "Lm", "Ll", "Lu")],
    [*range(0x300, 0x400), *map(ord, " aeIi.'\u00ad\u0130")],  # accents; forms of sigma
  ]
  pools = [[code for code in pool if code < 0x10570 and code not in NEW] for pool in pools]
  mixed = ["".join(map(chr, draw.choices(pool, k=12))) for pool in pools for _ in range(20000)]
  with tf.Graph().as_default(), v1.Session() as session:
    given = v1.placeholder(tf.string, [None])
    found = text.words(given, basic)
    rows = session.run(found, {given: [one.encode() for one in texts + mixed]}).to_list()
  wrong = [
    one
    for one, row in zip(texts + mixed, rows, strict=True)
    if [word.decode() for word in row] != basic.tokenize(one)
  ]
  different = {ord(one[1]) for one in wrong if len(one) == 3}
  assert len(different) == len(wrong), "only single characters differ"
  assert all(code in NEW or 0x10570 <= code < 0x20000 for code in different)
  if not uncased:
    assert not different
  elif sys.version_info[:2] == (3, 11) and tf.__version__.startswith("2.21."):
    assert len(different) == 60


@pytest.mark.slow
def test_texts_give_the_predictions_of_the_script(tmp_path):
  model_dir, pairs = tiny_serving.make("classification", "bert", tmp_path)
  path = saved_model.export(model_dir, str(tmp_path / "out"), serve_text=True)
  signatures = tf.saved_model.load(path).signatures
  columns = [tf.constant(column) for column in zip(*pairs, strict=True)]
  found = signatures["serve_text"](text_a=columns[0], text_b=columns[1])
  exact = np.loadtxt(os.path.join(model_dir, "test_results.tsv"))
  np.testing.assert_allclose(found["probabilities"], exact, atol=1e-6)
  ids = tf.constant([[2, 6, 3]])  # the other signature does not need texts
  signatures["serve"](input_ids=ids, input_mask=tf.ones_like(ids), segment_ids=tf.zeros_like(ids))


@pytest.mark.slow
def test_a_funnel_reads_texts_and_other_jobs_do_not(tmp_path):
  (tmp_path / "race").mkdir()
  folder = tiny.write_funnel(tmp_path / "funnel")
  path = saved_model.export(folder, str(tmp_path / "out"), serve_text=True)
  serve = tf.saved_model.load(path).signatures["serve_text"]
  found = serve(text_a=tf.constant(["a film", ""]), text_b=tf.constant(["", "it was good"]))
  assert found["cls_-1"].shape == (2, 16)
  model_dir, _ = tiny_serving.make("race", "bert", tmp_path / "race")
  with pytest.raises(UserError, match="--serve_text: a request of the job race is no text"):
    saved_model.export(model_dir, str(tmp_path / "race_out"), serve_text=True)
