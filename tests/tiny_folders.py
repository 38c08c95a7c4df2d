"""Labels and tokenizer settings of tiny model folders, and their conversion."""

import json

from tiny_conversion import OTHER_HEADS, write_hf

from conversion import commands

CLASSIFIER = {name: shape for name, shape in OTHER_HEADS.items() if name.startswith("classifier")}
LABELS = ["bad", "poor", "fair", "good", "great"]
ID2LABEL = {
  "id2label": {str(i): label for i, label in enumerate(LABELS)},
  "label2id": {label: i for i, label in enumerate(LABELS)},
}
SETTINGS = {"uncased": False, "strip_accents": False, "tokenize_chinese_chars": False}
TOKENIZER_CONFIG = {"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False}


def write(path, values):
  path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def read(path):
  return json.loads(path.read_text(encoding="utf-8"))


def to_tf(tmp_path, tensors=None, config=None, name="tf", **options):
  """Converts tmp_path/hf, which is written first if tensors are given; returns the new folder."""
  if tensors is not None:
    write_hf(tmp_path / "hf", tensors, config)
  commands.hf_to_tf(str(tmp_path / "hf"), str(tmp_path / name), **options)
  return tmp_path / name
