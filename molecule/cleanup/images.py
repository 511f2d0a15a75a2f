# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The upstream of the scenario: a registry on a node, without an account."""

import os
import sys
from pathlib import Path

PROJECT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY") or Path(__file__).resolve().parents[2])
sys.path[:0] = [str(PROJECT / "molecule/shared"), str(PROJECT / "collections")]

from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry  # noqa: E402
from upstream import layer, push  # noqa: E402

URL = "http://172.30.55.12:5050"
#: Of the mirrored image; a test breaks it.
LAYER = layer("app", 1 << 18)

if __name__ == "__main__":
    push(Registry(URL), "team/app", "1.0", [LAYER])
