# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory tree in which distribution's filesystem driver keeps a registry, read without the server.

Layout (distribution, registry/storage/paths.go), below `<root>/docker/registry/v2`::

    blobs/<algorithm>/<first two digits>/<digits>/data
    repositories/<name>/_manifests/revisions/<algorithm>/<digits>/link      manifests the repository has
    repositories/<name>/_manifests/tags/<tag>/current/link                  what a tag points at
    repositories/<name>/_layers/<algorithm>/<digits>/link                   blobs the repository serves
    repositories/<name>/_uploads/<uuid>/{data,startedat}                    uploads that are not finished

A link is a file with a digest in it, nothing else. The server may write meanwhile: what vanishes between two looks
counts as not there. What cannot be read becomes a finding; symbolic links are never followed, the server makes none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import HomelabError
from ..oci.inventory import Held, Inventory, Repository, Tag, created_of, parse_time
from ..oci.manifest import (
    CONFIG_TYPES,
    IMAGE_TYPES,
    INDEX_TYPES,
    digest_fault,
    digest_of,
    parse_manifest,
)
from ..oci.reference import repository_fault
from .apart import read_apart

#: What a finding is about.
UNREADABLE = "unreadable"
SYMLINK = "symbolic link"
BAD_LINK = "damaged link"
BAD_MANIFEST = "damaged manifest"
STRAY = "stray"
MISPLACED = "misplaced data"
#: These hide what lies behind them: a tree with one of them is not known completely.
HIDING = (UNREADABLE, SYMLINK)

BELOW = "docker/registry/v2"
#: A registry takes no larger manifest.
MAX_MANIFEST = 4 << 20
_CHUNK = 1 << 20
#: Bytes that hardly a manifest or a configuration has.
_USUAL = 1 << 15
#: In a root that was never pushed to: a fresh file system's, a pull-through cache's.
_NO_CONTENT = {"lost+found", "scheduler-state.json"}
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SHA256 = re.compile("sha256:[0-9a-f]{64}")
_decode = json.JSONDecoder().decode


class Finding(NamedTuple):
    """Something in the tree that is not as it should be.

    kind: one of the constants above; where: path below the root; message: what is wrong.
    """

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Link(NamedTuple):
    """A link file: the digest in it, None if it is damaged, and when it was written (seconds since 1970)."""

    digest: str | None
    at: float | None


class Upload(NamedTuple):
    """An upload that is not finished: `touched` is its last sign of life (seconds since 1970), `size` in bytes."""

    repository: str
    uuid: str
    touched: float
    size: int


class Content(NamedTuple):
    """A manifest's content.

    Attributes:
        media_type: "" if it cannot be read as a manifest.
        size: bytes.
        children, blobs: (digest, bytes), as the manifest says; without foreign layers.
        references: all digests the server's garbage collection sees in it, also foreign layers'.
        subject: digest of what it refers to, or None.
        config: digest of an image's configuration, or None.
        schema: the schemaVersion by which the server reads it; 0 if it cannot.
        intact: whether it has the digest by which it is stored.
        fault: what is wrong with it, or None.
    """

    media_type: str
    size: int
    children: tuple = ()
    blobs: tuple = ()
    references: tuple = ()
    subject: str | None = None
    config: str | None = None
    schema: int = 0
    intact: bool = False
    fault: str | None = None


class _Directory(NamedTuple):
    """A directory below `repositories`: (name, is a directory), sorted as the server walks them."""

    entries: tuple
    parts: frozenset


