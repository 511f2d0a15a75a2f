# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's options, used. The image under test comes from REGISTRY_IMAGE (see lab/images.sh)."""

import json
import os
import re
from pathlib import Path

import pytest
from ansible_run import PROJECT, Run, run_playbook
from testinfra_common import PAYLOAD, node, ok, server_image, wait_for

SERVER = PROJECT / "molecule/registry/server.yml"
HOST = "lab-reg"
URL = "http://lab-reg:5000"
#: What the registry was last made of, if that is known. Each run takes time, so no test makes what is there.
STATE = {}


def serve(*options, **variables):
    STATE.clear()
    run = run_playbook(SERVER, *options, **variables)
    if run.code == 0 and "--check" not in options:
        STATE["variables"] = variables
    return run


def given(**variables):
    """The registry is made of these variables; of nothing but defaults without any."""
    if STATE.get("variables") != variables:
        run = serve(**variables)
        assert run.code == 0, run.output


def write_inventory(folder, registry, variables, **groups):
    """An inventory of its own, for hosts of the lab; `registry` and `groups` are its groups."""
    shared = {
        "ansible_connection": "community.docker.docker",
        "ansible_python_interpreter": "/usr/bin/python3",
        "registry_image": server_image(),
        "registry_image_source": "archive",
        "registry_image_archive": str(PROJECT / ".lab/cache/registry.tar"),
        **variables,
    }
    path = folder / "hosts.yml"
    children = {"registry": {"hosts": registry}, **groups}
    path.write_text(json.dumps({"all": {"vars": shared, "children": children}}), encoding="utf-8")
    return path


def inspect(name="registry", host=HOST):
    return json.loads(ok(node(host), f"docker inspect {name}"))[0]


def started(name="registry", host=HOST):
    return inspect(name, host)["State"]["StartedAt"]


@pytest.fixture(scope="module", autouse=True)
def defaults_before_and_afterwards():
    STATE["variables"] = {}  # converge.yml
    host = node(HOST)
    ok(host, f"docker tag {PAYLOAD} localhost:5000/team/kept:1 && docker push localhost:5000/team/kept:1")
    yield
    given()


# --- changes ------------------------------------------------------------------------------------------------
CHANGED = {"registry_log_level": "debug", "registry_cache": "none", "registry_restart_policy": "unless-stopped"}


def test_a_changed_configuration_restarts_once_and_an_unchanged_one_never():
    given()
    before = started()
    check = run_playbook(SERVER, "--check", "--diff", **CHANGED)
    assert check.code == 0, check.output
    check.says("-level: info", "+level: debug") if "-level: info" in check.output else check.says("level: debug")
    assert check.changed(HOST) >= 1
    assert started() == before, "a dry run restarts nothing"

    given(**CHANGED)
    changed = started()
    assert changed != before
    assert inspect()["RestartCount"] == 0
    again = serve(**CHANGED)
    assert (again.code, again.changed(HOST)) == (0, 0)
    assert started() == changed
    ok(node(HOST), "docker pull localhost:5000/team/kept:1")


def test_an_interrupted_run_is_finished_by_the_next():
    """The container was made anew, but the run ended before its configuration was in place."""
    given(**CHANGED)
    ok(node(HOST), "docker stop registry && rm /srv/registry/config/config.yml")
    run = serve(**CHANGED)
    assert run.code == 0, run.output
    assert node(HOST).file("/srv/registry/config/config.yml").mode == 0o400
    ok(node(HOST), f"curl -fsS {URL}/v2/")


@pytest.fixture(scope="module")
def many_settings():
    """One run for all that does not get in each other's way."""
    extra = {"log": {"fields": {"home": "lab"}}}
    if "/etc/distribution/config.yml" in inspect()["Args"]:
        extra["storage"] = {"tag": {"concurrencylimit": 4}}  # a key of 3.x only
    given(
        registry_delete_enabled=False,
        registry_memory="256m",
        registry_cpus=0.5,
        registry_user="65532:65532",
        registry_http_headers={"X-Content-Type-Options": ["nosniff"], "X-Lab": ["yes"]},
        registry_network_name="lab-own-net",
        registry_log_format="json",
        registry_config_extra=extra,
        registry_drain_timeout="20s",
    )


def test_deletion_can_be_turned_off(many_settings):
    digest = ok(node(HOST), f"curl -fsSI -H 'Accept: */*' {URL}/v2/team/kept/manifests/1 | tr -d '\\r' | "
                            "sed -n 's/^Docker-Content-Digest: //p'")
    status = f"curl -sS -o /dev/null -w '%{{http_code}}' -X DELETE {URL}/v2/team/kept/manifests/{digest}"
    assert ok(node(HOST), status) == "405"


