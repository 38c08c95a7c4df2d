"""Conversion of whole folders: configurations, labels, trained folders, table sizes, shards."""

import ast
import os
import shlex

import numpy as np
import pytest
import safetensors.numpy
import tiny_conversion
import tiny_funnel_conversion
from tiny_conversion import (
  HEADS,
  HF_CONFIG,
  assert_same,
  draw,
  hf_shapes,
  read_hf,
  read_tf,
  write_hf,
  write_tf,
)
from tiny_folders import (
  CLASSIFIER,
  ID2LABEL,
  LABELS,
  SETTINGS,
  TOKENIZER_CONFIG,
  read,
  to_tf,
  write,
)

import modeling
from conversion import commands, huggingface
from errors import UserError
from training import hf_tokenizer, model_folder

# ---- Configurations and names of tensors --------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"architectures": ["BertForMaskedLM"]}])
def test_folders_without_model_type_convert(tmp_path, more):
  config = {
    name: value for name, value in HF_CONFIG.items() if name not in ("model_type", "architectures")
  } | more
  folder = to_tf(tmp_path, draw(hf_shapes()), config)
  assert modeling.load_config(str(folder / "bert_config.json")).hidden_act == "gelu_erf"


def test_funnel_folder_without_model_type_converts(tmp_path):
  config = {
    name: value for name, value in tiny_funnel_conversion.HF_CONFIG.items() if name != "model_type"
  }
  folder = to_tf(tmp_path, draw(tiny_funnel_conversion.hf_shapes()), config)
  assert (folder / "net_config.json").exists()


