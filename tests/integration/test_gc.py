# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection of real registries: no image is lost, whatever lies in them and wherever it is cut off."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.registry.plugins.module_utils import cli
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.lock import Busy
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import ReadOnly
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import OCI_INDEX, digest_of
from ansible_collections.homelab.registry.plugins.module_utils.oci.transport import Unreachable
from ansible_collections.homelab.registry.plugins.module_utils.storage import maintenance
from ansible_collections.homelab.registry.plugins.module_utils.storage import server as server_module
from ansible_collections.homelab.registry.plugins.module_utils.storage.maintenance import Refused
from ansible_collections.homelab.registry.plugins.module_utils.storage.tree import Tree
from ansible_collections.homelab.registry.plugins.module_utils.storage.verify import verify
from ansible_collections.homelab.registry.plugins.modules import registry_gc
from ansible_collections.homelab.registry.tests.integration.real_images import Content, assert_whole, parts
from ansible_collections.homelab.registry.tests.integration.real_registry import docker
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.storage_tree import Disk, random_registry

LONG_AGO = time.time() - 30 * 86400


class Case:
    """A registry and what maintenance is told about it."""

    def __init__(self, registry, home):
        self.registry, self.home = registry, home
        self.state = home / "state"
        self.state.mkdir(exist_ok=True)
        self.host = {
            "container": registry.name,
            "data_path": str(registry.data),
            "config_path": str(registry.config_dir),
        }
        self.steps = []

    @property
    def config_file(self):
        return self.registry.config_dir / "config.yml"

    def settings(self, **host):
        return {"host": {**self.host, **host}, "access": self.registry.access(), "state_dir": self.state}

    def collect(self, host=None, **more):
        return maintenance.collect(**{**self.settings(**(host or {})), "progress": self.steps.append, **more})

    def recover(self):
        return maintenance.recover(**self.settings())

    def config_state(self):
        state = self.config_file.stat()
        return self.config_file.read_bytes(), state.st_mode, state.st_uid, state.st_gid, state.st_mtime_ns

    def started(self):
        return docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", self.registry.name)

    def assert_as_before(self, config):
        """Its configuration is the one it had, it takes writes, and nothing of the maintenance is left."""
        assert self.config_state() == config
        assert [path.name for path in self.registry.config_dir.glob("*config*")] == ["config.yml"]
        assert list(self.state.iterdir()) == []
        assert not docker("ps", "-aq", "--filter", f"name={self.registry.name}-garbage-collect")
        self.registry.client().put_blob("write/test", str(time.time_ns()).encode())


@pytest.fixture
def case(registries, tmp_path):
    return Case(registries.start(), tmp_path)


@pytest.fixture(scope="module")
def shared(module_registries, tmp_path_factory):
    """One for the tests that leave it as they found it: two images, and a third's blobs as garbage."""
    case = Case(module_registries.start(), tmp_path_factory.mktemp("shared"))
    content = Content()
    images.multi(content, "app", "v1", layers=[images.data("base")])
    images.single(content, "lib/tool", "v1", layers=[images.data("base"), images.data("tool")])
    content.push(case.registry.client())
    garbage(case.registry)
    return case


def garbage(registry, name="gone", size=50_000):
    """An image that is pushed and deleted; its repository, with the repository's name in the catalog, stays."""
    content = Content()
    made = images.single(content, name, "v1", layers=[images.data(f"{name} {time.time_ns()}", size)])
    content.push(registry.client())
    assert registry.client().delete_manifest(name, made["digest"]).status == 202
    return made


def content_bytes(registry):
    """Bytes of all that is stored, and of unfinished uploads."""
    return sum(path.stat().st_size for path in registry.v2.rglob("data"))


def disk_bytes(registry):
    return sum(path.lstat().st_blocks * 512 for path in registry.v2.rglob("*"))


def pulled(registry):
    """What everybody who pulls by tag gets: (repository, tag) to the digests of all parts; None where that fails."""
    client, found = registry.client(), {}
    for repository in client.catalog():
        for tag in client.tags(repository) or ():
            try:
                got = parts(client, repository, tag)
                assert all(digest_of(data) == digest for digest, data in got.items())
                found[repository, tag] = sorted(got)
            except HomelabError:
                found[repository, tag] = None
    return found


