# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway before a real registry: who may do what, what Docker makes of it, and what is logged."""

from __future__ import annotations

import base64
import concurrent.futures
import http.client
import json
import re
import socket
import subprocess
import time

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.auth import Denied
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import digest_of
from ansible_collections.homelab.registry.tests.integration.real_gateway import ACCOUNTS, PASSWORD, RealGateway
from ansible_collections.homelab.registry.tests.integration.real_images import Content
from ansible_collections.homelab.registry.tests.integration.real_registry import docker
from ansible_collections.homelab.registry.tests.unit import images

ACCEPT = "application/vnd.oci.image.index.v1+json"
OPEN = ("library/*", "quay.io/*")


@pytest.fixture(scope="module")
def registry(module_registries):
    """With deletion on and images in an open and in a closed repository."""
    started = module_registries.start()
    content = Content()
    for repository in ("library/node", "quay.io/a/b", "team/app", "libraryx/c"):
        images.multi(content, repository, "1", [images.data("base")])
    content.push(started.client())
    return started


@pytest.fixture(scope="module")
def gateway(registry, tmp_path_factory):
    started = RealGateway(tmp_path_factory.mktemp("gateway"), registry, anonymous=OPEN)
    yield started
    started.remove()


def ask(gateway, method, path, authorization=None, body=None, headers=None):
    """One request as it is written here, byte for byte; status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    try:
        given = {"Accept": ACCEPT, **({"Authorization": authorization} if authorization else {})}
        connection.request(method, path, body=body, headers={**given, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def basic(account, password=PASSWORD):
    return "Basic " + base64.b64encode(f"{account}:{password}".encode()).decode("ascii")


MISSING = "sha256:" + "0" * 64
#: what is asked, and what a stranger, node (pull), builder (push) and boss (admin) are answered
TABLE = [
    ("GET", "/v2/", 401, 200, 200, 200),
    ("HEAD", "/v2/", 401, 200, 200, 200),
    ("GET", "/v2/_catalog", 401, 200, 200, 200),
    ("GET", "/v2/library/node/tags/list", 200, 200, 200, 200),
    ("HEAD", "/v2/library/node/manifests/1?ns=docker.io", 200, 200, 200, 200),
    ("GET", "/v2/quay.io/a/b/manifests/1", 200, 200, 200, 200),
    ("GET", f"/v2/library/node/blobs/{MISSING.replace(':', '%3A')}", 404, 404, 404, 404),
    ("GET", "/v2/team/app/manifests/1", 401, 200, 200, 200),
    ("GET", "/v2/libraryx/c/manifests/1", 401, 200, 200, 200),
    ("GET", "/v2/team/app/tags/list", 401, 200, 200, 200),
    ("POST", "/v2/library/node/blobs/uploads/", 401, 403, 202, 202),
    ("PUT", "/v2/team/app/manifests/x", 401, 403, 400, 400),
    ("PATCH", "/v2/team/app/blobs/uploads/00000000-0000-0000-0000-000000000000", 401, 403, 404, 404),
    ("DELETE", "/v2/team/app/blobs/uploads/00000000-0000-0000-0000-000000000000", 401, 403, 404, 404),
    ("DELETE", f"/v2/team/app/manifests/{MISSING}", 401, 403, 403, 404),
    ("DELETE", f"/v2/library/node/blobs/{MISSING}", 401, 403, 403, 404),
    # nothing of the distribution specification: 404, and the registry never sees it
    ("GET", "/v2/library/../team/app/manifests/1", 404, 404, 404, 404),
    ("GET", "/v2/library/%2e%2e/team/app/manifests/1", 404, 404, 404, 404),
    ("GET", "/v2/library/..%2fteam/app/manifests/1", 404, 404, 404, 404),
    ("GET", "/v2//library/node/manifests/1", 404, 404, 404, 404),
    ("GET", "/v2/library/node/manifests/1%0d%0aX-Evil:1", 404, 404, 404, 404),
    ("TRACE", "/v2/", 405, 405, 405, 405),
    ("PUT", "/v2/", 404, 404, 404, 404),
    ("GET", "/", 404, 404, 404, 404),
    ("GET", "/debug/vars", 404, 404, 404, 404),
    ("GET", "/.gateway/who", 404, 404, 404, 404),
]


@pytest.mark.parametrize("who", [None, *ACCOUNTS])
def test_rights(gateway, who):
    column = 2 + [None, *ACCOUNTS].index(who)
    for row in TABLE:
        ways = [None, "Bearer anonymous"] if who is None else [basic(who), "Bearer " + basic(who).split()[1]]
        for way in ways:
            status, _headers, _body = ask(gateway, row[0], row[1], way)
            assert status == row[column], (who, way and way.split()[0], row[:2], status)


def test_what_is_wrong_is_401_everywhere(gateway):
    """Also where no account is needed: a stale password must not look as if it worked."""
    wrong = basic("boss", "wrong")
    for path, header in (
        ("/v2/", wrong), ("/v2/library/node/manifests/1", wrong), ("/token", wrong), ("/v2/", basic("nobody")),
        ("/v2/", "Basic !!!"), ("/v2/", "Bearer x.y.z"), ("/v2/", "Digest username=boss"), ("/v2/", "Basic Og=="),
        ("/v2/", f"Bearer {wrong.split()[1]}"),
    ):
        status, headers, body = ask(gateway, "GET", path, header)
        assert status == 401, (header, path)
        assert headers["WWW-Authenticate"] == f'Bearer realm="{gateway.url}/token",service="registry"'
        assert json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED"


def test_only_a_real_account_is_logged(gateway):
    before = len(gateway.requests())
    ask(gateway, "GET", "/v2/team/app/manifests/1?canary=argument", basic("node"))
    ask(gateway, "GET", "/v2/team/app/manifests/1", basic("boss", "canary-wrong"))
    ask(gateway, "GET", "/v2/quay.io/a/b/manifests/1")
    time.sleep(0.2)
    found = gateway.requests()[before:]
    assert [(one["account"], one["repository"], one["action"], one["status"]) for one in found] == [
        ("node", "team/app", "pull", 200), ("", "team/app", "pull", 401), ("", "quay.io/a/b", "pull", 200),
    ]
    assert {one["path"] for one in found} == {"/v2/team/app/manifests/1", "/v2/quay.io/a/b/manifests/1"}
    log = gateway.log()
    for secret in ("canary", PASSWORD, basic("node").split()[1], basic("boss", "canary-wrong").split()[1]):
        assert secret not in log


def test_no_version_is_told(gateway):
    for path in ("/", "/v2/", "/v2/library/node/tags/list", "/v2/library/%zz"):
        _status, headers, body = ask(gateway, "GET", path)
        assert not re.search(r"nginx/|[0-9]+\.[0-9]+\.[0-9]+", f"{headers['Server']}{body.decode()}"), path


def test_our_own_client(gateway, registry):
    """It learns the way by the challenge, with and without an account."""
    stranger, node, builder, boss = (gateway.client(name) for name in (None, *ACCOUNTS))
    assert stranger.head_manifest("library/node", "1") == node.head_manifest("library/node", "1")
    with pytest.raises(Denied):
        stranger.tags("team/app")
    assert set(node.tags("team/app")) == {"1"}
    with pytest.raises(Denied):
        node.put_blob("team/app", b"not mine to push")
    with pytest.raises(Denied):
        gateway.client("boss", "wrong").tags("team/app")
    content = Content()
    digest = images.multi(content, "team/new", "1", [images.data("base"), images.data("new")])
    content.push(builder)
    assert registry.client().head_manifest("team/new", "1") == digest
    assert builder.delete_manifest("team/new", digest).status == 403
    assert boss.delete_manifest("team/new", digest).status == 202


def test_a_large_layer_is_kept_nowhere_on_its_way(gateway, registry):
    """The gateway's only writable place holds one megabyte, so nothing of these 48 can have been put there."""
    layer = b"0123456789abcdef" * (3 << 20)
    status, headers, _body = ask(gateway, "POST", "/v2/team/big/blobs/uploads/", basic("builder"))
    assert status == 202
    # what the registry made of the address it was told: back through the gateway
    assert headers["Location"].startswith((gateway.url, "/v2/"))
    path = headers["Location"].removeprefix(gateway.url)
    chunks = (layer[start : start + (1 << 20)] for start in range(0, len(layer), 1 << 20))  # without a length
    status, headers, _body = ask(gateway, "PATCH", path, basic("builder"), body=chunks)
    assert status == 202
    path = headers["Location"].removeprefix(gateway.url)
    digest = digest_of(layer)
    status, _headers, _body = ask(gateway, "PUT", f"{path}&digest={digest}", basic("builder"))
    assert status == 201
    assert ask(gateway, "GET", f"/v2/team/big/blobs/{digest}", basic("node"))[2] == layer


