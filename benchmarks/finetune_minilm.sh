#!/usr/bin/env bash
# Prints dev scores of MiniLM-L6-H384 on MRPC, CoLA and SST-2 (10,000 training rows), mean of three
# seeds. The figures in docs/results.md are its output.
#
#   bash scripts/quickstart.sh --pretrained_only
#   bash benchmarks/finetune_minilm.sh GLUE_DIR OUTPUT_DIR [TASK ...]
set -euo pipefail
cd "$(dirname "$0")/.."

glue=${1:?folder with MRPC, CoLA and SST-2}
output=${2:?folder for the runs}
shift 2
[ $# -gt 0 ] || set -- MRPC CoLA SST-2
for task in "$@"; do
  echo "== $task"
  arguments=()
  [ "$task" = SST-2 ] && arguments+=(--max_train_examples=10000)
  start=$(date +%s)
  "${VENV:-.venv}/bin/python" run_classifier.py --task_name="$task" --data_dir="$glue/$task" \
    --pretrained="${PRETRAINED:-pretrained}" --noinit_pooler --output_dir="$output/$task" \
    --num_train_epochs=3 --train_batch_size=32 --learning_rate=5e-5 --max_seq_length=128 \
    --num_trials=3 ${arguments[@]+"${arguments[@]}"}
  echo "$task: $(($(date +%s) - start)) s for three trials"
done
