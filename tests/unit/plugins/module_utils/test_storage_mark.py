# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be swept: our reachability against brute force, the server's sweep foretold, its dry run read."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.storage.mark import (
    disagreements,
    expected_sweep,
    parse_dry_run,
    reach,
)
from ansible_collections.homelab.registry.tests.unit.storage_tree import Disk, random_registry


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path)


def both(disk):
    """What 2.x and 3.x sweep."""
    return [expected_sweep(disk.tree(), major).blobs for major in (2, 3)]


# --- brute force --------------------------------------------------------------------------------------------
def stored(disk):
    return {f"{data.parts[-4]}:{data.parts[-2]}" for data in disk.base.glob("blobs/*/*/*/data")}


def digests_in(value):
    """Every digest anywhere in a document but in `subject`."""
    if isinstance(value, dict):
        return set().union(*(digests_in(part) for key, part in value.items() if key != "subject"))
    if isinstance(value, list):
        return set().union(*map(digests_in, value))
    return {value} if isinstance(value, str) and value.startswith("sha256:") else set()


def brute_force(disk, pattern):
    """All that links lead to, by reading whatever is JSON until nothing new comes."""
    found = {link.read_text() for link in disk.base.glob(pattern)}
    while True:
        more = set(found)
        for digest in found & stored(disk):
            try:
                more |= digests_in(json.loads(disk.blob_path(digest).read_bytes()))
            except ValueError:
                continue
        if more == found:
            return found
        found = more


@pytest.mark.parametrize("seed", range(40))
def test_reach_is_what_brute_force_finds(disk, seed):
    random_registry(disk, random.Random(seed))
    currents = brute_force(disk, "repositories/**/_manifests/tags/*/current/link")
    assert reach(disk.tree()).named == currents | brute_force(disk, "repositories/**/_manifests/revisions/*/*/link")


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("major", [2, 3])
def test_a_plain_sweep_takes_nothing_that_can_be_pulled(disk, seed, major):
    random_registry(disk, random.Random(seed))
    sweep, reached = expected_sweep(disk.tree(), major), reach(disk.tree())
    assert sweep.failure is None
    assert not sweep.blobs & reached.served
    assert stored(disk) - reached.named <= sweep.blobs
    assert sweep.blobs == stored(disk) - sweep.marked


# --- situations ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "push",
    [
        lambda disk: disk.multi("app", "v1"),
        lambda disk: disk.multi("app", "v1", docker=True),
        lambda disk: disk.index("app", "v1", [disk.multi("app", None)[0], disk.image("app", None, ["x"])]),
        lambda disk: [disk.image(name, "v1") for name in ("aaa", "bbb", "aaa/bbb")],
        lambda disk: disk.image("app", None),
        lambda disk: [disk.image("app", "latest", [layer]) for layer in "123"],
        lambda disk: disk.image("app", None, ["sbom"], subject=disk.image("app", "v1")),
        lambda disk: disk.image("app", "sha256-" + disk.image("app", "v1")["digest"][7:] + ".sig", ["signature"]),
        lambda disk: disk.manifest("app", {"schemaVersion": 2, "config": disk.blob("app", "c"), "layers": []}),
    ],
    ids=["multi", "docker", "nested", "shared", "digest-only", "overwritten", "referrer", "signature", "no-type"],
)
def test_what_plain_collection_keeps(disk, push):
    push(disk)
    unused = disk.blob("other", "nobody needs this")["digest"]
    disk.manifest("other", {"schemaVersion": 2, "config": disk.blob("other", "c"), "layers": []})
    assert both(disk) == [{unused}, {unused}]
    assert reach(disk.tree()).served == stored(disk) - {unused}


def test_a_child_missing_in_one_repository(disk):
    for name in ("aaa", "bbb"):
        _other, children = disk.multi(name, "v1")
    left = {"aaa": disk.multi("aaa", "v2"), "bbb": disk.multi("bbb", "v2")}
    child = left["aaa"][1][0]["digest"]
    disk.delete_manifest("aaa", child)
    layers = set(disk.tree().content(child).references)
    # The index in aaa keeps the child's manifest; what only the child needs goes, unless another repository has it.
    sweep = expected_sweep(disk.tree(), 2).blobs
    assert sweep == layers - {digest for other in children + left["aaa"][1][1:] for digest in named(disk, other)}
    assert sweep <= reach(disk.tree()).named - reach(disk.tree()).served


