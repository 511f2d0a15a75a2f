# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about the server's configuration and image."""

from __future__ import annotations

from importlib.util import find_spec

from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server import accounts, config, files, preflight


def registry_config(settings, major):
    """Render and check; a fault is returned, not raised, so that a task can show it alone."""
    try:
        data = config.render(settings, int(major))
    except HomelabError as error:
        return {"error": str(error), "text": "", "public": "", "digest": ""}
    text = config.to_yaml(data, "Written by homelab.registry; changes by hand are lost. Read at the start only.")
    return {
        "error": "",
        "text": text,
        "public": config.to_yaml(config.redact(data)),
        "digest": config.digest(text),
        "auth": bool(data.get("auth")),
        "tls": bool((data.get("http") or {}).get("tls")),
    }


def registry_major(image):
    """Major version of the server in an image (inspect data), as a string; empty if it does not tell."""
    return str(config.detect_major(image) or "")


def registry_problems(values, loopback, others):
    """See preflight.problems; and what this machine needs for them."""
    missing = values["registry_auth"] == "htpasswd" and find_spec("bcrypt") is None
    return preflight.problems(values, loopback=loopback, others=list(others)) + [accounts.BCRYPT_MISSING] * missing


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {
            "registry_config": registry_config,
            "registry_major": registry_major,
            "registry_misspelt": preflight.misspelt,
            "registry_problems": registry_problems,
            "registry_stale_files": files.stale,
        }
