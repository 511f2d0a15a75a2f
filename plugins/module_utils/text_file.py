# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text files, read with a clear error and written all at once."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import HomelabError


def read_text(path: str) -> str | None:
    """The file's text, or None if there is no such file.

    Raises:
        HomelabError: the path is not a readable text file.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise HomelabError(
            f"{path} cannot be read: {error}", remedy="make it a readable UTF-8 text file, or move it away"
        ) from error


def write_atomic(path: str, text: str, mode: int) -> None:
    """Put `text` in place at once: a reader, or a crash, sees the old file or the new one, never a half.

    An existing file keeps its owner, group and mode; `mode` (permission bits) is for a new one. A symbolic
    link is followed, so that the link itself stays.

    Raises:
        HomelabError: the file could not be written; the old one is untouched.
    """
    import tempfile  # a run that finds nothing to do writes nothing

    target = Path(os.path.realpath(path))
    temporary = None
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=str(target.parent))
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            found = target.stat()
            os.chown(temporary, found.st_uid, found.st_gid)
            mode = found.st_mode & 0o7777
        except FileNotFoundError:
            pass
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except OSError as error:
        if temporary and os.path.exists(temporary):  # noqa: PTH110 - a str from mkstemp
            os.unlink(temporary)  # noqa: PTH108
        raise HomelabError(
            f"{path} cannot be written: {error.strerror or error}",
            remedy="check the file's attributes (lsattr), the mount (read-only?) and the free space of its directory",
        ) from error
