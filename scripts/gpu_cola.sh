#!/usr/bin/env bash
# Fine-tunes a Funnel-Transformer or a BERT on CoLA on one GPU and evaluates every epoch.
#
# Reproduces the published single-GPU recipe: batch 16, learning rate 1e-5, about 10 epochs with 10%
# warm-up, length 128. A 16 GB V100 fits every released model except B10-10-10H1024. The paper
# reports CoLA as part of its GLUE averages (dev), with ELECTRA pretraining: B4-4-4H768 87.0,
# B6-3x2-3x2H768 87.8, B6-6-6H768 88.3, B8-8-8H1024 89.7, B10-10-10H1024 90.0.
#
# FAMILY=bert: batch 32, learning rate 2e-5, 3 epochs (Devlin et al. 2018, section 4.1 and A.3, which
# searched 5e-5, 4e-5, 3e-5, 2e-5).
#
#   MODEL_DIR=B6-6-6H768-ELEC-TF GLUE_DIR=glue_data bash scripts/gpu_cola.sh
#   bash scripts/gpu_cola.sh --dry_run          prints the command
#   bash scripts/gpu_cola.sh --seed=7           further arguments go to run_classifier.py
source "$(dirname "$0")/common.sh"

FAMILY=${FAMILY:-funnel}             # funnel or bert: whose recipe gives the defaults
bert_defaults TRAIN_BATCH_SIZE=32 LEARNING_RATE=2e-5 TRAIN_STEPS=801 WARMUP_STEPS=80 SAVE_STEPS=267
MODEL_DIR=${MODEL_DIR:-pretrained}    # folder of the released model: configuration, vocabulary, checkpoint
GLUE_DIR=${GLUE_DIR:-data/glue}
OUTPUT_DIR=${OUTPUT_DIR:-proc_data/cola}
EXP_DIR=${EXP_DIR:-exp/cola}
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-128}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-16}
LEARNING_RATE=${LEARNING_RATE:-1e-5}
TRAIN_STEPS=${TRAIN_STEPS:-5350}
WARMUP_STEPS=${WARMUP_STEPS:-535}
SAVE_STEPS=${SAVE_STEPS:-535}

run "$PYTHON" run_classifier.py \
  --do_train=True --do_eval=True --eval_all_ckpt=True --max_save=0 --task_name=cola \
  --pretrained="$MODEL_DIR" --data_dir="$GLUE_DIR/CoLA" \
  --output_dir="$OUTPUT_DIR" --model_dir="$EXP_DIR" --uncased=True \
  --max_seq_length="$MAX_SEQ_LENGTH" --train_batch_size="$TRAIN_BATCH_SIZE" \
  --learning_rate="$LEARNING_RATE" --train_steps="$TRAIN_STEPS" --warmup_steps="$WARMUP_STEPS" \
  --save_steps="$SAVE_STEPS" --num_hosts=1 --num_core_per_host=1 "$@"
