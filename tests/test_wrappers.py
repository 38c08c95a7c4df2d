"""The recipe wrappers print their commands and run on a tiny model; the FLOPs counter."""

import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf
import tiny
import tiny_race
import tiny_squad

import modeling
from benchmarks import flops

WRAPPERS = ("gpu_cola", "gpu_glue", "tpu_glue", "gpu_imdb", "tpu_imdb")


def wrapper(name, *args, **settings):
  environment = dict(
    os.environ,
    PYTHON=sys.executable,
    TF_CPP_MIN_LOG_LEVEL="3",
    **{key: str(value) for key, value in settings.items()},
  )
  return subprocess.run(
    ["bash", os.path.join(tiny.ROOT, "scripts", name + ".sh"), *args],
    capture_output=True,
    text=True,
    env=environment,
    timeout=300,
  )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  folder = tmp_path_factory.mktemp("wrappers")
  tiny.write_funnel(folder / "model")
  tiny.write_cola(folder / "glue" / "CoLA", 32, 8, 8)
  for split in ("train", "test"):
    for index, (text, label) in enumerate(tiny.sentences(16, 4)):
      place = folder / "aclImdb" / split / ("pos" if label == "1" else "neg")
      place.mkdir(parents=True, exist_ok=True)
      (place / f"{index}_7.txt").write_text(text)
  return folder


