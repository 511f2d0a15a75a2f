# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user calls an image, taken apart as Docker does: `node:20` is docker.io/library/node:20.

Grammar: distribution's reference package (host, path parts, tag, digest). Two names that Docker takes are
refused here, because they are slips: an upper-case first part (Docker would take it for a host) and a bare digest.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ..errors import HomelabError
from .manifest import digest_fault

HUB = "docker.io"
#: Hosts that are Docker Hub too; Docker itself writes the first into its credentials file.
HUB_ALIASES = ("index.docker.io", "registry-1.docker.io")
HUB_API = "registry-1.docker.io"
#: Bytes of registry and repository together.
MAX_NAME = 255

_OFFICIAL = "library/"
_HOST_PART = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-f:.]+\])(?::([0-9]+))?")
_PATH_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Reference:
    """An image: registry, repository, and a tag, a digest, both or none.

    `registry` is a host in lower case, with its port if one was given; Docker Hub is always docker.io, and
    `repository` of an official image there always begins with library/.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        """Everything: `docker.io/library/node:20@sha256:…`."""
        return self.name + self._suffix

    @property
    def name(self) -> str:
        """`quay.io/prometheus/prometheus`: registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """As Docker shows it and people type it: `node:20`, `quay.io/prometheus/prometheus:v3.5.0`."""
        if self.registry != HUB:
            return str(self)
        path = self.repository
        if path.startswith(_OFFICIAL) and path.count("/") == 1:
            path = path[len(_OFFICIAL) :]
        elif looks_like_host(path.split("/")[0]):
            return str(self)
        return path + self._suffix

    @property
    def target(self) -> str:
        """What to ask the manifests endpoint for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def looks_like_host(part: str) -> bool:
    """Whether Docker takes the first part of a name for a registry's host rather than a Hub namespace."""
    return part == "localhost" or any(character in part for character in ".:[")


def api_url(registry: str, scheme: str = "https") -> str:
    """The address of a registry's API; Docker Hub's is another host than its name, and always https."""
    return f"https://{HUB_API}" if registry == HUB else f"{scheme}://{registry}"


def parse_reference(text: str, where: str | None = None) -> Reference:
    """A name as users write it, as a Reference; an absent tag stays None.

    Args:
        text: for example node, node:20-alpine, quay.io/prometheus/prometheus:v3.5.0, nas:5000/app@sha256:….
        where: variable or file it was read from, for messages.

    Raises:
        HomelabError: it is none; the text says which part and why.
    """
    if not isinstance(text, str):
        raise HomelabError(f"{text!r} is not an image reference but a {type(text).__name__}", where, "put it in quotes")
    _refuse_other_things(text, where)
    name, at, digest = text.partition("@")
    if at and "/" in digest:  # not shown: a password may be in it
        raise HomelabError(
            "an image reference holds credentials (something@host/…)", where, "log in instead, and give the name only"
        )
    fault = digest_fault(digest) if at else None
    if fault:
        raise HomelabError(f"{digest[:140]!r} after the @ of an image reference is not a digest: it {fault}", where)
    slash, colon = name.rfind("/"), name.rfind(":")
    tag = None
    if colon > slash:
        name, tag = name[:colon], name[colon + 1 :]
        _check_tag(text, name, tag, where)
    registry, repository = _split(text, name, where)
    _check_repository(text, repository, where)
    reference = Reference(registry, repository, tag, digest or None)
    if len(reference.name) > MAX_NAME:
        raise _bad(
            text, f"registry and repository have {len(reference.name)} characters, {MAX_NAME} are allowed", where
        )
    return reference


def repository_fault(repository: str) -> str | None:
    """Why a registry would refuse a repository name, None if it would not (distribution specification, `<name>`)."""
    for part in repository.split("/"):
        if not part:
            return "it has an empty part (a slash at the beginning, at the end, or two in a row)"
        if part != part.lower():
            return f"{part!r} has upper case, write {part.lower()!r}"
        if not _PATH_PART.fullmatch(part):
            wrong = re.search(r"[^a-z0-9._-]", part)
            if wrong:
                return f"{part!r} has the character {wrong.group()!r}: a-z, 0-9 and between them . _ - are allowed"
            return f"{part!r} has . _ or - at its beginning, at its end, or in a row that is not allowed"
    return None


