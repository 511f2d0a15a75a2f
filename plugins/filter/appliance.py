# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for hosts without Python."""

from __future__ import annotations

import json

from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import daemon_json


def appliance_daemon_json(text, registry, offered=""):
    """The daemon.json of an appliance that uses the registry; `text` and `problem`, one of them empty.

    Args:
        text: what the appliance comes with; empty for nothing.
        registry: what fleet_registry knows.
        offered: what was offered last. A setting that it has stays in the file, as an empty list: a running engine
            does not give up one that is only left out.
    """
    plain = registry["scheme"] == "http"
    try:
        plan = daemon_json.plan(
            text or None,
            "/etc/docker/daemon.json",
            insecure_registries=[registry["endpoint"]] if plain else [],
            registry_mirrors=[registry["url"]] if registry.get("anonymous_pull", True) else [],
        )
        config = daemon_json.parse(plan.after, plan.path)
        before = daemon_json.parse(offered, plan.path, repair=True)
    except HomelabError as error:
        return {"text": "", "problem": str(error)}
    left_out = [key for key in (daemon_json.INSECURE, daemon_json.MIRRORS) if key in before and key not in config]
    if left_out:
        return {"text": json.dumps({**config, **{key: [] for key in left_out}}, indent=2) + "\n", "problem": ""}
    return {"text": plan.after, "problem": ""}


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {"appliance_daemon_json": appliance_daemon_json}
