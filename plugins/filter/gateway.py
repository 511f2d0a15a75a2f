# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about the gateway."""

from __future__ import annotations

from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server import gateway


def gateway_config(settings):
    """Render and check; a fault is returned, not raised, so that a task can show it alone."""
    given = dict(settings)
    users = given.pop("users", None) or []
    try:
        accounts = {str(user["name"]): user.get("role", "pull") for user in users}
        return {"error": "", "text": gateway.render(gateway.Settings(**given, accounts=accounts))}
    except HomelabError as error:
        return {"error": str(error), "text": ""}


def gateway_warnings(users, enabled, auth):
    """See gateway.warnings."""
    return gateway.warnings(users or [], gateway=bool(enabled), auth=auth)


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {"gateway_config": gateway_config, "gateway_warnings": gateway_warnings}
