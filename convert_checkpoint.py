"""Converts checkpoints of Hugging Face and Model Garden, and strips training checkpoints.

  python convert_checkpoint.py --direction=hf_to_tf --input_dir=bert-base-hf --output_dir=pretrained
  python convert_checkpoint.py --direction=tf_to_hf --input_dir=pretrained --output_dir=bert-base-hf
  python convert_checkpoint.py --direction=tf_to_hf --input_dir=pretrained
      --checkpoint=runs/cola/best --output_dir=cola-hf
  python convert_checkpoint.py --direction=garden_to_tf --input_dir=garden --output_dir=pretrained
  python convert_checkpoint.py --direction=tf_to_garden --input_dir=pretrained --output_dir=garden
  python convert_checkpoint.py --direction=strip --input_dir=runs/cola --output_dir=cola-slim
  python convert_checkpoint.py --direction=core_only --input_dir=runs/electra --output_dir=core

hf_to_tf reads model.safetensors (or its shards), config.json, and vocab.txt or tokenizer.json. It
writes a folder for --pretrained of the run_*.py scripts: bert_config.json, vocab.txt and
bert_model.ckpt; for ELECTRA electra_config.json, vocab.txt and electra_model.ckpt; for
Funnel-Transformer net_config.json, vocab.txt and model.ckpt. Settings of the tokenizer and labels
become model_settings.json and labels.json; tf_to_hf writes them back.
Heads are converted too:
  BERT    masked words, next sentence, classifier (output_weights), question answering (cls/squad)
  ELECTRA classifier (classifier/dense, output_weights), question answering (cls/squad),
          discriminator; a generator's masked words (cls/predictions)
  Funnel  classifier (model/sequnece_summary and model/SCOPE/logit, with SCOPE from --cls_scope),
          ELECTRA's discriminator

tf_to_hf also writes tokenizer_config.json. It reads the best checkpoint of a training run
(input_dir/best) if there is one, as do strip and core_only. As in the Hugging Face library, names
of encoder tensors begin with "bert.", "electra." or "funnel." if the model has a head, and have no
prefix if it has none. A conversion there and back gives the same bits. A Funnel model without
decoder becomes a FunnelBaseModel. ELECTRA's generator is a separate model and is left out. Only the
numbers of the initializer are converted, not which of them is used; they matter for new weights
only.

The Hugging Face library (transformers 5.23) computes the same outputs, except for padded sequences:
it pools the attention mask, so tokens that share a pooling window with padding are no longer
attended to. Further differences of a model are printed.

garden_to_tf reads an object-based checkpoint of Model Garden's BERT encoder or of its pretraining,
or the folder of a SavedModel (TF-Hub module). It writes bert_config.json, bert_model.ckpt, and
vocab.txt if the folder has a vocabulary. tf_to_garden writes BERT's encoder as such a checkpoint,
for tf.train.Checkpoint(encoder=BertEncoder(...)) or (model=...). A conversion there and back gives
the same bits.

strip copies the checkpoint of any model without the moments of Adam and the global step, which only
training needs: this saves two thirds of its size. tf_to_hf leaves them out as well.

core_only copies only the pretrained encoder, like the released core-only checkpoints: strip without
ELECTRA's generator and the heads (model/lm_proj, model/binary_loss, summary, classifiers). Funnel
keeps model/input, model/encoder and model/decoder; BERT keeps bert/, ELECTRA electra/.

Every direction also reads Funnel checkpoints from before the release. Their variables
(model/transformer_xl/, model/layer_6/) get the released names (model/encoder/,
model/decoder/layer_6/).

Folders of Hugging Face models are local. Folders of TensorFlow models may be remote (gs://).
"""

from absl import flags

from conversion import commands
from errors import UserError
from training import app

DIRECTIONS = ("hf_to_tf", "tf_to_hf", "garden_to_tf", "tf_to_garden", "strip", "core_only")


def define_flags() -> None:
  """Defines the script's flags."""
  flags.DEFINE_enum(
    "direction",
    None,
    DIRECTIONS,
    "what to do: convert Hugging Face or Model Garden to TensorFlow, or back; copy a "
    "TensorFlow checkpoint without the variables that only training needs, or only its encoder "
    "(and decoder)",
  )
  flags.DEFINE_bool(
    "drop_optimizer",
    False,
    "leave out the moments of Adam and the global step: without --direction the same as "
    "--direction=strip; tf_to_hf always does so",
  )
  flags.DEFINE_string(
    "input_dir",
    "",
    "folder to convert. Hugging Face: model.safetensors, config.json, "
    "vocab.txt or tokenizer.json. Model Garden: checkpoint or SavedModel. TensorFlow: "
    "bert_config.json, electra_config.json or net_config.json, vocabulary, checkpoint",
  )
  flags.DEFINE_string("output_dir", "", "folder to write to; made if missing")
  flags.DEFINE_string(
    "checkpoint",
    "",
    "TensorFlow checkpoint (prefix, or folder with its newest) instead of input_dir's best "
    "(input_dir/best) or newest, e.g. a fine-tuned one whose configuration is elsewhere",
  )
  flags.DEFINE_bool("overwrite", False, "replace files that exist in output_dir")
  flags.DEFINE_bool(
    "uncased",
    None,
    "tf_to_hf: the model's text is lower-cased; becomes do_lower_case of tokenizer_config.json. "
    "Default: the value in the folder's model_settings.json, else the casing of the vocabulary",
  )
  flags.DEFINE_alias("do_lower_case", "uncased")
  flags.DEFINE_string(
    "cls_scope",
    "",
    "Funnel: scope of the classifier, model/SCOPE/logit. Empty: hf_to_tf uses cls, tf_to_hf the "
    "scope in the checkpoint. run_classifier.py needs the same --cls_scope",
  )
  flags.DEFINE_bool(
    "truncate_seq",
    None,
    "tf_to_hf, Funnel: the model was trained with truncate_seq, which is not in net_config.json. "
    "Default: the value in the folder's model_settings.json, else true",
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
  elif direction in ("garden_to_tf", "tf_to_garden"):
    command = getattr(commands, direction)
    command(values.input_dir, values.output_dir, values.overwrite, values.checkpoint)
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
