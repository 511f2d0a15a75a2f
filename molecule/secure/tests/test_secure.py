# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS and accounts, used as users use them, and the changes of them while every node pulls."""

import json
import ssl
import time
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_run import PROJECT, run_playbook
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pulls import report
from testinfra_common import ADDRESSES, PAYLOAD, node, ok, wait_for

REGISTRY = "lab-reg:5000"
URL = f"https://{ADDRESSES['lab-reg']}:5000"
DOCKER = ("lab-n12", "lab-n13")
K3S = ("lab-k3s-server", "lab-k3s-agent")
TLS = PROJECT / ".lab/secrets/tls"
SCENARIO = yaml.safe_load((PROJECT / "molecule/secure/molecule.yml").read_text(encoding="utf-8").replace("$$", "$"))
USERS = SCENARIO["provisioner"]["inventory"]["group_vars"]["registry"]["registry_users"]
PASSWORDS = {user["name"]: user["password"] for user in USERS}
SERVER = PROJECT / "molecule/registry/server.yml"


def client(name=None, password=None, url=URL):
    return Registry(url, username=name, password=password or PASSWORDS.get(name), ca_path=str(TLS / "trust.crt"))


def status(name=None, password=None):
    with_account = client(name, password)
    try:
        return with_account.request("GET", "/v2/").status
    except HomelabError as error:
        return str(error)
    finally:
        with_account.close()


def started():
    return ok(node("lab-reg"), "docker inspect -f '{{.State.StartedAt}}' registry")


def certificate():
    return ssl.get_server_certificate((ADDRESSES["lab-reg"], 5000))


def explained(what, since):
    """Assert that no pull failed without a reason; keeps the figures."""
    unexplained, figures = report(since)
    with (PROJECT / ".lab/secure-gaps.txt").open("a", encoding="utf-8") as file:
        file.write(f"--- {what}\n{figures}\n")
    print(f"--- {what}\n{figures}")
    assert unexplained == [], figures


# --- the change from plain HTTP: it has happened in converge ---------------------------------------------------------
def test_no_node_was_without_its_registry_while_tls_and_accounts_came():
    explained("http -> https with accounts", 0)


@pytest.mark.parametrize("name", DOCKER)
def test_docker_pulls_with_the_login_and_not_without(name):
    host = node(name)
    ok(host, f"docker rmi {REGISTRY}/homelab-canary:1; docker pull {REGISTRY}/homelab-canary:1")
    denied = host.run(f"DOCKER_CONFIG=/nonexistent docker pull {REGISTRY}/homelab-canary:1")
    assert denied.rc != 0
    assert "no basic auth credentials" in denied.stderr
    login = host.file("/root/.docker/config.json")
    assert (login.mode, login.user) == (0o600, "root")


@pytest.mark.parametrize("name", DOCKER)
def test_docker_has_no_insecure_entry_and_no_mirror_that_would_never_answer(name):
    config = json.loads(ok(node(name), "docker info -f '{{json .RegistryConfig}}'"))
    assert REGISTRY not in config["IndexConfigs"] or config["IndexConfigs"][REGISTRY]["Secure"]
    assert not [mirror for mirror in config["Mirrors"] or [] if "lab-reg" in mirror]


@pytest.mark.parametrize("name", K3S)
@pytest.mark.parametrize("image", [f"{REGISTRY}/homelab-canary:1", "docker.io/library/homelab-canary:1"])
def test_k3s_standin_pulls_by_name_and_through_the_mirror(name, image):
    host = node(name)
    host.run(f"k3s crictl rmi {image}")
    ok(host, f"k3s crictl pull {image}")


