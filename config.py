"""The settings of an experiment as plain dataclasses: what flags and YAML files fill.

Each field is also a flag of the same name (training/flags.py), so name, type, default and help
stand here and nowhere else. A field whose default is None is filled by the recipe of the task and
the model family (configs/experiments/) unless the user sets it or its help states a default.
"""

import dataclasses
import os
from typing import Any

import yaml

import tokenization
from errors import UserError


def option(
  default: Any,
  help_text: str,
  choices: tuple[str, ...] | None = None,
  aliases: tuple[str, ...] = (),
  kind: type | None = None,
  lower: int | None = None,
  stored: bool = False,
) -> Any:
  """A dataclass field that is also a flag.

  Args:
    default: its value when nobody sets it; None leaves it to the recipe.
    help_text: one line, with the unit.
    choices: the allowed values of a string.
    aliases: other names under which the flag is known.
    kind: bool, int, float or str; taken from the default where that is not None.
    lower: the smallest allowed number.
    stored: the model folder stores the value of training (training/model_folder.py), and
      evaluation, prediction and conversion use it.
  """
  return dataclasses.field(
    default=default,
    metadata={
      "help": help_text,
      "choices": choices,
      "aliases": aliases,
      "kind": kind or type(default),
      "lower": lower,
      "stored": stored,
    },
  )


@dataclasses.dataclass
class Model:
  """Which encoder, and where it starts."""

  pretrained: str = option(
    "./pretrained",
    "folder with the pretrained encoder: configuration, vocabulary, checkpoint; "
    "serves where --model_config, --tokenizer_path or --init_checkpoint is not given",
  )
  model_config: str = option(
    "", "JSON file of the model's configuration", aliases=("model_config_path", "bert_config_file")
  )
  init_checkpoint: str = option(
    "",
    "checkpoint (prefix, or folder for its newest) that training starts from; counts only "
    "while model_dir has no checkpoint; 'none' for random weights",
  )
  init_global_vars: bool = option(
    False, "take the optimizer's moments and the global step from init_checkpoint too"
  )
  init_pooler: bool = option(
    True,
    "start from the checkpoint's pooler; --noinit_pooler draws a new one, for checkpoints "
    "whose pooler is missing or was never trained",
  )
  cls_scope: str = option(
    "",
    "variable scope of the task's head; empty for the family's own place: the top level for "
    "BERT, the task's name for Funnel",
    stored=True,
  )
  overwrite_keys: str = option(
    "",
    "comma-separated keys of a Funnel configuration (dropout, ...) for which the flag of "
    "that name wins over the file",
  )


@dataclasses.dataclass
class Tokenizer:
  """How text becomes ids."""

  tokenizer_path: str = option(
    "", "vocabulary or SentencePiece model file", aliases=("vocab_file", "sp_model_file")
  )
  tokenizer_type: str = option(
    "word_piece",
    "kind of tokenizer",
    ("word_piece", "sent_piece", "WordPiece", "SentencePiece"),
    aliases=("tokenization",),
    stored=True,
  )
  uncased: bool = option(
    True,
    "lower-case the text (see --strip_accents, --keep_accents)",
    aliases=("do_lower_case",),
    stored=True,
  )
  strip_accents: bool = option(
    None, "WordPiece: strip accents; default: as --uncased", kind=bool, stored=True
  )
  tokenize_chinese_chars: bool = option(
    True, "WordPiece: make each Chinese character a word", stored=True
  )
  keep_accents: bool = option(
    False, "SentencePiece: keep accents and compatibility characters", stored=True
  )
  sent_piece_form: str = option(
    "funnel",
    "SentencePiece: split numbers from commas and replace curly quotes (funnel), split "
    "numbers from commas (xlnet, and ALBERT), or neither (plain)",
    tokenization.SENT_PIECE_FORMS,
    stored=True,
  )

  @property
  def is_sent_piece(self) -> bool:
    return self.tokenizer_type in ("sent_piece", "SentencePiece")

  def metadata(self) -> dict[str, Any]:
    """The settings that shape token ids, besides vocabulary and casing, for records' metadata."""
    if self.is_sent_piece:
      return {"keep_accents": self.keep_accents, "sent_piece_form": self.sent_piece_form}
    strips = self.uncased if self.strip_accents is None else self.strip_accents
    return {
      "keep_accents": self.keep_accents,
      "strip_accents": strips,
      "tokenize_chinese_chars": self.tokenize_chinese_chars,
    }


