# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Challenges, bearer tokens from a registry on loopback, and the Docker client's config file."""

from __future__ import annotations

import base64
import json
import threading
import time

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.auth import (
    Authorizer,
    Challenge,
    Credentials,
    Denied,
    DockerConfig,
    parse_challenges,
)
from ansible_collections.homelab.registry.plugins.module_utils.oci.transport import Transport
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry

ME = Credentials("me", "S3cret")
PULL = ("repository:team/app:pull",)
PATH = "/v2/team/app/tags/list"

# --- challenges --------------------------------------------------------------------------------------------

CHALLENGES = {
    "nothing": ("", []),
    "blanks and commas": (" , ,", []),
    "basic": ('Basic realm="Registry Realm"', [("basic", {"realm": "Registry Realm"})]),
    "a scheme alone": ("Negotiate", [("negotiate", {})]),
    "Docker Hub": (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/node:pull"',
        [
            (
                "bearer",
                {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:library/node:pull",
                },
            )
        ],
    ),
    "a comma in quotes": ('Bearer scope="repository:a:pull,push"', [("bearer", {"scope": "repository:a:pull,push"})]),
    "odd case": ('bEaReR ReAlM="X",SERVICE="y"', [("bearer", {"realm": "X", "service": "y"})]),
    "blanks about the equals sign": ('Bearer realm = "x" , service= "y"', [("bearer", {"realm": "x", "service": "y"})]),
    "escapes": (r'Basic realm="a \"quoted\" \\ name"', [("basic", {"realm": r'a "quoted" \ name'})]),
    "no quotes": (
        "Bearer realm=https://auth.example/token,service=reg",
        [("bearer", {"realm": "https://auth.example/token", "service": "reg"})],
    ),
    "several": (
        'Basic realm="a, b", Bearer realm="c",service="d", Negotiate',
        [("basic", {"realm": "a, b"}), ("bearer", {"realm": "c", "service": "d"}), ("negotiate", {})],
    ),
    "a scheme without parameters first": ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
    "a quote that is never closed": ('Bearer service="a",realm="https://x', [("bearer", {"service": "a"})]),
    "nonsense": ('"', []),
    "empty value": ('Bearer realm=""', [("bearer", {"realm": ""})]),
}


@pytest.mark.parametrize(("header", "found"), CHALLENGES.values(), ids=CHALLENGES)
def test_challenges(header, found):
    assert parse_challenges(header) == [Challenge(*one) for one in found]


def test_secrets_are_not_shown():
    shown = repr(Credentials("me", "S3cret", "T0ken"))
    assert "me" in shown
    assert "S3cret" not in shown
    assert "T0ken" not in shown


def test_basic_is_utf8():
    assert base64.b64decode(Credentials("me", "pä:ss").basic().removeprefix("Basic ")).decode() == "me:pä:ss"


# --- tokens ------------------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def transport(fake, clock=None, **more):
    fake.repository("team/app")
    return Transport(fake.url, proxies={}, clock=clock or Clock(), **more)


def tokens(fake):
    return [path for _method, path, _headers, _identified in fake.seen if path.startswith("/token")]


def test_an_anonymous_token_is_fetched_once():
    with FakeRegistry(tokens=300) as fake:
        registry = transport(fake)
        for _turn in range(3):
            assert registry.request("GET", PATH, scopes=PULL).status == 200
        assert tokens(fake) == ["/token?service=fake,%20registry&scope=repository:team/app:pull"]
        assert fake.count("GET", "/v2/") == 4  # one was refused, and told where tokens are


def test_a_caller_that_names_no_scope_gets_that_of_the_challenge():
    with FakeRegistry(tokens=300) as fake:
        assert transport(fake).request("GET", PATH).status == 200
        assert len(tokens(fake)) == 1


def test_each_set_of_scopes_has_its_token():
    both = (*PULL, "repository:other:pull,push")
    with FakeRegistry(tokens=300) as fake:
        registry = transport(fake)
        assert registry.request("GET", PATH, scopes=PULL).status == 200
        for scopes in (both, both[::-1]):
            assert registry.request("POST", "/v2/other/blobs/uploads/", scopes=scopes).status == 202
        assert len(tokens(fake)) == 2
        assert tokens(fake)[1].endswith("&scope=repository:other:pull,push&scope=repository:team/app:pull")


