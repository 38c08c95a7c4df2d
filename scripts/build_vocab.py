"""Trains a vocabulary on raw text: WordPiece (a text file) or SentencePiece (a .model file).

  python scripts/build_vocab.py --input_file='text/*.txt' --vocab_file=vocab.txt --vocab_size=30522
  python scripts/build_vocab.py --input_file='text/*.txt' --tokenizer_path=spiece.model
      --tokenizer_type=sent_piece --symbols=funnel --uncased=False --vocab_size=32000

The text is read as create_pretraining_data.py reads it, one sentence a line; of a large corpus a
random part of --max_megabytes is used. The same text and flags give the same vocabulary.
"""

import collections
import dataclasses
import io
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import config
import tokenization
from errors import UserError
from tasks import corpus
from training import app, flags, model_folder
from utils import console, files, paths

log = logging.getLogger("scripts.build_vocab")

# Special symbols by family, first in the vocabulary in this order.
SYMBOLS = {
  "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
  "funnel": ("<pad>", "<s>", "</s>", "<unk>", "<cls>", "<sep>", "<mask>", "<eod>", "<eop>"),
}


@dataclasses.dataclass
class Vocabulary:
  """Flags of this script."""

  input_file: str = config.option(
    "", "text files: comma-separated names or globs", aliases=("input_glob",)
  )
  vocab_size: int = config.option(30522, "number of tokens, special symbols included", lower=16)
  symbols: str = config.option(
    "bert", "special symbols: [CLS] and so on, or Funnel's <cls>", tuple(SYMBOLS)
  )
  max_megabytes: int = config.option(
    200, "train on a random part of so many megabytes of a larger corpus; 0 for all of it", lower=0
  )
  max_characters: int = config.option(
    1000,
    "word_piece: the most frequent so many characters; words with others are unknown "
    "(text of ideographs needs 6000 or more)",
    lower=1,
  )
  min_frequency: int = config.option(2, "word_piece: how often a piece must occur", lower=1)
  character_coverage: float = config.option(
    0.9995, "sent_piece: fraction of the text's characters that the pieces cover"
  )
  errors: str = config.option(
    "strict", "bytes that are not UTF-8: stop, or read them as U+FFFD", ("strict", "replace")
  )
  random_seed: int = config.option(12345, "seed of the choice of text", aliases=("seed",))
  overwrite_data: bool = config.option(False, "replace an existing vocabulary file")


def read_text(settings: Vocabulary, texts: list[corpus.TextFile], desc: str) -> Iterator[str]:
  """Yields sentences, of a large corpus a part that is the same in each call."""
  total = sum(file.size for file in texts)
  fraction = settings.max_megabytes * 1e6 / total if settings.max_megabytes else 1
  rng = random.Random(settings.random_seed)
  (pieces,) = corpus.split(texts, 1)
  with console.progress_bar(
    total=total,
    desc=desc,
    bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed} elapsed, {remaining} left]",
  ) as bar:
    for _, sentence, num_bytes in corpus.read_sentences(pieces, settings.errors):
      bar.update(min(num_bytes, total - bar.n))
      if fraction >= 1 or rng.random() < fraction:
        yield sentence.replace(tokenization.END_OF_PARAGRAPH, " ")


def train_word_piece(
  read: Callable[[str], Iterator[str]], settings: Vocabulary, tokenizer_settings: config.Tokenizer
) -> bytes:
  """Trains WordPiece on the words of our own BasicTokenizer; returns the vocabulary file.

  Args:
    read: description of the progress bar -> sentences.
    settings: of the script.
    tokenizer_settings: how the text is prepared.
  """
  try:
    import tokenizers
  except ImportError:
    raise UserError("--tokenizer_type=word_piece needs a package: pip install tokenizers") from None
  basic = tokenization.BasicTokenizer(
    tokenizer_settings.uncased,
    strip_accents=tokenizer_settings.strip_accents,
    tokenize_chinese_chars=tokenizer_settings.tokenize_chinese_chars,
  )
  first, later = collections.Counter(), collections.Counter()
  for sentence in read("count characters"):
    words = basic.tokenize(sentence)
    first.update(word[0] for word in words)
    later.update("".join(word[1:] for word in words))
  if not first:
    raise UserError(f"--input_file={settings.input_file}: no text")
  counts = first + later
  kept = sorted(sorted(counts), key=counts.get, reverse=True)[: settings.max_characters]
  if len(kept) < len(counts):
    log.warning(
      "%d of the %d characters, the rarest, are left out (--max_characters)",
      len(counts) - len(kept),
      len(counts),
    )
  # All characters are given to the trainer in a fixed order, as is what follows within a word. It
  # would number them in the order of a hash table, and break ties between pieces by the numbers.
  symbols = SYMBOLS[settings.symbols]
  alphabet = [*symbols, *sorted(kept), *(f"##{char}" for char in sorted(kept) if char in later)]
  if settings.vocab_size < len(alphabet):
    raise UserError(
      f"--vocab_size={settings.vocab_size} is less than the {len(alphabet)} special "
      f"symbols and characters; raise it or lower --max_characters"
    )
  tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=symbols[1]))
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  tokenizer.train_from_iterator(
    (" ".join(basic.tokenize(sentence)) for sentence in read("count words")),
    tokenizers.trainers.WordPieceTrainer(
      vocab_size=settings.vocab_size,
      min_frequency=settings.min_frequency,
      show_progress=False,
      special_tokens=alphabet,
      initial_alphabet=kept,
      limit_alphabet=len(kept),
      continuing_subword_prefix="##",
    ),
  )
  vocab = tokenizer.get_vocab()
  return "".join(f"{token}\n" for token in sorted(vocab, key=vocab.get)).encode()


