#!/bin/bash
# Runs all tests: installs what they need, builds, then unit and plugin tests (ctest) and the end-to-end tests (pytest).
# Arguments go to pytest: tests/run.sh -k redaction
#
#   BUILD=DIR   another build folder than build/dev (made before, or configured as the preset "dev")
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build/dev}

scripts/install-deps.sh test
[ -f "$build/CMakeCache.txt" ] || cmake --preset dev -B "$build" >/dev/null
cmake --build "$build" 2>&1 | grep -v '^ninja: no work to do' | tail -n 40

ctest --test-dir "$build" --output-on-failure --parallel 2 --quiet --output-log "$build/ctest.log" ||
    { cat "$build/ctest.log"; exit 1; }
tail -n 4 "$build/ctest.log" | grep 'tests passed'

export LLM_PROXY_BINARY="$PWD/$build/bin/llm-proxy"
exec .venv/bin/python -m pytest tests/e2e -n 2 "$@"
