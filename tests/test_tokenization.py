"""tokenization.py follows BERT's published rules and equals the `tokenizers` package."""

import os
import pickle
import random
import string
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from absl import flags
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import tokenization
from errors import UserError
from text import wordpiece
from tokenization import BasicTokenizer, FullTokenizer, WordpieceTokenizer, get_tokenizer

BERT_SYMBOLS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FUNNEL_SYMBOLS = ["<pad>", "<s>", "</s>", "<unk>", "<cls>", "<sep>", "<mask>", "<eod>", "<eop>"]
WORDS = ["want", "##want", "##ed", "wa", "un", "runn", "##ing", ",", "[", "]", "mask", "a"]


def write_vocab(folder, tokens, name="vocab.txt", end="\n"):
  (folder / name).write_bytes("".join(token + end for token in tokens).encode())
  return str(folder / name)


def fails(message, function, *arguments):
  with pytest.raises(UserError, match=message):
    function(*arguments)


LOWER_CASES = {
  "control characters vanish": ("a\x00b\x01c\x1fd\x7fe\x85f\ufffdgé", ["abcdefge"]),
  "vertical tab and form feed too": ("a\x0bb\x0cc\x00\x1f\x7f", ["abc"]),
  "format characters too": ("co\u00adop \u200bwi\u200bde \ufeffbom\u200d", ["coop", "wide", "bom"]),
  "whitespace": ("a\tb\nc\rd e\u00a0f\u3000g\u2009h", list("abcdefgh")),
  "line and paragraph separators": ("a\u2028b\u2029c", list("abc")),
  "blank": (" \t\n\x00", []),
  "ideographs": ("ah\u535a\u63a8zz", ["ah", "\u535a", "\u63a8", "zz"]),
  "hangul and kana stay together": ("かな カナ", ["かな", "カナ"]),
  "accents": ("HéLLo ÀÇÑ Ångström", ["hello", "acn", "angstrom"]),
  "combining marks": ("e\u0301 \u0301 x\u0327\u0323y", ["e", "xy"]),
  "dotted capital i": ("İstanbul", ["istanbul"]),
  "final sigma": ("ΟΔΟΣ ΣΑΣ.", ["οδος", "σας", "."]),
  "punctuation of ASCII": ("a$b^c`d~e|f", list("a$b^c`d~e|f")),
  "punctuation of Unicode": ("«oui»…—‘x’¿", ["«", "oui", "»", "…", "—", "‘", "x", "’", "¿"]),
  "symbols are no punctuation": ("5€ ©2020 a→b", ["5€", "©2020", "a→b"]),
  "punctuation that NFD makes": ("a\u1fefb\u037ec", ["a", "`", "b", ";", "c"]),
  "private use and unassigned stay": ("a\ue000b \u0378", ["a\ue000b", "\u0378"]),
  "special symbols are not special": ("[MASK]", ["[", "mask", "]"]),
}


@pytest.mark.parametrize("name", LOWER_CASES)
def test_basic_lower(name):
  text, words = LOWER_CASES[name]
  assert BasicTokenizer().tokenize(text) == words


def test_basic_ideograph_ranges():
  tokenizer = BasicTokenizer(do_lower_case=False)
  inside = [0x4E00, 0x9FFF, 0x3400, 0x4DBF, 0x20000, 0x2A6DF, 0x2A700, 0x2B73F, 0x2B740, 0x2B81F]
  inside += [0x2B820, 0x2CEAF, 0xF900, 0xFAFF, 0x2F800, 0x2FA1F]
  for code in inside:
    assert tokenizer.tokenize(f"a{chr(code)}b") == ["a", chr(code), "b"], hex(code)
  for code in [0x4DC0, 0xA000, 0x33FF, 0x2A6E0, 0x2CEB0, 0xFB00, 0x2FA20, 0x3042, 0xAC00]:
    assert tokenizer.tokenize(f"a{chr(code)}b") == [f"a{chr(code)}b"], hex(code)


def test_basic_cased_and_never_split():
  text = "HéLLo, \u0130 e\u0301 ΟΔΟΣ\x07!"
  assert BasicTokenizer(False).tokenize(text) == ["HéLLo", ",", "İ", "e\u0301", "ΟΔΟΣ", "!"]

  tokenizer = BasicTokenizer(never_split=("[MASK]", "[MASK]2"))
  words = ["a", "[MASK]", ",", "b", "[MASK]2", "[", "mask", "]"]
  assert tokenizer.tokenize("A [MASK], b[MASK]2 [mask]") == words


