#!/usr/bin/env bash
# Downloads released checkpoints of Funnel-Transformer, BERT and ELECTRA. Folders that are there are
# kept. The folder of a model is MODEL_DIR of the recipes, and --pretrained of the Python scripts.
#
#   bash scripts/download_checkpoints.sh B6-6-6H768 uncased_L-12_H-768_A-12
#   bash scripts/download_checkpoints.sh B6-6-6H768 --dry_run    prints the commands
#
# Names:
#   B4-4-4H768 B6-3x2-3x2H768 B6-6-6H768 B8-8-8H1024 B10-10-10H1024    encoder and decoder
#   the same with -FULL                                                 with ELECTRA's generator
#   cased_L-12_H-768_A-12 cased_L-24_H-1024_A-16 uncased_L-12_H-768_A-12 uncased_L-24_H-1024_A-16
#   wwm_cased_L-24_H-1024_A-16 wwm_uncased_L-24_H-1024_A-16             whole-word masking
#   multi_cased_L-12_H-768_A-12 multilingual_L-12_H-768_A-12 chinese_L-12_H-768_A-12
#   uncased_L-2_H-128_A-2 ... uncased_L-12_H-512_A-8                    the small BERTs of 2020
#   electra_small electra_base electra_large
#
# Settings (environment variables; CHECKSUMS is explained in download.sh). The authors published no
# checksums, so the first download is recorded.
#   CHECKPOINT_DIR=data/checkpoints    target, with a folder for each model
#   FUNNEL_URL, BERT_URL, ELECTRA_URL  sources
source "$(dirname "$0")/download.sh"

CHECKPOINT_DIR=${CHECKPOINT_DIR:-data/checkpoints}
FUNNEL_URL=${FUNNEL_URL:-https://storage.googleapis.com/funnel-transformer/funnel_ckpts_all}
BERT_URL=${BERT_URL:-https://storage.googleapis.com/bert_models}
ELECTRA_URL=${ELECTRA_URL:-https://storage.googleapis.com/electra-data}

parse "$@"
target=$CHECKPOINT_DIR
[ ${#names[@]} -gt 0 ] || fail "name the models; scripts/download_checkpoints.sh lists them"
for name in "${names[@]}"; do
  case $name in
    B4-4-4H768 | B6-3x2-3x2H768 | B6-6-6H768 | B8-8-8H1024 | B10-10-10H1024)
      url=$FUNNEL_URL/$name-ELEC-TF.tar.gz ;;
    B4-4-4H768-FULL | B6-3x2-3x2H768-FULL | B6-6-6H768-FULL | B8-8-8H1024-FULL | B10-10-10H1024-FULL)
      url=$FUNNEL_URL/${name%-FULL}-ELEC-FULL-TF.tar.gz ;;
    uncased_L-12_H-768_A-12 | uncased_L-24_H-1024_A-16 | cased_L-12_H-768_A-12 | cased_L-24_H-1024_A-16)
      url=$BERT_URL/2018_10_18/$name.zip ;;
    wwm_uncased_L-24_H-1024_A-16 | wwm_cased_L-24_H-1024_A-16) url=$BERT_URL/2019_05_30/$name.zip ;;
    multi_cased_L-12_H-768_A-12) url=$BERT_URL/2018_11_23/$name.zip ;;
    multilingual_L-12_H-768_A-12 | chinese_L-12_H-768_A-12) url=$BERT_URL/2018_11_03/$name.zip ;;
    uncased_L-*_H-*_A-*) url=$BERT_URL/2020_02_20/$name.zip ;;
    electra_small | electra_base | electra_large) url=$ELECTRA_URL/$name.zip ;;
    *) fail "unknown model $name; scripts/download_checkpoints.sh lists the names" ;;
  esac
  get_folder "$url" "$CHECKPOINT_DIR/$name"
done
