#!/usr/bin/env bash
# Downloads the training and dev files of SQuAD (30 and 42 MB). Files that are there are kept.
#
#   bash scripts/download_squad.sh v2.0         the named versions
#   bash scripts/download_squad.sh              v1.1 and v2.0
#   bash scripts/download_squad.sh --dry_run    prints the commands
#
# Settings (environment variables; CHECKSUMS is explained in download.sh):
#   DATA_DIR=data/squad    target folder
#   SQUAD_URL=https://rajpurkar.github.io/SQuAD-explorer/dataset    source
source "$(dirname "$0")/download.sh"

DATA_DIR=${DATA_DIR:-data/squad}
SQUAD_URL=${SQUAD_URL:-https://rajpurkar.github.io/SQuAD-explorer/dataset}

parse "$@"
target=$DATA_DIR
[ ${#names[@]} -gt 0 ] || names=(v1.1 v2.0)
for version in "${names[@]}"; do
  case $version in v1.1 | v2.0) ;; *) fail "unknown version $version; known are v1.1 v2.0" ;; esac
  for split in train dev; do
    get "$SQUAD_URL/$split-$version.json" "$DATA_DIR/$split-$version.json"
  done
done