# --- what lies in a registry -----------------------------------------------------------------------------------
def furnish(registry):
    """The situations in which garbage collections have lost images. Returns what must be gone afterwards: digests."""
    client, content = registry.client(), Content()
    base = images.data("base", 2000)
    images.multi(content, "multi/arch", "v1", layers=[base])
    doomed_index = images.multi(content, "multi/arch", "v2", layers=[base])
    # an index in an index, of which only the outer one has a tag
    inner = images.multi(content, "nested", None, layers=[base])
    inner_size = len(content.repositories["nested"]["manifests"][inner][1])
    images.index(content, "nested", "v1", [{"mediaType": OCI_INDEX, "digest": inner, "size": inner_size}])
    # one image in two repositories, deleted in the first
    for name in ("shared/a", "shared/b"):
        shared = images.single(content, name, "v1", layers=[base, images.data("shared")])
    # one index in two repositories; in the first a child is deleted
    for name in ("child/aaa", "child/bbb"):
        child = images.single(content, name, layers=[images.data("child")])
        images.index(content, name, "v1", [child])
    images.single(content, "by-digest", layers=[images.data("by digest")])
    for layer in ("first", "second"):  # a tag that moves
        old = images.single(content, "moved", None, layers=[images.data(layer)])
        content.repositories["moved"]["tags"]["latest"] = old["digest"]
    signed = images.single(content, "signed", "v1", layers=[images.data("signed")])
    tail = signed["digest"].replace(":", "-")
    images.single(content, "signed", f"{tail}.sig", layers=[images.data("signature")])
    sbom = images.single(content, "signed", layers=[images.data("sbom")], subject=signed)
    images.index(content, "signed", tail, [sbom])
    images.single(content, "signed", layers=[images.data("only a subject")], subject=signed)
    for name in ("crash/revision", "crash/tag", "crash/unlinked"):
        images.single(content, name, "v1", layers=[images.data(name)])
    doomed = images.single(content, "emptied", "v1", layers=[images.data("emptied")])
    content.push(client)
    # the first digest of `moved` had its turn as latest
    for manifest, (media_type, data) in content.repositories["moved"]["manifests"].items():
        client.put_manifest("moved", "latest", data, media_type)
        assert client.head_manifest("moved", "latest") == manifest
    gone = {doomed["digest"], digest_of(images.data("emptied")), client.put_blob("never/used", b"never used")}
    gone.add(doomed_index)
    for child in json.loads(content.repositories["multi/arch"]["manifests"][doomed_index][1])["manifests"]:
        gone |= images.parts(content, "multi/arch", child["digest"]).keys() - {digest_of(base)}
        client.delete_manifest("multi/arch", child["digest"])
    for name, digest in (
        ("multi/arch", doomed_index),
        ("shared/a", shared["digest"]),
        ("child/aaa", child_digest(content, "child/aaa")),
        ("emptied", doomed["digest"]),
    ):
        assert client.delete_manifest(name, digest).status == 202
    # a power cut on 2.x leaves files without content
    repositories = registry.v2 / "repositories"
    revisions = repositories / "crash/revision/_manifests/revisions/sha256"
    (link,) = revisions.glob("*/link")
    link.write_text("")
    (repositories / "crash/tag/_manifests/tags/v1/current/link").write_text("")
    # a restored backup that had copied the links before the tags
    shutil.rmtree(repositories / "crash/unlinked/_manifests/revisions")
    shutil.rmtree(repositories / "crash/unlinked/_layers")
    (repositories / "crash/unlinked/_layers").mkdir()
    return gone


def child_digest(content, name):
    found = content.repositories[name]["manifests"].values()
    return next(json.loads(data) for kind, data in found if kind == OCI_INDEX)["manifests"][0]["digest"]


