# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on an appliance without Python, used from a Docker node."""

import json
import subprocess

from ansible_run import PROJECT, run_playbook
from testinfra_common import PAYLOAD, node, ok, wait_for

REGISTRY = "172.30.55.30:5000"


def appliance(command):
    """Look at the appliance from outside Ansible's way."""
    argv = ["docker", "exec", "lab-nas", "sh", "-c", command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_it_has_no_python():
    assert appliance("command -v python3 python || echo none") == "none"


def test_a_node_pushes_and_pulls():
    host = node("lab-n12")
    ok(host, f"docker tag {PAYLOAD} {REGISTRY}/library/nas-only:1 && docker push {REGISTRY}/library/nas-only:1")
    ok(host, f"docker rmi {REGISTRY}/library/nas-only:1")
    assert ok(host, f"docker run --rm {REGISTRY}/library/nas-only:1 echo pulled").endswith("pulled")
    ok(host, "docker pull nas-only:1")


def test_data_and_configuration_are_on_the_data_volume():
    assert "nas-only" in appliance("ls /shares/Volume_1/registry/data/docker/registry/v2/repositories/library")
    assert appliance("stat -c '%a %u' /shares/Volume_1/registry/config/config.yml") == "400 0"


def test_the_container_is_the_same_as_on_a_linux_host():
    container = json.loads(appliance("docker inspect registry"))[0]
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_a_changed_setting_and_one_that_cannot_work():
    """The same way forward and back as on a Linux host, over SSH."""
    home = {"HOME": str(PROJECT / ".lab/home")}
    run = run_playbook("site.yml", "--limit", "lab-nas", env=home, registry_log_level="warn")
    assert run.code == 0, run.output
    run = run_playbook("site.yml", "--limit", "lab-nas", env=home, registry_log_level="warn")
    assert (run.code, run.changed("lab-nas")) == (0, 0), run.output
    run = run_playbook("site.yml", "--limit", "lab-nas", env=home, registry_log_level="warn", registry_cpus=512)
    assert run.code != 0
    run.says("The container that ran before runs again, with its old configuration.")
    assert "level: warn" in appliance("cat /shares/Volume_1/registry/config/config.yml")
    assert appliance("docker ps -a --format '{{.Names}} {{.State}}'") == "registry running"
    ok(node("lab-n12"), f"docker pull {REGISTRY}/library/nas-only:1")


def test_it_comes_back_after_its_engine_was_stopped():
    appliance("docker_daemon.sh restart")
    wait_for(
        "the registry is back", lambda: node("lab-n12").run(f"curl -fsS http://{REGISTRY}/v2/").rc == 0, seconds=60
    )
