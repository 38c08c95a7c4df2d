"""Fuzzers of every parser: only UserError may come out, and it names the file.

Run all for a minute each, or one of them for longer:

  FUZZ_SECONDS=60 pytest -m slow tests/test_fuzz.py
  FUZZ_SECONDS=3600 FUZZ_SEED=7 pytest -m slow tests/test_fuzz.py -k squad
"""

import copy
import io
import json
import os
import random
import time

import pytest
import tensorflow as tf
import tiny

import config
import modeling
import tokenization
from conversion import huggingface
from errors import UserError
from preprocessing import pretraining_sets, record_files, tfrecord
from tasks import race_data, readers
from tasks.settings import Classification, Pretraining, Race, Squad, Tagging
from training import hf_tokenizer, inputs, params, record_faults

SECONDS = float(os.environ.get("FUZZ_SECONDS", "45"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))

WORDS = [
  *(b"\t", b"\n", b"\r", b"\r\n", b'"', b'""', b",", b";", b"\\", b"\0", b"\xff", b"\xed\xa0\x80"),
  *(
    b"\xef\xbb\xbf",
    b"\x1f\x8b\x08",
    b"BZh9",
    b"PK\x03\x04",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\x0b",
  ),
  *(b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"1.5"),
  *(b"\\ud83d", b"\\u0000", b"true", b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b"<<: *a", b"&a "),
  *(b"!!python/object:os.system x", b"2001-99-99", b"- ", b"  ", b"# ", b"| ", b"4_" * 50),
]
VALUES = [
  *(None, True, False, 0, 1, -1, 2, 999, 1.5, -0.5, 1e300, 10**30, -(2**63), 2**31, float("nan")),
  *("", "a", "1", "-1", "nan", "\t", "a\nb", "\r", "\ud83d", "\0", "gelu", "9" * 5000, "\u2028"),
  *([], {}, [[]], [None], [1], ["a"], {"": ""}, {"a": None}, [0] * 50, 10**4000, float("inf")),
]


def mutate_bytes(rng, data):
  """Returns the bytes with a few changes."""
  data = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 4, 16))):
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((1, 1, 2, 8, 64)))
    kind = rng.randrange(5)
    if kind == 0 and start < len(data):
      data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
      del data[start:end]
    elif kind == 2:
      data[start:start] = rng.choice(WORDS)
    elif kind == 3:
      data[start:end] = rng.choice(WORDS)
    else:
      data[start:start] = data[start:end]
  return bytes(data)


def nodes(value):
  """Yields (container, key) of each value in a JSON value."""
  items = value.items() if isinstance(value, dict) else enumerate(value)
  for key, child in items:
    yield value, key
    if isinstance(child, dict | list):
      yield from nodes(child)


def mutate_json(rng, data):
  """Returns a JSON text in which some values are replaced, removed or copied elsewhere."""
  value = json.loads(data)
  for _ in range(rng.choice((1, 1, 2, 3))):
    found = list(nodes(value))
    if not found:
      break
    container, key = rng.choice(found)
    kind = rng.randrange(4)
    if kind == 0:
      del container[key]
    elif kind == 1:
      other, name = rng.choice(found)
      container[key] = json.loads(json.dumps(other[name])) if name in (*other,) else None
    else:
      container[key] = copy.deepcopy(rng.choice(VALUES))
  return json.dumps(value, ensure_ascii=rng.random() < 0.8).encode("utf-8", "surrogatepass")


def mutate(rng, data, is_json):
  """Returns changed contents of a file; of a file of JSON lines, one line is changed."""
  if not is_json or rng.random() < 0.3:
    return mutate_bytes(rng, data)
  lines = data.split(b"\n")
  index = rng.choice([index for index, line in enumerate(lines) if line])
  lines[index] = mutate_json(rng, lines[index])
  return b"\n".join(lines)


