#!/bin/sh
# Makes a Docker image with packages of Debian, as python-base.sh does: no registry, an image that is there is taken as it is; needs
# root, debootstrap and a Debian mirror.
#
#   tests/images/debian-base.sh NAME PACKAGE,... COMMAND
set -eu

name=$1 packages=$2 command=$3
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

if docker image inspect "$name" >/dev/null 2>&1; then
    echo "$name is there"
    exit 0
fi
if ! command -v debootstrap >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "debootstrap is missing, or this is not root" >&2
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT INT TERM
if ! debootstrap --variant=minbase --include="$packages" bookworm "$folder/root" "$mirror" >"$folder/log" 2>&1; then
    tail -n 20 "$folder/log" >&2
    exit 1
fi
# Debian's nginx has a site of its own, which would take every host.
rm -f "$folder/root/etc/nginx/sites-enabled/default"
tar -C "$folder/root" --exclude=./var/cache/apt/archives/* --exclude=./var/lib/apt/lists/* -c . |
    docker import --change "CMD $command" - "$name" >/dev/null
echo "$name made"
