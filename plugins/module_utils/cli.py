# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl: the collection's operations on the registry host, by hand and from timers.

The verbs (ctl/) take the same settings as the modules, from a configuration file, and run the same functions. There
is no option for a password: the command line of a process is everybody's to read.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from . import lock
from .ctl import cleanup, common, gc, guard, mirror, notify, schedule, verify
from .ctl.common import BUSY, INTERRUPTED, NOTHING_DONE, SOME_FAILED, say
from .errors import HomelabError

VERSION = "0.1.0"
VERBS = (mirror, cleanup, gc, verify, guard, notify, schedule)
#: What may be in the settings file.
TYPES = {**common.TYPES, **{key: types for verb in VERBS for key, types in verb.TYPES.items()}}


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
        return say(error, BUSY)
    except HomelabError as error:
        return say(error, NOTHING_DONE)
    except KeyboardInterrupt:
        return say("interrupted; what is complete stays, and is not copied again", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone (registryctl … | head). Python flushes stdout once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED


def _interrupt(_number, _frame):
    raise KeyboardInterrupt


def _parser():
    parser = argparse.ArgumentParser(prog="registryctl", description="Run a private registry well for years.")
    parser.add_argument("--version", action="version", version=f"registryctl {VERSION}")
    # A verb may run another one, as who types it would.
    parser.set_defaults(types=TYPES, main=main)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
    return parser