def upload(registry, repository, data, age=0):
    """Begin an upload and send a part; returns where it goes on."""
    client = registry.client()
    url = client.start_upload(repository)
    sent = client.request("PATCH", url, body=data, headers={"Content-Type": "application/octet-stream"})
    assert sent.status == 202
    if age:
        (path,) = (registry.v2 / "repositories" / repository / "_uploads").iterdir()
        (path / "startedat").write_text(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(age)))
        for one in [*path.rglob("*"), path]:
            os.utime(one, (age, age))
    return sent.headers["location"]


def test_everything_that_may_lie_in_a_registry(case, capsys):
    registry = case.registry
    gone = furnish(registry)
    upload(registry, "left/behind", b"abandoned" * 1000, LONG_AGO)
    fresh = upload(registry, "going/on", b"first half, ")
    before, config, started = pulled(registry), case.config_state(), case.started()
    mended = [("crash/revision", "v1"), ("crash/unlinked", "v1")]
    broken = [("child/aaa", "v1"), ("crash/revision", "v1"), ("crash/tag", "v1"), ("crash/unlinked", "v1")]
    assert [name for name in before if before[name] is None] == broken
    stored, on_disk = content_bytes(registry), disk_bytes(registry)

    foreseen = case.collect(check=True)
    assert (case.started(), content_bytes(registry)) == (started, stored)
    assert foreseen.changed
    report = case.collect()

    after = pulled(registry)
    # What could be pulled can be pulled, two of the crashed too by now: what their links said is known.
    for name in mended:
        assert after.pop(name)
        assert before.pop(name) is None
    assert after == before
    found = verify(Tree(registry.data), deep=True)
    assert [damage.name for damage in found.damages] == ["child/aaa:v1", "crash/tag:v1"]
    assert [damage["repository"] for damage in report.damages] == ["child/aaa", "crash/tag"]
    assert (report.new_damages, report.verified, report.left) == ([], len(before) + 2, [])
    client = registry.client()
    # Pushed by digest, overwritten, or found by their subject alone: untagged is not garbage.
    assert len(Tree(registry.data).revisions("by-digest")) == 1
    assert len(Tree(registry.data).revisions("moved")) == 2
    assert len(Tree(registry.data).revisions("signed")) == 5
    # Everything doomed is gone, from the disk and for clients, and nothing else is.
    blobs = Tree(registry.data).blobs()
    assert not gone & blobs.keys()
    assert client.stat_blob("never/used", digest_of(b"never used")) is None
    assert not {"emptied", "left/behind", "never/used"} & set(client.catalog())
    assert report.uploads and report.uploads == foreseen.uploads
    assert report.repositories == ["emptied", "left/behind", "never/used", "shared/a"] == foreseen.repositories
    assert report.repaired == foreseen.repaired
    assert {name.partition("/_")[0] for name in report.repaired} == {name for name, _tag in mended}
    assert report.freed == foreseen.freed == stored - content_bytes(registry) > 9000
    assert report.blobs == foreseen.blobs
    assert on_disk - disk_bytes(registry) >= report.freed
    # The upload that is not abandoned goes on.
    whole = b"first half, second half"
    end = f"{fresh}{'&' if '?' in fresh else '?'}digest={digest_of(whole)}"
    assert client.request("PUT", end, body=b"second half").status == 201
    assert client.get_blob("going/on", digest_of(whole)) == whole
    # The container is the same one.
    assert case.started().split()[0] == started.split()[0]
    case.assert_as_before(config)
    with capsys.disabled():
        print(f"\nread-only {report.read_only_seconds:.1f} s, unreachable {report.unreachable_seconds:.2f} s,", end=" ")
        print(f"longest {report.longest_gap_seconds:.2f} s")


def test_a_second_run_does_not_touch_the_server(shared):
    case = shared
    case.collect()
    started = case.started()
    report = case.collect()
    assert (report.changed, report.read_only_seconds, case.started()) == (False, 0.0, started)
    garbage(case.registry)


def test_a_registry_that_was_never_pushed_to(case):
    started = case.started()
    assert not case.collect(check=True).changed
    assert not case.collect().changed
    # Then an upload, and nothing else: the server's own garbage collection fails in this state.
    upload(case.registry, "tried", b"once", LONG_AGO)
    assert case.started() == started
    report = case.collect()
    assert (len(report.uploads), report.repositories, report.freed) == (1, ["tried"], 4)
    assert not case.collect().changed


