#!/usr/bin/env bash
# From a bare Debian 12 to an answer: installs what is needed, builds what runs, starts a prefill/decode cluster with a
# small real model on this machine, streams an answer and shows the decision that routed it. The cluster goes on running
# until Ctrl-C when started from a terminal (or with --keep); otherwise it is stopped again.
# usage: scripts/quickstart.sh [--keep] [--model FILE.gguf] [--port 8000]
set -euo pipefail
cd "$(dirname "$0")/.."
keep=false; [ -t 0 ] && [ -t 1 ] && keep=true
model=.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf; port=8000
while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=true ;;
    --model) model=$2; shift ;;
    --port) port=$2; shift ;;
    *) echo "usage: scripts/quickstart.sh [--keep] [--model FILE.gguf] [--port 8000]" >&2; exit 2 ;;
  esac
  shift
done
step() { printf '\n== %s\n' "$*"; }

step "installing what llmd needs (scripts/setup.sh)"
scripts/setup.sh --minimal

step "building the services (a few minutes on a cold cache)"
cmake --preset release -DLLMD_BUILD_TESTS=OFF >/dev/null
ninja -C build/release llmd llmd-engine llmd-epp llmd-gateway llmd-sidecar

step "starting gateway, endpoint picker, one prefill and two decode engines"
log=$(mktemp)
build/release/bin/llmd up --model "$model" --port "$port" >"$log" 2>&1 &
up=$!
stop() { kill -TERM $up 2>/dev/null; wait $up 2>/dev/null; rm -f "$log"; }
trap stop EXIT
trap 'exit 130' INT
until grep -q '| ready in' "$log"; do
  kill -0 $up 2>/dev/null || { cat "$log"; exit 1; }
  sleep 0.1
done
url=$(sed -n 's/.*| ready in [0-9]* ms: \(http[^ ]*\) .*/\1/p' "$log")
name=$(curl -sf "$url/v1/models" | jq -r '.data[0].id')
grep '| ready in' "$log"

step "PROMPT_1, streamed through gateway → picker → sidecar → prefill engine → KV transfer → decode engine"
id=quickstart-$$
jq -n --arg model "$name" --arg text "$(jq -r '.[0].text' examples/data/prompts.json)" \
  '{model: $model, stream: true, max_tokens: 96, temperature: 0, messages: [{role: "user", content: $text}]}' |
  curl -sfN "$url/v1/chat/completions" -H 'Content-Type: application/json' -H "x-request-id: $id" -d @- |
  while IFS= read -r line; do
    data=${line#data: }
    [[ $line == data:* && $data != *"[DONE]"* ]] && jq -j '.choices[0].delta.content // empty' <<<"$data"
  done
echo

step "the decision that routed it (llmd explain $id)"
build/release/bin/llmd explain "$id"

step "try it yourself while the cluster runs"
cat <<TXT
curl -s $url/v1/models
curl -s $url/v1/completions -H 'Content-Type: application/json' -d '{"model":"$name","prompt":"The capital of France is","max_tokens":"16","temperature":0}'
curl -sN $url/v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"$name","stream":true,"max_tokens":64,"messages":[{"role":"user","content":"Name three harbours."}]}'
TXT
if $keep; then
  echo "The cluster runs until Ctrl-C; its logs are in $log"
  wait $up
fi
