"""Embedding tables padded to a multiple of 8, 64 or 128 rows are accepted."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tiny
from test_config_keys import POOLER

import config
import create_pretraining_data
import modeling
import tokenization
from errors import UserError
from preprocessing import pretraining_records
from training import checkpoints
from utils import files

v1 = tf.compat.v1
ROWS = 32  # for the 27 tokens of tiny.VOCAB
TABLE = "bert/embeddings/word_embeddings"


@pytest.mark.parametrize(
  "num_tokens, num_rows, expected",
  [
    (30522, 30528, True),
    (30522, 30592, True),
    (28996, 29056, True),
    (119547, 119552, True),
    (27, 32, True),
    (27, 64, True),
    (27, 128, True),
    (5, 8, True),
    (30522, 30522, False),
    (30528, 30528, False),
    (30522, 30536, False),
    (30528, 30522, False),
    (27, 28, False),
    (27, 40, False),
    (27, 256, False),
    (32, 27, False),
  ],
)
def test_padded_tables_are_recognized(num_tokens, num_rows, expected):
  assert tokenization.is_padded(num_tokens, num_rows) == expected


def test_vocabulary_may_have_fewer_tokens_than_rows(tmp_path, caplog):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(tiny.VOCAB) + "\n")
  tokenizer = tokenization.FullTokenizer(str(path))
  with caplog.at_level("INFO"):
    tokenization.check_vocab(tokenizer, ROWS, "config.json")
  assert caplog.messages == [
    "config.json: vocab_size 32 is the size of the vocabulary, 27, and "
    "padding; no token uses the padding rows"
  ]
  for size, relation in [(26, "more"), (28, "fewer"), (40, "fewer"), (24, "more")]:
    with pytest.raises(UserError, match=f"27 tokens, {relation} than the vocab_size {size} of c"):
      tokenization.check_vocab(tokenizer, size, "config.json")


def test_configuration_follows_the_table(tmp_path):
  fit = lambda vocab_size, rows, name=TABLE: (
    checkpoints.fit_config(
      modeling.BertConfig(vocab_size=vocab_size),
      {name: [rows, 768], **dict.fromkeys(range(12))},
      "model.ckpt",
      "bert_config.json",
    ).vocab_size
  )
  assert fit(30522, 30528) == 30528 and fit(30528, 30522) == 30522
  assert fit(30522, 30592, "embeddings.word_embeddings.weight") == 30592
  assert fit(30522, 30530) == 30522, "another difference is for the comparison of shapes"
  funnel = modeling.ModelConfig(30522, block_size="4_4_4")
  shapes = {"model/input/word_embedding/lookup_table": [30592, 768], **dict.fromkeys(range(13))}
  assert checkpoints.fit_config(funnel, shapes, "", "").vocab_size == 30592


@pytest.mark.parametrize(
  "model_config",
  [
    modeling.BertConfig(9, num_hidden_layers=905),
    modeling.ModelConfig(9, block_size="4_900_4"),
    modeling.ModelConfig(9, block_size="4_4", decoder_size="900"),
  ],
)
def test_more_layers_than_tensors_are_refused(model_config):
  with pytest.raises(UserError, match="net: the model has 9.. layers, but ckpt has only 1 t"):
    checkpoints.fit_config(model_config, {TABLE: [9, 768]}, "ckpt", "net")


def pad_table(folder):
  """Pads the table of a tiny encoder's checkpoint to ROWS; its configuration is unchanged."""
  prefix = tf.train.latest_checkpoint(folder)
  reader = tf.train.load_checkpoint(prefix)
  arrays = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
  arrays[TABLE] = np.pad(arrays[TABLE], [(0, ROWS - len(tiny.VOCAB)), (0, 0)])
  with tf.Graph().as_default(), v1.Session() as session:
    for name, array in arrays.items():
      v1.get_variable(name, initializer=array)
    session.run(v1.global_variables_initializer())
    v1.train.Saver().save(session, prefix, write_meta_graph=False)


def test_a_padded_model_with_a_released_configuration_is_fine_tuned(tmp_path):
  """The checkpoint has 32 rows, its bert_config.json has vocab_size 27 and unread keys."""
  folder = tiny.write_encoder(tmp_path / "encoder")
  pad_table(folder)
  path = tmp_path / "encoder" / "bert_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | POOLER))
  tiny.write_cola(tmp_path / "CoLA", 16, 8, 4)
  _, err = tiny.run(
    "run_classifier.py",
    "--task_name=cola",
    f"--pretrained={folder}",
    "--do_train",
    "--do_eval",
    f"--data_dir={tmp_path / 'CoLA'}",
    f"--output_dir={tmp_path / 'run'}",
    "--train_steps=2",
    "--train_batch_size=8",
    "--max_seq_length=16",
  )
  assert "vocab_size is 27, but" in err and "has 32 embeddings; one of them is padded" in err
  assert "ignored directionality, pooler_fc_size" in err
  written = files.read_json(str(tmp_path / "run" / "bert_config.json"))
  assert written["vocab_size"] == ROWS and not POOLER.keys() & written.keys()


def test_pretraining_of_a_padded_model(tmp_path):
  folder = tiny.write_encoder(tmp_path / "encoder")
  (tmp_path / "text.txt").write_text("\n".join(text for text, _ in tiny.sentences(40, 1)) + "\n")
  create_pretraining_data.create(
    pretraining_records.BertForm(
      input_file=str(tmp_path / "text.txt"),
      max_seq_length=24,
      output_file=str(tmp_path / "a.tfrecord"),
      max_predictions_per_seq=4,
    ),
    config.Tokenizer(tokenizer_path=f"{folder}/vocab.txt"),
    create_pretraining_data.Run(num_workers=1),
  )
  path = tmp_path / "padded.json"
  values = files.read_json(f"{folder}/bert_config.json")
  run = lambda rows, status: (
    path.write_text(json.dumps(values | {"vocab_size": rows})),
    tiny.run(
      "run_pretraining.py",
      f"--input_file={tmp_path / 'a.tfrecord'}*",
      "--do_train",
      f"--model_dir={tmp_path / 'run'}",
      "--train_batch_size=4",
      "--train_steps=1",
      f"--model_config={path}",
      status=status,
    )[1],
  )[1]
  assert "vocab_size 32 is the size of the vocabulary, 27, and padding" in run(ROWS, 0)
  assert "vocab_size is 33 in" in run(33, 1)
