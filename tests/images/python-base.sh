#!/bin/sh
# Makes a Docker image with Debian and Python, without a registry: debootstrap, then `docker import`.
# An image that is there already is taken as it is. Needs root, debootstrap and a Debian mirror.
#
#   tests/images/python-base.sh [NAME]      (default bluegreen-test/python-base:bookworm)
set -eu

name=${1:-bluegreen-test/python-base:bookworm}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

if docker image inspect "$name" >/dev/null 2>&1; then
    echo "$name is there"
    exit 0
fi
if ! command -v debootstrap >/dev/null; then
    echo "debootstrap is missing: apt-get install debootstrap" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "debootstrap needs root" >&2
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT INT TERM
started=$(date +%s)
if ! debootstrap --variant=minbase --include=python3 bookworm "$folder/root" "$mirror" >"$folder/log" 2>&1; then
    tail -n 20 "$folder/log" >&2
    exit 1
fi
# Under a name of its own first: another run at the same time takes nothing half made.
tar -C "$folder/root" --exclude=./var/cache/apt/archives/* --exclude=./var/lib/apt/lists/* -c . |
    docker import --change 'CMD ["python3"]' - "$name" >/dev/null
echo "$name made in $(($(date +%s) - started)) s"
