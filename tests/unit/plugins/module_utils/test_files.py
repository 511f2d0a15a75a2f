# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files others own too: backups, notes, merging."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.nodes import files


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- backups --------------------------------------------------------------------------------------------------


def test_a_backup_lies_beside_the_file_and_is_private(tmp_path):
    path = tmp_path / "registries.yaml"
    path.write_text("now", encoding="utf-8")
    backup = Path(files.back_up(str(path), "password: x\n"))
    assert backup.parent == tmp_path
    assert backup.name.startswith("registries.yaml.")
    assert backup.suffix == ".bak"
    assert backup.read_text(encoding="utf-8") == "password: x\n"
    assert mode_of(backup) == 0o600
    assert path.read_text(encoding="utf-8") == "now"


# --- the note ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", "no json", "[1]", '"text"', "null", "{"])
def test_a_missing_or_damaged_note_means_nothing_is_ours(text):
    assert files.parse_owned(text) == {}


def test_a_note_is_read_as_it_was_written():
    owned = {"registry-mirrors": ["http://a:5000"], "insecure-registries": []}
    assert files.parse_owned(files.dump_owned(owned)) == owned
    assert "homelab.registry" in files.dump_owned(owned), "a person who finds the note learns whose it is"


@pytest.mark.parametrize("text", ['{"registry-mirrors": null}', '{"mirrors": {"a": 1}}', '{"configs": [1]}'])
def test_a_note_with_other_types_means_nothing_is_ours(text):
    assert files.parse_owned(text) == {}


def test_a_note_does_not_change_when_it_is_written_again():
    once = files.dump_owned({"mirrors": {"docker.io": ["http://a"]}})
    assert files.dump_owned(json.loads(once)) == once


def test_the_note_lies_beside_the_file():
    assert files.owned_path("/etc/docker/daemon.json") == "/etc/docker/homelab-registry.json"


# --- merging -----------------------------------------------------------------------------------------------

MERGES = {
    # found, owned, wanted, first -> merged, ours
    "into nothing": ([], [], ["a"], False, ["a"], ["a"]),
    "nothing to do": ([], [], [], False, [], []),
    "others' stay, ours go last": (["x", "y"], [], ["a"], False, ["x", "y", "a"], ["a"]),
    "others' stay, ours go first": (["x", "y"], [], ["a", "b"], True, ["a", "b", "x", "y"], ["a", "b"]),
    "already there by a person stays theirs": (["a", "x"], [], ["a"], True, ["a", "x"], []),
    "already there by us stays ours": (["x", "a"], ["a"], ["a"], True, ["x", "a"], ["a"]),
    "no longer wanted goes": (["x", "a", "y"], ["a"], [], False, ["x", "y"], []),
    "replaced by another": (["a", "x"], ["a"], ["b"], True, ["b", "x"], ["b"]),
    "a person's is never removed": (["a", "x"], [], [], False, ["a", "x"], []),
    "ours was taken out by hand and comes back": (["x"], ["a"], ["a"], False, ["x", "a"], ["a"]),
    "ours was taken out by hand and is not wanted": (["x"], ["a"], [], False, ["x"], []),
}


@pytest.mark.parametrize(("found", "owned", "wanted", "first", "merged", "ours"), MERGES.values(), ids=MERGES)
def test_merge_list(found, owned, wanted, first, merged, ours):
    assert files.merge_list(found, owned, wanted, first=first) == (merged, ours)
    # a second run finds what the first left, and changes nothing
    assert files.merge_list(merged, ours, wanted, first=first) == (merged, ours)


def test_merge_list_compares_by_the_given_key_and_keeps_the_spelling_that_is_there():
    merged, ours = files.merge_list(["A", "x"], ["a"], ["a"], first=False, same=str.lower)
    assert (merged, ours) == (["A", "x"], ["a"])


def test_old_backups_of_our_own_go_and_those_of_others_stay(tmp_path):
    path = tmp_path / "daemon.json"
    ours = [tmp_path / f"daemon.json.2026010{day}T000000Z.bak" for day in range(1, 8)]
    theirs = [tmp_path / name for name in ("daemon.json.bak", "daemon.json.old.bak", "other.json.20200101T000000Z.bak")]
    for backup in ours + theirs:
        backup.write_text("x")
    newest = files.back_up(str(path), "before")
    kept = sorted(str(backup) for backup in [*ours[3:], *theirs]) + [newest]
    assert sorted(str(found) for found in tmp_path.iterdir()) == sorted(kept)
