# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on an appliance without Python, used from a Docker node and a k3s board, and all that can happen to it."""

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from ansible_run import PROJECT, run_playbook
from former import IMAGES, URL, former
from testinfra_common import PAYLOAD, node, ok, wait_for
from upstream import Registry, layer, push

REGISTRY = "172.30.55.30:5000"
VOLUME = "/shares/Volume_1"
HOME = {"HOME": str(PROJECT / ".lab/home")}
SSH = [
    *("ssh", "-o", "BatchMode=yes", "-i", str(PROJECT / ".lab/home/.ssh/id_ed25519")),
    *("-o", f"UserKnownHostsFile={PROJECT / '.lab/home/.ssh/known_hosts'}", "sshd@172.30.55.30"),
]


def site(*options, **variables):
    """site.yml for the appliance alone."""
    return run_playbook("site.yml", "--limit", "lab-nas", *options, env=HOME, **variables)


def appliance(command):
    """Look at the appliance from outside Ansible's way."""
    argv = ["docker", "exec", "lab-nas", "sh", "-c", command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def by_hand(command):
    """What the user types in a shell of the appliance."""
    done = subprocess.run([*SSH, command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def registryctl(*words):
    """registryctl in the jobs' container, as the user runs it."""
    return by_hand(f"docker exec homelab-registry-jobs python3 -I /opt/homelab-registry/registryctl {' '.join(words)}")


def answers():
    return node("lab-n12").run(f"curl -fsS http://{REGISTRY}/v2/").rc == 0


@pytest.fixture(scope="module", autouse=True)
def former_goes():
    """Later scenarios have the same hosts."""
    yield
    node("lab-reg").run("docker rm -fv former")


# --- in use ---------------------------------------------------------------------------------------------------
def test_it_has_no_python():
    assert appliance("command -v python3 python || echo none") == "none"


def test_a_node_pushes_and_pulls():
    host = node("lab-n12")
    ok(host, f"docker tag {PAYLOAD} {REGISTRY}/library/nas-only:1 && docker push {REGISTRY}/library/nas-only:1")
    ok(host, f"docker rmi {REGISTRY}/library/nas-only:1")
    assert ok(host, f"docker run --rm {REGISTRY}/library/nas-only:1 echo pulled").endswith("pulled")
    ok(host, "docker pull nas-only:1")


def test_a_board_pulls():
    assert "up to date" in ok(node("lab-k3s-server"), "k3s crictl pull docker.io/library/nas-only:1")


def test_everything_is_on_the_data_volume():
    assert "nas-only" in appliance(f"ls {VOLUME}/registry/data/docker/registry/v2/repositories/library")
    assert appliance(f"stat -c '%a %u' {VOLUME}/registry/config/config.yml") == "400 0"
    assert appliance(f"stat -c '%a %u' {VOLUME}/registry/jobs/config/registryctl.json") == "600 0"
    # the root file system is as it was, less what its own programs write
    changed = subprocess.run(["docker", "diff", "lab-nas"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    ours = [line[2:] for line in changed if "registry" in line or "homelab" in line or "daemon.json" in line]
    assert ours == []


def test_the_container_is_the_same_as_on_a_linux_host():
    container = json.loads(appliance("docker inspect registry"))[0]
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert container["HostConfig"]["Memory"] == 1 << 30, "a quarter of the memory, 1 GiB at most"


# --- jobs -----------------------------------------------------------------------------------------------------
def test_the_jobs_are_scheduled_and_one_runs():
    assert "mirror --result" in registryctl("schedule", "--list")
    registryctl("schedule", "--now", "mirror")
    copied = Registry(f"http://{REGISTRY}").head_manifest("172.30.55.10_5055/team/app", "1.0")
    assert copied == former().head_manifest("team/app", "1.0")
    assert json.loads(appliance(f"cat {VOLUME}/registry/jobs/state/mirror.json"))["images"]


def test_garbage_is_collected_and_every_image_is_whole():
    ours = Registry(f"http://{REGISTRY}")
    digest = ours.head_manifest("172.30.55.10_5055/team/app", "1.0")
    ours.delete_manifest("172.30.55.10_5055/team/app", digest)
    collected = json.loads(registryctl("gc", "--json"))
    assert collected["blobs"] > 0 and collected["freed"] > 0, "the index; its platforms are manifests without a tag"
    assert json.loads(registryctl("gc", "--json", "--dry-run"))["changed"] is False
    assert json.loads(registryctl("verify", "--json"))["whole"] is True
    ok(node("lab-n12"), f"docker push {REGISTRY}/library/nas-only:1")


@pytest.fixture
def without_board(tmp_path):
    """The inventory without the board: the stand-in for k3s cannot tell which images are in use."""
    shutil.copytree(Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent, tmp_path / "inventory")
    file = tmp_path / "inventory" / "ansible_inventory.yml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))

    for group in data.values():
        group.get("hosts", {}).pop("lab-k3s-server", None)
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return tmp_path / "inventory"


def test_a_clean_up_runs_there_as_it_was_planned(without_board):
    ours = Registry(f"http://{REGISTRY}")
    for tag in ("1", "2", "3"):
        push(ours, "team/many", tag, [layer(f"many-{tag}", 1 << 16)], platforms=("linux/amd64",))
    rules = [{"repositories": "team/many", "keep_last": 1}]
    run = run_playbook("cleanup.yml", "--check", inventory=without_board, env=HOME, cleanup_rules=rules)
    assert run.code == 0, run.output
    run.says("2 would delete")
    assert sorted(ours.tags("team/many")) == ["1", "2", "3"]
    run = run_playbook("cleanup.yml", inventory=without_board, env=HOME, cleanup_rules=rules)
    assert run.code == 0, run.output
    assert ours.tags("team/many") == ["3"]
    assert json.loads(registryctl("gc", "--json", "--dry-run"))["changed"] is False, "it was collected at once"
    assert "lab-n12" in appliance(f"cat {VOLUME}/registry/jobs/state/in-use.json")


# --- the registry of the time before ----------------------------------------------------------------------------
def test_its_images_are_carried_over():
    run = run_playbook("migrate.yml", "--check", env=HOME, **{"from": URL})
    assert run.code == 0, run.output
    run.says("would copy")
    run = run_playbook("migrate.yml", env=HOME, **{"from": URL})
    assert run.code == 0, run.output
    ours = Registry(f"http://{REGISTRY}")
    for repository, tag in IMAGES:
        theirs = former().head_manifest(repository, tag)
        assert ours.head_manifest(repository, tag) == theirs
    signature = former().head_manifest("team/app", "1.0").replace(":", "-") + ".sig"
    assert signature in ours.tags("team/app")
    run = run_playbook("verify.yml", env=HOME)
    assert run.code == 0, run.output


# --- what can go wrong --------------------------------------------------------------------------------------------
NO_KEY = ["ssh", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", "/dev/null", *SSH[5:7]]
NO_HOST_KEY = [*SSH[:5], "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"registry_ssh_command": NO_KEY}, "it accepts no key of yours for this user"),
        ({"registry_ssh_command": NO_HOST_KEY}, "its host key is unknown: log in once"),
        ({"registry_docker_host": "ssh://admin@172.30.55.30"}, "or correct the user in registry_docker_host"),
        (
            {"registry_home": "/srv/registry"},
            "which is gone after a boot: set registry_home to a directory on the data",
        ),
        ({"registry_home": "/lab/registry"}, "/lab is read-only or belongs to another"),
        ({"registry_container_name": "other", "registry_min_free": "999T"}, "the disk is full; free some space"),
    ],
    ids=["no key", "host key", "wrong user", "not persistent", "read-only", "no space"],
)
def test_a_host_that_cannot_be(variables, words):
    run = site("--tags", "registry", **variables)
    assert run.code != 0
    run.says(words)
    assert answers()


def test_an_engine_that_is_stopped():
    appliance("docker_daemon.sh stop")
    try:
        wait_for("the engine is gone", lambda: not answers())
        run = site("--tags", "registry")
        assert run.code != 0
        run.says("the Docker engine does not answer", "start it")
    finally:
        appliance("docker_daemon.sh start")
    wait_for("the registry is back with its engine", answers, seconds=60)


def test_a_connection_that_is_cut_and_a_run_that_goes_on():
    """Cut while the old container is put aside: the moment at which most is at stake."""
    cut = threading.Event()

    def cutter():
        for _count in range(600):
            if "registry-previous" in appliance("docker ps -a --format '{{.Names}}'"):
                appliance("killall dropbear; true")
                cut.set()
                return

    thread = threading.Thread(target=cutter)
    thread.start()
    run = site("--tags", "registry", registry_log_level="warn")
    thread.join(120)
    assert cut.is_set() and run.code != 0, run.output
    appliance(f"dropbear -r {VOLUME}/.flash/dropbear.key -s -p 22")
    run = site("--tags", "registry", registry_log_level="warn")
    assert run.code == 0, run.output
    assert "level: warn" in appliance(f"cat {VOLUME}/registry/config/config.yml")
    names = appliance("docker ps -a --format '{{.Names}} {{.State}}'").splitlines()
    assert sorted(names) == ["homelab-registry-jobs running", "registry running"]
    run = site("--tags", "registry", registry_log_level="warn", registry_cpus=512)
    assert run.code != 0
    run.says("The container that ran before runs again, with its old configuration.")
    ok(node("lab-n12"), f"docker pull {REGISTRY}/library/nas-only:1")


# --- a boot -------------------------------------------------------------------------------------------------------
def boot():
    """A new root file system, the old data volume: what the appliance does when it is switched on."""
    found = json.loads(subprocess.run(["docker", "inspect", "lab-nas"], capture_output=True, check=True).stdout)[0]
    host, network = found["HostConfig"], found["NetworkSettings"]["Networks"]["lab-mol"]
    options = [f"--cap-add={name}" for name in host["CapAdd"]]
    options += [f"--security-opt={option}" for option in host["SecurityOpt"]]
    options += [f"--tmpfs={path}" for path in host["Tmpfs"]] + [f"--volume={bind}" for bind in host["Binds"]]
    options += [f"--env={variable}" for variable in found["Config"]["Env"]]
    options += ["--cgroupns=host", "--hostname=lab-nas", "--network=lab-mol", f"--ip={network['IPAddress']}"]
    for command in (
        ["docker", "stop", "-t", "20", "lab-nas"],
        ["docker", "rename", "lab-nas", "lab-nas-off"],
        [
            "docker",
            "run",
            "-d",
            "--name",
            "lab-nas",
            *options,
            "--volumes-from",
            "lab-nas-off",
            found["Config"]["Image"],
        ],
        ["docker", "rm", "lab-nas-off"],
    ):
        subprocess.run(command, capture_output=True, check=True)


def test_after_a_boot_it_is_back_and_so_is_what_the_user_put_into_the_boot():
    # once, by the user: the script that site.yml has written, now and in the vendor's way at each boot
    by_hand(
        f"{VOLUME}/registry/client/boot.sh && mkdir -p {VOLUME}/Nas_Prog/homelab && cd {VOLUME}/Nas_Prog/homelab"
        f" && printf '#!/bin/sh\\n{VOLUME}/registry/client/boot.sh\\n' >start.sh && chmod 755 start.sh"
    )
    assert REGISTRY in by_hand("docker info --format '{{json .RegistryConfig}}'"), "a reload was enough"
    boot()
    wait_for("the registry is back", answers, seconds=90)
    ok(node("lab-n12"), f"docker rmi {REGISTRY}/library/nas-only:1")
    ok(node("lab-n12"), f"docker pull {REGISTRY}/library/nas-only:1")
    # /etc and the home are new; the key and daemon.json are there again, what the vendor had in it too
    config = json.loads(by_hand("cat /etc/docker/daemon.json"))
    assert (config["insecure-registries"], config["log-level"]) == ([REGISTRY], "warn")
    by_hand(f"docker rmi {REGISTRY}/library/nas-only:1 >/dev/null 2>&1; docker pull {REGISTRY}/library/nas-only:1")
    wait_for(
        "the jobs are back", lambda: "running" in by_hand("docker inspect -f '{{.State.Status}}' homelab-registry-jobs")
    )
    run = site()
    # back to the log level that the inventory has
    assert run.code == 0, run.output
    assert site().changed("lab-nas") == 0
    by_hand(f"{VOLUME}/registry/client/boot.sh remove; rm -r {VOLUME}/Nas_Prog/homelab")
    assert json.loads(by_hand("cat /etc/docker/daemon.json")) == {"log-level": "warn"}


# --- TLS and accounts ---------------------------------------------------------------------------------------------
def test_tls_and_accounts_come_there_too():
    """The last one: later scenarios have a registry of their own."""
    users = [
        {"name": "keeper", "password": "canary-keeper-of-the-nas", "role": "admin"},
        {"name": "nodes", "password": "canary-nodes-of-the-nas", "role": "pull"},
    ]
    secure = {"registry_tls": True, "registry_users": users}
    run = run_playbook("site.yml", env=HOME, **secure)
    assert run.code == 0, run.output
    host = node("lab-n12")
    ok(host, f"docker rmi {REGISTRY}/library/nas-only:1; docker pull {REGISTRY}/library/nas-only:1")
    denied = host.run(f"DOCKER_CONFIG=/nonexistent docker pull {REGISTRY}/library/nas-only:1")
    assert denied.rc != 0
    assert "no basic auth credentials" in denied.stderr
    ok(node("lab-k3s-server"), "k3s crictl pull docker.io/library/nas-only:1")
    for name in ("tls.key", "htpasswd", "config.yml"):
        assert appliance(f"stat -c '%a %u' {VOLUME}/registry/config/{name}") == "400 0", name
    assert json.loads(registryctl("verify", "--json"))["whole"] is True
    registryctl("gc", "--json")
    ok(host, f"docker pull {REGISTRY}/library/nas-only:1")
    seen = run.output + by_hand("ps w; docker inspect registry homelab-registry-jobs; docker logs registry 2>&1")
    assert not [user["name"] for user in users if user["password"] in seen]
    assert site(**secure).changed("lab-nas") == 0
