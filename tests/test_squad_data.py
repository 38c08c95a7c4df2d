"""SQuAD files, offsets between characters and tokens, and windows."""

import gzip
import json
import os
import random
import re

import pytest
import tiny

import tokenization
from errors import UserError
from tasks import squad as squad_task
from tasks import squad_data
from tasks.settings import Squad

DATA = os.environ.get("SQUAD_DIR", "")
SPIECE = os.environ.get("SENTENCEPIECE_MODEL", "")

# Characters of real passages in addition to plain words: accents in both forms, ideographs, emoji
# of several characters, marks, quotes, spaces and line ends of all kinds, invisible characters,
# final sigma, characters that become two or none.
SPECIALS = [
  "Éa",
  "e\u0301",
  "ǟ",
  "中",
  "国",
  "👩\u200d👩\u200d👧",
  "🏴\U000e0067\U000e007f",
  "☝\ufe0f",
  "\r\n",
  "  ",
  "\t",
  "\u00a0",
  "\u2028",
  "\u00ad",
  "\u200b",
  "ΟΔΟΣ",
  "Σ",
  "İ",
  "한국",
  "ﬁ",
  "½",
  "``",
  "''",
  "'",
  '"',
  "“",
  "”",
  ".",
  "…",
  "¨",
  "\u0300\u0316",
  "\u302e\u0301",
  "\ufffd",
  "\x0c",
  "\u1fef",
  "`",
  "\u0f71\u0f74",
  "\u1100\u1161\u11a8",
  "क्षि",
  "ไทย",
  "\u05b0\u05b9",
  "\u202bعر\u202c",
  "\u0344",
  "<",
  "##",
  "\U0001d15e",
  "2,000",
  "$5",
]
WORDS = ["film", "Story", "the", "bad", "s", "goods", " ", " ", " "]


def random_text(rng):
  if rng.random() < 0.3:
    ranges = ((0x20, 0x250), (0x300, 0x3000), (0xA000, 0xD7FF), (0xE000, 0x2FFFF), (32, 32))
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 15)))
  return "".join(rng.choice(rng.choice((SPECIALS, WORDS))) for _ in range(rng.randint(1, 15)))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tokenizers")
  pieces = [
    *tiny.VOCAB,
    *"abcdefghijklmnopqrstuvwxyzÉİΣσς中ᄀ",
    *("##" + c for c in "abcdefgoσςᅡᆨ"),
    "stor",
    "##y",
    "Stor",
  ]
  vocab = folder / "vocab.txt"
  vocab.write_text("\n".join(dict.fromkeys(pieces)))
  found = {
    "uncased": tokenization.FullTokenizer(vocab),
    "cased": tokenization.FullTokenizer(vocab, do_lower_case=False),
    "never_split": tokenization.FullTokenizer(vocab, never_split=("the", "##")),
  }
  model = SPIECE or train_sentencepiece(folder)
  for lower in (False, True):
    for accents in (False, True):
      found[f"sentencepiece {lower} {accents}"] = tokenization.SentencePieceTokenizer(
        model, lower, accents
      )
  return found


def train_sentencepiece(folder):
  sentencepiece = pytest.importorskip("sentencepiece")
  rng = random.Random(5)
  with open(folder / "text.txt", "w") as writer:
    for text, _ in tiny.sentences(300, 1):
      writer.write(f"{text} {rng.choice(['Story', 'films', 'café', '½ of it', '中国'])}\n")
  sentencepiece.SentencePieceTrainer.train(
    input=str(folder / "text.txt"),
    model_prefix=str(folder / "model"),
    vocab_size=80,
    user_defined_symbols=["<cls>", "<sep>", "<pad>", "<mask>"],
    pad_id=-1,
    minloglevel=2,
    hard_vocab_limit=False,
    character_coverage=1.0,
  )
  return str(folder / "model.model")


def test_tokens_are_the_tokenizers_and_cover_the_text(tokenizers):
  rng = random.Random(1)
  for _ in range(1500):
    text = random_text(rng)
    for name, tokenizer in tokenizers.items():
      ids, starts, ends = tokenizer.tokenize_with_offsets(text)
      assert ids == tokenizer.convert_text_to_ids(text), (name, text)
      assert len(ids) == len(starts) == len(ends)
      assert starts == sorted(starts) and ends == sorted(ends), (name, text)
      covered = {i for start, end in zip(starts, ends, strict=True) for i in range(start, end)}
      for word in re.finditer(r"\S+", text):
        inside = set(range(*word.span()))
        assert inside <= covered or not inside & covered, (name, text, word[0])


