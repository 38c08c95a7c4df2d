"""Model Garden's checkpoints and TF-Hub modules: outputs equal to its own, conversion, training.

tests/tiny_model_garden.py wrote the files with tf-models-official.
"""

import http.server
import os
import shutil
import tarfile
import threading

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_model_garden
from tiny_conversion import GOLDEN, assert_same, draw, read_tf, run_script, write_tf

import config
import modeling
from conversion import commands
from errors import UserError
from training import checkpoints, hub, jobs, params

v1 = tf.compat.v1
ENCODER = os.path.join(GOLDEN, "model_garden_encoder")
PRETRAINER = os.path.join(GOLDEN, "model_garden_pretrainer")
SIZES = dict(
  vocab_size=27,
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=24,
  max_position_embeddings=32,
  type_vocab_size=2,
)


def write_module(folder):
  """Writes the TF-Hub module; its graph is not read."""
  shutil.copytree(os.path.join(GOLDEN, "model_garden_hub"), folder)
  open(os.path.join(folder, "saved_model.pb"), "wb").close()
  return str(folder)


def outputs(path, names):
  """Outputs of a BERT encoder, and its heads, that start from a checkpoint of Model Garden."""
  data = np.load(os.path.join(GOLDEN, "model_garden.npz"))
  features = {
    "input_ids": data["input_word_ids"],
    "input_mask": data["input_mask"],
    "segment_ids": data["input_type_ids"],
    "masked_lm_positions": data["masked_lm_positions"],
    "next_sentence_positions": np.zeros([3, 1], np.int32),
  }
  with tf.Graph().as_default(), v1.Session() as session:
    encoder = modeling.build_encoder(
      modeling.BertConfig(**SIZES),
      {name: tf.constant(value) for name, value in features.items()},
      is_training=False,
    )
    builders = {
      "sequence_output": encoder.sequence_output,
      "pooled_output": encoder.pooled_output,
      "mlm_logits": encoder.masked_lm_logits,
      "next_sentence": encoder.next_sentence_logits,
    }
    wanted = {name: builders[name]() for name in names}
    checkpoints.initialize(config.Model(init_checkpoint=str(path)))
    session.run(v1.global_variables_initializer())
    return session.run(wanted), data


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["encoder", "module", "pretrainer", "converted"])
def test_outputs_equal_model_garden(kind, tmp_path):
  names, model, path = ("sequence_output", "pooled_output"), "encoder", ENCODER
  if kind == "pretrainer":
    names, model, path = ("sequence_output", "mlm_logits", "next_sentence"), kind, PRETRAINER
  elif kind == "module":
    path = write_module(tmp_path / "module")
  elif kind == "converted":
    commands.garden_to_tf(write_module(tmp_path / "module"), str(tmp_path / "tf"))
    path = tmp_path / "tf"
  values, data = outputs(path, names)
  for name in names:
    expected = data[f"{model}_{name}"]
    np.testing.assert_allclose(
      values[name].reshape(expected.shape), expected, atol=1e-4, rtol=0, err_msg=name
    )


# ---- Conversion ---------------------------------------------------------------------------------


def zeros_like_encoder(variables):
  """tf.Module with the attributes of BertEncoderV2 and zeros, from keys of Model Garden."""
  root = tf.Module()
  for key, array in variables.items():
    *path, last = (
      key.removeprefix("encoder/").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").split("/")
    )
    node = root
    for name in path:
      if not hasattr(node, name):
        setattr(node, name, tf.Module())
      node = getattr(node, name)
    setattr(node, last, tf.Variable(tf.zeros_like(array), name="v"))
  return root


