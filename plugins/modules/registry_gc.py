#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_gc
short_description: Collect the garbage of a registry that C(site.yml) has deployed
version_added: 0.1.0
description:
  - Removes blobs that no manifest needs, uploads that nobody will finish, and empty repositories from a registry on
    this host. Deleting images frees no space by itself, this does.
  - Where there is nothing to remove the registry is not touched. Else it is read-only meanwhile (pulls go on); what is
    garbage is judged here, and only if the server's own C(garbage-collect) judges alike does that sweep. It is never
    given C(--delete-untagged), which loses images. Afterwards caches are dropped, every tag is verified, and the
    registry takes writes again, also after an error.
  - A run that was cut off is brought back first; C(registryctl recover) does it at once.
  - Must run on the registry host, as root.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
  - homelab.registry.access
attributes:
  check_mode:
    support: full
    details: Says what a run would remove; the registry is not touched.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  url:
    description: The registry's address, as this host reaches it.
    type: str
    required: true
  username:
    description: An account that may push.
    type: str
  docker_host:
    description: Socket of the engine that runs the registry's container.
    type: str
    default: unix:///var/run/docker.sock
  container:
    description: Name of the registry's container.
    type: str
    default: registry
  data_path:
    description: Directory with the registry's data. By default the one that the container has mounted.
    type: path
  config_path:
    description: Directory with the registry's configuration. By default the one that the container has mounted.
    type: path
  redis:
    description: How this host reaches the registry's cache in Redis, if not as its configuration says.
    type: dict
    suboptions:
      addr:
        description: Its address, as V(host:port).
        type: str
      username:
        description: An account of it.
        type: str
      password:
        description: Its password.
        type: str
      db:
        description: Number of the registry's database.
        type: int
  upload_age:
    description: Hours without a sign of life after which an upload is abandoned.
    type: float
    default: 168
  damaged:
    description:
      - Digests of blobs whose content is wrong and in the way (C(in_the_way) of
        RV(homelab.registry.registry_info#module:verify)). They are hashed, and removed unless they are right, so that
        M(homelab.registry.image_mirror) or a push can bring them again.
      - With any digest here the caches are dropped in any case, so that the server knows again what it has.
    type: list
    elements: str
    default: []
  state_dir:
    description: Directory for the marker of a run that is under way, and for the lock.
    type: path
    default: /var/lib/homelab-registry
"""

EXAMPLES = r"""
- name: What would be removed
  homelab.registry.registry_gc:
    url: http://localhost:5000
  check_mode: true
  diff: true

- name: Free the space of deleted images
  homelab.registry.registry_gc:
    url: https://registry.home.lan:5000
    ca_path: /etc/docker/certs.d/registry.home.lan:5000/ca.crt
    username: janitor
    password: "{{ vault_registry_janitor }}"
"""

RETURN = r"""
blobs:
  description: Number of blobs that were removed, or in check mode would be; likewise below.
  returned: success
  type: int
freed:
  description: Bytes that were freed, with uploads; null if it cannot be known (object stores, check mode).
  returned: success
  type: int
uploads:
  description: Abandoned uploads that were removed.
  returned: success
  type: list
  elements: str
repositories:
  description: Empty repositories that were removed.
  returned: success
  type: list
  elements: str
repaired:
  description: Links of manifests and blobs that were lost in a crash or a bad backup, and that were written anew.
  returned: success
  type: list
  elements: str
damaged:
  description: Digests of damaged blobs that were removed.
  returned: success
  type: list
  elements: str
left:
  description: What was to be removed and was not, with the reason.
  returned: success
  type: list
  elements: str
findings:
  description: What else is wrong with the registry's directory tree.
  returned: success
  type: list
  elements: str
damages:
  description: Images that are not whole, with what is wrong with each.
  returned: success
  type: list
  elements: dict
verified:
  description: Number of tags that were verified afterwards; null if there was nothing to do.
  returned: success
  type: int
recovered:
  description: What an earlier run that was cut off had left, null if there was none.
  returned: success
  type: dict
read_only_seconds:
  description: How long writes were refused.
  returned: success
  type: float
unreachable_seconds:
  description: How long the registry did not answer at all, in the two restarts.
  returned: success
  type: float
longest_gap_seconds:
  description: The longest of these times at one go.
  returned: success
  type: float
summary:
  description: The same in words.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils import arguments, lock
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.report.gc import gc_summary
from ansible_collections.homelab.registry.plugins.module_utils.storage.maintenance import collect


def run(module):
    params = module.params
    settings = {
        "host": {key: params[key] for key in arguments.container()},
        "access": {key: params[key] for key in ("url", *arguments.access())},
        "state_dir": params["state_dir"],
        "upload_age": params["upload_age"],
        "damaged": params["damaged"],
    }
    if module.check_mode:
        return collect(**settings, check=True)
    with lock.hold(f"{params['state_dir']}/lock", exclusive=True, verb="registry_gc"):
        return collect(**settings)


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            **arguments.access(),
            **arguments.container(),
            "upload_age": {"type": "float", "default": 168},
            "damaged": {"type": "list", "elements": "str", "default": []},
            "state_dir": {"type": "path", "default": "/var/lib/homelab-registry"},
        },
        required_together=[("username", "password"), ("client_cert", "client_key")],
        supports_check_mode=True,
    )
    try:
        report = run(module)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    result = report.as_dict()
    for one in [*report.left, *report.findings]:
        module.warn(one)
    module.exit_json(**result, summary=gc_summary(result), diff=report.diff())


if __name__ == "__main__":
    main()
