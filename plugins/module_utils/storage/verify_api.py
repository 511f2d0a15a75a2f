# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is every image whole? Asked over the API, where the registry's directory is not at hand.

It sees what a client sees: tags and what they lead to. A server with a cache of blob descriptors answers HEAD from
it, so that a blob that was lost since the server's start shows only when it is read (`deep`), or after a restart.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ..errors import HomelabError
from ..oci.client import Denied, NotFound, Registry
from ..oci.manifest import digest_of, parse_manifest
from ..oci.transport import RateLimited, Unreachable
from .verify import NO_BLOB, NO_LINK, NOT_SERVED, UNKNOWN, WRONG_CONTENT, WRONG_SIZE, Damage, Flaw, Report

WORKERS = 8
_CHUNK = 1 << 20


def verify_api(
    registry: Registry,
    deep: bool = False,
    mirrored: Iterable[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check every tag -> manifest -> children -> blobs: served, and of the right size.

    Args:
        deep: also read and hash all blobs, each digest once.
        mirrored, progress: as for verify.verify.

    Raises:
        HomelabError: the registry cannot be asked, or not for everything: half a check would look like a good one.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            return _Check(registry, pool, frozenset(mirrored), progress).run(deep)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Check:
    def __init__(self, registry, pool, mirrored, progress):
        self.registry, self.pool = registry, pool
        self.mirrored, self.progress = mirrored, progress
        self.report = Report()
        self.lock = threading.Lock()
        self.total = 0

    def run(self, deep):
        """All of it."""
        names = sorted(set(self.registry.catalog()))
        listed = self._all(self.registry.tags, [(name,) for name in names])
        pairs = [(name, tag) for name, tags in zip(names, listed) for tag in sorted(set(tags or ()))]
        heads = dict(zip(pairs, self._all(self._head, pairs)))
        manifests = self._manifests({(pair[0], digest) for pair, (digest, _flaw) in heads.items() if digest})
        sizes = {}  # (repository, digest) to what manifests say of its bytes
        for (name, _digest), (manifest, _flaws) in manifests.items():
            sizes.update({(name, blob.digest): blob.size for blob in manifest.blobs} if manifest else {})
        blobs = dict(zip(sizes, self._all(self._blob, [(*key, size) for key, size in sizes.items()])))
        wrong = self._hash({digest: (name, sizes[name, digest]) for name, digest in sizes}, blobs) if deep else {}
        for (name, tag), (digest, flaw) in heads.items():
            flaws = dict.fromkeys([flaw] if flaw else self._image(name, digest, manifests, blobs, wrong))
            if flaws:
                healable = f"{name}:{tag}" in self.mirrored
                self.report.damages.append(Damage(name, tag, digest, tuple(flaws), healable))
        self.report.damages.sort(key=lambda damage: damage.name)
        self.report.tags, self.report.manifests = len(pairs), len(manifests)
        self.report.blobs = len({digest for _name, digest in (*manifests, *sizes)})
        return self.report

    def _all(self, function, arguments):
        futures = [self.pool.submit(function, *one) for one in arguments]
        return [future.result() for future in futures]

    # --- questions ------------------------------------------------------------------------------------------
    def _head(self, name, tag):
        """(digest, None) or (None, Flaw) of a tag."""
        try:
            found = self.registry.stat_manifest(name, tag)
        except _NO_ANSWER:
            raise
        except HomelabError as error:  # 500: an empty link, as after a crash or on a full disk
            return None, Flaw(None, NOT_SERVED, f"the tag is not served: {error.message}")
        if found is None:
            return None, Flaw(None, NO_BLOB, "the manifest that the tag points at is missing")
        return found.digest, None

    def _manifests(self, wanted):
        """(repository, digest) to (manifest or None, flaws), also of children."""
        found = {}
        while wanted:
            read = self._all(self._manifest, sorted(wanted))
            found.update(zip(sorted(wanted), read))
            children = {
                (name, child.digest)
                for (name, _digest), (manifest, _flaws) in zip(sorted(wanted), read)
                for child in (manifest.children if manifest else ())
            }
            wanted = children - found.keys()
        return found

    def _manifest(self, name, digest):
        try:
            data = self.registry.get_manifest(name, digest)
        except _NO_ANSWER:
            raise
        except NotFound:
            return None, [Flaw(digest, NO_BLOB, f"manifest {digest} is missing in {name}")]
        except HomelabError as error:
            return None, [Flaw(digest, NOT_SERVED, f"manifest {digest} is not served: {error.message}")]
        actual = digest_of(data, digest.partition(":")[0])
        if actual != digest:
            return None, [Flaw(digest, WRONG_CONTENT, f"manifest {digest} has the content of {actual}")]
        try:
            return parse_manifest(data), []
        except HomelabError as error:
            return None, [Flaw(digest, UNKNOWN, f"manifest {digest}: {error.message}")]

    def _blob(self, name, digest, size):
        """Flaws of a blob in a repository, from a HEAD."""
        try:
            found = self.registry.stat_blob(name, digest)
        except _NO_ANSWER:
            raise
        except HomelabError as error:
            return [Flaw(digest, NOT_SERVED, f"blob {digest} is not served: {error.message}")]
        if found is None:
            return [Flaw(digest, NO_LINK, f"blob {digest} is missing in {name}")]
        if found == size:
            return []
        if not found:  # or the server does not say
            fault = self._fault(name, digest)
            return [Flaw(digest, WRONG_CONTENT, f"blob {digest} {fault}")] if fault else []
        return [Flaw(digest, WRONG_SIZE, f"blob {digest} has {found} bytes instead of {size}")]

    # --- every byte -----------------------------------------------------------------------------------------
    def _hash(self, places, blobs):
        """Digest to what its content is instead; what is known to be damaged need not be read."""
        places = {digest: place for digest, place in places.items() if not blobs[place[0], digest]}
        self.total = sum(size for _name, size in places.values())
        faults = self._all(self._fault, [(name, digest) for digest, (name, _size) in places.items()])
        return {digest: fault for digest, fault in zip(places, faults) if fault}

    def _fault(self, name, digest):
        algorithm = digest.partition(":")[0]
        hashed, buffer, begun = hashlib.new(algorithm), memoryview(bytearray(_CHUNK)), False
        try:
            with self.registry.open_blob(name, digest) as stream:
                begun = True
                while count := stream.readinto(buffer):
                    hashed.update(buffer[:count])
                    self._read(count)
        except NotFound:
            return "is missing"
        except Unreachable:
            if not begun:
                raise
            # The server promised more bytes than it has, or it has died: the latter shows now.
            self.registry.check(self.registry.request("GET", "/v2/"), (200, 401), "looking whether it is there")
            return "breaks off"
        except _NO_ANSWER:
            raise
        except HomelabError as error:
            return f"is not served: {error.message}"
        actual = f"{algorithm}:{hashed.hexdigest()}"
        return None if actual == digest else f"has the content of {actual}"

    def _read(self, count):
        with self.lock:
            self.report.read += count
            if self.progress:
                self.progress(self.report.read, self.total)

    # --- the result -----------------------------------------------------------------------------------------
    @staticmethod
    def _image(name, digest, manifests, blobs, wrong):
        """Flaws of a manifest and all below it."""
        waiting, done = [digest], set()
        while waiting:
            current = waiting.pop(0)
            if current in done:
                continue
            done.add(current)
            manifest, flaws = manifests[name, current]
            yield from flaws
            if manifest is None:
                continue
            waiting += [child.digest for child in manifest.children]
            for blob in manifest.blobs:
                yield from blobs[name, blob.digest]
                if blob.digest in wrong:
                    yield Flaw(blob.digest, WRONG_CONTENT, f"blob {blob.digest} {wrong[blob.digest]}")


#: Nothing can be said without an answer.
_NO_ANSWER = (Unreachable, Denied, RateLimited)
