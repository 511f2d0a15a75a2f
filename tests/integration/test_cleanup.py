# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clean-ups of real registries: what stays is whole to the last byte, what was to go is gone, and so is its space."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import cli, lock
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.retention.run import prepare
from ansible_collections.homelab.registry.plugins.module_utils.storage.tree import Tree
from ansible_collections.homelab.registry.plugins.module_utils.storage.verify import verify
from ansible_collections.homelab.registry.tests.integration.real_images import Content, assert_whole
from ansible_collections.homelab.registry.tests.unit import images

DAY = 86400
CLI = "from ansible_collections.homelab.registry.plugins.module_utils import cli"
PROGRAM = f"import sys; {CLI}; sys.exit(cli.main(sys.argv[1:]))"


def age(server, repository, **days):
    """Set back when tags, and the manifests that they stand on, were pushed: tag to days."""
    manifests = server.v2 / "repositories" / repository / "_manifests"
    for tag, passed in days.items():
        at = time.time() - passed * DAY
        link = manifests / "tags" / tag.replace("_", ".") / "current" / "link"
        os.utime(link, (at, at))
        waiting = [link.read_text()]
        while waiting:
            digest = waiting.pop()
            os.utime(manifests / "revisions" / digest.replace(":", "/") / "link", (at, at))
            blob = server.v2 / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data"
            waiting += [child["digest"] for child in json.loads(blob.read_text()).get("manifests", ())]


def push(server, make):
    """Push what `make(content)` makes; the digests by name that it returns."""
    content = Content()
    made = make(content)
    client = server.client()
    try:
        content.push(client)
    finally:
        client.close()
    return made


def single(content, repository, tag, **more):
    layers = [images.data("base", 50_000), images.data(f"{repository} {tag}", 20_000)]
    return images.single(content, repository, tag, layers=layers, **more)["digest"]


def settings(server, tmp_path, **policy):
    return {
        **server.access(),
        "policy": {"max_delete_share": 1, **policy},
        "host": server.host(),
        "state_dir": str(tmp_path / "state"),
    }


def clean(server, tmp_path, check=False, **policy):
    return prepare(settings(server, tmp_path, **policy)).run(check=check)


def results(report):
    return {f"{one['repository']}:{one['tag']}": one["result"] for one in report.items() if one["tag"]}


def stored(server):
    return sum(Tree(server.data).blobs().values())


def tags(server, repository):
    client = server.client()
    try:
        return set(client.tags(repository) or ())
    finally:
        client.close()


def assert_healthy(server):
    """Every tag is complete on disk, byte for byte, and for whoever pulls it; nothing is there that no tag needs."""
    found = verify(Tree(server.data), deep=True)
    assert not found.damages, found.damages
    client = server.client()
    try:
        assert_whole(client)
    finally:
        client.close()


# --- one after the other --------------------------------------------------------------------------------------------
def test_from_the_plan_to_free_space(registries, tmp_path):
    server = registries.start()

    def make(content):
        for number in range(1, 6):
            images.multi(content, "team/app", f"1.{number}", layers=[images.data("base", 50_000)])
        single(content, "team/app", "latest")
        single(content, "other", "1")

    push(server, make)
    age(server, "team/app", **{f"1_{number}": 60 - number for number in range(1, 6)})
    before = stored(server)
    planned = clean(server, tmp_path, check=True, keep_last=2, max_age=30)
    assert stored(server) == before
    assert results(planned) == {f"team/app:1.{number}": "would delete" for number in range(1, 5)}
    report = clean(server, tmp_path, keep_last=2, max_age=30)
    assert results(report) == dict.fromkeys(results(planned), "deleted")
    assert [(one["tag"], one["rule"], one["freed"]) for one in report.items()] == [
        (one["tag"], one["rule"], one["freed"]) for one in planned.items()
    ], "check mode is the plan of a run"
    assert (report.trouble, report.changed) == (None, True)
    assert tags(server, "team/app") == {"1.5", "latest"}
    assert before - stored(server) == report.plan.freed == planned.plan.freed
    assert report.collected["freed"] == report.plan.freed
    assert_healthy(server)
    again = clean(server, tmp_path, keep_last=2, max_age=30)
    assert (again.changed, again.items(), again.collected["changed"]) == (False, [], False)


