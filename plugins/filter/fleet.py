# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that derive a node's settings from the registry's variables."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import fleet, other_clients
from ansible_collections.homelab.registry.plugins.module_utils.nodes.fleet import registry_access, registry_facts
from ansible_collections.homelab.registry.plugins.module_utils.nodes.registries_yaml import mirrors_for


def fleet_registry(groups, hostvars):
    """See registry_facts."""
    try:
        return registry_facts(groups, hostvars)
    except HomelabError as error:
        raise AnsibleFilterError(str(error)) from error


def fleet_access(groups, hostvars, who="admin", where="host"):
    """See registry_access."""
    try:
        return registry_access(groups, hostvars, who, where)
    except HomelabError as error:
        raise AnsibleFilterError(str(error)) from error


def fleet_fingerprint(groups, hostvars, ca, secret):
    """See fleet.fingerprint."""
    try:
        return fleet.fingerprint(groups, hostvars, ca, secret)
    except HomelabError as error:
        raise AnsibleFilterError(str(error)) from error


def fleet_untold(groups, in_run, run_tags, skip_tags):
    """See fleet.untold."""
    return fleet.untold(groups, in_run, run_tags, skip_tags)


def k3s_mirrors(endpoint, scheme, upstreams):
    """See mirrors_for."""
    return mirrors_for(scheme, endpoint, upstreams)


def buildkitd_toml(endpoint, scheme, upstreams, ca_path="", mirror=True):
    """See other_clients.buildkitd_toml."""
    return other_clients.buildkitd_toml(endpoint, scheme, upstreams, ca_path, mirror)


def registries_conf(endpoint, scheme, upstreams):
    """See other_clients.registries_conf."""
    return other_clients.registries_conf(endpoint, scheme, upstreams)


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {
            "buildkitd_toml": buildkitd_toml,
            "fleet_access": fleet_access,
            "fleet_fingerprint": fleet_fingerprint,
            "fleet_registry": fleet_registry,
            "fleet_untold": fleet_untold,
            "k3s_mirrors": k3s_mirrors,
            "registries_conf": registries_conf,
        }
