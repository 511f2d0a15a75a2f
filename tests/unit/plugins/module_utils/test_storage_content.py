# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The short way to read an ordinary manifest says what the long one says, or leaves it to that."""

from __future__ import annotations

import copy
import json
import random

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    digest_of,
)
from ansible_collections.homelab.registry.plugins.module_utils.storage import tree


def one(name, media_type=OCI_LAYER_GZIP, **more):
    return {"mediaType": media_type, "digest": digest_of(name.encode()), "size": len(name), **more}


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
IMAGE = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": one("config", OCI_CONFIG),
    "layers": [one("a"), one("b"), one("a")],
}
PLATFORM = {"os": "linux", "architecture": "arm", "variant": "v7"}
INDEX = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [one("x", OCI_MANIFEST, platform=PLATFORM), one("y", OCI_MANIFEST)],
}
ORDINARY = {
    "image": IMAGE,
    "docker's": {**IMAGE, "mediaType": DOCKER_MANIFEST},
    "index": INDEX,
    "docker's list": {**INDEX, "mediaType": DOCKER_LIST},
    "no layers": {**IMAGE, "layers": []},
    "no children": {**INDEX, "manifests": []},
    "subject": {**IMAGE, "subject": one("s", OCI_MANIFEST)},
    "annotations": {**IMAGE, "annotations": {"a": "b"}, "artifactType": "x/y"},
    "an artifact": {**IMAGE, "config": one("{}", "application/vnd.oci.empty.v1+json")},
}
ODD = {
    "a foreign layer": {**IMAGE, "layers": [one("f", FOREIGN, urls=["u"])]},
    "two sizes": {**IMAGE, "layers": [one("a"), {**one("a"), "size": 9}]},
    "no type": {key: value for key, value in IMAGE.items() if key != "mediaType"},
    "both": {**IMAGE, "manifests": []},
    "both, the other way": {**INDEX, "layers": []},
    "null layers": {**IMAGE, "layers": None},
    "null annotations": {**IMAGE, "annotations": None},
    "annotations that are none": {**IMAGE, "annotations": []},
    "schema 1": {**IMAGE, "schemaVersion": 1},
    "size as text": {**IMAGE, "layers": [{**one("a"), "size": "1"}]},
    "size as truth": {**IMAGE, "layers": [{**one("a"), "size": True}]},
    "size below zero": {**IMAGE, "layers": [{**one("a"), "size": -1}]},
    "a short digest": {**IMAGE, "layers": [{**one("a"), "digest": "sha256:ab"}]},
    "sha512": {**IMAGE, "layers": [{**one("a"), "digest": digest_of(b"a", "sha512")}]},
    "a platform of numbers": {**INDEX, "manifests": [one("x", OCI_MANIFEST, platform={"os": 1, "architecture": "a"})]},
    "features": {**INDEX, "manifests": [one("x", OCI_MANIFEST, platform={**PLATFORM, "os.features": ["f"]})]},
    "no config": {**IMAGE, "config": None},
    "a list": [1],
}  # fmt: skip


def both(monkeypatch, data):
    """What _content says with the short way, and without it."""
    short = tree._content(data, digest_of(data))
    with monkeypatch.context() as patched:
        patched.setattr(tree, "_plain", lambda _data: None)
        return short, tree._content(data, digest_of(data))


@pytest.mark.parametrize("document", [*ORDINARY.values(), *ODD.values()], ids=[*ORDINARY, *ODD])
def test_it_says_the_same(monkeypatch, document):
    for data in (json.dumps(document).encode(), json.dumps(document, indent=3).encode()):
        short, full = both(monkeypatch, data)
        assert short == full


@pytest.mark.parametrize("document", ORDINARY.values(), ids=ORDINARY)
def test_the_ordinary_goes_the_short_way(document):
    assert tree._plain(json.dumps(document).encode()) is not None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe{}", "{}".encode("utf-16"), b"\xef\xbb\xbf{}", b"null", b"[" * 9999]
)
def test_other_bytes(monkeypatch, data):
    short, full = both(monkeypatch, data)
    assert short == full


def test_random_damage(monkeypatch):
    """A value somewhere replaced by another one, 3000 times."""
    rnd = random.Random(7)
    values = [None, True, 0, -1, 1.5, "", "x", [], {}, [None], {"a": 1}, OCI_INDEX, digest_of(b"z")]
    for _other in range(3000):
        document = copy.deepcopy(rnd.choice(list(ORDINARY.values())))
        place = document
        while True:
            key = rnd.choice(list(place) if isinstance(place, dict) else range(len(place))) if place else None
            if key is None or not isinstance(place[key], (dict, list)) or rnd.random() < 0.3:
                break
            place = place[key]
        if key is not None:
            place[key] = rnd.choice(values)
        short, full = both(monkeypatch, json.dumps(document).encode())
        assert short == full, document
