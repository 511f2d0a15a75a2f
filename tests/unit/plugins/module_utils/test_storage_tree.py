# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory tree: what is read from it, and what becomes a finding."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import DOCKER_MANIFEST, OCI_INDEX, digest_of
from ansible_collections.homelab.registry.plugins.module_utils.storage.tree import (
    BAD_LINK,
    BAD_MANIFEST,
    MISPLACED,
    STRAY,
    SYMLINK,
    UNREADABLE,
    Tree,
    parse_time,
    read_inventory,
)
from ansible_collections.homelab.registry.plugins.module_utils.storage.verify import verify
from ansible_collections.homelab.registry.tests.unit.storage_tree import PUSHED, Disk


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path)


def kinds(tree):
    """What is found once everything is read."""
    read_inventory(tree, created=True)
    tree.blobs()
    for name in tree.repositories():
        tree.layers(name)
        tree.uploads(name)
    return sorted({finding.kind for finding in tree.findings})


def seen(tree):
    """Everything the tree shows, without what is damaged."""
    found = {("blob", digest) for digest in tree.blobs()}
    for name in tree.repositories():
        found |= {("upload", upload.uuid) for upload in tree.uploads(name)}
        for part in (tree.tags(name), tree.revisions(name), tree.layers(name)):
            found |= {(name, key, link.digest) for key, link in part.items() if link.digest}
    return found


# --- the inventory ------------------------------------------------------------------------------------------
def test_an_image_with_its_times_and_sizes(disk):
    layer = disk.blob("team/app", "layer")
    made = disk.image("team/app", "v1", at=PUSHED + 0.5)
    disk.tag("team/app", "latest", made["digest"], PUSHED + 60)
    repository = read_inventory(disk.tree(), created=True).repositories["team/app"]
    assert {tag.name: (tag.digest, tag.pushed) for tag in repository.tags.values()} == {
        "v1": (made["digest"], PUSHED + 0.5),
        "latest": (made["digest"], PUSHED + 60),
    }
    held = repository.manifests[made["digest"]]
    assert (held.size, held.pushed, held.subject, held.children) == (made["size"], PUSHED + 0.5, None, ())
    assert held.created == pytest.approx(1683356949.123456)
    config, last = held.blobs
    assert last == (layer["digest"], 5)
    assert disk.tree().blobs()[config[0]] == config[1]


def test_created_is_read_only_when_wanted(disk):
    made = disk.image("app", "v1")
    disk.image("app", "v2", docker=True)
    without = read_inventory(disk.tree()).repositories["app"].manifests
    assert {held.created for held in without.values()} == {None}
    assert without[made["digest"]].blobs
    manifests = read_inventory(disk.tree(), created=True).repositories["app"].manifests.values()
    assert {held.media_type: held.created is not None for held in manifests}[DOCKER_MANIFEST]


@pytest.mark.parametrize("created", [None, 12, "yesterday", "2023-99-01T00:00:00Z", ""])
def test_a_configuration_without_a_date(disk, created):
    made = disk.image("app", "v1", created=created)
    assert read_inventory(disk.tree(), created=True).repositories["app"].manifests[made["digest"]].created is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10),
        ("1970-01-01T00:00:10.25Z", 10.25),
        ("1970-01-01T02:00:10+02:00", 10),
        ("1969-12-31T22:30:10-01:30", 10),
        ("0001-01-01T00:00:00Z", -62135596800),
        ("1970-01-01 00:00:10", None),
        ("1970-13-01T00:00:10Z", None),
    ],
)
def test_times_as_go_writes_them(text, seconds):
    assert parse_time(text) == seconds