class Tree:
    """A look at a registry's directory tree. Each part is read when it is asked for first, and once: to look again,
    make a new Tree.

    Args:
        root: the server's `rootdirectory`. One that is empty is a registry without images.
        mended: read it as it will be once garbage.repair_links was there: a link of a manifest or a blob whose content
            is lost counts as what its path says; and a tag's manifest that is whole but not linked counts as linked,
            with what it leads to (a backup that copied links before tags, a deletion that was cut off).

    Attributes:
        root: as given. base: the directory that holds `blobs` and `repositories`.
        lost_links: with `mended`, path to Link of these, in the parts that were read.

    Raises:
        HomelabError: there is no registry in `root`, or it cannot be read.
    """

    def __init__(self, root, mended: bool = False) -> None:
        self.root = os.fspath(root)
        self.base = f"{os.path.realpath(self.root)}/{BELOW}"
        self._mended = mended
        self.lost_links = {}
        self._findings = {}
        self._cache = {}
        self._contents = {}
        self._created = {}
        self._blob_names = None
        self._check_root()

    def _check_root(self):
        remedy = "give the server's rootdirectory, which has docker/registry/v2 in it, and run it as root"
        try:
            names = {path.name for path in Path(self.root).iterdir()}
            below = Path(self.base).is_dir()
            if below:
                os.scandir(self.base).close()
        except OSError as error:
            raise HomelabError(f"the registry's data cannot be read: {error.strerror}", self.root, remedy) from error
        if not below and names - _NO_CONTENT:
            raise HomelabError("there is no registry in this directory", self.root, remedy)
        if os.path.realpath(self.base) != self.base:
            raise HomelabError(
                "docker/registry/v2 is reached through a symbolic link", self.root, "mount the directory there instead"
            )

    # --- reading --------------------------------------------------------------------------------------------
    @property
    def findings(self) -> list[Finding]:
        """What was found wrong in the parts that were read, sorted."""
        return sorted(self._findings)

    @property
    def complete(self) -> bool:
        """Whether nothing was hidden in the parts that were read."""
        return not self.hiding

    @property
    def hiding(self) -> list[Finding]:
        """The findings that hide something."""
        return [finding for finding in self.findings if finding.kind in HIDING]

    def _find(self, kind, path, message):
        where = f"{BELOW}/{os.path.relpath(path, self.base)}"
        # Names on a disk may be any bytes, messages must print.
        self._findings[Finding(kind, os.fsencode(where).decode("utf-8", "replace"), message)] = None

    def _failed(self, path, error):
        """A finding for what could not be opened; nothing if it is not there."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        if error.errno == errno.ELOOP:
            self._find(SYMLINK, path, "is a symbolic link, which is not followed")
        else:
            self._find(UNREADABLE, path, f"cannot be read: {error.strerror}")

    def _once(self, key, read):
        if key not in self._cache:
            self._cache[key] = read()
        return self._cache[key]

    def _entries(self, path) -> list[tuple[str, bool]]:
        """(name, is a directory) of a directory that is none itself reached through a link."""
        found = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        found.append((entry.name, True))
                    elif entry.is_symlink():
                        self._find(SYMLINK, entry.path, "is a symbolic link, which is not followed")
                    else:
                        found.append((entry.name, False))
        except OSError as error:
            self._failed(path, error)
        return found

    def top(self) -> list[str]:
        """Directories of the tree itself: `blobs` and `repositories`, if something was ever pushed."""
        return self._once("top", lambda: self._folders(self.base))

    def _folders(self, path) -> list[str]:
        return [name for name, is_folder in self._entries(path) if is_folder]

    def _digests(self, path) -> Iterator[tuple[str, str]]:
        """Digest and directory of `<path>/<algorithm>/<digits>`; what is no digest becomes a finding."""
        for algorithm in self._folders(path):
            folder = f"{path}/{algorithm}"
            for name in self._folders(folder):
                digest = f"{algorithm}:{name}"
                if not _is_digest(digest):
                    self._find(STRAY, f"{folder}/{name}", "is not named by a digest")
                else:
                    yield digest, f"{folder}/{name}"

    def _read(self, path, limit, state=False) -> tuple[bytes, os.stat_result | None] | None:
        """A file's first bytes, and its state if that is wanted; None if it is not there or cannot be read."""
        try:
            handle = os.open(path, _OPEN)
            try:
                # Python makes room for all that is asked for, even if there is little to read.
                data = os.read(handle, min(limit, _USUAL))
                if len(data) == _USUAL:
                    data += os.read(handle, limit - _USUAL)
                return data, os.fstat(handle) if state else None
            finally:
                os.close(handle)
        except OSError as error:
            self._failed(path, error)
            return None

    def _link(self, folder, digest_by_path=None) -> Link | None:
        """`<folder>/link`; None if there is none."""
        path = f"{folder}/link"
        before = len(self._findings)
        read = self._read(path, 200, state=True)
        if read is None:
            return Link(None, None) if len(self._findings) > before else None
        data, state = read
        digest = data.decode("ascii", "replace")
        if digest == digest_by_path or _is_digest(digest):
            return Link(digest, state.st_mtime)
        if self._mended and digest_by_path:
            self.lost_links[path] = Link(digest_by_path, state.st_mtime)
            return self.lost_links[path]
        said = "is empty" if not state.st_size else "holds no digest"
        self._find(BAD_LINK, path, f"{said}, as after a crash or a full disk")
        return Link(None, state.st_mtime)

    def _links(self, path) -> dict[str, Link]:
        """Links below `<path>/<algorithm>/<digits>`, by the digest of the path."""
        found = {}
        for digest, folder in self._digests(path):
            link = self._link(folder, digest)
            if link is None:  # what a deleted manifest leaves behind
                continue
            if link.digest not in (None, digest):
                self._find(BAD_LINK, f"{folder}/link", f"holds {link.digest}")
            found[digest] = link
        return found

    # --- repositories ---------------------------------------------------------------------------------------
    def _directories(self) -> dict[str, _Directory]:
        """Directories below `repositories` by name ("" is itself), without the server's own (`_manifests` …)."""

        def read():
            found, waiting = {}, [""] if "repositories" in self.top() else []
            while waiting:
                name = waiting.pop()
                entries = sorted(self._entries(self._repository_path(name)))
                folders = {entry for entry, is_folder in entries if is_folder}
                found[name] = _Directory(tuple(entries), frozenset(e for e in folders if e.startswith("_")))
                waiting += [f"{name}/{folder}" if name else folder for folder in folders if not folder.startswith("_")]
            return found

        return self._once("directories", read)

    def _repository_path(self, name):
        return f"{self.base}/repositories/{name}" if name else f"{self.base}/repositories"

    def repositories(self) -> list[str]:
        """Names of all directories that hold a repository's parts, sorted; names may be nested."""

        def read():
            names = []
            for name, directory in self._directories().items():
                if not directory.parts & {"_manifests", "_layers", "_uploads"}:
                    continue
                if name == "" or repository_fault(name):
                    self._find(STRAY, self._repository_path(name), "is not a repository's name")
                names.append(name)
            return sorted(names)

        return self._once("repositories", read)

    def has(self, name: str, part: str) -> bool:
        """Whether a repository has the directory `_manifests`, `_layers` or `_uploads`."""
        return part in self._directories()[name].parts

    def walked(self, major: int) -> list[str]:
        """The repositories that the server's `garbage-collect` sees, in its order (catalog.go, handleRepository).

        2.x goes by `_layers`, and a *file* whose name begins with _ ends its walk through that directory; 3.x goes
        by `_manifests`.
        """
        directories = self._directories()
        marker = "_layers" if major == 2 else "_manifests"

        def walk(path):
            for name, is_folder in directories[path].entries:
                if name == marker:
                    yield path
                if name.startswith("_"):
                    if major == 2 and not is_folder:
                        return
                elif is_folder:
                    yield from walk(f"{path}/{name}" if path else name)

        return list(walk("")) if directories else []

    def tags(self, name: str) -> dict[str, Link]:
        """Tags of a repository."""

        def read():
            found = {}
            path = f"{self._repository_path(name)}/_manifests"
            if not self.has(name, "_manifests") or "tags" not in self._folders(path):
                return found
            for tag in self._folders(f"{path}/tags"):
                current = f"{path}/tags/{tag}/current"
                link = None
                try:
                    if stat.S_ISDIR(os.lstat(current).st_mode):
                        link = self._link(current)
                    else:
                        self._find(SYMLINK, current, "is not a directory, and is not followed")
                except OSError as error:
                    self._failed(current, error)
                if link is None:
                    self._find(BAD_LINK, current, "is missing")
                found[tag] = link or Link(None, None)
            return found

        return self._once(("tags", name), read)

    def revisions(self, name: str) -> dict[str, Link]:
        """Manifests that a repository has, also untagged ones: digest (by the path) to link. The two may differ; such
        a link is damaged, the server does not find the manifest."""

        def read():
            path = f"{self._repository_path(name)}/_manifests"
            if not self.has(name, "_manifests"):
                return {}
            found = self._links(f"{path}/revisions") if "revisions" in self._folders(path) else {}
            if self._mended:
                self._add(f"{path}/revisions", self._unlinked(name, found), found)
            return found

        return self._once(("revisions", name), read)

    def _unlinked(self, name, linked) -> dict[str, Link]:
        """Manifests that a tag points at and that are there and right, but not linked; and their children."""
        found = {}
        waiting = [link for link in self.tags(name).values() if link.digest]
        while waiting:
            link = waiting.pop()
            content = self.content(link.digest) if link.digest not in linked and link.digest not in found else None
            if content and not content.fault:
                found[link.digest] = link
                waiting += [Link(child, link.at) for child, _size in content.children]
        self._cache["unlinked", name] = found
        return found

    def _add(self, path, missing, found):
        for digest, link in missing.items():
            if digest not in found:
                found[digest] = self.lost_links[f"{path}/{digest.replace(':', '/')}/link"] = link

    def layers(self, name: str) -> dict[str, Link]:
        """Blobs that a repository serves, as `revisions`; they may be gone from the blob store."""

        def read():
            path = f"{self._repository_path(name)}/_layers"
            found = self._links(path) if self.has(name, "_layers") else {}
            if self._mended:
                self.revisions(name)
                for digest, link in self._cache.get(("unlinked", name), {}).items():
                    blobs = [blob for blob, _size in self.content(digest).blobs if blob in self.blobs()]
                    self._add(path, {blob: Link(blob, link.at) for blob in blobs}, found)
            return found

        return self._once(("layers", name), read)

    def uploads(self, name: str) -> list[Upload]:
        """Unfinished uploads of a repository."""

        def read():
            if not self.has(name, "_uploads"):
                return []
            path = f"{self._repository_path(name)}/_uploads"
            return [self._upload(name, uuid, f"{path}/{uuid}") for uuid in self._folders(path)]

        return self._once(("uploads", name), read)

    def _upload(self, name, uuid, path):
        signs, size = [], 0
        try:
            signs.append(os.lstat(path).st_mtime)
            data = os.lstat(f"{path}/data")
            signs.append(data.st_mtime)
            size = data.st_size
        except OSError as error:
            self._failed(path, error)
        read = self._read(f"{path}/startedat", 100)
        started = parse_time(read[0].decode("ascii", "replace")) if read else None
        if started is not None:
            signs.append(started)
        # Without any sign it counts as just begun: better kept a week too long than cut off.
        return Upload(name, uuid, max(signs) if signs else float("inf"), size)

    # --- blobs ----------------------------------------------------------------------------------------------
    def blob_path(self, digest: str) -> str:
        """Directory of a blob."""
        algorithm, _other, digits = digest.partition(":")
        return f"{self.base}/blobs/{algorithm}/{digits[:2]}/{digits}"

    def _blob_folders(self) -> dict[str, list[str]]:
        """Directories of blobs: `<algorithm>/<two digits>` to names. From names alone: a blob may lack its data."""

        def read():
            found = {}
            path = f"{self.base}/blobs"
            for algorithm in self._folders(path) if "blobs" in self.top() else ():
                for two in self._folders(f"{path}/{algorithm}"):
                    names = found[f"{algorithm}/{two}"] = []
                    for name in self._folders(f"{path}/{algorithm}/{two}"):
                        if name[:2] != two or not _is_digest(f"{algorithm}:{name}"):
                            stray = f"{path}/{algorithm}/{two}/{name}"
                            kind = MISPLACED if os.path.lexists(f"{stray}/data") else STRAY
                            self._find(kind, stray, "is not where or named as a blob should be")
                        else:
                            names.append(name)
            return found

        return self._once("blob folders", read)

    def list_blobs(self) -> None:
        """Learn the names of all blobs, for `may_have`."""
        self._blob_folders()

    def may_have(self, digest: str) -> bool:
        """Whether it makes sense to try for a blob: not if all are listed, and it is not among them."""
        folders = self._cache.get("blob folders")
        if folders is None:
            return True
        if self._blob_names is None:
            self._blob_names = {
                f"{folder.partition('/')[0]}:{name}" for folder, names in folders.items() for name in names
            }
        return digest in self._blob_names

    def blobs(self) -> dict[str, int]:
        """All blobs, manifests too: digest to bytes."""

        def read():
            found = {}
            for folder, names in self._blob_folders().items():
                algorithm = folder.partition("/")[0]
                path = f"{self.base}/blobs/{folder}"
                try:
                    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                except OSError as error:
                    self._failed(path, error)
                    continue
                try:
                    for name in names:
                        size = self._blob_size(handle, f"{path}/{name}/data", name)
                        if size is not None:
                            found[f"{algorithm}:{name}"] = size
                finally:
                    os.close(handle)
            return found

        return self._once("blobs", read)

    def _blob_size(self, handle, path, name):
        try:
            # Relative to an open directory: three components fewer to look up, 47,000 times.
            state = os.stat(f"{name}/data", dir_fd=handle, follow_symlinks=False)
        except OSError as error:
            self._failed(path, error)
            return None
        if stat.S_ISREG(state.st_mode):
            return state.st_size
        self._find(SYMLINK if stat.S_ISLNK(state.st_mode) else STRAY, path, "is not a file, and is not followed")
        return None

    def open_blob(self, digest: str):
        """A blob's data as a binary file.

        Raises:
            OSError: it cannot be opened.
        """
        return os.fdopen(os.open(f"{self.blob_path(digest)}/data", _OPEN), "rb", buffering=0)

    def hash_blob(self, digest: str, count: Callable[[int], None] | None = None) -> str:
        """The digest that a blob's data really has, by the same algorithm; `count` is told the bytes of each piece.

        Raises:
            OSError: it cannot be read.
        """
        algorithm = digest.partition(":")[0]
        hashed, buffer = hashlib.new(algorithm), memoryview(bytearray(_CHUNK))
        with self.open_blob(digest) as stream:
            while size := stream.readinto(buffer):
                hashed.update(buffer[:size])
                if count:
                    count(size)
        return f"{algorithm}:{hashed.hexdigest()}"

    def content(self, digest: str) -> Content | None:
        """The manifest of that digest, whether a repository has it or not; None if there is no such blob."""
        if digest not in self._contents:
            path = f"{self.blob_path(digest)}/data"
            before = len(self._findings)
            read = self._read(path, MAX_MANIFEST + 1) if self.may_have(digest) else None
            if read is not None:
                content = _content(read[0], digest)
            else:
                content = Content("", 0, fault="it cannot be read") if len(self._findings) > before else None
            if content is not None and content.fault:
                self._find(BAD_MANIFEST, path, content.fault)
            self._contents[digest] = content
        return self._contents[digest]

    def created(self, digest: str) -> float | None:
        """When an image was made (seconds since 1970), by its configuration's digest; None if that does not say."""
        if digest not in self._created:
            read = self._read(f"{self.blob_path(digest)}/data", MAX_MANIFEST) if self.may_have(digest) else None
            self._created[digest] = created_of(read[0]) if read else None
        return self._created[digest]

    # --- handing over ---------------------------------------------------------------------------------------
    def learnt(self) -> tuple:
        """What was read of tags, revisions, manifests and configurations, in types that marshal takes; for `learn`."""
        links = {
            key: [(name, *link) for name, link in found.items()]
            for key, found in self._cache.items()
            if key[0] in ("tags", "revisions")
        }
        contents = {digest: one and tuple(one) for digest, one in self._contents.items()}
        return links, contents, self._created, [tuple(finding) for finding in self._findings]

    def learn(self, learnt: tuple) -> None:
        """Take over what another Tree of the same directory has read; what is read already stays as it is."""
        links, contents, created, findings = learnt
        for key, found in links.items():
            self._cache.setdefault(key, {name: Link(digest, at) for name, digest, at in found})
        for digest, one in contents.items():
            self._contents.setdefault(digest, one and Content(*one))
        self._created = {**created, **self._created}
        self._findings.update((Finding(*finding), None) for finding in findings)


