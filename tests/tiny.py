"""Writes tiny encoders and data sets, and runs the scripts on them."""

import atexit
import functools
import json
import os
import random
import subprocess
import sys
import tempfile

import tensorflow as tf

import config
import modeling
from tasks import registry

v1 = tf.compat.v1
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

GOOD = ["good", "great", "fine", "lovely"]
BAD = ["bad", "awful", "poor", "dull"]
OTHER = ["the", "a", "film", "story", "was", "is", "and", "very", "quite", "it"]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER, "##s", ".", ",", "!"]


def write_encoder(folder, num_layers=2, hidden_size=16, dropout=0.1, max_positions=32, seed=1):
  """Writes bert_config.json, vocab.txt and a random bert_model.ckpt; returns the folder as str."""
  folder = str(folder)
  os.makedirs(folder, exist_ok=True)
  config = modeling.BertConfig(
    vocab_size=len(VOCAB),
    hidden_size=hidden_size,
    num_hidden_layers=num_layers,
    num_attention_heads=2,
    intermediate_size=2 * hidden_size,
    hidden_dropout_prob=dropout,
    attention_probs_dropout_prob=dropout,
    max_position_embeddings=max_positions,
    type_vocab_size=2,
    initializer_range=0.1,
  )
  with open(os.path.join(folder, "bert_config.json"), "w") as writer:
    writer.write(config.to_json_string())
  with open(os.path.join(folder, "vocab.txt"), "w") as writer:
    writer.write("\n".join(VOCAB) + "\n")
  with tf.Graph().as_default(), v1.Session() as session:
    v1.set_random_seed(seed)
    modeling.BertModel(config, False, tf.ones([1, 4], tf.int32))
    session.run(v1.global_variables_initializer())
    v1.train.Saver().save(session, os.path.join(folder, "bert_model.ckpt"), write_meta_graph=False)
  return folder


def write_funnel(folder, dropout=0.1, **kwargs):
  """Writes net_config.json, vocab.uncased.txt ("<cls>" style) and a random model.ckpt."""
  folder = str(folder)
  os.makedirs(folder, exist_ok=True)
  vocab = [word.lower().replace("[", "<").replace("]", ">") for word in VOCAB]
  config = modeling.ModelConfig(
    **{
      **dict(
        vocab_size=len(vocab),
        block_size="1_1_1",
        d_model=16,
        d_embed=16,
        n_head=2,
        d_head=8,
        d_inner=32,
        dropout=dropout,
        dropatt=dropout,
        decoder_size="1",
        init_std=0.1,
      ),
      **kwargs,
    }
  )
  config.to_json(os.path.join(folder, "net_config.json"))
  with open(os.path.join(folder, "vocab.uncased.txt"), "w") as writer:
    writer.write("\n".join(vocab) + "\n")
  with tf.Graph().as_default(), v1.Session() as session:
    v1.set_random_seed(1)
    modeling.FunnelTFM(config).extract_hiddens(tf.ones([1, 8], tf.int32), False, use_decoder=True)
    session.run(v1.global_variables_initializer())
    v1.train.Saver().save(session, os.path.join(folder, "model.ckpt"), write_meta_graph=False)
  return folder


def sentences(count, seed):
  """Yields (sentence, label); label 1 if the sentence has a good word, 0 if it has a bad one."""
  rng = random.Random(seed)
  for _ in range(count):
    label = rng.randrange(2)
    words = rng.choices(OTHER, k=rng.randint(1, 12))
    words.insert(rng.randint(0, len(words)), rng.choice(GOOD if label else BAD))
    yield " ".join(words), str(label)


def write_cola(folder, num_train=96, num_dev=30, num_test=11):
  """Writes train.tsv, dev.tsv, test.tsv in CoLA's native layout; returns the folder as str."""
  folder = str(folder)
  os.makedirs(folder, exist_ok=True)
  for split, count, seed in (("train", num_train, 1), ("dev", num_dev, 2)):
    with open(os.path.join(folder, split + ".tsv"), "w") as writer:
      writer.writelines(f"src\t{label}\t\t{text}\n" for text, label in sentences(count, seed))
  with open(os.path.join(folder, "test.tsv"), "w") as writer:
    writer.write("index\tsentence\n")
    writer.writelines(f"{i}\t{text}\n" for i, (text, _) in enumerate(sentences(num_test, 3)))
  return folder


def _environment(**variables):
  return dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", **variables)


def start(script, *args, **variables):
  """Starts a script of the repository as a user would, with further environment variables."""
  return subprocess.Popen(
    [sys.executable, os.path.join(ROOT, script), *map(str, args)],
    cwd=ROOT,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    stdin=subprocess.DEVNULL,
    env=_environment(**variables),
  )


@functools.cache
def _fork_server():
  server = subprocess.Popen(
    [sys.executable, os.path.join(ROOT, "tests", "fork_server.py")],
    cwd=ROOT,
    text=True,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    env=_environment(),
  )
  atexit.register(server.communicate)  # the end of its input ends it
  return server


def run(script, *args, status=0):
  """Runs a script to its end, checks its exit status, returns (stdout, stderr).

  The process is forked from one that has TensorFlow loaded. `start` begins with an empty one.
  """
  server = _fork_server()
  with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
    command = [os.path.join(ROOT, script), [*map(str, args)], _environment(), out.name, err.name]
    server.stdin.write(json.dumps(command) + "\n")
    server.stdin.flush()
    found = int(server.stdout.readline())
    texts = out.read(), err.read()
  assert found == status, f"exit {found}\n{texts[0]}\n{texts[1][-4000:]}"
  return texts


def make_task(settings, raw_data=None, family="bert", max_seq_length=512):
  """The task of these settings, as a script makes it."""
  experiment = config.Experiment(task=settings, raw_data=raw_data or config.RawData())
  experiment.data.max_seq_length = max_seq_length
  return registry.find(settings.job).task_class().from_experiment(experiment, family)
