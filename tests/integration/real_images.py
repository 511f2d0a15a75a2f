# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images for real registries: made in memory by `tests/unit/images.py`, then pushed over HTTP."""

from __future__ import annotations

from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import digest_of


class Content:
    """Stands for a registry in the functions of `images`: repositories with blobs, manifests and tags.

    Manifests are in the order in which they were made, so children come before their index.
    """

    def __init__(self):
        self.repositories = {}

    def repository(self, name: str) -> dict:
        return self.repositories.setdefault(name, {"blobs": {}, "manifests": {}, "tags": {}})

    def push(self, client: Registry) -> None:
        """Store everything in a registry; `client` may push."""
        for name, held in self.repositories.items():
            for content in held["blobs"].values():
                client.put_blob(name, content)
            for digest, (media_type, content) in held["manifests"].items():
                client.put_manifest(name, digest, content, media_type)
            for tag, digest in held["tags"].items():
                media_type, content = held["manifests"][digest]
                client.put_manifest(name, tag, content, media_type)


def parts(client: Registry, repository: str, reference: str) -> dict[str, bytes]:
    """Everything that an image stands for, read over HTTP: digest to bytes. HomelabError for what is not there."""
    manifest = client.read_manifest(repository, reference)
    found = {manifest.digest: manifest.data}
    for child in manifest.children:
        found.update(parts(client, repository, child.digest))
    for blob in manifest.blobs:
        found[blob.digest] = client.get_blob(repository, blob.digest)
    return found


def assert_whole(client: Registry) -> None:
    """Every tag of every repository can be pulled, and every byte is what its digest says."""
    for repository in client.catalog():
        for tag in client.tags(repository) or ():
            for digest, content in parts(client, repository, tag).items():
                assert digest_of(content) == digest
