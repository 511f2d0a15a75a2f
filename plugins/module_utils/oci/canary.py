# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary: a tiny image for every platform that exists in our registry only.

A node that can pull it has proved name resolution, the network, its engine's configuration and the registry
at once; pulled as a Docker Hub image it proves the mirror path, because the Hub does not have it.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib

from .client import Registry
from .manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, digest_of

#: Docker and containerd ask a mirror for `library/<name>`; the short name serves a pull by `host:port/<name>`.
NAME = "homelab-canary"
REPOSITORIES = (f"library/{NAME}", NAME)
TAG = "1"
#: Marks the throw-away manifests with which the server's probe tries to write, and its configuration.
PROBE = "homelab.registry.probe"
PROBE_CONFIG = b"{}"
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386", "linux/riscv64")


def _layer() -> tuple[bytes, str]:
    """A gzip'ed tar with one file, and the digest of the tar (diff id).

    The same bytes everywhere and for ever, or every controller would push a canary of its own: gzip is
    written by hand with one stored block, since zlib's output differs between its versions.
    """
    text = b"homelab.registry: this image could be pulled.\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("homelab-canary.txt")
        entry.size, entry.mode = len(text), 0o644
        archive.addfile(entry, io.BytesIO(text))
    tar = buffer.getvalue()
    header = b"\x1f\x8b\x08\x00" + b"\x00" * 4 + b"\x00\xff"
    block = b"\x01" + struct.pack("<HH", len(tar), len(tar) ^ 0xFFFF) + tar
    return header + block + struct.pack("<LL", zlib.crc32(tar), len(tar)), digest_of(tar)


def _encode(data: dict) -> bytes:
    return json.dumps(data, separators=(",", ":"), sort_keys=True).encode("ascii")


def _descriptor(media_type: str, data: bytes) -> dict:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def build() -> tuple[list[bytes], list[bytes], bytes]:
    """The canary's blobs, its manifests (one a platform) and its index."""
    layer, diff_id = _layer()
    blobs, manifests, children = [layer], [], []
    for platform in PLATFORMS:
        system, architecture, *variant = platform.split("/")
        named = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        config = _encode(
            {
                **named,
                "created": "1970-01-01T00:00:00Z",
                "config": {"Cmd": ["/homelab-canary.txt"], "Labels": {"org.opencontainers.image.title": NAME}},
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "homelab.registry"}],
            }
        )
        manifest = _encode(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _descriptor(OCI_CONFIG, config),
                "layers": [_descriptor(OCI_LAYER_GZIP, layer)],
            }
        )
        blobs.append(config)
        manifests.append(manifest)
        children.append({**_descriptor(OCI_MANIFEST, manifest), "platform": named})
    index = _encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    return blobs, manifests, index


def digest() -> str:
    """The digest under which every node must see the canary."""
    return digest_of(build()[2])


def missing(registry: Registry) -> list[str]:
    """Repositories whose canary is absent or another."""
    wanted = digest()
    return [name for name in REPOSITORIES if registry.head_manifest(name, TAG) != wanted]


def push(registry: Registry, repository: str) -> None:
    """Put the canary into a repository: blobs, then manifests, then the index, so that no half image shows."""
    blobs, manifests, index = build()
    for blob in blobs:
        registry.put_blob(repository, blob)
    for manifest in manifests:
        registry.put_manifest(repository, digest_of(manifest), manifest, OCI_MANIFEST)
    registry.put_manifest(repository, TAG, index, OCI_INDEX)
