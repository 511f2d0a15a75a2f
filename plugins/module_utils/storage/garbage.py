# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage: what there is, whether it is safe to sweep, and the removals that the server does not do itself.

Blobs are swept by the server's own `garbage-collect`. What is removed here (uploads nobody will finish, empty
repositories, single tags, damaged blobs) the server either never removes or cannot, and only while it takes no
writes. Each is looked at again right before, renamed out of the server's sight in one step, then deleted.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import HomelabError
from ..oci import canary
from ..oci.manifest import digest_fault
from ..oci.reference import repository_fault, tag_fault
from ..text_file import read_text, write_atomic
from .mark import Reach, Sweep, expected_sweep, reach, shown
from .tree import Finding, Tree, Upload

#: After these hours without a sign of life an upload is abandoned; the server's own default (uploadpurging.age).
UPLOAD_AGE = 168
#: Beside `blobs` and `repositories`, where the server does not look.
TRASH = ".homelab-removed"
_PARTS = ("_manifests", "_layers", "_uploads")
#: Bytes that a probe's manifest has at most.
_PROBE_SIZE = 1024


# --- planning -----------------------------------------------------------------------------------------------
@dataclass
class Plan:
    """What there is to collect.

    Attributes:
        sweep: what the server's garbage collection will do; `freed` its bytes. Empty if there are only the bytes that
            site.yml's probe leaves each time: they are not worth a server without writes, and go with the next garbage.
        uploads: abandoned ones; `upload_bytes` their bytes.
        empty: repositories with no tag, no manifest and no other upload.
        lost: digests that a client can pull and that the server would delete all the same: never sweep then.
        last_copies: digests it would delete that damaged images need: once they are gone only a new push heals.
        findings: what is wrong with the tree.
        refusals: why nothing may be swept; empty if it may.
    """

    sweep: Sweep
    freed: int = 0
    uploads: list[Upload] = field(default_factory=list)
    upload_bytes: int = 0
    empty: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    last_copies: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to do: then the server need not be touched."""
        return not (self.refusals or self.sweep.blobs or self.sweep.layer_links or self.uploads or self.empty)


def plan_garbage(tree: Tree, major: int, upload_age: float = UPLOAD_AGE, now: float | None = None) -> Plan:
    """Look for garbage, and for reasons to leave it. Valid only as long as nothing is written: plan again once the
    server is read-only.

    Args:
        tree: a fresh look.
        major: of the server's version, 2 or 3.
        upload_age: hours without a sign of life after which an upload is abandoned.
        now: seconds since 1970; by default it is asked for.
    """
    now = time.time() if now is None else now
    sizes = tree.blobs()
    plan = Plan(expected_sweep(tree, major))
    reached = reach(tree)
    plan.freed = sum(sizes[digest] for digest in plan.sweep.blobs)
    for name in tree.repositories():
        uploads = tree.uploads(name)
        old = [upload for upload in uploads if now - upload.touched > upload_age * 3600]
        plan.uploads += old
        # What is damaged is among them too, so a repository with anything unclear in it is not empty. One that is
        # only the directory where uploads were is in no catalog.
        shown = old or tree.has(name, "_manifests") or tree.has(name, "_layers")
        if shown and not (tree.tags(name) or tree.revisions(name) or len(old) < len(uploads)):
            plan.empty.append(name)
    plan.upload_bytes = sum(upload.size for upload in plan.uploads)
    plan.findings = tree.findings
    plan.lost = sorted(plan.sweep.blobs & reached.served)
    plan.last_copies = sorted((plan.sweep.blobs & reached.named) - reached.served)
    plan.refusals = _refusals(tree, plan, reached)
    if all(_is_of_a_probe(tree, digest, sizes[digest]) for digest in plan.sweep.blobs) and all(
        digest in plan.sweep.blobs for _repository, digest in plan.sweep.layer_links
    ):
        plan.sweep.blobs, plan.sweep.layer_links, plan.freed = set(), set(), 0
    return plan


def _is_of_a_probe(tree: Tree, digest: str, size: int) -> bool:
    """Whether a blob is what `server.probe` has written to try the server, and deleted again."""
    if size > _PROBE_SIZE:
        return False
    try:
        with tree.open_blob(digest) as blob:
            data = blob.read(_PROBE_SIZE)
    except OSError:
        return False
    return data == canary.PROBE_CONFIG or f'"{canary.PROBE}":'.encode("ascii") in data


def _refusals(tree: Tree, plan: Plan, reached: Reach) -> list[str]:
    found = []
    if not tree.complete:
        found.append(f"parts of the registry cannot be seen: {shown(map(str, tree.hiding))}")
    if plan.sweep.failure and ("blobs" in tree.top() or reached.named):
        found.append(f"the server's garbage collection would stop: {plan.sweep.failure}")
    if plan.lost:
        found.append(f"the server's garbage collection would delete what can be pulled: {shown(plan.lost)}")
    return found


# --- the maintenance window ---------------------------------------------------------------------------------
class Window:
    """The time in which the server takes no writes; nothing is removed outside it. Use with `with`.

    Args:
        root: the registry's root directory.
        is_read_only: asks the server itself (an upload must be refused); called on entering and before each removal.

    Raises:
        HomelabError: there is no registry in `root`; on entering: the server takes writes.
    """

    def __init__(self, root, is_read_only: Callable[[], bool]) -> None:
        self.root = os.fspath(root)
        self.base = Tree(root).base
        self._is_read_only = is_read_only
        self._open = False

    def __enter__(self) -> Window:
        self._open = True
        self.check()
        return self

    def __exit__(self, *_error) -> None:
        self._open = False

    def check(self) -> None:
        """Make sure that it is still open.

        Raises:
            HomelabError: it is closed, or the server takes writes.
        """
        if not self._open:
            raise HomelabError("the maintenance window is closed", self.root, "nothing more was removed; start again")
        if not self._is_read_only():
            raise HomelabError(
                "the registry takes writes", self.root, "nothing more was removed; make it read-only, and start again"
            )


@dataclass
class Removal:
    """What was removed, by name, and what was left, with the reason."""

    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def remove_uploads(window: Window, uploads: Iterable[Upload]) -> Removal:
    """Remove uploads; one that showed a sign of life since it was planned stays.

    Raises:
        HomelabError: the window is not open, or something cannot be removed.
    """
    removal, tree = _begin(window), Tree(window.root)
    present = set(tree.repositories())
    for upload in uploads:
        name = f"{upload.repository}/_uploads/{upload.uuid}"
        if upload.repository not in present or upload not in tree.uploads(upload.repository):
            removal.left.append(f"{name}: it is gone or was continued")
            continue
        _discard(window, "repositories", *upload.repository.split("/"), "_uploads", upload.uuid)
        removal.done.append(name)
    return _end(window, removal)


def remove_empty_repositories(window: Window, names: Iterable[str]) -> Removal:
    """Remove repositories from the catalog; one that has a tag, a manifest or an upload stays, and so do nested ones.

    Raises:
        HomelabError: the window is not open, or something cannot be removed.
    """
    removal, tree = _begin(window), Tree(window.root)
    for name in names:
        if repository_fault(name) is not None or name not in tree.repositories():
            removal.left.append(f"{name}: there is no such repository")
            continue
        if tree.tags(name) or tree.revisions(name) or tree.uploads(name) or not tree.complete:
            removal.left.append(f"{name}: it is not empty")
            continue
        for part in _PARTS:
            if tree.has(name, part):
                _discard(window, "repositories", *name.split("/"), part)
        _remove_empty_directories(window, name)
        removal.done.append(name)
    return _end(window, removal)


def remove_tag_links(window: Window, tags: Iterable[tuple[str, str, str]]) -> Removal:
    """Remove single tags, given as (repository, tag, digest); one that points elsewhere by now stays.

    The manifest stays, with the other tags on it. This is for 2.x, which can only delete a manifest with all tags.

    Raises:
        HomelabError: the window is not open, or something cannot be removed.
    """
    removal, tree = _begin(window), Tree(window.root)
    present = set(tree.repositories())
    for repository, tag, digest in tags:
        link = tree.tags(repository).get(tag) if repository in present and tag_fault(tag) is None else None
        if link is None or link.digest != digest:
            removal.left.append(f"{repository}:{tag}: it is gone or was moved")
            continue
        _discard(window, "repositories", *repository.split("/"), "_manifests", "tags", tag)
        removal.done.append(f"{repository}:{tag}")
    return _end(window, removal)


def remove_damaged_blobs(window: Window, digests: Iterable[str]) -> Removal:
    """Remove blobs whose content is not what their digest says, so that a push can bring it again: the server keeps
    what it has under a digest (blobwriter.go, moveBlob). They are hashed first; one that is right stays. One that the
    disk does not give back is as wrong.

    Raises:
        HomelabError: the window is not open, or something cannot be removed.
    """
    removal, tree = _begin(window), Tree(window.root)
    for digest in digests:
        if digest_fault(digest) is not None or digest not in tree.blobs():
            removal.left.append(f"{digest}: there is no such blob")
            continue
        with suppress(OSError):
            if tree.hash_blob(digest) == digest:
                removal.left.append(f"{digest}: its content is right")
                continue
        algorithm, _other, digits = digest.partition(":")
        _discard(window, "blobs", algorithm, digits[:2], digits)
        removal.done.append(digest)
    return _end(window, removal)


def repair_links(window: Window) -> list[str]:
    """Write links of manifests and blobs anew that are lost; see Tree, `mended`. With one empty link of a manifest the
    server's garbage collection stops, and without any it deletes what the tag needs. A tag's link cannot be known.

    Returns:
        Their paths below the directory of all repositories.

    Raises:
        HomelabError: the window is not open, or one cannot be written.
    """
    window.check()
    tree = Tree(window.root, mended=True)
    for name in tree.repositories():
        tree.revisions(name)
        tree.layers(name)
    # Blobs' before manifests', as in a push.
    for path in sorted(tree.lost_links, key=lambda path: ("/_layers/" not in path, path)):
        window.check()
        _write_link(Path(path), tree.lost_links[path])
    return lost_links(tree)


def _write_link(path, link):
    try:
        new, above = [], path
        while not above.exists():
            new.append(above)
            above = above.parent
        # The server may run as somebody else than we do.
        owner = above.stat()
        for folder in reversed(new[1:]):
            folder.mkdir(0o755)
            os.chown(folder, owner.st_uid, owner.st_gid)
        write_atomic(str(path), link.digest, 0o644)
        if new:
            os.chown(path, owner.st_uid, owner.st_gid)
        os.utime(path, (link.at, link.at))  # it was pushed then
    except OSError as error:
        raise HomelabError(f"the link cannot be written: {error.strerror}", str(path), "run it as root") from error


def lost_links(tree: Tree) -> list[str]:
    """The names of a tree's lost links, as `repair_links` gives them."""
    return sorted(os.path.relpath(path, f"{tree.base}/repositories") for path in tree.lost_links)


