#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_package_image
short_description: Make an image of the registry server, or of its gateway, from the distribution's package
version_added: 0.1.0
description:
  - For a machine that reaches a Debian or Ubuntu mirror but no image registry. Downloads the package
    C(docker-registry) or C(nginx) (nothing is installed), and writes an archive with a small image in the layout of
    the official C(registry:2) or C(nginx), for C(docker load).
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
    details: Predicts a change if there is no file at O(path).
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  program:
    description: The program the image is for.
    type: str
    choices: [registry, nginx]
    default: registry
  name:
    description: Name and tag of the image.
    type: str
    required: true
  path:
    description: The archive to write. An existing one is left alone.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Make a registry image without a registry
  homelab.registry.registry_package_image:
    name: homelab-registry:package
    path: /var/tmp/homelab-registry.tar.gz
"""

RETURN = r"""
version:
  description: Version of the package.
  returned: when the archive was written
  type: str
  sample: 2.8.2+ds1-1
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server import package_image


def main():
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "str", "choices": ["registry", "nginx"], "default": "registry"},
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    if Path(path).exists():
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)
    partial = f"{path}.part"
    try:
        version = package_image.build(module.params["program"], module.params["name"], partial)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    module.atomic_move(partial, path)
    module.exit_json(changed=True, version=version)


if __name__ == "__main__":
    main()
