# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for k3s: real pulls through the lab's registry, and restarts that fail as k3s's do."""

import json

import pytest
from testinfra_common import ADDRESSES, PAYLOAD, node, ok, server_image, wait_for

FILE = "/etc/rancher/k3s/registries.yaml"
UNITS = {"lab-k3s-server": "k3s", "lab-k3s-agent": "k3s-agent"}
ADDRESS = f"{ADDRESSES['lab-reg']}:5000"
MIRRORS = (
    f'mirrors: {{"lab-reg:5000": {{endpoint: ["http://{ADDRESS}"]}}, '
    f'quay.io: {{endpoint: ["http://lab-reg:5000/v2/quay.io"]}}}}'
)
REFUSED = {
    "bad YAML": ("mirrors: [", "level=fatal msg=.yaml: line"),
    "wrong type": ('mirrors: {quay.io: {endpoint: "http://lab-reg:5000"}}', "cannot unmarshal !!str"),
}


@pytest.fixture
def registries():
    """Writes registries.yaml and restarts; puts the hosts back as they were."""

    def put(name, content):
        host = node(name)
        ok(host, "printf '%%s\\n' %s > %s", content, FILE)
        return restart(name)

    yield put
    for name, unit in UNITS.items():
        host = node(name)
        if host.file(FILE).exists or host.run(f"systemctl is-active {unit}").rc != 0:
            ok(host, f"rm -rf {FILE}")
            assert restart(name).rc == 0
            answering(name)


@pytest.fixture(scope="module")
def registry():
    """A bare registry on lab-reg that holds the payload, under its own and under an upstream's name."""
    host = node("lab-reg")
    image = server_image()
    ok(host, "docker load --input /lab/registry.tar")
    ok(host, f"docker run --detach --name lab-proof --publish 5000:5000 {image}")
    try:
        wait_for("the registry answers", lambda: host.run("curl -fsS http://127.0.0.1:5000/v2/").rc == 0)
        # 127.0.0.0/8 counts as insecure without any configuration
        for name in ("lab/proof:1", "quay.io/lab/proof:1"):
            reference = f"127.0.0.1:5000/{name}"
            ok(host, f"docker tag {PAYLOAD} {reference} && docker push {reference} && docker rmi {reference}")
        yield host
    finally:
        ok(host, f"docker rm --force --volumes lab-proof && docker rmi {image}")


def restart(name):
    """As often as a test likes: systemd refuses a sixth start in ten seconds, good file or not."""
    return node(name).run(f"systemctl reset-failed {UNITS[name]}; systemctl restart {UNITS[name]}")


def answering(name):
    host = node(name)
    return wait_for(f"{name} answers", lambda: host.run("k3s crictl info").rc == 0)


@pytest.mark.parametrize("name", UNITS)
def test_python_finds_no_yaml(name):
    """Our modules may not rely on PyYAML: on these hosts there is none, though the stand-in has one."""
    assert node(name).run("python3 -c 'import yaml'").rc != 0


@pytest.mark.parametrize("name", UNITS)
def test_pull_fails_without_a_registry(name):
    result = node(name).run("k3s crictl pull lab-reg:5000/lab/proof:1")
    assert result.rc == 1
    assert "rpc error: code =" in result.stderr


@pytest.mark.parametrize("name", UNITS)
def test_pull(registry, registries, name):
    host = node(name)
    assert registries(name, MIRRORS).rc == 0
    answering(name)
    try:
        for reference in ("lab-reg:5000/lab/proof:1", "quay.io/lab/proof:1"):
            assert ok(host, f"k3s crictl pull {reference}") == f"Image is up to date for {reference}"
            assert reference.rpartition(":")[0] in ok(host, "k3s crictl images")
        result = host.run("k3s crictl pull quay.io/lab/absent:1")
        assert (result.rc, "rpc error: code = " in result.stderr) == (1, True)
    finally:
        host.run("k3s crictl rmi lab-reg:5000/lab/proof:1 quay.io/lab/proof:1")


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_server_refuses_and_heals(registries, content, reason):
    host = node("lab-k3s-server")
    assert registries("lab-k3s-server", content).rc != 0
    assert host.run("systemctl is-active k3s").rc != 0
    assert host.run(f"journalctl --unit k3s --since=-1m | grep {reason!r}").rc == 0
    kubectl = host.run("k3s kubectl get --raw=/readyz")
    assert (kubectl.rc, "was refused" in kubectl.stderr) == (1, True)
    assert registries("lab-k3s-server", MIRRORS).rc == 0
    assert ok(host, "k3s kubectl get --raw=/readyz") == "ok"


def test_a_server_refuses_a_directory(registries):
    host = node("lab-k3s-server")
    ok(host, f"rm -f {FILE} && mkdir -p {FILE}")
    assert restart("lab-k3s-server").rc != 0
    assert "is a directory" in ok(host, "journalctl --unit k3s --since=-1m")


def test_an_agent_dies_after_the_restart(registries):
    """systemctl cannot tell: the unit is Type=exec, as k3s's installer writes it."""
    host = node("lab-k3s-agent")
    assert registries("lab-k3s-agent", REFUSED["bad YAML"][0]).rc == 0
    wait_for("the agent is down", lambda: host.run("systemctl is-active k3s-agent").rc != 0)
    assert host.run("k3s crictl info").rc == 1


def test_node_is_ready():
    listed = json.loads(ok(node("lab-k3s-server"), "k3s kubectl get nodes -o json"))["items"]
    assert [one["metadata"]["name"] for one in listed] == ["lab-k3s-server"]
    assert [(c["type"], c["status"]) for c in listed[0]["status"]["conditions"]] == [("Ready", "True")]


def test_an_agent_has_no_kubeconfig():
    result = node("lab-k3s-agent").run("k3s kubectl get nodes")
    assert (result.rc, "localhost:8080 was refused" in result.stderr) == (1, True)
