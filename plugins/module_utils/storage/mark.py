# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be deleted from the blob store: our own answer, and the server's, so that one can check the other.

`reach` says what tags and manifests lead to. `expected_sweep` does what plain `garbage-collect` does (without
--delete-untagged: that one deletes images in use), after registry/storage/garbagecollect.go of 2.8.3 and 3.1.1;
`parse_dry_run` reads what it says it would do. Where the three differ, nothing must be swept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..errors import HomelabError
from ..oci.reference import repository_fault
from .tree import MISPLACED, Tree

#: Digests shown of a long list.
SHOWN = 5
_DIGEST = r"([a-z0-9]+:[0-9a-f]{32,128})"
_MARKING = re.compile(rf"(\S+): marking (?:manifest|blob) {_DIGEST} ?")
_BLOB = re.compile(rf"blob eligible for deletion: {_DIGEST}")
_LAYER = re.compile(rf"(\S+): layer link eligible for deletion: {_DIGEST}")
_MANIFEST = re.compile(rf"manifest eligible for deletion: (?:\{{(\S+) )?{_DIGEST}.*")
_SUMMARY = re.compile(r"(\d+) blobs marked, (\d+) blobs and (\d+) manifests eligible for deletion")


# --- our own answer -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reach:
    """What tags and manifests lead to.

    Attributes:
        served: digests that a client can pull: from a manifest that its repository has, to what the repository
            links (the API serves nothing else).
        named: the same without asking for links: also what is needed to heal an image whose links are damaged.
            Holds `served`, and digests that are nowhere on the disk.
    """

    served: frozenset
    named: frozenset


def reach(tree: Tree) -> Reach:
    """Follow all tags and all manifests, also untagged ones, of all repositories."""
    served, named = set(), set()
    for name in tree.repositories():
        # A damaged link still names its manifest by its path, and the content may be whole.
        links = tree.revisions(name)
        revisions = {digest for digest, link in links.items() if link.digest == digest}
        linked = {digest for digest, link in tree.layers(name).items() if link.digest == digest} | revisions
        for digest in revisions:
            content = tree.content(digest)
            if content:
                served.add(digest)
                served |= linked.intersection(content.references)
        tagged = {link.digest for link in tree.tags(name).values() if link.digest}
        named |= named_by(tree, tagged | links.keys())
    return Reach(frozenset(served & tree.blobs().keys()), frozenset(named))


def named_by(tree: Tree, digests) -> set[str]:
    """Some manifests and all they lead to, through indexes in indexes, whether it is there or not."""
    named, waiting = set(), list(digests)
    while waiting:
        digest = waiting.pop()
        if digest in named:
            continue
        named.add(digest)
        content = tree.content(digest)
        if content is None:
            continue
        children = {child for child, _other in content.children}
        waiting += children
        named |= set(content.references) - children
    return named


# --- the server's answer, foretold --------------------------------------------------------------------------
@dataclass
class Sweep:
    """What plain `garbage-collect` would delete.

    Attributes:
        marked: digests it keeps, also such as are not on the disk.
        blobs: digests it deletes.
        layer_links: (repository, digest) of links it deletes; only 3.x does.
        failure: why it would stop with an error and delete nothing, or None.
    """

    marked: set = field(default_factory=set)
    blobs: set = field(default_factory=set)
    layer_links: set = field(default_factory=set)
    failure: str | None = None


class _Stops(Exception):
    """The server's garbage collection ends here with an error."""


def expected_sweep(tree: Tree, major: int) -> Sweep:
    """What plain `garbage-collect` of that major version (2 or 3) does with the tree as it is."""
    sweep = Sweep()
    try:
        for needed in ("repositories", "blobs"):
            if needed not in tree.top():
                raise _Stops(f"there is no directory {needed} yet: nothing was ever pushed")
        for name in tree.walked(major):
            if repository_fault(name) is not None:
                raise _Stops(f"the directory {name!r} is not a repository's name")
            _mark_repository(tree, name, major, sweep)
        sweep.blobs = tree.blobs().keys() - sweep.marked
        misplaced = [finding for finding in tree.findings if finding.kind == MISPLACED]
        if misplaced:
            raise _Stops(str(misplaced[0]))
    except _Stops as stops:
        return Sweep(failure=str(stops))
    return sweep


