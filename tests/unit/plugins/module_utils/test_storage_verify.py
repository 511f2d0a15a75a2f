# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification: exactly the damage that is there, and what it says of it."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.storage.verify import (
    NO_BLOB,
    NO_LINK,
    UNKNOWN,
    WRONG_CONTENT,
    WRONG_SIZE,
    verify,
)
from ansible_collections.homelab.registry.tests.unit.storage_tree import Disk, random_registry


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path)


def flaws(report):
    """Image to {(digest, kind)}."""
    return {damage.name: {(flaw.digest, flaw.kind) for flaw in damage.flaws} for damage in report.damages}


def unlink(path):
    path.unlink()


def empty(path):
    path.write_text("")


def delete(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


# --- property -----------------------------------------------------------------------------------------------
def needs(disk, digest, seen):
    """Brute force: (what, digest) an image needs, from the JSON on the disk."""
    if ("manifest", digest) not in seen:
        seen.add(("manifest", digest))
        document = json.loads(disk.blob_path(digest).read_bytes())
        for child in document.get("manifests", ()):
            needs(disk, child["digest"], seen)
        blobs = [document["config"], *document["layers"]] if "config" in document else []
        seen |= {("blob", blob["digest"]) for blob in blobs}
    return seen


@pytest.mark.parametrize("seed", range(60))
def test_exactly_the_injected_damage_is_found(disk, seed):
    rnd = random.Random(seed)
    random_registry(disk, rnd, deleted=0)
    tree = disk.tree()
    images = {}  # (repository, tag or None, digest) -> what it needs
    for name in tree.repositories():
        for tag, link in tree.tags(name).items():
            images[name, tag, link.digest] = needs(disk, link.digest, set())
        ours = [parts for (repository, _tag, _digest), parts in images.items() if repository == name]
        led_to = {digest for parts in ours for _kind, digest in parts}
        left = set(tree.revisions(name)) - led_to
        for digest in left:
            if not any(("manifest", digest) in needs(disk, other, set()) for other in left - {digest}):
                images[name, None, digest] = needs(disk, digest, set())
    assert verify(tree, deep=True).damages == []
    expected = {}  # (repository, or None for all, digest) -> kind
    for _other in range(rnd.randint(0, 4) if images else 0):
        name, _other, root = rnd.choice(sorted(images, key=str))
        what, digest = rnd.choice(sorted(next(parts for key, parts in images.items() if key[::2] == (name, root))))
        if digest == root or any(digest == done for _other, done in expected):
            continue
        # A manifest's content stays whole, else nothing would be known of what is below it.
        damage = rnd.choice((unlink, empty) if what == "manifest" else (unlink, empty, delete, cut, flip))
        if damage in (unlink, empty):
            damage(disk.revision(name, digest) if what == "manifest" else disk.layer(name, digest))
            expected[name, digest] = NO_LINK
        else:
            damage(disk.blob_path(digest))
            expected[None, digest] = {delete: NO_BLOB, cut: WRONG_SIZE, flip: WRONG_CONTENT}[damage]
    wanted = {}
    for (name, tag, root), parts in images.items():
        places = [(place, digest) for _other, digest in parts for place in (name, None)]
        hit = {(place[1], expected[place]) for place in places if place in expected}
        if hit:
            wanted[f"{name}:{tag}" if tag else f"{name}@{root}"] = hit
    assert flaws(verify(disk.tree(), deep=True)) == wanted


# --- one by one ---------------------------------------------------------------------------------------------
def layer_of(disk, made):
    return disk.tree().content(made["digest"]).blobs[1][0]


@pytest.mark.parametrize(
    ("damage", "kind", "deep"),
    [
        (lambda disk, layer: disk.layer("app", layer).unlink(), NO_LINK, False),
        (lambda disk, layer: disk.layer("app", layer).write_text(""), NO_LINK, False),
        (lambda disk, layer: disk.layer("app", layer).write_text("sha256:" + "0" * 64), NO_LINK, False),
        (lambda disk, layer: disk.delete_blob(layer), NO_BLOB, False),
        (lambda disk, layer: disk.blob_path(layer).unlink(), NO_BLOB, False),
        (lambda disk, layer: cut(disk.blob_path(layer)), WRONG_SIZE, False),
        (lambda disk, layer: disk.blob_path(layer).write_bytes(b""), WRONG_SIZE, False),
        (lambda disk, layer: flip(disk.blob_path(layer)), WRONG_CONTENT, True),
    ],
)
def test_a_damaged_layer(disk, damage, kind, deep):
    made = disk.image("app", "v1", ["mine"])
    index = disk.index("app", "multi", [made])
    disk.image("app", "whole", ["other"])
    layer = layer_of(disk, made)
    damage(disk, layer)
    found = {"app:v1": {(layer, kind)}, "app:multi": {(layer, kind)}}
    assert flaws(verify(disk.tree(), deep=True)) == found
    assert flaws(verify(disk.tree())) == ({} if deep else found)
    report = verify(disk.tree(), deep=True, mirrored=["app:v1", "app:whole"])
    assert {damage.name: damage.healable for damage in report.damages} == {"app:v1": True, "app:multi": False}
    assert report.damages[0].in_the_way == ([layer] if kind in (WRONG_SIZE, WRONG_CONTENT) else [])
    assert report.damages[0].as_dict()["digest"] == index["digest"]


@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        (lambda disk, one: disk.revision("app", one).unlink(), {NO_LINK}),
        (lambda disk, one: disk.revision("app", one).write_text(""), {NO_LINK}),
        (lambda disk, one: disk.delete_blob(one), {NO_BLOB}),
        (lambda disk, one: flip(disk.blob_path(one)), {WRONG_CONTENT}),
        (lambda disk, one: disk.blob_path(one).write_text(""), {WRONG_CONTENT}),
    ],
)
def test_a_damaged_manifest_is_seen_without_deep(disk, damage, kinds):
    one = disk.image("app", "v1")["digest"]
    damage(disk, one)
    assert flaws(verify(disk.tree())) == {"app:v1": {(one, kind) for kind in kinds}}


