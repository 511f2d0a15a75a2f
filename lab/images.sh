#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Build the images of the lab's hosts, and the archives their nested engines load.
#
#   lab/images.sh
#
# An image whose inputs did not change is not built again: every image carries a tag made of the
# content of its directory, its base image, its build arguments and a salt.
#
#   LAB_SALT        default: the ISO week, so that packages are refreshed once a week
#   LAB_CACHE       where the archives go; default <checkout>/.lab/cache
#   GATEWAY_IMAGE   the nginx image of the gateway, e.g. nginx:stable-alpine. Unset: homelab-gateway:package, made here
#                   from the distribution's package as the role makes it
#   REGISTRY_IMAGE  the registry image under test, e.g. registry:3. Unset: lab-registry:2, built
#                   here from Debian's docker-registry package, for machines without a way to Docker Hub
#
# The archives:  registry.tar  the image under test (its reference is in registry.ref)
#                gateway.tar   the gateway's (its reference is in gateway.ref)
#                busybox.tar   a small payload (lab-busybox:1)
#                jobs.tar      Python and nothing else (lab-python:3), for the jobs on the appliance
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

top=$(dirname "$PWD")
salt=${LAB_SALT-$(date +%G-%V)}
cache=${LAB_CACHE:-$top/.lab/cache}
logs=$top/.lab/log
export DOCKER_BUILDKIT=0 # the plain builder: no buildx needed, present in every engine the lab runs on
mkdir -p "$cache" "$logs"
chmod 755 "$cache"

say() { printf '%(%T)T %s\n' -1 "$*"; }
die() { say "images.sh: $*" >&2; exit 1; }
have() { docker image inspect "$1" >/dev/null 2>&1; }
id_of() { docker image inspect --format '{{.Id}}' "$1"; }
hash12() { sha256sum | cut -c1-12; }

# Names, modes and contents of a directory (paths relative to it, so that every checkout agrees), less what
# never gets into an image.
files() { find . -type f ! -path '*/__pycache__/*' ! -name 'test_*' "$@" | sort -z; }
tree() { (cd "$1" && files -printf '%m %p\0' && files -print0 | xargs -0 sha256sum); }

base_tag() { printf 'lab-debian:%s-%s' "$1" "$(printf '%s\n' "$1" "$salt" "$(<mkbase.sh)" | hash12)"; }

# base SUITE: lab-debian:SUITE, from Docker Hub where that can be had, else made with debootstrap.
base() {
  local suite=$1 tag start=$SECONDS from=cached
  tag=$(base_tag "$suite")
  if ! have "$tag"; then
    if [ "$hub" = yes ] && timeout 300 docker pull -q "debian:$suite-slim" >"$logs/debian-$suite.log" 2>&1; then
      docker tag "debian:$suite-slim" "$tag"
      from=pulled
    else
      ./mkbase.sh "$suite" "$tag" >"$logs/debian-$suite.log" 2>&1 || { failed "lab-debian:$suite" "debian-$suite"; return 1; }
      from=debootstrap
    fi
  fi
  docker tag "$tag" "lab-debian:$suite"
  say "$(printf '%-20s %s %ds' "lab-debian:$suite" "$from" $((SECONDS - start)))"
}

# image NAME DIRECTORY BASE [BUILD-ARG...]
image() {
  local name=$1 dir=images/$2 from=$3 tag log start=$SECONDS how=cached arg args=()
  shift 3
  for arg in "BASE=$from" "$@"; do args+=(--build-arg "$arg"); done
  log=${name//[:\/]/-}
  tag=$name-$({ tree "$dir"; id_of "$from"; printf '%s\n' "$@" "$salt"; } | hash12)
  if ! have "$tag"; then
    docker build --force-rm --tag "$tag" "${args[@]}" "$dir" >"$logs/$log.log" 2>&1 || { failed "$name" "$log"; return 1; }
    how=built
  fi
  docker tag "$tag" "$name"
  say "$(printf '%-20s %s %ds' "$name" "$how" $((SECONDS - start)))"
}

failed() {
  say "$1 FAILED, the end of $logs/$2.log:"
  tail -n 30 "$logs/$2.log" | sed 's/^/    /'
}

# archive FILE IMAGE: saved again only when the image or its name changed; written aside, then renamed,
# because nodes that are up have the directory mounted.
archive() {
  local file=$cache/$1.tar key
  key="$2 $(id_of "$2")"
  [ -s "$file" ] && [ "$(cat "$file.id" 2>/dev/null)" = "$key" ] && return
  docker save --output "$file.new" "$2"
  chmod 644 "$file.new"
  mv "$file.new" "$file"
  printf '%s\n' "$key" >"$file.id"
}

# package_image PROGRAM NAME: from the package of this machine, by what the collection itself does.
package_image() {
  local work
  work=$(mktemp -d)
  PYTHONPATH=$top/collections python3 -c '
import sys
from ansible_collections.homelab.registry.plugins.module_utils.server import package_image
package_image.build(*sys.argv[1:])' "$1" "$2" "$work/image.tar.gz" && docker load -q -i "$work/image.tar.gz"
  rm -rf "$work"
  have "$2"
}

# "set -e" is off inside a function called in a condition: the steps of a chain are joined with &&.
bookworm() {
  base bookworm &&
    image lab-systemd:bookworm systemd lab-debian:bookworm &&
    image lab-node:bookworm node lab-systemd:bookworm "DOCKER_PKGS=docker.io" &&
    image lab-busybox:1 busybox lab-debian:bookworm &&
    { [ -n "${REGISTRY_IMAGE:-}" ] || image lab-registry:2 registry lab-debian:bookworm; } &&
    image lab-nas:1 nas lab-debian:bookworm &&
    image lab-python:3 python lab-debian:bookworm
}
trixie() {
  base trixie &&
    image lab-systemd:trixie systemd lab-debian:trixie &&
    image lab-node:trixie node lab-systemd:trixie "DOCKER_PKGS=docker.io docker-cli docker-compose skopeo" &&
    image lab-k3s:trixie k3s lab-systemd:trixie
}

docker version >/dev/null 2>&1 || die "no Docker engine answers: start one, or set DOCKER_HOST"

# Two runs at once would build everything twice and race for the archives.
exec 9>"$top/.lab/images.lock"
flock 9

# Docker Hub is asked once per run, and only when a base image is missing.
hub=no
if ! have "$(base_tag bookworm)" || ! have "$(base_tag trixie)"; then
  if timeout 60 docker pull -q debian:bookworm-slim >/dev/null 2>&1; then hub=yes; fi
fi

bookworm 9>&- & first=$!
trixie 9>&- & second=$!
rc=0
wait "$first" || rc=1
wait "$second" || rc=1
[ "$rc" = 0 ] || die "an image could not be built, see above"

server=${REGISTRY_IMAGE:-lab-registry:2}
have "$server" || docker pull -q "$server" || die "REGISTRY_IMAGE=$server is neither here nor can it be pulled"
archive registry "$server"
printf '%s\n' "$server" >"$cache/registry.ref"
archive busybox lab-busybox:1

gateway=${GATEWAY_IMAGE:-homelab-gateway:package}
if ! have "$gateway"; then
  if [ -n "${GATEWAY_IMAGE:-}" ]; then docker pull -q "$gateway"; else package_image nginx "$gateway"; fi ||
    die "the gateway's image $gateway is neither here nor can it be made"
fi
archive gateway "$gateway"
printf '%s\n' "$gateway" >"$cache/gateway.ref"
archive jobs lab-python:3
chmod 644 "$cache"/*
say "images ready, archives in $cache (server under test: $server)"
