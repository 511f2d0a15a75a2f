# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry keeps itself healthy: units under a real systemd, damage on its disk, a disk that fills up, a crash."""

import json
import sys
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import ReadOnly, Registry
from ansible_collections.homelab.registry.plugins.module_utils.oci.manifest import digest_of
from ansible_run import run_playbook
from testinfra_common import ADDRESSES, node, ok, wait_for
from upstream import layer, push

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from images import LAYER  # noqa: E402

URL = f"http://{ADDRESSES['lab-reg']}:5000"
UNIT = "homelab-registry"
DATA = "/srv/small/registry/data"
STATE = "/var/lib/homelab-registry"
MIRRORED = "lab-n12_5050/team/app"


@pytest.fixture
def host():
    return node("lab-reg")


@pytest.fixture
def registry():
    client = Registry(URL)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def told(host):
    """What somebody was told since the test began."""
    # also what it remembers to have told: the same is told once a day
    ok(host, f"rm -f /srv/told {STATE}/notified.json")
    return lambda: host.run("cat /srv/told").stdout


def start(host, job):
    """Start a job's service as its timer does; its exit code."""
    ok(host, f"systemctl reset-failed '{UNIT}-*'")
    return host.run(f"systemctl start {UNIT}-{job}.service").rc


def result(host, name):
    return json.loads(ok(host, f"cat {STATE}/{name}.json"))


def fill(host):
    return int(ok(host, "df --output=pcent /srv/small | tail -1").rstrip("%"))


def blob(digest):
    algorithm, digits = digest.split(":")
    return f"{DATA}/docker/registry/v2/blobs/{algorithm}/{digits[:2]}/{digits}/data"


# --- units ------------------------------------------------------------------------------------------------------
def test_everything_waits_for_its_time(host):
    for job in ("mirror", "cleanup", "verify", "guard"):
        assert host.service(f"{UNIT}-{job}.timer").is_running
        assert host.service(f"{UNIT}-{job}.timer").is_enabled
    assert host.service(f"{UNIT}-recover.service").is_enabled
    config = host.file("/etc/homelab-registry/registryctl.json")
    assert (config.mode, config.user) == (0o600, "root")
    ok(host, f"systemd-analyze verify /etc/systemd/system/{UNIT}-*.service /etc/systemd/system/{UNIT}-*.timer")


def test_a_message_arrives(host, told):
    ok(host, "registryctl notify --test")
    assert told().startswith("[info] notify\nlab-reg: registry says hello\n")


def test_a_job_that_is_switched_off_is_gone(host):
    assert run_playbook("site.yml", "--tags", "jobs", jobs_guard_on_calendar="").code == 0
    assert not host.file(f"/etc/systemd/system/{UNIT}-guard.timer").exists
    assert not host.file(f"/etc/systemd/system/{UNIT}-guard.service").exists
    assert not host.service(f"{UNIT}-guard.timer").is_running
    assert run_playbook("site.yml", "--tags", "jobs").code == 0
    assert host.service(f"{UNIT}-guard.timer").is_running


# --- damage -----------------------------------------------------------------------------------------------------
def test_damage_is_found_told_and_healed(host, registry, told):
    assert start(host, "verify") == 0
    assert result(host, "verify")["whole"] is True
    lost = digest_of(LAYER[0])
    ok(host, f"truncate -s 100 {blob(lost)}")
    assert start(host, "verify") != 0
    wait_for("the failure is told", lambda: f"damaged images: {MIRRORED}:1.0" in told())
    run = run_playbook("verify.yml")
    assert run.code != 0
    run.says(f"{MIRRORED}:1.0", "has 100 bytes instead of", "mirror.yml -e heal=true")
    run = run_playbook("mirror.yml", "--check", heal=True)
    assert run.code == 0, run.output
    run.says("would copy")
    run = run_playbook("mirror.yml", heal=True)
    assert run.code == 0, run.output
    run.says("copied")
    assert run_playbook("verify.yml", deep=True).code == 0
    assert digest_of(registry.get_blob(MIRRORED, lost)) == lost
    assert "no mirrored image is damaged" in host.run("registryctl mirror --heal").stderr
    name = f"lab-reg:5000/{MIRRORED}:1.0"
    ok(node("lab-n12"), f"docker rmi -f {name} 2>/dev/null; docker pull -q {name}")


