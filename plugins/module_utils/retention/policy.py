# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be deleted, as the user writes it. Pure.

Everything here says what to keep; a tag goes only if nothing keeps it. The settings at the top hold for every
repository. A rule says what is different for its repositories: numbers come from the first rule that matches and,
where it says nothing, from the top; protection is the sum of all rules that match and of the top, so that no rule
can take away what another one protects.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..errors import HomelabError
from ..keys import refuse_unknown_keys
from ..oci.manifest import digest_fault
from ..oci.reference import repository_fault, tag_fault

AGES = ("newest", "pushed", "created")
#: The group of tags that have the first two numbers of their version in common.
MINOR = "minor"

_RULE_KEYS = ("repositories", "keep_last", "max_age", "group", "age_by", "keep_min", "untagged_grace", "protect")
_TOP_KEYS = (*_RULE_KEYS[1:], "in_use", "max_delete_share", "force", "rules")
_PROTECT_KEYS = ("tags", "regex", "digests")
_IN_USE_KEYS = ("digests", "unreachable")
_GLOB = re.compile(r"[*?!\[\]]")


@dataclass(frozen=True)
class Protect:
    """What always stays.

    Attributes:
        globs: shell patterns of `tag`, or of `repository:tag`.
        regexes: compiled; found anywhere in a tag, since a pattern that is meant wider than it is written loses images.
        digests: manifests, tagged or not.
    """

    globs: tuple = ()
    regexes: tuple = ()
    digests: frozenset = frozenset()

    def of_tag(self, repository: str, tag: str) -> list[str]:
        """The patterns that take a tag, as the user wrote them."""
        return [
            *(glob for glob in self.globs if fnmatchcase(f"{repository}:{tag}" if ":" in glob else tag, glob)),
            *(regex.pattern for regex in self.regexes if regex.search(tag)),
        ]


@dataclass(frozen=True)
class Rule:
    """What stays in the repositories that it is for.

    Attributes:
        name: where it is written, for messages.
        repositories: shell patterns of names; * takes slashes too.
        keep_last: so many of the newest images of each group stay; None does not let go by number.
        max_age: what is younger stays (days); None does not let go by age. With keep_last and max_age a tag goes
            only if both let it go.
        group: a compiled regular expression whose groups name a tag's group (tags that it does not match are one
            group together), MINOR, or None: all tags are one group.
        age_by: newest takes the later one of push and creation.
        keep_min: so many images of a repository stay whatever the rest says.
        untagged_grace: manifests without a tag, and signatures of images that are gone, stay for so long (days).
        protect: what always stays.
    """

    name: str
    repositories: tuple = ("*",)
    keep_last: int | None = None
    max_age: float | None = None
    group: object = None
    age_by: str = "newest"
    keep_min: int = 1
    untagged_grace: float = 7
    protect: Protect = Protect()

    def matches(self, repository: str) -> bool:
        """Whether it is for a repository."""
        return any(fnmatchcase(repository, pattern) for pattern in self.repositories)


@dataclass(frozen=True)
class Policy:
    """What to keep in a registry.

    Attributes:
        rules: in their order; the last one is what stands at the top, and is for every repository.
        in_use: digests that run somewhere: of manifests, or of configs (which engines call image IDs).
        unreachable: hosts that could not be asked, to the digests that they used when last asked (frozenset), or
            None if that is not known. Of the repositories that such a host had images from nothing goes; if that is
            not known, nothing goes at all.
        mirrored: digests that a list of images to mirror names; whoever pinned them pulls by them.
        max_delete_share: part of the registry's tags, from 0 to 1, that a plan may remove without `force`.
        force: remove more than that, and empty repositories, if the rest of the policy says so.
    """

    rules: tuple
    in_use: frozenset = frozenset()
    unreachable: dict = field(default_factory=dict, hash=False)
    mirrored: frozenset = frozenset()
    max_delete_share: float = 0.5
    force: bool = False

    def rules_for(self, repository: str) -> list[Rule]:
        """The rules that match, in their order; never empty."""
        return [rule for rule in self.rules if rule.matches(repository)]


