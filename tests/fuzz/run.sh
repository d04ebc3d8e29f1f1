#!/bin/bash
# Fuzzes each harness for that many seconds, two at a time:
#
#   tests/fuzz/run.sh 60 [NAME…]
#
# An input that breaks a promise is stored under tests/fuzz/found/NAME/ and replayed by the tests from then on. What is interesting but harmless is kept in the
# build folder, for the next run to begin with. The last line is the summary.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?how many seconds for each harness?}
shift
build=${BUILD:-build/fuzz}
names=${*:-request response chunked body tunnel admin redact content event event_read event_log letter json sse llm codec time redact_body}

[ -f "$build/CMakeCache.txt" ] || CC=clang cmake --preset fuzz -B "$build" >/dev/null
cmake --build "$build" --target fuzz_seeds $(printf ' fuzz_%s' $names) | tail -n 1

fuzz() {
    local name=$1 dictionary=() leaks=1
    local log=$build/fuzz/$name.log corpus=$build/fuzz/corpus/$name found=tests/fuzz/found/$name
    mkdir -p "$corpus" "$found"
    [ ! -f "$build/tests/fuzz/seeds/$name.dict" ] || dictionary=(-dict="$build/tests/fuzz/seeds/$name.dict")
    case $name in event | event_read | json | sse | llm | codec | time | redact_body) leaks=0 ;; esac # Lua frees when it likes: each input would be searched for leaks, which takes longer than all else
    if "$build/fuzz/fuzz_$name" -detect_leaks=$leaks -max_total_time="$seconds" -max_len=4096 -timeout=30 -report_slow_units=30 -rss_limit_mb=2048 -print_final_stats=1 \
        "${dictionary[@]}" -artifact_prefix="$found/" "$corpus" "$build/tests/fuzz/seeds/$name" "$found" >"$log" 2>&1; then
        echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
    else
        tail -n 60 "$log"
        echo "$name: FOUND $(sed -n 's/.*Test unit written to //p' "$log") (log: $log)"
        touch "$build/fuzz/failed.$name"
    fi
    rmdir --ignore-fail-on-non-empty "$found"
}
export -f fuzz
export seconds build
rm -f "$build"/fuzz/failed.*
printf '%s\n' $names | xargs -P 2 -I{} bash -c 'fuzz {}'

failed=$(find "$build/fuzz" -maxdepth 1 -name 'failed.*' | wc -l)
echo "fuzz: $(wc -w <<<"$names") harnesses, ${seconds} s each, $failed failed"
[ "$failed" -eq 0 ]
