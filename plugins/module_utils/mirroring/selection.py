# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user writes, as images to mirror: names, platforms, and which tags (tags.py). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import HomelabError
from ..keys import refuse_unknown_keys, words
from ..oci.manifest import Platform, parse_platform
from ..oci.reference import Reference, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .tags import TagSelector

ITEM_KEYS = ("name", "tags", "platforms", "optional", "referrers")


@dataclass(frozen=True)
class ImageSpec:
    """One image to mirror.

    `reference` has a tag or a digest, or `selector` says which tags. No `platforms` means all. A missing
    `optional` image is no failure. `referrers` (signatures, SBOMs): None leaves it to the setting of the run.
    """

    reference: Reference
    selector: TagSelector | None = None
    platforms: tuple[Platform, ...] = ()
    optional: bool = False
    referrers: bool | None = None


@dataclass(frozen=True)
class BadItem:
    """An item that cannot be mirrored: its text without credentials, its place in the list (from 0), what is wrong."""

    item: str
    index: int
    error: HomelabError


def parse_images(value: object, where: str = "images") -> tuple[list[ImageSpec], list[BadItem]]:
    """What to mirror, from what the user wrote; a bad item does not lose the good ones.

    Args:
        value: names with commas, blanks or newlines between them (# begins a comment), or a list of such strings
            and of mappings with the keys name, tags (see parse_tags), platforms, optional, referrers; a single
            mapping is a list of one.
        where: name of the variable, for messages.

    Returns:
        The images in their order, each once (the first counts), and the bad items.
    """
    images, bad, platforms = {}, [], {}
    for text, index, place, item in _items(value, where):
        try:
            image = _image(item, place)
            key = (image.reference, image.selector)
            before = platforms.setdefault(key, image.platforms)
            if set(before) != set(image.platforms):
                raise HomelabError(
                    f"{image.reference.familiar} is listed twice, for other platforms the second time",
                    place,
                    "list it once with all its platforms",
                )
        except HomelabError as error:
            bad.append(BadItem(text, index, error))
        else:
            images.setdefault(key, image)
    return list(images.values()), bad


def _items(value: object, where: str) -> Iterator[tuple[str, int, str, object]]:
    """(text for messages, index, where, item) for each word of strings and each mapping."""
    if isinstance(value, str):
        words = _names(value)
        if value.rstrip().endswith(",") and "\n" not in value.strip():
            words.append(_CUT)
        for index, word in enumerate(words):
            yield _shown(word), index, where, word
    else:
        for index, item in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            place = f"{where}[{index}]"
            for word in _names(item) if isinstance(item, str) else [item]:
                shown = word.get("name", f"mapping of {', '.join(map(str, word))}") if isinstance(word, dict) else word
                yield _shown(str(shown)), index, place, word


#: Stands for what a list lacks that ends with a comma: ansible-playbook drops what follows a blank in -e a=b, c.
_CUT = ","


def _names(text: str) -> list[str]:
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())
    return [word for line in lines for word in re.split(r"[,\s]+", line) if word]


def _shown(text: str) -> str:
    """The text without what stands before an @ like a password does."""
    before, at, after = text.rpartition("@")
    return f"…@{after}" if at and (":" in before or "/" in after) and not after.startswith("sha") else text


def _image(item: object, where: str) -> ImageSpec:
    if not isinstance(item, dict):
        if not isinstance(item, str):
            raise HomelabError(
                f"{item!r} is neither a name nor a mapping with a name", where, "write it as node:20-alpine, in quotes"
            )
        if item == _CUT:
            raise HomelabError(
                "the list ends with a comma, as if something had been cut off",
                where,
                "write no blanks in -e images=a,b, or quote the list: -e \"images='a, b'\"",
            )
        return ImageSpec(_with_tag(parse_reference(item, where)))
    refuse_unknown_keys(item, ITEM_KEYS, "an image", where)
    if not isinstance(item.get("name"), str):
        raise HomelabError(f"an image has no name: {item!r}", where, "give it a name such as node")
    reference = parse_reference(item["name"].strip(), where)
    selector = None
    if item.get("tags") is not None:
        if reference.tag or reference.digest:
            given = f"the tag {reference.tag}" if reference.tag else "a digest"
            raise HomelabError(
                f"{reference.familiar} has {given} in its name and tags besides", where, "say it in one place only"
            )
        from .tags import parse_tags  # most lists name their tags, and need none of it

        selector = parse_tags(item["tags"], where)
    for key in ("optional", "referrers"):
        if item.get(key) is not None and not isinstance(item[key], bool):
            raise HomelabError(f"{key} of {reference.familiar} is {item[key]!r}", where, "write true or false")
    platforms = words(item["platforms"], "platforms", where) if item.get("platforms") is not None else []
    return ImageSpec(
        reference=reference if selector else _with_tag(reference),
        selector=selector,
        platforms=tuple(dict.fromkeys(parse_platform(word, where) for word in platforms)),
        optional=bool(item.get("optional")),
        referrers=item.get("referrers"),
    )


def _with_tag(reference: Reference) -> Reference:
    return reference if reference.tag or reference.digest else replace(reference, tag="latest")