def test_offsets_of_known_texts(tokenizers):
  def slices(text, name="uncased"):
    _, starts, ends = tokenizers[name].tokenize_with_offsets(text)
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]

  assert slices("A  stóryd's\r\nfilm, 中国.") == [
    "A",
    "stóry",
    "d",
    "'",
    "s",
    "film",
    ",",
    "中",
    "国",
    ".",
  ]
  assert slices("sto\u0301ry\u0301d\u0301 a") == ["sto\u0301ry\u0301", "d\u0301", "a"]
  assert slices("unknown\u00ad  \u200bwords \u00ad") == ["unknown\u00ad", "\u200bwords"]
  assert slices("\u202bgood\u202c ☝\ufe0f") == ["\u202bgood\u202c", "☝\ufe0f"]
  assert slices("x" * 201 + " a") == ["x" * 201, "a"], "too long a word is one unknown token"
  assert slices("한") == ["한"]


# Tokenizers disagree on these: form feeds separate words for Python, BERT removes them;
# SentencePiece replaces invisible characters by spaces, which become part of a token.
AMBIGUOUS = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
AMBIGUOUS_TO_SENTENCEPIECE = re.compile(
  "[\x00-\x1f\x7f-\x9f\u00a8\u00ad\u200b-\u200f\u202a-\u202e\ufeff\ufffd]"
)


@pytest.mark.parametrize("seed", range(3))
def test_text_to_tokens_to_span_to_text_is_the_identity(tokenizers, seed):
  rng = random.Random(seed)
  checked = 0
  for _ in range(600):
    context = random_text(rng)
    words = [word.span() for word in re.finditer(r"\S+", context)]
    for name, tokenizer in tokenizers.items():
      if AMBIGUOUS.search(context) or (
        "sentencepiece" in name and AMBIGUOUS_TO_SENTENCEPIECE.search(context)
      ):
        continue
      passage = squad_data.Passage(context, *tokenizer.tokenize_with_offsets(context))
      if not words:
        assert not passage.ids or "sentencepiece" in name
        continue
      first, last = sorted(rng.choices(range(len(words)), k=2))
      start, end = words[first][0], words[last][1]
      span = passage.pieces_of(start, end)
      if span is None:  # nothing of these words is left
        assert not tokenizer.tokenize(context[start:end]) or "sentencepiece" in name
        continue
      kept = [w for w in words[first : last + 1] if passage.pieces_of(*w)]
      assert passage.text_of(*span) == context[kept[0][0] : kept[-1][1]], (name, context)
      # For any span of characters, the text of its tokens contains all of them that are in a token,
      # and begins and ends with tokens that contain one of them.
      a, b = sorted(rng.choices(range(len(context) + 1), k=2))
      span = passage.pieces_of(a, b) if a < b else None
      if span:
        start, end = passage.starts[span[0]], passage.ends[span[1]]
        assert passage.starts[span[0]] < b and passage.ends[span[0]] > a
        assert passage.starts[span[1]] < b and passage.ends[span[1]] > a
        for s, e in zip(passage.starts, passage.ends, strict=True):
          assert e <= a or s >= b or (start <= s and e <= end), (name, context, a, b)
      checked += 1
  assert checked > 1000


def test_time_is_linear_in_the_length(tokenizers):
  """A passage of 200,000 combining marks on one base character is read fast."""
  text = "a" + "\u0301\u0316" * 100_000 + " b"
  for name in ("uncased", "sentencepiece False False"):
    _, starts, ends = tokenizers[name].tokenize_with_offsets(text)
    assert (starts[0], ends[0]) == (0, 200_001)


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="SQUAD_DIR is not set")
@pytest.mark.parametrize("name", ["uncased", "cased"])
def test_every_answer_of_real_data_is_found(name):
  """Tokens of each answer in the real files give its text, except for parts of words."""
  tokenizer = tokenization.FullTokenizer(os.environ["VOCAB_FILE"], do_lower_case=name == "uncased")
  total = exact = 0
  for file in sorted(os.listdir(DATA)):
    if not file.endswith(".json"):
      continue
    for paragraph in squad_data.read_squad(os.path.join(DATA, file)):
      passage = squad_data.Passage(
        paragraph.context, *tokenizer.tokenize_with_offsets(paragraph.context)
      )
      assert passage.ids == tokenizer.convert_text_to_ids(paragraph.context)
      for question in paragraph.questions:
        if question.answers:
          text = question.answers[0]
          found = squad_data.find_answer(passage.context, text, question.answer_start)
          total += 1
          exact += passage.text_of(*passage.pieces_of(*found)) == text
          assert text in passage.text_of(*passage.pieces_of(*found))
  assert total > 1000 and exact / total > 0.99, (exact, total)


