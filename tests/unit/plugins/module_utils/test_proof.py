# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof from a node: the first broken step is named, and nothing is left behind."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.engine import Engine
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import proof
from ansible_collections.homelab.registry.plugins.module_utils.oci import canary
from ansible_collections.homelab.registry.tests.unit.fake_engine import FakeEngine
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry

MIRRORED = "docker.io/library/homelab-canary"


@pytest.fixture
def fake():
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def engine():
    with FakeEngine() as engine:
        yield engine


def test_all_steps(fake):
    pulled = []
    steps = proof.prove(fake.url, pulled.append)
    assert list(steps) == ["resolve", "reach", "pull by name", "pull through the mirror"]
    assert (steps["resolve"], steps["reach"]) == ("127.0.0.1", "200")
    assert pulled == [f"{fake.netloc}/homelab-canary", MIRRORED]


def test_without_the_mirror(fake):
    pulled = []
    assert "pull through the mirror" not in proof.prove(fake.url, pulled.append, mirror=False)
    assert pulled == [f"{fake.netloc}/homelab-canary"]


def test_a_registry_with_accounts_is_reached_as_well():
    with FakeRegistry(accounts={}) as fake:
        assert proof.prove(fake.url, lambda name: None)["reach"] == "401"


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), None])
def test_a_name_that_does_not_resolve(monkeypatch, error):
    if error:

        def getaddrinfo(*_arguments):
            raise error

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    # without an error of the resolver: a label that is too long for one
    with pytest.raises(HomelabError, match="this node cannot resolve a{64}.lan") as caught:
        proof.prove(f"http://{'a' * 64}.lan:5000", pytest.fail)
    assert "/etc/hosts" in caught.value.remedy


def test_a_registry_that_does_not_answer(fake):
    fake.faults = {"close"}
    with pytest.raises(HomelabError, match="got no answer"):
        proof.prove(fake.url, pytest.fail)


def test_something_else_on_the_port(fake):
    fake.readonly = True
    fake.faults = {"garbage"}
    with pytest.raises(HomelabError, match="got no answer"):
        proof.prove(fake.url, pytest.fail)


def test_an_answer_of_another_kind(fake, monkeypatch):
    request = proof.Registry.request
    monkeypatch.setattr(proof.Registry, "request", lambda self, method, _path: request(self, method, "/"))
    with pytest.raises(
        HomelabError, match="answered 404 404 page not found to this node.*is this the registry"
    ):
        proof.prove(fake.url, pytest.fail)


@pytest.mark.parametrize(
    ("broken", "step"), [("/homelab-canary", "pull by name"), (MIRRORED, "pull through the mirror")]
)
def test_the_pull_that_fails_is_named(fake, broken, step):
    def pull(name):
        if name.endswith(broken) == (broken == MIRRORED or not name.startswith("docker.io")):
            raise HomelabError("no basic auth", remedy="log in")

    with pytest.raises(HomelabError) as caught:
        proof.prove(fake.url, pull)
    assert str(caught.value) == f"{step} failed: no basic auth: log in"


# --- Docker ------------------------------------------------------------------------------------------------


def test_docker_pulls_and_leaves_nothing(engine):
    engine.registry = {"reg:5000/homelab-canary:1": canary.digest(), f"{MIRRORED}:1": canary.digest()}
    pull = proof.docker_puller(Engine(engine.address))
    pull("reg:5000/homelab-canary")
    pull(MIRRORED)
    assert engine.images == set()
    assert sum(request.startswith("DELETE") for request in engine.requests) == 2


def test_docker_leaves_an_image_that_was_there(engine):
    engine.registry = {f"{MIRRORED}:1": canary.digest()}
    engine.images = {"homelab-canary:1"}
    proof.docker_puller(Engine(engine.address))(MIRRORED)
    assert engine.images == {"homelab-canary:1"}


def test_docker_got_another_image(engine):
    engine.registry = {f"{MIRRORED}:1": "sha256:" + "0" * 64}
    with pytest.raises(
        HomelabError, match="homelab-canary:1 has digest sha256:0000.*, expected sha256:"
    ) as caught:
        proof.docker_puller(Engine(engine.address))(MIRRORED)
    assert "another registry answered" in caught.value.remedy
    assert engine.images == set()


def test_docker_cannot_pull(engine):
    with pytest.raises(HomelabError, match="manifest unknown"):
        proof.docker_puller(Engine(engine.address))(MIRRORED)
    assert engine.images == set()


# --- k3s ---------------------------------------------------------------------------------------------------


def test_docker_with_the_containerd_store_gets_the_way_past_its_trap(engine):
    """Facts of 29.7: certs.d is not used while the host acts as a mirror."""
    told = engine.info()
    engine.info = lambda: {**told, "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    with pytest.raises(HomelabError, match="docker_client_system_trust"):
        proof.docker_puller(Engine(engine.address))(MIRRORED.replace("homelab-canary", "not-there"))


def test_docker_sends_the_account_to_the_registry_and_never_to_a_mirror(engine, monkeypatch):
    sent = []

    def pull(_self, name, _tag, account):
        sent.append((name, account))
        return canary.digest()

    monkeypatch.setattr(Engine, "pull", pull)
    engine.images = {"reg:5000/homelab-canary:1", "homelab-canary:1"}
    pull = proof.docker_puller(Engine(engine.address), ("nodes", "canary"))
    pull("reg:5000/homelab-canary")
    pull(MIRRORED)
    assert sent == [("reg:5000/homelab-canary", ("nodes", "canary")), (MIRRORED, None)]


def k3s(home, body):
    path = home / "k3s"
    path.write_text(f'#!/bin/sh\necho "$@" >>{home}/calls\n{body}\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_k3s_pulls_and_removes(tmp_path):
    proof.k3s_puller(k3s(tmp_path, ""))(MIRRORED)
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"crictl pull {MIRRORED}:1", f"crictl rmi {MIRRORED}:1",
    ]


@pytest.mark.parametrize("stream", ["1", "2"])
def test_k3s_cannot_pull(tmp_path, stream):
    with pytest.raises(HomelabError, match=f"k3s crictl pull {MIRRORED}:1: level=fatal not found") as caught:
        proof.k3s_puller(k3s(tmp_path, f"echo 'level=fatal not found' >&{stream}; exit 1"))(MIRRORED)
    assert "registries.yaml" in caught.value.remedy
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_a_long_complaint_is_told_by_its_end(tmp_path):
    with pytest.raises(HomelabError) as caught:
        proof.k3s_puller(k3s(tmp_path, "printf '%0900d the reason' 0; exit 1"))(MIRRORED)
    assert "the reason" in caught.value.message
    assert len(caught.value.message) < 500


def test_whether_k3s_answers(tmp_path):
    assert proof.k3s_answers(k3s(tmp_path, ""))
    assert not proof.k3s_answers(k3s(tmp_path, "exit 1"))
    assert not proof.k3s_answers(str(tmp_path / "none"))


def test_no_k3s(tmp_path):
    with pytest.raises(HomelabError, match="k3s crictl pull .*No such file"):
        proof.k3s_puller(str(tmp_path / "none"))(MIRRORED)
