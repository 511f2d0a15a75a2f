# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a type cannot say about the role's variables."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.server.preflight import misspelt, problems

GOOD = {
    "registry_port": 5000,
    "registry_debug_port": 5001,
    "registry_debug_enabled": True,
    "registry_docker_host": "unix:///var/run/docker.sock",
    "registry_data_path": "/srv/registry/data",
    "registry_config_path": "/srv/registry/config",
    "registry_home": "/srv/registry",
    "registry_container_name": "registry",
    "registry_deploy": "container",
    "registry_image_source": "auto",
    "registry_image_archive": "",
    "registry_user": "",
    "registry_memory": "",
    "registry_upstreams": ["docker.io", "registry.example:5000"],
    "registry_tls": False,
    "registry_tls_mode": "own_ca",
    "registry_tls_certificate": "",
    "registry_tls_key": "",
    "registry_tls_days": 825,
    "registry_tls_renew_days": 60,
    "registry_auth": "none",
    "registry_users": [],
    "registry_node_user": "",
    "registry_htpasswd_cost": 5,
    "registry_token_realm": "",
    "registry_token_service": "",
    "registry_token_issuer": "",
    "registry_token_rootcertbundle": "",
    "registry_token_jwks": "",
}


def found(loopback=False, others=(), **changes):
    return problems({**GOOD, **{f"registry_{name}": value for name, value in changes.items()}},
                    loopback=loopback, others=list(others))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"docker_host": "ssh://sshd@192.168.1.10:2222"},
        {"docker_host": "tcp://nas:2376"},
        {"data_path": "registry-data", "config_path": "registry-config"},
        {"data_path": "/it's a `path`"},
        {"deploy": "compose"},
        {"image_source": "archive", "image_archive": "/r.tar"},
        {"user": "65532:65532"},
        {"user": "1000"},
        {"memory": "512m"},
        {"memory": "1.5G"},
        {"debug_enabled": False, "debug_port": 5000},
        {"loopback": True},
    ],
    ids=str,
)
def test_good_values_pass(changes):
    assert found(**changes) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"port": 0}, "registry_port is 0: choose a port between 1 and 65535"),
        ({"port": 65536}, "registry_port is 65536"),
        ({"debug_port": 70000}, "registry_debug_port is 70000"),
        ({"debug_port": 5000}, "registry_port and registry_debug_port are both 5000"),
        ({"docker_host": "/var/run/docker.sock"}, "registry_docker_host is '/var/run/docker.sock': write it as unix://"),
        ({"docker_host": "ssh://"}, "registry_docker_host is 'ssh://'"),
        ({"data_path": "./data"}, "registry_data_path is './data': give an absolute path"),
        ({"data_path": "/a:b"}, "registry_data_path is '/a:b'"),
        ({"data_path": "/"}, "registry_data_path is '/'"),
        ({"data_path": "/a/$HOME"}, "registry_data_path is '/a/$HOME'"),
        ({"home": "shares/registry"}, "registry_home is 'shares/registry': give an absolute path"),
        ({"home": "/"}, "registry_home is '/', a directory of the system"),
        ({"home": "/srv/"}, "registry_home is '/srv/', a directory of the system"),
        ({"data_path": "/a\nb"}, "registry_data_path is"),
        ({"container_name": "a b; rm"}, "registry_container_name is 'a b; rm'"),
        ({"data_path": ""}, "registry_data_path is ''"),
        ({"data_path": "/same", "config_path": "/same"}, "are both '/same': they must differ"),
        ({"deploy": "compose", "docker_host": "ssh://nas"}, "use registry_deploy=container"),
        ({"deploy": "compose", "config_path": "vol"}, "registry_config_path is the volume 'vol': give a directory"),
        ({"image_source": "archive"}, "registry_image_archive is empty"),
        ({"user": "nobody"}, "registry_user is 'nobody': write it as uid or uid:gid in numbers"),
        ({"user": "1000", "data_path": "vol"}, "registry_data_path is the volume 'vol', which belongs to root"),
        ({"memory": "lots"}, "registry_memory is 'lots': write it like 512m"),
        ({"upstreams": ["https://quay.io", "ghcr.io"]}, "registry_upstreams has ['https://quay.io']"),
        ({"loopback": True, "others": ["fx-8350"]}, "means another machine on fx-8350"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_its_remedy(changes, expected):
    (text,) = found(**changes)
    assert expected in text


TOKEN = {"auth": "token", "token_realm": "https://a/", "token_service": "r", "token_issuer": "i", "token_jwks": "k",
         "users": [{"name": "a", "password": "b"}]}
GIVEN = {"tls": True, "tls_mode": "provided", "tls_certificate": "a.crt", "tls_key": "a.key"}
PEM = "-----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize("changes", [TOKEN, GIVEN, {"tls": True, "tls_days": 3225}, {**GIVEN, "tls_days": 9999},
                                     {**GIVEN, "tls_mode": "acme_files"},
                                     {"auth": "htpasswd", "users": TOKEN["users"], "node_user": "a"}])
def test_good_ways_of_security(changes):
    assert found(**changes) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"auth": "htpasswd"}, "registry_users is empty"),
        ({**TOKEN, "token_issuer": ""}, "registry_token_issuer is empty"),
        ({**TOKEN, "token_jwks": ""}, "which keys sign tokens"),
        ({**GIVEN, "tls_key": ""}, "registry_tls_certificate or registry_tls_key is empty"),
        ({**GIVEN, "tls_mode": "own_ca"}, "set registry_tls_mode to provided"),
        ({**GIVEN, "tls": False}, "set registry_tls to true"),
        ({**GIVEN, "tls_mode": "acme_files", "tls_certificate": PEM}, "give the path on the registry host"),
        ({"tls_renew_days": 900}, "registry_tls_renew_days is 900 of 825"),
        ({"tls": True, "tls_days": 3650}, "choose at most 3285 days for both together"),
        ({"htpasswd_cost": 31}, "registry_htpasswd_cost is 31"),
    ],
)
def test_bad_ways_of_security(changes, words):
    assert any(words in text for text in found(**changes)), found(**changes)


def test_all_problems_are_told_at_once():
    assert len(found(port=0, user="nobody", memory="lots")) == 3


KNOWN = ["registry_port", "registry_home", "registry_bind_address", "registry_config_extra"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("registry_prot", "registry_port"),
        ("registry_bind_adress", "registry_bind_address"),
        ("registry_config_extras", "registry_config_extra"),
    ],
)
def test_a_misspelt_variable_is_named_with_the_right_one(name, meant):
    assert misspelt([name, *KNOWN], KNOWN) == [
        f"{name} is no variable of this role: did you mean {meant}? (If it is one of your own, rename it)"
    ]


def test_other_variables_are_somebody_s_own_affair():
    assert misspelt([*KNOWN, "registry_host", "registry_of_the_office", "registry_remove_data"], KNOWN) == []
