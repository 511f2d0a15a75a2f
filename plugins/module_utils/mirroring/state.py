# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier runs left at the target: a hint that saves transfers and names the tags that are ours.

Nothing here is trusted: a remembered blob is asked for before it is mounted, a remembered tag is looked at before
it is pruned. Without the file everything works, only slower, and nothing is ever pruned.
"""

from __future__ import annotations

import json
import os
import threading
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
        self._blobs = {}
        self._tags = {}
        self._pinned = {}
        if self.path:
            self._load()
            self._check_directory()
        self._saved = self._text()

    def _check_directory(self):
        """Before the work, not after it."""
        there = next(place for place in self.path.absolute().parents if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise HomelabError(
                f"the state file cannot be written: {there} is no directory that this user may write to",
                where=str(self.path),
                remedy="name another file (state_path), or run it as another user",
            )

    def _load(self):
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if data["version"] != VERSION:  # of another release: hints can be done without
                return
            if data["target"] != self.target:
                raise HomelabError(
                    f"the state file is about {data['target']}, not about {self.target}",
                    where=str(self.path),
                    remedy="give each target a state file of its own",
                )
            self._blobs = {digest: [_text(place) for place in places] for digest, places in data["blobs"].items()}
            self._tags = {
                name: {key: _text(tag[key]) for key in ("source", "digest")} for name, tag in data["tags"].items()
            }
            self._pinned = _pinned_of(data)
        except FileNotFoundError:
            return
        except OSError as error:
            raise HomelabError(
                f"the state file cannot be read: {error.strerror}", where=str(self.path), remedy="check its permissions"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError):
            # Half a file cannot come from us (it is renamed into place), but hints are not worth a failed run.
            self._blobs, self._tags, self._pinned = {}, {}, {}

    def save(self) -> None:
        """Write the file atomically, 0600: names of private repositories are nobody's business.

        Raises:
            HomelabError: the file cannot be written.
        """
        with self._lock:
            text = self._text()
        if self.path and text != self._saved:
            write_atomic(str(self.path), text, 0o600)
            self._saved = text

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

    def pinned(self, repository: str, digest: str) -> None:
        """An image that was asked for by digest alone is there: it has no tag that would keep it from a clean-up."""
        with self._lock:
            places = self._pinned.setdefault(digest, [])
            if repository not in places:
                places.append(repository)

    def pruned(self, repository: str, tag: str) -> None:
        """A mirrored tag was removed."""
        with self._lock:
            self._tags.pop(f"{repository}:{tag}", None)

    def tags_of(self, repository: str) -> dict[str, dict]:
        """Mirrored tags of a repository: tag to {source, digest}."""
        with self._lock:
            found = {}
            for name, tag in self._tags.items():
                place, _colon, short = name.rpartition(":")
                if place == repository:
                    found[short] = dict(tag)
            return found


def mirrored_tags(path, target: str) -> dict[str, dict]:
    """`repository:tag` to {source, digest} of what mirror runs brought to `target`; empty where nobody knows."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["version"] == VERSION and data["target"] == target:
            return {
                name: {key: _text(tag[key]) for key in ("source", "digest")} for name, tag in data["tags"].items()
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}


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


def _pinned_of(data):
    return {_text(digest): list(map(_text, places)) for digest, places in data.get("pinned", {}).items()}


def _text(value):
    if not isinstance(value, str):
        raise TypeError
    return value
