"""Builds pretraining examples from documents: BERT's masked pairs, Funnel's unmasked pairs.

Both builders are called with one window of documents at a time (tasks/corpus.py) and yield features
of records. All draws depend on a seed text and the window's number, so a window always gives the
same examples. Each token of a window is in exactly one example (BERT: in one per pass of
dupe_factor); random second sentences are additional copies. TensorFlow is not imported, so worker
processes start quickly.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import tokenization
from tasks.corpus import Document

Features = dict[str, list[int] | list[float]]

# Longer lines are not sentences; split them to bound memory.
_MAX_SENTENCE_TOKENS = 4096


class Encoder:
  """Turns sentences into token ids.

  Attributes:
    tokenizer: the tokenizer.
    is_start: for each id, whether its token begins a word.
    ordinary_ids: ids that may replace a masked token, sorted.
  """

  def __init__(self, tokenizer: Any):
    """Lists the ids.

    Args:
      tokenizer: from tokenization.get_tokenizer.
    """
    self.tokenizer = tokenizer
    self._eop_ids = [tokenizer.special_ids["eop"]] if "eop" in tokenizer.special_ids else []
    self.is_start = [
      tokenizer.is_start_token(tokenizer.inv_vocab[i]) for i in range(tokenizer.vocab_size)
    ]
    # Without the special symbols, and without ids whose token is repeated on a later line of the
    # vocabulary: text never has these.
    self.ordinary_ids = sorted(set(tokenizer.vocab.values()) - set(tokenizer.special_ids.values()))

  def __call__(self, sentence: str) -> list[int]:
    """Token ids of a sentence; "<eop>" (end of paragraph) is one id, or left out if it has none."""
    ids = []
    for i, part in enumerate(sentence.split(tokenization.END_OF_PARAGRAPH)):
      ids += self._eop_ids * (i > 0) + self.tokenizer.convert_text_to_ids(part)
    return ids

  def cut(self, ids: list[int], size: int) -> int:
    """Index, at most `size`, at which to cut ids: at the start of a word if possible."""
    if len(ids) <= size:
      return len(ids)
    cut = size
    while cut > 1 and not self.is_start[ids[cut]]:
      cut -= 1
    return cut if self.is_start[ids[cut]] else size


def _join(sentences: list[list[int]]) -> list[int]:
  return list(itertools.chain.from_iterable(sentences))


def _random_order(count: int, rng: random.Random) -> Iterator[int]:
  """Yields 0 to count - 1 in random order; makes one draw per number that is taken."""
  order = list(range(count))
  for i in range(count):
    j = i + int(rng.random() * (count - i))
    order[i], order[j] = order[j], order[i]
    yield order[i]


def _short(encoder: Encoder, document: Document) -> list[list[int]]:
  """Sentences of a document; longer ones than _MAX_SENTENCE_TOKENS are split."""
  sentences = []
  for rest in document.sentences:
    while len(rest) > _MAX_SENTENCE_TOKENS:
      cut = encoder.cut(rest, _MAX_SENTENCE_TOKENS)
      sentences.append(rest[:cut])
      rest = rest[cut:]
    sentences.append(rest)
  return sentences


class BertExamples:
  """Masked sentence pairs "[CLS] A [SEP] B [SEP]" for BERT, in the published form of records.

  Half of the time B is the text after A (label 0), else sentences of another document (label 1).
  The original truncates long pairs and loses the rest; here the rest goes back to the text.
  """

  def __init__(
    self,
    encoder: Encoder,
    seed: str,
    *,
    max_seq_length: int,
    max_predictions_per_seq: int,
    masked_lm_prob: float,
    short_seq_prob: float,
    dupe_factor: int,
    whole_word: bool,
    max_ngram_size: int,
    cls_segment_id: int,
    use_v2_feature_names: bool,
    pack_sequences: bool = False,
  ):
    """Stores the settings.

    Args:
      encoder: encoder of the sentences.
      seed: text that all draws depend on.
      max_seq_length: tokens per example, specials and padding included.
      max_predictions_per_seq: maximum number of masked tokens per example.
      masked_lm_prob: fraction of an example's tokens to mask.
      short_seq_prob: fraction of examples with a random shorter length, as in fine-tuning.
      dupe_factor: number of passes over the text, each cut and masked differently.
      whole_word: mask all tokens of a word or none.
      max_ngram_size: mask runs of 1 to max_ngram_size words; a run of n has weight 1/n.
      cls_segment_id: segment id of [CLS].
      use_v2_feature_names: input_word_ids, input_type_ids instead of input_ids, segment_ids.
      pack_sequences: put several short examples into a row, see `pack`.
    """
    self._pack_sequences = pack_sequences
    self._encoder = encoder
    self._seed = seed
    self._max_seq_length = max_seq_length
    self._max_tokens = max_seq_length - 3  # without [CLS] and two [SEP]
    self._max_predictions = max_predictions_per_seq
    self._masked_lm_prob = masked_lm_prob
    self._short_seq_prob = short_seq_prob
    self._dupe_factor = dupe_factor
    self._whole_word = whole_word
    self._ngram_sizes = range(1, max_ngram_size + 1)
    self._ngram_weights = [1 / n for n in self._ngram_sizes]
    self._cls_segment_id = cls_segment_id
    self._names = (
      ("input_word_ids", "input_type_ids") if use_v2_feature_names else ("input_ids", "segment_ids")
    )
    self._window = 0
    self._spare = []  # the last two documents of earlier windows
    self._without_others = 0  # documents that had no other document for random sentences

  def __call__(self, window: list[Document]) -> Iterator[Features]:
    """Yields the examples of the next window, in random order."""
    documents = [Document(document.number, _short(self._encoder, document)) for document in window]
    others = documents
    if len(documents) == 1:
      others = [*documents, *(d for d in self._spare if d.number != documents[0].number)]
      if len(others) == 1:
        others = []
        self._without_others += 1
    pairs = []
    for dupe in range(self._dupe_factor):
      rng = random.Random(f"{self._seed}/{self._window}/{dupe}")
      for document in documents:
        pairs.extend(self.pairs(document, others, rng))
    rng = random.Random(f"{self._seed}/{self._window}/order")
    rng.shuffle(pairs)
    examples = (self.features(*pair, rng) for pair in pairs)
    if self._pack_sequences:
      examples = pack(examples, *self._names, self._encoder.tokenizer.pad_id)
    yield from examples
    latest = {document.number: document for document in [*self._spare, *documents]}
    self._spare = list(latest.values())[-2:]
    self._window += 1

  def finish(self) -> Iterator[Features]:
    """Yields nothing: no text is left after the last window."""
    yield from ()

  def notes(self) -> dict[str, int]:
    """Counts for the shard's metadata, in addition to the settings."""
    return {"num_documents_without_others": self._without_others}

  def pairs(
    self, document: Document, others: list[Document], rng: random.Random
  ) -> Iterator[tuple[list[int], list[int], bool]]:
    """Yields (A, B, whether B is of another document); each token of the text once, in order.

    Worked example with room for 8 tokens: the sentences a a a | b b b | c c c (9 tokens) are taken
    and divided after the first. With a real next sentence, A is a a a and B is b b b c c; the last
    c goes back. With a random one, A is a a a, and b b b | c c c go back.

    Args:
      document: document to cut into pairs.
      others: two or more documents for random sentences; empty if there are none.
      rng: source of all draws.
    """
    rest = document.sentences[::-1]  # a stack: the next sentence is the last
    while rest:
      target = self._max_tokens
      if rng.random() < self._short_seq_prob:
        target = rng.randint(2, self._max_tokens)
      chunk, size = [], 0
      while rest and size < target:
        chunk.append(rest.pop())
        size += len(chunk[-1])
      num_a = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
      a = _join(chunk[:num_a])
      # The last sentence of a document has no next sentence. But one that fills an example by
      # itself can be divided; otherwise text with long lines would give only random pairs.
      is_last = len(chunk) == 1 and size < target
      is_random = bool(others) and (is_last or rng.random() < 0.5)
      if is_random:
        rest.extend(reversed(chunk[num_a:]))
        own = a
        at = len(own) if len(own) < self._max_tokens else self._inside(own, rng)
        end = at
      else:
        own = _join(chunk)
        end = self._encoder.cut(own, self._max_tokens)
        at = len(a) if len(a) < end else self._inside(own[:end], rng)
      if end < len(own):
        rest.append(own[end:])
      b = (
        self._other_text(document, others, target - at, self._max_tokens - at, rng)
        if (is_random)
        else own[at:end]
      )
      yield own[:at], b, is_random

  def _inside(self, ids: list[int], rng: random.Random) -> int:
    """Random index at which to divide ids without a sentence end."""
    if len(ids) == 1:
      return 1  # a document of one token and no other document: B is empty
    return self._encoder.cut(ids, rng.randint(1, min(len(ids), self._max_tokens) - 1))

  def _other_text(
    self, document: Document, others: list[Document], target: int, limit: int, rng: random.Random
  ) -> list[int]:
    """Sentences of another document: about `target` tokens, at least one, at most `limit`."""
    other = document
    while other.number == document.number:
      other = rng.choice(others)
    first = rng.randrange(len(other.sentences))
    ids = []
    for sentence in other.sentences[first:]:
      ids.extend(sentence)
      if len(ids) >= target:
        break
    return ids[: self._encoder.cut(ids, limit)]

  def features(self, a: list[int], b: list[int], is_random: bool, rng: random.Random) -> Features:
    """Masks a pair and returns its features."""
    tokenizer = self._encoder.tokenizer
    ids = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
    size = len(ids)
    words = self._words(ids, 1, 1 + len(a)) + self._words(ids, 2 + len(a), size - 1)
    positions = self._choose(words, size, rng)
    labels = [ids[position] for position in positions]
    for position in positions:
      draw = rng.random()
      if draw < 0.8:
        ids[position] = tokenizer.mask_id
      elif draw < 0.9:
        ids[position] = rng.choice(self._encoder.ordinary_ids)
    padding = [0] * (self._max_seq_length - size)
    unused = [0] * (self._max_predictions - len(positions))
    return {
      self._names[0]: ids + [tokenizer.pad_id] * len(padding),
      self._names[1]: [self._cls_segment_id, *[0] * (len(a) + 1), *[1] * (len(b) + 1), *padding],
      "input_mask": [1] * size + padding,
      "masked_lm_positions": positions + unused,
      "masked_lm_ids": labels + unused,
      "masked_lm_weights": [1.0] * len(positions) + [0.0] * len(unused),
      "next_sentence_labels": [int(is_random)],
    }

  def _words(self, ids: list[int], start: int, end: int) -> list[tuple[int, int]]:
    """Ranges of positions of the words (or tokens) in [start, end)."""
    if not self._whole_word:
      return [(position, position + 1) for position in range(start, end)]
    is_start = self._encoder.is_start
    starts = [
      position for position in range(start, end) if position == start or is_start[ids[position]]
    ]
    return list(itertools.pairwise([*starts, end])) if starts else []

  def _choose(self, words: list[tuple[int, int]], size: int, rng: random.Random) -> list[int]:
    """Positions to mask, ascending: words in random order until the quota is full.

    A word that would exceed the quota is skipped. A run of words ends before such a word, before a
    chosen word, and at the end of its segment.
    """
    quota = min(self._max_predictions, max(1, round(size * self._masked_lm_prob)))
    chosen, positions = set(), []
    for first in _random_order(len(words), rng):
      if len(positions) >= quota:
        break
      length = 1
      if len(self._ngram_sizes) > 1:
        length = rng.choices(self._ngram_sizes, self._ngram_weights)[0]
      for word in range(first, min(first + length, len(words))):
        start, end = words[word]
        is_apart = word > first and words[word - 1][1] != start
        if word in chosen or is_apart or len(positions) + end - start > quota:
          break
        chosen.add(word)
        positions.extend(range(start, end))
    return sorted(positions)


