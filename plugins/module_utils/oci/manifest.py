# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests and indexes: media types, digests, platforms, reading and narrowing them. Pure: bytes in, values out.

Sources: OCI image specification 1.1 (descriptor, manifest, image index), Docker's image manifest version 2
schema 2, containerd's platform normalisation. Bytes are never re-encoded unless children fall out: the digest
is what everybody pins.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace

from ..errors import HomelabError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
#: Configurations of images: they say when an image was made. An artifact's is of another type.
CONFIG_TYPES = (OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
IMAGE_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
#: All of them: a registry answers 404, or with another manifest's digest, to a narrower Accept.
MANIFEST_TYPES = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

#: Layers that may stay with their vendor (Windows bases); with `urls`, a registry takes the manifest without them.
_FOREIGN_LAYER = re.compile(
    r"application/vnd\.(docker\.image\.rootfs\.foreign\.diff\.tar|oci\.image\.layer\.nondistributable\.v1\.tar)"
)
_SCHEMA_1 = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(json|prettyjws)")
#: BuildKit's annotation on an attestation in an index: the digest of the image it speaks of.
_ATTESTED = "vnd.docker.reference.digest"
#: Length of the hexadecimal part by algorithm: those the image specification registers for everybody's use.
_DIGEST_LENGTHS = {"sha256": 64, "sha512": 128}


# --- digests ------------------------------------------------------------------------------------------------
def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """`<algorithm>:<hex>` of some bytes; algorithm: sha256 or sha512."""
    if algorithm == "sha256":  # nearly always, and by its own name twice as fast
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def digest_fault(digest: object) -> str | None:
    """What is wrong with a digest, None if nothing is (image specification, section "Digests")."""
    if not isinstance(digest, str):
        return "is not a string"
    algorithm, colon, encoded = digest.partition(":")
    if not colon:
        return "has no algorithm: write it as sha256:<64 hexadecimal digits>"
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None:
        return f"has the algorithm {algorithm!r}: only {' and '.join(_DIGEST_LENGTHS)} are supported"
    if not re.fullmatch("[0-9a-f]*", encoded):
        return "has a character that is no lower-case hexadecimal digit (0-9, a-f)"
    if len(encoded) != length:
        return f"has {len(encoded)} hexadecimal digits: {algorithm} has {length}"
    return None


# --- platforms ----------------------------------------------------------------------------------------------
_OS = {"macos": "darwin"}
#: Other spellings: architecture, and the variant that goes with it (None: as given).
_ARCHITECTURES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
#: Variants that say no more than the architecture alone.
_PLAIN_VARIANTS = {("amd64", "v1"), ("arm64", "v8")}
#: What a machine runs besides its own variant, best first (containerd's order).
_OLDER_VARIANTS = {"arm": ("v8", "v7", "v6", "v5"), "amd64": ("v4", "v3", "v2", "")}


@dataclass(frozen=True)
class Platform:
    """An operating system and a processor, normalised as containerd does.

    `variant` is "" where the architecture says it all (amd64, arm64/v8); arm without variant is arm/v7.
    `os_version` is "" unless known; only Windows images have it.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __post_init__(self) -> None:
        system, architecture, variant = self.os.lower(), self.architecture.lower(), self.variant.lower()
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, None))
        variant = variant if implied is None else implied
        if architecture in ("arm", "arm64", "amd64") and variant.isdigit():
            variant = f"v{variant}"
        if architecture == "arm":
            variant = variant or "v7"
        if (architecture, variant) in _PLAIN_VARIANTS:
            variant = ""
        object.__setattr__(self, "os", _OS.get(system, system))
        object.__setattr__(self, "architecture", architecture)
        object.__setattr__(self, "variant", variant)

    def __str__(self) -> str:
        """`os/architecture[/variant]`, with a version as containerd writes it: `windows(10.0.20348)/amd64`."""
        system = f"{self.os}({self.os_version})" if self.os_version else self.os
        return "/".join(filter(None, (system, self.architecture, self.variant)))

    def matches(self, wanted: Platform) -> bool:
        """Whether this is the wanted platform itself.

        A wanted platform without variant means the plain one (linux/arm is linux/arm/v7, linux/amd64 is not
        linux/amd64/v3), as for containerd. A wanted `os_version` must be this one's or its beginning
        (10.0.20348 takes 10.0.20348.2113); without one any version will do.
        """
        if (self.os, self.architecture, self.variant) != (wanted.os, wanted.architecture, wanted.variant):
            return False
        return not wanted.os_version or f"{self.os_version}.".startswith(f"{wanted.os_version}.")

    def runnable(self) -> list[Platform]:
        """What a machine of this platform takes from an index, best first: itself, then older variants.

        Without them a board of arm/v7 would miss every image that is built for arm/v6 only (Traefik's).
        """
        variants = _OLDER_VARIANTS.get(self.architecture, ())
        older = variants[variants.index(self.variant) + 1 :] if self.variant in variants else ()
        return [self, *(replace(self, variant=variant) for variant in older)]


def parse_platform(text: str, where: str | None = None) -> Platform:
    """`linux/arm64`, `linux/arm/v7`, `windows(10.0.20348)/amd64` as a Platform.

    Raises:
        HomelabError: it is not written like that.
    """
    word = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
    found = re.fullmatch(rf"({word})(?:\(([0-9.]+)\))?/({word})(?:/({word}))?", text if isinstance(text, str) else "")
    if not found:
        raise HomelabError(
            f"{text!r} is not a platform", where, "write os/architecture or os/architecture/variant, as linux/arm/v7"
        )
    system, version, architecture, variant = found.groups()
    return Platform(system, architecture, variant or "", version or "")


# --- descriptors and manifests ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Descriptor:
    """A reference to content by digest (image specification, descriptor).

    `size` is in bytes. `foreign`: a non-distributable layer with its own URLs, which is not copied; one
    without URLs must be copied, the registry refuses the manifest otherwise. `raw` is the JSON object.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict = field(default_factory=dict, hash=False)
    artifact_type: str | None = None
    foreign: bool = False
    raw: dict = field(default_factory=dict, hash=False, repr=False)

    @property
    def attests(self) -> str | None:
        """The digest of the image in the same index that this one is an attestation of, None for other children."""
        if self.platform is None or (self.platform.os, self.platform.architecture) != ("unknown", "unknown"):
            return None
        digest = self.annotations.get(_ATTESTED)
        return digest if isinstance(digest, str) else None


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index: its bytes as the registry sent them, and what they say.

    `digest` is the sha256 of `data`. `children` are an index's; `config` and `layers` an image's or artifact's.
    """

    data: bytes = field(repr=False)
    media_type: str
    digest: str
    children: tuple[Descriptor, ...] = ()
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    annotations: dict = field(default_factory=dict, hash=False)
    artifact_type: str | None = None

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """What must be in the repository before this manifest: config and layers, each digest once, no foreign ones."""
        found = {}
        for blob in (self.config, *self.layers):
            if blob is not None and not blob.foreign:
                found.setdefault(blob.digest, blob)
        return tuple(found.values())

    @property
    def size_of_blobs(self) -> int:
        """Bytes of all `blobs`."""
        return sum(blob.size for blob in self.blobs)


def parse_manifest(data: bytes, content_type: str | None = None, where: str | None = None) -> Manifest:
    """Read a manifest or an index.

    The document's own `mediaType` counts; where it has none the Content-Type does, and where that is none of
    ours (application/json, octet-stream) the structure: `manifests`, or `config` and `layers`.

    Args:
        data: the bytes.
        content_type: the Content-Type header they came with.
        where: repository and reference, for messages.

    Raises:
        HomelabError: not JSON, not a manifest, a kind that is not supported, a damaged descriptor, or a document
            that is manifest and index at once (CVE-2021-41190: two readers would see two images).
    """
    document = _decode(data, where)
    sent = (content_type or "").split(";")[0].strip().lower()
    said = document.get("mediaType")
    if said is not None and not isinstance(said, str):
        raise HomelabError(f"the manifest's mediaType is not a string but {said!r}", where)
    _refuse_schema_1(document, said, sent, where)
    media_type = said or (sent if sent in INDEX_TYPES + IMAGE_TYPES else _type_by_structure(document, sent, where))
    if media_type not in INDEX_TYPES + IMAGE_TYPES:
        raise HomelabError(
            f"the manifest's type {media_type} is not supported", where, f"supported are {MANIFEST_TYPES}"
        )
    is_index = media_type in INDEX_TYPES
    others = [key for key in (("config", "layers") if is_index else ("manifests",)) if document.get(key) is not None]
    if others or (sent in INDEX_TYPES + IMAGE_TYPES and (sent in INDEX_TYPES) != is_index):
        proof = f"has {' and '.join(others)}" if others else f"was sent as {sent}"
        raise HomelabError(
            f"the manifest is ambiguous: it is a {media_type}, but {proof}", where, "have it built and pushed again"
        )
    if document.get("schemaVersion", 2) != 2:
        raise HomelabError(f"the manifest's schemaVersion is {document['schemaVersion']!r}, not 2", where)
    artifact_type = document.get("artifactType")
    return Manifest(
        data=data,
        media_type=media_type,
        digest=digest_of(data),
        children=_descriptors(document, "manifests", where) if is_index else (),
        config=None if is_index else _descriptor(document.get("config"), "config", where),
        layers=() if is_index else _descriptors(document, "layers", where),
        subject=None if document.get("subject") is None else _descriptor(document["subject"], "subject", where),
        annotations=_annotations(document, "the manifest", where),
        artifact_type=artifact_type if isinstance(artifact_type, str) and artifact_type else None,
    )


def _decode(data: bytes, where: str | None) -> dict:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        begin = data[:40].decode("utf-8", "replace")
        raise HomelabError(
            f"the manifest is not JSON: {error}; it begins {begin!r}",
            where,
            "is this a registry, and does a proxy before it answer in its place?",
        ) from error
    if not isinstance(document, dict):
        raise HomelabError(f"the manifest is not a JSON object but {str(document)[:40]!r}", where)
    return document


def _refuse_schema_1(document: dict, said: str | None, sent: str, where: str | None) -> None:
    if document.get("schemaVersion") == 1 or any(_SCHEMA_1.fullmatch(name) for name in (said or "", sent)):
        raise HomelabError(
            "the image is in Docker's manifest schema 1, which no current registry takes",
            where,
            "choose a newer tag, or pull and push it once with an old Docker engine (before 28.2) to convert it",
        )


def _type_by_structure(document: dict, sent: str, where: str | None) -> str:
    # Docker's own types demand a mediaType: a document without one can only be OCI's.
    if document.get("manifests") is not None:
        return OCI_INDEX
    if document.get("config") is not None or document.get("layers") is not None:
        return OCI_MANIFEST
    raise HomelabError(
        f"this is no manifest: it has neither mediaType nor manifests, config or layers (sent as {sent or 'nothing'})",
        where,
        "is this a registry, and does a proxy before it answer in its place?",
    )


def _descriptors(document: dict, key: str, where: str | None) -> tuple[Descriptor, ...]:
    entries = document.get(key)
    if entries is None:  # Go writes an empty list as null
        return ()
    if not isinstance(entries, list):
        raise HomelabError(f"the manifest's {key} is not a list", where)
    return tuple(_descriptor(entry, f"{key}[{number}]", where) for number, entry in enumerate(entries))


def _descriptor(raw: object, name: str, where: str | None) -> Descriptor:
    if not isinstance(raw, dict):
        raise HomelabError(f"the manifest has no {name}" if raw is None else f"{name} is not an object", where)
    media_type, digest, size = raw.get("mediaType"), raw.get("digest"), raw.get("size")
    if not isinstance(media_type, str) or not media_type:
        raise HomelabError(f"{name} has no mediaType", where)
    if digest is None:
        raise HomelabError(f"{name} has no digest", where)
    fault = digest_fault(digest)
    if fault:
        raise HomelabError(f"the digest {str(digest)[:140]!r} of {name} {fault}", where)
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        said = "has no size" if size is None else f"has the size {size!r}, which is no number of bytes"
        raise HomelabError(f"{name} {said}", where)
    artifact_type = raw.get("artifactType")
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        platform=_platform(raw.get("platform"), name, where),
        annotations=_annotations(raw, name, where),
        artifact_type=artifact_type if isinstance(artifact_type, str) and artifact_type else None,
        foreign=bool(raw.get("urls")) and bool(_FOREIGN_LAYER.match(media_type)),
        raw=raw,
    )


def _platform(raw: object, name: str, where: str | None) -> Platform | None:
    if not raw:
        return None
    parts = (
        [raw.get(key) or "" for key in ("os", "architecture", "variant", "os.version")]
        if isinstance(raw, dict)
        else [None]
    )
    if not all(isinstance(part, str) for part in parts):
        raise HomelabError(f"the platform of {name} is not one: {raw!r}", where)
    return Platform(*parts) if parts[0] and parts[1] else None


def _annotations(raw: dict, name: str, where: str | None) -> dict:
    annotations = raw.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict):
        raise HomelabError(f"the annotations of {name} are not an object", where)
    return annotations


# --- narrowing an index -------------------------------------------------------------------------------------
def select_platforms(
    manifest: Manifest, wanted: list[Platform], extra_annotations: dict | None = None, where: str | None = None
) -> tuple[Manifest, list[Platform]]:
    """An index with only the children that machines of the wanted platforms take, and the platforms nobody serves.

    For each wanted platform the children that match it stay, else those of the best older variant
    (`Platform.runnable`). Children without a platform stay: nobody can tell here what they are for. An
    attestation stays with the image it attests. Order and unknown fields stay. A single image is returned as
    it is: its platform is in its config, which is not read here.

    Args:
        manifest: what the upstream has.
        wanted: platforms; empty means all.
        extra_annotations: merged into the new index's annotations (nothing is added where nothing falls out).
        where: repository and reference, for messages.

    Returns:
        The same Manifest object when no child falls out, else a new one, which has another digest; and the
        wanted platforms that have no child.

    Raises:
        HomelabError: no child is left.
    """
    if not wanted or not manifest.is_index:
        return manifest, []
    kept, missing = set(), []
    for platform in wanted:
        served = next((found for choice in platform.runnable() if (found := _children_of(manifest, choice))), None)
        if served is None:
            missing.append(platform)
        kept |= served or set()
    kept |= {child.digest for child in manifest.children if child.platform is None}
    if not kept and manifest.children:
        there = ", ".join(dict.fromkeys(str(child.platform) for child in manifest.children if not child.attests))
        raise HomelabError(
            f"there is no {' and no '.join(map(str, missing))} among its platforms: {there or 'none'}",
            where,
            "correct the platforms, or leave them out to mirror all",
        )
    stays = [child.digest in kept or child.attests in kept for child in manifest.children]
    if all(stays):
        return manifest, missing
    document = json.loads(manifest.data)
    document["manifests"] = [raw for raw, stay in zip(document["manifests"], stays) if stay]
    if extra_annotations:
        document["annotations"] = {**manifest.annotations, **extra_annotations}
    data = json.dumps(document, separators=(",", ":")).encode("ascii")
    return parse_manifest(data, manifest.media_type, where), missing


def _children_of(manifest: Manifest, platform: Platform) -> set[str]:
    return {child.digest for child in manifest.children if child.platform and child.platform.matches(platform)}
