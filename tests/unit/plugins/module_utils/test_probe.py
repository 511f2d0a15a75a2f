# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe: a registry that is not what was configured is found out, one that is passes."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci import canary
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry, digest_of
from ansible_collections.homelab.registry.plugins.module_utils.server import probe
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry

ACCOUNT = {"me": "S3cret"}


def probed(fake, **promised):
    account = {"username": "me", "password": "S3cret"} if fake.accounts else {}
    return probe.probe(Registry(fake.url, **account), Registry(fake.url), **promised)


KEPT = {
    # the server, what was promised, the checks that are made
    "plain": ({}, {}, ["access without credentials", "API version", "write, read, delete"]),
    "with accounts": (
        {"accounts": ACCOUNT},
        {"auth": True},
        ["access without credentials", "API version", "write, read, delete"],
    ),
    "deletion off": (
        {"delete": False},
        {"delete": False},
        ["access without credentials", "API version", "write, read, delete"],
    ),
    "read-only": (
        {"readonly": True},
        {"readonly": True},
        ["access without credentials", "API version", "read-only"],
    ),
    "only looking": ({}, {"write": False}, ["access without credentials", "API version"]),
}


@pytest.mark.parametrize(("server", "promised", "checks"), KEPT.values(), ids=KEPT)
def test_a_kept_promise(server, promised, checks):
    with FakeRegistry(**server) as fake:
        report = probed(fake, **promised)
    assert report.failures() == ""
    assert report.ok
    assert [(check.name, check.detail) for check in report.checks] == [(name, "ok") for name in checks]
    assert report.latency_ms > 0
    assert report.canary_missing == canary.REPOSITORIES


BROKEN = {
    # the server, what was promised -> what is said
    "authentication is off": (
        {}, {"auth": True},
        "access without credentials: GET /v2/ answered 200, expected 401: authentication is off",
    ),
    "authentication is on": (
        {"accounts": ACCOUNT}, {}, "access without credentials: GET /v2/ answered 401, expected 200",
    ),
    "deletion is off": ({"delete": False}, {}, "write, read, delete: DELETE answered 405 UNSUPPORTED"),
    "deletion is on": ({}, {"delete": False}, "write, read, delete: DELETE answered 202, expected 405"),
    "read-only": ({"readonly": True}, {}, "write, read, delete: http://"),
    "not read-only": ({}, {"readonly": True}, "read-only: an upload was answered 202, expected 405"),
    "not a registry": ({"plain": True}, {}, "API version: GET /v2/ answered 200 hi: is this a registry?"),
    "other bytes": ({"faults": ["wrong bytes"]}, {}, "what was written is not what is read back"),
    "still there": ({"faults": ["keeps deleted"]}, {}, "a deleted manifest is still there"),
    "full disk": ({"faults": ["500"]}, {}, "500 UNKNOWN"),
    "no Location": ({"faults": ["no location"]}, {}, "Location"),
}


@pytest.mark.parametrize(("server", "promised", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise(server, promised, said):
    with FakeRegistry(**server) as fake:
        report = probed(fake, **promised)
    assert not report.ok
    assert said in report.failures()
    assert len([check for check in report.checks if not check.ok]) == 1


def test_a_wrong_account_is_told_without_its_password():
    with FakeRegistry(accounts={"me": "other"}) as fake:
        report = probed(fake, auth=True)
    assert "API version: GET /v2/ answered 401 UNAUTHORIZED" in report.failures()
    assert "S3cret" not in str(report.as_dict())


def test_nothing_is_left_behind_and_nothing_piles_up():
    with FakeRegistry() as fake:
        for _turn in range(3):
            assert probed(fake).ok
        repository = fake.repository(canary.NAME)
        assert repository["tags"] == {}
        assert repository["manifests"] == {}
        assert list(repository["blobs"]) == [digest_of(b"{}")]


def test_where_nothing_can_be_deleted_nothing_piles_up_either():
    with FakeRegistry(delete=False) as fake:
        for _turn in range(3):
            assert probed(fake, delete=False).ok
        assert len(fake.repository(canary.NAME)["manifests"]) == 1


@pytest.mark.parametrize("promised", [{"write": False}, {"readonly": True}])
def test_nothing_is_stored_when_it_must_not_be(promised):
    with FakeRegistry(readonly="readonly" in promised) as fake:
        probed(fake, **promised)
        assert not [request for request in fake.requests if request.startswith(("PUT", "DELETE", "PATCH"))]
        assert fake.repositories == {}


def test_a_canary_that_is_there_is_seen():
    with FakeRegistry() as fake:
        canary.push(Registry(fake.url), canary.NAME)
        assert probed(fake).canary_missing == (f"library/{canary.NAME}",)


def test_a_report_is_plain_data():
    with FakeRegistry() as fake:
        data = probed(fake).as_dict()
    assert json.loads(json.dumps(data))["checks"][0] == {
        "name": "access without credentials", "ok": True, "detail": "ok",
    }
    assert data["url"] == fake.url


def test_wait_is_done_with_the_first_answer_whatever_it_is():
    with FakeRegistry(accounts=ACCOUNT) as fake:
        probe.wait(Registry(fake.url), 5)
        assert fake.requests == ["GET /v2/"]


def test_wait_gives_up_with_the_last_reason():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(HomelabError, match="refused"):
            probe.wait(Registry(f"http://127.0.0.1:{taken.getsockname()[1]}"), 0)


def test_wait_outlasts_a_server_that_is_slow_to_start():
    with FakeRegistry(faults=["close"]) as fake:
        threading.Timer(0.1, fake.faults.clear).start()
        probe.wait(Registry(fake.url), 30)
        assert len(fake.requests) > 1


def test_a_registry_that_still_answers_over_plain_http_is_found():
    """The server ignores a misplaced http.tls without a word."""
    with FakeRegistry() as fake:
        report = probe.probe(Registry(fake.url), Registry(fake.url), write=False, plain=Registry(fake.url))
    assert "TLS is off" in report.failures()


def test_nobody_at_the_plain_address_is_as_it_should_be():
    with FakeRegistry() as fake:
        gone = Registry("http://127.0.0.1:1")
        report = probe.probe(Registry(fake.url), Registry(fake.url), write=False, plain=gone)
    assert report.failures() == ""
