"""Predictions of a trained model from Python, with graph and variables loaded once."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from errors import UserError
from serving import batching, graph, requests
from serving import model as models
from training import evaluator


class Predictor:
  """A trained model that stays loaded.

  Calls from several threads may overlap. Not for multiple choice: a call stores the number of
  options in the task, so calls of one predictor must follow each other.

  Attributes:
    model: the model, with its settings, task and tokenizer.
    graph: its graph and session.
    inputs: features that the graph reads, name -> placeholder.

  Example:
    predictor = Predictor("runs/cola")
    predictor(["The book was read.", "The book read was."])
    # [{"prediction": "1", "probabilities": {"0": 0.02, "1": 0.98}}, ...]
  """

  def __init__(self, model_dir: str, batch_size: int = 8, **settings: Any):
    """Loads the model.

    Args:
      model_dir: folder of a training run, or its folder best.
      batch_size: records per run of the graph.
      **settings: see serving.model.load.

    Raises:
      UserError: the folder holds no model of a job that serving.requests lists.
    """
    if batch_size < 1:
      raise UserError(f"batch_size={batch_size}: it must be at least 1")
    self.model = models.load(model_dir, **settings)
    self._form = requests.form_of(self.model.experiment.job)
    self._batch_size = batch_size
    self.graph = graph.build(self.model)
    self.inputs = self.graph.inputs_of(self.graph.outputs.values())

  def __call__(self, values: Sequence[Any]) -> Any:
    """Returns the results of requests, in their order; see serving.requests.

    Raises:
      UserError: a request has another form.
    """
    task, tokenizer = self.model.task, self.model.tokenizer
    length = self.model.experiment.data.max_seq_length
    examples = self.parse(values)
    found = [task.featurize_all(example, tokenizer, length) for example in examples]
    records = [record for several, _ in found for record in several]
    predictions = self.predict(records) if records else {}
    tables = [table for _, table in found]
    return self._form.results(task, examples, tables, predictions) if records else []

  def parse(self, values: Sequence[Any]) -> list[Any]:
    """Returns the task's raw examples of requests; see serving.requests for errors."""
    if not isinstance(values, list | tuple):
      raise UserError(f"a list of requests is expected, not a {type(values).__name__}")
    return self._form.parse(self.model.task, values)

  def predict(self, records: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Returns the task's predictions for records: name -> [num_records, ...], in their order.

    Args:
      records: features of each record, from Task.featurize_all.
    """
    order, outputs = [], []
    for rows, arrays in self.batches(records):
      order += rows
      feed = {tensor: arrays[name] for name, tensor in self.inputs.items()}
      outputs.append(self.graph.session.run(self.graph.outputs, feed))
    padding, back = self.model.task.padding, np.argsort(order)
    return {
      name: evaluator.join_batches([batch[name] for batch in outputs], padding.get(name))[back]
      for name in self.graph.outputs
    }

  def batches(
    self, records: list[dict[str, Any]]
  ) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """Yields (indices of records, features that the graph reads) for each batch."""
    model = self.model
    return batching.padded_batches(
      records,
      [spec for spec in model.task.feature_specs if spec.name in self.inputs],
      model.config,
      model.tokenizer.pad_id,
      model.experiment.data.max_seq_length,
      self._batch_size,
    )

  def close(self) -> None:
    """Frees the session; the predictor cannot be used afterwards."""
    self.graph.session.close()
