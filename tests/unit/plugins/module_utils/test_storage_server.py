# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which container maintenance takes for the registry's, and what it does to its configuration. The rest needs a server:
tests/integration/test_gc.py."""

from __future__ import annotations

import os

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server.config import to_yaml
from ansible_collections.homelab.registry.plugins.module_utils.storage.server import KEPT, LABEL, Host, Server
from ansible_collections.homelab.registry.tests.unit.fake_engine import FakeEngine

CONFIG = {
    "version": 0.1,
    "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}, "cache": {"blobdescriptor": "inmemory"}},
    "http": {"addr": ":5000", "secret": "S3cret"},
}


class Setup:
    def __init__(self, engine, home):
        self.engine, self.home = engine, home
        self.config_dir, self.data = home / "config", home / "data"
        self.config_dir.mkdir()
        self.data.mkdir()
        self.write(CONFIG)
        engine.output = []
        self.container = engine.containers["registry"] = {
            "Id": "registry",
            "Image": "sha256:img",
            "State": {"Running": True, "Status": "running", "ExitCode": 0},
            "Config": {
                "Image": "registry:2",
                "Labels": {LABEL: "sha256:x"},
                "Entrypoint": ["/bin/registry"],
                "Cmd": ["serve", "/etc/docker/registry/config.yml"],
                "Env": ["PATH=/bin"],
                "User": "1000:1000",
                "StopTimeout": 300,
            },
            "HostConfig": {"CapDrop": ["ALL"], "ReadonlyRootfs": True, "Tmpfs": {"/tmp": ""}},
            "Mounts": [
                self.mount(self.data, "/var/lib/registry"),
                {**self.mount(self.config_dir, "/etc/docker/registry"), "RW": False},
            ],
        }

    @staticmethod
    def mount(source, destination):
        return {"Type": "bind", "Source": str(source), "Destination": destination, "RW": True}

    def write(self, config):
        (self.config_dir / "config.yml").write_text(to_yaml(config), encoding="utf-8")

    def server(self, stopped=False, **host):
        host = {"docker_host": self.engine.address, **host}
        return Server(Host.from_dict(host), {"url": "http://127.0.0.1:1"}, stopped)


@pytest.fixture
def setup(tmp_path):
    with FakeEngine() as engine:
        yield Setup(engine, tmp_path)


def test_everything_is_told_by_the_container(setup):
    server = setup.server()
    assert (server.major, server.driver, server.root) == (2, "filesystem", str(setup.data))
    assert server.config_path == setup.config_dir / "config.yml"
    assert not (server.switched or server.configured_read_only)
    # What is given as well must be the same, also through a link.
    (setup.home / "link").symlink_to(setup.data)
    assert setup.server(data_path=str(setup.home / "link"), config_path=str(setup.config_dir)).root == str(setup.data)


def test_a_volume_and_a_root_further_down(setup):
    setup.write({**CONFIG, "storage": {"filesystem": {"rootdirectory": "/var/lib/registry/images"}}})
    setup.container["Mounts"][0].update({"Type": "volume", "Name": "images"})
    assert setup.server(data_path="images").root == f"{setup.data}/images"


def test_a_volume_as_the_jobs_container_sees_it(setup):
    there = setup.home / "volumes" / "images"
    setup.container["Mounts"][0].update({"Type": "volume", "Name": "images", "Source": "/not/in/here/_data"})
    assert setup.server(data_path=str(there)).root == str(there)
    with pytest.raises(HomelabError, match="not /volumes/others"):
        setup.server(data_path="/volumes/others")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda container: container["Config"].update(Labels=None), "was not made by site.yml (image registry:2)"),
        (
            lambda container: container["State"].update(Running=False, Status="exited", ExitCode=2),
            "is not running: exited, exit code 2",
        ),
        (lambda container: container["Config"].update(Cmd=["serve"]), "the version of the registry in the container"),
        (lambda container: container.update(Mounts=[]), "is not mounted from this machine"),
        (
            lambda container: container["Config"].update(Env=["REGISTRY_STORAGE_S3_SECRETKEY=S3cret"]),
            "REGISTRY_STORAGE_S3_SECRETKEY in the container's environment goes before its configuration",
        ),
    ],
)
def test_a_container_that_will_not_do(setup, change, said):
    change(setup.container)
    with pytest.raises(HomelabError) as caught:
        setup.server()
    assert said in str(caught.value)
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**CONFIG, "proxy": {"remoteurl": "https://registry-1.docker.io"}}, "is a pull-through cache"),
        ({**CONFIG, "storage": {"delete": {"enabled": True}}}, "not clear which storage driver"),
    ],
)
def test_a_configuration_that_will_not_do(setup, config, said):
    setup.write(config)
    with pytest.raises(HomelabError, match=said):
        setup.server()


def test_no_configuration(setup):
    (setup.config_dir / "config.yml").unlink()
    with pytest.raises(HomelabError, match="the registry's configuration cannot be read: No such file"):
        setup.server()


def test_to_recover_it_may_be_stopped(setup):
    setup.container["State"]["Running"] = False
    assert setup.server(stopped=True)


@pytest.mark.parametrize("driver", ["filesystem", "s3"])
def test_the_container_in_which_garbage_collect_runs(setup, driver):
    """It is the server's own image, user and directories, less its rights on the configuration and the network."""
    setup.write({**CONFIG, "storage": {driver: {"rootdirectory": "/var/lib/registry"}}})
    server = setup.server()
    assert server.garbage_collect(dry_run=True).code == 0
    server.garbage_collect(dry_run=False)
    first, second = setup.engine.created
    assert first["Cmd"] == ["garbage-collect", "--dry-run", "/etc/docker/registry/config.yml"]
    assert second["Cmd"] == ["garbage-collect", "/etc/docker/registry/config.yml"]
    assert {**first, "Cmd": None} == {**second, "Cmd": None}
    assert (first["Image"], first["User"], first["Entrypoint"]) == ("sha256:img", "1000:1000", ["/bin/registry"])
    host = first["HostConfig"]
    assert host["NetworkMode"] == ("none" if driver == "filesystem" else "container:registry")
    assert (host["CapDrop"], host["ReadonlyRootfs"], host["LogConfig"]) == (["ALL"], True, {"Type": "none"})
    assert [(one["Source"], one["ReadOnly"]) for one in host["Mounts"]] == [
        (str(setup.data), False),
        (str(setup.config_dir), True),
    ]
    assert list(setup.engine.containers) == ["registry"]