@dataclasses.dataclass
class RawData:
  """Where the raw data are."""

  data_root: str = option("./data", "folder of the tasks' data folders (glue/CoLA, ...)")
  data_dir: str = option(
    "",
    "folder of the raw data; default: the task's folder in --data_root",
    aliases=("input_data_dir",),
  )
  skip_bad_rows: bool = option(
    False,
    "leave out rows with too few or too many columns, and "
    "answers that are not where the file says, instead of stopping",
  )


@dataclasses.dataclass
class Classification:
  """Classification tasks, and the columns of a user's own files."""

  task_name: str = option(
    "",
    "task: cola, sst-2, mrpc, sts-b, qqp, mnli, qnli, rte, wnli, ax, "
    "snli, xnli, paws-x, imdb, ag, dbpedia, yelp2, yelp5, amazon2, amazon5, "
    "or tsv, csv, jsonl for your own files",
    aliases=("classification_task_name",),
    stored=True,
  )
  language: str = option(
    "zh",
    "xnli, paws-x: language of the data, of xnli by default that of the original script",
    aliases=("xnli_language", "pawsx_language"),
    stored=True,
  )
  train_file: str = option("", "own training file; default: train.tsv (.csv, .jsonl) in data_dir")
  eval_file: str = option("", "own evaluation file; default: dev.tsv in data_dir")
  predict_file: str = option("", "own file to predict; default: test.tsv in data_dir")
  text_a_col: str = option(
    "text", "column of the (first) text: name in the header, or number from 0", stored=True
  )
  text_b_col: str = option("", "column of the second text; empty for single texts", stored=True)
  label_col: str = option("label", "column of the label", stored=True)
  id_col: str = option(
    "",
    "column of the file to predict that predictions carry along, as id; "
    "training and evaluation files need not have it",
  )
  weight_col: str = option(
    "",
    "column of the training file with each example's weight in the "
    "loss, a number from 0 on; metrics and the loss of evaluation stay "
    "unweighted",
  )
  class_weights: str = option(
    "",
    "weights of training examples by label: balanced (inverse to the label's frequency), or "
    "LABEL:WEIGHT,... with 1 for the others; multiplied with --weight_col",
  )
  has_header: bool = option(True, "the files' first line names the columns", stored=True)
  is_regression: bool = option(False, "labels of own files are numbers to predict", stored=True)


@dataclasses.dataclass
class Pretraining:
  """Records of raw text, and what is learned from them."""

  loss_type: str = option(
    None,
    "bert (masked words and next sentence), mlm or electra; default: bert with "
    "--input_file and a BERT configuration, else mlm",
    kind=str,
  )
  input_file: str = option("", "records in BERT's form: comma-separated names or globs")
  eval_input_file: str = option("", "the same to evaluate on; default: --input_file")
  record_dir: str = option("", "folders (comma-separated) with records in Funnel's form")
  eval_split: str = option("dev", "split of --record_dir to evaluate on")
  num_passes: int = option(0, "use passes 0 to N - 1 of --record_dir; 0 for all", lower=0)
  max_predictions_per_seq: int = option(
    None,
    "masked tokens of a sequence; default: the records' own, or 15% of the length",
    aliases=("num_predict",),
    kind=int,
    lower=1,
  )
  use_v2_feature_names: bool = option(
    False, "the records of --input_file call their features input_word_ids and input_type_ids"
  )
  pack_sequences: bool = option(False, "the records of --input_file have several sequences a row")
  sample_strategy: str = option(
    "single_token",
    "what is masked as a whole in --record_dir",
    ("single_token", "whole_word", "token_span", "word_span"),
  )
  leak_ratio: float = option(0.1, "share of the masked tokens that stay as they are")
  rand_ratio: float = option(0.1, "share of them that become a random token")
  min_tok: int = option(1, "token_span: the shortest span, in tokens", lower=1)
  max_tok: int = option(5, "token_span: the longest span, in tokens", lower=1)
  min_word: int = option(1, "word_span: the shortest span, in words", lower=1)
  max_word: int = option(5, "word_span: the longest span, in words", lower=1)
  width_shrink: float = option(0.25, "width of ELECTRA's generator, as a fraction of the encoder's")
  disc_coeff: float = option(50.0, "weight of the loss of ELECTRA's discriminator")
  max_eval_batch: int = option(
    100, "evaluate on so many batches; 0 or -1 for all data", aliases=("max_eval_steps",), lower=-1
  )