def train_sentence_piece(
  read: Callable[[str], Iterator[str]], settings: Vocabulary, tokenizer_settings: config.Tokenizer
) -> bytes:
  """Trains a unigram SentencePiece model on the text as our tokenizer prepares it.

  Args and result are as of train_word_piece; the result is the model file.
  """
  import sentencepiece

  symbols = SYMBOLS[settings.symbols]
  ids = {
    f"{role}_id": symbols.index(symbol) if symbol in symbols else -1
    for role, symbol in (
      ("pad", symbols[0]),
      ("bos", "<s>"),
      ("eos", "</s>"),
      ("unk", "<unk>" if "<unk>" in symbols else "[UNK]"),
    )
  }
  control = [
    symbol for symbol in symbols[1:] if symbol not in ("<s>", "</s>", "<unk>", "[UNK]", "<eop>")
  ]
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=(
        tokenization.preprocess_text(
          sentence,
          tokenizer_settings.uncased,
          tokenizer_settings.keep_accents,
          tokenizer_settings.sent_piece_form == "funnel",
        )
        for sentence in read("read text")
      ),
      model_writer=model,
      vocab_size=settings.vocab_size,
      model_type="unigram",
      character_coverage=settings.character_coverage,
      control_symbols=control,
      user_defined_symbols=["<eop>"] if "<eop>" in symbols else [],
      pad_piece=symbols[0],
      unk_piece=symbols[ids["unk_id"]],
      max_sentence_length=1 << 20,
      minloglevel=2,
      # The trainer adds up counts by thread: their number must not depend on the machine.
      num_threads=8,
      **ids,
    )
  except RuntimeError as error:
    raise UserError(f"SentencePiece cannot train the model: {str(error).strip()}") from None
  return model.getvalue()


def build(settings: Vocabulary, tokenizer_settings: config.Tokenizer) -> None:
  """Trains the vocabulary, writes it, and reads it again with our tokenizer."""
  path = tokenizer_settings.tokenizer_path
  for name, value in (("input_file", settings.input_file), ("vocab_file", path)):
    if not value:
      raise UserError(f"--{name} is missing")
  if os.path.exists(path) and not settings.overwrite_data:
    raise UserError(f"{path} is there; pass --overwrite_data to replace it, or another name")
  if not 0 < settings.character_coverage <= 1:
    raise UserError(f"--character_coverage={settings.character_coverage}: must be a fraction")
  texts = corpus.list_files(settings.input_file, "input_file")
  _, *settings_files = model_folder.tokenizer_inputs(path)
  paths.check_outputs([*(file.path for file in texts), *settings_files], [path])
  files.make_dirs(os.path.dirname(path), "--vocab_file")
  train = train_sentence_piece if tokenizer_settings.is_sent_piece else train_word_piece
  vocabulary = train(lambda desc: read_text(settings, texts, desc), settings, tokenizer_settings)
  temporary = files.temporary_name(path)
  with files.open_file(temporary, "wb") as writer:
    writer.write(vocabulary)
  files.rename(temporary, path)
  tokenizer = tokenization.get_tokenizer(**dataclasses.asdict(tokenizer_settings))
  if tokenizer.vocab_size < settings.vocab_size:
    log.warning(
      "The text has no more pieces than these %d (asked for: --vocab_size=%d); a model's "
      "vocab_size must be %d",
      tokenizer.vocab_size,
      settings.vocab_size,
      tokenizer.vocab_size,
    )
  print(f"{path}: {tokenizer.vocab_size} tokens")


def main() -> None:
  settings, _ = flags.read_section(Vocabulary)
  tokenizer_settings, _ = flags.read_section(config.Tokenizer)
  build(settings, tokenizer_settings)


if __name__ == "__main__":
  flags.define(config.Tokenizer, Vocabulary)
  app.run_main(main, "No vocabulary was written.")
