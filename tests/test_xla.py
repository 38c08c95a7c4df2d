"""The graphs of every task under XLA: as a TPU compiles them, and with --use_xla."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny
from tensorflow.python.tpu import tpu_function
from tensorflow.python.tpu.ops import tpu_ops

import config
import modeling
from tasks import pretraining
from tasks.settings import Classification, Pretraining, Race, Squad, Tagging
from training import dry_run, recipes, tf_compat, xla
from training.devices import Devices
from training.model_fn import ModelFn

v1 = tf.compat.v1
LENGTH = 16
BERT = dict(
  vocab_size=50,
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=2,
  intermediate_size=32,
  max_position_embeddings=32,
  hidden_dropout_prob=0.0,  # the masks depend on the names of the operations, which differ
  attention_probs_dropout_prob=0.0,
)
MODELS = {
  "bert": modeling.BertConfig(**BERT),
  "electra": modeling.ElectraConfig(**BERT, embedding_size=8),
  "funnel": modeling.ModelConfig(
    vocab_size=50,
    block_size="1_1_1",
    d_model=16,
    d_embed=16,
    n_head=2,
    d_head=8,
    d_inner=32,
    dropout=0.0,
    dropatt=0.0,
  ),
}
TASKS = {
  "classification": Classification(task_name="cola"),
  "regression": Classification(task_name="stsb"),
  "squad": Squad(max_query_length=4),
  "race": Race(max_qa_length=8),
  "tagging": Tagging(),
  "mlm": Pretraining(loss_type="mlm"),
  "nsp": Pretraining(loss_type="bert"),
  "replaced": Pretraining(loss_type="electra"),
}
CASES = [
  (family, name) for family in MODELS for name in TASKS if (family, name) != ("funnel", "nsp")
]


def job_of(family, name, accumulation_steps=1, recompute=False):
  """Complete settings, model configuration and task of a case."""
  settings = TASKS[name]
  experiment = config.Experiment(task=settings)
  recipes.apply(experiment, recipes.load(family, settings.job, getattr(settings, "task_name", "")))
  experiment.model.init_checkpoint = "none"
  experiment.data.max_seq_length = LENGTH
  experiment.trainer.train_batch_size = experiment.trainer.eval_batch_size = 4
  experiment.trainer.gradient_accumulation_steps = accumulation_steps
  experiment.runtime.recompute_activations = recompute
  if isinstance(settings, Pretraining):
    special_ids = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    sequences = pretraining.Sequences(LENGTH, special_ids, 50)
    records = pretraining.BertRecords(sequences, 4)
    task = pretraining.PretrainingTask(settings.loss_type, records, sequences)
  else:
    task = tiny.make_task(settings, None, family, LENGTH)
    if isinstance(settings, Tagging):
      task._labels = ("O", "B-name")  # those of the training file
  return experiment, MODELS[family], task


def run(job, mode, is_tpu):
  """Losses of two updates, or predictions.

  With is_tpu, the graph is that of a TPU, and XLA compiles it for the CPU: an operation without a
  kernel in XLA, or a shape that is not static, is an error.
  """
  experiment, model_config, task = job
  devices = Devices("TPU", resolver=object()) if is_tpu else Devices("CPU")
  keys = tf_compat.load().ModeKeys
  model_fn = ModelFn(experiment, task, model_config, devices, 10, 1)

  def build(features):
    if mode == "predict":
      return model_fn(features, None, keys.PREDICT, {}).predictions
    spec = model_fn(features, None, keys.TRAIN, {})
    with tf.control_dependencies([spec.train_op]):
      return {"loss": tf.identity(spec.loss)}

  with tf.Graph().as_default() as graph, v1.Session() as session:
    features = dry_run.synthetic_batch(experiment, model_config, task, mode)
    v1.set_random_seed(3)
    v1.train.get_or_create_global_step()
    if is_tpu:
      with tpu_function.tpu_shard_context(1):
        outputs = xla.compiled(build, features)
    else:
      outputs = build(features)
    # The initial weights do not depend on the numbers of the operations, which differ.
    weights = {
      variable.initializer.inputs[1]: 0.02
      * np.random.RandomState(index).normal(size=variable.shape)
      for index, variable in enumerate(v1.trainable_variables())
    }
    session.run([v1.global_variables_initializer(), v1.local_variables_initializer()], weights)
    values = [session.run(outputs) for _ in range(2 if mode == "train" else 1)]
    for op in graph.get_operations():
      if op._control_flow_context is not None:  # in the program: texts stay on the host
        assert tf.string not in [tensor.dtype for tensor in [*op.inputs, *op.outputs]], op.type
    return values


@pytest.fixture(autouse=True)
def sum_over_one_core(monkeypatch):
  """The sum over a TPU's cores has no kernel elsewhere; over one core it changes nothing."""
  monkeypatch.setattr(tpu_ops, "cross_replica_sum", lambda value, *args, **kwargs: value)


