# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier runs left at the target: a hint that saves transfers and names the tags that are ours.

Nothing here is trusted: a remembered blob is asked for before it is mounted, a remembered tag is looked at before
it is pruned. Without the file everything works, only slower, and nothing is ever pruned.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path

from ..errors import HomelabError
from ..text_file import write_atomic

VERSION = 1
#: Repositories kept per blob: one would do, unless it is deleted.
PLACES = 3


class State:
    """The memory of one target registry, safe to use from several threads.

    Args:
        path: JSON file; None keeps nothing between runs.
        target: the registry's `host:port`; a file of another target is refused, since its hints would be wrong.

    Raises:
        HomelabError: the file cannot be read or written, or belongs to another target.
    """

    def __init__(self, path, target):
        self.path = Path(path) if path else None
        self.target = target
        self._lock = threading.Lock()
        self._parts = self._read() or ({}, {}, {})
        self._blobs, self._tags, self._pinned = self._parts
        if self.path:
            self._check_directory()
        self._saved = copy.deepcopy(self._parts)

    def _check_directory(self):
        """Before the work, not after it."""
        there = next(place for place in self.path.absolute().parents if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise HomelabError(
                f"the state file cannot be written: {there} is no directory that this user may write to",
                where=str(self.path),
                remedy="name another file (state_path), or run it as another user",
            )

    def _read(self):
        """Blobs, tags and pinned images of the file; None if there is nothing of use."""
        if not self.path:
            return None
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if data["version"] != VERSION:  # of another release: hints can be done without
                return None
            if data["target"] != self.target:
                raise HomelabError(
                    f"the state file is about {data['target']}, not about {self.target}",
                    where=str(self.path),
                    remedy="give each target a state file of its own",
                )
            blobs = {digest: [_text(place) for place in places] for digest, places in data["blobs"].items()}
            return blobs, _tags_of(data), _pinned_of(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HomelabError(
                f"the state file cannot be read: {error.strerror}", where=str(self.path), remedy="check its permissions"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError):
            # Half a file cannot come from us (it is renamed into place), but hints are not worth a failed run.
            return None

    def save(self) -> None:
        """Write the file atomically, 0600: names of private repositories are nobody's business. Mirror runs share the
        registry host's lock: what another one has saved meanwhile is kept, and known here too.

        Raises:
            HomelabError: the file cannot be written.
        """
        with self._lock:
            if not self.path or self._parts == self._saved:
                return
            with _alone(self.path):
                for ours, before, theirs in zip(self._parts, self._saved, self._read() or self._saved):
                    _take_over(ours, before, theirs)
                write_atomic(str(self.path), self._text(), 0o600)
            self._saved = copy.deepcopy(self._parts)

    def _text(self):
        data = {"version": VERSION, "target": self.target, "blobs": self._blobs, "tags": self._tags}
        if self._pinned:
            data["pinned"] = self._pinned
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    # --- blobs ----------------------------------------------------------------------------------------------
    def places(self, digest: str) -> list[str]:
        """Repositories of the target where the blob was seen."""
        with self._lock:
            return list(self._blobs.get(digest, ()))

    def remember(self, digest: str, repository: str) -> None:
        """The target has the blob in that repository."""
        with self._lock:
            places = self._blobs.setdefault(digest, [])
            if repository not in places:
                places.append(repository)
                del places[:-PLACES]

    def forget(self, digest: str, repository: str) -> None:
        """The target does not have it there any more."""
        with self._lock:
            places = self._blobs.get(digest, [])
            if repository in places:
                places.remove(repository)
            if not places:
                self._blobs.pop(digest, None)

    # --- tags -----------------------------------------------------------------------------------------------
    def mirrored(self, repository: str, tag: str, source: str, digest: str) -> None:
        """A tag of the target is a mirror of `source` and points at `digest`."""
        with self._lock:
            self._tags[f"{repository}:{tag}"] = {"source": source, "digest": digest}

    def pinned(self, repository: str, digest: str, source: str) -> None:
        """An image that was asked for by digest alone is there: it has no tag that would keep it from a clean-up."""
        with self._lock:
            self._tags[f"{repository}@{digest}"] = {"source": source, "digest": digest}
            places = self._pinned.setdefault(digest, [])
            if repository not in places:
                places.append(repository)

    def pruned(self, repository: str, tag: str) -> None:
        """A mirrored tag was removed."""
        with self._lock:
            self._tags.pop(f"{repository}:{tag}", None)

    def source_of(self, repository: str, name: str) -> str | None:
        """What a tag, or an image without one by its digest, is a mirror of; None if it is none."""
        with self._lock:
            found = self._tags.get(f"{repository}@{name}" if ":" in name else f"{repository}:{name}")
            return found and found["source"]

    def tags_of(self, repository: str) -> dict[str, dict]:
        """Mirrored tags of a repository: tag to {source, digest}."""
        with self._lock:
            found = {}
            for name, tag in self._tags.items():
                place, _colon, short = name.rpartition(":")
                if place == repository:
                    found[short] = dict(tag)
            return found


def mirrored_names(path, target: str) -> frozenset[str]:
    """What mirror runs brought to `target`, as `repository:tag` and `repository@digest`; empty where nobody knows."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["version"] == VERSION and data["target"] == target:
            return frozenset(_tags_of(data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return frozenset()


def protected_digests(path) -> frozenset[str]:
    """Digests of images that mirror runs brought by digest alone, so without a tag: retention must keep them.

    Args:
        path: the state file; one that is not there knows of none.

    Raises:
        HomelabError: it cannot be read. Nothing may be deleted then.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise ValueError(f"it has version {data['version']}")
        return frozenset(_pinned_of(data))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HomelabError(
            f"it cannot be told which images were mirrored by digest alone: {error}",
            where=str(path),
            remedy="if the file is damaged, remove it and mirror those images again before the clean-up",
        ) from error


@contextmanager
def _alone(path):
    """Hold the file's directory, for the moment between reading and writing it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HomelabError(f"the state file cannot be written: {error.strerror}", str(path)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _take_over(ours, before, theirs):
    """Take over from `theirs` what was not changed in `ours` since `before`."""
    for key in {*before, *theirs}:
        if ours.get(key) != before.get(key):
            continue
        if key in theirs:
            ours[key] = theirs[key]
        else:
            ours.pop(key, None)


def _tags_of(data):
    return {name: {key: _text(tag[key]) for key in ("source", "digest")} for name, tag in data["tags"].items()}


def _pinned_of(data):
    return {_text(digest): list(map(_text, places)) for digest, places in data.get("pinned", {}).items()}


def _text(value):
    if not isinstance(value, str):
        raise TypeError
    return value
