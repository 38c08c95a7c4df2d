# shellcheck shell=bash
# Functions of the recipe wrappers. Source this file; do not run it.
#
#   source "$(dirname "$0")/common.sh"    changes to the repository's root, selects the interpreter
#   bert_defaults NAME=VALUE ...          with FAMILY=bert: sets the settings that are not set
#   run COMMAND ... "$@"                  prints and runs the command; with --dry_run only prints it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "${PYTHON:-}" ]; then
  PYTHON=python
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi

bert_defaults() {
  local setting name
  case $FAMILY in
    funnel) return ;;
    bert) ;;
    *) echo "$(basename "$0"): FAMILY must be funnel or bert, not $FAMILY" >&2; exit 2 ;;
  esac
  for setting in "$@"; do
    name=${setting%%=*}
    [ -n "${!name:-}" ] || printf -v "$name" %s "${setting#*=}"
  done
}

run() {
  local command=() dry_run=false argument
  for argument in "$@"; do
    if [ "$argument" = --dry_run ]; then dry_run=true; else command+=("$argument"); fi
  done
  printf '%q ' "${command[@]}"
  echo
  $dry_run && return
  if [ -z "${GS_ROOT-not a TPU wrapper}" ]; then
    echo "$(basename "$0"): set GS_ROOT, the folder for records and checkpoints (gs://...)" >&2
    exit 2
  fi
  "${command[@]}"
}

# Runs a pretraining recipe with the settings at the top of gpu_pretrain.sh or tpu_pretrain.sh.
pretrain() {
  local steps=(--train_batch_size="$TRAIN_BATCH_SIZE" --learning_rate="$LEARNING_RATE"
    --save_steps="$SAVE_STEPS")
  if [ ! -e "configs/models/$MODEL.json" ]; then
    echo "$(basename "$0"): MODEL=$MODEL is unknown; there are" configs/models/*.json >&2
    exit 2
  fi
  case $MODEL in
    bert_base | bert_large)
      local records=${RECORDS:-proc_data/pretrain_bert} first=$((TRAIN_STEPS * 9 / 10))
      local command=("$PYTHON" run_pretraining.py --loss_type=bert
        --bert_config_file="configs/models/$MODEL.json" "${steps[@]}" "${DEVICES[@]}")
      run "${command[@]}" --input_file="$records/seq_128/tf_examples.tfrecord*" \
        --max_seq_length=128 --max_predictions_per_seq=20 --train_steps="$first" \
        --warmup_steps="$WARMUP_STEPS" --model_dir="$EXP_DIR/seq_128" "$@"
      run "${command[@]}" --input_file="$records/seq_512/tf_examples.tfrecord*" \
        --max_seq_length=512 --max_predictions_per_seq=76 --train_steps=$((TRAIN_STEPS - first)) \
        --warmup_steps=$((WARMUP_STEPS / 10)) --init_checkpoint="$EXP_DIR/seq_128" \
        --model_dir="$EXP_DIR/seq_512" "$@"
      ;;
    *)
      run "$PYTHON" run_pretraining.py --loss_type="$LOSS_TYPE" \
        --model_config="configs/models/$MODEL.json" \
        --record_dir="${RECORDS:-proc_data/pretrain_funnel}" --seq_len=512 --num_predict=85 \
        --train_steps="$TRAIN_STEPS" --warmup_steps="$WARMUP_STEPS" "${steps[@]}" \
        --model_dir="$EXP_DIR" "${DEVICES[@]}" "$@"
      ;;
  esac
}
