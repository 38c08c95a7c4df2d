#!/usr/bin/env bash
# Downloads SQuAD (download_squad.sh has the settings) and creates its records, once for all runs. An
# interrupted run continues.
#
# gpu_squad.sh and tpu_squad.sh create the same records themselves. To reuse these, set the same
# OUTPUT_DIR there. The records depend on the vocabulary, the lengths and the model family.
#
#   MODEL_DIR=B6-6-6H768-ELEC-TF bash scripts/prepro_squad.sh
#   VERSION=v1.1 MODEL_DIR=uncased_L-12_H-768_A-12 MAX_SEQ_LENGTH=384 bash scripts/prepro_squad.sh
#   bash scripts/prepro_squad.sh --dry_run          prints the commands
#   bash scripts/prepro_squad.sh --doc_stride=64    further arguments go to run_squad.py
source "$(dirname "$0")/common.sh"

VERSION=${VERSION:-v2.0}              # v2.0 or v1.1
DATA_DIR=${DATA_DIR:-data/squad}      # local; missing files are downloaded
MODEL_DIR=${MODEL_DIR:-pretrained}    # local folder with configuration and vocabulary
OUTPUT_DIR=${OUTPUT_DIR:-proc_data/squad}  # local or Google Storage
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-512}
NUM_PROC=${NUM_PROC:-2}               # processes

# The further arguments go to run_squad.py; --dry_run also applies to the downloads.
case " $* " in *" --dry_run "*) dry_run=--dry_run ;; *) dry_run= ;; esac
DATA_DIR=$DATA_DIR bash scripts/download_squad.sh "$VERSION" ${dry_run:+"$dry_run"}
for split in train eval; do
  run "$PYTHON" run_squad.py --prepro_split="$split" --num_proc="$NUM_PROC" \
    --train_file="$DATA_DIR/train-$VERSION.json" --predict_file="$DATA_DIR/dev-$VERSION.json" \
    --pretrained="$MODEL_DIR" --output_dir="$OUTPUT_DIR" --uncased=True \
    --max_seq_length="$MAX_SEQ_LENGTH" "$@"
done
