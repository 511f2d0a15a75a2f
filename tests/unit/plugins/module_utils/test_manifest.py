# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests: what is read, what is refused, which children of an index stay."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Platform,
    digest_fault,
    digest_of,
    parse_manifest,
    parse_platform,
    select_platforms,
)

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NON_DISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
ATTESTS = "vnd.docker.reference.digest"


def descriptor(content, media_type=OCI_LAYER_GZIP, **more):
    """A descriptor of content that is named by a word."""
    return {"mediaType": media_type, "digest": digest_of(content.encode()), "size": len(content), **more}


def image(**more):
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("config", OCI_CONFIG),
        "layers": [descriptor("one"), descriptor("layer two")],
        **more,
    }


def child(platform, **more):
    """An index's child; its content is its platform's name."""
    named = platform and dict(zip(("os", "architecture", "variant"), platform.split("/")))
    return descriptor(str(platform), OCI_MANIFEST, **({"platform": named} if named else {}), **more)


def attestation(platform):
    about = {ATTESTS: child(platform)["digest"], "vnd.docker.reference.type": "attestation-manifest"}
    platform_of = {"os": "unknown", "architecture": "unknown"}
    return descriptor(f"attestation of {platform}", OCI_MANIFEST, annotations=about, platform=platform_of)


def index(*children, **more):
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children), **more}


def parse(document, content_type=None):
    return parse_manifest(json.dumps(document).encode(), content_type, "quay.io/team/app:1")


def without(document, *keys):
    return {key: value for key, value in document.items() if key not in keys}


# --- digests ------------------------------------------------------------------------------------------------
def test_digest_of():
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_of(b"", "sha512").startswith("sha512:cf83e1357eefb8bd")
    assert digest_fault(digest_of(b"x", "sha512")) is None


@pytest.mark.parametrize(
    ("digest", "fault"),
    [
        ("e" * 64, "no algorithm"),
        ("md5:" + "e" * 32, "'md5'"),
        ("sha256:" + "e" * 63, "63 hexadecimal digits: sha256 has 64"),
        ("sha512:" + "e" * 64, "sha512 has 128"),
        ("sha256:" + "E" * 64, "lower-case"),
        ("sha256:" + "e" * 63 + "\n", "lower-case"),
        (None, "not a string"),
    ],
)
def test_digest_fault(digest, fault):
    assert fault in digest_fault(digest)


# --- platforms ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/x86-64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/amd64/3", "linux/amd64/v3"),
        ("linux/i386", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/riscv64", "linux/riscv64"),
        ("macos/arm64", "darwin/arm64"),
        ("windows(10.0.20348)/amd64", "windows(10.0.20348)/amd64"),
    ],
)
def test_platforms_are_normalised(text, normal):
    assert str(parse_platform(text)) == normal
    assert parse_platform(normal) == parse_platform(text)


@pytest.mark.parametrize("text", ["", "linux", "arm64", "linux/", "linux/arm/v7/x", "linux arm64", "/amd64", None, 386])
def test_platforms_that_are_none(text):
    with pytest.raises(HomelabError, match=r"is not a platform \(platforms\): write os/architecture"):
        parse_platform(text, "platforms")


@pytest.mark.parametrize(
    ("there", "wanted", "result"),
    [
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v6", "linux/arm", False),
        ("linux/amd64/v3", "linux/amd64", False),
        ("windows/amd64", "linux/amd64", False),
        ("windows(10.0.20348.2113)/amd64", "windows/amd64", True),
        ("windows(10.0.20348.2113)/amd64", "windows(10.0.20348)/amd64", True),
        ("windows(10.0.203480)/amd64", "windows(10.0.20348)/amd64", False),
        ("windows/amd64", "windows(10.0.20348)/amd64", False),
    ],
)
def test_matches(there, wanted, result):
    assert parse_platform(there).matches(parse_platform(wanted)) is result


# --- reading ------------------------------------------------------------------------------------------------
def test_an_image():
    data = json.dumps(image(annotations={"a": "b"}, subject=descriptor("subject", OCI_MANIFEST))).encode()
    manifest = parse_manifest(data)
    assert (manifest.data, manifest.digest) == (data, digest_of(data))
    assert not manifest.is_index
    assert manifest.config.media_type == OCI_CONFIG
    assert [layer.size for layer in manifest.layers] == [3, 9]
    assert manifest.subject.digest == digest_of(b"subject")
    assert manifest.annotations == {"a": "b"}
    assert manifest.size_of_blobs == len("config") + 3 + 9


