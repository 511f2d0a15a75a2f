# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy removes, and above all what it does not: the losses that other tools are known for."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.oci.inventory import Held, Inventory, Repository, Tag
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import OCI_INDEX, OCI_MANIFEST
from ansible_collections.homelab.registry.plugins.module_utils.retention.plan import Refused, plan
from ansible_collections.homelab.registry.plugins.module_utils.retention.policy import parse_policy

DAY = 86400
NOW = 1_800_000_000


def digest(name):
    return "sha256:" + hashlib.sha256(str(name).encode()).hexdigest()


def about(name, kind=""):
    return f"sha256-{digest(name)[7:]}{kind}"


class Lab:
    """A registry to plan for. Days are ages; an image is called by any name, which gives its digest."""

    def __init__(self):
        self.inventory = Inventory("lab")

    def repository(self, name):
        return self.inventory.repositories.setdefault(name, Repository(name))

    def image(self, name, days=None, *, repository="app", created=None, tags=(), **more):
        """A manifest of 10 bytes with one blob of 100 of its own, unless `blobs` says others."""
        more.setdefault("media_type", OCI_MANIFEST)
        if more["media_type"] == OCI_MANIFEST:
            more.setdefault("blobs", ((digest(f"blob of {name}"), 100),))
        pushed = None if days is None else NOW - days * DAY
        times = {"created": None if created is None else NOW - created * DAY, "pushed": pushed}
        held = Held(digest(name), size=10, **{**times, **more})
        self.repository(repository).manifests[held.digest] = held
        for tag in tags:
            self.tag(tag, name, days, repository)
        return held.digest

    def index(self, name, children, days=None, **more):
        return self.image(name, days, media_type=OCI_INDEX, children=tuple(map(digest, children)), **more)

    def tag(self, tag, name, days=None, repository="app"):
        self.repository(repository).tags[tag] = Tag(tag, digest(name), None if days is None else NOW - days * DAY)

    def builds(self, count, repository="app", **more):
        """v1 (the oldest, `count` days old) to v<count> (1 day old)."""
        for number in range(1, count + 1):
            self.image(f"v{number}", count + 1 - number, repository=repository, tags=[f"v{number}"], **more)

    def plan(self, **policy):
        return plan(self.inventory, parse_policy({"max_delete_share": 1, **policy}), NOW)


@pytest.fixture
def lab():
    return Lab()


def deleted(made, repository="app"):
    """Tags that go with their manifest."""
    return {tag for one in made.deletions if one.repository == repository for tag in one.tags}


def gone(made, *names, repository="app"):
    digests = {one.digest for one in made.deletions if one.repository == repository}
    return [name for name in names if digest(name) in digests]


def rules(made):
    return {one.tag or one.digest: (one.action, one.rule) for one in made.decisions}


def remarks(made):
    return "\n".join(made.notes)


# --- the order of the rules -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ({}, "v1 v2 v3 v4 v5 v6"),
        ({"keep_last": 2}, "v5 v6"),
        ({"max_age": 3}, "v4 v5 v6"),
        ({"keep_last": 2, "max_age": 4}, "v3 v4 v5 v6"),  # both must let go
        ({"keep_last": 5, "max_age": 0.1}, "v2 v3 v4 v5 v6"),
        ({"max_age": 0.1}, "v6"),  # keep_min
        ({"max_age": 0.1, "keep_min": 3}, "v4 v5 v6"),
        ({"keep_last": 1, "protect": "v2"}, "v2 v6"),
        ({"keep_last": 1, "protect": "v6"}, "v5 v6"),  # what is protected takes no place
        ({"keep_last": 1, "protect": digest("v3")}, "v3 v6"),
        ({"keep_last": 1, "in_use": [digest("v1")]}, "v1 v6"),
        ({"keep_last": 1, "in_use": [digest("blob of v2")]}, "v2 v6"),  # as an engine's image ID
        ({"keep_last": 1, "rules": [{"repositories": "a*", "keep_last": 3}]}, "v4 v5 v6"),
        (
            {"keep_last": 3, "rules": [{"repositories": "a*", "keep_last": 1, "protect": "v1"}], "protect": "v2"},
            "v1 v2 v6",
        ),
        (
            {
                "rules": [
                    {"repositories": "app", "keep_last": 1},
                    {"repositories": "*", "protect": "v3", "keep_last": 9},
                ]
            },
            "v3 v6",
        ),
    ],
)
def test_a_tag_goes_only_if_every_rule_lets_it_go(lab, policy, kept):
    lab.builds(6)
    made = lab.plan(**policy)
    assert {f"v{number}" for number in range(1, 7)} - deleted(made) == set(kept.split())
    assert made.freed == 110 * len(made.deletions)