def test_a_single_tag_on_any_version(registries, tmp_path):
    """By the API on 3.x, on 2.x by its link in the maintenance window."""
    server = registries.start()

    def make(content):
        digest = single(content, "app", "v1")
        content.repository("app")["tags"]["keep"] = digest
        single(content, "app", "v2")

    push(server, make)
    age(server, "app", v1=50, keep=50)
    report = clean(server, tmp_path, keep_last=1, protect="keep")
    assert results(report) == {"app:v1": "tag removed"}
    assert tags(server, "app") == {"keep", "v2"}
    assert_healthy(server)
    if server.major == 2:
        push(server, make)
        age(server, "app", v1=50, keep=50)
        report = prepare({**settings(server, tmp_path, keep_last=1, protect="keep"), "gc": False}).run()
        assert results(report) == {"app:v1": "left"}
        assert tags(server, "app") == {"keep", "v1", "v2"}


def test_signatures_and_shared_blobs(registries, tmp_path):
    server = registries.start()

    def make(content):
        made = {tag: single(content, "app", tag) for tag in ("v1", "v2", "v3")}
        for tag in ("v1", "v3"):
            single(content, "app", f"sha256-{made[tag][7:]}.sig")
        # the same image in another repository, where it stays
        images.single(content, "copy", "v1", layers=[images.data("base", 50_000), images.data("app v1", 20_000)])
        return made

    made = push(server, make)
    age(server, "app", v1=50, v2=49, v3=48)
    report = clean(server, tmp_path, keep_last=1, rules=[{"repositories": "copy", "keep_last": 9}])
    assert tags(server, "app") == {"v3", f"sha256-{made['v3'][7:]}.sig"}
    assert tags(server, "copy") == {"v1"}
    assert report.trouble is None
    assert_healthy(server)


def test_what_is_in_use_stays_by_any_of_its_digests(registries, tmp_path):
    server = registries.start()

    def make(content):
        multi = images.multi(content, "app", "v1")
        made = [single(content, "app", f"v{number}") for number in (2, 3, 4)]
        config = json.loads(content.repository("app")["manifests"][made[0]][1])["config"]["digest"]
        return multi, config

    multi, config = push(server, make)
    age(server, "app", v1=60, v2=59, v3=58, v4=57)
    used = {"docker": {"digests": [config]}, "k3s": {"digests": [multi]}}
    request = {**settings(server, tmp_path, keep_last=1), "used": used, "nodes": ["docker", "k3s"]}
    assert set(results(prepare(request).run(check=True))) == {"app:v3"}
    assert not (tmp_path / "state" / "in-use.json").exists(), "a dry run writes nothing"
    report = prepare(request).run()
    assert results(report) == {"app:v3": "deleted"}
    # later by a timer, which cannot ask: it goes by what they said
    del request["used"]
    assert results(prepare({**request, "in_use_days": 1}).run()) == {}
    assert prepare({**request, "nodes": ["docker", "k3s", "new"]}).run().items() == []
    notes = " ".join(prepare({**request, "nodes": ["docker", "k3s", "new"]}).run(check=True).notes)
    assert "new was never asked" in notes


def test_a_registry_over_its_api_alone(registries, tmp_path):
    server = registries.start(users=("alice",), tls=True)

    def make(content):
        for number in range(1, 5):
            images.multi(content, "app", f"v{number}")

    push(server, make)
    request = {**settings(server, tmp_path, keep_last=2), "host": None}
    assert results(prepare(request).run()) == {"app:v1": "deleted", "app:v2": "deleted"}
    assert tags(server, "app") == {"v3", "v4"}
    assert_healthy(server)


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def filled(registries):
    def start(**options):
        server = registries.start(**options)
        push(server, lambda content: [single(content, "app", f"v{number}") for number in range(1, 5)])
        age(server, "app", v1=60, v2=59, v3=58, v4=57)
        return server

    return start