@pytest.mark.parametrize(
    ("life", "passed", "fetched"), [(300, 260, 1), (300, 271, 2), (8, 7, 2), (0, 44, 1), (0, 46, 2)]
)
def test_a_token_is_renewed_before_it_ends(life, passed, fetched):
    clock = Clock()
    with FakeRegistry(tokens=life) as fake:
        registry = transport(fake, clock)
        registry.request("GET", PATH, scopes=PULL)
        clock.now += passed
        assert registry.request("GET", PATH, scopes=PULL).status == 200
        assert len(tokens(fake)) == fetched
        assert fake.count("GET", "/v2/") == 3


def test_a_token_that_is_not_taken_any_more_is_renewed():
    with FakeRegistry(tokens=300) as fake:
        registry = transport(fake)
        registry.request("GET", PATH, scopes=PULL)
        fake.expire()
        assert registry.request("GET", PATH, scopes=PULL).status == 200
        assert len(tokens(fake)) == 2


def test_a_registry_that_never_is_content_is_not_asked_for_ever():
    with FakeRegistry(tokens=300, private=["team/app"]) as fake:
        answer = transport(fake).request("GET", PATH, scopes=PULL)
        assert answer.status == 401
        assert len(tokens(fake)) <= 2
        assert fake.count("GET", "/v2/") <= 3


def test_a_challenge_may_name_more_than_was_thought():
    with FakeRegistry(tokens=300) as fake:
        registry = transport(fake)
        registry.request("GET", PATH, scopes=PULL)
        answer = registry.request("POST", "/v2/team/app/blobs/uploads/", scopes=PULL)
        assert answer.status == 202


def test_many_threads_fetch_one_token():
    with FakeRegistry(tokens=300) as fake:
        registry = transport(fake)
        registry.request("GET", "/v2/")
        fake.requests.clear()
        fake.seen.clear()
        statuses = []
        threads = [
            threading.Thread(target=lambda: statuses.append(registry.request("GET", PATH, scopes=PULL).status))
            for _number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 8
        assert len(tokens(fake)) == 1


def test_an_account_gets_what_strangers_do_not():
    with FakeRegistry(tokens=300, accounts={"me": "S3cret"}, private=["team/app"]) as fake:
        assert transport(fake).request("GET", PATH, scopes=PULL).status == 401
        assert transport(fake, credentials=ME).request("GET", PATH, scopes=PULL).status == 200
        sent = [(path, headers.get("Authorization", "")) for _method, path, headers, _identified in fake.seen]
        assert all(header.startswith("Basic") == path.startswith("/token") for path, header in sent if header)


def test_with_an_account_the_registry_is_asked_first_how_to_use_it():
    with FakeRegistry(accounts={"me": "S3cret"}) as fake:
        registry = transport(fake, credentials=ME)
        for _turn in range(2):
            assert registry.request("HEAD", PATH).status == 200
        assert fake.requests == ["GET /v2/", f"HEAD {PATH}", f"HEAD {PATH}"]
        assert [("Authorization" in headers) for _method, _path, headers, _identified in fake.seen] == [
            False,
            True,
            True,
        ]


def test_a_password_is_not_sent_to_those_who_do_not_ask():
    with FakeRegistry() as fake:
        assert transport(fake, credentials=ME).request("GET", PATH).status == 200
        assert not any("Authorization" in headers for _method, _path, headers, _identified in fake.seen)


def test_a_challenge_that_got_lost_is_taken_for_basic():
    with FakeRegistry(accounts={"me": "S3cret"}) as fake:
        fake.say(401)
        assert transport(fake, credentials=ME).request("GET", PATH).status == 200


def test_bearer_is_preferred_to_basic():
    with FakeRegistry(tokens=300) as fake:
        challenge = f'Basic realm="x", Bearer realm="{fake.url}/token"'
        fake.say(401, WWW_Authenticate=challenge)
        assert transport(fake).request("GET", PATH, scopes=PULL).status == 200
        assert tokens(fake) == ["/token?scope=repository:team/app:pull"]


def test_an_identity_token_is_exchanged():
    with FakeRegistry(tokens=300, accounts={"<token>": "T0ken"}, private=["team/app"]) as fake:
        registry = transport(fake, credentials=Credentials(None, None, "T0ken"))
        assert registry.request("GET", PATH, scopes=PULL).status == 200
        assert fake.count("POST", "/token") == 1


REFUSED = {
    "a wrong password": (Credentials("me", "Wr0ng"), "401 .*incorrect username or password.*check user name"),
    "a wrong identity token": (Credentials(None, None, "Wr0ng"), "for the identity token .*401"),
}


@pytest.mark.parametrize(("credentials", "said"), REFUSED.values(), ids=REFUSED)
def test_a_token_server_that_refuses(credentials, said):
    with (
        FakeRegistry(tokens=300, accounts={"me": "S3cret", "<token>": "T0ken"}) as fake,
        pytest.raises(Denied, match=said) as caught,
    ):
        transport(fake, credentials=credentials).request("GET", PATH, scopes=PULL)
    assert "Wr0ng" not in str(caught.value)


def test_a_token_server_that_quotes_the_password():
    with FakeRegistry(tokens=300, accounts={"me": "S3cret"}) as fake:
        fake.say(403, b"bad password S3cret", path="/token")
        with pytest.raises(Denied, match="403 bad password [*]+") as caught:
            transport(fake, credentials=ME).request("GET", PATH, scopes=PULL)
    assert "S3cret" not in str(caught.value)


def test_a_token_server_that_refuses_strangers():
    with FakeRegistry(tokens=300) as fake:
        fake.say(403, b"denied", path="/token")
        with pytest.raises(Denied, match="gave no token without an account .*unknown or private"):
            transport(fake).request("GET", PATH, scopes=PULL)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nX: y"}', b'{"token": ""}']
)
def test_a_token_that_is_none(body):
    with FakeRegistry(tokens=300) as fake:
        fake.say(200, body, path="/token")
        with pytest.raises(HomelabError, match="gave no token"):
            transport(fake).request("GET", PATH, scopes=PULL)