def _begin(window):
    window.check()
    _empty_trash(window)  # of a run that was cut off
    return Removal()


def _end(window, removal):
    _empty_trash(window)
    return removal


def _discard(window, *parts):
    """Rename a directory into the trash, in one step."""
    window.check()
    path, trash = Path(window.base, *parts), Path(window.base, TRASH)
    if not all(parts) or {".", ".."} & set(parts) or any("/" in part for part in parts):
        raise HomelabError(f"{path} is not a path in the registry", window.root, "nothing was removed")
    try:
        # Nothing above it was a link when it was read; through one, the rename would end outside the root.
        if path.resolve() != path or not path.is_dir():
            raise HomelabError(f"{path} is not a directory of the registry", window.root, "nothing was removed")
        trash.mkdir(mode=0o700, exist_ok=True)
        path.rename(trash / uuid.uuid4().hex)
    except OSError as error:
        raise HomelabError(f"{path} cannot be removed: {error.strerror}", window.root, "run it as root") from error


def _empty_trash(window):
    trash = Path(window.base, TRASH)
    try:
        if os.path.lexists(trash):
            shutil.rmtree(trash)  # follows no links, and refuses to be given one
    except OSError as error:
        raise HomelabError(
            f"what was removed cannot be deleted: {error.strerror or error}", str(trash), "delete that directory"
        ) from error


