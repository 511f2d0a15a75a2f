# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What digests stand for never changes, so it is remembered over runs.

Over the API that saves two requests a manifest, on a disk the reading of it and of its configuration, which on spinning
disks takes minutes.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from ..errors import HomelabError
from ..oci.inventory import Held
from ..text_file import write_atomic

VERSION = 2


class Memory:
    """Manifests by digest, in a file. A file that makes no sense is as good as none.

    Its first line is the SHA-256 of the second: what this module has written need not be judged again, value by value.

    Args:
        path: JSON file, one for each registry; None remembers nothing.

    Raises:
        HomelabError: the file cannot be read.
    """

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._known, self._used, self._changed = {}, set(), False
        if self._path is None:
            return
        try:
            checksum, _newline, text = self._path.read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise HomelabError(
                f"the memory of manifests cannot be read: {error.strerror}", str(self._path), "check its permissions"
            ) from error
        except ValueError:
            return
        if _checksum(text) == checksum:
            self._known = json.loads(text)

    def get(self, digest: str, pushed: float | None = None) -> Held | None:
        """The manifest of a digest, in a repository into which it came at that time; None if it is not known."""
        facts = self._known.get(digest)
        if facts is None:
            return None
        self._used.add(digest)
        media_type, size, children, blobs, subject, created = facts
        return Held(digest, media_type, size, tuple(children), tuple(map(tuple, blobs)), subject, created, pushed)

    def put(self, held: Held) -> None:
        """Remember it, without the time at which it came into its repository."""
        self._known[held.digest] = [held.media_type, held.size, held.children, held.blobs, held.subject, held.created]
        self._used.add(held.digest)
        self._changed = True

    def save(self, *, prune: bool) -> None:
        """Write the file if there is something new, or, with `prune`, something that was not asked for any more.

        That it cannot be written (a full disk, of all things) is no reason not to clean up: the next run takes longer.
        """
        if self._path is None:
            return
        kept = {digest: facts for digest, facts in self._known.items() if digest in self._used or not prune}
        if not self._changed and len(kept) == len(self._known):
            return
        text = json.dumps(kept, separators=(",", ":"), sort_keys=True)
        with suppress(HomelabError):
            write_atomic(str(self._path), f"{_checksum(text)}\n{text}", 0o600)


def _checksum(text):
    # with the form of the entries: another release may have written it
    return hashlib.sha256(f"{VERSION}\n{text}".encode()).hexdigest()