def test_a_builder_pushes_and_a_wrong_password_does_not_log_in():
    host = node("lab-n13")
    login = f"DOCKER_CONFIG=/tmp/builder docker login {REGISTRY} -u builder --password-stdin"
    wrong = host.run(f"echo wrong | {login}")
    assert wrong.rc != 0
    assert "unauthorized" in wrong.stderr.lower()
    ok(host, f"echo {PASSWORDS['builder']} | {login}")
    push = f"docker tag {PAYLOAD} {REGISTRY}/team/app:1 && DOCKER_CONFIG=/tmp/builder docker push {REGISTRY}/team/app:1"
    ok(host, f"{push}; r=$?; rm -rf /tmp/builder; exit $r")
    ok(node("lab-n12"), f"docker pull {REGISTRY}/team/app:1")


def test_every_account_is_known_and_nobody_else():
    assert {name: status(name) for name in PASSWORDS} == dict.fromkeys(PASSWORDS, 200)
    assert status() == 401
    assert "401" in str(status("keeper", "wrong")) or "refuse" in str(status("keeper", "wrong"))


# --- the server -----------------------------------------------------------------------------------------------------
def test_nobody_answers_as_a_registry_over_plain_http():
    answer = ok(node("lab-n12"), f"curl -s -o /dev/null -w '%{{http_code}}' http://{REGISTRY}/v2/")
    assert answer == "400"


def test_who_does_not_know_the_ca_is_not_served():
    host = node("lab-n12")
    assert host.run(f"curl -s https://{REGISTRY}/v2/").rc == 60
    ok(host, "mv /etc/docker/certs.d /etc/docker/certs.d.away")
    try:
        pull = host.run(f"docker pull {REGISTRY}/homelab-canary:1")
    finally:
        ok(host, "mv /etc/docker/certs.d.away /etc/docker/certs.d")
    assert pull.rc != 0
    assert "x509" in pull.stderr
    ok(host, f"docker pull {REGISTRY}/homelab-canary:1")


def test_old_versions_of_tls_are_refused():
    old = ok(node("lab-n12"), f"curl -sk --tls-max 1.1 https://{REGISTRY}/v2/ >/dev/null; echo $?")
    assert old == "35"


def test_keys_and_passwords_are_where_they_belong():
    host = node("lab-reg")
    for name in ("tls.key", "htpasswd", "config.yml"):
        file = host.file(f"/srv/registry/config/{name}")
        assert (file.mode, file.user) == (0o400, "root"), name
    assert PASSWORDS["nodes"] not in host.file("/srv/registry/config/htpasswd").content_string
    assert (TLS / "ca.key").stat().st_mode & 0o777 == 0o600
    assert TLS.parent.stat().st_mode & 0o777 == 0o700
    key = "".join((TLS / "ca.key").read_text(encoding="utf-8").splitlines()[1:3])
    for name in (*DOCKER, *K3S, "lab-reg"):
        ok(node(name), f"! grep -rqsF '{key[:40]}' /etc /srv/registry/config /root")
    inspected = ok(host, "docker inspect registry")
    log = ok(host, "docker logs registry 2>&1; ps axww")
    assert not [name for name, password in PASSWORDS.items() if password in inspected + log]


# --- changes ----------------------------------------------------------------------------------------------------------
def test_accounts_change_without_a_restart():
    before = started()
    lines = ok(node("lab-reg"), "cat /srv/registry/config/htpasswd").splitlines()
    users = [USERS[0], {**USERS[2], "password": "canary-new"}]
    run = run_playbook(SERVER, registry_users=users)
    assert run.code == 0, run.output
    assert started() == before
    assert (status("nodes", "canary-new"), status("keeper")) == (200, 200)
    assert 200 not in (status("nodes"), status("builder"))
    now = ok(node("lab-reg"), "cat /srv/registry/config/htpasswd").splitlines()
    assert [line for line in now if line in lines] == lines[:1], "an unchanged password keeps its hash"
    assert "canary-new" not in run.output


