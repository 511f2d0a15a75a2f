# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy removes from a registry. Pure: an inventory in, a plan out, the same plan for the same input.

What is decided in each repository, and how, is in judge.py. Here stand what only the whole registry tells: the bytes
that become free, whether too much would go, and settings that mean nothing in this registry.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ..errors import HomelabError
from ..oci.inventory import Inventory
from .judge import DELETE, KEEP, TAG_ONLY, Decision, Judge
from .policy import Policy

#: Names in a message; the plan itself has them all.
_SHOWN = 5


class Refused(HomelabError):
    """The plan removes more than the policy allows without `force`."""


@dataclass
class Deletion:
    """A manifest to delete by its digest, with all its tags.

    Attributes:
        tags: the tags that point at it and go with it; one more, or one less, and the plan is out of date.
        parts: digests that hang on it (children, signatures); as long as it stays they have to.
        size: bytes of the manifest itself.
        media_type: "" if it could not be read.
        freed: bytes that a garbage collection gets back because of it alone; each byte is counted at one deletion.
    """

    repository: str
    digest: str
    tags: tuple
    parts: tuple
    size: int
    media_type: str
    freed: int = 0


@dataclass
class Plan:
    """What goes and why.

    Attributes:
        source: where the inventory was read.
        now: the time that ages are counted from, in seconds since 1970.
        decisions: one for each tag and each manifest without a tag that nothing else needs, by repository.
        deletions: in the order to delete in: an index before its children, an image before its signatures, so that
            what still has a tag is whole, wherever a run stops.
        notes: what the user should know.
        refusals: why it must not be carried out; empty if it may.
    """

    source: str
    now: float
    decisions: list = field(default_factory=list)
    deletions: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    refusals: list = field(default_factory=list)

    @property
    def tag_only(self) -> list[Decision]:
        """Tags that go while their manifest stays: where the server deletes by tag, else they are only reported."""
        return [one for one in self.decisions if one.action == TAG_ONLY]

    @property
    def freed(self) -> int:
        """Bytes that a garbage collection gets back after the deletions."""
        return sum(one.freed for one in self.deletions)

    def check(self) -> None:
        """Let a plan pass that may be carried out.

        Raises:
            Refused: it may not; the text names repositories and share.
        """
        if self.refusals:
            raise Refused(
                "; ".join(self.refusals),
                self.source,
                "look at the plan (--check, --dry-run); if it is meant, set force, else correct the policy",
            )

    def as_dict(self) -> dict:
        """For JSON."""
        actions = [one.action for one in self.decisions if one.tag is not None]
        return {
            "source": self.source,
            "now": self.now,
            "tags": {action: actions.count(action) for action in (KEEP, DELETE, TAG_ONLY)},
            "freed": self.freed,
            "refusals": list(self.refusals),
            "notes": list(self.notes),
            "deletions": [{**asdict(one), "tags": list(one.tags), "parts": list(one.parts)} for one in self.deletions],
            "decisions": [asdict(one) for one in self.decisions],
        }


def plan(inventory: Inventory, policy: Policy, now: float) -> Plan:
    """What the policy removes.

    Args:
        inventory: what the registry holds. What is not in it cannot be kept in mind: manifests without a tag and
            times of pushes are missing if it was read over the API.
        policy: what to keep.
        now: seconds since 1970.
    """
    judges = [Judge(inventory.repositories[name], policy, now) for name in sorted(inventory.repositories)]
    made = Plan(inventory.source, now)
    for judge in judges:
        made.decisions.extend(judge.decisions.values())
        made.notes.extend(judge.notes)
    _delete(made, judges)
    made.notes[:0] = _idle(policy, judges)
    refusals = _too_much(policy, judges)
    if policy.force:
        made.notes[:0] = [f"forced: {refusal}" for refusal in refusals]
    else:
        made.refusals = refusals
    return made


def _held(judges):
    """Digests of everything in the registry."""
    manifests = (held for judge in judges for held in judge.graph.manifests.values())
    return {content for held in manifests for content in (held.digest, *(blob for blob, _size in held.blobs))}


