# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on which node, remembered on the registry host.

A timer there cannot ask the nodes. It goes by what they said last, as long as that is not too old. A node that said
nothing, or did so too long ago, may use more by now: of the repositories that it had images from nothing goes, and if
it was never asked, nothing goes at all (policy.Policy.unreachable).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import HomelabError
from ..oci.manifest import digest_fault
from ..text_file import read_text, write_atomic

VERSION = 1
#: An answer counts for so many days.
DAYS = 30
DAY = 86400


@dataclass
class Node:
    """What is known of a node.

    Attributes:
        digests: images in use, by manifests' or configs' digests, when it answered last; None if it never did.
        asked: when that was, in seconds since 1970.
        failure: why it could not be asked since; None if it could.
    """

    digests: frozenset | None = None
    asked: float | None = None
    failure: str | None = None


@dataclass
class Use:
    """What is in use, as a policy takes it, and what to tell the user about it."""

    digests: frozenset = frozenset()
    unreachable: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


def read_nodes(path: str | None) -> dict[str, Node]:
    """What is remembered; nothing if there is no such file.

    Raises:
        HomelabError: it cannot be read, or is not such a file.
    """
    text = read_text(str(path)) if path else None
    if text is None:
        return {}
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            raise ValueError
        return {name: _node(values) for name, values in document["nodes"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HomelabError(
            "this is no list of the images in use", str(path), "remove it, and run cleanup.yml, which asks all nodes"
        ) from error


def _node(values):
    digests, asked, failure = values["digests"], values["asked"], values.get("failure")
    if digests is not None and (any(map(digest_fault, digests)) or not isinstance(asked, (int, float))):
        raise ValueError
    return Node(None if digests is None else frozenset(digests), asked, failure)


def write_nodes(path: str, nodes: Mapping[str, Node]) -> None:
    """Remember them.

    Raises:
        HomelabError: the file cannot be written.
    """
    document = {
        "version": VERSION,
        "nodes": {
            name: {
                "digests": None if node.digests is None else sorted(node.digests),
                "asked": node.asked,
                "failure": node.failure,
            }
            for name, node in sorted(nodes.items())
        },
    }
    write_atomic(str(path), json.dumps(document, indent=1) + "\n", 0o644)


def learn(nodes: Mapping[str, Node], answers: Mapping[str, Mapping], now: float) -> dict[str, Node]:
    """What is known after some nodes were asked.

    Args:
        nodes: what was known.
        answers: node to {digests: [...]}, or to {failure: why it could not be asked}.
        now: seconds since 1970.

    Raises:
        HomelabError: an answer is neither, or has a digest that is none.
    """
    known = dict(nodes)
    for name, answer in answers.items():
        before = known.get(name, Node())
        if answer.get("failure"):
            known[name] = Node(before.digests, before.asked, str(answer["failure"]))
            continue
        digests = answer.get("digests")
        if not isinstance(digests, (list, tuple)) or any(map(digest_fault, digests)):
            raise HomelabError(f"{name} gave no list of digests", "in use", "let the module images_in_use make it")
        known[name] = Node(frozenset(digests), now, None)
    return known


def in_use(nodes: Mapping[str, Node], expected: Iterable[str] | None = None, *, days: float = DAYS, now: float) -> Use:
    """What a policy has to go by.

    Args:
        nodes: what is known.
        expected: names of all nodes; None: only those that are known. Others are not the fleet's any more.
        days: for how long an answer counts.
        now: seconds since 1970.
    """
    use, digests = Use(), set()
    for name in sorted(nodes if expected is None else set(expected)):
        node = nodes.get(name, Node())
        if node.digests is None:
            use.unreachable[name] = None
            said = f"could not be asked: {node.failure}" if node.failure else "was never asked what it uses"
            use.notes.append(f"{name} {said}; nothing goes until it was (cleanup.yml asks)")
        elif node.failure or now - node.asked > days * DAY:
            use.unreachable[name] = node.digests
            why = f"could not be asked ({node.failure})" if node.failure else "was not asked since"
            use.notes.append(
                f"{name} {why}; what it used {_days(now - node.asked)} ago stays, and so does all else in the same"
                " repositories"
            )
        else:
            digests |= node.digests
    use.digests = frozenset(digests)
    return use


def _days(seconds):
    days = int(seconds // DAY)
    return f"{days} days" if days != 1 else "a day"
