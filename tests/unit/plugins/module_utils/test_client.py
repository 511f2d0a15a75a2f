# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry client against a registry on loopback, well-behaved and otherwise."""

from __future__ import annotations

import json
import os
import socket

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci import manifest as media
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import (
    Answer,
    Denied,
    NotFound,
    ReadOnly,
    Registry,
    Stat,
    digest_of,
)
from ansible_collections.homelab.registry.plugins.module_utils.oci.transport import Unreachable
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry
from ansible_collections.homelab.registry.tests.unit.fake_registry import certificate as make_certificate


@pytest.fixture
def fake():
    with FakeRegistry() as fake:
        yield fake


def image(registry, repository="team/app", tag="1", media_type=media.OCI_MANIFEST):
    """Push a manifest with one blob; returns its bytes."""
    config = registry.put_blob(repository, b"{}")
    described = {"mediaType": media.OCI_CONFIG, "digest": config, "size": 2}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": media_type, "config": described, "layers": []}).encode()
    registry.put_manifest(repository, tag, manifest, media_type)
    return manifest


# --- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "reg:5000",
        "reg",
        "",
        "ftp://reg",
        "http://",
        "http://reg:port",
        "http://reg:5000/v2",
        "http://[::1",
        "http://reg:5000?x=1",
        "http://reg:99999",
    ],
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


@pytest.mark.parametrize("media_type", [media.OCI_INDEX, media.OCI_MANIFEST, media.DOCKER_LIST, media.DOCKER_MANIFEST])
def test_every_type_of_manifest_is_accepted(fake, media_type):
    registry = Registry(fake.url)
    child = {"digest": digest_of(b"{}"), "platform": {"architecture": "amd64", "os": "linux"}}
    manifest = json.dumps({"manifests": [child]}).encode()
    stored = {digest_of(b"{}"): (media.DOCKER_MANIFEST, b"{}"), digest_of(manifest): (media_type, manifest)}
    fake.repository("app")["manifests"].update(stored)
    assert registry.get_manifest("app", digest_of(manifest)) == manifest
    assert registry.head_manifest("app", digest_of(manifest)) == digest_of(manifest)


def test_without_the_right_accept_the_fake_refuses_as_the_server_does(fake):
    image(Registry(fake.url))
    for accept in ("*/*", media.DOCKER_MANIFEST):
        answer = Registry(fake.url).request("GET", "/v2/team/app/manifests/1", headers={"Accept": accept})
        assert answer.status == 404
        assert "OCI manifest found, but accept header does not support OCI manifests" in answer.explain()


def test_what_is_not_there(fake):
    registry = Registry(fake.url)
    assert registry.head_manifest("no/such", "1") is None
    assert not registry.has_blob("no/such", digest_of(b""))
    with pytest.raises(HomelabError, match=r"404 MANIFEST_UNKNOWN manifest unknown when reading manifest no/such:1"):
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
        Registry(fake.url).put_manifest("app", "1", manifest, media.OCI_MANIFEST)
    assert fake.tags("app") == {}


def test_deletion_by_digest_takes_all_tags(fake):
    registry = Registry(fake.url)
    manifest = image(registry)
    registry.put_manifest("team/app", "2", manifest, media.OCI_MANIFEST)
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
    with pytest.raises(HomelabError, match="500 UNKNOWN .* No space left on device when starting") as caught:
        Registry(fake.url).put_blob("app", b"data")
    assert "full disk" in caught.value.remedy


def test_an_upload_without_a_place_is_an_error(fake):
    fake.faults = {"no location"}
    with pytest.raises(HomelabError, match="Location"):
        Registry(fake.url).put_blob("app", b"data")


# --- manifests ---------------------------------------------------------------------------------------------


def test_what_a_tag_stands_for(fake):
    registry = Registry(fake.url)
    manifest = image(registry)
    fake.requests.clear()
    stat = Stat(digest_of(manifest), media.OCI_MANIFEST, len(manifest))
    assert registry.stat_manifest("team/app", "1") == stat
    assert registry.stat_manifest("team/app", digest_of(manifest)) == stat
    assert registry.stat_manifest("team/app", "2") is None
    assert registry.stat_manifest("no/such", "1") is None
    assert fake.count("HEAD") == len(fake.requests)
    fake.faults = {"no digest"}
    assert registry.stat_manifest("team/app", "1") == stat
    assert fake.count("GET") == 1


