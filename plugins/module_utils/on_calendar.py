# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's OnCalendar and its time spans, for hosts without systemd: one way to write a time on all of them.

Pure. Understood is what systemd.time(7) calls a calendar event:
``[weekdays] [[year-]month-day] [hour:minute[:second]]``, each part ``*``, a value, a range ``a..b``, a repetition
``a/b`` or a list of these; and the words ``hourly`` … ``yearly``. Not understood, and refused: ``~`` (days from a
month's end), fractions of a second and time zones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from .errors import HomelabError

WORDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_UNITS = {
    1: ("s", "sec", "second", "seconds", ""),
    60: ("m", "min", "minute", "minutes"),
    3600: ("h", "hr", "hour", "hours"),
    86400: ("d", "day", "days"),
    604800: ("w", "week", "weeks"),
}
_SECONDS = {name: factor for factor, names in _UNITS.items() for name in names}
#: A date such as 02-29 on a Monday comes once in 28 years, in 40 around a century without a leap day.
_HORIZON = 366 * 41


@dataclass(frozen=True)
class Calendar:
    """A calendar event; None stands for every year, every weekday (0 is Monday)."""

    text: str
    weekdays: frozenset[int] | None
    years: frozenset[int] | None
    months: frozenset[int]
    days: frozenset[int]
    times: tuple[time, ...]

    def after(self, moment: datetime) -> datetime | None:
        """The first time after a moment, both in local time; None if there is none."""
        day = moment.date()
        for _count in range(_HORIZON):
            if self._on(day):
                for at in self.times:
                    found = datetime.combine(day, at)
                    if found > moment:
                        return found
            day += timedelta(days=1)
        return None

    def _on(self, day):
        return (
            day.month in self.months
            and day.day in self.days
            and (self.years is None or day.year in self.years)
            and (self.weekdays is None or day.weekday() in self.weekdays)
        )


def parse(text: str) -> Calendar:
    """Read a calendar event.

    Raises:
        HomelabError: it is none, or in a form that is not understood here.
    """
    words = WORDS.get(text.strip().lower(), text).split()
    weekdays, date, clock = None, "*-*-*", "00:00:00"
    try:
        if words and re.match(r"[A-Za-z]", words[0]):
            weekdays = frozenset(_weekdays(words.pop(0)))
        if words and "-" in words[0] and ":" not in words[0]:
            date = words.pop(0)
        if words and ":" in words[0]:
            clock = words.pop(0)
        if words or not text.strip():
            raise ValueError(f"{' '.join(words)!r} is not understood" if words else "it is empty")
        parts = date.split("-")
        year, month, day = parts if len(parts) == 3 else ["*", *parts]
        hour, minute, *seconds = clock.split(":")
        second = seconds[0] if seconds else "0"
        if len(seconds) > 1:
            raise ValueError(f"{clock!r} has too many parts")
        times = tuple(
            time(h, m, s)
            for h in sorted(_values(hour, 0, 23))
            for m in sorted(_values(minute, 0, 59))
            for s in sorted(_values(second, 0, 59))
        )
        years = None if year == "*" else frozenset(_values(year, 1970, 2200))
        months, days = frozenset(_values(month, 1, 12)), frozenset(_values(day, 1, 31))
    except ValueError as error:
        raise HomelabError(
            f"{text!r} is no time: {error}", remedy="write it like '*-*-* 03:30:00', 'Mon *-*-* 04:00:00' or 'daily'"
        ) from error
    return Calendar(text, weekdays, years, months, days, times)


def _weekdays(text):
    for part in text.rstrip(",").split(","):
        first, dots, last = part.partition("..")
        start = _weekday(first)
        end = _weekday(last) if dots else start
        if end < start:  # as systemd has it
            raise ValueError(f"{part!r} runs backwards, a week begins on Monday")
        yield from range(start, end + 1)


def _weekday(name):
    for number, day in enumerate(DAYS):
        if name.lower() in (day, day[:3]):
            return number
    raise ValueError(f"{name!r} is no weekday")


def _values(text, least, most):
    found = set()
    for part in text.split(","):
        body, slash, step = part.partition("/")
        first, dots, last = body.partition("..")
        if not re.fullmatch(r"(\*|\d+)", first) or (dots and not re.fullmatch(r"\d+", last)):
            raise ValueError(f"{part!r} is not understood")
        if slash and not re.fullmatch(r"0*[1-9]\d*", step):
            raise ValueError(f"{part!r} has no step")
        start = least if first == "*" else int(first)
        end = int(last) if dots else (most if first == "*" or slash else start)
        if not least <= start <= end <= most:
            raise ValueError(f"{part!r} is not within {least} and {most}")
        found.update(range(start, end + 1, int(step) if slash else 1))
    return found


def span(text: object) -> float:
    """Seconds of a time span such as ``30min``, ``1h 30min``, ``90`` or ``infinity``.

    Raises:
        HomelabError: it is none.
    """
    words = str(text).strip().lower()
    if words == "infinity":
        return float("inf")
    pieces = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*", words)
    if not pieces or re.sub(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*", "", words) or any(u not in _SECONDS for _n, u in pieces):
        raise HomelabError(f"{text!r} is no time span", remedy="write it like 30min, 1h 30min or 12h")
    return sum(float(number) * _SECONDS[unit] for number, unit in pieces)
