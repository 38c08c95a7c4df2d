"""Fine-tunes an encoder on multiple choice (RACE, SWAG, your own questions), evaluates, predicts.

  python run_race.py --data_dir=data/RACE --gradient_accumulation_steps=4
  python run_race.py --task_name=jsonl --train_file=train.jsonl --eval_file=dev.jsonl

Without a --do_ flag it trains and evaluates. Everything it writes stands in --output_dir (records)
and --model_dir (checkpoints, metrics.jsonl, eval_results.json, best/, predictions). One of its
examples is N sequences: a batch of 16 questions of RACE is 64 sequences of up to 512 tokens.
"""

import os

import config
from errors import UserError
from tasks import race
from training import app, evaluator, experiments, flags, model_folder, record_sources, runner

SECTIONS = (
  config.Race,
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
  settings = experiment.race
  settings.task_name = settings.task_name.lower()
  experiments.take_model_settings(experiment, given, "race", settings.task_name)
  if settings.task_name not in race.DATASETS:
    raise UserError(
      f"--task_name={settings.task_name} is unknown; known are {', '.join(race.DATASETS)}"
    )
  experiments.complete(experiment, given, "race", settings.task_name)
  check_lengths(experiment.data.max_seq_length, settings.max_qa_length)
  return experiment


def check_lengths(max_seq_length: int, max_qa_length: int) -> None:
  """UserError where question and option may leave no room for the passage."""
  room = max_seq_length - 3  # [cls] and two [sep]
  if max_qa_length >= room:
    raise UserError(
      f"--max_qa_length={max_qa_length} does not fit into "
      f"--max_seq_length={max_seq_length} with its 3 special tokens and the passage; "
      f"lower it, below {room}"
    )


def run_once(experiment: config.Experiment) -> dict[str, float]:
  """Does what the --do_ flags say; returns the metrics of the best checkpoint, if evaluated."""
  trainer = experiment.trainer
  model_config = model_folder.load_model_config(experiment.model)
  task = race.make_task(
    experiment.race, experiment.raw_data, experiment.model.cls_scope, model_config.cls_segment_id
  )
  record_sets, meta = record_sources.find_record_sets(experiment.record_files)
  run = runner.Runner(experiment, model_config, task, record_sets)
  run.sources.check(meta)
  run.check_before_work()
  if trainer.do_predict:
    run.check_outputs(
      predictions_path(task, source.split, trainer) for source in run.sources.of("test")
    )
  metrics = run.train_and_evaluate()
  if trainer.do_predict:
    for split, predictions in run.evaluator.predict().items():
      write_predictions(task, split, predictions, predictions_path(task, split, trainer))
  return metrics


def predictions_path(task: race.RaceTask, split: str, trainer: config.Trainer) -> str:
  return os.path.join(
    trainer.predict_dir or trainer.model_dir, f"predictions.{task.predictions_name(split)}.tsv"
  )


def write_predictions(task: race.RaceTask, split: str, predictions: dict, path: str) -> None:
  """Writes the predictions of a split; prints the accuracy if all answers are known."""
  probabilities = predictions["probabilities"]
  questions = task.examples(split, len(probabilities))
  evaluator.write_tsv(path, task.prediction_rows(questions, probabilities))
  print(f"{task.name} {split}: {path}")
  if all(question.answer is not None for question in questions):
    print(f"{task.name} {split}: {evaluator.format_metrics(task.score(split, predictions))}")


def main() -> None:
  app.run_trials(read_experiment(), run_once)


if __name__ == "__main__":
  flags.define(*SECTIONS)
  flags.define_funnel()
  app.run_main(main)