@pytest.mark.parametrize(
  "config, message",
  [
    ({"architectures": ["RobertaModel"], "hidden_size": 8}, "model_type is 'RobertaModel'; only "),
    ({"dim": 8}, 'model_type is missing; add "model_type": "bert", "electra" or "fun'),
    ({"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}}, "auto_map is "),
  ],
)
def test_other_models_without_model_type_are_refused(tmp_path, config, message):
  with pytest.raises(UserError, match=message):
    to_tf(tmp_path, draw(hf_shapes()), config)


@pytest.mark.parametrize("before", ["", "module.", "model.", "_orig_mod.module.", "0.auto_model."])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_names_with_a_prefix_are_read(tmp_path, before, prefix):
  tensors = draw(hf_shapes(prefix, HEADS if prefix else None))
  expected = read_tf(to_tf(tmp_path, tensors))
  named = {before + name: array for name, array in tensors.items()}
  named[before + prefix + "embeddings.position_ids"] = np.arange(10)[None]
  assert_same(read_tf(to_tf(tmp_path, named, name="other")), expected)


def test_several_encoders_in_a_file_are_refused(tmp_path):
  tensors = draw(hf_shapes("question.bert.") | hf_shapes("context.bert."))
  with pytest.raises(UserError, match="several encoders, .* 'context.', 'question.'; keep one"):
    to_tf(tmp_path, tensors)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_pickled_weights_are_not_read(tmp_path, name):
  write_hf(tmp_path / "hf", draw(hf_shapes()))
  (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "hf" / name)
  with pytest.raises(UserError, match="only pytorch_model.bin; .*in that folder.* run ") as caught:
    to_tf(tmp_path)
  command = shlex.split(str(caught.value).split(" run ")[-1])
  assert command[:2] == ["python", "-c"] and len(command) == 3
  ast.parse(command[2])
  assert "weights_only=True" in command[2] and "'model.safetensors'" in command[2]


@pytest.mark.slow
def test_the_command_for_pickled_weights_converts_them(tmp_path, monkeypatch):
  torch = pytest.importorskip("torch")
  tensors = draw(hf_shapes("bert.", HEADS))
  write_hf(tmp_path / "hf", tensors)
  os.remove(tmp_path / "hf" / "model.safetensors")
  torch.save(
    {name: torch.from_numpy(array) for name, array in tensors.items()},
    tmp_path / "hf" / "pytorch_model.bin",
  )
  with pytest.raises(UserError) as caught:
    to_tf(tmp_path)
  monkeypatch.chdir(tmp_path / "hf")
  exec(shlex.split(str(caught.value).split(" run ")[-1])[2], {})
  assert_same(read_hf(tmp_path / "hf"), tensors)


# ---- Labels -------------------------------------------------------------------------------------


def test_labels_are_kept_there_and_back(tmp_path):
  tensors = draw(hf_shapes("bert.", CLASSIFIER))
  folder = to_tf(tmp_path, tensors, HF_CONFIG | ID2LABEL)
  assert read(folder / "labels.json") == {"label_list": LABELS}
  assert model_folder.read_settings(str(folder)) == {"label_list": LABELS}
  commands.tf_to_hf(str(folder), str(tmp_path / "back"))
  assert ID2LABEL.items() <= read(tmp_path / "back" / "config.json").items()
  (folder / "model_settings.json").unlink()  # as in folders of earlier versions
  commands.tf_to_hf(str(folder), str(tmp_path / "back"), overwrite=True)
  assert ID2LABEL.items() <= read(tmp_path / "back" / "config.json").items()
  write(folder / "labels.json", {"label_list": LABELS[:2]})
  with pytest.raises(
    UserError, match="model.ckpt: the labels are bad, poor, but the classifier has 5"
  ):
    commands.tf_to_hf(str(folder), str(tmp_path / "again"))


def test_a_token_classifier_is_left_out(tmp_path, capsys):
  """Its tensors have the names of a sequence classifier."""
  folder = to_tf(
    tmp_path,
    draw(hf_shapes("bert.", CLASSIFIER)),
    HF_CONFIG | ID2LABEL | {"architectures": ["BertForTokenClassification"]},
  )
  assert "output_weights" not in read_tf(folder)
  assert not (folder / "labels.json").exists()
  assert "Left out: the classifier, which labels tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
  "labels, expected",
  [
    ({}, None),
    ({"0": "LABEL_0", "1": "LABEL_1"}, None),
    (None, None),
    ({"1": "b", "0": "a"}, ["a", "b"]),
    ({"0": 0, "1": 1}, ["0", "1"]),
  ],
)
def test_label_names_are_read(labels, expected):
  assert huggingface.label_list({"id2label": labels}, 2, "config.json") == expected


@pytest.mark.parametrize(
  "labels", [{"0": "a"}, {"0": "a", "2": "b"}, {"0": "a", "1": "a"}, {"0": "a", "1": "b", "2": "c"}]
)
def test_labels_that_do_not_fit_the_classifier_are_refused(labels):
  with pytest.raises(UserError, match="config.json: id2label is .* but the classifier has 2 lab"):
    huggingface.label_list({"id2label": labels}, 2, "config.json")


def test_labels_of_an_encoder_alone_are_ignored(tmp_path):
  folder = to_tf(tmp_path, draw(hf_shapes()), HF_CONFIG | ID2LABEL)
  assert not (folder / "labels.json").exists()


def test_settings_of_another_model_stop_the_conversion(tmp_path):
  folder = to_tf(tmp_path, draw(hf_shapes("bert.", CLASSIFIER)), HF_CONFIG | ID2LABEL)
  with pytest.raises(UserError, match="labels.json: the settings of another model|model_settings"):
    to_tf(tmp_path, draw(hf_shapes()), overwrite=True)
  assert read(folder / "labels.json") == {"label_list": LABELS}


# ---- Trained folders ----------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
  """A run with checkpoints 10 (the best) and 20, as training writes it."""
  run = to_tf(tmp_path, draw(hf_shapes("bert.", CLASSIFIER)), name="run")
  weights = read_tf(run)
  for path in run.glob("bert_model.ckpt*"):
    path.unlink()
  write_tf(run / "model.ckpt-20", weights)
  (run / "best").mkdir()
  best = {name: array + 1 for name, array in weights.items()}
  write_tf(run / "best" / "model.ckpt-10", best | {"global_step": np.int64(10)})
  settings = {"task_name": "tsv", "label_list": LABELS, "max_seq_length": 48, **SETTINGS}
  model_folder.write_settings(str(run), settings)
  return run, weights, best, settings


def test_strip_keeps_the_best_checkpoint_and_the_settings(trained, tmp_path, capsys):
  run, weights, best, settings = trained
  commands.strip(str(run), str(tmp_path / "slim"))
  assert_same(read_tf(tmp_path / "slim"), best)
  assert model_folder.read_settings(str(tmp_path / "slim")) == settings
  assert read(tmp_path / "slim" / "labels.json") == {"task_name": "tsv", "label_list": LABELS}
  assert f"Copied checkpoint: {run}/best/model.ckpt-10\n" in capsys.readouterr().out
  commands.strip(str(run), str(tmp_path / "newest"), checkpoint=str(run / "model.ckpt-20"))
  assert_same(read_tf(tmp_path / "newest"), weights)
  assert model_folder.read_settings(str(tmp_path / "newest")) == settings


def test_best_folder_uses_configuration_and_vocabulary_of_its_parent(trained, tmp_path):
  """Earlier versions stored them only in the folder above."""
  run, _, best, _ = trained
  commands.strip(str(run / "best"), str(tmp_path / "slim"))
  assert_same(read_tf(tmp_path / "slim"), best)
  for name in ("bert_config.json", "vocab.txt"):
    assert (tmp_path / "slim" / name).read_text() == (run / name).read_text()
  commands.tf_to_hf(str(run / "best"), str(tmp_path / "back"))
  assert ID2LABEL.items() <= read(tmp_path / "back" / "config.json").items()


def test_core_keeps_the_tokenizer_settings_but_no_labels(trained, tmp_path):
  run, _, best, settings = trained
  commands.strip(str(run), str(tmp_path / "core"), core_only=True)
  assert_same(
    read_tf(tmp_path / "core"),
    {name: array for name, array in best.items() if name.startswith("bert/")},
  )
  assert not (tmp_path / "core" / "labels.json").exists()
  assert model_folder.read_settings(str(tmp_path / "core")) == SETTINGS


def test_to_hugging_face_keeps_the_best_checkpoint_and_the_settings(trained, tmp_path, capsys):
  run, weights, best, _ = trained
  commands.tf_to_hf(str(run), str(tmp_path / "hf_best"))
  assert f"Converted checkpoint: {run}/best/model.ckpt-10\n" in capsys.readouterr().out
  np.testing.assert_array_equal(
    read_hf(tmp_path / "hf_best")["classifier.weight"], best["output_weights"]
  )
  assert ID2LABEL.items() <= read(tmp_path / "hf_best" / "config.json").items()
  assert TOKENIZER_CONFIG.items() <= read(tmp_path / "hf_best/tokenizer_config.json").items()
  commands.tf_to_hf(str(run), str(tmp_path / "newest"), checkpoint=str(run / "model.ckpt-20"))
  np.testing.assert_array_equal(
    read_hf(tmp_path / "newest")["classifier.weight"], weights["output_weights"]
  )


def test_labels_come_from_the_checkpoints_folder(trained, tmp_path):
  """The encoder's folder gives the vocabulary and the tokenizer settings, but no labels."""
  run, *_ = trained
  encoder = to_tf(tmp_path, draw(hf_shapes()), name="encoder")
  model_folder.write_settings(
    str(encoder), {"label_list": LABELS[::-1], "uncased": True, "strip_accents": False}
  )
  commands.tf_to_hf(str(encoder), str(tmp_path / "a"), checkpoint=str(run / "best"))
  assert ID2LABEL.items() <= read(tmp_path / "a" / "config.json").items()
  assert read(tmp_path / "a" / "tokenizer_config.json")["do_lower_case"] is False
  for name in model_folder.SETTINGS_NAMES:
    (run / name).unlink()
  commands.tf_to_hf(str(encoder), str(tmp_path / "b"), checkpoint=str(run / "best"))
  assert read(tmp_path / "b" / "config.json")["id2label"]["0"] == "LABEL_0"
  assert read(tmp_path / "b" / "tokenizer_config.json")["strip_accents"] is False


# ---- Sizes, and files elsewhere -----------------------------------------------------------------


def pad(array, rows):
  return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))


