# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that several modules have in common, in the form of an argument spec.

Only the form is Ansible's, nothing of it is imported here.
"""

from __future__ import annotations


def access() -> dict:
    """How a registry is reached, beside its address: what `oci.access.Access` takes."""
    return {
        "username": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "ca_path": {"type": "path"},
        "client_cert": {"type": "path"},
        "client_key": {"type": "path"},
        "validate_certs": {"type": "bool", "default": True},
        "timeout": {"type": "int", "default": 60},
    }


def container() -> dict:
    """Where the registry's container runs: what `storage.server.Host` takes."""
    return {
        "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
        "container": {"type": "str", "default": "registry"},
        "data_path": {"type": "path"},
        "config_path": {"type": "path"},
        "redis": {
            "type": "dict",
            "options": {
                "addr": {"type": "str"},
                "username": {"type": "str"},
                "password": {"type": "str", "no_log": True},
                "db": {"type": "int"},
            },
        },
    }
