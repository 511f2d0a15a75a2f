# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cleanup.yml as it is typed: a real registry on this machine, whose engine is a node as well; other nodes are down."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.tests.integration.real_registry import ROOT, docker
from ansible_collections.homelab.registry.tests.integration.test_cleanup import age, push, tags
from ansible_collections.homelab.registry.tests.unit import images


def layer(name):
    """One that an engine unpacks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 3000
        archive.addfile(entry, io.BytesIO(images.data(name, 3000)[:3000]))
    return buffer.getvalue()


class Fleet:
    """A registry with eight images of two repositories, and an inventory for it."""

    def __init__(self, server, home):
        self.server, self._home = server, home
        push(server, self._images)
        for repository in ("team/web", "team/tool"):
            age(server, repository, **{f"1_{number}": 50 - number for number in range(1, 5)})
        host = server.host()
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "registry_endpoint": server.netloc,
            "registry_docker_host": host["docker_host"],
            "registry_container_name": server.name,
            "registry_data_path": host["data_path"],
            "registry_config_path": host["config_path"],
            "registry_secrets_dir": str(home / "secrets"),
            "docker_client_docker_host": host["docker_host"],
            "cleanup_state_dir": str(home / "state"),
        }
        self.nodes = {"here": {}}

    @staticmethod
    def _images(content):
        for number in range(1, 5):
            images.single(content, "team/web", f"1.{number}", layers=[layer("base"), layer(f"web {number}")])
            images.multi(content, "team/tool", f"1.{number}")

    def run(self, *options, **variables):
        """(exit code, output) of cleanup.yml."""
        inventory = {
            "registry": {"hosts": {"here": self.variables}},
            "docker_nodes": {"hosts": self.nodes},
        }
        path = self._home / "hosts.json"
        path.write_text(json.dumps(inventory))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "cleanup.yml", "-i", str(path), *options]
        for name, value in variables.items():
            command += ["-e", f"{name}={value}"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8", "ANSIBLE_TIMEOUT": "2"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def tags(self):
        return {name: "".join(sorted(tag[-1] for tag in tags(self.server, name))) for name in ("team/web", "team/tool")}


def table(output):
    """Repository, tag, and what is told of them, without the result."""
    found = re.findall(
        r"^\s*(team/\w+)\s+(\S+)\s+(\d+ d \(\w+\))\s+(\S+ \w+|-)\s+(.*?)\s{2,}(.*)$", output, re.MULTILINE
    )
    return [(*row[:4], row[5]) for row in found]


def changed(output):
    return int(re.search(r"^here .*changed=(\d+)", output, re.MULTILINE)[1])


@pytest.fixture
def fleet(registries, tmp_path):
    fleet = Fleet(registries.start(), tmp_path)
    containers = []

    def use(name):
        """A container on this machine's engine, which does not run."""
        docker("pull", "-q", name)
        containers.append((docker("create", name, "nothing"), name))

    fleet.use = use
    yield fleet
    for container, name in containers:
        docker("rm", "-f", container, check=False)
        docker("rmi", "-f", name, check=False)


def test_the_evening_of_a_user(fleet):
    """Plan, do it, do it again; then a node is away."""
    fleet.use(f"{fleet.server.netloc}/team/web:1.1")
    code, planned = fleet.run("--check", "--diff", keep_last=2, max_age=30)
    assert code == 0, planned
    assert (changed(planned), fleet.tags()) == (1, {"team/web": "1234", "team/tool": "1234"})
    assert [row[:2] for row in table(planned)] == [("team/tool", "1.2"), ("team/tool", "1.1"), ("team/web", "1.2")]
    assert "not among the last 2, older than 30 d" in planned
    assert "team/web:1.2 absent" in planned, "the difference"
    code, done = fleet.run(keep_last=2, max_age=30)
    assert (code, changed(done)) == (0, 1), done
    assert table(done) == table(planned)
    assert fleet.tags() == {"team/web": "134", "team/tool": "34"}
    assert "3 deleted" in done
    assert re.search(r"[0-9.]+ KiB freed in", done)
    code, again = fleet.run(keep_last=2, max_age=30)
    assert (code, changed(again)) == (0, 0), again
    assert "nothing to delete" in again

    # A node is down, of which nothing is known: nothing goes. Asked once, its repositories stay.
    fleet.nodes["away"] = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    code, output = fleet.run(keep_last=1)
    assert code == 0, output
    assert "away could not be asked: unreachable: " in output
    assert "nothing goes until it was" in output
    assert fleet.tags() == {"team/web": "134", "team/tool": "34"}
    path = Path(fleet.variables["cleanup_state_dir"]) / "in-use.json"
    known = json.loads(path.read_text())
    assert known["nodes"]["here"]["digests"]
    known["nodes"]["away"].update(digests=known["nodes"]["here"]["digests"], asked=known["nodes"]["here"]["asked"])
    path.write_text(json.dumps(known))
    code, output = fleet.run(keep_last=1)
    assert code == 0, output
    assert "what it used 0 days ago stays, and so does all else in the same repositories" in " ".join(output.split())
    assert fleet.tags() == {"team/web": "134", "team/tool": "4"}
    docker("rmi", "-f", f"{fleet.server.netloc}/team/web:1.1")
    docker("pull", "-q", f"{fleet.server.netloc}/team/web:1.1")


def test_a_plan_that_goes_too_far_and_one_from_the_controller(fleet):
    code, output = fleet.run(keep_last=1)
    assert code != 0
    assert "6 of 8 tags would go" in output
    assert fleet.tags() == {"team/web": "1234", "team/tool": "1234"}
    code, output = fleet.run(keep_last=1, force="true", cleanup_run_on="controller", gc="false")
    assert code == 0, output
    assert fleet.tags() == {"team/web": "4", "team/tool": "4"}


def test_without_a_registry_it_says_so(fleet):
    """Not by stumbling over the table that there is none of."""
    fleet.variables["registry_container_name"] = "nobody-made-this"
    code, output = fleet.run("--check", keep_last=1)
    assert code != 0
    assert "there is no container nobody-made-this" in " ".join(output.split())
    assert "Traceback" not in output
