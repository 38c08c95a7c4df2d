"""The settings that a model folder carries beside its checkpoints.

  model_settings.json   name -> value of the settings the model was trained with: task_name,
                        columns, label_list, uncased, strip_accents, max_seq_length, ...
  labels.json           task_name and label_list alone, for programs that need no more

Names are those of the flags, in addition to label_list.
"""

import os
from typing import Any

import tensorflow as tf

from training import records

SETTINGS_NAME = "model_settings.json"
LABELS_NAME = "labels.json"
SETTINGS_NAMES = (SETTINGS_NAME, LABELS_NAME)


def read_settings(folder: str) -> dict[str, Any]:
  """Returns the settings of the model in `folder`; empty if the folder has none.

  Folders of earlier versions have labels.json alone.

  Raises:
    UserError: a file is not valid JSON.
  """
  for name in SETTINGS_NAMES:
    path = os.path.join(folder, name)
    if tf.io.gfile.exists(path):
      return records.read_json(path)
  return {}


def names_of(settings: dict[str, Any]) -> list[str]:
  """Returns the names of the files that write_settings writes; none if there are no settings."""
  names = [SETTINGS_NAME] if settings else []
  return names + [LABELS_NAME] * (not settings.keys().isdisjoint(("task_name", "label_list")))


def write_settings(folder: str, settings: dict[str, Any]) -> None:
  """Writes model_settings.json, and labels.json if the settings name a task or labels."""
  records.write_json(os.path.join(folder, SETTINGS_NAME), settings)
  labels = {name: settings[name] for name in ("task_name", "label_list") if name in settings}
  if labels:
    records.write_json(os.path.join(folder, LABELS_NAME), labels)