def read_inventory(tree: Tree, created: bool = False, memory=None) -> Inventory:
    """The registry's repositories, tags and manifests.

    A tag whose link is damaged has no digest: it is among `lost_tags`. A tag may point at a manifest that its
    repository does not have.

    Args:
        tree: where to read.
        created: also read the configurations of images, for `Held.created`.
        memory: retention.memory.Memory, instead of reading manifests again that are still there; with `created` only.
    """
    if memory is not None:
        tree.list_blobs()
    inventory = Inventory(tree.root)
    names = tree.repositories()
    # what a mended tree has mended is not handed over
    alone = 1 if tree._mended else None
    read = read_apart(tree, names, lambda name: _repository(tree, name, created, memory), alone)
    inventory.repositories.update((name, read[name]) for name in names)
    return inventory


def _repository(tree, name, created, memory):
    repository = Repository(name)
    for tag, link in tree.tags(name).items():
        if link.digest:
            repository.tags[tag] = Tag(tag, link.digest, link.at)
        else:
            repository.lost_tags.append(tag)
    for digest, link in tree.revisions(name).items():
        if link.digest == digest:
            repository.manifests[link.digest] = _held(tree, link, created, memory)
    return repository


def _held(tree, link, created, memory):
    known = memory.get(link.digest, link.at) if memory is not None and tree.may_have(link.digest) else None
    if known is not None:
        return known
    content = tree.content(link.digest)
    if content is None:
        return Held(link.digest, pushed=link.at)
    held = Held(
        digest=link.digest,
        media_type=content.media_type,
        size=content.size,
        children=tuple(dict.fromkeys(child for child, _other in content.children)),
        blobs=content.blobs,
        subject=content.subject,
        created=tree.created(content.config) if created and content.config else None,
        pushed=link.at,
    )
    # Not what may be healed: then there is more to be read.
    if memory is not None and not content.fault and (content.config is None or tree.may_have(content.config)):
        memory.put(held)
    return held