def tag_fault(tag: str) -> str | None:
    """Why a registry would refuse a tag, None if it would not (distribution specification, `<reference>`)."""
    if not tag:
        return "its tag is empty"
    if len(tag) > 128:
        return f"its tag has {len(tag)} characters, 128 are allowed"
    if not _TAG.fullmatch(tag):
        wrong = re.search(r"[^A-Za-z0-9_.-]", tag)
        if wrong:
            return f"its tag {tag!r} has the character {wrong.group()!r}: letters, digits and _ . - are allowed"
        return f"its tag {tag!r} begins with {tag[0]!r}: a letter, a digit or _ must be first"
    return None


def _bad(text: str, reason: str, where: str | None, remedy: str | None = None) -> HomelabError:
    shown = text if len(text) <= 300 else f"{text[:300]}…"
    return HomelabError(f"{shown!r} is not an image reference: {reason}", where, remedy)


def _refuse_other_things(text: str, where: str | None) -> None:
    if not text.strip():
        raise HomelabError("an image reference is empty", where, "write it as node:20-alpine or quay.io/team/app:1.0")
    scheme, separator, rest = text.partition("://")
    if separator:
        rest = rest.rpartition("@")[2] if "@" in rest.split("/")[0] else rest
        raise HomelabError(
            f"an image reference has no scheme, but here is {scheme}://",
            where,
            f"write it without: {rest or 'host/name'}",
        )
    blank = re.search(r"\s", text)
    if blank:
        raise _bad(text, f"it has a blank at position {blank.start() + 1}", where)
    if re.fullmatch("[0-9a-f]{64}", text):
        raise _bad(text, "64 hexadecimal digits are an image's ID, which no registry knows", where, "give its name")
    if re.fullmatch("sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})", text):
        raise _bad(text, "it is a digest without a repository", where, f"write it as name@{text}")


def _check_tag(text: str, name: str, tag: str, where: str | None) -> None:
    fault = tag_fault(tag)
    if fault:
        raise _bad(text, fault, where)
    if ":" in name.rpartition("/")[2] and not name.startswith("["):
        raise _bad(text, "it has two tags", where)


def _split(text: str, name: str, where: str | None) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not looks_like_host(first):
        if slash and first != first.lower():
            raise _bad(
                text,
                f"{first!r} has upper case, and Docker takes it for a host",
                where,
                f"write {first.lower()}/{rest}; if it is a registry's host, give its port or domain with it",
            )
        return HUB, name if slash else _OFFICIAL + name
    registry = first.lower()
    fault = _host_fault(registry)
    if fault:
        raise _bad(text, f"its host {first!r} {fault}", where)
    if registry == "hub.docker.com":
        path = re.sub(r"^(_|r|layers|repository/docker)/", "", rest)
        raise _bad(text, "hub.docker.com is Docker Hub's web site, not its registry", where, f"write {path}")
    if registry in (HUB, *HUB_ALIASES):
        return HUB, rest if "/" in rest else _OFFICIAL + rest
    if registry.startswith("["):
        address, bracket, port = registry[1:].partition("]")
        registry = f"[{ipaddress.IPv6Address(address)}]{port}"
    return registry, rest


def _host_fault(host: str) -> str | None:
    found = _HOST.fullmatch(host)
    if not found:
        wrong = re.search(r"[^a-z0-9.:\[\]-]", host)
        if wrong:
            return f"has the character {wrong.group()!r}, which no host name has"
        return "is none: write name, name:port, or an IPv6 address in brackets"
    if found.group(1) and not 0 < int(found.group(1)) < 65536:
        return f"has the port {found.group(1)}, which is not between 1 and 65535"
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:].partition("]")[0])
        except ValueError:
            return "is not an IPv6 address"
    return None


def _check_repository(text: str, repository: str, where: str | None) -> None:
    path = repository[len(_OFFICIAL) :] if repository.startswith(_OFFICIAL) else repository
    if not path:
        raise _bad(text, "it has no repository", where)
    fault = repository_fault(path)
    if fault:
        raise _bad(text, fault, where)


def registry_path(registry: str) -> str:
    """A registry's host as the first part of a repository name: `quay.io`, `nas.lan_5000`.

    Clients get it as the path of their endpoint: `http://mirror:5000/v2/nas.lan_5000`.
    """
    host, port = registry, ""
    if registry.startswith("["):
        host, bracket, port = registry[1:].partition("]")
        groups = ipaddress.IPv6Address(host).exploded.split(":")
        host, port = "_".join(f"{int(group, 16):x}" for group in groups), port[1:]
    elif ":" in registry:
        host, port = registry.split(":")
    return f"{host}_{port}" if port else host
