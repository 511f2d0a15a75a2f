# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A clean-up's settings from an inventory's variables `cleanup_*`. Pure; for cleanup.yml and the weekly timer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import HomelabError
from ..variables import given, number, refuse_misspelt, yes_no
from .policy import parse_policy

#: Settings that are a variable `cleanup_<name>` each: how the registry is reached, the policy, and the rest.
ACCESS = ("url", "username", "password", "ca_path", "client_cert", "client_key", "validate_certs", "timeout")
POLICY = (
    "keep_last",
    "max_age",
    "keep_min",
    "group",
    "age_by",
    "untagged_grace",
    "protect",
    "rules",
    "in_use",
    "max_delete_share",
    "force",
)
OTHERS = ("gc", "in_use_days")
#: Where the machine that cleanup.yml runs on keeps its memory, and what is no setting.
FILES = ("state_dir", "lock_path", "in_use_path")
NO_SETTINGS = ("run_on",)
#: Those that are also taken without the prefix when somebody types them: cleanup.yml -e keep_last=5.
TYPED = ("keep_last", "max_age", "keep_min", "protect", "max_delete_share", "force", "gc")
TYPES = {**dict.fromkeys(("validate_certs", "force", "gc"), yes_no), "timeout": number}


def settings_of(variables: Mapping, access: Mapping, groups: Mapping, typed: bool = False) -> dict:
    """The settings that are set.

    Args:
        variables: of the registry host.
        access: how the registry is reached, by the names of ACCESS; a variable `cleanup_<name>` outweighs it.
        groups: inventory group name to its hosts, for the nodes whose images are in use.
        typed: whether names without the prefix count, too; they come first.

    Returns:
        `registry` (how it is reached) and `cleanup`, as in registryctl's file, and `files`.

    Raises:
        HomelabError: a variable has the wrong type, nearly the name of another one, or the policy is none.
    """
    refuse_misspelt(variables, "cleanup_", (*ACCESS, *POLICY, *OTHERS, *FILES, *NO_SETTINGS))
    found = given(variables, "cleanup_", (*ACCESS, *POLICY, *OTHERS, *FILES), TYPES)
    if typed:
        found.update(given(variables, "", TYPED, TYPES))

    def part(names):
        return {name: found[name] for name in names if name in found}

    policy = part(POLICY)
    parse_policy(policy, "cleanup_*")
    nodes = [node for group in ("docker_nodes", "k3s_nodes") for node in groups.get(group) or ()]
    days = found.get("in_use_days")
    if days is not None:
        found["in_use_days"] = _days(days)
    return {
        "registry": {**access, **part(ACCESS)},
        "cleanup": {"policy": policy, "nodes": sorted(set(nodes)), **part(OTHERS)},
        "files": part(FILES),
    }


def answers_of(results: Mapping[str, Iterable[Mapping]]) -> dict:
    """What the nodes said, as the module registry_cleanup takes it (`used`).

    Args:
        results: node to the results of the module images_in_use there; none of a node that was not asked.
    """
    answers = {}
    for node, given_ in results.items():
        digests, failures = set(), []
        asked = [result for result in given_ if result and not result.get("skipped")]
        for result in asked:
            if result.get("digests") is None:
                said = str(result.get("msg") or "no answer").strip().splitlines()[0]
                failures.append(f"unreachable: {said}" if result.get("unreachable") else said)
            else:
                digests.update(result["digests"])
        if failures:
            answers[node] = {"failure": "; ".join(failures)}
        elif asked:
            answers[node] = {"digests": sorted(digests)}
    return answers


def _days(value):
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise HomelabError(f"{value!r} is not a number", "cleanup_in_use_days", "give a number of days") from error
