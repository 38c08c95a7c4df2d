#!/usr/bin/env bash
# Pretrains a tiny BERT and a tiny Funnel-Transformer on a small corpus, each with masked tokens and
# with ELECTRA. Then fine-tunes each on SST-2, and the same encoder from random weights.
#
#   bash benchmarks/pretrain_small.sh SST2_DIR OUTPUT_DIR TEXT.txt [TEXT.txt ...]
#
# Each run starts from the weights of an earlier one:
#
#   bert_short -> bert_bert -> bert_electra       masked tokens and next sentences at length 32,
#                                                 then at length 64 on the last text, then ELECTRA
#   funnel_first -> funnel_mlm -> funnel_electra  masked tokens at length 64, twice, then ELECTRA
#
# RUNS selects the runs, STAGES the stages: data, pretrain, finetune, report. Existing files are
# reused, and an interrupted run continues. OUTPUT_DIR/pretraining.png shows the losses.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '5p' "$0" >&2; exit 2; }
sst2=$(realpath "$1") output=$(realpath -m "$2")
shift 2
texts=()
for text in "$@"; do texts+=("$(realpath "$text")"); done
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
RUNS=${RUNS:-bert_short bert_bert bert_electra funnel_first funnel_mlm funnel_electra}
STAGES=${STAGES:-data pretrain finetune report}
SEEDS=${SEEDS:-42 43 44}
case " $STAGES " in *" report "*) "$PYTHON" -c 'import matplotlib' 2>/dev/null || {
  echo "the report needs matplotlib: $PYTHON -m pip install matplotlib, or leave it out of STAGES" >&2
  exit 1; } ;;
esac
mkdir -p "$output"

funnel=(--block_size=1_1_1 --decoder_size=1 --d_model=128 --d_embed=128 --n_head=4 --d_head=32
  --d_inner=512 --dropout=0 --dropatt=0)

data() {
  local joined
  joined=$(IFS=,; echo "${texts[*]}")
  for family in bert funnel; do
    [ -e "$output/vocab.$family.txt" ] || "$PYTHON" scripts/build_vocab.py --input_file="$joined" \
      --vocab_file="$output/vocab.$family.txt" --vocab_size=8000 --symbols="$family"
  done
  # Absolute positions are learned late: with longer sequences the loss stays constant for long. But
  # 31% of SST-2's dev sentences have more than 32 tokens, so positions up to 64 must be trained
  # too.
  "$PYTHON" create_pretraining_data.py --input_file="$joined" --num_shards=4 --dupe_factor=4 \
    --output_file="$output/bert/train.tfrecord" --vocab_file="$output/vocab.bert.txt" \
    --max_seq_length=32 --max_predictions_per_seq=8 --masked_lm_prob=0.25
  "$PYTHON" create_pretraining_data.py --input_file="${texts[-1]}" --num_shards=4 --dupe_factor=3 \
    --output_file="$output/bert64/train.tfrecord" --vocab_file="$output/vocab.bert.txt" \
    --max_seq_length=64 --max_predictions_per_seq=16 --masked_lm_prob=0.25 --random_seed=7
  for pass_id in 0 1 2; do
    "$PYTHON" create_pretraining_data.py --input_glob="$joined" --save_dir="$output/funnel" \
      --num_task=2 --pass_id="$pass_id" --tokenizer_path="$output/vocab.funnel.txt" --seq_len=64
  done
  for dropout in 0.0 0.1; do
    cat > "$output/bert.dropout-$dropout.json" << JSON
{"vocab_size": 8000, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
 "intermediate_size": 512, "hidden_dropout_prob": $dropout, "attention_probs_dropout_prob": $dropout,
 "max_position_embeddings": 128, "type_vocab_size": 2, "initializer_range": 0.05}
JSON
  done
}

pretrain() {
  local short="$output/bert/train.tfrecord-*" long="$output/bert64/train.tfrecord-*" arguments
  case $1 in
    bert_short) arguments=(--loss_type=bert --input_file="$short" --train_batch_size=64
      --train_steps=12000 --warmup_steps=300) ;;
    bert_bert) arguments=(--loss_type=bert --input_file="$long" --train_batch_size=32
      --train_steps=3000 --warmup_steps=100 --init_checkpoint="$output/bert_short" --seed=3) ;;
    # The generator is as wide as the encoder, so it starts from the same masked-token weights.
    bert_electra) arguments=(--loss_type=electra --input_file="$long" --train_batch_size=32
      --train_steps=2000 --warmup_steps=100 --init_checkpoint="$output/bert_bert" --seed=4
      --width_shrink=1 --learning_rate=1e-4) ;;
    funnel_first) arguments=(--loss_type=mlm --num_predict=20 --train_steps=7000
      --warmup_steps=200) ;;
    funnel_mlm) arguments=(--loss_type=mlm --num_predict=20 --train_steps=4500 --warmup_steps=100
      --init_checkpoint="$output/funnel_first" --seed=2) ;;
    funnel_electra) arguments=(--loss_type=electra --num_predict=12 --train_steps=2000
      --warmup_steps=100 --init_checkpoint="$output/funnel_mlm" --seed=3 --width_shrink=1
      --learning_rate=3e-4) ;;
    *) echo "RUNS: $1 is none of bert_short bert_bert bert_electra funnel_first funnel_mlm" \
      "funnel_electra" >&2; exit 2 ;;
  esac
  case $1 in
    bert_*) arguments=(--bert_config_file="$output/bert.dropout-0.0.json" "${arguments[@]}") ;;
    *) arguments=(--record_dir="$output/funnel" --sample_strategy=whole_word --train_batch_size=32
      "${funnel[@]}" "${arguments[@]}") ;;
  esac
  "$PYTHON" run_pretraining.py --learning_rate=1e-3 "${arguments[@]}" --model_dir="$output/$1" \
    --save_steps=1000 --log_freq=50
}

finetune() {  # RUN SEED; RUN may be FAMILY_random
  local family=${1%_*} start="$output/$1" model
  [ "${1#*_}" != random ] || start=none
  if [ "$family" = bert ]; then
    model=(--bert_config_file="$output/bert.dropout-0.1.json")
  else
    local configs=("$output"/funnel_*/net_config.json)  # all the same
    model=("--model_config=${configs[0]}" "--overwrite_keys=dropout,dropatt" --dropout=0.1
      --dropatt=0.1)
  fi
  "$PYTHON" run_classifier.py --task_name=sst-2 --data_dir="$sst2" --do_train --do_eval \
    "${model[@]}" --vocab_file="$output/vocab.$family.txt" --init_checkpoint="$start" \
    --output_dir="$output/sst2.$family" --model_dir="$output/sst2/$1.$2" --seed="$2" \
    --max_train_examples=10000 --max_seq_length=64 --train_batch_size=32 --num_train_epochs=3 \
    --learning_rate=3e-4 --eval_every_steps=312 --eval_batch_size=128
}

for stage in $STAGES; do
  case $stage in
    data) data ;;
    pretrain) for run in $RUNS; do pretrain "$run"; done ;;
    finetune)
      for run in bert_random funnel_random $RUNS; do
        for seed in $SEEDS; do finetune "$run" "$seed"; done
      done ;;
    report) "$PYTHON" benchmarks/pretrain_report.py "$output" ;;
  esac
done
