# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mirror.yml against an upstream with TLS and a login, and what nodes can do with the result.

The upstream is the server under test, not Docker Hub, which cannot be had here.
"""

import json
import re

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_run import PROJECT, run_playbook
from testinfra_common import ADDRESSES, node, ok
from upstream import ACCOUNT, PLATFORMS, push, sign, upstream

UPSTREAM = "lab-n13:5443"
#: Where its images lie in the mirror.
PATH = "lab-n13_5443"
MIRROR = f"http://{ADDRESSES['lab-reg']}:5000"


def mirror(*options, **variables):
    return run_playbook("mirror.yml", *options, **variables)


@pytest.fixture
def target():
    registry = Registry(MIRROR)
    yield registry
    registry.close()


@pytest.fixture
def source():
    registry = upstream()
    yield registry
    registry.close()


class AccessLog:
    """The upstream's requests since this object was made."""

    def __init__(self):
        self._begin = len(self._lines())

    @staticmethod
    def _lines():
        log = ok(node("lab-n13"), "docker logs upstream 2>&1")
        found = []
        for line in log.splitlines():
            request = re.search(r'http\.request\.method=(\w+).*http\.request\.uri="?([^" ]+)', line)
            if request and "response completed" in line:
                found.append(f"{request[1]} {request[2]}")
        return found

    def requests(self, part=""):
        return [line for line in self._lines()[self._begin :] if part in line]


# --- what converge has done -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["team/app:1.0", "team/app:1.1", "team/app:1.2"])
def test_the_digest_is_the_upstreams(source, target, name):
    repository, tag = name.split(":")
    assert target.head_manifest(f"{PATH}/{repository}", tag) == source.head_manifest(repository, tag)


def test_a_node_pulls_its_platform_by_digest(target):
    digest = target.head_manifest(f"{PATH}/team/app", "1.2")
    host = node("lab-n12")
    name = f"lab-reg:5000/{PATH}/team/app@{digest}"
    ok(host, f"docker pull {name}")
    assert ok(host, f"docker image inspect -f '{{{{.Architecture}}}}' {name}") == "amd64"


def test_the_other_platforms_are_complete(target):
    """No board is here to pull them; every manifest and blob is asked for instead."""
    index = target.read_manifest(f"{PATH}/team/app", "1.2")
    assert [str(child.platform) for child in index.children] == list(PLATFORMS)
    for child in index.children:
        manifest = target.read_manifest(f"{PATH}/team/app", child.digest)
        for blob in manifest.blobs:
            assert target.stat_blob(f"{PATH}/team/app", blob.digest) == blob.size


def test_a_selection_of_platforms_is_a_valid_index(source, target):
    index = target.read_manifest(f"{PATH}/team/tool", "stable")
    assert [str(child.platform) for child in index.children] == ["linux/amd64", "linux/arm64"]
    assert source.head_manifest("team/tool", "stable") in index.annotations.values()
    ok(node("lab-n12"), f"docker pull lab-reg:5000/{PATH}/team/tool:stable")


def test_what_was_not_listed_was_not_copied(target):
    assert target.head_manifest(f"{PATH}/team/tool", "edge") is None


# --- again --------------------------------------------------------------------------------------------------------
def test_a_second_run_costs_one_head_for_each_tag_and_no_pull():
    log = AccessLog()
    run = mirror()
    assert (run.code, run.changed("lab-reg")) == (0, 0), run.output
    manifests = log.requests("/manifests/")
    assert sorted(manifests) == [
        f"HEAD /v2/team/{name}"
        for name in ("app/manifests/1.0", "app/manifests/1.1", "app/manifests/1.2", "tool/manifests/stable")
    ]
    assert not log.requests("/blobs/")


def test_a_dry_run_says_what_would_travel_and_writes_nothing(target):
    log = AccessLog()
    run = mirror("--check", "--diff", images=f"{UPSTREAM}/team/tool:edge")
    assert (run.code, run.changed("lab-reg")) == (0, 1), run.output
    run.says(f"{PATH}/team/tool:edge absent", "would copy")
    assert target.head_manifest(f"{PATH}/team/tool", "edge") is None
    assert not log.requests("GET /v2/team/tool/blobs/")


