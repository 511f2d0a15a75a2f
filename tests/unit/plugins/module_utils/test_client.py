# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry client against a registry on loopback, well-behaved and otherwise."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci import client
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Answer, Registry, digest_of
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry


@pytest.fixture
def fake():
    with FakeRegistry() as fake:
        yield fake


def image(registry, repository="team/app", tag="1", media_type=client.OCI_MANIFEST):
    """Push a manifest with one blob; returns its bytes."""
    config = registry.put_blob(repository, b"{}")
    described = {"mediaType": client.OCI_CONFIG, "digest": config, "size": 2}
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": media_type, "config": described, "layers": []}
    ).encode()
    registry.put_manifest(repository, tag, manifest, media_type)
    return manifest


# --- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["reg:5000", "reg", "", "ftp://reg", "http://", "http://reg:port", "http://reg:5000/v2", "http://[::1",
            "http://reg:5000?x=1", "http://reg:99999"]
)
def test_what_is_no_address(url):
    with pytest.raises(HomelabError, match="is not a registry's address") as caught:
        Registry(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("url", ["http://me:S3cret@reg:5000", "https://me:S3cret@reg"])
def test_credentials_in_the_address_are_refused_and_not_shown(url):
    with pytest.raises(HomelabError) as caught:
        Registry(url)
    assert "username" in str(caught.value)
    assert "S3cret" not in str(caught.value)


def test_a_slash_at_the_end_is_no_matter(fake):
    registry = Registry(fake.url + "/")
    assert registry.url == fake.url
    assert registry.request("GET", "/v2/").status == 200


# --- what a registry does ----------------------------------------------------------------------------------


def test_what_is_written_is_read_back(fake):
    registry = Registry(fake.url)
    manifest = image(registry)
    assert registry.get_manifest("team/app", "1") == manifest
    assert registry.get_manifest("team/app", digest_of(manifest)) == manifest
    assert registry.head_manifest("team/app", "1") == digest_of(manifest)
    assert registry.get_blob("team/app", digest_of(b"{}")) == b"{}"
    assert fake.tags("team/app") == {"1": digest_of(manifest)}


@pytest.mark.parametrize(
    "media_type", [client.OCI_INDEX, client.OCI_MANIFEST, client.DOCKER_LIST, client.DOCKER_MANIFEST]
)
def test_every_type_of_manifest_is_accepted(fake, media_type):
    registry = Registry(fake.url)
    child = {"digest": digest_of(b"{}"), "platform": {"architecture": "amd64", "os": "linux"}}
    manifest = json.dumps({"manifests": [child]}).encode()
    stored = {digest_of(b"{}"): (client.DOCKER_MANIFEST, b"{}"), digest_of(manifest): (media_type, manifest)}
    fake.repository("app")["manifests"].update(stored)
    assert registry.get_manifest("app", digest_of(manifest)) == manifest
    assert registry.head_manifest("app", digest_of(manifest)) == digest_of(manifest)


def test_without_the_right_accept_the_fake_refuses_as_the_server_does(fake):
    image(Registry(fake.url))
    for accept in ("*/*", client.DOCKER_MANIFEST):
        answer = Registry(fake.url).request("GET", "/v2/team/app/manifests/1", headers={"Accept": accept})
        assert answer.status == 404
        assert "OCI manifest found, but accept header does not support OCI manifests" in answer.explain()


def test_what_is_not_there(fake):
    registry = Registry(fake.url)
    assert registry.head_manifest("no/such", "1") is None
    assert not registry.has_blob("no/such", digest_of(b""))
    with pytest.raises(
        HomelabError, match=r"404 MANIFEST_UNKNOWN manifest unknown when reading manifest no/such:1"
    ):
        registry.get_manifest("no/such", "1")
    with pytest.raises(HomelabError, match="404 BLOB_UNKNOWN"):
        registry.get_blob("no/such", digest_of(b""))


def test_a_blob_is_sent_once(fake):
    registry = Registry(fake.url)
    assert registry.put_blob("app", b"data") == digest_of(b"data")
    sent = len(fake.requests)
    assert registry.put_blob("app", b"data") == digest_of(b"data")
    assert fake.requests[sent:] == [f"HEAD /v2/app/blobs/{digest_of(b'data')}"]


def test_an_empty_blob(fake):
    registry = Registry(fake.url)
    registry.put_blob("app", b"")
    assert registry.has_blob("app", digest_of(b""))


def test_a_manifest_without_its_blobs_is_refused(fake):
    manifest = json.dumps({"config": {"digest": digest_of(b"x")}, "layers": []}).encode()
    with pytest.raises(HomelabError, match="400 MANIFEST_BLOB_UNKNOWN .* when writing manifest app:1"):
        Registry(fake.url).put_manifest("app", "1", manifest, client.OCI_MANIFEST)
    assert fake.tags("app") == {}


def test_deletion_by_digest_takes_all_tags(fake):
    registry = Registry(fake.url)
    manifest = image(registry)
    registry.put_manifest("team/app", "2", manifest, client.OCI_MANIFEST)
    assert registry.delete_manifest("team/app", "1").status == 400
    assert registry.delete_manifest("team/app", digest_of(manifest)).status == 202
    assert registry.head_manifest("team/app", "2") is None
    assert registry.delete_manifest("team/app", digest_of(manifest)).status == 404


def test_deletion_that_is_off():
    with FakeRegistry(delete=False) as fake:
        registry = Registry(fake.url)
        manifest = image(registry)
        assert registry.delete_manifest("team/app", digest_of(manifest)).status == 405
        assert registry.head_manifest("team/app", "1") == digest_of(manifest)


def test_a_read_only_registry_is_named_so():
    with FakeRegistry(readonly=True) as fake, pytest.raises(HomelabError) as caught:
        Registry(fake.url).put_blob("app", b"data")
    assert "405 Method not allowed when starting an upload to app" in str(caught.value)
    assert "read-only" in caught.value.remedy


def test_a_full_disk_is_told(fake):
    fake.faults = {"500"}
    with pytest.raises(
        HomelabError, match="500 UNKNOWN unknown error .*28.* when starting an upload"
    ) as caught:
        Registry(fake.url).put_blob("app", b"data")
    assert "full disk" in caught.value.remedy


def test_an_upload_without_a_place_is_an_error(fake):
    fake.faults = {"no location"}
    with pytest.raises(HomelabError, match="Location"):
        Registry(fake.url).put_blob("app", b"data")


# --- accounts ----------------------------------------------------------------------------------------------


def test_accounts():
    with FakeRegistry(accounts={"me": "pä:ss"}) as fake:
        assert Registry(fake.url, username="me", password="pä:ss").request("GET", "/v2/").status == 200
        assert Registry(fake.url, username="me", password="wrong").request("GET", "/v2/").status == 401
        assert Registry(fake.url, username="me").request("GET", "/v2/").status == 401
        answer = Registry(fake.url).request("GET", "/v2/")
        assert answer.explain() == "401 UNAUTHORIZED authentication required"
        assert answer.headers["www-authenticate"] == 'Basic realm="test"'
        with pytest.raises(HomelabError, match="401 UNAUTHORIZED.*give an account"):
            Registry(fake.url).put_blob("app", b"data")


def test_a_password_is_in_no_message():
    with FakeRegistry(accounts={"me": "other"}) as fake:
        registry = Registry(fake.url, username="me", password="S3cret")
        with pytest.raises(HomelabError) as caught:
            registry.put_blob("app", b"data")
    with pytest.raises(HomelabError) as gone:
        registry.put_blob("app", b"data")
    assert "S3cret" not in f"{caught.value} {gone.value}"


# --- connections -------------------------------------------------------------------------------------------


def test_one_connection_serves_many_requests(fake):
    registry = Registry(fake.url)
    for _turn in range(5):
        registry.request("GET", "/v2/")
    assert fake.connections == 1
    registry.close()
    registry.request("GET", "/v2/")
    assert fake.connections == 2


def test_a_dropped_idle_connection_is_opened_again(fake):
    registry = Registry(fake.url)
    fake.faults = {"drop"}
    manifest = image(registry)
    assert registry.get_manifest("team/app", "1") == manifest
    assert fake.connections > 1


def test_a_server_that_never_answers_is_asked_twice_at_most(fake):
    registry = Registry(fake.url)
    registry.request("GET", "/v2/")
    fake.faults = {"close"}
    with pytest.raises(HomelabError, match=f"GET {fake.url}/v2/ got no answer"):
        registry.request("GET", "/v2/")
    assert len(fake.requests) == 3
    with pytest.raises(HomelabError):
        registry.request("GET", "/v2/")
    assert len(fake.requests) == 4  # a fresh connection is not worth a second try


def test_what_is_not_http(fake):
    fake.faults = {"garbage"}
    with pytest.raises(HomelabError, match="got no answer") as caught:
        Registry(fake.url).request("GET", "/v2/")
    assert "registry_scheme" in caught.value.remedy


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        with pytest.raises(HomelabError, match="refused") as caught:
            Registry(f"http://127.0.0.1:{taken.getsockname()[1]}").request("GET", "/v2/")
    assert "nothing listens there" in caught.value.remedy


def test_a_server_that_says_nothing_is_not_waited_for_twice():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        registry = Registry(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        with pytest.raises(HomelabError, match="timed out") as caught:
            registry.request("GET", "/v2/")
    assert "firewall" in caught.value.remedy


def test_no_proxy_of_the_environment_is_used(fake, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert Registry(fake.url).request("GET", "/v2/").status == 200


# --- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Certificate and key for 127.0.0.1, signed by itself."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    home = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=home,
        check=True,
        capture_output=True,
    )
    return str(home / "cert.pem"), str(home / "key.pem")


def test_tls_with_its_ca(certificate):
    with FakeRegistry(tls=certificate) as fake:
        registry = Registry(fake.url, ca_path=certificate[0])
        manifest = image(registry)
        assert registry.get_manifest("team/app", "1") == manifest
        assert Registry(fake.url, validate_certs=False).request("GET", "/v2/").status == 200


def test_tls_that_is_not_trusted(certificate):
    with (
        FakeRegistry(tls=certificate) as fake,
        pytest.raises(HomelabError, match="CERTIFICATE_VERIFY_FAILED") as caught,
    ):
        Registry(fake.url).request("GET", "/v2/")
    assert "not trusted here" in caught.value.remedy


def test_tls_for_another_name(certificate):
    with FakeRegistry(tls=certificate) as fake, pytest.raises(HomelabError, match="localhost"):
        Registry(fake.url.replace("127.0.0.1", "localhost"), ca_path=certificate[0]).request("GET", "/v2/")


def test_https_to_a_plain_server(fake):
    with pytest.raises(HomelabError) as caught:
        Registry(fake.url.replace("http:", "https:"), timeout=2).request("GET", "/v2/")
    assert "plain HTTP" in caught.value.remedy


def test_http_to_a_tls_server(certificate):
    with FakeRegistry(tls=certificate) as fake, pytest.raises(HomelabError) as caught:
        Registry(fake.url.replace("https:", "http:"), timeout=2).request("GET", "/v2/")
    assert "got no answer" in str(caught.value)


@pytest.mark.parametrize("content", [None, "no PEM"])
def test_a_ca_file_that_is_none(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content, encoding="ascii")
    with pytest.raises(HomelabError, match="CA file .* cannot be used") as caught:
        Registry("https://reg:5000", ca_path=str(path))
    assert str(path) in str(caught.value)


# --- explaining --------------------------------------------------------------------------------------------

BODIES = {
    "the registry's words": (
        b'{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}',
        "400 DENIED no {'a': 1}",
    ),
    "without detail": (b'{"errors":[{"code":"DENIED","message":"no","detail":null}]}', "400 DENIED no"),
    "no errors": (b'{"errors":[]}', '400 {"errors":[]}'),
    "null": (b'{"errors":null}', '400 {"errors":null}'),
    "a list": (b"[1]", "400 [1]"),
    "errors that are texts": (b'{"errors":["no"]}', '400 {"errors":["no"]}'),
    "text": (b"Method not allowed\n", "400 Method not allowed"),
    "nothing": (b"", "400"),
    "not UTF-8": (b"\xff", "400 \ufffd"),
    "long": (b"x" * 1000, "400 " + "x" * 200),
}


@pytest.mark.parametrize(("body", "said"), BODIES.values(), ids=BODIES)
def test_explain(body, said):
    assert Answer(400, {}, body).explain() == said
