# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tags of a repository to mirror: as the user writes it, and chosen from what the upstream lists. Pure.

How tags are ordered and when a version range takes one is written at `oci.versions` and `VersionRange`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..errors import HomelabError
from ..keys import not_text, refuse_unknown_keys, words
from ..oci.reference import tag_fault
from ..oci.versions import Version, newest_first, parse_version, stripped

TAGS_KEYS = ("list", "glob", "regex", "semver", "suffix", "newest", "exclude")


# --- version ranges -----------------------------------------------------------------------------------------
_COMPARATOR = re.compile(r"(>=|<=|!=|==|=|>|<|\^|~>|~)?\s*([^\s,|<>=!^~]+)")
_PARTIAL = re.compile(r"v?([0-9]+(?:\.[0-9]+)*)?((?:\.?[xX*])*)(?:-?([A-Za-z][A-Za-z0-9.-]*))?")
_SEPARATOR = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class VersionRange:
    """A range of versions, as npm and Cargo write it.

    `>=1.2 <2`, `^1.2`, `~1.2.3`, `1.2.x`, `1.2 - 1.4`, `*`, `!=1.3.1`; a blank or comma means and, `||` or.
    A version without all its parts stands for all that begin with it: `1.2` is 1.2.x, `<=1.2` takes 1.2.9,
    `>1.2` begins at 1.3. Pre-releases are taken only by a range that names one (`>=1.2.0-rc.1`).
    Dates and tags without a version are never in a range.
    """

    text: str
    #: alternatives of bounds: (operator, precedence) or ("outside", low, high)
    alternatives: tuple = field(compare=False, repr=False)
    takes_pre_releases: bool = field(compare=False, repr=False, default=False)

    def contains(self, version: Version) -> bool:
        """Whether a version is in the range; its variant and revision play no part."""
        if version.is_date or (version.pre_release and not self.takes_pre_releases):
            return False
        key = version.precedence
        return any(all(_within(key, bound) for bound in bounds) for bounds in self.alternatives)


def _within(key: tuple, bound: tuple) -> bool:
    operator, limit = bound[:2]
    if operator == ">=":
        return key >= limit
    if operator == "<":
        return key < limit
    if operator == ">":
        return key > limit
    if operator == "<=":
        return key <= limit
    return key < limit or key >= bound[2]  # outside


def parse_range(text: str, where: str | None = None) -> VersionRange:
    """A range as VersionRange describes it.

    Raises:
        HomelabError: it is none; the text names the word and its position, counted from 1.
    """
    if not isinstance(text, str) or not text.strip():
        raise not_text(text, "a version range", where)
    alternatives, takes_pre_releases, start = [], False, 0
    for alternative in text.split("||"):
        bounds = []
        for operator, word, position in _comparators(text, alternative, start, where):
            version, whole = _partial(text, word, position, where)
            takes_pre_releases = takes_pre_releases or bool(version.pre_release)
            bounds += _bounds(operator, version, whole)
        if not alternative.strip(" ,\t\n"):
            raise _bad_range(
                text, start, "there is nothing on one side of ||" if "||" in text else "it is empty", where
            )
        alternatives.append(tuple(bounds))
        start += len(alternative) + 2
    return VersionRange(text, tuple(alternatives), takes_pre_releases)


def _comparators(text: str, alternative: str, start: int, where: str | None) -> Iterator[tuple[str, str, int]]:
    """(operator, version, position) for each comparator; a hyphen range gives two."""
    found, position = [], _SEPARATOR.match(alternative).end()
    while position < len(alternative):
        match = _COMPARATOR.match(alternative, position)
        if not match:
            raise _bad_range(
                text, start + position, f"no version comes after {alternative[position:].strip()!r}", where
            )
        found.append((match.group(1) or "", match.group(2), start + match.start(2)))
        position = _SEPARATOR.match(alternative, match.end()).end()
    words = [word for _operator, word, _position in found]
    if "-" not in words:
        return iter(found)
    if len(found) != 3 or words[1] != "-" or any(operator for operator, _word, _position in found):
        raise _bad_range(text, found[words.index("-")][2], "a hyphen stands between two versions only", where)
    return iter([(">=", *found[0][1:]), ("<=", *found[2][1:])])


def _partial(text: str, word: str, position: int, where: str | None) -> tuple[Version, bool]:
    """A version in a range, and whether it has all its parts (1.2.3, not 1.2 or 1.2.x)."""
    match = _PARTIAL.fullmatch(word)
    if not match or not (match.group(1) or match.group(2)) or match.group(2).startswith(".") and not match.group(1):
        raise _bad_range(text, position, f"{word!r} is not a version", where)
    numbers = tuple(int(number) for number in (match.group(1) or "").split(".") if number)
    if not match.group(3):
        return Version(numbers), len(numbers) >= 3 and not match.group(2)
    version = parse_version(word)
    if version is None or not version.pre_release or version.variant or match.group(2):
        raise _bad_range(
            text,
            position,
            f"{word!r} ends in {match.group(3)!r}, which is no pre-release",
            where,
            "put a variant into suffix",
        )
    return version, True


