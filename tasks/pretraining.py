"""Pretraining: masked words and next sentence (BERT), masked words alone, ELECTRA.

There are two forms of records, BERT's with masks and Funnel-Transformer's without. Both give the
same features, so each form serves each loss and each model family.

Shape legend: B batch, L max_seq_length, K max_predictions_per_seq, S sequences of a row (1, or more
where sequences are packed), V vocabulary.
"""

import dataclasses

import numpy as np
import tensorflow as tf

import modeling
from errors import UserError
from models import pretraining
from tasks import base, masking, pretraining_data

LOSS_TYPES = ("bert", "mlm", "electra")


@dataclasses.dataclass(frozen=True)
class Sequences:
  """Sequences of a record file, of either form.

  Attributes:
    max_seq_length: L.
    special_ids: role ("cls", "sep", "pad", "mask", ...) -> id.
    vocab_size: V.
    cls_segment_id: segment id of the first token (0 for BERT, 2 for Funnel).
    reserved_positions: number of last positions that the model needs as padding.
  """

  max_seq_length: int
  special_ids: dict[str, int]
  vocab_size: int
  cls_segment_id: int = 0
  reserved_positions: int = 0

  def __post_init__(self):
    """UserError if the reserved positions leave no room for text."""
    if self.max_seq_length - self.reserved_positions < 5:
      raise UserError(
        f"--max_seq_length={self.max_seq_length}: the model needs the last "
        f"{self.reserved_positions} positions as padding, which leaves no room for "
        f"text; make records of longer sequences"
      )

  def cut(self, ids, segment_ids, length):
    """Cuts sequences [B, L] of `length` [B] tokens so that the reserved positions are padding.

    A sequence that is too long ends with its separator earlier: with L = 8 and 3 reserved positions
    "[cls] a b [sep] c d e [sep]" becomes "[cls] a b [sep] [sep] . . .".
    """
    reserved, place = self.reserved_positions, tf.range(self.max_seq_length)
    if reserved:
      end = self.max_seq_length - reserved - 1
      is_long = (length > end + 1)[:, None]
      ids = tf.where(is_long & tf.equal(place, end), self.special_ids["sep"], ids)
      length = tf.minimum(length, end + 1)
    mask = tf.cast(place < length[:, None], tf.int32)
    ids = tf.where(mask > 0, ids, self.special_ids["pad"])
    is_cls = tf.equal(ids, self.special_ids["cls"])  # records may be those of the other family
    return ids, tf.where(is_cls, self.cls_segment_id, segment_ids * mask), mask


class BertRecords:
  """Records with masks, of BERT's form."""

  has_input_mask = True

  def __init__(
    self,
    sequences: Sequences,
    max_predictions_per_seq: int,
    use_v2_feature_names: bool = False,
    pack_sequences: bool = False,
  ):
    """Stores the settings that the records were created with."""
    self._sequences = sequences
    self._num_predict = max_predictions_per_seq
    self._max_sequences = pretraining_data.MAX_SEQUENCES_PER_ROW if pack_sequences else 1
    self._ids, self._segments = (
      ("input_word_ids", "input_type_ids") if use_v2_feature_names else ("input_ids", "segment_ids")
    )

  @property
  def feature_specs(self):
    places, spec = self._num_predict, base.FeatureSpec
    packed = self._max_sequences > 1
    return [
      spec(self._ids, is_sequence=True, pad_value=None),
      spec("input_mask", is_sequence=True),
      spec(self._segments, is_sequence=True),
      spec("masked_lm_positions", length=places),
      spec("masked_lm_ids", length=places),
      spec("masked_lm_weights", length=places, dtype="float32"),
      *(
        [
          spec("sequence_ids", is_sequence=True),
          spec("next_sentence_positions", length=self._max_sequences),
        ]
        if packed
        else []
      ),
      spec("next_sentence_labels", length=self._max_sequences),
    ]

  def prepare(self, features, seed):
    del seed
    length = tf.reduce_sum(features["input_mask"], axis=1)
    ids, segment_ids, mask = self._sequences.cut(
      features[self._ids], features[self._segments], length
    )
    positions, weights = features["masked_lm_positions"], features["masked_lm_weights"]
    if self._sequences.reserved_positions:  # masks on tokens that were cut off
      end = self._sequences.max_seq_length - self._sequences.reserved_positions - 1
      weights *= tf.cast((positions < end) | (length <= end + 1)[:, None], tf.float32)
    positions = tf.where(weights > 0, positions, 0)  # batches may be shorter than the records
    labels = features["next_sentence_labels"]
    prepared = {
      "input_ids": ids,
      "segment_ids": segment_ids,
      "input_mask": mask,
      "origin_ids": pretraining.place_tokens(ids, positions, features["masked_lm_ids"], weights),
      "masked_lm_positions": positions,
      "masked_lm_weights": weights,
      "masked_lm_ids": features["masked_lm_ids"],
      "next_sentence_labels": labels,
      "next_sentence_positions": features.get("next_sentence_positions", tf.zeros_like(labels)),
    }
    if "sequence_ids" in features:
      prepared["sequence_ids"] = features["sequence_ids"]
    return prepared


