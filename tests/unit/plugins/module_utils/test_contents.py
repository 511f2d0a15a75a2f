# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a registry holds: the same from the disk and over the API, apart from what only the disk knows."""

from __future__ import annotations

import json

from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.report.contents import contents
from ansible_collections.homelab.registry.plugins.module_utils.retention import read_api
from ansible_collections.homelab.registry.plugins.module_utils.storage.tree import read_inventory
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry
from ansible_collections.homelab.registry.tests.unit.storage_tree import Disk


def test_from_the_disk(tmp_path):
    disk = Disk(tmp_path)
    disk.multi("team/app", "1")
    disk.image("team/app", "2", ["a layer"])
    disk.image("other", "1", ["a layer"])
    found = contents(read_inventory(disk.tree(), created=True))
    json.dumps(found)
    other, app = found
    assert [one["name"] for one in found] == ["other", "team/app"]
    assert [tag["name"] for tag in app["tags"]] == ["1", "2"]
    assert app["manifests"] == 4
    everything = sum(disk.tree().blobs().values())
    assert app["size"] == everything, "all that other has is also here"
    assert (other["exclusive"], app["exclusive"]) == (0, everything - other["size"])
    assert other["tags"][0]["size"] == other["size"]
    assert app["tags"][0]["created"] is None, "an index does not say"
    assert app["tags"][1]["created"].endswith("Z")
    assert app["tags"][1]["pushed"].endswith("Z")


def test_over_the_api():
    with FakeRegistry() as registry:
        digest = images.multi(registry, "team/app", "1", layers=(b"shared",))
        (app,) = contents(read_api.read_inventory(Registry(registry.url)))
        size = sum(len(part) for part in images.parts(registry, "team/app", digest).values())
    assert app["tags"] == [
        {
            "name": "1",
            "digest": digest,
            "media_type": "application/vnd.oci.image.index.v1+json",
            "size": size,
            "pushed": None,
            "created": None,
        }
    ]
    assert (app["size"], app["exclusive"], app["manifests"]) == (size, size, 4)
