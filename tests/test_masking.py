"""Masks drawn during training."""

import numpy as np
import pytest
import tensorflow as tf
import tiny  # noqa: F401 (puts the repository on the path)

from errors import UserError
from tasks import masking, pretraining

LENGTH = 40
SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


def example(batch, real=LENGTH, seed=0):
  """ids, is_special, is_start [batch, LENGTH]: [cls] words [sep] padding, words of 1-4 tokens."""
  draw = np.random.RandomState(seed)
  ids = draw.randint(5, 100, [batch, LENGTH])
  start = draw.rand(batch, LENGTH) < 0.5
  ids[:, 0], ids[:, real - 1], ids[:, real:] = 2, 3, 0
  special = ids < 5
  after_special = np.pad(special, [(0, 0), (1, 0)])[:, :-1]
  return ids, special, (start | after_special) & ~special


def choose(settings, special, start, seed=(1, 2)):
  return [
    x.numpy()
    for x in masking.choose(settings, tf.constant(special), tf.constant(start), tf.constant(seed))
  ]


def chosen_places(positions, weights):
  return [set(row[used > 0]) for row, used in zip(positions, weights, strict=True)]


@pytest.mark.parametrize("strategy", masking.STRATEGIES)
def test_masked_positions_are_distinct_real_and_as_many_as_requested(strategy):
  settings = masking.Masking(strategy, 7)
  for real, wanted in ((LENGTH, 7), (18, 4), (3, 1), (2, 0)):
    _, special, start = example(50, real)
    positions, weights = choose(settings, special, start)
    places = chosen_places(positions, weights)
    assert (weights.sum(1) == wanted).all()
    assert all(len(row) == wanted for row in places)  # none twice
    assert not any(special[i, p] for i, row in enumerate(places) for p in row)
    assert (positions[weights == 0] == 0).all()
    kept = positions[:, :wanted]
    assert (np.diff(kept, axis=1) > 0).all()


@pytest.mark.parametrize(
  "wrong, message",
  [
    (dict(min_tok=6), "--min_tok=6 is more than --max_tok=5"),
    (dict(min_word=3, max_word=2), "--min_word=3 is more than --max_word=2"),
    (dict(leak_ratio=0.9, rand_ratio=0.5), "together at most 1"),
    (dict(rand_ratio=-0.1), "fractions of the masked tokens"),
  ],
)
def test_contradicting_settings_are_refused(wrong, message):
  with pytest.raises(UserError, match=message):
    masking.Masking("token_span", 7, **wrong)


@pytest.mark.parametrize("strategy", masking.STRATEGIES)
def test_draws_are_a_function_of_the_seed(strategy):
  settings = masking.Masking(strategy, 7)
  _, special, start = example(20)
  one, same, other = (
    choose(settings, special, start, seed)[0] for seed in ((1, 2), (1, 2), (1, 3))
  )
  assert (one == same).all() and (one != other).any(axis=1).mean() > 0.9


def words_of(start, special):
  """Word number of each token; -1 for special tokens."""
  return np.where(special, -1, np.cumsum(start | special, axis=1))


def test_words_are_masked_whole_except_to_fill_the_quota():
  _, special, start = example(300)
  words = words_of(start, special)
  sizes = np.array([[np.sum(row == word) if word >= 0 else 0 for word in row] for row in words])
  broken = 0
  for i, row in enumerate(chosen_places(*choose(masking.Masking("whole_word", 7), special, start))):
    parts = {
      words[i, p]
      for p in row
      if any(words[i, q] == words[i, p] and q not in row for q in range(LENGTH))
    }
    broken += len(parts)
  # The fill is the rest of the quota that the next word does not fit: shorter than that word.
  assert broken / 300 < sizes.max()
  assert broken / 300 < 1.0
  singles = 0
  for i, row in enumerate(
    chosen_places(*choose(masking.Masking("single_token", 7), special, start))
  ):
    singles += len(
      {
        words[i, p]
        for p in row
        if any(words[i, q] == words[i, p] and q not in row for q in range(LENGTH))
      }
    )
  assert singles / 300 > 2.0  # single tokens do break words, so the check above can fail