def _bounds(operator: str, version: Version, whole: bool) -> list[tuple]:
    numbers, low = version.numbers, version.precedence
    if not version.pre_release and (operator == "<" or not whole):
        low = (low[0], ())  # before its pre-releases: nobody who writes <2.0.0 wants 2.0.0-rc.1
    high = low if not numbers else _before(_next(numbers))
    if not numbers:  # *: any version, or with < > != none
        return [] if operator in ("", "=", "==", ">=", "<=", "^", "~", "~>") else [("<", ((), ()))]
    if operator == "^":
        # up to the next change of the first part that is not 0, or of the last one given
        first = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
        return [(">=", low), ("<", _before(_next(numbers[: first + 1])))]
    if operator in ("~", "~>"):
        return [(">=", low), ("<", _before(_next(numbers[:2])))]
    if operator in (">=", "<"):
        return [(operator, low)]
    if operator == ">":
        return [(">", low)] if whole else [(">=", high)]
    if operator == "<=":
        return [("<=", low)] if whole else [("<", high)]
    if operator == "!=":
        return [("outside", low, (*low, 0) if whole else high)]
    return [(">=", low), ("<=", low)] if whole else [(">=", low), ("<", high)]


def _next(numbers: tuple) -> tuple:
    return (*numbers[:-1], numbers[-1] + 1)


def _before(numbers: tuple) -> tuple:
    """The precedence just before all of a version, its pre-releases included."""
    return stripped(numbers), ()


def _bad_range(text: str, position: int, reason: str, where: str | None, remedy: str | None = None) -> HomelabError:
    return HomelabError(
        f"the version range {text!r} is wrong at position {position + 1}: {reason}",
        where,
        remedy or "write it like >=1.2 <2, ^1.2, ~1.2.3, 1.2.x, 1.2 - 1.4, or several with || between them",
    )


# --- choosing tags ------------------------------------------------------------------------------------------
#: Signatures, attestations and referrers under a tag; they follow their image and are no tags of their own.
_REFERRER_TAG = re.compile(r"sha(256|512)-[0-9a-f]{32,}(\..*)?")
_ASKS_PRE_RELEASE = re.compile(
    r"(?<![a-z])(alpha|beta|rc|preview|pre|dev|snapshot|nightly|ea|m(?=[0-9*?\[ ]))(?![a-z])"
)


