#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: images_in_use
short_description: The images that a node's containers were made from
version_added: 0.1.0
description:
  - Asks the node's own engine for all its containers, running or not, and tells the digests of their images, so that
    M(homelab.registry.registry_cleanup) keeps them.
  - Changes nothing. A node on which k3s is not installed yet uses no images.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  engine:
    description: Which engine is asked.
    type: str
    choices: [docker, k3s]
    required: true
  docker_host:
    description: The Docker engine's socket on the node.
    type: str
    default: unix:///var/run/docker.sock
"""

EXAMPLES = r"""
- name: What runs here
  homelab.registry.images_in_use:
    engine: docker
  register: used
"""

RETURN = r"""
digests:
  description:
    - Digests of the images, each by all that the engine knows them under. An image's ID is the digest of its
      configuration, or with Docker's containerd store that of a manifest or index; those that it was pulled by are
      manifests' or indexes'.
  returned: success
  type: list
  elements: str
  sample: ["sha256:9c7a54a9a43cca047013b82af109fe963fde787f63f9e016fdc3384500c2823d"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils.engine import Engine
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes.images_in_use import (
    docker_images_in_use,
    k3s_images_in_use,
)


def main():
    module = AnsibleModule(
        argument_spec={
            "engine": {"type": "str", "choices": ["docker", "k3s"], "required": True},
            "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["engine"] == "docker":
            digests = docker_images_in_use(Engine(module.params["docker_host"]))
        else:
            digests = k3s_images_in_use()
    except HomelabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, digests=digests)


if __name__ == "__main__":
    main()
