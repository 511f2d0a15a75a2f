#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/molecule.sh [SCENARIO...]: the given Molecule scenarios on one set of lab hosts, or all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH
case $PWD in
*[[:space:]]*) echo "molecule: Ansible's background jobs cannot run from a path with a blank: $PWD" >&2; exit 1 ;;
esac
# Molecule looks for .config/molecule/config.yml in a git checkout only, and without it tests nothing, with success.
git rev-parse --show-toplevel >/dev/null 2>&1 || { echo "molecule: $PWD is no git checkout" >&2; exit 1; }
# One directory for all scenarios, since they share their hosts; Molecule's own choice is named after the
# checkout's directory, so that two checkouts of one name would meet.
export MOLECULE_EPHEMERAL_DIRECTORY=$PWD/.lab/molecule
# A key of the lab's own, for the appliance that is reached over real SSH; HOME gives it to paramiko.
lab/ssh_key.sh
# Hosts that an aborted run left behind would be taken for fresh ones.
molecule destroy -s default >/dev/null 2>&1 || true
trap 'molecule destroy -s default >/dev/null 2>&1' EXIT
# All of them: the lab itself first, then site.yml on hosts that nobody has touched, then the rest.
if [ $# = 0 ]; then
  set -- default homelab
  for file in molecule/*/molecule.yml; do
    scenario=$(basename "$(dirname "$file")")
    case $scenario in default | homelab) ;; *) set -- "$@" "$scenario" ;; esac
  done
fi
# One after the other, also after a failure, so that one run tells about all of them; they share the hosts.
molecule create --no-command-borders -s default
failed=()
for scenario in "$@"; do
  start=$SECONDS
  # With hosts in common, Molecule takes them for prepared once one scenario has prepared them.
  molecule prepare --no-command-borders --force -s "$scenario" &&
    molecule test --no-command-borders --destroy never -s "$scenario" || failed+=("$scenario")
  printf '\nmolecule: scenario %s took %d s\n\n' "$scenario" $((SECONDS - start))
done
[ ${#failed[@]} = 0 ] || { echo "molecule: failed: ${failed[*]}" >&2; exit 1; }
