# shellcheck shell=bash
# What the recipe wrappers share; sourced, not run.
#
#   source "$(dirname "$0")/common.sh"    goes to the repository's root, picks the interpreter
#   run COMMAND ... "$@"                  runs the command; with --dry_run among it only prints it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "${PYTHON:-}" ]; then
  PYTHON=python
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi

run() {
  local command=() dry_run=false argument
  for argument in "$@"; do
    if [ "$argument" = --dry_run ]; then dry_run=true; else command+=("$argument"); fi
  done
  printf '%q ' "${command[@]}"
  echo
  $dry_run || "${command[@]}"
}
