#!/bin/sh
# Installs what the project needs on Debian 12, and nothing when it is there already.
#
#   scripts/install-deps.sh build    what building and running it takes (the default)
#   scripts/install-deps.sh test     that, and what the tests take; Python packages go into .venv/ of this checkout
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build="gcc libc6-dev make cmake ninja-build pkgconf libevent-dev libluajit-5.1-dev libssl-dev libcurl4-openssl-dev zlib1g-dev libbrotli-dev libzstd-dev libpcre2-dev ca-certificates curl python3"
test="clang libclang-rt-dev clang-format lua-check libcmocka-dev python3-venv openssl git procps nginx-light"

case "${1:-build}" in
build) packages=$build ;;
test) packages="$build $test" ;;
*)
    echo "usage: $0 [build|test]" >&2
    exit 2
    ;;
esac

installed() {
    [ "$(dpkg-query -W -f='${Status}' "$1" 2>/dev/null)" = "install ok installed" ]
}

missing=""
for package in $packages; do
    installed "$package" || missing="$missing $package"
done

if [ -z "$missing" ]; then
    echo "install-deps: all packages for '${1:-build}' are here"
else
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        as_root=sudo
        command -v sudo >/dev/null || {
            echo "install-deps: not root and no sudo: have somebody run: apt-get install --no-install-recommends$missing" >&2
            exit 1
        }
    fi
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT

    install_missing() {
        # shellcheck disable=SC2086 # a list of words
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 $missing >>"$log" 2>&1
    }

    echo "install-deps: installing$missing"
    # The lists may be missing or old: they are fetched only when it does not work without. A source that cannot be read
    # does no harm when the others have the packages; it is shown when they have not.
    install_missing || {
        $as_root apt-get update -qq -o DPkg::Lock::Timeout=300 >"$log" 2>&1 && install_missing
    } || {
        cat "$log" >&2
        exit 1
    }
fi

if [ "${1:-build}" = test ]; then
    wanted="$root/tests/requirements.txt"
    # The stamp is the list that was installed, so that a changed list installs again.
    if ! cmp -s "$wanted" "$root/.venv/installed.txt"; then
        echo "install-deps: installing the Python packages of tests/requirements.txt into .venv"
        python3 -m venv "$root/.venv"
        "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$wanted"
        cp "$wanted" "$root/.venv/installed.txt"
    fi
fi
