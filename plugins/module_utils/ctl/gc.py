# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl gc and registryctl recover: collect garbage, and bring back a registry that was left read-only."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .. import lock
from ..errors import HomelabError
from ..report.gc import gc_summary
from ..storage.garbage import UPLOAD_AGE
from ..storage.maintenance import Interrupted, collect, recover
from .common import INTERRUPTED, OK, SOME_FAILED, common_options, lock_options, locked, now, say, write_result
from .settings import load_config

RESULT = "gc.json"


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """The arguments of both verbs."""
    parser = verbs.add_parser(
        "gc",
        help="remove what no image needs",
        description="Remove blobs that no image needs, abandoned uploads and empty repositories. Writes are refused"
        " meanwhile, pulls go on; where there is nothing to remove the registry is not touched.",
        epilog="Exit status: 0 done, 1 done, and images are damaged, 2 nothing was removed, 75 another run is under"
        " way, 130 interrupted.",
    )
    parser.add_argument(
        "--upload-age",
        metavar="HOURS",
        type=float,
        default=UPLOAD_AGE,
        help=f"an upload without a sign of life for so long is abandoned ({UPLOAD_AGE})",
    )
    common_options(parser, dry_run=True)
    parser.set_defaults(verb=_gc)
    parser = verbs.add_parser(
        "recover",
        help="bring back a registry that an interrupted maintenance left read-only",
        description="Bring back a registry that an interrupted maintenance left read-only. Without one nothing is"
        " done and nothing is said, so that it can run at each boot.",
    )
    parser.add_argument("--config", metavar="FILE", help="settings (JSON)")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON, and nothing else")
    lock_options(parser)
    parser.set_defaults(verb=_recover)


def maintenance_settings(config: dict) -> dict:
    """The first arguments of maintenance.collect and recover, from the settings: host, access, state_dir.

    Raises:
        HomelabError: there is no address of the registry.
    """
    access = {key: value for key, value in (config.get("registry") or {}).items() if value is not None}
    if not access.get("url"):
        raise HomelabError("the registry's address is not set", "registry.url", "site.yml with the role jobs writes it")
    return {
        "host": {key: value for key, value in (config.get("host") or {}).items() if value is not None},
        "access": access,
        "state_dir": config.get("state_dir") or lock.STATE_DIR,
    }


def step(quiet: bool) -> Callable[[str], None] | None:
    """What tells the user which step begins; None if nothing is to be told."""

    def tell(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    return None if quiet else tell


def _gc(arguments):
    config = load_config(arguments.config)
    settings = maintenance_settings(config)
    started = now()
    result = arguments.result = arguments.result or (
        None if arguments.dry_run else Path(settings["state_dir"], RESULT)
    )
    try:
        with locked(arguments, {"state_dir": settings["state_dir"]}, exclusive=True, verb="registryctl gc"):
            report = collect(
                **settings,
                upload_age=arguments.upload_age,
                check=arguments.dry_run,
                progress=step(arguments.json),
            ).as_dict()
    except lock.Busy:
        raise  # the result is that of the run that holds it
    except HomelabError as error:
        write_result(result, {"started": started, "finished": now(), "error": str(error)})
        if isinstance(error, Interrupted):
            return say(error, INTERRUPTED)
        raise
    write_result(result, {"started": started, "finished": now(), **report})
    sys.stdout.write((json.dumps(report, indent=2) if arguments.json else gc_summary(report)) + "\n")
    sys.stdout.flush()
    return SOME_FAILED if report["damages"] else OK


def _recover(arguments):
    config = load_config(arguments.config)
    if not config.get("registry"):
        return OK  # a machine without a registry
    settings = maintenance_settings(config)
    # A mirror run does not stand in its way: it cannot write before.
    with locked(arguments, {"state_dir": settings["state_dir"]}, exclusive=False, verb="registryctl recover"):
        done = recover(**settings)
    if arguments.json:
        sys.stdout.write(json.dumps(done and asdict(done)) + "\n")
    elif done:
        say(f"{done}; the registry takes writes again", OK)
    return OK
