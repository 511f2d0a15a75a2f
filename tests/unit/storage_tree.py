# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry's directory tree for tests, written as distribution's filesystem driver writes it."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timezone
from pathlib import Path

from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    digest_of,
)
from ansible_collections.homelab.registry.plugins.module_utils.storage.tree import Tree

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
PUSHED = 1_700_000_000
CREATED = "2023-05-06T07:08:09.123456789Z"


class Disk:
    """Writes a registry below `root`. Every method returns digests or descriptors as the manifests need them."""

    def __init__(self, root):
        self.root = Path(root)
        self.base = self.root / "docker" / "registry" / "v2"
        self.base.mkdir(parents=True)

    def tree(self):
        """A new look."""
        return Tree(self.root)

    # --- paths ----------------------------------------------------------------------------------------------
    def blob_path(self, digest):
        algorithm, digits = digest.split(":")
        return self.base / "blobs" / algorithm / digits[:2] / digits / "data"

    def repository(self, name):
        return self.base / "repositories" / name

    def revision(self, name, digest):
        return self.repository(name) / "_manifests" / "revisions" / digest.replace(":", "/") / "link"

    def layer(self, name, digest):
        return self.repository(name) / "_layers" / digest.replace(":", "/") / "link"

    def current(self, name, tag):
        return self.repository(name) / "_manifests" / "tags" / tag / "current" / "link"

    # --- parts ----------------------------------------------------------------------------------------------
    @staticmethod
    def write(path, data, at=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        if at is not None:
            os.utime(path, (at, at))

    def blob(self, name, data, media_type=OCI_LAYER_GZIP):
        """A blob that the repository serves; its descriptor."""
        data = data.encode() if isinstance(data, str) else data
        digest = digest_of(data)
        if not self.blob_path(digest).exists():
            self.write(self.blob_path(digest), data)
        self.write(self.layer(name, digest), digest)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def manifest(self, name, document, tag=None, at=PUSHED):
        """A manifest, an index, or bytes; its descriptor."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(data)
        self.write(self.blob_path(digest), data)
        self.write(self.revision(name, digest), digest, at)
        (self.repository(name) / "_layers").mkdir(exist_ok=True)
        if tag:
            self.tag(name, tag, digest, at)
        media_type = document.get("mediaType", OCI_MANIFEST) if isinstance(document, dict) else OCI_MANIFEST
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def tag(self, name, tag, digest, at=PUSHED):
        """Point a tag at a digest, and remember it in the tag's index as the server does."""
        self.write(self.current(name, tag), digest, at)
        self.write(self.current(name, tag).parents[1] / "index" / digest.replace(":", "/") / "link", digest, at)

    # --- images ---------------------------------------------------------------------------------------------
    def image(self, name, tag=None, layers=("layer",), created=CREATED, docker=False, at=PUSHED, **more):
        """An image for one platform; its descriptor."""
        config = json.dumps({"created": created, "of": list(map(str, layers))})
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
            "config": self.blob(name, config, DOCKER_CONFIG if docker else OCI_CONFIG),
            "layers": [self.blob(name, layer) for layer in layers],
            **more,
        }
        return self.manifest(name, document, tag, at)

    def index(self, name, tag, children, docker=False, at=PUSHED, **more):
        """An index; its descriptor."""
        media_type = DOCKER_LIST if docker else OCI_INDEX
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": children, **more}
        return self.manifest(name, document, tag, at)

    def multi(self, name, tag, platforms=("amd64", "arm64"), **more):
        """An index of images with a layer in common; its descriptor, and its children's."""
        children = [self.image(name, layers=("base", f"{name} {tag} {platform}")) for platform in platforms]
        return self.index(name, tag, children, **more), children

    def upload(self, name, uuid, started, data=b"half", touched=None):
        """An unfinished upload; times in seconds since 1970."""
        path = self.repository(name) / "_uploads" / uuid
        at = started if touched is None else touched
        self.write(path / "data", data, at)
        self.write(path / "hashstates" / "sha256" / "0", b"state", at)
        self.write(path / "startedat", datetime.fromtimestamp(started, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
        os.utime(path, (at, at))
        return path

    # --- deleting, as the server does -----------------------------------------------------------------------
    def delete_manifest(self, name, digest):
        """DELETE by digest: the link goes, its directory stays; tags on it go."""
        self.revision(name, digest).unlink()
        tags = self.repository(name) / "_manifests" / "tags"
        for current in tags.glob("*/current/link"):
            if current.read_text() == digest:
                shutil.rmtree(current.parents[1])

    def delete_blob(self, digest):
        """As `garbage-collect` does."""
        shutil.rmtree(self.blob_path(digest).parent)


def random_registry(disk, rnd, deleted=0.12):
    """Some repositories with images, indexes in indexes, shared layers, moved tags, referrers, and a share of
    manifests deleted."""
    names = rnd.sample(["a", "a/b", "a/b/c", "a/0", "lib/x", "lib/y", "quay.io/team/tool", "z"], rnd.randint(1, 6))
    shared = {}
    for name in names:
        described = shared[name] = []
        for _other in range(rnd.randint(0, 8)):
            layers = [f"layer {rnd.randrange(25)}" for _other in range(rnd.randint(0, 3))]
            more = {"subject": rnd.choice(described)} if described and rnd.random() < 0.15 else {}
            if described and rnd.random() < 0.4:
                children = rnd.sample(described, rnd.randint(1, min(3, len(described))))
                made = disk.index(name, None, children, docker=rnd.random() < 0.3, **more)
            else:
                made = disk.image(name, None, layers, docker=rnd.random() < 0.3, **more)
            described.append(made)
            if rnd.random() < 0.6:
                disk.tag(name, rnd.choice(["latest", "v1", "v2", f"v{rnd.randrange(9)}"]), made["digest"])
        if rnd.random() < 0.3:
            disk.blob(name, f"never used {rnd.randrange(3)}")
    for name, described in shared.items():
        for gone in {one["digest"] for one in described if rnd.random() < deleted}:
            disk.delete_manifest(name, gone)
    return names