@dataclasses.dataclass
class Race:
  """Multiple choice: questions about passages, with options."""

  task_name: str = option("race", "data set: race, swag, or jsonl for your own files", stored=True)
  train_file: str = option(
    "", "own training file; default: train.csv (swag), train.jsonl in data_dir"
  )
  eval_file: str = option("", "own evaluation file; default: val.csv (swag), dev.jsonl in data_dir")
  predict_file: str = option(
    "", "own file to predict; default: test.csv (swag), test.jsonl in data_dir"
  )
  eval_split: str = option(
    "dev", "split to evaluate; its questions must have answers", ("dev", "test")
  )
  max_qa_length: int = option(
    128,
    "longest question with an option, in tokens; of longer ones the end is kept",
    lower=1,
    stored=True,
  )
  num_options: int = option(
    0,
    "options per question; questions with fewer are filled up and the fill is masked out; 0 "
    "for 4 in race, else for the largest number in the files",
    lower=0,
  )


@dataclasses.dataclass
class RecordFiles:
  """Record files made by create_finetuning_data.py (or another program) to use instead."""

  train_data_path: str = option("", "record file to train on instead of raw data")
  eval_data_path: str = option("", "record file to evaluate instead of raw data")
  test_data_path: str = option("", "record file to predict instead of raw data")
  input_meta_data_path: str = option("", "metadata JSON of these record files")
  invert_input_mask: bool = option(
    False, "these records have input_mask 1 on padding (as the original Funnel code's)"
  )


@dataclasses.dataclass
class Data:
  """How much data, and where its records are kept."""

  output_dir: str = option(
    "", "folder of the preprocessed records; default: model_dir, or ./runs/TASK"
  )
  max_seq_length: int = option(
    None,
    "longest sequence, in tokens, specials included",
    kind=int,
    aliases=("seq_len",),
    lower=3,
    stored=True,
  )
  overwrite_data: bool = option(False, "make the records anew even where they exist")
  max_train_examples: int = option(0, "train on the first N examples only; 0 for all", lower=0)
  max_eval_examples: int = option(
    0, "evaluate and predict the first N examples only (of SQuAD: windows); 0 for all", lower=0
  )


@dataclasses.dataclass
class Optimizer:
  """The update rule. Rates and step counts are per update of the global batch."""

  learning_rate: float = option(None, "peak learning rate", kind=float)
  train_steps: int = option(
    0, "number of updates; 0 to count num_train_epochs", lower=0, aliases=("num_train_steps",)
  )
  num_train_epochs: float = option(
    None, "passes over the training data, where train_steps is 0", kind=float
  )
  warmup_steps: int = option(
    -1, "updates of linear warm-up; -1 to use warmup_proportion", aliases=("num_warmup_steps",)
  )
  warmup_proportion: float = option(None, "warm-up as a fraction of train_steps", kind=float)
  decay_method: str = option(
    None, "how the rate falls after the warm-up", ("poly", "cos", "constant"), kind=str
  )
  warmup_style: str = option(
    None,
    "how warm-up and decay meet (optimization.learning_rate_schedule)",
    ("then_decay", "replaces_decay", "scales_decay"),
    kind=str,
  )
  min_lr_ratio: float = option(0.0, "floor of the decay as a fraction of learning_rate")
  weight_decay: float = option(None, "decoupled weight decay", kind=float)
  use_wd_exclusion: bool = option(None, "no weight decay of biases and layer norms", kind=bool)
  clip: float = option(1.0, "largest global norm of the averaged gradient; 0 for no clipping")
  lr_layer_decay_rate: float = option(
    1.0, "factor of the learning rate from a layer to the next lower one"
  )
  adam_beta1: float = option(0.9, "Adam's decay of the first moment")
  adam_beta2: float = option(None, "Adam's decay of the second moment", kind=float)
  adam_epsilon: float = option(1e-6, "Adam's epsilon")
  adam_correction: bool = option(None, "Adam's bias correction", kind=bool)