def test_text_functions():
  assert tokenization.convert_to_unicode("é") == "é"
  assert tokenization.convert_to_unicode("é".encode() + b"\xff") == "é"
  with pytest.raises(ValueError, match="int"):
    tokenization.convert_to_unicode(3)
  assert tokenization.preprocess_text("  A \n É ``ﬁ'' ") == 'A E "fi"'
  assert tokenization.preprocess_text("É ﬁ", lower=True, keep_accents=True) == "é ﬁ"


def test_wordpiece():
  vocab = {token: i for i, token in enumerate(["[UNK]", *WORDS, "ab", "##bc"])}
  tokenizer = WordpieceTokenizer(vocab)
  assert tokenizer.tokenize("") == []
  assert tokenizer.tokenize("unwanted running") == ["un", "##want", "##ed", "runn", "##ing"]
  assert tokenizer.tokenize("unwantedX running") == ["[UNK]", "runn", "##ing"]
  assert tokenizer.tokenize("abc") == ["[UNK]"]  # greedy: "ab" leaves "##c"
  assert WordpieceTokenizer({}).tokenize("a") == ["[UNK]"]


def test_wordpiece_long_words():
  tokenizer = WordpieceTokenizer({"[UNK]": 0, "a": 1, "##a": 2})
  assert tokenizer.tokenize("a" * 200) == ["a"] + ["##a"] * 199
  assert tokenizer.tokenize("a" * 201) == ["[UNK]"]
  tokenizer = WordpieceTokenizer(tokenizer.vocab, "?", max_input_chars_per_word=2)
  assert tokenizer.tokenize("aa aaa") == ["a", "##a", "?"]


def test_wordpiece_cache_is_bounded(monkeypatch):
  monkeypatch.setattr(wordpiece, "_MAX_CACHED_WORDS", 3)
  tokenizer = WordpieceTokenizer({"[UNK]": 0, "a": 1, "##a": 2})
  for _ in range(2):
    for n in range(1, 9):
      assert tokenizer.tokenize("a" * n) == ["a"] + ["##a"] * (n - 1)
      assert len(tokenizer._cache) <= 3


@pytest.mark.parametrize("symbols", [BERT_SYMBOLS, FUNNEL_SYMBOLS])
def test_full_tokenizer(tmp_path, symbols):
  path = write_vocab(tmp_path, symbols + WORDS)
  tokenizer = FullTokenizer(path)
  unk = "[UNK]" if symbols is BERT_SYMBOLS else "<unk>"
  pieces = ["un", "##want", "##ed", ",", "runn", "##ing", unk]
  assert tokenizer.tokenize("UNwantéd,running zzz") == pieces
  ids = tokenizer.convert_text_to_ids("UNwantéd,running zzz")
  assert ids == tokenizer.convert_tokens_to_ids(pieces) == [tokenizer.vocab[p] for p in pieces]
  assert tokenizer.convert_ids_to_tokens(ids) == pieces
  assert tokenizer.vocab_size == len(symbols + WORDS) and tokenizer.lowercases
  roles = ["cls", "sep", "pad", "mask", "unk"]
  funnel_roles = ["bos", "eos", "eod", "eop"] if symbols is FUNNEL_SYMBOLS else []
  assert set(tokenizer.special_ids) == {*roles, *funnel_roles}
  for role in roles:
    token = f"[{role.upper()}]" if symbols is BERT_SYMBOLS else f"<{role}>"
    assert tokenizer.special_tokens[role] == token
    assert getattr(tokenizer, f"{role}_id") == symbols.index(token) == tokenizer.special_ids[role]
  assert all(map(tokenizer.is_start_token, ["un", ",", unk]))
  assert not tokenizer.is_start_token("##ed")


def test_full_tokenizer_cased_never_split_and_pickle(tmp_path):
  path = write_vocab(tmp_path, BERT_SYMBOLS + WORDS)
  assert FullTokenizer(path, do_lower_case=False).tokenize("want Want") == ["want", "[UNK]"]
  assert FullTokenizer(path).tokenize("[MASK]") == ["[", "mask", "]"]
  tokenizer = FullTokenizer(path, never_split=("[MASK]",))
  assert tokenizer.tokenize("want [MASK],") == ["want", "[MASK]", ","]
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert copy.tokenize("want [MASK],") == ["want", "[MASK]", ","]


