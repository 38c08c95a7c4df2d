"""Writes docs/configuration.md: every key of the settings, from their dataclasses.

python scripts/write_configuration.py
"""

import dataclasses
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import config  # noqa: E402
from tasks import registry  # noqa: E402
from training import experiment_registry, garden  # noqa: E402

HEAD = """# Configuration

`python scripts/write_configuration.py` writes this page from the dataclasses of the settings.

Every setting has a key SECTION.NAME for `train.py` (in YAML files and `--params_override`) and a
flag `--NAME` for the other scripts. Layers, of which the last wins: the experiment's defaults, each
`--config_file` in order, `--tpu`, `--params_override`. Settings that no layer sets come from the
trained model's folder, then from the recipe of the task (configs/experiments/FAMILY_JOB.yaml). The
settings of a run, with the layer of each value, are in model_dir/params.yaml.

`model.keys.NAME` sets a key of the model's configuration (of its JSON file),
with or without a file in `model.model_config`. `trainer.train_steps: 3 epochs` counts epochs.
"""


def table(prefix: str, section: type) -> list[str]:
  """Lines of a Markdown table of a section's settings."""
  lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
  for field in dataclasses.fields(section):
    metadata = field.metadata
    text = metadata["help"].replace("|", "\\|")
    if metadata["choices"]:
      text += f"; one of {', '.join(filter(None, metadata['choices']))}"
    if metadata["aliases"]:
      text += f". Flags: {', '.join(f'`--{alias}`' for alias in metadata['aliases'])}"
    default = field.default
    if default is None:
      default = "" if "default:" in text else "recipe"
    default = f"`{default}`" if default != "" else ""
    lines.append(f"| `{prefix}.{field.name}` | {metadata['kind'].__name__} | {default} | {text} |")
  return lines


def page() -> str:
  """Returns the page."""
  lines = [HEAD]
  for name, section in config.Experiment().sections().items():
    if name != "task":
      lines += [f"## {name}\n", f"{type(section).__doc__}\n", *table(name, type(section)), ""]
  for name, job in registry.JOBS.items():
    lines += [f"## task, of job {name}\n", f"{job.settings.__doc__}\n"]
    lines += [*table("task", job.settings), ""]
  lines += ["## Experiments\n", "| name | job |", "|---|---|"]
  for name in sorted(experiment_registry.FACTORIES):
    lines.append(f"| `{name}` | {experiment_registry.FACTORIES[name]().job} |")
  lines += ["", "## Keys of Model Garden\n"]
  lines.append("These keys of official/nlp are accepted as well.\n")
  for name, job in registry.JOBS.items():
    if name in ("classification", "squad", "pretraining"):
      experiment = config.Experiment(task=job.settings())
      keys = ", ".join(f"`{key}`" for key in garden.keys(experiment))
      lines.append(f"**{name}**: {keys}\n")
  return "\n".join(lines)


def main() -> None:
  """Writes the page."""
  path = os.path.join(ROOT, "docs", "configuration.md")
  with open(path, "w", encoding="utf-8") as writer:
    writer.write(page())
  print(path)


if __name__ == "__main__":
  main()
