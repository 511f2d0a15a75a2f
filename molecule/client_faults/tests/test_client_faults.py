# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml does with nodes that are not as they should be.

Whatever happens, a node's engine must be able to start again, and the other nodes must be brought in line.
"""

import json
import shlex
import subprocess

import pytest
from ansible_run import run_playbook
from testinfra_common import node, ok, wait_for

REGISTRY = "lab-reg:5000"
DAEMON_JSON = "/etc/docker/daemon.json"
DROP_IN = "/etc/systemd/system/docker.service.d/mirror.conf"
REGISTRIES = "/etc/rancher/k3s/registries.yaml"
DOCKER = ("lab-n12", "lab-n13")


def write(name, path, text):
    ok(node(name), f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(text)} >{path}")


def summary(run):
    """Node -> its line in the table."""
    lines = run.output.split("TASK [Show the table]", 1)[1].split("\nTASK ", 1)[0].splitlines()
    return {line.split()[0]: line for line in lines if line.strip().startswith("lab-")}


def reset():
    """Fresh files and running engines everywhere."""
    for name in DOCKER:
        host = node(name)
        host.run("mountpoint -q /etc/docker && umount /etc/docker")
        ok(host, f"rm -rf {DAEMON_JSON}* /etc/docker/homelab-registry.json {DROP_IN}")
        ok(host, "systemctl daemon-reload; systemctl reset-failed docker.service docker.socket")
        ok(host, "systemctl restart docker")
    for name, unit in (("lab-k3s-server", "k3s"), ("lab-k3s-agent", "k3s-agent")):
        ok(node(name), f"rm -rf {REGISTRIES}* /etc/rancher/k3s/homelab-registry.json; systemctl reset-failed {unit}")
        ok(node(name), f"systemctl restart {unit}")


@pytest.fixture(autouse=True)
def healthy():
    """Every test starts with healthy nodes."""
    reset()


@pytest.fixture(autouse=True, scope="module")
def healthy_afterwards():
    """And so does the next scenario."""
    yield
    reset()


def engine_restarts(name):
    ok(node(name), "systemctl restart docker")
    wait_for(f"the engine of {name}", lambda: node(name).run("docker info").rc == 0)


def test_four_broken_nodes_do_not_stop_the_others():
    broken = '{\n  "debug": false,\n}\n'
    write("lab-n12", DAEMON_JSON, broken)
    write(
        "lab-n13",
        DROP_IN,
        "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// --insecure-registry other:5000\n",
    )
    write("lab-k3s-server", REGISTRIES, "mirrors:\n  docker.io:\n    endpoint: http://old:5000\n")

    run = run_playbook("site.yml")

    assert run.code == 2
    lines = summary(run)
    run.says(
        "lab-n12", "/etc/docker/daemon.json is not valid JSON: a trailing comma or a comment near line 3",
        "docker_client_repair=true",
        f'"insecure-registries" is also set by the flag --insecure-registry in {DROP_IN}',
        "mirrors.docker.io.endpoint must be a list, not a string",
    )
    for name in ("lab-n12", "lab-n13", "lab-k3s-server"):
        assert "FAILED: " in lines[name]
    assert lines["lab-reg"].split()[-5:-2] == ["ok,", "answers", "in"]
    assert lines["lab-k3s-agent"].rstrip().endswith("ok"), "the healthy node was brought in line"
    # nothing was touched where it failed
    assert node("lab-n12").file(DAEMON_JSON).content_string == broken
    assert not node("lab-n13").file(DAEMON_JSON).exists
    assert node("lab-k3s-server").run(f"ls {REGISTRIES}.* /etc/docker/*.bak").stdout == ""
    # the drop-in of n13 works without our key beside it
    ok(node("lab-n13"), "systemctl daemon-reload")
    engine_restarts("lab-n13")


def test_a_trailing_comma_is_mended_on_request():
    write("lab-n12", DAEMON_JSON, '{\n  // who wrote this?\n  "labels": ["a=b//c"],\n}\n')
    run = run_playbook("site.yml", "--limit", "lab-n12", docker_client_repair=True)
    assert run.code == 0, run.output
    data = json.loads(node("lab-n12").file(DAEMON_JSON).content_string)
    assert data["labels"] == ["a=b//c"]
    assert data["insecure-registries"] == [REGISTRY]
    engine_restarts("lab-n12")


def test_others_keys_and_entries_survive_a_changed_endpoint_and_a_removal():
    write("lab-n12", DAEMON_JSON, '{"debug": true, "insecure-registries": ["10.0.0.0/8", "old:1"]}')
    run = run_playbook("site.yml", "--limit", "lab-n12")
    assert run.code == 0, run.output
    data = json.loads(node("lab-n12").file(DAEMON_JSON).content_string)
    assert data["insecure-registries"] == ["10.0.0.0/8", "old:1", REGISTRY]
    # the same registry under another name: our old entries go, everybody else's stay
    run = run_playbook("site.yml", "--limit", "lab-n12", registry_endpoint="172.30.55.10:5000")
    assert run.code == 0, run.output
    data = json.loads(node("lab-n12").file(DAEMON_JSON).content_string)
    assert data["insecure-registries"] == ["10.0.0.0/8", "old:1", "172.30.55.10:5000"]
    assert data["registry-mirrors"] == ["http://172.30.55.10:5000"]
    info = json.loads(ok(node("lab-n12"), "docker info --format '{{json .RegistryConfig}}'"))
    assert info["Mirrors"] == ["http://172.30.55.10:5000/"]
    assert REGISTRY not in info["IndexConfigs"]
    # and out again, from the running engine too
    run = run_playbook(
        "site.yml", "--limit", "lab-n12", "--skip-tags", "proof",
        docker_client_insecure_registries=[], docker_client_registry_mirrors=[],
    )
    data = json.loads(node("lab-n12").file(DAEMON_JSON).content_string)
    assert data == {"debug": True, "insecure-registries": ["10.0.0.0/8", "old:1"], "registry-mirrors": []}
    info = json.loads(ok(node("lab-n12"), "docker info --format '{{json .RegistryConfig}}'"))
    assert not info["Mirrors"]
    engine_restarts("lab-n12")


def test_a_key_that_dockerd_does_not_know_is_found_before_or_by_the_reload():
    """Docker 26 can validate the file; 20.10 cannot, but refuses to take it over, so the old one is put back."""
    before = '{"x-nobody-knows": 1}'
    for name in DOCKER:
        write(name, DAEMON_JSON, before)
    run = run_playbook("site.yml", "--limit", "docker_nodes")
    assert run.code == 2
    run.says("x-nobody-knows", "the old file is in place again")
    for name in DOCKER:
        assert node(name).file(DAEMON_JSON).content_string == before


def test_a_mirror_without_scheme_and_a_misspelt_key_in_the_file():
    write("lab-n12", DAEMON_JSON, '{"registry-mirrors": ["mirror.example:5000"]}')
    write("lab-n13", DAEMON_JSON, '{"insecure-registry": ["mirror.example:5000"]}')
    run = run_playbook("site.yml", "--limit", "docker_nodes")
    assert run.code == 2
    run.says('"registry-mirrors" entry "mirror.example:5000": a mirror needs a scheme: http://mirror.example:5000')
    run.says('key "insecure-registry" is silently ignored by dockerd: the right name is "insecure-registries"')
    assert summary(run)["lab-n13"].rstrip().endswith("ok")
    engine_restarts("lab-n13")


def test_a_directory_mounted_read_only():
    host = node("lab-n12")
    ok(host, "mount --bind /etc/docker /etc/docker && mount -o remount,ro,bind /etc/docker")
    run = run_playbook("site.yml", "--limit", "docker_nodes")
    assert run.code == 2
    run.says("cannot be written: Read-only file system")
    assert summary(run)["lab-n13"].rstrip().endswith("ok")
    ok(host, "umount /etc/docker")
    assert host.run("ls -A /etc/docker").stdout.split() in ([], ["key.json"])
    engine_restarts("lab-n12")


def test_a_node_that_is_down():
    # to a node, "docker stop" of its container is a pulled plug
    subprocess.run(["docker", "stop", "-t", "5", "lab-k3s-agent"], check=True, capture_output=True)
    try:
        run = run_playbook("site.yml")
    finally:
        subprocess.run(["docker", "start", "lab-k3s-agent"], check=True, capture_output=True)
        wait_for("the agent boots", lambda: node("lab-k3s-agent").run("k3s crictl info").rc == 0, 60)
    assert run.code == 2
    lines = summary(run)
    assert "FAILED: unreachable" in lines["lab-k3s-agent"]
    for name in ("lab-n12", "lab-n13", "lab-k3s-server"):
        assert lines[name].rstrip().endswith("ok")


def test_the_registry_is_unreachable():
    ok(node("lab-reg"), "docker stop registry")
    try:
        run = run_playbook("site.yml", "--limit", "lab-n13,lab-k3s-server")
    finally:
        ok(node("lab-reg"), "docker start registry")
    assert run.code == 2
    run.says("GET http://lab-reg:5000/v2/ got no answer", "does the server run, and are address and port right?")
    lines = summary(run)
    assert "FAILED" in lines["lab-n13"]
    assert "FAILED" in lines["lab-k3s-server"]
    engine_restarts("lab-n13")
    ok(node("lab-k3s-server"), "systemctl restart k3s")


def test_k3s_standin_that_does_not_come_back_gets_its_old_file_again():
    before = "mirrors:\n  docker.io:\n    endpoint:\n    - http://old.example:5000\n"
    write("lab-k3s-server", REGISTRIES, before)
    host = node("lab-k3s-server")
    ok(host, "systemctl restart k3s")
    ok(host, "mkdir -p /etc/systemd/system/k3s.service.d")
    # this node's k3s does not start with the new file, whatever the reason
    write(
        "lab-k3s-server",
        "/etc/systemd/system/k3s.service.d/fault.conf",
        f"[Service]\nExecStartPre=/bin/sh -c '! grep -q {REGISTRY} {REGISTRIES}'\n",
    )
    ok(host, "systemctl daemon-reload")
    try:
        run = run_playbook("site.yml", "--limit", "k3s_nodes", k3s_client_ready_timeout=20)
        assert run.code == 2
        run.says("k3s.service did not come back with the new /etc/rancher/k3s/registries.yaml; the old one is in place")
        assert host.file(REGISTRIES).content_string == before
        assert host.service("k3s").is_running
        assert summary(run)["lab-k3s-agent"].rstrip().endswith("ok")
    finally:
        ok(host, "rm /etc/systemd/system/k3s.service.d/fault.conf; systemctl daemon-reload; systemctl reset-failed k3s")


def test_k3s_that_is_not_installed_yet_gets_its_file_and_a_note():
    host = node("lab-k3s-agent")
    ok(host, "systemctl stop k3s-agent && mkdir -p /root/away")
    ok(host, "mv /usr/local/bin/k3s /etc/systemd/system/k3s*.service /root/away/ && systemctl daemon-reload")
    try:
        run = run_playbook("site.yml", "--limit", "lab-k3s-agent")
    finally:
        ok(host, "mv /root/away/*.service /etc/systemd/system/ && mv /root/away/k3s /usr/local/bin/")
        ok(host, "systemctl daemon-reload && systemctl start k3s-agent")
    assert run.code == 0, run.output
    run.says("k3s is not installed on lab-k3s-agent yet", "configured; no k3s to pull with yet")
    assert f"http://{REGISTRY}" in host.file(REGISTRIES).content_string
