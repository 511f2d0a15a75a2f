# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What refers to an image, where the registry does not keep a list of it itself (distribution 2.x and 3.x do not)."""

from __future__ import annotations

import json

from .manifest import OCI_INDEX, Descriptor, Manifest


def fallback_tag(digest: str) -> str:
    """The tag of the index that lists a manifest's referrers (distribution-spec 1.1, "Referrers Tag Schema")."""
    return digest.replace(":", "-", 1)[:128]


def cosign_tags(digest: str) -> list[str]:
    """Tags under which cosign keeps signature, attestations and SBOM of a manifest."""
    return [f"{fallback_tag(digest)}.{kind}" for kind in ("sig", "att", "sbom")]


def merge_fallback(before: Manifest | None, descriptors: list[Descriptor]) -> bytes | None:
    """The index of referrers with `descriptors` in it; None if it has them all already.

    What others put into it stays, in its order.
    """
    listed = [one.raw for one in before.children] if before else []
    known = {one["digest"] for one in listed}
    added = [one.raw for one in descriptors if one.digest not in known]
    if before and not added:
        return None
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*listed, *added]}
    return json.dumps(document, separators=(",", ":")).encode()
