# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users write: the keys of mappings, the words of lists."""

from __future__ import annotations

import re
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
            import difflib  # only here, for it takes long to load

            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            raise HomelabError(
                f"{name} has the unknown key {key!r}",
                where,
                f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}",
            )


def words(value: object, name: str, where: str | None) -> list[str]:
    """The words of a string with commas or blanks, or of a list of such strings.

    Args:
        name: what the value is called, for messages.

    Raises:
        HomelabError: it is something else.
    """
    found = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, int) and not isinstance(item, bool):  # tags: [20, 22]
            item = str(item)
        if not isinstance(item, str):
            raise not_text(item, f"an item of {name}", where)
        found += [word for word in re.split(r"[,\s]+", item) if word]
    return found


def not_text(value: object, name: str, where: str | None) -> HomelabError:
    """The error for a value that should have been text."""
    if isinstance(value, str) or value is None:
        return HomelabError(f"{name} is empty", where)
    return HomelabError(f"{name} is {value!r}, which is not text", where, "put it in quotes")
