#!/usr/bin/env bash
# Fine-tunes a Funnel-Transformer (or BERT) on IMDB on the GPUs of this machine.
#
# The published recipe (batch 32, learning rate 1e-5, 2e-5 or 3e-5, about 5 epochs with 10% warm-up,
# length 512) ran on a TPU v3-8. The text classification table of the paper has its error rate. A 16
# GB V100 fits 4 sequences of length 512 of B8-8-8H1024. Share the batch of 32 among several GPUs,
# or lower TRAIN_BATCH_SIZE.
#
# FAMILY=bert: learning rate 2e-5, 3 epochs, from the ranges of BERT's paper (A.3). Its authors
# published no recipe for IMDB.
#
#   MODEL_DIR=B6-6-6H768-ELEC-TF IMDB_DIR=aclImdb bash scripts/gpu_imdb.sh
#   bash scripts/gpu_imdb.sh --dry_run          prints the command
#   bash scripts/gpu_imdb.sh --seed=7           further arguments go to run_classifier.py
source "$(dirname "$0")/common.sh"

FAMILY=${FAMILY:-funnel}             # funnel or bert: whose recipe gives the defaults
bert_defaults LEARNING_RATE=2e-5 TRAIN_STEPS=2343 WARMUP_STEPS=234 SAVE_STEPS=781
MODEL_DIR=${MODEL_DIR:-pretrained}    # folder of the released model: configuration, vocabulary, checkpoint
IMDB_DIR=${IMDB_DIR:-data/aclImdb}
OUTPUT_DIR=${OUTPUT_DIR:-proc_data/imdb}
EXP_DIR=${EXP_DIR:-exp/imdb}
NUM_GPUS=${NUM_GPUS:-0}               # 0 for all
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-512}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-32}
LEARNING_RATE=${LEARNING_RATE:-1e-5}
TRAIN_STEPS=${TRAIN_STEPS:-4000}
WARMUP_STEPS=${WARMUP_STEPS:-400}
SAVE_STEPS=${SAVE_STEPS:-400}

run "$PYTHON" run_classifier.py \
  --do_train=True --do_eval=True --eval_all_ckpt=True --max_save=0 --task_name=imdb \
  --pretrained="$MODEL_DIR" --data_dir="$IMDB_DIR" \
  --output_dir="$OUTPUT_DIR" --model_dir="$EXP_DIR" --uncased=True \
  --max_seq_length="$MAX_SEQ_LENGTH" --train_batch_size="$TRAIN_BATCH_SIZE" --eval_batch_size=8 \
  --learning_rate="$LEARNING_RATE" --train_steps="$TRAIN_STEPS" --warmup_steps="$WARMUP_STEPS" \
  --save_steps="$SAVE_STEPS" --num_core_per_host="$NUM_GPUS" "$@"
