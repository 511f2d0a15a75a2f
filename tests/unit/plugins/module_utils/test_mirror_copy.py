# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a mirror run copies: each blob once, in an order that shows no half image, through every kind of failure."""

from __future__ import annotations

import hashlib
import os
import signal

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring import copy
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.copy import CHUNK, Progress
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_registry import OCI_MANIFEST, FakeRegistry, digest_of
from ansible_collections.homelab.registry.tests.unit.mirror_lab import (
    UPSTREAM,
    Lab,
    actions,
    answer,
    blob_path,
    only,
    place,
    refusal,
)

BASE = images.data("base", 5000)
#: Of several pieces, so that it can break off in the middle.
LARGE = images.data("large", 3 * CHUNK)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch) as lab:
        yield lab


class Counted(Progress):
    def __init__(self):
        self.bytes, self.images = 0, []

    def moved(self, count):
        self.bytes += count

    def finished(self, result):
        self.images.append((result.plan.name.replace(f"{UPSTREAM}/", ""), result.action))


def blobs_read(registry):
    """Number of GETs by digest."""
    found = {}
    for one in registry.requests:
        if one.startswith("GET ") and "/blobs/" in one:
            digest = one.rpartition("/")[2]
            found[digest] = found.get(digest, 0) + 1
    return found


# --- once, and mounted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 8])
def test_every_blob_is_read_once_and_mounted_elsewhere(lab, workers):
    names = [f"team/app{number}:{tag}" for number in range(3) for tag in ("1", "2")]
    for name in names:
        images.multi(lab.source, *name.split(":"), [BASE])
    counted = Counted()
    report = lab.run(*names, workers=workers, progress=counted)
    assert set(actions(report).values()) == {"copied"}
    unique = {
        digest: len(content) for held in lab.source.repositories.values() for digest, content in held["blobs"].items()
    }
    assert blobs_read(lab.source) == dict.fromkeys(unique, 1)
    total = report.as_dict()
    assert total["transfer_bytes"] == total["transferred_bytes"] == counted.bytes == sum(unique.values())
    assert total["mounted_bytes"] == sum(one["mount_bytes"] for one in report.images) > 0
    mounts = [one.split("&from=") for one in lab.target.requests if f"mount={digest_of(BASE)}" in one]
    assert sum(origin not in begun for begun, origin in mounts) == 2
    assert sorted(counted.images) == [(name, "copied") for name in names]
    images.assert_whole(lab.target)
    for name in names:
        repository, tag = name.split(":")
        assert lab.tags(repository)[tag] == lab.source.tags(repository)[tag]


def test_what_an_earlier_run_left_elsewhere_is_mounted(lab):
    images.multi(lab.source, "team/app", "1", [BASE], platforms=["linux/amd64"])
    images.multi(lab.source, "team/tool", "1", [BASE], platforms=["linux/amd64"])
    lab.run("team/app:1")
    assert digest_of(BASE) in lab.remembered()["blobs"]
    got = only(lab.run("team/tool:1"))
    assert digest_of(BASE) not in blobs_read(lab.source)
    assert (got["action"], got["mount_bytes"], got["mounted_bytes"]) == ("copied", len(BASE), len(BASE))
    assert f"mount={digest_of(BASE)}&from={place('team/app')}" in "".join(lab.target.requests)
    images.assert_whole(lab.target)


