"""Pretraining: the losses, the input pipeline over many files, and run_pretraining.py."""

import dataclasses
import glob
import json
import os
import shutil
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tiny

import config
import create_pretraining_data
import modeling
from errors import UserError
from models.funnel_config import ModelConfig
from preprocessing import pretraining_records, pretraining_sets, record_files
from tasks import base, masking, pretraining
from tasks.settings import Pretraining
from training import checkpoints, devices, inputs, tf_compat
from training import pretraining as pretraining_job
from training.model_fn import ModelFn

v1 = tf.compat.v1
GOLDEN = os.path.join(os.path.dirname(__file__), "golden")
LENGTH = 24


def write_text(path, seed=1, count=60):
  """Documents of three sentences each."""
  lines = []
  for index, (sentence, _) in enumerate(tiny.sentences(count, seed)):
    lines += [sentence] + ([""] if index % 3 == 2 else [])
  path.write_text("\n".join(lines) + "\n")
  return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A folder with the vocabularies and records of both forms: bert-*, funnel/."""
  folder = tmp_path_factory.mktemp("pretraining")
  tiny.write_encoder(folder / "bert", dropout=0.0)
  tiny.write_funnel(folder / "model", dropout=0.0)
  text = write_text(folder / "text.txt")
  run = create_pretraining_data.Run(num_workers=1)
  create_pretraining_data.create(
    pretraining_records.BertForm(
      input_file=text,
      output_file=str(folder / "bert.tfrecord"),
      num_shards=3,
      max_seq_length=LENGTH,
      max_predictions_per_seq=4,
      dupe_factor=2,
    ),
    config.Tokenizer(tokenizer_path=str(folder / "bert" / "vocab.txt")),
    run,
  )
  for split in ("train", "dev"):
    create_pretraining_data.create(
      pretraining_records.FunnelForm(
        input_glob=text, save_dir=str(folder / "funnel"), num_task=2, seq_len=LENGTH, split=split
      ),
      config.Tokenizer(tokenizer_path=str(folder / "model" / "vocab.uncased.txt")),
      run,
    )
  return folder


def sequences_of(vocab_path, **kwargs):
  words = open(vocab_path).read().split()
  special = {
    role: next(i for i, word in enumerate(words) if word.strip("[]<>").lower() == role)
    for role in ("pad", "unk", "cls", "sep", "mask")
  }
  return pretraining.Sequences(LENGTH, special, len(words), **kwargs)


def bert_source(made, loss_type="bert", **kwargs):
  sequences = sequences_of(made / "bert" / "vocab.txt", **kwargs)
  task = pretraining.PretrainingTask(loss_type, pretraining.BertRecords(sequences, 4), sequences)
  paths = sorted(glob.glob(str(made / "bert.tfrecord-*")))
  return inputs.RecordSource(
    paths,
    sum(map(record_files.count_records, paths)),
    task,
    LENGTH,
    modeling.BertConfig(9).padded_length,
  )


def funnel_source(made, strategy="single_token", **kwargs):
  sequences = sequences_of(made / "model" / "vocab.uncased.txt", **{"cls_segment_id": 2, **kwargs})
  form = pretraining.FunnelRecords(sequences, masking.Masking(strategy, 4))
  task = pretraining.PretrainingTask("mlm", form, sequences)
  paths = sorted(glob.glob(str(made / "funnel" / "data.train*")))
  return inputs.RecordSource(
    paths,
    sum(map(record_files.count_records, paths)),
    task,
    LENGTH,
    modeling.BertConfig(9).padded_length,
  )


def batches_of(input_fn, count):
  with tf.Graph().as_default(), v1.Session() as session:
    batch = v1.data.make_one_shot_iterator(input_fn()).get_next()
    return [session.run(batch) for _ in range(count)]


# ---- Losses against the originals' numbers ------------------------------------------------------


def assign(session):
  """The weights of the recorded files, which depend on a variable's name alone."""
  for variable in v1.global_variables():
    name = variable.op.name
    draw = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    value = draw.normal(0, 0.15, variable.shape).astype(np.float32)
    variable.load(value + 1 if name.endswith("gamma") else value, session)


def losses_of(task, model_config, features):
  """The batch's loss of each kind, computed as training computes it."""
  with tf.Graph().as_default(), v1.Session() as session:
    features = {name: tf.constant(value) for name, value in features.items()}
    output = task.build(modeling.build_encoder(model_config, features, False), features)
    weights = task.loss_weights(features)
    assign(session)
    return session.run(
      {name: tf.reduce_sum(output.losses[name]) / tf.reduce_sum(weights[name]) for name in weights}
    )


