# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies as users write them, and what is refused."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.retention.policy import MINOR, parse_policy

DIGEST = "sha256:" + "a1" * 32
OTHER = "sha256:" + "b2" * 32


def test_defaults_let_nothing_with_a_tag_go():
    policy = parse_policy({})
    (rule,) = policy.rules
    assert (rule.keep_last, rule.max_age, rule.keep_min, rule.untagged_grace) == (None, None, 1, 7)
    assert (rule.age_by, rule.group, policy.max_delete_share, policy.force) == ("newest", None, 0.5, False)


def test_numbers_come_as_text_from_the_command_line():
    (rule,) = parse_policy({"keep_last": "5", "max_age": "30", "group": None, "untagged_grace": "0.5"}).rules
    assert (rule.keep_last, rule.max_age, rule.group, rule.untagged_grace) == (5, 30, None, 0.5)


def test_the_first_rule_that_matches_gives_numbers_and_the_top_what_it_does_not_say():
    policy = parse_policy(
        {
            "keep_last": 5,
            "max_age": 30,
            "untagged_grace": 1,
            "rules": [
                {"repositories": "team/*", "max_age": 3},
                {"repositories": ["team/app", "other"], "keep_last": 9, "group": "minor"},
            ],
        }
    )
    first = policy.rules_for("team/app")[0]
    assert (first.name, first.keep_last, first.max_age, first.group) == ("rules[0]", 5, 3, None)
    second = policy.rules_for("other")[0]
    assert (second.keep_last, second.max_age, second.group, second.untagged_grace) == (9, 30, MINOR, 1)
    assert policy.rules_for("elsewhere")[0].keep_last == 5
    assert [rule.name for rule in policy.rules_for("team/app")] == ["rules[0]", "rules[1]", "policy"]


@pytest.mark.parametrize(
    ("protect", "taken"),
    [
        ("latest, v1.*", {"latest", "v1.2"}),
        (["team/app:v?"], {"v2"}),
        (["other:v*"], set()),
        ({"tags": ["*-rc?"]}, {"v2-rc1"}),
        ({"regex": "rc"}, {"v2-rc1", "src"}),  # anywhere: what is meant wider than written must not be lost
        ({"regex": ["^v2$", "late"]}, {"v2", "latest"}),
    ],
)
def test_protected_tags(protect, taken):
    (rule,) = parse_policy({"protect": protect}).rules
    found = {tag for tag in ("latest", "v1.2", "v2", "v2-rc1", "src") if rule.protect.of_tag("team/app", tag)}
    assert found == taken


def test_protected_digests():
    assert parse_policy({"protect": ["latest", DIGEST]}).rules[0].protect.digests == {DIGEST}
    assert parse_policy({"protect": {"digests": DIGEST}}).rules[0].protect.digests == {DIGEST}


@pytest.mark.parametrize(
    ("in_use", "digests", "unreachable"),
    [
        (None, set(), {}),
        ([DIGEST, f"nas:5000/team/app@{OTHER}"], {DIGEST, OTHER}, {}),
        ({"digests": [DIGEST], "unreachable": "sbc1, sbc2"}, {DIGEST}, {"sbc1": None, "sbc2": None}),
        ({"unreachable": {"sbc1": [OTHER], "sbc2": None}}, set(), {"sbc1": {OTHER}, "sbc2": None}),
    ],
)
def test_in_use(in_use, digests, unreachable):
    policy = parse_policy({"in_use": in_use})
    assert (policy.in_use, policy.unreachable) == (digests, unreachable)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "the policy is [], not a mapping"),
        ({"keep_last": -1}, "keep_last is -1 (policy): give the number of images to keep"),
        ({"keep_last": 0}, "leave it out to go by max_age alone"),
        ({"keep_last": 2.5}, "not a whole number"),
        ({"keep_last": "five"}, "keep_last is 'five', which is not a whole number"),
        ({"keep_last": True}, "keep_last is True"),
        ({"max_age": "30d"}, "max_age is '30d', which is not a number (policy): give a number of days"),
        ({"max_age": 0}, "max_age is 0"),
        ({"max_age": float("inf")}, "max_age is inf"),
        ({"keep_min": -1}, "keep_min is -1"),
        ({"untagged_grace": -0.5}, "untagged_grace is -0.5"),
        ({"max_delete_share": 50}, "0.5 is half of the registry's tags"),
        ({"force": "yes"}, "write true or false"),
        ({"age_by": "pulled"}, "write one of newest, pushed, created"),
        ({"keep_lats": 5}, "the policy has the unknown key 'keep_lats' (policy): did you mean keep_last?"),
        ({"zzz": 5}, "known are keep_last, max_age"),
        ({"rules": [{"repositories": "*", "keeplast": 1}]}, "(policy.rules[0]): did you mean keep_last?"),
        ({"rules": {"repositories": "*"}}, "rules is {'repositories': '*'}, not a list"),
        ({"rules": [{"keep_last": 3}]}, "a rule has no repositories (policy.rules[0])"),
        ({"rules": [{"repositories": "prod/*"}]}, "to keep everything there, write protect: '*'"),
        ({"rules": [{"repositories": "nas:5000/x", "keep_last": 1}]}, "is no pattern of a repository's name"),
        ({"rules": [{"repositories": [], "keep_last": 1}]}, "repositories is empty"),
        ({"group": "^v([0-9]"}, "group '^v([0-9]' is not a regular expression"),
        ({"group": "^v[0-9]+"}, "has no parentheses"),
        ({"protect": {"regex": "*"}}, "protect.regex '*' is not a regular expression"),
        ({"protect": {"tag": "x"}}, "did you mean tags?"),
        ({"protect": ["a b", "$x"]}, "'$x' in protect is no pattern of a tag"),
        ({"protect": ["sha256:abc"]}, "in protect is no digest: it has 3 hexadecimal digits"),
        ({"protect": [1.5]}, "an item of protect is 1.5, which is not text (policy): put it in quotes"),
        ({"in_use": ["team/app:1"]}, "'team/app:1' in in_use is no digest"),
        ({"in_use": {"hosts": []}}, "in_use has the unknown key 'hosts'"),
    ],
)
def test_what_is_refused(value, said):
    with pytest.raises(HomelabError) as caught:
        parse_policy(value)
    assert said in str(caught.value)