def fuzz(path, data, parse, change=None, is_json=False):
  """Parses changed contents for SECONDS.

  Args:
    path: file to write.
    data: contents that `parse` accepts.
    parse: called after each change; may raise UserError with the file's name.
    change: (random numbers, data) -> changed contents; by default `mutate`.
    is_json: the file is JSON, or lines of it.
  """
  rng, path = random.Random(SEED), str(path)
  change = change or (lambda rng, data: mutate(rng, data, is_json))
  with open(path, "wb") as writer:
    writer.write(data)
  parse()
  end, count, refused = time.monotonic() + SECONDS, 0, 0
  while time.monotonic() < end:
    changed = change(rng, data)
    with open(path, "wb") as writer:
      writer.write(changed)
    count += 1
    try:
      parse()
    except UserError as error:
      refused += 1
      message = str(error)
      message.encode()  # it can be printed
      assert os.path.basename(path) in message and len(message) < 20_000, message[:500]
    except Exception as error:
      with open(path + ".crash", "wb") as writer:
        writer.write(changed)
      pytest.fail(
        f"{type(error).__name__}: {error}; input {count}, {path}.crash: {changed[:300]!r}"
      )
  print(f"{os.path.basename(path)}: {count} inputs, {refused} refused")
  assert refused > 0


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
  path.write_text("\n".join(tiny.VOCAB) + "\n")
  return tokenization.get_tokenizer("word_piece", str(path), True)


def read_and_featurize(settings, split, tokenizer):
  task = tiny.make_task(settings, max_seq_length=64)
  for example in task.read_examples(split):
    task.featurize_all(example, tokenizer, 64)
  if split == "train":
    task.metadata()


TEXTS = [("good film", "yes"), ('bad "old" film, here', "no"), ("café", "yes"), ("", "no")]


@pytest.mark.parametrize("name", ["tsv", "csv", "jsonl"])
def test_tables(tmp_path, tokenizer, name):
  path = tmp_path / f"train.{name}"
  rows = [["text", "label"], *TEXTS]
  if name == "jsonl":
    data = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TEXTS)
  elif name == "csv":
    data = "".join(f'"{a.replace(chr(34), chr(34) * 2)}",{b}\n' for a, b in rows)
  else:
    data = "".join(f"{a}\t{b}\n" for a, b in rows)
  settings = Classification(task_name=name, train_file=str(path))
  parse = lambda: read_and_featurize(settings, "train", tokenizer)
  fuzz(path, data.encode(), parse, is_json=name == "jsonl")


def test_numbers_of_tables(tmp_path, tokenizer):
  path = tmp_path / "train.tsv"
  settings = Classification(
    task_name="tsv", train_file=str(path), is_regression=True, weight_col="weight"
  )
  data = b"text\tlabel\tweight\ngood\t1.5\t1\nbad\t-2\t0.5\n"
  fuzz(path, data, lambda: read_and_featurize(settings, "train", tokenizer))


def test_words_with_labels(tmp_path, tokenizer):
  path = tmp_path / "train.txt"
  data = b"good B-X\nfilm I-X\n\nbad O\nmovie\tB-Y\n"
  settings = Tagging(train_file=str(path))
  fuzz(path, data, lambda: read_and_featurize(settings, "train", tokenizer))


def test_squad(tmp_path, tokenizer):
  qas = [
    {"id": "1", "question": "what?", "answers": [{"text": "film", "answer_start": 5}]},
    {"id": 2, "question": "why?", "answers": [], "is_impossible": True},
  ]
  paragraphs = [{"context": "good film here", "qas": qas}]
  path = tmp_path / "train.json"
  data = json.dumps({"version": "v2.0", "data": [{"title": "a", "paragraphs": paragraphs}]})

  def parse():
    settings = Squad(train_file=str(path), predict_file=str(path), n_best_size=2)
    for split in ("train", "predict"):
      read_and_featurize(settings, split, tokenizer)

  fuzz(path, data.encode(), parse, is_json=True)


def test_race(tmp_path):
  path = tmp_path / "1.txt"
  values = {
    "article": "good film",
    "questions": ["what _ ?", "why?"],
    "options": [["a", "b", "c", "d"], ["e", "f", "g", 5]],
    "answers": ["A", "D"],
    "id": "high1.txt",
  }
  parse = lambda: list(race_data.read_race(str(path), True))
  fuzz(path, json.dumps(values).encode(), parse, is_json=True)


def test_questions_with_options(tmp_path, tokenizer):
  path = tmp_path / "train.jsonl"
  row = {"article": "good", "question": "why?", "options": ["x", "y"], "answer": "B", "id": "q1"}
  data = json.dumps(row) + "\n" + json.dumps({**row, "answer": 0, "id": 2}) + "\n"
  settings = Race(task_name="jsonl", train_file=str(path), max_qa_length=16, num_options=2)
  parse = lambda: read_and_featurize(settings, "train", tokenizer)
  fuzz(path, data.encode(), parse, is_json=True)


