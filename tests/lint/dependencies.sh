#!/bin/sh
# The folders of src/ depend on each other in one direction only: as the llm_proxy_library() lines of CMakeLists.txt say. Holds every
# #include "FOLDER/…" against these lines; what a dependency depends on may be included as well.
set -eu
cd "$(dirname "$0")/../.."

awk '
function reach(from, library,    i, list, n) {
    if (allowed[from, library]) return
    allowed[from, library] = 1
    n = split(direct[library], list, " ")
    for (i = 1; i <= n; i++) reach(from, list[i])
}
FILENAME == "CMakeLists.txt" {
    if (match($0, /^llm_proxy_library\([a-z]+/)) {
        line = $0
        sub(/^llm_proxy_library\(/, "", line)
        sub(/\).*/, "", line)
        n = split(line, words, " ")
        known[words[1]] = 1
        for (i = 2; i <= n; i++) if (words[i] in known) direct[words[1]] = direct[words[1]] " " words[i]
        reach(words[1], words[1])
        count++
    }
    next
}
FNR == 1 { split(FILENAME, path, "/"); folder = path[2] }
/^#include "/ {
    line = $0
    sub(/^#include "/, "", line)
    if (!sub(/\/.*/, "", line)) { print FILENAME ":" FNR ": name the folder in " $0; bad++; next }
    if (!allowed[folder, line]) { print FILENAME ":" FNR ": " folder "/ may not include " line "/"; bad++ }
}
END {
    if (count < 10) { print "dependencies: only " count + 0 " llm_proxy_library() lines found in CMakeLists.txt"; exit 1 }
    if (bad) exit 1
    print "dependencies: " ARGC - 2 " files of src/ point one way"
}' CMakeLists.txt src/*/*.c src/*/*.h
