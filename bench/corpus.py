# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up images for the benchmark, written straight into a registry's storage directory.

corpus.py DIRECTORY [SCALE]: prints a summary as JSON.

20 tags in 16 repositories, each an OCI index of three platforms, on a few shared base layers as real images are.
Layers are valid gzip'ed tar archives of random bytes. The same scale gives the same bytes everywhere: nothing comes
from the clock, and the gzip members are put together here, since deflate's output differs between zlib versions.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
import tarfile
import zlib
from pathlib import Path

PLATFORMS = (("amd64", None, 1.0), ("arm64", "v8", 0.97), ("arm", "v7", 0.92))
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

#: Layers that repositories have in common: bytes for amd64.
SHARED = {"debian": 29_300_000, "tools": 24_100_000, "build": 64_400_000, "sdk": 118_200_000}
SHARED.update({"alpine": 3_800_000, "ubuntu": 30_600_000})
#: Repository, tags, shared layers, own layers. The first own layer is common to the repository's tags.
IMAGES = (
    ("node", ("20", "22"), ("debian", "tools", "build", "sdk"), (3_300, 49_000_000, 2_400_000, 0)),
    ("python", ("3.12", "3.13"), ("debian", "tools", "build", "sdk"), (18_200_000, 24_600_000, 4_000)),
    ("golang", ("1.25",), ("debian", "tools", "build", "sdk"), (64_000_000, 0)),
    ("ruby", ("3.4",), ("debian", "tools", "build", "sdk"), (200, 39_000_000, 150)),
    ("php", ("8.4",), ("debian", "tools", "build"), (11_000_000, 12_500_000, 900, 600)),
    ("openjdk", ("21",), ("debian", "tools", "build"), (52_000_000, 1_900)),
    ("nextcloud", ("31",), ("debian", "tools", "build"), (8_400_000, 33_000_000, 2_200)),
    ("postgres", ("17",), ("debian", "tools"), (1_100_000, 27_500_000, 9_600)),
    ("mysql", ("8.4",), ("debian", "tools"), (4_300_000, 44_000_000, 5_300)),
    ("httpd", ("2.4",), ("debian", "tools"), (150, 3_900_000, 300)),
    ("redis", ("7", "8"), ("alpine",), (1_000, 400_000, 9_800_000, 100)),
    ("nginx", ("1.28", "1.29"), ("alpine",), (1_900_000, 620, 950, 1_400, 14_200_000)),
    ("gitea", ("1.24",), ("alpine",), (39_000_000, 25_000, 800)),
    ("grafana", ("12",), ("alpine",), (31_000_000, 300_000, 4_100)),
    ("mosquitto", ("2",), ("ubuntu",), (2_300_000, 2_100, 0)),
    ("jellyfin", ("10.10",), ("ubuntu",), (33_500_000, 1_200_000, 5_000)),
)
#: The tag that stands for copying just one image.
ONE = "jellyfin:10.10"

_BLOCK = 65535  # the longest stored block of deflate (RFC 1951, 3.2.4)