def test_decisions_say_why(lab):
    lab.builds(6)
    lab.image("sig", 1, subject=digest("v6"))
    made = lab.plan(keep_last=2, max_age=3, protect="v2", in_use=[digest("v1")])
    assert rules(made) == {
        "v1": ("keep", "in use"),
        "v2": ("keep", "protected by v2"),
        "v3": ("delete", "not among the last 2, older than 3 d"),
        "v4": ("keep", "max_age 3 d"),
        "v5": ("keep", "keep_last 2"),
        "v6": ("keep", "keep_last 2"),
    }
    written = json.loads(json.dumps(made.as_dict()))
    assert written["tags"] == {"keep": 5, "delete": 1, "tag only": 0}
    assert written["deletions"] == [
        {
            "repository": "app",
            "digest": digest("v3"),
            "tags": ["v3"],
            "parts": [],
            "size": 10,
            "media_type": OCI_MANIFEST,
            "freed": 110,
        }
    ]
    assert {one["age_source"] for one in written["decisions"]} == {"pushed"}


# --- disasters of other tools, by their number in the list of facts -----------------------------------------------
def test_1_children_of_an_index_stay_with_it_and_go_with_it(lab):
    for name, days in (("old", 9), ("new", 1)):
        lab.image(f"{name} amd64", days)
        lab.image(f"{name} arm64", days)
        lab.index(name, ["shared", f"{name} amd64", f"{name} arm64"], days)
    lab.image("shared", 9)
    lab.tag("old", "old", 9)
    lab.index("nested", ["new"], 1, tags=["nested"])  # an index of an index
    made = lab.plan(keep_last=1, untagged_grace=0)
    assert gone(made, "old", "old amd64", "old arm64") == ["old", "old amd64", "old arm64"]
    assert gone(made, "shared", "new", "new amd64", "new arm64", "nested") == []
    assert [one.freed for one in made.decisions if one.tag == "old"] == [230]


def test_3_what_a_push_has_brought_so_far_stays(lab):
    """A client sends the children first; a signature may come before its image."""
    lab.builds(2)
    lab.image("child of an index to come", 0.01)
    lab.image("signature of an image to come", 0.01, subject=digest("to come"))
    lab.image("cosign", 0.01, tags=[about("to come", ".sig")])
    assert lab.plan(keep_last=2).deletions == []


def test_4_a_digest_goes_with_all_its_tags_or_not_at_all(lab):
    lab.builds(3)
    lab.tag("first", "v1", 3)
    (one,) = lab.plan(keep_last=2).deletions
    assert (one.digest, one.tags) == (digest("v1"), ("first", "v1"))


def test_5_a_doomed_tag_does_not_take_a_kept_one_along(lab):
    lab.builds(3)
    lab.tag("stable", "v1", 30)
    made = lab.plan(keep_last=2, protect="stable")
    assert made.deletions == []
    assert [(one.tag, one.rule) for one in made.tag_only] == [
        ("v1", "not among the last 2; shares its manifest with stable")
    ]


