# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl cleanup: delete the images that a policy lets go, and collect the garbage."""

from __future__ import annotations

import argparse
import json
import sys

from .. import lock
from ..errors import HomelabError
from ..report.cleanup import cleanup_summary, cleanup_totals
from ..retention.run import prepare
from .common import (
    INTERRUPTED,
    NOTHING_DONE,
    OK,
    SOME_FAILED,
    access_of,
    common_options,
    locked,
    now,
    say,
    write_result,
)
from .gc import step
from .settings import load_config


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """The verb's arguments."""
    parser = verbs.add_parser(
        "cleanup",
        help="delete the images that a policy lets go",
        description="Delete the images that the policy lets go, and collect the garbage. The policy is that of the"
        " settings; what is given here takes the place of the same value there.",
        epilog="Exit status: 0 all is done, 1 something failed, 2 nothing was done (a plan that deletes too much is"
        " refused, see --force), 75 another run is under way.",
    )
    parser.add_argument("--keep-last", metavar="N", help="the newest N images of each group stay")
    parser.add_argument("--max-age", metavar="DAYS", help="what is younger stays")
    parser.add_argument("--keep-min", metavar="N", help="so many images of a repository stay whatever else is said")
    parser.add_argument(
        "--protect", metavar="P", action="append", help="pattern of tags or of repository:tag, or digest; repeatable"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        default=None,
        help="also delete more than max_delete_share, or all of a repository",
    )
    parser.add_argument("--no-gc", action="store_true", help="leave the garbage to a later run")
    parser.add_argument("--all", action="store_true", help="show what stays, too, and why")
    common_options(parser, to=True, dry_run=True)
    parser.set_defaults(verb=_run)


def cleanup_settings(arguments: argparse.Namespace, config: dict) -> dict:
    """The settings of one clean-up: what was typed goes before what is in the file."""
    access = access_of(arguments, config)
    section = {key: value for key, value in (config.get("cleanup") or {}).items() if value is not None}
    policy = dict(section.pop("policy", {}))
    typed = {
        "keep_last": arguments.keep_last,
        "max_age": arguments.max_age,
        "keep_min": arguments.keep_min,
        "force": arguments.force,
    }
    policy.update({key: value for key, value in typed.items() if value is not None})
    if arguments.protect:
        # More protection; what the file protects stays protected.
        rules = [*policy.get("rules", ()), {"repositories": "*", "protect": arguments.protect}]
        policy["rules"] = rules
    settings = {**section, "policy": policy, **access}
    if access.get("url") == (config.get("registry") or {}).get("url"):
        settings["host"] = config.get("host")  # another registry is not on this machine
        if config.get("state_dir"):
            settings["state_dir"] = config["state_dir"]
        settings["state_path"] = (config.get("mirror") or {}).get("state_path")
    if arguments.no_gc:
        settings["gc"] = False
    return settings


def _run(arguments):
    started = now()
    try:
        config = load_config(arguments.config, optional=bool(arguments.to))
        settings = cleanup_settings(arguments, config)
        prepare(settings)  # a mistake is told at once
        with locked(arguments, config, exclusive=True, verb="registryctl cleanup"):
            # what others remember is read now that they are done
            report = prepare(settings).run(check=arguments.dry_run, progress=step(quiet=False))
    except lock.Busy:
        raise  # the result is that of the run that holds it
    except HomelabError as error:
        write_result(arguments.result, {"started": started, "finished": now(), "error": str(error)})
        raise
    result = report.as_dict()
    write_result(arguments.result, {"started": started, "finished": now(), **result})
    shown = report.as_dict(everything=True) if arguments.all else result
    if arguments.json:
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    elif arguments.all or arguments.dry_run or report.refused or sys.stdout.isatty():
        sys.stdout.write(cleanup_summary(shown) + "\n")
    else:  # a log has had a line for each deletion
        sys.stdout.write("".join(f"{note}\n" for note in report.notes) + cleanup_totals(result) + "\n")
    sys.stdout.flush()
    if report.refused:
        say(report.refused, NOTHING_DONE)
        return NOTHING_DONE
    if report.interrupted:
        return INTERRUPTED
    return SOME_FAILED if report.failed or report.trouble else OK
