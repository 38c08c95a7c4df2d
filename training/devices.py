"""Devices of a run: one CPU or GPU, several GPUs of one or several hosts, or a TPU."""

import dataclasses
import logging
import time
from typing import Any

import tensorflow as tf

import config
from errors import UserError
from training import cluster as clusters
from training import tf_compat
from training.cluster import Cluster

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Devices:
  """Devices of a run.

  Attributes:
    description: text for the log.
    num_replicas: number of devices, over all hosts, that share each batch under a strategy; 1
      otherwise.
    strategy: MirroredStrategy, MultiWorkerMirroredStrategy, or None for one device or a TPU.
    resolver: TPUClusterResolver, or None.
    cluster: the hosts, or None for one host or a TPU.
  """

  description: str
  num_replicas: int = 1
  strategy: Any = None
  resolver: Any = None
  cluster: Cluster | None = None

  @property
  def is_chief(self) -> bool:
    """True in the process that writes files, evaluates and predicts."""
    return self.cluster is None or self.cluster.is_chief

  @property
  def is_tpu(self) -> bool:
    """Whether the run uses a TPU."""
    return self.resolver is not None


# Peak of matrix products in FLOP/s: float32 inputs (TensorFloat-32 from Ampere on), bfloat16 and
# float16, by a part of the GPU's name. Source: NVIDIA's data sheets, without sparsity.
_PEAKS = {
  "H200": (494e12, 989e12, 989e12),
  "H100": (494e12, 989e12, 989e12),
  "A100": (156e12, 312e12, 312e12),
  "L4": (60e12, 121e12, 121e12),
  "T4": (8.1e12, 8.1e12, 65e12),
  "V100": (15.7e12, 15.7e12, 125e12),
}


def peak_flops(devices: Devices, precision: str) -> float | None:
  """Peak FLOP/s of matrix products: known for common GPUs, measured for a CPU, else None.

  `precision` is a key of precision.DTYPES.
  """
  gpus = tf.config.list_physical_devices("GPU")
  if devices.is_tpu or (devices.num_replicas > 1 and not gpus):
    return None
  if gpus:
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "")
    peak = next((peaks for part, peaks in _PEAKS.items() if part in name), None)
    return (
      None
      if peak is None
      else devices.num_replicas * peak[("fp32", "bf16", "fp16").index(precision)]
    )
  return _measure_cpu() if precision == "fp32" else None


def _measure_cpu(size: int = 1024) -> float:
  """FLOP/s of the fastest of five float32 matrix products on all cores; a tenth of a second."""
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    matrix = tf.compat.v1.get_variable("matrix", initializer=tf.ones([size, size]))
    product = tf.matmul(matrix, matrix).op
    session.run(matrix.initializer)
    seconds = []
    for _ in range(6):
      start = time.perf_counter()
      session.run(product)
      seconds.append(time.perf_counter() - start)
  return 2 * size**3 / min(seconds[1:])


