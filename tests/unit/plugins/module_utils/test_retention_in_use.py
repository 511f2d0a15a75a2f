# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes use, as it is remembered and grows old."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.retention.in_use import (
    Node,
    in_use,
    learn,
    read_nodes,
    write_nodes,
)

DAY = 86400
NOW = 1_800_000_000
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def known(**ages):
    """Nodes that said A so many days ago."""
    return {name: Node(frozenset([A]), NOW - days * DAY) for name, days in ages.items()}


@pytest.mark.parametrize(
    ("nodes", "expected", "digests", "unreachable", "said"),
    [
        ({}, None, set(), {}, ""),
        ({}, [], set(), {}, ""),
        (known(one=1), None, {A}, {}, ""),
        (known(one=30), ["one"], {A}, {}, ""),
        (known(one=31), ["one"], set(), {"one": {A}}, "one was not asked since; what it used 31 days ago stays"),
        ({}, ["one"], set(), {"one": None}, "one was never asked what it uses; nothing goes"),
        ({"one": Node(None, None, "timed out")}, None, set(), {"one": None}, "one could not be asked: timed out"),
        (
            {"one": Node(frozenset([A]), NOW - DAY, "timed out")},
            ["one"],
            set(),
            {"one": {A}},
            "one could not be asked (timed out); what it used a day ago stays",
        ),
        (known(gone=90, one=1), ["one"], {A}, {}, ""),  # no longer in the fleet
        (known(old=90, one=1), None, {A}, {"old": {A}}, "old was not asked"),
    ],
)
def test_what_counts(nodes, expected, digests, unreachable, said):
    use = in_use(nodes, expected, now=NOW)
    assert (use.digests, use.unreachable) == (digests, unreachable)
    assert said in " ".join(use.notes)
    assert bool(use.notes) == bool(said)


def test_the_days_can_be_set():
    assert in_use(known(one=3), None, days=2, now=NOW).unreachable == {"one": {A}}


def test_answers_and_silence():
    nodes = learn(known(one=5, two=5), {"one": {"digests": [B]}, "two": {"failure": "no route"}}, NOW)
    assert nodes == {"one": Node(frozenset([B]), NOW), "two": Node(frozenset([A]), NOW - 5 * DAY, "no route")}
    nodes = learn(nodes, {"two": {"digests": []}, "three": {"failure": "off"}}, NOW + 1)
    assert nodes["two"] == Node(frozenset(), NOW + 1)
    assert nodes["three"] == Node(None, None, "off")


@pytest.mark.parametrize("answer", [{}, {"digests": "sha256:x"}, {"digests": ["nas:5000/app:1"]}, {"digests": None}])
def test_an_answer_that_is_none(answer):
    with pytest.raises(HomelabError, match="one gave no list of digests"):
        learn({}, {"one": answer}, NOW)


def test_the_file(tmp_path):
    path = tmp_path / "in-use.json"
    assert read_nodes(str(path)) == read_nodes(None) == {}
    nodes = learn(known(one=5), {"two": {"failure": "no route"}, "three": {"digests": []}}, NOW)
    write_nodes(str(path), nodes)
    assert read_nodes(str(path)) == nodes


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"version": 2, "nodes": {}}', '{"version": 1}', '{"version": 1, "nodes": {"a": {}}}',
        '{"version": 1, "nodes": {"a": {"digests": ["x"], "asked": 1}}}',
        '{"version": 1, "nodes": {"a": {"digests": [], "asked": null}}}',
    ],
)  # fmt: skip
def test_a_file_that_is_none_stops_the_run(tmp_path, text):
    """To go on as if nothing were in use would delete it."""
    path = tmp_path / "in-use.json"
    path.write_text(text)
    with pytest.raises(HomelabError, match="no list of the images in use") as caught:
        read_nodes(str(path))
    assert "cleanup.yml" in caught.value.remedy
