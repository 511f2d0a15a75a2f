# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An inventory over the API, against a registry on loopback: what it sees, what it costs, what it remembers."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.oci.inventory import created_of
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from ansible_collections.homelab.registry.plugins.module_utils.retention.memory import Memory
from ansible_collections.homelab.registry.plugins.module_utils.retention.read_api import read_inventory
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry

DIGEST = "sha256:" + "a1" * 32


@pytest.fixture
def fake():
    with FakeRegistry() as fake:
        yield fake


def dated(fake, repository, tag, created, **more):
    """An image whose configuration says when it was made; its digest."""
    config = images.blob(fake, repository, json.dumps({"created": created}).encode(), images.OCI_CONFIG)
    layer = images.blob(fake, repository, b"layer of " + tag.encode())
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer], **more}
    return images.manifest(fake, repository, document, OCI_MANIFEST, tag)["digest"]


def read(fake, path=None):
    memory, complete = Memory(path), False
    try:
        inventory = read_inventory(Registry(fake.url), memory)
        complete = True
    finally:
        memory.save(prune=complete)
    return inventory


def test_what_tags_lead_to_is_there(fake):
    multi = images.multi(fake, "team/app", "1", layers=[b"base"])
    listed = images.multi(fake, "team/app", "docker", docker=True)
    single = dated(fake, "team/app", "2", "2026-01-02T03:04:05.123456789Z")
    about = {"mediaType": OCI_MANIFEST, "digest": single, "size": 1}
    signature = images.single(fake, "team/app", f"sha256-{single[7:]}.sig", subject=about)["digest"]
    images.single(fake, "other", "1")
    inventory = read(fake)
    assert inventory.source == fake.url
    assert set(inventory.repositories) == {"team/app", "other"}
    app = inventory.repositories["team/app"]
    assert {name: tag.digest for name, tag in app.tags.items()} == fake.tags("team/app")
    assert set(app.manifests) == set(fake.repository("team/app")["manifests"])
    assert app.manifests[multi].media_type == OCI_INDEX
    assert app.manifests[listed].media_type == DOCKER_LIST
    assert len(app.manifests[multi].children) == 3
    assert {len(app.manifests[child].blobs) for child in app.manifests[multi].children} == {3}
    assert app.manifests[single].created == 1767323045.123456789
    assert app.manifests[signature].subject == single
    for digest, held in app.manifests.items():
        assert held.size == len(fake.repository("team/app")["manifests"][digest][1])
        assert held.pushed is None


def test_a_second_run_costs_a_head_for_each_tag(fake, tmp_path):
    images.multi(fake, "app", "1")
    images.multi(fake, "app", "2")
    dated(fake, "app", "3", "2026-01-02T03:04:05Z")
    first = read(fake, tmp_path / "memory")
    assert ((tmp_path / "memory").stat().st_mode & 0o777) == 0o600
    fake.requests.clear()
    assert read(fake, tmp_path / "memory") == first
    assert fake.count("HEAD") == 3
    assert sorted(one.partition("?")[0] for one in fake.requests if not one.startswith("HEAD")) == [
        "GET /v2/_catalog",
        "GET /v2/app/tags/list",
    ]


def test_only_what_is_new_is_read(fake, tmp_path):
    images.multi(fake, "app", "1")
    read(fake, tmp_path / "memory")
    dated(fake, "app", "2", "2026-01-02T03:04:05Z")
    fake.requests.clear()
    assert set(read(fake, tmp_path / "memory").repositories["app"].tags) == {"1", "2"}
    assert (fake.count("GET", "/manifests/"), fake.count("GET", "/blobs/")) == (1, 1)


def test_what_is_gone_is_forgotten(fake, tmp_path):
    dated(fake, "app", "1", "2026-01-02T03:04:05Z")
    dated(fake, "app", "2", "2026-01-02T03:04:05Z")
    read(fake, tmp_path / "memory")
    known = fake.tags("app")["2"]
    assert known in (tmp_path / "memory").read_text()
    del fake.repository("app")["tags"]["2"]
    assert set(read(fake, tmp_path / "memory").repositories["app"].manifests) == {fake.tags("app")["1"]}
    assert known not in (tmp_path / "memory").read_text()


def test_repositories_without_tags(fake):
    fake.repository("null")  # answers null
    fake.repository("gone")
    fake.say(404, b"{}", path="/v2/gone/tags/list")
    images.single(fake, "app", "1")
    assert set(read(fake).repositories) == {"app"}


