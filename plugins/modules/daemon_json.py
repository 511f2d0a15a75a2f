#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_json
short_description: Make a node's Docker engine use a registry, without a restart
version_added: 0.1.0
description:
  - Brings C(insecure-registries) and C(registry-mirrors) into Docker's C(daemon.json), reloads the engine by
    SIGHUP and asks the engine itself whether it took them over. If it did not, the old file is put back.
  - Neither dockerd nor any container is restarted.
  - Keys and entries of others survive, in their order. Entries that an earlier run of this module added and
    that are no longer wanted are removed; they are noted in C(homelab-registry.json) beside the file.
  - A list that ends up empty is written as C([]), because deleting the key would leave the setting in the
    running engine.
  - A file that dockerd would refuse at its next start is never written, and never left unmentioned - bad JSON,
    wrong types, a mirror without a scheme, a key that is also given as a flag in the unit, a drop-in or the
    running command line.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  path:
    description: The file. Rootless and snap installations have it elsewhere.
    type: path
    default: /etc/docker/daemon.json
  insecure_registries:
    description: Registries (V(host:port)) reached over plain HTTP. An empty list removes those added before.
    type: list
    elements: str
    default: []
  registry_mirrors:
    description:
      - URLs that Docker asks for Docker Hub images before the Hub. They are put before those of others.
      - An empty list removes those added before.
    type: list
    elements: str
    default: []
  docker_host:
    description: The engine's socket on the node.
    type: str
    default: unix:///var/run/docker.sock
  repair:
    description: Accept a file with comments and trailing commas, and rewrite it as valid JSON (a backup is kept).
    type: bool
    default: false
  overlap:
    description: Keep the entries of an earlier call besides the wanted ones, while a registry changes over.
    type: bool
    default: false
  timeout:
    description: Seconds the engine is given to report the new settings.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Let this node pull from the registry, and Docker Hub images through it
  homelab.registry.daemon_json:
    insecure_registries: ["registry.home.lan:5000"]
    registry_mirrors: ["http://registry.home.lan:5000"]

- name: Take it out again
  homelab.registry.daemon_json:
"""

RETURN = r"""
backup:
  description: Copy of the file as it was, if it was changed.
  returned: when a file was replaced
  type: str
  sample: /etc/docker/daemon.json.20261123T180000Z.bak
reloaded:
  description: Whether the engine was (or would be) told to read the file again.
  returned: success
  type: bool
seconds:
  description: Seconds from the signal until the engine reported the new settings.
  returned: success
  type: float
engine_version:
  description: Version of the engine that judged; empty if none runs.
  returned: success
  type: str
  sample: 26.1.5
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils import text_file
from ansible_collections.homelab.registry.plugins.module_utils.engine import Engine
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import daemon_json, docker_node, files


def run(module):
    params = module.params
    path = params["path"]
    owned = files.parse_owned(text_file.read_text(files.owned_path(path)))
    plan = daemon_json.plan(
        text_file.read_text(path),
        path,
        insecure_registries=params["insecure_registries"],
        registry_mirrors=params["registry_mirrors"],
        owned=owned,
        sources=docker_node.gather_sources(),
        repair=params["repair"],
        overlap=params["overlap"],
    )
    engine = Engine(params["docker_host"])
    # The keys of others may hold credentials, such as a proxy's.
    before, after = files.without_userinfo(plan.before or ""), files.without_userinfo(plan.after)
    diff = {"before": before, "after": after, "before_header": path, "after_header": path}
    if module.check_mode:
        reload = docker_node.would_reload(plan, engine)
        return {"changed": plan.changed or reload, "reloaded": reload, "diff": diff, "warnings": plan.warnings}
    outcome = docker_node.apply(plan, owned, engine, params["timeout"])
    return {**vars(outcome), "diff": diff}


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "insecure_registries": {"type": "list", "elements": "str", "default": []},
            "registry_mirrors": {"type": "list", "elements": "str", "default": []},
            "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
            "repair": {"type": "bool", "default": False},
            "overlap": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
