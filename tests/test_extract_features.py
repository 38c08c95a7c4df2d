"""extract_features.py: hidden states of a second computation, layers, files, messages."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_funnel

import config
import extract_features
import modeling
from errors import UserError
from serving import encoder, features

v1 = tf.compat.v1
TEXTS = ["the film was good", "a story ||| it was bad .", "", "very " * 40]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
  return tiny.write_encoder(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture
def texts(tmp_path):
  path = tmp_path / "texts.txt"
  path.write_text("\n".join(TEXTS) + "\n")
  return path


def ids_of(texts):
  """Ids and segments of the tokens, written by hand: words and their specials."""
  vocab = {word: i for i, word in enumerate(tiny.VOCAB)}
  for text in texts:
    first, *second = [[vocab[word] for word in part.split()] for part in text.split(" ||| ")]
    ids, segments = [2, *first, 3], [0] * (len(first) + 2)
    for part in second:
      ids, segments = [*ids, *part, 3], [*segments, *[1] * (len(part) + 1)]
    yield (ids, segments) if len(ids) <= 16 else (ids[:15] + [3], segments[:16])


def bert_by_itself(folder, rows):
  """Hidden states of every layer for each (ids, segments), without padding: lists of [T, H]."""
  with tiny_funnel.graph() as session:
    bert_config = modeling.BertConfig.from_json_file(os.path.join(folder, "bert_config.json"))
    given = [v1.placeholder(tf.int32, [1, None]) for _ in range(2)]
    model = modeling.BertModel(bert_config, False, given[0], token_type_ids=given[1])
    v1.train.Saver().restore(session, os.path.join(folder, "bert_model.ckpt"))
    layers = model.get_all_encoder_layers()
    for row in rows:
      found = session.run(layers, {one: [ids] for one, ids in zip(given, row, strict=True)})
      yield [values[0] for values in found]


def test_both_files_have_the_hidden_states_of_bert(bert, texts, tmp_path):
  flags = [
    f"--input_file={texts}",
    f"--vocab_file={bert}/vocab.txt",
    f"--bert_config_file={bert}/bert_config.json",
    f"--init_checkpoint={bert}/bert_model.ckpt",
    "--do_lower_case=True",
    "--max_seq_length=16",
    "--batch_size=3",
    "--layers=-1,0",
  ]
  out, _ = tiny.run("extract_features.py", *flags, f"--output_file={tmp_path / 'a.jsonl'}")
  assert out.endswith("a.jsonl: 4 texts, layers -1,0\n")
  lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
  model = encoder.load(config.Model(pretrained=bert))
  found = features.extract(model, features.read_texts(str(texts)), [-1, 0], 16, 3)
  features.write(str(tmp_path / "a.npz"), model, [-1, 0], found)
  arrays = np.load(tmp_path / "a.npz")
  assert [line["linex_index"] for line in lines] == [0, 1, 2, 3]
  rows = list(ids_of(TEXTS))
  for number, layers in enumerate(bert_by_itself(bert, rows)):
    ids, _ = rows[number]
    line, span = lines[number], slice(*arrays["offsets"][number : number + 2])
    assert [token["token"] for token in line["features"]] == [tiny.VOCAB[i] for i in ids]
    np.testing.assert_array_equal(arrays["token_ids"][span], ids)
    for position, (layer, expected) in enumerate(((-1, layers[-1]), (0, layers[0]))):
      assert line["sentence"][position]["index"] == layer
      written = [token["layers"][position]["values"] for token in line["features"]]
      vectors = {"hidden": expected, "cls": expected[0], "mean": expected.mean(0)}
      np.testing.assert_allclose(written, expected, atol=2e-6)
      for kind in ("cls", "mean"):
        np.testing.assert_allclose(line["sentence"][position][kind], vectors[kind], atol=2e-6)
        np.testing.assert_allclose(arrays[f"{kind}_{layer}"][number], vectors[kind], atol=1e-6)
      np.testing.assert_allclose(arrays[f"hidden_{layer}"][span], expected, atol=1e-6)


@pytest.mark.parametrize(
  "separate_cls, truncate_seq", [(True, True), pytest.param(False, False, marks=pytest.mark.slow)]
)
def test_a_pooled_layer_of_funnel_has_a_vector_for_each_token(tmp_path, separate_cls, truncate_seq):
  folder = tiny.write_funnel(tmp_path / "funnel", separate_cls=separate_cls, block_size="1_2_1")
  model_config = modeling.load_config(os.path.join(folder, "net_config.json"))
  model = encoder.load(config.Model(pretrained=folder))
  texts = [("the film was good", None), ("the story and the film was very bad .", None)]
  layers = [0, 1, 2, 3, -1]
  # The shorter one, which comes first, is padded.
  for _, ids, found in list(features.extract(model, texts, layers, 32, 2))[:1]:
    with tiny_funnel.graph() as session:
      # The model drops the last positions of a sequence, which must be padding.
      length = model_config.padded_length(len(ids), 8)
      extra = [0] * (length - len(ids))
      segments = tf.constant([[2] + [0] * (length - 1)])
      last, hiddens, _ = modeling.FunnelTFM(model_config).extract_hiddens(
        tf.constant([ids + extra]),
        False,
        segments,
        tf.constant([[0] * len(ids) + [1] * len(extra)]),
        use_decoder=True,
      )
      v1.train.Saver().restore(session, os.path.join(folder, "model.ckpt"))
      last, *hiddens = (values[0] for values in session.run([last, *hiddens]))
      last = last[: len(ids)]
    np.testing.assert_allclose(found["hidden_-1"], last, atol=2e-6)
    np.testing.assert_allclose(found["hidden_0"], hiddens[0][: len(ids)], atol=2e-6)
    for layer, size in ((1, 2), (2, 2), (3, 4)):
      if separate_cls:
        slots = [0, *(1 + position // size for position in range(len(ids) - 1))]
      else:
        slots = [position // size for position in range(len(ids))]
      np.testing.assert_allclose(found[f"hidden_{layer}"], hiddens[layer][slots], atol=2e-6)
      mean = hiddens[layer][slots].mean(0)
      np.testing.assert_allclose(found[f"mean_{layer}"], mean, atol=2e-6)


@pytest.mark.slow
def test_bert_of_transformers_gives_the_same(bert, texts, tmp_path):
  transformers = pytest.importorskip("transformers")
  torch = pytest.importorskip("torch")
  out = tmp_path / "hf"
  tiny.run(
    "convert_checkpoint.py", "--direction=tf_to_hf", f"--input_dir={bert}", f"--output_dir={out}"
  )
  other = transformers.BertModel.from_pretrained(str(out)).eval()
  model = encoder.load(config.Model(pretrained=bert))
  for number, ids, found in features.extract(
    model, features.read_texts(str(texts)), [0, -1], 16, 2
  ):
    _, segments = list(ids_of(TEXTS))[number]
    with torch.no_grad():
      result = other(
        torch.tensor([ids]), token_type_ids=torch.tensor([segments]), output_hidden_states=True
      )
    np.testing.assert_allclose(found["hidden_-1"], result.last_hidden_state[0], atol=1e-5)
    np.testing.assert_allclose(found["hidden_0"], result.hidden_states[1][0], atol=1e-5)


def test_bad_flags_are_reported(bert, tmp_path):
  model = encoder.load(config.Model(pretrained=bert))
  with pytest.raises(UserError, match="--layers: there is no layer -3; the model has 2, -2 to -1"):
    list(features.extract(model, [("a", None)], [-3], 16, 1))
  with pytest.raises(UserError, match="--max_seq_length=64 is beyond the model's 32 positions"):
    list(features.extract(model, [("a", None)], [-1], 64, 1))
  (tmp_path / "empty.txt").write_text("")
  with pytest.raises(UserError, match="empty.txt: the file is empty"):
    features.read_texts(str(tmp_path / "empty.txt"))
  with pytest.raises(UserError, match="--layers=last: numbers separated by commas are expected"):
    extract_features.read_layers("last")
