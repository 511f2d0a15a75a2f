# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes the space."""

from __future__ import annotations

import json
import random

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.storage.usage import FileSystem, file_system, usage
from ansible_collections.homelab.registry.tests.unit.storage_tree import PUSHED, Disk, random_registry


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path)


def test_shares_between_repositories(disk):
    one = disk.image("a", "v1", [b"s" * 1000, b"a" * 50])
    two = disk.image("b", "v1", [b"s" * 1000, b"b" * 70])
    sizes = {made["digest"]: made["size"] + disk.tree().content(made["digest"]).blobs[0][1] for made in (one, two)}
    disk.blob("b", b"u" * 333)
    disk.upload("c", "1", PUSHED, data=b"up" * 10)
    (disk.repository("gone") / "_layers").mkdir(parents=True)
    found = usage(disk.tree())
    a, b, c, gone = found.repositories
    assert (a.total, a.exclusive, a.shared) == (1050 + sizes[one["digest"]], 50 + sizes[one["digest"]], 1000)
    assert (b.total, b.exclusive, b.shared) == (1070 + sizes[two["digest"]], 70 + sizes[two["digest"]], 1000)
    assert (found.shared, found.unreferenced, found.uploads) == (1000, 333, 20)
    assert (c.uploads, c.empty, gone.empty) == (20, True, True)
    assert found.empty == ["gone"]
    assert (a.tags, a.manifests, a.empty) == (1, 1, False)
    assert json.loads(json.dumps(found.as_dict()))["stored"] == found.stored


@pytest.mark.parametrize("seed", range(20))
def test_the_parts_add_up(disk, seed):
    random_registry(disk, random.Random(seed))
    found = usage(disk.tree())
    files = [data.stat().st_size for data in disk.base.glob("blobs/*/*/*/data")]
    assert (found.blobs, found.stored) == (len(files), sum(files))
    assert found.stored == sum(one.exclusive for one in found.repositories) + found.shared + found.unreferenced


def test_the_file_system(tmp_path):
    found = file_system(tmp_path)
    assert 0 < found.used + found.free <= found.total
    assert FileSystem(100, 60, 20).percent == 75
    assert FileSystem(0, 0, 0).percent == 100
    with pytest.raises(HomelabError, match="No such file"):
        file_system(tmp_path / "nowhere")