@pytest.mark.smoke
def test_bert_losses_equal_the_original():
  data = np.load(os.path.join(GOLDEN, "bert_pretrain.npz"))
  model_config = modeling.BertConfig.from_dict(json.loads(str(data["config_json"])))
  features = {name[3:]: data[name] for name in data.files if name.startswith("in:")}
  features["next_sentence_positions"] = np.zeros([3, 1], np.int32)
  sequences = pretraining.Sequences(16, {"mask": 39}, 40)
  task = pretraining.PretrainingTask("bert", pretraining.BertRecords(sequences, 4), sequences)
  losses = losses_of(task, model_config, features)
  assert losses["mlm"] == pytest.approx(float(data["out:masked_lm_loss"]), abs=2e-5)
  assert losses["nsp"] == pytest.approx(float(data["out:next_sentence_loss"]), abs=2e-5)


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["funnel_mlm_rel_shift_base", "funnel_mlm_factorized_oneblock"])
def test_funnel_loss_equals_the_original(name):
  data = np.load(os.path.join(GOLDEN, name + ".npz"))
  values = json.loads(str(data["config_json"]))
  values.pop("flags")
  given = {key[3:]: data[key] for key in data.files if key.startswith("in:")}
  features = {
    "input_ids": given["masked_input"],
    "segment_ids": given["seg_id"],
    "input_mask": 1 - given["pad_mask"].astype(np.int32),
    "is_mask_symbol": (given["input_mask"] - given["pad_mask"]).astype(np.int32),
    "masked_lm_positions": given["target_mapping"].argmax(-1).astype(np.int32),
    "masked_lm_ids": given["target"],
    "masked_lm_weights": np.ones([3, 4], np.float32),
  }
  assert features["is_mask_symbol"].any()  # the original hides them, and the golden shows it
  sequences = pretraining.Sequences(16, {"mask": 39}, 40)
  form = pretraining.FunnelRecords(sequences, masking.Masking("single_token", 4))
  losses = losses_of(
    pretraining.PretrainingTask("mlm", form, sequences), ModelConfig.from_dict(values), features
  )
  assert losses["mlm"] == pytest.approx(float(data["out:loss"]), abs=2e-5)


# ---- The input pipeline -------------------------------------------------------------------------


def test_bert_records_restore_the_text(made):
  source = bert_source(made)
  plain = bert_source(made, reserved_positions=3)
  vocab = open(made / "bert" / "vocab.txt").read().split()
  text = open(made / "text.txt").read().split()
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
  for batch in batches_of(inputs.predict_input_fn(plain, 8, False), 3):  # the last places are free
    assert not batch["input_mask"][:, LENGTH - 3 :].any()
    used = batch["masked_lm_weights"] > 0
    assert (
      np.take_along_axis(batch["origin_ids"], batch["masked_lm_positions"], 1)
      == batch["masked_lm_ids"]
    )[used].all()


@pytest.mark.smoke
@pytest.mark.parametrize("block_size", ["1_1_1", "1_1_1_1", "1_1_1_1_1"])
def test_bert_records_under_a_deeper_funnel(made, block_size):
  """Masks on tokens that are cut away lead nowhere; the others count in the loss."""
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
    bert_source(made, "mlm", reserved_positions=reserved), padded_length=model_config.padded_length
  )
  batches = batches_of(inputs.predict_input_fn(source, 8, False), 5)
  assert {batch["input_ids"].shape[1] for batch in batches} <= {9, 17, LENGTH}
  for batch in batches:
    assert (batch["masked_lm_positions"] < batch["input_mask"].sum(1, keepdims=True)).all()
    assert batch["masked_lm_weights"].any() or reserved > 7
    losses_of(source.task, model_config, batch)


@pytest.mark.parametrize("strategy", masking.STRATEGIES)
def test_funnel_records_get_new_masks_in_every_epoch(made, strategy):
  source = funnel_source(made, strategy, reserved_positions=3)
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
def test_first_segment_is_that_of_the_model(made, cls_segment_id):
  """BERT's [CLS] is of segment 0 and Funnel's of segment 2, whichever form the records have."""
  for make_source in (bert_source, funnel_source):
    source = make_source(made, cls_segment_id=cls_segment_id)
    for batch in batches_of(inputs.predict_input_fn(source, 8, False), 2):
      assert (batch["segment_ids"][:, 0] == cls_segment_id).all()
      assert set(np.unique(batch["segment_ids"][:, 1:])) == {0, 1}


def test_pipeline_starts_at_any_step_and_reads_everything(made):
  for source in (bert_source(made), funnel_source(made, "word_span")):
    number = source.num_examples
    whole = batches_of(inputs.train_input_fn(source, 3, 7, 0, 1, False), 30)
    for start in (1, 11, 29):
      rest = batches_of(inputs.train_input_fn(source, 3, 7, start, 1, False), 30 - start)
      for a, b in zip(whole[start:], rest, strict=True):
        for name in a:
          np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    source.task.is_grouped = False  # windows of batches of like length reach over epochs
    epoch = batches_of(inputs.train_input_fn(source, 1, 7, 0, 1, False), number)
    seen = sorted(batch["origin_ids"].tobytes() for batch in epoch)
    all_of_it = batches_of(inputs.predict_input_fn(source, 1, False), number)
    width = max(batch["origin_ids"].shape[1] for batch in all_of_it)
    assert width <= LENGTH and len(seen) == len(all_of_it) == number
    strip = lambda batches: sorted(
      batch["origin_ids"][batch["input_mask"] > 0].tobytes() for batch in batches
    )
    assert strip(epoch) == strip(all_of_it)


