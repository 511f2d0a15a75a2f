# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification over the API: the damage a client would meet, and no verdict without an answer."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.storage.verify import (
    NO_BLOB,
    NO_LINK,
    NOT_SERVED,
    UNKNOWN,
    WRONG_CONTENT,
    WRONG_SIZE,
)
from ansible_collections.homelab.registry.plugins.module_utils.storage.verify_api import verify_api
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry
from ansible_collections.homelab.registry.tests.unit.mirror_lab import HookedRegistry, answer, refusal

NAME = "team/app"


@pytest.fixture
def registry():
    with HookedRegistry() as fake:
        images.multi(fake, NAME, "1", layers=(b"shared layer",))
        images.single(fake, NAME, "2", layers=(b"shared layer", b"own layer"))
        images.single(fake, "other", "1", layers=(b"else",))
        yield fake


def look(fake, **more):
    report = verify_api(Registry(fake.url), **more)
    return {damage.name: {(flaw.digest, flaw.kind) for flaw in damage.flaws} for damage in report.damages}


def test_what_is_whole(registry):
    report = verify_api(Registry(registry.url), deep=True)
    assert (report.damages, report.tags) == ([], 3)
    assert report.read > 0
    assert report.as_dict()["whole"] is True
    json.dumps(report.as_dict())


def test_an_empty_registry():
    with FakeRegistry() as fake:
        assert verify_api(Registry(fake.url)).tags == 0


# --- damage ---------------------------------------------------------------------------------------------------
def parts(fake):
    """What tag 2 stands for: its manifest, its config and its own layer."""
    held = fake.repositories[NAME]
    digest = held["tags"]["2"]
    document = json.loads(held["manifests"][digest][1])
    return {"manifest": digest, "config": document["config"]["digest"], "layer": document["layers"][1]["digest"]}


def lose_blob(fake, held, part):
    del held["blobs"][part["layer"]]
    return {f"{NAME}:2": {(part["layer"], NO_LINK)}}


def lose_shared_layer(fake, held, part):
    shared = images.digest_of(b"shared layer")
    del held["blobs"][shared]
    return {f"{NAME}:1": {(shared, NO_LINK)}, f"{NAME}:2": {(shared, NO_LINK)}}


def cut_blob(fake, held, part):
    held["blobs"][part["layer"]] = b"ow"
    return {f"{NAME}:2": {(part["layer"], WRONG_SIZE)}}


def empty_blob(fake, held, part):
    held["blobs"][part["layer"]] = b""
    return {f"{NAME}:2": {(part["layer"], WRONG_CONTENT)}}


def lose_manifest(fake, held, part):
    fake.hooks.append(refusal("HEAD GET", "/manifests/2", 404))
    return {f"{NAME}:2": {(None, NO_BLOB)}}


def lose_child(fake, held, part):
    index = json.loads(held["manifests"][held["tags"]["1"]][1])
    child = index["manifests"][1]["digest"]
    del held["manifests"][child]
    return {f"{NAME}:1": {(child, NO_BLOB)}}


def fail_at_tag(fake, held, part):
    fake.hooks.append(refusal("HEAD GET", "/manifests/2", 500))
    return {f"{NAME}:2": {(None, NOT_SERVED)}}


def fail_at_blob(fake, held, part):
    fake.hooks.append(refusal("HEAD GET", part["layer"], 500))
    return {f"{NAME}:2": {(part["layer"], NOT_SERVED)}}


def change_manifest(fake, held, part):
    held["manifests"][part["manifest"]] = (images.OCI_MANIFEST, b"{}")
    return {f"{NAME}:2": {(part["manifest"], WRONG_CONTENT)}}


def strange_manifest(fake, held, part):
    digest = images.manifest(fake, NAME, b'{"schemaVersion": 7}', "application/x-strange", tag="2")["digest"]
    return {f"{NAME}:2": {(digest, UNKNOWN)}}


DAMAGES = (
    lose_blob,
    lose_shared_layer,
    cut_blob,
    empty_blob,
    lose_manifest,
    lose_child,
    fail_at_tag,
    fail_at_blob,
    change_manifest,
    strange_manifest,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_seen_where_it_is_and_nowhere_else(registry, damage):
    expected = damage(registry, registry.repositories[NAME], parts(registry))
    assert look(registry) == expected
    assert look(registry, deep=True) == expected


def test_only_a_deep_look_sees_wrong_bytes(registry):
    layer = parts(registry)["layer"]
    registry.repositories[NAME]["blobs"][layer] = b"owx layer"
    assert look(registry) == {}
    assert look(registry, deep=True) == {f"{NAME}:2": {(layer, WRONG_CONTENT)}}


def test_a_blob_that_breaks_off(registry):
    """As a server with a cache of descriptors sends one whose file was cut."""
    layer = parts(registry)["layer"]
    registry.hooks.append(
        lambda handler: handler.command == "GET" and layer in handler.path and answer(handler, 200, b"own", length=9)
    )
    assert look(registry) == {}
    assert look(registry, deep=True) == {f"{NAME}:2": {(layer, WRONG_CONTENT)}}


def test_what_a_mirror_run_brings_can_be_healed(registry):
    del registry.repositories[NAME]["blobs"][images.digest_of(b"shared layer")]
    report = verify_api(Registry(registry.url), mirrored=[f"{NAME}:1"])
    assert {damage.tag: damage.healable for damage in report.damages} == {"1": True, "2": False}


# --- no answer ------------------------------------------------------------------------------------------------
SILENCES = {
    "the catalog is refused": refusal("GET", "_catalog", 403),
    "a repository is refused": refusal("HEAD", "/manifests/", 401),
    "a blob is refused": refusal("HEAD", "/blobs/", 403),
    "too many requests": refusal("HEAD", "/blobs/", 429),
}


@pytest.mark.parametrize("hook", SILENCES.values(), ids=SILENCES)
def test_half_a_check_is_none(registry, hook):
    registry.hooks.append(hook)
    with pytest.raises(HomelabError):
        verify_api(Registry(registry.url))


def test_nobody_there():
    with FakeRegistry() as fake:
        url = fake.url
    with pytest.raises(HomelabError):
        verify_api(Registry(url))
