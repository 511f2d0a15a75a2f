# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary image: the same bytes for ever, complete, and pushed so that no half of it shows."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.oci import canary
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry, digest_of
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry

#: Changing it makes every node's proof fail until the registry's role has run again.
DIGEST = "sha256:a6ea1f1939378ba48e9f2806a3af3f609986b153c44a4a3be4090d6622fa59c1"


def test_the_digest_is_the_same_with_every_python():
    assert canary.digest() == DIGEST


def test_every_part_is_there_and_described_rightly():
    blobs, manifests, index = canary.build()
    stored = {digest_of(data): data for data in [*blobs, *manifests]}
    children = json.loads(index)["manifests"]
    assert [child["digest"] for child in children] == [digest_of(manifest) for manifest in manifests]
    for child in children:
        manifest = json.loads(stored[child["digest"]])
        assert child["size"] == len(stored[child["digest"]])
        for part in (manifest["config"], *manifest["layers"]):
            assert part["size"] == len(stored[part["digest"]])
        config = json.loads(stored[manifest["config"]["digest"]])
        assert {key: config.get(key) for key in child["platform"]} == child["platform"]
        layers = [gzip.decompress(stored[layer["digest"]]) for layer in manifest["layers"]]
        assert config["rootfs"]["diff_ids"] == [digest_of(layer) for layer in layers]


def test_it_is_for_every_platform_of_a_home():
    _blobs, _manifests, index = canary.build()
    named = [child["platform"] for child in json.loads(index)["manifests"]]
    assert {"os": "linux", "architecture": "amd64"} in named
    assert {"os": "linux", "architecture": "arm64"} in named
    assert {"os": "linux", "architecture": "arm", "variant": "v7"} in named
    assert len(named) == len(canary.PLATFORMS)


def test_the_layer_is_a_tar_that_others_read():
    layer = canary.build()[0][0]
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mode, member.uid, member.mtime) == ("homelab-canary.txt", 0o644, 0, 0)
        assert b"could be pulled" in archive.extractfile(member).read()


def test_a_new_registry_has_none_and_then_both():
    with FakeRegistry() as fake:
        registry = Registry(fake.url)
        assert canary.missing(registry) == ["library/homelab-canary", "homelab-canary"]
        canary.push(registry, "homelab-canary")
        assert canary.missing(registry) == ["library/homelab-canary"]
        canary.push(registry, "library/homelab-canary")
        assert canary.missing(registry) == []
        assert fake.tags("library/homelab-canary") == {"1": DIGEST}


def test_another_image_under_its_name_counts_as_missing():
    with FakeRegistry() as fake:
        registry = Registry(fake.url)
        for repository in canary.REPOSITORIES:
            canary.push(registry, repository)
        repository = fake.repository("homelab-canary")
        repository["tags"]["1"] = next(digest for digest in repository["manifests"] if digest != DIGEST)
        assert canary.missing(registry) == ["homelab-canary"]


def test_the_tag_is_written_last():
    with FakeRegistry() as fake:
        canary.push(Registry(fake.url), "homelab-canary")
        puts = [request for request in fake.requests if request.startswith("PUT ")]
        assert puts[-1] == "PUT /v2/homelab-canary/manifests/1"
        assert sum(request.endswith("/manifests/1") for request in puts) == 1
        assert [("manifests" in request) for request in puts] == [False] * 7 + [True] * 7


@pytest.mark.parametrize("done", range(1, 14))
def test_an_interrupted_push_shows_no_tag_and_can_be_repeated(done, monkeypatch):
    with FakeRegistry() as fake:
        request = Registry.request
        puts = []

        def interrupt(self, method, path, **more):
            if method == "PUT":
                puts.append(path)
                if len(puts) > done:
                    raise KeyboardInterrupt
            return request(self, method, path, **more)

        with monkeypatch.context() as patch:
            patch.setattr(Registry, "request", interrupt)
            with pytest.raises(KeyboardInterrupt):
                canary.push(Registry(fake.url), "homelab-canary")
        assert fake.tags("homelab-canary") == {}
        canary.push(Registry(fake.url), "homelab-canary")
        assert fake.tags("homelab-canary") == {"1": DIGEST}
