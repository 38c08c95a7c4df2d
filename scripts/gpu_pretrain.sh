#!/usr/bin/env bash
# Pretrains BERT or a Funnel-Transformer on the GPUs of this machine (or its CPU).
#
# MODEL selects the recipe. bert_base and bert_large have two phases: nine tenths of the updates at
# length 128, the rest at 512, starting from the first phase's weights. The five released
# Funnel-Transformers use ELECTRA at length 512. The published models were trained on TPU pods with
# batch 256 and a million updates, which take more than weeks on a single GPU: lower TRAIN_STEPS. If
# the batch does not fit into memory, raise GRADIENT_ACCUMULATION_STEPS. scripts/prepro_pretrain.sh
# creates the records.
#
# Expected after fine-tuning on GLUE (dev average, scripts/gpu_glue.sh). LOSS_TYPE=mlm, a million
# updates of batch 256 on Wikipedia and BookCorpus: B4-4-4H768 84.0, B6-3x2-3x2H768 84.8,
# B6-6-6H768 85.4, a transformer of BERT-base's size 84.4. The released models have ELECTRA and more text; see
# scripts/gpu_glue.sh. The second phase of BERT starts a new schedule with a tenth of the warm-up,
# which is ours.
#
#   MODEL=bert_base RECORDS=proc_data/pretrain_bert bash scripts/gpu_pretrain.sh
#   MODEL=B6-6-6H768 LOSS_TYPE=mlm bash scripts/gpu_pretrain.sh --dry_run     prints the commands
#   bash scripts/gpu_pretrain.sh --seed=7        further arguments go to run_pretraining.py
source "$(dirname "$0")/common.sh"

MODEL=${MODEL:-B4-4-4H768}            # bert_base, bert_large, B4-4-4H768 ... B10-10-10H1024
LOSS_TYPE=${LOSS_TYPE:-electra}       # Funnel: electra or mlm; BERT: masked tokens + next sentence
EXP_DIR=${EXP_DIR:-exp/pretrain_$MODEL}
NUM_GPUS=${NUM_GPUS:-0}               # 0 for all
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}
GRADIENT_ACCUMULATION_STEPS=${GRADIENT_ACCUMULATION_STEPS:-1}
LEARNING_RATE=${LEARNING_RATE:-1e-4}
TRAIN_STEPS=${TRAIN_STEPS:-1000000}
WARMUP_STEPS=${WARMUP_STEPS:-$((TRAIN_STEPS / 100))}
SAVE_STEPS=${SAVE_STEPS:-$(((TRAIN_STEPS + 99) / 100))}
DEVICES=(--num_core_per_host="$NUM_GPUS"
  --gradient_accumulation_steps="$GRADIENT_ACCUMULATION_STEPS")

pretrain "$@"
