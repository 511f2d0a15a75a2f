# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for what runs on the registry host by itself."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.registry.plugins.module_utils.ctl.schedule import jobs_of
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes.host import host_facts
from ansible_collections.homelab.registry.plugins.module_utils.report.gc import gc_summary
from ansible_collections.homelab.registry.plugins.module_utils.report.verify import damaged_names, verify_summary


def fleet_host(groups, hostvars):
    """See host_facts."""
    try:
        return host_facts(groups, hostvars)
    except HomelabError as error:
        raise AnsibleFilterError(str(error)) from error


def jobs_problem(jobs):
    """What `registryctl schedule` would refuse; "" if nothing."""
    try:
        jobs_of({"jobs": list(jobs)})
    except HomelabError as error:
        return str(error)
    return ""


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {
            "damaged_names": damaged_names,
            "fleet_host": fleet_host,
            "gc_summary": gc_summary,
            "jobs_problem": jobs_problem,
            "verify_summary": verify_summary,
        }
