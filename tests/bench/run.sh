#!/bin/sh
# Compares llm-proxy's CPU per request and per streamed piece with nginx's, prints the ratios, and how long a request takes. About five minutes.
#
#   tests/bench/run.sh                            builds the release preset and measures it
#   LLM_PROXY_BINARY=PATH tests/bench/run.sh      measures that binary
#   tests/bench/run.sh --rounds 1 --seconds 1     arguments go to bench.py
#   tests/bench/run.sh --disk [FOLDER …]          what the bus on disk costs instead: disk_bus.sh
set -eu
cd "$(dirname "$0")/../.."
if [ "${1:-}" = --disk ]; then
    shift
    exec tests/bench/disk_bus.sh "$@"
fi
for tool in nginx wrk taskset cc python3; do
    command -v "$tool" >/dev/null || { echo "bench: $tool is missing: install nginx, wrk, util-linux, gcc and python3" >&2; exit 1; }
done
if [ -z "${LLM_PROXY_BINARY:-}" ]; then
    cmake --preset release >/dev/null
    cmake --build --preset release | tail -n 1
    LLM_PROXY_BINARY=build/release/bin/llm-proxy
fi
exec python3 tests/bench/bench.py --binary "$LLM_PROXY_BINARY" "$@"