@pytest.mark.parametrize("memory", ["gone", "no such repository", "forbidden", "two places"])
def test_a_memory_that_is_not_true_any_more_does_no_harm(lab, memory):
    images.multi(lab.source, "team/app", "1", [BASE], platforms=["linux/amd64"])
    images.multi(lab.source, "team/tool", "1", [BASE], platforms=["linux/amd64"])
    lab.run("team/app:1")
    held = lab.target.repositories[place("team/app")]["blobs"]
    if memory == "no such repository":
        lab.remember({digest_of(BASE): ["deleted/repository"]})
    elif memory == "forbidden":
        lab.target.hooks.append(refusal("HEAD", f"/v2/{place('team/app')}/blobs/", 403))
    elif memory == "two places":
        lab.remember({digest_of(BASE): ["deleted/repository", place("team/app")]})
    else:
        del held[digest_of(BASE)]
    got = only(lab.run("team/tool:1"))
    assert got["action"] == "copied"
    assert images.parts(lab.target, place("team/tool"), got["digest"])
    mounted = memory == "two places"
    assert (digest_of(BASE) in blobs_read(lab.source), got["mounted_bytes"] > 0) == (not mounted, mounted)
    assert lab.remembered()["blobs"][digest_of(BASE)] == [
        place(f"team/{n}") for n in (["app", "tool"] if mounted else ["tool"])
    ]


def test_a_blob_that_vanishes_between_plan_and_mount_is_sent(lab):
    images.multi(lab.source, "team/app", "1", [BASE], platforms=["linux/amd64"])
    images.multi(lab.source, "team/tool", "1", [BASE], platforms=["linux/amd64"])
    lab.run("team/app:1")

    def collect(handler):
        if handler.command == "POST":
            lab.target.repositories[place("team/app")]["blobs"].pop(digest_of(BASE), None)
        return False

    lab.target.hooks.append(collect)
    got = only(lab.run("team/tool:1"))
    assert (got["action"], got["mounted_bytes"]) == ("copied", 0)
    assert got["transferred_bytes"] == got["transfer_bytes"] + got["mount_bytes"]
    assert blobs_read(lab.source)[digest_of(BASE)] == 1
    assert images.parts(lab.target, place("team/tool"), got["digest"])


def test_a_target_that_does_not_mount_gets_everything_sent(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch, target={"faults": ["no mount"]}) as lab:
        for name in ("app", "tool"):
            images.multi(lab.source, name, "1", [BASE], platforms=["linux/amd64"])
        assert set(actions(lab.run("app:1", "tool:1")).values()) == {"copied"}
        images.assert_whole(lab.target)


def test_a_new_repository_costs_one_question_and_not_one_a_blob(lab):
    for name in ("app", "tool"):
        images.multi(lab.source, name, "1", [BASE])
        images.multi(lab.source, name, "2", [BASE])
    lab.run("app:1")
    assert lab.target.count("GET", "/tags/list") == 1
    assert lab.target.count("HEAD", "/blobs/") == 0
    lab.run("app:2", "tool:1")  # one is known now, and asked for its blobs; what it has is mounted in the other
    assert lab.target.count("GET", "/tags/list") == 2
    assert lab.target.count("HEAD", f"/v2/{place('tool')}/blobs/") == 0
    assert lab.target.count("HEAD", f"/v2/{place('app')}/blobs/") == 7
    assert digest_of(BASE) not in blobs_read(lab.source)
    images.assert_whole(lab.target)


def test_blobs_that_a_killed_run_left_in_a_new_repository_are_not_sent_again(lab):
    digest = images.single(lab.source, "app", "1", layers=[LARGE, BASE])["digest"]
    images.blob(lab.target, place("app"), LARGE)
    got = only(lab.run("app:1"))
    assert (got["action"], got["digest"]) == ("copied", digest)
    assert digest_of(LARGE) not in blobs_read(lab.source)
    assert got["mounted_bytes"] == len(LARGE)
    assert got["transferred_bytes"] == got["transfer_bytes"] - len(LARGE)
    images.assert_whole(lab.target)


def test_a_target_that_lists_no_tags_is_asked_for_each_blob(lab):
    images.single(lab.source, "app", "1", layers=[LARGE, BASE])
    images.blob(lab.target, place("app"), LARGE)
    lab.target.hooks.append(refusal("GET", "/tags/list", 403))
    got = only(lab.run("app:1"))
    assert got["action"] == "copied"
    assert lab.target.count("HEAD", "/blobs/") == 3
    assert digest_of(LARGE) not in blobs_read(lab.source)


# --- who hashes --------------------------------------------------------------------------------------------


