# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hangs on what in one repository: children on their index, signatures and SBOMs on their subject. Pure.

A referrer says its subject in its manifest (image specification 1.1, `subject`) or by its tag: cosign's
`sha256-<hex>.sig`, `.att`, `.sbom`, and the fallback tag `sha256-<hex>` of the distribution specification.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..oci.inventory import Held, Repository
from ..oci.manifest import OCI_INDEX
from ..oci.referrers import fallback_tag

_FOLLOWER = re.compile(r"(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{121})(\.[A-Za-z0-9_.-]+)?")
_COSIGN = (".sig", ".att", ".sbom")


def subject_of_tag(name: str) -> str | None:
    """The digest that a tag's name says it is about, shortened if the name is; None for other names."""
    found = _FOLLOWER.fullmatch(name)
    return found and found[1].replace("-", ":", 1)


class Graph:
    """The manifests of a repository and what stays, or goes, with each.

    Attributes:
        manifests: by digest; a tag whose manifest is missing has a damaged one here.
        tags: names of the tags on a digest, sorted.
        followers: tags that are about another manifest, to its digest; None if that is gone.
        parts: by digest, what stays as long as it does: children, referrers, tags about it (digests, no duplicates).
        parents: by digest, the indexes it is a child of.
    """

    def __init__(self, repository: Repository) -> None:
        self.manifests = dict(repository.manifests)
        self.tags = {}
        for name in sorted(repository.tags):
            digest = repository.tags[name].digest
            self.manifests.setdefault(digest, Held(digest))
            self.tags.setdefault(digest, []).append(name)
        self.followers = {}
        self._find_followers(repository)
        parts, self.parents = {}, {}
        for digest in sorted(self.manifests):
            held = self.manifests[digest]
            for child in held.children:
                if child in self.manifests:
                    parts.setdefault(digest, {})[child] = True
                    self.parents.setdefault(child, []).append(digest)
            if held.subject in self.manifests:
                parts.setdefault(held.subject, {})[digest] = True
        for name, subject in self.followers.items():
            if subject is not None:
                parts.setdefault(subject, {})[repository.tags[name].digest] = True
        self.parts = {digest: tuple(found) for digest, found in parts.items()}

    def _find_followers(self, repository):
        subjects = {fallback_tag(digest): digest for digest in self.manifests}
        for name in sorted(repository.tags):
            found = _FOLLOWER.fullmatch(name)
            if not found:
                continue
            held, subject = self.manifests[repository.tags[name].digest], subjects.get(found[1])
            if subject is None:
                about_it = found[2] in _COSIGN or (not found[2] and self._lists_referrers(held, found[1]))
            else:
                # A tag on the very image that it names is a pin (imgpkg makes such), no signature.
                about_it = subject != held.digest and subject not in held.children
                about_it = about_it and bool(found[2] or held.media_type in ("", OCI_INDEX))
            if about_it:
                self.followers[name] = subject

    def _lists_referrers(self, held, name):
        children = [self.manifests[child] for child in held.children if child in self.manifests]
        return held.media_type == OCI_INDEX and all(
            child.subject is not None and fallback_tag(child.subject) == name for child in children
        )

    def closure(self, roots: Iterable[str]) -> set[str]:
        """The digests and all that stays with them."""
        found, waiting = set(), list(roots)
        while waiting:
            digest = waiting.pop()
            if digest not in found:
                found.add(digest)
                waiting.extend(self.parts.get(digest, ()))
        return found

    def separable(self, doomed: set[str]) -> set[str]:
        """Those of the digests that nothing needs which is not among them."""
        return doomed - self.closure(self.manifests.keys() - doomed)

    def ordered(self, digests: set[str]) -> list[str]:
        """The digests, each before what hangs on it.

        Deleted in this order, a run that is cut short leaves no index without children and no image without its
        signature, only leftovers without a tag, which a later run finds.
        """
        done, after = set(), []
        for start in sorted(digests, reverse=True):
            waiting = [(start, False)]
            while waiting:
                digest, left = waiting.pop()
                if left:
                    after.append(digest)
                elif digest in digests and digest not in done:
                    done.add(digest)
                    waiting.append((digest, True))
                    waiting.extend((part, False) for part in self.parts.get(digest, ()))
        return after[::-1]
