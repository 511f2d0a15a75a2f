# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl schedule: the timers of a host without systemd, in the jobs' container.

Each job is a verb of registryctl with its arguments, run as a process of its own, one after the other. What `decide`
knows of time is pure. As systemd's timers do it: a run that was missed while the machine was off is made up for, once;
each run starts a little later than its time, by an amount that is the same for the same host, job and day.

The settings are read again before each look at the clock, and a new version of the program replaces this one between
two jobs: nothing has to be restarted, so nothing is interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..errors import HomelabError
from ..on_calendar import parse, span
from ..report.numbers import duration
from ..report.table import render
from ..text_file import read_text, write_atomic
from .common import BUSY, NOTHING_DONE, OK, SOME_FAILED, say
from .settings import load_config

#: Of a job: what may be in it, and what must.
_JOB, _NEEDED = ("name", "on_calendar", "randomized_delay", "timeout", "command"), ("name", "on_calendar", "command")
#: Seconds between two looks at settings and clock.
LOOK = 30
#: Seconds a job is given to end by itself when the container stops (its stop_timeout is longer).
GRACE = 240
#: A time further ahead than this in the memory comes from a clock that was wrong.
_CLOCK = 86400


@dataclass(frozen=True)
class Job:
    """A verb with its arguments, and when it runs."""

    name: str
    on_calendar: str
    command: tuple[str, ...]
    randomized_delay: float = 0.0
    timeout: float = float("inf")


@dataclass(frozen=True)
class Next:
    """The run that is to be next: its time by the calendar and with the delay; seconds since the epoch."""

    slot: float
    at: float


