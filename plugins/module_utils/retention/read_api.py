# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a registry holds, read over its API.

The API shows less than the directory tree: no manifest without a tag (but children of what has one), and no time of
a push. What a digest stands for never changes, so it is remembered: a run that finds nothing new costs the catalog,
a list per repository and a HEAD per tag.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..errors import HomelabError
from ..oci.client import NotFound, Registry
from ..oci.inventory import Held, Inventory, Repository, Tag, created_of
from ..oci.manifest import OCI_CONFIG, digest_fault, digest_of, parse_manifest
from ..text_file import write_atomic

VERSION = 1
WORKERS = 8
#: Bytes. A configuration larger than this is no configuration.
MAX_CONFIG = 8 << 20
_CONFIG_TYPES = (OCI_CONFIG, "application/vnd.docker.container.image.v1+json")


def read_inventory(registry: Registry, cache_path: str | None = None, workers: int = WORKERS) -> Inventory:
    """The registry's repositories, tags, and the manifests that tags lead to.

    A tag without a manifest is left out. A manifest that is missing or cannot be read has the media type "". A child
    that was deleted since it was remembered may still be listed.

    Args:
        cache_path: JSON file for what digests stand for, one for each registry; None remembers nothing.
        workers: requests at a time.

    Raises:
        HomelabError: something could not be asked: a plan from half an inventory would delete the wrong half.
    """
    cache = _Cache(cache_path)
    inventory = Inventory(registry.url)
    with ThreadPoolExecutor(workers) as pool:
        try:
            names = sorted(set(registry.catalog()))
            listed = _all(pool, registry.tags, [(name,) for name in names])
            pairs = [(name, tag) for name, tags in zip(names, listed) for tag in sorted(set(tags or ()))]
            stats = _all(pool, registry.stat_manifest, pairs)
            wanted = []
            for (name, tag), stat in zip(pairs, stats):
                if stat is not None:
                    repository = inventory.repositories.setdefault(name, Repository(name))
                    repository.tags[tag] = Tag(tag, stat.digest)
                    wanted.append((name, stat.digest, stat.media_type, stat.size or 0))
            reader = _Reader(registry, cache)
            while wanted:
                wanted = _hold(inventory, _all(pool, reader.read, dict.fromkeys(wanted)))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            cache.save(prune=False)
            raise
    cache.save(prune=True)
    return inventory


def _all(pool: ThreadPoolExecutor, function: Callable, arguments: Iterable) -> list:
    """The function's results in order; the first error ends it, and what has not begun is dropped."""
    futures = [pool.submit(function, *one) for one in arguments]
    return [future.result() for future in futures]


def _hold(inventory, found):
    """Put manifests into their repositories; returns their children that are not there yet."""
    wanted = []
    for name, held, child_types in found:
        if held is not None:
            inventory.repositories[name].manifests[held.digest] = held
            wanted += [(name, child, child_types.get(child, ""), None) for child in held.children]
    known = inventory.repositories
    return [one for one in wanted if one[1] not in known[one[0]].manifests]


class _Reader:
    def __init__(self, registry, cache):
        self._registry, self._cache = registry, cache

    def read(self, repository, digest, media_type, size):
        """(repository, Held, media types of children); no Held for a child that is not there (size None)."""
        known = self._cache.get(digest)
        if known is not None:
            return repository, known, {}
        try:
            data = self._registry.get_manifest(repository, digest)
        except NotFound:
            return repository, None if size is None else Held(digest, size=size), {}
        try:
            if digest_of(data, digest.partition(":")[0]) != digest:
                raise HomelabError("other bytes than its digest says")
            manifest = parse_manifest(data, media_type or None)
        except HomelabError:
            return repository, Held(digest, size=len(data)), {}
        created, remember = None, True
        if manifest.config and manifest.config.media_type in _CONFIG_TYPES and manifest.config.size <= MAX_CONFIG:
            try:
                created = created_of(self._registry.get_blob(repository, manifest.config.digest))
            except NotFound:
                remember = False  # it may be healed
        held = Held(
            digest=digest,
            media_type=manifest.media_type,
            size=len(data),
            children=tuple(dict.fromkeys(child.digest for child in manifest.children)),
            blobs=tuple((blob.digest, blob.size) for blob in manifest.blobs),
            subject=manifest.subject.digest if manifest.subject else None,
            created=created,
        )
        if remember:
            self._cache.put(held)
        return repository, held, {child.digest: child.media_type for child in manifest.children}


class _Cache:
    """What digests stand for, over runs. A file that makes no sense is as good as none."""

    def __init__(self, path):
        self._path = Path(path) if path else None
        self._known, self._used, self._changed = {}, set(), False
        if self._path is None:
            return
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            if document["version"] == VERSION:
                self._known = {digest: _held(digest, *facts) for digest, facts in document["manifests"].items()}
        except FileNotFoundError:
            return
        except OSError as error:
            raise HomelabError(
                f"the cache of manifests cannot be read: {error.strerror}", str(self._path), "check its permissions"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._known = {}

    def get(self, digest):
        self._used.add(digest)
        return self._known.get(digest)

    def put(self, held):
        self._known[held.digest] = replace(held, pushed=None)
        self._changed = True

    def save(self, *, prune):
        """Write the file if there is something new, or, with `prune`, something that no tag leads to any more."""
        if self._path is None:
            return
        kept = {digest: held for digest, held in self._known.items() if digest in self._used or not prune}
        if not self._changed and len(kept) == len(self._known):
            return
        manifests = {
            digest: [held.media_type, held.size, held.children, held.blobs, held.subject, held.created]
            for digest, held in sorted(kept.items())
        }
        document = {"version": VERSION, "manifests": manifests}
        write_atomic(str(self._path), json.dumps(document, separators=(",", ":")), 0o600)


def _held(digest, media_type, size, children, blobs, subject, created):
    """A Held from the file; ValueError for what was not written by this module."""
    digests = [digest, *children, *(blob for blob, _size in blobs), *([] if subject is None else [subject])]
    numbers = [size, *(count for _blob, count in blobs)]
    if (
        any(map(digest_fault, digests))
        or not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
        or not (media_type and isinstance(media_type, str))
        or not (created is None or type(created) in (int, float))
    ):
        raise ValueError(digest)
    return Held(
        digest, media_type, size, tuple(children), tuple((blob, count) for blob, count in blobs), subject, created
    )
