"""Classification and regression of texts and pairs of texts.

The data sets are in tasks/classification_data.py.
"""

import collections
import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

import modeling
from errors import UserError
from tasks import base, metrics
from tasks.classification_data import (
  ALIASES,
  DATASETS,
  FILE_TASKS,
  NLI_LABELS,
  Dataset,
  Example,
  dataset_of,
  how_to_get,
  share_models,
  task_name_of,
)
from tasks.labels import check_cell, check_label_list, parse_number, parse_weight, sort_labels
from tasks.readers import list_texts, read_columns, read_text
from utils import files
from utils.options import Range, brief


class ClassificationTask(base.RawDataTask):
  """Classification (or regression, where labels are None) of one text or a pair.

  Example:
    task = ClassificationTask("cola", DATASETS["cola"], "data/glue/CoLA")
    task.featurize(next(task.read_examples("train")), tokenizer, max_seq_length=128)
  """

  job = "classification"

  @classmethod
  def canonical_name(cls, settings):
    return task_name_of(settings)

  @classmethod
  def name_of_records(cls, meta):
    if not meta:
      return FILE_TASKS[0]
    name = str(meta.get("processor_type", "")).lower()
    return name if name in (*DATASETS, *FILE_TASKS) else ALIASES.get(name, "")

  @classmethod
  def known_names(cls):
    return [*DATASETS, *FILE_TASKS]

  @classmethod
  def from_experiment(cls, experiment, family):
    settings, records = experiment.task, experiment.record_files
    for name in ("weight_col", "class_weights"):
      if records.train_data_path and getattr(settings, name):
        raise UserError(
          f"--{name}: the records of --train_data_path have weights already; pass "
          f"--{name} to create_finetuning_data.py"
        )
    if records.test_data_path and settings.id_col:
      raise UserError(
        "--id_col: the records of --test_data_path hold no ids; predict the file "
        "itself, with --predict_file"
      )
    name = task_name_of(settings)
    dataset = dataset_of(name, settings, experiment.raw_data.data_dir)
    if settings.class_weights and dataset.labels is None:
      raise UserError(
        f"--class_weights: task {name} is a regression, which has no classes; "
        f"--weight_col weights examples"
      )
    if settings.num_classes and dataset.labels and len(dataset.labels) != settings.num_classes:
      raise UserError(
        f"--num_classes={settings.num_classes}, but task {name} has {len(dataset.labels)} labels: "
        f"{', '.join(dataset.labels)}"
      )
    raw = experiment.raw_data
    return cls(
      name,
      dataset,
      raw.data_dir or os.path.join(raw.data_root, dataset.folder),
      experiment.model.cls_scope or None,
      modeling.CLS_SEGMENT_IDS[family],
      raw.skip_bad_rows,
      settings.class_weights,
      settings.num_classes,
    )

  def __init__(
    self,
    name: str,
    dataset: Dataset,
    data_dir: str = "",
    cls_scope: str | None = None,
    cls_segment_id: int = 0,
    skip_bad_rows: bool = False,
    class_weights: str = "",
    num_classes: int = 0,
  ):
    """Makes the task.

    Args:
      name: canonical name of the task.
      dataset: files, columns, labels and metrics.
      data_dir: folder of the raw files; may be empty if records are read.
      cls_scope: variable scope of the head; None for the model family's own.
      cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).
      skip_bad_rows: skip rows with too few or too many columns instead of raising.
      class_weights: weights of training examples by label: "balanced", or "LABEL:WEIGHT,..." with
        1 for labels that are not named.
      num_classes: number of labels of record files without label names; 0 if they have names.
    """
    self.name = name
    self.head_name = name  # task of the model's head; AX is predicted with MNLI's
    self.dataset = dataset
    self.data_dir = data_dir
    self.cls_scope = cls_scope
    self.cls_segment_id = cls_segment_id
    self.skip_bad_rows = skip_bad_rows
    self.class_weights = class_weights
    self.is_regression = dataset.labels is None
    self.metrics = dataset.metrics
    self.is_probed = False  # predict the encoder's features instead of labels (training/fewshot.py)
    self._labels = dataset.labels
    if num_classes and dataset.labels == ():
      self._labels = tuple(map(str, range(num_classes)))

  @property
  def labels(self) -> tuple[str, ...]:
    """Class names in the order of their ids, collected from the training file if not given."""
    if self._labels == ():
      names = set()
      for place, parts in self._rows("train"):
        if not parts["label"]:
          raise UserError(f"{place}: the label is empty")
        check_cell(place, "label", parts["label"])
        names.add(parts["label"])
      self._labels = sort_labels(names, self.input_files("train")[0])
    return self._labels

  @labels.setter
  def labels(self, names: Sequence[str]):
    self._labels = tuple(names)

  @property
  def feature_specs(self):
    return [
      base.FeatureSpec("input_ids", is_sequence=True, pad_value=None),
      base.FeatureSpec("input_mask", is_sequence=True),
      base.FeatureSpec("segment_ids", is_sequence=True),
      base.FeatureSpec("label_ids", dtype="float32" if self.is_regression else "int64"),
      base.FeatureSpec("is_real_example", default=1),
      base.FeatureSpec("weight", dtype="float32", default=1.0),
      base.FeatureSpec("example_id", default=-1),
    ]

  def ranges(self, *args):
    labels = Range(float) if self.is_regression else Range(int, lower=0, upper=len(self.labels) - 1)
    return {**super().ranges(*args), "label_ids": labels}

  def take_model_settings(self, stored, folder, meta):
    """Sets the labels in the order of the ids that the model was trained with.

    Search order: 1. the trained model, 2. the records' metadata, 3. the data set or, for own files,
    the training file. New training that starts from a classifier keeps the classifier's order.
    """
    is_own = self.dataset.labels == ()
    if is_own and meta.get("label_list"):
      self.labels = meta["label_list"]
    names = stored.get("label_list")
    check_label_list(names or [], folder or "the model's settings")
    if not folder:  # a new model, of this task
      if names and not self.is_regression and set(names) == set(self.labels):
        self.labels = names
      return
    # AX has no training data; MNLI's model predicts it.
    if self.splits("train") and not share_models(stored.get("task_name", self.name), self.name):
      raise UserError(
        f"{folder}: this folder holds a model of task {stored['task_name']}, not of "
        f"{self.name}; use another --model_dir"
      )
    self.head_name = stored.get("task_name", self.name)
    if self.is_regression or not names:
      return
    if not is_own and set(names) != set(self.labels):
      raise UserError(
        f"{folder}: the model was trained with the labels {names}, the data have "
        f"{list(self.labels)}; use another model"
      )
    self.labels = names

  def splits(self, kind):
    return [split for split in self.dataset.files if split.split("_")[0] == kind]

  def input_files(self, split):
    if split not in self.dataset.files:
      raise UserError(
        f"task {self.name} has no {split} data; it has {', '.join(self.dataset.files)}"
      )
    if self.dataset.tfds:
      return self.dataset.tfds.files(self.dataset.files[split][0])
    candidates = [
      name if "://" in name else os.path.join(self.data_dir, name)
      for name in self.dataset.files[split]
    ]
    for path in candidates:
      found = [path]
      if path.endswith("/"):
        found = [
          name for label in self.dataset.labels for name in list_texts(os.path.join(path, label))
        ]
      if found and tf.io.gfile.exists(found[0]):
        return found
    raise UserError(
      f"{candidates[0]}: no such file, the {split} data of task {self.name}. "
      + how_to_get(self.name, self.dataset)
    )

  def predictions_name(self, split):
    return base.stem(self.dataset.files[split][0]) if self.name in FILE_TASKS else split

  def source_key(self, split):
    weights = [self.class_weights] if self.class_weights and split == "train" else []
    if self.dataset.tfds:
      weights += [self.dataset.tfds.description, *self.dataset.files[split]]
    return [
      dataclasses.astuple(self._columns(split)),
      self.skip_bad_rows,
      self.dataset.language,
      *weights,
    ]

  def _columns(self, split):
    kind = split.split("_")[0]
    columns = self.dataset.split_columns.get(kind, self.dataset.columns)
    return dataclasses.replace(columns, label=None) if kind == "test" else columns

  def _rows(self, split):
    """Yields (file and line for messages, {column role: text}), see readers.read_columns.

    The role "line" is the row's line number; texts in files of their own do not have it.
    """
    paths = self.input_files(split)
    if self.dataset.tfds:
      yield from self.dataset.tfds.rows(self.dataset.files[split][0], self._columns(split))
      return
    if self.dataset.files[split][0].endswith("/"):
      for path in paths:
        label = {} if split == "test" else {"label": os.path.basename(os.path.dirname(path))}
        yield path, {"text_a": read_text(path).replace("<br />", " "), **label}
      return
    for number, parts in read_columns(
      paths[0], self._columns(split), self.dataset.file_format, self.skip_bad_rows
    ):
      if parts.get("language", self.dataset.language) != self.dataset.language:
        continue
      if self.dataset.literal_breaks:
        parts["text_a"] = parts["text_a"].replace("\\n", " ").replace('\\"', '"')
      place = f"{paths[0]}: line {number}"
      check_cell(place, "id", parts.get("id", ""))
      yield place, {"line": str(number), **parts}

  def read_origins(self, split, num_examples):
    """Columns that lead from predictions back to a user's own file, header first.

    They are `line`, the 1-based line number, and `id`, the cell of --id_col. Named data sets have
    none: their predictions are in the form of the benchmark.
    """
    if self.name not in FILE_TASKS:
      return []
    names = ["line", "id"] if self._columns(split).id is not None else ["line"]
    return [
      names,
      *(
        [parts[name] for name in names]
        for _, parts in itertools.islice(self._rows(split), num_examples)
      ),
    ]

  def read_examples(self, split):
    weights = self._find_class_weights() if self.class_weights and split == "train" else {}
    largest = None
    for example in self._read_examples(split):
      example.weight *= weights.get(example.label, 1.0)
      largest = max(largest or 0.0, example.weight)
      yield example
    if largest == 0:
      raise UserError(
        f"{self.input_files(split)[0]}: the weight of each example is 0, so there is "
        f"nothing to learn; see --weight_col and --class_weights"
      )

  def _read_examples(self, split):
    for place, parts in self._rows(split):
      label = parts.get("label")
      label = self.dataset.label_aliases.get(label, label)
      if label == "-" and self.dataset.labels == NLI_LABELS:
        continue  # a pair of SNLI or MNLI on which the annotators did not agree
      yield Example(
        parts["text_a"],
        parts.get("text_b"),
        self._parse_label(label, place),
        parse_weight(parts.get("weight", "1"), f"{place}: the weight"),
      )

  def _find_class_weights(self):
    """Returns label -> weight, from class_weights."""
    if self.class_weights == "balanced":
      counts = collections.Counter(example.label for example in self._read_examples("train"))
      return {label: counts.total() / (len(counts) * count) for label, count in counts.items()}
    weights = {}
    for entry in self.class_weights.split(","):
      label, colon, weight = entry.strip().rpartition(":")
      if not colon or label not in self.labels or label in weights:
        raise UserError(
          f"--class_weights: {brief(entry)} is no LABEL:WEIGHT with one of the labels "
          f"{', '.join(map(brief, self.labels))}, each at most once"
        )
      weights[label] = parse_weight(weight, f"--class_weights: the weight of {brief(label)}")
    return weights

  def _parse_label(self, label, place):
    if label is None:
      return None
    if self.is_regression:
      value = parse_number(label)
      if not math.isfinite(value):
        raise UserError(f"{place}: the label {brief(label)} is not a number")
      return value
    if label not in self.labels:
      raise UserError(
        f"{place}: unknown label {brief(label)}; the labels are "
        f"{', '.join(map(brief, self.labels))}"
      )
    return label

  def featurize(self, example, tokenizer, max_seq_length):
    """Features of base.pair_features, label, and a weight other than 1."""
    label = 0 if example.label is None else example.label
    if not self.is_regression and example.label is not None:
      label = self.labels.index(label)
    weight = {} if example.weight == 1 else {"weight": example.weight}
    return {
      **base.pair_features(
        example.text_a, example.text_b, tokenizer, max_seq_length, self.cls_segment_id
      ),
      "label_ids": label,
      "is_real_example": 1,
      **weight,
    }

  def model_settings(self):
    labels = {} if self.is_regression else {"label_list": list(self.labels)}
    return {"task_name": self.head_name, **labels}

  def metadata(self):
    values = {"processor_type": self.name.split("_")[0].upper()}  # MNLI for mnli_matched too
    if self.is_regression:
      return {**values, "task_type": "bert_regression", "label_type": "float"}
    return {
      **values,
      "task_type": "bert_classification",
      "num_labels": len(self.labels),
      "label_list": list(self.labels),
    }

  def build(self, encoder, features):
    if self.is_probed:
      pooled = encoder.pooled_output()
      return base.TaskOutput({"loss": tf.zeros_like(pooled[:, 0])}, {"features": pooled})
    num_outputs = 1 if self.is_regression else len(self.labels)
    logits = encoder.classification_logits(num_outputs, self.cls_scope, self.head_name)
    labels, weights = features["label_ids"], self.loss_weights(features)["loss"]
    if self.is_regression:
      values = logits[:, 0]
      return base.TaskOutput({"loss": weights * tf.square(values - labels)}, {"prediction": values})
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return base.TaskOutput(
      {"loss": weights * losses}, {"probabilities": tf.nn.softmax(logits), "logits": logits}
    )

  def prediction_rows(
    self, predictions: dict[str, np.ndarray], origins: Sequence[list[str]] = ()
  ) -> Iterator[list[str]]:
    """Rows of a prediction file, header first: index, prediction, probability of each label.

    Args:
      predictions: name -> [num_examples, ...].
      origins: further columns, header first, from `read_origins`.
    """
    rows = self._prediction_rows(predictions)
    return (row + origin for row, origin in zip(rows, origins, strict=True)) if origins else rows

  def _prediction_rows(self, predictions):
    if self.is_regression:
      yield ["index", "prediction"]
      for index, value in enumerate(predictions["prediction"]):
        yield [str(index), f"{value:.4f}"]
      return
    yield ["index", "prediction", *(f"probability_{label}" for label in self.labels)]
    for index, row in enumerate(predictions["probabilities"]):
      yield [str(index), self.labels[np.argmax(row)], *(f"{p:.4f}" for p in row)]

  def test_result_rows(self, predictions: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Rows of BERT's test_results.tsv, without a header: probabilities (or the number)."""
    values = predictions["prediction" if self.is_regression else "probabilities"]
    return ([str(value) for value in np.atleast_1d(row)] for row in values)

  def submission_rows(self, predictions: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Rows of GLUE's submission file, header first: index and prediction."""
    yield ["index", "prediction"]
    rows = self.prediction_rows(predictions)
    next(rows)
    for index, value, *_ in rows:
      # STS-B's scale ends at 0 and 5.
      yield [index, f"{min(max(float(value), 0), 5):.3f}" if self.is_regression else value]

  def _paths(self, trainer, split):
    """Returns kind -> path of the files that the --do_ flags ask for.

    "predictions" (predictions.SPLIT.tsv, of an own file predictions.FILE.tsv) has a header and
    label names; "test_results" (test_results.tsv, test_results_matched.tsv of test_matched) has
    BERT's form, the probabilities alone; "submission" is GLUE's file.
    """
    names = {}
    if trainer.do_predict:
      names["predictions"] = f"predictions.{self.predictions_name(split)}.tsv"
      names["test_results"] = split.replace("test", "test_results", 1) + ".tsv"
    if trainer.do_submit:
      if split not in self.dataset.submission:
        raise UserError(
          f"--do_submit: task {self.name} has no GLUE submission for its {split} data; use "
          f"--do_predict"
        )
      names["submission"] = os.path.join("submit", self.dataset.submission[split])
    return {kind: os.path.join(trainer.predictions_dir, name) for kind, name in names.items()}

  def output_files(self, trainer, split):
    return list(self._paths(trainer, split).values())

  def write_predictions(self, trainer, split, predictions):
    rows = {
      "predictions": lambda: self.prediction_rows(predictions, split.origins or ()),
      "test_results": lambda: self.test_result_rows(predictions),
      "submission": lambda: self.submission_rows(predictions),
    }
    for kind, path in self._paths(trainer, split.name).items():
      files.write_tsv(path, rows[kind]())
      print(f"{self.name} {split.name}: {path}")

  def score(self, split, predictions):
    kind = "prediction" if self.is_regression else "probabilities"
    guesses = predictions[kind] if self.is_regression else np.argmax(predictions[kind], axis=-1)
    return metrics.compute(self.metrics, predictions["label_ids"], guesses)

  def evaluated(self, split, predictions):
    return metrics.examples(None if self.is_regression else self.labels, predictions)

  def combine(self, metrics_of_splits):
    """Adds the suffix of the split if there are several; the score is the mean of the metrics.

    With one split {"f1": .8, "accuracy": .7} gives score .75; MNLI gives accuracy_matched,
    accuracy_mismatched and their mean.
    """
    joined = {}
    for split, values in metrics_of_splits.items():
      suffix = "_" + split.split("_")[1] if len(metrics_of_splits) > 1 else ""
      joined.update({name + suffix: value for name, value in values.items()})
    official = [value for name, value in joined.items() if not name.startswith("loss")]
    return {**joined, self.score_name: float(np.mean(official))}
