"""Funnel-Transformer's numbers for a row do not depend on the other rows of the batch."""

import itertools
import types

import numpy as np
import pytest
import tensorflow as tf

import modeling
from training import inputs

v1 = tf.compat.v1
PAD = 5  # the id of padding in SentencePiece vocabularies; the model itself pads with 0
NAMES = ("input_ids", "input_mask", "segment_ids")


def rows_of(lengths, width):
  """Features [len(lengths), width]; row n of a length has the same tokens at every width."""
  real = np.arange(width) < np.array(lengths)[:, None]
  ids = np.stack([np.resize(np.random.RandomState(n).randint(6, 40, 64), width) for n in lengths])
  segments = np.where(np.arange(width) > 3, 1, 0) * real
  segments[:, 0] = modeling.ModelConfig.cls_segment_id
  return {
    "input_ids": np.where(real, ids, PAD),
    "input_mask": real.astype(np.int32),
    "segment_ids": segments,
  }


@pytest.mark.parametrize("blocks, pooling_size", itertools.product((2, 3, 4), (2, 3)))
@pytest.mark.parametrize("separate_cls, truncate_seq", [(True, True), (True, False), (False, True)])
def test_a_row_alone_equals_the_row_in_a_longer_batch(
  blocks, pooling_size, separate_cls, truncate_seq
):
  """The encoder's [cls] and the decoder's output, for every length that is not truncated."""
  pooling_type, pool_q_only = ("mean", True) if (blocks + pooling_size) % 2 else ("max", False)
  config = modeling.ModelConfig(
    vocab_size=40,
    block_size="_".join("1" * blocks),
    d_model=8,
    d_embed=8,
    n_head=2,
    d_head=4,
    d_inner=8,
    decoder_size="1",
    init_std=0.5,
    pooling_size=pooling_size,
    separate_cls=separate_cls,
    truncate_seq=truncate_seq,
    pooling_type=pooling_type,
    pool_q_only=pool_q_only,
  )
  task = types.SimpleNamespace(sequence_features=set(NAMES))
  source = inputs.RecordSource([], 0, task, 0, config.padded_length)
  with tf.Graph().as_default(), v1.Session() as session:
    v1.set_random_seed(1)
    given = {name: v1.placeholder(tf.int32, [None, None]) for name in NAMES}
    features = source.trim(given)
    decoded, _, ret_dict = modeling.FunnelTFM(config).extract_hiddens(
      features["input_ids"],
      False,
      features["segment_ids"],
      1 - features["input_mask"],
      use_decoder=True,
    )
    outputs = ret_dict["encoder_output"][:, 0], decoded
    session.run(v1.global_variables_initializer())

    def run(lengths, width):
      arrays = rows_of(lengths, width)
      return session.run(outputs, {given[name]: arrays[name] for name in NAMES})

    for width, first in ((64, 1), (40, 30)):  # of the records; 40 truncates their padding
      batch = run([*range(1, 41), width], width)
      for length in range(first, 41):
        cls, tokens = run([length], width)
        np.testing.assert_allclose(cls[0], batch[0][length - 1], atol=1e-5, err_msg=str(length))
        np.testing.assert_allclose(
          tokens[0, :length], batch[1][length - 1, :length], atol=1e-5, err_msg=str(length)
        )
