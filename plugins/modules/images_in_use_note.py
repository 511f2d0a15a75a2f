#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: images_in_use_note
short_description: Note on the registry host which images the nodes use
version_added: 0.1.0
description:
  - The timers of the registry host cannot ask the nodes. What they keep as in use is what this module has noted last,
    or a run of M(homelab.registry.registry_cleanup) that was given O(used).
  - A note is no part of the host's state, and writing it counts as no change. In check mode nothing is written.
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
  path:
    description: The file.
    type: path
    default: /var/lib/homelab-registry/in-use.json
  used:
    description:
      - What the nodes said, by their names, C(digests) as the module M(homelab.registry.images_in_use) returns them, or
        C(failure), the reason why a node could not be asked.
    type: dict
    required: true
  nodes:
    description: All nodes; others are forgotten. By default all are kept.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Note what runs where
  homelab.registry.images_in_use_note:
    used: "{{ groups | homelab.registry.cleanup_used(hostvars) }}"
"""

RETURN = r"""
nodes:
  description: Nodes of which it is known what they use, and those of which it is not known, or not any more.
  returned: success
  type: dict
  sample: {"known": ["fx-8350"], "unknown": ["sbc-2"]}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.retention.in_use import learn, read_nodes, write_nodes


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/homelab-registry/in-use.json"},
            "used": {"type": "dict", "required": True},
            "nodes": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    path, expected = module.params["path"], module.params["nodes"]
    try:
        nodes = learn(read_nodes(path), module.params["used"], time.time())
        if expected is not None:
            nodes = {name: node for name, node in nodes.items() if name in expected}
        if module.params["used"] and not module.check_mode:
            write_nodes(path, nodes)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    unknown = sorted(name for name, node in nodes.items() if node.failure or node.digests is None)
    known = sorted(nodes.keys() - set(unknown))
    module.exit_json(changed=False, nodes={"known": known, "unknown": unknown})


if __name__ == "__main__":
    main()
