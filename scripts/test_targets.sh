#!/usr/bin/env bash
# Prints the GoogleTest binaries a build directory knows: what a sanitizer run has to build.
# usage: scripts/test_targets.sh BUILD_DIR
set -euo pipefail
known=$(ninja -C "$1" -t targets all | sed 's/: .*//')
for name in $(ctest --test-dir "$1" -L unit -N | sed -n 's/^ *Test *#[0-9]*: //p'); do
  grep -qx "$name" <<<"$known" && printf '%s ' "$name"
done
echo