# ---- Windows ------------------------------------------------------------------------------------


def naive_owner(piece, spans):
  """Number of the window in which the token has the most context, by BERT's rule."""
  best, owner = None, None
  for index, (start, length) in enumerate(spans):
    end = start + length - 1
    if start <= piece <= end:
      score = min(piece - start, end - piece) + 0.01 * length
      if best is None or score > best:
        best, owner = score, index
  return owner


def test_windows_cover_the_passage_and_own_each_token_once():
  rng = random.Random(3)
  for _ in range(500):
    count, room, stride = rng.randint(1, 90), rng.randint(1, 30), rng.randint(1, 40)
    windows = squad_data.cut_windows(count, room, stride)
    spans = [(window.start, window.end - window.start) for window in windows]
    assert all(0 < length <= room for _, length in spans)
    assert windows[-1].end == count
    owned = [piece for window in windows for piece in range(window.own_start, window.own_end)]
    assert owned == list(range(count))
    for index, window in enumerate(windows):
      assert window.start <= window.own_start and window.own_end <= window.end
      for piece in range(window.own_start, window.own_end):
        assert naive_owner(piece, spans) == index, (count, room, stride, piece)


def test_windows_of_a_known_case():
  windows = squad_data.cut_windows(13, 8, 4)
  assert [(w.start, w.end, w.own_start, w.own_end) for w in windows] == [
    (0, 8, 0, 6),
    (4, 12, 6, 10),
    (8, 13, 10, 13),
  ]
  assert len(squad_data.cut_windows(8, 8, 4)) == 1


class Ids:
  cls_id, sep_id = 101, 102


def test_features_of_both_families():
  passage = squad_data.Passage("a b c d", [1, 2, 3, 4], [0, 2, 4, 6], [1, 3, 5, 7])
  window = squad_data.Window(1, 4, 1, 4)
  bert = squad_data.window_features(squad_data.BERT_LAYOUT, Ids, [7, 8], passage, window, (2, 3))
  assert bert == {
    "input_ids": [101, 7, 8, 102, 2, 3, 4, 102],
    "input_mask": [1] * 8,
    "segment_ids": [0, 0, 0, 0, 1, 1, 1, 1],
    "start_positions": 5,
    "end_positions": 6,
    "is_impossible": 0,
  }
  funnel = squad_data.window_features(
    squad_data.FUNNEL_LAYOUT, Ids, [7, 8], passage, window, (0, 1)
  )
  assert funnel == {
    "input_ids": bert["input_ids"],
    "input_mask": [1] * 8,
    "segment_ids": [2, 1, 1, 1, 0, 0, 0, 0],
    "cls_index": 0,
    "p_mask": [0, 1, 1, 1, 0, 0, 0, 1],
    "start_positions": 0,
    "end_positions": 0,
    "is_impossible": 1,
  }, "the answer is cut off"


# ---- Reading ------------------------------------------------------------------------------------


def test_find_answer():
  context = "It is  a\r\nlong “tale”."
  assert squad_data.find_answer(context, "long", 10) == (10, 14)
  assert squad_data.find_answer(context, "is a long", 3) == (3, 14)
  assert squad_data.find_answer(context, " a\nlong", 5) == (5, 14)
  assert squad_data.find_answer(context, "long", 9) == (9, 14)
  assert squad_data.find_answer(context, "long", 11) is None
  assert squad_data.find_answer(context, "It", -22) is None
  assert squad_data.find_answer(context, "It", 10**30) is None


def qa(question_id="q1", **values):
  return {
    "id": question_id,
    "question": "what ?",
    "answers": [{"text": "film", "answer_start": 2}],
    **values,
  }


def squad(*qas, context="a film", **paragraph):
  return {
    "version": "1.1",
    "data": [{"title": "T", "paragraphs": [{"context": context, "qas": list(qas), **paragraph}]}],
  }