@pytest.mark.smoke
def test_conversion_there_and_back_gives_the_same_bits(tmp_path):
  folders = {name: str(tmp_path / name) for name in ("module", "tf", "garden", "again")}
  write_module(folders["module"])
  for direction, source, target in (
    ("garden_to_tf", "module", "tf"),
    ("tf_to_garden", "tf", "garden"),
  ):
    done = run_script(
      f"--direction={direction}",
      f"--input_dir={folders[source]}",
      f"--output_dir={folders[target]}",
    )
    assert done.returncode == 0, done.stderr
  commands.garden_to_tf(folders["garden"], folders["again"])
  assert modeling.load_config(os.path.join(folders["tf"], "bert_config.json")).to_dict() == {
    **modeling.BertConfig(**SIZES).to_dict()
  }
  assert open(os.path.join(folders["again"], "vocab.txt")).read().split("\n")[:-1] == tiny.VOCAB
  assert_same(read_tf(folders["again"]), read_tf(folders["tf"]))

  graph = "_CHECKPOINTABLE_OBJECT_GRAPH"
  reader = tf.train.load_checkpoint(ENCODER)  # the functional encoder's, of the same weights
  expected = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
  found = read_tf(folders["garden"])
  assert found.pop(graph) and expected.pop(graph)
  assert_same(found, expected)


@pytest.mark.parametrize("root", ["encoder", "model"])
def test_tensorflow_restores_a_converted_checkpoint(root, tmp_path):
  """By the attributes of BertEncoderV2, whose keys are not those of the file."""
  commands.garden_to_tf(GOLDEN, str(tmp_path / "tf"), checkpoint=PRETRAINER)
  (tmp_path / "tf" / "vocab.txt").write_text("\n".join(tiny.VOCAB) + "\n")
  commands.tf_to_garden(str(tmp_path / "tf"), str(tmp_path / "garden"))
  reader = tf.train.load_checkpoint(PRETRAINER)
  keys = [
    key
    for key in reader.get_variable_to_shape_map()
    if key.startswith("encoder/") and "_pooler_layer" not in key
  ]
  stored = {key: reader.get_tensor(key) for key in keys}
  encoder = zeros_like_encoder(stored)
  checkpoint = tf.train.Checkpoint(**{root: encoder})
  status = checkpoint.read(str(tmp_path / "garden" / "bert_model.ckpt"))
  status.expect_partial().assert_existing_objects_matched()
  restored = {
    f"encoder/{name.replace('.', '/')}/.ATTRIBUTES/VARIABLE_VALUE": value.numpy()
    for name, value in _named_variables(encoder)
  }
  assert_same(restored, stored)


def _named_variables(module, prefix=""):
  for name, value in sorted(vars(module).items()):
    if isinstance(value, tf.Variable):
      yield prefix + name, value
    elif isinstance(value, tf.Module):
      yield from _named_variables(value, f"{prefix}{name}.")


def test_heads_and_projection_are_converted(tmp_path, capsys):
  """The masked-words head of Model Garden; an encoder with narrower embeddings."""
  narrow = modeling.BertConfig(**{**SIZES, "embedding_size": 6})
  with tf.Graph().as_default():
    modeling.BertModel(narrow, False, tf.ones([1, 4], tf.int32))
    shapes = {v.op.name: v.shape.as_list() for v in v1.trainable_variables()}
  arrays = draw(shapes)
  folder = tmp_path / "narrow"
  folder.mkdir()
  write_tf(folder / "model.ckpt-7", arrays)
  (folder / "bert_config.json").write_text(narrow.to_json_string())
  (folder / "vocab.txt").write_text("\n".join(tiny.VOCAB) + "\n")
  commands.tf_to_garden(str(folder), str(tmp_path / "narrow_garden"))
  commands.garden_to_tf(str(tmp_path / "narrow_garden"), str(tmp_path / "narrow_tf"))
  assert_same(read_tf(tmp_path / "narrow_tf"), arrays)

  commands.garden_to_tf(GOLDEN, str(tmp_path / "tf"), checkpoint=PRETRAINER)
  assert "copy the model's vocab.txt" in capsys.readouterr().out
  (tmp_path / "tf" / "vocab.txt").write_text("\n".join(tiny.VOCAB) + "\n")
  commands.tf_to_garden(str(tmp_path / "tf"), str(tmp_path / "garden"))
  assert "Left out: 2 variables of heads" in capsys.readouterr().out
  commands.garden_to_tf(str(tmp_path / "garden"), str(tmp_path / "again"))
  expected = read_tf(tmp_path / "tf")
  for name in ("output_weights", "output_bias"):
    del expected[f"cls/seq_relationship/{name}"]
  assert_same(read_tf(tmp_path / "again"), expected)


