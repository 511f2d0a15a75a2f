# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's options, used. The image under test comes from REGISTRY_IMAGE (see lab/images.sh)."""

import json
import os
from pathlib import Path

import pytest
from ansible_run import PROJECT, run_playbook
from testinfra_common import PAYLOAD, node, ok, wait_for

SERVER = PROJECT / "molecule/registry/server.yml"
HOST = "lab-reg"
URL = "http://lab-reg:5000"


def serve(*options, **variables):
    return run_playbook(SERVER, *options, **variables)


def inspect(name="registry", host=HOST):
    return json.loads(ok(node(host), f"docker inspect {name}"))[0]


def started(name="registry", host=HOST):
    return inspect(name, host)["State"]["StartedAt"]


@pytest.fixture(scope="module", autouse=True)
def defaults_afterwards():
    yield
    assert serve().code == 0


# --- changes ------------------------------------------------------------------------------------------------
def test_a_changed_configuration_restarts_once_and_an_unchanged_one_never():
    serve()
    before = started()
    check = serve("--check", "--diff", registry_log_level="debug")
    assert check.code == 0, check.output
    check.says("-level: info", "+level: debug") if "-level: info" in check.output else check.says("level: debug")
    assert check.changed(HOST) >= 1
    assert started() == before, "a dry run restarts nothing"

    assert serve(registry_log_level="debug").code == 0
    changed = started()
    assert changed != before
    assert inspect()["RestartCount"] == 0
    again = serve(registry_log_level="debug")
    assert (again.code, again.changed(HOST)) == (0, 0)
    assert started() == changed


def test_images_outlive_every_change():
    ok(node(HOST), f"docker tag {PAYLOAD} localhost:5000/team/kept:1 && docker push localhost:5000/team/kept:1")
    assert serve(registry_cache="none", registry_restart_policy="unless-stopped").code == 0
    ok(node(HOST), "docker pull localhost:5000/team/kept:1")


def test_an_interrupted_run_is_finished_by_the_next():
    """The container was made anew, but the run ended before its configuration was in place."""
    serve()
    ok(node(HOST), "docker stop registry && rm /srv/registry/config/config.yml")
    run = serve()
    assert run.code == 0, run.output
    assert node(HOST).file("/srv/registry/config/config.yml").mode == 0o400
    ok(node(HOST), f"curl -fsS {URL}/v2/")


def test_deletion_can_be_turned_off():
    run = serve(registry_delete_enabled=False)
    assert run.code == 0, run.output
    digest = ok(node(HOST), f"curl -fsSI -H 'Accept: */*' {URL}/v2/team/kept/manifests/1 | tr -d '\\r' | "
                            "sed -n 's/^Docker-Content-Digest: //p'")
    status = f"curl -sS -o /dev/null -w '%{{http_code}}' -X DELETE {URL}/v2/team/kept/manifests/{digest}"
    assert ok(node(HOST), status) == "405"


def test_readonly_refuses_pushes_and_serves_pulls():
    assert serve(registry_readonly=True).code == 0
    host = node(HOST)
    assert host.run("docker push localhost:5000/team/kept:1").rc != 0
    ok(host, "docker pull localhost:5000/team/kept:1")


def test_limits_user_and_headers_reach_the_server():
    run = serve(
        registry_memory="256m",
        registry_cpus=0.5,
        registry_user="65532:65532",
        registry_http_headers={"X-Content-Type-Options": ["nosniff"], "X-Lab": ["yes"]},
        registry_network_name="lab-own-net",
        registry_log_format="json",
    )
    assert run.code == 0, run.output
    container = inspect()
    assert container["HostConfig"]["Memory"] == 256 * 1024 * 1024
    assert container["HostConfig"]["NanoCpus"] == 500_000_000
    assert list(container["NetworkSettings"]["Networks"]) == ["lab-own-net"]
    assert "X-Lab: yes" in ok(node(HOST), f"curl -fsSi {URL}/v2/")
    assert ok(node(HOST), "ps -o uid= -p $(docker inspect -f '{{.State.Pid}}' registry)") == "65532"
    assert node(HOST).file("/srv/registry/config/config.yml").uid == 65532
    # the access log has a format of its own
    lines = [line for line in ok(node(HOST), "docker logs registry 2>&1").splitlines() if line.startswith("{")]
    assert json.loads(lines[-1])["level"]
    # and back to the image's own user, who must be able to write what the other has written
    assert serve().code == 0


