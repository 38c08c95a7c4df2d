"""The seam between a task and everything that runs tasks.

A Task names its features, reads raw examples, turns an example into features, builds its head and
per-example loss, and scores predictions in Python. Its FeatureSpecs drive writing, parsing and
padding of records. A new task is one class and one line of a registry.
"""

import abc
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
  """One feature of a record.

  Attributes:
    name: key in the record and in the features of the model.
    is_sequence: True for one value per token (padded to max_seq_length), False for a scalar or
      a vector.
    length: number of values of a vector that is no sequence of tokens; 0 for any number, which is
      padded with -1 when it is read; None for a scalar.
    dtype: "int64" or "float32", as records hold it; int64 becomes int32 in the graph.
    pad_value: fills a sequence up to max_seq_length; None for the tokenizer's pad id.
    default: value where a record lacks the feature; None makes it required.
  """

  name: str
  is_sequence: bool = False
  length: int | None = None
  dtype: str = "int64"
  pad_value: int | None = 0
  default: float | None = None


@dataclasses.dataclass
class TaskOutput:
  """What a task's head gives.

  Attributes:
    losses: name -> float32 [B], the sum of an example's weighted losses of that kind (over its
      masked tokens, say; one loss for a classifier). The batch's loss is the sum over the kinds of
      sum(losses[name]) / sum(loss_weights[name]), see Task.loss_weights.
    predictions: name -> [B, ...] tensors that `score` and the prediction writers need.
    sums: name -> float32 scalar, sum over the batch, from which Task.monitors computes what the
      log of training shows.
  """

  losses: dict[str, tf.Tensor]
  predictions: dict[str, tf.Tensor]
  sums: dict[str, tf.Tensor] = dataclasses.field(default_factory=dict)


class Task(abc.ABC):
  """One kind of job, on records.

  Attributes:
    name: the task's canonical name.
    job: "classification", "race", "squad" or "pretraining": its recipes are those of
      configs/experiments/FAMILY_JOB.yaml.
    metrics: names of the metrics of `score`.
    score_name: metric of `combine` that selects the best checkpoint; larger is better, but of
      losses ("loss...") smaller.
    eval_split: what evaluation is said to be on.
    is_grouped: batches of training group examples of like length, by the feature input_mask.
    sequences_per_example: how many sequences each example is, one for each option of a question;
      from 2 on sequence features are [B, sequences_per_example, T], else [B, T].
  """

  name: str
  job: str
  metrics: tuple[str, ...]
  score_name = "score"
  eval_split = "dev"
  is_grouped = True
  sequences_per_example: int = 1

  @property
  @abc.abstractmethod
  def feature_specs(self) -> list[FeatureSpec]:
    """Features of a record, in the order in which they are written."""

  def splits(self, kind: str) -> list[str]:
    """Names of the splits of a `kind`: "train", "dev" or "test" (MNLI has two of the last)."""
    return [kind]

  @property
  def sequence_features(self) -> set[str]:
    """Features of the model, after `prepare`, with one value per token."""
    return {spec.name for spec in self.feature_specs if spec.is_sequence}

  def model_settings(self) -> dict[str, Any]:
    """JSON values that a model folder stores in addition to the settings (label_list, ...)."""
    return {}

  def prepare(self, features: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Turns a batch of parsed records into the model's features, in the input pipeline.

    Args:
      features: [B, ...] of the feature_specs.
      seed: int32 [2] of this batch, or [B, 2], one for each example; whatever is drawn must be a
        function of it.
    """
    del seed
    return features

  def loss_weights(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """name of a loss -> float32 [B], the weight that each example's losses of that kind sum up to.

    The weights depend on the data alone. So the whole batch's sum is known before the batch is cut
    over devices or micro-batches, and each part divides by it: the parts' losses and gradients are
    those of the whole, however unevenly the weights are spread.
    """
    return {"loss": features["weight"] * tf.cast(features["is_real_example"], tf.float32)}

  @abc.abstractmethod
  def build(self, encoder, features: dict[str, tf.Tensor]) -> TaskOutput:
    """Builds the head on an encoder (modeling.build_encoder)."""

  def monitors(self, sums: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """float32 scalars for the log of training.

    Args:
      sums: TaskOutput.sums, each a mean over all micro-batches and replicas of the batch, so that a
        ratio of two is that of the whole batch.
    """
    del sums
    return {}

  @abc.abstractmethod
  def score(self, split: str, predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Metrics over all examples of one split; `predictions` also holds the label features."""

  def metric_names(self, splits: list[str]) -> set[str]:
    """Names of all metrics of an evaluation on these splits."""
    names = dict.fromkeys((*self.metrics, "loss"), 0.0)
    return set(self.combine({split: names for split in splits}))

  @abc.abstractmethod
  def combine(self, metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    """Joins the metrics of the splits of one evaluation and adds `score_name`."""


def stem(path: str) -> str:
  """File name without its extension (and without .gz or .bz2): data/new.csv -> new."""
  name = os.path.basename(path).removesuffix(".gz").removesuffix(".bz2")
  return os.path.splitext(name)[0]


class RawDataTask(Task):
  """A task that makes its records from raw data itself."""

  @abc.abstractmethod
  def input_files(self, split: str) -> list[str]:
    """Raw files of a split, which must exist; UserError says what is missing and how to get it."""

  def predictions_name(self, split: str) -> str:
    """Part of the predictions' file name: the split's, or the name of a user's own file."""
    return split

  @abc.abstractmethod
  def source_key(self, split: str) -> Any:
    """What, besides the raw files and `metadata`, decides which examples are read (as JSON)."""

  @abc.abstractmethod
  def read_examples(self, split: str) -> Iterator[Any]:
    """Raw examples of a split in file order."""

  def featurize(self, example: Any, tokenizer, max_seq_length: int) -> dict[str, list]:
    """Features of one example; sequences may be shorter than max_seq_length.

    With several sequences per example a sequence feature is a list of that many lists.
    """
    raise NotImplementedError

  def featurize_all(
    self, example: Any, tokenizer, max_seq_length: int
  ) -> tuple[list[dict[str, list]], Any]:
    """Features of all records of an example, for tasks where it may become several.

    Returns:
      The records' features, and what else is to be kept for scoring them: a JSON value that goes
      into the side table of the record file (records.SIDE_TABLE), or None.
    """
    return [self.featurize(example, tokenizer, max_seq_length)], None

  @abc.abstractmethod
  def metadata(self) -> dict:
    """What the metadata file of the records says about the task (label_list, ...)."""