@pytest.mark.parametrize("rows", [32, 64, 128])
def test_padded_table_converts_there_and_back(tmp_path, rows):
  """config.json has vocab_size 31; the table and the masked-token bias have `rows`."""
  tensors = draw(hf_shapes("bert.", HEADS))
  for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
    tensors[name] = pad(tensors[name], rows)
  folder = to_tf(tmp_path, tensors)
  assert read(folder / "bert_config.json")["vocab_size"] == rows
  config = read(folder / "bert_config.json") | {"vocab_size": 31}
  write(folder / "bert_config.json", config)
  commands.tf_to_hf(str(folder), str(tmp_path / "back"))
  assert_same(read_hf(tmp_path / "back"), tensors)
  assert read(tmp_path / "back" / "config.json")["vocab_size"] == rows


def test_padded_table_of_a_funnel_converts(tmp_path):
  tensors = draw(tiny_funnel_conversion.hf_shapes())
  tensors["embeddings.word_embeddings.weight"] = pad(
    tensors["embeddings.word_embeddings.weight"], 64
  )
  folder = to_tf(tmp_path, tensors, tiny_funnel_conversion.HF_CONFIG)
  assert read(folder / "net_config.json")["vocab_size"] == 64


@pytest.mark.parametrize(
  "module, theirs, ours",
  [
    (tiny_conversion, {"num_hidden_layers": 900}, {"num_hidden_layers": 900}),
    (tiny_funnel_conversion, {"block_sizes": [2, 900]}, {"block_size": "2_900"}),
    (tiny_funnel_conversion, {"num_decoder_layers": 900}, {"decoder_size": "900"}),
  ],
)
def test_more_layers_than_tensors_are_refused(tmp_path, module, theirs, ours):
  """Nothing is built in the size of the configuration, in either direction."""
  tensors = draw(module.hf_shapes())
  folder = to_tf(tmp_path, tensors, module.HF_CONFIG)
  write(tmp_path / "hf" / "config.json", module.HF_CONFIG | theirs)
  message = f"the model has 90. layers, but .* only {len(tensors)} tensors"
  with pytest.raises(UserError, match=f"config.json: {message}"):
    to_tf(tmp_path, overwrite=True)
  path = next(folder.glob("*_config.json"))
  write(path, read(path) | ours)
  with pytest.raises(UserError, match=f"{path}: {message}"):
    commands.tf_to_hf(str(folder), str(tmp_path / "back"))


