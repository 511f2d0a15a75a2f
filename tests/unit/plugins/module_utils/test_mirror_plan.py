# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror run decides to do: digests, platforms, references, referrers, rate limits, check mode."""

from __future__ import annotations

import json
import socket

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.plan import PLATFORMS, SOURCE_DIGEST
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.run import prepare
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_registry import OCI_INDEX, OCI_MANIFEST, digest_of
from ansible_collections.homelab.registry.tests.unit.mirror_lab import (
    UPSTREAM,
    HookedRegistry,
    Lab,
    actions,
    answer,
    only,
    place,
    refusal,
)

BASE = images.data("base", 5000)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch) as lab:
        yield lab


def children(registry, repository, digest):
    """Digests of an index's children, and its annotations."""
    document = json.loads(registry.repositories[repository]["manifests"][digest][1])
    return [child["digest"] for child in document["manifests"]], document.get("annotations")


def arrived(lab, repository, tag, digest):
    """Whether the target has the source's image, byte for byte."""
    held = lab.tags(repository).get(tag) == digest
    return held and images.parts(lab.target, place(repository), digest) == images.parts(lab.source, repository, digest)


# --- kinds of images ---------------------------------------------------------------------------------------

KINDS = {
    "index": lambda source: images.multi(source, "app", "1", [BASE]),
    "index without mediaType": lambda source: images.multi(source, "app", "1", [BASE], typed=False),
    "docker list": lambda source: images.multi(source, "app", "1", [BASE], docker=True),
    "manifest": lambda source: images.single(source, "app", "1", layers=[BASE])["digest"],
    "manifest without mediaType": lambda source: images.single(source, "app", "1", typed=False)["digest"],
    "docker manifest": lambda source: images.single(source, "app", "1", docker=True)["digest"],
    "docker manifests in an OCI index": lambda source: images.index(
        source, "app", "1", [images.single(source, "app", docker=True)]
    ),
    "index with an attestation": lambda source: images.index(
        source,
        "app",
        "1",
        [one := images.single(source, "app", layers=[BASE]), images.attestation(source, "app", one)],
    ),
    "nested index": lambda source: images.index(
        source,
        "app",
        "1",
        [
            images.single(source, "app", layers=[BASE]),
            images.manifest(
                source,
                "app",
                {"schemaVersion": 2, "manifests": [images.single(source, "app", layers=[b"deep"])]},
                OCI_INDEX,
            ),
        ],
    ),
    "index of nothing": lambda source: images.index(source, "app", "1", []),
    "artifact with an empty layer": lambda source: images.single(source, "app", "1", layers=[b""])["digest"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_arrives_byte_for_byte_and_the_second_run_asks_once(lab, kind):
    digest = KINDS[kind](lab.source)
    report = lab.run("app:1")
    assert actions(report) == {"app:1": "copied"}
    assert (only(report)["digest"], only(report)["source_digest"]) == (digest, digest)
    assert arrived(lab, "app", "1", digest)
    stored = lab.target.repositories[place("app")]["manifests"]
    assert stored == lab.source.repositories["app"]["manifests"]  # media types too
    again = lab.run("app:1")
    assert actions(again) == {"app:1": "unchanged"}
    assert not again.changed
    assert lab.source.requests == ["HEAD /v2/app/manifests/1"]
    assert lab.target.requests == [f"HEAD /v2/{place('app')}/manifests/1"]


def test_a_second_run_is_one_head_a_tag_on_each_side(lab):
    names = [f"team/app{number}:{tag}" for number in range(3) for tag in ("1", "2")]
    for name in names:
        repository, tag = name.split(":")
        images.multi(lab.source, repository, tag, [BASE])
    assert set(actions(lab.run(*names)).values()) == {"copied"}
    report = lab.run(*names)
    assert set(actions(report).values()) == {"unchanged"}
    assert sorted(lab.source.requests) == [f"HEAD /v2/{name.replace(':', '/manifests/')}" for name in names]
    assert sorted(lab.target.requests) == [f"HEAD /v2/{place(name.replace(':', '/manifests/'))}" for name in names]
    assert report.source_requests == {"HEAD": 6}
    assert report.as_dict()["transfer_bytes"] == 0


def test_a_new_tag_for_a_digest_that_is_there_costs_no_pull(lab):
    digest = images.multi(lab.source, "app", "1.0", [BASE])
    lab.run("app:1.0")
    lab.source.repository("app")["tags"]["latest"] = digest
    report = lab.run("app:latest")
    assert actions(report) == {"app:latest": "copied"}
    assert lab.source.requests == ["HEAD /v2/app/manifests/latest"]
    assert lab.writes() == [f"PUT /v2/{place('app')}/manifests/latest"]
    assert lab.tags("app") == {"1.0": digest, "latest": digest}


def test_two_tags_of_one_digest_are_read_once(lab):
    digest = images.multi(lab.source, "app", "1.0", [BASE])
    lab.source.repository("app")["tags"]["latest"] = digest
    lab.run("app:1.0", "app:latest")
    assert lab.source.count("GET", "/manifests/") == 4  # the index and its three children
    assert lab.tags("app") == {"1.0": digest, "latest": digest}


def test_a_moved_tag_is_moved_and_the_diff_says_so(lab):
    before = images.multi(lab.source, "app", "1", [BASE])
    lab.run("app:1")
    after = images.multi(lab.source, "app", "1", [BASE, b"fix"])
    report = lab.run("app:1")
    assert only(report)["before"] == {place("app"): before}
    assert report.diff() == {
        "before": f"{place('app')}:1 {before}\n",
        "after": f"{place('app')}:1 {after}\n",
    }
    assert arrived(lab, "app", "1", after)


def test_official_images_of_docker_hub_also_get_their_short_name(lab):
    digest = images.multi(lab.source, "library/node", "20", [BASE])
    hub = [{"registry": "docker.io", "url": lab.source.url}]
    report = prepare(lab.settings("node:20", upstreams=hub)).run()
    assert only(report)["image"] == "node:20"
    assert only(report)["targets"] == ["library/node:20", "node:20"]
    for repository in ("library/node", "node"):
        assert images.parts(lab.target, repository, digest) == images.parts(lab.source, "library/node", digest)
        assert lab.target.tags(repository) == {"20": digest}
    assert only(report)["mounted_bytes"] == only(report)["transferred_bytes"] == only(report)["transfer_bytes"]
    lab.source.clear()
    assert not prepare(lab.settings("node:20", upstreams=hub)).run().changed
    assert lab.source.requests == ["HEAD /v2/library/node/manifests/20"]
    images.multi(lab.source, "library/node", "22", [BASE])
    report = prepare(lab.settings("node:22", upstreams=hub, short_names=False)).run()
    assert only(report)["targets"] == ["library/node:22"]


def test_only_the_alias_that_is_missing_is_made(lab):
    digest = images.multi(lab.source, "library/node", "20", [BASE])
    hub = {"upstreams": [{"registry": "docker.io", "url": lab.source.url}]}
    prepare(lab.settings("node:20", short_names=False, **hub)).run()
    lab.source.clear()
    report = prepare(lab.settings("node:20", **hub)).run()
    assert only(report)["action"] == "copied"
    assert lab.target.tags("node") == {"20": digest}
    assert lab.source.requests == ["HEAD /v2/library/node/manifests/20"]


def test_a_template_names_the_copy(lab):
    images.multi(lab.source, "team/app", "1")
    report = lab.run("team/app:1", name_template="mirror/{name}")
    assert only(report)["targets"] == ["mirror/app:1"]
    assert "1" in lab.target.tags("mirror/app")


# --- references with a digest ------------------------------------------------------------------------------


def test_an_image_by_digest(lab):
    digest = images.multi(lab.source, "app", "1", [BASE])
    report = lab.run(f"app@{digest}")
    assert only(report)["action"] == "copied"
    assert only(report)["targets"] == [f"{place('app')}@{digest}"]
    assert lab.tags("app") == {}
    assert images.parts(lab.target, place("app"), digest)
    assert only(lab.run(f"app@{digest}"))["action"] == "unchanged"
    assert lab.source.requests == []


def test_an_image_by_tag_and_digest_stays_where_it_is_pinned(lab):
    pinned = images.multi(lab.source, "app", "1", [BASE])
    images.multi(lab.source, "app", "1", [BASE, b"newer"])
    assert only(lab.run(f"app:1@{pinned}"))["action"] == "copied"
    assert lab.tags("app") == {"1": pinned}
    assert only(lab.run(f"app:1@{pinned}"))["action"] == "unchanged"
    assert lab.source.requests == []


def test_a_digest_that_is_not_there_fails(lab):
    images.multi(lab.source, "app", "1")
    report = lab.run(f"app@{digest_of(b'nothing')}")
    assert only(report)["action"] == "failed"
    assert "404" in only(report)["reason"]
    assert lab.writes() == []


@pytest.mark.parametrize("tag", ["", ":1"])
def test_what_is_pinned_comes_whole(lab, tag):
    """A selection has another digest: nobody could pull it by the one that was asked for."""
    digest = images.multi(lab.source, "app", "1", [BASE])
    first = only(lab.run(f"app{tag}@{digest}", platforms=["linux/amd64"]))
    assert (first["action"], first["digest"]) == ("copied", digest)
    again = only(lab.run(f"app{tag}@{digest}", platforms=["linux/amd64"]))
    assert (again["action"], again["digest"]) == ("unchanged", digest)
    assert lab.writes() == []


# --- platforms ---------------------------------------------------------------------------------------------


def test_a_selection_is_a_valid_index_and_unchanged_the_second_time(lab):
    digest = images.multi(lab.source, "app", "1", [BASE])
    there = children(lab.source, "app", digest)[0]
    report = lab.run("app:1", platforms=["linux/amd64", "linux/arm64"])
    got = only(report)
    assert (got["action"], got["source_digest"]) == ("copied", digest)
    assert lab.tags("app") == {"1": got["digest"]}
    kept, notes = children(lab.target, place("app"), got["digest"])
    assert kept == there[:2]
    assert notes == {SOURCE_DIGEST: digest, PLATFORMS: "linux/amd64,linux/arm64"}
    images.assert_whole(lab.target)
    assert there[2] not in lab.target.repositories[place("app")]["manifests"]
    for wanted in (["linux/amd64", "linux/arm64"], ["linux/arm64/v8", "linux/x86_64", "linux/amd64"]):
        again = only(lab.run("app:1", platforms=wanted))
        assert (again["action"], again["digest"]) == ("unchanged", got["digest"])
        assert lab.source.requests == ["HEAD /v2/app/manifests/1"]
        assert lab.writes() == []


def test_a_selection_widens_and_narrows(lab):
    digest = images.multi(lab.source, "app", "1", [BASE])
    there = children(lab.source, "app", digest)[0]
    lab.run("app:1", platforms=["linux/amd64"])
    wider = only(lab.run("app:1", platforms=["linux/amd64", "linux/arm/v7"]))
    assert wider["action"] == "copied"
    assert children(lab.target, place("app"), wider["digest"])[0] == [there[0], there[2]]
    assert lab.source.count("GET", "/manifests/") == 2  # the index and the one new child
    whole = only(lab.run("app:1"))
    assert (whole["action"], whole["digest"]) == ("copied", digest)
    assert arrived(lab, "app", "1", digest)
    narrow = only(lab.run("app:1", platforms=["linux/arm64"]))
    assert narrow["action"] == "copied"
    assert children(lab.target, place("app"), narrow["digest"])[0] == [there[1]]


def test_a_selection_follows_its_upstream(lab):
    images.multi(lab.source, "app", "1", [BASE])
    lab.run("app:1", platforms=["linux/amd64"])
    digest = images.multi(lab.source, "app", "1", [BASE, b"fix"])
    got = only(lab.run("app:1", platforms=["linux/amd64"]))
    assert (got["action"], got["source_digest"]) == ("copied", digest)
    assert children(lab.target, place("app"), got["digest"])[1][SOURCE_DIGEST] == digest


def test_an_image_says_its_own_platforms(lab):
    for tag in ("1", "2"):
        images.multi(lab.source, "app", tag, [BASE])
    report = lab.run("app:1", {"name": "app:2", "platforms": ["linux/arm64"]}, platforms=["linux/amd64"])
    chosen = {
        one["image"][-1]: children(lab.target, place("app"), one["digest"])[1][PLATFORMS] for one in report.images
    }
    assert chosen == {"1": "linux/amd64", "2": "linux/arm64"}


def test_a_selection_that_drops_nothing_keeps_the_digest(lab):
    digest = images.multi(lab.source, "app", "1", [BASE])
    assert only(lab.run("app:1", platforms=images.PLATFORMS))["digest"] == digest
    assert arrived(lab, "app", "1", digest)
    assert only(lab.run("app:1", platforms=images.PLATFORMS))["action"] == "unchanged"
    assert lab.source.requests == ["HEAD /v2/app/manifests/1"]


def test_an_attestation_follows_its_image(lab):
    one = images.single(lab.source, "app", layers=[BASE])
    two = images.single(lab.source, "app", layers=[b"arm"], platform="linux/arm64")
    seals = [images.attestation(lab.source, "app", each) for each in (one, two)]
    images.index(lab.source, "app", "1", [one, two, *seals])
    got = only(lab.run("app:1", platforms=["linux/arm64"]))
    assert children(lab.target, place("app"), got["digest"])[0] == [two["digest"], seals[1]["digest"]]


def test_a_platform_that_upstream_lacks_is_noted(lab):
    images.multi(lab.source, "app", "1", [BASE])
    wanted = ["linux/amd64", "linux/riscv64"]
    got = only(lab.run("app:1", platforms=wanted))
    assert (got["action"], got["notes"]) == ("copied", ["upstream has no linux/riscv64 of it"])
    assert only(lab.run("app:1", platforms=wanted))["action"] == "unchanged"


def test_no_platform_left_fails_and_names_those_that_are_there(lab):
    images.multi(lab.source, "app", "1", [BASE])
    got = only(lab.run("app:1", platforms=["linux/riscv64"]))
    assert got["action"] == "failed"
    assert "linux/riscv64" in got["reason"]
    assert "linux/amd64, linux/arm64, linux/arm/v7" in got["reason"]
    assert lab.writes() == []


@pytest.mark.parametrize(
    ("platform", "wanted", "action"),
    [
        ("linux/amd64", ["linux/amd64"], "copied"),
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "copied"),
        ("linux/arm/v6", ["linux/arm/v7"], "copied"),  # as from an index: such a board runs it
        ("linux/amd64", ["linux/arm64"], "failed"),
        ("linux/arm/v7", ["linux/arm/v6"], "failed"),
    ],
)
def test_a_single_manifest_with_platforms(lab, platform, wanted, action):
    digest = images.single(lab.source, "app", "1", layers=[BASE], platform=platform)["digest"]
    got = only(lab.run("app:1", platforms=wanted))
    assert got["action"] == action
    if action == "copied":
        assert got["digest"] == digest
        assert only(lab.run("app:1", platforms=wanted))["action"] == "unchanged"
        assert lab.source.requests == ["HEAD /v2/app/manifests/1"]
    else:
        assert platform in got["reason"]
        assert lab.writes() == []


# --- referrers ---------------------------------------------------------------------------------------------


def signed(lab, how):
    """An image with something that refers to it; digests of the image and of that."""
    digest = images.multi(lab.source, "app", "1", [BASE])
    subject = {"mediaType": OCI_INDEX, "digest": digest, "size": 1}
    child = children(lab.source, "app", digest)[0][0]
    if how == "cosign":
        tag = digest.replace(":", "-") + ".sig"
        return digest, images.single(lab.source, "app", tag, layers=[b"signature"])["digest"]
    if how == "cosign of a child":
        tag = child.replace(":", "-") + ".att"
        return digest, images.single(lab.source, "app", tag, layers=[b"attestation"])["digest"]
    described = images.single(lab.source, "app", layers=[b"sbom"], subject=subject)
    del described["platform"]
    if how == "fallback tag":
        images.index(lab.source, "app", digest.replace(":", "-"), [described])
    return digest, described["digest"]


@pytest.mark.parametrize("how", ["api", "fallback tag", "cosign", "cosign of a child"])
@pytest.mark.parametrize("api", [True, False])
def test_referrers_come_along(tmp_path, monkeypatch, how, api):
    with Lab(tmp_path, monkeypatch, source={"referrers": how == "api"}, target={"referrers": api}) as lab:
        digest, about = signed(lab, how)
        report = lab.run("app:1", referrers=True)
        assert only(report)["action"] == "copied"
        held = lab.target.repositories[place("app")]
        assert images.parts(lab.target, place("app"), about) == images.parts(lab.source, "app", about)
        tags = set(held["tags"]) - {"1"}
        if how.startswith("cosign"):
            assert {tag: held["tags"][tag] for tag in tags} == {
                tag: aim for tag, aim in lab.source.tags("app").items() if tag != "1"
            }
        elif api:
            assert tags == set()
        else:
            assert children(lab.target, place("app"), held["tags"][digest.replace(":", "-")])[0] == [about]
        again = lab.run("app:1", referrers=True)
        assert only(again)["action"] == "unchanged"
        # A fallback tag points at a list that the target has in another form, or not at all.
        assert lab.source.count("GET", "/manifests/") == (how == "fallback tag")
        assert lab.writes() == []


@pytest.mark.parametrize(
    ("first", "how"),
    [
        ("api", "api"),
        ("api", "cosign"),
        ("fallback tag", "fallback tag"),
        ("fallback tag", "cosign"),
        ("cosign", "api"),
        ("cosign", "fallback tag"),
        ("cosign", "cosign"),
    ],
)
def test_what_refers_to_a_referrer_comes_along(tmp_path, monkeypatch, first, how):
    with Lab(tmp_path, monkeypatch, source={"referrers": "api" in (first, how)}) as lab:
        _digest, about = signed(lab, first)
        if how == "cosign":
            tag = about.replace(":", "-") + ".sig"
            signature = images.single(lab.source, "app", tag, layers=[b"of it"])["digest"]
        else:
            subject = {"mediaType": OCI_MANIFEST, "digest": about, "size": 1}
            described = images.single(lab.source, "app", layers=[b"of it"], subject=subject)
            signature = described["digest"]
            if how == "fallback tag":
                images.index(lab.source, "app", about.replace(":", "-"), [described])
        assert only(lab.run("app:1", referrers=True))["action"] == "copied"
        for one in (about, signature):
            assert images.parts(lab.target, place("app"), one) == images.parts(lab.source, "app", one)
        assert only(lab.run("app:1", referrers=True))["action"] == "unchanged"


def test_referrers_stay_away_unless_asked_for(lab):
    _digest, about = signed(lab, "cosign")
    lab.run("app:1")
    assert set(lab.tags("app")) == {"1"}
    assert about not in lab.target.repositories[place("app")]["manifests"]
    assert lab.source.count("GET", "/tags/") == 0


def test_referrers_for_an_image_that_was_there_without(lab):
    _digest, about = signed(lab, "fallback tag")
    lab.run("app:1")
    report = lab.run("app:1", referrers=True)
    assert only(report)["action"] == "copied"
    assert about in lab.target.repositories[place("app")]["manifests"]
    assert lab.source.count("GET", "/manifests/") == 2  # the list and what is on it


def test_the_list_of_referrers_keeps_what_others_wrote_there(lab):
    digest, about = signed(lab, "fallback tag")
    lab.run("app:1")
    own = images.single(lab.target, place("app"), layers=[b"scan"])
    images.index(lab.target, place("app"), digest.replace(":", "-"), [own])
    lab.run("app:1", referrers=True)
    merged = lab.tags("app")[digest.replace(":", "-")]
    assert children(lab.target, place("app"), merged)[0] == [own["digest"], about]


def test_what_refers_to_the_whole_is_not_about_a_selection(lab):
    _digest, about = signed(lab, "cosign")
    got = only(lab.run("app:1", referrers=True, platforms=["linux/amd64"]))
    assert got["action"] == "copied"
    assert about not in lab.target.repositories[place("app")]["manifests"]


def test_a_signature_that_is_listed_and_gone_is_passed_over(lab):
    digest, _about = signed(lab, "cosign")
    for tag in (digest.replace(":", "-") + ".sig", digest.replace(":", "-")):
        lab.source.repository("app")["tags"][tag] = digest_of(b"deleted a moment ago")
    assert only(lab.run("app:1", referrers=True))["action"] == "copied"
    assert set(lab.tags("app")) == {"1"}


# --- check mode and the report -----------------------------------------------------------------------------


def test_check_mode_tells_what_the_run_then_does(lab):
    for repository in ("team/app", "team/tool"):
        images.multi(lab.source, repository, "1", [BASE])
    lab.run("team/tool:1")
    images.multi(lab.source, "team/tool", "1", [BASE, b"fix"])
    names = ["team/app:1", "team/tool:1", "team/gone:1"]
    before = json.dumps(lab.target.repositories, default=repr, sort_keys=True)
    check = lab.run(*names, check=True)
    assert lab.writes() == []
    assert lab.source.count("GET", "/blobs/") == 0
    assert json.dumps(lab.target.repositories, default=repr, sort_keys=True) == before
    done = lab.run(*names)
    assert list(actions(check).values()) == ["would copy", "would copy", "failed"]
    assert list(actions(done).values()) == ["copied", "copied", "failed"]
    volatile = ("action", "transferred_bytes", "mounted_bytes", "seconds")
    for foreseen, real in zip(check.images, done.images):
        assert {k: v for k, v in foreseen.items() if k not in volatile} == {
            k: v for k, v in real.items() if k not in volatile
        }
        assert (foreseen["transferred_bytes"], foreseen["mounted_bytes"]) == (0, 0)
        assert (real["transferred_bytes"], real["mounted_bytes"]) == (real["transfer_bytes"], real["mount_bytes"])
    assert check.diff() == done.diff()
    assert (check.changed, done.changed) == (True, True)
    assert check.as_dict()["transfer_bytes"] == done.as_dict()["transferred_bytes"] > 0


def test_check_mode_leaves_no_state_behind(lab):
    images.multi(lab.source, "app", "1")
    lab.run("app:1", check=True)
    assert not lab.state.exists()


def test_the_report_is_json_with_the_same_keys_for_every_outcome(lab):
    for tag in ("new", "same"):
        images.multi(lab.source, "app", tag)
    lab.run("app:same")
    images.single(lab.source, "app", "bad", layers=[b"x"])
    lab.source.hooks.append(refusal("GET", f"/blobs/{digest_of(b'x')}", 404))
    optional = {"name": "app:maybe", "optional": True}
    report = lab.run("app:new", "app:same", "app:gone", "app:bad", optional, "app:UP CASE/x", {"name": "App"})
    result = json.loads(json.dumps(report.as_dict()))
    assert sorted(result) == [
        "changed",
        "check",
        "images",
        "mounted_bytes",
        "pruned",
        "source_requests",
        "transfer_bytes",
        "transferred_bytes",
    ]
    keys = "action before damaged digest image mount_bytes mounted_bytes notes reason seconds source_digest targets"
    for one in result["images"]:
        assert sorted(one) == sorted(f"{keys} transfer_bytes transferred_bytes".split())
    assert {one["action"] for one in result["images"]} == {"copied", "unchanged", "failed", "deferred"}
    assert all(bool(one["reason"]) == (one["action"] in ("failed", "deferred")) for one in result["images"])
    assert [one["action"] for one in result["images"] if "maybe" in one["image"]] == ["deferred"]


# --- bad input ---------------------------------------------------------------------------------------------


def test_two_images_for_one_name_are_refused(lab):
    images.multi(lab.source, "team/app", "1")
    images.multi(lab.source, "other/app", "1")
    with pytest.raises(HomelabError, match="would both be app:1 in the mirror"):
        lab.run("team/app:1", "other/app:1", name_template="{name}")
    assert lab.writes() == []


def test_one_name_for_two_platform_lists_is_refused_in_any_spelling(lab):
    images.multi(lab.source, "app", "1")
    report = lab.run(
        {"name": "app", "tags": ["1"], "platforms": ["linux/amd64"]}, {"name": "app:1", "platforms": ["linux/arm64"]}
    )
    assert sorted(one["action"] for one in report.images) == ["copied", "failed"]
    assert "twice" in report.failed[0]["reason"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "registry:5000"}, "is not a registry's address"),
        ({"url": None}, "is not named"),
        ({"images": []}, "there are no images"),
        ({"images": None}, "there are no images"),
        ({"upstreams": [{"url": "http://x"}]}, "without its registry's name"),
        ({"upstreams": ["quay.io"]}, "without its registry's name"),
        ({"upstreams": [{"registry": "quay.io", "user": "me"}]}, "unknown key 'user'"),
        ({"username": "me"}, "username and password go together"),
        ({"platforms": ["amd64"]}, "is not a platform"),
        ({"workers": -1}, "workers is -1"),
        ({"docker_config": "/nowhere/config.json"}, "/nowhere/config.json"),
    ],
)
def test_settings_that_are_refused(lab, settings, said):
    with pytest.raises(HomelabError, match=said):
        prepare({**lab.settings("app:1"), **settings})


