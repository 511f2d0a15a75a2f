#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pull_check
short_description: Prove from a node that it can pull from the registry
version_added: 0.1.0
description:
  - Resolves the registry's name, reaches it, pulls the canary image by the registry's name and as if it were a
    Docker Hub image (which only the registry has), by the node's own engine. Names the first step that fails.
  - M(homelab.registry.registry_probe) puts the canary into the registry.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: none
    details: Nothing is pulled in check mode; the module is skipped then.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  url:
    description: The registry's address as this node uses it.
    type: str
    required: true
  engine:
    description: Whose pull is tried.
    type: str
    choices: [docker, k3s]
    required: true
  docker_host:
    description: The Docker engine's socket on the node.
    type: str
    default: unix:///var/run/docker.sock
  ca_path:
    description: PEM file with the CA of the registry's certificate.
    type: path
  username:
    description: The account the node pulls with, for O(engine=docker); k3s has its own in registries.yaml.
    type: str
  password:
    description: Its password.
    type: str
  mirror:
    description: Whether Docker Hub images must come from the registry too.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Can this node pull
  homelab.registry.pull_check:
    url: http://registry.home.lan:5000
    engine: docker
"""

RETURN = r"""
steps:
  description: What was seen at each step; empty if there is no k3s that runs.
  returned: success
  type: dict
  sample: {"resolve": "192.168.1.20", "reach": "200", "pull by name": "0.2 s", "pull through the mirror": "0.1 s"}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils.engine import Engine
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import proof


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "engine": {"type": "str", "choices": ["docker", "k3s"], "required": True},
            "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
            "ca_path": {"type": "path"},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "mirror": {"type": "bool", "default": True},
        },
        required_together=[("username", "password")],
        supports_check_mode=False,
    )
    params = module.params
    try:
        if params["engine"] == "docker":
            account = (params["username"], params["password"]) if params["username"] else None
            pull = proof.docker_puller(Engine(params["docker_host"]), account)
        elif proof.k3s_answers():
            pull = proof.k3s_puller()
        else:
            module.exit_json(changed=False, steps={})
        steps = proof.prove(params["url"], pull, params["ca_path"], params["mirror"])
    except HomelabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, steps=steps)


if __name__ == "__main__":
    main()