def _remove_empty_directories(window, name):
    """Remove a repository's directory and those above it that hold no other repository."""
    parts = name.split("/")
    while parts:
        try:
            Path(window.base, "repositories", *parts).rmdir()
        except OSError:
            return  # another repository is in it
        parts.pop()


# --- the marker ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Marker:
    """Maintenance has begun; if the process that holds the lock is gone, it has to be undone.

    Attributes:
        phase: where it was; "unknown" if the marker itself is damaged.
        pid: who it was. started: seconds since 1970.
    """

    phase: str
    pid: int = 0
    started: float = 0.0


def write_marker(path, phase: str, started: float | None = None) -> Marker:
    """Write the marker, all at once, before what it announces is done.

    Args:
        path: the file, outside the registry's root.
        started: of the maintenance, when a later phase is written; by default now.

    Raises:
        HomelabError: it cannot be written.
    """
    started = time.time() if started is None else started
    marker = Marker(phase, os.getpid(), started)
    write_atomic(os.fspath(path), json.dumps(asdict(marker)) + "\n", 0o600)
    return marker


def read_marker(path) -> Marker | None:
    """The marker, or None if no maintenance has to be undone.

    Raises:
        HomelabError: there is one that cannot be read.
    """
    text = read_text(os.fspath(path))
    if text is None:
        return None
    try:
        marker = Marker(**json.loads(text))
        if not isinstance(marker.phase, str):
            raise TypeError
    except (ValueError, TypeError):
        return Marker("unknown")  # something was under way: to recover without need does no harm
    return marker


def clear_marker(path) -> None:
    """Remove the marker: everything is undone.

    Raises:
        HomelabError: it cannot be removed.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise HomelabError(f"the marker cannot be removed: {error.strerror}", str(path), "run it as root") from error
