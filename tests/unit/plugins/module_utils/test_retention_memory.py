# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory of what digests stand for: its file, and a directory tree that is read with it."""

from __future__ import annotations

import shutil

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.inventory import Held
from ansible_collections.homelab.registry.plugins.module_utils.retention import memory as module
from ansible_collections.homelab.registry.plugins.module_utils.retention.memory import Memory
from ansible_collections.homelab.registry.plugins.module_utils.storage.tree import Tree, read_inventory
from ansible_collections.homelab.registry.tests.unit.storage_tree import Disk

DIGEST = "sha256:" + "a" * 64
HELD = Held(DIGEST, "x", 5, ("sha256:1",), (("sha256:2", 7),), "sha256:3", 1.5)


def remembered(path, *helds):
    memory = Memory(path)
    for held in helds:
        memory.put(held)
    memory.save(prune=False)
    return path


def test_what_was_put_is_there_again_with_another_time(tmp_path):
    path = remembered(tmp_path / "memory", HELD._replace(pushed=9.0))
    assert (path.stat().st_mode & 0o777) == 0o600
    assert Memory(path).get(DIGEST) == HELD
    assert Memory(path).get(DIGEST, 2.0) == HELD._replace(pushed=2.0)
    assert Memory(path).get("sha256:b") is None


def test_what_nobody_asks_for_any_more_is_forgotten(tmp_path):
    other = HELD._replace(digest="sha256:b")
    path = remembered(tmp_path / "memory", HELD, other)
    memory = Memory(path)
    memory.get(DIGEST)
    memory.save(prune=False)
    assert Memory(path).get("sha256:b") == other
    memory.save(prune=True)
    assert (Memory(path).get(DIGEST), Memory(path).get("sha256:b")) == (HELD, None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"{}",
        lambda data: data[:-5],
        lambda data: data.replace(b"1.5", b"2.5"),
        lambda data: b"\xff" + data,
    ],
)
def test_a_file_that_makes_no_sense_is_as_good_as_none(tmp_path, damage):
    path = remembered(tmp_path / "memory", HELD)
    path.write_bytes(damage(path.read_bytes()))
    assert Memory(path).get(DIGEST) is None


def test_so_is_one_of_another_release(tmp_path, monkeypatch):
    path = remembered(tmp_path / "memory", HELD)
    monkeypatch.setattr(module, "VERSION", 99)
    assert Memory(path).get(DIGEST) is None


def test_a_file_that_cannot_be_read_is_an_error_and_one_that_cannot_be_written_is_not(tmp_path, monkeypatch):
    with pytest.raises(HomelabError, match="the memory of manifests cannot be read"):
        Memory(tmp_path)

    def full(*_arguments):
        raise HomelabError("no space left on device")

    monkeypatch.setattr(module, "write_atomic", full)
    assert not remembered(tmp_path / "memory", HELD).exists()


def test_a_directory_tree_is_read_as_without_it(tmp_path):
    disk = Disk(tmp_path / "registry")
    disk.multi("app", "v1")
    lost = disk.image("app", "v2", [b"x"])["digest"]
    disk.image("app", "v3", [b"y"])
    plain = read_inventory(disk.tree(), created=True)
    memory = Memory(tmp_path / "memory")
    assert read_inventory(disk.tree(), created=True, memory=memory) == plain
    memory.save(prune=True)
    memory = Memory(tmp_path / "memory")
    tree = Tree(disk.root)
    tree.content = tree.created = None  # nothing of it is read again
    assert read_inventory(tree, created=True, memory=memory) == plain
    # what is gone from the disk is gone
    shutil.rmtree(disk.tree().blob_path(lost))
    gone = read_inventory(disk.tree(), created=True, memory=memory).repositories["app"].manifests[lost]
    assert (gone.media_type, gone.blobs) == ("", ())


def test_what_may_be_healed_is_not_remembered(tmp_path):
    disk = Disk(tmp_path / "registry")
    digest = disk.image("app", "v1", [b"x"])["digest"]
    config = disk.tree().content(digest).config
    away = tmp_path / "config"
    shutil.move(disk.tree().blob_path(config), away)
    memory = Memory(None)
    held = read_inventory(disk.tree(), created=True, memory=memory).repositories["app"].manifests[digest]
    assert held.created is None
    shutil.move(away, disk.tree().blob_path(config))
    assert read_inventory(disk.tree(), created=True, memory=memory) == read_inventory(disk.tree(), created=True)
