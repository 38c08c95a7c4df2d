"""--recompute_activations: the same updates, with less memory."""

import numpy as np
import pytest
import tensorflow as tf
import tiny
from test_accumulation import experiment_of, train_in_graph
from test_run_classifier import weights_of

import modeling
from training import checkpoints

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("recomputation")
  tiny.write_encoder(folder / "bert")
  tiny.write_funnel(folder / "funnel", block_size="1_1x2")
  tiny.write_cola(folder / "CoLA")
  return folder


@pytest.mark.parametrize("encoder, steps", [("bert", 1), ("bert", 2), ("funnel", 1)])
def test_updates_are_the_same_with_dropout(workspace, encoder, steps):
  """Three updates, in one or two micro-batches: the second computation drops the same elements."""
  found = []
  for recompute in (False, True):
    experiment = experiment_of(workspace, steps, encoder)
    experiment.runtime.recompute_activations = recompute
    found.append(train_in_graph(experiment, 3))
  (curve, weights), (other_curve, other_weights) = found
  np.testing.assert_allclose(other_curve, curve, rtol=1e-6)
  assert other_weights.keys() == weights.keys()
  for name, value in weights.items():
    np.testing.assert_allclose(other_weights[name], value, atol=1e-6, err_msg=name)


def gradients_and_peak(recompute, compute_dtype=tf.float32):
  """Gradients of 6 layers, and the largest number of bytes that were allocated at once."""
  config = modeling.BertConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=6, num_attention_heads=2, intermediate_size=128
  )
  with tf.Graph().as_default(), v1.Session() as session:
    v1.set_random_seed(3)
    v1.train.get_or_create_global_step()
    ids = tf.constant(np.random.RandomState(0).randint(0, 50, [8, 64]), tf.int32)
    model = modeling.BertModel(
      config, True, ids, compute_dtype=compute_dtype, recompute_activations=recompute
    )
    loss = tf.reduce_mean(tf.square(tf.cast(model.get_sequence_output(), tf.float32)[:, ::2, ::3]))
    variables = [one for one in v1.trainable_variables() if "pooler" not in one.name]
    gradients = [tf.convert_to_tensor(one) for one in tf.gradients(loss, variables)]
    session.run(v1.global_variables_initializer())
    options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
    metadata = v1.RunMetadata()
    values = session.run(gradients, options=options, run_metadata=metadata)
  records = sorted(
    (record.alloc_micros, record.alloc_bytes)
    for device in metadata.step_stats.dev_stats
    for node in device.node_stats
    for memory in node.memory
    for record in memory.allocation_records
  )
  return values, max(np.cumsum([size for _, size in records]))


def test_peak_memory_is_lower():
  """6 layers store their inputs alone: less than half of the bytes."""
  (usual, peak), (found, lower) = gradients_and_peak(False), gradients_and_peak(True)
  for one, other in zip(usual, found, strict=True):
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)
  assert lower < 0.5 * peak, (lower, peak)


def test_half_precision_gradients_are_the_same():
  """Sums may be rounded in another order: by at most one unit in bfloat16's last place."""
  usual, _ = gradients_and_peak(False, tf.bfloat16)
  found, _ = gradients_and_peak(True, tf.bfloat16)
  for one, other in zip(usual, found, strict=True):
    np.testing.assert_allclose(other, one, rtol=2**-7, atol=1e-7)


@pytest.mark.slow
def test_two_devices_give_the_same_weights(workspace):
  for name, flag in (("stored", "--norecompute_activations"), ("again", "--recompute_activations")):
    tiny.run(
      "run_classifier.py",
      *("--do_train", "--task_name=cola", f"--data_dir={workspace / 'CoLA'}"),
      *(f"--pretrained={workspace / 'bert'}", f"--output_dir={workspace / 'records'}"),
      *(f"--model_dir={workspace / name}", "--max_seq_length=24", "--train_batch_size=8"),
      *("--train_steps=6", "--learning_rate=1e-3", "--num_core_per_host=2", flag),
    )
  assert checkpoints.latest(str(workspace / "again")).endswith("-6")
  stored, again = (weights_of(workspace / name, 6) for name in ("stored", "again"))
  for name, value in stored.items():
    np.testing.assert_allclose(again[name], value, atol=1e-6, err_msg=name)
