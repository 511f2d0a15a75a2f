# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A garbage collection in words, from the dict that the module returns and registryctl writes."""

from __future__ import annotations

from .numbers import duration, size

#: Names shown of a long list.
SHOWN = 10


def gc_summary(report: dict) -> str:
    """What was removed, what was left, how long it was felt; some lines."""
    lines = [_total(report)]
    if report["recovered"]:
        lines.insert(0, _recovered(report))
    parts = (
        ("abandoned uploads", report["uploads"]),
        ("empty repositories", report["repositories"]),
        ("tags", report["tags"]),
        ("damaged blobs", report["damaged"]),
        ("links written anew", report["repaired"]),
        ("left", report["left"]),
        ("not swept", report["refusals"]),
        ("found in the tree", report["findings"]),
        ("gone, though damaged images needed them", report["last_copies"]),
    )
    lines += [_listed(name, names) for name, names in parts if names]
    if report["damages"]:
        lines.append(_listed("damaged images", [_damage(one) for one in report["damages"]]))
    if report["new_damages"]:
        lines.append(_listed("damaged since this run", report["new_damages"]))
    if report["driver"] != "filesystem":
        lines.append(
            f"The storage is {report['driver']}: what the server's garbage collection removed was not checked by an own"
            " mark, and no image was verified after it."
        )
    if not report["check"] and report["read_only_seconds"]:
        lines.append(_felt(report))
    return "\n".join(lines)


def _total(report):
    does = "Would remove" if report["check"] else "Removed"
    if not report["changed"]:
        return "Nothing to collect."
    freed = "" if report["freed"] is None else f", {size(report['freed'])} with uploads"
    return f"{does} {report['blobs']} blobs{freed}."


def _recovered(report):
    phase = report["recovered"]["phase"]
    if report["check"]:
        return f"An earlier run was cut off ({phase}); the registry would be brought back first."
    return f"An earlier run was cut off ({phase}); the registry was brought back first."


def _damage(damage):
    name = f"{damage['repository']}:{damage['tag']}" if damage["tag"] else f"{damage['repository']}@{damage['digest']}"
    return f"{name} ({'; '.join(flaw['message'] for flaw in damage['flaws'][:2])})"


def _listed(name, names):
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{name}: {', '.join(names[:SHOWN])}{more}"


def _felt(report):
    verified = "" if report["verified"] is None else f" {report['verified']} tags verified."
    gaps = f"{duration(report['unreachable_seconds'])} in all, {duration(report['longest_gap_seconds'])} at one go"
    refused = duration(report["read_only_seconds"])
    return f"Writes were refused for {refused}; the registry did not answer for {gaps}.{verified}"
