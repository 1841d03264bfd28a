#!/usr/bin/env bash
# From a bare Debian 12 to an answer: installs what is needed, builds what runs, starts a prefill/decode cluster with a
# small real model on this machine, streams an answer and shows the decision that routed it. The cluster goes on running in
# the background; `build/release/bin/llmd down` stops it.
# usage: scripts/quickstart.sh [--model FILE.gguf] [--port 8000] [--stop]      --stop: stop the cluster at the end
set -euo pipefail
cd "$(dirname "$0")/.."
model=.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf; port=8000; stop=false
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2; shift ;;
    --port) port=$2; shift ;;
    --stop) stop=true ;;
    *) echo "usage: scripts/quickstart.sh [--model FILE.gguf] [--port 8000] [--stop]" >&2; exit 2 ;;
  esac
  shift
done
step() { printf '\n== %s\n' "$*"; }

step "installing what llmd needs (scripts/setup.sh)"
scripts/setup.sh --minimal

step "building libraries and services (10 to 20 minutes on 2 cores; seconds when the compile cache has all)"
cmake --preset release -DLLMD_BUILD_TESTS=OFF >/dev/null
ninja -C build/release

step "starting gateway, endpoint picker, one prefill and two decode engines"
llmd=build/release/bin/llmd
log=build/llmd-up.log
$llmd down >/dev/null 2>&1 || true
: >"$log"
setsid $llmd up --model "$model" --port "$port" >"$log" 2>&1 </dev/null &
up=$!
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
  sed -un 's/^data: \({.*\)/\1/p' | jq -j --unbuffered '.choices[0].delta.content // empty'
echo

step "the decision that routed it (llmd explain $id)"
$llmd explain "$id"

step "try it yourself while the cluster runs"
cat <<TXT
curl -s $url/v1/models
curl -s $url/v1/completions -H 'Content-Type: application/json' -d '{"model":"$name","prompt":"The capital of France is","max_tokens":16,"temperature":0}'
curl -sN $url/v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"$name","stream":true,"max_tokens":64,"messages":[{"role":"user","content":"Name three harbours."}]}'
TXT
if $stop; then
  $llmd down
else
  printf '\nThe cluster runs on; its logs are in %s. Stop it with: %s down\n' "$log" "$llmd"
fi
