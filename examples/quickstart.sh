#!/bin/sh
# From a fresh checkout to the first event: installs what a build needs (apt), builds into build/quickstart, starts a mock LLM and the proxy in
# front of it, sends one streamed chat completion through, and shows what the client saw and the event it became. Ends by itself.
set -eu
cd "$(dirname "$0")/.."
build=build/quickstart
run=$build/run

step() {
    printf '\n== %s\n' "$*"
}

mock='' proxy=''
finish() {
    for process in $proxy $mock; do
        kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
    done
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# Waits up to 10 s until a file has something in it.
wait_for() {
    tries=0
    until [ -s "$1" ]; do
        tries=$((tries + 1))
        if [ $tries -gt 200 ]; then
            echo "quickstart: $2" >&2
            cat "$run/proxy.log" >&2 || true
            exit 1
        fi
        sleep 0.05
    done
}

step "Installing what the build needs"
scripts/install-deps.sh build

step "Building into $build"
[ -f $build/build.ninja ] || cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
# One line of progress on a terminal; elsewhere nothing but errors.
quiet=--quiet
[ ! -t 1 ] || quiet=
cmake --build $build -- $quiet

step "Starting a mock LLM, and the proxy in front of it"
rm -rf $run
mkdir -p $run
PYTHONDONTWRITEBYTECODE=1 python3 tests/mock/upstream.py --port 0 >$run/mock.port &
mock=$!
wait_for $run/mock.port "the mock did not start"
OBSERVABILITY_ENABLED=true \
    UPSTREAM_URL="http://127.0.0.1:$(cat $run/mock.port)" LISTEN_ADDR=127.0.0.1:0 ADMIN_ADDR=127.0.0.1:0 \
    $build/bin/llm-proxy >$run/events.jsonl 2>$run/proxy.log &
proxy=$!
tries=0
# The log says which port it got: the first address that is not the admin listener's.
until address=$(sed -n '/admin/!s/.*listening.*address=\(127\.0\.0\.1:[0-9]*\).*/\1/p' $run/proxy.log | head -n 1) && [ -n "$address" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 200 ] || ! kill -0 $proxy 2>/dev/null; then
        echo "quickstart: the proxy did not start" >&2
        cat $run/proxy.log >&2
        exit 1
    fi
    sleep 0.05
done
echo "the proxy listens on http://$address"

step "What the client sees: a streamed chat completion, through the proxy"
curl --silent --show-error --no-buffer --fail "http://$address/v1/chat/completions" \
    -H 'Authorization: Bearer sk-a-secret' -H 'Content-Type: application/json' -H 'x-mock-pace: 0.1' \
    -d '{"model": "gpt-quickstart", "stream": true, "stream_options": {"include_usage": true},
         "messages": [{"role": "user", "content": "Hello?"}]}'

step "The event it became"
wait_for $run/events.jsonl "no event came"
python3 -m json.tool --no-ensure-ascii $run/events.jsonl

step "That is all. The proxy: $build/bin/llm-proxy --help"
