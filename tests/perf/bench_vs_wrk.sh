#!/usr/bin/env bash
# Does `llmd bench` find what wrk finds? Both drive nginx (one worker) in a closed loop over the same number of connections,
# small GETs and small POSTs, in short turns, five rounds of three turns each; what is compared is the median of the rounds'
# ratios, since on a machine with other work the rates themselves move. Exits 1 when it is off by more than 5 %.
# usage: tests/perf/bench_vs_wrk.sh [BUILD_DIR]     needs wrk and nginx (apt-get install wrk nginx-light); SECONDS_EACH=1 REPEATS=5 TURNS=3
set -euo pipefail
cd "$(dirname "$0")/../.."
llmd=${1:-build/release}/bin/llmd
seconds=${SECONDS_EACH:-1}; repeats=${REPEATS:-5}; turns=${TURNS:-3}; connections=${CONNECTIONS:-32}
for program in wrk nginx; do
  command -v $program >/dev/null || PATH=$PATH:/usr/sbin command -v $program >/dev/null || {
    echo "bench_vs_wrk: $program is absent: apt-get install wrk nginx-light" >&2; exit 2; }
done
export PATH=$PATH:/usr/sbin
work=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/nginx.conf" <<END
worker_processes 1; daemon off; pid $work/pid; error_log $work/error.log;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path $work/a; proxy_temp_path $work/b; fastcgi_temp_path $work/c; uwsgi_temp_path $work/d; scgi_temp_path $work/e;
  server { listen 127.0.0.1:$port; location / { return 200 "hello, this is a small answer\n"; } }
}
END
nginx -e "$work/error.log" -c "$work/nginx.conf" &
nginx=$!
trap 'kill $nginx; wait $nginx || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do curl -fs "http://127.0.0.1:$port/" >/dev/null && break; sleep 0.05; done
worker=$(pgrep -P $nginx | head -1)
body=$(python3 -c 'print("x" * 500, end="")')
printf 'wrk.method = "POST"; wrk.body = "%s"; wrk.headers["Content-Type"] = "application/json"' "$body" >"$work/post.lua"

# CPU of nginx's worker in microseconds.
cpu() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) * 1000000 / hz }' "/proc/$worker/stat"; }
one() {  # one TOOL KIND: "requests, nginx's CPU in us, requests per second"
  local before after rate count arguments=()
  before=$(cpu)
  if [ "$1" = wrk ]; then
    [ "$2" = POST ] && arguments=(-s "$work/post.lua")
    wrk -t1 -c"$connections" -d"${seconds}s" "${arguments[@]}" "http://127.0.0.1:$port/" >"$work/out"
    rate=$(awk '/Requests\/sec/ { print $2 }' "$work/out"); count=$(awk '/requests in/ { print $1 }' "$work/out")
  else
    [ "$2" = POST ] && arguments=(--body "$body")
    "$llmd" bench --target "http://127.0.0.1:$port" --api raw --concurrency "$connections" --duration "${seconds}s" \
      --json "$work/json" "${arguments[@]}" >/dev/null
    rate=$(jq .throughput.requests_per_s "$work/json"); count=$(jq .requests.completed "$work/json")
  fi
  after=$(cpu)
  echo "$count $(awk -v a="$after" -v b="$before" 'BEGIN { print a - b }') $rate"
}
# Of all lines of a file: requests per second on average, nginx's CPU per request.
sums() { awk '{ n += $1; cpu += $2; rate += $3 } END { printf "%.0f %.2f\n", rate / NR, cpu / n }' "$1"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

failed=0
for kind in GET POST; do
  for round in $(seq "$repeats"); do
    rm -f "$work/wrk.turns" "$work/llmd.turns"
    for turn in $(seq "$turns"); do
      # The order turns, so that neither always follows the other.
      order=(wrk llmd); [ $((turn % 2)) = 0 ] && order=(llmd wrk)
      for tool in "${order[@]}"; do one $tool $kind >>"$work/$tool.turns"; done
    done
    wrk=$(sums "$work/wrk.turns"); ours=$(sums "$work/llmd.turns")
    ratio=$(awk -v a="${ours% *}" -v b="${wrk% *}" 'BEGIN { printf "%.3f", a / b }')
    echo "$kind round $round: wrk ${wrk% *}/s (nginx ${wrk#* } us a request), llmd bench ${ours% *}/s (${ours#* } us), ratio $ratio"
    echo "$ratio" >>"$work/$kind.ratios"
  done
  ratio=$(median <"$work/$kind.ratios")
  echo "$kind: llmd bench / wrk, median of $repeats rounds: $ratio"
  awk -v r="$ratio" 'BEGIN { exit !(r >= 0.95 && r <= 1.05) }' || failed=1
done
[ $failed = 0 ] || { echo "bench_vs_wrk: they differ by more than 5 %" >&2; exit 1; }
