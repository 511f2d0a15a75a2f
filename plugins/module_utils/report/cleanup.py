# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a clean-up did, or would do, as text. Takes the report as the module and registryctl return it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .numbers import age, duration, size
from .table import render

HEADER = ["repository", "tag", "age", "frees", "result", "why"]
_ORDER = (
    "would delete", "deleted", "would remove the tag", "tag removed", "refused", "waits", "left", "skipped", "failed",
)  # fmt: skip


def cleanup_summary(report: Mapping) -> str:
    """A line a tag, what to know, and the totals.

    Args:
        report: `Report.as_dict()` of retention.run, or the result of the module registry_cleanup.
    """
    parts = [render([_row(one) for one in report["items"]], HEADER)] if report["items"] else []
    if report["notes"]:
        parts.append("\n".join(f"- {note}" for note in report["notes"]))
    return "\n\n".join([*parts, cleanup_totals(report)])


def cleanup_totals(report: Mapping) -> str:
    """The run in words."""
    counts = Counter(one["result"] for one in report["items"])
    kept = report["tags"]["keep"]
    parts = [f"{counts[result]} {result}" for result in _ORDER if counts[result]] or ["nothing to delete"]
    text = f"{', '.join(parts)}, {kept} tags kept"
    if report["check"] and report["freed"]:
        text += f"; {size(report['freed'])} would become free"
    garbage = report["garbage"]
    if garbage:
        text += f"; {_garbage(garbage, report['check'])}"
    elif not report["check"] and counts["deleted"]:
        text += f"; a garbage collection will free {size(report['freed'])}"
    for problem in (report["refused"], report["trouble"]):
        text += f"\nNOT DONE: {problem}" if problem else ""
    return text


def _garbage(garbage, check):
    if garbage["freed"] is None:
        return "garbage collected"
    if check:
        return f"{size(garbage['freed'])} of garbage are there already"
    text = f"{size(garbage['freed'])} freed"
    if garbage["read_only_seconds"]:
        text += f" in {duration(garbage['read_only_seconds'])} without pushes"
    if garbage["unreachable_seconds"]:
        text += f" and {duration(garbage['unreachable_seconds'])} without an answer"
    return text


def outcome_line(one: Mapping) -> str:
    """One item of the report in one line."""
    name = f"{one['repository']}:{one['tag']}" if one["tag"] else f"{one['repository']}@{one['digest'][:19]}"
    return f"{name}: {one['result']}" + (f": {one['reason']}" if one.get("reason") else "")


def _row(one):
    frees = size(one["freed"]) if one["freed"] else "-"
    source = f" ({one['age_source']})" if one["age_source"] else ""
    result = one["result"].upper() if one["result"] == "failed" else one["result"]
    why = "; ".join(filter(None, (one["rule"], one.get("reason"))))
    return [one["repository"], one["tag"] or one["digest"][:19], age(one["age"]) + source, frees, result, why or "-"]