def _is_digest(text):
    # Asked for every name in the tree; nearly all are sha256.
    return _SHA256.fullmatch(text) is not None or digest_fault(text) is None


# --- manifests ----------------------------------------------------------------------------------------------
def _content(data: bytes, digest: str) -> Content:
    actual = digest_of(data, digest.partition(":")[0])
    fault = None if actual == digest else f"it has the content of {actual}"
    plain = None if fault else _plain(data)
    if plain is not None:
        return plain
    try:
        manifest = parse_manifest(data)
    except HomelabError as error:
        schema, references = _as_the_server(data)
        said = error.message if len(data) <= MAX_MANIFEST else "it is larger than any manifest"
        return Content("", len(data), references=references, schema=schema, intact=not fault, fault=fault or said)
    config = manifest.config
    named = (*((config,) if config else ()), *manifest.layers, *manifest.children)
    return Content(
        media_type=manifest.media_type,
        size=len(data),
        children=tuple((child.digest, child.size) for child in manifest.children),
        blobs=tuple((blob.digest, blob.size) for blob in manifest.blobs),
        references=tuple(dict.fromkeys(one.digest for one in named)),
        subject=manifest.subject and manifest.subject.digest,
        config=config.digest if config and config.media_type in CONFIG_TYPES else None,
        schema=2,
        intact=not fault,
        fault=fault,
    )