def named(disk, descriptor):
    return disk.tree().content(descriptor["digest"]).references


def test_a_tag_whose_manifest_is_not_linked_still_names_it(disk):
    made = disk.image("app", "v1")
    disk.revision("app", made["digest"]).unlink()
    assert both(disk) == [stored(disk)] * 2
    assert reach(disk.tree()).named >= stored(disk)
    assert reach(disk.tree()).served == set()


def test_a_blob_that_the_repository_does_not_link_is_not_served(disk):
    layer = named(disk, disk.image("app", "v1"))[1]
    disk.layer("app", layer).unlink()
    assert reach(disk.tree()).served == stored(disk) - {layer}
    disk.image("other", "v1", created="2020-01-01T00:00:00Z")
    assert reach(disk.tree()).served == stored(disk)


def test_a_missing_manifest_keeps_nothing(disk):
    made = disk.image("app", "v1")
    layers = set(named(disk, made))
    disk.delete_blob(made["digest"])
    assert both(disk) == [layers, layers]


@pytest.mark.parametrize(
    ("damage", "two", "three"),
    [
        (lambda disk, one: disk.current("app", "v1").write_text(""), None, None),
        (lambda disk, one: disk.revision("app", one).write_text(""), "link of manifest", "link of manifest"),
        (lambda disk, one: disk.revision("app", one).write_bytes(b"\0" * 71), "link of manifest", "link of manifest"),
        (lambda disk, one: next(disk.repository("app").glob("_layers/*/*/link")).write_text(""), None, "link of blob"),
        (lambda disk, one: disk.blob_path(one).write_text(""), "cannot be read", "cannot be read"),
        (lambda disk, one: disk.blob_path(one).write_text('{"schemaVersion": 9}'), "cannot be read", "cannot be read"),
        (
            lambda disk, one: disk.blob_path(one).write_text('{"schemaVersion": 1, "fsLayers": []}'),
            None,
            "cannot be read",
        ),
        (lambda disk, one: shutil.rmtree(disk.repository("app") / "_layers"), None, "no directory _layers"),
        (lambda disk, one: shutil.rmtree(disk.base / "blobs"), "nothing was ever pushed", "nothing was ever pushed"),
        (lambda disk, one: shutil.rmtree(disk.base / "repositories"), "ever pushed", "ever pushed"),
        (lambda disk, one: disk.repository("app").rename(disk.repository("App")), "name", "name"),
        (lambda disk, one: disk.write(disk.base / "blobs/sha256/ab/12/data", ""), "blob should be", "blob should be"),
        (lambda disk, one: (disk.base / "blobs/sha256/ab/12").mkdir(parents=True), None, None),
    ],
)
def test_when_collection_stops(disk, damage, two, three):
    made = disk.image("app", "v1")["digest"]
    damage(disk, made)
    for major, said in ((2, two), (3, three)):
        sweep = expected_sweep(disk.tree(), major)
        assert (said in sweep.failure) if said else sweep.failure is None
        assert not (sweep.failure and sweep.blobs)


def test_an_empty_registry(tmp_path):
    sweep = expected_sweep(Disk(tmp_path).tree(), 2)
    assert "nothing was ever pushed" in sweep.failure


def test_2_x_does_not_see_a_repository_without_layers(disk):
    disk.index("app", "v1", [])
    shutil.rmtree(disk.repository("app") / "_layers")
    disk.image("other", "v1")
    sweep = expected_sweep(disk.tree(), 2)
    assert len(sweep.blobs) == 1
    assert sweep.blobs <= reach(disk.tree()).served


@pytest.mark.parametrize("place", ["", "a"])
def test_2_x_does_not_see_what_comes_after_a_file_that_begins_with_an_underscore(disk, place):
    for name in ("a/b", "0", "a/0", "z"):
        disk.image(name, "v1", [name])
    (disk.repository(place) / "_note").write_text("x")
    assert disk.tree().walked(2) == (["0"] if not place else ["0", "a/0", "z"])
    assert disk.tree().walked(3) == ["0", "a/0", "a/b", "z"]
    sweep = expected_sweep(disk.tree(), 2)
    assert sweep.blobs & reach(disk.tree()).served
    assert not expected_sweep(disk.tree(), 3).blobs