class FunnelRecords:
  """Records without masks, of Funnel-Transformer's form; masks are drawn in training."""

  has_input_mask = False

  def __init__(self, sequences: Sequences, settings: masking.Masking):
    """Stores the form of the sequences and the settings of the masks."""
    self._sequences = sequences
    self._masking = settings

  @property
  def feature_specs(self):
    return [
      base.FeatureSpec("input", is_sequence=True, pad_value=None),
      base.FeatureSpec("seg_id", is_sequence=True),
      base.FeatureSpec("boundary", length=0),
      base.FeatureSpec("label", length=1),
    ]

  def prepare(self, features, seed):
    sequences, ids = self._sequences, features["input"]
    special_ids = sequences.special_ids
    length = tf.reduce_sum(tf.cast(tf.not_equal(ids, special_ids["pad"]), tf.int32), axis=1)
    ids, segment_ids, mask = sequences.cut(ids, features["seg_id"], length)
    never = [value for role, value in special_ids.items() if role != "unk"]
    is_special = tf.reduce_any(tf.equal(ids[:, :, None], never), axis=-1)
    place = tf.range(sequences.max_seq_length)
    # Unused values of `boundary` mark one position after the end, which is cut off.
    boundary = tf.where(features["boundary"] < 0, sequences.max_seq_length, features["boundary"])
    row = tf.broadcast_to(tf.range(tf.shape(ids)[0])[:, None], tf.shape(boundary))
    is_start = (
      tf.scatter_nd(
        tf.stack([row, boundary], axis=-1),
        tf.ones_like(boundary),
        tf.stack([tf.shape(ids)[0], sequences.max_seq_length + 1]),
      )[:, :-1]
      > 0
    )
    positions, weights = masking.choose(
      self._masking, is_special, is_start | tf.equal(place, 0), seed
    )
    tokens = masking.corrupt(
      self._masking, ids, positions, special_ids["mask"], sequences.vocab_size, seed
    )
    used = tf.cast(weights, tf.int32)
    return {
      "input_ids": pretraining.place_tokens(ids, positions, tokens, weights),
      "origin_ids": ids,
      "segment_ids": segment_ids,
      "input_mask": mask,
      "masked_lm_positions": positions,
      "masked_lm_weights": weights,
      "masked_lm_ids": tf.gather(ids, positions, batch_dims=1) * used,
      # Funnel's label is 1 if the second text continues the first, BERT's is 0.
      "next_sentence_labels": 1 - features["label"],
      "next_sentence_positions": tf.zeros_like(features["label"]),
    }