@pytest.mark.parametrize(
  "shard",
  [
    "../x.safetensors",
    "/etc/x.safetensors",
    "a/b.safetensors",
    "..\\x.safetensors",
    "..",
    "vocab.txt",
    "",
  ],
)
def test_shards_outside_the_folder_are_not_read(tmp_path, shard):
  tensors = draw(hf_shapes())
  folder = write_hf(tmp_path / "hf", tensors)
  safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors")
  os.remove(os.path.join(folder, "model.safetensors"))
  write(
    tmp_path / "hf" / "model.safetensors.index.json", {"weight_map": dict.fromkeys(tensors, shard)}
  )
  with pytest.raises(UserError, match="index.json: .* is not the name of a safetensors file in th"):
    to_tf(tmp_path)
  write(tmp_path / "hf" / "model.safetensors.index.json", {"weight_map": [shard]})
  with pytest.raises(UserError, match="index.json: not an index of shards: the key weight_map"):
    to_tf(tmp_path)


# ---- Folders that the Hugging Face library writes -----------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
  "options",
  [
    {"do_lower_case": True},
    {"do_lower_case": False},
    {"strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"tokenize_chinese_chars": False},
  ],
)
def test_a_folder_of_the_library_converts_there_and_back(tmp_path, options):
  """Weights, labels, vocabulary and tokenizer settings of a classifier with two added tokens."""
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  words = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "été",
    "ete",
    "É",
    "e",
    "##t",
    "##é",
    "##e",
    "中",
    "中国",
    "##国",
    "国",
    "Mary",
    "mary",
  ]
  (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
  tokenizer = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"), **options)
  tokenizer.add_tokens(["[A]", "[B]"], special_tokens=True)
  model = transformers.BertForSequenceClassification(
    transformers.BertConfig(
      vocab_size=len(words) + 2,
      hidden_size=8,
      num_hidden_layers=2,
      num_attention_heads=2,
      intermediate_size=12,
      max_position_embeddings=16,
      **ID2LABEL,
    )
  )
  model.save_pretrained(tmp_path / "hf")
  tokenizer.save_pretrained(tmp_path / "hf")
  folder = to_tf(tmp_path)
  assert (folder / "vocab.txt").read_text().split() == [*words, "[A]", "[B]"]
  settings = model_folder.read_settings(str(folder))
  assert settings.pop("label_list") == LABELS
  expected = {"do_lower_case": True, "tokenize_chinese_chars": True} | options
  assert hf_tokenizer.to_config(settings) == expected

  commands.tf_to_hf(str(folder), str(tmp_path / "back"))
  back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "back")
  assert [back.config.id2label[i] for i in range(5)] == LABELS
  for name, tensor in model.state_dict().items():
    assert torch.equal(tensor, back.state_dict()[name]), name
  again = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
  for text in ("Été É été", "Mary 中国", "ETE Mary"):
    assert again.tokenize(text) == tokenizer.tokenize(text)