def test_conversion_errors(tmp_path):
  tokenizer = FullTokenizer(write_vocab(tmp_path, BERT_SYMBOLS))
  with pytest.raises(ValueError, match="'nope' is not in .*vocab.txt"):
    tokenizer.convert_tokens_to_ids(["[CLS]", "nope"])
  with pytest.raises(ValueError, match="id 5 is not in .*vocab.txt, which has ids 0 to 4"):
    tokenizer.convert_ids_to_tokens([0, 5])


def test_missing_symbols_are_refused(tmp_path):
  path = write_vocab(tmp_path, ["[UNK]", "[PAD]", "a"])
  with pytest.raises(UserError) as e:
    FullTokenizer(path)
  for part in [path, '"[CLS]" / "<cls>"', '"[SEP]" / "<sep>"']:
    assert part in str(e.value)
  assert "unk" not in str(e.value) and "mask" not in str(e.value)

  path = write_vocab(tmp_path, ["<unk>", "<pad>", "<cls>", "<sep>"])
  tokenizer = FullTokenizer(path)
  with pytest.raises(UserError, match=r'vocab.txt.*"\[MASK\]" / "<mask>"'):
    _ = tokenizer.mask_id


def test_both_styles_in_one_vocabulary(tmp_path):
  both = FullTokenizer(write_vocab(tmp_path, FUNNEL_SYMBOLS + ["[CLS]", "[UNK]"]))
  assert both.special_tokens["cls"] == "<cls>" and both.special_tokens["unk"] == "<unk>"
  both = FullTokenizer(write_vocab(tmp_path, FUNNEL_SYMBOLS + BERT_SYMBOLS))
  assert both.special_tokens["cls"] == "[CLS]" and both.special_ids["bos"] == 1
  albert = FullTokenizer(write_vocab(tmp_path, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]))
  assert (albert.pad_id, albert.unk_id, albert.cls_id, albert.mask_id) == (0, 1, 2, 4)


def test_load_vocab_line_ends(tmp_path):
  tokens = ["[PAD]", "a", "\u2028", " b", "", "c\u0085"]
  expected = {token: i for i, token in enumerate(tokens)}
  for end in ["\n", "\r\n"]:
    loaded = tokenization.load_vocab(write_vocab(tmp_path, tokens, end=end))
    assert loaded == expected and list(loaded) == tokens
  path = tmp_path / "bom.txt"
  path.write_bytes(b"\xef\xbb\xbfa\nb\n\n\r\n")
  assert tokenization.load_vocab(path) == {"a": 0, "b": 1}
  path.write_bytes(b"a\nb")
  assert tokenization.load_vocab(str(path)) == {"a": 0, "b": 1}


def test_load_vocab_errors(tmp_path):
  fails("none.txt: no such file", tokenization.load_vocab, str(tmp_path / "none.txt"))
  fails("cannot read", tokenization.load_vocab, str(tmp_path))
  for content in ["", "\n\r\n", "\ufeff\n"]:
    path = write_vocab(tmp_path, [content], "empty.txt", end="")
    fails("empty.txt.*is empty", tokenization.load_vocab, path)
  (path := tmp_path / "latin.txt").write_bytes("ab\nc\ncaf\u00e9\n".encode("latin-1"))
  fails(r"latin.txt: not UTF-8 at line 3 \(byte 8 ", tokenization.load_vocab, str(path))


def train_sentencepiece(folder, name, **options):
  import sentencepiece

  text, rng = folder / "text.txt", random.Random(0)
  words = ["the", "cat", "sat", "on", "mat", "Wanted", "running", "cafe", "dog", "(ran)", "quick,"]
  lines = [" ".join(rng.choices(words, k=8)) + "." for _ in range(200)]
  text.write_text("\n".join(lines))
  options.update(vocab_size=60, hard_vocab_limit=False, minloglevel=2)
  options.update(input=str(text), model_prefix=str(folder / name))
  sentencepiece.SentencePieceTrainer.train(**options)
  return str(folder / f"{name}.model")


@pytest.fixture(scope="module")
def sentencepiece_models(tmp_path_factory):
  folder = tmp_path_factory.mktemp("spm")
  angle = ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
  square = ["[CLS]", "[SEP]", "[MASK]"]
  ids = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1}
  return {
    "xlnet": train_sentencepiece(folder, "xlnet", control_symbols=angle),
    "albert": train_sentencepiece(folder, "albert", control_symbols=square, **ids),
    "bare": train_sentencepiece(folder, "bare"),
  }


