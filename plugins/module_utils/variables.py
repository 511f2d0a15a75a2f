# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings from an inventory's variables with a common beginning (mirror_*, cleanup_*). Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from .errors import HomelabError


def refuse_misspelt(variables: Iterable[str], prefix: str, names: Iterable[str]) -> None:
    """Let variables pass of which none has nearly the name of a known one; others may have the prefix, too.

    Args:
        names: of the known ones, without the prefix.

    Raises:
        HomelabError: the remedy is the right name.
    """
    known = [prefix + name for name in names]
    for name in variables:
        near = name.startswith(prefix) and name not in known and difflib.get_close_matches(name, known, 1, 0.8)
        if near:
            raise HomelabError("there is no such variable", name, f"did you mean {near[0]}?")


def given(variables: Mapping, prefix: str, names: Iterable[str], types: Mapping) -> dict:
    """The variables that are set, by name without the prefix.

    Args:
        types: name to one of the functions below, for what `-e` gives as text.

    Raises:
        HomelabError: a variable has the wrong type.
    """
    values = {name: variables.get(prefix + name) for name in names}
    return {
        name: types.get(name, _as_it_is)(value, prefix + name)
        for name, value in values.items()
        if value not in (None, "")
    }


def _as_it_is(value, name):
    return value


def yes_no(value: object, name: str) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("yes", "true", "on", "1", "no", "false", "off", "0"):
        raise HomelabError(f"{value!r} is neither true nor false", name)
    return str(value).lower() in ("yes", "true", "on", "1")


def number(value: object, name: str) -> int:
    """A whole number, 0 or more."""
    if isinstance(value, int):
        return value
    if not re.fullmatch("[0-9]+", str(value)):
        raise HomelabError(f"{value!r} is not a number", name)
    return int(value)


def words(value: object, name: str = "") -> object:
    """A list of the words of text; other values as they are."""
    return [word for word in re.split(r"[\s,]+", value) if word] if isinstance(value, str) else value
