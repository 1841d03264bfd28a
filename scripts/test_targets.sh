#!/usr/bin/env bash
# Prints the GoogleTest binaries a build directory knows: what a sanitizer run has to build.
# usage: scripts/test_targets.sh BUILD_DIR
set -euo pipefail
ctest --test-dir "$1" -L unit -N | sed -n 's/^ *Test *#[0-9]*: //p' | tr '\n' ' '