@pytest.mark.parametrize("style", ["xlnet", "albert"])
def test_sentencepiece(sentencepiece_models, style):
  import sentencepiece

  path = sentencepiece_models[style]
  tokenizer = tokenization.SentencePieceTokenizer(path, do_lower_case=True)
  model = sentencepiece.SentencePieceProcessor(model_file=path)
  text = "The\t CAT  sat ``on'' the café\u2603"
  pieces = tokenizer.tokenize(text)
  assert pieces == model.encode('the cat sat "on" the cafe\u2603', out_type=str)
  assert "".join(pieces) == '▁the▁cat▁sat▁"on"▁the▁cafe\u2603'
  ids = tokenizer.convert_text_to_ids(text)
  assert ids == model.encode('the cat sat "on" the cafe\u2603') and tokenizer.unk_id in ids
  known = [i for i in ids if i != tokenizer.unk_id]
  assert tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(known)) == known
  assert tokenizer.vocab_size == model.get_piece_size()

  for role in ["cls", "sep", "mask"]:
    token = f"<{role}>" if style == "xlnet" else f"[{role.upper()}]"
    assert tokenizer.is_start_token(token)
    assert getattr(tokenizer, f"{role}_id") == model.piece_to_id(token) != model.unk_id()
  assert (tokenizer.unk_id, tokenizer.pad_id) == (model.unk_id(), model.piece_to_id("<pad>"))
  assert ("eod" in tokenizer.special_ids) == ("bos" in tokenizer.special_ids) == (style == "xlnet")
  with pytest.raises(ValueError, match="special symbol"):
    tokenizer.convert_tokens_to_ids(["▁the", "[CLS]" if style == "xlnet" else "<cls>"])
  starts = {"▁the": True, "▁": True, "the": False, ",": True, "...": True, "s,": False, "": False}
  assert {token: tokenizer.is_start_token(token) for token in starts} == starts
  assert pickle.loads(pickle.dumps(tokenizer)).convert_text_to_ids(text) == ids
  accents = tokenization.get_tokenizer("sent_piece", path, uncased=True, keep_accents=True)
  assert accents.convert_text_to_ids(text) == model.encode('the cat sat "on" the café\u2603')


def test_sentencepiece_errors(sentencepiece_models, tmp_path, monkeypatch):
  make = tokenization.SentencePieceTokenizer
  # "bare" gives the id of <unk> for <cls>, which must not count as present.
  fails(r'"<cls>".*"<sep>".*"<pad>"', make, sentencepiece_models["bare"])
  fails("no such file", make, str(tmp_path / "none.model"))
  path = write_vocab(tmp_path, ["the", "cat"], "text.model")
  fails("text.model: not a SentencePiece model.*word_piece", make, path)
  monkeypatch.setitem(sys.modules, "sentencepiece", None)
  fails("pip install sentencepiece", make, sentencepiece_models["xlnet"])


def test_get_tokenizer(tmp_path, sentencepiece_models):
  path = write_vocab(tmp_path, BERT_SYMBOLS)
  assert isinstance(get_tokenizer("word_piece", path, True), FullTokenizer)
  assert not get_tokenizer("word_piece", Path(path), False).lowercases
  model = sentencepiece_models["xlnet"]
  tokenizer = get_tokenizer("sent_piece", model, True)
  assert isinstance(tokenizer, tokenization.SentencePieceTokenizer) and tokenizer.lowercases
  fails("xlnet.model.*tokenizer_type sent_piece", get_tokenizer, "word_piece", model, True)
  fails("vocab.txt.*tokenizer_type word_piece", get_tokenizer, "sent_piece", path, True)
  fails("word_piece or sent_piece, not 'bpe'", get_tokenizer, "bpe", path, True)


def test_get_tokenizer_flags(tmp_path, monkeypatch):
  path = write_vocab(tmp_path, BERT_SYMBOLS)
  values = flags.FlagValues()
  monkeypatch.setattr(flags, "FLAGS", values)
  fails("tokenizer_path is not given.*--tokenizer_path", get_tokenizer, "word_piece", None, True)
  flags.DEFINE_string("tokenizer_type", "word_piece", "", flag_values=values)
  flags.DEFINE_string("tokenizer_path", "", "", flag_values=values)
  flags.DEFINE_bool("uncased", True, "", flag_values=values)
  fails("tokenizer_type is not given", get_tokenizer)  # defined but not parsed
  values(["program"])
  fails("tokenizer_path is not given", get_tokenizer)
  values(["program", f"--tokenizer_path={path}", "--nouncased"])
  tokenizer = get_tokenizer()
  assert isinstance(tokenizer, FullTokenizer) and not tokenizer.lowercases
  assert get_tokenizer(uncased=True).lowercases


