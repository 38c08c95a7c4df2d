#!/usr/bin/env bash
# Installs the requirements of the tests, checks style, shell scripts and types, and runs the tests.
#
#   bash scripts/test.sh            the whole default suite on the newest TensorFlow
#   bash scripts/test.sh --smoke    the end-to-end subset on TensorFlow 2.15.1
#
# Test files run in parallel, in one process per core, at most 4.
# Further arguments go to pytest: bash scripts/test.sh -k tokenization
set -euo pipefail
cd "$(dirname "$0")/.."

selection=()
if [ "${1:-}" = --smoke ]; then
  shift
  export TENSORFLOW=2.15.1 VENV=.venv-tf215
  selection=(-m smoke)
fi
VENV=${VENV:-.venv}
bash scripts/setup.sh --test
export TF_CPP_MIN_LOG_LEVEL=3
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/shellcheck" scripts/*.sh benchmarks/*.sh .ci/run
"$VENV/bin/pyright" --pythonpath "$VENV/bin/python"
"$VENV/bin/python" -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  ${selection[@]+"${selection[@]}"} "$@"