def test_shapes_are_static_for_a_tpu(made):
  for source in (bert_source(made), funnel_source(made, "whole_word")):
    for input_fn in (
      inputs.train_input_fn(source, 4, 1, 0, 1, static_shapes=True),
      inputs.predict_input_fn(source, 4, static_shapes=True),
    ):
      for name, value in input_fn().element_spec.items():
        assert value.shape.is_fully_defined(), name


def test_compressed_records_are_read(made, tmp_path):
  create_pretraining_data.create(
    pretraining_records.BertForm(
      input_file=str(made / "text.txt"),
      gzip_compress=True,
      max_seq_length=LENGTH,
      output_file=str(tmp_path / "x.tfrecord"),
      max_predictions_per_seq=4,
      dupe_factor=1,
    ),
    config.Tokenizer(tokenizer_path=str(made / "bert" / "vocab.txt")),
    create_pretraining_data.Run(num_workers=1),
  )
  path = str(tmp_path / "x.tfrecord")
  source = bert_source(made)
  source = inputs.RecordSource(
    [path], record_files.count_records(path), source.task, LENGTH, source.padded_length
  )
  record_files.check_lengths(path, source.task.feature_specs, LENGTH)
  assert len(batches_of(inputs.predict_input_fn(source, 1, False), source.num_examples)) > 5
  data = open(path, "rb").read()
  (tmp_path / "cut").write_bytes(data[: len(data) // 2])
  with pytest.raises(UserError, match="cut: the compressed file is damaged"):
    record_files.count_records(str(tmp_path / "cut"))


def test_packed_rows_give_the_loss_of_single_ones(made, tmp_path):
  """The same examples, several in a row: the same loss, from fewer rows."""
  sources = []
  for pack in (False, True):
    path = str(tmp_path / f"{pack}.tfrecord")
    create_pretraining_data.create(
      pretraining_records.BertForm(
        input_file=str(made / "text.txt"),
        output_file=path,
        dupe_factor=2,
        max_seq_length=LENGTH,
        max_predictions_per_seq=8,
        short_seq_prob=0.7,
        pack_sequences=pack,
      ),
      config.Tokenizer(tokenizer_path=str(made / "bert" / "vocab.txt")),
      create_pretraining_data.Run(num_workers=1),
    )
    sequences = sequences_of(made / "bert" / "vocab.txt")
    task = pretraining.PretrainingTask(
      "bert", pretraining.BertRecords(sequences, 8, pack_sequences=pack), sequences
    )
    sources.append(
      inputs.RecordSource(
        [path], record_files.count_records(path), task, LENGTH, modeling.BertConfig(9).padded_length
      )
    )
    record_files.check_lengths(path, task.feature_specs, LENGTH)
  single, packed = sources
  assert packed.num_examples < single.num_examples - 5
  model_config = modeling.load_config(str(made / "bert" / "bert_config.json"))
  sums = []
  for source in sources:
    batches = batches_of(inputs.predict_input_fn(source, source.num_examples, False), 1)
    features = {name: value for name, value in batches[0].items() if name != "example_index"}
    with tf.Graph().as_default(), v1.Session() as session:
      features = {name: tf.constant(value) for name, value in features.items()}
      output = source.task.build(modeling.build_encoder(model_config, features, False), features)
      weights = source.task.loss_weights(features)
      assign(session)
      sums.append(
        session.run(
          {
            name: (tf.reduce_sum(output.losses[name]), tf.reduce_sum(weights[name]))
            for name in weights
          }
        )
      )
  for name in ("mlm", "nsp"):
    assert sums[0][name][1] == sums[1][name][1] > 20
    assert sums[0][name][0] / sums[0][name][1] == pytest.approx(
      sums[1][name][0] / sums[1][name][1], abs=1e-5
    )


# ---- Draws --------------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("loss_type, dropout", [("mlm", 0.3), ("electra", 0.0)])
def test_cores_of_a_tpu_draw_dropouts_and_noise_of_their_own(made, tmp_path, loss_type, dropout):
  """One traced program, as on a TPU, on the two shards of a batch of equal examples."""
  model_config = modeling.BertConfig(
    len(tiny.VOCAB),
    16,
    1,
    2,
    16,
    hidden_dropout_prob=dropout,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=32,
  )
  source = bert_source(made, loss_type)
  (batch,) = batches_of(inputs.train_input_fn(source, 8, 1, 0, 1, static_shapes=True), 1)
  numbers = batch.pop(inputs.ROW)
  batch = {name: np.repeat(value[:1], 8, axis=0) for name, value in batch.items()}
  experiment = config.Experiment(task=Pretraining())
  experiment.model.init_checkpoint, experiment.trainer.model_dir = "none", str(tmp_path)
  config.apply_recipe(experiment, config.load_recipe("bert", "pretraining", loss_type))
  model_fn = ModelFn(experiment, source.task, model_config, devices.Devices("CPU"), 10, 1)

  def losses(*shards):
    with tf.Graph().as_default(), v1.Session() as session:
      v1.set_random_seed(5)
      v1.train.create_global_step()
      given = {name: v1.placeholder(value.dtype, value.shape) for name, value in shards[0].items()}
      spec = model_fn(given, None, tf_compat.load().ModeKeys.TRAIN, {})
      session.run(v1.global_variables_initializer())
      assign(session)
      return [
        session.run(spec.loss, {given[name]: shard[name] for name in given}) for shard in shards
      ]

  first, second = (
    {**{name: value[part] for name, value in batch.items()}, inputs.ROW: numbers[part]}
    for part in (slice(0, 4), slice(4, 8))
  )
  one, other, again, other_again = losses(first, second, first, second)
  assert abs(one - other) > 1e-4 and (one, other) == (again, other_again)
  first.pop(inputs.ROW)  # one device draws what the first core draws
  assert losses(first) == [one]


@pytest.mark.parametrize("make_source", [bert_source, funnel_source])
def test_evaluation_does_not_depend_on_the_batch_size(made, make_source):
  """Masks and ELECTRA's replaced tokens are functions of the example."""
  source = make_source(made)
  sequences = source.task._sequences
  source.task = pretraining.PretrainingTask("electra", source.task._records, sequences)
  model_config = modeling.BertConfig(sequences.vocab_size, 16, 1, 2, 16, max_position_embeddings=32)

  def evaluate(batch_size):
    with tf.Graph().as_default(), v1.Session() as session:
      v1.set_random_seed(5)
      v1.train.create_global_step()
      features = v1.data.make_one_shot_iterator(
        inputs.predict_input_fn(source, batch_size, False)()
      ).get_next()
      output = source.task.build(modeling.build_encoder(model_config, features, False), features)
      session.run(v1.global_variables_initializer())
      assign(session)
      batches = []
      for _ in range(-(-source.num_examples // batch_size)):
        batches.append(session.run({**output.predictions, "index": features["example_index"]}))
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return {name: value[np.argsort(joined["index"])] for name, value in joined.items()}

  one, other = evaluate(3), evaluate(8)
  assert len(one["index"]) == source.num_examples and one["replaced"].sum() > 10
  for name, value in one.items():
    np.testing.assert_allclose(value, other[name], atol=1e-4, err_msg=name)
  metrics, others = (source.task.score(base.Split("dev"), values) for values in (one, other))
  assert metrics == pytest.approx(others, abs=1e-6)


# ---- Mistakes -----------------------------------------------------------------------------------


def corpus_of(made, form="bert"):
  settings = Pretraining(
    **(
      {"input_file": str(made / "bert.tfrecord-*")}
      if form == "bert"
      else {"record_dir": str(made / "funnel")}
    )
  )
  trainer = config.Trainer(do_train=True, do_eval=True)
  return settings, pretraining_sets.find_corpus(settings, trainer, {})


def test_records_tell_their_own_settings(made):
  for form, predictions in (("bert", 4), ("funnel", round(0.15 * LENGTH))):
    settings, corpus = corpus_of(made, form)
    experiment = config.Experiment(task=settings)
    pretraining_sets.check_against_meta(corpus, experiment)
    assert experiment.data.max_seq_length == LENGTH
    assert settings.max_predictions_per_seq == predictions
    assert pretraining_sets.find_symbols(corpus, experiment.tokenizer)[0]["mask"] == 4
    assert (
      corpus.record_sets["train"].num_examples
      == sum(map(record_files.count_records, corpus.record_sets["train"].paths))
      > 10
    )


def test_records_of_other_settings_are_refused(made, tmp_path):
  settings, corpus = corpus_of(made)
  experiment = config.Experiment(task=settings)
  experiment.set("max_seq_length", 128, "flag")
  with pytest.raises(UserError, match="made with max_seq_length 24, the flags say 128"):
    pretraining_sets.check_against_meta(corpus, experiment)
  (tmp_path / "vocab.txt").write_text("\n".join([*tiny.VOCAB, "more"]))
  with pytest.raises(UserError, match="vocab.txt is not the vocabulary that the records were made"):
    pretraining_sets.find_symbols(
      corpus, config.Tokenizer(tokenizer_path=str(tmp_path / "vocab.txt"))
    )
  (tmp_path / "vocab.txt").write_text("\n".join(w for w in tiny.VOCAB if w != "[MASK]"))
  with pytest.raises(UserError, match="vocabulary lacks"):
    pretraining_sets.find_symbols(
      corpus, config.Tokenizer(tokenizer_path=str(tmp_path / "vocab.txt"))
    )
  with pytest.raises(UserError, match="no record.* of split 'test'"):
    pretraining_sets.find_corpus(
      Pretraining(record_dir=str(made / "funnel"), eval_split="test"),
      config.Trainer(do_train=True, do_eval=True),
      {},
    )
  with pytest.raises(UserError, match="no record.*seq_len 512"):
    pretraining_sets.find_corpus(
      Pretraining(record_dir=str(made / "funnel")), config.Trainer(do_train=True), {"seq_len": 512}
    )
  with pytest.raises(UserError, match="nowhere.* matches no record file"):
    pretraining_sets.find_corpus(
      Pretraining(input_file=str(tmp_path / "nowhere*")), config.Trainer(do_train=True), {}
    )
  for wrong in (dict(), dict(input_file="a", record_dir="b")):
    with pytest.raises(UserError, match="either with --input_file"):
      pretraining_sets.find_corpus(Pretraining(**wrong), config.Trainer(do_train=True), {})


def find(do_train=True, do_eval=False, **settings):
  return pretraining_sets.find_corpus(
    Pretraining(**settings), config.Trainer(do_train=do_train, do_eval=do_eval), {}
  )


def test_incomplete_and_damaged_sets_are_refused(made, tmp_path, caplog):
  """A part of the corpus, or other data than the metadata tell, is never trained on silently."""
  shutil.copytree(made / "funnel", tmp_path / "funnel")
  name = "meta.train.pass-0.seq-24.uncased.json-00001-of-00002"
  data = tmp_path / "funnel" / name.replace("meta", "data").replace("json", "tfrecord")
  data.write_bytes(data.read_bytes()[:-9])
  with pytest.raises(UserError, match=f"{data}: \\d+ bytes, but \\d+ bytes in its metadata"):
    find(record_dir=str(tmp_path / "funnel"))
  data.unlink()
  with pytest.raises(UserError, match=f"{data}: no such file, but"):
    find(record_dir=str(tmp_path / "funnel"))
  (tmp_path / "funnel" / name).unlink()
  with pytest.raises(UserError, match=f"{name}: no such file, .* --task=1 makes the missing one"):
    find(record_dir=str(tmp_path / "funnel"))

  for path in glob.glob(str(made / "bert.tfrecord*")):
    shutil.copy(path, tmp_path)
  names = str(tmp_path / "bert.tfrecord-*")
  first, middle, last = sorted(path for path in glob.glob(names) if not path.endswith(".json"))
  find(input_file=f"{first},{last}")
  assert "1 of the 3 record files that" in caplog.text
  os.replace(first, last)
  with pytest.raises(UserError, match="bytes in its metadata"):
    find(input_file=names)
  (tmp_path / "bert.tfrecord.meta.json").write_text('{"filenames": ["x"]}')
  with pytest.raises(UserError, match="'filenames' and 'num_example' do not give the number"):
    find(input_file=names)
  (tmp_path / (os.path.basename(middle) + ".done.json")).write_text("{}")
  with pytest.raises(UserError, match="its set of record files is not complete; give the command"):
    find(input_file=names)


def test_evaluation_alone_needs_no_training_records(made, tmp_path, caplog):
  for path in glob.glob(str(made / "funnel" / "*.dev.*")):
    shutil.copy(path, tmp_path)
  assert set(find(False, True, record_dir=str(tmp_path)).record_sets) == {"dev"}
  names = str(made / "bert.tfrecord-*")
  assert set(find(False, True, eval_input_file=names).record_sets) == {"dev"}
  assert not caplog.text
  assert set(find(True, True, input_file=names).record_sets) == {"train", "dev"}
  assert "Evaluation is on the training records" in caplog.text


def test_empty_files_of_a_set_and_files_named_twice(made, tmp_path, caplog):
  """More files than documents leave some empty, the first among them; none is counted twice."""
  text = tmp_path / "text.txt"
  text.write_text("\n" * 2000 + open(made / "text.txt").read()[:300])
  vocab = config.Tokenizer(tokenizer_path=str(made / "bert" / "vocab.txt"))
  create_pretraining_data.create(
    pretraining_records.BertForm(
      input_file=str(text),
      output_file=str(tmp_path / "x"),
      num_shards=4,
      max_seq_length=LENGTH,
      max_predictions_per_seq=4,
    ),
    vocab,
    create_pretraining_data.Run(num_workers=1),
  )
  found = find(input_file=f"{tmp_path}/x-*,{tmp_path}/./x-00003*").record_sets["train"]
  assert [os.path.basename(path) for path in found.paths] == ["x-00003-of-00004"]
  assert found.num_examples == record_files.count_records(found.paths[0]) > 0
  folder = str(made / "funnel")
  once, twice = (
    find(record_dir=names, num_passes=1).record_sets["train"]
    for names in (folder, f"{folder},{folder}/")
  )
  assert once == twice and len(once.paths) == 2
  assert "num_passes" not in caplog.text
  find(record_dir=folder, num_passes=3)
  assert "--num_passes=3: --record_dir has 1" in caplog.text


def test_metadata_of_files_in_several_places(made, tmp_path, monkeypatch, caplog):
  """Shards made one by one under their final names have metadata each; others share one file."""
  monkeypatch.chdir(tmp_path)
  vocab = config.Tokenizer(tokenizer_path=str(made / "bert" / "vocab.txt"))
  for names in ("x-00000-of-00002", "x-00001-of-00002", "a/b,a/sub/c,d/e"):
    create_pretraining_data.create(
      pretraining_records.BertForm(
        input_file=str(made / "text.txt"),
        output_file=names,
        max_seq_length=LENGTH,
        max_predictions_per_seq=4,
      ),
      vocab,
      create_pretraining_data.Run(num_workers=1),
    )
  for names in ("x-*", "a/b,a/sub/c,d/e", "./a/b,./a/sub/c,./d/e"):
    corpus = find(input_file=names)
    assert corpus.meta["max_seq_length"] == LENGTH
    assert len(corpus.record_sets["train"].paths) == 3 - (names == "x-*")
  assert not caplog.text
  (tmp_path / "d" / "e").write_bytes(b"")
  with pytest.raises(UserError, match="d/e: 0 bytes, but"):
    find(input_file="a/b,a/sub/c,d/e")


def test_evaluation_records_may_be_made_otherwise(made, tmp_path):
  """What the model does not see may differ: how text was read, masks drawn, files compressed."""
  run = create_pretraining_data.Run(num_workers=1, errors="replace")
  vocab = config.Tokenizer(tokenizer_path=str(made / "bert" / "vocab.txt"))
  form = pretraining_records.BertForm(
    input_file=str(made / "text.txt"),
    output_file=str(tmp_path / "x"),
    max_seq_length=LENGTH,
    max_predictions_per_seq=4,
    gzip_compress=True,
    do_whole_word_mask=True,
  )
  create_pretraining_data.create(form, vocab, run)
  names = str(made / "bert.tfrecord-*")
  found = find(True, True, input_file=names, eval_input_file=str(tmp_path / "x"))
  assert set(found.record_sets) == {"train", "dev"}
  with pytest.raises(UserError, match="differ in gzip_compress"):
    find(input_file=f"{names},{tmp_path}/x")
  form = dataclasses.replace(form, output_file=str(tmp_path / "y"), max_predictions_per_seq=3)
  create_pretraining_data.create(form, vocab, run)
  with pytest.raises(UserError, match="differ in max_predictions_per_seq"):
    find(True, True, input_file=names, eval_input_file=str(tmp_path / "y"))


@pytest.mark.parametrize(
  "form, given",
  [
    ("input_file", "sample_strategy"),
    ("input_file", "num_passes"),
    ("record_dir", "eval_input_file"),
  ],
)
def test_flags_of_the_other_form_are_refused(form, given):
  with pytest.raises(UserError, match=f"--{given} does nothing with --{form}"):
    pretraining_sets.check_form(Pretraining(**{form: "x"}), {given, "max_seq_length"})


def test_foreign_records_need_the_flags_that_metadata_would_tell(made, tmp_path):
  path = tmp_path / "foreign.tfrecord"
  path.write_bytes(open(sorted(glob.glob(str(made / "bert.tfrecord-*")))[0], "rb").read())
  settings = Pretraining(input_file=str(path))
  corpus = pretraining_sets.find_corpus(settings, config.Trainer(do_train=True), {})
  experiment = config.Experiment(task=settings)
  with pytest.raises(UserError, match="--max_seq_length is missing"):
    pretraining_sets.check_against_meta(corpus, experiment)
  experiment.data.max_seq_length = LENGTH
  with pytest.raises(UserError, match="--max_predictions_per_seq is missing"):
    pretraining_sets.check_against_meta(corpus, experiment)
  with pytest.raises(UserError, match=r"--tokenizer_path \(--vocab_file\) is missing"):
    pretraining_sets.find_symbols(corpus, experiment.tokenizer)
  source = bert_source(made)
  with pytest.raises(UserError, match="'masked_lm_positions' has 4 .* where 5 are expected"):
    other = pretraining.BertRecords(sequences_of(made / "bert" / "vocab.txt"), 5)
    record_files.check_lengths(str(path), other.feature_specs, LENGTH)
  with pytest.raises(UserError, match="is --max_seq_length the records' own"):
    record_files.check_lengths(str(path), source.task.feature_specs, LENGTH + 8)


# ---- The script ---------------------------------------------------------------------------------


def log_of(folder, kind):
  with open(os.path.join(folder, "metrics.jsonl")) as reader:
    return [entry for entry in map(json.loads, reader) if entry["kind"] == kind]


def run_tiny(made, folder, *args, **kwargs):
  return tiny.run(
    "run_pretraining.py",
    f"--model_dir={folder}",
    "--train_batch_size=8",
    "--learning_rate=1e-3",
    "--log_freq=5",
    "--seed=3",
    *args,
    **kwargs,
  )


@pytest.mark.smoke
def test_bert_from_text_to_a_fine_tuned_model(made, tmp_path):
  """BERT's published commands; two devices give one device's losses; the result fine-tunes."""
  flags = [
    f"--bert_config_file={made}/bert/bert_config.json",
    f"--input_file={made}/bert.tfrecord-*",
    "--max_seq_length=24",
    "--max_predictions_per_seq=4",
    "--num_warmup_steps=2",
  ]
  out, _ = run_tiny(
    made,
    tmp_path / "one",
    *flags,
    "--do_train=True",
    "--do_eval=True",
    "--num_train_steps=10",
    "--max_eval_steps=2",
  )
  assert "pretraining_bert dev: " in out and "next_sentence_accuracy" in out
  run_tiny(made, tmp_path / "two", *flags, "--num_train_steps=10", "--num_core_per_host=2")
  one, two = log_of(tmp_path / "one", "train"), log_of(tmp_path / "two", "train")
  assert [entry["step"] for entry in one] == [5, 10]
  for a, b in zip(one, two, strict=True):
    for name in a.keys() - {
      "kind",
      "step",
      "milliseconds_per_step",
      "examples_per_second",
      "tokens_per_second",
    }:
      assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-5), name
  assert {
    "masked_lm_accuracy",
    "next_sentence_accuracy",
    "perplexity",
    "loss_mlm",
    "loss_nsp",
    "tokens_per_second",
    "gradient_norm",
    "learning_rate",
  } <= set(one[1])
  (evaluated,) = log_of(tmp_path / "one", "eval")
  assert evaluated["loss"] == pytest.approx(evaluated["loss_mlm"] + evaluated["loss_nsp"])
  assert evaluated["perplexity"] == pytest.approx(np.exp(evaluated["loss_mlm"]), rel=1e-5)
  # Further, with the optimizer's moments, and as an encoder to fine-tune.
  _, err = run_tiny(
    made,
    tmp_path / "more",
    *flags,
    "--num_train_steps=12",
    f"--init_checkpoint={tmp_path}/one",
    "--init_global_vars",
  )
  assert "steps 10 to 12" in err
  tiny.write_cola(tmp_path / "CoLA")
  tiny.run(
    "run_classifier.py",
    "--task_name=cola",
    f"--data_dir={tmp_path}/CoLA",
    "--do_train",
    f"--init_checkpoint={tmp_path}/one",
    f"--vocab_file={made}/bert/vocab.txt",
    "--train_steps=2",
    f"--output_dir={tmp_path}/fine",
    "--max_seq_length=24",
  )
  assert {"bert_config.json", "vocab.txt"} <= set(os.listdir(tmp_path / "fine"))


def test_electra_with_the_published_flags(made, tmp_path):
  """The seed's launch command, tiny; evaluated over all checkpoints; made core-only."""
  out, _ = run_tiny(
    made,
    tmp_path / "run",
    "--use_tpu=False",
    "--use_bfloat16=False",
    "--num_hosts=1",
    "--num_core_per_host=1",
    "--loss_type=ELECTRA",
    f"--record_dir={made}/funnel",
    "--warmup_steps=2",
    "--seq_len=24",
    "--num_predict=4",
    "--train_steps=10",
    "--save_steps=5",
    "--block_size=1_1",
    "--decoder_size=1",
    "--d_model=16",
    "--d_embed=16",
    "--n_head=4",
    "--d_head=4",
    "--d_inner=32",
    "--pool_q_only=True",
    "--do_train",
    "--do_eval",
    "--eval_all_ckpt",
    "--eval_start_step=0",
    "--sample_strategy=whole_word",
    "--max_eval_batch=-1",
  )
  assert "pretraining_electra dev: " in out
  assert [entry["step"] for entry in log_of(tmp_path / "run", "eval")] == [5, 10]
  last = log_of(tmp_path / "run", "train")[-1]
  assert {
    "loss_gen",
    "loss_disc",
    "replaced_precision",
    "replaced_recall",
    "disc_accuracy",
    "masked_lm_accuracy",
  } <= set(last)
  assert last["loss"] == pytest.approx(last["loss_gen"] + last["loss_disc"], rel=1e-5)
  tiny.run(
    "convert_checkpoint.py",
    "--direction=core_only",
    f"--input_dir={tmp_path}/run",
    f"--output_dir={tmp_path}/core",
  )
  names = [name for name, _ in tf.train.list_variables(str(tmp_path / "core"))]
  assert names and all(name.startswith("model/") for name in names)
  _, err = run_tiny(
    made,
    tmp_path / "again",
    f"--record_dir={made}/funnel",
    "--loss_type=mlm",
    f"--model_config={tmp_path}/run/net_config.json",
    "--train_steps=1",
    f"--init_checkpoint={tmp_path}/core",
  )
  assert "new: model/lm_proj" in err
  _, err = run_tiny(
    made,
    tmp_path / "further",
    f"--record_dir={made}/funnel",
    "--train_steps=10",
    "--loss_type=electra",
    f"--model_config={tmp_path}/run/net_config.json",
    f"--init_checkpoint={tmp_path}/run",
    "--init_global_vars",
    status=1,
  )
  assert "is at step 10" in err and "--train_steps=10 is already reached; raise it" in err


@pytest.mark.parametrize("family", ("bert", "funnel"))
def test_the_generator_starts_from_masked_words(made, tmp_path, family):
  """At full width it gives the logits of the masked words' encoder; else it is drawn again."""
  path = made / ("bert/bert_config.json" if family == "bert" else "model/net_config.json")
  source = (bert_source if family == "bert" else funnel_source)(made)
  (features,) = batches_of(inputs.predict_input_fn(source, 8, False), 1)
  features["is_mask_symbol"][:] = 0  # Funnel attends to them in ELECTRA alone
  logits = []
  for width_shrink in (None, 1.0, 0.5):
    with tf.Graph().as_default(), v1.Session() as session:
      v1.set_random_seed(1)
      encoder = modeling.build_encoder(
        modeling.load_config(str(path)),
        {name: tf.constant(value) for name, value in features.items()},
        False,
      )
      if width_shrink is None:
        outputs = encoder.masked_lm_logits()
      else:
        v1.train.create_global_step()
        outputs = encoder.electra(width_shrink)["generator_logits"]
        checkpoints.initialize(config.Model(init_checkpoint=str(tmp_path / family)))
      session.run(v1.global_variables_initializer())
      logits.append(session.run(outputs))
      if width_shrink is None:
        v1.train.Saver().save(session, str(tmp_path / family), write_meta_graph=False)
  np.testing.assert_allclose(logits[1], logits[0], atol=1e-6)
  assert np.abs(logits[2] - logits[0]).max() > 0.01


def test_trials_and_a_limit_of_the_evaluation(made, tmp_path):
  out, _ = run_tiny(
    made,
    tmp_path,
    f"--record_dir={made}/funnel",
    "--train_steps=2",
    "--do_train",
    "--do_eval",
    f"--model_config={made}/model/net_config.json",
    "--num_trials=2",
    "--max_eval_examples=3",
  )
  assert "standard deviation" in out
  with open(tmp_path / "trials.json") as reader:
    first, second = json.load(reader)["loss"]["values"]
  assert first != second
  run_tiny(made, tmp_path / "trial_0", f"--record_dir={made}/funnel", "--do_eval")
  few, whole = log_of(tmp_path / "trial_0", "eval")
  assert few["data"] != whole["data"], "--max_eval_examples was overridden by --max_eval_batch"


def test_a_limit_of_the_evaluation_is_logged(caplog):
  """The default limits it, to a number of examples that depends on the batch size."""
  caplog.set_level("INFO", "training.pretraining")
  experiment = config.Experiment(task=Pretraining())
  experiment.trainer.eval_batch_size = 4
  for count in (400, 401):
    assert not caplog.messages
    pretraining_job._limit_evaluation(
      experiment, pretraining_sets.Corpus({"dev": record_files.RecordSet(["x"], count)}, {}, "")
    )
  assert caplog.messages == ["Evaluate on the first 400 of 401 examples (--max_eval_batch=100)"]
  assert experiment.data.max_eval_examples == 400


def test_mistakes_on_the_command_line(made, tmp_path):
  _, err = run_tiny(
    made,
    tmp_path / "x",
    f"--record_dir={made}/funnel",
    "--loss_type=bert",
    f"--model_config={made}/model/net_config.json",
    status=1,
  )
  assert "--loss_type=bert needs a BERT configuration" in err and "Traceback" not in err
  _, err = run_tiny(made, tmp_path / "x", f"--record_dir={made}/funnel", status=1)
  assert "no model: give --model_config" in err
  _, err = run_tiny(made, tmp_path / "x", f"--record_dir={made}/funnel", "--do_predict", status=1)
  assert "--do_predict: pretraining has nothing to predict" in err and "Traceback" not in err


def test_a_refused_run_leaves_the_folder_as_it_was(made, tmp_path):
  """The configuration next to a checkpoint is that of the checkpoint."""
  flags = [
    f"--record_dir={made}/funnel",
    "--block_size=1_1",
    "--n_head=4",
    "--d_head=4",
    "--d_inner=32",
    "--d_embed=16",
  ]
  run_tiny(made, tmp_path, *flags, "--d_model=16", "--train_steps=1", "--warmup_steps=0")
  kept = (tmp_path / "net_config.json").read_text()
  _, err = run_tiny(
    made, tmp_path, *flags, "--d_model=32", "--train_steps=2", "--warmup_steps=9", status=1
  )
  assert "not a checkpoint of this model" in err and "Traceback" not in err
  assert "The warm-up of" in err and "is as long as the training" in err
  assert (tmp_path / "net_config.json").read_text() == kept