def test_check_vocab(tmp_path):
  tokenizer = FullTokenizer(write_vocab(tmp_path, BERT_SYMBOLS))
  tokenization.check_vocab(tokenizer, 5, "config.json")
  for size, relation in [(4, "more"), (6, "fewer")]:
    message = f"vocab.txt has 5 .*{relation}.* {size} of config.json"
    fails(message, tokenization.check_vocab, tokenizer, size, "config.json")


def test_tensorflow_is_not_imported(tmp_path):
  path = write_vocab(tmp_path, BERT_SYMBOLS)
  program = f"import sys, tokenization as t; t.get_tokenizer('word_piece', {path!r}, True)\n"
  program += "assert not {'tensorflow', 'sentencepiece', 'absl'} & set(sys.modules)"
  subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=True)


def test_remote_path(tmp_path):
  path = write_vocab(tmp_path, BERT_SYMBOLS)
  assert FullTokenizer(f"file://{path}").vocab_size == 5
  fails("none.txt", FullTokenizer, f"file://{tmp_path}/none.txt")
  fails("nowhere://", FullTokenizer, "nowhere://a/vocab.txt")


# Characters of random strings: (share, first, last code point).
BLOCKS = [
  *[(12, 0x61, 0x65), (4, 0x20, 0x20), (3, 0x20, 0x7E), (2, 0x00, 0x1F), (1, 0x7F, 0xFF)],
  *[(1, 0x100, 0x24F), (1, 0x300, 0x36F), (1, 0x370, 0x52F), (1, 0x590, 0x6FF), (1, 0x900, 0xE7F)],
  *[(1, 0x1E00, 0x20CF), (1, 0x2000, 0x206F), (1, 0x3000, 0x30FF), (1, 0x33FF, 0x4E10)],
  *[(1, 0xAC00, 0xD7A3), (1, 0xE000, 0xF8FF), (1, 0xF900, 0xFAFF), (1, 0xFE00, 0xFFFF)],
  *[(1, 0x1F300, 0x1F6FF), (1, 0x20000, 0x2FA20), (1, 0xE0000, 0xE01EF), (1, 0x0, 0x10FFFF)],
]


def random_text(rng):
  shares = [share for share, _, _ in BLOCKS]
  blocks = rng.choices(BLOCKS, shares, k=rng.choice([0, 3, 20, 60]))
  text = "".join(chr(rng.randint(first, last)) for _, first, last in blocks)
  if rng.random() < 0.1:
    text += rng.choice(["[MASK]", "[UNK]x", "ΟΔΟΣ", "ab\u00ad" * 99, "a" * rng.randint(198, 202)])
  return text


def is_punctuation(char):
  return unicodedata.category(char)[0] == "P" or char in string.punctuation


def published_rules(text, lower):
  """A second, slow implementation of BERT's rules, one word and one character at a time."""
  category = unicodedata.category
  spaced = ""
  for c in text:
    if c in "\0\ufffd" or (category(c) in ("Cc", "Cf") and c not in "\t\n\r"):
      continue
    cjk = any(a <= ord(c) <= b for a, b in tokenization._CJK_RANGES)
    spaced += f" {c} " if cjk else " " if c in "\t\n\r" or category(c) == "Zs" else c
  words = []
  for word in spaced.split():
    if lower:
      word = unicodedata.normalize("NFD", word.lower())
      word = "".join(c for c in word if category(c) != "Mn")
    words += "".join(f" {c} " if is_punctuation(c) else c for c in word).split()
  return words


@pytest.mark.parametrize("lower", [True, False])
def test_fuzz_published_rules(lower):
  rng = random.Random(1)
  tokenizer = BasicTokenizer(lower)
  for _ in range(5000):  # all characters, with surrogates
    text = random_text(rng)
    assert tokenizer.tokenize(text) == published_rules(text, lower), ascii(text)


def bert_normalizer(clean_text=False, strip_accents=False, lowercase=False):
  return normalizers.BertNormalizer(clean_text, False, strip_accents, lowercase)


