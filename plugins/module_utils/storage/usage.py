# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes the space: by repository, shared, unreferenced, and how full the file system is.

All sizes are bytes of content; directories and links come on top.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field

from ..errors import HomelabError
from .mark import named_by
from .tree import Tree


@dataclass(frozen=True)
class FileSystem:
    """Bytes of the file system that holds the registry; `free` is what the registry can still use."""

    total: int
    used: int
    free: int

    @property
    def percent(self) -> float:
        """How full it is for those who are not root, as `df` says it."""
        usable = self.used + self.free
        return 100 * self.used / usable if usable else 100.0


@dataclass
class RepositoryUsage:
    """What a repository takes.

    Attributes:
        tags, manifests: how many; manifests also untagged ones.
        total: bytes of all content that its tags and manifests lead to, each digest once.
        exclusive: bytes of it that no other repository needs.
        uploads: bytes of unfinished uploads.
    """

    name: str
    tags: int = 0
    manifests: int = 0
    total: int = 0
    exclusive: int = 0
    uploads: int = 0

    @property
    def shared(self) -> int:
        """Bytes that other repositories need too."""
        return self.total - self.exclusive

    @property
    def empty(self) -> bool:
        """Whether it holds nothing but its name in the catalog (an unfinished upload is something)."""
        return not (self.tags or self.manifests)


@dataclass
class Usage:
    """What a registry takes.

    Attributes:
        repositories: sorted by name.
        blobs: how many; stored: their bytes.
        shared: bytes that more than one repository needs.
        unreferenced: bytes that no tag and no manifest leads to: what garbage collection frees.
        uploads: bytes of unfinished uploads.
        empty: names of repositories without tags, manifests and uploads.
        file_system: of the registry's directory.
    """

    repositories: list[RepositoryUsage] = field(default_factory=list)
    blobs: int = 0
    stored: int = 0
    shared: int = 0
    unreferenced: int = 0
    uploads: int = 0
    empty: list[str] = field(default_factory=list)
    file_system: FileSystem | None = None

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def usage(tree: Tree) -> Usage:
    """Add up what the tree holds.

    Raises:
        HomelabError: the file system does not answer.
    """
    sizes = tree.blobs()
    found = Usage(blobs=len(sizes), stored=sum(sizes.values()), file_system=file_system(tree.root))
    needed = {}
    for name in tree.repositories():
        tags, revisions = tree.tags(name), tree.revisions(name)
        named = named_by(tree, revisions.keys() | {link.digest for link in tags.values() if link.digest})
        needed[name] = named & sizes.keys()
        one = RepositoryUsage(name, len(tags), len(revisions))
        one.total = sum(sizes[digest] for digest in needed[name])
        one.uploads = sum(upload.size for upload in tree.uploads(name))
        found.repositories.append(one)
        found.uploads += one.uploads
        if one.empty and not tree.uploads(name):
            found.empty.append(name)
    once, more = set(), set()
    for digests in needed.values():
        more |= once & digests
        once |= digests
    for one in found.repositories:
        one.exclusive = sum(sizes[digest] for digest in needed[one.name] - more)
    found.shared = sum(sizes[digest] for digest in more)
    found.unreferenced = sum(sizes[digest] for digest in sizes.keys() - once)
    return found


def file_system(path: str) -> FileSystem:
    """Size and use of the file system that holds a path; needs no registry there.

    Raises:
        HomelabError: it does not answer.
    """
    try:
        state = os.statvfs(path)
    except OSError as error:
        raise HomelabError(f"the file system cannot be asked for its size: {error.strerror}", str(path)) from error
    unit = state.f_frsize
    return FileSystem(
        total=unit * state.f_blocks, used=unit * (state.f_blocks - state.f_bfree), free=unit * state.f_bavail
    )