def test_host_network_and_another_port():
    run = serve(registry_network_mode="host", registry_port=5010, registry_endpoint="lab-reg:5010")
    assert run.code == 0, run.output
    assert inspect()["HostConfig"]["NetworkMode"] == "host"
    ok(node("lab-n12"), "curl -fsS http://lab-reg:5010/v2/")
    assert node("lab-n12").run("curl -fsS -m 5 http://lab-reg:5001/metrics").rc != 0, "the debug port stays on loopback"
    ok(node(HOST), "curl -fsS http://127.0.0.1:5001/metrics")


def test_a_volume_instead_of_a_directory():
    run = serve(registry_data_path="lab-data", registry_config_path="lab-config")
    assert run.code == 0, run.output
    mounts = {mount["Destination"]: mount for mount in inspect()["Mounts"]}
    assert mounts["/var/lib/registry"]["Name"] == "lab-data"
    assert serve(registry_data_path="lab-data", registry_config_path="lab-config").changed(HOST) == 0


def test_extra_configuration_is_merged():
    run = serve(registry_config_extra={"storage": {"tag": {"concurrencylimit": 4}}, "log": {"fields": {"home": "lab"}}})
    if run.code:  # a key of 3.x only
        run = serve(registry_config_extra={"log": {"fields": {"home": "lab"}}})
    assert run.code == 0, run.output
    assert "home: lab" in node(HOST).file("/srv/registry/config/config.yml").content_string


def test_a_running_upload_is_drained():
    """draintimeout: what is under way when the server is stopped is finished."""
    assert serve(registry_drain_timeout="20s").code == 0
    script = (
        "head -c 30000000 /dev/urandom >/tmp/blob; d=sha256:$(sha256sum /tmp/blob | cut -d' ' -f1); "
        f"u=$(curl -fsSi -X POST {URL}/v2/team/drain/blobs/uploads/ | tr -d '\\r' | sed -n 's/^Location: //p'); "
        "(sleep 1; docker stop -t 60 registry >/dev/null) & "
        "curl -sS -o /dev/null -w '%{http_code}' --limit-rate 8M -X PUT -H 'Content-Type: application/octet-stream' "
        "--data-binary @/tmp/blob \"$u&digest=$d\"; wait"
    )
    assert ok(node(HOST), f"bash -c '{script.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'").endswith("201")
    ok(node(HOST), "docker start registry")


# --- wrong values: one clear message, nothing half-done -------------------------------------------------------
# What only the core judges is tried in tables (test_preflight.py, test_server_config.py, test_fleet.py).
WRONG = {
    "a port that is no number": ({"registry_port": "five"}, ["registry_port", "five", "int"]),
    # one run for all that the preflight says, in one message
    "a port out of range and a misspelt variable": (
        {"registry_port": 70000, "registry_bind_adress": "127.0.0.1"},
        [
            "registry_port is 70000: choose a port between 1 and 65535",
            "registry_bind_adress is no variable of this role: did you mean registry_bind_address?",
        ],
    ),
    "an unknown key": (
        {"registry_config_extra": {"http": {"tsl": {}}}},
        ["http.tsl", "http.tls", "registry_config_extra"],
    ),
    "the scheme of another configuration": ({"registry_scheme": "https"}, ["registry_scheme is https", "no http.tls"]),
    "an unknown storage": ({"registry_storage": "ftp"}, ["registry_storage", "ftp", "filesystem"]),
    "a full address as endpoint": (
        {"registry_endpoint": "http://lab-reg:5000"},
        ["registry_endpoint", "is not host:port"],
    ),
    "no such archive": (
        {"registry_image": "nobody/nothing:1", "registry_image_archive": "/nowhere.tar"},
        ["there is no file /nowhere.tar", "docker save nobody/nothing:1"],
    ),
    "another image in the archive": (
        {"registry_image": "nobody/nothing:1"},
        ["not nobody/nothing:1", "set registry_image"],
    ),
    "an image that cannot be pulled": (
        {"registry_image": "nobody.invalid/nothing:1", "registry_image_source": "pull"},
        ["Pulling nobody.invalid/nothing:1 failed", "registry_image_source"],
    ),
    "more cores than there are": (
        {"registry_cpus": 512},
        ["could not be started on lab-reg", "The container that ran before runs again"],
    ),
    "a port in use": (
        {"registry_port": 22, "registry_endpoint": "lab-reg:22"},
        ["Port 22 on lab-reg is in use", "registry_port"],
    ),
    "a data path on a read-only disk": (
        {"registry_data_path": "/sys/registry"},
        ["The data directory /sys/registry on lab-reg cannot be written", "set registry_data_path"],
    ),
    "a full disk": (
        {"registry_data_path": "/mnt/full/data"},
        ["The data directory /mnt/full/data on lab-reg cannot be written", "No space left on device"],
    ),
}