class PretrainingTask(base.Task):
  """Pretraining on records of either form.

  Example:
    sequences = Sequences(128, tokenizer.special_ids, tokenizer.vocab_size)
    task = PretrainingTask("mlm", FunnelRecords(sequences, masking.Masking("whole_word", 19)),
                           sequences)
  """

  job = "pretraining"

  def __init__(
    self,
    loss_type: str,
    records: BertRecords | FunnelRecords,
    sequences: Sequences,
    width_shrink: float = 0.25,
    disc_coeff: float = 50.0,
    eval_split: str = "dev",
  ):
    """Makes the task.

    Args:
      loss_type: "bert" (masked words and next sentence), "mlm" or "electra".
      records: form of the records.
      sequences: their sequences.
      width_shrink: width of ELECTRA's generator as a fraction of the discriminator's.
      disc_coeff: weight of the discriminator's loss.
      eval_split: split name shown with evaluation results.
    """
    if loss_type not in LOSS_TYPES:
      raise UserError(f"--loss_type={loss_type} is unknown; use one of {', '.join(LOSS_TYPES)}")
    self.name = f"pretraining_{loss_type}"
    self.loss_type = loss_type
    self.eval_split = eval_split
    self._records = records
    self._sequences = sequences
    self._width_shrink = width_shrink
    self._disc_coeff = disc_coeff
    self.is_grouped = records.has_input_mask
    self.feature_specs = records.feature_specs
    self.metrics = {
      "bert": (
        "masked_lm_accuracy",
        "perplexity",
        "next_sentence_accuracy",
        "loss_mlm",
        "loss_nsp",
      ),
      "mlm": ("masked_lm_accuracy", "perplexity"),
      "electra": (
        "masked_lm_accuracy",
        "perplexity",
        "replaced_precision",
        "replaced_recall",
        "disc_accuracy",
        "loss_gen",
        "loss_disc",
      ),
    }[loss_type]

  feature_specs = ()  # set for each form of records

  def ranges(self, vocab_size, num_segments, max_seq_length):
    # Records of the other family have its segment of [CLS], see Sequences.cut.
    num_segments = max(num_segments, 1 + max(modeling.CLS_SEGMENT_IDS.values()))
    return super().ranges(vocab_size, num_segments, max_seq_length)

  sequence_features = {
    "input_ids",
    "origin_ids",
    "segment_ids",
    "input_mask",
    "is_mask_symbol",
    "sequence_ids",
  }

  def prepare(self, features, seed):
    prepared = self._records.prepare(features, seed)
    is_mask = tf.equal(prepared["input_ids"], self._sequences.special_ids["mask"])
    return {
      **prepared,
      "is_mask_symbol": tf.cast(is_mask, tf.int32),
      "is_real_example": tf.ones_like(prepared["input_ids"][:, 0]),
    }

  def loss_weights(self, features):
    masked = tf.reduce_sum(features["masked_lm_weights"], axis=1)
    if self.loss_type == "mlm":
      return {"mlm": masked}
    if self.loss_type == "electra":
      return {
        "gen": masked,
        "disc": tf.reduce_sum(tf.cast(features["input_mask"], tf.float32), axis=1),
      }
    pairs = tf.cast(features["next_sentence_labels"] >= 0, tf.float32)
    return {"mlm": masked, "nsp": tf.reduce_sum(pairs, axis=1)}

  def build(self, encoder, features):
    if self.loss_type == "electra":
      return self._build_electra(encoder, features)
    logits = encoder.masked_lm_logits()
    losses = {
      "mlm": pretraining.masked_token_losses(
        logits, features["masked_lm_ids"], features["masked_lm_weights"]
      )
    }
    counts = _masked_counts(logits, losses["mlm"], features)
    if self.loss_type == "bert":
      labels = features["next_sentence_labels"]  # [B, S], -1 = unused
      pairs = tf.cast(labels >= 0, tf.float32)
      logits = encoder.next_sentence_logits()  # [B, S, 2]
      losses["nsp"] = tf.reduce_sum(
        pairs
        * tf.nn.sparse_softmax_cross_entropy_with_logits(
          labels=tf.maximum(labels, 0), logits=logits
        ),
        axis=1,
      )
      guesses = tf.argmax(logits, axis=-1, output_type=tf.int32)
      counts["pairs"] = tf.reduce_sum(pairs, axis=1)
      counts["pairs_right"] = tf.reduce_sum(pairs * _equal(guesses, labels), axis=1)
    return self._output(losses, counts)

  def _build_electra(self, encoder, features):
    outputs = encoder.electra(self._width_shrink)
    counts = _masked_counts(outputs["generator_logits"], outputs["generator_losses"], features)
    real = tf.cast(features["input_mask"], tf.float32)
    replaced = tf.cast(outputs["is_replaced"], tf.float32)
    guessed = tf.cast(outputs["guessed_replaced"], tf.float32) * real
    counts.update(
      {
        "replaced": tf.reduce_sum(replaced, axis=1),
        "guessed": tf.reduce_sum(guessed, axis=1),
        "found": tf.reduce_sum(replaced * guessed, axis=1),
      }
    )
    return self._output(
      {
        "gen": outputs["generator_losses"],
        "disc": self._disc_coeff * outputs["discriminator_losses"],
      },
      counts,
    )

  def _output(self, losses, counts):
    return base.TaskOutput(
      losses, counts, {name: tf.reduce_sum(value) for name, value in counts.items()}
    )

  def monitors(self, sums):
    values = rates(sums, tf.math.divide_no_nan)
    values["perplexity"] = tf.exp(values.pop("masked_lm_loss"))
    return values

  def score(self, split, predictions):
    del split
    names = (
      "masked",
      "masked_right",
      "masked_loss",
      "pairs",
      "pairs_right",
      "tokens",
      "replaced",
      "guessed",
      "found",
    )
    sums = {
      name: float(np.sum(predictions[name], dtype=np.float64))
      for name in names
      if name in predictions
    }
    values = rates(sums, lambda a, b: a / b if b else 0.0)
    values["perplexity"] = float(np.exp(min(values.pop("masked_lm_loss"), 700.0)))
    return values

  def combine(self, metrics):
    joined = {}
    for split, values in metrics.items():
      suffix = f"_{split}" if len(metrics) > 1 else ""
      joined.update({name + suffix: value for name, value in values.items()})
    return {**joined, "score": -float(np.mean([values["loss"] for values in metrics.values()]))}


