# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage: the plan, its refusals, the removals and the marker."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.storage.garbage import (
    TRASH,
    Marker,
    Window,
    clear_marker,
    lost_links,
    plan_garbage,
    read_marker,
    remove_damaged_blobs,
    remove_empty_repositories,
    remove_tag_links,
    remove_uploads,
    repair_links,
    write_marker,
)
from ansible_collections.homelab.registry.plugins.module_utils.storage.tree import Tree, Upload
from ansible_collections.homelab.registry.plugins.module_utils.storage.verify import verify
from ansible_collections.homelab.registry.tests.unit.storage_tree import PUSHED, Disk

HOUR = 3600


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path / "registry")


@pytest.fixture
def window(disk):
    with Window(disk.root, lambda: True) as window:
        yield window


def files(disk):
    return sorted(str(path.relative_to(disk.base)) for path in disk.base.rglob("*"))


# --- the plan -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("major", [2, 3])
def test_a_plan(disk, major):
    disk.multi("app", "v1")
    disk.blob("app", b"x" * 500)
    disk.delete_manifest("gone", disk.image("gone", "v1", [b"y" * 1000])["digest"])
    disk.upload("app", "old", PUSHED - 25 * HOUR)
    disk.upload("app", "new", PUSHED - 23 * HOUR)
    disk.upload("tried", "old", PUSHED - 48 * HOUR)
    disk.upload("trying", "now", PUSHED)
    plan = plan_garbage(disk.tree(), major, upload_age=24, now=PUSHED)
    sizes = disk.tree().blobs()
    assert plan.freed == sum(sizes[digest] for digest in plan.sweep.blobs) > 1500
    assert [(upload.repository, upload.uuid) for upload in plan.uploads] == [("app", "old"), ("tried", "old")]
    assert plan.upload_bytes == 8
    assert plan.empty == ["gone", "tried"]
    assert (plan.lost, plan.last_copies, plan.refusals, plan.nothing) == ([], [], [], False)


@pytest.mark.parametrize("major", [2, 3])
def test_nothing_to_do(disk, major):
    assert plan_garbage(disk.tree(), major).nothing
    disk.multi("app", "v1")
    assert plan_garbage(disk.tree(), major).nothing


@pytest.mark.parametrize("major", [2, 3])
def test_the_few_bytes_of_a_probe_alone_close_no_server(disk, major):
    """Each site.yml leaves some; they go with the first garbage of somebody else."""
    disk.multi("homelab-canary", "1")
    for time in (b"1", b"2"):
        disk.blob("homelab-canary", b'{"annotations":{"homelab.registry.probe":"' + time + b'"}}')
    disk.blob("homelab-canary", b"{}")
    plan = plan_garbage(disk.tree(), major)
    assert (plan.nothing, plan.sweep.blobs, plan.freed) == (True, set(), 0)
    disk.blob("app", b"x")
    plan = plan_garbage(disk.tree(), major)
    assert (plan.nothing, len(plan.sweep.blobs)) == (False, 4)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda disk: disk.revision("app", "sha256:" + "a" * 64).write_text(""), "would stop: the link of manifest"),
        (lambda disk: (disk.base / "repositories" / "_note").write_text(""), "would delete what can be pulled"),
        (lambda disk: (disk.base / "repositories" / "x").symlink_to("/tmp"), "cannot be seen"),
        (lambda disk: shutil.rmtree(disk.base / "blobs"), "nothing was ever pushed"),
        (lambda disk: shutil.rmtree(disk.base / "repositories"), "nothing was ever pushed"),
    ],
)
def test_refusals(disk, damage, said):
    disk.image("app", "v1")
    disk.write(disk.revision("app", "sha256:" + "a" * 64), "sha256:" + "a" * 64)
    damage(disk)
    plan = plan_garbage(disk.tree(), 2)
    (refusal,) = plan.refusals
    assert said in refusal
    assert not plan.nothing


def test_the_last_copy_of_what_a_damaged_tag_needs_is_told(disk):
    made = disk.image("app", "v1")
    disk.revision("app", made["digest"]).unlink()
    plan = plan_garbage(disk.tree(), 2)
    assert made["digest"] in plan.last_copies
    assert plan.refusals == []


def test_a_repository_with_something_damaged_in_it_is_not_empty(disk):
    for name in ("tag", "revision"):
        made = disk.image(name, "v1")
        (disk.current(name, "v1") if name == "tag" else disk.revision(name, made["digest"])).write_text("")
        shutil.rmtree(disk.repository(name) / "_manifests" / ("revisions" if name == "tag" else "tags"))
    assert plan_garbage(disk.tree(), 2).empty == []


