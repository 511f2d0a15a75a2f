# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy lets go in one repository. Pure.

Keep wins, and everything is decided on digests. A tag goes only if nothing keeps it: protection, use, a place among
the newest of its group (`keep_last`), its age (`max_age`), the floor (`keep_min`). A digest goes only if all its tags
go and nothing that stays needs it. What hangs on an image (graph.py) goes and stays with it and takes no place.
What cannot be known stays: the age of an image without a time, what a damaged index consists of.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..oci.manifest import IMAGE_TYPES, INDEX_TYPES
from .graph import Graph
from .order import DAY, Ages, Image, age_key, newest_first, parse_version
from .policy import MINOR, Policy

KEEP, DELETE, TAG_ONLY = "keep", "delete", "tag only"


@dataclass
class Decision:
    """What becomes of a tag, or of a manifest without a tag (`tag` is None).

    Attributes:
        action: KEEP, DELETE (with its manifest), or TAG_ONLY: the tag may go, its manifest stays.
        rule: what decided, in words.
        age: seconds, or None if unknown.
        age_source: pushed, created, or None.
        freed: bytes that go with it: of it and of what goes because of it, as far as nothing that stays, anywhere in
            the registry, has them too. Each byte is counted at one decision only.
    """

    repository: str
    tag: str | None
    digest: str
    action: str
    rule: str
    age: float | None = None
    age_source: str | None = None
    freed: int = 0


