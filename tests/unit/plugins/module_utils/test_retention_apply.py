# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan carried out against a registry on loopback, while others push, and while it refuses."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.retention import apply as apply_module
from ansible_collections.homelab.registry.plugins.module_utils.retention.apply import apply
from ansible_collections.homelab.registry.plugins.module_utils.retention.plan import plan
from ansible_collections.homelab.registry.plugins.module_utils.retention.policy import parse_policy
from ansible_collections.homelab.registry.plugins.module_utils.retention.read_api import read_inventory
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry

NOW = 1_800_000_000


@pytest.fixture
def fake():
    with FakeRegistry() as fake:
        yield fake


def single(fake, repository, tag, **more):
    return images.single(fake, repository, tag, layers=[images.data(f"{repository} {tag}", 100)], **more)["digest"]


def versions(fake, repository, count, make=single):
    """v1 (the oldest) to v<count>: without times they are ordered by version. Digest by tag."""
    return {f"v{number}": make(fake, repository, f"v{number}") for number in range(1, count + 1)}


def planned(fake, **policy):
    made = plan(read_inventory(Registry(fake.url)), parse_policy({"max_delete_share": 1, **policy}), NOW)
    made.check()
    return made


def run(fake, made, meanwhile=None, **more):
    """Carry it out; `meanwhile` happens between the plan and its first deletion."""
    if meanwhile:
        meanwhile()
    fake.requests.clear()
    registry = Registry(fake.url)
    try:
        return apply(made, registry, **more)
    finally:
        registry.close()


def results(applied, repository="app"):
    return {one.tag or one.digest: one.action for one in applied.outcomes if one.repository == repository}


def reasons(applied):
    return " | ".join(one.reason for one in applied.outcomes if one.reason)


def test_what_the_plan_says_goes(fake):
    versions(fake, "app", 4)
    single(fake, "other", "v1")
    applied = run(fake, planned(fake, keep_last=2))
    assert results(applied) == {"v1": "deleted", "v2": "deleted"}
    assert set(fake.tags("app")) == {"v3", "v4"}
    assert set(fake.tags("other")) == {"v1"}
    assert applied.stopped is None
    assert not [one for one in fake.requests if "other" in one], "a repository without deletions is not asked"
    images.assert_whole(fake)


def test_children_go_after_their_index_and_signatures_after_their_image(fake):
    made = versions(fake, "app", 3, images.multi)
    about = made["v1"][7:]
    signature = single(fake, "app", f"sha256-{about}.sig")
    applied = run(fake, planned(fake, keep_last=1))
    deleted = [one.rpartition("/")[2].replace("%3A", ":") for one in fake.requests if one.startswith("DELETE")]
    assert len(deleted) == 2 * 4 + 1
    assert deleted.index(made["v1"]) < deleted.index(signature)
    assert {one.action for one in applied.outcomes} == {"deleted"}
    assert set(fake.tags("app")) == {"v3"}
    assert len(fake.repository("app")["manifests"]) == 4
    images.assert_whole(fake)


# --- somebody pushes meanwhile ------------------------------------------------------------------------------------
def test_a_tag_that_was_moved_keeps_its_old_manifest_this_time(fake):
    made = versions(fake, "app", 3)
    applied = run(fake, planned(fake, keep_last=1), lambda: single(fake, "app", "v1", subject=None, docker=True))
    assert results(applied) == {"v1": "skipped", "v2": "deleted"}
    assert "app:v1 was moved since" in reasons(applied)
    assert made["v1"] in fake.repository("app")["manifests"]


def test_a_tag_that_is_gone(fake):
    versions(fake, "app", 3)
    applied = run(fake, planned(fake, keep_last=1), lambda: fake.repository("app")["tags"].pop("v1"))
    assert results(applied) == {"v1": "skipped", "v2": "deleted"}
    assert "app:v1 is gone since" in reasons(applied)


def test_a_new_tag_on_a_doomed_manifest_keeps_it(fake):
    made = versions(fake, "app", 3)
    applied = run(fake, planned(fake, keep_last=1), lambda: fake.repository("app")["tags"].update(prod=made["v1"]))
    assert results(applied) == {"v1": "skipped", "v2": "deleted"}
    assert "app:prod was pushed since, and needs it" in reasons(applied)
    assert fake.tags("app")["prod"] == fake.tags("app")["v1"] == made["v1"]


def test_a_kept_tag_that_was_moved_to_a_doomed_manifest_keeps_it(fake):
    made = versions(fake, "app", 3)
    applied = run(fake, planned(fake, keep_last=1), lambda: fake.repository("app")["tags"].update(v3=made["v1"]))
    assert results(applied) == {"v1": "skipped", "v2": "deleted"}
    images.assert_whole(fake)


