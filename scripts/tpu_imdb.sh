#!/usr/bin/env bash
# Fine-tunes a released Funnel-Transformer on IMDB on a TPU v3-8 (TensorFlow 2.15).
#
# Reproduces the published recipe: batch 32, learning rate 1e-5 (try 1e-5, 2e-5, 3e-5), about 5
# epochs with 10% warm-up, length 512. The text classification table of the paper has the error
# rate.
#
# FAMILY=bert: learning rate 2e-5, 3 epochs, from the ranges of BERT's paper (A.3). Its authors
# published no recipe for IMDB.
#
#   TPU_NAME=my-tpu GS_ROOT=gs://bucket/funnel IMDB_DIR=aclImdb bash scripts/tpu_imdb.sh
#   bash scripts/tpu_imdb.sh --dry_run          prints the command
#   bash scripts/tpu_imdb.sh --seed=7           further arguments go to run_classifier.py
source "$(dirname "$0")/common.sh"

FAMILY=${FAMILY:-funnel}             # funnel or bert: whose recipe gives the defaults
bert_defaults LEARNING_RATE=2e-5 TRAIN_STEPS=2343 WARMUP_STEPS=234 SAVE_STEPS=781
TPU_NAME=${TPU_NAME:-}
GS_ROOT=${GS_ROOT:-}                  # Google Storage folder for records and checkpoints
MODEL_DIR=${MODEL_DIR:-pretrained}    # local folder with configuration and vocabulary
INIT_CHECKPOINT=${INIT_CHECKPOINT:-$GS_ROOT/pretrained_ckpt/model.ckpt}
IMDB_DIR=${IMDB_DIR:-data/aclImdb}    # local
NUM_CORE_PER_HOST=${NUM_CORE_PER_HOST:-8}
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-512}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-32}
LEARNING_RATE=${LEARNING_RATE:-1e-5}
TRAIN_STEPS=${TRAIN_STEPS:-4000}
WARMUP_STEPS=${WARMUP_STEPS:-400}
SAVE_STEPS=${SAVE_STEPS:-400}

run "$PYTHON" run_classifier.py \
  --use_tpu=True --tpu="$TPU_NAME" --num_hosts=1 --num_core_per_host="$NUM_CORE_PER_HOST" \
  --do_train=True --do_eval=True --eval_all_ckpt=True --max_save=0 --task_name=imdb \
  --pretrained="$MODEL_DIR" --init_checkpoint="$INIT_CHECKPOINT" --data_dir="$IMDB_DIR" \
  --output_dir="$GS_ROOT/proc_data/imdb" --model_dir="$GS_ROOT/exp/imdb" --uncased=True \
  --max_seq_length="$MAX_SEQ_LENGTH" --train_batch_size="$TRAIN_BATCH_SIZE" --eval_batch_size=8 \
  --learning_rate="$LEARNING_RATE" --train_steps="$TRAIN_STEPS" --warmup_steps="$WARMUP_STEPS" \
  --save_steps="$SAVE_STEPS" --iterations="$SAVE_STEPS" "$@"