class Hashed:
    """Stands for hashlib in the copier, and counts the bytes."""

    def __init__(self):
        self.bytes = 0

    def new(self, name):
        outer, hasher = self, hashlib.new(name)

        class Counting:
            hexdigest = hasher.hexdigest

            def update(self, data):
                outer.bytes += len(data)
                hasher.update(data)

        return Counting()


@pytest.fixture
def hashed(monkeypatch):
    monkeypatch.setattr(copy, "WORTH_ASKING", 1)
    monkeypatch.setattr(copy, "hashlib", Hashed())
    return copy.hashlib


def test_a_target_that_shows_that_it_hashes_is_left_to_do_it(lab, hashed):
    digest = images.multi(lab.source, "app", "1", [LARGE])
    assert only(lab.run("app:1"))["digest"] == digest
    assert hashed.bytes == 0
    assert [method for method, _path, status in lab.target.answers if status == 400] == ["PUT"]
    assert lab.target.uploads == {}
    images.assert_whole(lab.target)


@pytest.mark.parametrize("refusal_of", ["nothing", "the question"])
def test_any_other_target_gets_what_was_hashed_here(lab, hashed, refusal_of):
    content = images.data("small")
    images.single(lab.source, "bad", "1", layers=[content])
    digest = images.multi(lab.source, "good", "1", [LARGE])
    if refusal_of == "nothing":
        lab.target.faults = {"any digest"}
    else:
        lab.target.hooks.append(refusal("POST", "/blobs/uploads/", 500, times=2))
    lab.source.hooks.append(other_bytes(content))
    report = lab.run("bad:1", "good:1")
    assert actions(report) == {"bad:1": "failed", "good:1": "copied"}
    assert "content with the hash" in report.failed[0]["reason"]
    assert digest_of(content) not in lab.target.repositories[place("bad")]["blobs"]
    assert hashed.bytes >= len(LARGE)
    assert images.parts(lab.target, place("good"), digest) == images.parts(lab.source, "good", digest)


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
def test_what_the_target_refuses_is_read_again_and_hashed_to_see_whose_fault_it_was(lab, hashed, times):
    digest = images.single(lab.source, "app", "1", layers=[LARGE])["digest"]
    left = [times]

    def hook(handler):
        if left[0] == 0 or not other_bytes(LARGE)(handler):
            return False
        left[0] = left[0] and left[0] - 1
        return True

    lab.source.hooks.append(hook)
    counted = Counted()
    got = only(lab.run("app:1", progress=counted))
    assert lab.target.uploads == {}
    assert hashed.bytes == len(LARGE)
    assert counted.bytes == got["transferred_bytes"]
    if times:
        assert (got["action"], got["digest"]) == ("copied", digest)
        images.assert_whole(lab.target)
    else:
        assert got["action"] == "failed"
        assert f"{UPSTREAM} sends content with the hash" in got["reason"]
        assert lab.tags("app") == {}
        assert digest_of(LARGE) not in lab.target.repositories[place("app")]["blobs"]


# --- two upstreams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["wrong", "missing", "limited", "none"])
def test_a_blob_that_two_upstreams_have_comes_from_the_other_if_one_fails(lab, fault):
    faults = {
        "wrong": other_bytes(BASE),
        "missing": refusal("GET", blob_path(BASE), 404),
        "limited": refusal("GET", blob_path(BASE), 429, Retry_After=3600),
        "none": lambda handler: False,
    }
    lab.source.hooks.append(faults[fault])
    with FakeRegistry() as other:
        images.multi(lab.source, "app", "1", [BASE])
        images.multi(other, "tool", "1", [BASE])
        upstreams = [{"registry": UPSTREAM, "url": lab.source.url}, {"registry": "other.example", "url": other.url}]
        report = lab.run("app:1", "other.example/tool:1", upstreams=upstreams, workers=1)
        # What limits us gives nothing else either.
        assert [one["action"] for one in report.images] == ["deferred" if fault == "limited" else "copied", "copied"]
        assert other.count("GET", blob_path(BASE)) == (fault != "none")
        images.assert_whole(lab.target)