MAX_SEQUENCES_PER_ROW = 8
_PACKED_TOGETHER = 512  # examples that are packed together


def pack(
  examples: Iterable[Features], ids_name: str, segments_name: str, pad_id: int
) -> Iterator[Features]:
  """Packs several of BERT's examples into a row: first fit, longest examples first.

  A row also has sequence_ids (1 on the first example's tokens, 2 on the second's, ..., 0 on
  padding) and next_sentence_positions (the first position of each example); next_sentence_labels is
  -1 for unused entries. A row has at most as many masked tokens as an example may have.

  Example: lengths 90, 100, 30, 25 in rows of 128 give the rows (100, 25) and (90, 30).
  """
  examples = iter(examples)
  while group := list(itertools.islice(examples, _PACKED_TOGETHER)):
    rows = []  # (tokens, masked tokens, examples)
    for example in sorted(group, key=lambda example: -sum(example["input_mask"])):
      tokens, masked = sum(example["input_mask"]), int(sum(example["masked_lm_weights"]))
      for row in rows:
        if (
          row[0] + tokens <= len(example["input_mask"])
          and len(row[2]) < MAX_SEQUENCES_PER_ROW
          and row[1] + masked <= len(example["masked_lm_weights"])
        ):
          row[0] += tokens
          row[1] += masked
          row[2].append(example)
          break
      else:
        rows.append([tokens, masked, [example]])
    for _, _, members in rows:
      yield _join_examples(members, ids_name, segments_name, pad_id)


