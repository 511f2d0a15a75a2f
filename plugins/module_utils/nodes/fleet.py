# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every node knows of the registry, derived from the inventory's group `registry`.

No client repeats an address, a port or a list of upstreams: they all ask here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import HomelabError

#: Equal to the defaults of the role `registry` (a test compares them): a host's role defaults are not in its
#: hostvars, so other hosts cannot see them.
DEFAULTS = {
    "registry_port": 5000,
    "registry_scheme": "http",
    "registry_upstreams": [
        "docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "lscr.io",
    ],
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def registry_facts(groups: Mapping, hostvars: Mapping) -> dict:
    """Endpoint, scheme, URL and upstreams of the fleet's registry.

    Args:
        groups: inventory group name to its hosts.
        hostvars: host name to its variables.

    Raises:
        HomelabError: no registry host, several without a common address, or an endpoint that is none.
    """
    hosts = list(groups.get("registry") or [])
    if not hosts:
        raise HomelabError(
            "the inventory has no host in the group 'registry'",
            remedy="put the machine that is to run the registry into it (see inventories/homelab/hosts.yml)",
        )
    name = hosts[0]
    variables = hostvars[name]

    def value(key):
        return variables.get(key, DEFAULTS.get(key))

    endpoint = variables.get("registry_endpoint")
    if not endpoint:
        if len(hosts) > 1:
            raise HomelabError(
                f"the group 'registry' has {len(hosts)} hosts ({', '.join(hosts)}), but nodes need one address",
                remedy="keep one host in it, or set registry_endpoint to the host:port of what stands before them",
            )
        address = str(variables.get("ansible_host") or name)
        if ":" in address:  # an IPv6 address
            address = f"[{address}]"
        endpoint = f"{address}:{value('registry_port')}"
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}", str(endpoint)):
        raise HomelabError(
            f"registry_endpoint {endpoint!r} is not host:port",
            where=f"host {name}",
            remedy="write it like registry.home.lan:5000 or 192.168.1.20:5000, without a scheme",
        )
    upstreams = value("registry_upstreams")
    if isinstance(upstreams, str) or not all(isinstance(upstream, str) for upstream in upstreams):
        raise HomelabError(
            f"registry_upstreams is {upstreams!r}, not a list",
            where=f"host {name}",
            remedy="write it as a list of host names, such as [docker.io, quay.io]",
        )
    return {
        "host": name,
        "endpoint": str(endpoint),
        "scheme": value("registry_scheme"),
        "url": f"{value('registry_scheme')}://{endpoint}",
        "upstreams": list(upstreams),
        # Such an address means another machine on every node.
        "loopback": str(endpoint).rsplit(":", 1)[0].strip("[]") in LOOPBACK,
    }
