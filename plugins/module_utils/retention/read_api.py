# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a registry holds, read over its API.

The API shows less than the directory tree: no manifest without a tag (but children of what has one), and no time of
a push. With a memory of manifests a run that finds nothing new costs the catalog, a list per repository and a HEAD per
tag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ..errors import HomelabError
from ..oci.client import NotFound, Registry
from ..oci.inventory import Held, Inventory, Repository, Tag, created_of
from ..oci.manifest import CONFIG_TYPES, digest_of, parse_manifest
from .memory import Memory

WORKERS = 8
#: Bytes. A configuration larger than this is no configuration.
MAX_CONFIG = 8 << 20


def read_inventory(registry: Registry, memory: Memory | None = None) -> Inventory:
    """The registry's repositories, tags, and the manifests that tags lead to.

    A tag without a manifest is left out. A manifest that is missing or cannot be read has the media type "". A child
    that was deleted since it was remembered may still be listed.

    Args:
        memory: what digests stand for; it learns, and the caller saves it.

    Raises:
        HomelabError: something could not be asked: a plan from half an inventory would delete the wrong half.
    """
    inventory = Inventory(registry.url)
    with ThreadPoolExecutor(WORKERS) as pool:
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
            reader = _Reader(registry, memory or Memory(None))
            while wanted:
                wanted = _hold(inventory, _all(pool, reader.read, dict.fromkeys(wanted)))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
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
    def __init__(self, registry, memory):
        self._registry, self._memory = registry, memory

    def read(self, repository, digest, media_type, size):
        """(repository, Held, media types of children); no Held for a child that is not there (size None)."""
        known = self._memory.get(digest)
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
        if manifest.config and manifest.config.media_type in CONFIG_TYPES and manifest.config.size <= MAX_CONFIG:
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
            self._memory.put(held)
        return repository, held, {child.digest: child.media_type for child in manifest.children}