# ---- Training -----------------------------------------------------------------------------------


def train(folder, *flags, status=0):
  """Runs train.py on CoLA for two updates that change nothing (rate 0)."""
  if not os.path.exists(folder / "CoLA"):
    tiny.write_cola(folder / "CoLA", 16, 6, 3)
  return tiny.run(
    "train.py",
    "--experiment=bert/sentence_prediction",
    "--mode=train_and_eval",
    f"--model_dir={folder / 'run'}",
    "--task_name=cola",
    f"--data_dir={folder / 'CoLA'}",
    "--max_seq_length=16",
    "--train_batch_size=8",
    "--train_steps=2",
    "--learning_rate=0",
    *flags,
    status=status,
  )


def assert_encoder_is(run, source):
  """The run's encoder has the weights of Model Garden's checkpoint, bit for bit."""
  reader, trained = checkpoints.open_reader(source), read_tf(run)
  names = [name for name in reader.get_variable_to_shape_map() if name.startswith("bert/")]
  assert len(names) == 39
  for name in names:
    np.testing.assert_array_equal(trained[name], reader.get_tensor(name), err_msg=name)


@pytest.mark.smoke
def test_training_from_an_object_based_checkpoint(tmp_path):
  (tmp_path / "model.yaml").write_text(
    "task:\n  model:\n    encoder:\n      bert:\n"
    "        {vocab_size: 27, hidden_size: 16, num_layers: 2, num_attention_heads: 4,\n"
    "         intermediate_size: 24, max_position_embeddings: 32, type_vocab_size: 2}\n"
  )
  vocab = os.path.join(GOLDEN, "model_garden_hub", "assets", "vocab.txt")
  out, err = train(
    tmp_path,
    f"--config_file={tmp_path / 'model.yaml'}",
    f"--params_override=task.init_checkpoint={ENCODER}",
    f"--vocab_file={vocab}",
  )
  assert "39 variables; new: output_weights, output_bias" in err, err
  assert "cola dev: " in out
  assert_encoder_is(tmp_path / "run", ENCODER)


@pytest.mark.smoke
def test_training_from_a_module(tmp_path):
  """Sizes and vocabulary are the module's, whatever the settings of the encoder."""
  write_module(tmp_path / "cache" / "bert" / "1")
  flags = (
    "--params_override=task.hub_module_url=bert/1,task.model.encoder.bert.num_layers=12,"
    "task.model.encoder.bert.hidden_size=768",
    f"--tfhub_cache_dir={tmp_path / 'cache'}",
  )
  out, err = train(tmp_path, *flags)
  assert "cola dev: " in out and "num_hidden_layers=2" in err
  assert_encoder_is(tmp_path / "run", ENCODER)


# ---- Modules ------------------------------------------------------------------------------------


def test_a_module_is_downloaded_once(tmp_path, monkeypatch):
  module = write_module(tmp_path / "module")
  archive = tmp_path / "site" / "bert" / "2"
  archive.parent.mkdir(parents=True)
  with tarfile.open(archive, "w:gz") as writer:
    writer.add(module, ".")
  requests = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
      super().__init__(*args, directory=str(tmp_path / "site"))

    def log_message(self, *args):
      requests.append(self.path)

  monkeypatch.setenv("no_proxy", "*")
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/bert/2"
    with pytest.raises(UserError, match="name a folder for the download with --tfhub_cache_dir"):
      hub.find(url, "")
    folder = hub.find(url, str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"bert/3: cannot download .*pass its folder"):
      hub.find(url.replace("/2", "/3"), str(tmp_path / "cache"))
    server.shutdown()
  assert requests[0].endswith("/bert/2?tf-hub-format=compressed")
  assert hub.find(url, str(tmp_path / "cache")) == folder  # the server is down
  assert sorted(os.listdir(tmp_path / "cache")) == [os.path.basename(folder)]
  checkpoints.open_reader(checkpoints.resolve(folder))


