# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our client against real servers, of which each major version has its own ideas."""

from __future__ import annotations

import threading

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.auth import Denied
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import NotFound, ReadOnly, Registry
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import digest_of
from ansible_collections.homelab.registry.plugins.module_utils.oci.transport import Unreachable
from ansible_collections.homelab.registry.tests.integration.real_images import Content, parts
from ansible_collections.homelab.registry.tests.unit import images

BASE = images.data("base", 5000)
NOTHING = digest_of(b"is not there")


@pytest.fixture(scope="module")
def registry(module_registries):
    """Every test has repositories of its own in it."""
    return module_registries.start()


@pytest.fixture
def client(registry):
    client = registry.client()
    yield client
    client.close()


def pushed(client, make):
    """What `make(content)` puts together, in the registry; (content, what make returned)."""
    content = Content()
    made = make(content)
    content.push(client)
    return content, made


# --- manifests ---------------------------------------------------------------------------------------------

KINDS = {
    "oci": {},
    "docker": {"docker": True},
    "index": {"multi": True},
    "docker list": {"multi": True, "docker": True},
    "oci without mediaType": {"typed": False},
    "index without mediaType": {"multi": True, "typed": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_comes_back_byte_for_byte(client, kind):
    options = dict(KINDS[kind])
    make = images.multi if options.pop("multi", False) else images.single
    repository = "manifests/" + kind.replace(" ", "-").lower()
    content, made = pushed(client, lambda held: make(held, repository, "1", layers=[BASE], **options))
    digest = made if isinstance(made, str) else made["digest"]
    media_type, data = content.repositories[repository]["manifests"][digest]
    for reference in ("1", digest):
        stat = client.stat_manifest(repository, reference)
        assert (stat.digest, stat.media_type, stat.size) == (digest, media_type, len(data))
        manifest = client.read_manifest(repository, reference)
        assert (manifest.data, manifest.media_type, manifest.digest) == (data, media_type, digest)
    assert parts(client, repository, "1") == images.parts(content, repository, digest)


def test_an_index_in_an_index(client):
    def make(held):
        inner = images.multi(held, "nested", None, [BASE])
        media_type, data = held.repositories["nested"]["manifests"][inner]
        child = {"mediaType": media_type, "digest": inner, "size": len(data)}
        return images.index(held, "nested", "1", [child, images.single(held, "nested", layers=[b"own"])])

    content, digest = pushed(client, make)
    assert parts(client, "nested", "1") == images.parts(content, "nested", digest)


def test_what_is_not_there(client):
    pushed(client, lambda held: images.single(held, "missing", "1"))
    assert client.stat_manifest("missing", "2") is None
    assert client.stat_manifest("never/heard/of", "1") is None
    assert client.stat_blob("missing", NOTHING) is None
    assert not client.has_blob("never/heard/of", NOTHING)
    assert client.tags("never/heard/of") is None
    assert not client.knows("never/heard/of")
    assert client.knows("missing")
    for ask in (client.read_manifest, client.get_blob):
        with pytest.raises(NotFound, match="404"):
            ask("missing", NOTHING)


def test_manifests_that_the_server_refuses_are_named_with_its_reason(client):
    held = Content()
    index = images.multi(held, "refused", "1", [BASE])
    media_type, data = held.repositories["refused"]["manifests"][index]
    client.put_blob("refused", BASE)
    with pytest.raises(HomelabError, match="400 MANIFEST.*when writing manifest refused:1"):
        client.put_manifest("refused", "1", data, media_type)  # without its children
    with pytest.raises(HomelabError, match="400 MANIFEST_INVALID"):
        client.put_manifest("refused", "1", b"{", media_type)
    with pytest.raises(HomelabError, match="400 MANIFEST_INVALID"):
        client.put_manifest("refused", "1", b"{}", "application/vnd.unknown+json")
    assert not client.tags("refused")


def test_no_referrers_api_is_told_from_no_referrers(client):
    _content, digest = pushed(client, lambda held: images.multi(held, "referrers", "1"))
    assert client.referrers("referrers", digest) is None  # neither 2.8 nor 3.1 has it


def test_a_manifest_is_deleted_by_digest_with_its_tags(client):
    def make(held):
        images.single(held, "deleted", "other", layers=[b"other"])
        digest = images.single(held, "deleted", "1", layers=[BASE])["digest"]
        held.repositories["deleted"]["tags"]["2"] = digest
        return digest

    _content, digest = pushed(client, make)
    assert client.delete_manifest("deleted", digest).status == 202
    assert client.tags("deleted") == ["other"]
    assert client.stat_manifest("deleted", digest) is None
    assert client.delete_manifest("deleted", digest).status == 404
    other = client.head_manifest("deleted", "other")
    client.delete_manifest("deleted", other)
    assert client.tags("deleted") in ([], None)


# --- lists -------------------------------------------------------------------------------------------------


def test_lists_longer_than_a_page(registries, monkeypatch):
    """2.8 pages its catalog only; 3.1 says null on the page after the last tag."""
    registry = registries.start(config={"catalog": {"maxentries": 1000}})
    client = registry.client()
    names, tags = [f"team{number % 2}/app{number}" for number in range(7)], [f"v{number}" for number in range(6)]
    content = Content()
    for name in names:
        images.single(content, name, "1", layers=[BASE])
    for tag in tags:
        images.single(content, "many", tag, layers=[tag.encode()])
    content.push(client)
    for folder in ("_layers", "_manifests/tags"):
        (registry.v2 / "repositories/empty" / folder).mkdir(parents=True)
    for page in (1, 2, 3, 6, 7, 1000):
        monkeypatch.setattr("ansible_collections.homelab.registry.plugins.module_utils.oci.client.PAGE", page)
        assert sorted(client.catalog()) == sorted([*names, "many", "empty"])
        assert sorted(client.tags("many")) == tags
        assert client.tags("empty") in ([], None)
    asked = [one.path for one in registry.requests() if one.path.startswith("/v2/_catalog")]
    assert len(asked) >= 9 + 5 + 3 + 2 + 2 + 1  # it did come in pages


# --- blobs -------------------------------------------------------------------------------------------------


def test_a_blob_from_its_middle(client):
    digest = client.put_blob("ranges", BASE)
    assert client.stat_blob("ranges", digest) == len(BASE)
    for offset in (0, 1, 4999, len(BASE) - 1):
        with client.open_blob("ranges", digest, offset) as response:
            buffer = memoryview(bytearray(len(BASE)))
            assert bytes(buffer[: response.readinto(buffer)]) == BASE[offset:]


def test_a_blob_is_mounted_from_where_it_is_and_else_begun(registry, client):
    digest = client.put_blob("mount/from", BASE)
    assert client.mount_blob("mount/to", digest, "mount/from") is None
    assert client.get_blob("mount/to", digest) == BASE
    assert client.mount_blob("mount/to", digest, "mount/to") is None  # "is it here" and "begin it" in one
    url = client.mount_blob("mount/to", NOTHING, "mount/from")
    assert url.repository == "mount/to"
    (begun,) = (registry.v2 / "repositories/mount/to/_uploads").iterdir()
    client.cancel_upload(url)
    assert not (begun / "data").exists()  # 2.8 keeps its notes until it purges uploads
    assert not (begun / "startedat").exists()


def test_an_upload_in_pieces(client):
    data = images.data("pieces", 300_000)
    with client.send_blob(client.start_upload("pieces"), digest_of(data), len(data)) as upload:
        for start in range(0, len(data), 70_000):
            assert upload.write(memoryview(data)[start : start + 70_000]) is None
        assert upload.finish().status == 201
    assert client.get_blob("pieces", digest_of(data)) == data


def test_the_server_refuses_wrong_digests(registry, client):
    assert client.refuses_wrong_digests("hashing")
    assert [one for one in (registry.v2 / "blobs").rglob("data") if one.stat().st_size == 32] == []
    assert not (registry.v2 / "repositories/hashing/_layers").exists()


def test_an_upload_that_is_given_up_stores_nothing(registry, client):
    data = images.data("given up", 100_000)
    with client.send_blob(client.start_upload("gone"), digest_of(data), len(data)) as upload:
        upload.write(data[:50_000])
    assert not client.has_blob("gone", digest_of(data))


def test_many_threads_share_a_client(registry, client):
    blobs = [images.data(f"thread {number}", 20_000) for number in range(24)]
    failed = []

    def work(number):
        try:
            for data in blobs[number::6]:
                digest = client.put_blob("threads", data)
                assert client.get_blob("threads", digest) == data
        except Exception as error:  # to be seen by the test, not by nobody
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# --- refusals ----------------------------------------------------------------------------------------------


def test_a_read_only_server_and_one_without_deletion(registries):
    registry = registries.start(delete=False)
    client = registry.client()
    _content, digest = pushed(client, lambda held: images.multi(held, "app", "1", [BASE]))
    assert client.delete_manifest("app", digest).status == 405
    registry.configure({"storage": {"maintenance": {"readonly": {"enabled": True}}}})
    with pytest.raises(ReadOnly, match="405") as caught:
        client.start_upload("app")
    assert "read-only" in caught.value.remedy
    assert client.head_manifest("app", "1") == digest


def test_accounts_and_certificates(registries):
    registry = registries.start(tls=True, users=("alice",))
    data = images.data("private")
    assert registry.client("alice").put_blob("app", data) == digest_of(data)
    for stranger in (registry.client(None), registry.client(None, username="alice", password="wrong")):
        with pytest.raises(Denied, match="401"):
            stranger.start_upload("app")
        with pytest.raises(Denied, match="401"):
            stranger.stat_manifest("app", "1")
    with pytest.raises(Unreachable, match="certificate verify failed") as caught:
        Registry(registry.url).stat_manifest("app", "1")
    assert "ca_path" in caught.value.remedy
    with pytest.raises(HomelabError, match="answered 400") as caught:
        Registry(registry.url.replace("https", "http")).stat_manifest("app", "1")
    assert "https://" in caught.value.remedy


def test_tls_where_there_is_none(registry):
    with pytest.raises(Unreachable) as caught:
        Registry(registry.url.replace("http", "https")).stat_manifest("app", "1")
    assert "plain HTTP" in caught.value.remedy


def test_a_full_disk_is_named(registries):
    client = registries.start(disk="1m").client()
    data = images.data("large", 3 << 20)
    with client.send_blob(client.start_upload("app"), digest_of(data), len(data)) as upload:
        for start in range(0, len(data), 1 << 20):
            if upload.write(data[start : start + (1 << 20)]):
                break
        with pytest.raises(HomelabError, match="(?i)no space left on device"):
            client.check(upload.finish(), (201,), "writing a blob")
