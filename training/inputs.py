"""tf.data pipelines: from record files to padded batches.

Order is a function of (seed, epoch) alone, and a pipeline can start at any step, so a run that was
stopped and restarted sees what an uninterrupted one sees.

Training batches group examples of like length. The shuffled stream is cut into windows of
GROUP_BATCHES batches (an epoch at most), each window is sorted by length and cut into batches, and
its batches are shuffled. Every batch is then padded to its own longest example, rounded up to
LENGTH_MULTIPLE: with sentences of 5 to 60 tokens half of the work of padding each batch to 60 is
saved.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from errors import UserError
from tasks.base import Task

GROUP_BATCHES = 32
LENGTH_MULTIPLE = 8
MEAN_WEIGHT = "mean_weight/"  # prefix of the features with Task.loss_weights' means over a batch


@dataclasses.dataclass
class RecordSource:
  """Records to read.

  Attributes:
    path: the TFRecord file.
    num_examples: how many of its records to use, from the first on.
    task: knows the features.
    max_seq_length: length of the sequences in the file.
    invert_input_mask: the file's input_mask is 1 on padding.
    reserved_positions: how many positions after the last token the model needs as padding.
  """

  path: str
  num_examples: int
  task: Task
  max_seq_length: int
  invert_input_mask: bool = False
  reserved_positions: int = 0

  def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses serialized examples [B]: sequences [B, max_seq_length], scalars [B], ints int32."""
    parsed = {}
    for spec in self.task.feature_specs:
      shape = [self.max_seq_length] if spec.is_sequence else []
      parsed[spec.name] = tf.io.FixedLenFeature(shape, tf.as_dtype(spec.dtype), spec.default)
    features = tf.io.parse_example(serialized, parsed)
    features = {name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
                for name, value in features.items()}
    if self.invert_input_mask:
      features["input_mask"] = 1 - features["input_mask"]
    return features

  def trim(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Cuts the sequences of a batch to its longest, rounded up to LENGTH_MULTIPLE."""
    used = tf.reduce_max(tf.reduce_sum(features["input_mask"], axis=1)) + self.reserved_positions
    length = (used + LENGTH_MULTIPLE - 1) // LENGTH_MULTIPLE * LENGTH_MULTIPLE
    return {spec.name: features[spec.name][:, :length] if spec.is_sequence else features[spec.name]
            for spec in self.task.feature_specs}

  def lengths(self, serialized: tf.Tensor) -> tf.Tensor:
    """int64 [B]: number of real tokens of serialized examples."""
    mask = tf.io.FixedLenFeature([self.max_seq_length], tf.int64)
    real = tf.reduce_sum(tf.io.parse_example(serialized, {"input_mask": mask})["input_mask"], 1)
    return self.max_seq_length - real if self.invert_input_mask else real


def _epochs(source: RecordSource, seed: int, start: int) -> tf.data.Dataset:
  """Endless stream of serialized examples from position `start` on, reshuffled in every epoch."""
  num_examples = source.num_examples

  def one_epoch(epoch):
    records = tf.data.TFRecordDataset(source.path).take(num_examples)
    # The whole file is shuffled: its serialized records are small. A seed of 0 would be random.
    return records.shuffle(num_examples, seed=1 + seed * 100_003 + epoch,
                           reshuffle_each_iteration=False)

  first_epoch = start // num_examples
  stream = tf.data.Dataset.range(first_epoch, 2**62).flat_map(one_epoch)
  return stream.skip(start - first_epoch * num_examples)


def _grouped_batches(source, batch_size, seed, step) -> tf.data.Dataset:
  """Batches [batch_size] of serialized examples of like length, from batch number `step` on."""
  # A window larger than an epoch would put the copies of an example side by side.
  group = max(min(GROUP_BATCHES, source.num_examples // batch_size), 1)
  window = batch_size * group
  first_window = step // group

  def sort_and_shuffle(index, serialized):
    by_length = tf.argsort(source.lengths(serialized), stable=True)
    batches = tf.reshape(tf.gather(serialized, by_length), [group, batch_size])
    order = tf.argsort(tf.random.stateless_uniform([group], [seed, index]))
    return tf.gather(batches, order)

  windows = _epochs(source, seed, first_window * window).batch(window, drop_remainder=True)
  windows = windows.enumerate(start=first_window)
  batches = windows.map(lambda index, serialized: sort_and_shuffle(
      tf.cast(index, tf.int32), serialized)).unbatch()
  return batches.skip(step - first_window * group)


def _options(dataset: tf.data.Dataset) -> tf.data.Dataset:
  options = tf.data.Options()
  options.deterministic = True
  # Batches already are what each device gets; tf.data must not split files or batches again.
  options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
  return dataset.with_options(options)


def train_input_fn(source: RecordSource, batch_size: int, seed: int, step: int, num_replicas: int,
                   static_shapes: bool) -> Callable[..., tf.data.Dataset]:
  """Endless training batches from batch number `step` on.

  Args:
    source: the records.
    batch_size: examples per update over all replicas.
    seed: seed of the order.
    step: number of batches that earlier runs consumed.
    num_replicas: each batch is dealt out in this many consecutive elements, one per replica.
    static_shapes: pad to max_seq_length, as TPUs need; else to the batch's own length.

  Returns:
    input_fn for Estimator.train.
  """

  def parse(serialized):
    features = source.parse(serialized)
    if not static_shapes:
      features = source.trim(features)
    for name, weight in source.task.loss_weights(features).items():
      features[MEAN_WEIGHT + name] = tf.fill([batch_size], tf.reduce_mean(weight))
    if num_replicas > 1:  # [batch_size, ...] -> [num_replicas, batch_size / num_replicas, ...]
      features = {name: tf.reshape(value, tf.concat(
          [[num_replicas, batch_size // num_replicas], tf.shape(value)[1:]], 0))
                  for name, value in features.items()}
    return features

  def input_fn(params=None):
    if params and params.get("batch_size", batch_size) != batch_size:
      raise UserError(f"each host would be fed {params['batch_size']} of {batch_size} examples: "
                      f"training on several TPU hosts is not supported, use --num_hosts=1")
    dataset = _grouped_batches(source, batch_size, seed, step)
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    if num_replicas > 1:
      dataset = dataset.unbatch()
    return _options(dataset.prefetch(2 * num_replicas))

  return input_fn


def predict_input_fn(source: RecordSource, batch_size: int,
                     static_shapes: bool) -> Callable[..., tf.data.Dataset]:
  """Every example exactly once, the shortest first.

  Adds the feature `example_index`: its place in the file, -1 for the copies that fill the last
  batch on TPU. Predictions must be put back in order by it.
  """
  num_examples = source.num_examples

  def input_fn(params=None):
    del params
    dataset = tf.data.TFRecordDataset(source.path).take(num_examples).batch(num_examples)
    filler = -num_examples % batch_size if static_shapes else 0

    def sort(serialized):
      index = tf.argsort(source.lengths(serialized), stable=True)
      index = tf.concat([index, tf.repeat(index[:1], filler)], 0)
      mark = tf.concat([index[:num_examples], tf.fill([filler], -1)], 0)
      return mark, tf.gather(serialized, index)

    def parse(index, serialized):
      features = source.parse(serialized)
      if not static_shapes:
        features = source.trim(features)
      return {**features, "example_index": index}

    dataset = dataset.map(sort).unbatch().batch(batch_size, drop_remainder=static_shapes)
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return _options(dataset.prefetch(2))

  return input_fn
