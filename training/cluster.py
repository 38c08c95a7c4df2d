"""Hosts that train together, as TF_CONFIG names them, without a TPU.

Every host runs the same command. TF_CONFIG differs in the index alone:

  TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
              "task": {"type": "worker", "index": 0}}'

The first worker is the chief. It makes missing records, saves checkpoints, evaluates and predicts;
the others only train. model_dir and output_dir are in a folder that all hosts see.
"""

import contextlib
import dataclasses
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from errors import UserError
from utils import console

log = logging.getLogger(__name__)

_VARIABLE = "TF_CONFIG"
_EXAMPLE = (
  '{"cluster": {"worker": ["HOST0:PORT", "HOST1:PORT"]}, "task": {"type": "worker", "index": 0}}'
)
WAIT_SECONDS = 3600  # for a file of the chief
_WATCH_SECONDS = 10  # between looks at the other workers
_WATCH_FAILURES = 3  # looks without an answer after which a worker counts as gone


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Workers of a run.

  Attributes:
    addresses: HOST:PORT of each worker, the chief first.
    index: number of this process among them.
    jobs: job -> addresses, as TF_CONFIG gives them: "worker", or also "chief".
    job: job of this process.
    task: number of this process in its job.
  """

  addresses: tuple[str, ...]
  index: int
  jobs: dict[str, list[str]]
  job: str
  task: int

  @property
  def is_chief(self) -> bool:
    """True in the process that writes files."""
    return self.index == 0


def find(num_hosts: int) -> Cluster | None:
  """Returns the workers that TF_CONFIG names; None if it is not set, or names one alone.

  Args:
    num_hosts: --num_hosts; 1 for as many as TF_CONFIG names.

  Raises:
    UserError: TF_CONFIG cannot be used, or names another number of workers.
  """
  text = os.environ.get(_VARIABLE, "")
  found = _parse(text) if text.strip() else None
  count = len(found.addresses) if found else 1
  if num_hosts not in (1, count):
    given = f"names {count}" if found else "is not set"
    raise UserError(
      f"--num_hosts={num_hosts}, but the environment variable {_VARIABLE}, which names the "
      f"workers, {given}. Set it on each host: {_EXAMPLE}"
    )
  return found if count > 1 else None


def _parse(text):
  try:
    values = json.loads(text)
    jobs = {str(job): list(map(str, addresses)) for job, addresses in values["cluster"].items()}
    job, task = values["task"]["type"], int(values["task"]["index"])
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    raise UserError(f"{_VARIABLE}={text[:200]}: expected {_EXAMPLE}") from None
  trains = [name for name in ("chief", "worker") if jobs.get(name)]
  others = sorted({*jobs, job} - set(trains) - {"chief", "worker"})
  if others:
    raise UserError(
      f"{_VARIABLE}: the job {others[0]!r} is not supported; there are chief and worker. "
      f"train.py --mode=continuous_eval, without {_VARIABLE}, evaluates next to a training"
    )
  if len(jobs.get("chief", ())) > 1 or job not in trains or not 0 <= task < len(jobs[job]):
    raise UserError(f"{_VARIABLE}: the cluster has no {job} {task}, or several chiefs: {text}")
  addresses = tuple(address for name in trains for address in jobs[name])
  if len(set(addresses)) < len(addresses):
    raise UserError(f"{_VARIABLE}: an address is there twice: {', '.join(addresses)}")
  for address in addresses:
    if not re.fullmatch(r".+:\d{1,5}", address):
      raise UserError(f"{_VARIABLE}: {address!r} is no address, expected HOST:PORT")
  index = task + (len(jobs["chief"]) if job == "worker" and "chief" in trains else 0)
  return Cluster(addresses, index, {name: jobs[name] for name in trains}, job, task)


@contextlib.contextmanager
def hidden():
  """Removes TF_CONFIG for the time of a block: the estimator must not read it a second time."""
  text = os.environ.pop(_VARIABLE, None)
  try:
    yield
  finally:
    if text is not None:
      os.environ[_VARIABLE] = text


def make_strategy():
  """Returns MultiWorkerMirroredStrategy; `run` gives it the cluster."""
  with hidden(), tf.Graph().as_default():
    return tf.compat.v1.distribute.experimental.MultiWorkerMirroredStrategy()


def run(cluster: Cluster, strategy, session_config, work: Callable[[Any, Any], None]) -> None:
  """Starts the server of this process, once, and calls `work` as a worker of the cluster.

  Args:
    cluster: the workers.
    strategy: from make_strategy.
    session_config: ConfigProto of the sessions.
    work: called with the strategy of this worker and the ConfigProto of its sessions.
  """
  from tensorflow.python.distribute import distribute_coordinator as coordinator
  from tensorflow.python.distribute import distribute_coordinator_context as context

  # Without a default graph, the strategy makes variables eagerly, on devices of other servers.
  with hidden(), _watched(cluster), tf.Graph().as_default():
    coordinator.run_distribute_coordinator(
      lambda own: work(own, context.get_current_worker_context().session_config),
      strategy,
      mode=coordinator.CoordinatorMode.INDEPENDENT_WORKER,
      cluster_spec=cluster.jobs,
      task_type=cluster.job,
      task_id=cluster.task,
      session_config=session_config,
      rpc_layer="grpc",
    )


@contextlib.contextmanager
def _watched(cluster):
  """Ends the process if another worker is gone during a block, which would wait for it for ever.

  A worker that is done first does not count as gone: its process stays until the chief has saved
  the last step, see TrainLoop.
  """
  others = [address for index, address in enumerate(cluster.addresses) if index != cluster.index]
  stop = threading.Event()

  def watch():
    failures = {}  # address -> looks without an answer since the last one with an answer
    while not stop.wait(_WATCH_SECONDS):
      for address in others:
        if _answers(address):
          failures[address] = 0
        elif address in failures:
          failures[address] += 1
        if failures.get(address, 0) >= _WATCH_FAILURES and not stop.is_set():
          print(
            f"\n{os.path.basename(sys.argv[0])}: error: the worker {address} does not answer any "
            f"more. Start all workers again: the same commands go on from the last checkpoint",
            file=sys.stderr,
            flush=True,
          )
          os._exit(1)  # the main thread waits in an operation that cannot be stopped

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()


def _answers(address):
  host, port = address.rsplit(":", 1)
  try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
  except OSError:
    return False
  return True


def wait_for(find: Callable[[], Any], what: str) -> Any:
  """Waits for something that the chief writes; returns it.

  Args:
    find: returns it, or a false value while it is missing.
    what: text for the log and the message.

  Raises:
    UserError: it is missing after WAIT_SECONDS.
  """
  start = time.monotonic()
  found = find()
  if not found:
    log.info("Wait for the chief: %s", what)
  while not found:
    if time.monotonic() > start + WAIT_SECONDS:
      raise UserError(
        f"{what}: not there after {WAIT_SECONDS} seconds. The chief, the first worker of "
        f"{_VARIABLE}, makes it: look at its log. All hosts need the same model_dir and output_dir"
      )
    console.raise_if_signalled()
    time.sleep(1)
    found = find()
  return found