def test_a_new_index_of_a_doomed_image_keeps_it(fake):
    made = versions(fake, "app", 3)
    content = fake.repository("app")["manifests"][made["v1"]][1]
    child = {"mediaType": images.OCI_MANIFEST, "digest": made["v1"], "size": len(content)}
    applied = run(fake, planned(fake, keep_last=1), lambda: images.index(fake, "app", "all", [child]))
    assert results(applied) == {"v1": "skipped", "v2": "deleted"}
    images.assert_whole(fake)


def test_a_new_signature_of_a_doomed_image_keeps_it(fake):
    made = versions(fake, "app", 3)
    applied = run(fake, planned(fake, keep_last=1), lambda: single(fake, "app", f"sha256-{made['v1'][7:]}.sig"))
    assert results(applied) == {"v1": "skipped", "v2": "deleted"}


def test_what_hangs_on_a_spared_index_is_spared(fake):
    made = versions(fake, "app", 3, images.multi)
    applied = run(fake, planned(fake, keep_last=1), lambda: fake.repository("app")["tags"].update(prod=made["v1"]))
    assert results(applied)["v1"] == "skipped"
    images.assert_whole(fake)
    assert len(fake.repository("app")["manifests"]) == 8


def test_a_push_during_a_long_run_is_seen(fake, monkeypatch):
    """A look is good for a moment only; here each deletion takes ten seconds."""
    monkeypatch.setattr(apply_module, "time", SimpleNamespace(monotonic=lambda: fake.count("DELETE") * 10))
    versions(fake, "app", 4)
    made = planned(fake, keep_last=1)
    last = made.deletions[-1].digest
    applied = run(fake, made, progress=lambda _text: fake.repository("app")["tags"].update(prod=last))
    assert [one.action for one in applied.outcomes] == ["deleted", "deleted", "skipped"]
    assert "app:prod was pushed since" in reasons(applied)
    images.assert_whole(fake)


def test_a_look_that_takes_long_is_not_taken_before_each_deletion(fake, monkeypatch):
    """Time passes with the requests: with so many tags one look outlasts FRESH."""
    monkeypatch.setattr(apply_module, "time", SimpleNamespace(monotonic=lambda: fake.count("HEAD") * 0.1))
    versions(fake, "app", 60)
    applied = run(fake, planned(fake, keep_last=30))
    assert [one.action for one in applied.outcomes] == ["deleted"] * 30
    assert fake.count("GET", "/tags/list") == 2, "before the deletions, and after them"


# --- single tags --------------------------------------------------------------------------------------------------
def shared(fake):
    """v1 and keep are one image; v1 is let go, keep is protected."""
    digest = single(fake, "app", "v1")
    fake.repository("app")["tags"]["keep"] = digest
    single(fake, "app", "v2")
    return digest, {"keep_last": 1, "protect": "keep"}


def test_a_tag_alone(fake):
    fake.by_tag = True
    digest, policy = shared(fake)
    applied = run(fake, planned(fake, **policy))
    assert results(applied) == {"v1": "tag removed"}
    assert set(fake.tags("app")) == {"keep", "v2"}
    assert digest in fake.repository("app")["manifests"]


@pytest.mark.parametrize(("links", "result"), [(True, "waits"), (False, "left")])
def test_a_tag_alone_where_the_server_cannot(fake, links, result):
    digest, policy = shared(fake)
    applied = run(fake, planned(fake, **policy), links=links)
    assert results(applied) == {"v1": result}
    assert applied.tag_links() == ([("app", "v1", digest)] if links else [])
    assert set(fake.tags("app")) == {"keep", "v1", "v2"}


def test_a_server_that_cannot_is_asked_once(fake):
    _digest, policy = shared(fake)
    fake.repository("app")["tags"]["v0"] = fake.tags("app")["v1"]
    applied = run(fake, planned(fake, **policy), links=True)
    assert results(applied) == {"v0": "waits", "v1": "waits"}
    assert fake.count("DELETE") == 1


def test_a_server_that_takes_the_manifest_with_the_tag_is_stopped_at_the_first_one(fake):
    fake.by_tag = "with its manifest"
    _digest, policy = shared(fake)
    with pytest.raises(HomelabError, match="removed a manifest when it was asked to remove the tag app:v1"):
        run(fake, planned(fake, **policy))


def test_a_moved_single_tag_stays(fake):
    fake.by_tag = True
    _digest, policy = shared(fake)
    applied = run(fake, planned(fake, **policy), lambda: single(fake, "app", "v1", docker=True))
    assert results(applied) == {"v1": "skipped"}
    assert fake.count("DELETE") == 0


