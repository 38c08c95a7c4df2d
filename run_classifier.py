"""Fine-tunes an encoder on classification or regression, evaluates it, and predicts.

  python run_classifier.py --task_name=cola
  python run_classifier.py --task_name=tsv --train_file=train.tsv --eval_file=dev.tsv
      --text_a_col=sentence --label_col=label --num_train_epochs=2

Without a --do_ flag it trains and evaluates. Everything it writes stands in --output_dir (records)
and --model_dir (checkpoints, metrics.jsonl, eval_results.json, best/, predictions).
"""

import copy
import logging
import os

import tensorflow as tf

from errors import UserError
from tasks import classification
from training import config, flags, records, runner

SECTIONS = (config.Model, config.Tokenizer, config.RawData, config.Classification,
            config.RecordFiles, config.Data, config.Optimizer, config.Trainer, config.Runtime)

log = logging.getLogger("scripts.run_classifier")


def read_experiment() -> config.Experiment:
  """The flags, completed by the task's recipe and the default folders."""
  experiment, given = flags.read(*SECTIONS)
  if not experiment.classification.task_name:
    raise UserError("--task_name is missing; e.g. --task_name=cola. Known are "
                    + ", ".join([*classification.DATASETS, *classification.FILE_TASKS]))
  name = classification.canonical_name(experiment.classification.task_name)
  experiment.classification.task_name = name
  trainer = experiment.trainer
  if not any((trainer.do_train, trainer.do_eval, trainer.do_predict, trainer.do_submit)):
    trainer.do_train = trainer.do_eval = True
  data = experiment.data
  data.output_dir = data.output_dir or os.path.join("runs", name)
  trainer.model_dir = trainer.model_dir or data.output_dir
  runner.find_pretrained(experiment.model, experiment.tokenizer, trainer.model_dir)
  family = runner.load_model_config(experiment.model).family
  taken = config.apply_recipe(
      experiment, config.load_recipe(family, "classification", name), given)
  log.info("Recipe %s_classification, task %s: %s", family, name,
           ", ".join(f"{key}={value}" for key, value in taken.items()))
  return experiment


def make_runner(experiment: config.Experiment) -> runner.Runner:
  """The task of the flags with everything that runs it."""
  model_config = runner.load_model_config(experiment.model)
  task = classification.make_task(
      experiment.classification, experiment.raw_data, experiment.model.cls_scope,
      model_config.cls_segment_id)
  settings = experiment.record_files
  record_files = {kind: path for kind, path in (
      ("train", settings.train_data_path), ("dev", settings.eval_data_path),
      ("test", settings.test_data_path)) if path}
  meta_path = settings.input_meta_data_path
  if record_files:
    if not meta_path:
      raise UserError("--input_meta_data_path is missing: it names the metadata file that "
                      "create_finetuning_data.py wrote with the records")
    meta = records.read_meta(meta_path)
    find_labels(task, experiment, meta.get("label_list"))
  else:
    find_labels(task, experiment, None)
  run = runner.Runner(experiment, model_config, task, record_files)
  if record_files:
    records.check_meta(meta_path, meta, run.record_settings())
    for kind, path in record_files.items():
      size = meta.get(f"{'eval' if kind == 'dev' else kind}_data_size")
      if size is not None:
        records.check_size(path, size)
  return run


def find_labels(task: classification.ClassificationTask, experiment: config.Experiment,
                label_list: list[str] | None) -> None:
  """Settles the labels of a user's own files, and stores those of every task in model_dir.

  They come from the records' metadata, from labels.json of an earlier run (a model keeps the ids
  it was trained with), or from the training file.
  """
  if task.is_regression:
    return
  path = os.path.join(experiment.trainer.model_dir, "labels.json")
  stored = records.read_json(path)["label_list"] if tf.io.gfile.exists(path) else None
  if task.dataset.labels == () and (label_list or stored):
    task.labels = label_list or stored
  if stored is not None and stored != list(task.labels):
    raise UserError(f"{path}: the model was trained with the labels {stored}, the data have "
                    f"{list(task.labels)}; use another --model_dir")
  if stored is None:
    records.write_json(path, {"label_list": list(task.labels)})


def run_once(experiment: config.Experiment) -> dict[str, float]:
  """Does what the --do_ flags say; returns the metrics of the best checkpoint, if evaluated."""
  trainer = experiment.trainer
  run = make_runner(experiment)
  metrics = {}
  if trainer.do_train:
    run.train()
  if trainer.do_eval:
    metrics = run.evaluate_all()
    print(f"{run.task.name} dev: {runner.format_metrics(metrics)}")
  if trainer.do_predict or trainer.do_submit:
    for split, predictions in run.predict().items():
      paths = {}
      if trainer.do_predict:
        paths[f"predictions.{split}.tsv"] = run.task.prediction_rows(predictions)
      if trainer.do_submit:
        name = run.task.dataset.submission.get(split)
        if name is None:
          raise UserError(f"--do_submit: task {run.task.name} is no GLUE task; use --do_predict")
        paths[os.path.join("submit", name)] = run.task.submission_rows(predictions)
      for name, rows in paths.items():
        path = os.path.join(trainer.model_dir, name)
        runner.write_tsv(path, rows)
        print(f"{run.task.name} {split}: {path}")
  return metrics


def main() -> None:
  experiment = read_experiment()
  num_trials = experiment.trainer.num_trials
  if num_trials <= 1:
    run_once(experiment)
    return
  results = []
  for trial in range(num_trials):
    one = copy.deepcopy(experiment)
    one.trainer.seed += trial
    one.trainer.model_dir = os.path.join(experiment.trainer.model_dir, f"trial_{trial}")
    results.append(run_once(one))
  if results[0]:
    summary = runner.summarize_trials(results)
    records.write_json(os.path.join(experiment.trainer.model_dir, "trials.json"), summary)
    for name, values in sorted(summary.items()):
      print(f"{name}: mean {values['mean']:.4f}, standard deviation {values['std']:.4f} "
            f"over {num_trials} trials")


if __name__ == "__main__":
  flags.define(*SECTIONS)
  flags.define_funnel()
  runner.run_main(main)
