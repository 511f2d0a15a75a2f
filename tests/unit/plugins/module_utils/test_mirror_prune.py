# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning of mirrored tags that vanished upstream: what goes, and the many reasons to keep one."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.mirror_lab import Lab, actions, place, refusal

TAGS = ("1.0", "1.1", "1.2", "2.0")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch) as lab:
        for tag in TAGS:
            images.single(lab.source, "app", tag, layers=[tag.encode()])
        lab.run(*(f"app:{tag}" for tag in TAGS))
        yield lab


def vanish(lab, *tags, repository="app"):
    for tag in tags:
        del lab.source.repositories[repository]["tags"][tag]


def outcome(report):
    """Action and reason by tag."""
    return {one["tag"]: (one["action"], one["reason"]) for one in report.pruned}


def test_a_tag_that_vanished_goes_and_no_other(lab):
    vanish(lab, "1.0", "1.2")
    before = lab.tags("app")
    check = lab.run("app:2.0", prune=True, check=True)
    assert outcome(check) == {"1.2": ("would prune", None), "1.0": ("would prune", None)}
    assert check.changed
    assert lab.tags("app") == before
    assert lab.writes() == []
    report = lab.run("app:2.0", prune=True)
    assert outcome(report) == {"1.2": ("pruned", None), "1.0": ("pruned", None)}
    assert report.changed
    assert report.diff() == check.diff()
    assert report.diff()["before"] == "".join(f"{place('app')}:{tag} {before[tag]}\n" for tag in ("1.2", "1.0"))
    assert set(lab.tags("app")) == {"1.1", "2.0"}
    assert set(lab.remembered()["tags"]) == {f"{place('app')}:{tag}" for tag in ("1.1", "2.0")}
    images.assert_whole(lab.target)
    again = lab.run("app:2.0", prune=True)
    assert (again.pruned, again.changed) == ([], False)


def test_nothing_goes_unless_asked_for(lab):
    vanish(lab, "1.0")
    report = lab.run("app:2.0")
    assert (report.pruned, report.changed) == ([], False)
    assert lab.source.count("GET") == 0
    assert set(lab.tags("app")) == set(TAGS)


def test_what_no_mirror_run_brought_here_stays(lab):
    images.single(lab.target, place("app"), "own", layers=[b"own"])
    lab.remember(tags={})
    vanish(lab, "1.0")
    assert lab.run("app:2.0", prune=True).pruned == []
    assert set(lab.tags("app")) == {*TAGS, "own"}


def test_what_somebody_pushed_since_stays(lab):
    vanish(lab, "1.0")
    images.single(lab.target, place("app"), "1.0", layers=[b"own"])
    report = lab.run("app:2.0", prune=True)
    assert outcome(report) == {"1.0": ("kept", "somebody else has pushed it since")}
    assert not report.changed


def test_what_somebody_pushes_just_now_stays(lab):
    vanish(lab, "1.0")
    asked = []

    def push(handler):
        if handler.path.endswith("/manifests/1.0"):
            asked.append(handler.path)
            if len(asked) == 2:
                images.single(lab.target, place("app"), "1.0", layers=[b"own"])
        return False

    lab.target.hooks.append(push)
    assert outcome(lab.run("app:2.0", prune=True)) == {"1.0": ("kept", "somebody has pushed it just now")}
    assert "1.0" in lab.tags("app")


@pytest.mark.parametrize("pattern", ["1.*", "1.0", f"{place('app')}:1.?", "*/app:*"])
def test_protected_tags_stay(lab, pattern):
    vanish(lab, "1.0")
    report = lab.run("app:2.0", prune=True, prune_protect=["9.*", pattern])
    assert outcome(report) == {"1.0": ("kept", "protected")}


@pytest.mark.parametrize(
    ("keep", "gone", "stay"),
    [
        (0, TAGS[:3], {"2.0"}),
        (1, TAGS[:3], {"2.0"}),
        (2, TAGS[:3], {"2.0", "1.2"}),
        (3, TAGS[:3], {"2.0", "1.2", "1.1"}),
        (9, TAGS[:3], set(TAGS)),
    ],
)
def test_the_newest_stay_up_to_the_floor(lab, keep, gone, stay):
    vanish(lab, *gone)
    report = lab.run("app:2.0", prune=True, prune_keep=keep)
    assert set(lab.tags("app")) == stay
    kept = dict.fromkeys(stay & set(gone), f"{keep} tags stay in a repository")
    assert {tag: reason for tag, (action, reason) in outcome(report).items() if action == "kept"} == kept


def test_tags_that_are_gone_on_both_sides_do_not_count_for_the_floor(lab):
    vanish(lab, "1.0", "1.1", "1.2")
    for tag in ("1.1", "1.2"):
        del lab.target.repositories[place("app")]["tags"][tag]
    assert outcome(lab.run("app:2.0", prune=True)) == {"1.0": ("pruned", None)}
    lab.run("app:2.0", prune=True)
    assert [one for one in lab.target.requests if "/manifests/" in one] == [f"HEAD /v2/{place('app')}/manifests/2.0"]


def test_a_pinned_tag_stays_also_in_a_run_without_it(lab):
    """Whoever pins reckons with the tag's end."""
    digest = lab.source.tags("app")["1.0"]
    lab.run(f"app:pin@{digest}")
    lab.run("app:2.0", prune=True)
    assert "pin" in lab.tags("app")


def test_a_digest_that_a_kept_tag_shares_stays(lab):
    held = lab.target.repositories[place("app")]
    held["tags"]["alias"] = held["tags"]["1.0"]
    vanish(lab, "1.0")
    assert outcome(lab.run("app:2.0", prune=True)) == {"1.0": ("kept", "alias needs its digest")}
    assert "alias" in lab.tags("app")


