"""Settings of an experiment, as plain dataclasses that flags and YAML files fill.

Each field is also a flag of the same name (training/flags.py): its name, type, default and help are
only here. The settings of each job are in tasks/settings.py. A default of None is replaced by the
recipe of the task and the model family (configs/experiments/), unless the help states a default.
"""

import dataclasses
from typing import Any, ClassVar

import tokenization
from utils.options import checked, option

MAX_BATCH = 1_000_000  # examples


@dataclasses.dataclass
class Model:
  """The encoder, and the checkpoint that training starts from."""

  pretrained: str = option(
    "./pretrained",
    "folder of the pretrained encoder: configuration, vocabulary, checkpoint; used for those of "
    "--model_config, --tokenizer_path and --init_checkpoint that are not given",
  )
  model_config: str = option(
    "", "JSON file of the model's configuration", aliases=("model_config_path", "bert_config_file")
  )
  init_checkpoint: str = option(
    "",
    "checkpoint (prefix, or folder for its newest) that training starts from, TF1's or that of a "
    "BERT encoder of Model Garden; counts only "
    "while model_dir has no checkpoint; 'none' for random weights",
  )
  hub_module_url: str = option(
    "",
    "TF-Hub module of a BERT encoder that training starts from, instead of init_checkpoint: folder "
    "of the SavedModel, its name in tfhub_cache_dir, or URL; sizes of the model are the module's",
  )
  tfhub_cache_dir: str = option(
    "", "folder of TF-Hub modules, for downloads too; default: the variable TFHUB_CACHE_DIR"
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
    "variable scope of the task's head; empty for the family's own: the top level for BERT, the "
    "task's name for Funnel",
    stored=True,
  )
  gin_bindings: str = option(
    "",
    "gin bindings of model layers, such as encode.activation=@tanh, one per line; train.py reads "
    "them from --gin_file and --gin_params",
    stored=True,
  )
  overwrite_keys: str = option(
    "",
    "comma-separated keys of a Funnel configuration (dropout, ...) for which the flag of "
    "that name wins over the file",
  )

  @property
  def start_checkpoint(self) -> str | None:
    """init_checkpoint, or None if there is none or random weights are wanted."""
    return None if self.init_checkpoint in ("", "none") else self.init_checkpoint


@dataclasses.dataclass
class Tokenizer:
  """The tokenizer."""

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
    """Whether the tokenizer is SentencePiece, in either spelling."""
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
  """Raw data files."""

  data_root: str = option("./data", "folder of the tasks' data folders (glue/CoLA, ...)")
  data_dir: str = option(
    "",
    "folder of the raw data; default: the task's folder in --data_root",
    aliases=("input_data_dir",),
  )
  skip_bad_rows: bool = option(
    False,
    "skip rows with too few or too many columns, and answers that are not at their "
    "answer_start, instead of stopping",
  )


@dataclasses.dataclass
class RecordFiles:
  """Record files of create_finetuning_data.py, or of another program, to use instead."""

  train_data_path: str = option("", "record file to train on instead of raw data")
  eval_data_path: str = option("", "record file to evaluate instead of raw data")
  test_data_path: str = option("", "record file to predict instead of raw data")
  input_meta_data_path: str = option("", "metadata JSON of these record files")
  invert_input_mask: bool = option(
    False, "these records have input_mask 1 on padding (as the original Funnel code's)"
  )


@dataclasses.dataclass
class Preprocessing:
  """How records are made from raw data."""

  prepro_split: str = option(
    "", "make the records of this split and stop", ("", "train", "eval", "test")
  )
  num_proc: int = option(1, "processes that make the records", lower=1, upper=10_000)
  proc_id: int = option(
    -1,
    "make only this part of num_proc (from 0) if the same command makes the others elsewhere; "
    "the last process joins the parts. -1 for all",
    lower=-1,
  )


@dataclasses.dataclass
class Data:
  """Amount of data, and the folder of its records."""

  output_dir: str = option(
    "", "folder of the preprocessed records; default: model_dir, or ./runs/TASK"
  )
  max_seq_length: int = option(
    None,
    "longest sequence, in tokens, specials included",
    kind=int,
    aliases=("seq_len",),
    lower=3,
    upper=1_000_000,
    stored=True,
  )
  overwrite_data: bool = option(False, "make the records again even if they exist")
  synthetic_data: bool = option(
    False, "train on made-up records of random tokens instead of data, for benchmarks and trials"
  )
  max_train_examples: int = option(0, "train on the first N examples only; 0 for all", lower=0)
  max_eval_examples: int = option(
    0, "evaluate and predict the first N examples only (of SQuAD: windows); 0 for all", lower=0
  )


