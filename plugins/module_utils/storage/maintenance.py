# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection from its beginning to its end, and the way back from any point in between.

The server is made read-only, what is garbage is judged on the still tree, the server's own `garbage-collect` is asked
for its opinion, and only if it is ours it sweeps; then caches are dropped and the server takes writes again. Before
each step a marker says what has to be undone. The caller holds the registry host's lock (lock.hold, exclusive).
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import HomelabError
from ..lock import Busy
from . import garbage
from .garbage import UPLOAD_AGE, Plan, Window, plan_garbage
from .mark import disagreements, parse_dry_run, shown
from .server import KEPT, Host, Server, Watch
from .tree import Tree
from .verify import verify

#: Below state_dir.
MARKER = "maintenance.json"
#: Phases of the marker, in their order. From SWEEP on blobs may be gone of which caches know.
ANNOUNCED, SWITCH, SWEEP, WRITABLE = "announced", "making it read-only", "sweeping", "making it writable"
_BRING_BACK_TRIES = 3


class Refused(HomelabError):
    """Nothing was collected, for a reason that somebody has to look at; nothing was removed."""


class Interrupted(HomelabError):
    """A signal asked for an end; the server is as it was before."""


@dataclass
class Recovery:
    """What an earlier run had left.

    Attributes:
        phase: where it ended. pid, started: of that run; 0 if unknown.
    """

    phase: str
    pid: int = 0
    started: float = 0.0

    def __str__(self) -> str:
        return f"a maintenance was cut off ({self.phase})"


