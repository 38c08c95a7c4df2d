"""Pretraining: losses, random draws of dropout and replaced tokens, ELECTRA's generator."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_pretraining_task
from tiny_funnel import GOLDEN, assign
from tiny_pretraining_task import (
  LENGTH,
  batches_of,
  bert_source,
  funnel_source,
  losses_of,
  sequences_of,
)

import config
import create_pretraining_data
import modeling
from models.funnel_config import ModelConfig
from preprocessing import pretraining_records, record_files
from tasks import base, masking, pretraining
from tasks.settings import Pretraining
from training import checkpoints, devices, inputs, recipes, tf_compat
from training.model_fn import ModelFn

v1 = tf.compat.v1
records = tiny_pretraining_task.records


@pytest.mark.smoke
def test_bert_losses_equal_the_original():
  data = np.load(os.path.join(GOLDEN, "bert_pretrain.npz"))
  model_config = modeling.BertConfig.from_dict(json.loads(str(data["config_json"])))
  features = {name[3:]: data[name] for name in data.files if name.startswith("in:")}
  features["next_sentence_positions"] = np.zeros([3, 1], np.int32)
  sequences = pretraining.Sequences(16, {"mask": 39}, 40)
  task = pretraining.PretrainingTask("bert", pretraining.BertRecords(sequences, 4), sequences)
  losses = losses_of(task, model_config, features)
  assert losses["mlm"] == pytest.approx(float(data["out:masked_lm_loss"]), abs=2e-5)
  assert losses["nsp"] == pytest.approx(float(data["out:next_sentence_loss"]), abs=2e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["funnel_mlm_rel_shift_base", "funnel_mlm_factorized_oneblock"])
def test_funnel_loss_equals_the_original(name):
  data = np.load(os.path.join(GOLDEN, name + ".npz"))
  values = json.loads(str(data["config_json"]))
  values.pop("flags")
  given = {key[3:]: data[key] for key in data.files if key.startswith("in:")}
  features = {
    "input_ids": given["masked_input"],
    "segment_ids": given["seg_id"],
    "input_mask": 1 - given["pad_mask"].astype(np.int32),
    "is_mask_symbol": (given["input_mask"] - given["pad_mask"]).astype(np.int32),
    "masked_lm_positions": given["target_mapping"].argmax(-1).astype(np.int32),
    "masked_lm_ids": given["target"],
    "masked_lm_weights": np.ones([3, 4], np.float32),
  }
  assert features["is_mask_symbol"].any()  # the original masks attention to these tokens
  sequences = pretraining.Sequences(16, {"mask": 39}, 40)
  form = pretraining.FunnelRecords(sequences, masking.Masking("single_token", 4))
  losses = losses_of(
    pretraining.PretrainingTask("mlm", form, sequences), ModelConfig.from_dict(values), features
  )
  assert losses["mlm"] == pytest.approx(float(data["out:loss"]), abs=2e-5)


def test_packed_rows_give_the_loss_of_single_examples(records, tmp_path):
  """Packing several examples into a row gives fewer rows and the same loss."""
  sources = []
  for pack in (False, True):
    path = str(tmp_path / f"{pack}.tfrecord")
    create_pretraining_data.create(
      pretraining_records.BertForm(
        input_file=str(records / "text.txt"),
        output_file=path,
        dupe_factor=2,
        max_seq_length=LENGTH,
        max_predictions_per_seq=8,
        short_seq_prob=0.7,
        pack_sequences=pack,
      ),
      config.Tokenizer(tokenizer_path=str(records / "bert" / "vocab.txt")),
      create_pretraining_data.Run(num_workers=1),
    )
    sequences = sequences_of(records / "bert" / "vocab.txt")
    task = pretraining.PretrainingTask(
      "bert", pretraining.BertRecords(sequences, 8, pack_sequences=pack), sequences
    )
    sources.append(
      inputs.RecordSource(
        [path], record_files.count_records(path), task, LENGTH, modeling.BertConfig(9).padded_length
      )
    )
    record_files.check_lengths(path, task.feature_specs, LENGTH)
  single, packed = sources
  assert packed.num_examples < single.num_examples - 5
  model_config = modeling.load_config(str(records / "bert" / "bert_config.json"))
  sums = []
  for source in sources:
    batches = batches_of(inputs.predict_input_fn(source, source.num_examples, False), 1)
    features = {name: value for name, value in batches[0].items() if name != "example_index"}
    with tf.Graph().as_default(), v1.Session() as session:
      features = {name: tf.constant(value) for name, value in features.items()}
      output = source.task.build(modeling.build_encoder(model_config, features, False), features)
      weights = source.task.loss_weights(features)
      assign(session)
      sums.append(
        session.run(
          {
            name: (tf.reduce_sum(output.losses[name]), tf.reduce_sum(weights[name]))
            for name in weights
          }
        )
      )
  for name in ("mlm", "nsp"):
    assert sums[0][name][1] == sums[1][name][1] > 20
    assert sums[0][name][0] / sums[0][name][1] == pytest.approx(
      sums[1][name][0] / sums[1][name][1], abs=1e-5
    )


@pytest.mark.smoke
@pytest.mark.parametrize("loss_type, dropout", [("mlm", 0.3), ("electra", 0.0)])
def test_tpu_cores_draw_different_dropout_and_noise(records, tmp_path, loss_type, dropout):
  """Runs one graph, as on a TPU, on the two shards of a batch of equal examples."""
  model_config = modeling.BertConfig(
    len(tiny.VOCAB),
    16,
    1,
    2,
    16,
    hidden_dropout_prob=dropout,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=32,
  )
  source = bert_source(records, loss_type)
  (batch,) = batches_of(inputs.train_input_fn(source, 8, 1, 0, 1, static_shapes=True), 1)
  numbers = batch.pop(inputs.ROW)
  batch = {name: np.repeat(value[:1], 8, axis=0) for name, value in batch.items()}
  experiment = config.Experiment(task=Pretraining())
  experiment.model.init_checkpoint, experiment.trainer.model_dir = "none", str(tmp_path)
  recipes.apply(experiment, recipes.load("bert", "pretraining", loss_type))
  model_fn = ModelFn(experiment, source.task, model_config, devices.Devices("CPU"), 10, 1)

  def losses(*shards):
    with tf.Graph().as_default(), v1.Session() as session:
      v1.set_random_seed(5)
      v1.train.create_global_step()
      given = {name: v1.placeholder(value.dtype, value.shape) for name, value in shards[0].items()}
      spec = model_fn(given, None, tf_compat.load().ModeKeys.TRAIN, {})
      session.run(v1.global_variables_initializer())
      assign(session)
      return [
        session.run(spec.loss, {given[name]: shard[name] for name in given}) for shard in shards
      ]

  first, second = (
    {**{name: value[part] for name, value in batch.items()}, inputs.ROW: numbers[part]}
    for part in (slice(0, 4), slice(4, 8))
  )
  one, other, again, other_again = losses(first, second, first, second)
  assert abs(one - other) > 1e-4 and (one, other) == (again, other_again)
  first.pop(inputs.ROW)  # a single device draws the same as the first core
  assert losses(first) == [one]


@pytest.mark.parametrize("make_source", [bert_source, funnel_source])
def test_evaluation_does_not_depend_on_the_batch_size(records, make_source):
  """Masks and ELECTRA's replaced tokens depend on the example alone."""
  source = make_source(records)
  sequences = source.task._sequences
  source.task = pretraining.PretrainingTask("electra", source.task._records, sequences)
  model_config = modeling.BertConfig(sequences.vocab_size, 16, 1, 2, 16, max_position_embeddings=32)

  def evaluate(batch_size):
    with tf.Graph().as_default(), v1.Session() as session:
      v1.set_random_seed(5)
      v1.train.create_global_step()
      features = v1.data.make_one_shot_iterator(
        inputs.predict_input_fn(source, batch_size, False)()
      ).get_next()
      output = source.task.build(modeling.build_encoder(model_config, features, False), features)
      session.run(v1.global_variables_initializer())
      assign(session)
      batches = []
      for _ in range(-(-source.num_examples // batch_size)):
        batches.append(session.run({**output.predictions, "index": features["example_index"]}))
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return {name: value[np.argsort(joined["index"])] for name, value in joined.items()}

  one, other = evaluate(3), evaluate(8)
  assert len(one["index"]) == source.num_examples and one["replaced"].sum() > 10
  for name, value in one.items():
    np.testing.assert_allclose(value, other[name], atol=1e-4, err_msg=name)
  metrics, others = (source.task.score(base.Split("dev"), values) for values in (one, other))
  assert metrics == pytest.approx(others, abs=1e-6)


@pytest.mark.parametrize("family", ("bert", "funnel"))
def test_the_generator_starts_from_a_masked_lm_checkpoint(records, tmp_path, family):
  """At full width it gives the masked LM's logits; at other widths it is initialized randomly."""
  path = records / ("bert/bert_config.json" if family == "bert" else "model/net_config.json")
  source = (bert_source if family == "bert" else funnel_source)(records)
  (features,) = batches_of(inputs.predict_input_fn(source, 8, False), 1)
  features["is_mask_symbol"][:] = 0  # Funnel attends to masked tokens only in ELECTRA
  logits = []
  for width_shrink in (None, 1.0, 0.5):
    with tf.Graph().as_default(), v1.Session() as session:
      v1.set_random_seed(1)
      encoder = modeling.build_encoder(
        modeling.load_config(str(path)),
        {name: tf.constant(value) for name, value in features.items()},
        False,
      )
      if width_shrink is None:
        outputs = encoder.masked_lm_logits()
      else:
        v1.train.create_global_step()
        outputs = encoder.electra(width_shrink)["generator_logits"]
        checkpoints.initialize(config.Model(init_checkpoint=str(tmp_path / family)))
      session.run(v1.global_variables_initializer())
      logits.append(session.run(outputs))
      if width_shrink is None:
        v1.train.Saver().save(session, str(tmp_path / family), write_meta_graph=False)
  np.testing.assert_allclose(logits[1], logits[0], atol=1e-6)
  assert np.abs(logits[2] - logits[0]).max() > 0.01