@dataclasses.dataclass
class Trainer:
  """What is done, how long, and what is kept. Batch sizes are global on every hardware."""

  do_train: bool = option(False, "train (without any --do_ flag: train and evaluate)")
  do_eval: bool = option(False, "evaluate on the dev data")
  do_predict: bool = option(False, "predict the test data")
  do_submit: bool = option(False, "predict the test data and write GLUE's submission files")
  model_dir: str = option("", "folder of checkpoints, logs and results; default: output_dir")
  train_batch_size: int = option(None, "examples per update", kind=int, lower=1)
  gradient_accumulation_steps: int = option(
    1,
    "compute each batch in this many parts, one after the other: the same update in the "
    "memory of train_batch_size / gradient_accumulation_steps",
    lower=1,
  )
  eval_batch_size: int = option(32, "examples per step of evaluation", lower=1)
  predict_batch_size: int = option(32, "examples per step of prediction", lower=1)
  predict_dir: str = option("", "folder of the predictions; default: model_dir")
  save_steps: int = option(
    0,
    "updates between checkpoints; 0 for one per epoch",
    aliases=("save_checkpoints_steps",),
    lower=0,
  )
  max_save: int = option(0, "checkpoints kept, the oldest are deleted; 0 keeps all", lower=0)
  eval_every_steps: int = option(
    0, "updates between evaluations during training; 0 for none", lower=0
  )
  eval_all_ckpt: bool = option(False, "evaluate every checkpoint of model_dir, not the last only")
  eval_start_step: int = option(
    0, "with eval_all_ckpt: those after this step; -1 adds step 0, before training"
  )
  eval_end_step: int = option(10_000_000, "with eval_all_ckpt: those up to this step")
  early_stopping_patience: int = option(
    0, "stop training after this many evaluations without a better score; 0 never stops", lower=0
  )
  best_metric: str = option(
    "score",
    "metric that selects the best checkpoint; larger is better, but of loss smaller",
    aliases=("target_eval_key",),
  )
  log_freq: int = option(
    10, "updates between lines of metrics.jsonl and TensorBoard points", lower=1
  )
  seed: int = option(42, "seed of all randomness: order, dropout, new weights")
  num_trials: int = option(
    1, "repeat with seed, seed + 1, ... and give mean and deviation", lower=1
  )


@dataclasses.dataclass
class Runtime:
  """The machine."""

  use_tpu: bool = option(False, "run on a TPU")
  tpu: str = option("", "name or grpc:// address of the TPU", aliases=("tpu_name", "master"))
  tpu_zone: str = option("", "zone of the TPU; empty to find it")
  gcp_project: str = option("", "project of the TPU; empty to find it")
  num_hosts: int = option(1, "hosts of the TPU")
  num_core_per_host: int = option(
    0,
    "TPU cores or GPUs to use on each host; 0 for all (without a GPU: that many virtual CPU "
    "devices, for tests)",
    aliases=("num_tpu_cores",),
  )
  iterations: int = option(1000, "updates per call of the TPU", aliases=("iterations_per_loop",))
  use_bfloat16: bool = option(False, "compute in bfloat16; variables stay float32")


@dataclasses.dataclass
class SquadData:
  """How SQuAD becomes records."""

  doc_stride: int = option(
    128, "pieces of the passage from a window to the next", lower=1, stored=True
  )
  max_query_length: int = option(64, "pieces of a question that are used", lower=1, stored=True)
  version_2_with_negative: bool = option(
    False,
    "the files are SQuAD v2.0, where questions may have no answer; they are taken to be "
    "wherever such a question is among them",
  )


