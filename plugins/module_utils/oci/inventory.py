# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a registry holds, as plain values: read from its directory tree or over the API, used to plan."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


class Held(NamedTuple):
    """A manifest in a repository.

    Attributes:
        media_type: "" if the content is missing or cannot be read.
        size: bytes of the manifest itself.
        children: digests an index lists.
        blobs: (digest, bytes) of config and layers, as the manifest says.
        subject: digest of what it is about (signatures, SBOMs), or None.
        created: seconds since 1970 from the image's config, or None (an index, an artifact, unknown).
        pushed: seconds since 1970 when it came into this repository, or None (the API does not tell).
    """

    digest: str
    media_type: str = ""
    size: int = 0
    children: tuple = ()
    blobs: tuple = ()
    subject: str | None = None
    created: float | None = None
    pushed: float | None = None


class Tag(NamedTuple):
    """A tag; `pushed` is when it was last set (seconds since 1970), or None."""

    name: str
    digest: str
    pushed: float | None = None


@dataclass
class Repository:
    """A repository: its tags by name and its manifests, also untagged ones, by digest; and the names of the tags of
    which nobody knows any more what they point at, which may be any manifest."""

    name: str
    tags: dict = field(default_factory=dict)
    manifests: dict = field(default_factory=dict)
    lost_tags: list = field(default_factory=list)


@dataclass
class Inventory:
    """A registry: its repositories by name, and where that was read (for messages)."""

    source: str
    repositories: dict = field(default_factory=dict)


def parse_time(text: str) -> float | None:
    """Seconds since 1970 of a date and time (RFC 3339; Go writes nanoseconds); None for anything else."""
    found = _TIME.fullmatch(text.strip())
    if not found:
        return None
    day, time, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}+00:00")
        if sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            moment += -offset if sign == "+" else offset
    except (ValueError, OverflowError):
        return None
    return moment.timestamp() + float(fraction or 0)


def created_of(config: bytes) -> float | None:
    """When an image was made (seconds since 1970), as its configuration says; None if it does not say.

    Image specification, "Image Configuration": `created` is a date and time of RFC 3339.
    """
    try:
        return parse_time(json.loads(config.decode("utf-8"))["created"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