def test_two_vanished_tags_of_one_digest_go_together(lab):
    source = lab.source.repositories["app"]["tags"]
    source["alias"] = source["1.0"]
    lab.run("app:alias")
    vanish(lab, "1.0", "alias")
    report = lab.run("app:2.0", prune=True)
    assert {action for action, _reason in outcome(report).values()} == {"pruned"}
    assert sorted(outcome(report)) == ["1.0", "alias"]
    assert lab.target.count("DELETE") == 1


def test_a_digest_that_this_run_tags_anew_stays(lab):
    source = lab.source.repositories["app"]["tags"]
    source["1.0-final"] = source["1.0"]
    vanish(lab, "1.0")
    for check in (True, False):
        report = lab.run("app:1.0-final", prune=True, check=check)
        assert outcome(report) == {"1.0": ("kept", "1.0-final needs its digest")}
    assert lab.tags("app")["1.0-final"] == source["1.0-final"]


@pytest.mark.parametrize("when", ["mirrored before", "mirrored now", "by digest"])
def test_a_child_of_an_index_that_stays_stays(lab, when):
    child = images.single(lab.source, "app", layers=[b"1.0"])
    assert child["digest"] == lab.source.tags("app")["1.0"]
    digest = images.index(lab.source, "app", "both", [child])
    name = f"app@{digest}" if when == "by digest" else "app:both"
    if when != "mirrored now":
        lab.run(name)
    vanish(lab, "1.0")
    report = lab.run(name, prune=True)
    assert outcome(report)["1.0"][0] == "kept"
    assert images.parts(lab.target, place("app"), digest)
    images.assert_whole(lab.target)


def test_an_image_that_the_list_pins_by_digest_stays(lab):
    digest = lab.source.tags("app")["1.0"]
    lab.run(f"app:1.0@{digest}")
    vanish(lab, "1.0")
    for _run in range(2):
        report = lab.run(f"app:1.0@{digest}", prune=True)
        assert (list(actions(report).values()), report.pruned) == (["unchanged"], [])


def test_a_tag_that_is_there_though_its_upstream_does_not_list_it_stays(lab):
    lab.source.hooks.append(refusal("GET", "/tags/list", 200, b'{"name":"app","tags":["2.0"]}'))
    report = lab.run(*(f"app:{tag}" for tag in TAGS), prune=True)
    assert report.pruned == []
    assert set(lab.tags("app")) == set(TAGS)


@pytest.mark.parametrize(
    "fault",
    [(404, b""), (500, b""), (401, b""), (403, b""), (200, b'{"tags":null}'), (200, b'{"tags":[]}'), (200, b"<p>")],
)
def test_an_upstream_repository_that_cannot_be_judged_is_left_alone(lab, fault):
    lab.source.hooks.append(refusal("GET", "/v2/app/tags/list", *fault))
    assert lab.run("app:2.0", prune=True).pruned == []
    assert set(lab.tags("app")) == set(TAGS)


def test_an_upstream_that_is_down_prunes_nothing(lab):
    lab.source.faults = {"close"}
    report = lab.run("app:2.0", prune=True)
    assert (report.pruned, [one["action"] for one in report.images]) == ([], ["failed"])
    assert set(lab.tags("app")) == set(TAGS)


def test_repositories_that_are_not_on_the_list_are_left_alone(lab):
    images.single(lab.source, "tool", "1")
    vanish(lab, "1.0")
    assert lab.run("tool:1", prune=True).pruned == []
    assert "1.0" in lab.tags("app")


def test_a_vanished_image_that_is_still_on_the_list_fails_and_goes(lab):
    vanish(lab, "1.0")
    report = lab.run("app:1.0", "app:2.0", prune=True)
    assert actions(report) == {"app:1.0": "failed", "app:2.0": "unchanged"}
    assert outcome(report) == {"1.0": ("pruned", None)}


@pytest.mark.parametrize(
    ("status", "said"), [(405, "405 UNSUPPORTED"), (403, "403"), (500, "500")], ids=["off", "forbidden", "broken"]
)
def test_a_target_that_does_not_delete_is_said(lab, status, said):
    vanish(lab, "1.0")
    if status == 405:
        lab.target.delete = False
    else:
        lab.target.hooks.append(refusal("DELETE", "/manifests/", status))
    images.single(lab.source, "tool", "1")
    report = lab.run("app:2.0", "tool:1", prune=True)
    action, reason = outcome(report)["1.0"]
    assert action == "failed"
    assert said in reason
    assert "1.0" in lab.tags("app")
    assert f"{place('app')}:1.0" in lab.remembered()["tags"]


def test_a_target_that_goes_away_before_the_deletion_does_not_lose_the_report(lab):
    vanish(lab, "1.0")
    images.single(lab.source, "tool", "1")
    lab.target.hooks.append(
        lambda handler: handler.command == "DELETE" and (setattr(handler, "close_connection", True) or True)
    )
    report = lab.run("app:2.0", "tool:1", prune=True)
    assert actions(report) == {"app:2.0": "unchanged", "tool:1": "copied"}
    assert outcome(report)["1.0"][0] == "failed"


def test_a_tag_that_is_gone_at_the_target_by_then_counts_as_pruned(lab):
    vanish(lab, "1.0")
    asked = []

    def collect(handler):
        if handler.path.endswith("/manifests/1.0"):
            asked.append(handler.path)
            if len(asked) == 2:
                del lab.target.repositories[place("app")]["tags"]["1.0"]
        return False

    lab.target.hooks.append(collect)
    assert outcome(lab.run("app:2.0", prune=True)) == {"1.0": ("pruned", None)}
    assert lab.target.count("DELETE") == 0
    assert f"{place('app')}:1.0" not in lab.remembered()["tags"]
