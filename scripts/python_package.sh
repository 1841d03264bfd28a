#!/usr/bin/env bash
# Builds the Python wheel and installs it into the venv, so that the tests run what users install. Through ccache, as any
# build of the project.
# usage: scripts/python_package.sh [gcc|clang]     gcc: what pip takes when nobody sets CC; clang: clang-19
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-gcc} in
  gcc) unset CC CXX ;;
  clang) export CC=clang-19 CXX=clang++-19 ;;
  *) echo "usage: scripts/python_package.sh [gcc|clang]" >&2; exit 2 ;;
esac
export CMAKE_GENERATOR=Ninja
.deps/venv/bin/pip install -q --disable-pip-version-check --no-build-isolation --no-deps \
  --config-settings=build-dir="build/python-${1:-gcc}/{wheel_tag}" .
.deps/venv/bin/python -c "import llmd; print('llmd', llmd.__version__, 'built with ${1:-gcc}')"
