"""Settings of each kind of job, as plain dataclasses; the shared ones are in config.py.

This module needs no TensorFlow: a script lists its flags before it loads its task.
"""

import dataclasses
from typing import ClassVar

from utils.options import option


@dataclasses.dataclass
class Classification:
  """Classification and regression, and the columns of your own files."""

  job: ClassVar[str] = "classification"

  task_name: str = option(
    "",
    "task: cola, sst-2, mrpc, sts-b, qqp, mnli, qnli, rte, wnli, ax, "
    "snli, xnli, paws-x, imdb, ag, dbpedia, yelp2, yelp5, amazon2, amazon5, "
    "or tsv, csv, jsonl for your own files, tfds for --tfds_params",
    aliases=("classification_task_name",),
    stored=True,
  )
  language: str = option(
    "zh",
    "language of the data of xnli or paws-x; the default is that of BERT's XNLI script",
    aliases=("xnli_language", "pawsx_language"),
    stored=True,
  )
  tfds_params: str = option(
    "",
    "data of TensorFlow Datasets: dataset=NAME and further KEY=VALUE, separated by commas: "
    "data_dir (or --data_dir), train_split, dev_split, test_split, text_key, text_b_key, "
    "label_key, test_text_key, test_text_b_key, weight_key, is_regression, skip_label, "
    "module_import; glue/NAME needs only dataset",
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
    "column of the file to predict that is copied to the predictions as id; training and "
    "evaluation files need not have it",
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
  num_classes: int = option(
    0,
    "classes of record files whose metadata name no labels; 0 for the metadata's",
    lower=0,
    upper=1_000_000,
  )
  do_fewshot: bool = option(
    False, "evaluate a linear probe on the frozen encoder's pooler output, for few examples a class"
  )
  fewshot_shots: str = option(
    "1,5,10,25,100,500,1000", "training examples per class, of do_fewshot"
  )
  fewshot_tasks: str = option(
    "",
    "further tasks of do_fewshot, separated by commas, with data in --data_root; one l2 is "
    "chosen over all tasks",
  )


@dataclasses.dataclass
class Race:
  """Multiple choice: questions about passages, with options."""

  job: ClassVar[str] = "race"

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
    "longest question with an option, in tokens; longer ones keep their end",
    lower=1,
    stored=True,
  )
  num_options: int = option(
    0,
    "options per question; questions with fewer are padded, and the padding is masked out; 0 for "
    "4 in race, else for the largest number in the files",
    lower=0,
    upper=1000,
  )


@dataclasses.dataclass
class SquadData:
  """Records of SQuAD."""

  doc_stride: int = option(
    128,
    "tokens of the passage from the start of a window to the start of the next",
    lower=1,
    stored=True,
  )
  max_query_length: int = option(
    64, "longest question, in tokens; the rest is cut off", lower=1, stored=True
  )
  version_2_with_negative: bool = option(
    False,
    "the files are SQuAD v2.0, in which questions may have no answer; detected if the files hold "
    "such a question",
  )


@dataclasses.dataclass
class Squad(SquadData):
  """SQuAD: files, heads, and the choice of answers."""

  job: ClassVar[str] = "squad"

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
    "rules of evaluation; empty for v2 if the file has questions without an answer, else v1",
    ("", "v1", "v2"),
  )
  max_answer_length: int = option(None, "longest predicted answer, in tokens", kind=int, lower=1)
  n_best_size: int = option(
    None,
    "answers kept per question; for BERT also the starts and ends per window that are combined",
    kind=int,
    lower=1,
    upper=1000,
  )
  null_score_diff_threshold: float = option(
    0.0,
    "v2: predict no answer if its log odds (null_odds.json) are above this",
    aliases=("na_threshold",),
  )
  search_threshold: bool = option(
    False, "v2: search the threshold with the best F1 on the evaluated data, and use it"
  )
  start_n_top: int = option(5, "Funnel: starts per window", lower=1, upper=1000)
  end_n_top: int = option(5, "Funnel: ends per start", lower=1, upper=1000)
  use_answer_class: bool = option(
    True, "Funnel: a separate head scores whether there is no answer", stored=True
  )
  conditional_end: bool = option(True, "Funnel: the end is predicted given the start", stored=True)
  use_masked_loss: bool = option(
    True, "Funnel: only [CLS] and the passage are in the loss", stored=True
  )
  ans_loss_weight: float = option(0.5, "Funnel: weight of the losses of start and end", lower=0)
  cls_loss_weight: float = option(0.5, "Funnel: weight of the loss of use_answer_class", lower=0)
  do_ensemble: bool = option(False, "predict with all of --ensemble_ckpts together")
  ensemble_ckpts: str = option(
    "", "comma-separated checkpoints (prefixes, or folders for their newest)"
  )
  ensemble_output_file: str = option(
    "",
    "file of the ensemble's predictions; default: "
    "ensemble.json in predict_dir; its n-best lists and odds are next to it, in "
    "ensemble.nbest.json and ensemble.null_odds.json",
  )


@dataclasses.dataclass
class Pretraining:
  """Pretraining: its records and losses."""

  job: ClassVar[str] = "pretraining"

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
    "unit that is masked as a whole, in --record_dir",
    ("single_token", "whole_word", "token_span", "word_span"),
  )
  leak_ratio: float = option(0.1, "share of the masked tokens that keep their id", lower=0, upper=1)
  rand_ratio: float = option(0.1, "share of them that become a random token", lower=0, upper=1)
  min_tok: int = option(1, "token_span: the shortest span, in tokens", lower=1)
  max_tok: int = option(5, "token_span: the longest span, in tokens", lower=1)
  min_word: int = option(1, "word_span: the shortest span, in words", lower=1)
  max_word: int = option(5, "word_span: the longest span, in words", lower=1)
  width_shrink: float = option(
    0.25, "width of ELECTRA's generator, as a fraction of the encoder's", above=0
  )
  disc_coeff: float = option(50.0, "weight of the loss of ELECTRA's discriminator", lower=0)
  max_eval_batch: int = option(
    100,
    "evaluate on this many batches; 0 or -1 for all data",
    aliases=("max_eval_steps",),
    lower=-1,
  )


@dataclasses.dataclass
class Tagging:
  """Labels of words: named entities, parts of speech, in files of CoNLL's form."""

  job: ClassVar[str] = "tagging"

  train_file: str = option("", "training file; default: train.txt in data_dir")
  eval_file: str = option("", "evaluation file; default: dev.txt in data_dir")
  predict_file: str = option("", "file to predict; default: test.txt in data_dir")
  token_col: int = option(0, "column of the word, from 0; negative from the end", stored=True)
  label_col: int = option(
    -1, "column of the label, from 0; negative from the end", kind=int, stored=True
  )
