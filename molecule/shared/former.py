# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry that the fleet had before the NAS: what is in it."""

import upstream
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry

URL = "http://172.30.55.10:5055"
IMAGES = [("team/app", "1.0"), ("team/app", "1.1"), ("library/tool", "stable"), ("tool", "stable")]


def former():
    """A client of it, from the controller."""
    return Registry(URL)


def fill():
    """Multi-platform images that share a layer, one of them under two names, and something like a signature."""
    registry = former()
    base = upstream.layer("former-base", 1 << 18)
    for repository, tag in IMAGES:
        digest = upstream.push(registry, repository, tag, [base, upstream.layer(f"former-{tag}", 1 << 12)])
        if tag == "1.0":
            upstream.sign(registry, repository, digest)


if __name__ == "__main__":
    fill()