def test_6_the_newest_of_push_and_creation_counts(lab):
    lab.image("yesterday's build of an old image", 1, created=900, tags=["a"])
    lab.image("new image pushed long ago", 900, created=2, tags=["b"])
    lab.image("old", 800, created=901, tags=["c"])
    made = lab.plan(max_age=30)
    assert deleted(made) == {"c"}
    assert {one.tag: (one.age // DAY, one.age_source) for one in made.decisions} == {
        "a": (1, "pushed"),
        "b": (2, "created"),
        "c": (800, "pushed"),
    }
    assert deleted(lab.plan(max_age=30, age_by="pushed")) == {"b", "c"}
    assert deleted(lab.plan(max_age=30, age_by="created")) == {"a", "c"}


@pytest.mark.parametrize("created", [NOW / DAY, NOW / DAY - 3653, -900], ids=["1970", "1980", "to come"])
def test_7_an_impossible_time_is_no_age(lab, created):
    for number in (1, 2, 10):
        lab.image(f"v{number}", created=created + number / 10, tags=[f"v{number}"])
    made = lab.plan(keep_last=2)
    assert deleted(made) == {"v1"}  # v10 is newer than v2
    assert "no usable time and are ordered by version" in remarks(made)
    assert deleted(lab.plan(max_age=30)) == set()


def test_7_a_time_that_most_images_share_is_no_age(lab):
    for number in (1, 2, 10):
        lab.image(f"v{number}", created=100, tags=[f"v{number}"])
    lab.image("v3", created=50, tags=["v3"])
    made = lab.plan(keep_last=2, max_age=30)
    assert deleted(made) == set()
    assert "created at the same time: not used as age" in remarks(made)
    assert "stay because nobody knows how old they are" in remarks(made)
    assert deleted(lab.plan(keep_last=2)) == {"v1", "v2"}


def test_7_many_tags_on_one_image_take_one_place(lab):
    lab.builds(4)
    for tag in ("latest", "4", "4.0", "4.0.0"):
        lab.tag(tag, "v4", 1)
    assert deleted(lab.plan(keep_last=2)) == {"v1", "v2"}


def test_7_an_image_is_as_new_as_its_newest_tag(lab):
    lab.builds(4)
    lab.tag("a-redeployed", "v1", 0.1)
    lab.tag("z-forgotten", "v1", 90)
    assert deleted(lab.plan(keep_last=2)) == {"v2", "v3"}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_7_what_a_mirror_brings_at_once_is_ordered_by_version(lab, order):
    for place, tag in zip(order, ("9.0", "10.0", "10.1-rc1", "10.1")):
        lab.image(tag, 3 + place / DAY, tags=[tag])
    made = lab.plan(keep_last=2)
    assert deleted(made) == {"9.0", "10.0"}
    assert ("ordered by version" in remarks(made)) == (order != (3, 2, 1, 0))


def test_7_builds_without_a_version_are_ordered_by_time_however_close(lab):
    for minute, tag in enumerate(("sha-9", "sha-1", "sha-5")):
        lab.image(tag, 3 - minute / 1440, tags=[tag])
    assert deleted(lab.plan(keep_last=1)) == {"sha-9", "sha-1"}


def test_7_an_image_without_a_time_takes_no_place_from_one_with(lab):
    lab.builds(3)
    for number in range(5):
        lab.image(f"chart{number}", tags=[f"9.{number}"])
    assert deleted(lab.plan(keep_last=2)) == {"v1", "9.0", "9.1", "9.2"}


def test_7_keep_last_holds_even_if_everything_is_old(lab):
    lab.builds(12)
    assert deleted(lab.plan(keep_last=10, max_age=0.01)) == {"v1", "v2"}


def test_8_names_are_not_sorted_as_text_and_protection_is_never_overruled(lab):
    lab.builds(12)
    lab.image("prod", 500, tags=["prod-1"])
    assert deleted(lab.plan(keep_last=3, protect={"regex": "prod"})) == {f"v{number}" for number in range(1, 10)}


def test_9_keep_last_and_max_age_are_both_reasons_to_stay(lab):
    lab.builds(20)
    assert deleted(lab.plan(keep_last=10, max_age=5)) == {f"v{number}" for number in range(1, 11)}
    assert deleted(lab.plan(keep_last=5, max_age=10)) == {f"v{number}" for number in range(1, 11)}
    lab = Lab()
    lab.builds(3)
    assert lab.plan(keep_last=3).deletions == []


def test_10_attestations_signatures_and_sboms_follow_their_image(lab):
    for name, days in (("old", 9), ("new", 1)):
        lab.image(f"{name} amd64", days)
        lab.image(f"{name} attestation", days)
        lab.index(name, [f"{name} amd64", f"{name} attestation"], days, tags=[name])
        lab.image(f"{name} sig", 400, tags=[about(name, ".sig")])
        lab.image(f"{name} sbom", 400, tags=[about(f"{name} amd64", ".sbom")])
        lab.image(f"{name} referrer", 400, subject=digest(name))
        lab.image(f"{name} referrer of the referrer", 400, subject=digest(f"{name} referrer"))
        lab.index(f"{name} fallback", [f"{name} referrer"], 400, tags=[about(name)])
    made = lab.plan(keep_last=1, max_age=5, untagged_grace=0)
    kinds = "", " amd64", " attestation", " sig", " sbom", " referrer", " referrer of the referrer", " fallback"
    assert gone(made, *(f"new{kind}" for kind in kinds)) == []
    assert gone(made, *(f"old{kind}" for kind in kinds)) == [f"old{kind}" for kind in kinds]
    place = {one.digest: number for number, one in enumerate(made.deletions)}
    for kind in kinds[1:]:
        assert place[digest("old")] < place[digest(f"old{kind}")]
    assert place[digest("old amd64")] < place[digest("old sbom")]
    assert rules(made)[about("old", ".sig")] == ("delete", "goes with old")
    assert rules(made)[about("new amd64", ".sbom")][0] == "keep"
    assert sum(one.freed for one in made.decisions) == made.freed


def test_10_signatures_take_no_place(lab):
    lab.builds(3)
    for number in (1, 2, 3):
        lab.image(f"sig{number}", 0.1, tags=[about(f"v{number}", ".sig")])
    made = lab.plan(keep_last=2)
    assert deleted(made) == {"v1", about("v1", ".sig")}


def test_10_a_child_with_a_tag_of_its_own_takes_no_place(lab):
    for number in (1, 2, 3):
        for platform in ("amd64", "arm64"):
            lab.image(f"{number} {platform}", 5 - number, tags=[f"{number}-{platform}"])
        lab.index(number, [f"{number} amd64", f"{number} arm64"], 5 - number, tags=[str(number)])
    assert deleted(lab.plan(keep_last=2)) == {"1", "1-amd64", "1-arm64"}
    # it may outlive its index, if the rules keep it
    assert gone(lab.plan(keep_last=2, protect="1-amd64"), 1, "1 amd64", "1 arm64") == [1, "1 arm64"]


@pytest.mark.parametrize(
    ("group", "kept"),
    [
        (None, "1.2.1 app-2"),
        ("minor", "1.1.2 1.2.1 app-2 1.2.0 app-1"),
        (r"^(\d+)\.", "1.2.1 1.2.0 app-2 app-1"),
        (r"^(app)-", "app-2 app-1 1.2.1 1.2.0"),
    ],
)
def test_10_groups(lab, group, kept):
    for days, tag in enumerate(("app-2", "1.2.1", "app-1", "1.2.0", "1.1.2")):
        lab.image(tag, days + 1, tags=[tag])
    tags = {"app-2", "1.2.1", "app-1", "1.2.0", "1.1.2"}
    assert tags - deleted(lab.plan(keep_last=2, group=group)) == set(kept.split())


# --- what hangs on nothing ----------------------------------------------------------------------------------------
def test_leftovers_go_after_the_grace(lab):
    lab.builds(1)
    for days in (3, 30):
        lab.image(f"overwritten {days}", days)
        lab.index(f"index {days}", [f"child {days}"], days)
        lab.image(f"child {days}", 300)
        lab.image(f"sig {days}", days, tags=[about(f"vanished {days}", ".sig")])
        lab.image(f"referrer {days}", days, subject=digest(f"vanished {days}"))
        lab.index(f"fallback {days}", [], days, tags=[about(f"lost {days}")])
    lab.image("nobody knows", None)
    made = lab.plan(untagged_grace=7)
    kinds = "overwritten", "index", "child", "sig", "referrer", "fallback"
    assert gone(made, *(f"{kind} 3" for kind in kinds), "nobody knows", "v1") == []
    assert gone(made, *(f"{kind} 30" for kind in kinds)) == [f"{kind} 30" for kind in kinds]
    assert lab.plan(untagged_grace=40).deletions == []


def test_leftovers_in_use_stay(lab):
    lab.builds(1)
    lab.image("pinned", 300)
    lab.image("protected", 300)
    assert lab.plan(protect=digest("protected"), in_use=[digest("pinned")]).deletions == []


@pytest.mark.parametrize(
    ("tag", "more"),
    [
        (about("app-1.sbom of somebody"), {}),  # an image, no index of referrers
        (about("pin", ".imgpkg"), {}),
        ("sha256-abc.sig", {}),
    ],
)
def test_what_only_looks_like_a_signature_is_a_tag(lab, tag, more):
    lab.builds(1)
    lab.image("pin", 300, tags=[tag], **more)
    assert lab.plan(untagged_grace=0).deletions == []
    assert deleted(lab.plan(untagged_grace=0, keep_last=1)) == {tag}


def test_a_circle_of_signatures_ends(lab):
    lab.builds(1)
    lab.image("a", 300, tags=[about("b", ".sig")])
    lab.image("b", 300, tags=[about("a", ".sig")])
    assert lab.plan(keep_last=1, untagged_grace=0).deletions == []


def test_children_of_an_index_that_cannot_be_read_stay(lab):
    lab.builds(3)
    lab.image("child", 300)
    lab.repository("app").tags["v3"] = Tag("v3", digest("not there"), NOW)
    made = lab.plan(keep_last=2, untagged_grace=0)
    assert deleted(made) == {"v1"}
    assert gone(made, "child") == []
    assert "v3 cannot be read, so no manifest without a tag goes" in remarks(made)


def test_what_a_damaged_tag_may_have_pointed_at_stays(lab):
    lab.builds(3)
    lab.image("perhaps v0", 300)
    lab.repository("app").lost_tags.append("v0")
    lab.builds(2, "other")
    lab.image("other", 300, repository="other")
    made = lab.plan(keep_last=2, untagged_grace=0)
    assert deleted(made) == {"v1"}
    assert gone(made, "perhaps v0") == []
    assert gone(made, "other", repository="other") == ["other"]
    assert "app: the tag v0 cannot be read, so no manifest without a tag goes" in remarks(made)


# --- use ----------------------------------------------------------------------------------------------------------
def test_an_index_stays_if_a_node_runs_one_of_its_platforms(lab):
    lab.builds(1)
    lab.image("amd64", 90)
    lab.image("arm64", 90)
    lab.index("multi", ["amd64", "arm64"], 90, tags=["multi"])
    made = lab.plan(keep_last=1, in_use=[digest("arm64")])
    assert made.deletions == []
    assert rules(made)["multi"] == ("keep", "in use")


def test_a_host_that_could_not_be_asked_keeps_its_repositories(lab):
    lab.builds(3)
    lab.builds(3, repository="other")
    lab.image("only here", 9, repository="app", tags=["x"])
    known = lab.plan(keep_last=1, in_use={"unreachable": {"sbc": [digest("only here")]}})
    assert {one.repository for one in known.deletions} == {"other"}
    assert rules(known)["v1"][1] == "not among the last 1"
    nothing = lab.plan(keep_last=1, in_use={"unreachable": ["sbc"]})
    assert nothing.deletions == []
    assert "sbc could not be asked, and nobody knows" in remarks(nothing)
    assert rules(nothing)["v1"] == ("keep", "perhaps in use: sbc could not be asked")


# --- too much -----------------------------------------------------------------------------------------------------
def test_a_plan_that_removes_too_much_is_refused(lab):
    lab.builds(10)
    lab.builds(10, repository="other")
    made = lab.plan(keep_last=4, max_delete_share=0.5)
    with pytest.raises(Refused) as caught:
        made.check()
    assert "12 of 20 tags would go (60%, max_delete_share is 50%)" in str(caught.value)
    assert "app (6 of 10), other (6 of 10) (lab)" in str(caught.value)
    assert len(made.deletions) == 12  # to be looked at
    lab.plan(keep_last=5, max_delete_share=0.5).check()
    forced = lab.plan(keep_last=4, max_delete_share=0.5, force=True)
    forced.check()
    assert forced.deletions == made.deletions
    assert "forced: 12 of 20 tags" in remarks(forced)


def test_a_plan_that_empties_a_repository_is_refused(lab):
    lab.builds(2)
    lab.builds(2, repository="other")
    made = lab.plan(max_age=0.5, keep_min=0, rules=[{"repositories": "other", "keep_min": 1}])
    with pytest.raises(Refused, match="nothing would be left in app .lab.: look at the plan"):
        made.check()
    lab.plan(max_age=0.5, keep_min=0, force=True).check()
    lab.plan(max_age=0.5).check()


def test_the_floor_holds_where_nothing_has_a_tag(lab):
    for days in (10, 20, 30):
        lab.image(f"by digest {days}", days)
    made = lab.plan(keep_min=1)
    assert gone(made, "by digest 10", "by digest 20", "by digest 30") == ["by digest 20", "by digest 30"]
    with pytest.raises(Refused, match="nothing would be left in app"):
        lab.plan(keep_min=0).check()


# --- bytes --------------------------------------------------------------------------------------------------------
def test_bytes_that_something_else_has_are_not_freed(lab):
    base = (digest("base"), 1000)
    lab.image("old", 9, tags=["old"], blobs=(base, (digest("own"), 5)))
    lab.image("older", 10, tags=["older"], blobs=(base, (digest("own"), 5)))
    lab.image("new", 1, tags=["new"], blobs=(base,))
    made = lab.plan(keep_last=1)
    freed = {one.tag: one.freed for one in made.decisions}
    assert freed["new"] == 0
    assert sorted(freed.values()) == [0, 10, 15]  # the layer that the two have in common counts once
    assert made.freed == 25
    lab.image("old", 9, repository="mirror/of", tags=["old"], blobs=(base, (digest("own"), 5)))
    assert lab.plan(keep_last=1).freed == 10  # the manifest of older


# --- settings that mean nothing ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"rules": [{"repositories": "taem/*", "keep_last": 1}]}, "rules[0]: no repository matches taem/*"),
        (
            {"rules": [{"repositories": "*", "keep_last": 1}, {"repositories": "app", "keep_last": 2}]},
            "rules[1]: other rules before it take all its repositories",
        ),
        ({"protect": ["v1", "latset", digest("x")]}, f"policy: protect has no match for latset, {digest('x')}"),
        ({"protect": {"regex": "^x"}}, "policy: protect has no match for ^x"),
        ({"keep_last": 1, "group": "^(x)"}, "policy: group takes no tag"),
        ({}, "neither keep_last nor max_age is set: no tag goes"),
        ({"in_use": [digest("x")]}, "none of the 1 digests in use is in this registry"),
    ],
)
def test_settings_without_an_effect_are_said(lab, policy, said):
    lab.builds(2)
    assert said in remarks(lab.plan(**policy))