@pytest.mark.parametrize(
    ("fault", "reference", "said"),
    [
        ("wrong bytes", "1", "which is sha256:"),
        ("wrong bytes", "digest", "which is sha256:"),
        ("wrong digest", "1", "which is sha256:"),
        ("wrong digest", "digest", None),  # the one that was asked for is what counts
    ],
)
def test_manifests_are_verified(fake, fault, reference, said):
    registry = Registry(fake.url)
    manifest = image(registry)
    reference = digest_of(manifest) if reference == "digest" else reference
    found = registry.read_manifest("team/app", reference)
    assert (found.data, found.media_type) == (manifest, media.OCI_MANIFEST)
    fake.faults = {fault}
    if said is None:
        assert registry.read_manifest("team/app", reference).data == manifest
        return
    with pytest.raises(HomelabError, match=said) as caught:
        registry.read_manifest("team/app", reference)
    if fault == "wrong bytes":
        assert digest_of(manifest) in str(caught.value)
        assert digest_of(manifest[:-1] + b"?") in str(caught.value)


@pytest.mark.parametrize("told", ["sha256:12", "latest", "md5:" + 32 * "0"])
def test_a_digest_that_is_none(fake, told):
    registry = Registry(fake.url)
    image(registry)
    fake.faults, fake.headers = {"no digest"}, {"Docker-Content-Digest": told}
    for ask in (registry.stat_manifest, registry.read_manifest):
        with pytest.raises(HomelabError, match=told):
            ask("team/app", "1")


def test_a_head_of_one_digest_that_tells_another(fake):
    registry = Registry(fake.url)
    manifest = image(registry)
    fake.faults = {"wrong digest"}
    with pytest.raises(HomelabError, match="is another one"):
        registry.stat_manifest("team/app", digest_of(manifest))


def test_a_manifest_that_is_stored_as_another(fake):
    fake.faults = {"wrong digest"}
    with pytest.raises(HomelabError, match=f"as {digest_of(b'another')}, not as"):
        image(Registry(fake.url))


def test_referrers(fake):
    registry = Registry(fake.url)
    subject = digest_of(image(registry))
    assert registry.referrers("team/app", subject) is None
    fake.referrers = True
    assert registry.referrers("team/app", subject) == []
    described = {"mediaType": media.OCI_CONFIG, "digest": digest_of(b"{}"), "size": 2}
    about = {"mediaType": media.OCI_MANIFEST, "digest": subject, "size": 7}
    signature = json.dumps({"schemaVersion": 2, "config": described, "layers": [], "subject": about}).encode()
    answer = registry.put_manifest("team/app", digest_of(signature), signature, media.OCI_MANIFEST)
    assert answer.headers["oci-subject"] == subject
    (found,) = registry.referrers("team/app", subject)
    assert (found.digest, found.size) == (digest_of(signature), len(signature))


@pytest.mark.parametrize(("status", "kind"), [(200, "text/html"), (400, ""), (405, "")])
def test_ways_to_have_no_referrers_api(fake, status, kind):
    fake.say(status, b"<html>", Content_Type=kind)
    assert Registry(fake.url).referrers("app", digest_of(b"")) is None


# --- lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [None, 1, 2, 3, 6, 7])
def test_all_tags_are_found(fake, page):
    registry = Registry(fake.url)
    assert registry.tags("team/app") is None
    fake.repository("team/app")
    assert registry.tags("team/app") == []
    names = [f"v{number}" for number in range(6)]
    for name in names:
        image(registry, tag=name)
    fake.page = page
    assert registry.tags("team/app") == names
    assert "/v2/team/app/tags/list?n=1000" in fake.requests[-1] or page


@pytest.mark.parametrize("page", [None, 1, 2])
def test_the_catalog(fake, page):
    fake.page = page
    assert list(Registry(fake.url).catalog()) == []
    for name in ("a", "b/c", "d"):
        fake.repository(name)
    assert list(Registry(fake.url).catalog()) == ["a", "b/c", "d"]


