# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror run shows while it goes on: a bar on a terminal, lines in a log."""

from __future__ import annotations

import threading
import time
from typing import TextIO

from .mirror import image_line
from .numbers import size

#: Seconds between two states of the bar.
PACE = 0.2
BLOCKS = 24


class Lines:
    """One line an image that was copied, failed or deferred; what is unchanged is in the table at the end.

    Args:
        out: where to write; every line is written at once.
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def refused(self, result) -> None:
        """An image of the report that there is no plan for."""
        self._say(image_line(result))

    def planned(self, plan) -> None:
        """The plan is made (mirroring.plan.Plan)."""
        todo = sum(image.action == "copy" for image in plan.images)
        if todo:
            self._say(f"{todo} of {len(plan.images)} images to copy, {size(plan.transfer)}")

    def moved(self, count: int) -> None:
        """Some bytes (count) arrived."""

    def finished(self, result) -> None:
        """An image is complete, or has failed (mirroring.copy.ImageResult)."""
        if result.action != "unchanged":
            self._say(image_line(result.as_dict()))

    def _say(self, line):
        self.out.write(f"{line}\n")
        self.out.flush()


class Bar(Lines):
    """A bar in the last line of a terminal.

    Args:
        out: the terminal.
        clock: seconds, for the rate.
        width: columns of the terminal; None asks it.
    """

    def __init__(self, out: TextIO, clock=time.monotonic, width: int | None = None) -> None:
        super().__init__(out)
        self._clock, self._width = clock, width
        self._lock = threading.Lock()
        self._start = self._drawn = clock()
        self._bytes, self._total, self._done, self._images = 0, 0, 0, None

    def refused(self, result) -> None:
        """The table at the end has it."""

    def planned(self, plan) -> None:
        with self._lock:
            self._total, self._images = plan.transfer, len(plan.images)
            self._start = self._clock()  # the rate is that of copying
            self._draw()

    def moved(self, count: int) -> None:
        with self._lock:
            self._bytes += count
            if self._clock() - self._drawn >= PACE:
                self._draw()

    def finished(self, result) -> None:
        with self._lock:
            self._done += 1  # the table at the end has the rest
            self._draw()

    def close(self) -> None:
        """Leave an empty line, for what comes next."""
        with self._lock:
            self._clear()

    def line(self) -> str:
        """The bar as it is now."""
        seconds = max(self._clock() - self._start, 0.001)
        share = min(self._bytes / self._total, 1) if self._total else 1
        filled = "#" * int(BLOCKS * share)
        return (
            f"[{filled:<{BLOCKS}}] {share:4.0%}  {size(self._bytes)} of {size(self._total)}  "
            f"{size(max(self._bytes, 0) / seconds)}/s  {self._done}/{self._images} images"
        )

    def _draw(self):
        if self._images is None:  # what is not planned yet has no share
            return
        self._drawn = self._clock()
        width = self._width or _columns()
        self.out.write(f"\r{self.line()[: width - 1]}\x1b[K")
        self.out.flush()

    def _clear(self):
        self.out.write("\r\x1b[K")
        self.out.flush()


def _columns():
    import shutil  # here, for it takes long to load, and timers have no terminal

    return shutil.get_terminal_size().columns


class Meter:
    """How far a long reading is, in the last line of a terminal."""

    def __init__(self, out: TextIO, clock=time.monotonic) -> None:
        self.out, self._clock = out, clock
        self._start = self._drawn = clock()

    def at(self, done: int, total: int) -> None:
        """So many bytes of all are read."""
        now = self._clock()
        if now - self._drawn >= PACE:
            self._drawn = now
            rate = size(done / max(now - self._start, 0.001))
            share = done / total if total else 1
            self.out.write(f"\r{share:4.0%}  {size(done)} of {size(total)}  {rate}/s\x1b[K")
            self.out.flush()

    def close(self) -> None:
        """Leave an empty line, for what comes next."""
        self.out.write("\r\x1b[K")
        self.out.flush()
