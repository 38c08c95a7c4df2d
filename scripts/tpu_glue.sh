#!/usr/bin/env bash
# Fine-tunes and evaluates on GLUE tasks, one after the other, on a TPU (TensorFlow 2.15).
#
# Reproduces the GLUE dev results with each task's recipe (configs/experiments/). The paper's
# averages with ELECTRA pretraining: B4-4-4H768 87.0, B6-3x2-3x2H768 87.8, B6-6-6H768 88.3 (TPU
# v2-8 is enough), B8-8-8H1024 89.7, B10-10-10H1024 90.0.
#
# Every epoch is saved and evaluated, and the best checkpoint counts, as in Funnel-Transformer's code.
# The scores of BERT are those of the last checkpoint (eval_results.json); MRPC with BERT-base has
# accuracy 84.6.
#
# MRPC has three published learning rates (1e-5, 2e-5, 3e-5) and RTE two (1e-5, 2e-5). The recipe
# uses the first; --learning_rate=2e-5 selects another.
#
#   TPU_NAME=my-tpu GS_ROOT=gs://bucket/funnel bash scripts/tpu_glue.sh
#   bash scripts/tpu_glue.sh --dry_run          prints the commands
#   bash scripts/tpu_glue.sh --seed=7           further arguments go to run_classifier.py
source "$(dirname "$0")/common.sh"

TASKS=${TASKS:-CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE}
TPU_NAME=${TPU_NAME:-}
GS_ROOT=${GS_ROOT:-}                  # Google Storage folder for records and checkpoints
MODEL_DIR=${MODEL_DIR:-pretrained}    # local folder with configuration and vocabulary
INIT_CHECKPOINT=${INIT_CHECKPOINT:-$GS_ROOT/pretrained_ckpt/model.ckpt}
GLUE_DIR=${GLUE_DIR:-data/glue}       # local
EXP_DIR=${EXP_DIR:-$GS_ROOT/exp}
NUM_CORE_PER_HOST=${NUM_CORE_PER_HOST:-8}

for task in $TASKS; do
  run "$PYTHON" run_classifier.py \
    --use_tpu=True --tpu="$TPU_NAME" --num_hosts=1 --num_core_per_host="$NUM_CORE_PER_HOST" \
    --use_bfloat16=True --do_train=True --do_eval=True --eval_all_ckpt=True --max_save=0 \
    --task_name="$task" \
    --pretrained="$MODEL_DIR" --init_checkpoint="$INIT_CHECKPOINT" --data_dir="$GLUE_DIR/$task" \
    --output_dir="$GS_ROOT/proc_data/$task" --model_dir="$EXP_DIR/$task" "$@"
done