def test_a_garbage_collect_that_fails(setup):
    setup.engine.code, setup.engine.output = 1, [(2, b"one\nfailed to garbage collect: failed to mark\n\n")]
    server = setup.server()
    assert server.garbage_collect(dry_run=True).code == 1  # its output says what is wrong
    with pytest.raises(HomelabError, match="ended with code 1: failed to garbage collect: failed to mark"):
        server.garbage_collect(dry_run=False)


# --- the configuration, switched and put back -------------------------------------------------------------------
@pytest.fixture
def switch(setup, monkeypatch):
    """A server whose configuration can be switched without one that runs."""
    monkeypatch.setattr(Server, "_wait", lambda self, writes: None)
    config = setup.config_dir / "config.yml"
    config.chmod(0o400)
    if os.getuid() == 0:
        os.chown(config, 1000, 1000)
    return setup


def state_of(path):
    found = path.stat()
    return path.read_bytes(), found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("links", [True, False])
def test_there_and_back(switch, monkeypatch, links):
    config, server = switch.config_dir / "config.yml", switch.server()
    before = state_of(config)
    if not links:

        def refuse(*_paths):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    server.make_read_only()
    assert b"readonly:" in config.read_bytes()
    assert state_of(config)[1:4] == before[1:4]
    assert state_of(server.kept_path) == before
    assert switch.server().switched
    server.make_writable()
    assert state_of(config) == before
    assert names(switch.config_dir) == ["config.yml"]
    assert not server.put_config_back()


@pytest.mark.parametrize("state", ["linked", "half written", "half copied", "gone"])
def test_back_from_any_point(switch, state):
    config = switch.config_dir / "config.yml"
    before = state_of(config)
    if state == "half copied":
        (switch.config_dir / f"config.yml{KEPT}.new").write_text("vers")
    else:
        os.link(config, f"{config}{KEPT}")
    if state == "half written":
        (switch.config_dir / ".config.yml.x1y2").write_text("vers")
    if state == "gone":
        config.unlink()
    switch.server().put_config_back()
    assert state_of(config) == before
    assert names(switch.config_dir) == ["config.yml"]


def test_a_newer_one_stays(switch):
    server = switch.server()
    server.make_read_only()
    config = switch.config_dir / "config.yml"
    config.unlink()
    switch.write({**CONFIG, "log": {"level": "debug"}})
    newer = state_of(config)
    switch.server().put_config_back()
    assert state_of(config) == newer
    assert names(switch.config_dir) == ["config.yml"]
