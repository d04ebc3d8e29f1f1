#!/bin/sh
# What the bus on disk costs, for events of 1, 4 and 64 KiB: how many a second become durable, CPU per event, and how long a publish takes in a worker.
#
#   tests/bench/disk_bus.sh [FOLDER] [SECONDS]    on the disk of that folder (a temporary one), for so many seconds each (3)
set -eu
cd "$(dirname "$0")/../.."
cmake --preset release -DBUILD_TESTING=ON >/dev/null
cmake --build --preset release --target disk_bus_bench | tail -n 1
folder=$(mktemp -d "${1:-/tmp}/disk-bus-XXXXXX")
trap 'rm -rf "$folder"' EXIT
printf '%8s %12s %10s %10s %10s %10s\n' body 'events/s' 'us CPU' 'ns 1%' 'ns median' 'syncs/s'
for bytes in 1024 4096 65536; do
    build/release/tests/disk_bus_bench "$folder/$bytes" "$bytes" "${2:-3}"
    rm -rf "${folder:?}/$bytes"
done
