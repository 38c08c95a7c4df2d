"""JSON that is nested too deep, has huge integers or half characters, in every reader."""

import json

import pytest

import config
import modeling
from conversion import huggingface
from errors import UserError
from preprocessing import record_files
from tasks import labels, race_data, readers, squad_data
from training import hf_tokenizer, model_folder, params
from utils import files

BAD = [
  ('{"a": ' + "[" * 100_000, "not valid JSON: maximum recursion"),
  ('{"a": ' + "[" * 200 + "]" * 200 + "}", "not valid JSON: nested more than 100 deep"),
  ('{"a": ' + "9" * 5000 + "}", r"not valid JSON: Exceeds the limit \(4300 digits\)"),
  (r'{"a": ["b", {"c": "\ud83d"}]}', r"'a\[1\].c' holds half of a surrogate pair"),
  (r'{"\udc00": 1}', r"holds half of a surrogate pair"),
]
READERS = {
  "model": modeling.load_config,
  "hugging_face": huggingface.from_hf_config,
  "shards": huggingface._shard_names,
  "metadata": record_files.read_meta,
  "json": files.read_json,
  "json_lines": files.read_json_lines,
  "rows": lambda path: list(readers.read_jsonl(path)),
  "questions": lambda path: list(race_data.read_choices_jsonl(path, False)),
  "race": lambda path: list(race_data.read_race(path, False)),
  "squad": squad_data.read_squad,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text, message", BAD, ids=["deep", "nested", "digits", "half", "key"])
def test_unusable_json_is_refused_with_the_file(tmp_path, reader, text, message):
  path = tmp_path / "x.json"
  path.write_text(text)
  with pytest.raises(UserError, match=message) as error:
    READERS[reader](str(path))
  assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < 1000
  str(error.value).encode()


@pytest.mark.parametrize("text, message", BAD[:3], ids=["deep", "nested", "digits"])
def test_yaml_files_are_refused_too(tmp_path, text, message):
  del message  # YAML has messages of its own; 200 levels are a value of the wrong type
  path = tmp_path / "x.yaml"
  path.write_text('{"trainer": {"seed": ' + text[6:] + "}")
  with pytest.raises(UserError, match="x.yaml"):
    params.apply(config.Experiment(), params.read_file(str(path)))


def test_good_json_is_read_unchanged():
  value = {"a": [1, -1.5, None, True, "\U0001f600", {"b": []}], "c": "[{" * 200}
  for ascii_only in (True, False):  # the emoji as a pair of escapes, which is a character
    assert files.parse_json(json.dumps(value, ensure_ascii=ascii_only), "x") == value
  assert files.parse_json("[" * 100 + "]" * 100, "x")
  assert files.parse_json(r'"\\ud83d"', "x") == r"\ud83d"  # an escaped backslash


@pytest.mark.parametrize(
  "value, shape, expected",
  [
    ({"a": [1, 2]}, {"a": [int]}, True),
    ({"a": [1, "2"]}, {"a": [int]}, False),
    ({}, {"a": [int]}, False),
    ({"a": None}, {"a": list | None}, True),
    ([], {"a": int}, False),
  ],
)
def test_shapes(value, shape, expected):
  assert files.fits(value, shape) == expected


# ---- Values of other types ----------------------------------------------------------------------


@pytest.mark.parametrize(
  "values, message",
  [
    ([], "contains a list, not a JSON object"),
    ({"num_examples": "3"}, "num_examples is '3', which is not an integer"),
    ({"num_example": [3, -1]}, "num_example is -1, which is below 0"),
    ({"max_seq_length": 0}, "max_seq_length is 0, which is below 1"),
    ({"filenames": "a"}, "filenames is 'a', which is of another type"),
    ({"uncased": "no"}, "uncased is 'no', which is of another type"),
    ({"special_ids": [1]}, r"special_ids is \[1\], which is of another type"),
    ({"special_ids": {"cls": 999}, "vocab_size": 99}, "special_ids.cls is 999, which is above 98"),
    ({"special_ids": {"cls": -1}}, "special_ids.cls is -1, which is below 0"),
    ({"label_list": "ab"}, "label_list is 'ab', but must be a list of texts"),
    ({"label_list": ["a", "b\tc"]}, r"the label 'b\\tc' has a tab or a line break"),
    ({"label_list": ["a", "a"]}, "label_list is .*; its names must differ"),
  ],
)
def test_metadata_of_wrong_values_is_refused(tmp_path, values, message):
  path = tmp_path / "x.meta.json"
  path.write_text(json.dumps(values))
  with pytest.raises(UserError, match=f"x.meta.json: {message}"):
    record_files.read_meta(str(path))


@pytest.mark.parametrize(
  "name, values, message",
  [
    ("model_settings.json", {"uncased": "yes"}, "uncased is 'yes', which is of another type"),
    ("model_settings.json", {"label_list": [1]}, r"label_list is \[1\], which is of another type"),
    ("labels.json", ["a"], "contains a list, not a JSON object"),
  ],
)
def test_settings_of_a_model_folder_are_checked(tmp_path, name, values, message):
  (tmp_path / name).write_text(json.dumps(values))
  with pytest.raises(UserError, match=f"{name}: {message}"):
    model_folder.read_settings(str(tmp_path))


def test_settings_out_of_range_of_a_model_folder_are_refused(tmp_path):
  (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
  (tmp_path / "model_settings.json").write_text('{"sent_piece_form": "x"}')
  tokenizer = config.Tokenizer(tokenizer_path=str(tmp_path / "vocab.txt"))
  with pytest.raises(UserError, match="vocab.txt: sent_piece_form: 'x' is none of"):
    model_folder.fill_tokenizer(tokenizer, [str(tmp_path)], [])


@pytest.mark.parametrize(
  "keys, message",
  [
    ({"hidden_size": "8", "vocab_size": 9}, "model.keys: hidden_size is '8', which is not an int"),
    ({"block_size": "2", "decoder_size": "0", "vocab_size": 9, "truncate_seq": 5}, "truncate_seq"),
    ({"hidden_size": 8, "vocab_size": 9, "truncate_seq": True}, "model.keys: unknown keys trunc"),
  ],
)
def test_keys_of_a_model_in_settings_are_checked(keys, message):
  with pytest.raises(UserError, match=message):
    model_folder.find_model_config(config.Experiment(model_keys=keys))


def test_labels_that_a_line_cannot_hold_are_refused(tmp_path):
  for name in ("a\tb", "a\nb", "a\r"):
    with pytest.raises(UserError, match="config.json: id2label: the label .* has a tab or a line"):
      huggingface.label_list({"id2label": {"0": name, "1": "c"}}, 2, "config.json")
    with pytest.raises(UserError, match="x: the label .* has a tab or a line break"):
      labels.check_label_list(["c", name], "x")


@pytest.mark.parametrize(
  "name, values, message",
  [
    ("tokenizer_config.json", {"do_lower_case": "yes"}, "do_lower_case is 'yes'"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder: 'x'"),
    ("tokenizer.json", {"model": {"type": "WordPiece", "vocab": {"a": "0"}}}, "model.vocab"),
    ("tokenizer.json", {"added_tokens": [1]}, r"added_tokens is \[1\]"),
  ],
)
def test_files_of_a_tokenizer_are_checked(tmp_path, name, values, message):
  (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {}}}')
  (tmp_path / name).write_text(json.dumps(values))
  with pytest.raises(UserError, match=f"{name}: {message}"):
    hf_tokenizer.vocab_lines(str(tmp_path), 1)
    hf_tokenizer.read_settings(str(tmp_path))
