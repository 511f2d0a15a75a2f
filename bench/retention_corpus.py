# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry's directory tree with thousands of tags and next to no bytes, as the filesystem driver would leave it.

Every fourth repository has indexes of two platforms, every tenth tag stands on the image of the one before it, images
of a repository share two layers and have two of their own. The same names, the same digests, everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone

OCI = "application/vnd.oci.image."
DAY = 86400


class Writer:
    """Writes below `<root>/docker/registry/v2`; plain calls of the system, since it writes 250,000 files."""

    def __init__(self, root):
        self.base = f"{root}/docker/registry/v2"
        self._blobs = set()
        self.tags = self.manifests = 0

    def _write(self, path, data, at=None):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - see above
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(handle, data)
        os.close(handle)
        if at is not None:
            os.utime(path, (at, at))

    def _blob(self, data):
        digits = hashlib.sha256(data).hexdigest()
        if digits not in self._blobs:
            self._blobs.add(digits)
            self._write(f"{self.base}/blobs/sha256/{digits[:2]}/{digits}/data", data)
        return digits

    def _layer(self, name, kind, data):
        digits = self._blob(data)
        self._write(f"{self.base}/repositories/{name}/_layers/sha256/{digits}/link", f"sha256:{digits}".encode())
        return {"mediaType": OCI + kind, "digest": f"sha256:{digits}", "size": len(data)}

    def _manifest(self, name, kind, document, at):
        data = json.dumps({"schemaVersion": 2, "mediaType": OCI + kind, **document}, indent=2).encode()
        digits = self._blob(data)
        link = f"{self.base}/repositories/{name}/_manifests/revisions/sha256/{digits}/link"
        self._write(link, f"sha256:{digits}".encode(), at)
        self.manifests += 1
        return {"mediaType": OCI + kind, "digest": f"sha256:{digits}", "size": len(data)}

    def image(self, name, number, platform, at):
        """An image of one platform; its descriptor."""
        created = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = {"created": created, "architecture": platform, "os": "linux", "config": {"Env": ["PATH=/bin"] * 20}}
        layers = [f"{name} base {layer}".encode() for layer in range(2)]
        layers += [f"{name} {number} {platform} {layer}".encode() for layer in range(2)]
        document = {
            "config": self._layer(name, "config.v1+json", json.dumps({**config, "of": f"{name} {number}"}).encode()),
            "layers": [self._layer(name, "layer.v1.tar+gzip", layer) for layer in layers],
        }
        described = self._manifest(name, "manifest.v1+json", document, at)
        return {**described, "platform": {"os": "linux", "architecture": platform}}

    def index(self, name, children, at):
        """An index; its descriptor."""
        return self._manifest(name, "index.v1+json", {"manifests": children}, at)

    def tag(self, name, tag, digest, at):
        """Set a tag, as the server does."""
        place = f"{self.base}/repositories/{name}/_manifests/tags/{tag}"
        self._write(f"{place}/current/link", digest.encode(), at)
        self._write(f"{place}/index/{digest.replace(':', '/')}/link", digest.encode(), at)
        self.tags += 1


def make(root: str, repositories: int, tags: int, now: float) -> Writer:
    """Write the tree.

    Args:
        root: an empty directory.
        repositories: how many.
        tags: in each of them; the newest was pushed an hour before `now`, each one before it half a day earlier.
        now: seconds since 1970.
    """
    writer = Writer(root)
    for number in range(repositories):
        name, before = f"team-{number % 10}/app-{number}", None
        for place in range(tags):
            at = int(now - 3600 - (tags - 1 - place) * DAY / 2)
            if place % 10 != 9:
                platforms = ("amd64", "arm64") if number % 4 == 3 else ("amd64",)
                images = [writer.image(name, place, platform, at) for platform in platforms]
                before = writer.index(name, images, at) if len(images) > 1 else images[0]
            writer.tag(name, f"1.{place // 10}.{place % 10}", before["digest"], at)
    return writer