def parse_policy(value: object, where: str = "policy") -> Policy:
    """A policy as the user writes it.

    Args:
        value: a mapping with the keys of Rule (but name and repositories; without a rule of their own they hold for
            all repositories), in_use, max_delete_share, force, and rules: a list of mappings with the keys of Rule
            (but name). Absent and null are the same. Numbers may be text, as `-e keep_last=5` gives them.
            protect is a list (or text with commas) of shell patterns of `tag` or `repository:tag` and of digests,
            or a mapping with lists tags, regex, digests. in_use is a list of digests, or a mapping with the lists
            digests and unreachable (hosts; or a mapping from hosts to the digests that they had when last asked).
        where: name of the variable or file, for messages.

    Raises:
        HomelabError: unknown keys, numbers out of range, patterns that are none.
    """
    given = _mapping(value, _TOP_KEYS, "the policy", where)
    top = _rule(given, {}, where, where)
    rules = []
    for number, item in enumerate(_list(given.get("rules", ()), "rules", where)):
        place = f"{where}.rules[{number}]"
        own = _mapping(item, _RULE_KEYS, "a rule", place)
        if "repositories" not in own:
            raise HomelabError("a rule has no repositories", place, "say which it is for: team/*, or * for all")
        if len(own) == 1:
            raise HomelabError(
                f"the rule for {', '.join(_words(own['repositories'], 'repositories', place))} says nothing",
                place,
                "to keep everything there, write protect: '*'",
            )
        rules.append(_rule(own, given, f"rules[{number}]", place))
    in_use, unreachable = _in_use(given.get("in_use", ()), where)
    return Policy(
        rules=(*rules, top),
        in_use=in_use,
        unreachable=unreachable,
        max_delete_share=_share(given.get("max_delete_share", Policy.max_delete_share), where),
        force=_boolean(given.get("force", False), "force", where),
    )


def _rule(own: dict, above: dict, name: str, where: str) -> Rule:
    settings = {}
    for key in ("keep_last", "max_age", "group", "age_by", "keep_min", "untagged_grace"):
        if key in own or key in above:
            settings[key] = _READERS[key](own.get(key, above.get(key)), where)
    if "repositories" in own:
        settings["repositories"] = _repositories(own["repositories"], where)
    if "protect" in own:
        settings["protect"] = _protect(own["protect"], where)
    return Rule(name=name, **settings)


def _mapping(value: object, known: tuple, name: str, where: str) -> dict:
    """A mapping's items that are not null, after a look at its keys."""
    if not isinstance(value, dict):
        raise HomelabError(f"{name} is {value!r}, not a mapping", where, f"write it with the keys {', '.join(known)}")
    refuse_unknown_keys(value, known, name, where)
    return {key: item for key, item in value.items() if item is not None}