def test_a_token_server_that_is_overloaded_is_asked_again():
    with FakeRegistry(tokens=300) as fake:
        fake.say(503, path="/token")
        assert transport(fake, random=lambda: 0).request("GET", PATH, scopes=PULL).status == 200


def test_a_failing_token_server_is_no_refusal():
    with FakeRegistry(tokens=300) as fake:
        fake.say(500, b"oops", path="/token", times=2)
        with pytest.raises(HomelabError, match="500 oops") as caught:
            transport(fake, random=lambda: 0).request("GET", PATH, scopes=PULL)
    assert not isinstance(caught.value, Denied)


def test_a_password_is_not_sent_in_the_clear_for_an_https_registry():
    authorizer = Authorizer("https://reg", ME, None, Clock())
    with pytest.raises(HomelabError, match="without TLS"):
        authorizer.learn('Bearer realm="http://auth.example/token?x=1"')
    Authorizer("https://reg", None, None, Clock()).learn('Bearer realm="http://auth.example/token"')


# --- the Docker client's config ----------------------------------------------------------------------------


def encoded(text):
    return base64.b64encode(text.encode()).decode()


LOOKUPS = {
    "auth": ({"auths": {"reg:5000": {"auth": encoded("me:pä:ss")}}}, "reg:5000", Credentials("me", "pä:ss")),
    "padded as Docker does": ({"auths": {"reg": {"auth": encoded("me:x\0\0")}}}, "reg", Credentials("me", "x")),
    "apart": ({"auths": {"reg": {"username": "me", "password": "x"}}}, "reg", Credentials("me", "x")),
    "another host": ({"auths": {"reg": {"auth": encoded("me:x")}}}, "reg:5000", None),
    "with scheme and version": (
        {"auths": {"https://reg/v2/": {"auth": encoded("me:x")}}},
        "reg",
        Credentials("me", "x"),
    ),
    "a part of a registry": ({"auths": {"quay.io/org": {"auth": encoded("me:x")}}}, "quay.io", None),
    "the Hub": (
        {"auths": {"https://index.docker.io/v1/": {"auth": encoded("me:x")}}},
        "docker.io",
        Credentials("me", "x"),
    ),
    "the Hub by its API's name": (
        {"auths": {"https://index.docker.io/v1/": {"auth": encoded("me:x")}}},
        "registry-1.docker.io",
        Credentials("me", "x"),
    ),
    "an identity token": (
        {"auths": {"reg": {"auth": encoded("00:"), "identitytoken": "T"}}},
        "reg",
        Credentials("00", None, "T"),
    ),
    "an empty entry": ({"auths": {"reg": {}}}, "reg", None),
    "no auths": ({}, "reg", None),
    "null": ({"auths": None, "credHelpers": None}, "reg", None),
}


@pytest.mark.parametrize(("data", "host", "found"), LOOKUPS.values(), ids=LOOKUPS)
def test_lookup(data, host, found):
    assert DockerConfig(data).lookup(host) == found