LINKS = {
    "relative": '</v2/app/tags/list?next=1>; rel="next"',
    "absolute": "<{url}/v2/app/tags/list?next=1>; rel=next",
    "another scheme, as behind a proxy": '<https://127.0.0.1/v2/app/tags/list?next=1>; rel="next"',
    "only the query": '<?next=1>; rel="next"',
    "one of several": '</x>; rel="prev", </v2/app/tags/list?next=1>; title="a"; rel="next"',
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_links(fake, link):
    fake.say(200, b'{"tags": ["a"]}', Link=link.format(url=fake.url))
    fake.say(200, b'{"tags": ["b"]}')
    assert Registry(fake.url).tags("app") == ["a", "b"]
    assert fake.requests[-1] == "GET /v2/app/tags/list?next=1"


@pytest.mark.parametrize("place", ["/v2/app/tags/list?n=1000", "http://elsewhere/v2/app/tags/list", "http://[::1"])
def test_links_that_lead_astray(fake, place):
    fake.say(200, b'{"tags": ["a"]}', times=9, Link=f'<{place}>; rel="next"')
    with pytest.raises(HomelabError):
        Registry(fake.url).tags("app")
    assert len(fake.requests) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"tags": 1}', b'{"tags": [1]}', b'{"tags": {"a": "b"}, "x": 1'])
def test_a_list_that_is_none(fake, body):
    fake.say(200, body)
    with pytest.raises(HomelabError, match="no list of tags"):
        Registry(fake.url).tags("app")


# --- blobs of any size -------------------------------------------------------------------------------------

DATA = os.urandom(200_000)
DIGEST = digest_of(DATA)


def body(response):
    buffer, found = memoryview(bytearray(50_000)), b""
    while count := response.readinto(buffer):
        found += buffer[:count]
    return found


@pytest.fixture
def source(fake):
    fake.repository("app")["blobs"][DIGEST] = DATA
    return fake


@pytest.mark.parametrize("offset", [0, 1, 100_000, 199_999])
@pytest.mark.parametrize("faults", [set(), {"no range"}, {"chunked"}, {"chunked", "no range"}])
def test_a_blob_from_some_byte_on(source, offset, faults):
    source.faults = faults
    with Registry(source.url).open_blob("app", DIGEST, offset) as response:
        assert response.length == (None if "chunked" in faults else len(DATA) - offset)
        assert body(response) == DATA[offset:]


def test_a_partial_answer_with_other_bytes(source):
    source.faults = {"wrong range"}
    with pytest.raises(HomelabError, match="'bytes 99-.*what follows byte 100"):
        Registry(source.url).open_blob("app", DIGEST, 100).__enter__()


@pytest.mark.parametrize("faults", [set(), {"no range"}])
def test_a_blob_that_is_shorter(source, faults):
    source.faults = faults
    with pytest.raises(HomelabError, match="416|ended before byte"):
        Registry(source.url).open_blob("app", DIGEST, len(DATA) + 1).__enter__()


def test_a_blob_that_breaks_off_goes_on_where_it_stopped(source):
    registry = Registry(source.url)
    source.break_blobs = [150_000]
    buffer, found = memoryview(bytearray(50_000)), b""
    with pytest.raises(Unreachable), registry.open_blob("app", DIGEST) as response:
        while count := response.readinto(buffer):
            found += buffer[:count]
    assert found == DATA[:150_000]
    with registry.open_blob("app", DIGEST, len(found)) as response:
        assert found + body(response) == DATA


def test_a_blob_that_is_not_there(fake):
    with pytest.raises(NotFound, match="404 BLOB_UNKNOWN blob unknown to registry when reading blob sha256:"):
        Registry(fake.url).open_blob("app", DIGEST).__enter__()
    assert Registry(fake.url).stat_blob("app", DIGEST) is None


def test_the_object_store_is_named(source):
    with FakeRegistry() as store:
        source.store = store
        registry = Registry(source.url)
        assert registry.get_blob("app", DIGEST) == DATA
        store.say(403, b"<Error>expired</Error>")
        with pytest.raises(Denied, match=f"^{store.url} answered 403 <Error>expired.* when reading blob"):
            registry.open_blob("app", DIGEST).__enter__()


def send(registry, location, digest=DIGEST, data=DATA):
    with registry.send_blob(location, digest, len(data)) as upload:
        upload.write(data)
        return upload.finish()


def test_uploads(fake):
    registry = Registry(fake.url)
    assert send(registry, registry.start_upload("app")).status == 201
    assert registry.stat_blob("app", DIGEST) == len(DATA)
    assert send(registry, registry.start_upload("app"), digest_of(b"")).status == 400
    location = registry.start_upload("app")
    registry.cancel_upload(location)
    assert send(registry, location).status == 404
    registry.cancel_upload(location)


def test_a_mount_costs_nothing(source):
    registry = Registry(source.url)
    assert registry.mount_blob("team/other", DIGEST, "app") is None
    assert registry.stat_blob("team/other", DIGEST) == len(DATA)
    assert registry.transport.sent == 0


@pytest.mark.parametrize("origin", ["app", "no/such"])
def test_a_mount_that_is_none_is_an_upload(source, origin):
    source.faults = {"no mount"}
    registry = Registry(source.url)
    location = registry.mount_blob("team/other", DIGEST, origin)
    assert send(registry, location).status == 201
    assert registry.stat_blob("team/other", DIGEST) == len(DATA)


LOCATIONS = {
    "absolute": "{url}/v2/app/blobs/uploads/{id}?_state=a%3D",
    "relative": "/v2/app/blobs/uploads/{id}?_state=a%3D",
    "relative to where it was asked": "{id}?_state=a%3D",
    "the address before the proxy": "https://127.0.0.1/v2/app/blobs/uploads/{id}?_state=a%3D",
    "without a query": "/v2/app/blobs/uploads/{id}",
}


@pytest.mark.parametrize("location", LOCATIONS.values(), ids=LOCATIONS)
def test_ways_to_say_where_an_upload_goes(fake, location):
    fake.uploads["some-id"] = b""
    fake.say(202, Location=location.format(url=fake.url, id="some-id"))
    registry = Registry(fake.url)
    assert send(registry, registry.start_upload("app")).status == 201
    query = "_state=a%3D&" if "_state" in location else ""
    assert fake.requests[-1] == f"PUT /v2/app/blobs/uploads/some-id?{query}digest={DIGEST.replace(':', '%3A')}"


def test_an_upload_may_go_to_another_server_without_our_account():
    with FakeRegistry(plain=True) as other, FakeRegistry(accounts={"me": "S3cret"}) as fake:
        registry = Registry(fake.url, username="me", password="S3cret")
        registry.request("GET", "/v2/")
        fake.say(202, Location=f"{other.url}/upload?id=1")
        assert send(registry, registry.start_upload("app")).status == 200
        assert other.seen[0][1].startswith("/upload?id=1&digest=sha256")
        assert "Authorization" not in other.seen[0][2]


def test_a_small_upload_is_not_repeated(fake):
    fake.break_uploads = [0, 0]  # the first could have been an idle connection that was closed
    with pytest.raises(Unreachable):
        Registry(fake.url, direct=False).put_blob("app", b"data")
    assert fake.count("PUT") == 2


@pytest.mark.parametrize("method", ["start_upload", "mount_blob"])
def test_a_registry_that_takes_no_uploads(method):
    with FakeRegistry(readonly=True) as fake, pytest.raises(ReadOnly):
        getattr(Registry(fake.url), method)("app", *([DIGEST, "other"] if method == "mount_blob" else []))


# --- scopes ------------------------------------------------------------------------------------------------


def test_each_call_asks_for_what_it_needs():
    with FakeRegistry(tokens=300, accounts={"me": "S3cret"}) as fake:
        registry = Registry(fake.url, username="me", password="S3cret")
        fake.repository("app")["blobs"][DIGEST] = DATA
        manifest = image(registry)
        assert registry.read_manifest("team/app", "1").data == manifest
        assert registry.tags("team/app") == ["1"]
        assert registry.mount_blob("team/app", DIGEST, "app") is None
        assert send(registry, registry.start_upload("team/app")).status == 201
        registry.cancel_upload(registry.start_upload("team/app"))
        assert list(registry.catalog()) == ["app", "team/app"]
        assert registry.delete_manifest("team/app", digest_of(manifest)).status == 202
        # 401 once, and then never, since every call names what it needs.
        assert sum("Authorization" not in headers for _method, _path, headers, _identified in fake.seen) == 1
        issued = {" ".join(scopes) for scopes in fake.issued.values()}
    assert issued == {
        "repository:team/app:pull",
        "repository:team/app:pull,push",
        "repository:app:pull repository:team/app:pull,push",
        "registry:catalog:*",
        "repository:team/app:delete,pull",
    }


def test_a_stranger_may_not_write():
    with FakeRegistry(tokens=300, accounts={"me": "S3cret"}) as fake:
        registry = Registry(fake.url)
        fake.repository("app")["blobs"][DIGEST] = DATA
        assert registry.stat_blob("app", DIGEST) == len(DATA)
        with pytest.raises(Denied, match="unknown or private"):
            registry.start_upload("app")


REFUSALS = [
    (401, Denied, "unknown or private"),
    (403, Denied, "account"),
    (404, NotFound, "check the name"),
    (405, ReadOnly, "read-only"),
    (413, HomelabError, "client_max_body_size"),
    (500, HomelabError, "full disk"),
    (503, HomelabError, "try again later"),
    (507, HomelabError, "disk is full"),
    (418, HomelabError, "418 teapot"),
]


@pytest.mark.parametrize(("status", "kind", "said"), REFUSALS)
def test_refusals_can_be_told_apart(fake, status, kind, said):
    fake.say(status, b"teapot", times=2)
    with pytest.raises(HomelabError, match=f"{fake.url} answered {status} teapot when reading") as caught:
        Registry(fake.url).get_blob("app", DIGEST)
    assert caught.type is kind
    assert said in str(caught.value)


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


def test_no_proxy_of_the_environment_is_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    for options, proxy in (({}, None), ({"direct": False}, "127.0.0.1:9"), ({"direct": False, "proxies": {}}, None)):
        with pytest.raises(Unreachable) as caught:
            Registry("http://no-such-host.invalid", **options).transport.request("GET", "/v2/", retry=False)
        assert caught.value.where == (f"through the proxy {proxy}" if proxy else None)


def test_only_who_asks_for_it_gets_another_try(fake):
    fake.say(502)
    assert Registry(fake.url).request("GET", "/v2/").status == 502
    fake.say(502)
    assert Registry(fake.url, direct=False).request("GET", "/v2/").status == 200


# --- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Certificate and key for 127.0.0.1, signed by itself."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


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
