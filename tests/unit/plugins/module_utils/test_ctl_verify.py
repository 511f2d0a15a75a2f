# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl verify: from the disk or over the API, exit codes, what it says and leaves for others."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import cli, lock
from ansible_collections.homelab.registry.plugins.module_utils.oci import canary
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.report.progress import Meter
from ansible_collections.homelab.registry.plugins.module_utils.storage import verify
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry
from ansible_collections.homelab.registry.tests.unit.storage_tree import Disk


@pytest.fixture
def server():
    with FakeRegistry() as registry:
        canary.push(Registry(registry.url), "over/http")
        registry.requests.clear()
        yield registry


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "data")
    made.image("team/app", "1", ["own", "shared"])
    made.image("team/app", "2", ["shared"])
    return made


@pytest.fixture
def run(tmp_path, disk, server, capsys):
    """Run `registryctl verify`; gives code, stdout, stderr."""
    config = tmp_path / "registryctl.json"
    state = tmp_path / f"mirror-{server.netloc.replace(':', '_')}.json"
    tags = {"team/app:1": {"source": "docker.io/team/app:1", "digest": "sha256:x"}}
    state.write_text(json.dumps({"version": 1, "target": server.netloc, "blobs": {}, "tags": tags}))

    def go(*arguments, data_path=disk.root, **more):
        host = {"data_path": str(data_path)}
        settings = {"registry": {"url": server.url}, "host": host, "state_dir": str(tmp_path), **more}
        config.write_text(json.dumps(settings))
        code = cli.main(["verify", "--config", str(config), *arguments])
        return (code, *capsys.readouterr())

    return go


def lose(disk, text):
    digest = next(one for one in disk.tree().blobs() if disk.blob_path(one).read_bytes() == text.encode())
    disk.delete_blob(digest)
    return digest


def test_what_is_whole(run, server, tmp_path):
    result = tmp_path / "verify.json"
    code, out, err = run("--result", str(result))
    assert (code, err) == (0, "")
    assert out.startswith("2 images whole (2 manifests and ")
    assert server.requests == [], "the disk was there"
    assert json.loads(result.read_text())["whole"] is True
    assert result.stat().st_mode & 0o777 == 0o644


def test_a_damaged_image_and_whether_it_heals(run, disk, tmp_path):
    lost = lose(disk, "own")
    code, out, _err = run("--result", str(tmp_path / "verify.json"))
    assert code == 1
    assert "team/app:1  yes " in out
    assert f"blob {lost} is missing" in out
    assert "1 of 2 images damaged" in out
    (damage,) = json.loads((tmp_path / "verify.json").read_text())["damages"]
    assert (damage["digests"], damage["in_the_way"], damage["healable"]) == ([lost], [], True)


def test_json_is_all_there_is_on_stdout(run, disk):
    lose(disk, "shared")
    code, out, _err = run("--json")
    assert code == 1
    assert [(one["tag"], one["healable"]) for one in json.loads(out)["damages"]] == [("1", True), ("2", False)]


def test_deep_by_option_or_by_the_settings(run, disk):
    digest = next(one for one in disk.tree().blobs() if disk.blob_path(one).read_bytes() == b"own")
    disk.blob_path(digest).write_bytes(b"own"[::-1])
    assert run()[0] == 0
    assert run("--deep")[0] == 1
    code, out, _err = run(verify={"deep": True})
    assert code == 1
    assert "has the content of" in out


def test_over_the_api_where_the_disk_is_not(run, server, tmp_path):
    code, out, _err = run(data_path=tmp_path / "elsewhere")
    assert (code, server.url in out) == (0, True)
    assert "1 images whole" in out


def test_another_registry_is_not_on_this_disk(run, disk):
    lose(disk, "shared")
    with FakeRegistry() as other:
        code, out, _err = run("--to", other.url)
    assert (code, "0 images whole" in out) == (0, True)


def test_nothing_can_be_asked(run, server, tmp_path):
    server.say(403, path="_catalog", times=9)
    result = tmp_path / "verify.json"
    code, out, err = run("--result", str(result), data_path=tmp_path / "elsewhere")
    assert (code, out) == (2, "")
    assert json.loads(result.read_text())["error"] in err


def test_not_while_something_is_deleted(run, tmp_path):
    with lock.hold(tmp_path / "lock", exclusive=True):
        assert run()[0] == 75
    with lock.hold(tmp_path / "lock", exclusive=False):
        assert run()[0] == 0


def test_a_push_between_two_looks_is_no_damage(disk, monkeypatch):
    """Blobs were listed before the push, its tag after it."""
    first = verify.verify
    lost = lose(disk, "own")

    def while_pushing(tree, *arguments):
        report = first(tree, *arguments)
        disk.blob("team/app", b"own")
        return report

    monkeypatch.setattr(verify, "verify", while_pushing)
    assert verify.verify_root(disk.root).damages == []
    disk.delete_blob(lost)
    monkeypatch.setattr(verify, "verify", first)
    assert [damage.tag for damage in verify.verify_root(disk.root).damages] == ["1"]


def test_the_meter():
    class Terminal(list):
        write = list.append

        def flush(self):
            pass

    out, time = Terminal(), iter([0, 0.1, 1, 1.1])
    meter = Meter(out, lambda: next(time))
    for done in (1, 1 << 20, 2 << 20):
        meter.at(done, 4 << 20)
    meter.close()
    assert out == ["\r 25%  1.0 MiB of 4.0 MiB  1.0 MiB/s\x1b[K", "\r\x1b[K"]
