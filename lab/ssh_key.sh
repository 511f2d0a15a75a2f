#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A key pair of the lab's own in .lab/home/.ssh. paramiko finds it by HOME; known_hosts is filled by the
# scenario that needs it (a host's key is new each time it is created).
set -euo pipefail
cd "$(dirname "$0")/.."
(umask 077 && mkdir -p .lab/home/.ssh)
[ -e .lab/home/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -C homelab-lab -f .lab/home/.ssh/id_ed25519