def test_untagged_nested_and_referring_manifests(disk):
    inner, _other = disk.multi("app", None)
    outer = disk.index("app", "v1", [inner], docker=True)
    subject = disk.image("app", "v2")
    sbom = disk.image("app", None, layers=["sbom"], subject=subject)
    repository = read_inventory(disk.tree()).repositories["app"]
    assert set(repository.tags) == {"v1", "v2"}
    assert repository.manifests[outer["digest"]].children == (inner["digest"],)
    assert repository.manifests[inner["digest"]].media_type == OCI_INDEX
    assert repository.manifests[sbom["digest"]].subject == subject["digest"]
    assert len(repository.manifests) == 6


def test_repositories_in_repositories(disk):
    for name in ("a", "a/b/c", "quay.io/prometheus/prometheus"):
        disk.image(name, "v1")
    disk.blob("only/blobs", "x")
    disk.upload("only/uploads", "1", PUSHED)
    assert disk.tree().repositories() == ["a", "a/b/c", "only/blobs", "only/uploads", "quay.io/prometheus/prometheus"]


def test_a_deleted_manifest_is_gone_and_an_overwritten_one_is_not(disk):
    first, second = (disk.image("app", "latest", [layer]) for layer in ("1", "2"))
    gone = disk.image("app", "old", ["3"])
    disk.delete_manifest("app", gone["digest"])
    repository = read_inventory(disk.tree()).repositories["app"]
    assert set(repository.manifests) == {first["digest"], second["digest"]}
    assert {name: tag.digest for name, tag in repository.tags.items()} == {"latest": second["digest"]}
    assert kinds(disk.tree()) == []


def test_sha512(disk):
    document = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    digest = digest_of(document, "sha512")
    disk.write(disk.blob_path(digest), document)
    disk.write(disk.revision("app", digest), digest)
    disk.tag("app", "v1", digest)
    assert read_inventory(disk.tree()).repositories["app"].manifests[digest].media_type == OCI_INDEX
    assert kinds(disk.tree()) == []


def test_a_manifest_without_content_is_held_without_type(disk):
    made = disk.image("app", "v1")
    disk.delete_blob(made["digest"])
    held = read_inventory(disk.tree()).repositories["app"].manifests[made["digest"]]
    assert (held.media_type, held.pushed) == ("", PUSHED)


@pytest.mark.parametrize(
    ("started", "touched", "expected"), [(PUSHED, PUSHED - 5, PUSHED), (PUSHED, PUSHED + 50, PUSHED + 50)]
)
def test_uploads_by_their_last_sign_of_life(disk, started, touched, expected):
    disk.upload("app", "some-uuid", started, touched=touched)
    (upload,) = disk.tree().uploads("app")
    assert upload == ("app", "some-uuid", expected, 4)


def test_an_upload_without_startedat_has_its_directory_s_time(disk):
    path = disk.upload("app", "some-uuid", PUSHED)
    (path / "startedat").write_text("garbage")
    os.utime(path, (PUSHED + 7, PUSHED + 7))
    (path / "data").unlink()
    os.utime(path, (PUSHED + 7, PUSHED + 7))
    assert disk.tree().uploads("app") == [("app", "some-uuid", PUSHED + 7, 0)]