@pytest.mark.parametrize("name", WRAPPERS)
def test_dry_run_prints_the_command_and_passes_arguments_through(name):
  result = wrapper(
    name,
    "--dry_run",
    "--seed=7",
    MODEL_DIR="/m",
    LEARNING_RATE="3e-5",
    TASKS="RTE",
    GS_ROOT="gs://b",
    TPU_NAME="t",
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.count("run_classifier.py") == 1
  assert "--pretrained=/m" in result.stdout and result.stdout.rstrip().endswith("--seed=7")
  assert ("--use_tpu=True --tpu=t" in result.stdout) == name.startswith("tpu")
  assert ("--learning_rate=3e-5" in result.stdout) != name.endswith("glue")
  with open(os.path.join(tiny.ROOT, "scripts", name + ".sh")) as reader:
    head = reader.read().split("source ")[0]
  assert "eproduce" in head or "published recipe" in head


@pytest.mark.parametrize(
  "name, results", [("gpu_cola", "exp"), ("gpu_imdb", "exp"), ("glue", "exp/seed_7/CoLA")]
)
def test_gpu_wrappers_run(workspace, name, results):
  steps = ["--train_steps=2"] if name == "glue" else []
  result = wrapper(
    name,
    "--max_seq_length=24",
    *steps,
    MODEL_DIR=workspace / "model",
    TASKS="CoLA",
    SEEDS="7",
    GLUE_DIR=workspace / "glue",
    IMDB_DIR=workspace / "aclImdb",
    TRAIN_BATCH_SIZE=8,
    OUTPUT_DIR=workspace / name / "records",
    EXP_DIR=workspace / name / "exp",
    TRAIN_STEPS=2,
    WARMUP_STEPS=1,
    SAVE_STEPS=1,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  assert " dev: " in result.stdout
  assert (workspace / name / results / "eval_results.json").exists()
  if name == "glue":
    assert "| exp (1 seed) | " in result.stdout and (workspace / name / "exp" / "glue.png").exists()


def test_race_wrapper_runs_with_the_settings_of_bert(workspace):
  tiny.write_encoder(workspace / "bert_race", num_layers=1)
  tiny_race.write_race(workspace / "RACE", (("train", 4), ("dev", 2)))
  result = wrapper(
    "gpu_race",
    FAMILY="bert",
    MODEL_DIR=workspace / "bert_race",
    RACE_DIR=workspace / "RACE",
    OUTPUT_DIR=workspace / "gpu_race" / "records",
    EXP_DIR=workspace / "gpu_race" / "exp",
    MAX_SEQ_LENGTH=24,
    MAX_QA_LENGTH=8,
    TRAIN_BATCH_SIZE=4,
    GRADIENT_ACCUMULATION_STEPS=1,
    TRAIN_STEPS=1,
    WARMUP_STEPS=1,
    SAVE_STEPS=1,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  assert "race dev: accuracy" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpu_glue", "tpu_imdb", "tpu_race", "tpu_squad"])
def test_tpu_wrappers_run_without_the_tpu(workspace, tmp_path, name):
  """Further arguments come last, so they select the CPU."""
  tiny_race.write_race(tmp_path / "RACE")
  for split, seed in (("train", 1), ("dev", 2)):
    tiny_squad.write(tmp_path / f"{split}-v2.0.json", 12, seed, unanswerable=True)
  steps = ["--train_steps=2"] if name == "tpu_glue" else []
  result = wrapper(
    name,
    "--nouse_tpu",
    "--nouse_bfloat16",
    "--num_core_per_host=1",
    "--max_seq_length=24",
    *steps,
    MODEL_DIR=workspace / "model",
    INIT_CHECKPOINT=workspace / "model",
    GS_ROOT=tmp_path / "gs",
    TASKS="CoLA",
    GLUE_DIR=workspace / "glue",
    IMDB_DIR=workspace / "aclImdb",
    RACE_DIR=tmp_path / "RACE",
    DATA_DIR=tmp_path,
    MAX_QA_LENGTH=8,
    TRAIN_BATCH_SIZE=8,
    TRAIN_STEPS=2,
    WARMUP_STEPS=1,
    SAVE_STEPS=1,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  assert " dev: " in result.stdout
  assert list((tmp_path / "gs" / "exp").rglob("eval_results.json"))


@pytest.mark.parametrize("name", ["gpu_pretrain", "tpu_pretrain"])
def test_pretraining_wrappers_print_the_recipes(name):
  settings = dict(TPU_NAME="t", GS_ROOT="gs://b", RECORDS="/r", EXP_DIR="/e", TRAIN_STEPS=1000)
  result = wrapper(name, "--dry_run", "--seed=7", MODEL="bert_large", **settings)
  first, second = result.stdout.splitlines()
  assert result.returncode == 0 and first.rstrip().endswith("--seed=7")
  assert "--max_seq_length=128 --max_predictions_per_seq=20 --train_steps=900" in first
  assert "--max_seq_length=512 --max_predictions_per_seq=76 --train_steps=100" in second
  assert "--init_checkpoint=/e/seq_128 --model_dir=/e/seq_512" in second
  result = wrapper(name, "--dry_run", MODEL="B4-4-4", **settings)
  assert result.returncode == 2 and "MODEL=B4-4-4 is unknown; there are" in result.stderr
  assert "--warmup_steps=10 " in first and "--save_steps=10 " in first, "a hundredth"
  for model in modeling.RELEASED_FUNNELS:
    result = wrapper(name, "--dry_run", MODEL=model, **settings)
    assert f"--model_config=configs/models/{model}.json --record_dir=/r" in result.stdout
    assert ("--use_tpu=True --tpu=t --use_bfloat16=True" in result.stdout) == (name[0] == "t")


@pytest.mark.slow
def test_pretraining_wrappers_run(workspace):
  """Two phases of BERT and a released Funnel's recipe with a small model, on tiny records."""
  text = workspace / "text.txt"
  text.write_text("\n\n".join(text for text, _ in tiny.sentences(300, 5)))
  tiny.write_encoder(workspace / "bert", max_positions=512)
  for family, vocab in (("bert", "bert/vocab.txt"), ("funnel", "model/vocab.uncased.txt")):
    made = wrapper(
      "prepro_pretrain",
      FAMILY=family,
      INPUT=text,
      VOCAB=workspace / vocab,
      OUTPUT_DIR=workspace / family / "records",
      NUM_SHARDS=2,
      PASSES=0,
    )
    assert made.returncode == 0, made.stderr[-3000:]
  settings = dict(TRAIN_STEPS=20, WARMUP_STEPS=10, TRAIN_BATCH_SIZE=4)
  result = wrapper(
    "gpu_pretrain",
    f"--bert_config_file={workspace}/bert/bert_config.json",
    MODEL="bert_base",
    RECORDS=workspace / "bert" / "records",
    EXP_DIR=workspace / "bert" / "exp",
    **settings,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  assert (workspace / "bert" / "exp" / "seq_512" / "model.ckpt-2.index").exists()
  result = wrapper(
    "gpu_pretrain",
    f"--model_config={workspace}/model/net_config.json",
    RECORDS=workspace / "funnel" / "records",
    EXP_DIR=workspace / "funnel" / "exp",
    **dict(settings, TRAIN_STEPS=2),
  )
  assert result.returncode == 0, result.stderr[-3000:]
  assert (workspace / "funnel" / "exp" / "model.ckpt-2.index").exists()


def test_the_published_imdb_command(workspace):
  """The released command with other paths, few steps and a tiny model; then without the TPU."""
  published = [
    "--do_train=True",
    "--do_eval=True",
    "--eval_all_ckpt=True",
    "--task_name=imdb",
    "--num_hosts=1",
    "--num_core_per_host=1",
    f"--data_dir={workspace}/aclImdb",
    f"--output_dir={workspace}/imdb/records",
    f"--model_dir={workspace}/imdb/exp",
    "--uncased=True",
    "--tokenizer_type=word_piece",
    f"--tokenizer_path={workspace}/model/vocab.uncased.txt",
    f"--model_config_path={workspace}/model/net_config.json",
    f"--init_checkpoint={workspace}/model/model.ckpt",
    "--max_seq_length=32",
    "--train_batch_size=8",
    "--eval_batch_size=8",
    "--learning_rate=1e-5",
    "--train_steps=4",
    "--warmup_steps=1",
    "--save_steps=2",
    "--iterations=2",
  ]
  _, err = tiny.run("run_classifier.py", "--use_tpu=True", "--tpu=none", *published, status=1)
  assert "leave --use_tpu out to run on CPU or GPU" in err and "Traceback" not in err
  out, _ = tiny.run("run_classifier.py", *published)
  assert "imdb dev: accuracy" in out
  with open(workspace / "imdb" / "exp" / "metrics.jsonl") as reader:
    evaluated = [entry["step"] for entry in map(json.loads, reader) if entry["kind"] == "eval"]
  assert evaluated == [2, 4]


def test_tpu_wrapper_without_a_tpu(workspace):
  result = wrapper(
    "tpu_glue",
    MODEL_DIR=workspace / "model",
    GS_ROOT=workspace / "gs",
    INIT_CHECKPOINT=workspace / "model",
    GLUE_DIR=workspace / "glue",
    TASKS="CoLA",
  )
  assert result.returncode == 1
  assert "leave --use_tpu out to run on CPU or GPU" in result.stderr
  assert "Traceback" not in result.stderr


def test_flops_of_the_released_models_equal_the_paper():
  for name, (standard, paper) in flops.PAPER.items():
    for length in (128, 512):
      ratio = flops.encoder_flops(modeling.released_funnel(name), length) / flops.encoder_flops(
        flops.STANDARD[standard], length
      )
      assert abs(ratio - paper) < 0.02, (name, length, ratio)


@pytest.mark.parametrize("length", [16, 13])
@pytest.mark.parametrize(
  "config",
  [
    modeling.BertConfig(40, 16, 3, 2, 32, max_position_embeddings=24, type_vocab_size=2),
    modeling.ModelConfig(
      40,
      "2_1x2_2",
      d_model=16,
      d_embed=16,
      n_head=2,
      d_head=8,
      d_inner=32,
      rel_attn_type="null",
      decoder_size="1",
    ),
    modeling.ModelConfig(
      40,
      "1_2",
      d_model=16,
      d_embed=8,
      n_head=2,
      d_head=8,
      d_inner=32,
      rel_attn_type="null",
      pool_q_only=False,
      decoder_size="1",
    ),
  ],
)
def test_flops_equal_the_matrix_products_of_the_graph(config, length):
  """Without relative attention the formula contains every matrix product of the graph."""
  with tf.Graph().as_default() as graph:
    ids = tf.ones([1, length], tf.int32)
    if config.family == "bert":
      modeling.BertModel(config, False, ids)
      scope = "bert/encoder"
    else:
      modeling.FunnelTFM(config).extract_hiddens(ids, False)
      scope = "model/encoder"
    counted = 0
    for op in graph.get_operations():
      if op.name.startswith(scope) and op.type in ("MatMul", "BatchMatMulV2", "Einsum"):
        counted += products(op)
  assert counted == flops.encoder_flops(config, length)


def products(op):
  """Multiplications and additions of a matrix product: 2 * outputs * summed elements."""
  left = op.inputs[0].shape.as_list()
  if op.type == "Einsum":
    terms = op.get_attr("equation").decode().split("->")
    sizes = {
      letter: size
      for term, tensor in zip(terms[0].split(","), op.inputs, strict=True)
      for letter, size in zip(term, tensor.shape.as_list(), strict=True)
    }
    total = 2
    for size in sizes.values():
      total *= size
    return total
  transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
  return 2 * op.outputs[0].shape.num_elements() * left[-2 if transposed else -1]