# One family for each kind of head; the others are slow. A graph takes about 10 s.
QUICK = {("train", "bert", "classification"), ("train", "electra", "replaced")} | {
  ("predict", "funnel", "squad"),
  ("predict", "bert", "race"),
}


@pytest.mark.parametrize(
  "mode, family, name",
  [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in ((mode, *case) for mode in ("train", "predict") for case in CASES)
  ],
)
def test_graphs_of_a_tpu_compile_and_give_the_same_numbers(mode, family, name):
  """Two updates, or predictions."""
  expected = run(job_of(family, name), mode, False)
  found = run(job_of(family, name), mode, True)
  # The tokens that ELECTRA's generator draws depend on the names of the operations, which differ.
  tolerance = 0.1 if (mode, name) == ("train", "replaced") else 2e-4
  for one, other in zip(expected, found, strict=True):
    for key, value in one.items():
      np.testing.assert_allclose(other[key], value, rtol=tolerance, atol=1e-5, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("steps, recompute", [(2, False), (1, True)])
def test_memory_options_compile(steps, recompute):
  expected = run(job_of("bert", "classification", steps, recompute), "train", False)
  found = run(job_of("bert", "classification", steps, recompute), "train", True)
  np.testing.assert_allclose(
    [one["loss"] for one in found], [one["loss"] for one in expected], rtol=2e-4
  )


def test_lengths_of_batches_are_few():
  """100 tokens: 32, 64, 96 and 100 (cut from 128)."""
  assert [xla.length_multiple(*sizes) for sizes in ((128, 8), (100, 8), (512, 8), (8, 8))] == [
    32,
    32,
    128,
    8,
  ]


def test_use_xla_gives_the_same_run(tmp_path):
  """Losses and evaluation; each length of the batches is one program, which the log names."""
  encoder = tiny.write_encoder(tmp_path / "encoder", num_layers=1, dropout=0.0)
  tiny.write_cola(tmp_path / "CoLA", num_train=32)
  curves = []
  for flags in ([], ["--use_xla"]):
    model_dir = tmp_path / f"run{len(flags)}"
    _, err = tiny.run(
      "run_classifier.py",
      *("--do_train", "--do_eval", "--task_name=cola", f"--data_dir={tmp_path / 'CoLA'}"),
      *(f"--pretrained={encoder}", f"--model_dir={model_dir}", "--max_seq_length=16"),
      *("--train_batch_size=8", "--train_steps=4", "--log_freq=1", "--learning_rate=1e-3", *flags),
    )
    lines = [json.loads(line) for line in open(model_dir / "metrics.jsonl")]
    curves.append([line["loss"] for line in lines])
  assert len(curves[0]) == 5
  np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
  shapes = re.findall(r"XLA: program (\d+) of training, for batches of 8 x (\d+), compiled", err)
  assert shapes and len({length for _, length in shapes}) == len(shapes) <= xla.NUM_LENGTHS
  assert "XLA: program 1 of prediction" in err
