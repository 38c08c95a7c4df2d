"""The published run_classifier.py commands work with a tiny Funnel-Transformer."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny
from test_run_classifier import assert_same_weights, read_json, weights_of

import modeling


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("funnel")
  tiny.write_funnel(folder / "model")
  tiny.write_cola(folder / "CoLA")
  return folder


def common(folder):
  """Common flags of the published CoLA commands for training and for evaluation."""
  return [
    "--task_name=cola",
    f"--data_dir={folder / 'CoLA'}",
    f"--output_dir={folder / 'proc_data' / 'cola'}",
    f"--model_dir={folder / 'exp' / 'cola'}",
    "--uncased=True",
    "--tokenizer_type=word_piece",
    f"--tokenizer_path={folder / 'model' / 'vocab.uncased.txt'}",
    "--max_seq_length=32",
    "--num_hosts=1",
    "--num_core_per_host=1",
  ]


@pytest.fixture(scope="module")
def trained(workspace):
  _, err = tiny.run(
    "run_classifier.py",
    "--do_train=True",
    "--do_eval=False",
    *common(workspace),
    f"--model_config_path={workspace / 'model' / 'net_config.json'}",
    f"--init_checkpoint={workspace / 'model' / 'model.ckpt'}",
    "--train_batch_size=16",
    "--learning_rate=5e-3",
    "--train_steps=60",
    "--warmup_steps=6",
    "--iterations=30",
    "--save_steps=30",
  )
  return workspace / "exp" / "cola", err


@pytest.mark.smoke
def test_published_training_and_evaluation_commands(workspace, trained):
  model_dir, err = trained
  assert "Recipe funnel_classification, task cola:" in err and "adam_beta2=0.99" in err
  assert "new: model/sequnece_summary/summary/kernel" in err
  out, _ = tiny.run(
    "run_classifier.py",
    "--do_train=False",
    "--do_eval=True",
    "--eval_all_ckpt",
    *common(workspace),
    "--eval_batch_size=8",
  )
  lines = [json.loads(line) for line in open(model_dir / "metrics.jsonl")]
  evaluated = {line["step"]: line["matthews"] for line in lines if line["kind"] == "eval"}
  assert sorted(evaluated) == [30, 60] and evaluated[60] > 0.8
  assert f"score {max(evaluated.values()):.4f}" in out
  names = set(weights_of(model_dir, 60))
  assert {
    "model/cola/logit/kernel",
    "model/sequnece_summary/summary/bias",
    "model/encoder/layer_2/ff/layer_1/kernel",
  } <= names
  assert not any("decoder" in name for name in names), "classification needs no decoder"


def test_segment_ids_and_configuration_of_the_run(workspace, trained):
  meta = [
    read_json(path)
    for path in tf.io.gfile.glob(str(workspace / "proc_data" / "cola" / "*.meta.json"))
  ]
  assert {entry["cls_segment_id"] for entry in meta} == {2}
  path = tf.io.gfile.glob(str(workspace / "proc_data" / "cola" / "*train*.tfrecord"))[0]
  record = tf.train.Example.FromString(next(iter(tf.data.TFRecordDataset(path))).numpy())
  segments = record.features.feature["segment_ids"].int64_list.value
  assert segments[0] == 2 and set(segments[1:]) == {0}
  saved = modeling.load_config(str(trained[0] / "net_config.json"))
  assert saved == modeling.load_config(str(workspace / "model" / "net_config.json"))


def test_overwrite_keys(workspace):
  arguments = [
    *common(workspace),
    f"--pretrained={workspace / 'model'}",
    "--do_train",
    f"--model_dir={workspace / 'overwritten'}",
    "--train_steps=2",
    "--dropout=0.25",
  ]
  tiny.run("run_classifier.py", *arguments, "--overwrite_keys=dropout,dropatt", "--dropatt=0")
  config = read_json(workspace / "overwritten" / "net_config.json")
  assert (config["dropout"], config["dropatt"], config["dropact"]) == (0.25, 0.0, 0.0)
  _, err = tiny.run("run_classifier.py", *arguments, "--overwrite_keys=droput", status=1)
  assert "overwrite_keys: unknown keys droput" in err and "Traceback" not in err


def test_two_devices_equal_one(workspace):
  tiny.write_funnel(workspace / "no_dropout", dropout=0.0)
  weights, curves = [], []
  for devices in (1, 2):
    model_dir = workspace / f"devices_{devices}"
    tiny.run(
      "run_classifier.py",
      *common(workspace)[:-1],
      "--do_train",
      "--train_steps=12",
      f"--pretrained={workspace / 'no_dropout'}",
      f"--model_dir={model_dir}",
      f"--num_core_per_host={devices}",
      "--log_freq=1",
      "--learning_rate=1e-3",
      "--train_batch_size=8",
    )
    curves.append(
      [
        [line["loss"], line["gradient_norm"]]
        for line in map(json.loads, open(model_dir / "metrics.jsonl"))
      ]
    )
    weights.append(weights_of(model_dir, 12))
  assert len(curves[0]) == 12
  np.testing.assert_allclose(curves[0], curves[1], atol=1e-5)
  assert_same_weights(weights[0], weights[1], atol=1e-5)


def test_batches_keep_the_padding_that_truncation_needs(workspace):
  """n tokens give the same numbers in a batch of their own length and at full length."""
  config = modeling.load_config(str(workspace / "model" / "net_config.json"))
  assert config.reserved_positions == 3
  assert [config.padded_length(n, 8) for n in (9, 10, 13)] == [9, 17, 17]
  whole = modeling.ModelConfig(**{**config.to_dict(), "pooling_size": 3})
  assert whole.reserved_positions == 8 and whole.padded_length(13, 8) == 24
  rng = np.random.RandomState(0)
  ids = rng.randint(5, config.vocab_size, [2, 13])
  logits = []
  for length in (13, 16, 17, 32):
    features = {
      "input_ids": np.pad(ids, [(0, 0), (0, length - 13)]),
      "input_mask": np.pad(np.ones_like(ids), [(0, 0), (0, length - 13)]),
      "segment_ids": np.pad(np.zeros_like(ids), [(0, 0), (0, length - 13)]),
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
      tf.compat.v1.set_random_seed(1)
      encoder = modeling.build_encoder(
        config, {name: tf.constant(v, tf.int32) for name, v in features.items()}, False
      )
      output = encoder.classification_logits(3, None, "cola")
      session.run(tf.compat.v1.global_variables_initializer())
      logits.append(session.run(output))
  for other in logits[1:]:
    np.testing.assert_allclose(logits[0], other, atol=1e-5)


def test_released_models_by_name():
  assert modeling.released_funnel("B6-3x2-3x2H768").block_size == "6_3x2_3x2"
  for name in modeling.RELEASED_FUNNELS:
    assert os.path.exists(os.path.join(tiny.ROOT, "configs", "models", name + ".json"))
  with pytest.raises(modeling.UserError, match="no released model 'B4'; use one of B4-4-4H768"):
    modeling.released_funnel("B4")


CUSTOM_USAGE = """
import sys
import numpy as np
import tensorflow as tf
from absl import flags
import data_utils
import modeling
import tokenization
import config
from training import flags as shared_flags

