# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl verify: is every image whole?"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from .. import lock
from ..errors import HomelabError
from ..mirroring.run import host_of, open_target, state_path_of, target_of
from ..mirroring.state import mirrored_names
from ..report.verify import verify_summary
from ..storage.look import verify_anywhere
from .common import OK, SOME_FAILED, access_of, common_options, locked, meter, now, write_result
from .settings import load_config


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """The verb's arguments."""
    parser = verbs.add_parser(
        "verify",
        help="check that every image is whole",
        description="Check every tag, its manifest, its platforms and their blobs: there, and of the right size. From"
        " the registry's directory if it is on this machine, else over the API.",
        epilog="Exit status: 0 all images are whole, 1 some are damaged or cannot be read, 2 they could not be checked,"
        " 75 a clean-up is under way.",
    )
    parser.add_argument("--deep", action="store_true", default=None, help="also read and hash every byte")
    common_options(parser, to=True)
    parser.set_defaults(verb=_run)


def look(arguments: argparse.Namespace, config: dict, *, deep: bool, progress=None) -> dict:
    """Check every image of the registry in the settings; the result as JSON values.

    Raises:
        HomelabError: it can be asked neither on the disk nor over the API.
    """
    access = access_of(arguments, config)
    # Another registry than the one in the settings has nothing to do with this directory.
    own = access.get("url") == (config.get("registry") or {}).get("url")
    data_path = (config.get("host") or {}).get("data_path") if own else None
    settings = {**(config.get("mirror") or {}), **access}
    if config.get("state_dir"):
        settings["state_dir"] = config["state_dir"]
    known = mirrored_names(state_path_of(settings), host_of(target_of(settings))) if access.get("url") else ()
    report, source = verify_anywhere(
        data_path, partial(open_target, settings), deep=deep, mirrored=known, progress=progress
    )
    return {"source": source, "deep": deep, **report.as_dict()}


def _run(arguments):
    started = now()
    try:
        config = load_config(arguments.config, optional=bool(arguments.to))
        deep = arguments.deep or bool((config.get("verify") or {}).get("deep"))
        with locked(arguments, config, exclusive=False, verb="registryctl verify"), meter() as shown:
            result = look(arguments, config, deep=deep, progress=shown)
    except lock.Busy:
        raise  # what is removed meanwhile would look damaged
    except HomelabError as error:
        write_result(arguments.result, {"started": started, "finished": now(), "error": str(error)})
        raise
    write_result(arguments.result, {"started": started, "finished": now(), **result})
    sys.stdout.write(f"{json.dumps(result, indent=2) if arguments.json else verify_summary(result)}\n")
    return OK if result["whole"] else SOME_FAILED
