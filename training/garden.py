"""Keys of Model Garden's experiments (official/nlp) -> settings of config.Experiment.

A key is a setting under another name (a text), has a function that sets what it means here, or has
no effect because the work is done in another way (_NO_EFFECT, which is logged).
"""

import logging
from collections.abc import Callable
from typing import Any

import config
from errors import UserError

log = logging.getLogger(__name__)

Setter = Callable[[config.Experiment, Any, str], None]

_OPTIMIZER = "trainer.optimizer_config."
_ADAMW = _OPTIMIZER + "optimizer.adamw."
_DECAY = _OPTIMIZER + "learning_rate.polynomial."
_WARMUP = _OPTIMIZER + "warmup.polynomial."

# Metrics of Model Garden -> metrics of the tasks here.
_METRICS = {
  "accuracy": "score",
  "cls_accuracy": "score",
  "f1": "f1",
  "final_f1": "f1",
  "matthews_corrcoef": "matthews",
  "cls_matthews_corrcoef": "matthews",
  "pearson_spearman_corr": "score",
  "masked_lm_accuracy": "masked_lm_accuracy",
}

# Keys of task.model.encoder.bert -> keys of bert_config.json.
_BERT_KEYS = {
  "attention_dropout_rate": "attention_probs_dropout_prob",
  "dropout_rate": "hidden_dropout_prob",
  "hidden_activation": "hidden_act",
  "num_layers": "num_hidden_layers",
  **{
    name: name
    for name in (
      "hidden_size",
      "initializer_range",
      "intermediate_size",
      "max_position_embeddings",
      "num_attention_heads",
      "type_vocab_size",
      "vocab_size",
    )
  },
}


def _set(name: str, value: Any = None) -> Setter:
  """Returns a function that sets a setting; to `value` instead of the given one, if not None."""

  def setter(experiment, given, source):
    experiment.set(name, given if value is None else value, source)

  return setter


def _one_of(meanings: dict[str, Setter | None], advice: str = "") -> Setter:
  """Returns a function for a key with few values: value -> setter, or None if it is the default."""

  def setter(experiment, value, source):
    text = str(value).lower()
    if text not in meanings:
      raise UserError(f"{source}: {value!r} is not supported, only {', '.join(meanings)}{advice}")
    chosen = meanings[text]
    if chosen:
      chosen(experiment, value, source)

  return setter


def _train_steps(experiment, value, source):
  """A number of updates, or of epochs: "3 epochs"."""
  words = str(value).split()
  if len(words) == 2 and words[1] in ("epoch", "epochs"):
    _set("num_train_epochs")(experiment, words[0], source)
    _set("train_steps", 0)(experiment, 0, source)
  else:
    _set("train_steps")(experiment, value, source)


def _best_metric(experiment, value, source):
  _set("best_metric", _METRICS.get(str(value), str(value)))(experiment, value, source)


def _recovery_max_trials(experiment, value, source):
  """Reloads of the last checkpoint after a bad loss; without any, training stops."""
  _set("recovery_max_trials")(experiment, value, source)
  trials = experiment.trainer.recovery_max_trials
  _set("nan_policy", "reload" if trials else "stop")(experiment, value, source)


def _validation_steps(experiment, value, source):
  """A limit for pretraining; fine-tuning evaluates every example, whatever the batch size."""
  if experiment.job == "pretraining":
    _set("max_eval_batch")(experiment, value, source)


def _end_learning_rate(experiment, value, source):
  if value not in (None, 0, 0.0, "0", "0.0"):
    raise UserError(f"{source}: end_learning_rate={value}: set optimizer.min_lr_ratio instead")


def _input_path(files: str, records: str) -> Setter:
  """Raw data (.json) and records (anything else) have settings of their own."""

  def setter(experiment, value, source):
    _set(files if str(value).endswith(".json") else records)(experiment, value, source)

  return setter


def _encoder_key(name: str) -> Setter:
  def setter(experiment, value, source):
    experiment.model_keys[name] = value

  return setter


def _next_sentence(experiment, value, source):
  _set("loss_type", "bert" if str(value).lower() == "true" else "mlm")(experiment, value, source)