def _equal(a, b):
  return tf.cast(tf.equal(a, b), tf.float32)


def _masked_counts(logits, losses, features):
  """Returns name -> float32 [B]: tokens, masked tokens, correct ones, sum of their losses."""
  weights, ids = features["masked_lm_weights"], features["masked_lm_ids"]
  right = _equal(tf.argmax(logits, axis=-1, output_type=tf.int32), ids)
  return {
    "tokens": tf.reduce_sum(tf.cast(features["input_mask"], tf.float32), axis=1),
    "masked": tf.reduce_sum(weights, axis=1),
    "masked_right": tf.reduce_sum(weights * right, axis=1),
    "masked_loss": losses,
  }


def rates(sums: dict, divide) -> dict:
  """Metrics from sums over tokens or examples (tensors or numbers, as `divide` takes them)."""
  values = {
    "masked_lm_accuracy": divide(sums["masked_right"], sums["masked"]),
    "masked_lm_loss": divide(sums["masked_loss"], sums["masked"]),
  }
  if "pairs" in sums:
    values["next_sentence_accuracy"] = divide(sums["pairs_right"], sums["pairs"])
  if "found" in sums:
    values["replaced_precision"] = divide(sums["found"], sums["guessed"])
    values["replaced_recall"] = divide(sums["found"], sums["replaced"])
    wrong = sums["replaced"] + sums["guessed"] - 2 * sums["found"]
    values["disc_accuracy"] = 1 - divide(wrong, sums["tokens"])
  return values
