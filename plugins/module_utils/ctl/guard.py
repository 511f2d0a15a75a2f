# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl guard: look how full the disk is, clean up by the policy, tell somebody."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from ..errors import HomelabError
from ..lock import STATE_DIR
from ..report.notify import Message
from ..report.numbers import size
from ..storage import guard
from ..storage.usage import file_system
from .common import BUSY, INTERRUPTED, NOTHING_DONE, OK, SOME_FAILED, now, read_result, say, write_result
from .notify import notifier_of, send
from .settings import load_config

RESULT = "guard.json"
#: What of a policy lets anything go.
_LETS_GO = ("keep_last", "max_age", "rules")
_WORDS = {
    guard.CRITICAL: "is nearly full",
    guard.NO_POLICY: "fills up, and no clean-up policy is set",
    guard.FAILED: "fills up, and cleaning up failed",
    guard.NOT_ENOUGH: "fills up, and the clean-up policy does not free enough",
    None: "has space again",
}


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """The verb's arguments."""
    parser = verbs.add_parser(
        "guard",
        help="look how full the registry's disk is, and act",
        description="Look how full the file system of the registry's directory is. From `warn` per cent on (75) the"
        " clean-up of the settings runs, at most once an hour; from `critical` on (80) somebody is told, on a change"
        " and then once a day. Nothing is deleted but by the policy.",
        epilog="Exit status: 0 nothing to worry about, 1 somebody should look (and was told), 2 it could not be found"
        " out, or a maintenance that was cut off could not be undone.",
    )
    parser.add_argument("--config", metavar="FILE", help="settings (JSON)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.set_defaults(verb=_run)


def _run(arguments):
    config = load_config(arguments.config)
    section = {key: value for key, value in (config.get("guard") or {}).items() if value is not None}
    limits = guard.Limits(section.get("warn", 75), section.get("critical", 80))
    path = (config.get("host") or {}).get("data_path")
    if not path:
        raise HomelabError(
            "the registry's directory is not on this machine", "host.data_path", "run the guard on the registry host"
        )
    state = Path(config.get("state_dir") or STATE_DIR, RESULT)
    earlier = read_result(state)
    memory = guard.Memory.from_dict(earlier.get("memory"))
    policy = (config.get("cleanup") or {}).get("policy") or {}
    has_policy = any(policy.get(key) is not None for key in _LETS_GO) and section.get("cleanup", True)
    started, clock = now(), time.time()
    disk = file_system(path)
    before = limits.level(disk.percent)
    cleanup = earlier.get("cleanup") if before != guard.OK and isinstance(earlier.get("cleanup"), dict) else None
    wanted = guard.wants_cleanup(before, has_policy, memory, clock)
    if arguments.dry_run:
        would = "a clean-up would run" if wanted else "nothing would be cleaned up"
        sys.stdout.write(f"{_state(disk, before, path)}; {would}\n")
        return OK
    recovered = arguments.main(["recover", *_place(arguments)])
    if recovered == INTERRUPTED:
        return INTERRUPTED
    if wanted:
        # Before it: one that is killed half-way is not tried again every minute.
        begun = guard.Memory(clock, memory.told, memory.told_at)
        _save(state, {**earlier, "memory": begun.as_dict()})
        say(f"{_state(disk, before, path)}: cleaning up", OK)
        done = _clean(arguments, state.parent, started)
        if done["status"] == INTERRUPTED:
            return INTERRUPTED
        if done["status"] != BUSY:  # else it is tried again next time
            memory, cleanup = begun, done
        disk = file_system(path)
    level = limits.level(disk.percent)
    why = guard.concern(level, has_policy, cleanup if level != guard.OK else None)
    told, later = guard.tell(why, level, memory, clock)
    failures = 0
    if told:
        failures = _tell(config, why, _state(disk, level, path), cleanup)
        # What did not get through is tried again next time.
        memory = memory if failures else later
    else:
        memory = later
    result = {
        "started": started,
        "finished": now(),
        "path": path,
        "level": level,
        "percent": round(disk.percent, 1),
        "warn": limits.warn,
        "critical": limits.critical,
        "total": disk.total,
        "used": disk.used,
        "free": disk.free,
        "policy": has_policy,
        "cleanup": cleanup,
        "concern": why,
        "told": told,
        "memory": memory.as_dict(),
    }
    if recovered not in (OK, BUSY):
        result["error"] = "a maintenance was cut off and could not be undone: registryctl recover says why"
    _save(state, result)
    shown = json.dumps(result, indent=2) if arguments.json else _summary(result, _state(disk, level, path))
    sys.stdout.write(f"{shown}\n")
    if "error" in result:
        return NOTHING_DONE
    return SOME_FAILED if why or failures else OK


def _place(arguments):
    return ["--config", arguments.config] if arguments.config else []


def _clean(arguments, state_dir, started):
    """Run the clean-up as somebody who types it would."""
    result = state_dir / "cleanup.json"
    with redirect_stdout(sys.stderr if arguments.json else sys.stdout):
        code = arguments.main(["cleanup", *_place(arguments), "--result", str(result)])
    done = read_result(result)
    error = done.get("error") or done.get("refused") or done.get("trouble")
    # Why it kept what it kept; a node that was never asked what it uses, for one.
    notes = [one for one in done.get("notes") or [] if isinstance(one, str)]
    return {"at": started, "status": code, "failed": code != OK, "error": error if code != OK else None, "notes": notes}


def _tell(config, why, state, cleanup):
    try:
        notifier = notifier_of(config)
    except HomelabError as error:
        return say(f"nobody can be told: {error}", SOME_FAILED)
    level = {None: "info", guard.CRITICAL: "critical"}.get(why, "warning")
    text = [f"{state}."]
    if cleanup and cleanup.get("error") and why:
        text.append(f"The clean-up says: {cleanup['error']}")
    if cleanup and why:
        text += (cleanup.get("notes") or [])[:3]
    if why == guard.NO_POLICY:
        text.append("Set cleanup_keep_last or cleanup_max_age and run site.yml, or delete images by hand.")
    elif why:
        text.append("registryctl cleanup --dry-run shows what the policy keeps and why; or give it a larger disk.")
    title = f"{notifier.host}: the registry's disk {_WORDS[why]}"
    return send(notifier, Message(title, "\n".join(text), level, notifier.host, "guard"))


def _state(disk, level, path):
    return f"{path}: {disk.percent:.1f} % in use ({level}), {size(disk.free)} free of {size(disk.total)}"


def _summary(result, state):
    parts = [state]
    if result["level"] != guard.OK and not result["policy"]:
        parts.append("no clean-up policy is set, nothing was deleted")
    if result["told"]:
        parts.append("somebody was told" if result["concern"] else "somebody was told that it is well again")
    return "; ".join(parts)


def _save(path, result):
    """A disk that is full may be the one with this file: the guard does its work all the same."""
    try:
        write_result(path, result)
    except HomelabError as error:
        say(error, OK)