def _join_examples(
  members: list[Features], ids_name: str, segments_name: str, pad_id: int
) -> Features:
  length, places = len(members[0]["input_mask"]), len(members[0]["masked_lm_weights"])
  joined = {name: [] for name in (*members[0], "sequence_ids", "next_sentence_positions")}
  for number, example in enumerate(members, 1):
    tokens, masked = sum(example["input_mask"]), int(sum(example["masked_lm_weights"]))
    start = len(joined["input_mask"])
    joined["sequence_ids"] += [number] * tokens
    joined["next_sentence_positions"].append(start)
    joined["next_sentence_labels"] += example["next_sentence_labels"]
    for name in (ids_name, segments_name, "input_mask"):
      joined[name] += example[name][:tokens]
    for name in ("masked_lm_ids", "masked_lm_weights"):
      joined[name] += example[name][:masked]
    joined["masked_lm_positions"] += [start + p for p in example["masked_lm_positions"][:masked]]
  fill = lambda name, size, value: joined[name].extend([value] * (size - len(joined[name])))
  for name in (segments_name, "input_mask", "sequence_ids"):
    fill(name, length, 0)
  fill(ids_name, length, pad_id)
  for name, value in (("masked_lm_positions", 0), ("masked_lm_ids", 0), ("masked_lm_weights", 0.0)):
    fill(name, places, value)
  fill("next_sentence_positions", MAX_SEQUENCES_PER_ROW, 0)
  fill("next_sentence_labels", MAX_SEQUENCES_PER_ROW, -1)
  return joined


