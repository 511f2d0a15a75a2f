# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How old tags are, and which are the newest. Pure.

The time in an image is often no time: reproducible builds have 1970, or the same for all. The time of a push is
real, but a mirror run, or a restored backup, brings a repository's tags all at once. So times are looked at before
they are believed, and versions order what time does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ..oci import versions

#: Seconds. A tag that was set so shortly after another one is of the same batch, which versions order.
BATCH = 300
DAY = 86400
#: 1990-01-01: what claims to be older has no time (1970: reproducible builds, a clock without a battery).
EARLIEST = 631152000

# The same names are asked for many times, in one repository and in others.
age_key = lru_cache(maxsize=1 << 16)(versions.age_key)
parse_version = lru_cache(maxsize=1 << 16)(versions.parse_version)


@dataclass(frozen=True)
class Age:
    """When a tag or manifest came about: seconds since 1970 and where that is from (pushed, created), or None."""

    time: float | None = None
    source: str | None = None


class Ages:
    """Ages in one repository.

    Args:
        graph: its manifests.
        age_by: newest, pushed or created.
        now: seconds since 1970.
        names: the tags whose images are compared (name to digest).
    """

    def __init__(self, graph, age_by, now, names):
        self._graph, self._by, self._now = graph, age_by, now
        self._known = {}
        self.constant = None
        times = Counter(
            int(time) for time in map(self._created, sorted(set(names.values()))) if time is not None
        ).most_common(1)
        counted = len(set(names.values()))
        if times and times[0][1] > 1 and times[0][1] * 2 > counted:
            self.constant = times[0][0]

    def of(self, tag, held) -> Age:
        """The age of a tag (oci.inventory.Tag) on a manifest, or of a manifest without one (None)."""
        pushed = tag.pushed if tag is not None and tag.pushed is not None else held.pushed
        pushed = pushed if pushed is not None and pushed >= EARLIEST else None
        created = None if self.constant is not None else self._created(held.digest)
        if self._by == "created":
            pushed = None
        elif self._by == "pushed":
            created = None
        if created is not None and (pushed is None or created > pushed):
            return Age(created, "created")
        return Age() if pushed is None else Age(pushed, "pushed")

    def pushed(self, tag, held) -> Age:
        """When it last came here, whatever `age_by` says: what a grace is counted from."""
        times = [time for time in (tag and tag.pushed, held.pushed) if time is not None]
        return Age(max(times), "pushed") if times else Age()

    def _created(self, digest):
        if digest not in self._known:
            self._known[digest] = self._newest_of(digest)
        return self._known[digest]

    def _newest_of(self, digest):
        held = self._graph.manifests[digest]
        times = [held.created]
        times += [self._graph.manifests[child].created for child in held.children if child in self._graph.manifests]
        # A time to come would make the image the newest one for ever.
        return max((time for time in times if time is not None and EARLIEST <= time <= self._now + DAY), default=None)


@dataclass
class Image:
    """A manifest under some tags of a group: it takes one place, however many names it has."""

    digest: str
    names: list
    time: float | None


def newest_first(images: Iterable[Image]) -> tuple[list[Image], list[Image], int]:
    """The images whose time is known, the newest first; the others, by their names; and how many went by version.

    In a batch versions come first, the highest at the head, then what has none, by time. Without a time nobody can
    tell which of two images is newer, so they are not mixed with those that have one.
    """
    images = list(images)
    for image in images:
        image.names.sort(key=age_key, reverse=True)
    known = sorted(
        (image for image in images if image.time is not None), key=lambda image: (image.time, age_key(image.names[0]))
    )
    batches = []
    for image in known:
        if batches and image.time - batches[-1][-1].time <= BATCH:
            batches[-1].append(image)
        else:
            batches.append([image])
    ordered = [image for batch in batches for image in sorted(batch, key=_in_batch)]
    moved = sum(image is not before for image, before in zip(ordered, known))
    unknown = sorted(
        (image for image in images if image.time is None), key=lambda image: age_key(image.names[0]), reverse=True
    )
    return ordered[::-1], unknown, moved


def _in_batch(image):
    name = image.names[0]
    version = parse_version(name)
    release = (0,) if version is None else (1 if version.is_date else 2, *version.precedence, version.revision)
    return release, image.time, age_key(name)