@pytest.fixture(scope="module")
def emptied(module_registries, tmp_path_factory):
    """A registry whose tree can be exchanged: nothing is cached."""
    return Case(module_registries.start(cache=None), tmp_path_factory.mktemp("emptied"))


@pytest.mark.parametrize("seed", range(6))
def test_a_tag_that_could_be_pulled_can_be_pulled(emptied, seed):
    """Whatever mixture of images, indexes, moved tags and deletions there is."""
    case, rnd = emptied, random.Random(seed)
    shutil.rmtree(case.registry.data / "docker", ignore_errors=True)
    disk = Disk(case.registry.data)
    random_registry(disk, rnd, deleted=rnd.choice([0.1, 0.4]))
    tree = Tree(case.registry.data)
    revisions = {name: set(tree.revisions(name)) for name in tree.repositories()}
    before, stored = pulled(case.registry), content_bytes(case.registry)
    foreseen = case.collect(check=True)
    report = case.collect()
    after = pulled(case.registry)
    assert {name: got for name, got in after.items() if got} == {name: got for name, got in before.items() if got}
    tree = Tree(case.registry.data)
    kept = {name: found for name, found in revisions.items() if name not in report.repositories}
    assert {name: set(tree.revisions(name)) for name in kept} == kept
    assert report.freed == foreseen.freed == stored - content_bytes(case.registry)
    assert report.new_damages == []
    assert not case.collect(check=True).changed


# --- while it is used ------------------------------------------------------------------------------------------
class Loop(threading.Thread):
    """Does something again and again until it is told to stop."""

    def __init__(self, action):
        super().__init__(daemon=True)
        self._action, self._over, self.error = action, threading.Event(), None

    def run(self):
        try:
            while not self._over.is_set():
                self._action()
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self._over.set()
        self.join(30)
        assert not self.is_alive()
        if self.error:
            raise self.error


def test_nothing_that_was_acknowledged_is_lost(case, capsys):
    registry, pushed, refused, pulls = case.registry, {}, [], []
    content = Content()
    images.multi(content, "kept", "v1", layers=[images.data("kept", 20_000)])
    content.push(registry.client())
    wanted = parts(registry.client(), "kept", "v1")
    # Pushed, deleted, swept, and pushed again by the loops: a stale cache would let these "succeed" without layers.
    layers = [images.data(f"layer {number}", 5000) for number in range(6)]
    number = iter(range(10**6))

    def push():
        one, client = next(number), registry.client(timeout=5)
        made = Content()
        repository, tag = f"pushed/{one % 3}", f"v{one}"
        images.multi(made, repository, tag, layers=[layers[one % 6], images.data(f"own {one}")])
        try:
            made.push(client)
            pushed[repository, tag] = True
            if one % 3 == 2:
                # Garbage for the next collection, of layers that the next push has too.
                digest = made.repositories[repository]["tags"][tag]
                pushed.pop((repository, tag))
                client.delete_manifest(repository, digest)
        except HomelabError as error:
            refused.append(error)
            time.sleep(0.05)
        finally:
            client.close()

    def pull():
        began, client = time.monotonic(), registry.client(timeout=5)
        try:
            complete = parts(client, "kept", "v1") == wanted
        except HomelabError as error:
            assert isinstance(error, Unreachable), error
            complete = False
        finally:
            client.close()
        pulls.append((began, time.monotonic(), complete))
        time.sleep(0.02)

    def complete_pushes(count):
        """Wait for so many more of them; bounded, on a machine that has other things to do as well."""
        wanted, until = len(pushed) + count, time.monotonic() + 30
        while len(pushed) < wanted and time.monotonic() < until:
            time.sleep(0.05)
        assert len(pushed) >= wanted, refused[-3:]

    reports = []
    with Loop(push), Loop(push), Loop(pull):
        complete_pushes(3)
        for _time in range(2):
            garbage(registry)
            reports.append(case.collect())
            complete_pushes(3)
    for repository, tag in pushed:
        assert all(digest_of(data) == digest for digest, data in parts(registry.client(), repository, tag).items())
    assert [one for one in verify(Tree(registry.data), deep=True).damages if one.tag] == []
    unclear = [
        str(error)
        for error in refused
        if not isinstance(error, (ReadOnly, Unreachable)) and "MANIFEST_BLOB_UNKNOWN" not in str(error)
        # An upload that was begun before the restart: unknown afterwards, so the client begins again.
        and "BLOB_UPLOAD" not in str(error)
    ]
    assert unclear == []
    assert any(isinstance(error, ReadOnly) for error in refused)
    assert all(report.blobs for report in reports)
    failed = [one for one in pulls if not one[2]]
    good = [one for one in pulls if one[2]]
    gap = max(after[1] - before[1] for before, after in zip(good, good[1:]))
    with capsys.disabled():
        print(f"\n{len(pushed)} pushes complete, {len(refused)} refused; {len(good)} pulls complete,", end=" ")
        print(f"{len(failed)} failed, {gap:.2f} s at most between two complete ones; read-only", end=" ")
        print(", ".join(f"{report.read_only_seconds:.1f} s" for report in reports))


