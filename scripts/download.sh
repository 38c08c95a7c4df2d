# shellcheck shell=bash
# Functions of the download scripts. Source this file; do not run it.
#
#   parse "$@"               sets names (the arguments) and dry_run (--dry_run if it is among them)
#   get URL FILE             downloads a file that is missing, and checks its SHA-256
#   get_folder URL FOLDER    downloads an archive and unpacks it into a folder that is missing
#
# Setting of all of them: CHECKSUMS=scripts/checksums.txt, lines of SHA-256 and file name. The
# checksum of a file that is not listed is printed and written to $target/sha256sums.txt in this
# form; the next download into $target must have the same one. Another machine can check against it
# with CHECKSUMS=FILE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CHECKSUMS=${CHECKSUMS:-scripts/checksums.txt}
names=() dry_run=
target=  # folder of all downloads, set by the script
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

parse() {
  local argument
  for argument in "$@"; do
    case $argument in
      --dry_run) dry_run=--dry_run ;;
      -*) fail "unknown argument $argument; the only option is --dry_run" ;;
      *) names+=("$argument") ;;
    esac
  done
}

is_there() {
  [ -e "$1" ] || return 1
  echo "$1 is there."
}

get() {
  local url=$1 file=$2 name=${1##*/} record=$target/sha256sums.txt lists=("$CHECKSUMS") sum known
  is_there "$file" && return
  local command=(curl --fail --location --silent --show-error --create-dirs
    --output "$file.part" "$url")
  if [ -n "$dry_run" ]; then
    printf '%q ' "${command[@]}"; echo
    return
  fi
  "${command[@]}" || fail "cannot get $url"
  sum=$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
    "$file.part")
  [ ! -f "$record" ] || lists+=("$record")
  known=$(awk -v name="$name" '$2 == name { print $1; exit }' "${lists[@]}")
  if [ -z "$known" ]; then
    mkdir -p "$target"
    echo "$sum  $name" | tee -a "$record"
  elif [ "$sum" != "$known" ]; then
    rm "$file.part"
    fail "$url: the SHA-256 is $sum, not $known (${lists[*]}). The file is not kept. If it was" \
      "replaced at its source and you trust it, correct the list, or name another with CHECKSUMS"
  fi
  mv "$file.part" "$file"
}

get_folder() {
  local archive=$work/${1##*/}
  is_there "$2" && return
  get "$1" "$archive"
  if [ -z "$dry_run" ]; then
    mkdir -p "$(dirname "$2")"
    python3 scripts/unpack.py "$archive" "$2" || exit 1
    rm "$archive"
    echo "$2"
  fi
}
