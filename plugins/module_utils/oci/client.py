# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry over HTTP: the calls of the OCI distribution specification that this collection makes.

One connection, kept alive. No proxy from the environment: the registries meant here are on the local net.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from ..errors import HomelabError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
#: All of them: a registry answers 404, or with another manifest's digest, to a narrower Accept.
MANIFEST_TYPES = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

USER_AGENT = "homelab.registry"


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Answer:
    """A complete answer; `headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    def explain(self) -> str:
        """Status and the registry's own words for an error, for a message."""
        try:
            error = json.loads(self.body)["errors"][0]
            said = " ".join(str(error[key]) for key in ("code", "message", "detail") if error.get(key))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            said = self.body[:200].decode("utf-8", "replace").strip()
        return f"{self.status} {said}".strip()


class Registry:
    """One registry.

    Args:
        url: `http://host:port` or `https://host:port`.
        timeout: seconds for connecting and for each read or write.
        username, password: sent as Basic credentials with each request, if given.
        ca_path: PEM file that is trusted instead of the system's certificates.
        validate_certs: False trusts any certificate.

    Raises:
        HomelabError: the URL is not one, or the CA file cannot be read.
    """

    def __init__(self, url, *, timeout=10, username=None, password=None, ca_path=None, validate_certs=True):
        self.url = url.rstrip("/")
        if "@" in url:  # it would show in every message
            raise HomelabError(
                "the registry's address holds credentials", remedy="give them apart, as username and password"
            )
        try:
            parts = urlsplit(self.url)
            self._host, self._port = parts.hostname, parts.port
        except ValueError:
            self._host = None
        if not self._host or parts.scheme not in ("http", "https") or parts.path or parts.query:
            raise HomelabError(
                f"{url!r} is not a registry's address", remedy="write it as http://host:port or https://host:port"
            )
        self._tls = parts.scheme == "https"
        self._timeout = timeout
        self._headers = {"User-Agent": USER_AGENT}
        if username:
            token = base64.b64encode(f"{username}:{password or ''}".encode()).decode("ascii")
            self._headers["Authorization"] = f"Basic {token}"
        self._context = self._make_context(ca_path, validate_certs) if self._tls else None
        self._connection = None

    def _make_context(self, ca_path, validate_certs):
        try:
            context = ssl.create_default_context(cafile=ca_path)
        except (OSError, ssl.SSLError) as error:
            raise HomelabError(f"the CA file {ca_path} cannot be used: {error}", remedy="give a PEM file") from error
        if not validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _connect(self):
        if self._tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def request(self, method: str, path: str, *, body: bytes | None = None, headers: dict | None = None) -> Answer:
        """Send one request and read the whole answer, whatever its status.

        Args:
            method: HTTP method.
            path: path with query, or an absolute URL of this registry (as in a Location header).

        Raises:
            HomelabError: no HTTP answer; the reason says whether it is the name, the port, TLS or time.
        """
        if "://" in path:
            parts = urlsplit(path)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
        reused = self._connection is not None
        try:
            return self._send(method, path, body, {**self._headers, **(headers or {})})
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A server may drop an idle connection at any moment: the one failure worth a second try here.
            if reused and not isinstance(error, TimeoutError):
                return self.request(method, path, body=body, headers=headers)
            raise self._unreachable(method, path, error) from error

    def _send(self, method, path, body, headers):
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request(method, path, body=body, headers=headers)
        response = self._connection.getresponse()
        data = response.read()
        answer = Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, data)
        if response.will_close:
            self.close()
        return answer

    def _unreachable(self, method, path, error):
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = "the certificate is not trusted here: give its CA (ca_path)"
        elif isinstance(error, ssl.SSLError):
            remedy = "does the server speak plain HTTP on this port? Compare registry_scheme with its configuration"
        elif isinstance(error, http.client.HTTPException):
            remedy = "does the server speak TLS on this port? Compare registry_scheme with its configuration"
        elif isinstance(error, ConnectionRefusedError):
            remedy = "nothing listens there: is the container running, and are address and port right?"
        else:
            remedy = "check the name, the network and the firewall between here and there"
        return HomelabError(f"{method} {self.url}{path} got no answer: {error or type(error).__name__}", remedy=remedy)

    def close(self) -> None:
        """Drop the connection; the next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    # --- manifests ------------------------------------------------------------------------------------------
    def _manifest_path(self, repository: str, reference: str) -> str:
        return f"/v2/{repository}/manifests/{quote(reference, safe=':')}"

    def head_manifest(self, repository: str, reference: str) -> str | None:
        """The digest a tag points at, None if there is no such manifest (spec: checking if content exists)."""
        answer = self.request("HEAD", self._manifest_path(repository, reference), headers={"Accept": MANIFEST_TYPES})
        if answer.status == 404:
            return None
        self._expect(answer, (200,), f"HEAD of {repository}:{reference}")
        return answer.headers.get("docker-content-digest")

    def get_manifest(self, repository: str, reference: str) -> bytes:
        """A manifest's bytes, as they are stored."""
        answer = self.request("GET", self._manifest_path(repository, reference), headers={"Accept": MANIFEST_TYPES})
        self._expect(answer, (200,), f"reading manifest {repository}:{reference}")
        return answer.body

    def put_manifest(self, repository: str, reference: str, manifest: bytes, media_type: str) -> None:
        """Store a manifest under a tag or under its own digest."""
        answer = self.request(
            "PUT", self._manifest_path(repository, reference), body=manifest, headers={"Content-Type": media_type}
        )
        self._expect(answer, (201,), f"writing manifest {repository}:{reference}")

    def delete_manifest(self, repository: str, digest: str) -> Answer:
        """Ask for a manifest's removal, with all its tags; the answer tells (202, 405 where it is off …)."""
        return self.request("DELETE", self._manifest_path(repository, digest))

    # --- blobs ----------------------------------------------------------------------------------------------
    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has the blob (307: an object store behind the registry has it)."""
        return self.request("HEAD", f"/v2/{repository}/blobs/{digest}").status in (200, 307)

    def get_blob(self, repository: str, digest: str) -> bytes:
        """A small blob's bytes."""
        answer = self.request("GET", f"/v2/{repository}/blobs/{digest}")
        if answer.status == 307:  # to the object store, which must not see our credentials
            parts = urlsplit(urljoin(self.url, answer.headers.get("location", "")))
            store = Registry(f"{parts.scheme}://{parts.netloc}", timeout=self._timeout)
            answer = store.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
        self._expect(answer, (200,), f"reading blob {digest[:19]} of {repository}")
        return answer.body

    def put_blob(self, repository: str, data: bytes) -> str:
        """Store a small blob (POST, then one PUT; 2.8 and 3.1 do not take it in the POST); returns its digest."""
        digest = digest_of(data)
        if self.has_blob(repository, digest):
            return digest
        started = self.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
        self._expect(started, (202,), f"starting an upload to {repository}")
        location = started.headers.get("location")
        if not location:
            raise HomelabError(
                f"{self.url} started an upload to {repository} without saying where (no Location header)",
                remedy="is this a registry, and does a proxy before it pass its headers on?",
            )
        done = self.request(
            "PUT",
            f"{location}{'&' if '?' in location else '?'}digest={quote(digest)}",
            body=data,
            headers={"Content-Type": "application/octet-stream"},
        )
        self._expect(done, (201,), f"writing a blob to {repository}")
        return digest

    def _expect(self, answer: Answer, statuses: tuple, doing: str) -> None:
        if answer.status in statuses:
            return
        remedy = {
            401: "give an account that may do this",
            403: "give an account that may do this",
            405: "the registry is read-only, or a pull-through cache, which takes no writes",
            500: "look at the registry's log; a full disk and wrong owners of the data directory show up like this",
        }.get(answer.status)
        raise HomelabError(f"{self.url} answered {answer.explain()} when {doing}", remedy=remedy)
