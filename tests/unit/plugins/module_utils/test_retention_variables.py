# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory's variables, and what is typed, to a clean-up; and what the nodes said."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.ctl.settings import TYPES
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.retention import variables
from ansible_collections.homelab.registry.plugins.module_utils.retention.policy import _TOP_KEYS
from ansible_collections.homelab.registry.plugins.module_utils.retention.variables import answers_of, settings_of

ACCESS = {"url": "http://reg:5000"}
GROUPS = {"docker_nodes": ["two", "one"], "k3s_nodes": ["board", "one"], "registry": ["reg"]}
ID = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def policy(found, typed=False):
    return settings_of(found, ACCESS, {}, typed)["cleanup"]["policy"]


def test_nothing_is_set():
    assert settings_of({"ansible_host": "x", "cleanup_keep_last": "", "cleanup_protect": None}, ACCESS, GROUPS) == {
        "registry": ACCESS,
        "cleanup": {"policy": {}, "nodes": ["board", "one", "two"]},
        "files": {},
    }


def test_the_names_are_those_of_policy_and_registryctl():
    """Else a variable that cleanup.yml takes would stop the timer."""
    assert set(variables.POLICY) == set(_TOP_KEYS)
    assert {*variables.OTHERS, "policy", "nodes"} <= set(TYPES["cleanup"])
    assert set(variables.ACCESS) <= set(TYPES["registry"])


@pytest.mark.parametrize(
    ("found", "typed", "expected"),
    [
        ({"cleanup_keep_last": 5, "cleanup_max_age": 30}, False, {"keep_last": 5, "max_age": 30}),
        ({"keep_last": "5", "max_age": "9", "force": "true"}, True, {"keep_last": "5", "max_age": "9", "force": True}),
        ({"keep_last": "5", "force": "true"}, False, {}),  # of another's inventory, or typed for another play
        ({"cleanup_keep_last": 9, "keep_last": "5"}, True, {"keep_last": "5"}),
        ({"cleanup_force": "no"}, False, {"force": False}),
        ({"cleanup_protect": "latest, v1.*"}, False, {"protect": "latest, v1.*"}),
        ({"cleanup_rules": [{"repositories": "ci/*", "keep_last": 1}]}, False, None),
    ],
)
def test_the_policy(found, typed, expected):
    assert policy(found, typed) == ({"rules": found["cleanup_rules"]} if expected is None else expected)


def test_the_rest():
    found = {
        "cleanup_url": "https://r:5000",
        "cleanup_validate_certs": "false",
        "cleanup_gc": "no",
        "cleanup_in_use_days": "10",
        "cleanup_state_dir": "/s",
    }
    made = settings_of(found, ACCESS, {})
    assert made["registry"] == {"url": "https://r:5000", "validate_certs": False}
    assert made["cleanup"] == {"policy": {}, "nodes": [], "gc": False, "in_use_days": 10.0}
    assert made["files"] == {"state_dir": "/s"}


@pytest.mark.parametrize(
    ("found", "said", "where"),
    [
        ({"cleanup_keep_lasst": 5}, "did you mean cleanup_keep_last?", "cleanup_keep_lasst"),
        ({"cleanup_maxage": 5}, "did you mean cleanup_max_age?", "cleanup_maxage"),
        ({"cleanup_keep_last": -1}, "keep_last is -1", "cleanup_*"),
        ({"cleanup_max_age": "30d"}, "'30d'", "cleanup_*"),
        ({"cleanup_protect": {"regex": "("}}, "is not a regular expression", "cleanup_*"),
        ({"cleanup_group": "("}, "is not a regular expression", "cleanup_*"),
        ({"cleanup_rules": [{"keep_last": 1}]}, "a rule has no repositories", "cleanup_*.rules[0]"),
        ({"cleanup_gc": "perhaps"}, "neither true nor false", "cleanup_gc"),
        ({"cleanup_in_use_days": "soon"}, "is not a number", "cleanup_in_use_days"),
    ],
)
def test_bad_values_are_named(found, said, where):
    with pytest.raises(HomelabError) as caught:
        settings_of(found, ACCESS, {})
    assert said in str(caught.value)
    assert caught.value.where == where


def test_a_variable_of_the_users_own():
    settings_of({"cleanup_of_the_house": "monday"}, ACCESS, {})


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([None, None], {}),  # not in this run
        ([{"skipped": True, "changed": False}, None], {}),
        ([{"digests": [OTHER, ID]}, {"skipped": True}], {"one": {"digests": [ID, OTHER]}}),
        ([{"digests": [ID]}, {"digests": [OTHER, ID]}], {"one": {"digests": [ID, OTHER]}}),
        ([{"digests": []}], {"one": {"digests": []}}),
        ([{"digests": [ID]}, {"msg": "k3s is down", "failed": False}], {"one": {"failure": "k3s is down"}}),
        ([{"unreachable": True, "msg": "no route\nto host"}], {"one": {"failure": "unreachable: no route"}}),
        ([{"failed": False}], {"one": {"failure": "no answer"}}),
    ],
)
def test_what_a_node_said(results, expected):
    assert answers_of({"one": results}) == expected