def test_swag(tmp_path):
  path = tmp_path / "train.csv"
  data = b'sent1,sent2,ending0,ending1,label\n"a, b",She,"runs ""off""",sits,1\na,He,x,y,0\n'
  fuzz(path, data, lambda: list(race_data.read_swag(str(path), True)))


@pytest.mark.parametrize(
  "file_format, data",
  [
    ("tsv", b'a\tb\n"x\ty"\t"p ""q"""\nz\t""\n'),
    ("csv", b'a,b\n"x,y","p ""q"""\nz,""\n'),
    ("unquoted", b'a\tb\n"x\t"y\n\tz\n'),
  ],
)
def test_rows(tmp_path, file_format, data):
  """Tables without a task."""
  path = tmp_path / "rows.tsv"
  fuzz(path, data, lambda: list(readers.read_rows(str(path), file_format)))


BERT = modeling.BertConfig(vocab_size=20, hidden_size=8, num_attention_heads=2).to_dict()
FUNNEL = modeling.ModelConfig(vocab_size=20, block_size="1_2x2", decoder_size="1").to_dict()
HUGGING_FACE = {
  "bert": {**BERT, "architectures": ["BertForSequenceClassification"], "model_type": "bert"},
  "funnel": {
    **{"model_type": "funnel", "block_sizes": [1, 2], "block_repeats": [1, 1], "d_model": 8},
    **{"n_head": 2, "d_head": 4, "d_inner": 8, "vocab_size": 20, "hidden_act": "gelu_new"},
    **{"id2label": {"0": "no", "1": "yes"}, "truncate_seq": True, "attention_type": "factorized"},
  },
}


@pytest.mark.parametrize(
  "values", [BERT, FUNNEL, HUGGING_FACE["bert"]], ids=["bert", "funnel", "hf"]
)
def test_model_configurations(tmp_path, values):
  path = tmp_path / "config.json"

  def parse():
    modeling.load_config(str(path)).to_dict()

  fuzz(path, json.dumps(values).encode(), parse, is_json=True)


@pytest.mark.parametrize("family", ["bert", "funnel"])
def test_configurations_to_convert(tmp_path, family):
  path = tmp_path / "config.json"

  def parse():
    huggingface.from_hf_config(str(path))
    values = huggingface.read_json(str(path))
    huggingface.labels_tokens(values)
    huggingface.label_list(values, 2, str(path))

  fuzz(path, json.dumps(HUGGING_FACE[family]).encode(), parse, is_json=True)


def test_vocabulary(tmp_path):
  path = tmp_path / "vocab.txt"

  def parse():
    found = tokenization.get_tokenizer("word_piece", str(path), True)
    found.convert_text_to_ids("good film")

  fuzz(path, ("\n".join(tiny.VOCAB) + "\n").encode(), parse)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_tokenizers_of_hugging_face(tmp_path, name):
  path = tmp_path / name
  model = {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"[UNK]": 0, "a": 1}}
  contents = {
    "tokenizer.json": {
      "model": model,
      "added_tokens": [{"id": 2, "content": "[NEW]"}],
      "normalizer": {"type": "BertNormalizer", "lowercase": True, "clean_text": True},
      "pre_tokenizer": {"type": "BertPreTokenizer"},
    },
    "tokenizer_config.json": {
      "do_lower_case": True,
      "strip_accents": None,
      "tokenizer_class": "BertTokenizer",
      "added_tokens_decoder": {"2": {"content": "[NEW]"}},
    },
  }
  if name == "tokenizer_config.json":
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))

  def parse():
    hf_tokenizer.vocab_lines(str(tmp_path), 10)
    hf_tokenizer.read_settings(str(tmp_path))
    hf_tokenizer.deviations(str(tmp_path))

  # An error of the vocabulary, of two files together, names tokenizer.json.
  target = tmp_path / "tokenizer" if name == "tokenizer_config.json" else path
  if target != path:
    os.symlink(path, target)
  fuzz(target, json.dumps(contents[name]).encode(), parse, is_json=True)