# --- when -------------------------------------------------------------------------------------------------------
def jobs_of(settings: Mapping) -> list[Job]:
    """The jobs of the section `schedule`.

    Raises:
        HomelabError: a job without a name, a time or a command, or with a wrong one.
    """
    jobs = []
    for number, given in enumerate(settings.get("jobs") or [], 1):
        where = f"schedule, job {number}"
        if not isinstance(given, Mapping) or any(not given.get(key) for key in _NEEDED):
            raise HomelabError(f"not a mapping with {', '.join(_NEEDED)}", where)
        unknown = [key for key in given if key not in _JOB]
        if unknown:
            raise HomelabError(f"unknown setting {unknown[0]!r}", where, f"there are {', '.join(_JOB)}")
        parse(given["on_calendar"])
        jobs.append(
            Job(
                str(given["name"]),
                given["on_calendar"],
                tuple(str(word) for word in given["command"]),
                span(given.get("randomized_delay") or 0),
                span(given.get("timeout") or "infinity"),
            )
        )
    names = [job.name for job in jobs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise HomelabError(f"there are several jobs named {twice[0]!r}", "schedule")
    return jobs


def decide(job: Job, last: float, host: str = "") -> Next | None:
    """The next run after the time of the last one; None if its calendar has no time any more.

    Args:
        job: the job.
        last: the time by the calendar of the run before, or of the first look (seconds since the epoch).
        host: so that not every host of a fleet asks Docker Hub at the same second.
    """
    found = parse(job.on_calendar).after(datetime.fromtimestamp(last))
    if found is None:
        return None
    # local time that does not exist (the hour lost in spring) becomes the one an hour later
    slot = found.timestamp()
    word = hashlib.sha256(f"{host}\0{job.name}\0{slot}".encode()).digest()
    return Next(slot, slot + int.from_bytes(word[:4], "big") / 2**32 * job.randomized_delay)


def caught_up(job: Job, slot: float, now: float) -> float:
    """The last time by the calendar that is over: several missed runs are one."""
    while True:
        following = decide(job, slot)
        if following is None or following.slot > now:
            return slot
        slot = following.slot


# --- the verb ---------------------------------------------------------------------------------------------------
def add_parser(verbs: argparse._SubParsersAction) -> None:
    """The verb's arguments."""
    parser = verbs.add_parser(
        "schedule",
        help="run the jobs of the settings at their times, for ever",
        description="Run the jobs of the settings at their times, for ever: the timers of a host without systemd.",
    )
    parser.add_argument("--list", action="store_true", help="only show the jobs, their last and their next run")
    parser.add_argument("--now", metavar="JOB", help="run this job now, and nothing else")
    parser.add_argument("--config", metavar="FILE", help="settings (JSON)")
    parser.set_defaults(verb=_run)


def _run(arguments):
    config = load_config(arguments.config)
    jobs = jobs_of(config.get("schedule") or {})
    memory = Memory(config.get("state_dir"))
    if arguments.list:
        sys.stdout.write(_table(jobs, memory) + "\n")
        return OK
    if arguments.now:
        wanted = [job for job in jobs if job.name == arguments.now]
        if not wanted:
            raise HomelabError(f"there is no job {arguments.now!r}", remedy=f"there are {_names(jobs)}")
        return _start(wanted[0], arguments)
    return _for_ever(arguments, memory)


def _names(jobs):
    return ", ".join(job.name for job in jobs) or "none"


class Memory:
    """When each job ran last: `schedule.json` in the jobs' state directory.

    Raises:
        HomelabError: there is no such directory in the settings.
    """

    def __init__(self, state_dir: str | None) -> None:
        if not state_dir:
            raise HomelabError("state_dir is not set", "the settings", "site.yml writes them")
        self._path = Path(state_dir, "schedule.json")
        try:
            known = json.loads(read_text(str(self._path)) or "{}")
        except ValueError:
            known = {}  # lost: the next runs are those from now on
        self._jobs = known if isinstance(known, dict) else {}
        self._problem = ""

    def last(self, name: str, now: float) -> float:
        """The time of a job's last run; now for one that is new, or whose memory is of a clock that was wrong."""
        entry = self._jobs.get(name)
        slot = entry.get("slot") if isinstance(entry, dict) else None
        if not isinstance(slot, (int, float)) or slot > now + _CLOCK:
            self.keep(name, slot=now)
            return now
        return slot

    def of(self, name: str) -> dict:
        """What is known of a job."""
        entry = self._jobs.get(name)
        return dict(entry) if isinstance(entry, dict) else {}

    def keep(self, name: str, **values: object) -> None:
        """Remember, on disk too if it has room: on a full one the guard has to run all the same."""
        self._jobs[name] = {**self.of(name), **values}
        try:
            write_atomic(str(self._path), json.dumps(self._jobs, indent=2) + "\n", 0o644)
        except HomelabError as error:
            if str(error) != self._problem:  # once, not for every job
                say(error, OK)
            self._problem = str(error)
        else:
            self._problem = ""


def _for_ever(arguments, memory):
    program = _program_state()
    told = problem = ""
    say("the jobs are in my hands", OK)
    # the machine may have gone down in the middle of a garbage collection
    _start(Job("recover", "", ("recover",)), arguments)
    jobs, host = [], socket.gethostname()
    while True:
        if _program_state() != program:
            say("a new version is there: it takes over", OK)
            os.execv(sys.executable, [sys.executable, "-I", *sys.argv])
        try:
            jobs, problem = jobs_of(load_config(arguments.config).get("schedule") or {}), ""
        except HomelabError as error:
            if str(error) != problem:  # once, not at every look
                problem = str(error)
                say(f"{error}; the jobs stay as they were", OK)
        now = time.time()
        coming = []
        for job in jobs:
            following = decide(job, memory.last(job.name, now), host)
            if following is None:
                continue
            if following.at <= now:
                memory.keep(job.name, slot=caught_up(job, following.slot, now), started=now, exit=None, finished=None)
                code = _start(job, arguments)
                # as the timers' services do; the guard tells of a full disk itself
                if code not in (OK, BUSY) and (job.command[0], code) != ("guard", SOME_FAILED):
                    _start(Job(f"notify {job.name}", "", ("notify", job.command[0])), arguments)
                memory.keep(job.name, exit=code, finished=time.time())
                following = decide(job, memory.last(job.name, time.time()), host)
            if following:
                coming.append((following.at, job.name))
        plan = "; ".join(f"{name} {_time(at)}" for at, name in sorted(coming)) or "nothing to do"
        if plan != told:
            told = plan
            say(f"next: {plan}", OK)
        ahead = min((at for at, _name in coming), default=now + LOOK) - time.time()
        time.sleep(min(LOOK, max(0.5, ahead)))


def _program_state():
    """What tells one version of the program from another."""
    try:
        found = Path(sys.argv[0]).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _start(job, arguments):
    """Run a job to its end; its exit code."""
    command = [sys.executable, "-I", sys.argv[0], *job.command]
    if arguments.config:
        command += ["--config", arguments.config]
    begun = time.monotonic()
    say(f"{job.name}: {' '.join(job.command)}", OK)
    try:
        # after the pulls and pushes of the nodes
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=lambda: os.nice(10))
    except OSError as error:
        return say(f"{job.name} cannot be started: {error}", NOTHING_DONE)
    try:
        code = child.wait(None if job.timeout == float("inf") else job.timeout)
    except subprocess.TimeoutExpired:
        code = _stop(child)
        say(f"{job.name} took longer than {duration(job.timeout)} and was stopped", OK)
    except KeyboardInterrupt:
        _stop(child)
        raise
    return say(f"{job.name} ended with {code} after {duration(time.monotonic() - begun)}", code)


def _stop(child):
    """Like systemd: a request first, so that the job can bring things in order."""
    child.terminate()
    try:
        return child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _table(jobs, memory):
    rows, now = [], time.time()
    for job in jobs:
        entry = memory.of(job.name)
        following = decide(job, entry.get("slot") or now, socket.gethostname())
        last = _time(entry["started"]) if entry.get("started") else "-"
        # killed by a power cut, or under way
        code = "-" if not entry.get("started") else "not ended" if entry.get("exit") is None else entry["exit"]
        rows.append([job.name, last, code, _time(following.at) if following else "-", " ".join(job.command)])
    return render(rows, ["job", "last run", "exit", "next run", "registryctl"])


def _time(seconds):
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
