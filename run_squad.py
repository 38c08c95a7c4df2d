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

from errors import UserError
from tasks import squad
from training import checkpoints, config, flags, parts, records, runner

SECTIONS = (config.Model, config.Tokenizer, config.RawData, config.SquadData, config.Squad,
            config.RecordFiles, config.Data, config.Optimizer, config.Trainer, config.Runtime)

log = logging.getLogger("scripts.run_squad")


def read_experiment() -> config.Experiment:
  """The flags, completed by the recipe and the default folders."""
  experiment, given = flags.read(*SECTIONS)
  settings = experiment.squad
  if settings.proc_id >= 0 and not settings.prepro_split:
    raise UserError(f"--proc_id={settings.proc_id} makes a part of the records only: it goes with "
                    f"--prepro_split. Leave it out to make all with --num_proc processes")
  if settings.proc_id >= settings.num_proc:
    raise UserError(f"--proc_id={settings.proc_id} is not below --num_proc={settings.num_proc}")
  if settings.do_ensemble and not settings.ensemble_ckpts:
    raise UserError("--do_ensemble: name the checkpoints with --ensemble_ckpts")
  runner.complete(experiment, given, "squad", "squad",
                  has_other_work=settings.do_ensemble or bool(settings.prepro_split))
  return experiment


def make_runner(experiment: config.Experiment) -> runner.Runner:
  """The task of the flags with everything that runs it."""
  model_config = runner.load_model_config(experiment.model)
  raw = experiment.raw_data
  task = squad.SquadTask(experiment.squad_data, experiment.squad,
                         raw.data_dir or os.path.join(raw.data_root, "squad"),
                         model_config.cls_segment_id, raw.skip_bad_rows)
  record_sets, meta = runner.find_record_sets(experiment.record_files)
  run = runner.Runner(
      experiment, model_config, task, record_sets,
      functools.partial(parts.write_split, num_proc=experiment.squad.num_proc,
                        proc_id=experiment.squad.proc_id))
  run.check_records(meta)
  return run


def find_data(run: runner.Runner, kind: str) -> runner.Source:
  """Records of a kind with what is kept beside them; for "dev" they must have answers."""
  source = run.sources(kind)[0]
  run.task.read_side_table("train" if kind == "train" else "predict",
                           source.records.paths[0] + records.SIDE_TABLE)
  if kind == "dev" and not run.task.has_golds:
    raise UserError(f"{run.task.input_files('predict')[0]}: no answers in it to compare with; "
                    f"predict it with --do_predict")
  return source


def preprocess(run: runner.Runner, split: str) -> None:
  """--prepro_split: makes the records of a split."""
  try:
    source = find_data(run, "train" if split == "train" else "test")
  except parts.Unfinished as unfinished:
    print(unfinished)
    return
  print(f"{source.records.paths[0]}: {source.records.num_examples} windows of "
        f"{run.task.input_files(source.split)[0]}")


def write_answers(run: runner.Runner, answers: squad.Answers, predictions_file: str = "") -> None:
  """Writes the files that the official evaluation takes; says the score if there are answers."""
  settings = run.experiment.squad
  folder = settings.predict_dir or run.experiment.trainer.model_dir
  files = {predictions_file or os.path.join(folder, "predictions.json"): answers.texts(),
           os.path.join(folder, "nbest_predictions.json"): answers.n_best}
  if answers.null_odds:
    files[os.path.join(folder, "null_odds.json")] = answers.null_odds
  for path, values in files.items():
    # ASCII only, as the official files: they may be read under any locale.
    records.write_text(path, json.dumps(values, indent=4) + "\n")
  found = f", {runner.format_metrics(run.task.measure(answers))}" if answers.golds else ""
  print(f"squad: {len(answers.n_best)} questions{found} ({next(iter(files))})")


def ensemble(run: runner.Runner) -> None:
  """--do_ensemble: the answers of several checkpoints together."""
  source = run.sources("test")[0]
  several = []
  for path in run.experiment.squad.ensemble_ckpts.split(","):
    checkpoint = checkpoints.resolve(path.strip())
    log.info("Predict with %s", checkpoint)
    several.append(run.task.answers(run.predict_all(
        source.records, checkpoint, run.experiment.trainer.predict_batch_size)))
  write_answers(run, run.task.join(several), run.experiment.squad.ensemble_output_file)


def run_once(experiment: config.Experiment) -> dict[str, float]:
  """Does what the --do_ flags say; returns the metrics of the best checkpoint, if evaluated."""
  trainer, settings = experiment.trainer, experiment.squad
  run = make_runner(experiment)
  if settings.prepro_split:
    preprocess(run, settings.prepro_split)
    return {}
  # All data first, so that nothing is missed hours later.
  if trainer.do_train:
    find_data(run, "train")
  if trainer.do_predict or settings.do_ensemble:
    find_data(run, "test")
  if trainer.do_eval or (trainer.do_train and trainer.eval_every_steps):
    find_data(run, "dev")
    run.check_best_metric()
  metrics = run.train_and_evaluate()
  if trainer.do_predict:
    predictions, = run.predict().values()
    write_answers(run, run.task.answers(predictions))
  if settings.do_ensemble:
    ensemble(run)
  return metrics


def main() -> None:
  runner.run_trials(read_experiment(), run_once)


if __name__ == "__main__":
  flags.define(*SECTIONS)
  flags.define_funnel()
  runner.run_main(main)