# ---- Bad input ----------------------------------------------------------------------------------


def complete(tmp_path, override):
  """Completes the settings of a run and makes its runner."""
  experiment = config.Experiment(task=jobs.registry.find("classification").settings())
  folder = tiny.write_cola(tmp_path / "CoLA", 16, 6, 3)
  text = f"task.task_name=cola,raw_data.data_dir={folder},trainer.model_dir={tmp_path / 'run'},"
  params.apply(experiment, params.read_override(text + override))
  jobs.complete(experiment)
  return jobs.make_runner(experiment)


VOCAB = f"tokenizer.tokenizer_path={GOLDEN}/model_garden_hub/assets/vocab.txt,"


@pytest.mark.parametrize(
  ("override", "message"),
  [
    (
      f"task.hub_module_url=x,task.init_checkpoint={ENCODER}",
      "hub_module_url=x and init_checkpoint=.* are both given; leave one of them out",
    ),
    (
      "task.hub_module_url=bert/1,model.tfhub_cache_dir=hubs",
      r"no TF-Hub module \(a folder with saved_model.pb\) at bert/1 or hubs/bert/1",
    ),
    (
      VOCAB + f"task.init_checkpoint={ENCODER},task.model.encoder.bert.hidden_size=32,"
      "task.model.encoder.bert.num_attention_heads=2,task.model.encoder.bert.vocab_size=27",
      "not a checkpoint of the configuration in model.keys: hidden_size is 16 in the checkpoint "
      "and 32 in the configuration; .*num_attention_heads is 4",
    ),
    (
      VOCAB + f"trainer.do_eval=true,task.init_checkpoint={ENCODER},data.max_seq_length=16",
      "a checkpoint of Model Garden, from which only training can start",
    ),
  ],
)
def test_bad_settings_are_named(override, message, tmp_path):
  with pytest.raises(UserError, match=message):
    complete(tmp_path, override).run()


def test_checkpoints_of_other_models_are_named(tmp_path):
  layer = tf.Module()
  layer.kernel = tf.Variable([1.0])
  other = tf.train.Checkpoint(model=layer).write(str(tmp_path / "other"))
  with pytest.raises(UserError, match=r"other: .*without a BERT encoder of Model Garden"):
    checkpoints.open_reader(other)
  with pytest.raises(UserError, match="first convert it with --direction=garden_to_tf"):
    commands.strip(GOLDEN, str(tmp_path / "out"), checkpoint=ENCODER)
  tiny.write_encoder(tmp_path / "bert")
  with pytest.raises(UserError, match="not an object-based checkpoint of Model Garden"):
    commands.garden_to_tf(str(tmp_path / "bert"), str(tmp_path / "out"))
  tiny.write_funnel(tmp_path / "funnel")
  with pytest.raises(UserError, match="only BERT can be converted, not funnel"):
    commands.tf_to_garden(str(tmp_path / "funnel"), str(tmp_path / "out"))
  folder = tmp_path / "small"
  folder.mkdir()
  (folder / "bert_config.json").write_text(
    modeling.BertConfig(**{**SIZES, "num_hidden_layers": 1}).to_json_string()
  )
  with pytest.raises(
    UserError, match=r"bert_config.json: num_hidden_layers is 2 in the checkpoint"
  ):
    commands.garden_to_tf(str(folder), str(tmp_path / "out"), checkpoint=ENCODER)
  assert not (tmp_path / "out").exists()


def test_the_recorded_inputs_are_those_of_the_script():
  data = np.load(os.path.join(GOLDEN, "model_garden.npz"))
  for name, value in tiny_model_garden.inputs().items():
    np.testing.assert_array_equal(data[name], value, err_msg=name)