@dataclasses.dataclass
class Optimizer:
  """The update rule. Rates and step counts are per update of the global batch."""

  learning_rate: float = option(None, "peak learning rate", kind=float, lower=0)
  train_steps: int = option(
    0, "number of updates; 0 to count num_train_epochs", lower=0, aliases=("num_train_steps",)
  )
  num_train_epochs: float = option(
    None,
    "passes over the training data, where train_steps is 0",
    kind=float,
    lower=0,
    upper=1_000_000,
  )
  warmup_steps: int = option(
    -1,
    "updates of linear warm-up; -1 to use warmup_proportion",
    aliases=("num_warmup_steps",),
    lower=-1,
  )
  warmup_proportion: float = option(
    None, "warm-up as a fraction of train_steps", kind=float, lower=0, upper=1
  )
  decay_method: str = option(
    None, "how the rate falls after the warm-up", ("poly", "cos", "constant"), kind=str
  )
  warmup_style: str = option(
    None,
    "how warm-up and decay are joined (optimization.learning_rate_schedule)",
    ("then_decay", "replaces_decay", "scales_decay"),
    kind=str,
  )
  min_lr_ratio: float = option(
    0.0, "floor of the decay as a fraction of learning_rate", lower=0, upper=1
  )
  weight_decay: float = option(None, "decoupled weight decay", kind=float, lower=0)
  use_wd_exclusion: bool = option(None, "no weight decay of biases and layer norms", kind=bool)
  clip: float = option(
    1.0, "largest global norm of the averaged gradient; 0 for no clipping", lower=0
  )
  lr_layer_decay_rate: float = option(
    1.0, "factor of the learning rate from a layer to the next lower one", above=0, upper=1
  )
  adam_beta1: float = option(0.9, "Adam's decay of the first moment", lower=0, below=1)
  adam_beta2: float = option(
    None, "Adam's decay of the second moment", kind=float, lower=0, below=1
  )
  adam_epsilon: float = option(1e-6, "Adam's epsilon", above=0)
  adam_correction: bool = option(None, "Adam's bias correction", kind=bool)


@dataclasses.dataclass
class Trainer:
  """Training, evaluation and prediction. Batch sizes are global on every hardware."""

  do_train: bool = option(False, "train (without any --do_ flag: train and evaluate)")
  do_eval: bool = option(False, "evaluate on the dev data")
  do_predict: bool = option(False, "predict the test data")
  do_submit: bool = option(False, "predict the test data and write GLUE's submission files")
  model_dir: str = option("", "folder of checkpoints, logs and results; default: output_dir")
  train_batch_size: int = option(None, "examples per update", kind=int, lower=1, upper=MAX_BATCH)
  gradient_accumulation_steps: int = option(
    1,
    "compute each batch in this many parts, one after the other: the same update in the "
    "memory of a batch of train_batch_size / gradient_accumulation_steps",
    lower=1,
    upper=MAX_BATCH,
  )
  eval_batch_size: int = option(32, "examples per step of evaluation", lower=1, upper=MAX_BATCH)
  predict_batch_size: int = option(32, "examples per step of prediction", lower=1, upper=MAX_BATCH)
  predict_dir: str = option("", "folder of the predictions; default: model_dir")
  save_steps: int = option(
    0,
    "updates between checkpoints; 0 for one per epoch",
    aliases=("save_checkpoints_steps",),
    lower=0,
  )
  nan_policy: str = option(
    "stop",
    "after an update whose loss or gradient is not finite: stop; skip (not apply) the update; or "
    "reload the last checkpoint and continue with the examples in another order",
    ("stop", "skip", "reload"),
  )
  loss_upper_bound: float = option(
    0.0, "a loss above this is treated as not finite (stop or reload); 0 for no bound"
  )
  recovery_max_trials: int = option(
    3, "with nan_policy=reload: reload at most this many times, then stop", lower=0
  )
  max_save: int = option(
    5, "newest checkpoints kept, in addition to the best one; 0 keeps all", lower=0
  )
  eval_every_steps: int = option(
    0, "updates between evaluations during training; 0 for none", lower=0
  )
  eval_all_ckpt: bool = option(False, "evaluate every checkpoint of model_dir, not the last only")
  eval_start_step: int = option(
    0,
    "with eval_all_ckpt: those after this step; -1 adds step 0, before training, which training "
    "saves if both are set",
    lower=-1,
  )
  eval_end_step: int = option(10_000_000, "with eval_all_ckpt: those up to this step", lower=0)
  continuous_eval_timeout: int = option(
    3600, "seconds that continuous_eval waits for the next checkpoint before it ends", lower=0
  )
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
    1, "repeat with seed, seed + 1, ... and give mean and deviation", lower=1, upper=10_000
  )

  @property
  def predictions_dir(self) -> str:
    """Folder of the predictions."""
    return self.predict_dir or self.model_dir


