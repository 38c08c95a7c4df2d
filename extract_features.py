"""Writes the hidden states of tokens, and vectors of sentences, for the texts of a file.

  python extract_features.py --input_file=texts.txt --output_file=features.jsonl --layers=-1,-2
  python extract_features.py --input_file=texts.txt --output_file=features.npz
      --vocab_file=bert/vocab.txt --bert_config_file=bert/bert_config.json
      --init_checkpoint=bert/bert_model.ckpt --max_seq_length=128 --batch_size=8

A line is a text, or a pair "text_a ||| text_b". The encoder is that of --pretrained, or of the
files that are named; BERT, ELECTRA and Funnel-Transformer, pretrained or fine-tuned. A file with
.npz gets arrays, any other BERT's JSON lines. docs/serving.md describes both.
"""

import dataclasses

import config
from errors import UserError
from training import app, flags


@dataclasses.dataclass
class Features:
  """Texts, and what to write."""

  input_file: str = config.option("", "text file, UTF-8: a text or a pair a line")
  output_file: str = config.option("", "file to write; .npz for arrays, else JSON lines")
  layers: str = config.option(
    "-1,-2,-3,-4", "layers, separated by commas; -1 is the last one, 0 the first"
  )
  max_seq_length: int = config.option(
    128, "longest sequence, in tokens, specials included; the rest is cut off", lower=3
  )
  batch_size: int = config.option(32, "texts per run of the graph", lower=1)


@dataclasses.dataclass
class Encoder:
  """The encoder."""

  pretrained: str = config.option(
    "./pretrained", "folder of the encoder: configuration, vocabulary, checkpoint"
  )
  model_config: str = config.option(
    "", "configuration; default: pretrained's", aliases=("model_config_path", "bert_config_file")
  )
  init_checkpoint: str = config.option("", "checkpoint, or folder for its newest")


SECTIONS = (Features, Encoder, config.Tokenizer)


def read_layers(text: str) -> list[int]:
  """Returns the numbers of a list such as "-1,-2"; UserError if it is none."""
  try:
    return [int(layer) for layer in text.split(",")]
  except ValueError:
    raise UserError(f"--layers={text}: numbers separated by commas are expected") from None


def main() -> None:
  """Extracts the features and writes them."""
  from serving import encoder, features  # loads TensorFlow
  from utils import paths

  (settings, _), (model, named), (tokenizer, given) = map(flags.read_section, SECTIONS)
  for name in ("input_file", "output_file"):
    if not getattr(settings, name):
      raise UserError(f"--{name} is missing")
  paths.check_outputs([settings.input_file], [settings.output_file])
  layers = read_layers(settings.layers)
  texts = features.read_texts(settings.input_file)
  loaded = encoder.load(config.Model(**vars(model)), tokenizer, named | given)
  found = features.extract(loaded, texts, layers, settings.max_seq_length, settings.batch_size)
  count = features.write(settings.output_file, loaded, layers, found)
  print(f"{settings.output_file}: {count} texts, layers {settings.layers}")


if __name__ == "__main__":
  flags.define(*SECTIONS)
  app.run_main(main, "Nothing was written.")
