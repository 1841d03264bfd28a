#!/usr/bin/env bash
# Builds the fuzzers with AddressSanitizer and UBSan and runs each for SECONDS (60). Prints executions, coverage and
# corpus growth; fails on any crash, with the input left in build/fuzz/crashes.
# usage: scripts/fuzz.sh [SECONDS] [TARGET...]
#        scripts/fuzz.sh --self-test    a planted bug must be found within 30 s
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/fuzz
jobs=${LLMD_FUZZ_JOBS:-$(nproc)}
flags="-O1 -gline-tables-only -fsanitize=fuzzer-no-link"
cmake --preset asan -B $build -DCMAKE_CXX_FLAGS="$flags" -DCMAKE_C_FLAGS="$flags" -DLLMD_BUILD_FUZZ=ON \
  -DLLMD_BUILD_TESTS=OFF -DLLMD_BUILD_SERVICES=OFF -DLLMD_BUILD_EPP=OFF >/dev/null
mkdir -p $build/crashes

# run NAME SECONDS SEEDS: finds go to a folder of the build, the seeds stay as they are.
run() {
  mkdir -p "$build/corpus/$1"
  "$build/bin/fuzz_$1" -max_total_time="$2" -timeout=10 -rss_limit_mb=1024 -max_len=4096 -print_final_stats=1 \
    -artifact_prefix="$build/crashes/$1-" "$build/corpus/$1" "tests/fuzz/corpus/$3" >"$build/$1.log" 2>&1
}

if [[ ${1:-} == --self-test ]]; then
  ninja -C $build -j "$jobs" fuzz_planted >/dev/null
  rm -rf $build/corpus/planted
  if run planted 30 sse; then echo "fuzz: the planted bug was not found" >&2; exit 1; fi
  grep -q "type.size() < 2" $build/planted.log || { tail -20 $build/planted.log >&2; exit 1; }
  echo "fuzz: the planted bug was found"
  exit 0
fi
seconds=${1:-60}; shift || true
targets=("$@")
if ((${#targets[@]} == 0)); then
  for dir in tests/fuzz/corpus/*/; do targets+=("$(basename "$dir")"); done
fi
ninja -C $build -j "$jobs" "${targets[@]/#/fuzz_}" >$build/ninja.log || { tail -40 $build/ninja.log >&2; exit 1; }
failed=()
printf '%-16s %12s %8s %8s %8s\n' target executions cov ft corpus
for target in "${targets[@]}"; do
  run "$target" "$seconds" "$target" || failed+=("$target")
  last=$(grep -E ' cov: [0-9]+ ft: ' "$build/$target.log" | tail -1)
  field() { sed -nE "s/.* $1: ([^ ]+).*/\1/p" <<<"$last"; }
  printf '%-16s %12s %8s %8s %8s\n' "$target" "$(sed -nE 's/^#([0-9]+).*/\1/p' <<<"$last")" "$(field cov)" "$(field ft)" "$(field corp)"
done
for target in "${failed[@]}"; do
  echo "fuzz: $target failed" >&2
  tail -30 "$build/$target.log" >&2
done
((${#failed[@]} == 0))