def _tfds(name: str) -> Setter:
  """Returns a function that adds a key to tfds_params."""

  def setter(experiment, value, source):
    entries = dict(
      entry.split("=", 1) for entry in filter(None, experiment.task.tfds_params.split(","))
    )
    text = ",".join(f"{key}={entry}" for key, entry in {**entries, name: value}.items())
    _set("tfds_params", text)(experiment, text, source)

  return setter


def _text_fields(experiment, value, source):
  names = value if isinstance(value, list) else [value]
  if not 1 <= len(names) <= 2:
    raise UserError(f"{source}: text_fields: one or two names are supported, not {value!r}")
  for key, name in zip(("text_key", "text_b_key"), names, strict=False):
    _tfds(key)(experiment, name, source)


def _label_field(experiment, value, source):
  """A feature of TensorFlow Datasets; "label_ids" is that of record files."""
  if value != "label_ids":
    _tfds("label_key")(experiment, value, source)


_COMMON: dict[str, str | Setter] = {
  "task.init_checkpoint": "init_checkpoint",
  "task.hub_module_url": "hub_module_url",
  "task.init_cls_pooler": "init_pooler",
  "task.train_data.global_batch_size": "train_batch_size",
  "task.train_data.seq_length": "max_seq_length",
  "task.train_data.seed": "seed",
  "task.validation_data.global_batch_size": "eval_batch_size",
  "task.validation_data.seq_length": "max_seq_length",
  "task.model.encoder.type": _one_of({"bert": None, "bert_v2": None}),
  **{f"task.model.encoder.bert.{key}": _encoder_key(own) for key, own in _BERT_KEYS.items()},
  "trainer.train_steps": _train_steps,
  "trainer.steps_per_loop": "iterations",
  "trainer.summary_interval": "log_freq",
  "trainer.checkpoint_interval": "save_steps",
  "trainer.max_to_keep": "max_save",
  "trainer.validation_interval": "eval_every_steps",
  "trainer.validation_steps": _validation_steps,
  "trainer.best_checkpoint_eval_metric": _best_metric,
  "trainer.continuous_eval_timeout": "continuous_eval_timeout",
  "trainer.loss_upper_bound": "loss_upper_bound",
  "trainer.recovery_max_trials": _recovery_max_trials,
  _OPTIMIZER + "optimizer.type": _one_of({"adamw": None, "adamw_experimental": None}),
  _ADAMW + "weight_decay_rate": "weight_decay",
  _ADAMW + "beta_1": "adam_beta1",
  _ADAMW + "beta_2": "adam_beta2",
  _ADAMW + "epsilon": "adam_epsilon",
  _ADAMW + "gradient_clip_norm": "clip",
  _ADAMW + "exclude_from_weight_decay": _set("use_wd_exclusion", True),
  _OPTIMIZER + "learning_rate.type": _one_of({"polynomial": _set("decay_method", "poly")}),
  _DECAY + "initial_learning_rate": "learning_rate",
  _DECAY + "end_learning_rate": _end_learning_rate,
  _DECAY + "power": _one_of({"1": None, "1.0": None}),
  _OPTIMIZER + "warmup.type": _one_of(
    {"polynomial": _set("warmup_style", "replaces_decay"), "linear": None}
  ),
  _WARMUP + "warmup_steps": "warmup_steps",
  _WARMUP + "power": _one_of({"1": None, "1.0": None}),
  _OPTIMIZER + "warmup.linear.warmup_steps": "warmup_steps",
  "runtime.distribution_strategy": _one_of(
    {
      "off": _set("num_core_per_host", 1),
      "one_device": _set("num_core_per_host", 1),
      "mirrored": None,
      "tpu": _set("use_tpu", True),
    }
  ),
  "runtime.num_gpus": "num_core_per_host",
  "runtime.mixed_precision_dtype": _one_of(
    {
      "float32": _set("precision", "fp32"),
      "bfloat16": _set("precision", "bf16"),
      "float16": _set("precision", "fp16"),
    }
  ),
}

