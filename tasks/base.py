"""Interface of a task to everything that runs tasks.

A Task names its features, reads raw examples, turns an example into features, builds its head and
per-example loss, scores predictions in Python and writes them. Its FeatureSpecs drive writing,
parsing and padding of records. A new task is one class and one line in tasks/registry.py.
"""

import abc
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import config
from errors import UserError
from utils.options import Range


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
class Split:
  """Records of one split, as scoring sees them.

  Attributes:
    name: name of the split, e.g. "dev_matched".
    num_examples: number of records that are evaluated or predicted.
    side_table: result of Task.read_side_table.
    origins: result of Task.read_origins; None unless predictions are written.
  """

  name: str
  num_examples: int = 0
  side_table: Any = None
  origins: Any = None


@dataclasses.dataclass
class TaskOutput:
  """Losses and predictions of a task's head.

  Attributes:
    losses: loss name -> float32 [B], sum of an example's weighted losses, e.g. over its masked
      tokens. The loss of a batch is the sum over the names of
      sum(losses[name]) / sum(loss_weights[name]), see Task.loss_weights.
    predictions: name -> [B, ...] tensors for `score` and `write_predictions`; the second dimension
      may differ between batches, see Task.padding.
    sums: name -> float32 scalar, sum over the batch, from which Task.monitors computes values for
      the log of training.
  """

  losses: dict[str, tf.Tensor]
  predictions: dict[str, tf.Tensor]
  sums: dict[str, tf.Tensor] = dataclasses.field(default_factory=dict)