def test_changed_passwords_count_at_once(registry, tmp_path):
    gateway = RealGateway(tmp_path, registry)
    try:
        assert ask(gateway, "GET", "/v2/", basic("boss"))[0] == 200
        gateway.passwords({"node": "pull"})  # boss is gone; his role in the configuration does not matter
        assert ask(gateway, "GET", "/v2/", basic("boss"))[0] == 401
        assert ask(gateway, "GET", "/v2/", basic("node"))[0] == 200
        # without open repositories a plain login is asked for, and there is no token server
        assert ask(gateway, "GET", "/v2/")[1]["WWW-Authenticate"] == 'Basic realm="registry"'
        assert ask(gateway, "GET", "/token")[0] == 404
        # an account that has a password and no role may do nothing
        gateway.passwords({"node": "pull", "stray": ""})
        assert ask(gateway, "GET", "/v2/team/app/manifests/1", basic("stray"))[0] == 403
        # a missing file locks everybody out, and lets nobody in
        (gateway.folder / "htpasswd").unlink()
        assert ask(gateway, "GET", "/v2/", basic("node"))[0] == 401
    finally:
        gateway.remove()


def test_a_reload_cuts_nothing(registry, tmp_path):
    """New rights count for the next request, and one that is under way ends well."""
    gateway = RealGateway(tmp_path, registry)
    try:
        _status, headers, _body = ask(gateway, "POST", "/v2/team/slow/blobs/uploads/", basic("builder"))
        path = headers["Location"].removeprefix(gateway.url)

        def slowly():
            yield b"first"
            gateway.write(accounts={"builder": "pull", "boss": "admin"})
            gateway.reload()
            until = time.monotonic() + 10
            while ask(gateway, "POST", "/v2/team/slow/blobs/uploads/", basic("builder"))[0] != 403:
                assert time.monotonic() < until
                time.sleep(0.05)
            yield b"second"

        assert ask(gateway, "PATCH", path, basic("builder"), body=slowly())[0] == 202
    finally:
        gateway.remove()