# --- refusals -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        ({"delete": False}, "does not delete anything", "registry_delete_enabled: true"),
        ({"readonly": True}, "is read-only", "registryctl recover"),
    ],
)
def test_a_registry_that_deletes_nothing_is_asked_once(fake, change, said, remedy):
    versions(fake, "app", 4)
    versions(fake, "other", 4)
    made = planned(fake, keep_last=1)
    for key, value in change.items():
        setattr(fake, key, value)
    with pytest.raises(HomelabError, match=said) as caught:
        run(fake, made)
    assert remedy in caught.value.remedy
    assert fake.count("DELETE") == 1


def test_one_failure_does_not_keep_the_rest(fake):
    made = versions(fake, "app", 4)
    fake.say(500, b"{}", method="DELETE", path=made["v2"])
    applied = run(fake, planned(fake, keep_last=1))
    assert results(applied) == {"v1": "deleted", "v2": "failed", "v3": "deleted"}
    assert "500" in reasons(applied)


def test_children_of_an_index_that_could_not_be_deleted_stay(fake):
    made = versions(fake, "app", 3, images.multi)
    fake.say(500, b"{}", method="DELETE", path=made["v1"])
    applied = run(fake, planned(fake, keep_last=1))
    assert (results(applied)["v1"], results(applied)["v2"]) == ("failed", "deleted")
    images.assert_whole(fake)
    children = [one for one in applied.outcomes if one.tag is None and one.action == "skipped"]
    assert len(children) == 3
    assert all("app:v1, which stays" in one.reason for one in children)


def test_a_repository_without_rights_does_not_keep_the_others(fake):
    versions(fake, "app", 3)
    versions(fake, "other", 3)
    made = planned(fake, keep_last=1)
    fake.say(403, b'{"errors":[{"code":"DENIED","message":"no"}]}', path="/app/", times=99)
    applied = run(fake, made)
    assert results(applied) == {"v1": "failed", "v2": "failed"}
    assert results(applied, "other") == {"v1": "deleted", "v2": "deleted"}
    assert "403" in reasons(applied)


def test_a_registry_that_goes_away_in_the_middle(fake):
    made = versions(fake, "app", 4)
    versions(fake, "other", 3)
    plan_ = planned(fake, keep_last=1)
    first = plan_.deletions[0].digest

    def progress(_text):
        fake.faults.add("close")

    applied = run(fake, plan_, progress=progress)
    assert [one.action for one in applied.outcomes if one.digest == first] == ["deleted"]
    assert applied.stopped
    assert {one.action for one in applied.outcomes if one.digest != first} == {"skipped"}
    assert len(applied.outcomes) == len(plan_.deletions)
    fake.faults.clear()
    assert len(fake.tags("app")) == len(made) - 1


def test_a_registry_that_is_not_there():
    with FakeRegistry() as fake:
        versions(fake, "app", 3)
        made = planned(fake, keep_last=1)
    with pytest.raises(HomelabError):
        run(fake, made)


def test_a_registry_that_says_so_and_keeps_it(fake):
    versions(fake, "app", 3)
    fake.faults.add("keeps deleted")
    applied = run(fake, planned(fake, keep_last=1))
    assert results(applied) == {"v1": "failed", "v2": "failed"}
    assert "still has it" in reasons(applied)


@pytest.mark.parametrize(("links", "result"), [(True, "waits"), (False, "left")])
def test_a_damaged_tag_goes_by_its_link(fake, links, result):
    """The server lists the tag and does not find its manifest; so it cannot delete it either."""
    made = versions(fake, "app", 3)
    plan_ = planned(fake, keep_last=1)
    del fake.repository("app")["manifests"][made["v1"]]
    applied = run(fake, plan_, links=links)
    assert results(applied) == {"v1": result, "v2": "deleted"}


def test_a_run_that_is_cut_off_leaves_nothing_with_a_tag_broken(fake):
    """After each deletion of the plan's order."""
    versions(fake, "app", 3, images.multi)
    plan_ = planned(fake, keep_last=1)
    whole = json.dumps(sorted(fake.repository("app")["manifests"]))
    for stop in range(1, len(plan_.deletions) + 1):
        left = iter(range(stop - 1))

        def progress(_text, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        with FakeRegistry() as other:
            versions(other, "app", 3, images.multi)
            assert json.dumps(sorted(other.repository("app")["manifests"])) == whole
            with pytest.raises(KeyboardInterrupt):
                run(other, plan_, progress=progress)
            for digest in other.tags("app").values():
                images.parts(other, "app", digest)
            applied = run(other, planned(other, keep_last=1))
            assert all(one.action == "deleted" for one in applied.outcomes)