def test_delete_disabled(filled, tmp_path):
    server = filled(delete=False)
    with pytest.raises(HomelabError, match="does not delete anything") as caught:
        clean(server, tmp_path, keep_last=1)
    assert "registry_delete_enabled: true" in caught.value.remedy
    assert len(tags(server, "app")) == 4


def test_read_only(filled, tmp_path):
    server = filled()
    server.configure({"storage": {"maintenance": {"readonly": {"enabled": True}}}})
    with pytest.raises(HomelabError, match="is read-only") as caught:
        clean(server, tmp_path, keep_last=1)
    assert "registry_readonly: false" in caught.value.remedy


def test_not_running(filled, tmp_path):
    server = filled()
    server.stop()
    with pytest.raises(HomelabError, match="is not running"):
        clean(server, tmp_path, keep_last=1)
    with pytest.raises(HomelabError):
        prepare({**settings(server, tmp_path, keep_last=1), "host": None}).run()
    server.start()
    assert len(tags(server, "app")) == 4


def test_too_much(filled, tmp_path):
    server = filled()
    report = clean(server, tmp_path, keep_last=1, max_delete_share=0.5)
    assert "3 of 4 tags would go" in report.refused
    assert set(results(report).values()) == {"refused"}
    assert not report.changed
    assert len(tags(server, "app")) == 4
    assert results(clean(server, tmp_path, keep_last=1, max_delete_share=0.5, force=True))["app:v1"] == "deleted"


# --- the program ------------------------------------------------------------------------------------------------------
@pytest.fixture
def config(tmp_path):
    def write(server, **policy):
        path = tmp_path / "registryctl.json"
        state = str(tmp_path / "state")
        document = {
            "registry": server.access(),
            "host": server.host(),
            "cleanup": {"policy": {"max_delete_share": 1, **policy}},
            "state_dir": state,
        }
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return str(path)

    return write