# --- the root -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("names", [(), ("lost+found",), ("docker/registry/v2",), ("docker/registry/v2/repositories",)])
def test_an_empty_registry(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    tree = Tree(tmp_path)
    assert (read_inventory(tree).repositories, tree.blobs(), tree.findings) == ({}, {}, [])


@pytest.mark.parametrize(
    ("below", "said"),
    [
        ("docker", "no registry"),
        ("docker/registry/v2", "no registry"),
        ("nowhere", "No such file"),
        ("file", "Not a dir"),
    ],
)
def test_another_directory_is_refused(disk, below, said):
    disk.image("app", "v1")
    (disk.root / "file").write_text("")
    with pytest.raises(HomelabError, match=said) as caught:
        Tree(disk.root / below)
    assert "rootdirectory" in caught.value.remedy


def test_a_root_that_is_a_link_is_followed_and_one_below_is_not(disk, tmp_path):
    disk.image("app", "v1")
    (tmp_path / "link").symlink_to(disk.root)
    assert Tree(tmp_path / "link").repositories() == ["app"]
    other = tmp_path / "other"
    (other / "docker").mkdir(parents=True)
    (other / "docker" / "registry").symlink_to(disk.root / "docker" / "registry")
    with pytest.raises(HomelabError, match="symbolic link"):
        Tree(other)


# --- damage -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", [b"", b"\0" * 71, b"sha256:12", b"\xff\xfe", b"md5:" + b"0" * 64, b" " * 300])
@pytest.mark.parametrize("link", ["current", "revision", "layer"])
def test_a_damaged_link(disk, content, link):
    made = disk.image("app", "v1")
    disk.image("app", "v2", ["other"])
    layer = disk.blob("app", "layer")["digest"]
    path = {
        "current": disk.current("app", "v1"),
        "revision": disk.revision("app", made["digest"]),
        "layer": disk.layer("app", layer),
    }[link]
    path.write_bytes(content)
    tree = disk.tree()
    assert kinds(tree) == [BAD_LINK]
    repository = read_inventory(tree).repositories["app"]
    assert ("v1" in repository.tags) == (link != "current")
    assert repository.lost_tags == (["v1"] if link == "current" else [])
    assert (made["digest"] in repository.manifests) == (link != "revision")
    assert str(path.relative_to(disk.root)) in str(tree.findings[0])


def test_a_link_that_holds_another_digest_is_no_link(disk):
    one, two = (disk.image("app", tag, [tag]) for tag in ("v1", "v2"))
    disk.revision("app", one["digest"]).write_text(two["digest"])
    tree = disk.tree()
    assert kinds(tree) == [BAD_LINK]
    assert set(read_inventory(tree).repositories["app"].manifests) == {two["digest"]}


def test_a_tag_without_current(disk):
    disk.image("app", "v1")
    shutil.rmtree(disk.current("app", "v1").parent)
    tree = disk.tree()
    assert kinds(tree) == [BAD_LINK]
    assert tree.tags("app")["v1"].digest is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"schemaVersion": 2}', b"\xff", b'{"schemaVersion": 1}', b"[" * 100000, b" " * (5 << 20)],
)
def test_a_manifest_that_cannot_be_read(disk, content):
    made = disk.image("app", "v1")
    disk.blob_path(made["digest"]).write_bytes(content)
    tree = disk.tree()
    assert kinds(tree) == [BAD_MANIFEST]
    assert read_inventory(tree).repositories["app"].manifests[made["digest"]].media_type == ""


def test_a_manifest_with_another_one_s_content(disk):
    one, two = (disk.image("app", tag, [tag]) for tag in ("v1", "v2"))
    shutil.copy(disk.blob_path(two["digest"]), disk.blob_path(one["digest"]))
    tree = disk.tree()
    assert kinds(tree) == [BAD_MANIFEST]
    assert two["digest"] in tree.findings[0].message
    assert not tree.content(one["digest"]).intact


def test_a_manifest_that_we_refuse_keeps_what_the_server_sees_in_it(disk):
    layer = disk.blob("app", "layer")
    document = {"schemaVersion": 2, "config": {**layer, "size": -1}, "layers": [layer, None], "manifests": None}
    old = {"schemaVersion": 1, "fsLayers": [{"blobSum": layer["digest"]}]}
    for made in (disk.manifest("app", document), disk.manifest("app", old)):
        content = disk.tree().content(made["digest"])
        assert (content.references, content.intact, bool(content.fault)) == ((layer["digest"],), True, True)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("blobs/sha256/ab/short/data", MISPLACED),
        ("blobs/sha256/ab/" + "c" * 64 + "/data", MISPLACED),
        ("blobs/sha256/ab/short/other", STRAY),
        ("repositories/Upper/_layers/x", STRAY),
        ("repositories/_manifests/x", STRAY),
        ("repositories/app/_manifests/revisions/sha256/12/link", STRAY),
    ],
)
def test_what_does_not_belong_there(disk, path, kind):
    disk.image("app", "v1")
    disk.write(disk.base / path, "x")
    tree = disk.tree()
    assert kinds(tree) == [kind]
    assert tree.complete