class Store:
    """Writes the storage layout of the server (distribution's `filesystem` driver)."""

    def __init__(self, directory, scale):
        self.root = Path(directory) / "docker/registry/v2"
        self.scale = scale
        self.layers = {}
        self.blobs = {}

    def link(self, repository, folder, digest):
        """Make something known in a repository."""
        path = self.root / "repositories" / repository / folder / "link"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(digest, encoding="ascii")

    def _place(self, digest):
        path = self.root / "blobs/sha256" / digest[7:9] / digest[7:] / "data"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add(self, document, media_type):
        """A JSON document as a blob; its descriptor."""
        data = json.dumps(document, separators=(",", ":")).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self._place(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def layer(self, name, size):
        """A layer of about `size` bytes: (descriptor, digest of the tar archive). Made once for each name."""
        if name not in self.layers:
            path = self.root / "blobs/new"
            path.parent.mkdir(parents=True, exist_ok=True)
            packed, plain, length = hashlib.sha256(), hashlib.sha256(), 0
            with path.open("wb") as file:
                for part in gzip_stored(tar_of(name, int(size * self.scale)), plain):
                    packed.update(part)
                    length += file.write(part)
            digest = "sha256:" + packed.hexdigest()
            path.rename(self._place(digest))
            descriptor = {"mediaType": LAYER, "digest": digest, "size": length}
            self.layers[name] = descriptor, "sha256:" + plain.hexdigest()
        return self.layers[name]


def tar_of(name, size):
    """A tar archive with one file of `size` random bytes, in pieces of at most one deflate block."""
    info = tarfile.TarInfo(f"opt/{name}")
    info.size = size
    yield info.tobuf(tarfile.USTAR_FORMAT)
    rng = random.Random(name)
    for start in range(0, size, _BLOCK):
        yield rng.randbytes(min(_BLOCK, size - start))
    yield bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def gzip_stored(pieces, plain):
    """A gzip member (RFC 1952) whose deflate blocks are stored; `plain` hashes what is in it."""
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    crc = total = 0
    for piece in pieces:
        plain.update(piece)
        crc, total = zlib.crc32(piece, crc), total + len(piece)
        yield struct.pack("<BHH", 0, len(piece), len(piece) ^ 0xFFFF) + piece
    yield struct.pack("<BHHII", 1, 0, 0xFFFF, crc, total & 0xFFFFFFFF)


def image(store, repository, tag, shared, own, platform):
    """One platform's manifest; its descriptor for the index, and all blobs as {digest: size}."""
    architecture, variant, factor = platform
    suffix = f"{architecture}{variant or ''}"
    layers = [store.layer(f"{name}-{suffix}", SHARED[name] * factor) for name in shared]
    for number, size in enumerate(own):
        owner = repository if number == 0 else f"{repository}-{tag}"
        layers.append(store.layer(f"{owner}-{number}-{suffix}", size * factor))
    target = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
    rootfs = {"type": "layers", "diff_ids": [plain for _descriptor, plain in layers]}
    labels = {"Labels": {"org.opencontainers.image.title": f"{repository}:{tag}"}}
    config = store.add({**target, "config": labels, "rootfs": rootfs}, CONFIG)
    descriptors = [descriptor for descriptor, _plain in layers]
    manifest = store.add({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors}, MANIFEST)
    store.link(repository, f"_manifests/revisions/sha256/{manifest['digest'][7:]}", manifest["digest"])
    blobs = {one["digest"]: one["size"] for one in (config, *descriptors)}
    for digest in blobs:
        store.link(repository, f"_layers/sha256/{digest[7:]}", digest)
    return {**manifest, "platform": target}, blobs


def make(directory, scale=1.0):
    """Write the corpus.

    Args:
        directory: the server's root directory.
        scale: factor for all sizes.

    Returns:
        dict: `tags` {name: digest of its index}, `one` the tag that is also copied alone, `one_bytes` and
        `unique_bytes` of blobs, `repository_bytes` where each repository counts by itself, `tag_bytes` where each
        tag does, `blobs` and `layers` as numbers, `largest` and `smallest` layer in bytes.
    """
    store = Store(directory, scale)
    tags, everything, by_repository, by_tag = {}, {}, {}, {}
    for repository, names, shared, own in IMAGES:
        for tag in names:
            children, blobs = [], {}
            for platform in PLATFORMS:
                child, found = image(store, repository, tag, shared, own, platform)
                children.append(child)
                blobs.update(found)
            index = store.add({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}, INDEX)
            digest = index["digest"]
            store.link(repository, f"_manifests/revisions/sha256/{digest[7:]}", digest)
            store.link(repository, f"_manifests/tags/{tag}/current", digest)
            store.link(repository, f"_manifests/tags/{tag}/index/sha256/{digest[7:]}", digest)
            tags[f"{repository}:{tag}"] = digest
            by_tag[f"{repository}:{tag}"] = sum(blobs.values())
            by_repository.setdefault(repository, {}).update(blobs)
            everything.update(blobs)
    sizes = [descriptor["size"] for descriptor, _plain in store.layers.values()]
    return {
        "tags": tags,
        "one": ONE,
        "one_bytes": by_tag[ONE],
        "unique_bytes": sum(everything.values()),
        "repository_bytes": sum(sum(blobs.values()) for blobs in by_repository.values()),
        "tag_bytes": sum(by_tag.values()),
        "blobs": len(everything),
        "layers": len(sizes),
        "smallest": min(sizes),
        "largest": max(sizes),
    }


if __name__ == "__main__":
    json.dump(make(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.0), sys.stdout)
