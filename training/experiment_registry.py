"""Registered experiments: name -> function that returns the default settings.

  @experiment_registry.register_config_factory("bert/my_corpus")
  def my_corpus():
    experiment = config.Experiment(task=Pretraining(loss_type="mlm"))
    experiment.trainer.train_batch_size = 64
    return experiment

train.py finds the experiments of a user's own file with --import_module=FILE.py.
"""

import importlib.util
import os
import sys
from collections.abc import Callable

import config
from errors import UserError
from tasks import settings

FACTORIES: dict[str, Callable[[], config.Experiment]] = {}


def register_config_factory(name: str) -> Callable:
  """Decorator: registers a function without arguments that returns an experiment's defaults.

  Args:
    name: FAMILY/JOB, e.g. "bert/my_task"; an existing name is replaced.
  """

  def decorate(factory):
    FACTORIES[name] = factory
    return factory

  return decorate


def make(name: str) -> config.Experiment:
  """Returns a new experiment with its default settings.

  Settings that the factory changes count as set, so that recipes keep them.

  Raises:
    UserError: the name is unknown; the message lists the names.
  """
  if name not in FACTORIES:
    raise UserError(f"--experiment={name} is unknown; there are {', '.join(sorted(FACTORIES))}")
  experiment = FACTORIES[name]()
  for setting, section in experiment.owners().items():
    if getattr(section, setting) != getattr(type(section)(), setting):
      experiment.sources.setdefault(setting, f"experiment {name}")
  experiment.family = name.split("/")[0]
  return experiment


def import_module(name: str) -> None:
  """Imports a user's module, which registers experiments and tasks: FILE.py or a module name.

  Raises:
    UserError: there is no such file or module.
  """
  try:
    if name.endswith(".py"):
      stem = os.path.splitext(os.path.basename(name))[0]
      spec = importlib.util.spec_from_file_location(stem, name)
      assert spec and spec.loader
      module = importlib.util.module_from_spec(spec)
      sys.modules[stem] = module
      spec.loader.exec_module(module)
    else:
      importlib.import_module(name)
  except (FileNotFoundError, ModuleNotFoundError) as error:
    raise UserError(f"--import_module={name}: {error}") from None


for _family in ("bert", "electra", "funnel"):
  for _name, _kind in (
    ("sentence_prediction", settings.Classification),
    ("squad", settings.Squad),
    ("race", settings.Race),
    ("tagging", settings.Tagging),
  ):
    FACTORIES[f"{_family}/{_name}"] = lambda kind=_kind: config.Experiment(task=kind())


@register_config_factory("bert/pretraining")
def bert_pretraining() -> config.Experiment:
  """BERT: masked words and next sentence."""
  return config.Experiment(task=settings.Pretraining(loss_type="bert"))


@register_config_factory("electra/pretraining")
def electra_pretraining() -> config.Experiment:
  """ELECTRA on a BERT encoder."""
  return config.Experiment(task=settings.Pretraining(loss_type="electra"))


@register_config_factory("funnel/pretraining")
def funnel_pretraining() -> config.Experiment:
  """ELECTRA on a Funnel-Transformer, as its authors' best models."""
  return config.Experiment(task=settings.Pretraining(loss_type="electra"))


@register_config_factory("bert/local")
def bert_local() -> config.Experiment:
  """A tiny classifier on synthetic data: no files, a minute on a CPU."""
  experiment = config.Experiment(
    task=settings.Classification(task_name="tsv", num_classes=2),
    model=config.Model(pretrained="none", init_checkpoint="none"),
    data=config.Data(max_seq_length=32, synthetic_data=True),
    optimizer=config.Optimizer(train_steps=200, learning_rate=1e-3),
    trainer=config.Trainer(train_batch_size=32, eval_every_steps=100),
  )
  experiment.model_keys = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
  }
  return experiment
