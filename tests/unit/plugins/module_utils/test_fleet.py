# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every node knows of the registry."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes.fleet import (
    CA_PATH,
    DEFAULTS,
    fingerprint,
    registry_access,
    registry_facts,
    untold,
)

ADDRESSES = {
    # variables of the host nas -> endpoint, url, loopback
    "its name": ({}, "nas:5000", "http://nas:5000", False),
    "its address": ({"ansible_host": "192.168.1.5"}, "192.168.1.5:5000", "http://192.168.1.5:5000", False),
    "its port": ({"registry_port": 5443}, "nas:5443", "http://nas:5443", False),
    "https": ({"registry_scheme": "https"}, "nas:5000", "https://nas:5000", False),
    "IPv6": ({"ansible_host": "fd00::5"}, "[fd00::5]:5000", "http://[fd00::5]:5000", False),
    "an endpoint of its own": (
        {"registry_endpoint": "reg.home.lan:80", "ansible_host": "10.0.0.1", "registry_port": 1},
        "reg.home.lan:80", "http://reg.home.lan:80", False,
    ),
    "an empty endpoint is none": ({"registry_endpoint": ""}, "nas:5000", "http://nas:5000", False),
    "loopback by address": ({"ansible_host": "127.0.0.1"}, "127.0.0.1:5000", "http://127.0.0.1:5000", True),
    "loopback by name": ({"registry_endpoint": "localhost:1"}, "localhost:1", "http://localhost:1", True),
    "loopback by IPv6": ({"ansible_host": "::1"}, "[::1]:5000", "http://[::1]:5000", True),
}


@pytest.mark.parametrize(("variables", "endpoint", "url", "loopback"), ADDRESSES.values(), ids=ADDRESSES)
def test_addresses(variables, endpoint, url, loopback):
    facts = registry_facts({"registry": ["nas"]}, {"nas": variables})
    assert (facts["host"], facts["endpoint"], facts["url"], facts["loopback"]) == (
        "nas",
        endpoint,
        url,
        loopback,
    )
    assert facts["url"] == f"{facts['scheme']}://{facts['endpoint']}"


def test_upstreams_are_the_defaults_or_the_hosts_own():
    assert registry_facts({"registry": ["nas"]}, {"nas": {}})["upstreams"] == DEFAULTS["registry_upstreams"]
    own = {"nas": {"registry_upstreams": ["quay.io"]}}
    assert registry_facts({"registry": ["nas"]}, own)["upstreams"] == ["quay.io"]


def test_the_defaults_cannot_be_changed_through_a_result():
    registry_facts({"registry": ["nas"]}, {"nas": {}})["upstreams"].append("evil.example")
    assert "evil.example" not in DEFAULTS["registry_upstreams"]


@pytest.mark.parametrize("groups", [{}, {"registry": []}, {"docker_nodes": ["a"]}])
def test_no_registry_host(groups):
    with pytest.raises(HomelabError, match="no host in the group 'registry'") as caught:
        registry_facts(groups, {"a": {}})
    assert caught.value.remedy


def test_several_hosts_need_one_address():
    groups, hostvars = {"registry": ["a", "b"]}, {"a": {}, "b": {}}
    with pytest.raises(HomelabError, match=r"2 hosts \(a, b\).*registry_endpoint"):
        registry_facts(groups, hostvars)
    hostvars["a"]["registry_endpoint"] = "front:5000"
    assert registry_facts(groups, hostvars)["endpoint"] == "front:5000"


@pytest.mark.parametrize(
    "endpoint",
    ["reg", "http://reg:5000", "reg:", "reg:port", "reg:5000/", "fd00::5:5000", "me:pw@reg:5000", "a b:1"],
)
def test_an_endpoint_that_is_none(endpoint):
    with pytest.raises(HomelabError, match="is not host:port") as caught:
        registry_facts({"registry": ["nas"]}, {"nas": {"registry_endpoint": endpoint}})
    assert "host nas" in str(caught.value)
    assert repr(endpoint) in str(caught.value)


# --- access ---------------------------------------------------------------------------------------------------
USERS = [
    {"name": "pusher", "password": "1", "role": "push"},
    {"name": "keeper", "password": "2", "role": "admin"},
    {"name": "nodes", "password": "3", "role": "pull"},
    {"name": "more", "password": "4"},
]


def of(**variables):
    return {"registry": ["nas"]}, {"nas": {"inventory_dir": "/inv", **variables}}


