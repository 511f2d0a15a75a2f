# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of clients that read none of Docker: buildkitd.toml of BuildKit, registries.conf of podman and others. Pure.

Sources: BuildKit's docs/buildkitd.toml.md; containers-registries.conf(5), version 2 of the format.
"""

from __future__ import annotations

import json

from ..oci.reference import registry_path

HEADER = "# Written by homelab.registry; changes by hand are lost."


def buildkitd_toml(endpoint: str, scheme: str, upstreams: list[str], ca_path: str = "", mirror: bool = True) -> str:
    """A builder's settings: our registry, and the upstreams whose images it has.

    Args:
        endpoint: `host:port`.
        scheme: http or https.
        upstreams: host names such as quay.io.
        ca_path: PEM file on the machine on which the builder is made, which copies it into the builder.
        mirror: whether upstreams' images are asked for there at all.
    """
    lines = [HEADER]
    for upstream in upstreams if mirror else ():
        path = "" if upstream == "docker.io" else f"/{registry_path(upstream)}"
        lines += ["", f"[registry.{_text(upstream)}]", f"  mirrors = [{_text(endpoint + path)}]"]
    lines += ["", f"[registry.{_text(endpoint)}]"]
    if scheme == "http":
        lines.append("  http = true")
    elif ca_path:
        lines.append(f"  ca = [{_text(ca_path)}]")
    return "\n".join(lines) + "\n"


def registries_conf(endpoint: str, scheme: str, upstreams: list[str]) -> str:
    """A file for registries.conf.d: our registry first, then the upstream itself.

    The CA is a file of its own, in /etc/containers/certs.d.
    """
    insecure = ["insecure = true"] if scheme == "http" else []
    lines = [HEADER]
    for upstream in upstreams:
        path = "" if upstream == "docker.io" else f"/{registry_path(upstream)}"
        lines += ["", "[[registry]]", f"location = {_text(upstream)}"]
        lines += ["[[registry.mirror]]", f"location = {_text(endpoint + path)}", *insecure]
    lines += ["", "[[registry]]", f"location = {_text(endpoint)}", *insecure]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value)