def test_3_x_deletes_links_that_nothing_marked_so_far_needs(disk):
    shared = disk.blob("aaa", "shared")["digest"]
    disk.image("aaa", "v1", ["other"])
    disk.image("bbb", "v1", ["shared"])
    disk.blob("bbb", "other")
    assert expected_sweep(disk.tree(), 3).layer_links == {("aaa", shared)}
    assert expected_sweep(disk.tree(), 2).layer_links == set()


# --- the dry run --------------------------------------------------------------------------------------------
A, B, C, D = (f"sha256:{letter * 64}" for letter in "abcd")
DRY_RUN_2 = f"""team/app
team/app: marking manifest {A} 
team/app: marking blob {B}
other
other: marking manifest {A} 
other: marking blob {B}

2 blobs marked, 2 blobs and 0 manifests eligible for deletion
blob eligible for deletion: {C}
blob eligible for deletion: {D}
"""  # noqa: W291 - the server prints a space there
DRY_RUN_3 = f"""team/app
team/app: marking manifest {A} 
team/app: marking blob {B}
manifest tags path of repository other does not exist
manifest eligible for deletion: {{other {D} [v1 v2]}}

2 blobs marked, 1 blobs and 1 manifests eligible for deletion
blob eligible for deletion: {C}
team/app: layer link eligible for deletion: {C}
"""  # noqa: W291


def test_a_dry_run_of_2():
    run = parse_dry_run(DRY_RUN_2)
    assert (run.marked, run.blobs, run.layer_links, run.manifests) == ({A, B}, {C, D}, set(), set())


def test_a_dry_run_of_3():
    run = parse_dry_run(DRY_RUN_3)
    assert (run.marked, run.blobs, run.layer_links, run.manifests) == ({A, B}, {C}, {("team/app", C)}, {D})


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "printed nothing"),
        (DRY_RUN_2.split("\n\n", maxsplit=1)[0], "come to its end: other: marking"),
        (
            "app\nfailed to garbage collect: failed to mark: x\nUsage:",
            "end: failed to garbage collect: failed to mark: x",
        ),
        (DRY_RUN_2.replace(f"blob eligible for deletion: {C}\n", ""), "not complete"),
        (DRY_RUN_2.replace(f"marking blob {B}", "time=now"), "not complete"),
    ],
)
def test_an_output_with_something_missing_is_refused(output, said):
    with pytest.raises(HomelabError, match=said):
        parse_dry_run(output)


def as_printed(sweep, major):
    """What the server prints for a sweep."""
    lines = [f"app: marking blob {digest}" for digest in sweep.marked]
    lines += ["", f"{len(sweep.marked)} blobs marked, {len(sweep.blobs)} blobs and 0 manifests eligible for deletion"]
    lines += [f"blob eligible for deletion: {digest}" for digest in sweep.blobs]
    return "\n".join(lines + [f"{name}: layer link eligible for deletion: {one}" for name, one in sweep.layer_links])


@pytest.mark.parametrize("major", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_same_on_both_sides_is_agreement(disk, major, seed):
    random_registry(disk, random.Random(seed))
    disk.blob("zzz", "unused")
    sweep = expected_sweep(disk.tree(), major)
    run = parse_dry_run(as_printed(sweep, major))
    assert disagreements(sweep, run) == []
    for found, digest in ((run.blobs, A), (run.marked, B), (run.manifests, C), (run.layer_links, ("app", D))):
        found.add(digest)
        (said,) = disagreements(sweep, run)
        assert "".join(digest)[-64:] in said
        found.discard(digest)
    run.blobs.pop()
    assert len(disagreements(sweep, run)) == 1


def test_a_run_that_should_have_stopped_is_a_disagreement(disk):
    assert "nothing was ever pushed" in disagreements(expected_sweep(disk.tree(), 2), parse_dry_run(DRY_RUN_2))[0]