def test_without_tls_and_accounts_there_is_an_address_only():
    assert registry_access(*of()) == {"url": "http://nas:5000"}
    facts = registry_facts(*of())
    assert (facts["auth"], facts["anonymous_pull"], facts["ca_file"]) == ("none", True, "")


@pytest.mark.parametrize("yes", [True, "true", "yes"])
def test_tls_gives_scheme_and_ca(yes):
    assert registry_access(*of(registry_tls=yes)) == {"url": "https://nas:5000", "ca_path": CA_PATH}
    assert registry_access(*of(registry_tls=yes), "admin", "controller")["ca_path"] == "/inv/.secrets/tls/trust.crt"


def test_a_certificate_that_everybody_trusts_needs_no_ca():
    assert registry_access(*of(registry_tls=True, registry_tls_mode="acme_files")) == {"url": "https://nas:5000"}
    own = of(registry_tls=True, registry_tls_mode="provided", registry_tls_ca="ca.crt", registry_secrets_dir="/s")
    assert registry_facts(*own)["ca_file"] == "/s/tls/trust.crt"


@pytest.mark.parametrize(
    ("who", "more", "name"),
    [
        ("admin", {}, "keeper"),
        ("node", {}, "nodes"),
        ("node", {"registry_node_user": "more"}, "more"),
        ("admin", {"registry_users": USERS[:1]}, "pusher"),
        ("node", {"registry_users": USERS[:2]}, "pusher"),
        ("node", {"registry_users": USERS[3:]}, "more"),
    ],
)
def test_whose_account(who, more, name):
    assert registry_access(*of(**{"registry_users": USERS, **more}), who)["username"] == name


def test_accounts_end_anonymous_pulls_unless_a_gateway_allows_them():
    assert registry_facts(*of(registry_users=USERS))["anonymous_pull"] is False
    assert registry_facts(*of(registry_users=USERS, registry_gateway=True))["anonymous_pull"] is True
    assert registry_facts(*of(registry_users=USERS, registry_auth="none"))["anonymous_pull"] is True
    assert "username" not in registry_access(*of(registry_users=USERS, registry_auth="none"))


def test_no_password_is_among_the_facts():
    assert "'2'" not in str(registry_facts(*of(registry_users=USERS)))


def test_the_fingerprint_changes_with_what_nodes_have_to_know_and_with_nothing_else():
    def short(ca="CA\n", secret="s", **variables):
        return fingerprint(*of(**{"registry_users": USERS, "registry_tls": True, **variables}), ca, secret)

    same = short()
    assert short(ca="CA") == same
    assert short(registry_memory="1g", registry_users=[*USERS, {"name": "x", "password": "y", "role": "push"}]) == same
    others = [
        short(ca="CA\nold CA"), short(secret="t"), short(registry_port=5001), short(registry_tls=False),
        short(registry_users=[{**user, "password": "new"} for user in USERS]), short(registry_upstreams=["quay.io"]),
        short(registry_gateway=True), short(registry_node_user="more"),
    ]
    assert len({same, *others}) == 1 + len(others)
    assert "new" not in str(others)


FLEET = {"registry": ["nas"], "docker_nodes": ["nas", "pc"], "k3s_nodes": ["sbc"]}
EVERYBODY = ["nas", "pc", "sbc"]
UNTOLD = {
    # hosts of the run, tags, skipped tags -> nodes left out
    "the whole fleet": (EVERYBODY, ["all"], [], []),
    "a limit": (["nas"], ["all"], [], ["pc", "sbc"]),
    "only the registry": (EVERYBODY, ["registry"], [], EVERYBODY),
    "without k3s": (EVERYBODY, ["all"], ["k3s_nodes"], ["sbc"]),
    "all three by name": (EVERYBODY, ["registry", "docker_nodes", "k3s_nodes"], [], []),
    "the role by itself": ([], ["all"], [], EVERYBODY),
}


@pytest.mark.parametrize(("in_run", "tags", "skipped", "left_out"), UNTOLD.values(), ids=UNTOLD)
def test_who_is_left_out_of_a_run(in_run, tags, skipped, left_out):
    assert untold(FLEET, in_run, tags, skipped) == left_out


def test_a_registry_without_nodes_leaves_nobody_out():
    assert untold({"registry": ["nas"]}, ["nas"], ["registry"], []) == []
