# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl notify: tell somebody that a run of a timer failed, or that telling works."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

from ..errors import HomelabError
from ..report.notify import Message, Notifier, parse_notify
from ..text_file import write_atomic
from .common import OK, SOME_FAILED, read_result, say
from .settings import load_config

#: Seconds in which the same failure is told once; timers come a little early.
PAUSE = 20 * 3600
MEMORY = "notified.json"
#: Damaged or failed images that a message names.
_SHOWN = 10


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """The verb's arguments."""
    parser = verbs.add_parser(
        "notify",
        help="tell somebody of a failed run, or test it",
        description="Send a message by every way in the section notify of the settings: that the last run of VERB"
        " failed, from its result in state_dir, or that telling works. The timers' services call it when they fail.",
        epilog="Exit status: 0 sent (or told before, or nobody is to be told), 1 a way failed.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("failed", metavar="VERB", nargs="?", help="mirror, cleanup, gc, verify or guard")
    what.add_argument("--test", action="store_true", help="send a message that says that it is a test")
    parser.add_argument("--config", metavar="FILE", help="settings (JSON)")
    parser.set_defaults(verb=_run)


def notifier_of(config: Mapping) -> Notifier:
    """The configured ways.

    Raises:
        HomelabError: something in the section `notify` is wrong.
    """
    return parse_notify(config.get("notify"))


def send(notifier: Notifier, message: Message) -> int:
    """Send it, say what failed, and go on; an exit code."""
    failures = notifier.send(message)
    for failure in failures:
        say(f"nobody was told by {failure}", SOME_FAILED)
    return SOME_FAILED if failures else OK


def _run(arguments):
    config = load_config(arguments.config)
    notifier = notifier_of(config)
    if arguments.test:
        return _test(notifier)
    verb = arguments.failed
    if not verb.isalpha():
        raise HomelabError(f"{verb!r} is no verb", "VERB", "give mirror, cleanup, gc, verify or guard")
    if not notifier.ways:
        return OK
    state_dir = config.get("state_dir")
    text = _told_of(verb, read_result(Path(state_dir, f"{verb}.json")) if state_dir else {})
    memory = Path(state_dir, MEMORY) if state_dir else None
    if memory and _told_before(memory, verb, text):
        return OK
    message = Message(f"{notifier.host}: registry {verb} failed", text, "warning", notifier.host, verb)
    code = send(notifier, message)
    if memory and code == OK:
        _remember(memory, verb, text)
    return code


def _test(notifier):
    if not notifier.ways:
        raise HomelabError(
            "nobody is to be told",
            "notify",
            "set notify_command, notify_webhook_url or notify_mail_to, and run site.yml",
        )
    text = "This is a test. The registry will write here when its disk fills up, or when one of its runs fails."
    code = send(notifier, Message(f"{notifier.host}: registry says hello", text, "info", notifier.host, "notify"))
    if code == OK:
        say(f"sent by {', '.join(notifier.ways)}", OK)
    return code


def _told_of(verb, result):
    """What went wrong, from the result of the run, and where there is more."""
    said = result.get("error") or result.get("refused") or result.get("trouble")
    if not said and result.get("damages"):
        names = [f"{one['repository']}:{one['tag'] or one['digest']}" for one in result["damages"]]
        said = f"damaged images: {_names(names)}"
    elif not said and result.get("whole") is False:
        said = "parts of the registry could not be read"
    if not said and result.get("images"):
        names = [one["image"] for one in result["images"] if one.get("action") == "failed"]
        said = names and f"failed images: {_names(names)}"
    more = f"See journalctl -u homelab-registry-{verb}"
    return f"{said}\n{more}" if said else more


def _names(names):
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _told_before(path, verb, text):
    known = read_result(path).get(verb)
    try:
        return known["text"] == text and 0 <= time.time() - known["at"] < PAUSE
    except (KeyError, TypeError):
        return False


def _remember(path, verb, text):
    try:
        known = {**read_result(path), verb: {"text": text, "at": time.time()}}
        write_atomic(str(path), json.dumps(known) + "\n", 0o600)
    except HomelabError as error:  # it is told again, then
        say(error, OK)
