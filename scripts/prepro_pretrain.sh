#!/usr/bin/env bash
# Converts raw text (one sentence per line, a blank line between documents) to pretraining records.
#
# FAMILY=bert creates the records of the published recipe, with 5 passes over the text: length 128
# (20 masked tokens) for most of the training, and length 512 (76) for the rest. FAMILY=funnel
# creates the published 5 passes of length 512, which are masked during training.
#
#   FAMILY=bert INPUT='text/*.txt' VOCAB=vocab.txt bash scripts/prepro_pretrain.sh
#   FAMILY=funnel bash scripts/prepro_pretrain.sh --dry_run      prints the commands
#   bash scripts/prepro_pretrain.sh --random_seed=7              further arguments go to
#                                                                create_pretraining_data.py
source "$(dirname "$0")/common.sh"

FAMILY=${FAMILY:-bert}                # bert or funnel
INPUT=${INPUT:-data/text/*.txt}       # comma-separated globs
VOCAB=${VOCAB:-pretrained/vocab.txt}  # scripts/build_vocab.py trains one on the same text
OUTPUT_DIR=${OUTPUT_DIR:-proc_data/pretrain_$FAMILY}
UNCASED=${UNCASED:-True}
NUM_SHARDS=${NUM_SHARDS:-32}          # record files of a phase or pass, created in parallel
NUM_WORKERS=${NUM_WORKERS:-0}         # processes; 0 for one per core
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
