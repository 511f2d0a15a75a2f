# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files beside a server, on a host that has nothing but a shell: which of them are not yet as they should be. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping


def stale(wanted: Mapping[str, str], seen: Iterable[str], uid: int, gid: int, prefix: str = "") -> list[str]:
    """Names of the files that have to be written, in the order of `wanted`.

    Args:
        wanted: name to text.
        seen: lines of `sha256 mode uid gid path`, a file each; other lines do not matter.
        uid, gid: whom the files must belong to, for reading by nobody else.
        prefix: of `path` before the name.
    """
    seen = set(seen)
    return [
        name
        for name, text in wanted.items()
        if f"{hashlib.sha256(text.encode('utf-8')).hexdigest()} 400 {int(uid)} {int(gid)} {prefix}{name}" not in seen
    ]
