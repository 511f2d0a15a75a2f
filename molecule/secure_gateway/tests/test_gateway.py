# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts with rights, from the nodes that use them; and a search for secrets where none may be."""

import base64
import json
import os
import re
from pathlib import Path

import pytest
from ansible_run import PROJECT, run_playbook
from testinfra_common import PAYLOAD, node, ok

HOST, URL, CA = "lab-reg", "https://lab-reg:5000", "/etc/homelab-registry/ca.crt"
DOCKER = ["lab-n12", "lab-n13"]  # 20.10 and 26
K3S = ["lab-k3s-server", "lab-k3s-agent"]
PASSWORDS = {
    "keeper": "canary-keeper !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ä€",
    "builder": "canary-builder-password",
    "nodes": "canary-nodes-password",
}
SERVER = PROJECT / "molecule/registry/server.yml"
#: Since when the two of them run, and what is in the gateway's files.
RUNNING = "docker inspect -f '{{.State.StartedAt}}' registry-gateway registry"
FILES = "cd /srv/registry/gateway && sha256sum nginx.conf htpasswd tls.crt tls.key && ls"
MEDIA = "application/vnd.docker.distribution.manifest.v2+json"


def code(host, path, account=None, password=None, method="GET", url=URL):
    """The status of one request."""
    options = f"--cacert {CA} -H 'Accept: {MEDIA}' -X {method} {'-I' if method == 'HEAD' else ''}"
    if account:
        pair = f"{account}:{password or PASSWORDS[account]}".encode()
        options += f" -H 'Authorization: Basic {base64.b64encode(pair).decode('ascii')}'"
    return ok(node(host), f"curl -sS -o /dev/null -w '%{{http_code}}' {options} {url}{path}")


def docker(host, account, command):
    """docker on a node with one account, or none; its result."""
    folder = f"/tmp/docker-{account}"
    host = node(host)
    if account:
        login = f"docker --config {folder} login -u {account} --password-stdin lab-reg:5000 </tmp/password-{account}"
        if not host.file(f"{folder}/config.json").exists:
            text = base64.b64encode(PASSWORDS[account].encode()).decode("ascii")
            ok(host, f"umask 077; echo {text} | base64 -d >/tmp/password-{account}; {login}")
    return host.run(f"docker --config {folder} {command}")


@pytest.fixture(scope="module", autouse=True)
def images():
    """A mirrored image and one of our own, pushed by the builder from Docker 26."""
    for name in ("library/everybodys", "team/ours"):
        ok(node("lab-n13"), f"docker tag {PAYLOAD} lab-reg:5000/{name}:1")
        pushed = docker("lab-n13", "builder", f"push lab-reg:5000/{name}:1")
        assert pushed.rc == 0, pushed.stderr
        ok(node("lab-n13"), f"docker rmi lab-reg:5000/{name}:1")


# --- who may do what ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DOCKER)
def test_everybody_pulls_the_mirrored_images(name):
    """registry-mirrors never sends an account."""
    for command in ("pull everybodys:1", "pull lab-reg:5000/library/everybodys:1"):
        pulled = docker(name, None, command)
        assert pulled.rc == 0, pulled.stderr
    node(name).run("docker rmi everybodys:1 lab-reg:5000/library/everybodys:1")
    assert "unauthorized" in docker(name, None, "pull lab-reg:5000/team/ours:1").stderr


@pytest.mark.parametrize("name", K3S)
def test_k3s_pulls_both(name):
    for image in ("docker.io/library/everybodys:1", "lab-reg:5000/team/ours:1"):
        ok(node(name), f"k3s crictl pull {image}")
        ok(node(name), f"k3s crictl rmi {image}")


