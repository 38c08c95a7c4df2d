#!/usr/bin/env bash
# Fine-tunes a Funnel-Transformer on RACE on a TPU v2-8 (TensorFlow 2.15).
#
# Reproduces the published recipe: batch 16, learning rate 2e-5, 24000 steps with 2400 of warm-up,
# length 512 with at most 128 for question and option. Accuracy on all questions with ELECTRA
# pretraining: B4-4-4H768 76.2, B6-3x2-3x2H768 78.8, B6-6-6H768 79.7, B8-8-8H1024 85.2,
# B10-10-10H1024 85.7. A v2-8 is enough for the base models; the large ones need a v3-16 for batch
# 16. GRADIENT_ACCUMULATION_STEPS=2 computes the two questions of a core one after the other.
#
# FAMILY=bert: 3 epochs instead, as BERT's paper trains on SWAG. Its authors published no recipe for
# RACE.
#
#   TPU_NAME=my-tpu GS_ROOT=gs://bucket/funnel RACE_DIR=RACE bash scripts/tpu_race.sh
#   bash scripts/tpu_race.sh --dry_run          prints the command
#   bash scripts/tpu_race.sh --seed=7           further arguments go to run_race.py
source "$(dirname "$0")/common.sh"

FAMILY=${FAMILY:-funnel}             # funnel or bert: whose recipe gives the defaults
bert_defaults TRAIN_STEPS=16474 WARMUP_STEPS=1647 SAVE_STEPS=5491
TPU_NAME=${TPU_NAME:-}
GS_ROOT=${GS_ROOT:-}                  # Google Storage folder for records and checkpoints
MODEL_DIR=${MODEL_DIR:-pretrained}    # local folder with configuration and vocabulary
INIT_CHECKPOINT=${INIT_CHECKPOINT:-$GS_ROOT/pretrained_ckpt/model.ckpt}
RACE_DIR=${RACE_DIR:-data/RACE}       # local; holds train, dev, test
NUM_CORE_PER_HOST=${NUM_CORE_PER_HOST:-8}
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-512}
MAX_QA_LENGTH=${MAX_QA_LENGTH:-128}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-16}
GRADIENT_ACCUMULATION_STEPS=${GRADIENT_ACCUMULATION_STEPS:-1}
LEARNING_RATE=${LEARNING_RATE:-2e-5}
TRAIN_STEPS=${TRAIN_STEPS:-24000}
WARMUP_STEPS=${WARMUP_STEPS:-2400}
SAVE_STEPS=${SAVE_STEPS:-2400}

run "$PYTHON" run_race.py \
  --use_tpu=True --tpu="$TPU_NAME" --use_bfloat16=True \
  --num_hosts=1 --num_core_per_host="$NUM_CORE_PER_HOST" \
  --do_train=True --do_eval=True --eval_all_ckpt=True --max_save=0 \
  --pretrained="$MODEL_DIR" --init_checkpoint="$INIT_CHECKPOINT" --data_dir="$RACE_DIR" \
  --output_dir="$GS_ROOT/proc_data/race" --model_dir="$GS_ROOT/exp/race" --uncased=True \
  --max_seq_length="$MAX_SEQ_LENGTH" --max_qa_length="$MAX_QA_LENGTH" \
  --train_batch_size="$TRAIN_BATCH_SIZE" --eval_batch_size=16 \
  --gradient_accumulation_steps="$GRADIENT_ACCUMULATION_STEPS" --learning_rate="$LEARNING_RATE" \
  --train_steps="$TRAIN_STEPS" --warmup_steps="$WARMUP_STEPS" \
  --save_steps="$SAVE_STEPS" --iterations="$SAVE_STEPS" "$@"
