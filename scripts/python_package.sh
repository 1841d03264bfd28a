#!/usr/bin/env bash
# Builds the Python wheel and installs it into the venv, so that the tests run what users install. Reuses ccache.
set -euo pipefail
cd "$(dirname "$0")/.."
export CC=clang-19 CXX=clang++-19 CMAKE_GENERATOR=Ninja CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
.deps/venv/bin/pip install -q --disable-pip-version-check --no-build-isolation --no-deps .
.deps/venv/bin/python -c "import llmd; print('llmd', llmd.__version__)"