def test_long_lists_come_in_pages(fake):
    fake.page = 2
    for number in range(5):
        for tag in range(3):
            images.single(fake, f"app{number}", str(tag))
    assert sum(len(one.tags) for one in read(fake).repositories.values()) == 15


def test_damaged_manifests(fake, tmp_path):
    held = fake.repository("app")["manifests"]
    whole = images.single(fake, "app", "whole")["digest"]
    broken = images.single(fake, "app", "broken", platform="linux/arm64")["digest"]
    held[broken] = (OCI_MANIFEST, b"{}")
    lost = images.single(fake, "app", "lost", platform="linux/s390x")["digest"]
    fake.say(404, path=f"manifests/{lost}")
    fake.repository("app")["tags"]["dangling"] = DIGEST  # HEAD is 404
    inventory = read(fake, tmp_path / "memory")
    app = inventory.repositories["app"]
    assert set(app.tags) == {"whole", "broken", "lost"}
    assert {one: app.manifests[one].media_type for one in app.manifests} == {whole: OCI_MANIFEST, broken: "", lost: ""}
    # what was damaged is looked at again
    fake.requests.clear()
    assert read(fake, tmp_path / "memory").repositories["app"].manifests[lost].media_type == OCI_MANIFEST
    assert fake.count("GET", broken) == 1


def test_a_manifest_with_other_bytes_than_its_digest_says_is_damaged(fake, tmp_path):
    digest = images.single(fake, "app", "1")["digest"]
    other = images.single(fake, "app", "2", platform="linux/arm64")["digest"]
    held = fake.repository("app")["manifests"]
    whole, held[digest] = held[digest], held[other]
    assert read(fake, tmp_path / "memory").repositories["app"].manifests[digest].media_type == ""
    held[digest] = whole
    assert read(fake, tmp_path / "memory").repositories["app"].manifests[digest].media_type == OCI_MANIFEST


def test_a_child_that_is_not_there_is_left_out(fake):
    index = images.multi(fake, "app", "1")
    child = json.loads(fake.repository("app")["manifests"][index][1])["manifests"][0]["digest"]
    del fake.repository("app")["manifests"][child]
    app = read(fake).repositories["app"]
    assert child in app.manifests[index].children
    assert set(app.manifests) == set(fake.repository("app")["manifests"])


def test_a_missing_configuration_is_looked_for_again(fake, tmp_path):
    digest = dated(fake, "app", "1", "2026-01-02T03:04:05Z")
    blobs = fake.repository("app")["blobs"]
    config = json.loads(fake.repository("app")["manifests"][digest][1])["config"]["digest"]
    content = blobs.pop(config)
    assert read(fake, tmp_path / "memory").repositories["app"].manifests[digest].created is None
    blobs[config] = content
    assert read(fake, tmp_path / "memory").repositories["app"].manifests[digest].created == 1767323045


@pytest.mark.parametrize("path", ["_catalog", "/tags/list", "/manifests/1", "/manifests/sha256", "/blobs/"])
def test_half_an_inventory_is_none(fake, tmp_path, path):
    for number in range(20):
        dated(fake, "app", str(number), f"2026-01-02T03:04:{number:02}Z")
    fake.say(500, b"", path=path)
    with pytest.raises(HomelabError, match="answered 500"):
        read(fake, tmp_path / "memory")
    assert len(read(fake, tmp_path / "memory").repositories["app"].tags) == 20
    assert fake.count("GET", "/manifests/sha256") <= 21  # what the first run read is not read again


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        (b'{"created": "1970-01-01T00:00:00Z"}', 0),
        (b'{"created": "2026-01-02T03:04:05.5Z"}', 1767323045.5),
        (b'{"created": "2026-01-02T05:04:05+02:00"}', 1767323045),
        (b'{"created": "2026-01-01T21:34:05-05:30"}', 1767323045),
        (b'{"created": "0001-01-01T00:00:00Z"}', -62135596800),
        (b'{"created": "2026-13-02T03:04:05Z"}', None),
        (b'{"created": "yesterday"}', None),
        (b'{"created": null}', None),
        (b'{"created": 5}', None),
        (b"{}", None),
        (b"[]", None),
        (b"\xff", None),
    ],
)
def test_when_an_image_was_made(config, seconds):
    assert created_of(config) == seconds
