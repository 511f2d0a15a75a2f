# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a large tree with more than one CPU.

A plan opens some five files a tag, and one Python process does one thing at a time: the repositories are shared out to
processes, each of which hands over what it has read. It is only a matter of time: what a process fails to deliver is
read when it is asked for.
"""

from __future__ import annotations

import gc
import marshal
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: More readers gain little: one process puts together what all have read.
MAX_READERS = 4
#: A process costs some milliseconds, as much as reading this many small repositories.
MIN_SHARE = 8
#: Parts into which the repositories are divided; a reader takes one after the other.
SHARES = 64


def read_apart(tree, names: list[str], read: Callable[[str], object], readers: int | None = None) -> dict[str, object]:
    """`read(name)` of every repository.

    Args:
        tree: storage.tree.Tree; `read` uses it, and so do the readers' copies of it.
        names: repositories.
        read: is called for each of them in this process, when others have read a part of them before.
        readers: processes, this one counted; None takes one for each CPU.

    Returns:
        By repository, what `read` returned.
    """
    if readers is None:
        readers = _readers()
    readers = max(1, min(readers, len(names) // MIN_SHARE))
    with _uncollected():
        return _read(tree, names, read, readers)


def _read(tree, names, read, readers):
    found, others = {}, []
    shares = [names[number::SHARES] for number in range(SHARES)]
    # Who is ready takes the next share: one byte of a pipe, which no two of them can read.
    queue, end = os.pipe()
    os.write(end, bytes(range(SHARES)))
    os.close(end)
    try:
        for _number in range(1, readers):
            with suppress(OSError):  # no more processes are allowed, as in a small container
                others.append(_begin(tree, shares, queue, read))
        for name in _turns(shares, queue):
            found[name] = read(name)
        while others:
            _take(tree, *others.pop(0))
    finally:
        while os.read(queue, SHARES):  # after an error the others need not go on
            pass
        os.close(queue)
        for pid, pipe in others:
            os.close(pipe)
            os.waitpid(pid, 0)
    for name in names:
        if name not in found:
            found[name] = read(name)
    return found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for cycles: hundreds of thousands of objects come to stay, and it would look through all
    of them again and again."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()


def _readers():
    if threading.active_count() > 1:  # a copy has one thread only, and maybe a lock that another one held
        return 1
    return min(MAX_READERS, len(os.sched_getaffinity(0)))


def _turns(shares, queue):
    """Names of the shares that fall to this process."""
    while turn := os.read(queue, 1):
        yield from shares[turn[0]]


def _begin(tree, shares, queue, read):
    """A process that reads a part of the repositories: its number, and the pipe by which it hands over."""
    pipe, end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(end)
        return pid, pipe
    code = 1
    try:
        os.close(pipe)
        for name in _turns(shares, queue):
            read(name)
        with os.fdopen(end, "wb") as stream:
            stream.write(marshal.dumps(tree.learnt()))
        code = 0
    finally:
        os._exit(code)  # nothing of what the program has open or wants to say at its end is the copy's business


def _take(tree, pid, pipe):
    with os.fdopen(pipe, "rb") as stream:
        data = stream.read()
    if os.waitpid(pid, 0)[1] == 0:
        with suppress(ValueError, EOFError, TypeError):
            tree.learn(marshal.loads(data))