_OF_JOB: dict[str, dict[str, str | Setter]] = {
  "classification": {
    "task.train_data.input_path": "train_data_path",
    "task.validation_data.input_path": "eval_data_path",
    "task.test_data.input_path": "test_data_path",
    "task.model.num_classes": "num_classes",
    "task.metric_type": _best_metric,
    **{
      f"task.{data}.{key}": meaning
      for data, split in (("train_data", "train"), ("validation_data", "dev"))
      for key, meaning in {
        "tfds_name": _tfds("dataset"),
        "tfds_split": _tfds(f"{split}_split"),
        "tfds_data_dir": _tfds("data_dir"),
        "text_fields": _text_fields,
        "label_field": _label_field,
        "vocab_file": "tokenizer_path",
        "lower_case": "uncased",
        "tokenization": "tokenizer_type",
      }.items()
    },
  },
  "squad": {
    "task.train_data.input_path": _input_path("train_file", "train_data_path"),
    "task.validation_data.input_path": _input_path("predict_file", "eval_data_path"),
    "task.validation_data.vocab_file": "tokenizer_path",
    "task.validation_data.do_lower_case": "uncased",
    "task.validation_data.tokenization": "tokenizer_type",
    "task.validation_data.doc_stride": "doc_stride",
    "task.validation_data.query_length": "max_query_length",
    "task.validation_data.version_2_with_negative": "version_2_with_negative",
    "task.validation_data.input_meta_data_path": "input_meta_data_path",
  },
  "pretraining": {
    "task.train_data.input_path": "input_file",
    "task.validation_data.input_path": "eval_input_file",
    "task.train_data.max_predictions_per_seq": "max_predictions_per_seq",
    "task.validation_data.max_predictions_per_seq": "max_predictions_per_seq",
    "task.train_data.use_next_sentence_label": _next_sentence,
    "task.train_data.use_v2_feature_names": "use_v2_feature_names",
    "task.validation_data.use_v2_feature_names": "use_v2_feature_names",
  },
}

# Key -> reason that it has no effect.
_NO_EFFECT = {
  **{
    f"task.{data}.{name}": "the input pipeline chooses it"
    for data in ("train_data", "validation_data", "test_data")
    for name in (
      *("is_training", "drop_remainder", "shuffle_buffer_size", "cycle_length", "block_length"),
      *(
        "label_type",
        "tfds_as_supervised",
        "tfds_skip_decoding_feature",
        "use_next_sentence_label",
        "use_position_id",
        "cache",
      ),
      *("deterministic", "sharding", "prefetch_buffer_size", "seed", "include_example_id"),
    )
  },
  "task.model.cls_heads": "the heads are those of the loss",
  "task.model.use_encoder_pooler": "the classifier reads the pooler",
  "task.model.encoder.bert.embedding_size": "it is hidden_size",
  "task.model.encoder.bert.return_all_encoder_outputs": "outputs are what the task reads",
  "task.model.encoder.bert.output_range": "outputs are what the task reads",
  "trainer.best_checkpoint_export_subdir": "the best checkpoint is in model_dir/best",
  "trainer.best_checkpoint_metric_comp": "losses are best when small, other metrics when large",
  "trainer.validation_summary_subdir": "summaries are in model_dir/eval",
  "trainer.optimizer_config.learning_rate.polynomial.decay_steps": "the decay ends with training",
  "trainer.optimizer_config.learning_rate.polynomial.cycle": "the decay has no cycles",
  "trainer.optimizer_config.optimizer.adamw.include_in_weight_decay": "see use_wd_exclusion",
  "runtime.all_reduce_alg": "TensorFlow chooses it",
}


def _table(experiment):
  return {**_COMMON, **_OF_JOB.get(experiment.job, {})}


def keys(experiment: config.Experiment) -> list[str]:
  """Returns the keys that `apply` accepts for the experiment's job."""
  return [*_table(experiment), *_NO_EFFECT]


def apply(experiment: config.Experiment, key: str, value: Any, source: str) -> bool:
  """Sets what a key means here; returns False if the key is unknown.

  Raises:
    UserError: the value is not supported, or of the wrong type.
  """
  meaning = _table(experiment).get(key)
  if meaning is not None:
    if isinstance(meaning, str):
      experiment.set(meaning, value, source, key)
    else:
      meaning(experiment, value, source)
    return True
  if key in _NO_EFFECT:
    log.info("%s: %s has no effect: %s", source, key, _NO_EFFECT[key])
    return True
  return False
