# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters around certificates and accounts."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.registry.plugins.module_utils.server import accounts, certificate

try:
    import bcrypt
except ImportError:
    bcrypt = None


def registry_htpasswd(users, secret, cost=5):
    """See accounts.htpasswd."""
    if bcrypt is None:
        raise AnsibleFilterError(accounts.BCRYPT_MISSING)
    return accounts.htpasswd(users, secret, cost, bcrypt.hashpw)


def registry_tls_names(endpoint, hosts, extra=()):
    """See certificate.alternative_names."""
    return certificate.alternative_names(endpoint, hosts, extra)


def registry_tls_plan(names, ca, server, server_key, days, renew_days, rotate=False):
    """See certificate.plan_own."""
    now = datetime.now(timezone.utc)
    return certificate.plan_own(
        ca, server, server_key, names, now, days=int(days), renew_days=int(renew_days), rotate=rotate
    )


def registry_tls_problems(found, key, endpoint, *places):
    """See certificate.problems."""
    return certificate.problems(found, key, certificate.host_of(endpoint), datetime.now(timezone.utc), *places)


def registry_text_of(given):
    """PEM or JSON that is given as text, or as the path of a file on the controller."""
    if not given or _is_text(given):
        return f"{given.strip()}\n" if given else ""
    try:
        return Path(given).expanduser().read_text(encoding="utf-8").strip() + "\n"
    except (OSError, UnicodeDecodeError) as error:
        raise AnsibleFilterError(f"{given} cannot be read on the controller: {error}") from error


def registry_missing_files(named):
    """What registry_text_of would fail with, for variables and what they hold."""
    missing = []
    for variable, given in named.items():
        try:
            registry_text_of(given)
        except AnsibleFilterError as error:
            missing.append(f"{variable}: {error}: give the path of a file on this machine, or its text")
    return missing


def _is_text(given):
    return "-----BEGIN " in given or given.lstrip().startswith("{")


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {
            "registry_htpasswd": registry_htpasswd,
            "registry_missing_files": registry_missing_files,
            "registry_text_of": registry_text_of,
            "registry_tls_names": registry_tls_names,
            "registry_tls_plan": registry_tls_plan,
            "registry_tls_problems": registry_tls_problems,
        }