def test_reading(tmp_path):
  path = tmp_path / "squad.json"
  impossible = qa("q2", is_impossible=True, answers=[], plausible_answers=[])
  unanswered = {"id": 3, "question": "?"}
  path.write_text("\ufeff" + json.dumps(squad(qa(), impossible, unanswered)))
  (paragraph,) = squad_data.read_squad(str(path))
  assert paragraph.context == "a film"
  assert [(q.id, q.answers, q.answer_start) for q in paragraph.questions] == [
    ("q1", ["film"], 2),
    ("q2", [], None),
    ("3", None, None),
  ]


@pytest.mark.parametrize(
  "content, message",
  [
    ("[1]", r"bad.json: not SQuAD: a JSON object with the key 'data' is expected, not a list"),
    ("{", r"bad.json: not valid JSON"),
    ("{}", r"bad.json: not SQuAD: no key 'data'; the keys are none"),
    ({"data": []}, r"bad.json: the file has no questions"),
    ({"data": [{"title": "T"}]}, r"article 1 \(T\): not SQuAD: no key 'paragraphs'; the keys are"),
    (
      {"data": [{"paragraphs": [{"qas": []}]}]},
      r"article 1, paragraph 1: not SQuAD: no key 'context'",
    ),
    ({"data": [{"paragraphs": [{"context": "a"}]}]}, r"paragraph 1: not SQuAD: no key 'qas'"),
    (squad(qa(), context=" \n"), r"article 1 \(T\), paragraph 1: the context is blank"),
    (squad({"question": "?"}), r"paragraph 1, question 1: not SQuAD: no key 'id'"),
    (squad({"id": "x"}), r"paragraph 1, question x: not SQuAD: no key 'question'"),
    (squad(qa(answers={})), r"question q1: not SQuAD: 'answers' is a dict"),
    (squad(qa(answers=[{"answer_start": 1}])), r"question q1, answer 1: not SQuAD: no key 'text'"),
    (
      squad(qa(answers=[{"text": "film", "answer_start": "2"}])),
      r"answer 1: not SQuAD: 'answer_start' is a str",
    ),
    (squad(qa(is_impossible="false")), r"question q1: not SQuAD: 'is_impossible' is a str"),
    (
      {"data": [{"title": "\ud83d", "paragraphs": []}]},
      r"bad.json: 'data\[0\].title' holds half of a surrogate pair",
    ),
    (squad(qa(True)), r"question 1: not SQuAD: 'id' is a bool"),
    (
      squad(qa(answers=[{"text": "film", "answer_start": False}])),
      r"answer 1: not SQuAD: 'answer_start' is a bool",
    ),
    ("[" * 10**5, r"not valid JSON: maximum recursion"),
    (squad(qa("a\ud83d")), r"'data.*qas\[0\].id' holds half of a surrogate pair"),
    (
      squad(qa(), qa()),
      r"paragraph 1, question 2: the id 'q1' is also the id of .*question 1; ids",
    ),
    (squad(qa(question="\ud83d")), r"qas\[0\].question' holds half of a surrogate pair"),
  ],
)
def test_bad_files_are_refused(tmp_path, content, message):
  path = tmp_path / "bad.json"
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  with pytest.raises(UserError, match=message):
    squad_data.read_squad(str(path))


def test_missing_and_non_utf8_files_are_named(tmp_path):
  with pytest.raises(UserError, match="no such file; name the SQuAD files with --train_file"):
    squad_data.read_squad(str(tmp_path / "absent.json"))
  (tmp_path / "latin.json").write_bytes(b'{"data": "\xe9"}')
  with pytest.raises(UserError, match="latin.json: line 1 is not UTF-8"):
    squad_data.read_squad(str(tmp_path / "latin.json"))


def test_training_accepts_duplicate_ids(tmp_path, caplog):
  path = tmp_path / "train.json"
  path.write_text(json.dumps(squad(qa(), qa(), qa("q2"))))
  settings = Squad(train_file=str(path), predict_file=str(path))
  task = squad_task.SquadTask(settings)
  (paragraph,) = task.read_examples("train")
  assert [question.id for question in paragraph.questions] == ["q1", "q1", "q2"]
  assert "question 2: the id 'q1' is also the id of" in caplog.text
  assert "(1 ids are repeated); training uses all of the questions" in caplog.text
  with pytest.raises(UserError, match="ids are the keys of the predictions"):
    task.read_examples("predict")


def test_compressed_files(tmp_path):
  path = tmp_path / "train.json.gz"
  path.write_bytes(gzip.compress(json.dumps(squad(qa())).encode()))
  (paragraph,) = squad_data.read_squad(str(path))
  assert paragraph.context == "a film"