# --- cut off -----------------------------------------------------------------------------------------------------
#: Runs a collection that kills itself: before or after a function is called for the n-th time.
CUT_OFF = """
import json, os, signal, sys
from ansible_collections.homelab.registry.plugins.module_utils.storage import garbage, maintenance, server
from ansible_collections.homelab.registry.plugins.module_utils.engine import Engine
# Under nohup, or in the background of a script, they come in as ignored, and the program heeds that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
settings, (where, when, number, how) = json.loads(sys.argv[1]), json.loads(sys.argv[2])
owner, name = where.rsplit(".", 1)
owner = {"garbage": garbage, "server": server, "Server": server.Server, "Engine": Engine}[owner]
real, calls = getattr(owner, name), []
def cut(*args, **more):
    calls.append(1)
    if when == "before" and len(calls) == number:
        os.kill(os.getpid(), getattr(signal, how))
    result = real(*args, **more)
    if when == "after" and len(calls) == number:
        os.kill(os.getpid(), getattr(signal, how))
    return result
setattr(owner, name, cut)
maintenance.collect(**settings)
"""

#: Where, in the order in which a collection comes to it.
STEPS = [
    ("Server.make_read_only", "before", 1),
    ("Server._keep", "after", 1),
    ("server.write_atomic", "after", 1),  # config.yml is switched, the server is not
    ("Server.restart", "after", 1),
    ("Engine._json", "after", 5),  # the dry run's container runs
    ("Server.garbage_collect", "after", 1),
    ("garbage.write_marker", "after", 3),  # the marker says that it sweeps
    ("Engine.remove_container", "before", 4),  # the sweep is done, its container is there
    ("garbage.remove_empty_repositories", "before", 1),
    ("Server.make_writable", "before", 1),
    ("Server.put_config_back", "after", 1),
    ("Server.restart", "after", 2),
    ("garbage.clear_marker", "before", 1),
]


def cut_off(case, where, when, number, how="SIGKILL"):
    settings = json.dumps({**case.settings(), "state_dir": str(case.state)})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", CUT_OFF, settings, json.dumps([where, when, number, how])]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]} {step[1]} {step[2]}")
def test_killed_at_any_step_it_is_recovered(shared, step):
    case = shared
    before, config = pulled(case.registry), case.config_state()
    assert all(before.values())
    if not case.collect(check=True).blobs:
        garbage(case.registry)
    done = cut_off(case, *step)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert case.state.joinpath("maintenance.json").exists()
    assert case.collect(check=True).recovered
    # Pulls go on until somebody recovers, or the next collection does it first.
    case.registry.wait()
    assert pulled(case.registry) == before
    if STEPS.index(step) in (2, 6):
        assert case.collect().recovered
        assert not case.collect(check=True).changed
    else:
        assert case.recover().pid > 0
        assert case.recover() is None
    case.assert_as_before(config)
    assert pulled(case.registry) == before


