#!/usr/bin/env bash
# Fine-tunes and evaluates on GLUE tasks, one after the other, on the GPUs of this machine.
#
# Reproduces the GLUE dev results with each task's recipe (configs/experiments/). The paper's
# averages, on TPU, with ELECTRA pretraining: B4-4-4H768 87.0, B6-3x2-3x2H768 87.8, B6-6-6H768 88.3,
# B8-8-8H1024 89.7, B10-10-10H1024 90.0. A 16 GB V100 is enough for the small tasks.
#
# Every epoch is saved and evaluated, and the best checkpoint counts, as in Funnel-Transformer's code.
# The scores of BERT are those of the last checkpoint (eval_results.json); MRPC with BERT-base has
# accuracy 84.6.
#
# MRPC has three published learning rates (1e-5, 2e-5, 3e-5) and RTE two (1e-5, 2e-5). The recipe
# uses the first; --learning_rate=2e-5 selects another.
#
#   TASKS="cola mrpc" MODEL_DIR=B6-6-6H768-ELEC-TF bash scripts/gpu_glue.sh
#   bash scripts/gpu_glue.sh --dry_run          prints the commands
#   bash scripts/gpu_glue.sh --num_trials=5     further arguments go to run_classifier.py
source "$(dirname "$0")/common.sh"

TASKS=${TASKS:-CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE}
MODEL_DIR=${MODEL_DIR:-pretrained}    # folder of the released model: configuration, vocabulary, checkpoint
GLUE_DIR=${GLUE_DIR:-data/glue}
OUTPUT_DIR=${OUTPUT_DIR:-proc_data}
EXP_DIR=${EXP_DIR:-exp}
NUM_GPUS=${NUM_GPUS:-0}               # 0 for all

for task in $TASKS; do
  run "$PYTHON" run_classifier.py \
    --do_train=True --do_eval=True --eval_all_ckpt=True --max_save=0 --task_name="$task" \
    --pretrained="$MODEL_DIR" --data_dir="$GLUE_DIR/$task" \
    --output_dir="$OUTPUT_DIR/$task" --model_dir="$EXP_DIR/$task" \
    --num_core_per_host="$NUM_GPUS" "$@"
done