def test_an_alias_of_docker_hub_is_docker_hub_for_upstreams_too(lab):
    digest = images.multi(lab.source, "library/node", "20")
    for alias in ("index.docker.io", "registry-1.docker.io"):
        upstreams = [{"registry": alias, "url": lab.source.url}]
        assert only(prepare(lab.settings("node:20", upstreams=upstreams)).run())["digest"] == digest


def test_secrets_are_in_no_representation(lab):
    request = prepare(
        lab.settings("app:1", username="me", password="S3cret-1")
        | {"upstreams": [{"registry": UPSTREAM, "url": lab.source.url, "username": "you", "password": "S3cret-2"}]}
    )
    shown = repr(vars(request)) + repr(vars(request.endpoints))
    assert "S3cret" not in shown


# --- upstreams that refuse or are not there ----------------------------------------------------------------


@pytest.mark.parametrize("images_by", ["tags", "globs"])
def test_an_upstream_that_is_down_is_asked_once(lab, images_by):
    images.multi(lab.source, "app", "1")
    with HookedRegistry(faults=["close"]) as down:
        names = [f"down.example/app{number}" for number in range(8)]
        if images_by == "globs":
            names = [{"name": name, "tags": "1*"} for name in names]
        upstreams = [{"registry": "down.example", "url": down.url}, {"registry": UPSTREAM, "url": lab.source.url}]
        report = lab.run("app:1", *names, upstreams=upstreams, workers=1)
        assert len(down.requests) <= 5  # one request with its retries
    assert actions(report)["app:1"] == "copied"
    assert len(report.failed) == 8
    assert all(down.url in one["reason"] for one in report.failed)


