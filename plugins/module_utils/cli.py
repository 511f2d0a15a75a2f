# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl: the collection's operations on the registry host, by hand and from timers.

The verbs (ctl/) take the same settings as the modules, from a configuration file, and run the same functions. There
is no option for a password: the command line of a process is everybody's to read.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import traceback

from . import lock
from .ctl.common import BROKEN, BUSY, INTERRUPTED, NOTHING_DONE, SOME_FAILED, say
from .errors import HomelabError

VERSION = "0.1.0"
#: Verb to its file in ctl/. Only the one that is asked for is loaded: a run that finds nothing to do is mostly the
#: program's own start.
VERBS = {
    "mirror": "mirror",
    "cleanup": "cleanup",
    "gc": "gc",
    "recover": "gc",
    "verify": "verify",
    "guard": "guard",
    "notify": "notify",
    "schedule": "schedule",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code: 0 all is done, 1 some images failed, 2 nothing could be done, 75 another run holds the lock,
        130 interrupted, 70 it broke off because of an error in the program: then the trace is shown.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(argv).parse_args(argv)
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
    except Exception as error:  # Python would end with 1, which stands for something else
        traceback.print_exc()
        return say(f"an error in the program, please report it: {type(error).__name__}: {error}", BROKEN)


def _interrupt(_number, _frame):
    raise KeyboardInterrupt


def _parser(argv):
    parser = argparse.ArgumentParser(prog="registryctl", description="Run a private registry well for years.")
    parser.add_argument("--version", action="version", version=f"registryctl {VERSION}")
    # A verb may run another one, as who types it would.
    parser.set_defaults(main=main)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    wanted = [VERBS[argv[0]]] if argv and argv[0] in VERBS else dict.fromkeys(VERBS.values())
    for name in wanted:
        importlib.import_module(f".ctl.{name}", __package__).add_parser(verbs)
    return parser
