# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mappings that users write."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .errors import HomelabError


def refuse_unknown_keys(mapping: dict, known: Iterable[str], name: str, where: str | None) -> None:
    """Let a user's mapping pass that has known keys only.

    Args:
        name: what the mapping is, as the beginning of a sentence.

    Raises:
        HomelabError: it has another key; the remedy is the nearest right one.
    """
    known = list(known)
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            raise HomelabError(
                f"{name} has the unknown key {key!r}",
                where,
                f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}",
            )
