"""tf.data pipelines from record files to padded batches.

The order depends only on (seed, epoch), and a pipeline can start at any step. So a run that was
stopped and restarted reads the same batches as an uninterrupted run.

Training batches group examples of similar length. The shuffled stream is cut into windows of
GROUP_BATCHES batches (at most an epoch). Each window is sorted by length and cut into batches, and
its batches are shuffled. Each batch is padded to its longest example, rounded up to
LENGTH_MULTIPLE. With sentences of 5 to 60 tokens, this saves half of the computation of padding to
60.
"""

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

from preprocessing import record_files
from tasks.base import Task
from training import losses
from utils.options import Range

GROUP_BATCHES = 32
LENGTH_MULTIPLE = 8
INTERLEAVED = 16  # files that are read at the same time
SHUFFLE_WINDOW = 1 << 17  # records in the shuffle buffer of a set of files
PREDICT_WINDOW = 1 << 17  # records that are sorted by length together for predictions
SHUFFLE_BYTES = 1 << 30  # a file up to this size is shuffled as a whole
ROW = "row"  # feature: row numbers of a batch that is split over the cores of a TPU


@dataclasses.dataclass
class RecordSource:
  """Records to read.

  Attributes:
    paths: TFRecord files, either all compressed with gzip or none.
    num_examples: number of records to use, from the first on.
    task: defines the features.
    max_seq_length: length of the sequences in the files.
    padded_length: method padded_length of the model configuration.
    invert_input_mask: input_mask is 1 on padding in the files.
    is_whole: num_examples is the number of all records of the files.
    ranges: feature -> allowed values, see Task.ranges.
    length_multiple: batches without static shapes are padded to a multiple of it.
  """

  paths: list[str]
  num_examples: int
  task: Task
  max_seq_length: int
  padded_length: Callable[[tf.Tensor, int], tf.Tensor]
  invert_input_mask: bool = False
  is_whole: bool = True
  ranges: dict[str, Range] = dataclasses.field(default_factory=dict)
  length_multiple: int = LENGTH_MULTIPLE

  @functools.cached_property
  def _compression(self):
    return record_files.compression(self.paths[0])

  @functools.cached_property
  def _window(self):
    """Size of the shuffle buffer, in records, if the files are read in order."""
    size = sum(tf.io.gfile.stat(path).length for path in self.paths)
    fitting = self.num_examples * SHUFFLE_BYTES // max(size, 1)
    return min(self.num_examples, max(fitting, SHUFFLE_WINDOW))

  def read(self) -> tf.data.Dataset:
    """Serialized examples in the files' order."""
    return tf.data.TFRecordDataset(self.paths, self._compression).take(self.num_examples)

  def read_shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
    """Serialized examples, each once, in an order that depends on `seed`, an int scalar.

    A single file is shuffled as a whole, or over a buffer of SHUFFLE_BYTES. Of several files,
    INTERLEAVED are read at the same time, and their records are shuffled over SHUFFLE_WINDOW.
    """
    if len(self.paths) == 1 or not self.is_whole:
      return self.read().shuffle(self._window, seed=seed, reshuffle_each_iteration=False)
    files = tf.data.Dataset.from_tensor_slices(self.paths)
    files = files.shuffle(len(self.paths), seed=seed, reshuffle_each_iteration=False)
    stream = files.interleave(
      lambda path: tf.data.TFRecordDataset(path, self._compression),
      cycle_length=INTERLEAVED,
      num_parallel_calls=tf.data.AUTOTUNE,
      deterministic=True,
    )
    return stream.shuffle(
      min(self.num_examples, SHUFFLE_WINDOW), seed=seed, reshuffle_each_iteration=False
    )

  def parse(self, serialized: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses a batch of serialized examples.

    Args:
      serialized: string [B].
      seed: int32 [2] or [B, 2], for the task's random masking.

    Returns:
      Features: sequences [B, max_seq_length], or [B, N, max_seq_length] if an example has N of
      them; scalars [B]. Integers are int32.
    """
    parsed = {}
    for spec in self.task.feature_specs:
      dtype = tf.as_dtype(spec.dtype)
      if spec.length == 0:
        parsed[spec.name] = tf.io.RaggedFeature(dtype)
      else:
        shape = (
          self._sequence_shape()
          if spec.is_sequence
          else []
          if spec.length is None
          else [spec.length]
        )
        parsed[spec.name] = tf.io.FixedLenFeature(shape, dtype, spec.default)
    features = tf.io.parse_example(serialized, parsed)
    self._check_ranges(features)
    features = {
      name: value.to_tensor(-1) if isinstance(value, tf.RaggedTensor) else value
      for name, value in features.items()
    }
    features = {
      name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
      for name, value in features.items()
    }
    if self.invert_input_mask:
      features["input_mask"] = 1 - features["input_mask"]
    return self.task.prepare(features, seed)

  def _check_ranges(self, features):
    """Makes the pipeline fail if a value is out of range; record_faults.py then finds the record.

    NaN is in no range.
    """
    for name, allowed in self.ranges.items():
      values = features[name]
      values = values.flat_values if isinstance(values, tf.RaggedTensor) else values
      lower, upper = (tf.cast(end, values.dtype) for end in allowed.ends)
      tf.debugging.Assert(
        tf.reduce_all((values >= lower) & (values <= upper)), [f"{name} is out of range"]
      )

  def _sequence_shape(self):
    count = self.task.sequences_per_example
    return [self.max_seq_length] if count == 1 else [count, self.max_seq_length]

  def trim(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Cuts the sequences of a batch to the longest, rounded up to length_multiple."""
    longest = tf.reduce_max(tf.reduce_sum(features["input_mask"], axis=-1))
    length = self.padded_length(longest, self.length_multiple)
    return {
      name: value[..., :length] if name in self.task.sequence_features else value
      for name, value in features.items()
    }

  def lengths(self, serialized: tf.Tensor) -> tf.Tensor:
    """Number of real tokens in the longest sequence of each serialized example: int64 [B]."""
    spec = tf.io.FixedLenFeature(self._sequence_shape(), tf.int64)
    mask = tf.io.parse_example(serialized, {"input_mask": spec})["input_mask"]
    real = tf.reduce_sum(1 - mask if self.invert_input_mask else mask, axis=-1)
    return real if real.shape.rank == 1 else tf.reduce_max(real, axis=-1)


# Without AutoGraph, which would take a second of each start. The decorator hides the arguments, and
# Estimator gives `params` only to functions that have it.
_as_written = tf.autograph.experimental.do_not_convert


def _batches(source: RecordSource, batch_size, seed, step) -> tf.data.Dataset:
  """Endless batches [batch_size] of serialized examples, from batch number `step` on.

  The stream is the concatenation of the epochs, each in its own order.
  """
  start = step * batch_size
  first_epoch = start // source.num_examples
  # Seeds begin at 1: a seed of 0 would be random.
  stream = tf.data.Dataset.range(first_epoch, 2**62).flat_map(
    lambda epoch: source.read_shuffled(1 + seed * 100_003 + epoch)
  )
  return stream.skip(start - first_epoch * source.num_examples).batch(
    batch_size, drop_remainder=True
  )


def _grouped_batches(source: RecordSource, batch_size, seed, step) -> tf.data.Dataset:
  """Batches [batch_size] of serialized examples of similar length, from batch number `step` on."""
  # A window larger than an epoch would put copies of an example into the same batch.
  group = max(min(GROUP_BATCHES, source.num_examples // batch_size), 1)
  first_window = step // group

  def sort_and_shuffle(index, serialized):
    by_length = tf.argsort(source.lengths(serialized), stable=True)
    batches = tf.reshape(tf.gather(serialized, by_length), [group, batch_size])
    order = tf.argsort(tf.random.stateless_uniform([group], [seed, index]))
    return tf.gather(batches, order)

  windows = _batches(source, batch_size * group, seed, first_window).enumerate(start=first_window)
  batches = windows.map(
    lambda index, serialized: sort_and_shuffle(tf.cast(index, tf.int32), serialized)
  ).unbatch()
  return batches.skip(step - first_window * group)


def _options(dataset: tf.data.Dataset) -> tf.data.Dataset:
  options = tf.data.Options()
  options.deterministic = True
  # Batches are already split by device; tf.data must not split files or batches again.
  options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
  return dataset.with_options(options)


def train_input_fn(
  source: RecordSource,
  batch_size: int,
  seed: int,
  step: int,
  num_replicas: int,
  static_shapes: bool,
  host: int = 0,
  num_hosts: int = 1,
) -> Callable[..., tf.data.Dataset]:
  """Returns the input function of training: endless batches from batch number `step` on.

  Args:
    source: the records.
    batch_size: examples per update over all replicas.
    seed: seed of the order.
    step: number of batches that earlier runs used.
    num_replicas: each batch is split into this number of consecutive elements, one per replica of
      all hosts.
    static_shapes: pad to max_seq_length, as TPUs need, and add the feature ROW; otherwise pad to
      the longest example of the batch.
    host: number of this host. A host reads all records, whose lengths and weights the batches
      depend on, and gets its part of each batch. A TPU gives these two numbers itself.
    num_hosts: number of hosts.

  Returns:
    input_fn for Estimator.train.
  """

  def parse(index, serialized, host, num_hosts):
    features = source.parse(serialized, tf.stack([seed, tf.cast(index, tf.int32)]))
    if static_shapes:
      features[ROW] = tf.range(batch_size)
    else:
      features = source.trim(features)
    features = losses.add_mean_weights(features, source.task.loss_weights(features))
    if num_replicas > 1:  # [batch_size, ...] -> [num_replicas, batch_size / num_replicas, ...]
      features = {
        name: tf.reshape(
          value, tf.concat([[num_replicas, batch_size // num_replicas], tf.shape(value)[1:]], 0)
        )
        for name, value in features.items()
      }
    if num_hosts > 1:  # rows of a TPU, or elements of replicas
      part = (batch_size if num_replicas == 1 else num_replicas) // num_hosts
      features = {name: value[host * part : (host + 1) * part] for name, value in features.items()}
    return features

  @_as_written
  def build(params):
    part = host, num_hosts
    if params and params.get("batch_size", batch_size) != batch_size:  # that of a TPU's host
      _, *part, _ = params["context"].current_input_fn_deployment()
    batches = _grouped_batches if source.task.is_grouped else _batches
    dataset = batches(source, batch_size, seed, step).enumerate(start=step)
    dataset = dataset.map(
      lambda index, serialized: parse(index, serialized, *part), num_parallel_calls=tf.data.AUTOTUNE
    )
    if num_replicas > 1:
      dataset = dataset.unbatch()
    return _options(dataset.prefetch(2 * num_replicas // part[1]))

  return lambda params=None: build(params)


def predict_input_fn(
  source: RecordSource, batch_size: int, static_shapes: bool
) -> Callable[..., tf.data.Dataset]:
  """Returns the input function of prediction: each example once, sorted by length.

  Records are sorted in groups of PREDICT_WINDOW. The feature `example_index`, int32 [B], is the
  example's index in the file, or -1 for copies that fill the last batch on a TPU; use it to restore
  the order.

  Args:
    source: the records.
    batch_size: examples per batch.
    static_shapes: pad to max_seq_length and fill the last batch, as TPUs need.
  """
  num_examples = source.num_examples

  @_as_written
  def build():
    dataset = tf.data.Dataset.zip(
      (tf.data.Dataset.range(num_examples, output_type=tf.int32), source.read())
    )
    if static_shapes:
      filler = source.read().take(1).repeat(-num_examples % batch_size)
      dataset = dataset.concatenate(filler.map(lambda serialized: (-1, serialized)))

    def sort(index, serialized):
      order = tf.argsort(source.lengths(serialized), stable=True)
      return tf.gather(index, order), tf.gather(serialized, order)

    if source.task.is_grouped:
      dataset = dataset.batch(PREDICT_WINDOW).map(sort).unbatch()

    def parse(index, serialized):
      # Draws for an example must not depend on its batch.
      features = source.parse(serialized, tf.stack([tf.zeros_like(index), index], axis=1))
      if not static_shapes:
        features = source.trim(features)
      return {**features, "example_index": index}

    dataset = dataset.batch(batch_size, drop_remainder=static_shapes)
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return _options(dataset.prefetch(2))

  return lambda params=None: build()