# --- the window ---------------------------------------------------------------------------------------------
def removals(disk):
    made = disk.image("app", "v1", ["bad"])
    layer = disk.tree().content(made["digest"]).blobs[1][0]
    disk.blob_path(layer).write_bytes(b"BAD")
    disk.upload("app", "u", PUSHED)
    (disk.repository("empty/one") / "_layers").mkdir(parents=True)
    return [
        lambda window: remove_uploads(window, disk.tree().uploads("app")),
        lambda window: remove_empty_repositories(window, ["empty/one"]),
        lambda window: remove_tag_links(window, [("app", "v1", made["digest"])]),
        lambda window: remove_damaged_blobs(window, [layer]),
    ]


def test_nothing_is_removed_outside_the_window(disk):
    ways = removals(disk)
    before = files(disk)
    closed = Window(disk.root, lambda: True)
    for remove in ways:
        with pytest.raises(HomelabError, match="closed"):
            remove(closed)
    with closed:
        pass
    for remove in ways:
        with pytest.raises(HomelabError, match="closed"):
            remove(closed)
    assert files(disk) == before


def test_nothing_is_removed_while_the_server_takes_writes(disk):
    ways = removals(disk)
    before = files(disk)
    with pytest.raises(HomelabError, match="takes writes"), Window(disk.root, lambda: False):
        pass
    for remove in ways:
        # Read-only on entering and when the removal begins, not any more right before it.
        answers = iter([True, True, False])
        with (
            Window(disk.root, lambda answers=answers: next(answers)) as window,
            pytest.raises(HomelabError, match="takes writes"),
        ):
            remove(window)
    assert files(disk) == before


def test_each_removal_removes_one_thing(disk, window):
    for remove in removals(disk):
        before = files(disk)
        removal = remove(window)
        assert (len(removal.done), removal.left) == (1, [])
        assert set(files(disk)) < set(before)
        assert not (disk.base / TRASH).exists()
    assert disk.tree().repositories() == ["app"]


# --- removals -----------------------------------------------------------------------------------------------
def test_an_upload_that_was_continued_stays(disk, window):
    for number in "123":
        disk.upload("app", number, PUSHED)
    planned = disk.tree().uploads("app")
    os.utime(disk.repository("app") / "_uploads" / "1" / "data", (PUSHED + 9, PUSHED + 9))
    shutil.rmtree(disk.repository("app") / "_uploads" / "2")
    removal = remove_uploads(window, [*planned, Upload("nowhere", "x", 0, 0)])
    assert removal.done == ["app/_uploads/3"]
    assert len(removal.left) == 3
    assert [upload.uuid for upload in disk.tree().uploads("app")] == ["1"]


def test_empty_repositories_go_with_their_directories_and_leave_others(disk, window):
    for name in ("a", "a/b/c", "x/y/z", "x/y/z/deep"):
        (disk.repository(name) / "_layers").mkdir(parents=True)
        (disk.repository(name) / "_manifests" / "tags").mkdir(parents=True)
    disk.image("a/b/d", "v1")
    disk.image("x/y/z/deep", None)
    removal = remove_empty_repositories(window, ["a", "a/b/c", "x/y/z", "x/y/z/deep", "a/b/d", "no", "../x", ""])
    assert removal.done == ["a", "a/b/c", "x/y/z"]
    assert len(removal.left) == 5
    assert disk.tree().repositories() == ["a/b/d", "x/y/z/deep"]
    assert not disk.repository("a/b/c").exists()
    assert verify(disk.tree()).damages == []


def test_the_last_repository_leaves_the_directory_of_repositories(disk, window):
    (disk.repository("a/b") / "_layers").mkdir(parents=True)
    assert remove_empty_repositories(window, ["a/b"]).done == ["a/b"]
    assert files(disk) == ["repositories"]


def test_a_moved_tag_stays(disk, window):
    one, two = (disk.image("app", tag, [tag]) for tag in ("v1", "v2"))
    disk.tag("app", "latest", one["digest"])
    disk.tag("app", "moved", two["digest"])
    tags = [("app", "latest", one["digest"]), ("app", "moved", one["digest"]), ("app", "no", one["digest"])]
    tags += [("nowhere", "v1", one["digest"]), ("app", "../tags/v1", one["digest"])]
    removal = remove_tag_links(window, tags)
    assert removal.done == ["app:latest"]
    assert len(removal.left) == 4
    assert set(disk.tree().tags("app")) == {"v1", "v2", "moved"}
    assert set(disk.tree().revisions("app")) == {one["digest"], two["digest"]}


