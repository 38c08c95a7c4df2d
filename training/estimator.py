"""The estimator of a run: TPUEstimator, or Estimator under a strategy of tf.distribute."""

from collections.abc import Callable

import tensorflow as tf

import config
from training import cluster, tf_compat
from training.devices import Devices
from utils import paths

v1 = tf.compat.v1


def build_estimator(
  experiment: config.Experiment,
  devices: Devices,
  model_fn: Callable,
  save_steps: int = 1,
  predict_batch_size: int = 1,
):
  """Returns TPUEstimator for a TPU, one GPU or a CPU, or Estimator under a strategy.

  Args:
    experiment: settings of the training and the runtime.
    devices: devices of the run.
    model_fn: model function.
    save_steps: updates between checkpoints, the most that one call of a TPU makes.
    predict_batch_size: examples per prediction batch.
  """
  library = tf_compat.load()
  trainer, runtime = experiment.trainer, experiment.runtime
  session_config = v1.ConfigProto(allow_soft_placement=True)
  session_config.gpu_options.allow_growth = True
  settings = dict(
    model_dir=paths.without_wildcards(trainer.model_dir),
    tf_random_seed=trainer.seed,
    save_summary_steps=0,  # hooks.ProgressHook writes them
    save_checkpoints_steps=None,  # saving.SaveHook writes them
    save_checkpoints_secs=None,
    log_step_count_steps=None,
    keep_checkpoint_max=trainer.max_save or None,
  )
  if devices.strategy is not None:
    with cluster.hidden():
      run_config = library.RunConfig(
        session_config=session_config, train_distribute=devices.strategy, **settings
      )
    return library.Estimator(model_fn, config=run_config, params={})
  num_cores = runtime.num_hosts * runtime.num_core_per_host if devices.is_tpu else 0
  with cluster.hidden():
    run_config = library.TPURunConfig(
      session_config=None if devices.is_tpu else session_config,
      cluster=devices.resolver,
      tpu_config=library.TPUConfig(
        iterations_per_loop=min(runtime.iterations, save_steps) if devices.is_tpu else 1,
        num_shards=num_cores or None,  # checked against the slice
        per_host_input_for_training=library.InputPipelineConfig.PER_HOST_V1,
      ),
      **settings,
    )
  return library.TPUEstimator(
    model_fn,
    config=run_config,
    use_tpu=devices.is_tpu,
    train_batch_size=trainer.train_batch_size,
    predict_batch_size=predict_batch_size,
  )


def train(
  estimator,
  devices: Devices,
  input_fn: Callable[..., tf.data.Dataset],
  run_hooks: list[v1.train.SessionRunHook],
  max_steps: int,
) -> None:
  """Calls estimator.train, on several hosts as one of the workers.

  Args:
    estimator: from build_estimator.
    devices: devices of the run.
    input_fn: from inputs.train_input_fn.
    run_hooks: hooks of the session.
    max_steps: last global step.
  """
  if devices.cluster is None:
    estimator.train(input_fn, run_hooks, max_steps=max_steps)
    return

  # estimator.config is a copy, which a strategy that is in use does not allow.
  run_config = estimator._config

  def work(strategy, session_config):
    estimator._train_distribution = run_config._train_distribute = strategy
    run_config._session_config = session_config
    estimator.train(input_fn, run_hooks, max_steps=max_steps)

  cluster.run(devices.cluster, devices.strategy, run_config.session_config, work)
