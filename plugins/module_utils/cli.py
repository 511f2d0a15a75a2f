# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl: the collection's operations on the registry host, by hand and from timers.

The verbs take the same settings as the modules, from a configuration file, and run the same functions. There is no
option for a password: the command line of a process is everybody's to read.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import Path

from . import lock
from .errors import HomelabError
from .mirroring.run import ACCESS, prepare
from .report.mirror import mirror_summary, mirror_totals
from .report.progress import Bar, Lines
from .text_file import write_atomic

VERSION = "0.1.0"
CONFIG = "/etc/homelab-registry/registryctl.json"
#: Exit codes. BUSY is EX_TEMPFAIL: nothing is wrong, the next run will do it.
OK, SOME_FAILED, NOTHING_DONE, BUSY, INTERRUPTED = 0, 1, 2, 75, 130

_TEXT, _YES_NO, _NUMBER, _LIST = (str,), (bool,), (int,), (list,)
_ACCESS_TYPES = {**dict.fromkeys(ACCESS, _TEXT), "validate_certs": _YES_NO, "timeout": (int, float)}
_MIRROR_TYPES = {
    "images": (list, str),
    "platforms": _LIST,
    "referrers": _YES_NO,
    "short_names": _YES_NO,
    "name_template": _TEXT,
    "workers": _NUMBER,
    "reserve_pulls": _NUMBER,
    "prune": _YES_NO,
    "prune_protect": _LIST,
    "prune_keep": _NUMBER,
    "upstreams": _LIST,
    "docker_config": _TEXT,
    "state_path": _TEXT,
}
_TOP_TYPES = {"registry": (dict,), "mirror": (dict,), "state_dir": _TEXT}


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code: 0 all is done, 1 some images failed, 2 nothing could be done, 75 another run holds the lock,
        130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    # systemd stops a unit with SIGTERM; like Ctrl-C it lets the run keep what it has learnt.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return arguments.verb(arguments)
    except lock.Busy as error:
        return _say(error, BUSY)
    except HomelabError as error:
        return _say(error, NOTHING_DONE)
    except KeyboardInterrupt:
        return _say("interrupted; what is complete stays, and is not copied again", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone (registryctl … | head). Python flushes stdout once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED


def _interrupt(_number, _frame):
    raise KeyboardInterrupt


def _say(message, code):
    sys.stderr.write(f"registryctl: {message}\n")
    return code


# --- arguments ----------------------------------------------------------------------------------------------
def _parser():
    parser = argparse.ArgumentParser(prog="registryctl", description="Run a private registry well for years.")
    parser.add_argument("--version", action="version", version=f"registryctl {VERSION}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _mirror_parser(verbs)
    return parser


def _common_options(parser):
    parser.add_argument("--config", metavar="FILE", help=f"settings (JSON); {CONFIG} if it is there")
    parser.add_argument(
        "--to", metavar="URL", help="another registry than the one in the settings: http[s]://host:port"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    parser.add_argument("--result", metavar="FILE", help="also write the report to a file, as JSON")
    parser.add_argument("--lock", metavar="FILE", help="lock; by default the file lock in state_dir")


def _mirror_parser(verbs):
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
    parser.add_argument("--workers", metavar="N", type=int, help="requests and blobs at one time")
    parser.add_argument(
        "--state", metavar="FILE", help="memory of earlier runs; by default one for each registry in state_dir"
    )
    _common_options(parser)
    parser.set_defaults(verb=_mirror)


# --- settings -----------------------------------------------------------------------------------------------
def load_config(given: str | None, optional: bool = False) -> dict:
    """Read and check the settings; `{}` where there are none.

    Args:
        given: the file, None for the usual one.
        optional: whether the usual one may be left out if this user may not read it.

    Raises:
        HomelabError: the file is not there although it was named, cannot be read, is not JSON, has an unknown key or
            a value of the wrong type, or holds a password and can be read by others.
    """
    path = Path(given or CONFIG)
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except FileNotFoundError as error:
        if given:
            raise HomelabError("there is no such file", str(path), "correct --config") from error
        return {}
    except PermissionError as error:
        if optional and not given:
            return {}
        raise HomelabError(
            "the settings cannot be read", str(path), "run it as root, or name others (--config)"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise HomelabError(f"the settings cannot be read: {error}", str(path)) from error
    try:
        config = json.loads(text)
    except ValueError as error:
        raise HomelabError(f"not JSON: {error}", str(path), "correct it; site.yml writes it anew") from error
    _check(config, _TOP_TYPES, str(path))
    _check(config.get("registry", {}), _ACCESS_TYPES, f"{path}, registry")
    _check(config.get("mirror", {}), _MIRROR_TYPES, f"{path}, mirror")
    if mode & 0o077 and _holds_password(config):
        raise HomelabError("holds a password and can be read by others", str(path), f"chmod 600 {path}")
    return config


def _check(values, types, where):
    if not isinstance(values, dict):
        raise HomelabError("not a mapping of settings", where, f"there are {', '.join(types)}")
    for key, value in values.items():
        if key not in types:
            raise HomelabError(f"unknown setting {key!r}", where, f"there are {', '.join(types)}")
        # True is a number to Python, not to the user
        fits = isinstance(value, types[key]) and (bool in types[key] or not isinstance(value, bool))
        if value is not None and not fits:
            names = {
                str: "a text",
                bool: "true or false",
                int: "a number",
                float: "",
                list: "a list",
                dict: "a mapping",
            }
            wanted = " or ".join(filter(None, (names[one] for one in types[key])))
            raise HomelabError(f"{key} is not {wanted}", where, "correct it")


def _holds_password(config):
    places = [config.get("registry") or {}, *((config.get("mirror") or {}).get("upstreams") or [])]
    return any(isinstance(place, dict) and place.get("password") for place in places)


def mirror_settings(arguments: argparse.Namespace, config: dict) -> dict:
    """The settings of one mirror run: what was typed goes before what is in the file.

    Raises:
        HomelabError: the list cannot be read.
    """
    access = {key: value for key, value in (config.get("registry") or {}).items() if value is not None}
    if arguments.to and arguments.to.rstrip("/") != (access.get("url") or "").rstrip("/"):
        access = {"url": arguments.to}  # the account of one registry is no business of another
    settings = {**(config.get("mirror") or {}), **access}
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


# --- mirror -------------------------------------------------------------------------------------------------
def _mirror(arguments):
    started = _now()
    try:
        config = load_config(arguments.config, optional=bool(arguments.to))
        settings = mirror_settings(arguments, config)
        request = prepare(settings)
        with _locked(arguments, config, exclusive=bool(settings.get("prune"))), _progress() as progress:
            report = request.run(check=arguments.dry_run, progress=progress)
    except lock.Busy:
        raise  # the result is that of the run that holds it
    except HomelabError as error:
        _write_result(arguments.result, {"started": started, "finished": _now(), "error": str(error)})
        raise
    result = report.as_dict()
    _write_result(arguments.result, {"started": started, "finished": _now(), **result})
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    elif arguments.dry_run or sys.stdout.isatty() or sys.stderr.isatty():
        sys.stdout.write(mirror_summary(result) + "\n")
    else:  # a log has had a line for each image
        sys.stdout.write(mirror_totals(result) + "\n")
    sys.stdout.flush()
    if report.deferred:
        _say(f"{len(report.deferred)} images are deferred; a later run brings them", OK)
    failed = report.failed or [one for one in result["pruned"] if one["action"] == "failed"]
    return SOME_FAILED if failed else OK


def _locked(arguments, config, exclusive):
    path = arguments.lock or (config.get("state_dir") and Path(config["state_dir"], "lock"))
    if not path or arguments.dry_run:
        return nullcontext()
    return lock.hold(path, exclusive=exclusive)


@contextmanager
def _progress() -> Iterator[Lines]:
    if not sys.stderr.isatty():
        yield Lines(sys.stderr)
        return
    shown = Bar(sys.stderr)
    try:
        yield shown
    finally:
        shown.close()


def _now():
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _write_result(name, result):
    """Whole or not at all: the portal and the metrics read it at any moment."""
    if not name:
        return
    write_atomic(name, json.dumps(result) + "\n", 0o644)
