# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror run did, or would do, as text. Takes the report as the module and registryctl return it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .numbers import duration, size
from .table import render

#: Of a run that had only to heal, and found no damage.
NOTHING = "no image had to be mirrored"
HEADER = ["image", "result", "size", "time", "why"]


def mirror_summary(report: Mapping) -> str:
    """A line an image, a line a tag that vanished upstream, and the totals.

    Args:
        report: `Report.as_dict()` of the package mirroring, or the result of the module image_mirror.
    """
    check = report["check"]
    # what went wrong stands where the eye is at the end
    images = sorted(report["images"], key=lambda one: (one["action"] == "failed", one["action"] == "deferred"))
    rows = [_image(one, check) for one in images]
    rows += [
        [f"{one['repository']}:{one['tag']}", one["action"], "-", "-", one.get("reason") or "gone upstream"]
        for one in report["pruned"]
    ]
    if not rows:
        return NOTHING
    return f"{render(rows, HEADER)}\n\n{mirror_totals(report)}"


def mirror_totals(report: Mapping) -> str:
    """The run in one sentence."""
    counts = Counter(one["action"] for one in [*report["images"], *report["pruned"]])
    parts = [f"{count} {action}" for action, count in sorted(counts.items(), key=_order)]
    if report["check"]:
        parts.append(f"{size(report['transfer_bytes'])} would travel")
    elif report["transferred_bytes"] or report["mounted_bytes"]:
        parts.append(f"{size(report['transferred_bytes'])} travelled")
    if report["mounted_bytes"]:
        parts.append(f"{size(report['mounted_bytes'])} did not have to")
    return ", ".join(parts) or NOTHING


def image_line(one: Mapping) -> str:
    """One image of the report in one line, for a log."""
    line = f"{one['image']}: {one['action']}"
    if one["action"] == "copied":
        line += f", {size(one['transferred_bytes'])} in {duration(one['seconds'])}"
    return f"{line}: {one['reason']}" if one.get("reason") else line


def _image(one, check):
    moved = one["transfer_bytes"] if check else one["transferred_bytes"]
    concerned = one["action"] in ("copied", "would copy", "failed")
    return [
        one["image"],
        one["action"].upper() if one["action"] == "failed" else one["action"],
        size(moved) if concerned and (moved or one["action"] != "failed") else "-",
        duration(one["seconds"]) if one["seconds"] else "-",
        "; ".join([*([one["reason"]] if one.get("reason") else []), *one.get("notes", ())]) or "-",
    ]


def _order(item):
    """What was done first, what went wrong last."""
    order = ("copied", "would copy", "unchanged", "pruned", "would prune", "kept", "deferred", "failed")
    return order.index(item[0])