def test_registryctl(filled, tmp_path, config, capsys):
    server = filled()
    path = config(server, keep_last=3)
    result = tmp_path / "cleanup.json"
    options = ["cleanup", "--config", path, "--keep-last", "2", "--max-age", "30", "--result", str(result)]
    assert cli.main([*options, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "would delete" in said
    assert "not among the last 2, older than 30 d" in said
    assert len(tags(server, "app")) == 4
    with lock.hold(tmp_path / "state" / "lock", exclusive=False, verb="registryctl mirror"):
        assert cli.main(options) == 75
    assert "registryctl mirror" in capsys.readouterr().err
    assert cli.main([*options, "--json"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["tags"] == {"keep": 2, "delete": 2, "tag only": 0}
    assert "app:v1: deleted" in out.err
    assert json.loads(result.read_text())["garbage"]["freed"] > 0
    assert cli.main([*options, "--protect", "v3", "--all", "--dry-run"]) == 0
    assert "protected by v3" in capsys.readouterr().out
    assert cli.main(["cleanup", "--config", path, "--keep-last", "-1"]) == 2
    assert "keep_last is -1" in capsys.readouterr().err


def test_no_rights_on_the_data(filled, config):
    """As an ordinary user, to whom neither the data nor the engine belong."""
    if os.getuid():
        pytest.skip("needs root, to become somebody else")
    server = filled()
    (server.data / "docker").chmod(0o700)
    path = config(server, keep_last=1)
    Path(path).chmod(0o644)
    # All of the program, before its files are out of reach, too.
    somebody = f"import locale, os; {CLI}; cli._parser(['cleanup'])"
    somebody += f"; os.setgroups([]); os.setgid(65534); os.setuid(65534); {PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", somebody, "cleanup", "--config", path, "--dry-run"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2, done.stdout
    assert "run it as root" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_killed_in_the_middle(registries, tmp_path, config):
    """At several points: nothing with a tag is broken, and the next run does the rest."""
    server = registries.start()

    def make(content):
        for number in range(10):
            images.multi(content, "app", f"v{number}")

    push(server, make)
    age(server, "app", **{f"v{number}": 60 - number for number in range(10)})
    path = config(server, keep_last=1)
    for lines in (1, 5, 9):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "cleanup", "--config", path, "--no-gc"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _number in range(lines):
            process.stderr.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stderr.close()
        assert_healthy(server)
        assert "v9" in tags(server, "app")
    report = clean(server, tmp_path, keep_last=1)
    assert tags(server, "app") == {"v9"}
    assert report.trouble is None
    assert_healthy(server)


# --- random registries and policies -----------------------------------------------------------------------------------
def random_content(content, rnd):
    for name in rnd.sample(["app", "team/app", "team/tool", "lib", "quay.io/x/y"], rnd.randint(1, 4)):
        made = []
        for number in range(rnd.randint(1, 9)):
            tag = rnd.choice([f"v{number}", f"1.{number % 3}.{number}", f"main-{number}", "latest", None])
            layers = [images.data(f"layer {rnd.randrange(12)}", 3000) for _other in range(rnd.randint(1, 3))]
            kind = rnd.random()
            if kind < 0.55 or not made:
                docker = rnd.random() < 0.3
                made.append(images.single(content, name, tag, layers=layers, docker=docker))
            elif kind < 0.85:
                children = [
                    images.single(content, name, None, layers=layers, platform=platform)
                    for platform in rnd.sample(images.PLATFORMS, rnd.randint(1, 3))
                ]
                children += [rnd.choice(made)] if rnd.random() < 0.3 else []
                children = [{"platform": images.platform_of("linux/amd64"), **child} for child in children]
                digest = images.index(content, name, tag, children)
                data = content.repository(name)["manifests"][digest][1]
                made.append({"mediaType": images.OCI_INDEX, "digest": digest, "size": len(data)})
            else:
                subject = rnd.choice(made)
                signature = f"sha256-{subject['digest'][7:]}{rnd.choice(['.sig', '.att', ''])}"
                images.single(content, name, signature, layers=layers, subject=subject)
            if tag and rnd.random() < 0.25:
                content.repository(name)["tags"][f"also-{number}"] = made[-1]["digest"]


def random_policy(rnd):
    policy = {"force": True, "keep_min": rnd.choice([0, 1, 2]), "untagged_grace": rnd.choice([0, 7, 40])}
    if rnd.random() < 0.8:
        policy["keep_last"] = rnd.randint(1, 4)
    if rnd.random() < 0.6 or "keep_last" not in policy:
        policy["max_age"] = rnd.randint(1, 60)
    if rnd.random() < 0.4:
        policy["group"] = rnd.choice(["minor", "^(v|main|1)"])
    if rnd.random() < 0.4:
        policy["protect"] = rnd.choice(["latest", "v1", "also-*", "team/*:v*"])
    return policy


@pytest.mark.parametrize("seed", range(8))
def test_any_registry_under_any_policy(registries, tmp_path, seed):
    """A kept tag stays completely pullable, a doomed one is gone, and the plan's bytes are what becomes free."""
    rnd = random.Random(seed)
    server = registries.start(cache=rnd.choice(["inmemory", None]))
    push(server, lambda content: random_content(content, rnd))
    manifests = [*server.v2.glob("repositories/**/_manifests/revisions/sha256/*/link")]
    for link in sorted([*manifests, *server.v2.glob("repositories/**/_manifests/tags/*/current/link")]):
        at = time.time() - rnd.uniform(0, 80) * DAY
        os.utime(link, (at, at))
    policy = random_policy(rnd)
    prepare({**settings(server, tmp_path), "policy": {}}).run()  # what no manifest needs goes first
    before = stored(server)
    report = clean(server, tmp_path, **policy)
    assert report.trouble is None, report.trouble
    assert not [one for one in report.items() if one["result"] not in ("deleted", "tag removed")], report.items()
    left = {f"{one.repository}:{one.tag}": one.action for one in report.plan.decisions if one.tag is not None}
    for name, action in left.items():
        repository, _colon, tag = name.rpartition(":")
        assert (tag in tags(server, repository)) == (action == "keep"), (name, action, policy)
    assert before - stored(server) == report.plan.freed == report.collected["freed"]
    assert_healthy(server)
    again = clean(server, tmp_path, **policy)
    assert not again.items(), "a second run finds nothing more"