def test_an_index():
    manifest = parse(index(child("linux/amd64"), child("linux/arm/v7"), child(None), attestation("linux/amd64")))
    assert manifest.is_index
    assert (manifest.config, manifest.layers, manifest.blobs) == (None, (), ())
    assert [str(one.platform) for one in manifest.children] == [
        "linux/amd64",
        "linux/arm/v7",
        "None",
        "unknown/unknown",
    ]
    assert [one.attests for one in manifest.children] == [None, None, None, digest_of(b"linux/amd64")]


def test_blobs_are_each_once_and_without_what_stays_with_its_vendor():
    urls = {"urls": ["https://vendor.example/layer"]}
    manifest = parse(
        image(
            layers=[
                descriptor("one"),
                descriptor("one"),
                descriptor("foreign", FOREIGN, **urls),
                descriptor("kept by its vendor", NON_DISTRIBUTABLE, **urls),
                descriptor("has to be copied", NON_DISTRIBUTABLE),
                descriptor("is here too", **urls),
            ]
        )
    )
    assert [blob.size for blob in manifest.blobs] == [len("config"), 3, len("has to be copied"), len("is here too")]
    assert [layer.foreign for layer in manifest.layers] == [False, False, True, True, False, False]


def test_an_artifact_with_an_empty_config():
    empty = descriptor("{}", "application/vnd.oci.empty.v1+json")
    manifest = parse(image(artifactType="application/spdx+json", config=empty, layers=[empty]))
    assert manifest.artifact_type == "application/spdx+json"
    assert manifest.blobs == (manifest.config,)


@pytest.mark.parametrize(
    ("document", "content_type", "media_type"),
    [
        (image(), None, OCI_MANIFEST),
        (image(), "application/json", OCI_MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), OCI_MANIFEST, DOCKER_MANIFEST),  # the digest covers the document only
        (without(image(), "mediaType"), None, OCI_MANIFEST),
        (without(image(), "mediaType"), "text/plain", OCI_MANIFEST),
        (without(image(), "mediaType"), f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        (without(index(), "mediaType"), "application/octet-stream", OCI_INDEX),
        (without(index(), "mediaType"), DOCKER_LIST.upper(), DOCKER_LIST),
        (index(descriptor("nested", OCI_INDEX)), OCI_INDEX, OCI_INDEX),
        (index(mediaType=DOCKER_LIST), None, DOCKER_LIST),
        ({**index(), "manifests": None}, None, OCI_INDEX),  # Go's empty list
        (image(layers=None), None, OCI_MANIFEST),
        (without(image(), "schemaVersion"), None, OCI_MANIFEST),
    ],
)
def test_the_media_type(document, content_type, media_type):
    assert parse(document, content_type).media_type == media_type


