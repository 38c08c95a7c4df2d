"""Reads classification data from TensorFlow Datasets (tensorflow-datasets, an extra)."""

import dataclasses
import functools
import importlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from errors import UserError
from tasks.readers import Columns

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Params:
  """The keys of --tfds_params, which are Model Garden's.

  Attributes:
    dataset: name in TensorFlow Datasets: glue/mnli, or my_data:1.0.0.
    data_dir: folder of the prepared data sets; empty for --data_dir, else ~/tensorflow_datasets.
    module_import: module to import first, because it defines the data set.
    train_split: split to train on; empty for train.
    dev_split: split to evaluate on; empty for validation.
    test_split: split to predict; empty for test.
    text_key: feature with the first or only text.
    text_b_key: feature with the second text.
    label_key: feature with the label.
    test_text_key: the same as text_key, in the test split.
    test_text_b_key: the same as text_b_key, in the test split.
    test_label: unused, because labels of test data are not read.
    label_type: "float" for regression, else "int".
    weight_key: feature with the weight of a training example.
    is_regression: the labels are numbers to predict.
    skip_label: examples with this label (a number, as stored) are left out.
  """

  dataset: str = ""
  data_dir: str = ""
  module_import: str = ""
  train_split: str = ""
  dev_split: str = ""
  test_split: str = ""
  text_key: str = ""
  text_b_key: str = ""
  label_key: str = ""
  test_text_key: str = ""
  test_text_b_key: str = ""
  test_label: str = ""
  label_type: str = "int"
  weight_key: str = ""
  is_regression: str = "false"
  skip_label: str = ""


def parse(text: str) -> Params:
  """Reads --tfds_params: "dataset=glue/mnli,text_key=premise,text_b_key=hypothesis".

  Raises:
    UserError: a key is unknown or has no value, a value is not one of its choices, or `dataset` is
      missing.
  """
  names = [field.name for field in dataclasses.fields(Params)]
  values = {}
  for entry in filter(None, (entry.strip() for entry in text.split(","))):
    key, equals, value = (part.strip() for part in entry.partition("="))
    if key not in names or not equals:
      raise UserError(f"--tfds_params: {entry!r} is no KEY=VALUE with one of {', '.join(names)}")
    values[key] = value
  params = Params(**values)
  for key, choices in (("label_type", ("int", "float")), ("is_regression", ("true", "false"))):
    if getattr(params, key).lower() not in choices:
      raise UserError(
        f"--tfds_params: {key}={getattr(params, key)} is none of {', '.join(choices)}"
      )
  if not params.dataset:
    raise UserError("--tfds_params: dataset is missing, e.g. dataset=glue/mnli")
  return params


class TfdsSource:
  """A data set of TensorFlow Datasets.

  Example:
    source = TfdsSource(parse("dataset=glue/mnli"), "")
    for place, parts in source.rows("train", Columns("premise", "hypothesis", "label")):
      print(place, parts["text_a"], parts["label"])
  """

  def __init__(self, params: Params, data_dir: str):
    """Stores the arguments; data are read, and downloaded if need be, on the first use.

    Args:
      params: dataset, data_dir, module_import and skip_label are read.
      data_dir: folder to use if `params` have none.
    """
    self._params = params
    self._data_dir = params.data_dir or data_dir or None

  @functools.cached_property
  def _builder(self) -> Any:
    library = _import_library()
    if self._params.module_import:
      try:
        importlib.import_module(self._params.module_import)
      except ImportError as error:
        raise UserError(f"--tfds_params: module_import: {error}") from None
    try:
      return library.builder(self._params.dataset, data_dir=self._data_dir)
    # A data set's source is foreign code, which may raise anything.
    except Exception as error:
      message = str(error).strip().split("\n")[0]
      raise UserError(f"--tfds_params: dataset={self._params.dataset}: {message}") from None

  @property
  def description(self) -> str:
    """Name, configuration and version."""
    return self._builder.info.full_name

  def may_have(self, split: str) -> bool:
    """Returns whether the data set has this split; True as long as it is not prepared."""
    return not self._builder.is_prepared() or split in self._builder.info.splits

  def label_names(self, label_key: str) -> tuple[str, ...]:
    """Names of the classes in the order of their ids; () if the data set has no names for them.

    Raises:
      UserError: there is no such feature, or it holds numbers that are not integers.
    """
    self._check_features([label_key])
    feature = self._builder.info.features[label_key]
    if np.issubdtype(feature.np_dtype, np.floating):
      raise UserError(
        f"--tfds_params: label_key={label_key} has numbers in {self.description}; set "
        f"is_regression=true to predict them"
      )
    return tuple(getattr(feature, "names", None) or ())

  def files(self, split: str) -> list[str]:
    """Paths of the record files of a split such as "train", or "train[:10%]"."""
    return [str(path) for path in self._split(split).filepaths]

  def rows(self, split: str, columns: Columns) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (place for messages, {part of Columns: text}); labels are names where there are some.

    Raises:
      UserError: the split or a feature does not exist, or the data set cannot be prepared.
    """
    keys = {
      part: column if isinstance(column, tuple) else (column,)
      for part, column in columns.parts().items()
    }
    self._check_features(key for several in keys.values() for key in several)
    self._split(split)  # checks its name
    features = self._builder.info.features
    names = getattr(features[columns.label], "names", None) if columns.label else None
    examples = self._builder.as_dataset(split=split, shuffle_files=False)
    for number, example in enumerate(examples.as_numpy_iterator(), 1):
      parts = {part: " ".join(_text(example[key]) for key in keys[part]) for part in keys}
      if self._params.skip_label and parts.get("label") == self._params.skip_label:
        continue
      if names and "label" in parts:
        label = int(parts["label"])
        parts["label"] = names[label] if 0 <= label < len(names) else "-"  # -1: no label
      yield f"{self.description}, split {split}, example {number}", {"line": str(number), **parts}

  def _prepare(self):
    builder = self._builder
    if not builder.is_prepared():
      log.info("Download and prepare %s into %s", self._params.dataset, builder.data_dir)
      try:
        builder.download_and_prepare()
      # Foreign code, as above.
      except Exception as error:
        raise UserError(
          f"--tfds_params: {self.description} is not in {builder.data_dir} and cannot be prepared "
          f"({type(error).__name__}: {str(error).split(chr(10))[0]}); copy the prepared data set "
          f"there, or name its folder with data_dir"
        ) from error

  def _split(self, split):
    self._prepare()
    try:
      return self._builder.info.splits[split]
    except (KeyError, ValueError):
      raise UserError(
        f"--tfds_params: {self.description} has no split {split!r}; it has "
        f"{', '.join(self._builder.info.splits)}"
      ) from None

  def _check_features(self, keys):
    features = self._builder.info.features
    for key in keys:
      if key not in features:
        raise UserError(
          f"--tfds_params: {self.description} has no feature {key!r}; it has {', '.join(features)}"
        )


def _text(value: Any) -> str:
  return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _import_library():
  try:
    import tensorflow_datasets
  except ImportError:
    raise UserError(
      "--tfds_params needs the package tensorflow-datasets: pip install -r requirements-tfds.txt"
    ) from None
  return tensorflow_datasets