def test_what_the_registry_has_does_not_travel_again(target):
    """The base layer is there through another repository; the log shows which blobs were fetched."""
    log = AccessLog()
    run = mirror(images=f"{UPSTREAM}/team/tool:edge")
    assert run.code == 0, run.output
    index = target.read_manifest(f"{PATH}/team/tool", "edge")
    blobs = {
        blob.digest
        for child in index.children
        for blob in target.read_manifest(f"{PATH}/team/tool", child.digest).blobs
    }
    fetched = [line.rpartition("/")[2] for line in log.requests("GET /v2/team/tool/blobs/")]
    assert len(fetched) == len(set(fetched)), "each at most once"
    assert set(fetched) < blobs, "some of them were mounted"


# --- what goes wrong ----------------------------------------------------------------------------------------------
def test_one_bad_image_among_good_ones(source, target):
    push(source, "team/late", "1", [])
    run = mirror(images=f"{UPSTREAM}/team/app:7.7,{UPSTREAM}/Team/App:1.0,{UPSTREAM}/team/late:1")
    assert run.code != 0
    run.says(f"{UPSTREAM}/team/app:7.7", "check the name and the tag", "has upper case")
    assert target.head_manifest(f"{PATH}/team/late", "1") == source.head_manifest("team/late", "1")


def upstreams(**changes):
    access = {"registry": UPSTREAM, **ACCOUNT, "ca_path": "/etc/ssl/lab-upstream-ca.crt", **changes}
    return [{key: value for key, value in access.items() if value is not None}]


TROUBLE = {
    "a wrong password": ({"mirror_upstreams": upstreams(password="canary-wrong-password")}, "401", "account"),
    "no account": ({"mirror_upstreams": upstreams(username=None, password=None)}, "401", "account"),
    "an unknown CA": ({"mirror_upstreams": upstreams(ca_path=None)}, "certificate", "ca_path"),
    "an upstream that is down": ({"images": "lab-n13:5999/team/app:1.0"}, "lab-n13:5999", "nothing listens there"),
    "an upstream without a name": ({"images": "nosuch.invalid/team/app:1.0"}, "nosuch.invalid", "check the name"),
    "plain HTTP": ({"mirror_upstreams": upstreams(url=f"http://{UPSTREAM}")}, "http://lab-n13:5443", "TLS"),
}


@pytest.mark.parametrize(("variables", "reason", "remedy"), TROUBLE.values(), ids=TROUBLE)
def test_trouble_is_named(target, variables, reason, remedy):
    run = mirror(**{"images": f"{UPSTREAM}/team/never:1", **variables})
    assert run.code != 0
    run.says(reason, remedy)
    assert "Traceback" not in run.output
    assert not target.tags(f"{PATH}/team/never")


def test_a_registry_that_is_readonly(target):
    assert run_playbook("site.yml", "--limit", "lab-reg", registry_readonly=True).code == 0
    try:
        run = mirror(images=f"{UPSTREAM}/team/app:1.0", mirror_name_template="other/{name}")
        assert run.code != 0
        run.says("read-only", f"{UPSTREAM}/team/app:1.0")
    finally:
        assert run_playbook("site.yml", "--limit", "lab-reg").code == 0
    assert not target.tags("other/app")


def test_passwords_stay_secret():
    run = mirror("-vvv", "--diff", images=f"{UPSTREAM}/team/app:1.0")
    assert run.code == 0, run.output
    assert ACCOUNT["password"] not in run.output
    journal = ok(node("lab-reg"), "journalctl --no-pager -q")
    assert ACCOUNT["password"] not in journal


# --- more than images ---------------------------------------------------------------------------------------------
def test_signatures_come_along_when_asked_for(source, target):
    digest = source.head_manifest("team/app", "1.0")
    tag = sign(source, "team/app", digest)
    assert target.head_manifest(f"{PATH}/team/app", tag) is None
    for changes in (1, 0):
        run = mirror(images=f"{UPSTREAM}/team/app:1.0", mirror_referrers=True)
        assert (run.code, run.changed("lab-reg")) == (0, changes), run.output
    assert target.head_manifest(f"{PATH}/team/app", tag) == source.head_manifest("team/app", tag)


def test_from_the_controller(target):
    """With its own way to the upstream: the address instead of the name."""
    name = "172.30.55.13:5443"
    ca = str(PROJECT / ".lab/mirror/ca.crt")
    run = mirror(
        images=f"{name}/team/app:1.0",
        mirror_run_on="controller",
        mirror_upstreams=[{"registry": name, **ACCOUNT, "ca_path": ca}],
        mirror_url=MIRROR,
        mirror_state_path=str(PROJECT / ".lab/mirror/state.json"),
    )
    assert run.code == 0, run.output
    assert target.head_manifest("172.30.55.13_5443/team/app", "1.0")