@pytest.fixture(scope="module")
def full_disk():
    host = node(HOST)
    ok(host, "mkdir -p /mnt/full && mount -t tmpfs -o size=512k tmpfs /mnt/full")
    yield
    ok(host, "umount /mnt/full")


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_is_refused_and_the_registry_runs_on(wrong, full_disk):
    variables, expected = WRONG[wrong]
    before = started()
    run = serve(**variables)
    assert run.code != 0
    run.says(*expected)
    assert started() == before, "the registry that ran was not touched"
    ok(node("lab-n12"), f"curl -fsS {URL}/v2/")


def test_a_change_that_does_not_work_is_taken_back():
    """The started server is not what was configured: its predecessor, with its configuration, serves again."""
    assert serve(registry_log_level="warn").code == 0
    run = serve(
        registry_log_level="warn",
        registry_config_extra={"storage": {"filesystem": {"rootdirectory": "/proc/nowhere"}}},
    )
    assert run.code != 0
    run.says("is not what was configured", "The container that ran before runs again, with its old configuration.")
    assert "/var/lib/registry" in node(HOST).file("/srv/registry/config/config.yml").content_string
    wait_for("it serves again", lambda: node("lab-n12").run(f"curl -fsS {URL}/v2/").rc == 0)
    ok(node(HOST), "docker push localhost:5000/team/kept:1")
    assert node(HOST).run("docker inspect registry-previous").rc != 0
    assert serve(registry_log_level="warn").changed(HOST) == 0


def test_a_run_that_was_cut_while_the_old_container_was_aside_is_mended():
    serve()
    ok(node(HOST), "docker rename registry registry-previous && docker stop registry-previous")
    ok(node(HOST), f"docker create --name registry {PAYLOAD} sleep 1")
    assert serve().code == 0
    ok(node("lab-n12"), f"curl -fsS {URL}/v2/")
    assert node(HOST).run("docker inspect registry-previous").rc != 0


def test_down_leaves_what_is_not_ours():
    """A container of our name, a network that others use, files beside ours."""
    assert serve().code == 0
    host = node(HOST)
    ok(host, "touch /srv/registry/config/server.key /srv/registry/data/photos.txt")
    ok(host, f"docker run -d --name neighbour --network homelab-registry {PAYLOAD} sleep 3600")
    run = run_playbook("down.yml", "--limit", HOST, down_purge=True)
    assert run.code == 0, run.output
    assert host.run("docker inspect registry").rc != 0
    assert host.file("/srv/registry/config/server.key").exists
    assert host.file("/srv/registry/data/photos.txt").exists
    assert not host.file("/srv/registry/data/docker").exists
    assert not host.file("/srv/registry/config/config.yml").exists
    ok(host, "docker network inspect homelab-registry && docker rm -f neighbour")
    ok(host, f"docker run -d --name registry {PAYLOAD} sleep 3600")
    run = run_playbook("down.yml", "--limit", HOST)
    assert run.code != 0
    run.says("The container registry on lab-reg was not made by this role: nothing was removed.")
    # the tests that follow want a registry that runs
    ok(host, "docker rm -f registry")
    assert serve().code == 0


def test_a_container_of_somebody_else_is_not_taken_over():
    ok(node(HOST), f"docker run -d --name theirs {PAYLOAD} sleep 3600")
    run = serve(registry_container_name="theirs", registry_port=5020, registry_endpoint="lab-reg:5020")
    assert run.code != 0
    run.says("There is a container named theirs on lab-reg that this role has not made")
    ok(node(HOST), "docker rm -f theirs")


def test_a_first_start_that_fails_leaves_nothing_behind():
    """The debug port is taken: the engine itself refuses to start the container."""
    run = serve(registry_container_name="second", registry_port=5020, registry_endpoint="lab-reg:5020")
    assert run.code != 0
    run.says("The registry could not be started on lab-reg", "5001")
    assert node(HOST).run("docker inspect second").rc != 0


def test_a_server_that_dies_is_shown_with_its_log():
    """A driver whose parameters are valid but useless: the server itself gives up."""
    run = serve(
        registry_container_name="second",
        registry_port=5020,
        registry_debug_port=5021,
        registry_endpoint="lab-reg:5020",
        registry_home="/srv/second",
        registry_probe_timeout=5,
        registry_config_extra={"auth": {"htpasswd": {"realm": "lab", "path": "/nowhere/htpasswd"}}},
    )
    assert run.code != 0
    run.says("The container's last words:", "htpasswd")
    assert node(HOST).run("docker inspect second").rc != 0


