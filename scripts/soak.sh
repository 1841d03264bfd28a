#!/usr/bin/env bash
# The real endpoint picker under load for MINUTES (10), among engines that join, leave, fall silent and lie. Builds what it
# needs. One summary line; fails on any answer the specification does not ask for, on growth, and on leaked descriptors.
# usage: scripts/soak.sh [MINUTES] [soak.py's options]
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-10}
[[ $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]] || { sed -n '2,4p' "$0" | cut -c3- >&2; exit 2; }
build=${LLMD_BUILD_DIR:-$PWD/build/release}
if [[ -z ${LLMD_BUILD_DIR:-} ]]; then
  cmake --preset release -DLLMD_BUILD_TESTS=ON -DLLMD_BUILD_BENCH=ON >/dev/null
  ninja -C "$build" llmd-epp soak_load >/dev/null
fi
exec .deps/venv/bin/python tests/e2e/soak.py "$build" --minutes "$minutes" "${@:2}"
