#!/usr/bin/env bash
# Runs two load generators that are not ours, guidellm and aiperf, for a short load against a gateway (or any OpenAI server)
# that is running, and counts the requests they report as failed. Each lives in a venv of its own under .deps/load-tools, made
# on first use (guidellm brings torch: 6 GB; aiperf 1.2 GB). Neither fetches a model: the tokenizer they want is made here.
# usage: scripts/load_tools.sh URL [--model NAME] [--requests N] [--concurrency N] [--only guidellm|aiperf] [--install]
#   --install: only make the venvs
# Exits 0 when every request of both was answered, 1 when one failed, 2 for bad usage, 3 when a tool cannot be installed or run.
set -euo pipefail
cd "$(dirname "$0")/.."
guidellm_version=0.8.1; aiperf_version=0.13.0
usage() { sed -n '/^# usage/,/^# Exits/p' "$0" | cut -c3- >&2; exit 2; }
url=""; model=""; requests=40; concurrency=4; only=""; install=false; key=${LLMD_API_KEY:-}
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=${2:?}; shift ;;
    --requests) requests=${2:?}; shift ;;
    --concurrency) concurrency=${2:?}; shift ;;
    --only) only=${2:?}; shift ;;
    --install) install=true ;;
    http://*|https://*) url=${1%/} ;;
    *) usage ;;
  esac
  shift
done
case $only in ""|guidellm|aiperf) ;; *) usage ;; esac
$install || [ -n "$url" ] || usage
[ -z "$only" ] && tools=(guidellm aiperf) || tools=("$only")

home=$PWD/.deps/load-tools
mkdir -p "$home"
install_one() {  # install_one TOOL VERSION
  local venv=$home/$1
  [ -e "$venv/.done-$2" ] && return
  echo "load_tools: installing $1 $2 into $venv"
  [ -x "$venv/bin/python" ] || /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "$1==$2" || {
    echo "load_tools: $1 $2 cannot be installed" >&2; exit 3; }
  touch "$venv/.done-$2"
}
for tool in "${tools[@]}"; do version=${tool}_version; install_one "$tool" "${!version}"; done
$install && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
auth=(); [ -n "$key" ] && auth=(-H "Authorization: Bearer $key")
[ -n "$model" ] || model=$(curl -fsS -m 20 "${auth[@]}" "$url/v1/models" | jq -er '.data[0].id') || {
  echo "load_tools: $url/v1/models lists no model; is the gateway up? else give --model" >&2; exit 3; }
# A byte-level tokenizer of 500 entries: what they count with it is only what they report, not what is sent back to be checked.
"$home/${tools[0]}/bin/python" - "$work/tokenizer" >/dev/null 2>&1 <<'END' || { echo "load_tools: no tokenizer could be made" >&2; exit 3; }
import json, pathlib, sys
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
end = "<|endoftext|>"
bpe = ByteLevelBPETokenizer()
bpe.train_from_iterator(["the quick brown fox jumps over the lazy dog and other words that people use often "] * 20,
                        vocab_size=500, min_frequency=1, special_tokens=[end])
bpe.save(str(folder / "bpe.json"))
PreTrainedTokenizerFast(tokenizer_file=str(folder / "bpe.json"), eos_token=end, pad_token=end).save_pretrained(str(folder))
(folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
END

run() {  # run TOOL ARGUMENTS…: its output into $work/TOOL.log; false when it says that every request failed
  local tool=$1; shift
  timeout 900 "$home/$tool/bin/$tool" "$@" >"$work/$tool.log" 2>&1 && return
  tail -30 "$work/$tool.log" >&2
  grep -q 'request(s) failed' "$work/$tool.log" && return 1
  echo "load_tools: $tool ended with an error" >&2; exit 3
}
verdict() {  # verdict TOOL ANSWERED FAILED
  echo "$1: $2 of $requests requests answered, $3 failed"
  [ "$3" = 0 ] && [ "$2" = "$requests" ] || failed=1
}
failed=0
for tool in "${tools[@]}"; do
  if [ "$tool" = guidellm ]; then
    backend="kind=openai_http,target=$url,model=$model"; [ -n "$key" ] && backend+=",api_key=$key"
    run guidellm run --backend "$backend" --profile "kind=concurrent,streams=$concurrency" \
      --constraint "kind=max_requests,count=$requests" --tokenizer "kind=hf_auto,model=$work/tokenizer" \
      --data kind=synthetic_text,prompt_tokens=64,output_tokens=16 --output "kind=json,path=$work/guidellm.json" \
      --disable-console-interactive
    read -r answered errors < <(jq -r '.benchmarks[0].metrics.request_totals | "\(.successful) \(.errored + .incomplete)"' \
      "$work/guidellm.json")
    verdict guidellm "$answered" "$errors"
  else
    more=(); [ -n "$key" ] && more=(--api-key "$key")
    run aiperf profile --model "$model" --url "$url" --endpoint-type chat --streaming --tokenizer "$work/tokenizer" \
      --concurrency "$concurrency" --request-count "$requests" --synthetic-input-tokens-mean 64 --output-tokens-mean 16 \
      --extra-inputs ignore_eos:true --artifact-dir "$work/aiperf" --ui-type none "${more[@]}" ||
      { verdict aiperf 0 "$requests"; continue; }
    read -r answered errors < <(jq -r '"\(.request_count.avg // 0 | floor) \(.error_request_count.avg // 0 | floor)"' \
      "$work/aiperf/profile_export_aiperf.json")
    verdict aiperf "$answered" "$errors"
  fi
done
exit $failed