def test_the_first_upstream_is_named_if_a_blob_comes_from_none(lab):
    lab.source.hooks.append(other_bytes(BASE))
    with FakeRegistry() as other:
        images.single(lab.source, "app", "1", layers=[BASE])
        images.single(other, "tool", "1", layers=[BASE])
        other.say(404, method="GET", path=blob_path(BASE))
        upstreams = [{"registry": UPSTREAM, "url": lab.source.url}, {"registry": "other.example", "url": other.url}]
        report = lab.run("app:1", "other.example/tool:1", upstreams=upstreams, workers=1)
    assert set(actions(report).values()) == {"failed"}
    assert all(f"{UPSTREAM} sends content with the hash" in one["reason"] for one in report.failed)


# --- order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 8])
def test_blobs_then_children_then_the_tag(lab, workers):
    names = [f"app{number}:1" for number in range(3)]
    for name in names:
        images.multi(lab.source, name[:-2], "1", [BASE])
    lab.run(*names, workers=workers)
    ends = {"blob": {}, "child": {}, "tag": {}}
    for number, (method, path, status) in enumerate(lab.target.answers):
        if method not in ("PUT", "POST") or status != 201:
            continue
        repository = path.partition("/blobs/")[0].partition("/manifests/")[0]
        kind = "blob" if "/blobs/" in path else "child" if "/manifests/sha256" in path else "tag"
        ends[kind].setdefault(repository, []).append(number)
    for repository in ends["tag"]:
        assert len(ends["blob"][repository]) == 7  # the base, and a layer and a config for each platform
        assert len(ends["child"][repository]) == 3
        assert max(ends["blob"][repository] + ends["child"][repository]) < min(ends["tag"][repository])
    assert len(ends["tag"]) == 3


def test_no_moment_shows_half_an_image(lab):
    for number in range(3):
        images.multi(lab.source, f"app{number}", "1", [BASE])
    looked = []

    def look(handler):
        if handler.command in ("PUT", "POST"):
            for name in list(lab.target.repositories):
                for digest in lab.target.tags(name).values():
                    images.parts(lab.target, name, digest)
            looked.append(handler.path)
        return False

    lab.target.hooks.append(look)
    assert set(actions(lab.run("app0:1", "app1:1", "app2:1", workers=8)).values()) == {"copied"}
    assert looked


def test_a_target_that_says_another_digest_than_it_took_is_not_believed(lab):
    digest = images.multi(lab.source, "app", "1", [BASE])
    lab.target.hooks.append(
        lambda handler: (
            handler.command == "PUT"
            and handler.path.endswith("/manifests/1")
            and answer(handler, 201, Docker_Content_Digest=digest)
        )
    )
    got = only(lab.run("app:1"))
    assert got["action"] == "failed"
    assert "that it is not there" in got["reason"]


# --- one bad image among good ones -------------------------------------------------------------------------


def other_bytes(content, *, sent=None, length=None):
    """A hook for a source that gives something else as a blob."""

    def hook(handler):
        if handler.command == "GET" and handler.path.endswith(blob_path(content)):
            return answer(handler, 200, content[:-1] + b"?" if sent is None else sent, length)
        return False

    return hook


