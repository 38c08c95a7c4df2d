"""Fine-tunes an encoder on classification or regression, evaluates it, and predicts.

  python run_classifier.py --task_name=cola
  python run_classifier.py --task_name=tsv --train_file=train.tsv --eval_file=dev.tsv
      --text_a_col=sentence --label_col=label --num_train_epochs=2

Without a --do_ flag it trains and evaluates. Everything it writes stands in --output_dir (records)
and --model_dir (checkpoints, metrics.jsonl, eval_results.json, best/, predictions).
"""

import os

import numpy as np
import tensorflow as tf

from errors import UserError
from tasks import classification
from training import checkpoints, config, flags, records, runner

SECTIONS = (config.Model, config.Tokenizer, config.RawData, config.Classification,
            config.RecordFiles, config.Data, config.Optimizer, config.Trainer, config.Runtime)


def read_experiment() -> config.Experiment:
  """The flags, completed by the task's recipe and the default folders."""
  experiment, given = flags.read(*SECTIONS)
  if not experiment.classification.task_name:
    raise UserError("--task_name is missing; e.g. --task_name=cola. Known are "
                    + ", ".join([*classification.DATASETS, *classification.FILE_TASKS]))
  name = classification.canonical_name(experiment.classification.task_name)
  experiment.classification.task_name = name
  runner.complete(experiment, given, "classification", name)
  return experiment


def make_runner(experiment: config.Experiment) -> runner.Runner:
  """The task of the flags with everything that runs it."""
  model_config = runner.load_model_config(experiment.model)
  task = classification.make_task(
      experiment.classification, experiment.raw_data, experiment.model.cls_scope,
      model_config.cls_segment_id)
  record_sets, meta = runner.find_record_sets(experiment.record_files)
  find_labels(task, experiment, meta.get("label_list"))
  run = runner.Runner(experiment, model_config, task, record_sets)
  run.check_records(meta)
  return run


def labels_path(experiment: config.Experiment) -> str:
  return os.path.join(experiment.trainer.model_dir, "labels.json")


def find_labels(task: classification.ClassificationTask, experiment: config.Experiment,
                label_list: list[str] | None) -> None:
  """Settles the labels of a user's own files.

  They come from the records' metadata, from labels.json beside trained checkpoints (a model keeps
  the ids it was trained with), or from the training file.

  Raises:
    UserError: the checkpoints in model_dir are of another task or of other labels.
  """
  path, stored = labels_path(experiment), {}
  if checkpoints.latest(experiment.trainer.model_dir) and tf.io.gfile.exists(path):
    stored = records.read_json(path)
  names = stored.get("label_list")
  if task.dataset.labels == () and (label_list or names):
    task.labels = label_list or names
  if not stored:
    return
  # Data without training data of their own (AX) are predicted by another task's model.
  if task.splits("train") and stored.get("task_name", task.name) != task.name:
    raise UserError(f"{path}: this folder holds a model of task {stored['task_name']}, not of "
                    f"{task.name}; use another --model_dir")
  if not task.is_regression and names != list(task.labels):
    raise UserError(f"{path}: the model was trained with the labels {names}, the data have "
                    f"{list(task.labels)}; use another --model_dir")


def store_labels(task: classification.ClassificationTask, experiment: config.Experiment) -> None:
  """Writes labels.json: the task and its labels in the order of their ids."""
  values = {"task_name": task.name}
  if not task.is_regression:
    values["label_list"] = list(task.labels)
  records.write_json(labels_path(experiment), values)


def check_submission(run: runner.Runner) -> None:
  """UserError where --do_submit asks for a submission that GLUE does not have."""
  for source in run.sources("test"):
    if source.split not in run.task.dataset.submission:
      raise UserError(f"--do_submit: task {run.task.name} has no GLUE submission for its "
                      f"{source.split} data; use --do_predict")


def run_once(experiment: config.Experiment) -> dict[str, float]:
  """Does what the --do_ flags say; returns the metrics of the best checkpoint, if evaluated."""
  trainer = experiment.trainer
  run = make_runner(experiment)
  run.check_before_work()
  if trainer.do_submit:
    check_submission(run)
  if trainer.do_predict or trainer.do_submit:
    run.check_outputs(path for source in run.sources("test")
                      for path in output_files(run.task, source.split, trainer).values())
  if trainer.do_train:
    store_labels(run.task, experiment)
  metrics = run.train_and_evaluate()
  if trainer.do_predict or trainer.do_submit:
    for split, predictions in run.predict().items():
      write_predictions(run.task, split, predictions, trainer)
  return metrics


def output_files(task: classification.ClassificationTask, split: str,
                 trainer: config.Trainer) -> dict[str, str]:
  """Paths of the predictions of a split and of its GLUE submission, as the --do_ flags say."""
  names = {}
  if trainer.do_predict:
    names["predictions"] = f"predictions.{split}.tsv"
  if trainer.do_submit:
    names["submission"] = os.path.join("submit", task.dataset.submission[split])
  return {kind: os.path.join(trainer.model_dir, name) for kind, name in names.items()}


def write_predictions(task: classification.ClassificationTask, split: str,
                      predictions: dict[str, np.ndarray], trainer: config.Trainer) -> None:
  """Writes predictions.SPLIT.tsv and GLUE's submission file, as the --do_ flags say."""
  rows = {"predictions": task.prediction_rows, "submission": task.submission_rows}
  for kind, path in output_files(task, split, trainer).items():
    runner.write_tsv(path, rows[kind](predictions))
    print(f"{task.name} {split}: {path}")


def main() -> None:
  runner.run_trials(read_experiment(), run_once)


if __name__ == "__main__":
  flags.define(*SECTIONS)
  flags.define_funnel()
  runner.run_main(main)