def test_only_blobs_that_are_wrong_are_removed(disk, window):
    made = disk.image("app", "v1", ["good", "bad", "cut"])
    _other, good, bad, cut = (digest for digest, _other in disk.tree().content(made["digest"]).blobs)
    disk.blob_path(bad).write_bytes(b"BAD")
    disk.blob_path(cut).write_bytes(b"")
    removal = remove_damaged_blobs(window, [good, bad, cut, "sha256:" + "0" * 64, "../x"])
    assert removal.done == [bad, cut]
    assert len(removal.left) == 3
    assert good in disk.tree().blobs()
    disk.image("app", "v1", ["good", "bad", "cut"])
    assert verify(disk.tree(), deep=True).damages == []


def test_a_blob_that_the_disk_does_not_give_back_is_wrong(disk, window, monkeypatch):
    made = disk.image("app", "v1", ["good", "bad"])
    _other, good, bad = (digest for digest, _other in disk.tree().content(made["digest"]).blobs)
    opened = Tree.open_blob

    def open_blob(tree, digest):
        if digest == bad:
            raise OSError(errno.EIO, "Input/output error")
        return opened(tree, digest)

    monkeypatch.setattr(Tree, "open_blob", open_blob)
    assert verify(disk.tree(), deep=True).damages[0].in_the_way == [bad]
    assert remove_damaged_blobs(window, [bad, good]).done == [bad]


def test_nothing_outside_the_root_is_touched(disk, window, tmp_path):
    made = disk.image("app", "v1")
    outside = tmp_path / "outside"
    tags = disk.repository("app") / "_manifests" / "tags"
    tags.rename(outside)
    tags.symlink_to(outside)
    assert remove_tag_links(window, [("app", "v1", made["digest"])]).done == []
    assert (outside / "v1" / "current" / "link").exists()


