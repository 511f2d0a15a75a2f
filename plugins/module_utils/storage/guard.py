# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk guard's judgement: what to do about a file system that is so full. Pure; ctl/guard.py does it.

Nothing is ever deleted here: at the first limit a clean-up by the configured policy runs, at the second somebody is
told, on a change and then once a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from ..errors import HomelabError

OK, WARN, CRITICAL = "ok", "warn", "critical"
#: Seconds. Clean-ups of the guard begin an hour apart at least; a timer is not exact to the second.
CLEANUP_PAUSE = 3600 - 60
#: Seconds after which somebody is told the same again; likewise.
REMINDER = 24 * 3600 - 60
#: Why somebody is told, besides CRITICAL.
NO_POLICY, FAILED, NOT_ENOUGH = "no policy", "clean-up failed", "not enough"


@dataclass(frozen=True)
class Limits:
    """Per cent of the file system in use."""

    warn: float = 75
    critical: float = 80

    def __post_init__(self) -> None:
        if not 0 < self.warn <= self.critical <= 100:
            raise HomelabError(
                f"warn is {self.warn:g} and critical {self.critical:g} per cent",
                "guard",
                "give 0 < warn <= critical <= 100, as 75 and 80",
            )

    def level(self, percent: float) -> str:
        """OK, WARN or CRITICAL."""
        return CRITICAL if percent >= self.critical else WARN if percent >= self.warn else OK


@dataclass(frozen=True)
class Memory:
    """What the guard knows of its earlier runs.

    Attributes:
        cleaned_at: when its last clean-up began (seconds since 1970; 0 for never).
        told: what somebody was told last and is still so: CRITICAL or a reason; None if all is well.
        told_at: when.
    """

    cleaned_at: float = 0
    told: str | None = None
    told_at: float = 0

    @classmethod
    def from_dict(cls, data: object) -> Memory:
        """From JSON; what makes no sense is forgotten."""
        try:
            told = data["told"]
            return cls(float(data["cleaned_at"]), told if isinstance(told, str) else None, float(data["told_at"]))
        except (KeyError, TypeError, ValueError):
            return cls()

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def wants_cleanup(level: str, has_policy: bool, memory: Memory, now: float) -> bool:
    """Whether a clean-up is to run. A clock that was set back does not keep it from running."""
    due = not 0 <= now - memory.cleaned_at < CLEANUP_PAUSE
    return level != OK and has_policy and due


def concern(level: str, has_policy: bool, cleanup: Mapping | None) -> str | None:
    """Why somebody should know; None if there is no need.

    Args:
        level: after the clean-up, if one ran.
        cleanup: the last one of the guard's, with `failed`; None if none ran since the disk was all right.
    """
    if level == CRITICAL:
        return CRITICAL
    if level == OK:
        return None
    if not has_policy:
        return NO_POLICY
    if cleanup is None:
        return None
    return FAILED if cleanup["failed"] else NOT_ENOUGH


def tell(why: str | None, level: str, memory: Memory, now: float) -> tuple[bool, Memory]:
    """Whether somebody is told now, and what is remembered of it.

    The end of what was told is told, too (`why` is None and the level OK). At the first limit after the second nobody
    is told of each crossing: a disk that goes to and fro would write every hour.
    """
    if why is None:
        if level != OK or memory.told is None:
            return False, memory
        return True, replace(memory, told=None, told_at=now)
    worse = why != memory.told and not (memory.told == CRITICAL and why != CRITICAL)
    if worse or not 0 <= now - memory.told_at < REMINDER:
        return True, replace(memory, told=why, told_at=now)
    return False, memory
