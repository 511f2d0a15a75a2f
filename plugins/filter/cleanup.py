# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters around the clean-up of images."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes.fleet import registry_access, registry_facts
from ansible_collections.homelab.registry.plugins.module_utils.report.cleanup import cleanup_summary
from ansible_collections.homelab.registry.plugins.module_utils.retention.variables import answers_of, settings_of


def cleanup_settings(groups, hostvars, typed=False, where="host"):
    """See settings_of."""
    try:
        registry = registry_facts(groups, hostvars)
        access = registry_access(groups, hostvars, "admin", where)
        return settings_of(hostvars[registry["host"]], access, groups, typed)
    except HomelabError as error:
        raise AnsibleFilterError(str(error)) from error


def cleanup_problem(groups, hostvars, typed=False):
    """What cleanup_settings would fail with; "" if nothing is wrong."""
    try:
        cleanup_settings(groups, hostvars, typed)
    except AnsibleFilterError as error:
        return str(error)
    return ""


def cleanup_used(groups, hostvars):
    """See answers_of: what tasks/in_use.yml has registered."""
    nodes = {node for group in ("docker_nodes", "k3s_nodes") for node in groups.get(group) or ()}
    return answers_of(
        {node: [hostvars[node].get(f"__in_use_{engine}") for engine in ("docker", "k3s")] for node in sorted(nodes)}
    )


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {
            "cleanup_problem": cleanup_problem,
            "cleanup_settings": cleanup_settings,
            "cleanup_summary": cleanup_summary,
            "cleanup_used": cleanup_used,
        }