@pytest.mark.parametrize(
    ("step", "how"),
    [(STEPS[2], "SIGTERM"), (STEPS[4], "SIGHUP"), (STEPS[7], "SIGTERM"), (STEPS[10], "SIGINT")],
)
def test_a_signal_ends_it_with_the_server_as_it_was(shared, step, how):
    case = shared
    before, config = pulled(case.registry), case.config_state()
    garbage(case.registry)
    done = cut_off(case, *step, how)
    if step == STEPS[10]:  # too late to matter: it was on its way out
        assert done.returncode == 0, done.stderr
    else:
        assert f"garbage collection was ended by {how}" in done.stderr
    case.assert_as_before(config)
    assert pulled(case.registry) == before


def test_the_original_configuration_alone_is_enough_to_recover(shared):
    """The state directory was lost, as on an appliance whose root is rebuilt at boot."""
    case, config = shared, shared.config_state()
    garbage(case.registry)
    assert cut_off(case, *STEPS[6]).returncode == -signal.SIGKILL
    shutil.rmtree(case.state)
    case.state.mkdir()
    with pytest.raises(ReadOnly):
        case.registry.client().put_blob("app", b"refused")
    assert case.recover().phase == "unknown"
    case.assert_as_before(config)


def test_a_newer_configuration_is_not_lost(shared):
    """site.yml came between a maintenance that was killed and its recovery."""
    case, config = shared, shared.config_state()
    garbage(case.registry)
    assert cut_off(case, *STEPS[3]).returncode == -signal.SIGKILL
    case.registry.wait()
    text = f"# newer\n{config[0].decode()}"
    case.config_file.write_text(text, encoding="utf-8")
    newer = case.config_state()
    assert case.recover()
    case.assert_as_before(newer)


@pytest.mark.parametrize("by", ["recover", "the next collection"])
def test_a_server_that_was_left_stopped_is_started(shared, by):
    case, config = shared, shared.config_state()
    garbage(case.registry)
    assert cut_off(case, *STEPS[3]).returncode == -signal.SIGKILL
    case.registry.stop()
    assert case.recover() if by == "recover" else case.collect().recovered
    case.assert_as_before(config)


def test_a_server_that_somebody_stopped_stays_stopped(shared):
    shared.registry.stop()
    try:
        with pytest.raises(HomelabError, match=f"container {shared.registry.name} is not running: exited"):
            shared.collect()
    finally:
        shared.registry.start()


# --- refusals ----------------------------------------------------------------------------------------------------
def test_if_the_server_judges_otherwise_nothing_is_swept(shared, monkeypatch):
    case, config = shared, shared.config_state()
    garbage(case.registry)
    stored = content_bytes(case.registry)
    real = maintenance.plan_garbage
    planned = []

    def forgets_one(*args):
        plan = real(*args)
        planned.append(plan.sweep.blobs.pop())
        return plan

    monkeypatch.setattr(maintenance, "plan_garbage", forgets_one)
    with pytest.raises(Refused, match="disagree: it would delete blobs that we would keep: sha256:") as caught:
        case.collect()
    assert planned[-1] in str(caught.value)
    assert content_bytes(case.registry) == stored
    case.assert_as_before(config)


def test_damage_that_cannot_be_mended_is_explained(case):
    content = Content()
    made = images.single(content, "app", "v1")
    content.push(case.registry.client())
    garbage(case.registry)
    digits = made["digest"].partition(":")[2]
    (case.registry.v2 / "blobs/sha256" / digits[:2] / digits / "data").write_text("")
    started = case.started()
    with pytest.raises(Refused, match=f"would stop: the manifest {made['digest']} in app cannot be read"):
        case.collect()
    assert case.started() == started
    # As damaged content it is removed, and then the rest can be swept.
    report = case.collect(damaged=[made["digest"]])
    assert (report.damaged, len(report.refusals)) == ([made["digest"]], 1)
    assert case.collect().blobs
    content.push(case.registry.client())
    assert_whole(case.registry.client())


