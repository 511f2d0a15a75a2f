# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the registry's container and directory are reached on the registry host itself, from the inventory."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import HomelabError

#: Equal to the defaults of the role `registry` (a test compares them): a host's role defaults are not in its
#: hostvars, so other plays cannot see them.
DEFAULTS = {
    "registry_docker_host": "unix:///var/run/docker.sock",
    "registry_container_name": "registry",
    "registry_home": "/srv/registry",
    "registry_storage": "filesystem",
    "registry_cache": "inmemory",
    "registry_redis_addr": "",
    "registry_redis_password": "",
    "registry_redis_db": 0,
}
#: Where the engine keeps a volume, unless its data-root was moved.
VOLUMES = "/var/lib/docker/volumes"


def host_facts(groups: Mapping, hostvars: Mapping) -> dict:
    """The section `host` of registryctl's settings.

    Returns:
        `docker_host`, `container`, `data_path` (None for an object store), `config_path`, and `redis` if it is the
        cache; empty if the engine is on a machine that runs nothing of ours (a NAS).

    Raises:
        HomelabError: there is no registry host.
    """
    name = next(iter(groups.get("registry") or ()), None)
    if name is None:
        raise HomelabError(
            "the inventory has no host in the group 'registry'",
            remedy="put the machine that is to run the registry into it (see inventories/homelab/hosts.yml)",
        )
    variables = hostvars[name]

    def value(key):
        found = variables.get(key)
        return DEFAULTS[key] if found is None else found

    def place(key, folder):
        path = variables.get(key) or f"{value('registry_home')}/{folder}"
        return path if path.startswith("/") else f"{VOLUMES}/{path}/_data"

    if not value("registry_docker_host").startswith("unix://"):
        return {}
    return {
        "docker_host": value("registry_docker_host"),
        "container": value("registry_container_name"),
        "data_path": place("registry_data_path", "data") if value("registry_storage") == "filesystem" else None,
        "config_path": place("registry_config_path", "config"),
        **({"redis": _redis(value)} if value("registry_cache") == "redis" else {}),
    }


def _redis(value):
    password = value("registry_redis_password")
    redis = {"addr": value("registry_redis_addr"), "db": int(value("registry_redis_db"))}
    return {**redis, "password": password} if password else redis