# --- numbers ------------------------------------------------------------------------------------------------
def _number(value: object, name: str, where: str, remedy: str, kind: type = float):
    """The number, of text as well; `remedy` also says what is allowed."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = kind(value)
        except (ValueError, OverflowError):  # "30d", or int("nan")
            number = None
        if number is not None and math.isfinite(number) and (isinstance(value, str) or number == value):
            return number
    raise HomelabError(f"{name} is {value!r}, which is not a{' whole' if kind is int else ''} number", where, remedy)


def _keep_last(value, where):
    remedy = "give the number of images to keep in each group, 1 or more; leave it out to go by max_age alone"
    return _at_least(_number(value, "keep_last", where, remedy, int), 1, "keep_last", where, remedy)


def _keep_min(value, where):
    remedy = "give the number of images that stay in a repository at least, 0 or more"
    return _at_least(_number(value, "keep_min", where, remedy, int), 0, "keep_min", where, remedy)


def _max_age(value, where):
    remedy = "give a number of days above 0; leave it out to go by keep_last alone"
    number = _number(value, "max_age", where, remedy)
    if number <= 0:
        raise HomelabError(f"max_age is {value!r}", where, remedy)
    return number


def _grace(value, where):
    remedy = "give a number of days, 0 or more"
    return _at_least(_number(value, "untagged_grace", where, remedy), 0, "untagged_grace", where, remedy)


def _at_least(number, least, name, where, remedy):
    if number < least:
        raise HomelabError(f"{name} is {number:g}", where, remedy)
    return number


def _share(value, where):
    remedy = "give a part from 0 to 1: 0.5 is half of the registry's tags"
    number = _number(value, "max_delete_share", where, remedy)
    if not 0 <= number <= 1:
        raise HomelabError(f"max_delete_share is {value!r}", where, remedy)
    return number


def _boolean(value, name, where):
    if not isinstance(value, bool):
        raise HomelabError(f"{name} is {value!r}", where, "write true or false")
    return value


# --- text ---------------------------------------------------------------------------------------------------
def _list(value: object, name: str, where: str) -> list:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise HomelabError(f"{name} is {value!r}, not a list", where)
    return list(value)


def _words(value: object, name: str, where: str) -> list[str]:
    """The words of text with commas or blanks, or of a list of such texts."""
    words = []
    for item in [value] if isinstance(value, (str, int, float)) else _list(value, name, where):
        if isinstance(item, int) and not isinstance(item, bool):  # tags: [20, 22]
            item = str(item)
        if not isinstance(item, str):
            raise HomelabError(f"an item of {name} is {item!r}, which is not text", where, "put it in quotes")
        words += [word for word in re.split(r"[,\s]+", item) if word]
    return words


def _repositories(value, where):
    patterns = _words(value, "repositories", where)
    if not patterns:
        raise HomelabError("repositories is empty", where, "say which it is for: team/*, or * for all")
    for pattern in patterns:
        fault = repository_fault(_GLOB.sub("x", pattern))
        if fault:
            raise HomelabError(f"{pattern!r} in repositories is no pattern of a repository's name: {fault}", where)
    return tuple(patterns)


def _regex(value: object, name: str, where: str) -> re.Pattern:
    if not isinstance(value, str) or not value:
        raise HomelabError(f"{name} is {value!r}, which is no regular expression", where, "put it in quotes")
    try:
        return re.compile(value)
    except re.error as error:
        raise HomelabError(f"{name} {value!r} is not a regular expression: {error}", where) from error


def _group(value, where):
    if value == MINOR:
        return MINOR
    remedy = f"write {MINOR}, or a regular expression with a group in parentheses, such as ^(.+)-[0-9]+$"
    regex = _regex(value, "group", where)
    if not regex.groups:
        raise HomelabError(f"group {value!r} has no parentheses, so that all tags would be in one group", where, remedy)
    return regex


def _age_by(value, where):
    if value not in AGES:
        raise HomelabError(f"age_by is {value!r}", where, f"write one of {', '.join(AGES)}")
    return value


def _protect(value, where):
    if not isinstance(value, dict):
        words = _words(value, "protect", where)
        digests = [word for word in words if _looks_like_digest(word)]
        return Protect(
            _globs([word for word in words if not _looks_like_digest(word)], "protect", where),
            digests=_digests(digests, "protect", where),
        )
    given = _mapping(value, _PROTECT_KEYS, "protect", where)
    regexes = given.get("regex", ())
    regexes = [regexes] if isinstance(regexes, str) else _list(regexes, "protect.regex", where)
    return Protect(
        _globs(_words(given.get("tags", ()), "protect.tags", where), "protect.tags", where),
        tuple(_regex(regex, "protect.regex", where) for regex in regexes),
        _digests(given.get("digests", ()), "protect.digests", where),
    )


def _looks_like_digest(word):
    return word.startswith(("sha256:", "sha512:"))


def _globs(words, name, where):
    for word in words:
        repository, colon, tag = _GLOB.sub("x", word).rpartition(":")
        fault = tag_fault(tag) or (repository_fault(repository) if colon else None)
        if fault:
            raise HomelabError(f"{word!r} in {name} is no pattern of a tag or of repository:tag: {fault}", where)
    return tuple(dict.fromkeys(words))


def _digests(value, name, where):
    """Digests, also those behind a name, as engines list them: nas:5000/team/app@sha256:…"""
    found = set()
    for word in _words(value, name, where):
        digest = word.rpartition("@")[2]
        fault = digest_fault(digest)
        if fault:
            raise HomelabError(f"{digest[:140]!r} in {name} is no digest: it {fault}", where)
        found.add(digest)
    return frozenset(found)


def _in_use(value, where):
    if not isinstance(value, dict):
        return _digests(value, "in_use", where), {}
    given = _mapping(value, _IN_USE_KEYS, "in_use", where)
    hosts = given.get("unreachable", {})
    if not isinstance(hosts, dict):
        hosts = dict.fromkeys(_words(hosts, "in_use.unreachable", where))
    unreachable = {
        str(host): None if known is None else _digests(known, f"in_use.unreachable.{host}", where)
        for host, known in hosts.items()
    }
    return _digests(given.get("digests", ()), "in_use.digests", where), unreachable


_READERS = {
    "keep_last": _keep_last,
    "max_age": _max_age,
    "group": _group,
    "age_by": _age_by,
    "keep_min": _keep_min,
    "untagged_grace": _grace,
}