class Task(abc.ABC):
  """A kind of job on records.

  Attributes:
    name: canonical name of the task.
    job: name of the job in tasks/registry.py; recipes are configs/experiments/FAMILY_JOB.yaml.
    metrics: names of the metrics of `score`.
    score_name: metric of `combine` that selects the best checkpoint; larger is better, except for
      losses ("loss...").
    eval_split: split name shown with evaluation results.
    is_grouped: training batches group examples of similar length, by the feature input_mask.
    sequences_per_example: number of sequences of an example, e.g. one for each option of a
      question; from 2 on sequence features are [B, sequences_per_example, T], else [B, T].
    predicts_dev: predictions are for the records of evaluation unless others are named.
    padding: prediction -> value that fills its second dimension up to the longest batch's.
    ensemble_checkpoints: checkpoints to predict with together; see `write_ensemble`.
  """

  name: str
  job: str
  metrics: tuple[str, ...]
  score_name = "score"
  eval_split = "dev"
  is_grouped = True
  sequences_per_example: int = 1
  predicts_dev = False
  padding: dict[str, float] = {}
  ensemble_checkpoints: Sequence[str] = ()

  @classmethod
  def canonical_name(cls, settings: Any) -> str:
    """Returns the canonical task name of the settings, "" if they name none.

    Raises:
      UserError: the settings contradict each other, or the name is unknown.
    """
    return getattr(settings, "task_name", cls.job)

  @classmethod
  def name_of_records(cls, meta: dict[str, Any]) -> str:
    """Returns the canonical task name of record files, from their metadata; "" if unknown."""
    del meta
    return ""

  @classmethod
  def known_names(cls) -> list[str]:
    """Returns the canonical names of all tasks of the job."""
    return [cls.job]

  @property
  @abc.abstractmethod
  def feature_specs(self) -> list[FeatureSpec]:
    """Features of a record, in the order in which they are written."""

  def ranges(self, vocab_size: int, num_segments: int, max_seq_length: int) -> dict[str, Range]:
    """Feature of the records -> allowed values; they are checked while records are read.

    On a GPU, an id beyond its table would be read as zeros, without an error.

    Args:
      vocab_size: rows of the word embedding table.
      num_segments: number of segment ids.
      max_seq_length: length of the sequences.
    """
    from_zero = lambda upper: Range(int, lower=0, upper=upper)
    ids, position = from_zero(vocab_size - 1), from_zero(max_seq_length - 1)
    segments, bit = from_zero(num_segments - 1), from_zero(1)
    known = {
      **dict.fromkeys(("input_ids", "input_word_ids", "input", "masked_lm_ids"), ids),
      **dict.fromkeys(("segment_ids", "input_type_ids", "seg_id"), segments),
      **dict.fromkeys(("masked_lm_positions", "next_sentence_positions"), position),
      **dict.fromkeys(("start_positions", "end_positions", "cls_index"), position),
      **dict.fromkeys(("input_mask", "is_real_example", "is_impossible", "label"), bit),
      **dict.fromkeys(("weight", "masked_lm_weights", "p_mask"), Range(float, lower=0)),
      "boundary": Range(int, lower=-1, upper=max_seq_length),
    }
    return {spec.name: known[spec.name] for spec in self.feature_specs if spec.name in known}

  def splits(self, kind: str) -> list[str]:
    """Names of the splits of a `kind`: "train", "dev" or "test" (MNLI has two dev splits)."""
    return [kind]

  @property
  def sequence_features(self) -> set[str]:
    """Features of the model, after `prepare`, with one value per token."""
    return {spec.name for spec in self.feature_specs if spec.is_sequence}

  def model_settings(self) -> dict[str, Any]:
    """JSON values that a model folder stores in addition to the settings (label_list, ...)."""
    return {}

  def take_model_settings(
    self, stored: dict[str, Any], folder: str | None, meta: dict[str, Any]
  ) -> None:
    """Takes over what the trained model, or the records, fix (e.g. the order of the labels).

    Args:
      stored: settings of the model that the run continues, else of the one that it starts from.
      folder: folder of the model that the run continues, evaluates or predicts with; None if it
        trains a new one.
      meta: metadata of the record files; empty without any.

    Raises:
      UserError: the model is of another task.
    """
    del stored, folder, meta

  def prepare(self, features: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Turns a batch of parsed records into the model's features, in the input pipeline.

    Args:
      features: [B, ...] of the feature_specs.
      seed: int32 [2] of the batch, or [B, 2] with one seed for each example, for random draws.
    """
    del seed
    return features

  def loss_weights(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Loss name -> float32 [B], normalizer of each example (e.g. its number of masked tokens).

    The weights depend on the data alone. Their mean over the whole batch is computed before the
    batch is split over devices or micro-batches, and each part divides its mean loss by it; so
    losses and gradients do not depend on the split (training/losses.py).
    """
    return {"loss": features["weight"] * tf.cast(features["is_real_example"], tf.float32)}

  @abc.abstractmethod
  def build(self, encoder, features: dict[str, tf.Tensor]) -> TaskOutput:
    """Builds the head on an encoder (modeling.build_encoder)."""

  def monitors(self, sums: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """float32 scalars for the log of training.

    Args:
      sums: TaskOutput.sums, averaged over all micro-batches and replicas: the ratio of two of them
        is the ratio for the whole batch.
    """
    del sums
    return {}

  def read_side_table(self, kind: str, split: str, path: str, num_records: int) -> Any:
    """Reads what `score` needs in addition to the predictions of a record file.

    Args:
      kind: "train", "dev" or "test".
      split: name of the split.
      path: the record file's path + record_files.SIDE_TABLE; need not exist.
      num_records: number of records of the file.

    Raises:
      UserError: the table does not belong to the records, or "dev" records have no answers.
    """
    return None

  def read_origins(self, split: str, num_examples: int) -> Any:
    """Reads the raw rows that `write_predictions` needs, before training; None if it needs none.

    Called for splits whose records are made from raw data.
    """
    return None

  @abc.abstractmethod
  def score(self, split: Split, predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Metrics over all examples of a split; `predictions` also holds the label features."""

  def evaluated(self, split: Split, predictions: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """JSON values of each evaluated example, for eval_predictions.jsonl; empty if there are none.

    Called after `score`, with the same arguments.

    Returns:
      {"index", "label", "prediction"}, and "probability" of the prediction if there is one; index
      counts the examples of `read_examples`. SQuAD has its own keys.
    """
    del split, predictions
    return []

  def metrics_of(self, split: Split) -> Iterable[str]:
    """Names of the metrics of `score` on a split."""
    return self.metrics

  def metric_names(self, splits: Sequence[Split]) -> set[str]:
    """Names of all metrics of an evaluation on these splits."""
    return set(
      self.combine(
        {split.name: dict.fromkeys((*self.metrics_of(split), "loss"), 0.0) for split in splits}
      )
    )

  @abc.abstractmethod
  def combine(self, metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    """Joins the metrics of the splits of one evaluation and adds `score_name`."""

  def output_files(self, trainer: config.Trainer, split: str) -> list[str]:
    """Paths that `write_predictions` writes; UserError if the task has no such predictions."""
    raise UserError(f"--do_predict: {self.job} has nothing to predict")

  def write_predictions(
    self, trainer: config.Trainer, split: Split, predictions: dict[str, np.ndarray]
  ) -> None:
    """Writes the `output_files` of a split and prints their paths.

    Args:
      trainer: --do_predict, --do_submit and the folder.
      split: the split, with its origins.
      predictions: name -> [num_examples, ...] in the order of the file.
    """
    raise NotImplementedError

  def ensemble_files(self, trainer: config.Trainer) -> list[str]:
    """Paths that `write_ensemble` writes."""
    return []

  def write_ensemble(
    self, trainer: config.Trainer, split: Split, several: Sequence[dict[str, np.ndarray]]
  ) -> None:
    """Joins the predictions of the ensemble_checkpoints and writes them."""
    raise NotImplementedError


def stem(path: str) -> str:
  """File name without its extension (and without .gz or .bz2): data/new.csv -> new."""
  name = os.path.basename(path).removesuffix(".gz").removesuffix(".bz2")
  return os.path.splitext(name)[0]


def truncate_pair(tokens_a: list, tokens_b: list, max_length: int) -> tuple[list, list]:
  """Cuts the longer of the two, one token at a time (b on a tie), to max_length in total.

  Example: lengths 5 and 3 with max_length 5 become 3 and 2.
  """
  length_a, length_b = len(tokens_a), len(tokens_b)
  while length_a + length_b > max_length:
    if length_a > length_b:
      length_a -= 1
    else:
      length_b -= 1
  return tokens_a[:length_a], tokens_b[:length_b]


def pair_features(
  text_a: str, text_b: str | None, tokenizer, max_seq_length: int, cls_segment_id: int
) -> dict[str, list[int]]:
  """Features [CLS] a [SEP], or [CLS] a [SEP] b [SEP]; segment ids 0 for a and its [SEP], 1 for b's.

  A pair that is too long loses tokens from the end of its longer text, one at a time. A second text
  without tokens counts as missing, as in the originals: [CLS] a [SEP].

  Args:
    text_a: first or only text.
    text_b: second text; None or empty if there is none.
    tokenizer: from tokenization.get_tokenizer.
    max_seq_length: longest sequence, in tokens.
    cls_segment_id: segment id of the first token.
  """
  tokens_a = tokenizer.convert_text_to_ids(text_a)
  tokens_b = tokenizer.convert_text_to_ids(text_b or "")
  if tokens_b:
    tokens_a, tokens_b = truncate_pair(tokens_a, tokens_b, max_seq_length - 3)
  else:
    tokens_a = tokens_a[: max_seq_length - 2]
  input_ids = [tokenizer.cls_id, *tokens_a, tokenizer.sep_id]
  segment_ids = [cls_segment_id] + [0] * (len(tokens_a) + 1)
  if tokens_b:
    input_ids += [*tokens_b, tokenizer.sep_id]
    segment_ids += [1] * (len(tokens_b) + 1)
  return {"input_ids": input_ids, "input_mask": [1] * len(input_ids), "segment_ids": segment_ids}


class RawDataTask(Task):
  """A task whose records are made from raw data by preprocessing/finetuning_records.py.

  Attributes:
    record_unit: plural noun for its records, in messages.
    cls_segment_id: segment id of the first token: 0 for BERT, 2 for Funnel.
  """

  record_unit = "examples"
  cls_segment_id: int = 0

  @classmethod
  @abc.abstractmethod
  def from_experiment(cls, experiment: config.Experiment, family: str) -> "RawDataTask":
    """Returns the task of complete settings, for a model family ("bert" or "funnel").

    Raises:
      UserError: the settings contradict each other.
    """

  @abc.abstractmethod
  def input_files(self, split: str) -> list[str]:
    """Raw files of a split, which must exist; UserError says what is missing and how to get it."""

  def predictions_name(self, split: str) -> str:
    """Part of the predictions' file name: the split, or the stem of a user's own file."""
    return split

  @abc.abstractmethod
  def source_key(self, split: str) -> Any:
    """Returns further settings, as JSON, that change which examples are read."""

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
    """Features of all records of an example, for tasks with several records per example.

    Returns:
      The features of each record, and a JSON value for the side table of the record file
      (record_files.SIDE_TABLE), or None.
    """
    return [self.featurize(example, tokenizer, max_seq_length)], None

  @abc.abstractmethod
  def metadata(self) -> dict:
    """Entries of the records' metadata file that describe the task (label_list, ...)."""
