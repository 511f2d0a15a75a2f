# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections guard, verify and notify of registryctl's settings, from an inventory's variables. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import HomelabError
from ..report.notify import parse_notify
from ..storage.guard import Limits
from ..variables import given, number, refuse_misspelt, words, yes_no

GUARD = ("warn", "critical", "cleanup")
VERIFY = ("deep",)
#: Of mail and webhook, `notify_mail_to` is `mail.to` and so on.
MAIL = ("to", "from", "server", "port", "security", "username", "password", "ca_path")
WEBHOOK = ("url", "format", "headers")
_NOTIFY = ("command", "host", *(f"mail_{name}" for name in MAIL), *(f"webhook_{name}" for name in WEBHOOK))
_TYPES = {
    "warn": number,
    "critical": number,
    "cleanup": yes_no,
    "deep": yes_no,
    "mail_port": number,
    "mail_to": words,
    "command": words,
}


def settings_of(variables: Mapping) -> dict:
    """The sections, with what is set.

    Args:
        variables: of the registry host.

    Raises:
        HomelabError: a variable has the wrong type or value, or nearly the name of another one.
    """
    found = {}
    for section, names in (("guard", GUARD), ("verify", VERIFY), ("notify", _NOTIFY)):
        # Many have variables notify_*; only what nearly is one of ours is a mistake.
        refuse_misspelt(variables, f"{section}_", names)
        found[section] = given(variables, f"{section}_", names, _TYPES)
    limits = {name: found["guard"][name] for name in ("warn", "critical") if name in found["guard"]}
    try:
        Limits(**limits)
    except HomelabError as error:
        raise HomelabError(error.message, "guard_warn, guard_critical", error.remedy) from error
    found["notify"] = _nested(found["notify"])
    parse_notify(found["notify"])
    return found


def _nested(flat):
    nested = {name: flat[name] for name in ("command", "host") if name in flat}
    for part, names in (("mail", MAIL), ("webhook", WEBHOOK)):
        values = {name: flat[f"{part}_{name}"] for name in names if f"{part}_{name}" in flat}
        if values:
            nested[part] = values
    return nested