def find_devices(
  runtime: config.Runtime,
  train_batch_size: int,
  accumulation_steps: int = 1,
  cluster: Cluster | None = None,
) -> Devices:
  """Finds the devices of a run.

  Args:
    runtime: settings of the devices.
    train_batch_size: examples per update over all devices.
    accumulation_steps: number of micro-batches in each device's share of the batch.
    cluster: hosts that share each batch, or None.

  Raises:
    UserError: there is no TPU or there are too few GPUs, or the batch cannot be divided evenly.
  """
  parts = accumulation_steps * (runtime.num_core_per_host or 1)
  if accumulation_steps > 1 and train_batch_size % parts:
    raise UserError(
      f"--train_batch_size={train_batch_size} is the batch of one update and is "
      f"not divisible by --gradient_accumulation_steps={accumulation_steps}"
      + (f" times {runtime.num_core_per_host} devices" if runtime.num_core_per_host > 1 else "")
    )
  if runtime.use_tpu:
    return Devices(f"TPU {runtime.tpu}", resolver=_resolve_tpu(runtime))
  gpus = [
    device.name.replace("/physical_device:", "/")
    for device in tf.config.list_physical_devices("GPU")
  ]
  wanted = runtime.num_core_per_host
  if gpus and wanted > len(gpus):
    raise UserError(
      f"--num_core_per_host={wanted}, but this machine has {len(gpus)} GPUs; "
      f"lower it, or leave it out to use all"
    )
  if cluster:
    return _cluster_devices(cluster, wanted, len(gpus), train_batch_size, accumulation_steps)
  if not wanted:
    wanted = num_even_devices(len(gpus or [0]), train_batch_size, accumulation_steps)
  if train_batch_size % wanted:
    raise UserError(
      f"--train_batch_size={train_batch_size} is the batch of all devices together "
      f"and is not divisible by {wanted}, their number"
    )
  kind = "GPU" if gpus else "CPU"
  if wanted == 1:
    return Devices(kind)
  if gpus:
    return Devices(f"{wanted} x GPU", wanted, tf.distribute.MirroredStrategy(gpus[:wanted]))
  # The default all-reduce hangs on virtual CPU devices.
  return Devices(
    f"{wanted} x virtual CPU",
    wanted,
    tf.distribute.MirroredStrategy(_virtual_cpus(wanted), tf.distribute.ReductionToOneDevice()),
  )


def _cluster_devices(cluster, wanted, num_gpus, train_batch_size, accumulation_steps):
  """Devices of several hosts: all GPUs of each, or one CPU."""
  local = num_gpus or 1
  if wanted not in (0, local):
    raise UserError(
      f"--num_core_per_host={wanted}: of several hosts, each uses all its devices, and this one "
      f"has {local}; set CUDA_VISIBLE_DEVICES on each host to use fewer"
    )
  hosts = len(cluster.addresses)
  count = hosts * local
  if train_batch_size % (count * accumulation_steps):
    raise UserError(
      f"--train_batch_size={train_batch_size} is the batch of all hosts together and is not "
      f"divisible by {hosts} hosts x {local} devices x {accumulation_steps} micro-batches"
    )
  name = f"{local} x GPU" if num_gpus else "CPU"
  description = f"{name} on each of {hosts} hosts, of which this is {cluster.index}"
  return Devices(description, count, clusters.make_strategy(), cluster=cluster)


def num_even_devices(num_gpus: int, train_batch_size: int, accumulation_steps: int = 1) -> int:
  """Largest number of GPUs that divides a batch evenly; logs a warning if this is not all."""
  used = max(n for n in range(1, num_gpus + 1) if train_batch_size % (n * accumulation_steps) == 0)
  if used < num_gpus:
    unit = num_gpus * accumulation_steps
    below = train_batch_size // unit * unit
    sizes = f"{below} or {below + unit}" if below else f"{unit}"
    parts = f" times {accumulation_steps} micro-batches" if accumulation_steps > 1 else ""
    log.warning(
      "Only %d of the %d GPUs are used: --train_batch_size=%d is not divisible by %d%s; "
      "%s would use all",
      used,
      num_gpus,
      train_batch_size,
      num_gpus,
      parts,
      sizes,
    )
  return used


def _resolve_tpu(runtime):
  if not tf_compat.has_estimator():
    raise UserError(
      f"--use_tpu=True needs TensorFlow 2.15, this is {tf.__version__}: create an "
      f"environment with TENSORFLOW=2.15.1 VENV=.venv-tpu bash scripts/setup.sh, "
      f"or leave --use_tpu out to run on CPU or GPU"
    )
  try:
    return tf.distribute.cluster_resolver.TPUClusterResolver(
      runtime.tpu or None, zone=runtime.tpu_zone or None, project=runtime.gcp_project or None
    )
  except Exception as error:  # e.g. a missing library or a network error
    raise UserError(
      f"--use_tpu=True, but no TPU was found ({error}). Name one with --tpu, "
      f"or leave --use_tpu out to run on CPU or GPU"
    ) from None


def _virtual_cpus(count):
  cpu = tf.config.list_physical_devices("CPU")[0]
  if len(tf.config.get_logical_device_configuration(cpu) or [None]) != count:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
  return [f"/cpu:{index}" for index in range(count)]
