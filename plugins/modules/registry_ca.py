#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_ca
short_description: Make a host trust the CA of the registry
version_added: 0.1.0
description:
  - Keeps the certificates of the registry's CA between two marks in the files that programs read. Certificates of
    others in the same files stay. A file that held nothing else goes with the last certificate.
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
  content:
    description: The CA's certificates in PEM. Empty takes ours out of all files.
    type: str
    default: ""
  paths:
    description: The files that must hold them.
    type: list
    elements: path
    required: true
  tidy:
    description:
      - Patterns of further files, such as C(/etc/docker/certs.d/*/ca.crt). Where one of them has certificates of ours
        but is not in O(paths), they are taken out.
    type: list
    elements: path
    default: []
  overlap:
    description:
      - Adds only. Certificates of an earlier CA stay, and so do the files of O(tidy), until a call without this option.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Docker trusts the registry
  homelab.registry.registry_ca:
    content: "{{ lookup('ansible.builtin.file', 'ca.crt') }}"
    paths: [/etc/docker/certs.d/registry.home.lan:5000/ca.crt]
    tidy: [/etc/docker/certs.d/*/ca.crt]
"""

RETURN = r"""
paths:
  description: The files that were written or removed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import trust_files


def main():
    module = AnsibleModule(
        argument_spec={
            "content": {"type": "str", "default": ""},
            "paths": {"type": "list", "elements": "path", "required": True},
            "tidy": {"type": "list", "elements": "path", "default": []},
            "overlap": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        changes = trust_files.plan(params["content"], params["paths"], params["tidy"], params["overlap"])
        if not module.check_mode:
            trust_files.apply(changes)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    diff = [
        {"before_header": one.path, "after_header": one.path, "before": one.before or "", "after": one.after or ""}
        for one in changes
    ]
    module.exit_json(changed=bool(changes), paths=[one.path for one in changes], diff=diff)


if __name__ == "__main__":
    main()
