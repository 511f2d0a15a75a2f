# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's configuration as its file has it: single values of it, and the same one with all writes refused.

Targets have no YAML reader. What `yaml_writer` writes, and what people write by its example, is one key or one item a
line; that is read here. Where a value that is asked for is written in another way, that is an error, not a guess.
"""

from __future__ import annotations

import json
import re

from ..errors import HomelabError

_KEY = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#"'&*!|>%@`{}\[\],?-][^:]*?|-[^\s:][^:]*?)\s*:(?:\s+(?P<value>.*))?"""
)
#: Values that are nothing.
_NOTHING = ("", "~", "null", "Null", "NULL", "{}")
#: Keys of `storage` that are no driver.
_NO_DRIVER = ("cache", "delete", "maintenance", "redirect", "tag")


class ConfigFile:
    """A configuration file of the server.

    Args:
        text: its content.
        where: its path, for errors.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self._lines = text.splitlines()
        #: Path -> (number of its line, column of its key, value as written).
        self._found = dict(_keys(self._lines))

    def get(self, *path) -> str | None:
        """A single value by its path: keys, and numbers of items; None if it is not there or empty.

        Raises:
            HomelabError: it is not written as a plain value.
        """
        if path not in self._found:
            return None
        value = self._found[path][2]
        if value in _NOTHING:
            return None
        if value[0] in "{[&*!|>":
            raise self._unclear(path)
        return _unquoted(value)

    def keys(self, *path) -> list[str]:
        """The keys below a path, in their order.

        Raises:
            HomelabError: what is there is not written as keys below it.
        """
        if path and path in self._found and self._found[path][2] not in _NOTHING:
            raise self._unclear(path)
        return [found[-1] for found in self._found if found[:-1] == path and isinstance(found[-1], str)]

    def driver(self) -> str:
        """The storage driver's name, such as `filesystem`.

        Raises:
            HomelabError: it is not clear which one it is.
        """
        drivers = [key for key in self.keys("storage") if key not in _NO_DRIVER]
        if len(drivers) != 1:
            raise HomelabError(
                f"it is not clear which storage driver is used: {', '.join(drivers) or 'none is named'}",
                self.where,
                "name exactly one below storage, as site.yml does",
            )
        return drivers[0]

    def read_only(self) -> str:
        """The text of the same configuration with `storage.maintenance.readonly.enabled: true`.

        Raises:
            HomelabError: the file is not written in a way that can be changed here.
        """
        path = ("storage", "maintenance", "readonly", "enabled")
        lines = list(self._lines)
        depth = len(path)
        while path[:depth] not in self._found:
            depth -= 1
            if not depth:
                raise HomelabError("there is no section storage", self.where, "is this the registry's configuration?")
        number, column, value = self._found[path[:depth]]
        if depth == len(path):
            lines[number] = f"{' ' * column}{path[-1]}: true"
            return "\n".join(lines) + "\n"
        if value not in _NOTHING and not (depth == 3 and re.fullmatch(r"\{[^{}]*\}", value)):
            raise self._unclear(path[:depth])
        if value:
            lines[number] = f"{' ' * column}{path[depth - 1]}:"
        below = [self._found[found][1] for found in self._found if found[:-1] == path[:depth]]
        column = below[0] if below else column + 2
        added = []
        for key in path[depth:]:
            added.append(f"{' ' * column}{key}:")
            column += 2
        added[-1] += " true"
        lines[number + 1 : number + 1] = added
        return "\n".join(lines) + "\n"

    def _unclear(self, path):
        return HomelabError(
            f"{'.'.join(map(str, path))} is written in a way that cannot be read here",
            self.where,
            "write one key a line, as site.yml does",
        )


def _keys(lines):
    """(path, (number of the line, column of the key, value)) of each key and item; of block scalars' lines, too, which
    have paths that nobody asks for."""
    above = []  # (column, key)
    counts = {}
    for number, line in enumerate(lines):
        text = line.lstrip(" ")
        column = len(line) - len(text)
        text = text.rstrip()
        if not text or text.startswith("#") or text in ("---", "..."):
            continue
        while text == "-" or text.startswith("- "):
            # An item may stand in the column of its list's key.
            above = [one for one in above if one[0] < column or (one[0] == column and isinstance(one[1], str))]
            path = tuple(key for _column, key in above)
            item = counts[path] = counts.get(path, -1) + 1
            # Half a column further in than a key of the same list would be.
            above.append((column + 0.5, item))
            rest = text[1:].lstrip(" ")
            column += len(text) - len(rest)
            text = rest
            if text and not _KEY.fullmatch(text):
                yield (*path, item), (number, column, _without_comment(text))
        found = _KEY.fullmatch(text)
        if not found:
            continue
        above = [one for one in above if one[0] < column]
        key = _unquoted(found.group("key"))
        path = (*(key for _column, key in above), key)
        above.append((column, key))
        yield path, (number, column, _without_comment(found.group("value") or ""))


def _without_comment(value):
    value = value.strip()
    if value[:1] in ('"', "'"):
        quoted = re.match(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*(#.*)?$""", value)
        return quoted.group(1) if quoted else value
    return re.sub(r"(^|\s+)#.*$", "", value)


def _unquoted(value):
    if value[:1] == "'":
        return value[1:-1].replace("''", "'")
    if value[:1] != '"':
        return value
    # What yaml_writer escapes is JSON, but for characters beyond the 16-bit ones.
    value = re.sub(r"\\U([0-9A-Fa-f]{8})", lambda found: chr(int(found.group(1), 16)), value)
    try:
        return json.loads(value)
    except ValueError:
        return value[1:-1]
