#!/usr/bin/env bash
# Builds llmd and runs its tests. Sets the machine up first.
# usage: scripts/test.sh [--all] [--no-setup]
#   default: release build, style and layer checks, unit tests, Python and end-to-end tests (the engine's a second time
#            on the AVX2 kernels, whatever the CPU has) with the wheel built by g++, as pip builds it, the libraries under
#            AddressSanitizer, clang-tidy on the files changed since the last release of main
#   --all:   also the gateway's black-box cases and two minutes of chaos, ThreadSanitizer, all tests with g++, the Python tests with clang's wheel, clang-tidy on every file, the fuzzers for a minute each
set -euo pipefail
cd "$(dirname "$0")/.."
all=false; setup=true
for arg in "$@"; do
  case $arg in
    --all) all=true ;;
    --no-setup) setup=false ;;
    *) echo "usage: scripts/test.sh [--all] [--no-setup]" >&2; exit 2 ;;
  esac
done
$setup && scripts/setup.sh
step() { printf '\n== %s (%(%H:%M:%S)T)\n' "$*" -1; }
python=.deps/venv/bin/python

step "release build"
cmake --preset release -DLLMD_BUILD_TESTS=ON -DLLMD_BUILD_BENCH=ON >/dev/null
ninja -C build/release

step "checks"
$python tools/check_layers.py
$python tools/check_coawait.py
$python tools/check_headers.py
$python tools/check_docs.py
$python tools/check_clock.py

step "unit tests"
ctest --test-dir build/release --output-on-failure -j 2

step "Python package, with g++"
scripts/python_package.sh gcc

step "a newcomer's first hour, with the build that is here (all of it: tests/newcomer/run.sh in a bare Debian)"
tests/newcomer/run.sh --quick

step "Python and end-to-end tests"
LLMD_BUILD_DIR=$PWD/build/release $python -m pytest -q --durations=10 tests/tools tests/python tests/consumer tests/e2e

step "the engine's end-to-end tests as on a CPU with AVX2 only"
narrow=(tests/e2e/test_engine_http.py tests/e2e/test_pd.py)
$all && narrow+=(tests/e2e/test_same_text.py tests/e2e/test_envoy.py tests/e2e/test_gateway.py tests/e2e/test_load.py)
LLMD_CPU_ISA=avx2 LLMD_BUILD_DIR=$PWD/build/release $python -m pytest -q "${narrow[@]}"

step "AddressSanitizer"
cmake --preset asan -DLLMD_BUILD_EPP=OFF >/dev/null
ninja -C build/asan $(scripts/test_targets.sh build/asan)
ctest --test-dir build/asan --output-on-failure -j 2 -L unit

step "with g++ what the wheel does not hold"
cmake --preset gcc >/dev/null
ninja -C build/gcc llmd_http llmd_pd

step "clang-tidy on changed files"
scripts/tidy.sh

if $all; then
  step "the gateway's rules, case by case, against llmd-gateway, nginx and gateways that are wrong on purpose"
  LLMD_BUILD_DIR=$PWD/build/release $python -m pytest -q tests/blackbox --blackbox-all
  step "chaos"
  LLMD_CHAOS_SECONDS=120 LLMD_BUILD_DIR=$PWD/build/release $python -m pytest -q tests/e2e/test_chaos.py
  step "ThreadSanitizer"
  cmake --preset tsan >/dev/null
  ninja -C build/tsan
  ctest --test-dir build/tsan --output-on-failure -j 2 -L unit
  step "g++"
  ninja -C build/gcc
  ctest --test-dir build/gcc --output-on-failure -j 2 -L unit
  step "decisions of clang and g++"
  tests/sched/decision_log/check.sh build/release/tests/decision_log build/gcc/tests/decision_log
  step "Python package, with clang"
  scripts/python_package.sh clang
  LLMD_BUILD_DIR=$PWD/build/release $python -m pytest -q tests/python
  scripts/python_package.sh gcc
  step "clang-tidy on every file"
  scripts/tidy.sh --all
  step "fuzzers"
  scripts/fuzz.sh --self-test
  scripts/fuzz.sh 60
fi
step "done"