def test_limits_user_and_headers_reach_the_server(many_settings):
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


def test_extra_configuration_is_merged(many_settings):
    assert "home: lab" in node(HOST).file("/srv/registry/config/config.yml").content_string


def test_a_running_upload_is_drained(many_settings):
    """draintimeout: what is under way when the server is stopped is finished."""
    script = (
        "head -c 30000000 /dev/urandom >/tmp/blob; d=sha256:$(sha256sum /tmp/blob | cut -d' ' -f1); "
        f"u=$(curl -fsSi -X POST {URL}/v2/team/drain/blobs/uploads/ | tr -d '\\r' | sed -n 's/^Location: //p'); "
        "(sleep 1; docker stop -t 60 registry >/dev/null) & "
        "curl -sS -o /dev/null -w '%{http_code}' --limit-rate 8M -X PUT -H 'Content-Type: application/octet-stream' "
        "--data-binary @/tmp/blob \"$u&digest=$d\"; wait"
    )
    assert ok(node(HOST), f"bash -c '{script.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'").endswith("201")
    ok(node(HOST), "docker start registry")


def test_the_images_own_user_gets_the_data_back(many_settings):
    """Who must be able to write what the other has written."""
    given()
    ok(node(HOST), "docker push localhost:5000/team/kept:1")


# --- changes that fail, runs that were cut ------------------------------------------------------------------------
def test_a_change_that_does_not_work_is_taken_back():
    """The started server is not what was configured: its predecessor, with its configuration, serves again."""
    given()
    run = serve(registry_config_extra={"storage": {"filesystem": {"rootdirectory": "/proc/nowhere"}}})
    assert run.code != 0
    run.says("is not what was configured", "The container that ran before runs again, with its old configuration.")
    assert "/var/lib/registry" in node(HOST).file("/srv/registry/config/config.yml").content_string
    wait_for("it serves again", lambda: node("lab-n12").run(f"curl -fsS {URL}/v2/").rc == 0)
    ok(node(HOST), "docker push localhost:5000/team/kept:1")
    assert node(HOST).run("docker inspect registry-previous").rc != 0
    assert serve().changed(HOST) == 0


def test_a_run_that_was_cut_while_the_old_container_was_aside_is_mended():
    given()
    ok(node(HOST), "docker rename registry registry-previous && docker stop registry-previous")
    ok(node(HOST), f"docker create --name registry {PAYLOAD} sleep 1")
    assert serve().code == 0
    ok(node("lab-n12"), f"curl -fsS {URL}/v2/")
    assert node(HOST).run("docker inspect registry-previous").rc != 0


def test_down_leaves_what_is_not_ours():
    """A container of our name, a network that others use, files beside ours."""
    given()
    host = node(HOST)
    STATE.clear()
    ok(host, "touch /srv/registry/config/server.key /srv/registry/data/photos.txt")
    ok(host, f"docker run -d --name neighbour --network homelab-registry {PAYLOAD} sleep 3600")
    run = run_playbook("down.yml", "--limit", HOST, down_purge=True)
    assert run.code == 0, run.output
    assert host.run("docker inspect registry").rc != 0
    assert host.file("/srv/registry/config/server.key").exists
    assert host.file("/srv/registry/data/photos.txt").exists
    ok(host, "rm /srv/registry/config/server.key /srv/registry/data/photos.txt")  # the hosts are shared by scenarios
    assert not host.file("/srv/registry/data/docker").exists
    assert not host.file("/srv/registry/config/config.yml").exists
    ok(host, "docker network inspect homelab-registry && docker rm -f neighbour")
    ok(host, f"docker run -d --name registry {PAYLOAD} sleep 3600")
    run = run_playbook("down.yml", "--limit", HOST)
    assert run.code != 0
    run.says("The container registry on lab-reg was not made by this role: nothing was removed.")
    ok(host, "docker rm -f registry")


def test_a_container_the_engine_refuses_is_taken_back():
    given()
    ok(node(HOST), "docker push localhost:5000/team/kept:1")
    before = started()
    run = serve(registry_cpus=512)
    assert run.code != 0
    run.says("could not be started on lab-reg", "The container that ran before runs again")
    assert started() == before, "it ran on until the new one was complete"
    STATE["variables"] = {}


