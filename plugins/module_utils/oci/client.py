# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry over HTTP: the calls of the OCI distribution specification 1.1 that this collection makes."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from ..errors import HomelabError
from .auth import Credentials, Denied
from .manifest import MANIFEST_TYPES, OCI_INDEX, Descriptor, Manifest, digest_fault, digest_of, parse_manifest
from .transport import Answer, Response, Transport

#: Entries of a list that are asked for at a time; registries may give fewer.
PAGE = 1000
#: What a registry without the referrers API answers to it.
NO_REFERRERS = (400, 404, 405)


class NotFound(HomelabError):
    """The registry does not have it (404)."""


class ReadOnly(HomelabError):
    """The registry takes no writes (405): it is read-only, or a pull-through cache."""


@dataclass(frozen=True)
class Stat:
    """What HEAD tells of a manifest: digest, media type, and size in bytes (None if it did not say)."""

    digest: str
    media_type: str
    size: int | None


class UploadUrl(str):
    """Where a begun upload goes on; `repository` is the one it belongs to."""

    repository: str


class Registry:
    """One registry. Thread-safe.

    Args:
        url: `http://host:port` or `https://host:port`.
        timeout: seconds for connecting and for each read or write.
        username, password: an account; `credentials` (auth.Credentials) takes its place if given.
        ca_path: PEM file that is trusted instead of the system's certificates.
        client_cert, client_key: PEM files.
        validate_certs: False trusts any certificate.
        direct: True for a registry that is asked on the spot: no proxy, and the first failure is told at once.
            False tries again after temporary failures and uses `proxies` (see Transport).

    Raises:
        HomelabError: the URL is not one, or a file cannot be read.
    """

    def __init__(
        self,
        url,
        *,
        timeout=10,
        username=None,
        password=None,
        credentials=None,
        ca_path=None,
        client_cert=None,
        client_key=None,
        validate_certs=True,
        direct=True,
        proxies=None,
    ):
        if credentials is None and username:
            credentials = Credentials(username, password)
        self._account = credentials.username if credentials else None
        self.transport = Transport(
            url,
            timeout=timeout,
            credentials=credentials,
            ca_path=ca_path,
            client_cert=client_cert,
            client_key=client_key,
            validate_certs=validate_certs,
            **({"retries": 0, "proxies": {}} if direct else {"proxies": proxies}),
        )
        self.url = self.transport.url

    def request(self, method, path, *, body=None, headers=None, scopes=(), retry=None) -> Answer:
        """Send one request and read the whole answer, whatever its status: see Transport.request.

        Args:
            path: path with query, or an absolute URL as in a Location header.
        """
        return self.transport.request(
            method,
            path if path.startswith("/") else self._own(path),
            headers=headers,
            body=body,
            scopes=scopes,
            retry=retry,
        )

    def close(self) -> None:
        """Drop idle connections; the next request opens a new one."""
        self.transport.close()

    def _own(self, location, base="/v2/"):
        """A Location or Link as a path of this registry, if it means it.

        Behind a proxy that ends TLS a registry names its own address with the wrong scheme or port.
        """
        url = self.transport.resolve(self.url + base, location)
        parts = urlsplit(url)
        if parts.hostname != urlsplit(self.url).hostname or not parts.path.startswith("/v2/"):
            return url
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def check(self, answer: Answer | Response, statuses: tuple, doing: str) -> None:
        """Let an answer pass that has one of the statuses.

        Raises:
            NotFound: 404. Denied: 401, 403. ReadOnly: 405. HomelabError: every other.
        """
        if answer.status in statuses:
            return
        if isinstance(answer, Response):
            answer = answer.answer()
        kind, remedy = _REFUSALS.get(answer.status, (HomelabError, None))
        if kind is Denied and self._account:
            remedy = f"it refuses the account {self._account} or what it asks for: check its password and rights"
        # After a redirect it is not the registry that refuses.
        place = urlsplit(answer.url)
        who = self.url if place.netloc == urlsplit(self.url).netloc else f"{place.scheme}://{place.netloc}"
        raise kind(f"{who} answered {answer.explain()} when {doing}", remedy=remedy)

    # --- manifests ------------------------------------------------------------------------------------------
    def _ask_manifest(self, method, repository, reference):
        return self.request(
            method, _manifest_path(repository, reference), headers={"Accept": MANIFEST_TYPES}, scopes=_pull(repository)
        )

    def stat_manifest(self, repository: str, reference: str) -> Stat | None:
        """What a tag or digest stands for, None if there is no such manifest.

        A HEAD, which is no pull for Docker Hub; only a registry that does not tell the digest is read from.

        Raises:
            Denied: also for a repository that is not there, on a registry that keeps its names to itself.
            HomelabError: another answer, or a digest that is none.
        """
        answer = self._ask_manifest("HEAD", repository, reference)
        if answer.status == 404:
            return None
        self.check(answer, (200,), f"HEAD of {_spell(repository, reference)}")
        digest = answer.headers.get("docker-content-digest")
        if digest is None:
            manifest = self.read_manifest(repository, reference)
            return Stat(manifest.digest, manifest.media_type, len(manifest.data))
        self._check_digest(digest, repository, reference)
        size = answer.headers.get("content-length", "")
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        return Stat(digest, media_type, int(size) if size.isdecimal() else None)

    def head_manifest(self, repository: str, reference: str) -> str | None:
        """The digest a tag points at, None if there is no such manifest."""
        found = self.stat_manifest(repository, reference)
        return found and found.digest

    def get_manifest(self, repository: str, reference: str) -> bytes:
        """A manifest's bytes as the registry gives them, unverified."""
        answer = self._ask_manifest("GET", repository, reference)
        self.check(answer, (200,), f"reading manifest {_spell(repository, reference)}")
        return answer.body

    def read_manifest(self, repository: str, reference: str) -> Manifest:
        """A manifest whose bytes are what their digest says.

        Raises:
            NotFound: there is none.
            HomelabError: it is not what was asked for, or no manifest.
        """
        answer = self._ask_manifest("GET", repository, reference)
        self.check(answer, (200,), f"reading manifest {_spell(repository, reference)}")
        wanted = reference if ":" in reference else answer.headers.get("docker-content-digest")
        if wanted:
            self._check_digest(wanted, repository, reference)
            found = digest_of(answer.body, wanted.partition(":")[0])
            if found != wanted:
                raise HomelabError(
                    f"{self.url} gave {found} as {_spell(repository, reference)}, which is {wanted}",
                    remedy="something between here and the registry, or its disk, is damaging data",
                )
        return parse_manifest(answer.body, answer.headers.get("content-type"), _spell(repository, reference))

    def put_manifest(self, repository: str, reference: str, manifest: bytes, media_type: str) -> Answer:
        """Store a manifest under a tag or under its own digest; the header oci-subject tells of the referrers API.

        Raises:
            Denied, ReadOnly: this registry takes no manifests from us.
            HomelabError: another refusal, or the registry stored something else.
        """
        answer = self.request(
            "PUT",
            _manifest_path(repository, reference),
            body=manifest,
            headers={"Content-Type": media_type},
            scopes=_push(repository),
        )
        self.check(answer, (201,), f"writing manifest {_spell(repository, reference)}")
        stored = answer.headers.get("docker-content-digest")
        if stored and not digest_fault(stored) and stored != digest_of(manifest, stored.partition(":")[0]):
            raise HomelabError(
                f"{self.url} stored {_spell(repository, reference)} as {stored}, not as {digest_of(manifest)}",
                remedy="is something between here and the registry rewriting manifests?",
            )
        return answer

    def delete_manifest(self, repository: str, reference: str) -> Answer:
        """Ask for a manifest's removal, by digest with all its tags; the answer tells (202, 405 where it is off …)."""
        return self.request("DELETE", _manifest_path(repository, reference), scopes=_delete(repository))

    def _check_digest(self, digest, repository, reference):
        fault = digest_fault(digest)
        if not fault and ":" in reference and digest != reference:
            fault = "is another one"
        if fault:
            raise HomelabError(
                f"{self.url} says that the digest of {_spell(repository, reference)} is {digest!r}, which {fault}",
                remedy="is this a registry, and does a proxy before it pass its headers on?",
            )

    def referrers(self, repository: str, digest: str) -> list[Descriptor] | None:
        """What refers to a manifest; None where the registry does not have this API (distribution 2 and 3)."""
        found = []
        for answer in self._pages(f"/v2/{repository}/referrers/{digest}", _pull(repository), {"Accept": OCI_INDEX}):
            kind = answer.headers.get("content-type", "").partition(";")[0].strip()
            # Without the API, some answer every path with a page for people.
            if answer.status in NO_REFERRERS or (answer.status == 200 and kind != OCI_INDEX):
                return None
            self.check(answer, (200,), f"listing the referrers of {_spell(repository, digest)}")
            found += parse_manifest(answer.body, OCI_INDEX, f"referrers of {_spell(repository, digest)}").children
        return found

    def knows(self, repository: str) -> bool:
        """Whether it has tags of the repository, or had some once; False also for one with blobs alone."""
        answer = self.request("GET", f"/v2/{repository}/tags/list?n=1", scopes=_pull(repository))
        if answer.status == 404:
            return False
        self.check(answer, (200,), f"listing the tags of {repository}")
        return True

    # --- lists ----------------------------------------------------------------------------------------------
    def tags(self, repository: str) -> list[str] | None:
        """Tags in the registry's order; None if it does not know the repository."""
        found = []
        for answer in self._pages(f"/v2/{repository}/tags/list?n={PAGE}", _pull(repository)):
            if answer.status == 404:
                return None
            self.check(answer, (200,), f"listing the tags of {repository}")
            found += self._names(answer, "tags")
        return found

    def catalog(self):
        """Names of the repositories, one after the other (an iterator).

        Raises:
            Denied: many registries on the internet keep theirs to themselves.
        """
        for answer in self._pages(f"/v2/_catalog?n={PAGE}", ("registry:catalog:*",)):
            self.check(answer, (200,), "listing its repositories")
            yield from self._names(answer, "repositories")

    def _pages(self, path, scopes, headers=None):
        """Answers, as long as each names the next (spec: Link, RFC 8288)."""
        seen = set()
        while path:
            seen.add(path)
            answer = self.request("GET", path, headers=headers, scopes=scopes)
            yield answer
            following = re.search(r'<([^>]*)>\s*;[^,<]*\brel="?next"?', answer.headers.get("link", ""))
            path = self._own(following[1], base=path) if following else None
            if path in seen or (path and not path.startswith("/")):
                raise HomelabError(
                    f"{self.url} says that the list after {answer.url} goes on at {path}",
                    remedy="that was there already, or is another server: is a proxy changing its headers?",
                )

    def _names(self, answer, key):
        try:
            names = json.loads(answer.body)[key] or []  # 3.1 says null on a page after the last name
            if all(isinstance(name, str) for name in names):
                return list(names)
        except (ValueError, KeyError, TypeError):
            pass
        raise HomelabError(f"{answer.url} answered with something that is no list of {key}", remedy="is it a registry?")

    # --- blobs: reading -------------------------------------------------------------------------------------
    def stat_blob(self, repository: str, digest: str) -> int | None:
        """The size of a blob in bytes (0 if the registry does not say), None if the repository does not have it."""
        answer = self.request("HEAD", f"/v2/{repository}/blobs/{digest}", scopes=_pull(repository))
        if answer.status == 404:
            return None
        self.check(answer, (200,), f"HEAD of blob {digest[:19]} of {repository}")
        return int(answer.headers.get("content-length") or 0)

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has the blob and lets us see it."""
        return self.request("HEAD", f"/v2/{repository}/blobs/{digest}", scopes=_pull(repository)).status == 200

    def get_blob(self, repository: str, digest: str) -> bytes:
        """A small blob's bytes as the registry gives them, unverified."""
        answer = self.request("GET", f"/v2/{repository}/blobs/{digest}", scopes=_pull(repository))
        self.check(answer, (200,), f"reading blob {digest[:19]} of {repository}")
        return answer.body

    @contextmanager
    def open_blob(self, repository: str, digest: str, offset: int = 0):
        """A blob from some byte on: a context manager that gives a Response; nothing is verified.

        Raises:
            NotFound, Denied: it cannot be had.
            Unreachable: here, or from the Response's readinto.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        doing = f"reading blob {digest[:19]} of {repository}" + (f" from byte {offset}" if offset else "")
        path = f"/v2/{repository}/blobs/{digest}"
        with self.transport.stream(path, headers=headers, scopes=_pull(repository)) as response:
            self.check(response, (200, 206) if offset else (200,), doing)
            if response.status == 206:
                given = response.headers.get("content-range", "")
                if not re.match(rf"bytes {offset}-", given):
                    raise HomelabError(
                        f"{response.url} gave {given!r} instead of what follows byte {offset}",
                        remedy="a cache in front of the registry mixes up partial answers: let it pass on Range",
                    )
            elif offset:
                _skip(response, offset)
            yield response

    # --- blobs: writing -------------------------------------------------------------------------------------
    def put_blob(self, repository: str, data: bytes) -> str:
        """Store a small blob (POST, then one PUT; 2.8 and 3.1 do not take it in the POST); returns its digest."""
        digest = digest_of(data)
        if not self.has_blob(repository, digest):
            done = self.request(
                "PUT",
                _closing(self.start_upload(repository), digest),
                body=data,
                headers={"Content-Type": "application/octet-stream"},
                scopes=_push(repository),
                retry=False,  # the upload ends with it
            )
            self.check(done, (201,), f"writing a blob to {repository}")
        return digest

    def mount_blob(self, repository: str, digest: str, source_repository: str) -> UploadUrl | None:
        """Make a blob of another repository of this registry appear in `repository` without sending it.

        Returns:
            None if that is done; else where to upload it: the registry does not have it there, or does not mount.
        """
        return self._begin(
            repository,
            f"?mount={quote(digest, safe=':')}&from={quote(source_repository, safe='/')}",
            f"mounting blob {digest[:19]} of {source_repository} in {repository}",
            (*_push(repository), *_pull(source_repository)),
        )

    def start_upload(self, repository: str) -> UploadUrl:
        """Begin an upload; it is good for one blob.

        Raises:
            Denied, ReadOnly: the registry takes none from us.
        """
        return self._begin(repository, "", f"starting an upload to {repository}", _push(repository))

    def _begin(self, repository, query, doing, scopes):
        # To be sent twice does no harm: an upload that nobody goes on with is forgotten by the registry.
        answer = self.request("POST", f"/v2/{repository}/blobs/uploads/{query}", scopes=scopes, retry=True)
        self.check(answer, (201, 202) if query else (202,), doing)
        if answer.status == 201:
            return None
        location = answer.headers.get("location")
        if not location:
            raise HomelabError(
                f"{self.url} started an upload to {repository} without saying where (no Location header)",
                remedy="is this a registry, and does a proxy before it pass its headers on?",
            )
        url = UploadUrl(self._own(location, base=f"/v2/{repository}/blobs/uploads/"))
        url.repository = repository
        return url

    def send_blob(self, upload_url: UploadUrl, digest: str, length: int):
        """Send a blob in one PUT: a context manager that gives an Upload, whose `finish` must answer 201.

        Args:
            upload_url: from start_upload or mount_blob, with nothing sent to it yet.
            length: bytes of the blob.
        """
        return self.transport.send(
            "PUT",
            _closing(upload_url, digest),
            headers={"Content-Type": "application/octet-stream"},
            length=length,
            scopes=_push(upload_url.repository),
        )

    def refuses_wrong_digests(self, repository: str) -> bool:
        """Whether it hashes what it is sent: some bytes are offered under the digest of others.

        What proves to do so need not be sent data that was hashed before. A registry that takes them has some
        bytes more that nothing refers to; distribution 2.8 keeps those of a refused upload until it purges uploads.
        """
        sent = os.urandom(32)
        url = self.start_upload(repository)
        with self.send_blob(url, digest_of(sent[::-1]), len(sent)) as upload:
            upload.write(sent)
            answer = upload.finish()
        if answer.status == 400:
            with suppress(HomelabError):  # most forget the upload by themselves
                self.cancel_upload(url)
        return answer.status == 400

    def cancel_upload(self, upload_url: UploadUrl) -> None:
        """Tell the registry that nothing will come; not every registry takes this (404, 405)."""
        answer = self.request("DELETE", upload_url, scopes=_push(upload_url.repository))
        self.check(answer, (200, 202, 204, 404, 405), f"giving up an upload to {upload_url.repository}")


_REFUSALS = {
    400: (HomelabError, "does the server speak TLS on this port? Its address then begins with https://"),
    401: (Denied, "it is unknown or private: check the name, or give an account that may do this"),
    403: (Denied, "give an account that may do this"),
    404: (NotFound, "check the name"),
    405: (ReadOnly, "the registry is read-only, or a pull-through cache, which takes no writes"),
    407: (HomelabError, "the proxy wants an account: put it into the proxy's address"),
    413: (HomelabError, "a proxy before the registry limits the size of uploads (nginx: client_max_body_size 0)"),
    500: (
        HomelabError,
        "look at the registry's log; a full disk and wrong owners of the data directory show up like this",
    ),
    503: (HomelabError, "the registry is starting, overloaded or under maintenance: try again later"),
    507: (HomelabError, "the registry's disk is full"),
}


def _pull(repository):
    return (f"repository:{repository}:pull",)


def _push(repository):
    return (f"repository:{repository}:pull,push",)


def _delete(repository):
    return (f"repository:{repository}:delete,pull",)


def _manifest_path(repository, reference):
    return f"/v2/{repository}/manifests/{quote(reference, safe=':')}"


def _closing(upload_url, digest):
    return f"{upload_url}{'&' if '?' in upload_url else '?'}digest={quote(digest, safe='')}"


def _spell(repository, reference):
    return f"{repository}{'@' if ':' in reference else ':'}{reference}"


def _skip(response, count):
    """Read over the beginning of a body whose server does not know Range."""
    buffer = memoryview(bytearray(min(count, 1 << 20)))
    while count:
        done = response.readinto(buffer[:count])
        if not done:
            raise HomelabError(f"{response.url} ended before byte {count}", remedy="is the blob damaged there?")
        count -= done
