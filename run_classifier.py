"""Fine-tunes an encoder on classification or regression, evaluates it, and predicts.

  python run_classifier.py --task_name=cola
  python run_classifier.py --task_name=tsv --train_file=train.tsv --eval_file=dev.tsv
      --text_a_col=sentence --label_col=label --num_train_epochs=2

Without a --do_ flag it trains and evaluates. Everything it writes stands in --output_dir (records)
and --model_dir (checkpoints, metrics.jsonl, eval_results.json, best/, predictions).
"""

import os
from collections.abc import Sequence

import numpy as np

import config
from errors import UserError
from tasks import classification
from training import app, evaluator, experiments, flags, model_folder, record_sources, runner

SECTIONS = (
  config.Classification,
  config.Trainer,
  config.Model,
  config.Tokenizer,
  config.RawData,
  config.Data,
  config.Optimizer,
  config.RecordFiles,
  config.Runtime,
)


def read_experiment() -> config.Experiment:
  """The flags, completed by the task's recipe and the default folders."""
  experiment, given = flags.read(*SECTIONS)
  settings = experiment.classification
  if settings.task_name:
    settings.task_name = classification.canonical_name(settings.task_name)
  experiments.take_model_settings(experiment, given, "classification", settings.task_name)
  if not settings.task_name:
    raise UserError(
      "--task_name is missing; e.g. --task_name=cola. Known are "
      + ", ".join([*classification.DATASETS, *classification.FILE_TASKS])
    )
  experiments.complete(experiment, given, "classification", settings.task_name)
  return experiment


def make_runner(experiment: config.Experiment) -> runner.Runner:
  """The task of the flags with everything that runs it."""
  model_config = model_folder.load_model_config(experiment.model)
  task = classification.make_task(
    experiment.classification,
    experiment.raw_data,
    experiment.model.cls_scope,
    model_config.cls_segment_id,
  )
  record_sets, meta = record_sources.find_record_sets(experiment.record_files)
  check_columns(experiment)
  find_labels(task, experiment, meta.get("label_list"))
  run = runner.Runner(experiment, model_config, task, record_sets)
  run.sources.check(meta)
  return run


def check_columns(experiment: config.Experiment) -> None:
  """UserError if columns are given for finished records, which are not those of a file here."""
  settings, files = experiment.classification, experiment.record_files
  for name in ("weight_col", "class_weights"):
    if files.train_data_path and getattr(settings, name):
      raise UserError(
        f"--{name}: the records of --train_data_path have weights already; pass "
        f"--{name} to create_finetuning_data.py"
      )
  if files.test_data_path and settings.id_col:
    raise UserError(
      "--id_col: the records of --test_data_path hold no ids; predict the file "
      "itself, with --predict_file"
    )


def find_labels(
  task: classification.ClassificationTask,
  experiment: config.Experiment,
  label_list: list[str] | None,
) -> None:
  """Sets the labels in the order of the ids that the model was trained with.

  They are those of the trained model's folder; else of the records' metadata; else those of the
  data set or, for own files, of the training file. New training that starts from a classifier keeps
  the classifier's order.

  Args:
    task: changed in place.
    experiment: the settings.
    label_list: of the records' metadata.

  Raises:
    UserError: the trained model is of another task or of other labels.
  """
  is_own = task.dataset.labels == ()
  if is_own and label_list:
    task.labels = label_list
  folder = model_folder.trained_folder(experiment)
  stored = model_folder.read_settings(folder or model_folder.start_folder(experiment.model))
  names = stored.get("label_list")
  if not folder:  # a new model, of this task
    if names and not task.is_regression and set(names) == set(task.labels):
      task.labels = names
    return
  # Data without training data of their own (AX) are predicted by another task's model.
  if task.splits("train") and not classification.share_models(
    stored.get("task_name", task.name), task.name
  ):
    raise UserError(
      f"{folder}: this folder holds a model of task {stored['task_name']}, not of "
      f"{task.name}; use another --model_dir"
    )
  task.head_name = stored.get("task_name", task.name)
  if task.is_regression or not names:
    return
  if not is_own and set(names) != set(task.labels):
    raise UserError(
      f"{folder}: the model was trained with the labels {names}, the data have "
      f"{list(task.labels)}; use another model"
    )
  task.labels = names


