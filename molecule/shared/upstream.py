# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The upstream of the scenario: three-platform images that share a base layer, pushed with our own client.

A Docker engine judges them: it refuses an image whose layers, configuration or digests are not right.
"""

import gzip
import io
import json
import os
import random
import sys
import tarfile
from pathlib import Path

PROJECT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY") or Path(__file__).resolve().parents[2])
sys.path.insert(0, str(PROJECT / "collections"))

from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry  # noqa: E402
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import (  # noqa: E402
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    digest_of,
)

URL = "https://172.30.55.13:5443"
ACCOUNT = {"username": "robot", "password": "canary-upstream-password"}
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")


def upstream():
    """A client of the upstream, from the controller."""
    return Registry(URL, ca_path=str(PROJECT / ".lab/mirror/ca.crt"), **ACCOUNT)


def layer(name, size):
    """A layer with one incompressible file, and the digest of its tar; the same bytes in every run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(random.Random(name).randbytes(size)))
    return gzip.compress(buffer.getvalue(), 1, mtime=0), digest_of(buffer.getvalue())


def encode(document):
    return json.dumps(document, separators=(",", ":")).encode()


def descriptor(media_type, data, **more):
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def push(registry, repository, tag, layers, platforms=PLATFORMS):
    """Push an index whose children have the layers and one of their own; the index's digest."""
    children = []
    for name in platforms:
        system, architecture, *variant = name.split("/")
        platform = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        parts = [*layers, layer(f"{repository}-{architecture}", 4096)]
        config = encode(
            {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff for _data, diff in parts]}}
        )
        for data in (config, *(data for data, _diff in parts)):
            registry.put_blob(repository, data)
        manifest = encode(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": descriptor(OCI_CONFIG, config),
                "layers": [descriptor(OCI_LAYER_GZIP, data) for data, _diff in parts],
            }
        )
        registry.put_manifest(repository, digest_of(manifest), manifest, OCI_MANIFEST)
        children.append(descriptor(OCI_MANIFEST, manifest, platform=platform))
    index = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    registry.put_manifest(repository, tag, index, OCI_INDEX)
    return digest_of(index)


def sign(registry, repository, digest):
    """Something under cosign's tag for a signature, in cosign's form but signed by nobody."""
    payload = encode({"critical": {"image": {"docker-manifest-digest": digest}}})
    config = encode({"rootfs": {"type": "layers", "diff_ids": [digest_of(payload)]}})
    for data in (payload, config):
        registry.put_blob(repository, data)
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": [descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload)],
        }
    )
    tag = digest.replace(":", "-") + ".sig"
    registry.put_manifest(repository, tag, manifest, OCI_MANIFEST)
    return tag


def fill():
    """All images of the scenario."""
    registry = upstream()
    base = layer("base", 1 << 20)
    for tag in ("1.0", "1.1", "1.2"):
        digest = push(registry, "team/app", tag, [base, layer(f"app-{tag}", 1 << 16)])
        if tag == "1.0":
            sign(registry, "team/app", digest)
    push(registry, "team/tool", "stable", [base])
    push(registry, "team/tool", "edge", [base, layer("edge", 1 << 12)])


if __name__ == "__main__":
    fill()
