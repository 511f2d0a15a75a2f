# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirrored tags that are gone upstream. Off unless asked for, and careful: an upstream's bad day looks alike.

Only tags that a mirror run brought here, that still point where it left them, in repositories that are on the
list, whose upstream repository answers with other tags, are ever touched. Keep wins: a protect pattern, the floor,
or a digest that a kept tag or an image of this run needs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from ..errors import HomelabError
from ..oci.manifest import INDEX_TYPES, OCI_INDEX
from ..oci.reference import parse_reference
from ..oci.versions import age_key
from .plan import COPY, KEPT, PRUNED, UNCHANGED, WOULD_PRUNE


@dataclass(frozen=True)
class Prune:
    """How to prune.

    Attributes:
        protect: shell patterns of `tag` or `repository:tag` that always stay.
        keep: tags that stay in a repository at least.
    """

    protect: tuple = ()
    keep: int = 1


@dataclass
class Vanished:
    """A mirrored tag that its upstream does not have any more."""

    repository: str
    tag: str
    digest: str
    action: str
    reason: str | None = None

    def as_dict(self):
        """For JSON."""
        return asdict(self)


def plan_prune(options: Prune, plan, endpoints, state) -> list[Vanished]:
    """What to prune once `plan` is carried out; reads only. A repository that cannot be judged is left alone."""
    listed = {}
    found = []
    for repository in dict.fromkeys(name for image in plan.images for name in image.wanted.repositories):
        found += _of_repository(options, repository, plan, endpoints, state, listed)
    return found


def _of_repository(options, repository, plan, endpoints, state, listed):
    ours, target = state.tags_of(repository), endpoints.target
    coming = [
        image for image in plan.images if image.action in (COPY, UNCHANGED) and repository in image.wanted.repositories
    ]
    wanted = {image.tag for image in coming}
    gone = [tag for tag, about in ours.items() if tag not in wanted and _is_gone(about["source"], endpoints, listed)]
    there = (target.tags(repository) or ()) if gone else ()
    gone = [tag for tag in gone if tag in there]
    if not gone:
        return []
    stats = {tag: stat for tag in there if (stat := target.stat_manifest(repository, tag))}
    found = []
    spared = max(0, options.keep - (len(stats) - len(gone)))
    for number, tag in enumerate(sorted((tag for tag in gone if tag in stats), key=age_key, reverse=True)):
        one = Vanished(repository, tag, stats[tag].digest, KEPT)
        found.append(one)
        if one.digest != ours[tag]["digest"]:
            one.reason = "somebody else has pushed it since"
        elif any(
            fnmatchcase(tag, pattern) or fnmatchcase(f"{repository}:{tag}", pattern) for pattern in options.protect
        ):
            one.reason = "protected"
        elif number < spared:
            one.reason = f"{options.keep} tags stay in a repository"
        else:
            one.action = WOULD_PRUNE
    doomed = {one.tag for one in found if one.action == WOULD_PRUNE}
    if doomed:
        needed = _needed(target, repository, {tag: stats[tag] for tag in stats if tag not in doomed}, coming, plan)
        for one in found:
            if one.action == WOULD_PRUNE and one.digest in needed:
                # Deleting by digest would take it from there as well, and 2.x cannot delete by tag.
                one.action, one.reason = KEPT, f"{needed[one.digest]} needs its digest"
    return found


def _needed(target, repository, kept, coming, plan):
    """Digests that tags which stay, and this run's images, need: to tag. An index is broken without its children."""
    needed = {}

    def need(digest, media_type, tag):
        if digest not in needed:
            needed[digest] = tag
            if media_type in INDEX_TYPES:
                job = plan.manifests.get((repository, digest))
                manifest = job.manifest if job else target.read_manifest(repository, digest)
                for child in manifest.children:
                    need(child.digest, child.media_type, tag)

    for tag, stat in kept.items():
        need(stat.digest, stat.media_type, tag)
    for image in coming:
        need(image.after, OCI_INDEX, image.tag)  # whether it is one shows when it is read
    return needed


def _is_gone(source, endpoints, listed):
    try:
        reference = parse_reference(source)
        if reference.name not in listed:
            listed[reference.name] = set()
            listed[reference.name] = set(endpoints.ask(reference, "tags") or ())
    except HomelabError:
        return False
    if reference.digest:  # pinned: that its tag goes was to be expected
        return False
    tags = listed[reference.name]
    # No tags at all is a repository that moved, went private or is down; that is no reason to delete a copy.
    return bool(tags) and reference.tag not in tags


def prune(found, endpoints, state, *, check) -> list[dict]:
    """Delete what the plan says, each tag looked at once more just before."""
    deleted = set()
    for one in found:
        if one.action != WOULD_PRUNE or check:
            continue
        try:
            one.action, one.reason = _delete(one, endpoints.target, deleted)
        except HomelabError as error:
            one.action, one.reason = "failed", str(error)
        if one.action == PRUNED:
            state.pruned(one.repository, one.tag)
    if any(one.action == PRUNED for one in found):
        state.save()
    return [one.as_dict() for one in found]


def _delete(one, target, deleted):
    """(action, reason) of one tag."""
    there = target.stat_manifest(one.repository, one.tag)
    if there and there.digest != one.digest:
        return KEPT, "somebody has pushed it just now"
    if there and (one.repository, one.digest) not in deleted:
        answer = target.delete_manifest(one.repository, one.digest)
        if answer.status not in (202, 404):
            return "failed", f"the registry answered {answer.explain()} to its deletion"
        deleted.add((one.repository, one.digest))
    return PRUNED, None
