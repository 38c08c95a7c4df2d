"""Turns raw classification, regression or SQuAD data into TFRecord files and a metadata file.

  python create_finetuning_data.py --fine_tuning_task_type=classification
      --classification_task_name=MNLI --input_data_dir=data/glue/MNLI --vocab_file=vocab.txt
      --train_data_output_path=mnli_train.tf_record --eval_data_output_path=mnli_eval.tf_record
      --meta_data_file_path=mnli_meta_data --max_seq_length=128

  python create_finetuning_data.py --fine_tuning_task_type=squad
      --squad_data_file=train-v1.1.json --vocab_file=vocab.txt --max_seq_length=384
      --train_data_output_path=squad_train.tf_record --meta_data_file_path=squad_meta_data

run_classifier.py and run_squad.py read them with --train_data_path, --eval_data_path and
--input_meta_data_path.
Record files appear when they are complete, the metadata file last.
"""

import dataclasses
import os

import tensorflow as tf

import config
import tokenization
from errors import UserError
from preprocessing import record_files
from tasks import base, classification, squad
from training import app, flags, model_folder
from utils import console, files, paths


@dataclasses.dataclass
class Finetuning:
  """Flags of this script alone."""

  fine_tuning_task_type: str = config.option(
    "classification", "kind of data", ("classification", "regression", "squad")
  )
  squad_data_file: str = config.option("", "SQuAD file, v1.1 or v2.0, for each output path given")
  mnli_type: str = config.option(
    "matched", "which dev and test data of MNLI are written", ("matched", "mismatched")
  )
  train_data_output_path: str = config.option("", "training records to write; empty for none")
  eval_data_output_path: str = config.option("", "evaluation records to write; empty for none")
  test_data_output_path: str = config.option("", "test records to write; empty for none")
  meta_data_file_path: str = config.option("", "metadata JSON to write")
  max_seq_length: int = config.option(
    128, "longest sequence, in tokens, specials included", lower=3
  )
  cls_segment_id: int = config.option(0, "segment id of the first token: 0 for BERT, 2 for Funnel")


SECTIONS = (config.Tokenizer, config.RawData, config.Classification, config.SquadData)


def split_of(task: classification.ClassificationTask, kind: str, mnli_type: str) -> str:
  """The task's split of a kind; of MNLI's two dev and test splits the one of mnli_type."""
  splits = task.splits(kind)
  if not splits:
    raise UserError(f"task {task.name} has no {kind} data")
  return splits[0] if len(splits) == 1 else f"{kind}_{mnli_type}"


def make_task(experiment: config.Experiment, settings: Finetuning) -> base.Task:
  """The task of the flags."""
  if settings.fine_tuning_task_type == "squad":
    files = config.Squad(train_file=settings.squad_data_file, predict_file=settings.squad_data_file)
    return squad.SquadTask(
      experiment.squad_data,
      files,
      cls_segment_id=settings.cls_segment_id,
      skip_bad_rows=experiment.raw_data.skip_bad_rows,
    )
  task = classification.make_task(
    experiment.classification, experiment.raw_data, cls_segment_id=settings.cls_segment_id
  )
  if task.is_regression != (settings.fine_tuning_task_type == "regression"):
    kind = "regression" if task.is_regression else "classification"
    raise UserError(
      f"--fine_tuning_task_type={settings.fine_tuning_task_type} does not fit: "
      f"task {task.name} is {kind}"
    )
  return task


def main() -> None:
  experiment, given = flags.read(*SECTIONS)
  settings, _ = flags.read_section(Finetuning)
  is_squad = settings.fine_tuning_task_type == "squad"
  outputs = {
    kind: path
    for kind, path in (
      ("train", settings.train_data_output_path),
      ("eval", settings.eval_data_output_path),
      ("test", settings.test_data_output_path),
    )
    if path
  }
  for name, value in (
    ("squad_data_file", settings.squad_data_file)
    if is_squad
    else ("task_name", experiment.classification.task_name),
    ("tokenizer_path", experiment.tokenizer.tokenizer_path),
    ("meta_data_file_path", settings.meta_data_file_path),
    ("train_data_output_path", outputs),
  ):
    if not value:
      raise UserError(f"--{name} is missing")
  if experiment.classification.id_col:
    raise UserError(
      "--id_col: records hold no ids; pass it to run_classifier.py, with --predict_file"
    )
  task = make_task(experiment, settings)
  paths.check_outputs(
    [
      *record_files.raw_files(task),
      *model_folder.tokenizer_inputs(experiment.tokenizer.tokenizer_path),
    ],
    [
      settings.meta_data_file_path,
      *(path + end for path in outputs.values() for end in ("", record_files.SIDE_TABLE)),
    ],
  )
  vocab_folder = os.path.dirname(experiment.tokenizer.tokenizer_path)
  model_folder.fill_tokenizer(experiment.tokenizer, [vocab_folder], given)
  tokenizer = tokenization.get_tokenizer(**dataclasses.asdict(experiment.tokenizer))
  meta = record_files.settings(task, tokenizer, experiment.tokenizer, settings.max_seq_length)
  if is_squad:
    meta["version_2_with_negative"] = experiment.squad_data.version_2_with_negative
  if tf.io.gfile.exists(settings.meta_data_file_path):
    # While the records are rewritten they must not look complete.
    tf.io.gfile.remove(settings.meta_data_file_path)
  for kind, path in outputs.items():
    split = split_of(task, "dev" if kind == "eval" else kind, settings.mnli_type)
    count = record_files.write_split(
      path,
      task,
      split,
      tokenizer,
      settings.max_seq_length,
      lambda items, split=split: console.progress_bar(items, unit="example", desc=split),
    )
    meta[f"{kind}_data_size"] = count
    if is_squad and kind == "train":
      task.read_training_notes(path + record_files.SIDE_TABLE)
    print(
      f"{path}: {count} {'windows' if is_squad else 'examples'} of "
      f"{', '.join(task.input_files(split))}"
    )
  files.write_json(settings.meta_data_file_path, meta)
  print(f"{settings.meta_data_file_path}: metadata")


if __name__ == "__main__":
  flags.define(*SECTIONS, Finetuning)
  app.run_main(main, "Without the metadata file the records are not complete.")
