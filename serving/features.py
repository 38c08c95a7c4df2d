"""Extracts hidden states of tokens and vectors of sentences from a text file."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import modeling
from errors import UserError
from serving import encoder
from serving.batching import padded_batches
from tasks import base
from tasks.readers import read_text
from utils import files

_PAIR = re.compile(r"(.*?) \|\|\| (.*)")
VECTORS = ("hidden", "cls", "mean")


def read_texts(path: str) -> list[tuple[str, str | None]]:
  """Returns the text, or the pair "text_a ||| text_b", of each line of a file.

  Raises:
    UserError: the file has no lines.
  """
  lines = [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]
  if lines == [""]:
    raise UserError(f"{path}: the file is empty; a text in each line is expected")
  matches = [_PAIR.fullmatch(line) for line in lines]
  return [
    (match[1], match[2]) if match else (line, None)
    for line, match in zip(lines, matches, strict=True)
  ]


def extract(
  model: encoder.EncoderModel,
  texts: Sequence[tuple[str, str | None]],
  layers: Sequence[int],
  max_seq_length: int,
  batch_size: int,
) -> Iterator[tuple[int, list[int], dict[str, np.ndarray]]]:
  """Yields (index of the text, ids of its tokens, vectors), sorted by length.

  The names of the vectors are those of encoder.build: float32 hidden_L [T, H], cls_L [H] and
  mean_L [H] for each layer L, without padding.

  Raises:
    UserError: the model has no such layer, or fewer positions than max_seq_length.
  """
  encoder.check_length(model, max_seq_length)
  segment = modeling.CLS_SEGMENT_IDS[model.config.family]
  records = [
    base.pair_features(text_a, text_b, model.tokenizer, max_seq_length, segment)
    for text_a, text_b in texts
  ]
  served = encoder.build(model, layers)
  specs = [
    base.FeatureSpec(name, is_sequence=True, pad_value=None if name == "input_ids" else 0)
    for name in served.inputs
  ]
  batches = padded_batches(
    records, specs, model.config, model.tokenizer.pad_id, max_seq_length, batch_size
  )
  fetched = {f"{kind}_{layer}" for kind in VECTORS for layer in layers}
  outputs = {name: tensor for name, tensor in served.outputs.items() if name in fetched}
  with contextlib.closing(served.session) as session:
    for rows, arrays in batches:
      feed = {tensor: arrays[name] for name, tensor in served.inputs.items()}
      found = session.run(outputs, feed)
      for position, row in enumerate(rows):
        ids = records[row]["input_ids"]
        vectors = {name: values[position] for name, values in found.items()}
        for name in vectors.keys() & {f"hidden_{layer}" for layer in layers}:
          vectors[name] = vectors[name][: len(ids)]
        yield row, ids, vectors


def write(
  path: str,
  model: encoder.EncoderModel,
  layers: Sequence[int],
  found: Iterator[tuple[int, list[int], dict[str, np.ndarray]]],
) -> int:
  """Writes the results of `extract` in the texts' order; returns the number of texts.

  A path with .npz gets arrays: token_ids int32 [all tokens]; offsets int64 [texts + 1], where text
  i has the tokens offsets[i] to offsets[i + 1] - 1; and for each layer L hidden_L float32
  [all tokens, H], cls_L and mean_L float32 [texts, H]. Any other path gets BERT's form, JSON lines.
  """
  ordered = sorted(found, key=lambda item: item[0])
  if path.endswith(".npz"):
    _write_arrays(path, layers, ordered)
  else:
    lines = (
      json.dumps(_json(index, model.tokenizer.convert_ids_to_tokens(ids), layers, vectors)) + "\n"
      for index, ids, vectors in ordered
    )
    files.write_text(path, "".join(lines))
  return len(ordered)


def _write_arrays(path, layers, ordered):
  lengths = [len(ids) for _, ids, _ in ordered]
  arrays: dict[str, Any] = {
    "token_ids": np.concatenate([ids for _, ids, _ in ordered]).astype(np.int32),
    "offsets": np.cumsum([0, *lengths], dtype=np.int64),
  }
  for layer in layers:
    parts = {kind: [found[f"{kind}_{layer}"] for *_, found in ordered] for kind in VECTORS}
    arrays[f"hidden_{layer}"] = np.concatenate(parts["hidden"])
    for kind in ("cls", "mean"):
      arrays[f"{kind}_{layer}"] = np.stack(parts[kind])
  with files.replacing(path) as temporary, files.open_file(temporary, "wb") as writer:
    np.savez(writer, **arrays)


def _json(index, tokens, layers, vectors):
  """Returns a line of BERT's extract_features.py (linex_index is its spelling), and sentences."""
  values = lambda vector: [round(float(value), 6) for value in vector]
  return {
    "linex_index": index,
    "features": [
      {
        "token": token,
        "layers": [
          {"index": layer, "values": values(vectors[f"hidden_{layer}"][position])}
          for layer in layers
        ],
      }
      for position, token in enumerate(tokens)
    ],
    "sentence": [
      {"index": layer, **{kind: values(vectors[f"{kind}_{layer}"]) for kind in ("cls", "mean")}}
      for layer in layers
    ],
  }
