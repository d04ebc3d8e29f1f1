#!/bin/sh
# Layout of the C files (clang-format) and mistakes in the Lua files (luacheck).
set -eu
cd "$(dirname "$0")/../.."
find src tests -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror
echo "format: C files are laid out as .clang-format says"
luacheck --quiet $(for path in lua plugins examples tests; do find "$path" -name '*.lua'; done)