# --- wrong values: one clear message, nothing half-done -------------------------------------------------------
# What only the core judges is tried in tables (test_preflight.py, test_server_config.py, test_fleet.py). One run for
# all: the registry host under a name for each of them. None gets to where it would touch the registry that runs.
WRONG = {
    "a port that is no number": ({"registry_port": "five"}, ["registry_port", "five", "int"]),
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
    "a port in use": (
        {"registry_port": 22, "registry_endpoint": "lab-reg:22"},
        ["Port 22 on a-port-in-use is in use", "registry_port"],
    ),
    "a data path on a read-only disk": (
        {"registry_data_path": "/sys/registry", "registry_config_path": "/srv/wrong"},
        ["The data directory /sys/registry on", "cannot be written", "set registry_data_path"],
    ),
    "a full disk": (
        {"registry_data_path": "/mnt/full/data", "registry_config_path": "/mnt/full/config"},
        ["The data directory /mnt/full/data on", "cannot be written", "No space left on device"],
    ),
    "a container of somebody else": (
        {"registry_container_name": "theirs", "registry_port": 5020},
        ["There is a container named theirs on", "that this role has not made"],
    ),
    # the debug port is taken: the engine itself refuses to start the container
    "a first start that fails": (
        {"registry_container_name": "second", "registry_port": 5021, "registry_home": "/srv/second"},
        ["The registry could not be started on", "5001", "Nothing was left behind."],
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """The run, and since when the registry had been running before it."""
    given()
    host = node(HOST)
    ok(host, "mkdir -p /mnt/full && mount -t tmpfs -o size=512k tmpfs /mnt/full")
    ok(host, f"docker run -d --name theirs {PAYLOAD} sleep 3600")
    before = started()
    hosts = {name.replace(" ", "-"): {"ansible_host": HOST, **variables} for name, (variables, _words) in WRONG.items()}
    shared = {"registry_endpoint": f"{HOST}:5000", "registry_secrets_dir": str(PROJECT / ".lab/secrets")}
    inventory = write_inventory(tmp_path_factory.mktemp("wrong"), {HOST: None}, shared, wrong={"hosts": hosts})
    yield run_playbook(SERVER, inventory=inventory, target="wrong"), before
    ok(host, "umount /mnt/full; docker rm -f theirs")


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_is_refused_and_the_registry_runs_on(wrong, refused):
    run, before = refused
    results = re.split(r"^(?=[a-z]+: \[|TASK |PLAY )", run.output, flags=re.MULTILINE)
    said = "".join(result for result in results if result.startswith(f"fatal: [{wrong.replace(' ', '-')}]"))
    Run(run.code, said).says(*WRONG[wrong][1])
    assert started() == before, "the registry that ran was not touched"


def test_nothing_is_left_of_what_was_refused(refused):
    ok(node("lab-n12"), f"curl -fsS {URL}/v2/")
    assert ok(node(HOST), "docker ps -a --format '{{.Names}}' | sort").split() == ["registry", "theirs"]


# --- other ways to run it -------------------------------------------------------------------------------------------
def test_host_network_and_another_port_and_no_writing():
    variables = {"registry_network_mode": "host", "registry_port": 5010, "registry_endpoint": "lab-reg:5010"}
    given(registry_readonly=True, **variables)
    assert inspect()["HostConfig"]["NetworkMode"] == "host"
    ok(node("lab-n12"), "curl -fsS http://lab-reg:5010/v2/")
    assert node("lab-n12").run("curl -fsS -m 5 http://lab-reg:5001/metrics").rc != 0, "the debug port stays on loopback"
    host = node(HOST)
    ok(host, "curl -fsS http://127.0.0.1:5001/metrics")
    ok(host, "docker tag localhost:5000/team/kept:1 localhost:5010/team/kept:1")
    assert host.run("docker push localhost:5010/team/kept:1").rc != 0
    ok(host, "docker pull localhost:5010/team/kept:1")


def test_a_volume_instead_of_a_directory_and_another_socket():
    """The engine goes on listening on a socket whose name has changed."""
    host = node(HOST)
    ok(host, "mv /var/run/docker.sock /var/run/other.sock")
    variables = {"registry_docker_host": "unix:///var/run/other.sock", "registry_data_path": "lab-data",
                 "registry_config_path": "lab-config"}
    try:
        given(**variables)
        again = serve(**variables)
    finally:
        ok(host, "mv /var/run/other.sock /var/run/docker.sock")
    assert again.changed(HOST) == 0
    mounts = {mount["Destination"]: mount for mount in inspect()["Mounts"]}
    assert mounts["/var/lib/registry"]["Name"] == "lab-data"
    STATE.clear()


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
    """On the host with compose v2, behind a gateway; the file is then used by hand, and both go away again."""
    variables = {
        "registry_endpoint": "lab-n13:5000",
        "registry_deploy": "compose",
        "registry_home": "/srv/composed",
        "registry_secrets_dir": str(tmp_path / "secrets"),
        "registry_memory": "256m",
        "registry_gateway": True,
        "gateway_image": (PROJECT / ".lab/cache/gateway.ref").read_text(encoding="utf-8").strip(),
        "gateway_image_source": "archive",
        "gateway_image_archive": str(PROJECT / ".lab/cache/gateway.tar"),
    }
    inventory = write_inventory(tmp_path, {"lab-n13": None}, variables)
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
        run = run_playbook(SERVER, inventory=inventory, registry_deploy="container", registry_gateway=False)
        assert run.code == 0, run.output
        ok(host, "docker pull localhost:5000/team/moved:1")
        assert host.run("docker inspect registry-gateway").rc != 0
    finally:
        host.run("docker rm -f registry registry-gateway; docker network rm homelab-registry; rm -rf /srv/composed")


# --- an engine in the network -------------------------------------------------------------------------------------
CERTIFICATES = """
set -e
umask 077
mkdir -p /etc/docker/tls
cd /etc/docker/tls
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -days 30 -subj '/CN=lab engines'
printf 'subjectAltName=IP:172.30.55.13' > names
for who in server client; do
  openssl req -newkey rsa:2048 -nodes -keyout $who-key.pem -out $who.csr -subj /CN=$who
  openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out $who.pem -days 30 -extfile names
done
"""


@pytest.fixture
def engine_in_the_network(tmp_path):
    """lab-n13's engine listens with TLS and wants a certificate; a client's environment for it."""
    host = node("lab-n13")
    ok(host, CERTIFICATES)
    for name, there in {"ca.pem": "ca.pem", "cert.pem": "client.pem", "key.pem": "client-key.pem"}.items():
        (tmp_path / name).write_text(host.file(f"/etc/docker/tls/{there}").content_string, encoding="utf-8")
    options = "--tlsverify --tlscacert=ca.pem --tlscert=server.pem --tlskey=server-key.pem"
    options = options.replace("=", "=/etc/docker/tls/") + " -H tcp://0.0.0.0:2376"
    ok(host, f"cp /etc/default/docker /tmp/docker.before; echo 'DOCKER_OPTS=\"{options}\"' >> /etc/default/docker")
    ok(host, "systemctl restart docker")
    # Some machines name a CA bundle for all of requests' connections, which goes before the one that is given here.
    yield {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path), "REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": ""}
    ok(host, "docker rm -f -v registry; docker volume rm -f registry-data registry-config")
    ok(host, "docker network rm homelab-registry; mv /tmp/docker.before /etc/default/docker; rm -r /etc/docker/tls")
    ok(host, "systemctl restart docker")


def test_an_engine_over_tcp_with_tls(tmp_path, engine_in_the_network):
    """No shell on the host, so everything is in volumes and goes through the engine."""
    folder = tmp_path / "inventory"
    folder.mkdir()
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "registry_docker_host": "tcp://172.30.55.13:2376",
        "registry_endpoint": "172.30.55.13:5000",
        "registry_data_path": "registry-data",
        "registry_config_path": "registry-config",
        "registry_secrets_dir": str(tmp_path / "secrets"),
    }
    inventory = write_inventory(folder, {"appliance": None}, variables)
    check = run_playbook(SERVER, "--check", "--diff", inventory=inventory, env=engine_in_the_network)
    assert check.code == 0, check.output
    assert node("lab-n13").run("docker inspect registry").rc != 0
    run = run_playbook(SERVER, inventory=inventory, env=engine_in_the_network)
    assert run.code == 0, run.output
    config = ok(node("lab-n13"), "docker cp registry:/etc/docker/registry/config.yml - | tar -xO")
    secret = re.search(r"secret: (\S+)", config)[1]
    assert secret not in run.output
    assert run_playbook(SERVER, inventory=inventory, env=engine_in_the_network).changed("appliance") == 0
    ok(node("lab-n13"), f"docker tag {PAYLOAD} localhost:5000/team/far:1 && docker push localhost:5000/team/far:1")
    # Whoever has no certificate is told so, and nothing is changed.
    before = started("registry", "lab-n13")
    (tmp_path / "cert.pem").unlink()
    run = run_playbook(SERVER, inventory=inventory, env=engine_in_the_network, registry_log_level="debug")
    assert run.code != 0
    run.says("No Docker engine answers at tcp://172.30.55.13:2376 for appliance")
    assert started("registry", "lab-n13") == before


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
