# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A clean-up from the user's settings to the report; the module, registryctl and the timer call this.

Read what the registry holds, plan, delete over the API, then collect the garbage. Whoever calls it holds the lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import HomelabError
from ..lock import STATE_DIR
from ..mirroring.endpoints import Endpoints
from ..mirroring.run import file_name, host_of, target_of, user_state_dir
from ..mirroring.state import protected_digests
from ..oci.access import Access
from ..storage.maintenance import Interrupted, collect, recover
from ..storage.server import Host, Server
from ..storage.tree import Tree
from ..storage.tree import read_inventory as read_tree
from .apply import DELETED, FAILED, LEFT, SKIPPED, UNTAGGED, WAITS, Applied, apply
from .in_use import DAYS, Use, in_use, learn, read_nodes, write_nodes
from .judge import DELETE, KEEP
from .memory import Memory
from .plan import Plan, Refused, plan
from .policy import Policy, parse_policy
from .read_api import read_inventory as read_api

WOULD = {DELETE: "would delete", "tag only": "would remove the tag"}


@dataclass
class Report:
    """What a clean-up did, or would do.

    Attributes:
        check: whether it was a dry run.
        plan: what it went by.
        applied: what was done; None in a dry run, or if the plan was refused.
        refused: why the plan was not, or would not be, carried out; None if it may.
        collected: what the garbage collection did, for JSON; None if there was none.
        trouble: why the garbage collection failed or would be refused, or the rest of the plan was not tried.
        notes: what the user should know.
        recovered: whether the registry was brought back from an earlier maintenance that had been cut off.
        interrupted: whether a signal ended the garbage collection.
    """

    check: bool
    plan: Plan
    applied: Applied | None = None
    refused: str | None = None
    collected: dict | None = None
    trouble: str | None = None
    notes: list = field(default_factory=list)
    recovered: bool = False
    interrupted: bool = False

    @property
    def changed(self) -> bool:
        """Whether the registry is, or would be, another one."""
        if self.applied is None:
            removes = self.check and not self.refused and bool(self.plan.deletions or self.plan.tag_only)
        else:
            removes = any(one.action in (DELETED, UNTAGGED) for one in self.applied.outcomes)
        return removes or self.recovered or bool((self.collected or {}).get("changed"))

    @property
    def failed(self) -> list[dict]:
        """Items that failed."""
        return [one for one in self.items() if one["result"] == FAILED]

    def items(self, everything: bool = False) -> list[dict]:
        """One dict for each tag, and each manifest without one, that the plan is about, with what became of it.

        Args:
            everything: also what stays.
        """
        outcomes = {(one.repository, one.tag, one.digest): one for one in self.applied.outcomes} if self.applied else {}
        items = []
        for one in self.plan.decisions:
            outcome = outcomes.pop((one.repository, one.tag, one.digest), None)
            if one.action == KEEP:
                result = "kept" if everything else None
            elif outcome:
                result = outcome.action
            else:
                result = WOULD[one.action] if self.check and not self.refused else "refused"
            if result:
                items.append(_item(one, result, outcome and outcome.reason))
        # Children and signatures go with what they hang on; they are told of only if they did not.
        items += [
            {**one.as_dict(), "age": None, "age_source": None, "freed": 0, "rule": "", "result": one.action}
            for one in outcomes.values()
            if one.action in (FAILED, LEFT)
        ]
        return sorted(items, key=lambda item: item["repository"])

    def diff(self) -> dict:
        """Tags with their digests before and after, as Ansible shows a difference."""
        before, after = [], []
        if self.changed:
            for one in self.items():
                if one["result"] in (DELETED, UNTAGGED, *WOULD.values()):
                    name = f"{one['repository']}{':' + one['tag'] if one['tag'] else ' without a tag'}"
                    before.append(f"{name} {one['digest']}\n")
                    after.append(f"{name} absent\n")
        return {"before": "".join(before), "after": "".join(after)}

    def as_dict(self, everything: bool = False) -> dict:
        """For JSON.

        Args:
            everything: with what stays.
        """
        planned = self.plan.as_dict()
        return {
            "changed": self.changed,
            "check": self.check,
            "source": self.plan.source,
            "tags": planned["tags"],
            "manifests": len(self.plan.deletions),
            "freed": self.plan.freed,
            "items": self.items(everything),
            "refused": self.refused,
            "trouble": self.trouble,
            "garbage": self.collected,
            "notes": self.notes,
        }


def _item(decision, result, reason):
    return {
        "repository": decision.repository,
        "tag": decision.tag,
        "digest": decision.digest,
        "age": None if decision.age is None else round(decision.age),
        "age_source": decision.age_source,
        "freed": decision.freed,
        "action": decision.action,
        "rule": decision.rule,
        "result": result,
        "reason": reason,
    }


