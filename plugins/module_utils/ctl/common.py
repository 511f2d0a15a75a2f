# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every verb of registryctl has in common: exit codes, arguments, the lock, progress, the result file.

A verb is a file beside this one with ``add_parser(verbs)`` and the function that runs it, which takes the parsed
arguments and returns an exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from pathlib import Path

from .. import lock
from ..report.progress import Bar, Lines, Meter
from ..text_file import write_atomic
from .settings import CONFIG

#: Exit codes. BROKEN is EX_SOFTWARE; BUSY is EX_TEMPFAIL: nothing is wrong, the next run will do it.
OK, SOME_FAILED, NOTHING_DONE, BROKEN, BUSY, INTERRUPTED = 0, 1, 2, 70, 75, 130


def say(message: object, code: int) -> int:
    """A line to the user; returns the exit code."""
    sys.stderr.write(f"registryctl: {message}\n")
    return code


def now() -> str:
    """The time, as it stands in results: UTC, RFC 3339."""
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")


# --- arguments ----------------------------------------------------------------------------------------------
def common_options(parser: argparse.ArgumentParser, *, to: bool = False, dry_run: bool = False) -> None:
    """Options that many verbs take.

    Args:
        to: it works on any registry that is named.
        dry_run: it changes something, and can say beforehand what.
    """
    parser.add_argument("--config", metavar="FILE", help=f"settings (JSON); {CONFIG} if it is there")
    if to:
        parser.add_argument(
            "--to", metavar="URL", help="another registry than the one in the settings: http[s]://host:port"
        )
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    parser.add_argument("--result", metavar="FILE", help="also write the report to a file, as JSON")
    lock_options(parser)


def lock_options(parser: argparse.ArgumentParser) -> None:
    """Options of verbs that take the lock."""
    parser.add_argument("--lock", metavar="FILE", help="lock; by default the file lock in state_dir")
    parser.add_argument("--wait", metavar="TIME", default="0", help="for another run to end, as 30min or 6h")


# --- settings -----------------------------------------------------------------------------------------------
def access_of(arguments: argparse.Namespace, config: dict) -> dict:
    """How the registry is reached: what was typed (--to) goes before what is in the file."""
    access = {key: value for key, value in (config.get("registry") or {}).items() if value is not None}
    if arguments.to and arguments.to.rstrip("/") != (access.get("url") or "").rstrip("/"):
        return {"url": arguments.to}  # the account of one registry is no business of another
    return access


# --- a run --------------------------------------------------------------------------------------------------
@contextmanager
def locked(arguments: argparse.Namespace, config: dict, *, exclusive: bool, verb: str) -> Iterator[None]:
    """The lock, see lock.hold; a dry run needs none. With it the result of the run before goes: of a run that is killed
    nothing shall be told that is another's."""
    if getattr(arguments, "dry_run", False):
        yield
        return
    state_dir = config.get("state_dir") or (config.get("host") and lock.STATE_DIR)
    path = arguments.lock or (state_dir and Path(state_dir, "lock"))
    with lock.hold(path, exclusive=exclusive, verb=verb, wait=_seconds(arguments.wait)) if path else nullcontext():
        if getattr(arguments, "result", None):
            with suppress(OSError):
                Path(arguments.result).unlink()
        yield


def _seconds(wait):
    if wait == "0":  # as it is by default
        return 0
    from ..on_calendar import span

    return span(wait)


@contextmanager
def progress() -> Iterator[Lines]:
    """A bar on a terminal, lines in a log."""
    if not sys.stderr.isatty():
        yield Lines(sys.stderr)
        return
    shown = Bar(sys.stderr)
    try:
        yield shown
    finally:
        shown.close()


@contextmanager
def meter() -> Iterator[Callable[[int, int], None] | None]:
    """Called with (bytes done, bytes in all) it shows how far a long reading is; only on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = Meter(sys.stderr)
    try:
        yield shown.at
    finally:
        shown.close()


def read_result(path: str | Path) -> dict:
    """What a run has written there; an empty mapping for what is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_result(name: str | Path | None, result: dict) -> None:
    """Whole or not at all: the portal and the metrics read it at any moment."""
    if not name:
        return
    write_atomic(name, json.dumps(result) + "\n", 0o644)