def test_a_certificate_is_renewed_before_its_end_with_one_restart():
    before, serving = started(), certificate()
    options = {"registry_tls_days": 200, "registry_tls_renew_days": 150}
    run = run_playbook(SERVER, **options)
    assert status("nodes") == 200, "the accounts are those of the inventory again"
    assert run.code == 0, run.output
    run.says("the certificate ends on")
    renewed, restarted = certificate(), started()
    assert renewed != serving
    assert restarted != before
    again = run_playbook(SERVER, **options)
    assert (again.code, again.changed("lab-reg")) == (0, 0)
    assert (certificate(), started()) == (renewed, restarted)


@pytest.fixture
def bad_certificate(tmp_path):
    """A certificate that has expired, for another name, and a key of yet another."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _number in range(2)]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other.lan")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(keys[0].public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(2020, 2, 1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("other.lan")]), critical=False)
        .sign(keys[0], hashes.SHA256())
    )
    (tmp_path / "a.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "b.key").write_bytes(key)
    return tmp_path


def refused(*words, options=(), **variables):
    """site.yml with these variables changes nothing on any host, and says why."""
    before = started()
    run = run_playbook("site.yml", *options, **variables)
    assert run.code != 0
    run.says(*words)
    assert [host for host in ("lab-reg",) if run.changed(host)] == []
    assert "lab-n12" not in run.output.split("PLAY RECAP")[1], "no node was spoken to"
    assert started() == before


def test_a_certificate_that_does_not_fit_is_refused(bad_certificate):
    refused(
        "do not belong together",
        "nodes use 'lab-reg'",
        "has expired on 2020-02-01",
        registry_tls_mode="provided",
        registry_tls_certificate=str(bad_certificate / "a.crt"),
        registry_tls_key=str(bad_certificate / "b.key"),
    )


def test_a_new_ca_that_no_node_would_know_is_refused():
    before = (TLS / "ca.crt").read_text(encoding="utf-8")
    refused(
        "this run does not bring lab-n12, lab-n13, lab-k3s-agent, lab-k3s-server in line",
        options=["--limit", "registry"],
        registry_tls_rotate_ca=True,
    )
    assert (TLS / "ca.crt").read_text(encoding="utf-8") == before


def by_another_tool(folder):
    """A certificate for the registry that somebody else has made, of a CA that the nodes know: (chain, key) in PEM."""
    ca = x509.load_pem_x509_certificate((TLS / "ca.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((TLS / "ca.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(timezone.utc)
    names = [x509.DNSName("lab-reg"), x509.IPAddress(ip_address(ADDRESSES["lab-reg"]))]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab-reg")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, text in (("fullchain.pem", made.public_bytes(plain[0])), ("privkey.pem", key.private_bytes(*plain))):
        (folder / name).write_bytes(text)
        ok(node("lab-reg"), f"mkdir -p /etc/acme && cat > /etc/acme/{name} <<'EOF'\n{text.decode()}EOF")
    return (folder / "fullchain.pem").read_text(encoding="utf-8")


def test_what_another_tool_renews_is_taken_over(tmp_path):
    since, made = time.time(), by_another_tool(tmp_path)
    options = {
        "registry_tls_mode": "acme_files",
        "registry_tls_certificate": "/etc/acme/fullchain.pem",
        "registry_tls_key": "/etc/acme/privkey.pem",
        "registry_tls_ca": str(TLS / "ca.crt"),
    }
    run = run_playbook(SERVER, **options)
    assert run.code == 0, run.output
    assert certificate().strip() == made.strip()
    assert status("nodes") == 200
    key = (tmp_path / "privkey.pem").read_text(encoding="utf-8").splitlines()[1]
    assert key not in run.output
    # without a run: what docs/security.md gives the other tool as its hook
    renewed = by_another_tool(tmp_path)
    for source, name in (("fullchain.pem", "tls.crt"), ("privkey.pem", "tls.key")):
        ok(node("lab-reg"), f"install -m 0400 /etc/acme/{source} /srv/registry/config/{name}")
    ok(node("lab-reg"), "docker restart registry")
    wait_for("it serves the new one", lambda: answered() == renewed.strip())
    run = run_playbook(SERVER, **options)
    assert run.code == 0, run.output
    assert certificate().strip() == renewed.strip()
    ok(node("lab-reg"), "rm -r /etc/acme")
    explained("a certificate that another tool has renewed", since)


def answered():
    try:
        return certificate().strip()
    except OSError:
        return None


def test_a_new_ca_reaches_every_node_before_the_server_changes():
    since, before = time.time(), (TLS / "ca.crt").read_text(encoding="utf-8")
    for name in DOCKER:  # as on a fleet that never was without TLS and accounts: nothing of ours was in daemon.json
        node(name).run("rm -f /etc/docker/homelab-registry.json")
    run = run_playbook("site.yml", "--skip-tags", "jobs", registry_tls_rotate_ca=True)
    assert run.code == 0, run.output
    assert (TLS / "ca.crt").read_text(encoding="utf-8") != before
    assert not (TLS / "ca-previous.crt").exists()
    for name in (*DOCKER, *K3S, "lab-reg"):
        trusted = node(name).file("/etc/homelab-registry/ca.crt").content_string
        assert trusted.count("BEGIN CERTIFICATE") == 1, "the old one is forgotten"
    explained("a new CA", since)


def skopeo(image):
    """What skopeo finds without any option of its own: its registries.conf, certs.d and Docker's logins are ours."""
    return json.loads(ok(node("lab-n13"), f"skopeo inspect --raw docker://{image}"))


