#!/bin/sh
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/bootstrap.sh run|test: the virtualenv and the collections, nothing else on the machine.
# Every part is stamped with a checksum of its pins: a second call does nothing and needs no network.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}
venv=.venv
log=.cache/pip.log
mkdir -p .cache
say() { printf '==> %s\n' "$*"; }
pip() { # quiet; the whole log only when it failed
  "$venv/bin/python" -m pip "$@" --disable-pip-version-check --no-input >"$log" 2>&1 && return
  tail -n 15 "$log" >&2
  die "'pip $1 …' failed (whole log: $log): is a Python package index reachable from here?"
}
die() { printf 'make: %s\n' "$*" >&2; exit 1; }

# --- prerequisites: named together, with the one command that installs them -----------------------------
missing=
command -v git >/dev/null || missing="$missing git"
if ! command -v python3 >/dev/null; then missing="$missing python3 python3-venv"
elif ! python3 -c 'import venv, ensurepip' 2>/dev/null; then missing="$missing python3-venv"; fi
sudo=sudo
[ "$(id -u)" != 0 ] || sudo=
[ -z "$missing" ] || die "missing on this machine:$missing. Install with: ${sudo:+$sudo }apt-get install -y$missing"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "python3 is $(python3 -V 2>&1 | cut -d' ' -f2), Ansible needs 3.10 or newer: use a newer release of your distribution as the controller"
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
  die "this needs root or sudo (a Docker engine and directories below /srv): run it as root, or 'apt-get install sudo'"

# --- virtualenv -------------------------------------------------------------------------------------------
stamp=$venv/.$kind-$(cat requirements/run.txt requirements/"$kind".txt | sha256sum | cut -c1-12)
if [ ! -e "$stamp" ]; then
  say "virtualenv $venv: requirements/$kind.txt"
  # A virtualenv of another interpreter, or one that was moved with its checkout, is made anew.
  "$venv/bin/python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null || rm -rf "$venv"
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
  pip install -r requirements/"$kind".txt
  touch "$stamp"
fi

# --- collections ------------------------------------------------------------------------------------------
dest=collections/ansible_collections
stamp=$dest/.bundle-$(cat requirements/collections.txt tools/unpack_collections.py | sha256sum | cut -c1-12)
if [ ! -e "$stamp" ]; then
  say "collections: $(grep -v '^#' requirements/collections.txt)"
  rm -rf .cache/wheel
  # --python-version: the wheel asks for a newer Python than 3.10, but only files are taken out of it.
  pip download --no-deps --only-binary=:all: --python-version 3.12 -d .cache/wheel -r requirements/collections.txt
  "$venv/bin/python" tools/unpack_collections.py .cache/wheel/ansible-*.whl collections \
    community.docker community.library_inventory_filtering_v1 community.crypto ansible.posix
  rm -rf .cache/wheel "$dest"/.bundle-*
  touch "$stamp"
fi
