"""Turns raw classification, regression or SQuAD data into TFRecord files and a metadata file.

  python create_finetuning_data.py --fine_tuning_task_type=classification
      --classification_task_name=MNLI --input_data_dir=data/glue/MNLI --vocab_file=vocab.txt
      --train_data_output_path=mnli_train.tf_record --eval_data_output_path=mnli_eval.tf_record
      --meta_data_file_path=mnli_meta_data --max_seq_length=128

  python create_finetuning_data.py --fine_tuning_task_type=squad
      --squad_data_file=train-v1.1.json --vocab_file=vocab.txt --max_seq_length=384
      --train_data_output_path=squad_train.tf_record --meta_data_file_path=squad_meta_data

run_classifier.py and run_squad.py read them with --train_data_path, --eval_data_path and
--input_meta_data_path. Record files are renamed when they are complete; the metadata file is last.
"""

import dataclasses
import os

import config
from errors import UserError
from tasks.settings import Classification, Squad, SquadData
from training import app, flags


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
    128, "longest sequence, in tokens, specials included", lower=3, upper=1_000_000
  )
  num_proc: int = config.option(1, "processes that make the records", lower=1, upper=10_000)
  cls_segment_id: int = config.option(
    0, "segment id of the first token: 0 for BERT, 2 for Funnel", lower=0
  )


SECTIONS = (Classification, config.Tokenizer, config.RawData)


def read_experiment(settings: Finetuning) -> config.Experiment:
  """The settings of the flags, with the task's own section."""
  experiment = flags.read(*SECTIONS)
  if settings.fine_tuning_task_type == "squad":
    squad_data, _ = flags.read_section(SquadData)
    path = settings.squad_data_file
    experiment.task = Squad(**vars(squad_data), train_file=path, predict_file=path)
  experiment.data.max_seq_length = settings.max_seq_length
  return experiment


def main() -> None:
  """Makes the record files that the flags name."""
  from preprocessing import finetuning_files  # loads TensorFlow
  from training import model_folder

  settings, _ = flags.read_section(Finetuning)
  experiment = read_experiment(settings)
  outputs = {
    "train": settings.train_data_output_path,
    "eval": settings.eval_data_output_path,
    "test": settings.test_data_output_path,
  }
  outputs = {kind: path for kind, path in outputs.items() if path}
  is_squad = settings.fine_tuning_task_type == "squad"
  for name, value in (
    ("squad_data_file", settings.squad_data_file)
    if is_squad
    else ("task_name", experiment.task.task_name or experiment.task.tfds_params),
    ("tokenizer_path", experiment.tokenizer.tokenizer_path),
    ("meta_data_file_path", settings.meta_data_file_path),
    ("train_data_output_path", outputs),
  ):
    if not value:
      raise UserError(f"--{name} is missing")
  if not is_squad and experiment.task.id_col:
    raise UserError(
      "--id_col: records hold no ids; pass it to run_classifier.py, with --predict_file"
    )
  vocab_path = experiment.tokenizer.tokenizer_path
  model_folder.fill_tokenizer(
    experiment.tokenizer, [os.path.dirname(vocab_path)], experiment.sources
  )
  finetuning_files.make_files(
    experiment,
    "funnel" if settings.cls_segment_id else "bert",
    settings.fine_tuning_task_type,
    settings.mnli_type,
    outputs,
    settings.meta_data_file_path,
    model_folder.tokenizer_inputs(vocab_path),
    settings.num_proc,
  )


if __name__ == "__main__":
  flags.define(Finetuning, *SECTIONS, SquadData)
  app.run_main(main, "Without the metadata file the records are not complete.")
