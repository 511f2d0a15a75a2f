# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is every image whole? From the directory tree, without the server: links, sizes, and if asked for every byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from .mark import named_by
from .tree import HIDING, Finding, Tree

#: What can be wrong with a part of an image.
NO_LINK = "not linked"
NO_BLOB = "missing"
WRONG_SIZE = "wrong size"
WRONG_CONTENT = "wrong content"
#: Over the API only: the server fails at it, which may have any of these reasons.
NOT_SERVED = "not served"
#: A manifest that is as it was pushed, but of a kind that is not understood here.
UNKNOWN = "not understood"
#: Content that is there but wrong: the server keeps what it has under a digest, so a push does not replace it.
IN_THE_WAY = (WRONG_SIZE, WRONG_CONTENT)


class Flaw(NamedTuple):
    """What is wrong with a part of an image: its digest (None: a tag's own link), one of the kinds above, words."""

    digest: str | None
    kind: str
    message: str


@dataclass(frozen=True)
class Damage:
    """An image that is not whole.

    Attributes:
        repository, tag: tag is None for a manifest that no tag leads to.
        digest: of the image, None if the tag's link is damaged.
        flaws: what is wrong, also in children.
        healable: whether a mirror run brings it, so that healing can fetch it again.
    """

    repository: str
    tag: str | None
    digest: str | None
    flaws: tuple
    healable: bool = False

    @property
    def name(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag is not None else f"{self.repository}@{self.digest}"

    @property
    def digests(self) -> list[str]:
        """Digests of what is wrong; healing fetches these again whatever the registry says of them."""
        return sorted({flaw.digest for flaw in self.flaws if flaw.digest})

    @property
    def in_the_way(self) -> list[str]:
        """Digests whose wrong content must be removed before the image can be pushed again."""
        return sorted({flaw.digest for flaw in self.flaws if flaw.kind in IN_THE_WAY})

    def __str__(self) -> str:
        return f"{self.name}: {'; '.join(flaw.message for flaw in self.flaws)}"

    def as_dict(self) -> dict:
        """For JSON."""
        flaws = [flaw._asdict() for flaw in self.flaws]
        return {**asdict(self), "flaws": flaws, "digests": self.digests, "in_the_way": self.in_the_way}


@dataclass
class Report:
    """What `verify` found.

    Attributes:
        tags, manifests, blobs: how many were looked at; blobs also counts manifests' content, each digest once.
        read: bytes that were hashed.
        damages: images that are not whole, sorted.
        findings: what else is wrong with the tree.
    """

    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    read: int = 0
    damages: list[Damage] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether no image is damaged, and nothing was hidden that may hold one."""
        return not self.damages and not any(finding.kind in HIDING for finding in self.findings)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "whole": self.whole,
            "tags": self.tags,
            "manifests": self.manifests,
            "blobs": self.blobs,
            "read": self.read,
            "damages": [damage.as_dict() for damage in self.damages],
            "findings": [finding._asdict() for finding in self.findings],
        }


def verify_root(root, deep: bool = False, mirrored=(), progress: Callable[[int, int], None] | None = None) -> Report:
    """Look at a registry's directory; what seems damaged is looked at once more, since the server may write
    meanwhile: a push that ends between two looks of ours looks like an image without its blobs.

    Args:
        root: the server's `rootdirectory`. The others: see verify.

    Raises:
        HomelabError: there is no registry in `root`.
    """
    mirrored = frozenset(mirrored)
    report = verify(Tree(root), deep, mirrored, progress)
    if report.damages:
        again = {damage.name: damage for damage in verify(Tree(root), False, mirrored).damages}
        report.damages = list(filter(None, (_confirmed(damage, again.get(damage.name)) for damage in report.damages)))
    return report


def _confirmed(damage, again):
    """What is still so; wrong bytes never become right by themselves."""
    kept = [flaw for flaw in damage.flaws if flaw.kind == WRONG_CONTENT or (again and flaw in again.flaws)]
    return replace(damage, flaws=tuple(kept)) if kept else None


def verify(tree: Tree, deep: bool = False, mirrored=(), progress: Callable[[int, int], None] | None = None) -> Report:
    """Check every tag -> manifest -> children -> blobs: linked in the repository (the API serves nothing else),
    there, of the right size; and every manifest that no tag leads to in the same way.

    A referrer whose subject is gone is whole: the specification allows it. Foreign layers need not be there.

    Args:
        tree: a fresh look.
        deep: also hash all these blobs; reads every byte once.
        mirrored: what a mirror run brings, as `repository:tag` or, without a tag, `repository@digest`.
        progress: called with (bytes hashed, bytes to hash) after each MiB.
    """
    check = _Check(tree)
    report = check.report
    if deep:
        check.hash_all(progress)
    mirrored = frozenset(mirrored)
    for name in tree.repositories():
        led_to = set()
        for tag, link in tree.tags(name).items():
            report.tags += 1
            if link.digest is None:
                flaws = {Flaw(None, NO_LINK, "the tag's link is damaged"): None}
            else:
                flaws = check.image(name, link.digest, led_to)
            if flaws:
                damage = Damage(name, tag, link.digest, tuple(flaws), f"{name}:{tag}" in mirrored)
                report.damages.append(damage)
        for digest in _roots(tree, name, led_to):
            flaws = check.image(name, digest, led_to)
            if flaws:
                report.damages.append(Damage(name, None, digest, tuple(flaws), f"{name}@{digest}" in mirrored))
    report.damages.sort(key=lambda damage: damage.name)
    report.blobs = len(check.seen)
    report.findings = tree.findings
    return report


def _roots(tree, name, led_to):
    """Manifests that neither a tag nor another such manifest leads to; one that is only a child is its index's."""
    left = tree.revisions(name).keys() - led_to
    children = set()
    for digest in left:
        content = tree.content(digest)
        children |= {child for child, _other in content.children} - {digest} if content else set()
    return sorted(left - children)


class _Check:
    def __init__(self, tree):
        self.tree = tree
        self.report = Report()
        self.seen = set()
        self.wrong = {}

    def hash_all(self, progress):
        """Fill `wrong`: digest to what its content is instead."""
        tree, wanted = self.tree, set()
        for name in tree.repositories():
            tagged = {link.digest for link in tree.tags(name).values() if link.digest}
            wanted |= named_by(tree, tagged | tree.revisions(name).keys())
        sizes = {digest: size for digest, size in tree.blobs().items() if digest in wanted}
        total = sum(sizes.values())

        def count(read):
            self.report.read += read
            if progress:
                progress(self.report.read, total)

        # In the order of the disk's directories, which is as good as any.
        for digest in sizes:
            try:
                actual = tree.hash_blob(digest, count)
            except OSError as error:
                self.wrong[digest] = f"cannot be read: {error.strerror}"
            else:
                if actual != digest:
                    self.wrong[digest] = f"has the content of {actual}"

    def image(self, name, digest, led_to):
        """The flaws of a manifest and all below it, as keys of a dict: each once, in order. Adds the manifests it
        leads to to `led_to`."""
        flaws, waiting, done = {}, [(digest, None)], set()
        while waiting:
            current, size = waiting.pop(0)
            if current in done:
                continue
            done.add(current)
            if current not in led_to:
                self.report.manifests += 1
            led_to.add(current)
            self._link(name, current, self.tree.revisions(name), "manifest", flaws)
            content = self._blob(current, size, "manifest", flaws)
            if content is None:
                continue
            waiting += content.children
            for blob, expected in content.blobs:
                self._link(name, blob, self.tree.layers(name), "blob", flaws)
                self._blob(blob, expected, "blob", flaws)
        return flaws

    @staticmethod
    def _link(name, digest, links, what, flaws):
        if digest not in links or links[digest].digest != digest:
            state = "is not linked in" if digest not in links else "has a damaged link in"
            flaws[Flaw(digest, NO_LINK, f"{what} {digest} {state} {name}")] = None

    def _blob(self, digest, size, what, flaws):
        """Check what is in the blob store; the content of a manifest that can be followed."""
        self.seen.add(digest)
        actual = self.tree.blobs().get(digest)
        content = self.tree.content(digest) if what == "manifest" and actual is not None else None
        if actual is None:
            flaws[Flaw(digest, NO_BLOB, f"{what} {digest} is missing")] = None
        elif size is not None and actual != size:
            flaws[Flaw(digest, WRONG_SIZE, f"{what} {digest} has {actual} bytes instead of {size}")] = None
        elif digest in self.wrong:
            flaws[Flaw(digest, WRONG_CONTENT, f"{what} {digest} {self.wrong[digest]}")] = None
        elif content and content.fault:
            kind = UNKNOWN if content.intact else WRONG_CONTENT
            flaws[Flaw(digest, kind, f"{what} {digest}: {content.fault}")] = None
        return content
