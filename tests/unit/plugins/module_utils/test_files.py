# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files others own too: reading, atomic writing, backups, notes, merging."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import files


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- reading -----------------------------------------------------------------------------------------------


def test_an_absent_file_reads_as_none(tmp_path):
    assert files.read_text(str(tmp_path / "no" / "such")) is None


def test_a_file_reads_as_its_text(tmp_path):
    (tmp_path / "a").write_text("grüße\n", encoding="utf-8")
    assert files.read_text(str(tmp_path / "a")) == "grüße\n"


@pytest.mark.parametrize("kind", ["directory", "not UTF-8", "below a file"])
def test_what_cannot_be_read_is_named(tmp_path, kind):
    path = tmp_path / "daemon.json"
    if kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b'{"a": "\xff"}')
    path = path / "below" if kind == "below a file" else path
    with pytest.raises(HomelabError, match="cannot be read") as caught:
        files.read_text(str(path))
    assert str(path) in str(caught.value)


# --- writing -----------------------------------------------------------------------------------------------


def test_a_new_file_gets_the_mode_and_its_directories(tmp_path):
    path = tmp_path / "etc" / "docker" / "daemon.json"
    files.write_atomic(str(path), "{}\n", 0o640)
    assert path.read_text(encoding="utf-8") == "{}\n"
    assert mode_of(path) == 0o640
    assert mode_of(path.parent) & 0o700 == 0o700


def test_an_existing_file_keeps_its_mode(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o600)
    files.write_atomic(str(path), "new", 0o644)
    assert (path.read_text(encoding="utf-8"), mode_of(path)) == ("new", 0o600)


def test_an_existing_file_keeps_its_owner(tmp_path, monkeypatch):
    """Only root can give a file away; for others the call itself has to do."""
    owner = (1234, 4321) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    path = tmp_path / "daemon.json"
    path.write_text("old", encoding="utf-8")
    os.chown(path, *owner)
    given, chown = [], os.chown
    monkeypatch.setattr(files.os, "chown", lambda name, uid, gid: (given.append((uid, gid)), chown(name, uid, gid)))
    files.write_atomic(str(path), "new", 0o644)
    assert (path.stat().st_uid, path.stat().st_gid) == owner
    assert given == [owner]


def test_a_link_stays_and_its_aim_is_written(tmp_path):
    aim, link = tmp_path / "volume" / "daemon.json", tmp_path / "daemon.json"
    aim.parent.mkdir()
    aim.write_text("old", encoding="utf-8")
    link.symlink_to(aim)
    files.write_atomic(str(link), "new", 0o644)
    assert link.is_symlink()
    assert aim.read_text(encoding="utf-8") == "new"


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "daemon.json"
    path.write_text("old", encoding="utf-8")

    def replace(self, target):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(HomelabError, match="cannot be written: Read-only file system") as caught:
        files.write_atomic(str(path), "new", 0o644)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    assert [entry.name for entry in tmp_path.iterdir()] == ["daemon.json"]
    assert path.read_text(encoding="utf-8") == "old"


def test_a_path_below_a_file_is_an_error(tmp_path):
    (tmp_path / "etc").write_text("", encoding="utf-8")
    with pytest.raises(HomelabError, match="cannot be written"):
        files.write_atomic(str(tmp_path / "etc" / "daemon.json"), "{}", 0o644)
    assert (tmp_path / "etc").is_file()


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
