# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters around the mirroring of images."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.variables import images_of, settings_of
from ansible_collections.homelab.registry.plugins.module_utils.nodes.fleet import registry_access, registry_facts
from ansible_collections.homelab.registry.plugins.module_utils.report.mirror import mirror_summary


def mirror_settings(groups, hostvars, where="host"):
    """See settings_of."""
    try:
        registry = registry_facts(groups, hostvars)
        return settings_of(hostvars[registry["host"]], registry_access(groups, hostvars, "admin", where))
    except HomelabError as error:
        raise AnsibleFilterError(str(error)) from error


def mirror_images(wanted, lists, base, k3s, k3s_version=""):
    """See images_of."""
    try:
        return images_of(wanted, lists, base, k3s, k3s_version)
    except HomelabError as error:
        raise AnsibleFilterError(str(error)) from error


def mirror_problem(groups, hostvars, wanted=(), lists=(), base=(), k3s=None, k3s_version=""):
    """What the two above would fail with; "" if nothing is wrong."""
    try:
        mirror_settings(groups, hostvars)
        mirror_images(wanted, lists, list(base), k3s or {}, k3s_version)
    except AnsibleFilterError as error:
        return str(error)
    return ""


def migrate_images(repositories, url):
    """Every tag of another registry, as a mirror run takes them."""
    host = url.split("://", 1)[1].rstrip("/")
    return [
        {"name": f"{host}/{one['name']}", "tags": [tag["name"] for tag in one["tags"]]}
        for one in repositories
        if one["tags"]
    ]


def migrate_upstream(url, access):
    """How that registry is reached, as mirror_upstreams takes it."""
    given = {key: value for key, value in access.items() if value}
    return {"registry": url.split("://", 1)[1].rstrip("/"), "url": url.rstrip("/"), **given}


class FilterModule:
    """Register the filters."""

    def filters(self):
        return {
            "migrate_images": migrate_images,
            "migrate_upstream": migrate_upstream,
            "mirror_images": mirror_images,
            "mirror_problem": mirror_problem,
            "mirror_settings": mirror_settings,
            "mirror_summary": mirror_summary,
        }
