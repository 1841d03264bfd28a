#!/usr/bin/env bash
# clang-tidy over the sources of the libraries, services and bindings that changed since BASE (default: the merge base
# with origin/main, else the first parent of HEAD). Warnings are errors.
# usage: scripts/tidy.sh [--all | --base REV | FILES...]
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  --all) mapfile -t files < <(git ls-files 'libllmd*/src/*.cc' 'libllmd*/src/**/*.cc' 'services/**/*.cc') ;;
  ""|--base)
    base=${2:-$(git merge-base HEAD origin/main 2>/dev/null || true)}
    [ -n "$base" ] && [ "$base" != "$(git rev-parse HEAD)" ] || base=$(git rev-parse -q --verify HEAD~1 || git rev-parse HEAD)
    mapfile -t files < <(git diff --name-only --diff-filter=d "$base" -- 'libllmd*/src/*.cc' 'libllmd*/src/**/*.cc' 'services/**/*.cc') ;;
  *) files=("$@") ;;
esac
build=build/release
[ -e $build/compile_commands.json ] || cmake --preset release >/dev/null
# Generated and per-ISA kernel files are left out: the first are not ours, the second are plain C by rule.
keep=()
for f in "${files[@]}"; do
  grep -q "\"file\": \"$PWD/$f\"" $build/compile_commands.json && [[ $f != *kernels_* ]] && keep+=("$f")
done
echo "tidy: ${#keep[@]} files"
[ ${#keep[@]} -eq 0 ] || printf '%s\0' "${keep[@]}" | xargs -0 -P "${LLMD_TIDY_JOBS:-$(nproc)}" -n 4 clang-tidy-19 -p $build --quiet 2>/dev/null
