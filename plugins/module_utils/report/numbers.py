# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers for people."""

from __future__ import annotations

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes (count) with a unit: 0 B, 999 B, 1.5 KiB, 23 MiB, 1.2 GiB."""
    unit = 0
    # 1023.6 would be shown as "1024 KiB"
    while round(count) >= 1024 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    digits = 0 if unit == 0 or round(count, 1) >= 10 else 1
    return f"{count:.{digits}f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds as 0.4 s, 12 s, 3 min 5 s, 2 h 14 min."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def age(seconds: float | None) -> str:
    """How old something is: 40 min, 5 h, 3 d, 400 d; - if nobody knows."""
    if seconds is None:
        return "-"
    if seconds < 3600:
        return f"{max(0, int(seconds // 60))} min"
    if seconds < 2 * 86400:
        return f"{int(seconds // 3600)} h"
    return f"{int(seconds // 86400)} d"
