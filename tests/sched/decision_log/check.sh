#!/usr/bin/env bash
# Compares the decision log of a short seeded run with the sum that every compiler and CPU must give, as it is and with the
# C library's use of FMA and AVX2 turned off. A change of the scheduler that changes decisions changes the sum: see
# docs/reference/determinism.md for how to write the new one.
# usage: tests/sched/decision_log/check.sh PROGRAM [PROGRAM]   (two: their long runs are compared as well)
set -euo pipefail
want=$(cat "$(dirname "$0")/500.sha256")
hidden=glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable,-FMA4_Usable
sum() { sha256sum | cut -d' ' -f1; }
for program in "$@"; do
  plain=$("$program" --seed 7 --decisions 500 | sum)
  narrow=$(GLIBC_TUNABLES=$hidden "$program" --seed 7 --decisions 500 | sum)
  if [ "$plain" != "$want" ] || [ "$narrow" != "$want" ]; then
    echo "$program: decision log $plain, without FMA $narrow, expected $want" >&2
    exit 1
  fi
done
[ $# -lt 2 ] && exit 0
sums=$(for program in "$@"; do "$program" --seed 11 --decisions 10000 | sum; done)
[ "$(sort -u <<<"$sums" | wc -l)" = 1 ] || { printf 'long runs differ:\n%s\n' "$sums" >&2; exit 1; }
echo "10000 decisions alike: $(head -1 <<<"$sums")"
