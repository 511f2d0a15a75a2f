#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The README's quick start on this machine, as a newcomer: a clone under another name, `make up`, a push and a
# pull, `make up` again (nothing changes), `make down` (the images stay), up again (they are still there), and
# all gone with PURGE. Uses its own names, ports and directories, and puts daemon.json back as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
work=$(mktemp -d /tmp/homelab-quickstart.XXXXXX)
# not /tmp: a home below it may be cleaned away, and the role is used with a path of its own
home=/var/tmp/homelab-quickstart
port=5055
say() { printf '==> %s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

git clone -q . "$work/my registry clone"
# what is not committed yet belongs to the test as well
git ls-files -z -co --exclude-standard | xargs -0 ls -d 2>/dev/null | tar -cT - | tar -x -C "$work/my registry clone"
cd "$work/my registry clone"
ARGS="-e registry_container_name=homelab-quickstart -e registry_network_name=homelab-quickstart"
ARGS+=" -e registry_port=$port -e registry_debug_port=5056 -e registry_home=$home"
ARGS+=" -e __jobs_program=$home-registryctl -e __jobs_config_dir=$home/etc -e __jobs_state_dir=$home/jobs -e __jobs_unit=quickstart-registry"
export ARGS
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
cleanup() {
  make down PURGE=yes >"$top/.cache/quickstart-down.log" 2>&1 || say "make down failed: .cache/quickstart-down.log"
  rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$top/.cache"
image=127.0.0.1:$port/team/quickstart:1

say "make up, in $PWD"
make up | tee "$work/first.log"
grep -q "Registry http://127.0.0.1:$port" "$work/first.log" || die "the address was not printed"
grep -q "$home/data" "$work/first.log" || die "the place of the images was not printed"

say "push and pull an image"
tar -c -C "$work" first.log | docker import - "$image" >/dev/null
docker push -q "$image"
docker rmi -f "$image" >/dev/null
docker pull -q "$image"

say "make up again changes nothing"
started=$(docker inspect -f '{{.State.StartedAt}}' homelab-quickstart)
make up | tee "$work/second.log"
grep -qE 'changed=0 .*failed=0' "$work/second.log" || die "the second run changed something"
[ "$started" = "$(docker inspect -f '{{.State.StartedAt}}' homelab-quickstart)" ] || die "the registry was restarted"

say "make down keeps the images"
make down
docker inspect homelab-quickstart >/dev/null 2>&1 && die "the container is still there"
as_root test -d "$home/data/docker/registry/v2/repositories/team/quickstart" || die "the images are gone"
grep -q ":$port" /etc/docker/daemon.json && die "the engine still knows the registry"

say "and they are back with the next make up"
docker rmi -f "$image" >/dev/null
make up >"$work/third.log" || { tail -n 30 "$work/third.log"; die "make up failed after make down"; }
docker pull -q "$image"
docker rmi -f "$image" >/dev/null

say "make down PURGE=yes removes them"
make down PURGE=yes
as_root test ! -e "$home/data" || die "the images are still there"
say "quickstart ok"
