"""Runs an experiment from its name, YAML files and overrides: the common driver.

  python train.py --experiment=bert/local --mode=train_and_eval --model_dir=runs/local
  python train.py --experiment=bert/sentence_prediction --mode=train_and_eval --model_dir=runs/mnli
      --config_file=configs/models/bert_en_uncased_base.yaml
      --config_file=configs/experiments/glue_mnli_matched.yaml
      --params_override=task.train_data.input_path=mnli_train.tf_record,task.init_checkpoint=bert/

The last one wins: the experiment's defaults, files in order, --tpu, --params_override, flags of
settings (--learning_rate=1e-4). The settings of the run, each with the layer of its value, are
written to model_dir/params.yaml, which --config_file reads. Keys are in docs/configuration.md;
Model Garden's keys work too.
"""

import dataclasses

import config
from tasks import registry
from training import app, flags

MODES = (
  *("train", "eval", "train_and_eval", "continuous_eval", "train_and_post_eval"),
  *("predict", "eval_all"),
)


@dataclasses.dataclass
class Driver:
  """The experiment, and what to do with it."""

  experiment: str = config.option("", "name of the experiment; a wrong one lists all")
  mode: str = config.option("", "what to do", ("", *MODES))
  model_dir: str = config.option("", "folder of checkpoints, logs and results")
  params_override: str = config.option(
    "", "settings: KEY=VALUE,..., YAML or JSON text, or a file of it"
  )
  tpu: str = config.option("", "name or grpc:// address of the TPU, or local")
  import_module: str = config.option(
    "", "file or module of your own that registers experiments or tasks"
  )


LISTS = {
  "config_file": "YAML file of settings; may be repeated, and later files win",
  "gin_file": "gin file with arguments of model layers; may be repeated",
  "gin_params": "gin binding, such as encode.activation=@tanh; may be repeated, after gin_file",
}
SECTIONS = (*app.FINETUNING, *(job.settings for job in registry.JOBS.values()))


def main() -> None:
  """Resolves the settings and runs the experiment."""
  from training import driver  # loads TensorFlow

  settings, _ = flags.read_section(Driver)
  given = flags.read_given(*SECTIONS)
  setting_flags = {name: given[name] for name in given.keys() - vars(settings).keys()}
  driver.run(**vars(settings), **flags.read_lists(LISTS), setting_flags=setting_flags)


if __name__ == "__main__":
  flags.define(Driver)
  flags.define_lists(LISTS)
  flags.define(*SECTIONS)
  app.run_main(main)
