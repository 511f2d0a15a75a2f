# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What verification found, as text. Takes the result as registryctl and the module registry_info return it."""

from __future__ import annotations

from collections.abc import Mapping

from .numbers import size
from .table import render

#: Flaws of one image that are shown; the rest is in the JSON.
SHOWN = 3


def verify_summary(result: Mapping) -> str:
    """A line for each damaged image, what else is wrong, and the totals."""
    parts = []
    if result["damages"]:
        rows = [[_name(one), _heals(one), _wrong(one)] for one in result["damages"]]
        parts.append(render(rows, ["image", "a mirror run heals it", "what is wrong"]))
    if result["findings"]:
        parts.append("\n".join(f"also: {one['where']}: {one['message']}" for one in result["findings"]))
    return "\n\n".join([*parts, verify_totals(result)])


def verify_totals(result: Mapping) -> str:
    """The check in one sentence."""
    tags, damaged = result["tags"], sum(one["tag"] is not None for one in result["damages"])
    untagged = len(result["damages"]) - damaged
    said = f"{damaged} of {tags} images damaged" if damaged else f"{tags} images whole"
    if untagged:
        said += f", {untagged} damaged without a tag"
    looked = f"{result['manifests']} manifests and {result['blobs']} blobs looked at"
    if not result["whole"] and not result["damages"]:
        said += " of what could be read, which is not all"
    read = f", {size(result['read'])} read" if result["read"] else ""
    return f"{said} ({looked}{read}; {result['source']})"


def damaged_names(damages) -> list[str]:
    """The names of damaged images."""
    return [_name(one) for one in damages]


def _name(one):
    return f"{one['repository']}:{one['tag']}" if one["tag"] is not None else f"{one['repository']}@{one['digest']}"


def _heals(one):
    return "yes" if one["healable"] else "no, push it again"


def _wrong(one):
    messages = [flaw["message"] for flaw in one["flaws"]]
    more = [f"and {len(messages) - SHOWN} more"] if len(messages) > SHOWN else []
    return "; ".join(messages[:SHOWN] + more)
