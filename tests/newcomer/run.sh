#!/usr/bin/env bash
# What README.md and docs/ tell a newcomer to do, done word for word, with an assertion on the output of every step. Runs on a
# bare Debian 12 (root or sudo, git) as well as on a machine that is set up.
# usage: tests/newcomer/run.sh [--quick] [STEP…]
#   default:  clones this checkout into an empty folder and does everything there: quickstart, pip install with g++ …
#   --quick:  uses the build and the packages that are here (build/release, .deps); builds neither llmd nor the wheel
#   STEP:     only these of: quickstart words cluster library plugin examples consumer python   (after the clone)
set -euo pipefail
checkout=$(realpath "$(dirname "$0")/../..")
quick=false; steps=()
for arg in "$@"; do
  case $arg in
    --quick) quick=true ;;
    -*) sed -n 's/^# \(usage\|  \)/\1/p' "$0" >&2; exit 2 ;;
    *) steps+=("$arg") ;;
  esac
done
[ ${#steps[@]} -gt 0 ] || steps=(quickstart words cluster library plugin examples consumer python)
work=$(mktemp -d "${TMPDIR:-/tmp}/newcomer.XXXXXX")
pids=()
cleanup() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

now=start
say() { now=$*; printf '\n== newcomer: %s (%(%H:%M:%S)T)\n' "$*" -1; }
fail() { printf 'newcomer: %s: %s\n' "$now" "$1" >&2; [ $# -lt 2 ] || sed 's/^/  | /' <<<"$2" >&2; exit 1; }
has() { grep -qE -e "$2" <<<"$1" || fail "expected to see /$2/ in" "$1"; }
lacks() { ! grep -qE -e "$2" <<<"$1" || fail "did not expect /$2/ in" "$1"; }
# block FILE LANGUAGE [N]: the N-th code block of that language.
block() {
  local text
  text=$(awk -v open="\`\`\`$2" -v n="${3:-1}" \
    'on && $0 == "```" {exit} on {print} $0 == open && ++seen == n {on = 1}' "$1")
  [ -n "$text" ] || fail "$1 has no ${3:-first} block of $2"
  printf '%s\n' "$text"
}
# wait_line FILE PATTERN PID: until a line matches; the line.
wait_line() {
  for _ in $(seq 600); do
    grep -m1 -E -e "$2" "$1" && return
    kill -0 "$3" 2>/dev/null || break
    sleep 0.1
  done
  fail "no line /$2/ in" "$(cat "$1")"
}

if $quick; then
  src=$checkout
else
  say "clone"
  git clone -q "$checkout" "$work/llmd"
  src=$work/llmd
fi
bin=$src/build/release/bin
sdk=$work/sdk
model=$src/.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf
cd "$src"

install_sdk() {
  [ -e "$sdk" ] || cmake --install "$src/build/release" --component dev --prefix "$sdk" >/dev/null
}

step_quickstart() {
  local out
  $quick && { echo "left out: it builds"; return; }
  out=$(scripts/quickstart.sh --stop 2>&1) || fail "quickstart failed" "$out"
  has "$out" 'ready in [0-9]+ ms: http://127\.0\.0\.1:[0-9]+ serves'
  has "$out" 'prefill-decode -> '
  has "$out" '"max_tokens":[0-9]'
  lacks "$out" '"max_tokens":"'
  has "$out" 'stopped default'
}

# The command's own words.
step_words() {
  local out
  out=$("$bin/llmd") || fail "llmd alone is no error"
  has "$out" '^usage: llmd COMMAND'
  has "$out" '^  explain '
  if out=$("$bin/llmd" exlpain 2>&1); then fail "an unknown command passed"; fi
  has "$out" "unknown command 'exlpain'; did you mean 'explain'\?"
  if out=$("$bin/llmd" up --modle x 2>&1); then fail "an unknown flag passed"; fi
  has "$out" 'did you mean --model'
  printf 'apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorrer}]\n' >"$work/bad.yaml"
  if out=$("$bin/llmd-gateway" --config-file "$work/bad.yaml" --port 0 --metrics-port 0 2>&1); then fail "a bad type passed"; fi
  has "$out" "unknown plugin type 'queue-scorrer'; did you mean 'queue-scorer'\?"
  [ ${#out} -lt 600 ] || fail "a wall of text" "$out"
  out=$("$bin/llmd" explain --log tests/data/picker_log_go_2025.jsonl)
  has "$out" 'request r-1'
  has "$out" '<- chosen'
}

# `llmd up`: what the first screen says, the gateway's front page, a request and its explanation.
step_cluster() {
  [ -e "$model" ] || { echo "left out: no model (scripts/setup.sh fetches it)"; return; }
  local out url name up
  export XDG_RUNTIME_DIR=$work/run
  mkdir -m 700 "$XDG_RUNTIME_DIR"
  "$bin/llmd" up --model "$model" --port 0 --name newcomer >"$work/up.log" 2>&1 &
  up=$!; pids+=("$up")
  out=$(wait_line "$work/up.log" '\| ready in' "$up")
  lacks "$(sed '/| ready in/q' "$work/up.log")" '[{]"level"'
  lacks "$(cat "$work/up.log")" '"level":"error"'
  url=$(grep -oE 'http://[0-9.]+:[0-9]+' <<<"$out")
  out=$(curl -sf "$url/") || fail "the front page of $url"
  has "$out" '"name": "llmd-gateway"'
  has "$out" '"/v1/chat/completions"'
  name=$(curl -sf "$url/v1/models" | jq -r '.data[0].id')
  out=$(curl -sf "$url/v1/completions" -H 'Content-Type: application/json' -H 'x-request-id: demo' \
    -d "$(jq -n --arg m "$name" --arg p "$(jq -r '.[0].text' examples/data/prompts.json)" '{model: $m, max_tokens: 8, prompt: $p}')")
  has "$out" '"completion_tokens": ?8'
  out=$("$bin/llmd" explain demo --name newcomer)
  has "$out" 'prefill-decode -> '
  out=$("$bin/llmd" explain demo --log "$work/up.log")
  has "$out" 'answered 200'
  server_before_cluster "$name"
  "$bin/llmd" down --name newcomer >/dev/null
  wait "$up" || fail "llmd up ended with $?" "$(tail -5 "$work/up.log")"
}

# examples/05_server.cc before the engines of the cluster, once it is built.
server_before_cluster() {
  build_examples
  "$work/examples/05_server" "$XDG_RUNTIME_DIR/llmd/newcomer/endpoints.yaml" 0 >"$work/server.log" 2>&1 &
  local server=$! out url
  pids+=("$server")
  url=$(wait_line "$work/server.log" '^listening on' "$server" | grep -oE 'http://.*')
  out=$(curl -sf "$url/v1/completions" -H 'Content-Type: application/json' \
    -d "{\"model\":\"$1\",\"prompt\":\"The capital of France is\",\"max_tokens\":4,\"temperature\":0}")
  has "$out" 'Paris'
  kill "$server" && wait "$server" || fail "05_server ended with $?" "$(cat "$work/server.log")"
}

build_examples() {
  [ ! -e "$work/examples/05_server" ] || return 0
  install_sdk
  cmake -S examples -B "$work/examples" -DCMAKE_CXX_COMPILER=g++ -DCMAKE_PREFIX_PATH="$sdk" >/dev/null
  cmake --build "$work/examples" >/dev/null
}

step_examples() {
  build_examples
  has "$("$work/examples/01_schedule" examples/data/schedule.yaml)" '^chosen default/decode-'
}

# README.md, "The library in five minutes".
step_library() {
  local here=$work/five out
  install_sdk
  mkdir "$here"
  block README.md cpp >"$here/main.cc"
  block README.md cmake >"$here/CMakeLists.txt"
  cmake -S "$here" -B "$here/build" -DCMAKE_CXX_COMPILER=g++ -DCMAKE_PREFIX_PATH="$sdk" >/dev/null
  cmake --build "$here/build" >/dev/null
  out=$("$here/build/app")
  has "$out" '<- chosen'
  has "$out" 'chosen: default/b'
}

# docs/custom-plugins.md: its two files, its commands, its configuration.
step_plugin() {
  local here=$work/plugin page=$src/docs/custom-plugins.md out picker
  mkdir "$here"; cd "$here"
  block "$page" cpp >my_scorer.cc
  block "$page" cmake >CMakeLists.txt
  block "$page" yaml >epp.yaml
  block "$page" sh >build.sh
  printf 'endpoints: [{name: a, address: 127.0.0.1, port: "9"}]\n' >endpoints.yaml
  out=$(LLMD=$src CXX=g++ bash -euo pipefail build.sh 2>&1) || fail "the commands of $page" "$out"
  has "$out" '^my-scorer +scorer +Prefers the endpoint'
  # Any free ports instead of the well-known ones; all else as printed.
  echo "exec $(block "$page" console) --grpc-port 0 --grpc-health-port 0 --metrics-port 0" >serve.sh
  LLMD=$src bash -eu serve.sh >picker.log 2>&1 &
  picker=$!; pids+=("$picker")
  wait_line picker.log '"msg":"EPP starting' "$picker" >/dev/null
  kill "$picker" && wait "$picker" || fail "the picker ended with $?" "$(cat picker.log)"
  cd "$src"
}

# A project of one's own over llmd::llmd, all libraries at once.
step_consumer() {
  install_sdk
  cmake -S tests/consumer/project -B "$work/consumer" -DCMAKE_CXX_COMPILER=g++ -DCMAKE_PREFIX_PATH="$sdk" -DCOMPONENT=llmd >/dev/null
  cmake --build "$work/consumer" >/dev/null
  "$work/consumer/stranger" || fail "the program ended with $?"
}

step_python() {
  local python=$src/.deps/venv/bin/python out
  if $quick; then
    "$python" -c 'import llmd' 2>/dev/null || { echo "left out: llmd is not installed in .deps/venv"; return; }
  else
    /usr/bin/python3 -m venv "$work/venv"
    python=$work/venv/bin/python
    env -u CC -u CXX "$python" -m pip install -q . || fail "pip install . with the system's compiler"
  fi
  block README.md python >"$work/five.py"
  out=$("$python" "$work/five.py") || fail "README's Python" "$out"
  has "$out" '^default/b$'
  out=$("$python" examples/02_schedule.py)
  has "$out" '^chosen default/decode-'
  [ ! -e "$work/examples/01_schedule" ] || [ "$out" = "$("$work/examples/01_schedule" examples/data/schedule.yaml)" ] ||
    fail "C++ and Python decide differently" "$out"
  "$python" examples/04_custom_scorer.py >/dev/null
}

for step in "${steps[@]}"; do
  declare -F "step_$step" >/dev/null || { echo "newcomer: there is no step '$step'" >&2; exit 2; }
  say "$step"
  "step_$step"
done
say "all steps passed"
