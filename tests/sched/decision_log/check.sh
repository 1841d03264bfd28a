#!/usr/bin/env bash
# Compares the decision logs of short seeded runs, of the scheduler and of a director in virtual time, with the sums that every
# compiler and CPU must give, as it is and with the C library's use of FMA and AVX2 turned off. A change of the scheduler that
# changes decisions changes the sums: see docs/reference/determinism.md for how to write the new ones.
# usage: tests/sched/decision_log/check.sh PROGRAM [PROGRAM]   (two: their long runs are compared as well)
set -euo pipefail
here=$(dirname "$0")
hidden=glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable,-FMA4_Usable
sum() { sha256sum | cut -d' ' -f1; }
for mode in "" --director; do
  want=$(cat "$here/${mode:+director-}500.sha256")
  for program in "$@"; do
    plain=$("$program" $mode --seed 7 --decisions 500 | sum)
    narrow=$(GLIBC_TUNABLES=$hidden "$program" $mode --seed 7 --decisions 500 | sum)
    if [ "$plain" != "$want" ] || [ "$narrow" != "$want" ]; then
      echo "$program $mode: decision log $plain, without FMA $narrow, expected $want" >&2
      exit 1
    fi
  done
  [ $# -lt 2 ] && continue
  sums=$(for program in "$@"; do "$program" $mode --seed 11 --decisions 10000 | sum; done)
  [ "$(sort -u <<<"$sums" | wc -l)" = 1 ] || { printf 'long runs differ (%s):\n%s\n' "${mode:-scheduler}" "$sums" >&2; exit 1; }
  echo "10000 decisions alike (${mode:-scheduler}): $(head -1 <<<"$sums")"
done