@pytest.mark.parametrize("name", DOCKER)
def test_the_nodes_account_pulls_and_does_not_push(name):
    reference = "lab-reg:5000/team/ours:1"
    pulled = docker(name, "nodes", f"pull {reference}")
    assert pulled.rc == 0, pulled.stderr
    refused = docker(name, "nodes", f"push {reference}")
    assert refused.rc != 0 and "denied" in refused.stderr + refused.stdout
    ok(node(name), f"docker rmi {reference}")


def test_only_the_keeper_deletes():
    headers = ok(node(HOST), f"curl -sSI --cacert {CA} -H 'Accept: {MEDIA}' {URL}/v2/library/everybodys/manifests/1")
    digest = re.search(r"(?i)^docker-content-digest: (\S+)", headers, re.MULTILINE)[1]
    path = f"/v2/team/ours/manifests/{digest}"
    for account, answer in ((None, "401"), ("nodes", "403"), ("builder", "403")):
        assert code(HOST, path, account, method="DELETE") == answer
    assert code(HOST, path, "nodes") == "200"
    assert code(HOST, path, "keeper", method="DELETE") == "202"
    assert code(HOST, path, "nodes") == "404"


def test_what_is_refused():
    assert code(HOST, "/v2/", "keeper", "wrong") == "401"
    assert code(HOST, "/v2/library/everybodys/manifests/1", "keeper", "wrong") == "401"
    assert code(HOST, "/v2/_catalog") == "401"
    assert code(HOST, "/v2/_catalog", "nodes") == "200"
    assert code("lab-n12", "/v2/library/everybodys/manifests/1", url="http://lab-reg:5000") == "400"
    wrong = node("lab-n12").run("echo wrong | docker --config /tmp/wrong login -u nodes --password-stdin lab-reg:5000")
    assert wrong.rc != 0 and "unauthorized" in wrong.stderr


def test_requests_are_logged_with_account_and_repository():
    assert code("lab-n12", "/v2/team/marker/tags/list", "nodes") == "404"
    log = [json.loads(line) for line in ok(node(HOST), "docker logs registry-gateway 2>/dev/null").splitlines()]
    (one,) = [entry for entry in log if entry["repository"] == "team/marker"]
    assert (one["account"], one["method"], one["status"], one["client"]) == ("nodes", "GET", 404, "172.30.55.12")


