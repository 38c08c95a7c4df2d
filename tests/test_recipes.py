"""The recipes of Funnel-Transformer equal the values that its authors published."""

import os
import subprocess

import pytest
import tiny

from training import recipes

# Batch size, epochs, learning rate: the authors' recommendations for GLUE.
GLUE = {
  "cola": (16, 10, 1e-5),
  "sst-2": (16, 10, 1e-5),
  "mrpc": (16, 10, 1e-5),
  "sts-b": (16, 10, 1e-5),
  "qqp": (64, 5, 2e-5),
  "mnli": (64, 3, 1e-5),
  "qnli": (32, 3, 2e-5),
  "rte": (16, 10, 1e-5),
}
# Their commands: batch size, length, learning rate, updates, updates of warm-up.
COMMANDS = {
  "cola": (16, 128, 1e-5, 5350, 535),
  "imdb": (32, 512, 1e-5, 4000, 400),
  "race": (16, 512, 2e-5, 24000, 2400),
  "squad": (48, 512, 3e-5, 8000, 1000),
}
TRAINING_EXAMPLES = {"imdb": 25000, "race": 87866}


@pytest.mark.parametrize("task", GLUE)
def test_glue_recipes_equal_the_published_values(task):
  recipe = recipes.load("funnel", "classification", task)
  assert (recipe["train_batch_size"], recipe["num_train_epochs"], recipe["learning_rate"]) == GLUE[
    task
  ]
  assert (recipe["max_seq_length"], recipe["warmup_proportion"]) == (128, 0.1)


@pytest.mark.parametrize(
  "job, task", [("classification", "imdb"), ("race", "race"), ("squad", "squad")]
)
def test_updates_equal_the_published_commands(job, task):
  recipe = recipes.load("funnel", job, task)
  batch = recipe["train_batch_size"]
  updates = recipe.get("train_steps") or int(
    TRAINING_EXAMPLES[task] / batch * recipe["num_train_epochs"]
  )
  assert (
    batch,
    recipe["max_seq_length"],
    recipe["learning_rate"],
    updates,
    int(updates * recipe["warmup_proportion"]),
  ) == COMMANDS[task]


def test_squad_has_no_layer_wise_decay():
  """The published score was reached with a decay that had no effect."""
  recipe = recipes.load("funnel", "squad", "squad")
  assert recipe["lr_layer_decay_rate"] == 1.0 and recipe["save_steps"] == 1000


@pytest.mark.parametrize(
  "name", ["gpu_cola", "gpu_imdb", "tpu_imdb", "gpu_race", "tpu_race", "gpu_squad", "tpu_squad"]
)
def test_wrappers_print_the_published_values(name):
  batch, length, rate, updates, warmup = COMMANDS[name[4:]]
  words = dry_run(name)
  assert {
    f"--train_batch_size={batch}",
    f"--max_seq_length={length}",
    f"--train_steps={updates}",
    f"--warmup_steps={warmup}",
  } <= set(words)
  (given,) = [word.split("=")[1] for word in words if word.startswith("--learning_rate=")]
  assert float(given) == rate


@pytest.mark.parametrize("name", ["gpu_squad", "tpu_squad"])
def test_squad_wrappers_offer_the_decay(name):
  words = dry_run(name)
  assert {"--lr_layer_decay_rate=1.0", "--save_steps=1000"} <= set(words)
  assert "--best_metric=best_f1" in words and "--best_metric=f1" in dry_run(name, VERSION="v1.1")
  assert ("--iterations=1000" in words) == (name == "tpu_squad")
  assert "--lr_layer_decay_rate=0.75" in dry_run(name, LAYER_DECAY="0.75")


def dry_run(name, **settings):
  """Words of the command that a wrapper prints."""
  result = subprocess.run(
    ["bash", os.path.join(tiny.ROOT, "scripts", name + ".sh"), "--dry_run"],
    text=True,
    capture_output=True,
    check=True,
    env=dict(os.environ, GS_ROOT="gs://b", **settings),
  )
  return result.stdout.split()


def test_mnli_has_one_recipe_under_its_three_names():
  names = ("mnli", "mnli_matched", "mnli_mismatched")
  found = [recipes.load("funnel", "classification", name) for name in names]
  assert found[0] == found[1] == found[2]


# Released commands of BERT, in updates: batch size, length, learning rate, updates, warm-up.
@pytest.mark.parametrize(
  "name, version, values",
  [
    ("gpu_squad", "v1.1", (12, 384, "3e-5", 2 * 87599 // 12)),
    ("tpu_squad", "v1.1", (24, 384, "3e-5", 2 * 87599 // 24)),
    ("tpu_squad", "v2.0", (24, 384, "3e-5", 2 * 130319 // 24)),
    ("gpu_cola", "", (32, 128, "2e-5", 3 * (8551 // 32))),
    ("tpu_imdb", "", (32, 512, "2e-5", 3 * 25000 // 32)),
    ("gpu_race", "", (16, 512, "2e-5", 3 * 87866 // 16)),
  ],
)
def test_family_selects_the_recipe_of_bert(name, version, values):
  batch, length, rate, updates = values
  assert {
    f"--train_batch_size={batch}",
    f"--max_seq_length={length}",
    f"--learning_rate={rate}",
    f"--train_steps={updates}",
    f"--warmup_steps={updates // 10}",
  } <= set(dry_run(name, FAMILY="bert", VERSION=version))
  assert "--train_batch_size=7" in dry_run(name, FAMILY="bert", TRAIN_BATCH_SIZE="7")


def test_an_unknown_family_is_refused():
  with pytest.raises(subprocess.CalledProcessError) as error:
    dry_run("gpu_race", FAMILY="t5")
  assert error.value.stderr == "gpu_race.sh: FAMILY must be funnel or bert, not t5\n"


@pytest.mark.parametrize("name", ["gpu_cola", "gpu_glue", "tpu_glue", "gpu_race", "tpu_squad"])
def test_every_checkpoint_is_kept_for_evaluation(name):
  """The authors' code keeps all and chooses the best; --max_save keeps five otherwise."""
  assert {"--eval_all_ckpt=True", "--max_save=0"} <= set(dry_run(name))