def test_nothing_listens_at_an_upstream(lab):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    report = lab.run("down.example/app:1", upstreams=[{"registry": "down.example", "url": url}])
    assert only(report)["action"] == "failed"
    assert "nothing listens there" in only(report)["reason"]


@pytest.mark.parametrize(
    ("account", "said"),
    [({}, "unknown or private"), ({"username": "me", "password": "wrong"}, "refuses the account me")],
)
def test_an_upstream_that_wants_an_account(tmp_path, monkeypatch, account, said):
    with Lab(tmp_path, monkeypatch, source={"accounts": {"me": "S3cret"}}) as lab:
        digest = images.multi(lab.source, "app", "1")
        upstream = {"registry": UPSTREAM, "url": lab.source.url}
        got = only(lab.run("app:1", upstreams=[{**upstream, **account}]))
        assert got["action"] == "failed"
        assert said in got["reason"]
        assert "wrong" not in got["reason"]
        got = only(lab.run("app:1", upstreams=[{**upstream, "username": "me", "password": "S3cret"}]))
        assert (got["action"], got["digest"]) == ("copied", digest)


def test_accounts_come_from_the_docker_config(tmp_path, monkeypatch):
    accounts = {"source": {"accounts": {"me": "S3cret"}}, "target": {"accounts": {"you": "S3cret"}}}
    with Lab(tmp_path, monkeypatch, **accounts) as lab:
        images.multi(lab.source, "app", "1")
        auths = {
            UPSTREAM: {"username": "me", "password": "S3cret"},
            lab.target.netloc: {"username": "you", "password": "S3cret"},
        }
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": auths}))
        assert only(lab.run("app:1"))["action"] == "copied"