def test_a_single_tag_is_removed(shared):
    case = shared
    content = Content()
    images.single(content, "two/names", "kept", layers=[images.data("two names")])
    digest = content.repositories["two/names"]["tags"]["kept"]
    content.repositories["two/names"]["tags"]["doomed"] = digest
    content.push(case.registry.client())
    report = case.collect(tag_links=[("two/names", "doomed", digest), ("two/names", "kept", "sha256:" + "0" * 64)])
    assert (report.tags, len(report.left)) == (["two/names:doomed"], 1)
    assert case.registry.client().tags("two/names") == ["kept"]
    assert parts(case.registry.client(), "two/names", "kept")


def test_tls_accounts_and_secrets(registries, tmp_path):
    """config.yml is its user's alone, and stays so; deletion by API is off, which does not matter here."""
    registry = registries.start(tls=True, users=("alice",), delete=False, config={"http": {"secret": "S3cret"}})
    case = Case(registry, tmp_path)
    case.config_file.chmod(0o400)
    content = Content()
    images.multi(content, "app", "v1")
    content.push(registry.client())
    registry.client().put_blob("app", b"garbage")
    config, seen = case.config_state(), []

    def look(_step):
        seen.extend(path.stat() for path in registry.config_dir.glob("*config.yml*"))

    report = case.collect(progress=look)
    assert report.blobs == 1
    assert {(state.st_mode & 0o777, state.st_uid) for state in seen} == {(0o400, os.getuid())}
    assert len(seen) > len(list(registry.config_dir.glob("*config.yml*")))
    case.assert_as_before(config)
    assert_whole(registry.client())
    assert "S3cret" not in str(report)
    started = case.started()
    registry.client().put_blob("app", b"more garbage")
    for access, said in (
        ({**registry.access(), "password": "wrong"}, "refuses the account alice"),
        (registry.access(None), "give an account"),
        ({**registry.access(), "ca_path": None}, "certificate"),
    ):
        with pytest.raises(HomelabError, match=said):
            case.collect(access=access)
    assert case.started() == started


def test_an_object_store(shared, monkeypatch):
    """Without a tree within reach: the same window, and the server's own garbage collection alone in it. Here the
    storage is a directory after all, which is not looked at."""

    class Remote(server_module.Server):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            self.driver, self.root = "s3", None

    monkeypatch.setattr(maintenance, "Server", Remote)
    case, config = shared, shared.config_state()
    garbage(case.registry)
    before, stored = pulled(case.registry), content_bytes(case.registry)
    foreseen = case.collect(check=True, tag_links=[("app", "v1", "sha256:" + "0" * 64)])
    assert (foreseen.freed, content_bytes(case.registry)) == (None, stored)
    assert foreseen.left == ["app:v1: only the filesystem driver's data is within reach"]
    report = case.collect()
    assert report.blobs == foreseen.blobs > 0
    assert (report.freed, report.verified) == (None, None)
    assert content_bytes(case.registry) < stored
    case.assert_as_before(config)
    assert pulled(case.registry) == before
    # What assert_as_before has written is all the garbage there is now.
    assert case.collect(check=True).blobs == 1


def test_one_that_is_read_only_stays_read_only(registries, tmp_path):
    case = Case(registries.start(), tmp_path)
    garbage(case.registry)
    case.registry.configure({"storage": {"maintenance": {"readonly": {"enabled": True}}}})
    config = case.config_state()
    assert case.collect().blobs
    assert case.config_state() == config
    with pytest.raises(ReadOnly):
        case.registry.client().put_blob("app", b"refused")