@dataclass
class Request:
    """One validated request to clean up; `prepare` makes it.

    Attributes:
        access: how the registry is reached.
        policy: what stays, with what is in use.
        use: what is in use, with what to say about it.
        host: how its container is reached, if it runs on this machine; None reads over the API, and leaves the garbage.
        state_dir: where the marker of a maintenance is kept.
        memory_path: file that remembers what manifests hold.
        gc: whether the garbage is collected.
        remember: (file, nodes): what nodes said, to be written down for runs that cannot ask them; or None.
    """

    access: Access
    policy: Policy
    use: Use = field(default_factory=Use)
    host: Host | None = None
    state_dir: str = STATE_DIR
    memory_path: str | None = None
    gc: bool = True
    remember: tuple | None = None

    def run(self, *, check: bool = False, progress: Callable[[str], None] | None = None) -> Report:
        """Clean up; with `check` only find out what that means.

        Args:
            progress: is told what was done, as lines.

        Raises:
            HomelabError: the registry, or its directory, cannot be used; nothing was deleted.
        """
        if self.remember and not check:
            write_nodes(*self.remember)  # it is as true if the rest fails
        recovered = root = None
        if self.host:
            if not check:  # else it may be read-only, or stopped
                recovered = recover(asdict(self.host), asdict(self.access), self.state_dir)
            root = Server(self.host, asdict(self.access)).root
        registry = Endpoints(self.access).target
        try:
            answer = registry.request("GET", "/v2/")
            registry.check(answer, (200,), "looking whether it is there")
            made = plan(self._read(registry, root), self.policy, time.time())
            report = Report(check, made, notes=[*self.use.notes, *made.notes], recovered=recovered is not None)
            if recovered:
                report.notes.insert(0, f"{recovered}; the registry takes writes again")
            try:
                made.check()
            except Refused as error:
                report.refused = str(error)
            if not check and not report.refused:
                links = bool(self.gc and root)
                report.applied = apply(made, registry, links=links, progress=progress)
                report.trouble = report.applied.stopped
        finally:
            registry.close()
        if not self.gc or report.refused or report.trouble:
            return report
        if self.host:
            self._collect(report, progress)
        else:
            report.notes.append("space becomes free by garbage collection, which runs on the registry host")
        return report

    def _read(self, registry, root):
        memory = Memory(self.memory_path)
        complete = False
        try:
            inventory = read_api(registry, memory) if root is None else self._read_tree(root, memory)
            complete = True
        finally:
            memory.save(prune=complete)
        return inventory

    @staticmethod
    def _read_tree(root, memory):
        tree = Tree(root)
        inventory = read_tree(tree, created=True, memory=memory)
        if not tree.complete:
            raise HomelabError(
                f"parts of the registry cannot be seen, so nothing can be planned: {tree.hiding[0]}",
                root,
                "run it as root; a registry has no symbolic links in it",
            )
        return inventory

    def _collect(self, report, progress):
        links = report.applied.tag_links() if report.applied else []
        try:
            done = collect(
                asdict(self.host),
                asdict(self.access),
                state_dir=self.state_dir,
                tag_links=links,
                check=report.check,
                progress=progress,
            )
        except HomelabError as error:
            report.trouble = f"the garbage was not collected: {error}"
            report.interrupted = isinstance(error, Interrupted)
            _settle(report, set(), "the maintenance window did not come about")
            return
        report.collected = done.as_dict()
        _settle(report, set(done.tags), "it is gone or was moved since")
        if done.refusals:  # of a dry run: else it is an error
            report.trouble = f"the garbage would not be collected: {'; '.join(done.refusals)}"
        elif done.new_damages:
            report.trouble = f"images that were whole are damaged now: {', '.join(done.new_damages)}"
        elif done.damages:
            count = len(done.damages)
            report.notes.append(f"{count} images are not whole: registryctl verify tells what is missing")


def _settle(report, removed, otherwise):
    """What became of the tags that waited for the maintenance window."""
    for one in report.applied.outcomes if report.applied else ():
        if one.action == WAITS:
            gone = one.name in removed
            one.action, one.reason = (UNTAGGED, None) if gone else (SKIPPED, otherwise)


# --- settings -----------------------------------------------------------------------------------------------
def prepare(settings: dict) -> Request:
    """A request from a user's settings: the options of the module registry_cleanup, by their names there.

    Raises:
        HomelabError: something in them is wrong.
    """
    get = settings.get
    access = target_of(settings)
    policy = parse_policy(get("policy") or {}, "cleanup")
    days = DAYS if get("in_use_days") is None else get("in_use_days")
    if days <= 0:
        raise HomelabError(f"in_use_days is {days:g}", "cleanup", "give a number of days above 0")
    request = Request(access, policy, gc=get("gc") is not False)
    if get("host"):
        request.host = Host.from_dict(get("host"))
    own = get("state_dir") is None and request.host is None
    request.state_dir = str(get("state_dir") or (user_state_dir() if own else STATE_DIR))
    name = file_name(host_of(access))
    request.memory_path = str(Path(request.state_dir, f"manifests-{name}.json"))
    path = get("in_use_path") or Path(request.state_dir, f"in-use-{name}.json" if own else "in-use.json")
    request.use, request.remember = _use(settings, str(path), days, time.time())
    # One file for each name of the registry under which images were mirrored to it, and the one that is named.
    memories = {*Path(request.state_dir).glob("mirror-*.json"), *filter(None, [get("state_path")])}
    request.policy = replace(
        policy,
        mirrored=frozenset().union(*map(protected_digests, memories)),
        in_use=policy.in_use | request.use.digests,
        unreachable={**request.use.unreachable, **policy.unreachable},
    )
    return request


def _use(settings, path, days, now):
    answers = settings.get("used") or {}
    nodes = read_nodes(path)
    if answers:
        nodes = learn(nodes, answers, now)
    expected = settings.get("nodes")
    if expected is not None:
        nodes = {name: node for name, node in nodes.items() if name in expected}
    return in_use(nodes, expected, days=days, now=now), (path, nodes) if answers else None