def test_what_else_a_node_has_knows_the_registry():
    """skopeo by name and through the mirror; curl by the system's own trust, on the node that wants it."""
    direct = skopeo(f"{REGISTRY}/homelab-canary:1")
    assert direct["schemaVersion"] == 2
    assert skopeo("docker.io/library/homelab-canary:1") == direct
    host = node("lab-n13")
    assert ok(host, f"curl -s -o /dev/null -w '%{{http_code}}' https://{REGISTRY}/v2/") == "401"
    assert host.run(f"skopeo inspect --authfile /nonexistent docker://{REGISTRY}/homelab-canary:1").rc != 0


MOVED = "lab-reg:5005"


def test_and_back_to_plain_http_without_accounts_on_another_port():
    since = time.time()
    run = run_playbook(
        "site.yml",
        registry_tls=False,
        registry_users=[],
        registry_port=5005,
        registry_endpoint=MOVED,
        jobs_run_in="none",
    )
    assert run.code == 0, run.output
    ok(node("lab-reg"), "! ls /etc/systemd/system/homelab-registry-* /usr/local/bin/registryctl")
    for name in DOCKER:
        host = node(name)
        config = json.loads(ok(host, "docker info -f '{{json .RegistryConfig}}'"))
        assert config["IndexConfigs"][MOVED]["Secure"] is False
        assert REGISTRY not in config["IndexConfigs"]
        assert config["Mirrors"] == [f"http://{MOVED}/"]
        logins = ok(host, "cat /root/.docker/config.json")
        assert REGISTRY not in logins
        assert MOVED not in logins
    for name in (*DOCKER, *K3S):
        assert not node(name).file("/etc/homelab-registry/ca.crt").exists
        for endpoint in (REGISTRY, MOVED):
            assert not node(name).file(f"/etc/docker/certs.d/{endpoint}").exists
    for name in K3S:
        text = node(name).file("/etc/rancher/k3s/registries.yaml").content_string
        assert f"http://{MOVED}" in text
        assert REGISTRY not in text
        assert "canary-nodes-password" not in text
    ok(node("lab-reg"), "test -z \"$(ls /srv/registry/config | grep -E 'tls|htpasswd')\"")
    assert skopeo(f"{MOVED}/homelab-canary:1") == skopeo("docker.io/library/homelab-canary:1")
    assert not node("lab-n13").run("ls /usr/local/share/ca-certificates/*homelab*").stdout
    explained("https with accounts -> http on another port", since)
    for name in (*DOCKER, *K3S, "lab-reg"):
        node(name).run("systemctl stop 'pull-loop-*'")