def test_an_ordinary_policy_says_nothing(lab):
    lab.builds(3)
    rule = {"repositories": "app", "keep_last": 2, "group": "minor", "protect": "v1"}
    assert lab.plan(keep_last=1, rules=[rule], in_use=[digest("v1")]).notes == []


def test_nothing_at_all():
    assert Lab().plan(keep_last=1).as_dict()["deletions"] == []


# --- any registry, any policy --------------------------------------------------------------------------------------
def any_lab(dice):
    """Images, indexes (nested too), referrers, signatures, leftovers, shared blobs, tags on one digest, no times."""
    lab = Lab()
    for number in range(dice.randint(1, 3)):
        repository = f"repo{number}"
        names = []

        def days():
            return dice.choice([None, dice.uniform(0, 60), dice.randint(0, 5)])

        for image in range(dice.randint(1, 12)):
            name = f"{dice.choice(['', repository])} {image}"  # some are in several repositories
            blobs = tuple((digest(f"layer {one}"), 7 + one) for one in dice.sample(range(30), 3))
            if names and dice.random() < 0.3:
                children = dice.sample(names, min(len(names), 2)) + ["not there"] * (dice.random() < 0.1)
                lab.index(f"{repository} index {image}", children, days(), repository=repository)
                names.append(f"{repository} index {image}")
                continue
            more = {"media_type": "", "blobs": ()} if dice.random() < 0.02 else {"blobs": blobs}
            subject = dice.choice([*names, "vanished"]) if dice.random() < 0.3 else None
            created = dice.choice([None, 20, dice.uniform(0, 90)])
            lab.image(name, days(), repository=repository, created=created, subject=subject and digest(subject), **more)
            names.append(name)
        for _other in range(dice.randint(0, 12)):
            tag = dice.choice(["latest", f"v{dice.randint(0, 20)}", f"1.{dice.randint(0, 3)}.{dice.randint(0, 3)}"])
            if dice.random() < 0.25:
                tag = about(dice.choice([*names, "vanished"]), dice.choice(["", ".sig", ".att"]))
            lab.tag(tag, dice.choice(names) if dice.random() > 0.01 else "lost", days(), repository)
    return lab