def test_one_private_image_does_not_spoil_the_others(lab):
    for repository in ("open", "closed"):
        images.multi(lab.source, repository, "1")
    lab.source.hooks.append(refusal("GET HEAD", "/v2/closed/", 403))
    report = lab.run("closed:1", "open:1")
    assert actions(report) == {"closed:1": "failed", "open:1": "copied"}
    assert "give an account" in report.failed[0]["reason"]


def test_a_target_that_refuses_everything_ends_the_run(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch, target={"accounts": {"me": "S3cret"}}) as lab:
        for number in range(6):
            images.multi(lab.source, "app", str(number))
        with pytest.raises(HomelabError, match="401"):
            lab.run(*(f"app:{number}" for number in range(6)), workers=1)
        assert len(lab.target.requests) == 1


def test_a_repository_that_the_target_stumbles_over_does_not_spoil_the_others(lab):
    for repository in ("good", "damaged"):
        images.multi(lab.source, repository, "1")
    lab.target.hooks.append(refusal("HEAD", f"/v2/{place('damaged')}/manifests", 500))
    report = lab.run("damaged:1", "good:1")
    assert actions(report) == {"damaged:1": "failed", "good:1": "copied"}
    assert "500" in report.failed[0]["reason"]


# --- rate limits -------------------------------------------------------------------------------------------