@pytest.mark.parametrize(
    ("document", "content_type", "said"),
    [
        (image(manifests=[]), None, "ambiguous: .* but has manifests"),
        (index(config={}, layers=[]), None, "ambiguous: .* but has config and layers"),
        (without(image(manifests=[child("linux/amd64")]), "mediaType"), None, "ambiguous"),
        (image(), OCI_INDEX, "ambiguous: .* but was sent as .*index"),
        (index(), DOCKER_MANIFEST, "ambiguous"),
        ({"schemaVersion": 1, "fsLayers": []}, None, "schema 1, which no current registry takes"),
        ({}, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (image(mediaType="application/vnd.docker.distribution.manifest.v1+json"), None, "schema 1"),
        (
            image(mediaType="application/vnd.oci.artifact.manifest.v1+json"),
            None,
            "artifact.manifest.v1.json is not supp",
        ),
        (image(mediaType=2), None, "mediaType is not a string but 2"),
        (image(schemaVersion=3), None, "schemaVersion is 3"),
        ({"errors": []}, "application/json", r"neither mediaType nor .* \(sent as application/json\)"),
        ([], None, "not a JSON object"),
        ("text", None, "not a JSON object but 'text'"),
        (without(image(), "config"), None, "has no config"),
        (image(config=[]), None, "config is not an object"),
        (image(layers={}), None, "layers is not a list"),
        (image(layers=[without(descriptor("x"), "digest")]), None, r"layers\[0\] has no digest"),
        (image(layers=[descriptor("x"), without(descriptor("x"), "size")]), None, r"layers\[1\] has no size"),
        (image(layers=[without(descriptor("x"), "mediaType")]), None, "has no mediaType"),
        (image(layers=[{**descriptor("x"), "size": -1}]), None, "has the size -1"),
        (image(layers=[{**descriptor("x"), "size": 1.5}]), None, "has the size 1.5"),
        (image(layers=[{**descriptor("x"), "size": True}]), None, "has the size True"),
        (image(layers=[{**descriptor("x"), "digest": "sha256:12"}]), None, r"digest 'sha256:12' of layers\[0\] has 2"),
        (image(layers=[{**descriptor("x"), "digest": ["x"]}]), None, "is not a string"),
        (image(layers=[None]), None, r"no layers\[0\]"),
        (index({**child(None), "platform": {"os": 1, "architecture": "x"}}), None, r"platform of manifests\[0\]"),
        (index({**child(None), "platform": "linux/amd64"}), None, r"platform of manifests\[0\]"),
        (image(annotations=["a"]), None, "annotations of the manifest"),
        (image(subject={}), None, "subject has no mediaType"),
    ],
)
def test_refused(document, content_type, said):
    with pytest.raises(HomelabError, match=said) as caught:
        parse(document, content_type)
    assert caught.value.where == "quay.io/team/app:1"


@pytest.mark.parametrize("data", [b"", b"<html>captive portal", b"\xff\xfe{\x00}\x00", b"[" * 100_000])
def test_not_json(data):
    with pytest.raises(HomelabError, match="not JSON"):
        parse_manifest(data)


# --- narrowing ----------------------------------------------------------------------------------------------
ALL = ("linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/s390x")


@pytest.mark.parametrize(
    ("there", "wanted", "stay", "missing"),
    [
        (ALL, ["linux/arm64"], ["linux/arm64"], []),
        (ALL, ["linux/arm64", "linux/amd64"], ["linux/amd64", "linux/arm64"], []),  # the index's order
        (ALL, ["linux/arm"], ["linux/arm/v7"], []),
        (ALL, ["linux/arm64", "linux/riscv64"], ["linux/arm64"], ["linux/riscv64"]),
        (["linux/amd64", "linux/arm/v6"], ["linux/arm/v7"], ["linux/arm/v6"], []),  # what such a board would pull
        (["linux/amd64", "linux/arm/v7"], ["linux/arm/v6", "linux/amd64"], ["linux/amd64"], ["linux/arm/v6"]),
        (["linux/amd64", "linux/arm64"], ["linux/amd64/v3"], ["linux/amd64"], []),
        (["linux/amd64", "linux/amd64/v3"], ["linux/amd64/v3"], ["linux/amd64/v3"], []),
        (["linux/arm/v7", None], ["linux/arm64"], ["None"], ["linux/arm64"]),  # no one can tell what it is for
    ],
)
def test_select_platforms(there, wanted, stay, missing):
    before = parse(index(*map(child, there)))
    after, absent = select_platforms(before, [parse_platform(one) for one in wanted])
    assert [str(one.platform) for one in after.children] == stay
    assert [str(one) for one in absent] == missing
    assert (after.digest, after.media_type) == (digest_of(after.data), OCI_INDEX)
    assert after.digest != before.digest


@pytest.mark.parametrize(
    ("document", "wanted", "missing"),
    [
        (index(child("linux/amd64"), child("linux/arm64")), [], []),
        (index(child("linux/amd64"), attestation("linux/amd64")), ["linux/amd64"], []),
        (index(child("linux/amd64")), ["linux/amd64", "linux/arm64"], ["linux/arm64"]),
        (image(), ["linux/arm64"], []),
    ],
)
def test_the_same_manifest_when_nothing_falls_out(document, wanted, missing):
    manifest = parse(document)
    after, absent = select_platforms(manifest, [parse_platform(one) for one in wanted], {"added": "never"})
    assert after is manifest
    assert [str(one) for one in absent] == missing


def test_attestations_follow_and_unknown_fields_stay():
    kept = child("linux/arm64", **{"x-vendor": [1.5, "ü"]})
    before = parse(
        index(
            attestation("linux/amd64"),
            attestation("linux/arm64"),
            child("linux/amd64"),
            kept,
            mediaType=DOCKER_LIST,
            annotations={"a": "b", "c": "d"},
            **{"x-field": {"n": None}},
        )
    )
    after, missing = select_platforms(before, [Platform("linux", "arm64")], {"c": "new", "e": "f"})
    assert json.loads(after.data) == {
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST,
        "manifests": [attestation("linux/arm64"), kept],
        "annotations": {"a": "b", "c": "new", "e": "f"},
        "x-field": {"n": None},
    }
    assert missing == []
    assert select_platforms(before, [Platform("linux", "arm64")], {"c": "new", "e": "f"})[0].digest == after.digest


def test_none_left_names_what_is_wanted_and_what_there_is():
    manifest = parse(index(child("linux/amd64"), child("windows/amd64"), attestation("linux/amd64")))
    with pytest.raises(
        HomelabError, match=r"no linux/arm64 and no linux/arm/v7 among its platforms: linux/amd64, windows"
    ):
        select_platforms(manifest, [parse_platform("linux/arm64"), parse_platform("linux/arm")], {}, "node:20")