@dataclass
class CollectReport:
    """What a collection did, or would do.

    Attributes:
        check: whether it only looked.
        driver: of the server's storage; anything else than `filesystem` has no own mark, no verification and no
            removals but the server's own.
        recovered: a Recovery, if an earlier run had been cut off (check: if it would be).
        blobs: how many the server's garbage collection removes; freed: bytes (None if not known), with uploads.
        layer_links: links of blobs that it removes (3.x).
        uploads, upload_bytes: abandoned uploads, as `repository/_uploads/uuid`.
        repositories: empty ones. tags: single tags, as `repository:tag`. damaged: digests of damaged blobs.
            repaired: links that were written anew. All of these are what was removed, or would be.
        left: what was to be removed and was not, each with the reason.
        refusals: why nothing is swept.
        findings: what else is wrong with the tree. last_copies: removed digests that damaged images needed.
        damages: images that are not whole, as verify.Damage.as_dict. new_damages: names of those that were whole
            before. verified: tags that were looked at after it, None if they were not.
        read_only_seconds: in which writes were refused. unreachable_seconds: in which the server did not answer at
            all, longest_gap_seconds: at one go.
        seconds: the whole.
    """

    check: bool = False
    driver: str = "filesystem"
    recovered: Recovery | None = None
    blobs: int = 0
    freed: int | None = 0
    layer_links: int = 0
    uploads: list[str] = field(default_factory=list)
    upload_bytes: int = 0
    repositories: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    last_copies: list[str] = field(default_factory=list)
    damages: list[dict] = field(default_factory=list)
    new_damages: list[str] = field(default_factory=list)
    verified: int | None = None
    read_only_seconds: float = 0.0
    unreachable_seconds: float = 0.0
    longest_gap_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether anything was removed or brought back, or would be."""
        return bool(
            self.recovered
            or self.blobs
            or self.layer_links
            or self.uploads
            or self.repositories
            or self.tags
            or self.damaged
            or self.repaired
        )

    def as_dict(self) -> dict:
        """For JSON."""
        return {"changed": self.changed, **asdict(self)}

    def diff(self) -> dict:
        """What goes, as Ansible shows a difference."""
        lines = [f"{self.blobs} blobs without an image"] if self.blobs else []
        if self.freed:
            lines.append(f"{self.freed} bytes")
        lines += [f"abandoned upload {name}" for name in self.uploads]
        lines += [f"empty repository {name}" for name in self.repositories]
        lines += [f"tag {name}" for name in self.tags]
        lines += [f"damaged blob {name}" for name in self.damaged]
        lines += [f"damaged link {name}" for name in self.repaired]
        return {"before": "".join(f"{line}\n" for line in lines), "after": ""}


# --- the two things to do -----------------------------------------------------------------------------------
def collect(
    host: dict,
    access: dict,
    *,
    state_dir,
    upload_age: float = UPLOAD_AGE,
    tag_links: Iterable[tuple[str, str, str]] = (),
    damaged: Iterable[str] = (),
    check: bool = False,
    progress: Callable[[str], None] | None = None,
) -> CollectReport:
    """Collect garbage. Where there is none, the server is not touched.

    Args:
        host: settings of server.Host.
        access: settings of the registry's API: url, username, password, ca_path …; the account may push.
        state_dir: where the marker is kept; not below the registry's data.
        upload_age: hours without a sign of life after which an upload is abandoned.
        tag_links: single tags to remove, (repository, tag, digest): for 2.x, which cannot.
        damaged: digests of blobs with wrong content to remove, so that a push can bring them again.
        check: only say what would be done.
        progress: called with a sentence as each step begins.

    Raises:
        Refused: it would not be safe. Busy: another maintenance is under way.
        Interrupted: a signal came.
        HomelabError: something failed. In each case the server is brought back first; where that fails, the error
            says so, and `recover` does it.
    """
    started = time.monotonic()
    run = _Collection(Host.from_dict(host), access, state_dir, upload_age, list(tag_links), list(damaged), progress)
    with _alone(run.server):
        report = run.look() if check else run.collect()
    report.seconds = time.monotonic() - started
    return report


def recover(host: dict, access: dict, state_dir) -> Recovery | None:
    """Bring back the server that a maintenance which was cut off has left; None if there is nothing to do.

    Safe to call at any time, as at each boot: a maintenance that is under way is not disturbed.

    Raises:
        Busy: a maintenance is under way. HomelabError: it cannot be brought back.
    """
    settings, marker = Host.from_dict(host), Path(state_dir, MARKER)
    if garbage.read_marker(marker) is None and not _may_be_switched(settings):
        return None
    server = Server(settings, access, stopped=True)
    with _alone(server), _Signals() as signals:
        signals.hold()
        return _recover(server, marker)


def _may_be_switched(host):
    """Whether it takes the engine to know that no configuration was left switched."""
    if not host.config_path or not Path(host.config_path).is_absolute():
        return True
    return any(Path(host.config_path).glob(f"*{KEPT}"))


def _recover(server, path):
    marker = garbage.read_marker(path)
    if marker is None and not server.switched:
        return None
    marker = marker or garbage.Marker("unknown")
    if marker.phase != ANNOUNCED or server.switched:
        server.stop_collecting()
        _bring_back(server, marker.phase)
    garbage.clear_marker(path)
    return Recovery(marker.phase, marker.pid, marker.started)


def _bring_back(server, phase):
    """Make the server what it was before, from any phase."""
    try:
        server.flush_cache()
    except HomelabError as error:
        if phase in (ANNOUNCED, SWITCH):
            pass  # nothing was removed: what the cache holds is true
        else:
            # Pushes would "succeed" without sending layers that are gone. Pulls go on.
            raise HomelabError(
                f"the registry stays read-only, because its cache cannot be emptied: {error.message}",
                error.where,
                "bring Redis back, then run registryctl recover",
            ) from error
    for left in reversed(range(_BRING_BACK_TRIES)):
        try:
            return server.make_writable(writes=not server.configured_read_only)
        except HomelabError as error:
            if not left:
                raise HomelabError(
                    f"the registry could not be brought back after maintenance: {error.message}",
                    error.where,
                    "see its log, then run registryctl recover",
                ) from error
            time.sleep(1)
    return None


@contextmanager
def _alone(server):
    """Hold the configuration's directory: two maintenances exclude each other whatever state_dir they were given."""
    place = str(server.config_path.parent)
    try:
        handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HomelabError(f"it cannot be opened: {error.strerror}", place, "run it as root") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy("another maintenance of this registry is under way", place, "wait until it is done") from error
        yield
    finally:
        os.close(handle)