def _plain(data: bytes) -> Content | None:
    """What parse_manifest and the rest of _content make of an ordinary manifest, in a third of the time; None for
    everything that is in any way out of the ordinary, which they are to judge."""
    try:
        document = _decode(data.decode("utf-8"))
        media_type = document["mediaType"]
        if document["schemaVersion"] != 2 or len(data) > MAX_MANIFEST or not _plain_annotations(document):
            return None
        config = subject = None
        children = blobs = ()
        if media_type in IMAGE_TYPES:
            if "manifests" in document or not isinstance(document["layers"], list):
                return None
            first = document["config"]
            if first["mediaType"] in CONFIG_TYPES:
                config = first["digest"]
            pairs = [_plain_pair(one) for one in (first, *document["layers"])]
            if None in pairs:
                return None
            blobs = tuple(dict(pairs).items())
            if len(blobs) != len(set(pairs)):
                return None  # one digest, two sizes
            references = tuple(dict.fromkeys(digest for digest, _size in pairs))
        elif media_type in INDEX_TYPES:
            if "config" in document or "layers" in document or not isinstance(document["manifests"], list):
                return None
            children = tuple(_plain_pair(one) for one in document["manifests"])
            if None in children:
                return None
            references = tuple(dict.fromkeys(digest for digest, _size in children))
        else:
            return None
        if "subject" in document:
            named = _plain_pair(document["subject"])
            if named is None:
                return None
            subject = named[0]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Content(media_type, len(data), children, blobs, references, subject, config, 2, True, None)


