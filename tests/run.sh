#!/bin/bash
# Runs all tests: installs what they need, builds, then unit and plugin tests (ctest) and the end-to-end tests (pytest).
# Arguments go to pytest:
#
#   tests/run.sh -k redaction
#   BUILD=build/asan tests/run.sh      the same with another preset: asan, tsan
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build/dev}

scripts/install-deps.sh test
[ -f "$build/build.ninja" ] || cmake --preset "$(basename "$build")" >/dev/null
cmake --build "$build" -- --quiet # a compiler's errors and nothing else
ctest --test-dir "$build" --output-on-failure --parallel 2 --progress --no-tests=error
# What the tests write goes with them. The path is short because sockets are in it.
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
LLM_PROXY_BINARY="$PWD/$build/bin/llm-proxy" .venv/bin/python -m pytest tests/e2e -n 2 --basetemp "$files/e2e" "$@"
