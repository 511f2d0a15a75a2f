# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines, the appliance, and the walls around the lab."""

import socket
import time

import pytest
from testinfra_common import ADDRESSES, PAYLOAD, node, ok

ENGINES = {"lab-reg": "20.10.", "lab-n12": "20.10.", "lab-n13": "26.", "lab-nas": "20.10."}
# An address reserved for documentation. Without a route both fail at once; with one the connection would hang.
REACH_OUT = {
    "bash": "timeout 5 bash -c '</dev/tcp/192.0.2.1/443'",
    "busybox": "timeout 5 nc -w 4 192.0.2.1 443 </dev/null",
}


@pytest.mark.parametrize(("name", "version"), ENGINES.items())
def test_version(name, version):
    assert ok(node(name), "docker version --format '{{.Server.Version}}'").startswith(version)


@pytest.mark.parametrize("name", ENGINES)
def test_nested_containers_run(name):
    assert ok(node(name), f"docker run --rm {PAYLOAD} echo inner-ok") == "inner-ok"


def test_compose_is_a_plugin_of_the_newer_engine():
    assert ok(node("lab-n13"), "docker compose version --short").startswith("2.")


def test_the_registry_host_has_what_docker_modules_need():
    assert ok(node("lab-reg"), "python3 -c 'import requests; print(1)'") == "1"


@pytest.mark.parametrize("program", ["python3", "python", "perl", "bash", "systemctl", "apt-get", "scp"])
def test_the_appliance_has_no(program):
    assert node("lab-nas").run(f"command -v {program}").rc != 0


def test_the_appliance_logs_in_its_administrator():
    assert ok(node("lab-nas"), "id -u sshd") == "0"


@pytest.mark.parametrize("name", ["lab-nas", "lab-reg"])
def test_the_controller_reaches_ssh(name):
    with socket.create_connection((ADDRESSES[name], 22), timeout=5) as sock:
        assert sock.recv(4) == b"SSH-"


@pytest.mark.parametrize("name", ADDRESSES)
def test_hosts_know_each_other(name):
    assert ADDRESSES[name] in ok(node("lab-n12"), f"getent hosts {name}")


@pytest.mark.parametrize("name", ADDRESSES)
def test_no_way_out(name):
    start = time.monotonic()
    result = node(name).run(REACH_OUT["busybox" if name == "lab-nas" else "bash"])
    assert result.rc != 0
    assert time.monotonic() - start < 4, "a firewall swallows packets where there should be no route"


@pytest.mark.parametrize("name", ENGINES)
def test_a_pull_from_outside_fails_soon(name):
    start = time.monotonic()
    assert node(name).run("docker pull docker.io/library/busybox:latest").rc != 0
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("name", ENGINES)
def test_no_way_out_of_nested_containers(name):
    assert node(name).run(f"docker run --rm {PAYLOAD} {REACH_OUT['busybox']}").rc != 0