def _delete(made, judges):
    """The deletions, and what each of them frees."""
    staying = set()
    for judge in judges:
        for digest, held in judge.graph.manifests.items():
            if digest not in judge.doomed:
                staying.add(digest)
                staying.update(blob for blob, _size in held.blobs)
    for judge in judges:
        order = judge.graph.ordered(judge.doomed)
        freed = {}
        for digest in order:
            held = judge.graph.manifests[digest]
            freed[digest] = 0
            for content, size in ((digest, held.size), *held.blobs):
                if content not in staying:
                    staying.add(content)  # counted; what follows frees it no more
                    freed[digest] += size
            made.deletions.append(
                Deletion(
                    judge.name,
                    digest,
                    tuple(judge.graph.tags.get(digest, ())),
                    judge.graph.parts.get(digest, ()),
                    held.size,
                    held.media_type,
                    freed[digest],
                )
            )
        _credit(judge, order, freed)


def _credit(judge, order, freed):
    """Give each byte to the decision that set it free: an index has those of its children and signatures too."""
    first = {}
    for decision in judge.decisions.values():
        if decision.action == DELETE:
            first.setdefault(decision.digest, decision)
    done = set()
    for start in order:
        if start not in first:
            continue
        waiting = [start]
        while waiting:
            digest = waiting.pop()
            if digest in freed and digest not in done:
                done.add(digest)
                first[start].freed += freed[digest]
                waiting.extend(judge.graph.parts.get(digest, ()))


def _too_much(policy, judges):
    refusals = []
    emptied = [judge.name for judge in judges if judge.emptied]
    if emptied:
        refusals.append(f"nothing would be left in {_listed(emptied)}")
    counted, let_go = sum(judge.counted for judge in judges), sum(judge.let_go for judge in judges)
    if let_go > policy.max_delete_share * counted:
        worst = sorted((judge for judge in judges if judge.let_go), key=lambda judge: (-judge.let_go, judge.name))
        refusals.append(
            f"{let_go} of {counted} tags would go ({let_go / counted:.0%}, max_delete_share is"
            f" {policy.max_delete_share:.0%}), most of them from"
            f" {_listed([f'{judge.name} ({judge.let_go} of {judge.counted})' for judge in worst])}"
        )
    return refusals


def _listed(names):
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _idle(policy, judges):
    """Settings without an effect: a name that is misspelt protects nothing."""
    notes = []
    names = [judge.name for judge in judges]
    first = {judge.rule.name for judge in judges}
    for rule in policy.rules[:-1]:
        if not any(map(rule.matches, names)):
            notes.append(f"{rule.name}: no repository matches {', '.join(rule.repositories)}")
        elif rule.name not in first:
            notes.append(f"{rule.name}: other rules before it take all its repositories; only its protect counts")
    pinned = set().union(*(judge.pinned for judge in judges))
    for rule in policy.rules:
        patterns = [*rule.protect.globs, *(regex.pattern for regex in rule.protect.regexes)]
        idle = [item for item in [*patterns, *sorted(rule.protect.digests)] if item not in pinned]
        if idle:
            notes.append(f"{rule.name}: protect has no match for {_listed(idle)}")
        ruled = [judge for judge in judges if judge.rule is rule]
        if rule.group and rule.keep_last and ruled and not any(judge.grouped for judge in ruled):
            notes.append(f"{rule.name}: group takes no tag, so that all tags of a repository are one group")
    if judges and all(judge.rule.keep_last is None and judge.rule.max_age is None for judge in judges):
        notes.append("neither keep_last nor max_age is set: no tag goes")
    if policy.in_use and judges and not policy.in_use & _held(judges):
        notes.append(f"none of the {len(policy.in_use)} digests in use is in this registry")
    blind = sorted(host for host, known in policy.unreachable.items() if known is None)
    if blind:
        notes.append(f"{_listed(blind)} could not be asked, and nobody knows what is in use there: nothing goes")
    return notes
