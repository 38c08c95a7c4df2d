"""Conversion of Funnel-Transformer checkpoints to Hugging Face's form and back; encoders alone."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from tiny_conversion import (
  GOLDEN,
  assert_same,
  draw,
  read_hf,
  read_tf,
  run_script,
  write_hf,
  write_tf,
)
from tiny_funnel_conversion import (
  CLASSIFIER,
  DISCRIMINATOR,
  HF_CONFIG,
  LAYERS,
  graph_variables,
  head_of,
  hf_shapes,
  pretraining_checkpoint,
  tf_folder,
)

import modeling
from conversion import commands, huggingface
from errors import UserError
from models import funnel_heads

v1 = tf.compat.v1


# ---- Whole conversions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
  "prefix,heads,decoder,architecture",
  [
    ("", None, True, "FunnelModel"),
    ("", None, False, "FunnelBaseModel"),
    ("funnel.", CLASSIFIER, False, "FunnelForSequenceClassification"),
    ("funnel.", DISCRIMINATOR, True, "FunnelForPreTraining"),
  ],
)
def test_hugging_face_to_tensorflow_and_back_is_exact(
  tmp_path, prefix, heads, decoder, architecture
):
  tensors = draw(hf_shapes(prefix, heads, decoder))
  commands.hf_to_tf(write_hf(tmp_path / "hf", tensors, HF_CONFIG), str(tmp_path / "tf"))
  config = modeling.load_config(str(tmp_path / "tf" / "net_config.json"))
  assert config == modeling.ModelConfig(
    vocab_size=31,
    block_size="2_1x2",
    decoder_size="1",
    d_model=8,
    d_embed=8,
    n_head=3,
    d_head=4,
    d_inner=10,
    dropout=0.2,
    dropatt=0.3,
    dropact=0.4,
    init_range=0.5,
    init_std=0.06,
    pooling_type="max",
    pool_q_only=False,
  )
  arrays = read_tf(tmp_path / "tf")
  assert {name: array.shape for name, array in arrays.items()} == graph_variables(
    config, decoder, head=head_of(heads)
  )
  assert sorted(os.listdir(tmp_path / "tf")) == [
    "checkpoint",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.index",
    *(["model_settings.json"] if heads is CLASSIFIER else []),
    "net_config.json",
    "vocab.txt",
  ]

  commands.tf_to_hf(str(tmp_path / "tf"), str(tmp_path / "back"))
  assert_same(read_hf(tmp_path / "back"), tensors)
  written = json.loads((tmp_path / "back" / "config.json").read_text())
  labels = [written.pop(name, {}) for name in ("id2label", "label2id")]
  assert written == HF_CONFIG | {"layer_norm_eps": 1e-8, "architectures": [architecture]}
  assert [len(names) for names in labels] == ([5, 5] if heads is CLASSIFIER else [0, 0])
  tokenizer = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
  assert tokenizer == {
    "tokenizer_class": "FunnelTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
  }


def test_every_tensor_has_the_layout_of_the_model(tmp_path):
  tensors = draw(hf_shapes("funnel.", CLASSIFIER | DISCRIMINATOR))
  commands.hf_to_tf(
    write_hf(tmp_path / "hf", tensors, HF_CONFIG), str(tmp_path / "tf"), cls_scope="mnli"
  )
  arrays = read_tf(tmp_path / "tf")
  same = lambda name, expected: np.testing.assert_array_equal(arrays[name], expected)
  for theirs, ours in LAYERS.items():
    layer = {name.removeprefix(f"funnel.{theirs}."): array for name, array in tensors.items()}
    attention = lambda name, layer=layer: layer[f"attention.{name}"]
    for name in "qkv":  # x W^T of torch.nn.Linear, by head
      kernel = attention(f"{name}_head.weight").reshape(3, 4, 8).transpose(2, 0, 1)
      same(f"{ours}/rel_attn/{name}/kernel", kernel)
    for name in "kv":
      same(f"{ours}/rel_attn/{name}/bias", attention(f"{name}_head.bias").reshape(3, 4))
    kernel = attention("post_proj.weight").reshape(8, 3, 4).transpose(1, 2, 0)
    same(f"{ours}/rel_attn/o/kernel", kernel)
    same(f"{ours}/rel_attn/o/bias", attention("post_proj.bias"))
    same(f"{ours}/rel_attn/r/kernel", attention("r_kernel"))
    for name in ("r_w_bias", "r_r_bias", "r_s_bias", "seg_embed"):
      same(f"{ours}/rel_attn/{name}", attention(name))
    for i in "12":
      same(f"{ours}/ff/layer_{i}/kernel", layer[f"ffn.linear_{i}.weight"].T)
      same(f"{ours}/ff/layer_{i}/bias", layer[f"ffn.linear_{i}.bias"])
    for theirs_part, part in (("attention", "rel_attn"), ("ffn", "ff")):
      same(f"{ours}/{part}/layer_norm/gamma", layer[f"{theirs_part}.layer_norm.weight"])
      same(f"{ours}/{part}/layer_norm/beta", layer[f"{theirs_part}.layer_norm.bias"])
  same("model/input/layer_norm/beta", tensors["funnel.embeddings.layer_norm.bias"])
  same("model/sequnece_summary/summary/kernel", tensors["classifier.linear_hidden.weight"].T)
  same("model/mnli/logit/kernel", tensors["classifier.linear_out.weight"].T)
  # The original discriminator predicts "original", Hugging Face's predicts "replaced".
  weight = tensors["discriminator_predictions.dense_prediction.weight"]
  same("model/binary_loss/weight", -weight[0])


@pytest.mark.parametrize("golden", ["hid_factorized_base", "cls_factorized_base"])
def test_the_originals_weights_convert_there_and_back(tmp_path, golden):
  data = np.load(os.path.join(GOLDEN, f"funnel_{golden}.npz"), allow_pickle=False)
  weights = {name[2:]: data[name] for name in data.files if name.startswith("w:")}
  values = json.loads(str(data["config_json"]))
  del values["flags"]
  commands.tf_to_hf(tf_folder(tmp_path / "tf", weights, **values), str(tmp_path / "hf"))
  assert len(read_hf(tmp_path / "hf")) == len(weights)
  scope = next((name.split("/")[1] for name in weights if name.endswith("/logit/bias")), "")
  commands.hf_to_tf(str(tmp_path / "hf"), str(tmp_path / "back"), cls_scope=scope)
  assert_same(read_tf(tmp_path / "back"), weights)
  assert json.loads((tmp_path / "back" / "net_config.json").read_text()) == values
  assert (tmp_path / "back" / "vocab.txt").read_text() == "<pad>\n<unk>\n"


def test_settings_outside_net_config_json_are_kept(tmp_path, capsys):
  folder = write_hf(
    tmp_path / "hf",
    draw(hf_shapes(decoder=False)),
    HF_CONFIG | {"truncate_seq": False, "separate_cls": False},
  )
  commands.hf_to_tf(folder, str(tmp_path / "tf"))
  printed = capsys.readouterr().out
  assert "model_settings.json: truncate_seq False" in printed
  assert "library computes different outputs from these weights: with separate_cls false" in printed
  commands.tf_to_hf(str(tmp_path / "tf"), str(tmp_path / "back"))
  config = json.loads((tmp_path / "back" / "config.json").read_text())
  assert config["truncate_seq"] is False and config["separate_cls"] is False


@pytest.mark.parametrize(
  "theirs,ours,back",
  [
    ({"hidden_act": "gelu"}, {"ff_activation": "gelu_erf"}, {}),
    ({"hidden_act": "relu"}, {"ff_activation": "relu"}, {}),
    ({"attention_type": "relative_shift"}, {"rel_attn_type": "rel_shift"}, {}),
    ({"block_repeats": None}, {"block_size": "2_1"}, {"block_repeats": [1, 1]}),
    ({"block_sizes": [2, 1, 1], "block_repeats": [3, 1, 2]}, {"block_size": "2x3_1_1x2"}, {}),
    (
      {"block_sizes": [2], "block_repeats": [1]},
      {"block_size": "2", "decoder_size": "0"},
      {"num_decoder_layers": 0},
    ),
    ({"initializer_std": None}, {"init_std": 0.02}, {"initializer_std": 0.02}),
    ({"num_decoder_layers": 0}, {"decoder_size": "0"}, {}),
    ({"layer_norm_eps": 1e-8}, {}, {}),
  ],
)
def test_configurations(tmp_path, theirs, ours, back):
  path = tmp_path / "config.json"
  path.write_text(json.dumps(HF_CONFIG | theirs))
  family, config = huggingface.from_hf_config(str(path))
  assert ours.items() <= config.to_dict().items()
  written = huggingface.to_hf_config(family, config, {}, {"encoder"})
  expected = HF_CONFIG | theirs | back | {"layer_norm_eps": 1e-8}
  assert {name: written[name] for name in HF_CONFIG} == expected


def test_defaults_are_those_of_the_library(tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "funnel"}')
  assert huggingface.from_hf_config(str(tmp_path / "config.json"))[1] == modeling.ModelConfig(
    vocab_size=30522,
    block_size="4_4_4",
    d_model=768,
    d_embed=768,
    n_head=12,
    d_inner=3072,
    rel_attn_type="rel_shift",
  )


# ---- The encoder alone, and old names ------------------------------------------------------------


def test_core_of_a_pretraining_checkpoint_is_the_encoder(tmp_path):
  variables, core = pretraining_checkpoint()
  assert any(name.startswith("generator/lm_proj/") for name in variables)
  folder = tf_folder(tmp_path / "full", variables)
  done = run_script(
    "--direction=core_only", f"--input_dir={folder}", f"--output_dir={tmp_path}/core"
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith(
    f"{tmp_path}/core/model.ckpt: {len(core)} variables, "
    f"{len(variables) - len(core)} dropped; 0.1 MB before, 0.0 MB"
  )
  assert_same(read_tf(tmp_path / "core"), core)
  assert sorted(os.listdir(tmp_path / "core")) == [
    "checkpoint",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.index",
    "net_config.json",
    "vocab.uncased.txt",
  ]
  with pytest.raises(UserError, match="vocab.uncased.txt: the file already exists|net_config"):
    commands.strip(folder, str(tmp_path / "core"), core_only=True)


def test_discriminator_converts_without_the_generator(tmp_path, capsys):
  variables, core = pretraining_checkpoint()
  commands.tf_to_hf(tf_folder(tmp_path / "full", variables), str(tmp_path / "hf"))
  assert "tensors of the generator" in capsys.readouterr().out
  assert set(read_hf(tmp_path / "hf")) == set(hf_shapes("funnel.", DISCRIMINATOR))


def test_core_of_bert_is_the_encoder(tmp_path):
  kept = {"bert/pooler/dense/bias": np.ones(2, np.float32)}
  head = {
    "cls/predictions/output_bias": np.ones(2, np.float32),
    "output_bias": np.ones(2, np.float32),
  }
  prefix = write_tf(tmp_path / "model.ckpt-3", kept | head)
  commands.strip(str(tmp_path), str(tmp_path / "core"), checkpoint=prefix, core_only=True)
  assert_same(read_tf(tmp_path / "core"), kept)
  write_tf(tmp_path / "other", head)
  with pytest.raises(
    UserError, match="no variable model/input, model/encoder, .*, bert or electra; is it"
  ):
    commands.strip(
      str(tmp_path), str(tmp_path / "x"), checkpoint=str(tmp_path / "other"), core_only=True
    )


def test_names_from_before_the_release_are_read(tmp_path):
  variables, core = pretraining_checkpoint()
  old = {
    name.replace("/encoder/", "/transformer_xl/").replace("/decoder/", "/"): array
    for name, array in variables.items()
  }
  assert {
    "model/transformer_xl/layer_0/ff/layer_1/bias",
    "model/layer_3/ff/layer_1/bias",
    "generator/layer_3/ff/layer_1/bias",
    "model/transformer_xl/layer_2/rel_attn/o/bias/adam_m",
  } <= set(old)
  folder = tf_folder(tmp_path / "old", old)
  commands.strip(folder, str(tmp_path / "slim"))
  assert_same(
    read_tf(tmp_path / "slim"),
    {
      name: array
      for name, array in variables.items()
      if not name.endswith(("/adam_m", "/adam_v")) and name != "global_step"
    },
  )
  commands.strip(folder, str(tmp_path / "core"), core_only=True)
  assert_same(read_tf(tmp_path / "core"), core)
  commands.tf_to_hf(folder, str(tmp_path / "hf"))
  np.testing.assert_array_equal(
    read_hf(tmp_path / "hf")["funnel.decoder.layers.0.ffn.linear_1.bias"],
    core["model/decoder/layer_3/ff/layer_1/bias"],
  )
  both = write_tf(
    tmp_path / "both",
    {"model/layer_3/x": np.ones(2, np.float32), "model/decoder/layer_3/x": np.ones(2, np.float32)},
  )
  with pytest.raises(UserError, match="model/decoder/layer_3/x and model/layer_3/x are names of "):
    commands.strip(folder, str(tmp_path / "out"), checkpoint=both)


# ---- Against the Hugging Face library -----------------------------------------------------------

# Configurations for which the library (5.23) equals the originals. It differs
#   with separate_cls=False: it does not mask [cls] rows and columns of position and segment scores,
#     so hidden states differ by 0.5 from the first layer on, in both forms of attention;
#   with a decoder and block_repeats[0] > 1: the decoder adds hidden state number block_sizes[0],
#     which is not the last one of the first block (difference 2.3);
#   for padding that begins inside a pooling window: its mask is 1 on tokens but is pooled by the
#     minimum, which is correct only for the originals' mask, 1 on padding (difference 0.1);
#   for lengths that the total pooling does not divide, which the originals refuse.
VARIANTS = [
  ("FunnelModel", {}),
  ("FunnelModel", dict(attention_type="factorized")),
  ("FunnelModel", dict(pool_q_only=False)),
  ("FunnelModel", dict(pool_q_only=False, attention_type="factorized", pooling_type="max")),
  ("FunnelModel", dict(truncate_seq=False)),
  ("FunnelModel", dict(truncate_seq=False, attention_type="factorized", pool_q_only=False)),
  ("FunnelModel", dict(pooling_type="max", block_repeats=[1, 2, 1], hidden_act="gelu")),
  ("FunnelBaseModel", dict(block_repeats=[2, 1, 2])),
  ("FunnelBaseModel", dict(block_sizes=[2], hidden_act="relu")),
  ("FunnelForPreTraining", {}),
  ("FunnelForSequenceClassification", dict(num_labels=5)),
]


def their_states(theirs, ids, mask, segments):
  """Embeddings, hidden states of every encoder layer, and output; or only a head's logits."""
  torch = pytest.importorskip("torch")
  with torch.no_grad():
    out = theirs(
      input_ids=torch.tensor(ids),
      attention_mask=torch.tensor(mask),
      token_type_ids=torch.tensor(segments),
      output_hidden_states=True,
    )
  if "logits" in out:
    return [out.logits.numpy()]
  config = theirs.config
  depth = sum(n * r for n, r in zip(config.block_sizes, config.block_repeats, strict=True))
  return [state.numpy() for state in (*out.hidden_states[: depth + 1], out.last_hidden_state)]


