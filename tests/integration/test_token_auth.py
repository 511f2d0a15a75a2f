# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""auth: token, with a real token server and a real registry: who gets what, and which tokens count."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.run import prepare
from ansible_collections.homelab.registry.plugins.module_utils.oci.auth import Denied
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.server import config as server_config
from ansible_collections.homelab.registry.tests.integration.real_images import Content, assert_whole
from ansible_collections.homelab.registry.tests.integration.real_registry import (
    RealRegistry,
    docker,
    free_port,
    image,
    openssl,
)
from ansible_collections.homelab.registry.tests.integration.token_server import key_set
from ansible_collections.homelab.registry.tests.unit import images

ISSUER, SERVICE, KID = "homelab token server", "registry.test", "key-1"
EVERYTHING = ["pull", "push", "delete", "*"]
ACCOUNTS = {
    "": {"grants": {"repository:library/*": ["pull"]}},
    "node": {"password": "node's pass:word", "grants": {"repository:*": ["pull"]}},
    "builder": {"password": "ü 1", "grants": {"repository:team/*": ["pull", "push"]}},
    "boss": {"password": "secret", "refresh_token": "boss's refresh token",
             "grants": {"repository:*": EVERYTHING, "registry:catalog": ["*"]}},
}


class TokenRegistry(RealRegistry):
    """A registry that takes the tokens of a token server."""

    def client(self, user="boss", **options):
        password = ACCOUNTS[user]["password"] if user else None
        return Registry(self.url, username=user or None, password=password, **options)


class TokenServer:
    """The process, its keys and its settings."""

    def __init__(self, home: Path, by: str):
        self.home = home
        self.certificates = {}
        for name in ("ours", "foreign"):
            new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
            openssl(*new, "-keyout", str(home / f"{name}.key"), "-out", str(home / f"{name}.pem"))
        self.by = by
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/token"
        self.set()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("token_server.py")), str(home / "settings.json")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        assert "listening" in self.process.stdout.readline()

    def set(self, key="ours", **changes) -> None:
        """Its settings from now on."""
        proof = {"certificate": str(self.home / f"{key}.pem")} if self.by == "x5c" else {"kid": KID}
        settings = {"port": self.port, "issuer": ISSUER, "service": SERVICE, "life": 300, "accounts": ACCOUNTS,
                    "key": str(self.home / f"{key}.key"), **proof, **changes}
        new = self.home / "settings.new"
        new.write_text(json.dumps(settings), encoding="utf-8")
        new.rename(self.home / "settings.json")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


# How a token may say which key has signed it.
@pytest.fixture(scope="module", params=["x5c", "jwks"])
def place(request, tmp_path_factory):
    """A token server, and a registry with images that takes its tokens."""
    major = server_config.detect_major(json.loads(docker("image", "inspect", image()))[0])
    if major == 2 and request.param == "jwks":
        pytest.skip("registry 2 knows certificates only")
    home = tmp_path_factory.mktemp("token")
    token_server = TokenServer(home, request.param)
    registry = None
    try:
        inner = Path(server_config.config_path(major)).parent
        (home / "config").mkdir()
        shutil.copy(home / "ours.pem", home / "config/token-ca.crt")
        (home / "config/jwks.json").write_text(json.dumps(key_set(home / "ours.pem", KID)), encoding="utf-8")
        proof = {"rootcertbundle": str(inner / "token-ca.crt")} if request.param == "x5c" else {
            "jwks": str(inner / "jwks.json")}
        token = {"realm": token_server.url, "service": SERVICE, "issuer": ISSUER, **proof}
        registry = TokenRegistry(home, delete=True, readonly=False, users=(), tls=False, cache="inmemory", proxy=None,
                                 config={"auth": {"token": token}}, data=None, authority=None)
        registry.create()
        content = Content()
        for repository in ("library/node", "team/app", "other/app"):
            images.multi(content, repository, "1", [images.data("base")])
        content.push(registry.client())
        yield registry, token_server
    finally:
        token_server.close()
        if registry:
            registry.remove()


def may(client, action, repository="team/app"):
    """Whether a client may do something; nothing but a refusal counts as one."""
    try:
        if action == "pull":
            return client.head_manifest(repository, "1") is not None
        if action == "push":
            return bool(client.put_blob(repository, f"{time.time_ns()}".encode()))
        if action == "catalog":
            return list(client.catalog()) != []
        digest = "sha256:" + "0" * 64
        status = client.delete_manifest(repository, digest).status
        assert status in (401, 403, 404)
        return status == 404  # it would have deleted what is not there
    except Denied:
        return False


@pytest.mark.parametrize(
    ("who", "repository", "rights"),
    [
        (None, "library/node", {"pull"}),
        (None, "team/app", set()),
        ("node", "team/app", {"pull"}),
        ("node", "other/app", {"pull"}),
        ("builder", "team/app", {"pull", "push"}),
        ("builder", "other/app", set()),
        ("boss", "other/app", {"pull", "push", "delete", "catalog"}),
    ],
)
def test_scopes(place, who, repository, rights):
    client = place[0].client(who)
    assert {action for action in ("pull", "push", "delete", "catalog") if may(client, action, repository)} == rights


def test_a_wrong_password_is_said_by_name(place):
    client = Registry(place[0].url, username="boss", password="canary-secret")
    with pytest.raises(Denied) as caught:
        client.tags("team/app")
    assert "boss" in str(caught.value) and "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"issuer": "somebody else"}, {"key": "foreign"}, {"life": -300}, {"service": "registry.test", "life": -61}],
    ids=["issuer", "key", "expired", "expired a minute ago"],
)
def test_tokens_that_do_not_count(place, changes):
    registry, token_server = place
    token_server.set(**changes)
    try:
        # our client asks for a token twice at most, and says in the end that it was refused
        assert not may(registry.client(), "pull")
    finally:
        token_server.set()
    assert may(registry.client(), "pull")


def test_a_token_of_another_service_does_not_count(place):
    """Sent as it is: our client would fetch another one."""
    registry, token_server = place
    statuses = []
    for service in (SERVICE, "another.service"):
        token_server.set(service=service)
        try:
            with urllib.request.urlopen(f"{token_server.url}?scope=repository:library/node:pull", timeout=10) as answer:
                token = json.load(answer)["token"]
        finally:
            token_server.set()
        asked = urllib.request.Request(f"{registry.url}/v2/library/node/tags/list")
        asked.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                statuses.append(answer.status)
        except urllib.error.HTTPError as error:
            statuses.append(error.code)
    assert statuses == [200, 401]


def test_a_token_that_ends_is_replaced(place):
    """One client over the end of its token: nobody notices."""
    registry, token_server = place
    token_server.set(life=2)
    try:
        client = registry.client()
        for _number in range(6):
            assert may(client, "pull")
            time.sleep(0.7)
    finally:
        token_server.set()


def test_mirroring_logs_in(place, registries, tmp_path):
    """From a registry without accounts into one with a token server: as the account that may, then as another."""
    registry, _token_server = place
    source = registries.start()
    content = Content()
    images.multi(content, "team/new", "1", [images.data("base"), images.data("new")])
    content.push(source.client())
    settings = {
        "images": [f"{source.netloc}/team/new:1"],
        "upstreams": [{"registry": source.netloc, "url": source.url}],
        "state_path": str(tmp_path / "state.json"),
    }
    for account, failed in (("node", 1), ("boss", 0)):
        access = {"url": registry.url, "username": account, "password": ACCOUNTS[account]["password"]}
        report = prepare({**settings, **access}).run()
        assert len(report.failed) == failed, report.images
    assert report.changed
    assert_whole(registry.client())