def test_metadata_of_records(tmp_path):
  path = tmp_path / "records.meta.json"
  values = {
    **{"filenames": ["a", "b"], "num_example": [3, 4], "num_bytes": [30, 40], "vocab_size": 20},
    **{"special_ids": {"cls": 1, "sep": 2, "pad": 0, "mask": 3}, "max_seq_length": 64},
    **{"do_lower_case": True, "max_predictions_per_seq": 4, "label_list": ["a", "b"]},
    **{"train_data_size": 7, "vocab_sha256": "00"},
  }

  def parse():
    meta = record_files.read_meta(str(path))
    pretraining_sets.describe_files(str(path), meta)
    corpus = pretraining_sets.Corpus({}, *pretraining_sets.common_meta({str(path): meta}))
    pretraining_sets.find_symbols(corpus, config.Tokenizer())
    experiment = config.Experiment(task=Pretraining(input_file="x", max_predictions_per_seq=1))
    experiment.data.max_seq_length = 64
    pretraining_sets.check_against_meta(corpus, experiment)

  def parse_or_flags():
    try:
      parse()
    except UserError as error:
      if "--" not in str(error):  # else a setting that is missing from the metadata
        raise
      raise UserError(f"{path}: {error}") from None

  fuzz(path, json.dumps(values).encode(), parse_or_flags, is_json=True)


def test_settings(tmp_path):
  path = tmp_path / "settings.yaml"
  data = b"""trainer: {seed: 3, train_steps: 3 epochs}
optimizer:
  learning_rate: 1e-4
  clip: &a 1.0
  weight_decay: *a
task.train_data.seq_length: 64
task: {task_name: cola, class_weights: "a:1"}
model:
  keys: {hidden_size: 8}
"""

  def parse():
    experiment = config.Experiment(task=Classification())
    params.apply(experiment, params.read_file(str(path)))
    params.to_yaml(experiment)

  fuzz(path, data, parse)


def frame(records):
  """Contents of a record file."""
  stream = io.BytesIO()
  writer = tfrecord.Writer(stream)
  for record in records:
    writer.write(record)
  return stream.getvalue()


def test_records(tmp_path):
  """Changed bytes of the file, and changed records with the right checksums."""
  path = tmp_path / "records.tfrecord"
  task = tiny.make_task(Classification(task_name="cola"), max_seq_length=8)
  features = {
    **{"input_ids": [1, 5, 2, 0, 0, 0, 0, 0], "input_mask": [1, 1, 1, 0, 0, 0, 0, 0]},
    **{"segment_ids": [0] * 8, "label_ids": [1], "weight": [1.0]},
  }
  records = [tfrecord.encode_example({**features, "label_ids": [i % 2]}) for i in range(5)]

  def change(rng, data):
    if rng.random() < 0.3:
      return mutate_bytes(rng, data)
    changed = list(records)
    index = rng.randrange(len(changed))
    if rng.random() < 0.5:
      changed[index] = (mutate_bytes(rng, changed[index]) + b"\0" * 4)[: rng.choice((4, 10**6))]
    else:
      name = rng.choice(list(features))
      values = rng.choice(([99], [-1], [0] * 8, [0.5] * 8, [float("nan")], [], [2**40] * 8))
      changed[index] = tfrecord.encode_example({**features, name: values})
    return frame(changed)

  def parse():
    count = record_files.count_records(str(path))
    record_files.check_lengths(str(path), task.feature_specs, 8)
    ranges = task.ranges(len(tiny.VOCAB), 2, 8)
    source = inputs.RecordSource([str(path)], count, task, 8, lambda n, m: n, ranges=ranges)
    with record_faults.explained(source):
      for batch in source.read().batch(2):
        source.parse(batch, tf.zeros([2], tf.int32))

  fuzz(path, frame(records), parse, change)


def test_safetensors(tmp_path):
  path = tmp_path / "model.safetensors"
  header = json.dumps(
    {
      "__metadata__": {"format": "pt"},
      "a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
      "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
    }
  ).encode()
  join = lambda header: len(header).to_bytes(8, "little") + header + bytes(24)

  def change(rng, data):
    kind = rng.randrange(3)
    return (
      mutate_bytes(rng, data)
      if kind == 0
      else join(mutate_json(rng, header) if kind == 1 else mutate_bytes(rng, header))
    )

  def parse():
    tensors = huggingface.HFTensors(str(tmp_path))
    for name in tensors.names():
      tensors.shape(name)
      tensors.read(name)

  fuzz(path, join(header), parse, change)


def test_index_of_shards(tmp_path):
  path = tmp_path / "model.safetensors.index.json"
  values = {
    "metadata": {"total_size": 3},
    "weight_map": {"a": "1.safetensors", "b": "2.safetensors"},
  }
  parse = lambda: huggingface._shard_names(str(path))
  fuzz(path, json.dumps(values).encode(), parse, is_json=True)
