# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one lock on a registry host: what deletes waits until nobody writes, and the other way round."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import HomelabError


class Busy(HomelabError):
    """Another run holds the lock."""


@contextmanager
def hold(path: Path | str, *, exclusive: bool) -> Iterator[None]:
    """Hold the lock, without waiting for it.

    Args:
        path: the file; it is made, with its directory, and stays. The kernel lets go of the lock when the process
            ends, however it ends.
        exclusive: for what deletes (clean-up, pruning, garbage collection, backup). What only adds images shares
            the lock with its like.

    Raises:
        Busy: somebody else has it, in a way that does not go together with this one.
        HomelabError: the file cannot be opened.
    """
    try:
        Path(path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise HomelabError(
            f"the lock cannot be opened: {error.strerror}", str(path), "run it as root, or name another file (--lock)"
        ) from error
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy("another run is under way on this registry", str(path), "try again when it is done") from error
        yield
    finally:
        os.close(handle)