def test_what_it_is_not_for(shared, registries, tmp_path, monkeypatch):
    case, started, config = shared, shared.started(), shared.config_state()
    garbage(case.registry)
    foreign = f"{case.registry.name}-foreign"
    docker("create", "--name", foreign, "--label", "homelab-registry-test=0", case.registry.image)
    try:
        for host, said in (
            ({"container": "no-such-container"}, "there is no container no-such-container"),
            ({"container": foreign}, f"the container {foreign} was not made by site.yml"),
            ({"docker_host": f"unix://{tmp_path}/none.sock"}, "no Docker engine answers"),
            ({"docker_host": "tcp://somewhere:2375"}, "is not a unix socket"),
            ({"data_path": str(tmp_path)}, f"not {tmp_path}"),
            ({"config_path": str(tmp_path)}, f"not {tmp_path}"),
            ({"contaner": "x"}, "unknown key 'contaner'"),
        ):
            with pytest.raises(HomelabError, match=said):
                case.collect(host)
    finally:
        docker("rm", "-f", foreign)
    with pytest.raises(HomelabError, match="among the registry's data"):
        case.collect(state_dir=case.registry.data / "state")
    # Somebody else's turn: by another state_dir, or in a container of another machine's making.
    handle = os.open(case.registry.config_dir, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another maintenance"):
            case.collect()
    finally:
        os.close(handle)
    helper = f"{case.registry.name}-garbage-collect"
    docker("run", "-d", "--name", helper, "--network", "none", case.registry.image)
    try:
        with pytest.raises(HomelabError, match="a garbage collection is under way"):
            case.collect()
    finally:
        docker("rm", "-f", helper)
    assert case.started() == started
    # The address is another registry's: this one does not become read-only.
    other = registries.start()
    monkeypatch.setattr(server_module, "PATIENCE", 1)
    with pytest.raises(HomelabError, match="still takes writes"):
        case.collect(access=other.access())
    case.registry.wait()
    case.assert_as_before(config)


# --- its faces ---------------------------------------------------------------------------------------------------
def test_registryctl(shared, tmp_path, capsys):
    case = shared
    garbage(case.registry)
    config = tmp_path / "registryctl.json"
    settings = {"registry": case.registry.access(), "host": case.host, "state_dir": str(tmp_path / "state")}
    config.write_text(json.dumps(settings), encoding="utf-8")
    assert cli.main(["recover", "--config", str(config)]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["gc", "--config", str(config), "--dry-run"]) == 0
    (count,) = re.findall(r"Would remove (\d+) blobs", capsys.readouterr().out)
    assert not Path(tmp_path / "state/gc.json").exists()
    assert cli.main(["gc", "--config", str(config)]) == 0
    out = capsys.readouterr()
    assert out.out.startswith(f"Removed {count} blobs")
    assert "Writes were refused for" in out.out
    assert f"sweeping {count} blobs" in out.err
    kept = json.loads((tmp_path / "state/gc.json").read_text(encoding="utf-8"))
    assert (kept["blobs"], kept["changed"]) == (int(count), True)
    assert cli.main(["gc", "--config", str(config), "--json"]) == 0
    out = capsys.readouterr()
    assert (json.loads(out.out)["changed"], out.err) == (False, "")
    config.write_text(json.dumps({**settings, "host": {**case.host, "container": "none-such"}}), encoding="utf-8")
    assert cli.main(["gc", "--config", str(config)]) == 2
    assert "there is no container none-such" in capsys.readouterr().err
    assert "error" in json.loads((tmp_path / "state/gc.json").read_text(encoding="utf-8"))


def test_the_module(shared, tmp_path, capsys):
    case = shared
    garbage(case.registry)

    def run(**more):
        arguments = {**case.registry.access(), **case.host, "state_dir": str(tmp_path / "state"), **more}
        with patch_module_args(arguments), pytest.raises(SystemExit) as left:
            registry_gc.main()
        return json.loads(capsys.readouterr().out), left.value.code

    foreseen, code = run(_ansible_check_mode=True)
    assert (code, foreseen["changed"]) == (0, True)
    assert foreseen["blobs"] >= 3
    assert foreseen["diff"]["before"].startswith(f"{foreseen['blobs']} blobs without an image\n")
    result, code = run()
    assert (code, result["changed"]) == (0, True)
    assert (result["freed"], result["diff"]) == (foreseen["freed"], foreseen["diff"])
    result, code = run()
    assert (code, result["changed"], result["diff"]) == (0, False, {"before": "", "after": ""})
    result, code = run(container="none-such")
    assert code == 1
    assert "there is no container none-such" in result["msg"]