class FunnelExamples:
  """Sentence pairs "[cls] A [sep] B [sep]" of exactly seq_len tokens; masks are made in training.

  The documents of a window are shuffled and concatenated. A is the next text up to a sentence end.
  B is the text after A (label 1) or, half of the time, text from a random position in other
  documents (label 0). The rest of a window goes to the next window. The unit's last example is
  padded.
  """

  def __init__(self, encoder: Encoder, seed: str, *, seq_len: int):
    """Stores the settings.

    Args:
      encoder: encoder of the sentences.
      seed: text that all draws depend on.
      seq_len: tokens per example, specials included.
    """
    self._encoder = encoder
    self._seed = seed
    self._seq_len = seq_len
    self._num_text = seq_len - 3
    self._window = 0
    self._rest = []  # documents, or the last part of one, of the previous window

  def __call__(self, window: list[Document]) -> Iterator[Features]:
    """Yields the examples of the next window; less than one example of text is kept for later."""
    rng = random.Random(f"{self._seed}/{self._window}")
    window = list(window)
    rng.shuffle(window)
    yield from self._examples([*self._rest, *window], rng, is_last=False)
    self._window += 1

  def finish(self) -> Iterator[Features]:
    """Yields the last example, of the text that is left after the last window, if any."""
    yield from self._examples(self._rest, random.Random(f"{self._seed}/last"), is_last=True)

  def notes(self) -> dict[str, int]:
    """Counts for the shard's metadata, in addition to the settings."""
    return {}

  def _examples(
    self, documents: list[Document], rng: random.Random, is_last: bool
  ) -> Iterator[Features]:
    stream, owners, cuts = [], [], []  # tokens, document of each token, ends of sentences
    for document in documents:
      for sentence in document.sentences:
        stream.extend(sentence)
        owners.extend([document.number] * len(sentence))
        cuts.append(len(stream))
    start = next_cut = 0
    # Unless it is the last, an example is built only if there is enough text to fill it.
    while len(stream) - start >= (1 if is_last else self._num_text):
      end = min(start + self._num_text, len(stream))
      while next_cut < len(cuts) and cuts[next_cut] <= start:
        next_cut += 1
      last_cut = next_cut
      while last_cut < len(cuts) and cuts[last_cut] < end:
        last_cut += 1
      if last_cut > next_cut:
        at = cuts[rng.randrange(next_cut, last_cut)]
      else:  # no sentence ends in this text
        text = stream[start:end]
        at = start + self._encoder.cut(text, rng.randint(1, max(1, len(text) - 1)))
      b_start = None
      if last_cut == next_cut or rng.random() < 0.5:
        b_start = self._place(owners, start, at, rng)
      if b_start is None:
        yield self.features(stream[start:at], stream[at:end], True)
        start = end
      else:
        b = stream[b_start : b_start + self._num_text - (at - start)]
        yield self.features(stream[start:at], b, False)
        start = at
    self._rest = self._leftover(stream, owners, cuts, start)

  def _place(self, owners: list[int], start: int, at: int, rng: random.Random) -> int | None:
    """Start of a B from other documents than those of A, [start, at); None if none is found."""
    size = self._num_text - (at - start)
    mine = set(owners[start:at])
    for _ in range(20 if len(owners) >= size else 0):
      place = rng.randint(0, len(owners) - size)
      if mine.isdisjoint(owners[place : place + size]):
        return place
    return None

  @staticmethod
  def _leftover(
    stream: list[int], owners: list[int], cuts: list[int], start: int
  ) -> list[Document]:
    """Returns the text from `start` on as documents."""
    left = []
    for cut in cuts:
      if cut > start:
        if not left or left[-1].number != owners[start]:
          left.append(Document(owners[start], []))
        left[-1].sentences.append(stream[start:cut])
        start = cut
    return left

  def features(self, a: list[int], b: list[int], is_next: bool) -> Features:
    """Pads a pair, if it is too short, and returns its features."""
    tokenizer = self._encoder.tokenizer
    ids = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
    special = (0, len(a) + 1, len(ids) - 1)
    boundary = [
      position
      for position, token in enumerate(ids)
      if position in special or self._encoder.is_start[token]
    ]
    padding = self._seq_len - len(ids)
    return {
      "input": ids + [tokenizer.pad_id] * padding,
      "seg_id": [2, *[0] * (len(a) + 1), *[1] * (len(b) + 1), *[0] * padding],
      "boundary": boundary,
      "label": [int(is_next)],
    }


def make_encoder(*args: Any, **kwargs: Any) -> Encoder:
  """Encoder with the tokenizer of tokenization.get_tokenizer(*args, **kwargs).

  Raises:
    UserError: the vocabulary lacks a symbol that pretraining needs.
  """
  tokenizer = tokenization.get_tokenizer(*args, **kwargs)
  tokenizer.mask_id  # noqa: B018 (raises if there is none)
  return Encoder(tokenizer)
