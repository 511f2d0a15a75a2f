# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan out over the registry's API.

Between the plan and a deletion somebody may push. So each repository is looked at again right before: what got a tag
since, or is part of what got one, stays with all that hangs on it, and a manifest whose tags are no longer those of
the plan is left to the next run. One failure does not keep the rest from going; what hangs on a manifest that could
not be deleted stays with it. A run may end anywhere: the plan's order leaves nothing with a tag incomplete.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from ..errors import HomelabError
from ..oci.auth import Denied
from ..oci.client import NotFound, Registry
from ..oci.transport import Unreachable
from .graph import subject_of_tag
from .plan import Plan

#: What became of a tag or manifest. WAITS: its link goes in the maintenance window. LEFT: this server cannot do it.
DELETED, UNTAGGED, WAITS, LEFT, SKIPPED, FAILED = "deleted", "tag removed", "waits", "left", "skipped", "failed"
#: Seconds. A look at a repository is good for so long, or for as long as it took; then it is looked at again.
FRESH = 2
WORKERS = 8


@dataclass
class Outcome:
    """What became of a tag (with its manifest, or alone), or of a manifest without one (`tag` is None)."""

    repository: str
    tag: str | None
    digest: str
    action: str
    reason: str | None = None

    @property
    def name(self) -> str:
        """As it is written in messages."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest[:19]}"

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


@dataclass
class Applied:
    """What was done.

    Attributes:
        outcomes: one for each tag and each manifest of the plan; children and signatures too.
        stopped: why the rest was not tried; None if all was.
    """

    outcomes: list = field(default_factory=list)
    stopped: str | None = None

    def tag_links(self) -> list[tuple[str, str, str]]:
        """(repository, tag, digest) of the tags that wait for the maintenance window."""
        return [(one.repository, one.tag, one.digest) for one in self.outcomes if one.action == WAITS]


class _Stop(Exception):
    """Nothing more can be deleted; the text says why."""


def apply(
    plan: Plan, registry: Registry, *, links: bool = False, progress: Callable[[str], None] | None = None
) -> Applied:
    """Delete what the plan says.

    Args:
        plan: a plan that `check` let pass.
        registry: with an account that may delete.
        links: whether single tags that the server cannot remove may wait for the maintenance window.
        progress: is told each outcome, as a line.

    Raises:
        HomelabError: nothing was deleted, since this registry deletes nothing.
    """
    applied = Applied()
    with ThreadPoolExecutor(WORKERS) as pool:
        work = _Work(plan, registry, links, applied, progress, pool)
        try:
            for name in work.repositories():
                work.clean(name)
        except _Stop as stop:
            if not any(one.action in (DELETED, UNTAGGED) for one in applied.outcomes):
                raise stop.args[0] from stop
            applied.stopped = str(stop.args[0])
            work.leave_the_rest()
    return applied


class _Work:
    def __init__(self, plan, registry, links, applied, progress, pool):
        self._registry, self._links, self._applied = registry, links, applied
        self._progress, self._pool = progress, pool
        self._by_tag = True  # 3.x deletes a single tag, 2.x refuses; the first answer tells
        self._planned, self._deletions, self._singles = {}, {}, {}
        for one in plan.decisions:
            if one.tag is not None:
                self._planned.setdefault(one.repository, {})[one.tag] = one.digest
        for one in plan.deletions:
            self._deletions.setdefault(one.repository, []).append(one)
        for one in plan.tag_only:
            self._singles.setdefault(one.repository, []).append(one)

    def repositories(self):
        return sorted({*self._deletions, *self._singles})

    def clean(self, name):
        """One repository. What hangs on what stays is in `spared`, with the reason."""
        singles, deletions = self._singles.get(name, []), self._deletions.get(name, [])
        spared = {}
        try:
            look = self._look(name)
            for one in singles:
                self._untag(name, one, look)
            for one in deletions:
                if time.monotonic() - look.at > max(FRESH, look.took):
                    look = self._look(name)
                reason = look.needed.get(one.digest) or spared.get(one.digest)
                action, reason = (SKIPPED, reason) if reason else self._delete(name, one, look)
                if action != DELETED:
                    why = f"hangs on {_called(name, one)}, which stays"
                    spared.update(dict.fromkeys(one.parts, why))
                self._note(name, one, action, reason)
        except Unreachable as error:
            raise _Stop(error) from error
        except HomelabError as error:
            # Of one repository: no right to it, or an answer that is none.
            done = {(one.repository, one.digest, one.tag) for one in self._applied.outcomes}
            for one in deletions:
                if not any((name, one.digest, tag) in done for tag in one.tags or (None,)):
                    self._note(name, one, FAILED, str(error))
            for one in singles:
                if (name, one.digest, one.tag) not in done:
                    self._outcome(Outcome(name, one.tag, one.digest, FAILED, str(error)))
        self._believe(name)

    def leave_the_rest(self):
        """Outcomes of what was not tried."""
        done = {(one.repository, one.digest, one.tag) for one in self._applied.outcomes}
        for name in self.repositories():
            for one in self._deletions.get(name, ()):
                for tag in one.tags or (None,):
                    if (name, one.digest, tag) not in done:
                        self._applied.outcomes.append(Outcome(name, tag, one.digest, SKIPPED, "not tried"))
            for one in self._singles.get(name, ()):
                if (name, one.digest, one.tag) not in done:
                    self._applied.outcomes.append(Outcome(name, one.tag, one.digest, SKIPPED, "not tried"))

    # --- looking ----------------------------------------------------------------------------------------------
    def _look(self, name):
        """The repository as it is now: tags, and what those that are not the plan's need."""
        begun = time.monotonic()
        listed = sorted(set(self._registry.tags(name) or ()))
        found = dict(zip(listed, self._pool.map(lambda tag: self._digest(name, tag), listed)))
        planned, needed = self._planned.get(name, {}), {}
        for tag, digest in found.items():
            if digest is not None and planned.get(tag) != digest:
                reason = f"{name}:{tag} was pushed since, and needs it"
                subject = subject_of_tag(tag)
                self._need(name, [digest, subject] if subject else [digest], reason, needed)
        at = time.monotonic()
        return _Look(at, at - begun, found, needed)

    def _digest(self, name, tag):
        try:
            return self._registry.head_manifest(name, tag)
        except (Unreachable, Denied):
            raise
        except HomelabError:
            return None  # a link without a digest: the server answers 500

    def _need(self, name, waiting, reason, needed):
        while waiting:
            digest = waiting.pop()
            if digest in needed:
                continue
            needed[digest] = reason
            try:
                manifest = self._registry.read_manifest(name, digest)
            except NotFound:
                continue
            waiting += [child.digest for child in manifest.children]
            waiting += [manifest.subject.digest] if manifest.subject else []

    # --- deleting ---------------------------------------------------------------------------------------------
    def _delete(self, name, one, look):
        """(action, reason) of one manifest with its tags."""
        lost = [tag for tag in one.tags if tag in look.tags and look.tags[tag] is None]
        for tag in one.tags:
            if tag in lost:
                continue
            now = self._digest(name, tag) if tag in look.tags else None
            if now != one.digest:
                return SKIPPED, f"{name}:{tag} {'was moved' if now else 'is gone'} since"
        if lost:
            # The server lists the tag and does not find its manifest, so it cannot delete it either.
            if self._links:
                return WAITS, "the server does not find its manifest; its link goes in the maintenance window"
            return LEFT, "the server does not find its manifest: mirror or push it again, or clean up on its host"
        answer = self._registry.delete_manifest(name, one.digest)
        if answer.status == 404 and not one.tags:
            return SKIPPED, "it is gone already"
        return self._judge(answer, DELETED)

    def _untag(self, name, one, look):
        now = self._digest(name, one.tag) if one.tag in look.tags else None
        if now != one.digest:
            action, reason = SKIPPED, f"it {'was moved' if now else 'is gone'} since"
        else:
            action, reason = self._remove_tag(name, one)
        self._outcome(Outcome(name, one.tag, one.digest, action, reason))

    def _remove_tag(self, name, one):
        if self._by_tag:
            answer = self._registry.delete_manifest(name, one.tag)
            if answer.status != 400:
                action, reason = self._judge(answer, UNTAGGED)
                if action == UNTAGGED and self._registry.head_manifest(name, one.digest) is None:
                    raise _Stop(
                        HomelabError(
                            f"{self._registry.url} removed a manifest when it was asked to remove the tag"
                            f" {name}:{one.tag}",
                            one.digest,
                            "mirror or push it again: this is not CNCF Distribution; leave single tags to it",
                        )
                    )
                return action, reason
            self._by_tag = False  # DIGEST_INVALID
        if self._links:
            return WAITS, "its link goes in the maintenance window"
        return LEFT, "this server (2.x) deletes a manifest with all its tags only, and another tag on it stays"

    def _judge(self, answer, action):
        if answer.status == 405:
            raise _Stop(_switched_off(self._registry.url, answer))
        if answer.status == 202:
            return action, None
        try:
            self._registry.check(answer, (202,), "deleting")
        except HomelabError as error:
            return FAILED, str(error)
        return action, None

    def _believe(self, name):
        """Whether what the registry says it deleted is gone."""
        claimed = [one for one in self._applied.outcomes if one.repository == name and one.action == DELETED]
        if not any(one.tag for one in claimed):
            return
        try:
            listed = set(self._registry.tags(name) or ())
            for one in claimed:
                if one.tag in listed and self._registry.head_manifest(name, one.tag) == one.digest:
                    one.action, one.reason = FAILED, "the registry says that it deleted it, and still has it"
        except Unreachable as error:
            raise _Stop(error) from error
        except HomelabError as error:
            for one in claimed:
                one.reason = f"not looked at again: {error}"

    def _note(self, name, one, action, reason):
        for tag in one.tags or (None,):
            self._outcome(Outcome(name, tag, one.digest, action, reason))

    def _outcome(self, outcome):
        self._applied.outcomes.append(outcome)
        if self._progress:
            reason = f": {outcome.reason}" if outcome.reason else ""
            self._progress(f"{outcome.name}: {outcome.action}{reason}")


@dataclass
class _Look:
    """A repository at a moment: digest by tag (None: the server lists it and does not find it), and what is needed. To
    look took so many seconds: with thousands of tags more than FRESH, and before each deletion that is far too long."""

    at: float
    took: float
    tags: dict
    needed: dict


def _called(name, one):
    return f"{name}:{one.tags[0]}" if one.tags else f"{name}@{one.digest[:19]}"


def _switched_off(url, answer):
    """distribution: 405 with the code UNSUPPORTED if deletion is off, 405 and plain text if it is read-only."""
    if b"UNSUPPORTED" in answer.body:
        return HomelabError(
            f"{url} does not delete anything", None, "set registry_delete_enabled: true, run site.yml, and try again"
        )
    return HomelabError(
        f"{url} is read-only, or a pull-through cache",
        None,
        "after an interrupted garbage collection run registryctl recover; else set registry_readonly: false",
    )
