#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# mkbase.sh SUITE IMAGE: a Debian base image made with debootstrap, for a machine that reaches no
# image registry. Packages come from the mirror that this machine's own apt uses.
set -euo pipefail
suite=$1 image=$2

command -v debootstrap >/dev/null || { echo "debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "debootstrap needs root" >&2; exit 1; }

mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^#' |
  grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n1 | tr -d ' ') || true

# A suite younger than this debootstrap is unpacked by the script of its predecessors.
script=()
[ -e "/usr/share/debootstrap/scripts/$suite" ] || script=(/usr/share/debootstrap/scripts/sid)
[ ${#script[@]} = 0 ] || [ -n "$mirror" ] ||
  { echo "debootstrap does not know $suite, and this machine's apt has no Debian mirror to name it" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
debootstrap --variant=minbase "$suite" "$work/root" ${mirror:+"$mirror"} ${script+"${script[@]}"}
rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
tar -C "$work/root" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -c . |
  docker import --change 'CMD ["/bin/sh"]' - "$image"