@pytest.mark.parametrize("strategy, shortest, longest", [("token_span", 2, 4), ("word_span", 2, 2)])
def test_spans_have_the_requested_lengths(strategy, shortest, longest):
  """The quota allows one span, so its length is visible; ends of the text may truncate it."""
  settings = masking.Masking(
    strategy,
    longest if strategy == "token_span" else 12,
    min_tok=2,
    max_tok=4,
    min_word=2,
    max_word=2,
  )
  _, special, start = example(400)
  words = words_of(start, special)
  runs = []
  for i, row in enumerate(chosen_places(*choose(settings, special, start))):
    units = sorted(row) if strategy == "token_span" else sorted({words[i, p] for p in row})
    run = 1
    for a, b in zip(units, units[1:], strict=False):
      if b == a + 1:
        run += 1
      else:
        runs.append(run)
        run = 1
    runs.append(run)
  counts = np.bincount(runs, minlength=10)
  assert counts[shortest : longest + 1].sum() > counts[1] and counts[2:].sum() > 200


def test_span_lengths_follow_one_over_length_plus_one():
  starts = masking._span_starts(tf.constant([2000, 60]), 1, 4, tf.constant([3, 4])).numpy()
  lengths = np.concatenate([np.diff(np.flatnonzero(row)) for row in starts])
  expected = np.array([1 / 2, 1 / 3, 1 / 4, 1 / 5])
  # Long spans are a little rarer because the end of the row truncates them.
  np.testing.assert_allclose(
    np.bincount(lengths)[1:] / len(lengths), expected / expected.sum(), atol=0.02
  )


def test_masked_tokens_are_kept_replaced_or_random_at_their_rates():
  settings = masking.Masking("single_token", 8, leak_ratio=0.2, rand_ratio=0.3)
  ids = np.tile(np.arange(1000, 1000 + LENGTH), [3000, 1])
  positions = np.tile(np.arange(8), [3000, 1])
  tokens = masking.corrupt(
    settings,
    tf.constant(ids, tf.int32),
    tf.constant(positions, tf.int32),
    4,
    500,
    tf.constant([5, 6]),
  ).numpy()
  own = tokens == positions + 1000
  assert own.mean() == pytest.approx(0.2, abs=0.01)
  assert (tokens == 4).mean() == pytest.approx(0.5, abs=0.01)
  other = tokens[~own & (tokens != 4)]
  assert other.max() < 500 and len(set(other)) > 450


def test_truncation_reserves_the_last_positions():
  """The original's rule: L - stride tokens, [sep], stride - 1 positions of padding."""
  sequences = pretraining.Sequences(8, SPECIAL_IDS, 100, cls_segment_id=2, reserved_positions=3)
  ids = [[2, 10, 11, 3, 12, 13, 14, 3], [2, 10, 11, 3, 3, 0, 0, 0], [2, 10, 11, 12, 3, 3, 0, 0]]
  segments = [[0, 0, 0, 0, 1, 1, 1, 1], [2, 0, 0, 0, 1, 0, 0, 0], [2, 0, 0, 0, 0, 1, 0, 0]]
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # as the estimator runs it
    ids, segments, mask = (
      x.tolist()
      for x in session.run(
        sequences.cut(tf.constant(ids), tf.constant(segments), tf.constant([8, 5, 6]))
      )
    )
  assert ids == [
    [2, 10, 11, 3, 3, 0, 0, 0],
    [2, 10, 11, 3, 3, 0, 0, 0],
    [2, 10, 11, 12, 3, 0, 0, 0],
  ]
  assert segments[0] == [2, 0, 0, 0, 1, 0, 0, 0] and segments[2] == [2, 0, 0, 0, 0, 0, 0, 0]
  assert mask == [[1] * 5 + [0] * 3] * 3