def test_the_trash_of_a_run_that_was_cut_off_is_emptied(disk, window, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    disk.write(disk.base / TRASH / "left" / "data", "x")
    (disk.base / TRASH / "link").symlink_to(outside)
    remove_uploads(window, [])
    assert not (disk.base / TRASH).exists()
    assert (outside / "file").exists()
    (disk.base / TRASH).symlink_to(outside)
    with pytest.raises(HomelabError, match="cannot be deleted"):
        remove_uploads(window, [])
    assert (outside / "file").exists()


# --- the marker ---------------------------------------------------------------------------------------------
def test_the_marker(tmp_path):
    path = tmp_path / "state" / "maintenance.json"
    assert read_marker(path) is None
    first = write_marker(path, "read-only")
    second = write_marker(path, "sweeping", first.started)
    assert read_marker(path) == second
    assert (second.phase, second.pid) == ("sweeping", os.getpid())
    assert second.started == first.started
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    clear_marker(path)
    clear_marker(path)
    assert read_marker(path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"phase": 1}', '{"phase": "x", "news": 3}', '{"more": 1}'])
def test_a_damaged_marker_still_asks_for_recovery(tmp_path, text):
    path = tmp_path / "marker"
    path.write_text(text)
    assert read_marker(path) == Marker("unknown")


def test_a_marker_of_the_next_release_is_unknown(tmp_path):
    path = tmp_path / "marker"
    write_marker(path, "sweeping")
    path.write_text(json.dumps({**json.loads(path.read_text()), "news": 1}))
    assert read_marker(path).phase == "unknown"


def test_a_marker_that_cannot_be_read_or_removed(tmp_path):
    with pytest.raises(HomelabError):
        read_marker(tmp_path)
    with pytest.raises(HomelabError, match="cannot be removed"):
        clear_marker(tmp_path)


# --- lost links ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", ["", "\0" * 71, "sha256:abc"])
@pytest.mark.parametrize("major", [2, 3])
def test_lost_links_are_written_anew(disk, window, content, major):
    index, children = disk.multi("app", "v1")
    layer = disk.tree().content(children[0]["digest"]).blobs[1][0]
    lost = [disk.revision("app", index["digest"]), disk.layer("app", layer)]
    before = {path: path.read_text() for path in lost}
    for path in lost:
        path.write_text(content)
        path.chmod(0o640)
        os.utime(path, (PUSHED, PUSHED))
    assert plan_garbage(disk.tree(), major).refusals
    mended = Tree(disk.root, mended=True)
    assert (plan_garbage(mended, major).refusals, mended.findings) == ([], [])
    names = sorted(str(path.relative_to(disk.base / "repositories")) for path in lost)
    assert lost_links(mended) == names
    assert repair_links(window) == names
    assert {path: path.read_text() for path in lost} == before
    assert {(path.stat().st_mtime, path.stat().st_mode & 0o777) for path in lost} == {(PUSHED, 0o640)}
    assert verify(disk.tree(), deep=True).damages == []
    assert repair_links(window) == []
    assert plan_garbage(disk.tree(), major).nothing


@pytest.mark.parametrize("major", [2, 3])
def test_what_a_tag_points_at_is_linked_again(disk, window, major):
    """A backup had the tags last, or a deletion was cut off: the server's own garbage collection deletes it all."""
    disk.multi("app", "v1")
    index, children = disk.multi("app", "v2", at=PUSHED + 5)
    disk.image("other", "v1")
    before = {path: path.read_bytes() for path in disk.base.rglob("link")}
    for one in (index, *children):
        shutil.rmtree(disk.revision("app", one["digest"]).parent)
    shutil.rmtree(disk.repository("app") / "_layers")
    (disk.repository("app") / "_layers").mkdir()
    lost = before.keys() - set(disk.base.rglob("link"))
    assert plan_garbage(disk.tree(), major).last_copies
    planned = plan_garbage(Tree(disk.root, mended=True), major)
    assert (planned.last_copies, planned.refusals, planned.sweep.blobs) == ([], [], set())
    repaired = repair_links(window)
    # What v1's manifests need is not linked either, but they are: somebody may have taken it away.
    restored = {disk.base / "repositories" / name for name in repaired}
    assert {path for path in lost if "revisions" in path.parts} <= restored <= lost
    assert {path: path.read_bytes() for path in restored} == {path: before[path] for path in restored}
    assert {path.stat().st_mtime for path in restored} == {PUSHED + 5}
    assert [damage.name for damage in verify(disk.tree(), deep=True).damages if damage.tag] == ["app:v1"]
    assert plan_garbage(disk.tree(), major).last_copies == []
    assert repair_links(window) == []


def test_what_cannot_be_or_was_not_meant_to_be_linked_again(disk, window):
    child = disk.multi("child", "v1")[1][0]
    disk.delete_manifest("child", child["digest"])  # its index lives on
    gone, wrong = disk.image("gone", "v1", ["a"]), disk.image("wrong", "v1", ["b"])
    for name, one in (("gone", gone), ("wrong", wrong)):
        disk.revision(name, one["digest"]).unlink()
    disk.delete_blob(gone["digest"])
    disk.blob_path(wrong["digest"]).write_bytes(b"{}")
    disk.delete_manifest("untagged", disk.image("untagged", None)["digest"])
    before = files(disk)
    assert repair_links(window) == []
    assert files(disk) == before


def test_what_is_linked_again_is_the_servers(disk, window):
    if os.getuid():
        pytest.skip("only root can give files away")
    made = disk.image("app", "v1")
    shutil.rmtree(disk.repository("app") / "_manifests" / "revisions")
    for path in disk.root.rglob("*"):
        os.chown(path, 1000, 1001)
    assert len(repair_links(window)) == 1
    assert disk.revision("app", made["digest"]).read_text() == made["digest"]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in disk.base.rglob("*")} == {(1000, 1001)}


def test_what_only_looks_like_a_lost_link_stays(disk, window):
    """A tag's link says what only the one who pushed knows; another digest may be the truth; a link to elsewhere is
    nobody's to follow."""
    made = disk.image("app", "v1")
    tag, other = disk.current("app", "v1"), disk.revision("app", "sha256:" + "a" * 64)
    tag.write_text("")
    disk.write(other, made["digest"])
    elsewhere = disk.root / "elsewhere"
    elsewhere.write_text("")
    disk.revision("app", "sha256:" + "b" * 64).parent.mkdir(parents=True)
    disk.revision("app", "sha256:" + "b" * 64).symlink_to(elsewhere)
    assert repair_links(window) == []
    assert (tag.read_text(), other.read_text(), elsewhere.read_text()) == ("", made["digest"], "")
    assert plan_garbage(Tree(disk.root, mended=True), 2).refusals


def test_links_are_repaired_in_the_window_only(disk):
    made = disk.image("app", "v1")
    disk.revision("app", made["digest"]).write_text("")
    with pytest.raises(HomelabError, match="closed"):
        repair_links(Window(disk.root, lambda: True))
    assert disk.revision("app", made["digest"]).read_text() == ""
