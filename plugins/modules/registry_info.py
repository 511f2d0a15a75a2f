#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_info
short_description: What a registry holds, what it takes, and whether every image is whole
version_added: 0.1.0
description:
  - Lists repositories and tags with their sizes, and the space they take.
  - With O(verify) it checks every tag, its manifest, its platforms and their blobs, and names each image that is not
    whole, with what is missing and whether a mirror run can heal it.
  - Reads the registry's directory where it is at hand, which is much faster and also shows manifests without a tag,
    times of pushes and garbage; elsewhere it asks the registry's API.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
  - homelab.registry.access
attributes:
  check_mode:
    support: full
    details:
      - It changes nothing.
  diff_mode:
    support: none
    details:
      - There is no difference to show.
  idempotent:
    support: full
options:
  url:
    description: The registry, as V(http://host:port) or V(https://host:port). Needed where O(data_path) is not there.
    type: str
  username:
    description: An account that may read everything. Without one O(docker_config) is asked.
    type: str
  docker_config:
    description: A Docker C(config.json) with the account, by default that of the user.
    type: path
  data_path:
    description:
      - The server's root directory (C(rootdirectory)) on the machine the module runs on. If no registry is in it that
        can be read, O(url) is asked instead; the result RV(source) says which it was.
    type: path
  contents:
    description: Whether to list repositories and tags. Over the API this reads every manifest.
    type: bool
    default: true
  verify:
    description: Whether to check that every image is whole.
    type: bool
    default: false
  deep:
    description: Whether to read and hash every byte for O(verify), which also finds wrong content of the right size.
    type: bool
    default: false
  state_path:
    description: Memory of the mirror runs into this registry, to tell which images they can heal. See
      M(homelab.registry.image_mirror).
    type: path
  state_dir:
    description: Directory of that file, if it has its usual name.
    type: path
requirements:
  - Python 3.9 or newer on the machine it runs on
seealso:
  - module: homelab.registry.image_mirror
"""

EXAMPLES = r"""
- name: What is in the registry
  homelab.registry.registry_info:
    url: http://registry.home.lan:5000
  register: registry

- name: Is everything whole, on the registry's disk
  homelab.registry.registry_info:
    data_path: /srv/registry/data
    contents: false
    verify: true
    deep: true
  register: registry
  failed_when: not registry.verify.whole
"""

RETURN = r"""
source:
  description: Where it was read, the directory or the address.
  returned: success
  type: str
  sample: /srv/registry/data
repositories:
  description:
    - Repositories with their tags. Sizes are bytes, each digest counted once; C(exclusive) is what no other repository
      needs. C(pushed) is null over the API.
  returned: if O(contents)
  type: list
  elements: dict
  sample: [{"name": "team/app", "tags": [{"name": "v1", "digest": "sha256:…", "media_type":
    "application/vnd.oci.image.index.v1+json", "size": 31457280, "pushed": "2026-11-24T08:00:00Z", "created": null}],
    "manifests": 3, "size": 31457280, "exclusive": 1048576}]
usage:
  description:
    - What the registry takes, in bytes. C(unreferenced) is what garbage collection would free, C(uploads) what
      unfinished uploads take, C(file_system) is that of the directory, with C(percent).
  returned: if O(contents), and the directory was read
  type: dict
  sample: {"blobs": 812, "stored": 9663676416, "shared": 734003200, "unreferenced": 0, "uploads": 0, "empty": [],
    "file_system": {"total": 107374182400, "used": 53687091200, "free": 53687091200, "percent": 50.0}}
verify:
  description:
    - The check. C(whole) is whether no image is damaged, and nothing kept the check from seeing all of them.
    - C(damages) has one entry for each damaged image, with C(flaws), C(digests) (what is wrong or missing),
      C(in_the_way) (wrong content that has to be removed before it can be pushed again) and C(healable).
    - C(read) is bytes that were hashed; C(findings) is what else is wrong with the directory.
  returned: if O(verify)
  type: dict
  sample: {"whole": true, "tags": 31, "manifests": 40, "blobs": 97, "read": 0, "damages": [], "findings": []}
"""

from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils import arguments
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.run import (
    host_of,
    open_target,
    state_path_of,
    target_of,
)
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.state import mirrored_names
from ansible_collections.homelab.registry.plugins.module_utils.report.contents import contents
from ansible_collections.homelab.registry.plugins.module_utils.retention import read_api
from ansible_collections.homelab.registry.plugins.module_utils.storage import look, tree
from ansible_collections.homelab.registry.plugins.module_utils.storage.usage import usage


def run(params):
    on_disk = look.at_hand(params["data_path"])
    result = {"changed": False, "source": params["data_path"] if on_disk else target_of(params).url}
    if params["contents"] and on_disk:
        seen = tree.Tree(params["data_path"])
        taken = usage(seen)
        result["repositories"] = contents(tree.read_inventory(seen, created=True))
        result["usage"] = {key: value for key, value in taken.as_dict().items() if key != "repositories"}
        result["usage"]["file_system"]["percent"] = round(taken.file_system.percent, 1)
    elif params["contents"]:
        result["repositories"] = contents(read_api.read_inventory(open_target(params)))
    if params["verify"]:
        known = mirrored_names(state_path_of(params), host_of(target_of(params))) if params["url"] else ()
        report, _source = look.verify_anywhere(
            params["data_path"], partial(open_target, params), deep=params["deep"], mirrored=known
        )
        result["verify"] = report.as_dict()
    return result


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str"},
            **arguments.access(),
            "docker_config": {"type": "path"},
            "data_path": {"type": "path"},
            "contents": {"type": "bool", "default": True},
            "verify": {"type": "bool", "default": False},
            "deep": {"type": "bool", "default": False},
            "state_path": {"type": "path"},
            "state_dir": {"type": "path"},
        },
        required_one_of=[("url", "data_path")],
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    try:
        result = run(module.params)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
