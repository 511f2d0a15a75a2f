# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for hosts without Python."""

from __future__ import annotations

from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import daemon_json


def appliance_daemon_json(text, registry):
    """The daemon.json of an appliance that uses the registry; `text` and `problem`, one of them empty."""
    plain = registry["scheme"] == "http"
    try:
        plan = daemon_json.plan(
            text or None,
            "/etc/docker/daemon.json",
            insecure_registries=[registry["endpoint"]] if plain else [],
            registry_mirrors=[registry["url"]] if registry.get("anonymous_pull", True) else [],
        )
    except HomelabError as error:
        return {"text": "", "problem": str(error)}
    return {"text": plan.after, "problem": ""}


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {"appliance_daemon_json": appliance_daemon_json}
