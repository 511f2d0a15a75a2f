# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every node knows of the registry, derived from the inventory's group `registry`.

No client repeats an address, a port or a list of upstreams: they all ask here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping

from ..errors import HomelabError

#: Where every host that we manage has the CA of the registry's certificate.
CA_PATH = "/etc/homelab-registry/ca.crt"
#: Equal to the defaults of the role `registry` (a test compares them): a host's role defaults are not in its
#: hostvars, so other hosts cannot see them.
DEFAULTS = {
    "registry_port": 5000,
    "registry_tls": False,
    "registry_tls_mode": "own_ca",
    "registry_tls_ca": "",
    "registry_users": [],
    "registry_node_user": "",
    "registry_upstreams": [
        "docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "lscr.io",
    ],
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def registry_facts(groups: Mapping, hostvars: Mapping) -> dict:
    """Endpoint, scheme, URL, upstreams and ways of access of the fleet's registry; no secrets.

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
    tls = _yes(value("registry_tls"))
    scheme = variables.get("registry_scheme") or ("https" if tls else "http")
    has_ca = tls and (value("registry_tls_mode") == "own_ca" or bool(value("registry_tls_ca")))
    auth = variables.get("registry_auth") or ("htpasswd" if value("registry_users") else "none")
    return {
        "host": name,
        "endpoint": str(endpoint),
        "scheme": scheme,
        "url": f"{scheme}://{endpoint}",
        "upstreams": list(upstreams),
        "auth": auth,
        # Whether a client without an account can pull, as Docker's registry-mirrors must.
        "anonymous_pull": auth == "none"
        or (
            auth == "htpasswd"
            and _yes(variables.get("registry_gateway"))
            and variables.get("gateway_anonymous") != []
        ),
        # The CA that clients have to trust, on the controller; the role `registry` writes it.
        "ca_file": f"{secrets_dir(variables)}/tls/trust.crt" if has_ca else "",
        # Such an address means another machine on every node.
        "loopback": str(endpoint).rsplit(":", 1)[0].strip("[]") in LOOPBACK,
    }


def _yes(value: object) -> bool:
    return value if isinstance(value, bool) else str(value or "").lower() in ("yes", "true", "on", "1")


def secrets_dir(variables: Mapping) -> str:
    """Where generated secrets are on the controller; equal to the role's default (a test compares them)."""
    where = variables.get("registry_secrets_dir")
    return str(where or f"{variables.get('inventory_dir') or variables.get('playbook_dir') or '.'}/.secrets")


def registry_access(groups: Mapping, hostvars: Mapping, who: str = "admin", where: str = "host") -> dict:
    """How to talk to the fleet's registry: the one place that says so for probes, jobs, mirror runs and nodes.

    Args:
        groups, hostvars: as for registry_facts.
        who: "admin", or "node" for the account of the nodes.
        where: "host" for a host that we manage, "controller" for the machine Ansible runs on.

    Returns:
        `url`, and `username`, `password`, `ca_path` where they are needed.

    Raises:
        HomelabError: as registry_facts.
    """
    facts = registry_facts(groups, hostvars)
    variables = hostvars[facts["host"]]
    access = {"url": facts["url"]}
    users = variables.get("registry_users") or []
    if facts["auth"] != "none" and users:
        node_user = variables.get("registry_node_user") or ""
        account = admin_account(users) if who == "admin" else node_account(users, node_user)
        access.update(username=account["name"], password=account["password"])
    if facts["ca_file"]:
        access["ca_path"] = CA_PATH if where == "host" else facts["ca_file"]
    return access


def fingerprint(groups: Mapping, hostvars: Mapping, ca: str, secret: str) -> str:
    """What nodes have to know of the registry, in short: if it stays the same, nobody has to learn anything.

    Args:
        groups, hostvars: as for registry_facts.
        ca: the CA's certificates in PEM; empty if there is none to trust.
        secret: of the fleet, so that nobody can try passwords on it.

    Raises:
        HomelabError: as registry_facts.
    """
    facts = registry_facts(groups, hostvars)
    access = registry_access(groups, hostvars, "node")
    known = json.dumps([facts, access, ca.split()], sort_keys=True)
    return hmac.new(secret.encode(), known.encode(), hashlib.sha256).hexdigest()


def untold(groups: Mapping, in_run: Iterable[str], run_tags: Iterable[str], skip_tags: Iterable[str]) -> list[str]:
    """The nodes that a run of site.yml does not bring in line, and that would not learn of a new CA.

    Args:
        groups: inventory group name to its hosts.
        in_run: the hosts of the run.
        run_tags, skip_tags: what is left of the run; `all` is everything.
    """
    in_run, run_tags, skip_tags = set(in_run), set(run_tags), set(skip_tags)
    left_out = []
    for group in ("docker_nodes", "k3s_nodes"):
        asked = run_tags & {"all", "tagged", group} and not skip_tags & {"all", "tagged", group}
        left_out += [node for node in groups.get(group) or [] if not asked or node not in in_run]
    return list(dict.fromkeys(left_out))


def admin_account(users: Iterable[Mapping]) -> Mapping | None:
    """The account for jobs and probes: the first admin, else the first that may push, else the first."""
    return _first(users, ("admin", "push"))


def node_account(users: Iterable[Mapping], node_user: str = "") -> Mapping | None:
    """The account of the nodes: the one that is named, else the first that may only pull, else the first."""
    users = list(users)
    named = [user for user in users if node_user and user.get("name") == node_user]
    return named[0] if named else _first(users, ("pull",))


def _first(users, roles):
    users = list(users)
    for role in roles:
        for user in users:
            if user.get("role", "pull") == role:
                return user
    return users[0] if users else None
