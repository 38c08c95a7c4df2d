"""Pretraining: settings, model and task from the records' metadata."""

import dataclasses
import logging
import os

import config
import modeling
import tokenization
from errors import UserError
from preprocessing import pretraining_sets
from tasks import masking, pretraining
from tasks.settings import Pretraining
from training import checkpoints, experiments, model_folder, runner

log = logging.getLogger(__name__)


def complete(experiment: config.Experiment) -> None:
  """Fills the --do_ flags and the folder of checkpoints.

  The other settings depend on the records; `make_runner` fills them.
  """
  trainer = experiment.trainer
  for name in ("do_predict", "do_submit"):
    if getattr(trainer, name):
      raise UserError(f"--{name}: pretraining has nothing to predict; use --do_train or --do_eval")
  if experiment.model.hub_module_url:
    raise UserError("hub_module_url is for fine-tuning; name its folder with init_checkpoint")
  if not (trainer.do_train or trainer.do_eval):
    trainer.do_train = True
  trainer.model_dir = (
    trainer.model_dir or experiment.data.output_dir or os.path.join("runs", "pretraining")
  )


def make_runner(experiment: config.Experiment) -> runner.Runner:
  """Returns the runner of a pretraining job, checked.

  Args:
    experiment: settings of the user; completed in place from the records and the trained model.
  """
  trainer, settings = experiment.trainer, experiment.task
  wanted = {}
  if "max_seq_length" in experiment.sources:
    wanted["seq_len"] = experiment.data.max_seq_length
  if "uncased" in experiment.sources:
    wanted["uncased"] = experiment.tokenizer.uncased
  corpus = pretraining_sets.find_corpus(settings, trainer, wanted)
  pretraining_sets.check_form(settings, experiment.sources)
  pretraining_sets.check_against_meta(corpus, experiment)
  model_folder.take_settings(experiment)
  special_ids, vocab_size = pretraining_sets.find_symbols(corpus, experiment.tokenizer)
  model_config = find_model_config(experiment, vocab_size)
  loss_type = choose_loss(settings, model_config.family)
  task = make_task(experiment, model_config, special_ids, vocab_size, loss_type)
  experiments.take_recipe(experiment, model_config.family, loss_type)
  start = experiment.model.start_checkpoint
  experiment.model.init_checkpoint = checkpoints.resolve(start) if start else "none"
  if settings.max_eval_batch > 0 and "max_eval_examples" not in experiment.sources:
    _limit_evaluation(experiment, corpus)
  return runner.Runner(experiment, model_config, task, corpus.record_sets)


def find_model_config(experiment: config.Experiment, vocab_size: int) -> modeling.Config:
  """Returns the model of --model_config, of an earlier run in model_dir, or of the Funnel flags."""
  model, model_dir = experiment.model, experiment.trainer.model_dir
  own = model_folder.find_in(model_dir, model_folder.CONFIG_NAMES)
  given = {name: value for name, value in experiment.model_keys.items() if name != "vocab_size"}
  if not model.model_config and own and not given:
    model.model_config = own
  if model.model_config:
    ignored = set(given) - set(model.overwrite_keys.split(",")) - {"truncate_seq"}
    if ignored:
      raise UserError(
        f"--{sorted(ignored)[0]} does nothing with --model_config; name it in "
        f"--overwrite_keys too, or leave one of the two out"
      )
    model_config = model_folder.load_model_config(model)
  elif given:
    experiment.model_keys.setdefault("vocab_size", vocab_size)
    if not model_folder.has_inline_config(experiment):
      raise UserError("--block_size is missing: the layers of each block, e.g. 4_4_4")
    model_config = model_folder.find_model_config(experiment)
  else:
    raise UserError(
      "no model: give --model_config (--bert_config_file), or the flags of a "
      "Funnel-Transformer (--block_size=4_4_4 --d_model=768 ...)"
    )
  source = model.model_config or "the flags of the model"
  if not tokenization.fits_table(vocab_size, model_config.vocab_size, source):
    raise UserError(
      f"vocab_size is {model_config.vocab_size} in {source}, but "
      f"{vocab_size} in the records' vocabulary; change the model's"
    )
  return model_config


def choose_loss(settings: Pretraining, family: str) -> str:
  """Returns the --loss_type in lower case; by default the one for the records and the model.

  Raises:
    UserError: records or model do not serve the loss.
  """
  default = "bert" if settings.input_file and family == "bert" else "mlm"
  loss_type = settings.loss_type.lower() if settings.loss_type else default
  if family != "bert" and loss_type == "bert":
    raise UserError(
      "--loss_type=bert needs a BERT configuration: ELECTRA and Funnel-Transformers learn "
      "no next sentence prediction; use --loss_type=mlm or --loss_type=electra"
    )
  if settings.pack_sequences and (family != "bert" or loss_type == "electra"):
    raise UserError(
      "records with --pack_sequences serve --loss_type=bert and mlm of a BERT "
      "configuration; make records without it"
    )
  return loss_type


def make_task(
  experiment: config.Experiment,
  model_config: modeling.Config,
  special_ids: dict[str, int],
  vocab_size: int,
  loss_type: str,
) -> pretraining.PretrainingTask:
  """Returns the task on records of BERT's or Funnel's form."""
  settings = experiment.task
  sequences = pretraining.Sequences(
    experiment.data.max_seq_length,
    special_ids,
    vocab_size,
    model_config.cls_segment_id,
    model_config.reserved_positions,
  )
  if settings.input_file:
    form = pretraining.BertRecords(
      sequences,
      settings.max_predictions_per_seq,
      settings.use_v2_feature_names,
      settings.pack_sequences,
    )
  else:
    keys = [field.name for field in dataclasses.fields(masking.Masking)]
    values = {**vars(settings), "num_predict": settings.max_predictions_per_seq}
    form = pretraining.FunnelRecords(
      sequences, masking.Masking(**{key: values[key] for key in keys})
    )
  return pretraining.PretrainingTask(
    loss_type, form, sequences, settings.width_shrink, settings.disc_coeff, settings.eval_split
  )


def _limit_evaluation(experiment, corpus):
  """Sets the number of examples of --max_eval_batch batches; logs it if there are more."""
  limit = experiment.task.max_eval_batch * experiment.trainer.eval_batch_size
  experiment.data.max_eval_examples = limit
  found = corpus.record_sets.get("dev")
  if found and limit < found.num_examples:
    log.info(
      "Evaluate on the first %d of %d examples (--max_eval_batch=%d)",
      limit,
      found.num_examples,
      experiment.task.max_eval_batch,
    )
