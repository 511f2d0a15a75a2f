# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter fleet_summary."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_summary
short_description: The table at the end of site.yml
version_added: 0.1.0
description: One line a node, with what the run noted about it.
author:
  - homelab.registry contributors (@homelab-registry)
positional: groups, hostvars, check
options:
  _input:
    description: The nodes, such as C(ansible_play_hosts_all).
    type: list
    elements: str
    required: true
  groups:
    description: The variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  check:
    description: The variable C(ansible_check_mode).
    type: bool
    required: true
"""

EXAMPLES = r"""
- name: Show the table
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts_all | homelab.registry.fleet_summary(groups, hostvars, ansible_check_mode) }}"
"""

RETURN = r"""
_value:
  description: The table.
  type: str
"""

from ansible_collections.homelab.registry.plugins.module_utils.report.summary import fleet_summary


class FilterModule:
    """Register the filter."""

    def filters(self):
        return {"fleet_summary": fleet_summary}
