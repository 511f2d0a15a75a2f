# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl mirror: copy images from other registries."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .. import lock
from ..errors import HomelabError
from ..mirroring.run import prepare
from ..report.mirror import mirror_summary, mirror_totals
from .common import OK, SOME_FAILED, access_of, common_options, locked, now, progress, say, write_result
from .settings import load_config


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """The verb's arguments."""
    parser = verbs.add_parser(
        "mirror",
        help="copy images from other registries",
        description="Copy images from other registries into the private one. Without IMAGE and --list those of the"
        " settings. What is there already costs one HEAD request on each side.",
        epilog="Exit status: 0 all images are in place (or wait for a rate limit), 1 some failed, 2 nothing could be"
        " done, 75 another run is under way.",
    )
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="such as node:20-alpine or quay.io/org/app:v1")
    parser.add_argument("--list", metavar="FILE", help="images, one a line with # for comments, or a JSON list")
    parser.add_argument(
        "--platform", metavar="P", action="append", help="only this platform, as linux/arm64; repeatable"
    )
    parser.add_argument("--referrers", action="store_true", default=None, help="with signatures, attestations, SBOMs")
    parser.add_argument(
        "--prune", action="store_true", default=None, help="remove mirrored tags that are gone upstream"
    )
    parser.add_argument(
        "--heal", action="store_true", help="also fetch mirrored images again that are damaged in the registry"
    )
    parser.add_argument("--deep", action="store_true", help="with --heal: read every byte to find them")
    parser.add_argument("--workers", metavar="N", type=int, help="requests and blobs at one time")
    parser.add_argument(
        "--state", metavar="FILE", help="memory of earlier runs; by default one for each registry in state_dir"
    )
    common_options(parser, to=True, dry_run=True)
    parser.set_defaults(verb=_run)


def mirror_settings(arguments: argparse.Namespace, config: dict) -> dict:
    """The settings of one mirror run: what was typed goes before what is in the file.

    Raises:
        HomelabError: the list cannot be read.
    """
    settings = {**(config.get("mirror") or {}), **access_of(arguments, config)}
    images = list(arguments.images)
    if arguments.list:
        images += _read_list(arguments.list)
    if images:
        settings["images"] = images
    if config.get("state_dir"):
        settings["state_dir"] = config["state_dir"]
    typed = {
        "platforms": arguments.platform,
        "referrers": arguments.referrers,
        "prune": arguments.prune,
        "workers": arguments.workers,
        "state_path": arguments.state,
    }
    settings.update({key: value for key, value in typed.items() if value is not None})
    return settings


def _read_list(name):
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise HomelabError(f"the list cannot be read: {reason}", name, "correct --list") from error
    if not text.lstrip().startswith("["):
        return [text]
    try:
        return json.loads(text)
    except ValueError as error:
        raise HomelabError(f"not JSON: {error}", name, "correct it, or write one image a line") from error


def _run(arguments):
    started = now()
    healing = None
    try:
        config = load_config(arguments.config, optional=bool(arguments.to))
        settings = mirror_settings(arguments, config)
        request = prepare({**settings, "heal": [] if arguments.heal else None})
        alone = bool(settings.get("prune")) or arguments.heal
        with locked(arguments, config, exclusive=alone, verb="registryctl mirror"):
            if arguments.heal:
                from . import heal  # with all of storage/, which the others do not wait for

                before = heal.find(arguments, config)
                heal.make_way(arguments, config, before)
                request = prepare({**settings, "heal": heal.healable(before)})
            with progress() as shown:
                report = request.run(check=arguments.dry_run, progress=shown)
            if arguments.heal:
                looks_again = heal.healable(before) and not arguments.dry_run
                healing = heal.outcome(before, heal.find(arguments, config) if looks_again else None)
    except lock.Busy:
        raise  # the result is that of the run that holds it
    except HomelabError as error:
        write_result(arguments.result, {"started": started, "finished": now(), "error": str(error)})
        raise
    result = {**report.as_dict(), **({"healing": healing} if healing else {})}
    write_result(arguments.result, {"started": started, "finished": now(), **result})
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    elif arguments.dry_run or sys.stdout.isatty() or sys.stderr.isatty():
        sys.stdout.write(mirror_summary(result) + "\n")
    else:  # a log has had a line for each image
        sys.stdout.write(mirror_totals(result) + "\n")
    sys.stdout.flush()
    if report.deferred:
        say(f"{len(report.deferred)} images are deferred; a later run brings them", OK)
    failed = report.failed or [one for one in result["pruned"] if one["action"] == "failed"]
    if healing:
        _say_healing(healing)
        failed = failed or healing["still_damaged"]
    return SOME_FAILED if failed else OK


def _say_healing(healing):
    if not healing["damaged"]:
        say("no mirrored image is damaged", OK)
    if healing["still_damaged"]:
        say(f"still damaged: {', '.join(healing['still_damaged'])}; registryctl verify says what is wrong", OK)
    if healing["not_mirrored"]:
        say(f"damaged, and to be pushed again by whoever made them: {', '.join(healing['not_mirrored'])}", OK)