def _mark_repository(tree, name, major, sweep):
    links = tree.revisions(name)
    for digest, link in links.items():
        if link.digest is None:
            raise _Stops(f"the link of manifest {digest} in {name} is damaged")
    held = {digest for digest, link in links.items() if link.digest == digest} & tree.blobs().keys()
    for digest in held:
        content = tree.content(digest)
        if content is None or not (content.schema == 2 or (content.schema == 1 and major == 2)):
            raise _Stops(f"the manifest {digest} in {name} cannot be read")
        # 3.x goes on into children that the repository has, but these have their own turn here anyway.
        sweep.marked |= {digest, *content.references}
    if major == 2:
        return
    if not tree.has(name, "_layers"):
        raise _Stops(f"the repository {name} has no directory _layers")
    for digest, link in tree.layers(name).items():
        if link.digest is None:
            raise _Stops(f"the link of blob {digest} in {name} is damaged")
        # Only what was marked so far counts, so it depends on the order of repositories whether a link goes.
        if link.digest == digest and digest in tree.blobs() and digest not in sweep.marked:
            sweep.layer_links.add((name, digest))


# --- the server's answer, as it says it ---------------------------------------------------------------------
@dataclass
class DryRun:
    """What `garbage-collect --dry-run` printed: as Sweep, and `manifests` (digests) that it would delete, which
    only happens with --delete-untagged."""

    marked: set = field(default_factory=set)
    blobs: set = field(default_factory=set)
    layer_links: set = field(default_factory=set)
    manifests: set = field(default_factory=set)


def parse_dry_run(output: str) -> DryRun:
    """Read what `garbage-collect --dry-run` of 2.8 or 3.x printed, without --quiet.

    Args:
        output: its standard output, then its standard error.

    Raises:
        HomelabError: it did not come to its end, or a part of the output is missing.
    """
    run, summary = DryRun(), None
    for line in output.splitlines():
        if found := _MARKING.fullmatch(line):
            run.marked.add(found.group(2))
        elif found := _BLOB.fullmatch(line):
            run.blobs.add(found.group(1))
        elif found := _LAYER.fullmatch(line):
            run.layer_links.add(found.groups())
        elif found := _MANIFEST.fullmatch(line):
            run.manifests.add(found.group(2))
        elif found := _SUMMARY.fullmatch(line):
            summary = tuple(map(int, found.groups()))
    if summary is None:
        said = [line.strip() for line in output.splitlines() if line.strip()]
        failed = [line for line in said if "failed to garbage collect" in line] or said or ["it printed nothing"]
        raise HomelabError(
            f"garbage-collect --dry-run did not come to its end: {failed[-1][-300:]}",
            "garbage collection",
            "nothing was deleted; run verify to see what is damaged",
        )
    # A manifest may be listed once for each repository, so their number says nothing.
    if (len(run.marked), len(run.blobs)) != summary[:2]:
        raise HomelabError(
            f"the output of garbage-collect --dry-run is not complete: it speaks of {summary[0]} blobs marked and "
            f"{summary[1]} to delete, but lists {len(run.marked)} and {len(run.blobs)}",
            "garbage collection",
            "nothing was deleted; run it again, and report it if that does not help",
        )
    return run


def disagreements(expected: Sweep, run: DryRun) -> list[str]:
    """Where the server's dry run is not what we expect; empty if they agree."""
    if expected.failure:
        return [f"it was expected to stop: {expected.failure}"]
    pairs = (
        ("it would delete blobs that we would keep", run.blobs - expected.blobs),
        ("it would keep blobs that we would delete", expected.blobs - run.blobs),
        ("it marks what we do not", run.marked - expected.marked),
        ("it does not mark what we do", expected.marked - run.marked),
        ("it would delete manifests, as with --delete-untagged", run.manifests),
        (
            "it would delete links that we would keep",
            {"@".join(pair) for pair in run.layer_links - expected.layer_links},
        ),
        (
            "it would keep links that we would delete",
            {"@".join(pair) for pair in expected.layer_links - run.layer_links},
        ),
    )
    return [f"{said}: {shown(found)}" for said, found in pairs if found]


def shown(names) -> str:
    """Some names, sorted, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