@pytest.mark.parametrize(
    ("content", "fault", "said"),
    [
        (b"own", other_bytes, "content with the hash"),
        (LARGE, other_bytes, "content with the hash"),
        (LARGE, lambda content: other_bytes(content, sent=content[:-7]), "bytes instead of"),
        (LARGE, lambda content: other_bytes(content, sent=content + b"more"), "bytes instead of"),
        (LARGE, lambda content: other_bytes(content, sent=content[: 2 * CHUNK], length=len(content)), "broke off"),
        (b"own", lambda content: refusal("GET", blob_path(content), 404), "404"),
        (b"own", lambda content: refusal("GET", blob_path(content), 403), "403"),
        (b"own", lambda content: refusal("GET", blob_path(content), 500), "500"),
        (
            b"own",
            lambda content: refusal("GET", blob_path(content), 307, Location="http://127.0.0.1:9/x"),
            "127.0.0.1:9",
        ),
    ],
    ids=[
        "wrong",
        "wrong-large",
        "short",
        "long",
        "breaks-off-always",
        "missing",
        "forbidden",
        "broken",
        "blocked-redirect",
    ],
)
def test_a_bad_blob_fails_its_image_and_no_other(lab, content, fault, said):
    images.single(lab.source, "bad", "1", layers=[BASE, content])
    good = [f"good{number}:1" for number in range(4)]
    for name in good:
        images.multi(lab.source, name[:-2], "1", [BASE])
    lab.source.hooks.append(fault(content))
    counted = Counted()
    report = lab.run("bad:1", *good, progress=counted)
    assert actions(report) == {"bad:1": "failed", **dict.fromkeys(good, "copied")}
    assert said in report.failed[0]["reason"]
    assert lab.tags("bad") == {}
    assert lab.target.repositories[place("bad")]["manifests"] == {}
    assert digest_of(content) not in lab.target.repositories[place("bad")]["blobs"]
    assert lab.target.count("DELETE", f"/v2/{place('bad')}/blobs/uploads/") == 1  # nothing is left of the attempt
    assert lab.target.uploads == {}
    images.assert_whole(lab.target)
    assert counted.bytes == sum(one["transferred_bytes"] for one in report.images)
    assert sorted(counted.images) == sorted(actions(report).items())


def test_bad_names_and_unknown_tags_among_good_ones(lab):
    images.single(lab.source, "good", "1")
    report = lab.run("good:gone", "Upper/Case", "nothere:1", "good:1", "good:1@sha256:12")
    assert [one["action"] for one in report.images].count("failed") == 4
    assert actions(report)["good:1"] == "copied"
    reasons = {one["image"].replace(f"{UPSTREAM}/", ""): one["reason"] for one in report.failed}
    assert "there is no up.example/good:gone" in reasons["good:gone"]
    assert "Case" in reasons["Upper/Case"]
    assert "64" in reasons["good:1@sha256:12"]