class Judge:
    """One repository under a policy.

    Attributes:
        decisions: Decision by tag name for tags; for manifests without a tag by digest.
        doomed: digests that go.
        emptied: whether it has images now and none afterwards.
        notes: what the user should know.
        pinned: patterns and digests of the policy that protect something here.
        grouped: whether the rule's group takes any tag.
        counted, let_go: tags that are images of their own, and those of them that do not stay.
    """

    def __init__(self, repository, policy: Policy, now: float) -> None:
        self.name, self._tags, self._policy, self._now = repository.name, repository.tags, policy, now
        self._lost_tags = sorted(repository.lost_tags)
        self.graph = Graph(repository)
        rules = policy.rules_for(repository.name)
        self.rule = rules[0]
        self._protects = [rule.protect for rule in rules]
        self.decisions, self.notes, self.pinned, self.grouped = {}, [], set(), False
        self._reasons = {}  # what keeps a tag (by name) or a manifest (by digest)
        self._own = {name: tag for name, tag in repository.tags.items() if name not in self.graph.followers}
        self._ages = Ages(self.graph, self.rule.age_by, now, {name: tag.digest for name, tag in self._own.items()})
        self._age = {name: self._ages.of(tag, self.graph.manifests[tag.digest]) for name, tag in self._own.items()}
        tagged = {tag.digest for tag in self._own.values()}
        self._dependent = self.graph.closure(part for digest in tagged for part in self.graph.parts.get(digest, ()))
        self._has_parent = {part for parts in self.graph.parts.values() for part in parts}
        self._keep_always()
        self._keep_newest()
        self._keep_young()
        self._keep_floor()
        self._keep_loose()
        self._settle()

    # --- what keeps -----------------------------------------------------------------------------------------
    def _keep_always(self):
        """Protection and use."""
        pinned = {digest for protect in self._protects for digest in protect.digests} & self.graph.manifests.keys()
        self.pinned |= pinned
        for digest in pinned:
            self._keep(digest, "protected digest")
        for name in self._tags:
            patterns = [pattern for protect in self._protects for pattern in protect.of_tag(self.name, name)]
            if patterns:
                self.pinned.update(patterns)
                self._reasons.setdefault(name, f"protected by {patterns[0]}")
        for digest in self._used(self._policy.in_use):
            self._keep(digest, "in use")
        for digest in sorted(self._policy.mirrored & self.graph.manifests.keys()):
            self._keep(digest, "mirrored by its digest")
        for host, known in sorted(self._policy.unreachable.items()):
            # What it used when last asked is all that can be known of where its images come from.
            if known is None or self._used(known):
                for digest in self.graph.manifests:
                    self._keep(digest, f"perhaps in use: {host} could not be asked")

    def _keep(self, digest, reason):
        self._reasons.setdefault(digest, reason)
        for name in self.graph.tags.get(digest, ()):
            self._reasons.setdefault(name, reason)

    def _used(self, digests):
        """Manifests that are meant by digests of manifests or configs, and the indexes that they are in.

        A node that runs one platform of an index will ask for the index's tag again.
        """
        waiting = digests and sorted(
            digest
            for digest, held in self.graph.manifests.items()
            if digest in digests or any(blob in digests for blob, _size in held.blobs)
        )
        found = set()
        while waiting:
            digest = waiting.pop()
            if digest not in found:
                found.add(digest)
                waiting.extend(self.graph.parents.get(digest, ()))
        return sorted(found)

    def _judged(self):
        """Tags that the numbers are about: protected ones take no place from the others."""
        return sorted(name for name in self._own if not self._reasons.get(name, "").startswith("protected"))

    def _keep_newest(self):
        if self.rule.keep_last is None:
            return
        for group, images in sorted(self._groups().items()):
            known, unknown, moved = newest_first(images)
            for line in (known, unknown):
                places = 0
                for image in line:
                    if places == self.rule.keep_last:
                        break
                    for name in image.names:
                        self._reasons.setdefault(name, f"keep_last {self.rule.keep_last}{self._of_group(group)}")
                    places += image.digest not in self._dependent
            if moved and len(known) > self.rule.keep_last:
                self.notes.append(
                    f"{self.name}: {moved} tags were set within minutes of others{self._of_group(group)}"
                    " and are ordered by version"
                )
            if unknown and len(unknown) > self.rule.keep_last:
                self.notes.append(
                    f"{self.name}: {len(unknown)} images have no usable time{self._of_group(group)}"
                    " and are ordered by version and name"
                )

    def _groups(self):
        """Images by group; "" is of tags that the group does not take."""
        groups = {}
        for name in self._judged():
            group = self._group_of(name)
            self.grouped = self.grouped or bool(group)
            image = groups.setdefault(group, {}).setdefault(
                self._own[name].digest, Image(self._own[name].digest, [], None)
            )
            image.names.append(name)
            times = [time for time in (image.time, self._age[name].time) if time is not None]
            image.time = max(times, default=None)
        return {group: list(images.values()) for group, images in groups.items()}

    def _group_of(self, name):
        if self.rule.group is None:
            return ""
        if self.rule.group == MINOR:
            version = parse_version(name)
            return ".".join(map(str, (*version.numbers, 0)[:2])) if version else ""
        found = self.rule.group.search(name)
        return "/".join(part or "" for part in found.groups()) or "-" if found else ""

    def _of_group(self, group):
        if self.rule.group is None:
            return ""
        return f" of {group}" if group else " of the tags without a group"

    def _keep_young(self):
        timeless = 0
        for name in self._judged():
            age = self._age[name]
            if self.rule.max_age is None:
                if self.rule.keep_last is None:
                    self._reasons.setdefault(name, "neither keep_last nor max_age")
            elif age.time is None:
                timeless += name not in self._reasons
                self._reasons.setdefault(name, "its age is unknown")
            elif self._now - age.time <= self.rule.max_age * DAY:
                self._reasons.setdefault(name, f"max_age {self.rule.max_age:g} d")
        if timeless:
            self.notes.append(f"{self.name}: {timeless} tags stay because nobody knows how old they are")
        if self._ages.constant is not None and self._created_missing():
            self.notes.append(f"{self.name}: most images say that they were created at the same time: not used as age")

    def _created_missing(self):
        return self.rule.age_by == "created" or any(age.time is None for age in self._age.values())

    def _keep_floor(self):
        staying = {tag.digest for name, tag in self._own.items() if name in self._reasons}
        primary = {tag.digest for tag in self._own.values()} - self._dependent
        missing = self.rule.keep_min - len(staying & primary if primary else staying)
        if missing <= 0:
            return
        images = {}
        for name in self._judged():
            digest = self._own[name].digest
            if digest not in staying and (digest in primary or not primary):
                times = [time for time in (images.get(digest, Image("", [], None)).time, self._age[name].time) if time]
                names = [*images[digest].names, name] if digest in images else [name]
                images[digest] = Image(digest, names, max(times, default=None))
        known, unknown, _moved = newest_first(images.values())
        for image in [*known, *unknown][:missing]:
            for name in image.names:
                self._reasons[name] = f"keep_min {self.rule.keep_min}"

    # --- manifests without a tag, and tags whose subject is gone -----------------------------------------------
    def _keep_loose(self):
        """Leftovers stay for the grace: a push may be under way, or somebody is still to tag it."""
        self._loose = {
            digest: self._ages.pushed(None, self.graph.manifests[digest])
            for digest in self.graph.manifests
            if digest not in self.graph.tags and digest not in self._has_parent
        }
        self._orphans = {
            name: self._ages.pushed(self._tags[name], self.graph.manifests[self._tags[name].digest])
            for name, subject in self.graph.followers.items()
            if subject is None
        }
        grace = self.rule.untagged_grace
        for key, age in [*self._loose.items(), *self._orphans.items()]:
            if age.time is None:
                self._reasons.setdefault(key, "nobody knows since when it is here")
            elif self._now - age.time <= grace * DAY:
                self._reasons.setdefault(key, f"untagged_grace {grace:g} d")
        self._images = {digest for digest in self._loose if self._is_image(digest)}
        tagged = {tag.digest for name, tag in self._own.items() if name in self._reasons}
        missing = self.rule.keep_min - len(tagged) - len(self._images & self._reasons.keys())
        newest = sorted(self._images - self._reasons.keys(), key=lambda digest: (-self._loose[digest].time, digest))
        for digest in newest[: max(0, missing)]:
            self._reasons[digest] = f"keep_min {self.rule.keep_min}"

    def _is_image(self, digest):
        held = self.graph.manifests[digest]
        return held.subject is None and held.media_type in (*IMAGE_TYPES, *INDEX_TYPES)

    # --- the outcome ------------------------------------------------------------------------------------------
    def _settle(self):
        graph, kept = self.graph, self._reasons
        roots = {self._tags[key].digest if key in self._tags else key for key in kept}
        stays = graph.closure(roots)
        starts = {tag.digest for name, tag in self._own.items() if name not in kept}
        starts |= {self._tags[name].digest for name in self._orphans if name not in kept}
        starts |= {digest for digest in self._loose if digest not in kept}
        doomed = graph.closure(starts) - stays
        # What cannot be read may be an index, and any manifest without a tag its child; or a lost tag's.
        damaged = sorted(digest for digest in stays if not graph.manifests[digest].media_type)
        hiding = [*(f"the tag {tag}" for tag in self._lost_tags), *map(self._name_of, damaged)]
        if hiding and doomed - graph.tags.keys():
            doomed &= graph.tags.keys()
            self.notes.append(
                f"{self.name}: {hiding[0]} cannot be read, so no manifest without a tag goes:"
                " mirror or push it again, or delete it"
            )
        self.doomed = graph.separable(doomed)
        self._why_stays = self._reached_from(sorted(self._named(key) for key in kept))
        for name in sorted(self._own, key=age_key, reverse=True):
            self._decide_tag(name)
        for name in sorted(graph.followers):
            self._decide_follower(name)
        for digest in sorted(self._loose):
            self._decide_loose(digest)
        own = [self.decisions[name] for name in self._own]
        self.counted, self.let_go = len(own), sum(one.action != KEEP for one in own)
        self.emptied = self.let_go == self.counted if own else bool(self._images) and self._images <= self.doomed

    def _named(self, key):
        return (key, self._tags[key].digest) if key in self._tags else (key[:19], key)

    def _name_of(self, digest):
        return self.graph.tags.get(digest, (digest[:19],))[0]

    def _reached_from(self, roots):
        """For each digest a name that it hangs on, which is not its own."""
        found = {}
        for name, root in roots:
            waiting = list(self.graph.parts.get(root, ()))
            while waiting:
                digest = waiting.pop()
                if digest not in found:
                    found[digest] = name
                    waiting.extend(self.graph.parts.get(digest, ()))
        return found

    def _decide(self, key, action, rule, age):
        tag, digest = (key, self._tags[key].digest) if key in self._tags else (None, key)
        passed = None if age.time is None else self._now - age.time
        self.decisions[key] = Decision(self.name, tag, digest, action, rule, passed, age.source)

    def _decide_tag(self, name):
        digest, age = self._own[name].digest, self._age[name]
        if name in self._reasons:
            self._decide(name, KEEP, self._reasons[name], age)
        elif digest in self.doomed:
            self._decide(name, DELETE, self._let_go(name), age)
        elif digest in self._why_stays:
            # By digest it could not go, and as a tag of its own it does not count: it belongs to what stays.
            self._decide(name, KEEP, f"part of {self._why_stays[digest]}", age)
        else:
            other = next((other for other in self.graph.tags[digest] if other in self._reasons), None)
            shared = f"shares its manifest with {other}" if other else "other manifests need its manifest"
            self._decide(name, TAG_ONLY, f"{self._let_go(name)}; {shared}", age)

    def _let_go(self, name):
        parts = []
        if self.rule.keep_last is not None:
            parts.append(f"not among the last {self.rule.keep_last}{self._of_group(self._group_of(name))}")
        if self.rule.max_age is not None:
            parts.append(f"older than {self.rule.max_age:g} d")
        return ", ".join(parts)

    def _decide_follower(self, name):
        digest, subject = self._tags[name].digest, self.graph.followers[name]
        age = self._ages.pushed(self._tags[name], self.graph.manifests[digest])
        if name in self._reasons:
            self._decide(name, KEEP, self._reasons[name], age)
            return
        if subject is None:
            reason = f"what it is about is gone for more than {self.rule.untagged_grace:g} d"
        elif subject in self.doomed:
            reason = f"goes with {self._name_of(subject)}"
        else:
            self._decide(name, KEEP, f"part of {self._name_of(subject)}", age)
            return
        if digest in self.doomed:
            self._decide(name, DELETE, reason, age)
        else:
            self._decide(name, TAG_ONLY, f"{reason}; other manifests need its manifest", age)

    def _decide_loose(self, digest):
        age = self._loose[digest]
        if digest in self.doomed:
            self._decide(digest, DELETE, f"without a tag for more than {self.rule.untagged_grace:g} d", age)
        else:
            self._decide(digest, KEEP, self._reasons.get(digest, "may be part of a damaged image"), age)
