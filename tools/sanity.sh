#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/sanity.sh: ansible-test sanity, on a copy: it insists on a path …/ansible_collections/homelab/registry
# that is not a link, and takes a directory that git ignores for an empty one, so the copy is outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy=$work/ansible_collections/homelab/registry
mkdir -p "$copy"
git ls-files -z -co --exclude-standard -- changelogs docs galaxy.yml meta playbooks plugins README.md roles tests |
  xargs -0 ls -d 2>/dev/null | tar -cT - | tar -x -C "$copy"

# ansible-test makes its virtualenvs with a get-pip.py from Ansible's own server, unless one is in its cache.
# Python brings pip along, so that server is not needed (and not reachable everywhere).
source=$(python -c 'import ansible_test._internal.python_requirements as m; print(m.__file__)')
version=$(grep -oE "pip='[0-9.]+'" "$source" | grep -oE '[0-9.]+' | sort -uV)
for one in $version; do
  shim=$HOME/.ansible/test/cache/get_pip_${one//./_}.py
  mkdir -p "$(dirname "$shim")"
  [ -e "$shim" ] || printf 'import ensurepip\nensurepip.bootstrap(default_pip=True)\n' >"$shim"
done

cd "$copy"
python=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ansible-test sanity --python "$python" --local --color no "$@"
