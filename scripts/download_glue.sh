#!/usr/bin/env bash
# Downloads data sets of the GLUE benchmark into data/glue.
#
#   bash scripts/download_glue.sh CoLA MRPC          the named data sets
#   bash scripts/download_glue.sh                    all: CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE
#                                                    WNLI AX
#
# Settings (environment variables):
#   GLUE_DIR=data/glue                                 target folder
#   GLUE_URL=https://dl.fbaipublicfiles.com/glue/data  source
set -euo pipefail
cd "$(dirname "$0")/.."

GLUE_DIR=${GLUE_DIR:-data/glue}
GLUE_URL=${GLUE_URL:-https://dl.fbaipublicfiles.com/glue/data}
MRPC_URL=${MRPC_URL:-https://dl.fbaipublicfiles.com/senteval/senteval_data}

fail() { printf 'download_glue.sh: error: %s\n' "$*" >&2; exit 1; }
get() { curl --fail --location --silent --show-error --output "$2" "$1" || fail "cannot get $1"; }

[ $# -gt 0 ] || set -- CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI AX
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$GLUE_DIR"
for task in "$@"; do
  if [ -d "$GLUE_DIR/$task" ]; then
    echo "$GLUE_DIR/$task is there."
    continue
  fi
  folder=$work/$task
  mkdir "$folder"
  case $task in
    CoLA | SST-2 | STS-B | MNLI | RTE | WNLI) archive=$task.zip ;;
    QQP) archive=QQP-clean.zip ;;
    QNLI) archive=QNLIv2.zip ;;
    AX) archive=AX.tsv ;;
    MRPC) archive= ;;
    *) fail "unknown task $task; known are CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI AX" ;;
  esac
  if [ "$task" = AX ]; then
    get "$GLUE_URL/AX.tsv" "$folder/AX.tsv"
  elif [ "$task" = MRPC ]; then
    # Microsoft's files. GLUE's dev set is part of the training file; mrpc_dev_ids.tsv lists its id
    # pairs.
    get "$MRPC_URL/msr_paraphrase_train.txt" "$work/train.txt"
    get "$MRPC_URL/msr_paraphrase_test.txt" "$work/test.txt"
    get "$GLUE_URL/mrpc_dev_ids.tsv" "$work/dev_ids.tsv"
    python3 - "$work" "$folder" <<'PYTHON'
import sys
work, folder = sys.argv[1:]
read = lambda name: open(f"{work}/{name}", encoding="utf-8-sig").read().splitlines()
dev_ids = {tuple(line.split("\t")) for line in read("dev_ids.tsv")}
header, *rows = read("train.txt")
is_dev = lambda row: tuple(row.split("\t")[1:3]) in dev_ids
for name, chosen in (("train", [r for r in rows if not is_dev(r)]),
                     ("dev", [r for r in rows if is_dev(r)])):
  with open(f"{folder}/{name}.tsv", "w", encoding="utf-8") as file:
    file.write("\n".join([header, *chosen]) + "\n")
with open(f"{folder}/test.tsv", "w", encoding="utf-8") as file:
  file.write("index\t#1 ID\t#2 ID\t#1 String\t#2 String\n")
  for index, row in enumerate(read("test.txt")[1:]):
    file.write("\t".join([str(index), *row.split("\t")[1:]]) + "\n")
PYTHON
  else
    get "$GLUE_URL/$archive" "$work/$task.zip"
    python3 -m zipfile -e "$work/$task.zip" "$work/unpacked-$task"
    rmdir "$folder"
    mv "$work/unpacked-$task"/*/ "$folder"
  fi
  mv "$folder" "$GLUE_DIR/$task"
  echo "$GLUE_DIR/$task"
done