@dataclasses.dataclass
class Runtime:
  """The machine."""

  use_tpu: bool = option(False, "run on a TPU")
  tpu: str = option("", "name or grpc:// address of the TPU", aliases=("tpu_name", "master"))
  tpu_zone: str = option("", "zone of the TPU; empty to find it")
  gcp_project: str = option("", "project of the TPU; empty to find it")
  num_hosts: int = option(
    1, "hosts that train together: of the TPU slice, or as many as TF_CONFIG names", lower=1
  )
  num_core_per_host: int = option(
    0,
    "TPU cores or GPUs to use on each host; 0 for all (without a GPU: that many virtual CPU "
    "devices, for tests)",
    aliases=("num_tpu_cores",),
    lower=0,
  )
  iterations: int = option(
    1000, "updates per call of the TPU", aliases=("iterations_per_loop",), lower=1
  )
  precision: str = option(
    None,
    "dtype of the activations; variables, layer norms, softmax and losses are always float32; "
    "default: fp32, or bf16 with --use_bfloat16",
    ("fp32", "bf16", "fp16"),
    kind=str,
  )
  use_bfloat16: bool = option(False, "the same as --precision=bf16")
  loss_scale: str = option(
    "dynamic",
    "precision fp16: fixed factor of the loss, or dynamic (2^15 at first, doubled after 2000 "
    "finite updates, halved by one that is not, which is skipped)",
  )
  recompute_activations: bool = option(
    False,
    "store only the inputs of each layer for the gradient, and compute the layer again there: the "
    "same update with less memory, in about a third more time",
  )
  validate_only: bool = option(
    False, "check settings, files, checkpoint and graphs, and end; exits 0 or 1"
  )
  compile_only: bool = option(
    False, "as validate_only, then make updates on synthetic input and report their cost"
  )


@dataclasses.dataclass
class NoTask:
  """Settings of no particular job."""

  job: ClassVar[str] = ""


@dataclasses.dataclass
class Experiment:
  """All settings of one run.

  Names of settings are unique over all sections, so a name alone identifies one.

  Attributes:
    task: settings of the job, of a class in tasks/settings.py or of a user's own.
    model_keys: keys of the model's configuration given directly, instead of in a file.
    sources: name of each setting that is not at its default -> where its value is from: "flag",
      a file, the trained model's folder, the recipe. A setting is set once; `fill` keeps it.
    family: model family that the experiment is for, "bert", "electra" or "funnel"; "" for any.
  """

  task: Any = dataclasses.field(default_factory=NoTask)
  model: Model = dataclasses.field(default_factory=Model)
  tokenizer: Tokenizer = dataclasses.field(default_factory=Tokenizer)
  raw_data: RawData = dataclasses.field(default_factory=RawData)
  record_files: RecordFiles = dataclasses.field(default_factory=RecordFiles)
  preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
  data: Data = dataclasses.field(default_factory=Data)
  optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
  trainer: Trainer = dataclasses.field(default_factory=Trainer)
  runtime: Runtime = dataclasses.field(default_factory=Runtime)
  model_keys: dict[str, Any] = dataclasses.field(default_factory=dict)
  sources: dict[str, str] = dataclasses.field(default_factory=dict)
  family: str = ""

  @property
  def job(self) -> str:
    """Name of the job, which names its recipes and its entry in tasks/registry.py."""
    return self.task.job

  def sections(self) -> dict[str, Any]:
    """Returns the name of each section -> the section."""
    names = [field.name for field in dataclasses.fields(self)]
    others = ("model_keys", "sources", "family")
    return {name: getattr(self, name) for name in names if name not in others}

  def owners(self) -> dict[str, Any]:
    """Returns the name of each setting -> its section."""
    return {
      field.name: section
      for section in self.sections().values()
      for field in dataclasses.fields(section)
    }

  def set(self, name: str, value: Any, source: str, key: str = "") -> None:
    """Sets a setting, whatever its value was.

    Args:
      name: name of the setting.
      value: of the setting's type, or text of it.
      source: layer of the value, for messages and params.yaml.
      key: the key that the user wrote, for messages.

    Raises:
      UserError: the value has another type, or is out of range.
      KeyError: there is no setting of that name.
    """
    setattr(self.owners()[name], name, self._checked(name, value, source, key))
    self.sources[name] = source

  def fill(self, name: str, value: Any, source: str, key: str = "") -> bool:
    """Sets a setting unless it was set before; checks the value in any case, see `set`.

    Returns:
      Whether the setting was set.
    """
    checked = self._checked(name, value, source, key)
    if name in self.sources:
      return False
    setattr(self.owners()[name], name, checked)
    self.sources[name] = source
    return True

  def _checked(self, name, value, source, key):
    return checked(self.owners()[name], name, value, source, key)

  def to_dict(self) -> dict[str, dict[str, Any]]:
    """Returns section -> setting -> value."""
    return {name: dataclasses.asdict(section) for name, section in self.sections().items()}


def stored_fields(experiment: Experiment) -> dict[str, Any]:
  """Returns the name of each setting that a model folder stores -> its section."""
  sections = (experiment.model, experiment.tokenizer, experiment.data, experiment.task)
  return {
    field.name: section
    for section in sections
    for field in dataclasses.fields(section)
    if field.metadata["stored"]
  }