def any_policy(dice, lab):
    def sometimes(**choices):
        return {key: dice.choice(values) for key, values in choices.items() if dice.random() < 0.6}

    digests = [one for repository in lab.inventory.repositories.values() for one in repository.manifests]
    numbers = {
        "keep_last": [1, 2, 5],
        "max_age": [1, 10, 30],
        "group": ["minor", "^(v)"],
        "age_by": ["newest", "pushed", "created"],
        "keep_min": [0, 1, 3],
        "untagged_grace": [0, 7],
        "protect": ["latest", "v1*", {"regex": "[02]$"}, dice.sample(digests, 1)],
    }
    policy = {**sometimes(**numbers), **sometimes(in_use=[dice.sample(digests, 1)])}
    if dice.random() < 0.4:
        policy["rules"] = [{"repositories": "repo1", "keep_min": 1, **sometimes(**numbers)}]
    return parse_policy(policy)


def reachable(inventory, without=frozenset()):
    """Digest to bytes of all that a garbage collection leaves."""
    found = {}
    for repository in inventory.repositories.values():
        for held in repository.manifests.values():
            if (repository.name, held.digest) not in without:
                found.update({held.digest: held.size, **dict(held.blobs)})
    return found


@pytest.mark.parametrize("seed", range(400))
def test_whatever_the_registry_and_the_policy(seed):
    dice = random.Random(seed)
    lab = any_lab(dice)
    policy = any_policy(dice, lab)
    made = plan(lab.inventory, policy, NOW)
    doomed = {(one.repository, one.digest) for one in made.deletions}
    action = {(one.repository, one.tag): one.action for one in made.decisions if one.tag}
    assert len(doomed) == len(made.deletions)

    before, after = reachable(lab.inventory), reachable(lab.inventory, doomed)
    assert made.freed == sum(before.values()) - sum(after.values())
    assert made.freed == sum(one.freed for one in made.decisions)
    for name, repository in lab.inventory.repositories.items():
        held = repository.manifests
        left = {one for one in held if (name, one) not in doomed}
        # what stays is whole, and keeps what is about it
        for one in left:
            assert left >= set(held[one].children) & set(held)
            assert left >= {other for other in held if held[other].subject == one}
        # each tag is decided once; one that goes with its manifest is listed with it, and no other is
        assert {tag for place, tag in action if place == name} == set(repository.tags)
        for tag, aim in repository.tags.items():
            assert ((name, aim.digest) in doomed) == (action[name, tag] == "delete"), tag
        listed = [tag for one in made.deletions if one.repository == name for tag in one.tags]
        assert sorted(listed) == sorted(tag for tag in repository.tags if action[name, tag] == "delete")
        check_promises(policy, repository, {tag for tag in repository.tags if action[name, tag] == "keep"}, left)
    check_order(lab.inventory, made)

    shuffled = Inventory(lab.inventory.source)
    for name in dice.sample(sorted(lab.inventory.repositories), len(lab.inventory.repositories)):
        repository = lab.inventory.repositories[name]
        shuffled.repositories[name] = Repository(
            name,
            dict(dice.sample(sorted(repository.tags.items()), len(repository.tags))),
            dict(dice.sample(sorted(repository.manifests.items()), len(repository.manifests))),
        )
    assert plan(shuffled, policy, NOW).as_dict() == made.as_dict()


