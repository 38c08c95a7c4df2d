"""The input pipeline of pretraining: records, masks, shapes, compression."""

import dataclasses

import numpy as np
import pytest
import tiny
import tiny_pretraining_task
from tiny_pretraining_task import LENGTH, batches_of, bert_source, funnel_source, losses_of

import config
import create_pretraining_data
import modeling
from errors import UserError
from preprocessing import pretraining_records, record_files
from tasks import masking
from training import inputs

records = tiny_pretraining_task.records


def test_bert_records_restore_the_text(records):
  source = bert_source(records)
  plain = bert_source(records, reserved_positions=3)
  vocab = open(records / "bert" / "vocab.txt").read().split()
  text = open(records / "text.txt").read().split()
  known = {(a, b) for a, b in zip(text, text[1:], strict=False)}
  for batch in batches_of(inputs.predict_input_fn(source, 8, False), 3):
    used = batch["masked_lm_weights"] > 0
    assert (
      np.take_along_axis(batch["origin_ids"], batch["masked_lm_positions"], 1)
      == batch["masked_lm_ids"]
    )[used].all()
    differs = batch["origin_ids"] != batch["input_ids"]
    assert differs.sum(1).max() <= 4 and differs.any()
    for ids, mask, segments in zip(
      batch["origin_ids"], batch["input_mask"], batch["segment_ids"], strict=True
    ):
      words = [vocab[i] for i in ids[mask > 0]]
      assert words[0] == "[CLS]" and words[-1] == "[SEP]" and "[MASK]" not in words
      first = words[1 : words.index("[SEP]", 1)]
      assert all(pair in known for pair in zip(first, first[1:], strict=False))
      assert segments[words.index("[SEP]", 1) + 1] == 1
  # The last positions are free.
  for batch in batches_of(inputs.predict_input_fn(plain, 8, False), 3):
    assert not batch["input_mask"][:, LENGTH - 3 :].any()
    used = batch["masked_lm_weights"] > 0
    assert (
      np.take_along_axis(batch["origin_ids"], batch["masked_lm_positions"], 1)
      == batch["masked_lm_ids"]
    )[used].all()


@pytest.mark.smoke
@pytest.mark.parametrize("block_size", ["1_1_1", "1_1_1_1", "1_1_1_1_1"])
def test_bert_records_fit_a_deeper_funnel(records, block_size):
  """Masked positions beyond the truncated sequence are dropped; the others count in the loss."""
  model_config = modeling.ModelConfig(
    vocab_size=len(tiny.VOCAB),
    block_size=block_size,
    d_model=8,
    d_embed=8,
    n_head=2,
    d_head=4,
    d_inner=8,
    decoder_size="1",
  )
  reserved = model_config.reserved_positions
  source = dataclasses.replace(
    bert_source(records, "mlm", reserved_positions=reserved),
    padded_length=model_config.padded_length,
  )
  batches = batches_of(inputs.predict_input_fn(source, 8, False), 5)
  assert {batch["input_ids"].shape[1] for batch in batches} <= {9, 17, LENGTH}
  for batch in batches:
    assert (batch["masked_lm_positions"] < batch["input_mask"].sum(1, keepdims=True)).all()
    assert batch["masked_lm_weights"].any() or reserved > 7
    losses_of(source.task, model_config, batch)


@pytest.mark.parametrize("strategy", masking.STRATEGIES)
def test_funnel_records_get_new_masks_in_every_epoch(records, strategy):
  source = funnel_source(records, strategy, reserved_positions=3)
  steps = source.num_examples // 4
  input_fn = inputs.train_input_fn(source, 4, 1, 0, 1, False)
  batches = batches_of(input_fn, 2 * steps)
  masks = {}
  for batch in batches:
    for ids, positions, weights, mask in zip(
      batch["origin_ids"],
      batch["masked_lm_positions"],
      batch["masked_lm_weights"],
      batch["input_mask"],
      strict=True,
    ):
      masks.setdefault(ids.tobytes(), []).append(tuple(positions[weights > 0]))
      assert mask.sum() <= LENGTH - 3 and (positions < LENGTH - 4).all()
  twice = [pair for pair in masks.values() if len(pair) == 2]
  assert len(twice) > 5
  assert sum(a != b for a, b in twice) / len(twice) > 0.9


@pytest.mark.parametrize("cls_segment_id", [0, 2])
def test_cls_has_the_segment_id_of_the_model(records, cls_segment_id):
  """[CLS] has segment 0 in BERT and 2 in Funnel, for either form of the records."""
  for make_source in (bert_source, funnel_source):
    source = make_source(records, cls_segment_id=cls_segment_id)
    for batch in batches_of(inputs.predict_input_fn(source, 8, False), 2):
      assert (batch["segment_ids"][:, 0] == cls_segment_id).all()
      assert set(np.unique(batch["segment_ids"][:, 1:])) == {0, 1}


def test_pipeline_starts_at_any_step_and_reads_every_example(records):
  for source in (bert_source(records), funnel_source(records, "word_span")):
    number = source.num_examples
    whole = batches_of(inputs.train_input_fn(source, 3, 7, 0, 1, False), 30)
    for start in (1, 11, 29):
      rest = batches_of(inputs.train_input_fn(source, 3, 7, start, 1, False), 30 - start)
      for a, b in zip(whole[start:], rest, strict=True):
        for name in a:
          np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    source.task.is_grouped = False  # grouping by length mixes examples of two epochs
    epoch = batches_of(inputs.train_input_fn(source, 1, 7, 0, 1, False), number)
    seen = sorted(batch["origin_ids"].tobytes() for batch in epoch)
    all_of_it = batches_of(inputs.predict_input_fn(source, 1, False), number)
    width = max(batch["origin_ids"].shape[1] for batch in all_of_it)
    assert width <= LENGTH and len(seen) == len(all_of_it) == number
    strip = lambda batches: sorted(
      batch["origin_ids"][batch["input_mask"] > 0].tobytes() for batch in batches
    )
    assert strip(epoch) == strip(all_of_it)


def test_shapes_are_static_for_a_tpu(records):
  for source in (bert_source(records), funnel_source(records, "whole_word")):
    for input_fn in (
      inputs.train_input_fn(source, 4, 1, 0, 1, static_shapes=True),
      inputs.predict_input_fn(source, 4, static_shapes=True),
    ):
      for name, value in input_fn().element_spec.items():
        assert value.shape.is_fully_defined(), name


def test_compressed_records_are_read(records, tmp_path):
  create_pretraining_data.create(
    pretraining_records.BertForm(
      input_file=str(records / "text.txt"),
      gzip_compress=True,
      max_seq_length=LENGTH,
      output_file=str(tmp_path / "x.tfrecord"),
      max_predictions_per_seq=4,
      dupe_factor=1,
    ),
    config.Tokenizer(tokenizer_path=str(records / "bert" / "vocab.txt")),
    create_pretraining_data.Run(num_workers=1),
  )
  path = str(tmp_path / "x.tfrecord")
  source = bert_source(records)
  source = inputs.RecordSource(
    [path], record_files.count_records(path), source.task, LENGTH, source.padded_length
  )
  record_files.check_lengths(path, source.task.feature_specs, LENGTH)
  assert len(batches_of(inputs.predict_input_fn(source, 1, False), source.num_examples)) > 5
  data = open(path, "rb").read()
  (tmp_path / "cut").write_bytes(data[: len(data) // 2])
  with pytest.raises(UserError, match="cut: the compressed file is damaged"):
    record_files.count_records(str(tmp_path / "cut"))