def test_a_child_that_is_missing_in_one_repository(disk):
    for name in ("aaa", "bbb"):
        inner, children = disk.multi(name, None)
        disk.index(name, "v1", [inner])
    # The content is there, for the other repository: the API still does not serve it here.
    disk.image("aaa", None, ["x"])
    disk.revision("aaa", disk.multi("aaa", None)[1][0]["digest"]).unlink()
    (damage,) = verify(disk.tree()).damages
    assert damage.name == "aaa:v1"
    assert [flaw.kind for flaw in damage.flaws] == [NO_LINK]


def test_a_damaged_tag_link(disk):
    disk.image("app", "v1")
    disk.current("app", "v1").write_text("")
    (damage,) = verify(disk.tree(), mirrored={"app:v1"}).damages
    assert (damage.name, damage.digest, damage.healable) == ("app:v1", None, True)
    assert str(damage) == "app:v1: the tag's link is damaged"


def test_manifests_without_a_tag_count_too(disk):
    made = disk.image("app", None, ["mine"])
    disk.index("app", None, [made])
    disk.delete_blob(layer_of(disk, made))
    report = verify(disk.tree())
    assert [(damage.tag, damage.healable) for damage in report.damages] == [(None, False)]
    (damage,) = verify(disk.tree(), mirrored=[report.damages[0].name]).damages
    assert damage.healable


def test_a_manifest_of_an_old_kind_is_not_in_the_way(disk):
    made = disk.manifest("app", {"schemaVersion": 1, "fsLayers": []}, "v1")
    (damage,) = verify(disk.tree(), deep=True).damages
    assert [(flaw.digest, flaw.kind) for flaw in damage.flaws] == [(made["digest"], UNKNOWN)]
    assert damage.in_the_way == []


def test_foreign_layers_and_lost_subjects_are_no_damage(disk):
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": "sha256:" + "f" * 64,
        "size": 5,
        "urls": ["https://example.com/layer"],
    }
    config = disk.blob("app", "{}")
    disk.manifest("app", {"schemaVersion": 2, "config": config, "layers": [foreign], "subject": foreign}, "v1")
    assert verify(disk.tree(), deep=True).damages == []


def test_every_blob_is_hashed_once_and_progress_adds_up(disk):
    for name in ("a", "b"):
        disk.image(name, "v1", [b"x" * (3 << 20), "small"])
    disk.blob("a", b"unused" * 100000)
    steps = []
    report = verify(disk.tree(), deep=True, progress=lambda done, total: steps.append((done, total)))
    total = sum(size for size in disk.tree().blobs().values()) - 600000
    assert (report.tags, report.manifests, report.blobs, report.read) == (2, 2, 4, total)
    assert steps[-1] == (total, total)
    assert [done for done, _other in steps] == sorted(done for done, _other in steps)
    assert max(b - a for (a, _other), (b, _other) in zip(steps, steps[1:])) <= 1 << 20


def test_an_empty_registry(disk):
    report = verify(disk.tree(), deep=True)
    assert (report.tags, report.manifests, report.blobs, report.damages, report.findings) == (0, 0, 0, [], [])


def test_a_blob_that_is_no_file(disk):
    made = disk.image("app", "v1")
    path = disk.blob_path(layer_of(disk, made))
    path.unlink()
    os.mkfifo(path)
    assert flaws(verify(disk.tree(), deep=True)) == {"app:v1": {(layer_of_path(path), NO_BLOB)}}


def layer_of_path(path):
    return f"sha256:{path.parent.name}"


def test_a_repository_whose_links_are_gone(disk):
    disk.image("app", "v1")
    shutil.rmtree(disk.repository("app") / "_layers")
    (damage,) = verify(disk.tree()).damages
    assert {flaw.kind for flaw in damage.flaws} == {NO_LINK}
