# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text files: clear errors, atomic writes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import text_file
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- reading -----------------------------------------------------------------------------------------------


def test_an_absent_file_reads_as_none(tmp_path):
    assert text_file.read_text(str(tmp_path / "no" / "such")) is None


def test_a_file_reads_as_its_text(tmp_path):
    (tmp_path / "a").write_text("grüße\n", encoding="utf-8")
    assert text_file.read_text(str(tmp_path / "a")) == "grüße\n"


@pytest.mark.parametrize("kind", ["directory", "not UTF-8", "below a file"])
def test_what_cannot_be_read_is_named(tmp_path, kind):
    path = tmp_path / "daemon.json"
    if kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b'{"a": "\xff"}')
    path = path / "below" if kind == "below a file" else path
    with pytest.raises(HomelabError, match="cannot be read") as caught:
        text_file.read_text(str(path))
    assert str(path) in str(caught.value)


# --- writing -----------------------------------------------------------------------------------------------


def test_a_new_file_gets_the_mode_and_its_directories(tmp_path):
    path = tmp_path / "etc" / "docker" / "daemon.json"
    text_file.write_atomic(str(path), "{}\n", 0o640)
    assert path.read_text(encoding="utf-8") == "{}\n"
    assert mode_of(path) == 0o640
    assert mode_of(path.parent) & 0o700 == 0o700


def test_an_existing_file_keeps_its_mode(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o600)
    text_file.write_atomic(str(path), "new", 0o644)
    assert (path.read_text(encoding="utf-8"), mode_of(path)) == ("new", 0o600)


def test_an_existing_file_keeps_its_owner(tmp_path, monkeypatch):
    """Only root can give a file away; for others the call itself has to do."""
    owner = (1234, 4321) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    path = tmp_path / "daemon.json"
    path.write_text("old", encoding="utf-8")
    os.chown(path, *owner)
    given, chown = [], os.chown
    monkeypatch.setattr(text_file.os, "chown", lambda name, uid, gid: (given.append((uid, gid)), chown(name, uid, gid)))
    text_file.write_atomic(str(path), "new", 0o644)
    assert (path.stat().st_uid, path.stat().st_gid) == owner
    assert given == [owner]


def test_a_link_stays_and_its_aim_is_written(tmp_path):
    aim, link = tmp_path / "volume" / "daemon.json", tmp_path / "daemon.json"
    aim.parent.mkdir()
    aim.write_text("old", encoding="utf-8")
    link.symlink_to(aim)
    text_file.write_atomic(str(link), "new", 0o644)
    assert link.is_symlink()
    assert aim.read_text(encoding="utf-8") == "new"


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "daemon.json"
    path.write_text("old", encoding="utf-8")

    def replace(self, target):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(HomelabError, match="cannot be written: Read-only file system") as caught:
        text_file.write_atomic(str(path), "new", 0o644)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    assert [entry.name for entry in tmp_path.iterdir()] == ["daemon.json"]
    assert path.read_text(encoding="utf-8") == "old"


def test_a_path_below_a_file_is_an_error(tmp_path):
    (tmp_path / "etc").write_text("", encoding="utf-8")
    with pytest.raises(HomelabError, match="cannot be written"):
        text_file.write_atomic(str(tmp_path / "etc" / "daemon.json"), "{}", 0o644)
    assert (tmp_path / "etc").is_file()
