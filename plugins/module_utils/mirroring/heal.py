# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Healing: images that verification found damaged are fetched again, although their tags say that nothing is new.

The registry's word is not taken for what was found broken: it answers HEAD from its memory. Content that is there but
wrong has to be removed before, in a maintenance window: the server keeps what it has under a digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import HomelabError
from ..oci.client import Registry
from ..oci.manifest import parse_platform
from ..oci.reference import parse_reference
from .plan import PLATFORMS, Wanted
from .state import State


@dataclass(frozen=True)
class Heal:
    """What is damaged.

    Attributes:
        images: (repository, tag; or digest, of an image without a tag).
        digests: of what is missing or wrong.
    """

    images: frozenset = frozenset()
    digests: frozenset = field(default=frozenset(), repr=False)


def parse_heal(damages: object) -> Heal:
    """From the damages that verification reports (storage.verify.Damage.as_dict, the module registry_info).

    Raises:
        HomelabError: that is something else.
    """
    images, digests = set(), set()
    try:
        for one in damages or ():
            images.add((_text(one["repository"]), _text(one["digest"] if one["tag"] is None else one["tag"])))
            digests.update(map(_text, one["digests"]))
    except (TypeError, KeyError) as error:
        raise HomelabError(
            "is not a list of damaged images", "heal", "give the damages that registry_info reports with verify: true"
        ) from error
    return Heal(frozenset(images), frozenset(digests))


def _text(value):
    if not isinstance(value, str):
        raise TypeError
    return value


def damaged_elsewhere(heal: Heal, wanted: list[Wanted], state: State, target: Registry, platforms: tuple) -> list:
    """Damaged images that earlier runs brought and that are not on the list any more, as Wanted.

    Args:
        wanted: the list.
        platforms: for those of which the registry does not know any more which were wanted.
    """
    listed = {(name, one.name_there) for one in wanted for name in one.repositories}
    sources = {}
    for repository, tag in sorted(heal.images - listed):
        source = state.source_of(repository, tag)
        if source:
            sources.setdefault((source, tag), []).append(repository)
    found = []
    for (source, tag), repositories in sources.items():
        reference = parse_reference(source)
        selected = () if reference.digest else _selected(target, repositories[0], tag, platforms)
        found.append(Wanted(reference, tuple(repositories), selected))
    return found


def _selected(target, repository, tag, platforms):
    """The platforms that an earlier run selected."""
    try:
        annotations: Mapping = target.read_manifest(repository, tag).annotations
    except HomelabError:
        return platforms  # it is damaged itself
    return tuple(parse_platform(one) for one in annotations.get(PLATFORMS, "").split(",") if one)