def test_a_configuration_that_nginx_refuses_leaves_the_running_one(gateway):
    good = (gateway.folder / "nginx.conf").read_text(encoding="utf-8")
    (gateway.folder / "nginx.conf").write_text("nonsense", encoding="utf-8")
    gateway.reload()
    time.sleep(0.3)
    assert ask(gateway, "GET", "/v2/", basic("node"))[0] == 200
    (gateway.folder / "nginx.conf").write_text(good, encoding="utf-8")
    gateway.reload()


def test_guessing_is_slow_and_hinders_nobody(gateway):
    """One address gets 20 wrong answers at a time, each after a second, whatever it sends meanwhile."""
    with concurrent.futures.ThreadPoolExecutor(40) as guessers:
        answers = list(guessers.map(lambda number: ask(gateway, "GET", "/v2/", basic("boss", number))[0], range(80)))
    assert set(answers) == {401, 429}
    assert ask(gateway, "GET", "/v2/", basic("node"))[0] == 200


def test_requests_are_limited(registry, tmp_path):
    gateway = RealGateway(tmp_path, registry, request_rate=1, request_burst=3)
    try:
        with concurrent.futures.ThreadPoolExecutor(12) as many:
            assert set(many.map(lambda _: ask(gateway, "GET", "/v2/")[0], range(12))) == {401, 429}
    finally:
        gateway.remove()


def test_tls(registry, module_registries, tmp_path):
    gateway = RealGateway(tmp_path, registry, module_registries.authority, anonymous=OPEN)
    try:
        assert gateway.client("node").head_manifest("team/app", "1")
        assert gateway.client(None).head_manifest("library/node", "1")
        with pytest.raises(HomelabError, match="(?i)certificate"):
            gateway.client("node", ca_path=None).tags("team/app")
        # plain HTTP on that port is refused, whoever asks
        status, _headers, body = ask(gateway, "GET", "/v2/library/node/manifests/1", basic("boss"))
        assert (status, "https only" in body.decode()) == (400, True)
        for version, wanted in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            done = subprocess.run(
                ["openssl", "s_client", "-connect", gateway.netloc, "-brief", version, "-cipher", "ALL:@SECLEVEL=0"],
                input="", capture_output=True, text=True, timeout=30, check=False,
            )
            assert (done.returncode == 0) is wanted, version
        status, headers, _body = ask_tls(gateway, "POST", "/v2/team/x/blobs/uploads/", basic("builder"))
        assert (status, headers["Location"].startswith((gateway.url, "/v2/"))) == (202, True)
    finally:
        gateway.remove()


