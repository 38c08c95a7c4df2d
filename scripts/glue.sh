#!/usr/bin/env bash
# Fine-tunes and evaluates on all GLUE tasks with several seeds, and prints the table of scores.
#
# Reproduces the GLUE dev averages with the recipe of each task; gpu_glue.sh and tpu_glue.sh have the
# published scores, the hardware and further settings (MODEL_DIR, GLUE_DIR, ...). Records are created
# once for all seeds. A second call continues. The table (scripts/glue_table.py) is
# written to EXP_DIR as glue.md, glue.tsv and glue.png.
#
#   SEEDS="1 2 3" MODEL_DIR=B6-6-6H768-ELEC-TF bash scripts/glue.sh
#   bash scripts/glue.sh --dry_run                     prints the commands
#   bash scripts/glue.sh --max_train_examples=1000     further arguments go to run_classifier.py
source "$(dirname "$0")/common.sh"

SEEDS=${SEEDS:-1 2 3 4 5}
DEVICE=${DEVICE:-gpu}                 # gpu or tpu
case $DEVICE in
  gpu) EXP_DIR=${EXP_DIR:-exp/glue} ;;
  tpu) EXP_DIR=${EXP_DIR:-${GS_ROOT:-}/exp/glue} ;;
  *) echo "glue.sh: DEVICE must be gpu or tpu, not $DEVICE" >&2; exit 2 ;;
esac

for seed in $SEEDS; do
  EXP_DIR=$EXP_DIR/seed_$seed bash "scripts/${DEVICE}_glue.sh" --seed="$seed" "$@"
done
case " $* " in *" --dry_run "*) dry_run=--dry_run ;; *) dry_run= ;; esac
run "$PYTHON" scripts/glue_table.py "$EXP_DIR" ${dry_run:+"$dry_run"}
