#!/usr/bin/env bash
# Creates the Python environment and installs the requirements. A second call does nothing.
#
#   bash scripts/setup.sh           requirements of the scripts
#   bash scripts/setup.sh --test    also those of the tests
#
# Settings (environment variables):
#   VENV=.venv            folder of the environment
#   PYTHON=python3        interpreter, 3.10 to 3.13 (3.10 or 3.11 for TensorFlow 2.15)
#   TENSORFLOW=2.21.0     version; 2.15.1 is the last one for TPUs
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
TENSORFLOW=${TENSORFLOW:-2.21.0}

say() { printf '%s\n' "$*"; }
fail() { printf 'setup.sh: error: %s\n' "$*" >&2; exit 1; }

requirements=(requirements.txt)
for argument in "$@"; do
  case $argument in
    --test) requirements+=(requirements-{beam,gin,report,tfds,test}.txt) ;;
    *) fail "unknown argument $argument; the only one is --test" ;;
  esac
done

# The CPU build is a smaller download. It is installed on Linux x86-64 without a GPU.
package="tensorflow==$TENSORFLOW"
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then
  package="tensorflow[and-cuda]==$TENSORFLOW"
elif [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ]; then
  package="tensorflow-cpu==$TENSORFLOW"
fi

# The file holds a checksum of each set of requirements that is installed.
stamp=$VENV/.installed
checksum() { printf '%s\n' "$package" | cat - "$@" requirements-no-deps.txt | cksum; }
if [ -f "$stamp" ] && grep -qxF "$(checksum "${requirements[@]}")" "$stamp"; then
  say "Environment $VENV is complete ($package)."
  exit 0
fi

if [ ! -x "$VENV/bin/python" ]; then
  command -v "$PYTHON" >/dev/null || fail "$PYTHON not found; install Python 3.10 or newer, or set PYTHON"
  newest=13
  case $TENSORFLOW in 2.15.*) newest=11 ;; esac
  "$PYTHON" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $newest))" ||
    fail "$("$PYTHON" --version) is not supported: TensorFlow $TENSORFLOW needs Python 3.10 to 3.$newest; set PYTHON"
  say "Create environment $VENV with $("$PYTHON" --version)"
  "$PYTHON" -m venv "$VENV" || fail "cannot create $VENV (on Debian: apt-get install python3-venv)"
fi

say "Install $package and ${requirements[*]} into $VENV (a minute or two)"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }
install_flags=(--quiet)
for file in "${requirements[@]}"; do install_flags+=(--requirement "$file"); done
pip install "${install_flags[@]}" "$package"
case $TENSORFLOW in
  2.15.*) ;;  # contains the estimator library and Keras 2
  *) pip install --quiet --no-deps --requirement requirements-no-deps.txt ;;
esac
{ checksum requirements.txt; checksum "${requirements[@]}"; } > "$stamp"
say "Environment $VENV is ready."
