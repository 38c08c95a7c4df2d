"""Errors that a user can fix end a script with status 1, one message and no traceback."""

import os

import numpy as np
import pytest
import tensorflow as tf
import tiny

import config
import modeling
from errors import UserError
from models import bert_heads
from tasks.settings import Classification
from training import app, checkpoints, devices, flags, model_folder, recipes, runner

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bad")
  tiny.write_encoder(folder / "encoder")
  tiny.write_cola(folder / "CoLA", 8, 8, 8)
  return folder


def fail(script, *args):
  """Runs a script that must end with an error; returns the message."""
  _, err = tiny.run(script, *args, status=1)
  assert "Traceback" not in err, err
  lines = [line for line in err.splitlines() if ": error: " in line]
  assert len(lines) == 1, err
  return lines[0]


def classify(workspace, *args):
  return fail(
    "run_classifier.py",
    "--task_name=cola",
    f"--pretrained={workspace / 'encoder'}",
    f"--data_dir={workspace / 'CoLA'}",
    f"--output_dir={workspace / 'run'}",
    *args,
  )


def test_unknown_flags_get_a_suggestion(workspace):
  message = classify(workspace, "--learning_rat=1")
  assert "Unknown command line flag 'learning_rat'. Did you mean: learning_rate" in message


def test_unneeded_flags_of_the_originals_are_explained(workspace):
  message = classify(workspace, "--noretain_all")
  assert "there is no --noretain_all: evaluation deletes no checkpoint; --max_save" in message
  message = classify(workspace, "--keep_accents")
  assert "--keep_accents is for SentencePiece models" in message


def test_stray_arguments_are_refused(workspace):
  _, err = tiny.run("run_classifier.py", "cola", status=1)
  assert "unexpected argument 'cola'" in err and "Traceback" not in err


def test_the_short_command_names_the_missing_model(tmp_path):
  message = fail(
    "run_classifier.py", "--task_name=cola", "--use_tpu=True", f"--pretrained={tmp_path}"
  )
  assert "no model configuration" in message
  assert "scripts/quickstart.sh --pretrained_only" in message


def test_missing_tpu_is_reported(workspace):
  message = classify(workspace, "--use_tpu=True", "--max_seq_length=16")
  assert "--use_tpu=True" in message and "leave --use_tpu out to run on CPU or GPU" in message


def test_missing_data_is_named(workspace):
  message = classify(workspace, "--data_dir=/nowhere", "--max_seq_length=16")
  assert "/nowhere/train.tsv: no such file" in message
  assert "bash scripts/download_glue.sh CoLA" in message


def test_sequences_beyond_the_position_table_are_refused(workspace):
  assert "--max_seq_length=128 is beyond the model's position table (32 positions" in classify(
    workspace
  )


def test_unwritable_output_folder_is_refused(workspace):
  (workspace / "file").write_text("")
  message = classify(workspace, f"--output_dir={workspace / 'file' / 'run'}", "--max_seq_length=16")
  assert "cannot write to this folder" in message


def test_checkpoint_of_another_model_is_refused(workspace):
  """The script's message names missing variables and those of another shape."""
  tiny.write_encoder(workspace / "deep", num_layers=3)
  message = classify(
    workspace,
    f"--pretrained={workspace / 'deep'}",
    "--max_seq_length=16",
    f"--init_checkpoint={workspace / 'encoder' / 'bert_model.ckpt'}",
  )
  assert "missing: bert/encoder/layer_2/attention/self/query/kernel" in message
  assert not (workspace / "run" / "bert_config.json").exists(), "a refused run leaves no model"
  assert "layer_1/" not in message


