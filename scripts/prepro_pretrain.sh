#!/usr/bin/env bash
# Turns raw text (one sentence a line, a blank line between documents) into pretraining records.
#
# FAMILY=bert follows the published recipe: most of the training is done on sequences of length 128
# (20 masked tokens), the rest on length 512 (76), so records of both lengths are made, with 5 passes
# over the text. FAMILY=funnel makes the published 5 passes of length 512, masked during training.
#
#   FAMILY=bert INPUT='text/*.txt' VOCAB=vocab.txt bash scripts/prepro_pretrain.sh
#   FAMILY=funnel bash scripts/prepro_pretrain.sh --dry_run      prints the commands
#   bash scripts/prepro_pretrain.sh --random_seed=7              further arguments go to
#                                                                create_pretraining_data.py
source "$(dirname "$0")/common.sh"

FAMILY=${FAMILY:-bert}                # bert or funnel
INPUT=${INPUT:-data/text/*.txt}       # comma-separated globs
VOCAB=${VOCAB:-pretrained/vocab.txt}  # scripts/build_vocab.py makes one from the same text
OUTPUT_DIR=${OUTPUT_DIR:-proc_data/pretrain_$FAMILY}
UNCASED=${UNCASED:-True}
NUM_SHARDS=${NUM_SHARDS:-32}          # record files of a phase or pass; the unit of parallel work
NUM_WORKERS=${NUM_WORKERS:-0}         # processes; 0 for one on each core
DUPE_FACTOR=${DUPE_FACTOR:-5}         # bert: passes over the text, each masked differently
PASSES=${PASSES:-0 1 2 3 4}           # funnel

case $FAMILY in
  bert)
    for phase in "128 20" "512 76"; do
      length=${phase% *}
      run "$PYTHON" create_pretraining_data.py \
        --input_file="$INPUT" --output_file="$OUTPUT_DIR/seq_$length/tf_examples.tfrecord" \
        --vocab_file="$VOCAB" --do_lower_case="$UNCASED" --max_seq_length="$length" \
        --max_predictions_per_seq="${phase#* }" --masked_lm_prob=0.15 \
        --dupe_factor="$DUPE_FACTOR" --num_shards="$NUM_SHARDS" --num_workers="$NUM_WORKERS" "$@"
    done ;;
  funnel)
    for pass_id in $PASSES; do
      run "$PYTHON" create_pretraining_data.py \
        --input_glob="$INPUT" --save_dir="$OUTPUT_DIR" --pass_id="$pass_id" --seq_len=512 \
        --tokenizer_type=word_piece --tokenizer_path="$VOCAB" --uncased="$UNCASED" \
        --num_task="$NUM_SHARDS" --num_workers="$NUM_WORKERS" "$@"
    done ;;
  *)
    echo "prepro_pretrain.sh: error: FAMILY must be bert or funnel, not $FAMILY" >&2
    exit 1 ;;
esac
