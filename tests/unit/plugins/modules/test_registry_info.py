# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module registry_info as Ansible sees it."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.registry.plugins.modules import registry_info
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry
from ansible_collections.homelab.registry.tests.unit.storage_tree import Disk


@pytest.fixture
def module(capsys):
    def run(**params):
        with patch_module_args(params), pytest.raises(SystemExit) as left:
            registry_info.main()
        return json.loads(capsys.readouterr().out), left.value.code

    return run


def test_on_the_disk(module, tmp_path):
    disk = Disk(tmp_path)
    disk.image("team/app", "1", ["own"])
    digest = next(one for one in disk.tree().blobs() if disk.blob_path(one).read_bytes() == b"own")
    result, code = module(data_path=str(tmp_path), verify=True)
    assert (code, result["changed"], result["source"]) == (0, False, str(tmp_path))
    assert [one["name"] for one in result["repositories"]] == ["team/app"]
    assert result["usage"]["stored"] == result["repositories"][0]["size"]
    assert 0 <= result["usage"]["file_system"]["percent"] <= 100
    assert result["verify"]["whole"] is True
    disk.delete_blob(digest)
    result, code = module(data_path=str(tmp_path), verify=True, contents=False)
    assert (code, result["verify"]["damages"][0]["digests"]) == (0, [digest])
    assert "repositories" not in result


def test_over_the_api(module, tmp_path):
    with FakeRegistry(accounts={"me": "S3cret"}) as registry:
        images.multi(registry, "team/app", "1")
        access = {"url": registry.url, "username": "me", "password": "S3cret"}
        result, code = module(**access, data_path=str(tmp_path / "none"), verify=True, deep=True)
        assert (code, result["source"], result["verify"]["whole"]) == (0, registry.url, True)
        assert "usage" not in result
        assert "S3cret" not in json.dumps({key: value for key, value in result.items() if key != "invocation"})
        result, code = module(**{**access, "password": "wrong"})
        assert (code, result["failed"]) == (1, True)
        assert registry.url in result["msg"]


def test_neither(module):
    result, code = module()
    assert code == 1
    assert "url, data_path" in result["msg"]
