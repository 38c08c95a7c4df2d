#!/usr/bin/env bash
# Pretrains BERT or a Funnel-Transformer on a TPU (TensorFlow 2.15).
#
# MODEL selects the recipe. bert_base and bert_large have two phases: nine tenths of the updates at
# length 128, the rest at 512, starting from the first phase's weights. The five released
# Funnel-Transformers use ELECTRA at length 512, batch 256, a million updates. The published BERTs
# took four days on 16 (base) and 64 (large) TPU chips. scripts/prepro_pretrain.sh creates the
# records.
#
# Expected after fine-tuning on GLUE (dev average, scripts/gpu_glue.sh). LOSS_TYPE=mlm, a million
# updates of batch 256 on Wikipedia and BookCorpus: B4-4-4H768 84.0, B6-3x2-3x2H768 84.8,
# B6-6-6H768 85.4, a transformer of BERT-base's size 84.4. The released models have ELECTRA and more text; see
# scripts/gpu_glue.sh. The second phase of BERT starts a new schedule with a tenth of the warm-up,
# which is ours.
#
#   MODEL=bert_large TPU_NAME=my-tpu GS_ROOT=gs://bucket/bert bash scripts/tpu_pretrain.sh
#   bash scripts/tpu_pretrain.sh --dry_run       prints the commands
#   bash scripts/tpu_pretrain.sh --seed=7        further arguments go to run_pretraining.py
source "$(dirname "$0")/common.sh"

MODEL=${MODEL:-B4-4-4H768}            # bert_base, bert_large, B4-4-4H768 ... B10-10-10H1024
LOSS_TYPE=${LOSS_TYPE:-electra}       # Funnel: electra or mlm; BERT: masked tokens + next sentence
TPU_NAME=${TPU_NAME:-}
GS_ROOT=${GS_ROOT:-}                  # Google Storage folder for records and checkpoints
EXP_DIR=${EXP_DIR:-$GS_ROOT/exp/pretrain_$MODEL}
NUM_CORE_PER_HOST=${NUM_CORE_PER_HOST:-8}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}
LEARNING_RATE=${LEARNING_RATE:-1e-4}
TRAIN_STEPS=${TRAIN_STEPS:-1000000}
WARMUP_STEPS=${WARMUP_STEPS:-$((TRAIN_STEPS / 100))}
SAVE_STEPS=${SAVE_STEPS:-$(((TRAIN_STEPS + 99) / 100))}
DEVICES=(--use_tpu=True --tpu="$TPU_NAME" --use_bfloat16=True --num_hosts=1
  --num_core_per_host="$NUM_CORE_PER_HOST")
case $MODEL in bert_*) family=bert ;; *) family=funnel ;; esac
RECORDS=${RECORDS:-$GS_ROOT/proc_data/pretrain_$family}

pretrain "$@"