@dataclasses.dataclass
class Squad:
  """SQuAD: its files, heads, and how answers are chosen."""

  train_file: str = option(
    "", "training file; default: train-v2.0.json or train-v1.1.json in data_dir"
  )
  predict_file: str = option(
    "",
    "file to evaluate and predict; default: dev-v2.0.json or dev-v1.1.json in data_dir",
    aliases=("eval_file",),
  )
  train_version: str = option(
    "",
    "v1 refuses training questions without an answer; empty takes the file as it is",
    ("", "v1", "v2"),
  )
  eval_version: str = option(
    "",
    "rules of evaluation; empty for v2 where the file has questions without an answer, else v1",
    ("", "v1", "v2"),
  )
  prepro_split: str = option("", "make the records of this split and stop", ("", "train", "eval"))
  num_proc: int = option(1, "processes that make the records", lower=1)
  proc_id: int = option(
    -1,
    "make only this part of num_proc (from 0), the others being made by the same command "
    "elsewhere; the last of them joins the parts. -1 for all",
    lower=-1,
  )
  max_answer_length: int = option(None, "longest predicted answer, in pieces", kind=int, lower=1)
  n_best_size: int = option(
    None,
    "answers kept per question; for BERT also the starts and ends per window that are put together",
    kind=int,
    lower=1,
  )
  null_score_diff_threshold: float = option(
    0.0,
    "v2: predict no answer where its log odds (null_odds.json) are above this",
    aliases=("na_threshold",),
  )
  search_threshold: bool = option(
    False, "v2: search the threshold that gives the best F1 on the evaluated data, and use it"
  )
  start_n_top: int = option(5, "Funnel: starts per window", lower=1)
  end_n_top: int = option(5, "Funnel: ends per start", lower=1)
  use_answer_class: bool = option(
    True, "Funnel: a head of its own says whether there is no answer", stored=True
  )
  conditional_end: bool = option(True, "Funnel: the end is predicted given the start", stored=True)
  use_masked_loss: bool = option(
    True, "Funnel: only [CLS] and passage take part in the loss", stored=True
  )
  ans_loss_weight: float = option(0.5, "Funnel: weight of the losses of start and end")
  cls_loss_weight: float = option(0.5, "Funnel: weight of the loss of use_answer_class")
  do_ensemble: bool = option(False, "predict with all of --ensemble_ckpts together")
  ensemble_ckpts: str = option(
    "", "comma-separated checkpoints (prefixes, or folders for their newest)"
  )
  ensemble_output_file: str = option(
    "",
    "file of the ensemble's predictions; default: "
    "ensemble.json in predict_dir. Its n-best lists and odds "
    "stand beside it, as ensemble.nbest.json and so on",
  )


@dataclasses.dataclass
class Experiment:
  """All settings of one run."""

  model: Model = dataclasses.field(default_factory=Model)
  tokenizer: Tokenizer = dataclasses.field(default_factory=Tokenizer)
  raw_data: RawData = dataclasses.field(default_factory=RawData)
  classification: Classification = dataclasses.field(default_factory=Classification)
  pretraining: Pretraining = dataclasses.field(default_factory=Pretraining)
  race: Race = dataclasses.field(default_factory=Race)
  record_files: RecordFiles = dataclasses.field(default_factory=RecordFiles)
  squad_data: SquadData = dataclasses.field(default_factory=SquadData)
  squad: Squad = dataclasses.field(default_factory=Squad)
  data: Data = dataclasses.field(default_factory=Data)
  optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
  trainer: Trainer = dataclasses.field(default_factory=Trainer)
  runtime: Runtime = dataclasses.field(default_factory=Runtime)

  def sections(self) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]

  def to_dict(self) -> dict[str, dict[str, Any]]:
    return dataclasses.asdict(self)


def stored_fields(experiment: Experiment, job: str) -> dict[str, Any]:
  """Name of each setting that a model folder stores -> its section of the experiment.

  Args:
    experiment: the settings.
    job: "classification", "race", "squad" or "pretraining", whose section counts.
  """
  sections = [experiment.model, experiment.tokenizer, experiment.data, getattr(experiment, job)]
  if job == "squad":
    sections.append(experiment.squad_data)
  return {
    field.name: section
    for section in sections
    for field in dataclasses.fields(section)
    if field.metadata["stored"]
  }


EXPERIMENTS_DIR = os.path.join(os.path.dirname(__file__), "configs", "experiments")


def load_recipe(family: str, job: str, task_name: str) -> dict[str, Any]:
  """Flat name -> value of a task's recipe: the file's defaults, then the task's own values."""
  path = os.path.join(EXPERIMENTS_DIR, f"{family}_{job}.yaml")
  with open(path, encoding="utf-8") as reader:
    recipe = yaml.safe_load(reader)
  return {**recipe["defaults"], **recipe["tasks"].get(task_name, {})}


def apply_recipe(experiment: Experiment, recipe: dict[str, Any], given: set[str]) -> dict[str, Any]:
  """Fills the fields the user did not give from the recipe; returns what was taken from it.

  Args:
    experiment: changed in place.
    recipe: name -> value; a name that is no field is an error.
    given: names the user set, which win.
  """
  taken = {}
  fields = {
    field.name: section
    for section in experiment.sections()
    for field in dataclasses.fields(section)
  }
  for name, value in recipe.items():
    if name not in fields:
      raise UserError(f"the recipe sets {name!r}, which is no setting")
    if name not in given:
      setattr(fields[name], name, value)
      taken[name] = value
  return taken
