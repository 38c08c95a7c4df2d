"""Makes TFRecord files for run_pretraining.py from raw text, in BERT's or in Funnel's form.

  python create_pretraining_data.py --input_file='text/*.txt' --output_file=tf_examples.tfrecord
      --vocab_file=vocab.txt --max_seq_length=128 --max_predictions_per_seq=20 --dupe_factor=5

  python create_pretraining_data.py --input_glob='text/*.txt' --save_dir=records --seq_len=512
      --tokenizer_path=vocab.txt --pass_id=0 --num_task=8

The text has one sentence per line; a blank line ends a document. BERT's records are masked and have
next-sentence labels. Funnel's records are masked during training. Memory does not grow with the
corpus. --num_workers processes, or the workers of an Apache Beam --runner, make --num_shards (or
--num_task) record files; the files do not depend on who makes them. To continue a run that was
killed, give the same command again.
"""

import os

import config
from errors import UserError
from preprocessing import pretraining_job
from preprocessing.pretraining_job import Run
from preprocessing.pretraining_records import BertForm, FunnelForm

# Worker processes load this file too and need no TensorFlow, so functions import what uses it.


def chosen_form(given: dict[type, set[str]]) -> type:
  """Returns BertForm or FunnelForm, the one whose flags were given.

  Args:
    given: BertForm and FunnelForm -> names of the flags that were given.

  Raises:
    UserError: flags of both forms were given, or the input and output of neither.
  """
  bert, funnel = given[BertForm], given[FunnelForm]
  names = [" ".join(f"--{name}" for name in sorted(flags)) for flags in (bert, funnel)]
  if bert and funnel:
    raise UserError(
      f"{names[0]} belong to BERT's form of records, {names[1]} to Funnel's; give "
      f"the flags of one form"
    )
  if {"input_file", "output_file"} <= bert:
    return BertForm
  if {"input_glob", "save_dir"} <= funnel:
    return FunnelForm
  raise UserError(
    "give --input_file and --output_file for BERT's form of records, --input_glob "
    "and --save_dir for Funnel's"
  )


def create(form: BertForm | FunnelForm, tokenizer: config.Tokenizer, run: Run) -> None:
  """Makes the missing record files and the metadata; see pretraining_job.create."""
  from training import model_folder

  tokenizer_files = model_folder.tokenizer_inputs(tokenizer.tokenizer_path)
  pretraining_job.create(form, tokenizer, run, tokenizer_files)


def main() -> None:
  """Reads the flags and makes the records."""
  from training import flags, model_folder

  tokenizer, given = flags.read_section(config.Tokenizer)
  if tokenizer.tokenizer_path:
    model_folder.fill_tokenizer(tokenizer, [os.path.dirname(tokenizer.tokenizer_path)], given)
  run, _ = flags.read_section(Run)
  forms = {form: flags.read_section(form) for form in (BertForm, FunnelForm)}
  form, _ = forms[chosen_form({form: given for form, (_, given) in forms.items()})]
  create(form, tokenizer, run)


if __name__ == "__main__":
  from training import app, flags

  flags.define(config.Tokenizer, Run, BertForm, FunnelForm)
  app.run_main(main, "Complete record files are kept: the same command makes the others.")
