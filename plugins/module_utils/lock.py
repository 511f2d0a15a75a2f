# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one lock on a registry host: what deletes waits until nobody writes, and the other way round."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import HomelabError

#: On the registry host: the lock, and what runs remember.
STATE_DIR = "/var/lib/homelab-registry"
#: Seconds between two tries of who waits.
_PACE = 1


class Busy(HomelabError):
    """Another run holds the lock."""


@contextmanager
def hold(path: Path | str, *, exclusive: bool, verb: str = "", wait: float = 0) -> Iterator[None]:
    """Hold the lock.

    Args:
        path: the file; it is made, with its directory, and stays. The kernel lets go of the lock when the process
            ends, however it ends.
        exclusive: for what deletes (clean-up, pruning, garbage collection, backup). What only adds images shares
            the lock with its like.
        verb: what is being done, for the error of those who come meanwhile, such as `registryctl gc`.
        wait: seconds to wait for it.

    Raises:
        Busy: somebody else still has it, in a way that does not go together with this one; says who, as far as known.
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
        deadline = time.monotonic() + wait
        while not _taken(handle, exclusive):
            if time.monotonic() >= deadline:
                raise Busy(
                    f"another run is under way on this registry{_holder(handle)}",
                    str(path),
                    "try again when it is done",
                )
            time.sleep(_PACE)
        _sign(handle, verb)
        yield
    finally:
        os.close(handle)


def _taken(handle, exclusive):
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(handle, verb):
    """Write who holds the lock; of several who share it, the last one. It is for people: on a full disk it is left."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since": time.time()}
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{json.dumps(holder)}\n".encode(), 0)


def _holder(handle):
    """Who holds the lock, to be read after a noun; empty if it is not known, or not true any more."""
    try:
        holder = json.loads(os.pread(handle, 1000, 0))
        pid, since = int(holder["pid"]), time.localtime(holder["since"])
        here = holder["host"] == socket.gethostname()
        verb = str(holder["verb"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return ""
    # Of several sharers only one has signed, and it may be gone. In a container other processes are not seen.
    if here and not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
        return ""
    started = time.strftime("%H:%M:%S" if time.time() - holder["since"] < 43200 else "%Y-%m-%d %H:%M", since)
    place = "" if here else f" on {holder['host']}"
    return f": {verb or 'a run'}, process {pid}{place}, since {started}"