# --- inventories ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all: {children: {docker_nodes: {hosts: {lab-n12: }}}}", "the inventory has no host in the group 'registry'"),
        (
            "all: {children: {registry: {hosts: {lab-reg: , lab-n12: }}}}",
            "the group 'registry' has 2 hosts (lab-reg, lab-n12), but nodes need one address",
        ),
    ],
)
def test_an_inventory_that_cannot_work(tmp_path, text, expected):
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(text + "\n", encoding="utf-8")
    run = run_playbook("site.yml", "-e", "ansible_connection=community.docker.docker", inventory=inventory)
    assert run.code != 0
    run.says(expected)


# --- docker compose -----------------------------------------------------------------------------------------------
def test_compose(tmp_path):
    """On the host with compose v2; the file is then used by hand."""
    inventory = tmp_path / "hosts.yml"
    variables = {
        "ansible_connection": "community.docker.docker",
        "registry_image": Path(PROJECT, ".lab/cache/registry.ref").read_text(encoding="utf-8").strip(),
        "registry_image_source": "archive",
        "registry_image_archive": str(PROJECT / ".lab/cache/registry.tar"),
        "registry_endpoint": "lab-n13:5000",
        "registry_deploy": "compose",
        "registry_home": "/srv/composed",
        "registry_secrets_dir": str(tmp_path / "secrets"),
        "registry_memory": "256m",
    }
    inventory.write_text(
        json.dumps({"all": {"vars": variables, "children": {"registry": {"hosts": {"lab-n13": None}}}}}),
        encoding="utf-8",
    )
    host = node("lab-n13")
    try:
        check = run_playbook(SERVER, "--check", "--diff", inventory=inventory)
        assert check.code == 0, check.output
        assert not host.file("/srv/composed").exists
        run = run_playbook(SERVER, inventory=inventory)
        assert run.code == 0, run.output
        assert run_playbook(SERVER, inventory=inventory).changed("lab-n13") == 0
        file = host.file("/srv/composed/docker-compose.yml")
        assert file.content_string.count("# ") >= 8, "it explains itself"
        secret = next(
            line.split()[1]
            for line in host.file("/srv/composed/config/config.yml").content_string.splitlines()
            if "secret:" in line
        )
        assert secret not in file.content_string
        assert secret not in run.output
        before = started("registry", "lab-n13")
        ok(host, "cd /srv/composed && docker compose up -d")
        assert started("registry", "lab-n13") == before, "by hand it is the same thing"
        assert inspect("registry", "lab-n13")["HostConfig"]["ReadonlyRootfs"] is True
        # a changed setting restarts it; then over to the other kind of deployment, and the images are still there
        ok(host, f"docker tag {PAYLOAD} localhost:5000/team/moved:1 && docker push localhost:5000/team/moved:1")
        assert run_playbook(SERVER, inventory=inventory, registry_log_level="warn").code == 0
        assert started("registry", "lab-n13") != before
        assert run_playbook(SERVER, inventory=inventory, registry_deploy="container").code == 0
        ok(host, "docker pull localhost:5000/team/moved:1")
    finally:
        host.run("docker rm -f registry; docker network rm homelab-registry; rm -rf /srv/composed")


def test_the_package_is_a_way_to_an_image():
    """On the controller, where apt has a mirror: the archive it makes is loaded and serves. 2.8 always."""
    home = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]
    inventory = Path(home) / "package-hosts.yml"
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "registry_image_source": "package",
        "registry_container_name": "homelab-package-test",
        "registry_network_name": "",
        "registry_bind_address": "127.0.0.1",
        "registry_port": 5031,
        "registry_debug_port": 5032,
        "registry_endpoint": "127.0.0.1:5031",
        "registry_data_path": "homelab-package-test-data",
        "registry_config_path": "homelab-package-test-config",
        "registry_secrets_dir": str(Path(home) / "package-secrets"),
    }
    inventory.write_text(
        json.dumps({"all": {"vars": variables, "children": {"registry": {"hosts": {"localhost": None}}}}}),
        encoding="utf-8",
    )
    try:
        run = run_playbook(SERVER, inventory=inventory)
        assert run.code == 0, run.output
        run.says("from the distribution's package")
        assert run_playbook(SERVER, inventory=inventory).changed("localhost") == 0
        wait_for("it answers", lambda: os.system("curl -fsS http://127.0.0.1:5031/v2/ >/dev/null") == 0)
    finally:
        assert run_playbook(PROJECT / "down.yml", inventory=inventory, down_purge=True).code == 0