# --- hardening ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["registry", "registry-gateway"])
def test_the_containers_are_hardened(name):
    container = json.loads(ok(node(HOST), f"docker inspect {name}"))[0]
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"] is True and host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"]
    # nothing turns the engine's own seccomp profile off
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host["PidMode"] and not host["Devices"] and host["NetworkMode"] == "homelab-registry"
    pid = container["State"]["Pid"]
    status = ok(node(HOST), f"cat /proc/{pid}/status")
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    if name == "registry-gateway":
        assert "Uid:\t50101\t50101\t50101\t50101" in status
        assert host["PortBindings"] == {"5000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "5000"}]}
    else:
        assert set(host["PortBindings"]) == {"5001/tcp"}
        assert host["PortBindings"]["5001/tcp"][0]["HostIp"] == "127.0.0.1"


def test_nobody_goes_around_the_gateway():
    """Not even from the registry host, or from a container beside it."""
    address = ok(node(HOST), "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' registry")
    for account in (None, *PASSWORDS):
        assert code(HOST, "/v2/", account, url=f"http://{address}:5000") == "401"
    listening = ok(node(HOST), "ss -Hltn").splitlines()
    ports = {line.split()[3] for line in listening}
    assert [port for port in ports if port.endswith((":5000", ":5001", ":5010"))] != []
    assert {port for port in ports if port.endswith(":5001")} == {"127.0.0.1:5001"}
    assert node("lab-n12").run("curl -fsS -m 5 http://lab-reg:5001/metrics").rc != 0


def test_files_are_for_those_who_need_them():
    found = ok(node(HOST), "find /srv/registry/config /srv/registry/gateway -type f -printf '%m %U %p\\n'").splitlines()
    assert len(found) > 6
    for line in found:
        mode, owner, path = line.split()
        assert mode == "400" and owner == ("50101" if "/gateway/" in path else "0"), line
    for path in ("/srv/registry/gateway", "/srv/registry/gateway/new"):
        assert node(HOST).file(path).mode == 0o700
    # neither keys nor hashes of accounts that the server behind does not check
    assert "/srv/registry/config/tls.key" not in "".join(found)
    behind = node(HOST).file("/srv/registry/config/htpasswd").content_string
    assert re.findall(r"(?m)^(\w+):", behind) == ["gateway"]
    hashes = node(HOST).file("/srv/registry/gateway/htpasswd").content_string
    assert re.findall(r"(?m)^(\w+):\$2y\$05\$", hashes) == ["keeper", "builder", "nodes"]


def test_no_version_is_told():
    answer = ok(node(HOST), f"curl -sSi --cacert {CA} {URL}/v2/x; curl -sSi --cacert {CA} {URL}/")
    assert "nginx" in answer and not re.search(r"nginx/|/[0-9]+\.[0-9]+\.[0-9]", answer)


def secrets(passwords):
    """Everything that nobody may see, in the spellings it could be seen in."""
    found = {"canary-http-secret-of-the-server"}
    for account, password in passwords.items():
        for text in (password, f"{account}:{password}"):
            found |= {text, json.dumps(text)[1:-1], base64.b64encode(text.encode()).decode("ascii")}
    files = {name: node(HOST).file(f"/srv/registry/gateway/{name}").content_string for name in (
        "nginx.conf", "tls.key", "htpasswd")}
    # the account behind the gateway
    way = re.search(r'Authorization "Basic ([A-Za-z0-9+/=]+)"', files["nginx.conf"])[1]
    found |= {way, base64.b64decode(way).decode().split(":")[1]}
    found |= {line for line in files["tls.key"].splitlines() if len(line) > 40}
    return found | {line.split(":")[1] for line in files["htpasswd"].splitlines()}


def test_no_secret_is_seen_anywhere():
    """A run that says all it can, with new passwords, and then all the places where one could have been left."""
    # Never on a command line of this test: modules write those into the journal.
    passwords = {account: password + "-new" for account, password in PASSWORDS.items()}
    roles = dict(zip(PASSWORDS, ("admin", "push", "pull")))
    users = [{"name": name, "password": password, "role": roles[name]} for name, password in passwords.items()]
    vault = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "vault.json"
    vault.touch(mode=0o600)
    vault.write_text(json.dumps({"registry_users": users, "gateway_request_rate": 201}), encoding="utf-8")
    started = ok(node(HOST), RUNNING)
    try:
        run = run_playbook(PROJECT / "site.yml", "-vvv", "--diff", "-e", f"@{vault}")
    finally:
        vault.unlink()
    assert run.code == 0, run.output[-6000:]
    places = {"the output of ansible-playbook -vvv --diff": run.output}
    readable = "find /etc /srv /var/lib /root /tmp /opt /usr/local -xdev -type f -perm -o=r -size -2M -newer /proc/1"
    for name in (HOST, *DOCKER, *K3S):
        host = node(name)
        places[f"{name}: processes"] = ok(host, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
        places[f"{name}: journal"] = ok(host, "journalctl --no-pager -q | tail -n 20000")
    containers = "registry registry-gateway"
    places["docker inspect"] = ok(node(HOST), f"docker inspect {containers} $(docker images -q)")
    places["logs of containers"] = ok(node(HOST), f"for one in {containers}; do docker logs $one 2>&1; done")
    hidden = secrets(passwords)
    assert len(hidden) > 15
    lines = base64.b64encode("".join(f"{one}\n" for one in hidden).encode()).decode("ascii")
    for name in (HOST, *DOCKER, *K3S):  # searched there: there may be much of it, and not only text
        search = f"{readable} -exec grep -laFf /root/hidden {{}} +"
        ok(node(name), f"umask 077; echo {lines} | base64 -d >/root/hidden")
        assert ok(node(name), f"{search} 2>/dev/null; rm /root/hidden") == "", name
    assert [(place, secret[:16]) for place, text in places.items() for secret in hidden if secret in text] == []
    # the search finds what is there
    assert "homelab.registry.gateway : " in places["the output of ansible-playbook -vvv --diff"]
    assert "registry-gateway" in places["docker inspect"]
    # new passwords and another limit were taken in without a restart
    assert ok(node(HOST), RUNNING) == started
    assert code(HOST, "/v2/", "keeper") == "401"
    assert code(HOST, "/v2/", "keeper", passwords["keeper"]) == "200"


def test_a_wrong_value_changes_nothing():
    """Neither one that is judged before any host is touched, nor a port that another program has."""
    before = ok(node(HOST), RUNNING)
    run = run_playbook(SERVER, gateway_anonymous=["Library/*"])
    assert run.code != 0
    run.says("'Library/*' is no pattern of repositories", "gateway_anonymous")
    run = run_playbook(SERVER, registry_port=22, registry_endpoint="lab-reg:22")
    assert run.code != 0
    run.says("Port 22 on lab-reg is in use")
    assert ok(node(HOST), RUNNING) == before


def test_a_gateway_that_cannot_start_gives_way_to_the_one_before_it():
    before = ok(node(HOST), "docker inspect -f '{{.Id}}' registry-gateway")
    files = ok(node(HOST), FILES)
    # no address of this host, which only the engine can find out; and a changed file
    run = run_playbook(SERVER, registry_bind_address="192.0.2.1", gateway_request_rate=7)
    assert run.code != 0
    run.says("192.0.2.1")
    assert ok(node(HOST), "docker inspect -f '{{.Id}}' registry-gateway") == before
    assert node(HOST).run("docker inspect registry-gateway-previous").rc != 0
    assert ok(node(HOST), FILES) == files
    assert code("lab-n12", "/v2/library/everybodys/manifests/1") == "200"


def test_without_the_gateway_and_with_it_again():
    """Its port goes back to the registry, which says what it cannot do; then the other way round, at the second try."""
    run = run_playbook(SERVER, registry_gateway=False)
    assert run.code == 0, run.output[-6000:]
    assert node(HOST).run("docker inspect registry-gateway").rc != 0
    assert not node(HOST).file("/srv/registry/gateway").exists
    assert code(HOST, "/v2/", "nodes") == "200"
    assert code(HOST, "/v2/library/everybodys/manifests/1") == "401"
    assert code(HOST, "/v2/team/x/blobs/uploads/", "nodes", method="POST") == "202"
    # a first try that was cut when the gateway had the port already
    ok(node(HOST), "docker rename registry registry-previous && docker stop registry-previous")
    ok(node(HOST), f"docker create --name registry {PAYLOAD} sleep 1")
    ok(node(HOST), f"docker run -d --name registry-gateway -p 5000:5000 {PAYLOAD} sleep 3600")
    run = run_playbook(SERVER)
    assert run.code == 0, run.output[-6000:]
    assert code(HOST, "/v2/library/everybodys/manifests/1") == "200"
    assert code(HOST, "/v2/team/x/blobs/uploads/", "nodes", method="POST") == "403"


def test_what_an_interrupted_run_has_placed_is_taken_in_by_the_next():
    """It had put the new files in place, and kept the old ones, but nginx was not told."""
    workers = "docker top registry-gateway -o pid,args | grep 'worker process' | grep -v 'shutting down' | sort"
    before = ok(node(HOST), workers)
    ok(node(HOST), "cd /srv/registry/gateway && cp -a new previous")
    run = run_playbook(SERVER)
    assert run.code == 0, run.output[-6000:]
    assert not set(ok(node(HOST), workers).splitlines()) & set(before.splitlines())
    assert not node(HOST).file("/srv/registry/gateway/previous").exists
