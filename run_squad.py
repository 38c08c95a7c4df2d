"""Fine-tunes an encoder on SQuAD v1.1 or v2.0, evaluates it, and answers questions.

  python run_squad.py --train_file=train-v2.0.json --predict_file=dev-v2.0.json --do_train --do_eval
      --version_2_with_negative --output_dir=runs/squad
  python run_squad.py --prepro_split=train --train_file=train-v2.0.json --num_proc=2

Without a --do_ flag it trains and evaluates. Metrics are those of the official scripts, in percent.
It writes records to --output_dir, checkpoints and metrics to --model_dir, and with --do_predict
predictions.json, nbest_predictions.json and null_odds.json to --predict_dir (or model_dir).
"""

import functools
import json
import logging
import os
from collections.abc import Sequence

import config
from errors import UserError
from preprocessing import finetuning_records, record_files
from tasks import squad
from training import (
  app,
  checkpoints,
  evaluator,
  experiments,
  flags,
  model_folder,
  record_sources,
  runner,
)
from utils import files

SECTIONS = (
  config.Squad,
  config.SquadData,
  config.Trainer,
  config.Model,
  config.Tokenizer,
  config.RawData,
  config.Data,
  config.Optimizer,
  config.RecordFiles,
  config.Runtime,
)

log = logging.getLogger("scripts.run_squad")


def read_experiment() -> config.Experiment:
  """The flags, completed by the recipe and the default folders."""
  experiment, given = flags.read(*SECTIONS)
  settings = experiment.squad
  if settings.proc_id >= 0 and not settings.prepro_split:
    raise UserError(
      f"--proc_id={settings.proc_id} makes a part of the records only: it goes with "
      f"--prepro_split. Leave it out to make all with --num_proc processes"
    )
  if settings.proc_id >= settings.num_proc:
    raise UserError(f"--proc_id={settings.proc_id} is not below --num_proc={settings.num_proc}")
  if settings.do_ensemble and not settings.ensemble_ckpts:
    raise UserError("--do_ensemble: name the checkpoints with --ensemble_ckpts")
  experiments.take_model_settings(
    experiment,
    given,
    "squad",
    "squad",
    has_other_work=settings.do_ensemble or bool(settings.prepro_split),
  )
  experiments.complete(experiment, given, "squad", "squad")
  return experiment


def make_runner(experiment: config.Experiment) -> runner.Runner:
  """The task of the flags with everything that runs it."""
  model_config = model_folder.load_model_config(experiment.model)
  raw = experiment.raw_data
  task = squad.SquadTask(
    experiment.squad_data,
    experiment.squad,
    raw.data_dir or os.path.join(raw.data_root, "squad"),
    model_config.cls_segment_id,
    raw.skip_bad_rows,
  )
  task.has_unanswerable = model_folder.read_settings(model_folder.trained_folder(experiment)).get(
    "has_unanswerable", False
  )
  record_sets, meta = record_sources.find_record_sets(experiment.record_files)
  if "dev" in record_sets and not experiment.squad.predict_file:
    record_sets.setdefault("test", record_sets["dev"])
  run = runner.Runner(
    experiment,
    model_config,
    task,
    record_sets,
    functools.partial(
      finetuning_records.write_split,
      num_proc=experiment.squad.num_proc,
      proc_id=experiment.squad.proc_id,
    ),
  )
  run.sources.check(meta)
  return run


def find_data(run: runner.Runner, kind: str) -> record_sources.Source:
  """Records of a kind; the task takes note of what is kept beside them.

  For "dev" they must have answers. The task knows one file at a time: the one found last is that
  whose predictions it can turn into answers.
  """
  source = run.sources.of(kind)[0]
  path = source.records.paths[0]
  if kind == "train":
    run.task.read_training_notes(path + record_files.SIDE_TABLE)
    return source
  run.task.read_side_table(path + record_files.SIDE_TABLE, record_files.count_records(path))
  if kind == "dev" and not run.task.has_golds:
    raise UserError(
      f"{run.task.input_files('predict')[0]}: no answers in it to compare with; "
      f"predict it with --do_predict"
    )
  return source