class Limited:
    """A hook for a source that counts GETs of manifests, as Docker Hub does."""

    def __init__(self, remaining):
        self.remaining = remaining

    def __call__(self, handler):
        if "/manifests/" in handler.path:
            if handler.command == "GET":
                self.remaining -= 1
            registry = handler.server.registry
            registry.headers = {"RateLimit_Limit": "100;w=21600", "RateLimit_Remaining": f"{self.remaining};w=21600"}
        return False


@pytest.mark.parametrize("workers", [1, 4])
def test_the_reserve_is_left_to_others(lab, workers):
    names = [f"app{number}:1" for number in range(6)]
    for name in names:
        images.single(lab.source, name[:-2], "1", layers=[BASE, name.encode()])
    limit = Limited(10)
    lab.source.hooks.append(limit)
    report = lab.run(*names, reserve_pulls=7, workers=workers)
    assert limit.remaining == 7
    found = list(actions(report).values())
    assert (found.count("copied"), found.count("deferred")) == (3, 3)
    deferred = report.deferred[0]["reason"]
    assert "7 more of 100 pulls" in deferred
    assert "6 h" in deferred
    assert report.failed == []
    limit.remaining = 100
    report = lab.run(*names, reserve_pulls=7)
    assert sorted(actions(report).values()) == ["copied"] * 3 + ["unchanged"] * 3


