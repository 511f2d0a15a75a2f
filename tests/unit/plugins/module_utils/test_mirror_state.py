# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror run remembers: only a hint, nobody else's business, and nothing that can break a run."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.run import default_state_path
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.state import (
    PLACES,
    State,
    mirrored_names,
    protected_digests,
)
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_registry import digest_of
from ansible_collections.homelab.registry.tests.unit.mirror_lab import Lab, only, place

TARGET = "registry:5000"
DIGEST = digest_of(b"blob")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep/er/state.json"


def filled(path):
    state = State(path, TARGET)
    state.remember(DIGEST, "team/app")
    state.mirrored("team/app", "1", "quay.io/team/app:1", digest_of(b"manifest"))
    state.save()
    return state


def test_what_was_saved_is_there_again(path):
    filled(path)
    again = State(path, TARGET)
    assert again.places(DIGEST) == ["team/app"]
    assert again.tags_of("team/app") == {"1": {"source": "quay.io/team/app:1", "digest": digest_of(b"manifest")}}
    assert again.tags_of("team") == again.tags_of("app") == {}


def test_the_file_is_for_its_owner_only(path):
    filled(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["state.json"]


def test_a_state_without_a_path_lives_for_one_run(tmp_path):
    state = State(None, TARGET)
    state.remember(DIGEST, "app")
    state.save()
    assert state.places(DIGEST) == ["app"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_target_is_refused(path):
    filled(path)
    before = path.read_bytes()
    with pytest.raises(HomelabError, match="is about registry:5000, not about nas:5000") as caught:
        State(path, "nas:5000")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


GOOD = {"version": 1, "target": TARGET, "blobs": {DIGEST: ["app"]}, "tags": {}}
DAMAGED = {
    "empty": b"",
    "half": json.dumps(GOOD).encode()[:-9],
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "no target": b'{"version":1}',
    "no blobs": json.dumps({**GOOD, "blobs": None}).encode(),
    "odd places": json.dumps({**GOOD, "blobs": {DIGEST: 7}}).encode(),
    "a number for a place": json.dumps({**GOOD, "blobs": {DIGEST: [7]}}).encode(),
    "odd tags": json.dumps({**GOOD, "tags": {"app:1": "x"}}).encode(),
    "a tag without source": json.dumps({**GOOD, "tags": {"app:1": {"digest": DIGEST}}}).encode(),
    "another version": json.dumps({**GOOD, "version": 2}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_like_none(path, damage):
    path.parent.mkdir(parents=True)
    path.write_bytes(DAMAGED[damage])
    state = State(path, TARGET)
    assert (state.places(DIGEST), state.tags_of("app")) == ([], {})
    state.remember(DIGEST, "app")
    state.save()
    assert State(path, TARGET).places(DIGEST) == ["app"]


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(HomelabError, match="the state file cannot be read: Is a directory"):
        State(tmp_path, TARGET)


def test_a_place_that_cannot_be_written_to_is_said_before_the_work(tmp_path, monkeypatch):
    """Root may write anywhere, so that access() has to be asked for another user's answer."""
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    with pytest.raises(HomelabError, match=f"{tmp_path} is no directory that this user may write to") as caught:
        State(tmp_path / "new" / "state.json", "mirror:5000")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
    assert "state_path" in caught.value.remedy


def test_places_are_few_and_the_latest(path):
    state = State(path, TARGET)
    for number in range(PLACES + 2):
        state.remember(DIGEST, f"app{number}")
        state.remember(DIGEST, f"app{number}")
    assert state.places(DIGEST) == [f"app{number}" for number in range(2, PLACES + 2)]
    for number in range(PLACES + 2):
        state.forget(DIGEST, f"app{number}")
        state.forget(DIGEST, "never there")
    assert state.places(DIGEST) == []
    state.save()
    assert not path.exists(), "there is nothing new to keep"


def test_what_is_handed_out_is_a_copy(path):
    state = filled(path)
    state.places(DIGEST).append("x")
    state.tags_of("team/app")["1"]["digest"] = "x"
    assert state.places(DIGEST) == ["team/app"]
    assert state.tags_of("team/app")["1"]["digest"] == digest_of(b"manifest")


def test_tags_of_a_registry_with_a_port_are_told_apart(path):
    state = State(path, TARGET)
    state.mirrored("nas_5000/app", "1.0", "nas:5000/app:1.0", DIGEST)
    assert list(state.tags_of("nas_5000/app")) == ["1.0"]
    state.pruned("nas_5000/app", "1.0")
    state.pruned("nas_5000/app", "1.0")
    assert state.tags_of("nas_5000/app") == {}


def test_threads_may_save_while_others_remember(path):
    state = State(path, TARGET)

    def work(number):
        for each in range(50):
            state.remember(digest_of(b"%d-%d" % (number, each)), f"app{number}")
            if each % 10 == 0:
                state.save()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state.save()
    assert len(json.loads(path.read_text())["blobs"]) == 200


def test_two_runs_at_a_time_keep_what_the_other_one_has_learnt(path):
    filled(path)
    one, two = State(path, TARGET), State(path, TARGET)
    one.pinned("app", DIGEST, "docker.io/app@sha256:x")
    one.pruned("team/app", "1")
    one.save()
    two.mirrored("app", "2", "docker.io/app:2", DIGEST)
    two.save()
    assert protected_digests(path) == {DIGEST}
    assert mirrored_names(path, TARGET) == {f"app@{DIGEST}", "app:2"}
    one.mirrored("app", "3", "docker.io/app:3", DIGEST)
    path.unlink()  # somebody has removed it: what this run knows is better than nothing
    one.save()
    assert mirrored_names(path, TARGET) == {f"app@{DIGEST}", "app:3"}


@pytest.mark.parametrize(
    ("host", "name"),
    [("reg:5000", "mirror-reg_5000.json"), ("[::1]:5000", "mirror-___1__5000.json"), ("a/../b", "mirror-a_.._b.json")],
)
def test_every_target_has_a_file_of_its_own_by_default(monkeypatch, tmp_path, host, name):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_path(host) == tmp_path / "homelab-registry" / name
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_path("r") == tmp_path / ".local/state/homelab-registry/mirror-r.json"


# --- in a run ----------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch) as lab:
        yield lab


def test_a_run_remembers_blobs_and_the_tags_it_brought(lab):
    digest = images.multi(lab.source, "app", "1")
    lab.run("app:1")
    held = lab.remembered()
    assert held["target"] == lab.target.netloc
    assert held["blobs"] == {blob: [place("app")] for blob in lab.source.repositories["app"]["blobs"]}
    assert held["tags"] == {f"{place('app')}:1": {"source": place("app:1"), "digest": digest}}
    assert Path(lab.state).stat().st_mode & 0o777 == 0o600


def test_a_run_without_state_path_uses_the_default(lab, tmp_path):
    images.multi(lab.source, "app", "1")
    lab.run("app:1", state_path=None)
    assert [one.name for one in (tmp_path / "xdg/homelab-registry").iterdir()] == [
        f"mirror-{lab.target.netloc.replace(':', '_')}.json"
    ]


def test_a_run_with_the_file_of_another_target_is_refused(lab):
    images.multi(lab.source, "app", "1")
    lab.state.write_text(json.dumps(GOOD))
    with pytest.raises(HomelabError, match="is about registry:5000"):
        lab.run("app:1")
    assert lab.target.requests == lab.source.requests == []


def test_images_by_digest_alone_are_told_to_retention(lab):
    assert protected_digests(lab.state) == frozenset()
    pinned = images.multi(lab.source, "app", "1", [b"old"])
    images.multi(lab.source, "app", "1", [b"new"])
    lab.run("app:1", f"app@{pinned}")
    assert protected_digests(lab.state) == {pinned}
    lab.state.unlink()  # it is there already: the next run remembers again
    lab.run(f"app@{pinned}")
    assert protected_digests(lab.state) == {pinned}
    lab.run("app:1")
    assert protected_digests(lab.state) == {pinned}


def test_a_failed_image_by_digest_protects_nothing(lab):
    digest = images.single(lab.source, "app", "1", layers=[b"layer"])["digest"]
    lab.source.repositories["app"]["blobs"].clear()
    assert only(lab.run(f"app@{digest}"))["action"] == "failed"
    assert protected_digests(lab.state) == frozenset()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"version": 99}', b'{"version": 1, "pinned": {"d": [1]}}', b"\xff"]
)
def test_a_file_that_does_not_tell_is_no_leave_to_delete(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(HomelabError, match="cannot be told which images") as caught:
        protected_digests(path)
    assert caught.value.where == str(path)


ODD = {
    "a source that is none": {"tags": {f"{place('app')}:9": {"digest": DIGEST, "source": "A B"}}},
    "letters for places": {"blobs": {digest_of(b"layer"): "app"}},
    "no place": {"blobs": {digest_of(b"layer"): ["A B\n", "\u00fc"]}},
}


@pytest.mark.parametrize("damage", [*DAMAGED, *ODD])
def test_a_damaged_file_breaks_no_run(lab, damage):
    images.single(lab.source, "app", "1", layers=[b"layer"])
    content = DAMAGED[damage] if damage in DAMAGED else json.dumps({**GOOD, **ODD[damage]}).encode()
    lab.state.write_bytes(content.replace(TARGET.encode(), lab.target.netloc.encode()))
    assert only(lab.run("app:1", prune=True))["action"] == "copied"
    assert lab.remembered()["tags"]
