# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirror runs between real servers; what they were asked is in their access logs."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring import copy
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.run import prepare
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import digest_of
from ansible_collections.homelab.registry.tests.integration.real_images import Content, assert_whole, parts
from ansible_collections.homelab.registry.tests.unit import images

UP = "up.example"
BASE = images.data("base", 200_000)
TAGS = {"team/app": ("1", "2"), "team/tool": ("1",), "solo": ("latest",)}
NAMES = [f"{UP}/{name}:{tag}" for name, tags in TAGS.items() for tag in tags]


@pytest.fixture(scope="module")
def content():
    """Four tags in three repositories on one base layer."""
    content = Content()
    for name, tags in TAGS.items():
        for tag in tags:
            images.multi(content, name, tag, [BASE])
    return content


@pytest.fixture(scope="module")
def source(module_registries, content):
    source = module_registries.start()
    content.push(source.client())
    return source


@pytest.fixture
def run(tmp_path, source, monkeypatch):
    """run(target, *images, **settings): a Report; the access logs begin anew before it."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def run(target, *names, check=False, upstream=None, **settings):
        upstream = {"registry": UP, **source.access(), **(upstream or {})}
        given = {**target.access(), "images": list(names), "upstreams": [upstream], "state_path": tmp_path / "state"}
        source.requests()
        target.requests()
        return prepare({**given, "workers": 4, **settings}).run(check=check)

    return run


def actions(report):
    return [one["action"] for one in report.images]


def asked(registry):
    """Method and kind of each request: ("GET", "blobs")."""
    found = [(one.method, one.path) for one in registry.requests()]
    kinds = ("uploads", "blobs", "manifests", "tags", "referrers")
    return [(method, next((kind for kind in kinds if f"/{kind}/" in path), path)) for method, path in found]


def test_everything_arrives_once_and_the_second_run_is_one_head_a_tag(registries, run, source, content, monkeypatch):
    monkeypatch.setattr(copy, "WORTH_ASKING", 1)  # the server's own hashing, too
    target = registries.start()
    client = target.client()
    foreseen = run(target, *NAMES, check=True)
    assert actions(foreseen) == ["would copy"] * 4
    assert list(client.catalog()) == []
    report = run(target, *NAMES)
    assert actions(report) == ["copied"] * 4
    unique = {digest: len(data) for held in content.repositories.values() for digest, data in held["blobs"].items()}
    moved = asked(source)
    assert moved.count(("GET", "blobs")) == len(unique)
    assert foreseen.as_dict()["transfer_bytes"] == report.as_dict()["transferred_bytes"] == sum(unique.values())
    assert report.as_dict()["mounted_bytes"] == 2 * len(BASE)
    assert [one.status for one in target.requests() if f"mount={digest_of(BASE)}" in one.path].count(201) == 2
    for name, held in content.repositories.items():
        for tag, digest in held["tags"].items():
            assert client.head_manifest(f"{UP}/{name}", tag) == digest
            assert parts(client, f"{UP}/{name}", tag) == images.parts(content, name, digest)
    assert_whole(client)

    again = run(target, *NAMES)
    assert actions(again) == ["unchanged"] * 4
    assert not again.changed
    assert asked(source) == [("HEAD", "manifests")] * 4
    assert asked(target) == [("HEAD", "manifests")] * 4


def test_what_a_killed_run_left_without_a_tag_is_not_sent_again(registries, run, source, content):
    target = registries.start()
    held = content.repositories["solo"]
    for data in held["blobs"].values():
        target.client().put_blob(f"{UP}/solo", data)
    assert not target.client().knows(f"{UP}/solo")
    report = run(target, f"{UP}/solo:latest")
    assert actions(report) == ["copied"]
    assert report.as_dict()["transferred_bytes"] == 0
    assert ("GET", "blobs") not in asked(source)
    assert_whole(target.client())


def test_selected_platforms_are_a_valid_index_and_remembered(registries, run, source, content):
    target = registries.start()
    report = run(target, f"{UP}/solo:latest", platforms=["linux/amd64", "linux/arm64"])
    assert actions(report) == ["copied"]
    index = target.client().read_manifest(f"{UP}/solo", "latest")
    assert [one.raw["platform"]["architecture"] for one in index.children] == ["amd64", "arm64"]
    assert_whole(target.client())
    again = run(target, f"{UP}/solo:latest", platforms=["linux/amd64", "linux/arm64"])
    assert actions(again) == ["unchanged"]
    assert asked(source) == [("HEAD", "manifests")]


def test_tags_that_vanished_upstream_are_pruned(registries, run, tmp_path):
    upstream, target = registries.start(), registries.start()
    content = Content()
    for tag in ("1", "2", "3"):
        images.multi(content, "app", tag, [BASE, tag.encode()])
    content.push(upstream.client())
    access = {"registry": UP, **upstream.access()}
    everything = {"name": f"{UP}/app", "tags": "*"}
    report = run(target, everything, upstream=access)
    assert actions(report) == ["copied"] * 3
    upstream.client().delete_manifest("app", content.repositories["app"]["tags"]["2"])
    assert run(target, everything, upstream=access).pruned == []
    report = run(target, everything, upstream=access, prune=True)
    assert [(one["tag"], one["action"]) for one in report.pruned] == [("2", "pruned")]
    assert sorted(target.client().tags(f"{UP}/app")) == ["1", "3"]
    assert_whole(target.client())


def test_signatures_come_along(registries, run):
    upstream, target = registries.start(), registries.start()
    content = Content()
    digest = images.multi(content, "app", "1", [BASE])
    signature = images.single(content, "app", digest.replace(":", "-") + ".sig", layers=[b"signature"])
    subject = {"mediaType": images.OCI_MANIFEST, "digest": signature["digest"], "size": signature["size"]}
    about = images.single(content, "app", layers=[b"about the signature"], subject=subject)
    images.index(content, "app", signature["digest"].replace(":", "-"), [about])
    content.push(upstream.client())
    access = {"registry": UP, **upstream.access()}
    assert actions(run(target, f"{UP}/app:1", upstream=access, referrers=True)) == ["copied"]
    for one in (digest, signature["digest"], about["digest"]):
        assert parts(target.client(), f"{UP}/app", one) == images.parts(content, "app", one)
    assert actions(run(target, f"{UP}/app:1", upstream=access, referrers=True)) == ["unchanged"]


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["read-only", "pull-through cache"])
def test_a_target_that_takes_nothing(registries, run, source, kind):
    target = registries.start(**({"readonly": True} if kind == "read-only" else {"proxy": source.url}))
    report = run(target, *NAMES)
    assert actions(report) == ["failed"] * 4
    said = "read-only, or a pull-through cache"
    assert [one["reason"] for one in report.failed if said not in one["reason"]] == []
    assert all(one["image"] in NAMES for one in report.failed)
    assert ("GET", "blobs") not in asked(source)


def test_a_full_disk_fails_what_does_not_fit(registries, run, source):
    upstream, target = registries.start(), registries.start(disk="3m")
    content = Content()
    images.single(content, "large", "1", layers=[images.data("large", 6 << 20)])
    images.single(content, "small", "1", layers=[BASE])
    content.push(upstream.client())
    names = [f"{UP}/small:1", f"{UP}/large:1"]
    report = run(target, *names, upstream=upstream.access(), workers=1)
    by_name = {one["image"]: one for one in report.images}
    assert by_name[names[1]]["action"] == "failed"
    assert "no space left" in by_name[names[1]]["reason"].lower()
    assert not target.client().tags(f"{UP}/large")
    assert_whole(target.client())


@pytest.mark.parametrize("hashes", ["we", "the server"])
def test_a_damaged_layer_fails_its_image_and_no_other(registries, run, monkeypatch, hashes):
    if hashes == "the server":
        monkeypatch.setattr(copy, "WORTH_ASKING", 1)
    upstream, target = registries.start(), registries.start()
    content, layer = Content(), images.data("layer", 300_000)
    images.single(content, "bad", "1", layers=[layer])
    images.single(content, "good", "1", layers=[BASE])
    content.push(upstream.client())
    digest = digest_of(layer)
    (upstream.v2 / "blobs/sha256" / digest[7:9] / digest[7:] / "data").write_bytes(layer[:-1] + b"?")
    report = run(target, f"{UP}/bad:1", f"{UP}/good:1", upstream=upstream.access())
    assert actions(report) == ["failed", "copied"]
    assert f"{UP} sends content with the hash" in report.failed[0]["reason"]
    assert not target.client().tags(f"{UP}/bad")
    assert not target.client().has_blob(f"{UP}/bad", digest)
    assert_whole(target.client())


def test_wrong_names_among_good_ones(registries, run):
    target = registries.start()
    report = run(target, f"{UP}/solo:latest", f"{UP}/solo:gone", f"{UP}/never:1", f"{UP}/Upper:1")
    by_name = {one["image"]: one for one in report.images}
    assert by_name[f"{UP}/solo:latest"]["action"] == "copied"
    assert f"there is no {UP}/solo:gone" in by_name[f"{UP}/solo:gone"]["reason"]
    assert f"there is no {UP}/never:1" in by_name[f"{UP}/never:1"]["reason"]
    assert "Upper" in by_name[f"{UP}/Upper:1"]["reason"]
    assert len(report.failed) == 3


def test_tls_and_accounts_on_both_sides(registries, run, tmp_path):
    upstream, target = registries.start(tls=True, users=("alice",)), registries.start(tls=True, users=("bob",))
    content = Content()
    digest = images.multi(content, "app", "1", [BASE])
    content.push(upstream.client())
    name = f"{UP}/app:1"
    stranger = {"username": None, "password": None}
    for access, said in (
        ({**upstream.access(), "ca_path": None}, "certificate verify failed"),
        ({**upstream.access(), **stranger}, "401"),
        ({**upstream.access(), "password": "wrong"}, "401"),
    ):
        report = run(target, name, upstream=access)
        assert actions(report) == ["failed"]
        assert name in report.failed[0]["image"]
        assert said in report.failed[0]["reason"]
        assert "wrong" not in report.failed[0]["reason"]
    for access, said in (({"ca_path": None}, "certificate verify failed"), (stranger, "401")):
        with pytest.raises(HomelabError, match=said):
            run(target, name, upstream=upstream.access(), **access)
    assert target.client().stat_manifest(f"{UP}/app", "1") is None
    assert actions(run(target, name, upstream=upstream.access())) == ["copied"]
    assert parts(target.client(), f"{UP}/app", "1") == images.parts(content, "app", digest)


def test_an_upstream_that_is_down_and_one_that_is_not(registries, run):
    target, down = registries.start(), registries.start()
    down.stop()
    upstreams = [{"registry": UP, "url": down.url}]
    report = run(target, f"{UP}/app:1", f"{UP}/tool:1", upstreams=upstreams)
    assert actions(report) == ["failed"] * 2
    assert all("nothing listens there" in one["reason"] for one in report.failed)
