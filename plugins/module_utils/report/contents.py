# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a registry holds, as JSON values."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone

from ..oci.inventory import Inventory, Repository


def contents(inventory: Inventory) -> list[dict]:
    """Repositories, sorted, with their tags and sizes.

    Returns:
        For each `name`; `tags` with `name`, `digest`, `media_type`, `size` (bytes of all it leads to, each digest
        once), `pushed` and `created` (RFC 3339, None if not known); `manifests` (how many); `size` (bytes of all
        its content); `exclusive` (bytes that no other repository needs).
    """
    sizes = {name: _sizes(repository, repository.manifests) for name, repository in inventory.repositories.items()}
    users = Counter(digest for named in sizes.values() for digest in named)
    return [
        {
            "name": name,
            "tags": [_tag(repository, tag) for tag in sorted(repository.tags)],
            "manifests": len(repository.manifests),
            "size": sum(sizes[name].values()),
            "exclusive": sum(count for digest, count in sizes[name].items() if users[digest] == 1),
        }
        for name, repository in sorted(inventory.repositories.items())
    ]


def _tag(repository, name):
    tag = repository.tags[name]
    held = repository.manifests.get(tag.digest)
    return {
        "name": name,
        "digest": tag.digest,
        "media_type": held.media_type if held else "",
        "size": sum(_sizes(repository, [tag.digest]).values()),
        "pushed": _time(tag.pushed),
        "created": _time(held.created if held else None),
    }


def _sizes(repository: Repository, digests):
    """Digest to bytes of manifests, what they lead to, and their blobs."""
    found, waiting, done = {}, list(digests), set()
    while waiting:
        digest = waiting.pop()
        held = repository.manifests.get(digest)
        if held is None or digest in done:
            continue
        done.add(digest)
        found[digest] = held.size
        found.update(held.blobs)
        waiting += held.children
    return found


def _time(seconds):
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), timezone.utc).isoformat().replace("+00:00", "Z")