class _Signals:
    """While it is entered, signals that ask for an end raise Interrupted where the program is; after `hold` they wait
    until what is being brought back is back."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self):
        self._before = {}
        self._held = False

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in self.NUMBERS:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                    self._before[number] = signal.signal(number, self._got)
        return self

    def __exit__(self, *_error):
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def hold(self):
        self._held = True

    def _got(self, number, _frame):
        if not self._held:
            self._held = True
            raise Interrupted(
                f"garbage collection was ended by {signal.Signals(number).name}", None, "run it again; nothing is lost"
            )


class _Collection:
    def __init__(self, host, access, state_dir, upload_age, tag_links, damaged, progress):
        self.marker = Path(state_dir, MARKER)
        # one that was cut off may have left it stopped
        self.server = Server(host, access, stopped=garbage.read_marker(self.marker) is not None)
        self.upload_age, self.tag_links, self.damaged = upload_age, tag_links, damaged
        self.say = progress or (lambda _text: None)
        self.report = CollectReport(driver=self.server.driver)
        self.phase, self.begun = ANNOUNCED, 0.0
        if self.server.root and os.path.realpath(state_dir).startswith(os.path.realpath(self.server.root) + os.sep):
            raise HomelabError("is among the registry's data", str(state_dir), "choose another state_dir")

    # --- looking --------------------------------------------------------------------------------------------
    def look(self) -> CollectReport:
        report = self.report
        report.check = True
        marker = garbage.read_marker(self.marker)
        if marker or self.server.switched:
            marker = marker or garbage.Marker("unknown")
            report.recovered = Recovery(marker.phase, marker.pid, marker.started)
        self._foresee(self._plan())
        return report

    def _plan(self) -> Plan | None:
        """What there is to do as the tree is now; fills the report with what does not depend on doing it."""
        report, server = self.report, self.server
        if server.root is None:
            return None
        tree = Tree(server.root, mended=True)
        plan = plan_garbage(tree, server.major, self.upload_age)
        report.repaired = garbage.lost_links(tree)
        report.findings = list(map(str, plan.findings))
        report.last_copies = plan.last_copies
        report.refusals = plan.refusals
        return plan

    def _foresee(self, plan):
        report = self.report
        if plan is None:
            run = parse_dry_run(_text(self.server.garbage_collect(dry_run=True)))
            report.blobs, report.freed = len(run.blobs), None
            report.left = [f"{name}: only the filesystem driver's data is within reach" for name in self._wishes()]
            return
        if not plan.refusals:
            report.blobs, report.layer_links = len(plan.sweep.blobs), len(plan.sweep.layer_links)
            report.uploads = [f"{upload.repository}/_uploads/{upload.uuid}" for upload in plan.uploads]
            report.upload_bytes = plan.upload_bytes
            report.freed = plan.freed + plan.upload_bytes
            report.repositories = plan.empty
        report.tags = [f"{repository}:{tag}" for repository, tag, _digest in self.tag_links]
        report.damaged = list(self.damaged)

    def _wishes(self):
        return [*(f"{repository}:{tag}" for repository, tag, _digest in self.tag_links), *self.damaged]

    # --- collecting -----------------------------------------------------------------------------------------
    def collect(self) -> CollectReport:
        report, server = self.report, self.server
        server.refuse_if_collecting()
        report.recovered = self._recover_earlier()
        self.say("looking for garbage")
        plan = self._plan()
        if plan is None:
            self._foresee(plan)
            if not report.blobs:
                return report
            report.blobs = 0
        elif plan.refusals and not self.damaged:
            raise _refusal(plan.refusals)
        elif plan.nothing and not self._wishes() and not report.repaired:
            return report
        takes_writes = server.takes_writes()
        if not takes_writes and not server.configured_read_only:
            raise HomelabError(
                "the registry refuses writes, but its configuration does not say so",
                str(server.config_path),
                "restart its container; if that does not help, see its environment",
            )
        server.check_cache()
        self._maintain(takes_writes)
        return report

    def _recover_earlier(self):
        if garbage.read_marker(self.marker) is None and not self.server.switched:
            return None
        self.say("bringing back what an earlier run has left")
        with _Signals() as signals:
            signals.hold()
            return _recover(self.server, self.marker)

    def _maintain(self, takes_writes):
        """The window, and the way out of it, whatever happens."""
        report, server = self.report, self.server
        self.begun = time.time()
        failure = closed = None
        with _Signals() as signals, Watch(server.url) as watch:
            # A signal raises once, and wherever that is between here and `hold`, it ends up in `failure`.
            try:
                try:
                    self._mark(ANNOUNCED)
                    if takes_writes:
                        self.say("making the registry read-only")
                        self._mark(SWITCH)
                        closed = time.monotonic()
                        server.make_read_only()
                    if server.root is None:
                        self._sweep_object_store()
                    else:
                        with Window(server.root, server.is_read_only) as window:
                            self._work(window)
                    signals.hold()
                except BaseException as error:
                    signals.hold()
                    failure = error
            except Interrupted as error:
                failure = failure or error
            self._leave(failure)
            if closed is not None:
                report.read_only_seconds = time.monotonic() - closed
        report.unreachable_seconds, report.longest_gap_seconds = watch.unreachable, watch.longest
        if failure:
            raise failure

    def _leave(self, failure):
        phase = self.phase
        try:
            self.say("making the registry writable")
            if phase == SWEEP:
                self._mark(WRITABLE)
        except Exception as error:  # a full disk or a closed terminal must not bar the way out
            failure = failure or error
        try:
            if phase != ANNOUNCED:
                self.server.stop_collecting()
                _bring_back(self.server, phase)
            garbage.clear_marker(self.marker)
        except HomelabError as error:
            if failure is None:
                raise
            raise HomelabError(f"{failure}; and then {error.message}", error.where, error.remedy) from failure

    def _mark(self, phase):
        self.phase = phase
        garbage.write_marker(self.marker, phase, self.begun)

    # --- in the window --------------------------------------------------------------------------------------
    def _work(self, window):
        report, server = self.report, self.server
        self.say("looking again, now that nothing is written")
        # By itself it does no harm, and without it there may be nothing to judge.
        report.repaired = garbage.repair_links(window)
        tree = Tree(server.root)
        plan = plan_garbage(tree, server.major, self.upload_age)
        report.findings, report.refusals = list(map(str, plan.findings)), plan.refusals
        report.last_copies = plan.last_copies
        if plan.refusals and not self.damaged:
            raise _refusal(plan.refusals)
        before = {damage.name for damage in verify(tree).damages}
        stored = sum(tree.blobs().values())
        sweeps = not plan.refusals and plan.sweep.failure is None and (plan.sweep.blobs or plan.sweep.layer_links)
        if sweeps:
            self.say("asking the server's garbage collection what it would remove")
            finished = server.garbage_collect(dry_run=True)
            differences = disagreements(plan.sweep, parse_dry_run(_text(finished)))
            if differences:
                raise _refusal(differences, "the server's garbage collection and our own mark disagree")
        window.check()
        self._mark(SWEEP)
        if sweeps:
            self.say(f"sweeping {len(plan.sweep.blobs)} blobs")
            server.garbage_collect(dry_run=False)
            if not server.is_read_only():
                raise HomelabError(
                    "somebody made the registry writable while it was swept",
                    str(server.config_path),
                    "run registryctl verify: what was pushed meanwhile may lack layers; push it again",
                )
        self.say("removing what the server does not remove")
        if not plan.refusals:
            removed = self._note(garbage.remove_uploads(window, plan.uploads))
            sizes = {f"{upload.repository}/_uploads/{upload.uuid}": upload.size for upload in plan.uploads}
            report.uploads, report.upload_bytes = removed, sum(sizes[name] for name in removed)
        report.tags = self._note(garbage.remove_tag_links(window, self.tag_links))
        report.damaged = self._note(garbage.remove_damaged_blobs(window, self.damaged))
        if not plan.refusals:
            report.repositories = self._note(garbage.remove_empty_repositories(window, plan.empty))
        self.say("verifying every tag")
        after = self._verify(before)
        report.blobs = len(tree.blobs().keys() - after.blobs().keys() - set(report.damaged))
        report.layer_links = len(plan.sweep.layer_links) if sweeps else 0
        report.freed = stored - sum(after.blobs().values()) + report.upload_bytes

    def _note(self, removal):
        self.report.left += removal.left
        return removal.done

    def _verify(self, before=None):
        tree = Tree(self.server.root)
        found = verify(tree)
        report = self.report
        report.verified = found.tags
        report.damages = [damage.as_dict() for damage in found.damages]
        if before is not None:
            report.new_damages = [damage.name for damage in found.damages if damage.name not in before]
        return tree

    def _sweep_object_store(self):
        """Without a tree within reach the server's own judgement is all there is."""
        report, server = self.report, self.server
        self.say("asking the server's garbage collection what it would remove")
        run = parse_dry_run(_text(server.garbage_collect(dry_run=True)))
        if run.manifests:
            raise _refusal([f"it would delete manifests: {shown(run.manifests)}"])
        self._mark(SWEEP)
        self.say(f"sweeping {len(run.blobs)} blobs")
        server.garbage_collect(dry_run=False)
        report.blobs, report.layer_links = len(run.blobs), len(run.layer_links)


def _refusal(reasons, said="garbage collection is not safe"):
    return Refused(f"{said}: {'; '.join(reasons)}", None, "nothing was removed; run verify to see what is damaged")


def _text(finished):
    """The output of garbage-collect as parse_dry_run wants it."""
    return f"{finished.output}\n{finished.errors}"
