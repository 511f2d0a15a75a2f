# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's Docker engine over its socket, and finding dockerd among the processes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import engine as engine_module
from ansible_collections.homelab.registry.plugins.module_utils.engine import Engine, daemon_process
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.tests.unit.fake_engine import FakeEngine

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def fake():
    with FakeEngine() as fake:
        yield fake


@pytest.mark.parametrize(
    "address", ["tcp://host:2375", "/var/run/docker.sock", "unix://relative", "ssh://me@nas", ""]
)
def test_an_address_that_is_no_socket_of_this_machine(address):
    with pytest.raises(HomelabError, match="is not a unix socket") as caught:
        Engine(address)
    assert repr(address) in str(caught.value)
    assert "unix:///var/run/docker.sock" in caught.value.remedy


def test_no_engine(tmp_path):
    engine = Engine(f"unix://{tmp_path}/none.sock")
    assert not engine.available()
    with pytest.raises(HomelabError, match="no Docker engine answers at unix://") as caught:
        engine.info()
    assert "systemctl start docker" in caught.value.remedy


def test_an_engine_tells_about_itself(fake):
    engine = Engine(fake.address)
    assert engine.available()
    assert engine.info()["ServerVersion"] == "26.1.5"


def test_an_answer_that_breaks_off_is_an_error(fake):
    fake.broken = True
    with pytest.raises(HomelabError, match="to /info broke off"):
        Engine(fake.address, timeout=2).info()


def test_images(fake):
    fake.images.add("reg:5000/app:1")
    engine = Engine(fake.address)
    assert engine.has_image("reg:5000/app:1")
    assert not engine.has_image("reg:5000/app:2")
    engine.remove_image("reg:5000/app:1")
    assert fake.images == set()
    with pytest.raises(HomelabError, match="answered 404 to /images/.*No such image: reg:5000/app:1"):
        engine.remove_image("reg:5000/app:1")


def test_a_pull_gives_the_digest(fake):
    fake.registry["reg:5000/app:1"] = DIGEST
    assert Engine(fake.address).pull("reg:5000/app", "1") == DIGEST
    assert fake.images == {"reg:5000/app:1"}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "manifest for reg:5000/app:1 not found: manifest unknown"),
        (OSError("server gave HTTP response to HTTPS client"), "server gave HTTP response to HTTPS client"),
    ],
    ids=["by status", "in the stream"],
)
def test_a_pull_that_fails_says_what_the_engine_said(fake, found, said):
    if found:
        fake.registry["reg:5000/app:1"] = found
    with pytest.raises(HomelabError) as caught:
        Engine(fake.address).pull("reg:5000/app", "1")
    assert str(caught.value) == f"reg:5000/app:1 cannot be pulled: {said}"


def test_a_pull_that_breaks_off_is_an_error(fake):
    fake.registry["reg:5000/app:1"] = DIGEST
    fake.broken = True
    with pytest.raises(HomelabError, match="reg:5000/app:1 cannot be pulled"):
        Engine(fake.address).pull("reg:5000/app", "1")


# --- containers ---------------------------------------------------------------------------------------------


def test_a_container_is_inspected_and_restarted(fake):
    fake.containers["registry"] = {"Id": "registry", "State": {"Running": False}}
    engine = Engine(fake.address)
    engine.restart("registry", 5)
    assert engine.container("registry")["State"]["Running"]
    assert engine.container("other") is None
    with pytest.raises(HomelabError, match="answered 404 to /containers/other/restart.*No such container"):
        engine.restart("other", 5)


def test_a_container_is_run_to_its_end_and_removed(fake):
    fake.output, fake.code = [(1, b"one\n"), (2, b"war"), (1, "zw\u00f6lf".encode()), (2, b"ning")], 3
    finished = Engine(fake.address).run("helper", {"Image": "x"})
    assert finished == (3, "one\nzw\u00f6lf", "warning")
    assert fake.created == [{"Image": "x"}]
    assert fake.containers == {}
    verbs = [request.partition("/containers/helper")[2] for request in fake.requests]
    # Attached before it starts, or its first words would be lost.
    assert verbs.index("/attach") < verbs.index("/start")