# --- a disk that fills up -----------------------------------------------------------------------------------------
def test_a_full_disk_is_cleaned_up_by_the_policy(host, registry, told):
    tags = [f"1.0.{number}" for number in range(8)]
    digests = {}
    for tag in tags:
        digests[tag] = push(registry, "team/big", tag, [layer(f"big {tag}", 9 << 20)], platforms=("linux/amd64",))
    assert fill(host) >= 75
    assert start(host, "guard") == 0
    assert fill(host) < 75
    assert registry.tags("team/big") and set(registry.tags("team/big")) == set(tags[-2:])
    guard = result(host, "guard")
    assert (guard["level"], guard["cleanup"]["failed"], guard["concern"]) == ("ok", False, None)
    assert told() == ""
    assert start(host, "verify") == 0
    for tag in tags[-2:]:
        assert registry.head_manifest("team/big", tag) == digests[tag]


def test_what_the_policy_keeps_is_not_deleted_however_full_it_is(host, registry, told):
    before = {name: registry.tags(name) for name in registry.catalog()}
    ok(host, "fallocate -l 70M /srv/small/film")
    try:
        ok(host, f"rm -f {STATE}/guard.json")  # an hour later
        assert start(host, "guard") == 0, "it has told, and is no failed unit"
        assert told().count("the registry's disk is nearly full") == 1
        assert "[critical] guard" in told()
        start(host, "guard")
        assert told().count("nearly full") == 1
    finally:
        ok(host, "rm /srv/small/film")
    start(host, "guard")
    assert "has space again" in told()
    assert {name: registry.tags(name) for name in registry.catalog()} == before


# --- a clean-up as it is typed ------------------------------------------------------------------------------------
def test_what_a_node_or_a_board_runs_stays(host, registry):
    """The board is the stand-in for k3s with a real containerd; its containers are what CRI tells of a pod's."""
    board, docker_node = node("lab-k3s-server"), node("lab-n12")
    name = "lab-reg:5000/team/used"

    def bring(*numbers):
        for number in numbers:
            push(registry, "team/used", f"1.0.{number}", [layer(f"used {number}", 1 << 16)])

    bring(1, 2, 3)
    ok(board, f"k3s crictl pull {name}:1.0.1 && k3s ctr -n k8s.io container create {name}:1.0.1 used")
    ok(docker_node, f"docker pull -q {name}:1.0.2 && docker create --name used {name}:1.0.2 nothing")
    bring(4, 5, 6)
    try:
        planned = run_playbook("cleanup.yml", "--check", "--diff")
        assert planned.code == 0, planned.output
        planned.says("team/used:1.0.3 absent", "in use")
        assert len(registry.tags("team/used")) == 6
        run = run_playbook("cleanup.yml")
        assert (run.code, run.changed("lab-reg")) == (0, 1), run.output
        assert sorted(registry.tags("team/used")) == [f"1.0.{number}" for number in (1, 2, 5, 6)]
        run = run_playbook("cleanup.yml")
        assert (run.code, run.changed("lab-reg")) == (0, 0), run.output

        # A board that does not answer: what it used when asked last stays, and all else in the same repository.
        ok(board, "systemctl stop k3s")
        bring(7, 8)
        run = run_playbook("cleanup.yml")
        assert run.code == 0, run.output
        run.says("lab-k3s-server could not be asked")
        assert len(registry.tags("team/used")) == 6
    finally:
        board.run("systemctl start k3s; k3s ctr -n k8s.io container rm used")
        docker_node.run("docker rm used")


# --- a crash ------------------------------------------------------------------------------------------------------
def test_a_registry_that_a_crash_left_read_only_comes_back_at_boot(host, registry):
    push(registry, "team/gone", "1", [layer("gone", 1 << 16)])
    deleted = registry.head_manifest("team/gone", "1")
    assert registry.delete_manifest("team/gone", deleted).status == 202
    # A loop that sees the marker the moment it is written, and a kill that lets nothing be undone.
    ok(
        host,
        "registryctl gc >/dev/null 2>&1 & pid=$!; "
        f"while kill -0 $pid && ! grep -q sweeping {STATE}/maintenance.json; do :; done 2>/dev/null; "
        "kill -9 $pid; true",
    )
    registry.close()
    with pytest.raises(ReadOnly):
        registry.start_upload("team/app")
    assert start(host, "recover") == 0
    assert registry.start_upload("team/app")
    assert not host.file(f"{STATE}/maintenance.json").exists
    assert start(host, "cleanup") == 0
    assert run_playbook("site.yml").changed("lab-reg") == 0, "the maintenance left the container as it was"


def test_down_takes_the_units_away(host):
    run = run_playbook("down.yml", down_purge=True)
    assert run.code == 0, run.output
    assert ok(host, f"ls /etc/systemd/system | grep -c {UNIT} || true") == "0"
    ok(host, "umount /srv/small")