def test_what_is_optional_comes_last(lab):
    names = ["app0:1", "app1:1", "app2:1"]
    for name in names:
        images.single(lab.source, name[:-2], "1", layers=[name.encode()])
    lab.source.hooks.append(Limited(2))
    optional = [{"name": name, "optional": True} for name in names[:2]]
    report = lab.run(*optional, names[2], workers=1, reserve_pulls=0)
    assert actions(report) == {"app0:1": "copied", "app1:1": "deferred", "app2:1": "copied"}


@pytest.mark.parametrize(
    ("headers", "tries"), [({"Retry_After": 3600}, 1), ({}, 5), ({"Retry_After": 1}, 5)], ids=["hour", "none", "second"]
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_too_many_requests_defer_the_images_and_are_not_asked_again(lab, headers, tries, method):
    names = [f"app{number}:1" for number in range(5)]
    for name in names:
        images.single(lab.source, name[:-2], "1", layers=[name.encode()])
    lab.source.hooks.append(refusal(method, "/manifests/", 429, **headers))
    report = lab.run(*names, workers=1)
    assert set(actions(report).values()) == {"deferred"}
    assert "too many requests" in report.images[0]["reason"]
    assert lab.source.count(method, "/manifests/") == tries
    assert lab.writes() == []
    assert not report.changed


def test_too_many_requests_for_a_list_of_tags_defer_it(lab):
    images.single(lab.source, "app", "1")
    lab.source.hooks.append(refusal("GET", "/tags/list", 429, Retry_After=3600))
    assert set(actions(lab.run({"name": "app", "tags": "1*"})).values()) == {"deferred"}


def test_a_short_pause_is_kept(lab):
    images.single(lab.source, "app", "1")
    lab.source.hooks.append(refusal("GET HEAD", "/manifests/", 429, times=1, Retry_After=7))
    assert only(lab.run("app:1"))["action"] == "copied"
    assert 6 < sum(lab.clock.slept) <= 7


# --- selection by tags -------------------------------------------------------------------------------------


def test_tags_are_chosen_and_those_that_are_not_there_named(lab):
    for tag in ("1.0.0", "1.1.0", "2.0.0", "nightly"):
        images.single(lab.source, "app", tag, layers=[tag.encode()])
    report = lab.run({"name": "app", "tags": {"semver": ">=1 <2", "list": ["9.9.9"]}}, {"name": "none", "tags": "*"})
    assert actions(report) == {
        "app:9.9.9": "failed",
        "none": "failed",
        "app:1.1.0": "copied",
        "app:1.0.0": "copied",
    }
    assert set(lab.tags("app")) == {"1.1.0", "1.0.0"}
    report = lab.run({"name": "app", "tags": {"regex": "v.*"}})
    assert "none of the 4 tags" in report.failed[0]["reason"]


def test_a_manifest_that_is_not_one(lab):
    images.single(lab.source, "good", "1")
    bad = {
        "unknown type": (
            b'{"schemaVersion":2,"mediaType":"application/vnd.new.v9+json"}',
            "application/vnd.new.v9+json",
        ),
        "schema 1": (b'{"schemaVersion":1,"name":"x"}', "application/vnd.docker.distribution.manifest.v1+json"),
        "page": (b"<html>log in</html>", "text/html"),
        "both": (images.encode({"schemaVersion": 2, "manifests": [], "layers": []}), OCI_MANIFEST),
    }
    for number, (content, kind) in enumerate(bad.values()):
        images.manifest(lab.source, f"bad{number}", content, kind, "1")
    report = lab.run(*(f"bad{number}:1" for number in range(len(bad))), "good:1")
    assert list(actions(report).values()) == ["failed"] * len(bad) + ["copied"]
    said = " ".join(one["reason"] for one in report.failed)
    for words in ("application/vnd.new.v9+json is not supported", "schema 1", "is not JSON", "ambiguous"):
        assert words in said


def test_a_manifest_with_another_digest_than_it_should_have(lab):
    for repository in ("bad", "good"):
        images.multi(lab.source, repository, "1", [BASE])
    child = children(lab.source, "bad", lab.source.tags("bad")["1"])[0][1]
    other = lab.source.repositories["good"]["manifests"]
    wrong = next(content for kind, content in other.values() if kind == OCI_MANIFEST)

    def lie(handler):
        if handler.command == "GET" and handler.path == f"/v2/bad/manifests/{child}":
            return answer(handler, 200, wrong, Content_Type=OCI_MANIFEST, Docker_Content_Digest=child)
        return False

    lab.source.hooks.append(lie)
    report = lab.run("bad:1", "good:1")
    assert actions(report) == {"bad:1": "failed", "good:1": "copied"}
    assert child in report.failed[0]["reason"]
    assert lab.tags("bad") == {}
    images.assert_whole(lab.target)
