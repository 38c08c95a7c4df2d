"""--gin_file, --gin_params and --gin_bindings: arguments of model layers."""

import json
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny

import modeling
from errors import UserError
from models import bert
from training import layer_arguments

pytest.importorskip("gin")
v1 = tf.compat.v1

# A user's own attention, which sees every token.
OWN = """
import gin
from models import bert

@gin.configurable
def open_attention(queries, keys, mask_adder, *arguments):
  return bert.attention(queries, keys, 0.0, *arguments)
"""


@pytest.fixture(autouse=True)
def without_bindings():
  yield
  layer_arguments.apply("")


def hidden_states(folder, **changes):
  """Of a padded sequence, with the weights of a tiny encoder."""
  config = modeling.load_config(os.path.join(folder, "bert_config.json"))
  for name, value in changes.items():
    setattr(config, name, value)
  with tf.Graph().as_default(), v1.Session() as session:
    ids, mask = tf.constant([[2, 5, 9, 3, 0]]), tf.constant([[1, 1, 1, 1, 0]])
    model = modeling.BertModel(config, False, ids, mask)
    v1.train.init_from_checkpoint(os.path.join(folder, "bert_model.ckpt"), {"bert/": "bert/"})
    session.run(v1.global_variables_initializer())
    return session.run(model.get_sequence_output())


def test_an_activation_is_that_of_the_configuration(tmp_path):
  folder = tiny.write_encoder(tmp_path)
  usual, tanh = hidden_states(folder), hidden_states(folder, hidden_act="tanh")
  assert np.abs(usual - tanh).max() > 1e-3
  layer_arguments.apply("encode.activation = @tanh")
  np.testing.assert_array_equal(hidden_states(folder), tanh)
  layer_arguments.apply("")
  np.testing.assert_array_equal(hidden_states(folder), usual)


def test_an_own_attention_replaces_the_usual_one(tmp_path, monkeypatch):
  folder = tiny.write_encoder(tmp_path)
  usual = hidden_states(folder)
  (tmp_path / "own_attention.py").write_text(OWN)
  monkeypatch.syspath_prepend(tmp_path)
  import own_attention  # noqa: F401

  layer_arguments.apply("encode.attention_fn = @open_attention")
  found = hidden_states(folder)
  with monkeypatch.context() as patch:
    patch.setattr(bert, "attention_mask_adder", lambda attended, dtype: 0.0)
    layer_arguments.apply("")
    wanted = hidden_states(folder)
  np.testing.assert_array_equal(found, wanted)
  assert np.abs(found - usual).max() > 1e-3


@pytest.mark.parametrize(
  "bindings, message",
  [
    ("encode.activation = @swishy", "No configurable matching reference '@swishy'"),
    ("decode.activation = @tanh", "No configurable matching 'decode'"),
    ("encode.activaton = @tanh", "doesn't have a parameter named 'activaton'"),
    ("encode.activation", "Couldn't parse statement"),
    ("encode.activation = (", "EOF in multi-line statement"),
    ("import os", "'import os': name modules with --import_module"),
    ("include 'other.gin'", "and files with --gin_file"),
  ],
)
def test_bad_bindings_are_named(bindings, message):
  with pytest.raises(UserError) as error:
    layer_arguments.apply(bindings)
  assert "the gin bindings: " in str(error.value) and message in str(error.value)


def test_other_errors_are_named(monkeypatch):
  with pytest.raises(UserError, match="funnel has no layers that take them"):
    layer_arguments.apply("encode.activation = @tanh", "funnel")
  with pytest.raises(UserError, match="no.gin: cannot read this file"):
    layer_arguments.read(["no.gin"], [])
  monkeypatch.setitem(sys.modules, "gin", None)
  with pytest.raises(UserError, match="pip install -r requirements-gin.txt"):
    layer_arguments.apply("encode.activation = @tanh")


def test_programs_store_and_restore_the_bindings(tmp_path):
  """train.py reads files; run_classifier.py evaluates and continues with the stored text."""
  encoder = tiny.write_encoder(tmp_path / "bert", num_layers=1)
  tiny.write_cola(tmp_path / "CoLA")
  (tmp_path / "layers.gin").write_text("# A comment.\nencode.activation = @relu\n")
  model_dir = tmp_path / "run"
  data = (f"--data_dir={tmp_path / 'CoLA'}", f"--model_dir={model_dir}")
  out, _ = tiny.run(
    "train.py",
    *("--experiment=bert/sentence_prediction", "--mode=train_and_eval", *data),
    *(f"--init_checkpoint={encoder}", "--task_name=cola", "--max_seq_length=16"),
    *("--train_steps=2", f"--gin_file={tmp_path / 'layers.gin'}"),
    "--gin_params=encode.activation=@tanh",
  )
  for folder in (model_dir, model_dir / "best"):
    stored = json.loads((folder / "model_settings.json").read_text())["gin_bindings"]
    assert stored.endswith("encode.activation=@tanh")
  again, _ = tiny.run("run_classifier.py", "--do_eval", *data)
  score = [line.split("(")[0] for line in out.splitlines() if line.startswith("cola dev:")]
  assert score and score[-1] in again
  _, err = tiny.run(
    "convert_checkpoint.py",
    *("--direction=tf_to_hf", f"--input_dir={model_dir}", f"--output_dir={tmp_path / 'hf'}"),
    status=1,
  )
  assert "have arguments of its own (--gin_bindings)" in err
