# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the registry is reached on its own host."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes.host import DEFAULTS, host_facts

ROOT = Path(__file__).resolve().parents[4]
USUAL = {
    "docker_host": "unix:///var/run/docker.sock",
    "container": "registry",
    "data_path": "/srv/registry/data",
    "config_path": "/srv/registry/config",
}
HOSTS = {
    "nothing set": ({}, USUAL),
    "another home": (
        {"registry_home": "/data"},
        {**USUAL, "data_path": "/data/data", "config_path": "/data/config"},
    ),
    "another directory": ({"registry_data_path": "/big/images"}, {**USUAL, "data_path": "/big/images"}),
    "a volume": (
        {"registry_data_path": "images"},
        {**USUAL, "data_path": "/var/lib/docker/volumes/images/_data"},
    ),
    "an object store": ({"registry_storage": "s3"}, {**USUAL, "data_path": None}),
    "Redis": (
        {"registry_cache": "redis", "registry_redis_addr": "r:6379", "registry_redis_password": "p"},
        {**USUAL, "redis": {"addr": "r:6379", "db": 0, "password": "p"}},
    ),
    "Redis that is not the cache": ({"registry_redis_addr": "r:6379"}, USUAL),
    "a NAS": ({"registry_docker_host": "ssh://root@nas"}, {}),
}


@pytest.mark.parametrize(("variables", "expected"), HOSTS.values(), ids=HOSTS)
def test_the_host(variables, expected):
    assert host_facts({"registry": ["nas", "other"]}, {"nas": variables, "other": {"registry_home": "/x"}}) == expected


def test_no_registry_host():
    with pytest.raises(HomelabError, match="no host in the group 'registry'"):
        host_facts({"registry": []}, {})


def test_the_defaults_are_the_role_s():
    defaults = yaml.safe_load((ROOT / "roles" / "registry" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    derived = yaml.safe_load((ROOT / "roles" / "registry" / "vars" / "main.yml").read_text(encoding="utf-8"))
    # found on the host where it is a NAS; this is about the others
    assert defaults["registry_home"] == "{{ __registry_home }}"
    assert f"'{DEFAULTS['registry_home']}'" in derived["__registry_home"]
    others = DEFAULTS.keys() - {"registry_home"}
    assert {key: defaults[key] for key in others} == {key: DEFAULTS[key] for key in others}
    assert defaults["registry_data_path"] == "{{ registry_home }}/data"
    assert defaults["registry_config_path"] == "{{ registry_home }}/config"
