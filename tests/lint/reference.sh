#!/bin/sh
# The pages that are made from the code are as the code is.
#
#   tests/lint/reference.sh BINARY            fails when a page is stale
#   tests/lint/reference.sh BINARY --write    makes them anew
set -eu
cd "$(dirname "$0")/../.."

binary=${1:?the path of llm-proxy}
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

env -u LLM_PROXY_PLUGINS -u LLM_PROXY_CONFIG "$binary" plugins reference >"$made/plugins.md"
python3 tests/lint/modules.py >"$made/modules.md"

stale=""
for page in plugins.md modules.md; do
    if [ "${2:-}" = --write ]; then
        cp "$made/$page" "docs/reference/$page"
    elif ! diff -u "docs/reference/$page" "$made/$page"; then
        stale="$stale docs/reference/$page"
    fi
done
if [ -n "$stale" ]; then
    echo "reference: stale:$stale; mend with: tests/lint/reference.sh $binary --write" >&2
    exit 1
fi
echo "reference: docs/reference/ is as the code is"
