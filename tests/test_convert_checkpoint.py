"""Conversion of BERT checkpoints to Hugging Face's form and back, and without the optimizer."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from tiny_conversion import (
  HEADS,
  HF_CONFIG,
  OTHER_HEADS,
  assert_same,
  draw,
  golden_folder,
  hf_shapes,
  read_hf,
  read_tf,
  run_script,
  without,
  write_hf,
  write_tf,
)

import modeling
from conversion import commands, huggingface
from errors import UserError

v1 = tf.compat.v1


# ---- Whole conversions --------------------------------------------------------------------------


@pytest.mark.smoke
def test_script_converts_and_refuses_to_overwrite(tmp_path):
  tensors = draw(hf_shapes())
  extra = {"embeddings.position_ids": np.arange(10)[None]}
  source, target = write_hf(tmp_path / "hf", tensors | extra), tmp_path / "tf"
  arguments = ("--direction=hf_to_tf", f"--input_dir={source}", f"--output_dir={target}")
  done = run_script(*arguments)
  assert done.returncode == 0, done.stderr
  assert done.stdout == (
    f"{target}/bert_model.ckpt: {len(tensors)} tensors, 1,496 parameters (encoder, pooler)\n"
  )
  assert sorted(os.listdir(target)) == [
    "bert_config.json",
    "bert_model.ckpt.data-00000-of-00001",
    "bert_model.ckpt.index",
    "checkpoint",
    "vocab.txt",
  ]

  config = modeling.load_config(str(target / "bert_config.json"))
  wanted = {name: value for name, value in HF_CONFIG.items() if hasattr(config, name)}
  assert config.to_dict() == {**wanted, "hidden_act": "gelu_erf"}
  assert (target / "vocab.txt").read_text().startswith("piece0\npiece1\n")
  prefix = tf.train.latest_checkpoint(str(target))
  assert prefix == str(target / "bert_model.ckpt")
  with tf.Graph().as_default():
    modeling.BertModel(config, False, tf.zeros([1, 4], tf.int32))
    variables = [(v.op.name, v.shape.as_list()) for v in v1.global_variables()]
  assert sorted(tf.train.list_variables(prefix)) == sorted(variables)
  arrays = read_tf(target)
  np.testing.assert_array_equal(
    arrays["bert/encoder/layer_1/intermediate/dense/kernel"],
    tensors["encoder.layer.1.intermediate.dense.weight"].T,
  )
  np.testing.assert_array_equal(
    arrays["bert/embeddings/LayerNorm/gamma"], tensors["embeddings.LayerNorm.weight"]
  )

  again = run_script(*arguments)
  assert again.returncode == 1
  assert again.stderr.splitlines()[-1].startswith(
    f"convert_checkpoint.py: error: {target}/bert_config.json: the file already exists; "
    f"pass --overwrite"
  )
  assert "Traceback" not in again.stderr


@pytest.mark.parametrize("prefix,heads", [("", None), ("bert.", HEADS), ("bert.", OTHER_HEADS)])
def test_hugging_face_to_tensorflow_and_back_is_exact(tmp_path, prefix, heads):
  tensors = draw(hf_shapes(prefix, heads))
  source = write_hf(tmp_path / "hf", tensors)
  commands.hf_to_tf(source, str(tmp_path / "tf"))
  commands.tf_to_hf(str(tmp_path / "tf"), str(tmp_path / "back"), uncased=False)
  assert_same(read_hf(tmp_path / "back"), tensors)
  config = json.loads((tmp_path / "back" / "config.json").read_text())
  assert {
    name: config.get(name)
    for name in HF_CONFIG
    if name not in ("transformers_version", "architectures")
  }.items() <= HF_CONFIG.items()
  classes = {
    None: "BertModel",
    "cls.predictions.bias": "BertForPreTraining",
    "classifier.bias": "BertForSequenceClassification",
  }
  assert config["architectures"] == [classes[next((n for n in classes if n in tensors), None)]]
  assert len(config.get("id2label", [])) == (5 if heads is OTHER_HEADS else 0)
  tokenizer = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
  assert tokenizer["do_lower_case"] is False
  assert (tmp_path / "back" / "vocab.txt").read_text() == (tmp_path / "hf/vocab.txt").read_text()
  assert not list(tmp_path.glob("*/.*"))


def test_tensorflow_to_hugging_face_and_back_is_exact_and_works(tmp_path):
  data, weights = golden_folder(tmp_path / "tf")
  commands.tf_to_hf(str(tmp_path / "tf"), str(tmp_path / "hf"))
  names = set(read_hf(tmp_path / "hf"))
  assert "bert.encoder.layer.0.attention.self.query.weight" in names
  assert "cls.predictions.transform.dense.weight" in names and len(names) == len(weights)
  commands.hf_to_tf(str(tmp_path / "hf"), str(tmp_path / "back"))
  assert_same(read_tf(tmp_path / "back"), weights)
  before, after = (
    json.loads((tmp_path / name / "bert_config.json").read_text()) for name in ("tf", "back")
  )
  assert after == before

  with tf.Graph().as_default(), v1.Session() as session:
    model = modeling.BertModel(
      modeling.load_config(str(tmp_path / "back" / "bert_config.json")),
      False,
      *(tf.constant(data["in:" + n]) for n in ("input_ids", "input_mask", "segment_ids")),
    )
    v1.train.init_from_checkpoint(str(tmp_path / "back"), {"bert/": "bert/"})
    session.run(v1.global_variables_initializer())
    np.testing.assert_allclose(
      session.run(model.get_sequence_output()), data["out:sequence_output"], atol=2e-5, rtol=0
    )


def test_fine_tuned_checkpoint_converts_with_a_configuration_elsewhere(tmp_path):
  commands.hf_to_tf(write_hf(tmp_path / "hf", draw(hf_shapes())), str(tmp_path / "tf"))
  tuned = read_tf(tmp_path / "tf") | draw({"output_weights": (3, 8), "output_bias": (3,)})
  (tmp_path / "run").mkdir()
  write_tf(tmp_path / "run" / "model.ckpt-7", tuned)
  commands.tf_to_hf(str(tmp_path / "tf"), str(tmp_path / "out"), checkpoint=str(tmp_path / "run"))
  tensors = read_hf(tmp_path / "out")
  np.testing.assert_array_equal(tensors["classifier.weight"], tuned["output_weights"])
  assert "bert.pooler.dense.weight" in tensors
  assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {
    "0": "LABEL_0",
    "1": "LABEL_1",
    "2": "LABEL_2",
  }


def test_old_names_shards_half_precision_and_missing_pooler_are_read(tmp_path, capsys):
  tensors = draw(
    {name: shape for name, shape in hf_shapes("bert.", HEADS).items() if "pooler" not in name}
  )
  stored = {
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
      "LayerNorm.bias", "LayerNorm.beta"
    ): array
    for name, array in tensors.items()
  }
  stored["cls.predictions.decoder.weight"] = stored["bert.embeddings.word_embeddings.weight"]
  stored["cls.predictions.decoder.bias"] = stored.pop("cls.predictions.bias")
  stored["bert.embeddings.position_ids"] = np.arange(10)[None]
  folder = write_hf(tmp_path / "hf", stored)
  os.remove(os.path.join(folder, "model.safetensors"))
  weight_map = {}
  for shard, dtype in enumerate([np.float16, ml_dtypes.bfloat16]):
    part = {
      name: array.astype(dtype) if array.dtype == np.float32 else array
      for i, (name, array) in enumerate(stored.items())
      if (i % 2 if "word_embeddings" not in name and "decoder.w" not in name else 0) == shard
    }
    file = f"model-0000{shard + 1}-of-00002.safetensors"
    safetensors.numpy.save_file(part, os.path.join(folder, file))
    weight_map |= dict.fromkeys(part, file)
  index = os.path.join(folder, "model.safetensors.index.json")
  with open(index, "w") as writer:
    json.dump({"metadata": {}, "weight_map": weight_map}, writer)

  commands.hf_to_tf(folder, str(tmp_path / "tf"))
  assert "--noinit_pooler" in capsys.readouterr().out
  arrays = read_tf(tmp_path / "tf")
  assert len(arrays) == len(tensors)
  assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
  name = "bert.embeddings.word_embeddings.weight"
  np.testing.assert_array_equal(
    arrays["bert/embeddings/word_embeddings"], tensors[name].astype(np.float16).astype(np.float32)
  )
  np.testing.assert_allclose(
    arrays["cls/predictions/output_bias"], tensors["cls.predictions.bias"], rtol=0.01
  )
  np.testing.assert_allclose(
    arrays["bert/embeddings/LayerNorm/beta"], tensors["bert.embeddings.LayerNorm.bias"], rtol=0.01
  )
  os.remove(os.path.join(folder, "model-00002-of-00002.safetensors"))
  with pytest.raises(UserError, match="00002-of-00002.safetensors: no such file, but .*index.json"):
    commands.hf_to_tf(folder, str(tmp_path / "tf"), overwrite=True)


@pytest.mark.parametrize(
  "theirs,ours,back",
  [
    ("gelu", "gelu_erf", "gelu"),
    ("gelu_new", "gelu", "gelu_new"),
    ("relu", "relu", "relu"),
    ("gelu_pytorch_tanh", "gelu", "gelu_new"),
    ("gelu_fast", "gelu", "gelu_new"),
    ("tanh", "tanh", "tanh"),
  ],
)
def test_activations(tmp_path, theirs, ours, back):
  path = tmp_path / "config.json"
  path.write_text(json.dumps({"model_type": "bert", "hidden_act": theirs}))
  family, config = huggingface.from_hf_config(str(path))
  assert config == modeling.BertConfig(vocab_size=30522, hidden_act=ours, type_vocab_size=2)
  assert huggingface.to_hf_config(family, config, {}, {"encoder"})["hidden_act"] == back


# ---- Without the optimizer's variables ----------------------------------------------------------


def test_strip_removes_the_optimizer_and_the_step(tmp_path, capsys):
  _, weights = golden_folder(tmp_path / "run")
  commands.strip(str(tmp_path / "run"), str(tmp_path / "slim"))
  assert_same(read_tf(tmp_path / "slim"), weights)
  assert sorted(os.listdir(tmp_path / "slim")) == [
    "bert_config.json",
    "checkpoint",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.index",
    "vocab.txt",
  ]
  assert (
    f"{len(weights)} variables, {2 * len(weights) + 1} dropped; 0.1 MB before, 0.0 MB after"
    in capsys.readouterr().out
  )
  with pytest.raises(UserError, match="bert_config.json: the file already exists"):
    commands.strip(str(tmp_path / "run"), str(tmp_path / "slim"))
  with pytest.raises(UserError, match="bert_config.json is read by this command"):
    commands.strip(str(tmp_path / "slim"), str(tmp_path / "slim"), overwrite=True)
  assert_same(read_tf(tmp_path / "slim"), weights)


def test_strip_supports_other_optimizers_and_any_model(tmp_path):
  kept = {
    "model/encoder/layer_0/rel_attn/q/kernel": np.ones([4, 2, 2], np.float32),
    "adam_model/Adam_x": np.ones([2], np.float32),
    "half": np.ones([2], ml_dtypes.bfloat16),
    "count": np.int64(3),
  }
  dropped = {
    f"model/encoder/layer_0/rel_attn/q/kernel/{slot}": np.ones([4, 2, 2], np.float32)
    for slot in ("Adam", "Adam_1", "adam_m", "adam_v")
  }
  dropped |= {
    name: np.float32(1)
    for name in ("beta1_power", "beta2_power", "training/beta1_power_1", "beta2_power_1")
  }
  prefix = write_tf(tmp_path / "model.ckpt-3", kept | dropped)
  commands.strip(str(tmp_path), str(tmp_path / "slim"), checkpoint=prefix + ".index")
  assert_same(read_tf(tmp_path / "slim"), kept)


@pytest.mark.parametrize(
  "change,message",
  [
    (
      lambda t: t | {"encoder.layer.0.adapter.weight": np.ones(2, np.float32)},
      r"model.safetensors: unsupported tensor encoder.layer.0.adapter.weight; is .*config",
    ),
    (
      lambda t: t | {"bert.encoder.layer.2.output.dense.bias": np.ones(8, np.float32)},
      r"unsupported tensor bert.encoder.layer.2.output.dense.bias",
    ),
    (
      lambda t: without(t, "encoder.layer.1.output.dense.weight"),
      r"no tensor encoder.layer.1.output.dense.weight",
    ),
    (lambda t: without(t, "pooler.dense.bias"), r"no tensor pooler.dense.bias"),
    (
      lambda t: t | {"embeddings.word_embeddings.weight": np.ones([30, 8], np.float32)},
      r"embeddings.word_embeddings.weight has the shape \[30, 8\], .*config.json gives \[31,",
    ),
    (
      lambda t: t | {"encoder.layer.0.intermediate.dense.weight": np.ones([8, 12], np.float32)},
      r"intermediate.dense.weight has the shape \[8, 12\], .* gives \[12, 8\]",
    ),
    (
      lambda t: (
        t
        | {
          "classifier.weight": np.ones([3, 8], np.float32),
          "classifier.bias": np.ones([4], np.float32),
        }
      ),
      r"classifier.bias has the shape \[4\], .* gives \[3\]",
    ),
    (lambda t: t | {"bert.pooler.dense.bias": np.ones(8, np.float32)}, r"names of the same tensor"),
    (
      lambda t: t | {"embeddings.LayerNorm.bias": np.ones(8, np.int8)},
      r"embeddings.LayerNorm.bias is of type I8; only F32, F16 and BF16",
    ),
    (
      lambda t: t | {"cls.predictions.decoder.weight": np.ones([31, 8], np.float32)},
      r"cls.predictions.decoder.weight differs from embeddings.word_embeddings.weight",
    ),
  ],
)
def test_unsupported_tensors_are_refused(tmp_path, change, message):
  folder = write_hf(tmp_path / "hf", change(draw(hf_shapes())))
  with pytest.raises(UserError, match=message):
    commands.hf_to_tf(folder, str(tmp_path / "tf"))
  assert not (tmp_path / "tf").exists()


@pytest.mark.parametrize(
  "change,message",
  [
    ({"model_type": "roberta"}, "config.json: model_type is 'roberta'; only bert"),
    ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05, but only 1e-12 is supported"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ({"is_decoder": True}, "is_decoder is True"),
    ({"hidden_act": "silu"}, "hidden_act 'silu' is not supported; use one of gelu, "),
    ({"num_attention_heads": 3}, "hidden_size 8 is not a multiple of num_attention_heads 3"),
  ],
)
def test_unsupported_configurations_are_refused(tmp_path, change, message):
  folder = write_hf(tmp_path, draw(hf_shapes()), HF_CONFIG | change)
  with pytest.raises(UserError, match=message):
    commands.hf_to_tf(folder, str(tmp_path / "tf"))


def test_missing_and_damaged_files_are_named(tmp_path):
  folder = write_hf(tmp_path / "hf", draw(hf_shapes()))
  convert = lambda: commands.hf_to_tf(folder, str(tmp_path / "tf"))
  weights = tmp_path / "hf" / "model.safetensors"
  weights.write_bytes(weights.read_bytes()[:-4])
  with pytest.raises(UserError, match="model.safetensors: not a safetensors file, or truncated"):
    convert()
  weights.rename(tmp_path / "hf" / "pytorch_model.bin")
  with pytest.raises(UserError, match="has only pytorch_model.bin.* Save the model as safetensors"):
    convert()
  (tmp_path / "hf" / "pytorch_model.bin").unlink()
  with pytest.raises(UserError, match="hf: no model.safetensors in it"):
    convert()
  (tmp_path / "hf" / "vocab.txt").unlink()
  with pytest.raises(UserError, match="vocab.txt: no such file"):
    convert()
  (tmp_path / "hf" / "config.json").unlink()
  with pytest.raises(UserError, match="config.json: no such file"):
    convert()


def test_unsupported_tensorflow_checkpoints_are_refused(tmp_path):
  golden_folder(tmp_path / "tf")
  arrays = read_tf(tmp_path / "tf")
  folder, target = str(tmp_path / "tf"), str(tmp_path / "hf")
  other = lambda name, arrays: write_tf(tmp_path / name, arrays)
  with pytest.raises(UserError, match="unsupported tensor new/kernel"):
    commands.tf_to_hf(folder, target, checkpoint=other("a", arrays | {"new/kernel": np.ones(2)}))
  name = "bert/encoder/layer_1/output/dense/kernel"
  with pytest.raises(UserError, match=f"no tensor {name}"):
    commands.tf_to_hf(folder, target, checkpoint=other("b", without(arrays, name)))
  with pytest.raises(UserError, match=rf"{name} has the shape \[16, 32\], .* gives \[32, 16\]"):
    commands.tf_to_hf(folder, target, checkpoint=other("c", arrays | {name: arrays[name].T}))
  os.remove(other("d", arrays) + ".data-00000-of-00001")
  with pytest.raises(UserError, match="incomplete or damaged|cannot read"):
    commands.tf_to_hf(folder, target, checkpoint=str(tmp_path / "d"))
  with pytest.raises(UserError, match="no such checkpoint"):
    commands.strip(folder, target, checkpoint=str(tmp_path / "e"))
  objects = tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / "f"))
  with pytest.raises(UserError, match="a checkpoint of TensorFlow 2 objects"):
    commands.strip(folder, target, checkpoint=objects)
  (tmp_path / "tf" / "bert_config.json").unlink()
  with pytest.raises(UserError, match="bert_config.json: no such file"):
    commands.tf_to_hf(folder, target)
  assert not os.path.exists(target)


def test_failed_writing_leaves_no_file(tmp_path):
  with pytest.raises(ZeroDivisionError):
    with commands.staged(str(tmp_path), ["a"]) as folder:
      with open(os.path.join(folder, "a"), "w"):
        raise ZeroDivisionError
  assert os.listdir(tmp_path) == []


# ---- Against the Hugging Face library -----------------------------------------------------------


@pytest.mark.slow
def test_hidden_states_equal_the_hugging_face_library(tmp_path):
  """HF_BERT_DIR=all-MiniLM-L6-v2 pytest -s -m slow tests/test_convert_checkpoint.py"""
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  folder = os.environ.get("HF_BERT_DIR")
  if not folder:
    pytest.skip("HF_BERT_DIR is not set")
  commands.hf_to_tf(folder, str(tmp_path))
  config = modeling.load_config(str(tmp_path / "bert_config.json"))
  random = np.random.RandomState(0)
  ids = random.randint(1, config.vocab_size, [4, 64]).astype(np.int32)
  mask = (np.arange(64) < np.array([[64], [40], [17], [3]])).astype(np.int32)
  segments = (np.arange(64) >= np.array([[30], [20], [9], [64]])).astype(np.int32) * mask
  ids *= mask

  theirs = transformers.BertModel.from_pretrained(folder).eval()
  with torch.no_grad():
    out = theirs(
      input_ids=torch.tensor(ids).long(),
      attention_mask=torch.tensor(mask).long(),
      token_type_ids=torch.tensor(segments).long(),
      output_hidden_states=True,
    )
  expected = [*(state.numpy() for state in out.hidden_states), out.pooler_output.numpy()]
  with tf.Graph().as_default(), v1.Session() as session:
    model = modeling.BertModel(
      config, False, tf.constant(ids), tf.constant(mask), tf.constant(segments)
    )
    v1.train.init_from_checkpoint(str(tmp_path), {"bert/": "bert/"})
    session.run(v1.global_variables_initializer())
    actual = session.run(
      [model.get_embedding_output(), *model.get_all_encoder_layers(), model.get_pooled_output()]
    )
  differences = [float(np.abs(a - b).max()) for a, b in zip(actual, expected, strict=True)]
  print(
    "Largest difference of embeddings, layers, pooler:",
    " ".join(f"{difference:.2e}" for difference in differences),
  )
  assert max(differences) < 1e-4

  # The library loads the model that is converted back, with the same weights.
  commands.tf_to_hf(str(tmp_path), str(tmp_path / "back"))
  back = transformers.AutoModel.from_pretrained(tmp_path / "back").eval()
  transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
  assert isinstance(back, transformers.BertModel)
  for name, tensor in theirs.state_dict().items():
    assert torch.equal(tensor, back.state_dict()[name]), name
