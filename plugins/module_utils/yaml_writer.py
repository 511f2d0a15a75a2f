# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write plain data as block-style YAML that every reader understands in the same way.

The targets have no PyYAML, and the files written here are read by Go (yaml.v2 in the registry, yaml.v3 in
k3s) and by PyYAML (ours, in tests). These disagree about what a bare word means, so a string stays bare
only if none of YAML 1.1, YAML 1.2 and the Go readers could take it for anything but a string.
"""

from __future__ import annotations

import math
import re

from .errors import HomelabError

# Bare words that at least one reader resolves to something other than a string.
_RESOLVED = re.compile(
    r"""
      ~ | null | true | false | yes | no | on | off | y | n
    | = | <<                                                    # YAML 1.1: default value and merge keys
    | [-+]?\.?(inf|infinity|nan)                                # older Go readers need no dot
    | [-+]?0(b[01_]+ | o[0-7_]+ | x[0-9a-f_.]+(p[-+]?\d+)?)
    | [-+]?(\d[\d_]*(\.[\d_]*)? | \.[\d_]+)(e[-+]?[\d_]+)?      # decimal, also with YAML 1.1's underscores
    | [-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?                      # YAML 1.1 base 60: 12:30
    | \d{4}-\d\d?-\d\d?([t\s].*)?                               # date, date and time
    | \.{3}.*                                                   # end of document
    """,
    re.VERBOSE | re.IGNORECASE,
)

# What a bare scalar may not start with, and what ends it or turns it into a mapping or a comment.
_LEADING = "-?:,[]{}#&*!|>'\"%@` "
_BREAKING = re.compile(r": |:$| #| $")

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def dump(data: object, *, comment: str = "") -> str:
    """Return ``data`` as one YAML document in block style, in insertion order, ending with a newline.

    Args:
        data: dict (with string keys), list, str, int, float, bool or None, nested at will.
        comment: text for the top of the file; each of its lines becomes a ``#`` line.

    Raises:
        HomelabError: a value or key has another type, or a string is not valid Unicode; ``where`` is its
            path in ``data``.
    """
    head = [f"# {line}".rstrip() for line in comment.splitlines()]
    return "\n".join([*head, *_lines(data, "")]) + "\n"


def _lines(node: object, path: str) -> list[str]:
    """Return the lines of ``node``, indented as if it stood alone; ``path`` is where it sits in the data."""
    lines: list[str] = []
    if isinstance(node, dict) and node:
        for key, value in node.items():
            if not isinstance(key, str):
                raise HomelabError(f"a YAML key must be a string, not {key!r}", path or "top level")
            inner = f"{path}.{key}" if path else key
            block = _lines(value, inner)
            name = _string(key, inner) + ":"
            if isinstance(value, (dict, list)) and value:
                lines += [name, *(f"  {line}" for line in block)]
            else:
                lines.append(f"{name} {block[0]}")
    elif isinstance(node, list) and node:
        for index, item in enumerate(node):
            first, *rest = _lines(item, f"{path}[{index}]")
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
    else:
        lines.append(_scalar(node, path))
    return lines


def _scalar(value: object, path: str) -> str:
    """Return a scalar or an empty container as YAML; see ``dump`` for the types and errors."""
    if value is None:
        return "null"
    if isinstance(value, bool):  # before int: a bool is one
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        return _string(value, path)
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    raise HomelabError(f"cannot write a {type(value).__name__} as YAML", path or "top level")


def _float(value: float) -> str:
    """Return a float in the one spelling all readers share."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(float(value))
    # YAML 1.1 takes 1e+16 for a string: the mantissa needs its dot.
    return text if "." in text else text.replace("e", ".0e")


def _string(text: str, path: str) -> str:
    """Return a string bare where that is safe, else in double quotes with everything unprintable escaped."""
    plain = (
        text.isprintable()
        and text != ""
        and text[0] not in _LEADING
        and not _BREAKING.search(text)
        and not _RESOLVED.fullmatch(text)
    )
    return str(text) if plain else '"' + "".join(_escaped(character, path) for character in text) + '"'


def _escaped(character: str, path: str) -> str:
    """Return one character as it stands between double quotes."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        raise HomelabError("a string is not valid Unicode and cannot be written as YAML", path or "top level")
    # Unlike JSON, YAML has an escape for the astral planes and does not join surrogate pairs.
    if code > 0xFFFF:
        return f"\\U{code:08X}"
    return f"\\u{code:04X}"