@pytest.mark.parametrize("words, relation", [(["extra"], "more"), (None, "fewer")])
def test_vocabulary_of_another_size_is_refused(workspace, words, relation):
  path = workspace / f"vocab_{relation}.txt"
  path.write_text("\n".join(tiny.VOCAB + words if words else tiny.VOCAB[:-1]) + "\n")
  experiment = config.Experiment()
  experiment.model = config.Model(
    model_config=str(workspace / "encoder" / "bert_config.json"),
    init_checkpoint=str(workspace / "encoder"),
  )
  experiment.tokenizer.tokenizer_path = str(path)
  experiment.data.max_seq_length = 16
  with pytest.raises(UserError, match=f"{relation} than the vocab_size {len(tiny.VOCAB)}"):
    runner.Runner(experiment, model_folder.load_model_config(experiment.model), task=None)


# ---- Checkpoints, in process --------------------------------------------------------------------


def initialize(encoder, **kwargs):
  """Values of a new graph's variables after initialize() from `encoder`."""
  with tf.Graph().as_default(), v1.Session() as session:
    v1.set_random_seed(7)
    model = modeling.BertModel(
      modeling.load_config(os.path.join(encoder, "bert_config.json")),
      False,
      tf.ones([1, 4], tf.int32),
    )
    bert_heads.classification_logits(model.get_pooled_output(), 3)
    checkpoints.initialize(config.Model(**{"init_checkpoint": encoder, **kwargs}))
    session.run(v1.global_variables_initializer())
    return {v.op.name: session.run(v) for v in v1.trainable_variables()}


def test_initialization_restores_the_encoder_and_draws_the_head(workspace):
  encoder = str(workspace / "encoder")
  reader = tf.train.load_checkpoint(os.path.join(encoder, "bert_model.ckpt"))
  for init_pooler in (True, False):
    values = initialize(encoder, init_pooler=init_pooler)
    for name, value in values.items():
      if reader.has_tensor(name):
        same = np.array_equal(value, reader.get_tensor(name))
        # A new bias is zero like the old one; all other variables must differ.
        if name == "bert/pooler/dense/kernel":
          assert same == init_pooler
        elif not name.startswith("bert/pooler"):
          assert same, name
  fresh = initialize(encoder, init_checkpoint="none")
  assert not np.array_equal(
    fresh["bert/embeddings/word_embeddings"], values["bert/embeddings/word_embeddings"]
  )


def test_mis_shaped_and_missing_variables_are_named(workspace):
  wide = tiny.write_encoder(workspace / "wide", hidden_size=24)
  with pytest.raises(
    UserError,
    match=r"of another shape: bert/embeddings/word_embeddings is "
    r"\[\d+, 16\], the model needs \[\d+, 24\]",
  ):
    initialize(wide, init_checkpoint=str(workspace / "encoder"))
  path = str(workspace / "no_pooler.ckpt")
  with tf.Graph().as_default(), v1.Session() as session:
    reader = tf.train.load_checkpoint(str(workspace / "encoder" / "bert_model.ckpt"))
    variables = [
      v1.get_variable(name, initializer=reader.get_tensor(name))
      for name in reader.get_variable_to_shape_map()
      if "pooler" not in name
    ]
    session.run(v1.global_variables_initializer())
    v1.train.Saver(variables).save(session, path, write_meta_graph=False)
  with pytest.raises(UserError, match=r"missing: bert/pooler/dense/kernel, .*--noinit_pooler"):
    initialize(str(workspace / "encoder"), init_checkpoint=path)
  initialize(str(workspace / "encoder"), init_checkpoint=path, init_pooler=False)


def test_paths_resolve_to_a_checkpoint(workspace, tmp_path):
  prefix = str(workspace / "encoder" / "bert_model.ckpt")
  for path in (
    prefix,
    prefix + ".index",
    prefix + ".data-00000-of-00001",
    str(workspace / "encoder"),
    str(workspace / "encoder" / "latest"),
  ):
    assert checkpoints.resolve(path) == prefix
  with pytest.raises(UserError, match="no checkpoint"):
    checkpoints.resolve(str(tmp_path))
  with pytest.raises(UserError, match="no such checkpoint"):
    checkpoints.resolve(str(tmp_path / "x"))


