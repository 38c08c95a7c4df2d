"""Trains a vocabulary on raw text: WordPiece (a text file) or SentencePiece (a .model file).

  python scripts/build_vocab.py --input_file='text/*.txt' --vocab_file=vocab.txt --vocab_size=30522
  python scripts/build_vocab.py --input_file='text/*.txt' --tokenizer_path=spiece.model
      --tokenizer_type=sent_piece --symbols=funnel --uncased=False --vocab_size=32000

The text has one sentence per line, as for create_pretraining_data.py. Of a large corpus, a random
sample of --max_megabytes is used. The same text and flags give the same vocabulary.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import config
from preprocessing import vocabulary_builder
from preprocessing.vocabulary_builder import Vocabulary
from training import app, flags, model_folder


def build(settings: Vocabulary, tokenizer_settings: config.Tokenizer) -> None:
  """Trains and writes the vocabulary; see vocabulary_builder.build."""
  _, *settings_files = model_folder.tokenizer_inputs(tokenizer_settings.tokenizer_path)
  vocabulary_builder.build(settings, tokenizer_settings, settings_files)


def main() -> None:
  """Reads the flags and builds the vocabulary."""
  settings, _ = flags.read_section(Vocabulary)
  tokenizer_settings, _ = flags.read_section(config.Tokenizer)
  build(settings, tokenizer_settings)


if __name__ == "__main__":
  flags.define(config.Tokenizer, Vocabulary)
  app.run_main(main, "No vocabulary was written.")
