# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet after site.yml, used as its users use it. k3s is a stand-in here: real containerd, see lab/images/k3s."""

import json

import pytest
from testinfra_common import PAYLOAD, node, ok, wait_for

REGISTRY = "lab-reg:5000"
DOCKER = ("lab-n12", "lab-n13")
K3S = ("lab-k3s-server", "lab-k3s-agent")


@pytest.fixture(scope="module", autouse=True)
def pushed():
    """What one node pushes: an image of our own, one of "Docker Hub" and one of "quay.io", which only we have."""
    host = node("lab-n12")
    for name in ("team/app:1", "library/lab-only:1", "quay.io/org/lab-only:1"):
        ok(host, f"docker tag {PAYLOAD} {REGISTRY}/{name} && docker push {REGISTRY}/{name}")


# --- pulling ------------------------------------------------------------------------------------------------
def test_an_image_pushed_from_one_node_runs_on_another():
    assert ok(node("lab-n13"), f"docker run --rm --pull always {REGISTRY}/team/app:1 echo pulled").endswith("pulled")


@pytest.mark.parametrize("name", DOCKER)
def test_docker_gets_a_docker_hub_image_through_the_mirror(name):
    host = node(name)
    host.run("docker rmi lab-only:1")
    ok(host, "docker pull lab-only:1")
    assert ok(host, "docker run --rm lab-only:1 echo pulled") == "pulled"


@pytest.mark.parametrize("image", [f"{REGISTRY}/team/app:1", "docker.io/library/lab-only:1", "quay.io/org/lab-only:1"])
@pytest.mark.parametrize("name", K3S)
def test_k3s_standin_pulls(name, image):
    assert "up to date" in ok(node(name), f"k3s crictl pull {image}")
    ok(node(name), f"k3s crictl rmi {image}")


# --- nothing of others is harmed ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DOCKER)
def test_dockerd_and_containers_kept_their_processes(name):
    host = node(name)
    now = ok(host, "echo \"$(pidof dockerd) $(docker inspect -f '{{.State.Pid}}' bystander)\"")
    assert now == ok(host, "cat /root/pids-before")


@pytest.mark.parametrize("name", DOCKER)
def test_daemon_json_keeps_what_others_wrote(name):
    file = node(name).file("/etc/docker/daemon.json")
    data = json.loads(file.content_string)
    assert list(data) == ["live-restore", "labels", "registry-mirrors", "log-opts", "insecure-registries"]
    assert data["registry-mirrors"] == [f"http://{REGISTRY}", "https://mirror.example"]
    assert data["insecure-registries"] == [REGISTRY]
    assert data["labels"] == ["rack=cellar"]
    assert (file.mode, file.content_string.splitlines()[1][:4]) == (0o640, "    ")
    backups = ok(node(name), "ls /etc/docker/daemon.json.*.bak").splitlines()
    assert len(backups) == 1, "one change, one backup"
    assert json.loads(ok(node(name), f"cat {backups[0]}"))["registry-mirrors"] == ["https://mirror.example"]


@pytest.mark.parametrize("name", K3S)
def test_registries_yaml_keeps_what_others_wrote(name):
    file = node(name).file("/etc/rancher/k3s/registries.yaml")
    assert (file.mode, file.user) == (0o600, "root")
    assert "canary-secret-of-someone" in file.content_string
    assert "https://registry.example:8443" in file.content_string
    assert f"http://{REGISTRY}/v2/quay.io" in file.content_string


@pytest.mark.parametrize(("name", "unit"), zip(K3S, ("k3s", "k3s-agent")))
def test_k3s_was_restarted_once(name, unit):
    before = int(ok(node(name), "cat /root/starts-before"))
    starts = int(ok(node(name), f"journalctl -u {unit} -o cat | grep -c '^Started '"))
    assert starts == before + 1, "one restart, for the changed file"


@pytest.mark.parametrize("name", K3S)
def test_the_node_has_no_yaml_library(name):
    assert node(name).run("python3 -c 'import yaml'").rc != 0, "else this test proves nothing about the modules"


# --- the server -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def container():
    return json.loads(ok(node("lab-reg"), "docker inspect registry"))[0]


def test_the_container_is_hardened(container):
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["RestartPolicy"]["Name"] == "always"
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}


def test_metrics_are_there_but_on_loopback_only(container):
    assert container["HostConfig"]["PortBindings"]["5001/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "5001"}]
    assert "registry_http_requests_total" in ok(node("lab-reg"), "curl -fsS http://127.0.0.1:5001/metrics")
    assert node("lab-n12").run("curl -fsS -m 5 http://lab-reg:5001/metrics").rc != 0


def test_the_secret_is_in_a_file_only_root_can_read_and_nowhere_else(container):
    file = node("lab-reg").file("/srv/registry/config/config.yml")
    assert (file.mode, file.user) == (0o400, "root")
    secret = next(line.split()[1] for line in file.content_string.splitlines() if line.strip().startswith("secret:"))
    assert len(secret) == 64
    assert secret not in json.dumps(container)
    assert secret not in ok(node("lab-reg"), "ps axww; docker logs registry 2>&1; journalctl --no-pager")


def test_the_configuration_can_be_read_without_secrets(container):
    shown = container["Config"]["Labels"]["homelab.registry.config"]
    assert 'secret: "********"' in shown
    assert "enabled: true" in shown


# --- a reboot's worth ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DOCKER)
def test_the_engine_starts_again_with_what_was_written(name):
    host = node(name)
    ok(host, "systemctl restart docker")
    ok(host, f"docker pull {REGISTRY}/team/app:1")
    # live-restore was somebody's setting: the container outlives even that
    assert ok(host, "docker inspect -f '{{.State.Pid}}' bystander") == ok(host, "cut -d' ' -f2 /root/pids-before")


def test_the_registry_comes_back_with_its_engine():
    ok(node("lab-reg"), "systemctl restart docker")
    wait_for(
        "the registry answers after its engine was restarted",
        lambda: node("lab-n12").run(f"curl -fsS http://{REGISTRY}/v2/").rc == 0,
    )
    ok(node("lab-n13"), f"docker pull {REGISTRY}/team/app:1")
