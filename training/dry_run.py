"""Checks a run without its work: --validate_only and --compile_only, on synthetic records."""

import resource
import sys
import tempfile
import time
from typing import Any

import tensorflow as tf

import config
import modeling
from models import flops
from preprocessing import synthetic
from tasks.base import Task
from training import inputs, tf_compat
from training.devices import Devices
from training.model_fn import ModelFn

v1 = tf.compat.v1


def build_graphs(
  experiment: config.Experiment,
  model_config: modeling.Config,
  task: Task,
  devices: Devices,
  checkpoint: str | None,
) -> None:
  """Builds the graph of each mode that the --do_ flags ask for, and checks it.

  Variables are compared with the checkpoint that training or prediction would start from.

  Raises:
    UserError: a variable is missing from the checkpoint, or has another shape there.
  """
  trainer = experiment.trainer
  modes = [("train", trainer.do_train), ("predict", trainer.do_eval or trainer.do_predict)]
  for mode, is_wanted in modes:
    if is_wanted:
      with tf.Graph().as_default():
        own = checkpoint if mode == "predict" and not trainer.do_train else None
        _build(experiment, model_config, task, devices, mode, own)
        count = sum(variable.shape.num_elements() for variable in v1.trainable_variables())
        print(f"{task.name} {mode}: graph built, {count:,} trainable parameters")


def compile_and_step(
  experiment: config.Experiment, model_config: modeling.Config, task: Task, devices: Devices
) -> dict[str, float]:
  """Runs updates on synthetic input; prints and returns what they cost.

  Returns:
    compile_seconds (building the graph, and the first step less a later one), step_seconds (the
    median of three), peak_memory_bytes of the process, and step_flops (matrix products of the
    encoder, forward and backward).
  """
  start = time.perf_counter()
  with tf.Graph().as_default(), v1.Session() as session:
    spec = _build(experiment, model_config, task, devices, "train", None)
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
    seconds = []
    built = time.perf_counter() - start
    for _ in range(4):
      start = time.perf_counter()
      session.run([spec.train_op, spec.loss])
      seconds.append(time.perf_counter() - start)
  step = sorted(seconds[1:])[1]
  batch = experiment.trainer.train_batch_size * task.sequences_per_example
  found = {
    "compile_seconds": built + max(seconds[0] - step, 0.0),
    "step_seconds": step,
    "peak_memory_bytes": float(_peak_memory()),
    "step_flops": 3.0 * batch * flops.encoder_flops(model_config, experiment.data.max_seq_length),
  }
  print(
    f"{task.name} train: compiled in {found['compile_seconds']:.1f} s, "
    f"{1000 * step:.0f} ms per step of {experiment.trainer.train_batch_size} examples, "
    f"peak memory {found['peak_memory_bytes'] / 2**30:.2f} GiB, "
    f"{found['step_flops'] / 1e9:,.0f} GFLOPs per step"
  )
  return found


def _build(experiment, model_config, task, devices, mode, checkpoint) -> Any:
  """EstimatorSpec of a mode on a batch of synthetic records of full length."""
  keys = tf_compat.load().ModeKeys
  features = synthetic_batch(experiment, model_config, task, mode)
  v1.set_random_seed(experiment.trainer.seed)
  v1.train.get_or_create_global_step()
  model_fn = ModelFn(experiment, task, model_config, devices, 1, 0, checkpoint)
  return model_fn(features, None, keys.TRAIN if mode == "train" else keys.PREDICT, {})


def synthetic_batch(
  experiment: config.Experiment, model_config: modeling.Config, task: Task, mode: str
) -> dict[str, tf.Tensor]:
  """Features of a batch of synthetic records of full length, as constants.

  Args:
    experiment: its data and trainer give lengths, batch sizes and the seed.
    model_config: configuration of the encoder.
    task: names the features.
    mode: "train" or "predict".
  """
  data, trainer = experiment.data, experiment.trainer
  with tempfile.TemporaryDirectory() as folder:
    records = synthetic.record_sets(
      folder, task, data.max_seq_length, model_config.vocab_size, trainer.seed
    )["train"]
    source = inputs.RecordSource(
      records.paths, records.num_examples, task, data.max_seq_length, model_config.padded_length
    )
    if mode == "train":
      dataset = inputs.train_input_fn(source, trainer.train_batch_size, trainer.seed, 0, 1, True)()
    else:
      dataset = inputs.predict_input_fn(source, trainer.eval_batch_size, True)()
    return _first_batch(dataset)


def _first_batch(dataset):
  """The first batch as constants, so that the pipeline and its files are needed no more."""
  with v1.Session() as session:
    batch = session.run(v1.data.make_one_shot_iterator(dataset).get_next())
  return {name: tf.constant(value) for name, value in batch.items() if name != inputs.ROW}


def _peak_memory() -> int:
  """Largest resident memory of the process, in bytes."""
  size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return size if sys.platform == "darwin" else 1024 * size
