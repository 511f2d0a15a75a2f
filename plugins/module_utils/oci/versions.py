# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags as versions, and their order. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_WORDS = "alpha|beta|rc|preview|pre|dev|snapshot|nightly|ea|m(?=[0-9])"
_NUMBERS = re.compile(
    r"v?(?:([0-9]+(?:\.[0-9]+)*)(?=$|[-_]|\.(?![0-9]))"
    r"|([0-9]+(?:\.[0-9]+)+)(?=(?:a|b|alpha|beta|rc|pre|dev)[0-9]+(?:$|[-_.])))",
    re.IGNORECASE,
)
#: A single number as long as this is a commit or a time, no version.
_TOO_LONG = re.compile(r"v?[0-9]{7,}(?![0-9.])", re.IGNORECASE)
_DATE = re.compile(
    r"(?:RELEASE\.)?((?:19|20)[0-9]{2})(-?)(0[1-9]|1[0-2])(?:\2(0[1-9]|[12][0-9]|3[01]))?"
    r"(?:T([0-9]{2})-([0-9]{2})-([0-9]{2})Z)?(?=$|[-_.])"
)
#: A pre-release with its number: -rc.1, -beta2, -M3, and without a separator behind the numbers: 3.13.0b1.
_PRE_RELEASE = re.compile(
    rf"(?:(?:^|[-_.])({_WORDS})|^(a|b))(?:[-_.]?([0-9]+(?:\.[0-9]+)*))?(?=$|[-_.])", re.IGNORECASE
)
_REST = re.compile(r"(?:-([0-9]+)(?=$|[-_.]))?([^_]*)(?:_(.*))?", re.DOTALL)
_RELEASED = (1,)


@dataclass(frozen=True)
class Version:
    """A tag that begins with a version or is a date.

    1.2.3, v1.2, 20, 1.2.3.4: the numbers; absent ones count as 0. Behind them may come, in any order of
    appearance of a pre-release and the rest: a pre-release (`-rc.1`, `-beta2`, `b1`: only the words alpha, beta,
    rc, pre, preview, dev, snapshot, nightly, ea and m<N>), a packaging revision (`-4`), a variant (`-alpine3.19`,
    `-bookworm`) and build metadata (`_5`, where semver has `+5`, which no tag may have).
    2024-01-05, 2024-01, 20240105, RELEASE.2024-01-05T22-17-24Z are dates, `is_date`.
    """

    numbers: tuple[int, ...]
    pre_release: tuple = ()
    revision: int = 0
    variant: str = ""
    metadata: str = ""
    is_date: bool = False

    @property
    def precedence(self) -> tuple:
        """What semver orders by: the numbers, a pre-release before its release. For one kind (date or not) only."""
        return stripped(self.numbers), (0, *self.pre_release) if self.pre_release else _RELEASED


def parse_version(tag: str) -> Version | None:
    """The version that a tag begins with, None for latest, edge, sha-1a2b3c, bookworm …"""
    date = _DATE.match(tag)
    if date and (date.group(4) or date.group(2)):  # 202401 alone is a number like any other
        numbers = (int(number or 0) for number in date.group(1, 3, 4, 5, 6, 7))
        return Version(tuple(numbers), is_date=True, variant=tag[date.end() :])
    found = _NUMBERS.match(tag)
    if not found or _TOO_LONG.match(tag):
        return None
    rest, pre_release = tag[found.end() :], ()
    pre = _PRE_RELEASE.search(rest)
    if pre:
        word = (pre.group(1) or {"a": "alpha", "b": "beta"}[pre.group(2).lower()]).lower()
        pre_release = (word, *(int(number) for number in (pre.group(3) or "").split(".") if number))
        rest = rest[: pre.start()] + rest[pre.end() :]
    revision, variant, metadata = _REST.fullmatch(rest).groups()
    numbers = tuple(int(number) for number in (found.group(1) or found.group(2)).split("."))
    return Version(numbers, pre_release, int(revision or 0), variant, metadata or "")


def stripped(numbers: tuple) -> tuple:
    """Numbers without the zeros at their end: 1.2 and 1.2.0 are one version."""
    while numbers and not numbers[-1]:
        numbers = numbers[:-1]
    return numbers


def _natural(text: str) -> tuple:
    """Sort key in which 10 comes after 9."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split("([0-9]+)", text) if part)


def age_key(tag: str) -> tuple:
    """Sort key of tags, oldest first: names without a version, then dates, then versions.

    Dates come before versions because repositories with both (alpine) use dates for snapshots. Equal versions
    are ordered by revision, variant and metadata, the shorter spelling first.
    """
    version = parse_version(tag)
    if version is None:
        return 0, (), (), 0, (), (), 0, _natural(tag), tag
    return (
        1 if version.is_date else 2,
        *version.precedence,
        version.revision,
        _natural(version.variant),
        _natural(version.metadata),
        len(version.numbers),
        _natural(tag),
        tag,  # 01 and 1 are the same number, but not the same tag
    )


def newest_first(tags: Iterable[str]) -> list[str]:
    """Tags by `age_key`, the newest first."""
    return sorted(tags, key=age_key, reverse=True)