def test_tags_that_vanished_upstream_are_pruned_on_request_only(source, target):
    push(source, "team/old", "1", [])
    push(source, "team/old", "2", [], PLATFORMS[:1])
    listed = [{"name": f"{UPSTREAM}/team/old", "tags": "*"}]
    assert mirror(images=listed).code == 0
    source.delete_manifest("team/old", source.head_manifest("team/old", "1"))
    run = mirror(images=listed)
    assert (run.code, run.changed("lab-reg")) == (0, 0), run.output
    assert target.head_manifest(f"{PATH}/team/old", "1")
    run = mirror("--check", images=listed, mirror_prune=True)
    run.says("would prune", f"{PATH}/team/old:1")
    assert target.head_manifest(f"{PATH}/team/old", "1")
    run = mirror(images=listed, mirror_prune=True)
    assert (run.code, run.changed("lab-reg")) == (0, 1), run.output
    assert target.head_manifest(f"{PATH}/team/old", "1") is None
    assert target.head_manifest(f"{PATH}/team/old", "2")


# --- by itself ----------------------------------------------------------------------------------------------------
RESULT = "/var/lib/homelab-registry/mirror.json"


def test_the_timer_waits_and_its_settings_are_private():
    host = node("lab-reg")
    assert host.service("homelab-registry-mirror.timer").is_running
    assert host.service("homelab-registry-mirror.timer").is_enabled
    config = host.file("/etc/homelab-registry/registryctl.json")
    assert (config.mode, config.user) == (0o600, "root")
    assert json.loads(config.content_string)["mirror"]["images"]


def test_the_daily_run_mirrors_what_is_new(source, target):
    """Under systemd, with the unit's restrictions, by python3 alone."""
    host = node("lab-reg")
    push(source, "team/app", "1.3", [])
    since = ok(host, "date '+%F %T'")
    ok(host, "systemctl start homelab-registry-mirror.service")
    assert target.head_manifest(f"{PATH}/team/app", "1.3") == source.head_manifest("team/app", "1.3")
    result = json.loads(ok(host, f"cat {RESULT}"))
    assert [one["action"] for one in result["images"] if one["image"].endswith("app:1.3")] == ["copied"]
    journal = ok(host, f"journalctl -u homelab-registry-mirror -o cat --since '{since}'")
    assert f"{UPSTREAM}/team/app:1.3" in journal
    assert ACCOUNT["password"] not in journal + json.dumps(result)


def test_a_daily_run_that_fails_says_so(source):
    host = node("lab-reg")
    ok(host, "mv /etc/ssl/lab-upstream-ca.crt /etc/ssl/away")
    try:
        assert host.run("systemctl start homelab-registry-mirror.service").rc != 0
        images = json.loads(ok(host, f"cat {RESULT}"))["images"]
        assert {one["action"] for one in images} == {"failed"}
        assert "/etc/ssl/lab-upstream-ca.crt" in images[0]["reason"]
    finally:
        ok(host, "mv /etc/ssl/away /etc/ssl/lab-upstream-ca.crt")
    ok(host, "systemctl start homelab-registry-mirror.service")


def test_by_hand(target):
    host = node("lab-reg")
    assert "4 unchanged" in ok(host, "registryctl mirror") or "5 unchanged" in ok(host, "registryctl mirror")
    report = json.loads(ok(host, f"registryctl mirror --json --dry-run {UPSTREAM}/team/app:1.0"))
    assert [one["action"] for one in report["images"]] == ["unchanged"]
    refused = host.run("registryctl mirror Node:20")
    assert refused.rc != 0
    assert "upper case" in refused.stdout + refused.stderr


def test_who_deletes_has_the_registry_alone():
    host = node("lab-reg")
    ok(host, "flock --shared /var/lib/homelab-registry/lock registryctl mirror")
    busy = host.run("flock --shared /var/lib/homelab-registry/lock registryctl mirror --prune")
    assert busy.rc == 75
    assert "another run" in busy.stderr


def test_without_images_there_is_no_timer():
    run = run_playbook("site.yml", "--tags", "jobs", mirror_images=[])
    assert run.code == 0, run.output
    host = node("lab-reg")
    assert not host.file("/etc/systemd/system/homelab-registry-mirror.timer").exists
    assert run_playbook("site.yml", "--tags", "jobs").code == 0
    assert host.service("homelab-registry-mirror.timer").is_running
    assert run_playbook("site.yml", "--tags", "jobs").changed("lab-reg") == 0
