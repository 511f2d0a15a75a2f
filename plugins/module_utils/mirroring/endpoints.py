# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registries a mirror run talks to, each with one client that all threads share."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

from ..oci.access import Access
from ..oci.auth import Credentials, DockerConfig
from ..oci.client import Registry
from ..oci.reference import Reference, api_url
from ..oci.transport import RateLimited, Unreachable


class Endpoints:
    """Clients for the target and for every upstream.

    Args:
        target: how the registry that is filled is reached; its `url` is needed.
        upstreams: registry name (`docker.io`, `quay.io`, `nas:5000`) to Access, where the defaults do not do.
        docker_config: DockerConfig for accounts that are not given, or None.
    """

    def __init__(self, target: Access, upstreams: dict[str, Access] | None = None, docker_config: DockerConfig = None):
        self._upstreams = dict(upstreams or {})
        self._docker_config = docker_config
        self._clients = {}
        self._refusing = {}
        self._lock = threading.Lock()
        # The target is on the local net: a proxy that is meant for the internet must not see it.
        self.target = self._open(target, urlsplit(target.url).netloc, proxies={})

    def upstream(self, registry: str) -> Registry:
        """The client of an upstream by its name in a reference.

        Raises:
            HomelabError: its CA or certificate cannot be read, or its credential helper failed.
        """
        with self._lock:
            if registry not in self._clients:
                access = self._upstreams.get(registry, Access())
                self._clients[registry] = self._open(access, registry)
            return self._clients[registry]

    def ask(self, reference: Reference, method: str, *args):
        """Call a method of an upstream's client for a reference's repository.

        An upstream that cannot be reached is not tried again for every image, and after a 429 it is not asked again
        for the same kind of thing (Docker Hub still answers HEAD when no pull is left).

        Raises:
            HomelabError: as that method; the one of before where it is not asked again.
        """
        registry = reference.registry
        error = self._refusing.get(registry) or self._refusing.get((registry, method))
        if error:
            raise error
        try:
            return getattr(self.upstream(registry), method)(reference.repository, *args)
        except Unreachable as error:
            self._refusing[registry] = error
            raise
        except RateLimited as error:
            self._refusing[registry, method] = error
            raise

    def upstreams(self) -> list[Registry]:
        """The clients of all upstreams that were asked."""
        return list(self._clients.values())

    def _open(self, access, name, **options):
        credentials = None
        if access.username:
            credentials = Credentials(access.username, access.password)
        elif self._docker_config:
            credentials = self._docker_config.lookup(name)
        return Registry(
            access.url or api_url(name),
            credentials=credentials,
            ca_path=access.ca_path,
            client_cert=access.client_cert,
            client_key=access.client_key,
            validate_certs=access.validate_certs,
            timeout=access.timeout,
            direct=False,
            **options,
        )

    def close(self) -> None:
        """Drop all connections."""
        for client in (self.target, *self._clients.values()):
            client.close()