def test_a_container_whose_output_breaks_off_is_removed_too(fake):
    fake.output, fake.broken = [(1, b"one\n")], True
    with pytest.raises(HomelabError, match="the output of the container helper broke off"):
        Engine(fake.address).run("helper", {})
    assert fake.containers == {}


def test_a_container_of_that_name_stays(fake):
    fake.containers["helper"] = {"Id": "helper", "State": {"Running": True}}
    engine = Engine(fake.address)
    with pytest.raises(HomelabError, match="already in use"):
        engine.run("helper", {})
    assert "helper" in fake.containers
    assert engine.remove_container("helper")
    assert not engine.remove_container("helper")


@pytest.mark.parametrize(
    ("lingers", "said"),
    [
        ((409, 2), None),
        ((None, 2), None),
        ((409, -1), "helper cannot be removed: removal of container helper is already in progress"),
        ((500, 2), "helper cannot be removed: removal of container helper"),
    ],
    ids=["being removed already", "no answer in time", "it stays", "refused"],
)
def test_a_removal_that_takes_its_time(fake, monkeypatch, lingers, said):
    monkeypatch.setattr(engine_module, "_PACE", 0.01)
    fake.containers["helper"] = {"Id": "helper", "State": {"Running": True}}
    fake.lingers = lingers
    engine = Engine(fake.address, timeout=0.1)
    if said:
        with pytest.raises(HomelabError, match=said):
            engine.remove_container("helper")
    else:
        assert engine.remove_container("helper")
        assert fake.containers == {}


# --- the process -------------------------------------------------------------------------------------------


@pytest.fixture
def dockerd(tmp_path, monkeypatch):
    """A harmless process of that name, told of in a pid file."""
    (tmp_path / "dockerd").symlink_to("/bin/sh")
    argv = [str(tmp_path / "dockerd"), "-c", "read line; exit", "dockerd", "--insecure-registry=x:5000"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while Path(f"/proc/{process.pid}/comm").read_text(encoding="utf-8") != "dockerd\n":
        time.sleep(0.01)  # the name comes a moment after Popen has returned
    (tmp_path / "docker.pid").write_text(f"{process.pid}\n", encoding="ascii")
    monkeypatch.setattr(engine_module, "PID_FILES", (str(tmp_path / "none"), str(tmp_path / "docker.pid")))
    yield process
    process.stdin.close()
    process.wait(10)


def test_dockerd_is_found_by_its_pid_file(dockerd):
    pid, argv = daemon_process()
    assert pid == dockerd.pid
    assert argv[1:] == dockerd.args[1:]


@pytest.mark.parametrize("content", ["", "no number", "999999999", "own"])
def test_a_stale_pid_file_is_not_believed(tmp_path, monkeypatch, content):
    path = tmp_path / "docker.pid"
    path.write_text(str(os.getpid()) if content == "own" else content, encoding="ascii")
    monkeypatch.setattr(engine_module, "PID_FILES", (str(path),))
    found = daemon_process()
    # what else runs on this machine is not ours to say, but it is a dockerd
    assert found is None or Path(f"/proc/{found[0]}/comm").read_text(encoding="utf-8") == "dockerd\n"


def test_dockerd_is_found_without_a_pid_file(dockerd, monkeypatch):
    monkeypatch.setattr(engine_module, "PID_FILES", ())
    monkeypatch.setattr(engine_module.os, "listdir", lambda path: ["self", "1", str(dockerd.pid), "net"])
    found = daemon_process()
    assert found is not None
    assert found[0] == dockerd.pid


def test_a_dockerd_in_a_container_does_not_count(dockerd, monkeypatch):
    """A container's engine shows in /proc, but in another pid namespace."""
    readlink = Path.readlink

    def elsewhere(self):
        return Path("pid:[1]") if str(self) == f"/proc/{dockerd.pid}/ns/pid" else readlink(self)

    monkeypatch.setattr(engine_module.os, "listdir", lambda path: [str(dockerd.pid)])
    monkeypatch.setattr(Path, "readlink", elsewhere)
    assert daemon_process() is None
