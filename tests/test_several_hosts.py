"""Several hosts: processes on the loopback train as one device does; TF_CONFIG's mistakes."""

import json
import socket

import numpy as np
import pytest
import tensorflow as tf
import tiny

from errors import UserError
from training import cluster


def free_addresses(count):
  listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
  addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
  for listener in listeners:
    listener.close()
  return addresses


def start_workers(count, *args):
  """Starts run_classifier.py once per worker."""
  addresses = free_addresses(count)
  processes = []
  for index in range(count):
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    processes.append(tiny.start("run_classifier.py", *args, TF_CONFIG=json.dumps(task)))
  return processes


def weights_of(folder):
  reader = tf.train.load_checkpoint(str(folder))
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hosts")
  tiny.write_encoder(folder / "encoder", num_layers=1, dropout=0.0)
  tiny.write_cola(folder / "CoLA")
  return folder, [
    "--task_name=cola",
    f"--data_dir={folder / 'CoLA'}",
    f"--pretrained={folder / 'encoder'}",
    "--max_seq_length=24",
    "--train_batch_size=8",
    "--learning_rate=1e-3",
    "--train_steps=20",
    "--eval_every_steps=10",
    "--log_freq=1",
    "--do_train",
    "--do_eval",
  ]


def test_two_hosts_equal_one_device_with_the_same_global_batch(flags):
  """Losses, weights and evaluations to 1e-5 over 20 steps, with an evaluation between them."""
  folder, common = flags
  tiny.run("run_classifier.py", *common, f"--model_dir={folder / 'one'}")
  processes = start_workers(2, *common, f"--model_dir={folder / 'two'}")
  for index, process in enumerate(processes):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-4000:]
    assert f"CPU on each of 2 hosts, of which this is {index}" in err
    assert ("Evaluation at step 10" in err) == (index == 0)
  curves = []
  for name in ("one", "two"):
    lines = [json.loads(line) for line in open(folder / name / "metrics.jsonl")]
    keys = [(line["kind"], line["step"]) for line in lines]
    curves.append((keys, [line["loss"] for line in lines]))
  assert curves[0][0] == curves[1][0] and len(curves[0][0]) == 22
  np.testing.assert_allclose(curves[0][1], curves[1][1], atol=1e-5)
  weights = [weights_of(folder / name) for name in ("one", "two")]
  assert weights[0].keys() == weights[1].keys()
  for name, value in weights[0].items():
    np.testing.assert_allclose(value, weights[1][name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_worker_that_is_gone_ends_the_others(flags):
  folder, common = flags
  flags_of_run = [f"--model_dir={folder / 'gone'}", "--train_steps=1000000", "--eval_every_steps=0"]
  processes = start_workers(2, *common, *flags_of_run)
  for line in processes[0].stderr:
    if "Start from" in line:
      break
  processes[1].kill()
  _, err = processes[0].communicate(timeout=200)
  assert processes[0].returncode == 1
  assert "does not answer any more. Start all workers again" in err


WORKER = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
  "value, message",
  [
    ("{", "expected {"),
    ("[]", "expected {"),
    ('{"cluster": {"worker": ["a:1"]}}', "expected {"),
    ({"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": WORKER}, "'ps' is not supported"),
    ({"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}, "'evaluator'"),
    ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}, "no worker 1"),
    ({"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}, "no chief 0"),
    ({"cluster": {"worker": ["a:1", "a:1"]}, "task": WORKER}, "an address is there twice: a:1"),
    ({"cluster": {"worker": ["a:1", "b"]}, "task": WORKER}, "'b' is no address"),
  ],
)
def test_mistakes_in_tf_config_are_named(monkeypatch, value, message):
  monkeypatch.setenv("TF_CONFIG", value if isinstance(value, str) else json.dumps(value))
  with pytest.raises(UserError, match="TF_CONFIG") as error:
    cluster.find(1)
  assert message in str(error.value)


def test_the_number_of_hosts_is_that_of_tf_config(monkeypatch):
  jobs = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": WORKER}
  monkeypatch.setenv("TF_CONFIG", json.dumps(jobs))
  found = cluster.find(2)
  assert (found.addresses, found.index, found.is_chief) == (("a:1", "b:1"), 1, False)
  with pytest.raises(UserError, match="--num_hosts=3, but .* TF_CONFIG.* names 2"):
    cluster.find(3)
  monkeypatch.delenv("TF_CONFIG")
  with pytest.raises(UserError, match="--num_hosts=2, but .* TF_CONFIG.* is not set"):
    cluster.find(2)
  assert cluster.find(1) is None
