"""Tiny pretraining records of both forms, their record sources, and losses of a batch."""

import glob

import pytest
import tensorflow as tf
import tiny
from tiny_funnel import assign

import config
import create_pretraining_data
import modeling
from preprocessing import pretraining_records, record_files
from tasks import masking, pretraining
from training import inputs

v1 = tf.compat.v1
LENGTH = 24


def write_text(path, seed=1, count=60):
  """Writes documents of three sentences each; returns the path."""
  lines = []
  for index, (sentence, _) in enumerate(tiny.sentences(count, seed)):
    lines += [sentence] + ([""] if index % 3 == 2 else [])
  path.write_text("\n".join(lines) + "\n")
  return str(path)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  """Folder with tiny encoders and the records of both forms: bert.tfrecord-*, funnel/."""
  folder = tmp_path_factory.mktemp("pretraining")
  tiny.write_encoder(folder / "bert", dropout=0.0)
  tiny.write_funnel(folder / "model", dropout=0.0)
  text = write_text(folder / "text.txt")
  run = create_pretraining_data.Run(num_workers=1)
  create_pretraining_data.create(
    pretraining_records.BertForm(
      input_file=text,
      output_file=str(folder / "bert.tfrecord"),
      num_shards=3,
      max_seq_length=LENGTH,
      max_predictions_per_seq=4,
      dupe_factor=2,
    ),
    config.Tokenizer(tokenizer_path=str(folder / "bert" / "vocab.txt")),
    run,
  )
  for split in ("train", "dev"):
    create_pretraining_data.create(
      pretraining_records.FunnelForm(
        input_glob=text, save_dir=str(folder / "funnel"), num_task=2, seq_len=LENGTH, split=split
      ),
      config.Tokenizer(tokenizer_path=str(folder / "model" / "vocab.uncased.txt")),
      run,
    )
  return folder


def sequences_of(vocab_path, **kwargs):
  words = open(vocab_path).read().split()
  special = {
    role: next(i for i, word in enumerate(words) if word.strip("[]<>").lower() == role)
    for role in ("pad", "unk", "cls", "sep", "mask")
  }
  return pretraining.Sequences(LENGTH, special, len(words), **kwargs)


def bert_source(records, loss_type="bert", **kwargs):
  sequences = sequences_of(records / "bert" / "vocab.txt", **kwargs)
  task = pretraining.PretrainingTask(loss_type, pretraining.BertRecords(sequences, 4), sequences)
  paths = sorted(glob.glob(str(records / "bert.tfrecord-*")))
  return inputs.RecordSource(
    paths,
    sum(map(record_files.count_records, paths)),
    task,
    LENGTH,
    modeling.BertConfig(9).padded_length,
  )


def funnel_source(records, strategy="single_token", **kwargs):
  sequences = sequences_of(
    records / "model" / "vocab.uncased.txt", **{"cls_segment_id": 2, **kwargs}
  )
  form = pretraining.FunnelRecords(sequences, masking.Masking(strategy, 4))
  task = pretraining.PretrainingTask("mlm", form, sequences)
  paths = sorted(glob.glob(str(records / "funnel" / "data.train*")))
  return inputs.RecordSource(
    paths,
    sum(map(record_files.count_records, paths)),
    task,
    LENGTH,
    modeling.BertConfig(9).padded_length,
  )


def batches_of(input_fn, count):
  with tf.Graph().as_default(), v1.Session() as session:
    batch = v1.data.make_one_shot_iterator(input_fn()).get_next()
    return [session.run(batch) for _ in range(count)]


def losses_of(task, model_config, features):
  """Loss name -> loss of the batch, with the weights of `tiny_funnel.assign`."""
  with tf.Graph().as_default(), v1.Session() as session:
    features = {name: tf.constant(value) for name, value in features.items()}
    output = task.build(modeling.build_encoder(model_config, features, False), features)
    weights = task.loss_weights(features)
    assign(session)
    return session.run(
      {name: tf.reduce_sum(output.losses[name]) / tf.reduce_sum(weights[name]) for name in weights}
    )
