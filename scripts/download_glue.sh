#!/usr/bin/env bash
# Downloads data sets of the GLUE benchmark. Folders that are there are kept.
#
#   bash scripts/download_glue.sh CoLA MRPC          the named data sets
#   bash scripts/download_glue.sh                    all: CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE
#                                                    WNLI AX
#   bash scripts/download_glue.sh --dry_run          prints the commands
#
# Settings (environment variables; CHECKSUMS is explained in download.sh):
#   GLUE_DIR=data/glue                                 target folder
#   GLUE_URL=https://dl.fbaipublicfiles.com/glue/data  source
#   MRPC_URL=https://dl.fbaipublicfiles.com/senteval/senteval_data  source of MRPC
source "$(dirname "$0")/download.sh"

GLUE_DIR=${GLUE_DIR:-data/glue}
GLUE_URL=${GLUE_URL:-https://dl.fbaipublicfiles.com/glue/data}
MRPC_URL=${MRPC_URL:-https://dl.fbaipublicfiles.com/senteval/senteval_data}

# Microsoft's files. GLUE's dev set is part of the training file; mrpc_dev_ids.tsv lists its id pairs.
get_mrpc() {
  local folder=$GLUE_DIR/MRPC
  is_there "$folder" && return
  for url in "$MRPC_URL"/msr_paraphrase_{train,test}.txt "$GLUE_URL/mrpc_dev_ids.tsv"; do
    get "$url" "$work/${url##*/}"
  done
  [ -z "$dry_run" ] || return 0
  mkdir "$work/MRPC"
  python3 - "$work" "$work/MRPC" <<'PYTHON'
import sys
work, folder = sys.argv[1:]
read = lambda name: open(f"{work}/{name}", encoding="utf-8-sig").read().splitlines()
dev_ids = {tuple(line.split("\t")) for line in read("mrpc_dev_ids.tsv")}
header, *rows = read("msr_paraphrase_train.txt")
is_dev = lambda row: tuple(row.split("\t")[1:3]) in dev_ids
for name, chosen in (("train", [r for r in rows if not is_dev(r)]),
                     ("dev", [r for r in rows if is_dev(r)])):
  with open(f"{folder}/{name}.tsv", "w", encoding="utf-8") as file:
    file.write("\n".join([header, *chosen]) + "\n")
with open(f"{folder}/test.tsv", "w", encoding="utf-8") as file:
  file.write("index\t#1 ID\t#2 ID\t#1 String\t#2 String\n")
  for index, row in enumerate(read("msr_paraphrase_test.txt")[1:]):
    file.write("\t".join([str(index), *row.split("\t")[1:]]) + "\n")
PYTHON
  mkdir -p "$GLUE_DIR"
  mv "$work/MRPC" "$folder.part"
  mv "$folder.part" "$folder"
  echo "$folder"
}

parse "$@"
target=$GLUE_DIR
[ ${#names[@]} -gt 0 ] || names=(CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI AX)
for task in "${names[@]}"; do
  case $task in
    CoLA | SST-2 | STS-B | MNLI | RTE | WNLI) get_folder "$GLUE_URL/$task.zip" "$GLUE_DIR/$task" ;;
    QQP) get_folder "$GLUE_URL/QQP-clean.zip" "$GLUE_DIR/QQP" ;;
    QNLI) get_folder "$GLUE_URL/QNLIv2.zip" "$GLUE_DIR/QNLI" ;;
    AX) get "$GLUE_URL/AX.tsv" "$GLUE_DIR/AX/AX.tsv" ;;
    MRPC) get_mrpc ;;
    *) fail "unknown task $task; known are CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI AX" ;;
  esac
done