@dataclass(frozen=True)
class Selection:
    """Chosen tags: those named one by one in their order, then the others, newest first; and which are not there."""

    tags: tuple[str, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class TagSelector:
    """Which tags of a repository to mirror.

    Candidates are the tags that `globs`, `regex` (of the whole tag) or `semver` take, without those that
    `exclude` takes. `newest` keeps the newest of them by `age_key`: no pre-releases unless a pattern names such a
    word, and no 22 or 22.1 where a 22.1.0 is a candidate, of which they are only other names. `newest` alone
    chooses among the versions (dates where there is no version) without a variant.
    `suffix` (a glob such as -alpine*) is the variant that `semver` and `newest` alone want instead of none.
    `exact` tags are chosen besides, whatever `newest` says; `exclude` holds for them too.
    Signatures under tags (sha256-….sig) are never candidates.
    """

    exact: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()
    regex: str | None = None
    semver: VersionRange | None = None
    suffix: str = ""
    newest: int | None = None
    exclude_globs: tuple[str, ...] = ()
    exclude_regex: str | None = None

    @property
    def needs_listing(self) -> bool:
        """Whether the upstream's tags must be asked for: not for exact tags alone."""
        return bool(self.globs or self.regex is not None or self.semver or self.newest)

    def select(self, tags: Iterable[str] = ()) -> Selection:
        """Choose from the tags that the upstream lists; without `needs_listing` they play no part."""
        wanted = [tag for tag in self.exact if not self._excluded(tag)]
        if not self.needs_listing:
            return Selection(tuple(wanted))
        there = set(tags)
        found = newest_first(tag for tag in there if self._is_candidate(tag))
        if self.newest:
            found = self._counted(found)[: self.newest]
        named = [tag for tag in wanted if tag in there]
        return Selection(tuple(dict.fromkeys([*named, *found])), tuple(tag for tag in wanted if tag not in there))

    @property
    def _newest_alone(self) -> bool:
        return bool(self.newest) and not (self.globs or self.regex is not None or self.semver)

    def _excluded(self, tag: str) -> bool:
        return any(fnmatch.fnmatchcase(tag, glob) for glob in self.exclude_globs) or (
            self.exclude_regex is not None and bool(re.fullmatch(self.exclude_regex, tag))
        )

    def _is_candidate(self, tag: str) -> bool:
        if _REFERRER_TAG.fullmatch(tag) or self._excluded(tag):
            return False
        if any(fnmatch.fnmatchcase(tag, glob) for glob in self.globs):
            return True
        if self.regex is not None and re.fullmatch(self.regex, tag):
            return True
        version = parse_version(tag)
        if version is None or not fnmatch.fnmatchcase(version.variant, self.suffix):
            return False
        return self.semver.contains(version) if self.semver else self._newest_alone

    def _counted(self, tags: list[str]) -> list[str]:
        """The tags among which `newest` counts, in the order given."""
        versions = {tag: parse_version(tag) for tag in tags}
        if not self._asks_pre_releases:
            tags = [tag for tag in tags if not (versions[tag] and versions[tag].pre_release)]
        if self._newest_alone and any(not versions[tag].is_date for tag in tags):
            tags = [tag for tag in tags if not versions[tag].is_date]
        longer = {
            (version.numbers[:length], version.variant)
            for version in map(versions.get, tags)
            if version
            for length in range(1, len(version.numbers))
        }
        return [
            tag for tag in tags if not versions[tag] or (versions[tag].numbers, versions[tag].variant) not in longer
        ]

    @property
    def _asks_pre_releases(self) -> bool:
        patterns = [re.sub(r"\\.", " ", pattern).lower() for pattern in (*self.globs, self.regex or "", self.suffix)]
        return any(_ASKS_PRE_RELEASE.search(pattern) for pattern in patterns) or (
            self.semver is not None and self.semver.takes_pre_releases
        )


def parse_tags(value: object, where: str | None = None) -> TagSelector:
    """The `tags` of an image, as a TagSelector.

    Args:
        value: a list of tags and globs, the same as a string with commas, or a mapping with the keys list,
            glob, regex, semver, suffix, newest, exclude (a string is a regular expression, a list are globs).
        where: the item it belongs to, for messages.

    Raises:
        HomelabError: it is none of these, or chooses nothing.
    """
    if not isinstance(value, dict):
        exact, globs = _tags_and_globs(value, "tags", where)
        if not exact and not globs:
            raise HomelabError("tags is empty", where, "name tags, or leave it out for latest")
        return TagSelector(exact, globs)
    refuse_unknown_keys(value, TAGS_KEYS, "tags", where)
    given = {key: item for key, item in value.items() if item is not None}
    exact, listed_globs = _tags_and_globs(given.get("list", []), "tags.list", where)
    named, globs = _tags_and_globs(given.get("glob", []), "tags.glob", where)
    exclude = given.get("exclude")
    selector = TagSelector(
        exact=exact,
        globs=(*listed_globs, *globs, *named),  # a glob without wildcards takes what it says, and is never missing
        regex=_regex(given["regex"], "tags.regex", where) if "regex" in given else None,
        semver=parse_range(given["semver"], where) if "semver" in given else None,
        suffix=_suffix(given.get("suffix", ""), where),
        newest=_newest_count(given["newest"], where) if "newest" in given else None,
        exclude_globs=sum(_tags_and_globs(exclude, "tags.exclude", where), ()) if isinstance(exclude, list) else (),
        exclude_regex=None if exclude is None or isinstance(exclude, list) else _regex(exclude, "tags.exclude", where),
    )
    if not selector.exact and not selector.needs_listing:
        raise HomelabError(
            "tags chooses nothing", where, "give it list, glob, regex, semver or newest; glob: '*' takes all"
        )
    if selector.suffix and not selector.semver and not selector._newest_alone:
        raise HomelabError(
            "tags.suffix belongs to semver, or to newest without glob and regex",
            where,
            "write it into the glob or regex",
        )
    return selector


def _tags_and_globs(value: object, name: str, where: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    exact, globs = [], []
    for text in words(value, name, where):
        is_glob = any(character in text for character in "*?[")
        fault = tag_fault(re.sub(r"[*?!\[\]]", "x", text) if is_glob else text)
        if fault:
            raise HomelabError(f"{text!r} in {name} is no {'glob' if is_glob else 'tag'}: {fault}", where)
        (globs if is_glob else exact).append(text)
    return tuple(dict.fromkeys(exact)), tuple(dict.fromkeys(globs))


def _regex(value: object, name: str, where: str | None) -> str:
    if not isinstance(value, str) or not value:
        raise not_text(value, name, where)
    try:
        re.compile(value)
    except re.error as error:
        raise HomelabError(
            f"{name} {value!r} is not a regular expression: {error}",
            where,
            "write a glob such as *-alpine as an item of glob, or of a list in exclude",
        ) from error
    return value


def _suffix(value: object, where: str | None) -> str:
    if not isinstance(value, str):
        raise not_text(value, "tags.suffix", where)
    if value and not value.startswith(("-", ".", "*")):
        raise HomelabError(f"tags.suffix {value!r} does not begin with -", where, f"write -{value}")
    return value


def _newest_count(value: object, where: str | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise HomelabError(f"tags.newest is {value!r}", where, "give the number of tags to keep, 1 or more")
    return value