def check_promises(policy, repository, kept, left):
    """Protection, use, keep_last and keep_min, counted in the simplest way."""
    rules_here = policy.rules_for(repository.name)
    for rule in rules_here:
        assert left >= rule.protect.digests & set(repository.manifests)
        assert kept >= {tag for tag in repository.tags if rule.protect.of_tag(repository.name, tag)}
    assert left >= policy.in_use & set(repository.manifests)
    images = {aim.digest for tag, aim in repository.tags.items() if not tag.startswith("sha256-")}
    staying = {repository.tags[tag].digest for tag in kept if not tag.startswith("sha256-")}
    rule = rules_here[0]
    floor = max(rule.keep_min, min(rule.keep_last or 0, 1))
    children = {child for one in images & set(repository.manifests) for child in repository.manifests[one].children}
    subjects = {one for one in images & set(repository.manifests) if repository.manifests[one].subject is None}
    alone = (images - children) & subjects
    if not [tag for tag in repository.tags if tag.startswith("sha256-")]:  # none of them hangs on another by a tag
        assert len(staying & alone) >= min(floor, len(alone))
        if rule.keep_last and rule.group is None:
            assert len(staying & alone) >= min(rule.keep_last, len(alone))


def check_order(inventory, made):
    place = {(one.repository, one.digest): number for number, one in enumerate(made.deletions)}
    for (name, one), number in place.items():
        held = inventory.repositories[name].manifests.get(one, Held(one))
        for child in held.children:
            assert place.get((name, child), number + 1) > number
        if held.subject:
            assert place.get((name, held.subject), -1) < number
