"""Writes a trained model as a SavedModel, for TensorFlow Serving and other programs."""

import os
from collections.abc import Callable

import tensorflow as tf

import config
from errors import UserError
from serving import encoder, graph
from serving import model as models
from training import model_folder
from utils import files

v1 = tf.compat.v1

SIGNATURE, TEXT_SIGNATURE = "serve", "serve_text"
DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def load(model_dir: str) -> encoder.EncoderModel | models.TrainedModel:
  """Returns the model of a folder: an encoder, or a model with a task's head.

  Raises:
    UserError: the folder has no model.
  """
  if models.job_of(model_dir) in models.NO_TASK:
    return encoder.load(config.Model(pretrained=model_dir))
  return models.load(model_dir)


def build(
  model: encoder.EncoderModel | models.TrainedModel,
  make_defaults: Callable[[], dict[str, tf.Tensor]] = lambda: {},
) -> graph.Served:
  """Returns the graph of encoder.build or graph.build for a model from `load`."""
  if isinstance(model, encoder.EncoderModel):
    return encoder.build(model, make_defaults=make_defaults)
  return graph.build(model, make_defaults)


def export(
  model_dir: str, export_dir: str, serve_text: bool = False, max_seq_length: int = 128
) -> str:
  """Writes the SavedModel EXPORT_DIR/N, with N one above the largest number there.

  It has the signature `serve`, which is also the default one: the ids of the task's records,
  int32 [B, T] (multiple choice: [B, N, T]) of any size -> the task's predictions. With `serve_text`
  also the signature of that name; see serving/text.py. The folder assets.extra has the vocabulary,
  the configuration and the settings of the model.

  Args:
    model_dir: folder of a training run, or its folder best; or of an encoder without a task, whose
      outputs are those of serving.encoder.build.
    export_dir: folder of the versions of this model.
    serve_text: add the signature `serve_text`, which needs tensorflow-text.
    max_seq_length: longest sequence of an encoder's `serve_text`; a task has its own.

  Returns:
    The path of the SavedModel.

  Raises:
    UserError: the folder has no model, or there is no `serve_text` for it.
  """
  for name, value in (("model_dir", model_dir), ("export_dir", export_dir)):
    if not value:
      raise UserError(f"--{name} is missing")
  texts, make_defaults = {}, lambda: {}
  model = load(model_dir)
  if serve_text:
    from serving import text  # needs tensorflow-text

    is_pair, segment = text.layout_of(model)
    if isinstance(model, encoder.EncoderModel):
      encoder.check_length(model, max_seq_length)
      length = max_seq_length
    else:
      length = model.experiment.data.max_seq_length

    def make_defaults():
      texts.update(text.placeholders(is_pair))
      return text.ids(texts, model.tokenizer, model.config, length, segment)

  served = build(model, make_defaults)
  outputs = served.computed()
  sign = v1.saved_model.predict_signature_def
  with served.graph.as_default():  # not eagerly
    signatures = {SIGNATURE: sign(served.inputs_of(outputs.values()), outputs)}
    signatures[DEFAULT] = signatures[SIGNATURE]
    if texts:
      signatures[TEXT_SIGNATURE] = sign(texts, outputs)
  path = _write(served, signatures, model_dir, export_dir, model.tokenizer.vocab_file)
  served.session.close()
  return path


def _write(served, signatures, model_dir, export_dir, vocab_file):
  """Writes the next version under a temporary name and renames it; returns its path."""
  files.make_dirs(export_dir, "--export_dir")
  numbers = [name.rstrip("/") for name in tf.io.gfile.listdir(export_dir)]
  version = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
  path = os.path.join(export_dir, str(version))
  temporary = files.temporary_name(path)
  try:
    with served.graph.as_default():
      builder = v1.saved_model.Builder(temporary)
      builder.add_meta_graph_and_variables(
        served.session,
        [v1.saved_model.tag_constants.SERVING],
        signature_def_map=signatures,
        main_op=v1.tables_initializer(),
        clear_devices=True,
      )
      builder.save()
    extra = os.path.join(temporary, "assets.extra")
    files.make_dirs(extra)
    model_folder.copy_files(model_dir, extra, os.path.basename(vocab_file))
    tf.io.gfile.rename(temporary, path)
  finally:
    if tf.io.gfile.exists(temporary):
      tf.io.gfile.rmtree(temporary)
  return path
