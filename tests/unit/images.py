# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images for tests, put straight into a FakeRegistry, and the question whether a registry holds them whole."""

from __future__ import annotations

import json
import random

from ansible_collections.homelab.registry.tests.unit.fake_registry import (
    DOCKER_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    FakeRegistry,
    digest_of,
)

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")


def data(name: str, size: int = 1000) -> bytes:
    """Bytes that cannot be guessed and are the same in every run; they begin with the name."""
    return name.encode() + random.Random(name).randbytes(size)


def encode(document: dict) -> bytes:
    # Indented, so that a copy that was written anew cannot have the same bytes.
    return json.dumps(document, indent=3).encode()


def blob(registry: FakeRegistry, repository: str, content: bytes, media_type: str = OCI_LAYER) -> dict:
    """Store a blob; its descriptor."""
    registry.repository(repository)["blobs"][digest_of(content)] = content
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def manifest(registry, repository, document, media_type, tag=None, platform=None) -> dict:
    """Store a manifest (a document, or bytes as they are); its descriptor."""
    content = document if isinstance(document, bytes) else encode(document)
    digest = digest_of(content)
    registry.repository(repository)["manifests"][digest] = (media_type, content)
    if tag:
        registry.repository(repository)["tags"][tag] = digest
    described = {"mediaType": media_type, "digest": digest, "size": len(content)}
    return {**described, "platform": platform_of(platform)} if platform else described


def platform_of(name: str) -> dict:
    system, architecture, *variant = name.split("/")
    return {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}


def single(
    registry,
    repository,
    tag=None,
    *,
    layers=(b"layer",),
    platform="linux/amd64",
    docker=False,
    typed=True,
    subject=None,
) -> dict:
    """An image for one platform; its descriptor. `typed`: the document says its own media type."""
    media_type, config_type, layer_type = (
        (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER) if docker else (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
    )
    config = encode({**platform_of(platform), "rootfs": {"type": "layers", "diff_ids": list(map(digest_of, layers))}})
    document = {
        "schemaVersion": 2,
        **({"mediaType": media_type} if typed else {}),
        "config": blob(registry, repository, config, config_type),
        "layers": [blob(registry, repository, layer, layer_type) for layer in layers],
        **({"subject": subject} if subject else {}),
    }
    return manifest(registry, repository, document, media_type, tag, platform)


def index(registry, repository, tag, children, *, docker=False, typed=True, annotations=None) -> str:
    """An index of descriptors; its digest."""
    media_type = DOCKER_LIST if docker else OCI_INDEX
    document = {
        "schemaVersion": 2,
        **({"mediaType": media_type} if typed else {}),
        "manifests": list(children),
        **({"annotations": annotations} if annotations else {}),
    }
    return manifest(registry, repository, document, media_type, tag)["digest"]


def multi(registry, repository, tag, layers=(), platforms=PLATFORMS, **more) -> str:
    """An index of images that have the layers in common and one of their own each; its digest."""
    kind = {key: value for key, value in more.items() if key in ("docker", "typed")}
    children = [
        single(registry, repository, layers=[*layers, data(f"{repository} {tag} {name}")], platform=name, **kind)
        for name in platforms
    ]
    return index(registry, repository, tag, children, **more)


def attestation(registry, repository, subject: dict) -> dict:
    """BuildKit's child of an index that attests another child; its descriptor."""
    described = single(
        registry, repository, layers=[b"in-toto " + subject["digest"].encode()], platform="unknown/unknown"
    )
    notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject["digest"]}
    return {**described, "annotations": notes}


def parts(registry: FakeRegistry, repository: str, digest: str) -> dict:
    """Everything a manifest stands for: digest to bytes. KeyError for what is not there."""
    held = registry.repositories[repository]
    content = held["manifests"][digest][1]
    document = json.loads(content)
    found = {digest: content}
    for child in document.get("manifests", ()):
        found.update(parts(registry, repository, child["digest"]))
    for part in [document["config"], *document["layers"]] if "config" in document else ():
        found[part["digest"]] = held["blobs"][part["digest"]]
    return found


def assert_whole(registry: FakeRegistry) -> None:
    """No manifest of any repository lacks a part, and every byte is what its digest says."""
    for name, held in registry.repositories.items():
        for digest in [*held["tags"].values(), *held["manifests"]]:
            for one, content in parts(registry, name, digest).items():
                assert digest_of(content) == one