def same_tables(char, lower):
  """True if `tokenizers` and Python's unicodedata, which BERT uses, classify a character alike.

  tokenization.py is not used, so the comparison does not depend on it. In all of Unicode, with
  Python 3.11 and tokenizers 0.23, they differ in
  * private use: `tokenizers` removes these like control characters;
  * 504 punctuation, marks (Mn, Mc) and format characters (Cf): they came after Unicode 8.0, the age
    of its category tables, or have changed category since (U+166D, U+1734, U+111C9);
  * 55 capitals (Cn to Python) newer than Python's own Unicode 14;
  * the ideographs U+2B820 to U+2B91F: its range starts at 2B920, a typo;
  * capital sigma, which it never lower-cases to the final form "ς".
  Surrogates cannot be passed to it.
  """
  category = unicodedata.category(char)
  if category == "Cs" or 0x2B820 <= ord(char) <= 0x2B91F or (lower and char == "Σ"):
    return False
  cleaned = "" if category in ("Cc", "Cf") or char == "\ufffd" else char
  cleaned = " " if category[0] == "Z" or char in "\t\n\r" else cleaned
  bare = "".join(c for c in unicodedata.normalize("NFD", char) if unicodedata.category(c) != "Mn")
  split = len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(f"x{char}x")) == 3
  return (
    bert_normalizer(clean_text=True).normalize_str(char) == cleaned
    and (split == is_punctuation(char) or cleaned == " ")
    and (not lower or bert_normalizer(strip_accents=True).normalize_str(char) == bare)
    and (not lower or bert_normalizer(lowercase=True).normalize_str(char) == char.lower())
  )


def reference_tokenizer(vocab, lower):
  """tokenizers.BertWordPieceTokenizer that does not keep "[UNK]" in a text whole."""
  reference = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=200))
  reference.normalizer = normalizers.BertNormalizer(strip_accents=lower, lowercase=lower)
  reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return reference


@pytest.mark.parametrize("lower", [True, False])
def test_fuzz_against_tokenizers(tmp_path, lower):
  rng = random.Random(2)
  texts = [random_text(rng) for _ in range(5000)]
  chars = sorted(set("".join(texts)))
  left_out = {char for char in chars if not same_tables(char, lower)}
  assert min(left_out - {"Σ"}) > "\u058f"  # no Latin, Greek or Cyrillic character is excluded
  pieces = [c for c in chars if rng.random() < 0.7 and unicodedata.category(c) not in ("Cc", "Cs")]
  pieces += ["".join(rng.choices("abcde", k=rng.randint(2, 4))) for _ in range(200)]
  pieces += [f"##{piece}" for piece in pieces if rng.random() < 0.9]
  tokens = list(dict.fromkeys(BERT_SYMBOLS + ["e", "##a", *pieces]))
  tokenizer = FullTokenizer(write_vocab(tmp_path, tokens), lower)
  reference = reference_tokenizer(tokenizer.vocab, lower)
  unknown = total = 0
  for text in texts:
    text = "".join(char for char in text if char not in left_out)
    found = tokenizer.tokenize(text)
    assert found == reference.encode(text, add_special_tokens=False).tokens, repr(text)
    unknown, total = unknown + found.count("[UNK]"), total + len(found)
  assert total > 50000 and unknown < total / 2  # so that the comparison covers most strings


@pytest.mark.slow
@pytest.mark.parametrize("lower", [True, False])
def test_real_vocabulary(lower):
  """Needs BERT_VOCAB_DIR with (un)cased_vocab.txt; compares all *.txt of BERT_TEXT_DIR, if set."""
  if "BERT_VOCAB_DIR" not in os.environ:
    pytest.skip("BERT_VOCAB_DIR is not set")
  folder = Path(os.environ["BERT_VOCAB_DIR"])
  tokenizer = FullTokenizer(folder / ("uncased_vocab.txt" if lower else "cased_vocab.txt"), lower)
  reference = reference_tokenizer(tokenizer.vocab, lower)
  codes = map(chr, range(0x110000))  # and every character of Unicode, within a word
  texts = [f"the{c}re" for c in codes if same_tables(c, lower)]
  for path in sorted(Path(os.environ.get("BERT_TEXT_DIR", folder)).rglob("*.txt")):
    texts += path.read_text("utf-8").split("\n")
  for text in texts:
    assert tokenizer.tokenize(text) == reference.encode(text, add_special_tokens=False).tokens, text
