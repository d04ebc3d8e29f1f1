#!/bin/sh
# What the bus on disk costs, for events of 1, 4 and 64 KiB, with a subscriber and without, and with four publishers: disk_bus.c tells what is in the columns. About 40 seconds.
#
#   tests/bench/disk_bus.sh                                  on the disk of /tmp
#   tests/bench/disk_bus.sh /dev/shm                         in memory, where a sync costs nothing
#   tests/bench/disk_bus.sh /tmp --rounds 9 --interval-us 0  options go to disk_bus.c
set -eu
cd "$(dirname "$0")/../.."
cmake --preset release -DBUILD_TESTING=ON >/dev/null
cmake --build --preset release --target disk_bus_bench | tail -n 1
parent=${1:-/tmp}
[ $# -eq 0 ] || shift
folder=$(mktemp -d "$parent/disk-bus-XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
printf '%6s %10s %10s %10s %8s %8s %7s %7s %7s %8s\n' bytes publishers subscriber events/s 'us CPU' 'us bus' 'ns 1%' median '99%' syncs/s
for bytes in 1024 4096 65536; do
    for kind in '--publishers 1' '--publishers 1 --no-subscriber' '--publishers 4'; do
        # shellcheck disable=SC2086 # words
        build/release/tests/disk_bus_bench --bytes "$bytes" $kind "$@" "$folder/bus"
        rm -rf "$folder/bus"
    done
done