# --- the source breaks off ---------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [[], ["no range"], ["chunked"]])
def test_a_source_that_breaks_off_goes_on_where_it_stopped(lab, faults):
    lab.source.faults = set(faults)
    digest = images.single(lab.source, "app", "1", layers=[LARGE])["digest"]
    lab.source.break_blobs = [CHUNK + 17, CHUNK // 2] if not faults else [CHUNK + 17]
    counted = Counted()
    got = only(lab.run("app:1", workers=1, progress=counted))
    assert (got["action"], got["digest"]) == ("copied", digest)
    assert images.parts(lab.target, place("app"), digest) == images.parts(lab.source, "app", digest)
    ranges = [seen[2].get("Range") for seen in lab.source.seen if seen[1].endswith(blob_path(LARGE))]
    if faults == ["chunked"]:  # what came of a piece that broke off is lost with it
        assert ranges == [None, f"bytes={CHUNK}-"]
    else:
        begun = [None, f"bytes={CHUNK + 17}-"]
        assert ranges == (begun if faults else [*begun, f"bytes={CHUNK + 17 + CHUNK // 2}-"])
    assert lab.target.count("POST") == 2  # one upload for the layer, one for the config
    assert got["transferred_bytes"] == counted.bytes == got["transfer_bytes"]


def test_a_source_that_answers_another_range_fails(lab):
    lab.source.faults = {"wrong range"}
    images.single(lab.source, "app", "1", layers=[LARGE])
    lab.source.break_blobs = [CHUNK]
    got = only(lab.run("app:1", workers=1))
    assert got["action"] == "failed"
    assert lab.tags("app") == {}


def test_a_source_that_goes_down_in_the_middle_is_not_asked_for_every_blob(lab):
    names = [f"app{number}:1" for number in range(6)]
    for name in names:
        images.single(lab.source, name[:-2], "1", layers=[name.encode()])
    lab.source.hooks.append(
        lambda handler: "/blobs/" in handler.path and (setattr(handler, "close_connection", True) or True)
    )
    report = lab.run(*names, workers=1)
    assert set(actions(report).values()) == {"failed"}
    assert len(lab.source.requests) <= 12 + 4 * 6  # HEAD and GET of each manifest, then one blob's tries
    assert lab.target.uploads == {}


# --- the target breaks off ---------------------------------------------------------------------------------


def test_a_target_that_breaks_off_gets_that_blob_anew(lab):
    digest = images.single(lab.source, "app", "1", layers=[LARGE, BASE])["digest"]
    lab.target.break_uploads = [CHUNK + 17]
    counted = Counted()
    got = only(lab.run("app:1", workers=1, progress=counted))
    assert (got["action"], got["digest"]) == ("copied", digest)
    read = blobs_read(lab.source)
    assert read.pop(digest_of(LARGE)) == 2
    assert set(read.values()) == {1}
    assert lab.target.count("POST") == 4  # two layers, the config, and a new upload for the one that broke off
    assert not any(seen[2].get("Range") for seen in lab.source.seen)
    assert counted.bytes == got["transferred_bytes"] == got["transfer_bytes"]
    assert lab.clock.slept


def test_a_target_that_breaks_off_for_ever_fails_the_image_in_the_end(lab):
    for name in ("app", "good"):
        images.single(lab.source, name, "1", layers=[LARGE if name == "app" else BASE])
    lab.target.break_uploads = [CHUNK] * 3
    report = lab.run("app:1", "good:1", workers=1)
    assert actions(report) == {"app:1": "failed", "good:1": "copied"}
    assert lab.tags("app") == {}
    assert blobs_read(lab.source)[digest_of(LARGE)] == 3


def test_a_disk_that_is_full_in_the_middle_of_an_upload(lab):
    for name, layer in (("large", LARGE), ("small", BASE)):
        images.single(lab.source, name, "1", layers=[layer])
    lab.target.full_after = CHUNK + 100
    report = lab.run("large:1", "small:1")
    assert actions(report) == {"large:1": "failed", "small:1": "copied"}
    reason = report.failed[0]["reason"]
    assert "500" in reason
    assert "full disk" in reason
    assert lab.tags("large") == {}
    images.assert_whole(lab.target)


@pytest.mark.parametrize("kind", ["read-only", "pull-through cache"])
def test_a_target_that_takes_no_writes_is_asked_few_times(lab, kind):
    names = [f"app{number}:1" for number in range(8)]
    for name in names:
        images.multi(lab.source, name[:-2], "1", [BASE])
    if kind == "read-only":
        lab.target.readonly = True
    else:
        said = b'{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}'
        lab.target.hooks.append(refusal("POST PUT PATCH DELETE", "/v2/", 405, said))
    report = lab.run(*names, workers=2)
    assert set(actions(report).values()) == {"failed"}
    assert all("read-only, or a pull-through cache" in one["reason"] for one in report.failed)
    assert len(lab.writes()) <= 2  # one for each worker
    assert blobs_read(lab.source) == {}
    assert not report.changed


def test_a_target_that_goes_away_ends_everything_soon(lab):
    names = [f"app{number}:1" for number in range(8)]
    for name in names:
        images.multi(lab.source, name[:-2], "1", [BASE])
    lab.target.hooks.append(
        lambda handler: handler.command == "POST" and (setattr(handler, "close_connection", True) or True)
    )
    report = lab.run(*names, workers=2)
    assert set(actions(report).values()) == {"failed"}
    assert len(lab.writes()) <= 2 * 6  # each worker's first with its retries


def test_an_account_that_may_not_push(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch) as lab:
        images.multi(lab.source, "app", "1", [BASE])
        lab.target.hooks.append(refusal("POST", "/blobs/uploads/", 403))
        got = only(lab.run("app:1"))
        assert got["action"] == "failed"
        assert "give an account that may do this" in got["reason"]


def test_targets_with_short_lived_tokens(tmp_path, monkeypatch):
    account = {"username": "me", "password": "S3cret"}
    with Lab(tmp_path, monkeypatch, source={"tokens": 60}, target={"tokens": 60, "accounts": {"me": "S3cret"}}) as lab:
        for name in ("app", "tool"):
            images.multi(lab.source, name, "1", [BASE])
        begun = []

        def expire(handler):
            if handler.command == "POST" and "/blobs/" in handler.path:
                begun.append(handler.path)
                if len(begun) == 2:
                    lab.target.expire()
            return False

        lab.target.hooks.append(expire)
        report = lab.run("app:1", "tool:1", workers=1, **account)
        assert set(actions(report).values()) == {"copied"}
        assert ("POST", begun[1], 401) in lab.target.answers
        images.assert_whole(lab.target)


def test_a_blob_whose_token_expires_before_its_upload_is_begun_again(tmp_path, monkeypatch):
    account = {"username": "me", "password": "S3cret"}
    with Lab(tmp_path, monkeypatch, target={"tokens": 60, "accounts": {"me": "S3cret"}}) as lab:
        images.single(lab.source, "app", "1", layers=[LARGE])
        expired = []

        def expire(handler):
            if handler.command == "PUT" and not expired and "/blobs/" in handler.path:
                expired.append(lab.target.expire())
            return False

        lab.target.hooks.append(expire)
        assert only(lab.run("app:1", workers=1, **account))["action"] == "copied"
        assert expired


def test_an_image_whose_source_limits_blobs_is_deferred(lab):
    for name in ("app", "good"):
        images.single(lab.source, name, "1", layers=[name.encode()])
    lab.source.hooks.append(refusal("GET", blob_path(b"app"), 429, Retry_After=3600))
    report = lab.run("app:1", "good:1", workers=1)
    assert actions(report)["app:1"] == "deferred"
    assert report.failed == []
    assert lab.target.uploads == {}


# --- interrupted -------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_known_and_leaves_no_half_image(lab):
    names = [f"app{number}:1" for number in range(6)]
    for name in names:
        images.multi(lab.source, name[:-2], "1", [BASE])

    class Interrupting(Progress):
        pressed = False

        def finished(self, result):
            if not self.pressed:
                self.pressed = True
                lab.source.delay = 0.05  # the others are far from done when the signal arrives
                os.kill(os.getpid(), signal.SIGINT)

    # Where the tests run in the background, Python would take no notice of the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            lab.run(*names, workers=1, progress=Interrupting())
    finally:
        signal.signal(signal.SIGINT, before)
    held = lab.remembered()
    assert held["blobs"]
    assert 1 <= len(held["tags"]) < len(names)
    assert {f"{name}:{tag}" for name in lab.target.repositories for tag in lab.target.tags(name)} == set(held["tags"])
    assert len(blobs_read(lab.source)) < 6 * 6
    images.assert_whole(lab.target)
    lab.source.delay = 0
    report = lab.run(*names)
    assert set(actions(report).values()) == {"unchanged", "copied"}
    assert digest_of(BASE) not in blobs_read(lab.source)


def test_a_mistake_of_ours_is_not_taken_for_an_image_that_is_still_copied(lab):
    images.multi(lab.source, "app", "1", [BASE])

    class Broken(Progress):
        def moved(self, count):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lab.run("app:1", progress=Broken())
    assert lab.tags("app") == {}


def test_a_state_file_that_cannot_be_written_is_said(lab):
    images.multi(lab.source, "app", "1", [BASE])
    with pytest.raises(HomelabError, match="cannot be written"):
        lab.run("app:1", state_path="/proc/nothing/state.json")


def test_a_manifest_under_two_types_is_kept_as_the_source_sends_it(lab):
    digest = images.single(lab.source, "app", "1", typed=False)["digest"]
    lab.run("app:1")
    assert lab.target.repositories[place("app")]["manifests"][digest][0] == OCI_MANIFEST