def test_copy_replaces_the_old_copy(workspace, tmp_path):
  prefix = str(workspace / "encoder" / "bert_model.ckpt")
  (tmp_path / "model.ckpt-3.index").write_text("old")
  (tmp_path / "mine.txt").write_text("keep")
  copied = checkpoints.copy(prefix, str(tmp_path))
  assert tf.train.latest_checkpoint(str(tmp_path)) == copied
  assert sorted(os.listdir(tmp_path)) == [
    "bert_model.ckpt.data-00000-of-00001",
    "bert_model.ckpt.index",
    "checkpoint",
    "mine.txt",
  ]


def test_errors_not_about_files_are_reported_as_defects():
  for error, expected in (
    (tf.errors.NotFoundError(None, None, "/a/b.tfrecord; No such file or directory"), True),
    (tf.errors.FailedPreconditionError(None, None, "/a; Is a directory"), True),
    (tf.errors.DataLossError(None, None, "corrupted record at 12"), True),
    (tf.errors.NotFoundError(None, None, "Key bert/x not found in checkpoint"), False),
    (tf.errors.FailedPreconditionError(None, None, "Attempting to use uninitialized value"), False),
  ):
    assert app.is_file_error(error) == expected, error.message


# ---- Devices and settings, in process -----------------------------------------------------------


def test_batches_that_devices_cannot_share_are_refused():
  with pytest.raises(UserError, match="--train_batch_size=9 .* is not divisible by 2"):
    devices.find_devices(config.Runtime(num_core_per_host=2), 9)


@pytest.mark.parametrize(
  "num_gpus, batch, steps, used, message",
  [
    (
      8,
      12,
      1,
      6,
      "Only 6 of the 8 GPUs are used: --train_batch_size=12 is not divisible by 8; 8 or "
      "16 would use all",
    ),
    (2, 7, 1, 1, "; 6 or 8 would use all"),
    (4, 3, 1, 3, "; 4 would use all"),
    (4, 18, 3, 3, "divisible by 4 times 3 micro-batches; 12 or 24 would"),
    (4, 8, 1, 4, ""),
  ],
)
def test_unused_devices_are_logged(caplog, num_gpus, batch, steps, used, message):
  assert devices.num_even_devices(num_gpus, batch, steps) == used
  assert message in caplog.text and bool(caplog.text) == bool(message)


def test_recipes_fill_missing_settings():
  experiment = config.Experiment()
  experiment.set("learning_rate", 1.0, "flag")
  taken = recipes.apply(experiment, {"learning_rate": 2.0, "train_batch_size": 4}, "a recipe")
  assert experiment.optimizer.learning_rate == 1.0 and experiment.trainer.train_batch_size == 4
  assert taken == {"train_batch_size": 4}
  assert experiment.sources == {"learning_rate": "flag", "train_batch_size": "a recipe"}
  with pytest.raises(UserError, match="'learn_rate', which is no setting"):
    recipes.apply(experiment, {"learn_rate": 1})


def test_bert_recipe_fills_every_open_setting():
  experiment = config.Experiment(task=Classification())
  recipes.apply(experiment, recipes.load("bert", "classification", "cola"))
  empty = [
    f"{type(section).__name__}.{name}"
    for section in experiment.sections().values()
    for name, value in vars(section).items()
    if value is None
  ]
  # The first follows uncased, the second use_bfloat16.
  assert empty == ["Tokenizer.strip_accents", "Runtime.precision"]


def test_flags_and_aliases():
  assert "learning_rate" not in flags.FLAGS, "importing the module must define nothing"
  out, _ = tiny.run("run_classifier.py", "--help")
  for name in (
    "--learning_rate",
    "--bert_config_file",
    "--vocab_file",
    "--[no]do_lower_case",
    "--num_train_steps",
    "--num_warmup_steps",
    "--save_checkpoints_steps",
    "--iterations_per_loop",
    "--tpu_name",
  ):
    assert name in out, name
