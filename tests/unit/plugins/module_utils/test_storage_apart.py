# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a tree by several processes: it shows the same, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import time

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.storage import apart, tree
from ansible_collections.homelab.registry.plugins.module_utils.storage.apart import MIN_SHARE, read_apart
from ansible_collections.homelab.registry.plugins.module_utils.storage.tree import read_inventory
from ansible_collections.homelab.registry.tests.unit.storage_tree import Disk

READERS = 3


@pytest.fixture
def disk(tmp_path):
    """Repositories for several readers, some of them damaged."""
    disk = Disk(tmp_path)
    for number in range(READERS * MIN_SHARE):
        name = f"team/app{number}"
        disk.image(name, "1.0", (f"layer {number}",))
        disk.multi(name, "all")
    for number in range(0, READERS * MIN_SHARE, 2):
        (disk.repository(f"team/app{number}") / "_manifests/tags/1.0/current/link").write_text("")
    for number in range(0, READERS * MIN_SHARE, 5):
        other = disk.image(f"team/app{number}", "2.0", ("other",))
        disk.blob_path(other["digest"]).write_text("damaged")
    return disk


@pytest.fixture
def readers(monkeypatch):
    """As on a machine with so many CPUs; the processes that were begun."""
    begun = []
    begin = apart._begin

    def counted(*args):
        begun.append(begin(*args))
        return begun[-1]

    monkeypatch.setattr(apart, "_readers", lambda: READERS)
    monkeypatch.setattr(apart, "_begin", counted)
    return begun


def plain(disk, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(apart, "_readers", lambda: 1)
        seen = disk.tree()
        return read_inventory(seen, created=True), seen.findings


def test_it_shows_what_one_process_sees(disk, readers, monkeypatch):
    seen = disk.tree()
    inventory = read_inventory(seen, created=True)
    assert len(readers) == READERS - 1
    assert (inventory, seen.findings) == plain(disk, monkeypatch)
    assert list(inventory.repositories) == seen.repositories()
    assert any(one.lost_tags for one in inventory.repositories.values())
    assert seen.findings


def test_what_others_have_read_is_not_read_again(disk, readers, monkeypatch):
    opened, told = set(), set()
    seen, read, learn = disk.tree(), tree.Tree._read, tree.Tree.learn

    def counted(self, path, *args, **more):
        if "/_manifests/" in path:
            opened.add(path.split("/repositories/")[1].split("/_manifests/")[0])
        return read(self, path, *args, **more)

    def listened(self, learnt):
        told.update(name for _kind, name in learnt[0])
        learn(self, learnt)

    monkeypatch.setattr(tree.Tree, "_read", counted)
    monkeypatch.setattr(tree.Tree, "learn", listened)
    read_inventory(seen, created=True)
    assert opened | told == set(seen.repositories())
    assert not opened & told


@pytest.mark.parametrize("how", ["error", "killed", "half"])
def test_what_a_process_does_not_deliver_is_read_all_the_same(disk, readers, monkeypatch, how):
    here, learnt = os.getpid(), tree.Tree.learnt

    def broken(self):
        if os.getpid() == here:
            return learnt(self)
        if how == "error":
            raise OSError
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        monkeypatch.setattr(apart.marshal, "dumps", lambda _what: b"(")
        return ()

    monkeypatch.setattr(tree.Tree, "learnt", broken)
    seen = disk.tree()
    assert (read_inventory(seen, created=True), seen.findings) == plain(disk, monkeypatch)
    assert len(readers) == READERS - 1


def test_an_error_here_leaves_no_process(disk, readers):
    names = disk.tree().repositories()
    here = os.getpid()

    def read(name):
        if os.getpid() == here:
            raise KeyboardInterrupt
        time.sleep(0.2)  # they leave something to do
        return name

    with pytest.raises(KeyboardInterrupt):
        read_apart(disk.tree(), names, read)
    for pid, _pipe in readers:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)


def test_few_repositories_are_read_here(disk, readers):
    assert read_apart(disk.tree(), ["a", "b"], str.upper) == {"a": "A", "b": "B"}
    assert readers == []
