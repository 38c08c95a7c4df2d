"""Training of vocabularies on raw text: WordPiece and SentencePiece.

scripts/build_vocab.py has the flags.
"""

import collections
import dataclasses
import io
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence

import config
import tokenization
from errors import UserError
from tasks import corpus
from utils import console, files, paths

log = logging.getLogger(__name__)

# Family -> special symbols, in the order of their ids. They come first in the vocabulary.
SYMBOLS = {
  "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
  "funnel": ("<pad>", "<s>", "</s>", "<unk>", "<cls>", "<sep>", "<mask>", "<eod>", "<eop>"),
}


@dataclasses.dataclass
class Vocabulary:
  """Flags of scripts/build_vocab.py."""

  input_file: str = config.option(
    "", "text files: comma-separated names or globs", aliases=("input_glob",)
  )
  vocab_size: int = config.option(30522, "number of tokens, special symbols included", lower=16)
  symbols: str = config.option(
    "bert", "special symbols: [CLS] and so on, or Funnel's <cls>", tuple(SYMBOLS)
  )
  max_megabytes: int = config.option(
    200, "of a larger corpus, train on a random sample of this size; 0: on all of it", lower=0
  )
  max_characters: int = config.option(
    1000,
    "word_piece: number of characters to keep, the most frequent ones; words with others are "
    "unknown (text of ideographs needs 6000 or more)",
    lower=1,
  )
  min_frequency: int = config.option(2, "word_piece: how often a token must occur", lower=1)
  character_coverage: float = config.option(
    0.9995, "sent_piece: fraction of the text's characters that the tokens cover", above=0, upper=1
  )
  errors: str = config.option(
    "strict", "bytes that are not UTF-8: stop, or read them as U+FFFD", ("strict", "replace")
  )
  random_seed: int = config.option(12345, "seed of the sample of the text", aliases=("seed",))
  overwrite_data: bool = config.option(False, "replace an existing vocabulary file")


def read_text(settings: Vocabulary, texts: list[corpus.TextFile], desc: str) -> Iterator[str]:
  """Yields sentences; of a large corpus a random sample, the same in each call."""
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
  """Trains WordPiece on the words of BasicTokenizer; returns the contents of the vocabulary file.

  Args:
    read: description of the progress bar -> sentences.
    settings: settings of the training.
    tokenizer_settings: settings of BasicTokenizer.

  Raises:
    UserError: the package tokenizers is missing, there is no text, or vocab_size is less than the
      number of special symbols and characters.
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
      "The rarest %d of the %d characters are left out (--max_characters)",
      len(counts) - len(kept),
      len(counts),
    )
  # The trainer gets all characters, and their ## forms, in a fixed order. It would number them in
  # the order of a hash table otherwise, and break ties between tokens by these numbers.
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
  """Trains a unigram SentencePiece model; returns the contents of the model file.

  Args:
    read: description of the progress bar -> sentences.
    settings: settings of the training.
    tokenizer_settings: settings of the text's normalization.

  Raises:
    UserError: the trainer fails, e.g. because vocab_size is too large for the text.
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
      # Sums of counts depend on the number of threads, which must not depend on the machine.
      num_threads=8,
      **ids,
    )
  except RuntimeError as error:
    raise UserError(f"SentencePiece cannot train the model: {str(error).strip()}") from None
  return model.getvalue()


def build(
  settings: Vocabulary, tokenizer_settings: config.Tokenizer, settings_files: Sequence[str] = ()
) -> None:
  """Trains the vocabulary, writes it, and loads it to check it.

  Args:
    settings: settings of the training.
    tokenizer_settings: settings of the tokenizer; tokenizer_path is the file to write.
    settings_files: files with settings of tokenizers, which the vocabulary may not replace.

  Raises:
    UserError: a setting is invalid, a file cannot be read or written, or training fails.
  """
  path = tokenizer_settings.tokenizer_path
  for name, value in (("input_file", settings.input_file), ("vocab_file", path)):
    if not value:
      raise UserError(f"--{name} is missing")
  if os.path.exists(path) and not settings.overwrite_data:
    raise UserError(f"{path} exists; pass --overwrite_data to replace it, or choose another name")
  texts = corpus.list_files(settings.input_file, "input_file")
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
      "The text gives only %d tokens (--vocab_size=%d); a model's vocab_size must be %d",
      tokenizer.vocab_size,
      settings.vocab_size,
      tokenizer.vocab_size,
    )
  print(f"{path}: {tokenizer.vocab_size} tokens")
