"""Converts checkpoints: Hugging Face to TensorFlow and back, and training to released form.

  python convert_checkpoint.py --direction=hf_to_tf --input_dir=bert-base-hf --output_dir=pretrained
  python convert_checkpoint.py --direction=tf_to_hf --input_dir=pretrained --output_dir=bert-base-hf
  python convert_checkpoint.py --direction=tf_to_hf --input_dir=pretrained
      --checkpoint=runs/cola/best --output_dir=cola-hf
  python convert_checkpoint.py --direction=strip --input_dir=runs/cola --output_dir=cola-slim
  python convert_checkpoint.py --direction=core_only --input_dir=runs/electra --output_dir=core

hf_to_tf reads model.safetensors (or its shards), config.json and vocab.txt or tokenizer.json, and
writes what the run_*.py scripts take as --pretrained: bert_config.json, vocab.txt, bert_model.ckpt,
or for Funnel-Transformer net_config.json, vocab.txt, model.ckpt. The tokenizer's settings and the
labels become model_settings.json and labels.json, and tf_to_hf writes them back. Heads come along.
BERT: masked words, next sentence, classifier (output_weights), question answering (cls/squad).
Funnel: classifier (model/sequnece_summary and model/SCOPE/logit, SCOPE being --cls_scope),
ELECTRA's discriminator.

tf_to_hf is the way back, and also writes tokenizer_config.json. It takes the best checkpoint of a
training run (input_dir/best) if there is one, as strip and core_only do. Encoder tensors are called
"bert.*" when there is a head beside the encoder, and have no prefix when there is none, as in the
models of the Hugging Face library; "funnel.*" likewise. Both ways there and back again give the
same bits. A Funnel model without decoder becomes a FunnelBaseModel; ELECTRA's generator, which is a
model of its own, is left out. Of the configuration's initializer only the numbers come along, not
which of them is used: they matter for new weights only. The library (transformers 5.23) computes
what the models here compute, but for padded sequences: it pools the attention mask so that tokens
which share a window with padding are no longer attended to. The converter says so where a model
differs further.

strip copies a checkpoint of any model here without what only training needs: the moments of Adam
and the global step; two thirds of the size. tf_to_hf leaves these out as well.

core_only copies the pretrained encoder alone, as the released core-only checkpoints: what strip
leaves, without ELECTRA's generator and without heads (model/lm_proj, model/binary_loss, a summary,
classifiers). Funnel keeps model/input, model/encoder and model/decoder; BERT all of bert/.

Funnel checkpoints from before its release (model/transformer_xl/, model/layer_6/) are read under
the names of the release (model/encoder/, model/decoder/layer_6/), whatever the direction.

Folders of Hugging Face models are local; TensorFlow's may be on any file system it knows (gs://).
"""

from absl import flags

from conversion import commands
from errors import UserError
from training import app

DIRECTIONS = ("hf_to_tf", "tf_to_hf", "strip", "core_only")


def define_flags() -> None:
  """Defines the script's flags."""
  flags.DEFINE_enum(
    "direction",
    None,
    DIRECTIONS,
    "what to do: Hugging Face to TensorFlow, TensorFlow to "
    "Hugging Face, a TensorFlow checkpoint without what only training needs, or its encoder "
    "(and decoder) alone",
  )
  flags.DEFINE_bool(
    "drop_optimizer",
    False,
    "leave out the moments of Adam and the global step: alone the same "
    "as --direction=strip; tf_to_hf does so in any case",
  )
  flags.DEFINE_string(
    "input_dir",
    "",
    "folder to convert. Hugging Face: model.safetensors, config.json, "
    "vocab.txt or tokenizer.json. TensorFlow: bert_config.json or net_config.json, vocabulary, "
    "checkpoint",
  )
  flags.DEFINE_string("output_dir", "", "folder to write to; made where there is none")
  flags.DEFINE_string(
    "checkpoint",
    "",
    "TensorFlow checkpoint (prefix, or folder for its newest) to take instead "
    "of input_dir's best (input_dir/best) or newest, e.g. a fine-tuned one, whose configuration "
    "is elsewhere",
  )
  flags.DEFINE_bool("overwrite", False, "replace files that are in output_dir already")
  flags.DEFINE_bool(
    "uncased",
    None,
    "tf_to_hf: the model's text is lower-cased; becomes "
    "do_lower_case of tokenizer_config.json. Default: as model_settings.json of "
    "the folder says, else the vocabulary",
  )
  flags.DEFINE_alias("do_lower_case", "uncased")
  flags.DEFINE_string(
    "cls_scope",
    "",
    "Funnel: scope of the classifier, model/SCOPE/logit. Empty: hf_to_tf calls "
    "it cls, tf_to_hf finds it in the checkpoint. run_classifier.py looks where its own "
    "--cls_scope says",
  )
  flags.DEFINE_bool(
    "truncate_seq",
    None,
    "tf_to_hf, Funnel: the model was trained with truncate_seq, which "
    "net_config.json does not hold. Default: as model_settings.json of the folder says, else "
    "true",
  )


def main() -> None:
  """Checks the flags and runs the command of --direction."""
  values = flags.FLAGS
  direction = values.direction or ("strip" if values.drop_optimizer else None)
  if direction is None:
    raise UserError(f"--direction is missing; it is one of {', '.join(DIRECTIONS)}")
  for name in ("input_dir", "output_dir"):
    if not values[name].value:
      raise UserError(f"--{name} is missing")
  if direction == "hf_to_tf":
    if values.checkpoint:
      raise UserError(
        "--checkpoint names a TensorFlow checkpoint; --direction=hf_to_tf reads "
        "model.safetensors of --input_dir"
      )
    commands.hf_to_tf(values.input_dir, values.output_dir, values.overwrite, values.cls_scope)
  elif direction == "tf_to_hf":
    commands.tf_to_hf(
      values.input_dir,
      values.output_dir,
      values.overwrite,
      values.checkpoint,
      values.uncased,
      values.cls_scope,
      values.truncate_seq,
    )
  else:
    commands.strip(
      values.input_dir,
      values.output_dir,
      values.overwrite,
      values.checkpoint,
      core_only=direction == "core_only",
    )


if __name__ == "__main__":
  define_flags()
  app.run_main(main, "The output is not complete.")