def _plain_pair(one):
    """Digest and size of an ordinary descriptor; None for others."""
    size, media_type = one["size"], one["mediaType"]
    if (
        isinstance(size, int)
        and not isinstance(size, bool)
        and size >= 0
        and isinstance(media_type, str)
        and media_type
        and _SHA256.fullmatch(one["digest"])
        and "urls" not in one
        and _plain_annotations(one)
        and ("platform" not in one or all(isinstance(part, str) for part in one["platform"].values()))
    ):
        return one["digest"], size
    return None


def _plain_annotations(one):
    return "annotations" not in one or isinstance(one["annotations"], dict)


def _as_the_server(data: bytes) -> tuple[int, tuple]:
    """schemaVersion and references of a manifest that we refuse, as `garbage-collect` reads it (manifeststore.go,
    Get): it is less strict, and such a manifest still keeps its blobs."""
    try:
        document = json.loads(data)
        schema = document.get("schemaVersion")
        entries = [document.get("config"), *(document.get("layers") or ()), *(document.get("manifests") or ())]
        references = [entry.get("digest") for entry in entries if entry]
        if schema == 1:
            references = [layer["blobSum"] for layer in document["fsLayers"]]
        elif schema != 2 or document.get("mediaType", "") not in ("", *IMAGE_TYPES, *INDEX_TYPES):
            return 0, ()
        return schema, tuple(dict.fromkeys(filter(None, references)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0, ()
