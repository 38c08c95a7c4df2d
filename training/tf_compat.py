"""Loads the estimator library on TensorFlow 2.15 and newer.

TensorFlow 2.16 removed tf.estimator. The package tensorflow-estimator 2.15.0 still contains
TPUEstimator. It runs on newer TensorFlow if a few names that it imports exist; `load` restores
these names. Only TPU runs use their functions, so TPUs need TensorFlow 2.15.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import sys
import types

import tensorflow as tf

from errors import UserError

v1 = tf.compat.v1

_REMOVED_MODULES = (
  "tensorflow.python.tpu.session_support",
  "tensorflow.python.tpu.tpu_embedding",
  "tensorflow.python.tpu.tpu_embedding_gradient",
  "tensorflow.python.distribute.estimator_training",
)


class _EmptyModule(types.ModuleType):
  """A module in which every name is an empty class."""

  def __getattr__(self, name):
    if name.startswith("__"):
      raise AttributeError(name)
    return type(name, (), {})


class _RemovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finder of an empty module for each name that newer TensorFlow has removed."""

  def find_spec(self, fullname, path=None, target=None):
    if fullname in _REMOVED_MODULES:
      return importlib.machinery.ModuleSpec(fullname, self)
    return None

  def create_module(self, spec):
    return _EmptyModule(spec.name)

  def exec_module(self, module):
    pass


def _init_run_config(run_config, tf_config):
  # The removed function did this for a run without a distribute coordinator.
  run_config._distribute_coordinator_mode = None
  run_config._init_distributed_setting_from_environment_var(tf_config)
  run_config._maybe_overwrite_session_config_for_distributed_training()


def _restore_removed_names():
  """Makes tensorflow_estimator 2.15 importable on TensorFlow 2.16 and newer."""
  # The library imports Keras 2 optimizers and layers: tf-keras has them, Keras 3 does not.
  os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
  from tensorflow.python.util import tf_export

  tf_export.ESTIMATOR_API_NAME = "estimator"
  sys.meta_path.append(_RemovedModules())
  # The package's __init__ imports canned estimators, which are unused here and need Keras 2.
  spec = importlib.machinery.PathFinder.find_spec("tensorflow_estimator")
  package = types.ModuleType("tensorflow_estimator")
  package.__path__ = list(spec.submodule_search_locations)
  sys.modules["tensorflow_estimator"] = package
  export = types.ModuleType("tensorflow_estimator.python.estimator.estimator_export")
  export.estimator_export = lambda *names, **kwargs: lambda symbol: symbol
  sys.modules[export.__name__] = export
  from tensorflow.python.distribute import estimator_training

  estimator_training.init_run_config = _init_run_config
  estimator_training.should_run_distribute_coordinator = lambda run_config: False


def has_estimator() -> bool:
  """Returns whether TensorFlow contains the estimator library, as 2.15 does."""
  return hasattr(v1, "estimator")


@functools.cache
def load() -> types.SimpleNamespace:
  """Returns the names of the estimator library: Estimator, RunConfig, TPUEstimator, ...

  Raises:
    UserError: tensorflow-estimator or tf-keras is not installed.
  """
  for package, name in (
    ("tensorflow_estimator", "tensorflow-estimator==2.15.0"),
    ("tf_keras", "tf-keras"),
  ):
    needed = package == "tensorflow_estimator" or not has_estimator()
    if needed and not importlib.util.find_spec(package):
      raise UserError(
        f"the package {name} is missing; run bash scripts/setup.sh, or pip install --no-deps {name}"
      )
  if not has_estimator():
    _restore_removed_names()
  from tensorflow_estimator.python.estimator import estimator, model_fn, run_config
  from tensorflow_estimator.python.estimator.tpu import tpu_config, tpu_estimator

  # TensorFlow logs hundreds of lines about graphs and sessions; the runner logs what users need.
  logging.getLogger("tensorflow").setLevel(logging.ERROR)
  return types.SimpleNamespace(
    Estimator=estimator.Estimator,
    RunConfig=run_config.RunConfig,
    ModeKeys=model_fn.ModeKeys,
    TPUEstimator=tpu_estimator.TPUEstimator,
    TPUEstimatorSpec=tpu_estimator.TPUEstimatorSpec,
    TPURunConfig=tpu_config.RunConfig,
    TPUConfig=tpu_config.TPUConfig,
    InputPipelineConfig=tpu_config.InputPipelineConfig,
  )