@pytest.mark.parametrize(
    "path",
    [
        "blobs",
        "repositories",
        "repositories/app",
        "repositories/app/_manifests",
        "repositories/app/_manifests/tags",
        "repositories/app/_manifests/tags/v1",
        "repositories/app/_manifests/tags/v1/current",
        "repositories/app/_manifests/tags/v1/current/link",
        "repositories/app/_manifests/revisions",
        "repositories/app/_layers/sha256",
        "repositories/app/_uploads/1",
        "LAYER",
        "LAYER/data",
        "MANIFEST",
        "MANIFEST/data",
    ],
)
def test_symbolic_links_are_not_followed(disk, tmp_path_factory, path):
    made = disk.image("app", "v1")
    disk.upload("app", "1", PUSHED)
    folders = {"LAYER": disk.blob("app", "layer")["digest"], "MANIFEST": made["digest"]}
    before = seen(disk.tree())
    head, _other, rest = path.partition("/")
    place = disk.blob_path(folders[head]).parent / rest if head in folders else disk.base / path
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "it"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    tree = disk.tree()
    assert SYMLINK in kinds(tree)
    assert not tree.complete
    assert len(seen(tree)) < len(before)


def test_a_loop_of_links(disk):
    disk.image("app", "v1")
    (disk.repository("app") / "again").symlink_to(disk.repository("app"))
    assert kinds(disk.tree()) == [SYMLINK]


@pytest.fixture
def for_others():
    """A registry in a directory that others may enter, read as somebody without rights."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    yield Disk(root)
    if os.geteuid() != os.getuid():
        os.seteuid(os.getuid())
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(root)


@pytest.mark.parametrize(
    "path",
    [
        "blobs/sha256",
        "repositories",
        "repositories/app/_manifests",
        "repositories/app/_manifests/tags/v1/current",
        "repositories/app/_manifests/revisions/sha256",
        "repositories/app/_layers",
        "repositories/app/_uploads",
    ],
)
def test_a_directory_that_cannot_be_read(for_others, path):
    for_others.image("app", "v1")
    for_others.upload("app", "1", PUSHED)
    (for_others.base / path).chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    tree = for_others.tree()
    assert UNREADABLE in kinds(tree)
    assert not tree.complete
    assert not verify(tree).whole


def test_a_root_that_cannot_be_read(for_others):
    for_others.image("app", "v1")
    for_others.base.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    with pytest.raises(HomelabError, match="cannot be read"):
        for_others.tree()


@pytest.mark.parametrize("fifo", [True, False])
def test_what_is_not_a_file_is_not_waited_for(disk, fifo):
    made = disk.image("app", "v1")
    path = disk.current("app", "v1")
    path.unlink()
    if fifo:
        os.mkfifo(path)
    else:
        path.mkdir()
    assert kinds(disk.tree()) == ([BAD_LINK] if fifo else [UNREADABLE])
    assert made["digest"] in read_inventory(disk.tree()).repositories["app"].manifests


# --- as the server walks it ---------------------------------------------------------------------------------
def test_the_server_s_order(disk):
    for name in ("a", "a/0", "a/z", "b-c", "b"):
        disk.image(name, "v1")
    (disk.repository("b") / "_manifests").rename(disk.repository("b") / "elsewhere")
    shutil.rmtree(disk.repository("a/z") / "_layers")
    assert disk.tree().walked(2) == ["a/0", "a", "b", "b-c"]
    assert disk.tree().walked(3) == ["a/0", "a", "a/z", "b-c"]