def our_states(folder, config, kind, ids, mask, segments, attention_type):
  with tf.Graph().as_default(), v1.Session() as session:
    model = modeling.FunnelTFM(config, attention_type=attention_type)
    inputs = (tf.constant(ids), False, tf.constant(segments), tf.constant(1 - mask))
    last, hiddens, ret_dict = model.extract_hiddens(
      *inputs, use_decoder=kind in ("FunnelModel", "FunnelForPreTraining")
    )
    wanted = [ret_dict["input_embed"], *hiddens, last]
    if kind == "FunnelForPreTraining":
      wanted = [-funnel_heads.binary_logits(config, last)]
    elif kind == "FunnelForSequenceClassification":
      summary, _ = model.get_pooled_output(*inputs)
      wanted = [funnel_heads.classification_logits(config, summary, 5, "cls")]
    v1.train.init_from_checkpoint(folder, {"/": "/"})
    session.run(v1.global_variables_initializer())
    return session.run(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind,changes", VARIANTS)
def test_hidden_states_equal_the_hugging_face_library(tmp_path, monkeypatch, kind, changes):
  """pytest -s -m slow tests/test_convert_funnel.py"""
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  from transformers.models.funnel import modeling_funnel

  torch.manual_seed(0)
  theirs = getattr(transformers, kind)(
    transformers.FunnelConfig(
      **{
        **dict(
          vocab_size=40,
          block_sizes=[2, 1, 1],
          num_decoder_layers=1,
          d_model=16,
          n_head=2,
          d_head=6,
          d_inner=24,
        ),
        **changes,
      }
    )
  ).eval()
  with torch.no_grad():
    for name, parameter in theirs.named_parameters():
      parameter.copy_(0.2 * torch.randn_like(parameter) + ("layer_norm.weight" in name))
  theirs.save_pretrained(tmp_path / "hf")
  (tmp_path / "hf" / "vocab.txt").write_text(
    "".join(f"{token}\n" for token in "<pad> <unk> <cls> <sep> <mask> <s> </s> a".split())
  )
  commands.hf_to_tf(str(tmp_path / "hf"), str(tmp_path / "tf"))
  _, config = huggingface.from_hf_config(str(tmp_path / "hf" / "config.json"))

  def largest_difference(lengths):
    random = np.random.RandomState(0)
    ids = random.randint(0, 40, [len(lengths), 16])
    mask = (np.arange(16) < np.array(lengths)[:, None]).astype(np.int64)
    segments = (np.arange(16) >= np.array([[8], [4], [2]])) * mask
    segments[:, 0] = 2
    expected = their_states(theirs, ids, mask, segments)
    return max(
      float(np.abs(a - b).max())
      for attention_type in ("rel_shift", "factorized")
      for a, b in zip(
        our_states(str(tmp_path / "tf"), config, kind, ids, mask, segments, attention_type),
        expected,
        strict=True,
      )
    )

  aligned = largest_difference([16, 13, 5])  # padding begins at a window of each block
  pool = modeling_funnel.FunnelAttentionStructure.pool_tensor
  monkeypatch.setattr(
    modeling_funnel.FunnelAttentionStructure,
    "pool_tensor",
    lambda self, tensor, mode="mean", stride=2: pool(
      self, tensor, {"min": "max"}.get(mode, mode), stride
    ),
  )
  anywhere = largest_difference([16, 10, 3])  # with the library's pooling of the mask corrected
  print(f"Largest difference of {kind} {changes}: {aligned:.1e}, anywhere {anywhere:.1e}")
  assert max(aligned, anywhere) < 1e-4

  commands.tf_to_hf(str(tmp_path / "tf"), str(tmp_path / "back"), truncate_seq=config.truncate_seq)
  back, report = getattr(transformers, kind).from_pretrained(
    tmp_path / "back", output_loading_info=True
  )
  assert not report["missing_keys"] and not report["unexpected_keys"]
  for name, tensor in theirs.state_dict().items():
    assert torch.equal(tensor, back.state_dict()[name]), name
  architecture = transformers.AutoConfig.from_pretrained(tmp_path / "back").architectures
  assert architecture == [kind]
  assert transformers.AutoTokenizer.from_pretrained(tmp_path / "back").cls_token == "<cls>"
