#!/usr/bin/env bash
# Fine-tunes a Funnel-Transformer (or BERT) on RACE on the GPUs of this machine.
#
# The published recipe (batch 16, learning rate 2e-5, 24000 steps with 2400 of warm-up, length 512
# with at most 128 for question and option) ran on a TPU v2-8. Accuracy on all questions with
# ELECTRA pretraining: B4-4-4H768 76.2, B6-3x2-3x2H768 78.8, B6-6-6H768 79.7, B8-8-8H1024 85.2,
# B10-10-10H1024 85.7. A question is 4 sequences, and a 16 GB V100 fits 4 sequences of length 512 of
# B8-8-8H1024, so use 16 micro-batches of one question there. Base models need fewer; the default of
# 4 is ours. Several GPUs share the batch, which must be divisible by GPUs times micro-batches.
#
# FAMILY=bert: 3 epochs instead, as BERT's paper trains on SWAG. Its authors published no recipe for
# RACE.
#
#   MODEL_DIR=B6-6-6H768-ELEC-TF RACE_DIR=RACE bash scripts/gpu_race.sh
#   bash scripts/gpu_race.sh --dry_run          prints the command
#   bash scripts/gpu_race.sh --seed=7           further arguments go to run_race.py
source "$(dirname "$0")/common.sh"

FAMILY=${FAMILY:-funnel}             # funnel or bert: whose recipe gives the defaults
bert_defaults TRAIN_STEPS=16474 WARMUP_STEPS=1647 SAVE_STEPS=5491
MODEL_DIR=${MODEL_DIR:-pretrained}    # folder of the released model: configuration, vocabulary, checkpoint
RACE_DIR=${RACE_DIR:-data/RACE}       # holds train, dev, test
OUTPUT_DIR=${OUTPUT_DIR:-proc_data/race}
EXP_DIR=${EXP_DIR:-exp/race}
NUM_GPUS=${NUM_GPUS:-0}               # 0 for all
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-512}
MAX_QA_LENGTH=${MAX_QA_LENGTH:-128}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-16}
GRADIENT_ACCUMULATION_STEPS=${GRADIENT_ACCUMULATION_STEPS:-4}
LEARNING_RATE=${LEARNING_RATE:-2e-5}
TRAIN_STEPS=${TRAIN_STEPS:-24000}
WARMUP_STEPS=${WARMUP_STEPS:-2400}
SAVE_STEPS=${SAVE_STEPS:-2400}

run "$PYTHON" run_race.py \
  --do_train=True --do_eval=True --eval_all_ckpt=True --max_save=0 \
  --pretrained="$MODEL_DIR" --data_dir="$RACE_DIR" \
  --output_dir="$OUTPUT_DIR" --model_dir="$EXP_DIR" --uncased=True \
  --max_seq_length="$MAX_SEQ_LENGTH" --max_qa_length="$MAX_QA_LENGTH" \
  --train_batch_size="$TRAIN_BATCH_SIZE" --eval_batch_size=4 \
  --gradient_accumulation_steps="$GRADIENT_ACCUMULATION_STEPS" --learning_rate="$LEARNING_RATE" \
  --train_steps="$TRAIN_STEPS" --warmup_steps="$WARMUP_STEPS" \
  --save_steps="$SAVE_STEPS" --num_core_per_host="$NUM_GPUS" "$@"