@pytest.mark.parametrize(
    "entry", [{"auth": "%%%"}, {"auth": encoded("S3cret")}, {"auth": 7}, ["S3cret"], {"auth": "/w=="}]
)
def test_a_broken_entry(entry):
    with pytest.raises(HomelabError, match=r"entry of reg is broken \(config.json\): run docker login reg") as caught:
        DockerConfig({"auths": {"reg": entry}}, where="config.json").lookup("reg")
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("data", [{"auths": ["a"]}, {"credHelpers": "x"}, {"credsStore": {"a": 1}}, ["a"], "a"])
def test_what_is_no_config(data):
    with pytest.raises(HomelabError, match="is not what it should be"):
        DockerConfig(data, where="config.json")


def test_files(tmp_path):
    path = tmp_path / "config.json"
    assert DockerConfig.load(path).lookup("reg") is None
    path.write_text(json.dumps({"auths": {"reg": {"auth": encoded("me:x")}}}), encoding="utf-8")
    assert DockerConfig.load(path).lookup("reg") == Credentials("me", "x")
    path.write_text('{"auths": {"reg": {"auth": "S3cret"', encoding="utf-8")
    with pytest.raises(HomelabError, match="is not JSON") as caught:
        DockerConfig.load(path)
    assert str(path) in str(caught.value)
    assert "S3cret" not in str(caught.value)
    with pytest.raises(HomelabError, match="cannot be read: Is a directory"):
        DockerConfig.load(tmp_path)


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Install a credential helper `test` with some lines of shell."""

    def install(script):
        path = tmp_path / "docker-credential-test"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return install


def test_a_helper_is_asked_as_docker_asks(helper, tmp_path):
    helper(f'printf "%s " "$1" > {tmp_path}/asked; cat >> {tmp_path}/asked; echo \'{{"Username":"me","Secret":"x"}}\'')
    config = DockerConfig({"credHelpers": {"reg:5000": "test"}, "auths": {"reg:5000": {}, "other": {}}})
    assert config.lookup("reg:5000") == Credentials("me", "x")
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "get reg:5000"
    assert config.lookup("other") is None
    assert DockerConfig({"credsStore": "test"}).lookup("docker.io") == Credentials("me", "x")
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "get https://index.docker.io/v1/"


def test_an_identity_token_of_a_helper(helper):
    helper('echo \'{"Username":"<token>","Secret":"T"}\'')
    assert DockerConfig({"credsStore": "test"}).lookup("reg") == Credentials(None, None, "T")


def test_what_the_helper_does_not_have_the_file_may_have(helper):
    helper("echo credentials not found in native keychain; exit 1")
    config = DockerConfig({"credsStore": "test", "auths": {"reg": {"auth": encoded("me:x")}}})
    assert config.lookup("reg") == Credentials("me", "x")
    assert config.lookup("other") is None


HELPERS = {
    "fails": ("echo S3cret; echo S3cret >&2; exit 7", "failed for reg with exit code 7"),
    "talks": ("echo S3cret", "gave no account for reg"),
    "misses a field": ('echo \'{"Username":"S3cret"}\'', "gave no account for reg"),
    "hangs": ("(sleep 0.15; touch $0.late) & wait", "did not answer for reg within 0.1 s"),
}


@pytest.mark.parametrize(("script", "said"), HELPERS.values(), ids=HELPERS)
def test_a_helper_that_does_not_help(helper, tmp_path, script, said):
    helper(script)
    config = DockerConfig(
        {"credHelpers": {"reg": "test"}}, where="config.json", helper_timeout=0.1 if "sleep" in script else 9
    )
    with pytest.raises(HomelabError, match=said) as caught:
        config.lookup("reg")
    assert "S3cret" not in str(caught.value)
    if "sleep" in script:
        time.sleep(0.2)
        assert not (tmp_path / "docker-credential-test.late").exists()  # what it started is gone too


def test_a_helper_that_is_no_program(helper, tmp_path):
    helper("")
    (tmp_path / "docker-credential-test").write_bytes(b"\x7fELF")
    with pytest.raises(HomelabError, match="cannot be run: Exec format error"):
        DockerConfig({"credsStore": "test"}).lookup("reg")


@pytest.mark.parametrize("name", ["missing", "../../bin/sh", "a b"])
def test_a_helper_that_is_not_there(name):
    with pytest.raises(HomelabError, match="is not installed"):
        DockerConfig({"credsStore": name}).lookup("reg")