def preprocess(run: runner.Runner, split: str) -> None:
  """--prepro_split: makes the records of a split."""
  try:
    source = find_data(run, "train" if split == "train" else "test")
  except finetuning_records.Unfinished as unfinished:
    print(unfinished)
    return
  print(
    f"{source.records.paths[0]}: {source.records.num_examples} windows of "
    f"{run.task.input_files(source.split)[0]}"
  )


def write_answers(run: runner.Runner, answers: squad.Answers, paths: Sequence[str]) -> None:
  """Writes the files that the official evaluation takes; says the score if there are answers.

  Args:
    run: knows the task.
    answers: of all questions.
    paths: files of the predictions, of the n-best lists and of the odds of no answer (v2.0 only).
  """
  contents = dict(zip(paths, (answers.texts(), answers.n_best, answers.null_odds), strict=True))
  if not answers.null_odds:
    del contents[paths[-1]]
  for path, values in contents.items():
    # ASCII only, as the official files: they may be read under any locale.
    files.write_text(path, json.dumps(values, indent=4) + "\n")
  found = f", {evaluator.format_metrics(run.task.measure(answers))}" if answers.golds else ""
  print(f"squad: {len(answers.n_best)} questions{found} ({paths[0]})")


def prediction_files(trainer: config.Trainer) -> list[str]:
  """Paths of the predictions, the n-best lists and the odds of no answer."""
  return [
    os.path.join(trainer.predict_dir, name)
    for name in ("predictions.json", "nbest_predictions.json", "null_odds.json")
  ]


def ensemble_files(experiment: config.Experiment) -> list[str]:
  """As prediction_files, for --do_ensemble."""
  path = experiment.squad.ensemble_output_file or os.path.join(
    experiment.trainer.predict_dir, "ensemble.json"
  )
  stem = path.removesuffix(".json")
  return [path, f"{stem}.nbest.json", f"{stem}.null_odds.json"]


def ensemble(run: runner.Runner) -> None:
  """--do_ensemble: the answers of several checkpoints together."""
  settings = run.experiment.squad
  source = find_data(run, "test")
  several = []
  for path in settings.ensemble_ckpts.split(","):
    checkpoint = checkpoints.resolve(path.strip())
    log.info("Predict with %s", checkpoint)
    several.append(
      run.task.answers(
        run.evaluator.predict_all(
          source.records, checkpoint, run.experiment.trainer.predict_batch_size
        )
      )
    )
  write_answers(run, run.task.join(several), ensemble_files(run.experiment))


def run_once(experiment: config.Experiment) -> dict[str, float]:
  """Does what the --do_ flags say; returns the metrics of the best checkpoint, if evaluated."""
  trainer, settings = experiment.trainer, experiment.squad
  trainer.predict_dir = trainer.predict_dir or trainer.model_dir
  run = make_runner(experiment)
  if settings.prepro_split:
    preprocess(run, settings.prepro_split)
    return {}
  run.check_outputs(
    [
      *(prediction_files(trainer) if trainer.do_predict else ()),
      *(ensemble_files(experiment) if settings.do_ensemble else ()),
    ]
  )
  # All data first, so that nothing is missed hours later.
  if trainer.do_train:
    find_data(run, "train")
  if trainer.do_predict or settings.do_ensemble:
    find_data(run, "test")
  if trainer.do_eval or (trainer.do_train and trainer.eval_every_steps):
    find_data(run, "dev")
    run.evaluator.check_best_metric()
  metrics = run.train_and_evaluate()
  if trainer.do_predict:
    find_data(run, "test")  # evaluation may have been on another file
    (predictions,) = run.evaluator.predict().values()
    write_answers(run, run.task.answers(predictions), prediction_files(trainer))
  if settings.do_ensemble:
    ensemble(run)
  return metrics


def main() -> None:
  app.run_trials(read_experiment(), run_once)


if __name__ == "__main__":
  flags.define(*SECTIONS)
  flags.define_funnel()
  app.run_main(main)