FLAGS = flags.FLAGS
shared_flags.define(config.Model, config.Tokenizer)
shared_flags.define_funnel()
FLAGS(sys.argv)
is_training = use_tpu = use_bfloat16 = False

tokenizer = tokenization.get_tokenizer()
data_utils.setup_special_ids(tokenizer)

if FLAGS.model_config:
  net_config = modeling.ModelConfig.init_from_json(FLAGS.model_config)
else:
  net_config = modeling.ModelConfig.init_from_flags()
model = modeling.FunnelTFM(net_config)

tf.compat.v1.disable_eager_execution()
inputs = tf.constant([tokenizer.convert_text_to_ids("the film was very good and the story fine")])
seg_id = tf.zeros_like(inputs)
input_mask = tf.zeros_like(inputs)

summary, _ = model.get_pooled_output(
   inputs,
   is_training,
   seg_id=seg_id,
   input_mask=input_mask,
   use_tpu=use_tpu,
   use_bfloat16=use_bfloat16)

for use_decoder in (False, True):
  last_hidden, encoder_hiddens, ret_dict = model.extract_hiddens(
      inputs,
      is_training,
      seg_id=seg_id,
      input_mask=input_mask,
      use_decoder=use_decoder,
      use_tpu=use_tpu,
      use_bfloat16=use_bfloat16)
  print(last_hidden.shape, len(encoder_hiddens))
if FLAGS.init_checkpoint:
  saved = dict(tf.train.list_variables(FLAGS.init_checkpoint))
  own = {v.op.name: v.shape.as_list() for v in tf.compat.v1.global_variables()}
  print(sorted(set(own) - set(saved)), all(own[name] == saved[name] for name in saved))
print(net_config.vocab_size, summary.shape)
"""


def test_custom_usage_of_the_published_readme(workspace):
  def program(*args):
    result = subprocess.run(
      [sys.executable, "-c", CUSTOM_USAGE, *args],
      text=True,
      capture_output=True,
      env=dict(os.environ, PYTHONPATH=tiny.ROOT),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.splitlines()

  model, vocab = workspace / "model", f"--tokenizer_path={workspace / 'model/vocab.uncased.txt'}"
  lines = program(
    vocab,
    f"--model_config={model / 'net_config.json'}",
    f"--init_checkpoint={model / 'model.ckpt'}",
  )
  assert lines[:2] == ["(1, 3, 16) 3", "(1, 9, 16) 3"]
  assert lines[2] == (
    "['model/sequnece_summary/summary/bias', 'model/sequnece_summary/summary/kernel'] True"
  )
  lines = program(
    vocab,
    "--block_size=2_2",
    "--d_model=8",
    "--d_embed=8",
    "--n_head=1",
    "--d_head=8",
    "--d_inner=8",
    "--decoder_size=1",
  )
  assert lines == ["(1, 5, 8) 4", "(1, 9, 8) 4", f"{len(tiny.VOCAB)} (1, 8)"]