def ask_tls(gateway, method, path, authorization):
    done = subprocess.run(
        ["curl", "-s", "-D", "-", "-o", "/dev/null", "--cacert", str(gateway.authority.ca_path), "-X", method,
         "-H", f"Authorization: {authorization}", gateway.url + path],
        capture_output=True, text=True, timeout=30, check=True,
    )
    head, *lines = done.stdout.strip().splitlines()
    return int(head.split()[1]), dict(line.split(": ", 1) for line in lines if ": " in line), b""


def test_without_accounts_requests_go_through_as_they_are(registry, module_registries, tmp_path):
    """auth none, or token, whose tokens only the registry can read."""
    guarded = module_registries.start(users=("alice",))
    for behind, auth, header, status in (
        (registry, "none", None, 200), (guarded, "token", None, 401), (guarded, "token", basic("alice"), 200),
    ):
        gateway = RealGateway(tmp_path, behind, auth=auth, accounts={})
        try:
            assert ask(gateway, "GET", "/v2/", header)[0] == status
            assert gateway.requests()[-1]["account"] == ""
        finally:
            gateway.remove()


def test_a_registry_that_is_away(module_registries, tmp_path):
    away = module_registries.start()
    gateway = RealGateway(tmp_path, away)
    try:
        away.stop()
        assert ask(gateway, "GET", "/v2/", basic("node"))[0] == 502
        assert ask(gateway, "GET", "/v2/")[0] == 401
        away.start()
        assert ask(gateway, "GET", "/v2/", basic("node"))[0] == 200
    finally:
        gateway.remove()


def test_the_account_behind_the_gateway(module_registries, tmp_path):
    """Who goes around the gateway needs a password that only the gateway has."""
    guarded = module_registries.start(users=("alice",))
    gateway = RealGateway(tmp_path, guarded, backend_username="alice", backend_password="secret", anonymous=OPEN)
    try:
        assert ask(gateway, "GET", "/v2/", basic("boss"))[0] == 200
        assert ask(gateway, "GET", "/v2/_catalog")[0] == 401
        assert guarded.client(None).request("GET", "/v2/").status == 401
    finally:
        gateway.remove()


def run_docker(folder, *args, given=None):
    done = subprocess.run(
        ["docker", "--config", str(folder), *args],
        input=given, capture_output=True, text=True, timeout=120, check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def test_docker(gateway, tmp_path):
    """The engine of this machine: it decides by the answer to its first request what it sends from then on."""
    folders = {name: tmp_path / str(name) for name in (None, *ACCOUNTS)}
    code, said = run_docker(tmp_path, "login", "-u", "node", "--password-stdin", gateway.netloc, given="wrong")
    assert code and "unauthorized" in said
    for name in ACCOUNTS:
        code, said = run_docker(folders[name], "login", "-u", name, "--password-stdin", gateway.netloc, given=PASSWORD)
        assert code == 0, said
    payload = tmp_path / "payload.tar"
    subprocess.run(["tar", "-cf", payload, "-C", "/etc", "hostname"], check=True, timeout=60)
    references = [f"{gateway.netloc}/{repository}:docker" for repository in ("library/canary", "team/canary")]
    everybodys, ours = references
    docker("import", str(payload), everybodys)
    docker("tag", everybodys, ours)
    try:
        for reference in references:
            code, said = run_docker(folders["builder"], "push", reference)
            assert code == 0, said
        for name, word in ((None, "unauthorized"), ("node", "denied")):
            code, said = run_docker(folders[name], "push", ours)
            assert code and word in said, (name, said)
        docker("rmi", *references)
        assert run_docker(folders[None], "pull", everybodys)[0] == 0
        code, said = run_docker(folders[None], "pull", ours)
        assert code and "unauthorized" in said
        assert run_docker(folders["node"], "pull", ours)[0] == 0
    finally:
        docker("rmi", *references, check=False)


def test_the_listener_is_only_where_it_should_be(gateway):
    """Its own check of passwords is a socket inside the container, not a port of the host."""
    pids = docker("top", gateway.name, "-o", "pid").split()[1:]
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, timeout=30, check=True).stdout
    ports = {line.split()[3] for line in listening.splitlines() if any(f"pid={pid}," in line for pid in pids)}
    assert ports == {gateway.netloc}
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5):
        pass
