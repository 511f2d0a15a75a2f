# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the disk guard, verification and telling somebody."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.registry.plugins.module_utils.ctl.variables import settings_of
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError


def guard_settings(groups, hostvars):
    """See settings_of."""
    try:
        return settings_of(hostvars[groups["registry"][0]])
    except HomelabError as error:
        raise AnsibleFilterError(str(error)) from error


def guard_problem(groups, hostvars):
    """What guard_settings would fail with; "" if nothing is wrong."""
    try:
        guard_settings(groups, hostvars)
    except AnsibleFilterError as error:
        return str(error)
    return ""


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {"guard_problem": guard_problem, "guard_settings": guard_settings}