def check_submission(run: runner.Runner) -> None:
  """UserError if GLUE has no such submission, or only a part of the test data is predicted."""
  if run.experiment.data.max_eval_examples:
    raise UserError(
      "--do_submit: GLUE's submission needs predictions for all test data; leave "
      "--max_eval_examples out, or use --do_predict"
    )
  for source in run.sources.of("test"):
    if source.split not in run.task.dataset.submission:
      raise UserError(
        f"--do_submit: task {run.task.name} has no GLUE submission for its "
        f"{source.split} data; use --do_predict"
      )


def run_once(experiment: config.Experiment) -> dict[str, float]:
  """Does what the --do_ flags say; returns the metrics of the best checkpoint, if evaluated."""
  trainer = experiment.trainer
  run = make_runner(experiment)
  run.check_before_work()
  if trainer.do_submit:
    check_submission(run)
  if trainer.do_predict or trainer.do_submit:
    run.check_outputs(
      path
      for source in run.sources.of("test")
      for path in output_files(run.task, source.split, trainer).values()
    )
  # Before the work, in which the files may change. Records made elsewhere are of no file here.
  origins = (
    {
      source.split: run.task.origins(source.split, source.records.num_examples)
      for source in run.sources.of("test")
    }
    if trainer.do_predict and "test" not in run.sources.record_sets
    else {}
  )
  metrics = run.train_and_evaluate()
  if trainer.do_predict or trainer.do_submit:
    for split, predictions in run.evaluator.predict().items():
      write_predictions(run.task, split, predictions, trainer, origins.get(split, []))
  return metrics


def output_files(
  task: classification.ClassificationTask, split: str, trainer: config.Trainer
) -> dict[str, str]:
  """Paths of the files that the --do_ flags ask for.

  Predictions are written twice: predictions.SPLIT.tsv (of an own file predictions.FILE.tsv) has a
  header and label names; test_results.tsv (test_results_matched.tsv of test_matched) has BERT's
  form, the probabilities alone. "submission" is GLUE's file.
  """
  names = {}
  if trainer.do_predict:
    names["predictions"] = f"predictions.{task.predictions_name(split)}.tsv"
    names["test_results"] = split.replace("test", "test_results", 1) + ".tsv"
  if trainer.do_submit:
    names["submission"] = os.path.join("submit", task.dataset.submission[split])
  folder = trainer.predict_dir or trainer.model_dir
  return {kind: os.path.join(folder, name) for kind, name in names.items()}


def write_predictions(
  task: classification.ClassificationTask,
  split: str,
  predictions: dict[str, np.ndarray],
  trainer: config.Trainer,
  origins: Sequence[list[str]] = (),
) -> None:
  """Writes the output_files of a split.

  Args:
    task: the task.
    split: which of its splits.
    predictions: name -> [num_examples, ...].
    trainer: the --do_ flags and folders.
    origins: further columns of the predictions, header first.
  """
  rows = {
    "predictions": lambda: task.prediction_rows(predictions, origins),
    "test_results": lambda: task.test_result_rows(predictions),
    "submission": lambda: task.submission_rows(predictions),
  }
  for kind, path in output_files(task, split, trainer).items():
    evaluator.write_tsv(path, rows[kind]())
    print(f"{task.name} {split}: {path}")


def main() -> None:
  app.run_trials(read_experiment(), run_once)


if __name__ == "__main__":
  flags.define(*SECTIONS)
  flags.define_funnel()
  app.run_main(main)
